//! Calls, broadcasts, reductions and moves of the elements of a dense array and of a singleton.

use super::*;
use crate::reduction::{Gather, Sum};

const LEAVES: usize = 5;
const ROUNDS: u64 = 4;
const STEPS: usize = 40;

#[derive(Default)]
struct Log {
    everyone: Option<Everyone>,
    /// How often each call has arrived.
    calls: Vec<u32>,
    /// Broadcasts that were sent.
    broadcasts: usize,
    /// What each leaf has heard.
    heard: [Vec<usize>; LEAVES],
    moves: usize,
}

#[derive(Clone)]
struct Everyone {
    leaves: Array<Leaf>,
    nomad: Element<Nomad>,
    echo: Group<Echo>,
    sums: Vec<Promise<Vec<(usize, u64)>>>,
}

impl World<Log> {
    fn everyone(&self) -> Everyone {
        self.log().everyone.clone().expect("it is noted before anybody is called")
    }

    /// A call, noted.
    fn call(&self) -> usize {
        let calls = &mut self.log().calls;
        calls.push(0);
        calls.len() - 1
    }

    fn arrive(&self, call: usize) {
        self.log().calls[call] += 1;
    }

    fn broadcast(&self) -> usize {
        let sent = &mut self.log().broadcasts;
        *sent += 1;
        *sent - 1
    }

    fn hear(&self, leaf: usize, broadcast: usize) {
        self.log().heard[leaf].push(broadcast);
    }

    fn has_reached_all(&self, broadcast: usize) {
        let log = self.log();
        assert!(log.heard.iter().all(|heard| heard.contains(&broadcast)), "an awaited one has reached all");
    }

    fn leaf(&self) -> Element<Leaf> {
        self.everyone().leaves.at(self.below(LEAVES))
    }

    /// Does something that nobody waits for.
    fn act(&self, rt: &Runtime) {
        let Everyone { leaves, nomad, .. } = self.everyone();
        let pe = self.below(rt.num_pes());
        match self.below(12) {
            0 | 1 => self.leaf().take(self.call()).send(),
            2 => self.leaf().take_slowly(self.call()).send(),
            3 => self.leaf().take_alone(self.call()).send(),
            4 => self.leaf().take(self.call()).priority(self.below(100) as i32 - 50).send(),
            5 => nomad.take(self.call()).send(),
            6 => nomad.migrate(pe).send(),
            7 => leaves.hear(self.broadcast()).send(),
            8 => match self.below(2) {
                0 => leaves.hear_slowly(self.broadcast()).send(),
                _ => leaves.hear_alone(self.broadcast()).send(),
            },
            _ => self.leaf().migrate(pe).send(),
        }
    }

    fn perhaps_act(&self, rt: &Runtime) {
        if self.has_whim() {
            self.act(rt);
        }
    }

    /// As `act`, to be awaited.
    fn start(&self, rt: &Runtime) -> Later {
        let world = self.clone();
        let leaves = self.everyone().leaves;
        let (leaf, pe) = (self.leaf(), self.below(rt.num_pes()));
        match self.below(6) {
            0 => {
                let call = self.call();
                let taken = leaf.take(call).future();
                Box::pin(async move {
                    assert_eq!(taken.await?, call);
                    assert_eq!(world.log().calls[call], 1, "an awaited call has arrived");
                    Ok(())
                })
            }
            1 => {
                let moved = leaf.migrate(pe).future();
                Box::pin(async move { Ok(moved.await?) })
            }
            2 => {
                let sent = self.broadcast();
                let heard = leaves.hear(sent).gather();
                Box::pin(async move {
                    assert_eq!(heard.await?, [0, 1, 2, 3, 4]);
                    world.has_reached_all(sent);
                    Ok(())
                })
            }
            kind => {
                let sent = self.broadcast();
                let heard = match kind {
                    3 => leaves.hear(sent).future(),
                    4 => leaves.hear_slowly(sent).future(),
                    _ => leaves.hear_alone(sent).future(),
                };
                Box::pin(async move {
                    heard.await?;
                    world.has_reached_all(sent);
                    Ok(())
                })
            }
        }
    }
}

struct Echo;

#[chare]
impl Echo {
    fn new() -> Self {
        Echo
    }

    #[entry]
    fn back(&self) {}
}

/// A singleton that moves.
struct Nomad(World<Log>);

#[chare]
impl Nomad {
    fn new(world: World<Log>) -> Self {
        Nomad(world)
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.0.perhaps_act(cx);
    }

    #[entry]
    fn take(&mut self, cx: &Cx<Self>, call: usize) {
        self.0.arrive(call);
        self.0.perhaps_act(cx);
    }
}

struct Leaf {
    world: World<Log>,
    given: u64,
}

#[chare(index = usize)]
impl Leaf {
    fn new(world: World<Log>) -> Self {
        Leaf { world, given: 0 }
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.world.log().moves += 1;
        self.world.perhaps_act(cx);
    }

    #[entry]
    fn take(&mut self, cx: &Cx<Self>, call: usize) -> usize {
        self.world.arrive(call);
        self.world.perhaps_act(cx);
        call
    }

    #[entry]
    async fn take_slowly(this: This<Self>, call: usize) -> Result<()> {
        let world = this.with(|s| s.world.clone());
        world.everyone().echo.on(world.below(this.num_pes())).back().await?;
        world.arrive(call);
        world.perhaps_act(&this);
        world.everyone().echo.on(this.my_pe()).back().await?;
        Ok(())
    }

    #[entry]
    async fn take_alone(&mut self, cx: &Cx<Self>, call: usize) -> Result<()> {
        self.world.arrive(call);
        self.world.everyone().echo.on(self.world.below(cx.num_pes())).back().await?;
        if self.world.once_in(2) {
            cx.this().migrate(self.world.below(cx.num_pes())).await?;
        }
        self.world.perhaps_act(cx);
        Ok(())
    }

    #[entry]
    fn hear(&mut self, cx: &Cx<Self>, broadcast: usize) -> usize {
        self.world.hear(cx.index(), broadcast);
        self.world.perhaps_act(cx);
        cx.index()
    }

    #[entry]
    async fn hear_slowly(this: This<Self>, broadcast: usize) -> Result<()> {
        let world = this.with(|s| s.world.clone());
        world.hear(this.index(), broadcast);
        world.everyone().echo.on(world.below(this.num_pes())).back().await?;
        world.perhaps_act(&this);
        Ok(())
    }

    #[entry]
    async fn hear_alone(&mut self, cx: &Cx<Self>, broadcast: usize) -> Result<()> {
        self.world.hear(cx.index(), broadcast);
        if self.world.once_in(2) {
            cx.this().migrate(self.world.below(cx.num_pes())).send();
        }
        self.world.everyone().echo.on(self.world.below(cx.num_pes())).back().await?;
        Ok(())
    }

    /// Contributes to its next reduction; every other one is for all elements.
    #[entry]
    async fn give(this: This<Self>) -> Result<()> {
        let world = this.with(|s| s.world.clone());
        let round = this.with(|s| s.given);
        this.with(|s| s.given += 1);
        if round.is_multiple_of(2) {
            let to = world.everyone().sums[round as usize].clone();
            this.contribute((this.index(), round), Gather, to);
        } else {
            let (count, indexes) = this.allreduce((1, 1 << this.index()), (Sum, Sum)).await?;
            assert_eq!((count, indexes), (LEAVES, (1 << LEAVES) - 1), "each is counted once");
        }
        world.perhaps_act(&this);
        Ok(())
    }
}

async fn main(rt: Runtime, world: World<Log>) -> Result<()> {
    let echo = rt.group::<Echo>().create(()).send();
    let nomad = rt.single::<Nomad>().create(world.clone()).send();
    let leaves = rt.array::<Leaf>(LEAVES).create(world.clone()).send();
    let (sums, results): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| rt.promise()).unzip();
    world.log().everyone = Some(Everyone { leaves, nomad, echo, sums });
    let mut missing: Vec<usize> = (0..LEAVES * ROUNDS as usize).map(|number| number % LEAVES).collect();
    let mut laters = Vec::new();
    while laters.len() < STEPS || !missing.is_empty() {
        match world.below(4) {
            0 => world.act(&rt),
            1 if !missing.is_empty() => {
                let leaf = missing.swap_remove(world.below(missing.len()));
                leaves.at(leaf).give().send();
            }
            1 => laters.push(Box::pin(async { Ok(()) }) as Later),
            2 => laters.push(world.start(&rt)),
            _ => await_any(&world, &mut laters).await?,
        }
        if world.once_in(STEPS) {
            break;
        }
    }
    for leaf in missing {
        leaves.at(leaf).give().send();
    }
    while !laters.is_empty() {
        await_any(&world, &mut laters).await?;
    }
    for (round, result) in (0_u64..).zip(results) {
        if round.is_multiple_of(2) {
            assert_eq!(result.await?, (0..LEAVES).map(|leaf| (leaf, round)).collect::<Vec<_>>());
        }
    }
    rt.quiescence().await?;
    let log = world.log();
    assert!(log.calls.iter().all(|arrivals| *arrivals == 1), "each call arrives once: {:?}", log.calls);
    assert!(log.heard.iter().all(|heard| *heard == log.heard[0]), "they are heard in one order");
    let mut heard = log.heard[0].clone();
    heard.sort_unstable();
    assert_eq!(heard, (0..log.broadcasts).collect::<Vec<_>>(), "each broadcast reaches all once");
    Ok(())
}

#[test]
fn dense_arrays_keep_their_promises() {
    for order in [Order::Inbox, Order::Pair] {
        check(order, 250, 60, main);
    }
}

#[test]
fn dense_arrays_keep_their_promises_without_any_order() {
    check(Order::Chaos, 250, 60, main);
}

#[test]
fn shuttle_finds_no_order_that_breaks_a_dense_array() {
    check_shuttled(150, 60, main);
}
