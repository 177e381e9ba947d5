//! Channels between elements that are destroyed and inserted again, while both ends move.

use super::*;

/// Keys of the two.
const PAIR: [usize; 2] = [3, 5];
const TAG: u64 = 1;
const ROUNDS: u64 = 6;
/// More than the credit of a channel.
const VALUES: u64 = 40;

struct Twin {
    world: World<()>,
}

impl World<()> {
    fn drift(&self, cx: &Cx<Twin>) {
        if self.once_in(6) {
            cx.this().migrate(self.below(cx.num_pes())).send();
        }
    }
}

#[chare(index = usize)]
impl Twin {
    fn new(world: World<()>) -> Self {
        Twin { world }
    }

    /// Sends numbers of this round.
    #[entry]
    async fn talk(this: This<Self>, to: Element<Twin>, round: u64) {
        let world = this.with(|s| s.world.clone());
        let channel = this.channel::<(u64, u64), _>(&to, TAG);
        for number in 0..VALUES {
            channel.reserve().await.send((round, number));
            world.drift(&this);
        }
    }

    /// Takes them in order.
    #[entry]
    async fn listen(
        this: This<Self>,
        from: Element<Twin>,
        round: u64,
        numbers: std::ops::Range<u64>,
    ) -> Result<()> {
        let world = this.with(|s| s.world.clone());
        let channel = this.channel::<(u64, u64), _>(&from, TAG);
        for number in numbers {
            assert_eq!(channel.recv().await?, (round, number), "values come in order, each once");
            world.drift(&this);
        }
        Ok(())
    }
}

/// In each round both talk to each other, and one of them may leave some of what has come for later. Then one of them, or
/// both, are other elements. All has arrived by then: those who move may hear late of an end.
async fn main(rt: Runtime, world: World<()>) -> Result<()> {
    let twins = rt.array_sparse::<Twin>().create_empty();
    let pair = PAIR.map(|key| twins.at(key));
    for key in PAIR {
        twins.insert(key, world.clone()).on_pe(world.below(rt.num_pes())).await?;
    }
    for round in 0..ROUNDS {
        let later = if world.once_in(2) { world.below(10) as u64 } else { 0 };
        let goes = world.below(2);
        let (stays, gone) = (pair[1 - goes], pair[goes]);
        let (talked, answered) = (stays.talk(gone, round).future(), gone.talk(stays, round).future());
        let listened = gone.listen(stays, round, 0..VALUES).future();
        stays.listen(gone, round, 0..VALUES - later).await?;
        listened.await?;
        talked.await?;
        answered.await?;
        rt.quiescence().await?;
        gone.destroy().await?;
        stays.listen(gone, round, VALUES - later..VALUES).await?;
        if world.once_in(3) {
            rt.quiescence().await?;
            stays.destroy().await?;
            twins.insert(stays.index(), world.clone()).on_pe(world.below(rt.num_pes())).await?;
        }
        twins.insert(gone.index(), world.clone()).on_pe(world.below(rt.num_pes())).await?;
        rt.quiescence().await?;
    }
    Ok(())
}

#[test]
fn channels_of_elements_that_come_again_are_fresh() {
    for order in [Order::Inbox, Order::Pair] {
        check(order, 100, 0, main);
    }
}

#[test]
fn shuttle_finds_no_order_that_breaks_a_channel_of_such_elements() {
    check_shuttled(50, 0, main);
}
