//! Messages for chares that have moved: each follows newer places only, and who has been told sends to the right one.

use super::*;
use crate::current;
use crate::message::Msg;
use crate::scheduler::pe::Pe;

/// The way that a message has come.
#[derive(Clone, Copy)]
pub(crate) struct Trail {
    /// How often it has left a PE.
    hops: u32,
    /// The epoch of the record that it has followed last.
    epoch: Option<u64>,
    /// A record that it has followed was not newer than one before.
    pub(crate) goes_back: bool,
}

impl Trail {
    pub(crate) const NEW: Trail = Trail { hops: 0, epoch: None, goes_back: false };

    /// It leaves a PE for its chare, by a record of this epoch if there is one.
    pub(crate) fn follow(&mut self, epoch: Option<u64>) {
        self.hops += 1;
        if epoch.is_some() {
            self.goes_back |= std::mem::replace(&mut self.epoch, epoch) >= epoch;
        }
    }
}

impl Pe {
    /// Notes that a message leaves this PE, by what is known here.
    pub(crate) fn note_trail(&self, msg: &mut Msg) {
        let record = self.locations.find(msg.head().to);
        msg.follow(record.map(|record| record.place.epoch));
        let is_forwarded = msg.head().reply.trail.hops > 1;
        self.locations.forwards.set(self.locations.forwards.get() + u64::from(is_forwarded));
    }
}

/// How a chare is called.
const KINDS: usize = 5;
const ROUNDS: usize = 12;
const MOVES: usize = 3;

struct Nomad;

#[chare(index = usize)]
impl Nomad {
    fn new() -> Self {
        Nomad
    }

    #[entry]
    fn take(&self) {}
}

/// One on each PE; calls, or lets the chare move.
struct Caller;

#[chare]
impl Caller {
    fn new() -> Self {
        Caller
    }

    #[entry]
    async fn visit(&self, cx: &Cx<Self>, to: Element<Nomad>, kind: usize) -> Result<()> {
        match kind {
            0 => to.take().send(),
            1 => to.take().await?,
            2 => to.take().priority(7).send(),
            3 => to.take().expedited().await?,
            _ => {
                let (promise, taken) = cx.promise();
                to.take().to(promise);
                taken.await?;
            }
        }
        Ok(())
    }

    #[entry]
    async fn lead(&self, who: Element<Nomad>, to: usize) -> Result<()> {
        Ok(who.migrate(to).await?)
    }

    #[entry]
    fn forwards(&self) -> u64 {
        current::on_pe("a count", |pe| pe.locations.forwards.get())
    }
}

/// One PE calls; the chare moves among the others.
async fn main(rt: Runtime, world: World<()>) -> Result<()> {
    let count = rt.num_pes();
    let caller = world.below(count);
    let others: Vec<usize> = (0..count).filter(|&pe| pe != caller).collect();
    let [home, ..] = others[..] else { return Err("there are two PEs at least".into()) };
    let callers = rt.group::<Caller>().create(()).await?;
    // One element on each PE at first.
    let nomad = rt.array::<Nomad>(count).create(()).await?.at(home);
    let mut believed = home;
    let mut place = home;
    for _ in 0..ROUNDS {
        let mut moves = 0;
        for _ in 0..1 + world.below(MOVES) {
            let to = others[world.below(others.len())];
            moves += u64::from(to != place);
            place = to;
            // Not from here, which may be where the caller is: it would be told.
            callers.on(home).lead(nomad, to).await?;
        }
        rt.quiescence().await?;
        let kind = world.below(KINDS);
        let mut counts = Vec::new();
        for _ in 0..2 {
            let before: u64 = callers.forwards().gather().await?.into_iter().sum();
            callers.on(caller).visit(nomad, kind).await?;
            rt.quiescence().await?;
            let after: u64 = callers.forwards().gather().await?.into_iter().sum();
            counts.push(after - before);
        }
        let [first, second] = counts[..] else { unreachable!("two were counted") };
        let is_right = believed == place;
        assert!(
            (first == 0) == is_right && first <= moves,
            "kind {kind}: {first} forwards after {moves} moves"
        );
        assert_eq!(second, 0, "kind {kind}: the caller has been told");
        believed = place;
    }
    Ok(())
}

#[test]
fn who_has_been_told_sends_to_the_right_place() {
    for order in [Order::Inbox, Order::Pair, Order::Chaos] {
        check(order, 200, 0, main);
    }
}

#[test]
fn shuttle_finds_no_order_in_which_nobody_is_told() {
    check_shuttled(50, 0, main);
}
