//! An element that has moved more than 2^32 times: no call is lost where the count in its header is full.

use super::*;
use crate::current;

struct Nomad;

#[chare(index = usize)]
impl Nomad {
    fn new() -> Self {
        Nomad
    }

    #[entry]
    fn age(&self, cx: &Cx<Self>) {
        current::on_pe("aging", |pe| pe.find(cx.this().id()).expect("it runs here").age());
    }

    #[entry]
    fn epoch(&self, cx: &Cx<Self>) -> u64 {
        current::on_pe("the epoch", |pe| pe.find(cx.this().id()).expect("it runs here").epoch())
    }
}

async fn main(rt: Runtime, world: World<()>) -> Result<()> {
    let nomad = rt.array::<Nomad>(1).create(()).await?.at(0);
    nomad.age().await?;
    let mut epochs = vec![nomad.epoch().await?];
    for _ in 0..6 {
        let to = world.below(rt.num_pes());
        let called = nomad.epoch().future();
        nomad.migrate(to).await?;
        called.await?;
        epochs.push(nomad.epoch().await?);
    }
    assert!(epochs.is_sorted() && epochs[6] - epochs[0] <= 6, "an epoch for each move: {epochs:?}");
    nomad.migrate((world.below(rt.num_pes() - 1) + 1) % rt.num_pes()).await?;
    Ok(())
}

#[test]
fn moves_beyond_what_the_header_counts() {
    for order in [Order::Inbox, Order::Pair, Order::Chaos] {
        check(order, 30, 0, main);
    }
}
