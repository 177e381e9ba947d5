//! Channels whose two ends move, and chares that panic, are destroyed or pinned while they are talked to.

use super::*;
use crate::ChannelError;

const TALKERS: usize = 5;
/// More than the credit of a channel.
const VALUES: u64 = 90;
const STEPS: usize = 30;

#[derive(Default)]
struct Log {
    /// Whether `SENDER` is to be destroyed.
    is_sender_doomed: bool,
    /// Whether `FRAGILE` is to panic.
    is_fragile_doomed: bool,
}

/// A talker that only sends, and may be destroyed meanwhile.
const SENDER: usize = 0;
/// A talker that may be pinned.
const PINNED: usize = 1;
/// One that has no channels, and may panic.
const FRAGILE: usize = 4;

struct Talker {
    world: World<Log>,
    heard: u64,
}

impl World<Log> {
    /// The others are moved by main, which bears it if they cannot be.
    fn drift(&self, cx: &Cx<Talker>) {
        if ![SENDER, PINNED, FRAGILE].contains(&cx.index()) && self.once_in(8) {
            cx.this().migrate(self.below(cx.num_pes())).send();
        }
    }
}

#[chare(index = usize)]
impl Talker {
    fn new(world: World<Log>) -> Self {
        Talker { world, heard: 0 }
    }

    /// Sends numbers, and moves while it waits for credit.
    #[entry]
    async fn talk(this: This<Self>, to: usize, tag: u64) -> Result<()> {
        let world = this.with(|s| s.world.clone());
        let channel = this.channel::<(u64, World<Log>), _>(&this.array().at(to), tag);
        for number in 0..VALUES {
            if world.once_in(2) {
                channel.reserve().await.send((number, world.clone()));
            } else {
                channel.send((number, world.clone())).expect("the backlog holds more");
            }
            world.drift(&this);
        }
        Ok(())
    }

    /// Takes them in order; ends early, and well, if the sender is gone.
    #[entry]
    async fn listen(this: This<Self>, from: usize, tag: u64) -> Result<()> {
        let world = this.with(|s| s.world.clone());
        let channel = this.channel::<(u64, World<Log>), _>(&this.array().at(from), tag);
        for expected in 0..VALUES {
            let received = match channel.try_recv() {
                Ok(Some(value)) => Ok(value),
                Ok(None) => channel.recv().await,
                Err(error) => Err(error),
            };
            match received {
                Ok((number, _)) => assert_eq!(number, expected, "values come in order"),
                Err(ChannelError::Peer(_)) if from == SENDER && world.log().is_sender_doomed => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            this.with(|s| s.heard += 1);
            world.drift(&this);
        }
        Ok(())
    }

    #[entry]
    fn fail(&self) {
        panic!("as asked");
    }

    #[entry]
    fn pin(&self, cx: &Cx<Self>) {
        cx.set_migratable(false);
    }

    /// Looks at those that are on the same PE; says whether it has seen itself, whose method is running.
    #[entry]
    fn look(&self, cx: &Cx<Self>) -> bool {
        let look = |other: usize| cx.array().at(other).local(|talker| assert!(talker.heard <= 3 * VALUES));
        let seen = (0..TALKERS).map(look).collect::<Vec<_>>();
        seen[cx.index()] != Err(crate::NotLocal::Busy)
    }
}

/// Moves, looks and ends that may come when the talker is pinned, poisoned or gone.
fn tolerated<V>(world: &World<Log>, talker: usize, outcome: Result<V, CallError>) -> Result<()> {
    match outcome {
        Err(CallError::Refused(_)) if talker == PINNED => Ok(()),
        Err(_) if talker == SENDER && world.log().is_sender_doomed => Ok(()),
        Err(CallError::Poisoned(_) | CallError::Panicked(_)) if talker == FRAGILE => {
            assert!(world.log().is_fragile_doomed);
            Ok(())
        }
        outcome => Ok(outcome.map(|_| ())?),
    }
}

async fn main(rt: Runtime, world: World<Log>) -> Result<()> {
    let talkers = rt.array::<Talker>(TALKERS).create(world.clone()).send();
    let mut laters = Vec::new();
    for (tag, (from, to)) in (0..).zip([(SENDER, PINNED), (2, 3), (3, 2), (PINNED, 3), (3, PINNED)]) {
        let (talked, listened) =
            (talkers.at(from).talk(to, tag).future(), talkers.at(to).listen(from, tag).future());
        let its = world.clone();
        laters.push(Box::pin(async move { tolerated(&its, from, talked.await) }) as Later);
        laters.push(Box::pin(async move { Ok(listened.await?) }));
    }
    let (sender_ends_after, fragile_fails_after) = (world.below(2 * STEPS), world.below(2 * STEPS));
    for step in 0..STEPS {
        let talker = talkers.at(world.below(TALKERS));
        let (number, its) = (talker.index(), world.clone());
        match world.below(4) {
            0 => {
                let looked = talker.look().future();
                laters.push(Box::pin(async move {
                    let looked = looked.await;
                    assert!(!matches!(looked, Ok(true)), "a running chare is busy");
                    tolerated(&its, number, looked)
                }));
            }
            1 if world.once_in(5) => talkers.at(PINNED).pin().send(),
            1 => rt.sleep(std::time::Duration::from_millis(1)).await,
            _ => {
                let moved = talker.migrate(world.below(rt.num_pes())).future();
                laters.push(Box::pin(async move { tolerated(&its, number, moved.await) }));
            }
        }
        if step == sender_ends_after {
            world.log().is_sender_doomed = true;
            let ended = talkers.at(SENDER).destroy();
            laters.push(Box::pin(async move { Ok(ended.await?) }));
        }
        if step == fragile_fails_after {
            let (failed, its) = (talkers.at(FRAGILE).fail().future(), world.clone());
            world.log().is_fragile_doomed = true;
            laters.push(Box::pin(async move { tolerated(&its, FRAGILE, failed.await) }));
        }
    }
    while !laters.is_empty() {
        await_any(&world, &mut laters).await?;
    }
    rt.quiescence().await?;
    Ok(())
}

#[test]
fn channels_keep_their_order() {
    for order in [Order::Inbox, Order::Pair, Order::Chaos] {
        check(order, 100, 0, main);
    }
}

#[test]
fn shuttle_finds_no_order_in_which_an_end_leaves_something_behind() {
    check_shuttled(50, 0, main);
}
