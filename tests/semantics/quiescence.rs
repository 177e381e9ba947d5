//! Quiescence: awaited from anywhere, often and by many, and never seen before the last message has been handled.

use std::time::Duration;

use chare::prelude::*;

#[derive(Default)]
struct Node {
    hops: u64,
}

fn scramble(number: u64) -> u64 {
    let mixed = (number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32
}

/// The children of a message in a random tree.
fn children(seed: u64, depth: u32) -> impl Iterator<Item = u64> {
    let count = if depth == 0 { 0 } else { scramble(seed) % 4 };
    (0..count).map(move |child| seed * 4 + child + 1)
}

/// How many messages the tree has.
fn tree_size(seed: u64, depth: u32) -> u64 {
    1 + children(seed, depth).map(|child| tree_size(child, depth - 1)).sum::<u64>()
}

#[chare(index = usize)]
impl Node {
    fn new() -> Self {
        Node::default()
    }

    #[entry]
    fn pass_on(&mut self, cx: &Cx<Self>, left: u64) {
        self.hops += 1;
        if left > 0 {
            let next = (cx.index() + 1) % cx.array().shape();
            cx.array().at(next).pass_on(left - 1).send();
        }
    }

    #[entry]
    fn fan_out(&mut self, cx: &Cx<Self>, seed: u64, depth: u32) {
        self.hops += 1;
        for child in children(seed, depth) {
            let to = scramble(child) as usize % cx.array().shape();
            if child % 3 == 0 {
                cx.array().at(to).fan_out_slowly(child, depth - 1).send();
            } else {
                cx.array().at(to).fan_out(child, depth - 1).send();
            }
        }
    }

    /// As `fan_out`, with a wait before.
    #[entry]
    async fn fan_out_slowly(this: This<Self>, seed: u64, depth: u32) -> Result<()> {
        let other = this.array().at(scramble(seed) as usize % this.array().shape());
        other.hops().await?;
        this.this().fan_out(seed, depth).send();
        Ok(())
    }

    #[entry]
    fn hops(&self) -> u64 {
        self.hops
    }

    /// Starts a ring, and sees that it has ended.
    #[entry]
    async fn wait_for_ring(this: This<Self>, length: u64) -> Result<u64> {
        this.this().pass_on(length - 1).send();
        this.quiescence().await?;
        Ok(this.array().hops().gather().await?.iter().sum())
    }

    #[entry]
    async fn wait_for_ever(this: This<Self>) {
        this.wait_until(|node| node.hops == u64::MAX).await;
    }

    #[entry]
    async fn sleep_for_a_day(this: This<Self>) {
        this.sleep(Duration::from_secs(86_400)).await;
    }

    #[entry]
    async fn hold_for_ever(&self, cx: &Cx<Self>) {
        let (_promise, never) = cx.promise::<()>();
        never.await.expect_err("it is not fulfilled");
    }
}

async fn nodes(rt: &Runtime) -> Result<Array<Node>> {
    Ok(rt.array::<Node>(3 * rt.num_pes() + 1).create(()).await?)
}

async fn total(nodes: Array<Node>) -> Result<u64> {
    Ok(nodes.hops().gather().await?.iter().sum())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_ring_of_messages_is_waited_for(rt: Runtime) -> Result<()> {
    let nodes = nodes(&rt).await?;
    for round in 1..=20 {
        nodes.at(0).pass_on(499).send();
        rt.quiescence().await?;
        assert_eq!(total(nodes).await?, round * 500);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn it_is_never_seen_too_early(rt: Runtime) -> Result<()> {
    let nodes = nodes(&rt).await?;
    let mut expected = 0;
    for seed in 0..60 {
        nodes.at(seed as usize % nodes.shape()).fan_out(seed, 9).send();
        expected += tree_size(seed, 9);
        rt.quiescence().await?;
        assert_eq!(total(nodes).await?, expected, "after tree {seed}");
    }
    assert!(expected > 1000);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn it_comes_at_once_when_nothing_runs(rt: Runtime) -> Result<()> {
    for _ in 0..200 {
        rt.quiescence().await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn many_wait_for_it_on_all_pes(rt: Runtime) -> Result<()> {
    let nodes = nodes(&rt).await?;
    let seen = nodes.wait_for_ring(100).gather().await?;
    let count = nodes.element_count();
    assert_eq!(seen, vec![count * 100; count as usize]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_waits_does_not_prevent_it(rt: Runtime) -> Result<()> {
    let (stuck, moving) = (nodes(&rt).await?, nodes(&rt).await?);
    stuck.wait_for_ever().send();
    stuck.sleep_for_a_day().send();
    stuck.hold_for_ever().send();
    stuck.pass_on(0).send();
    for round in 1..4 {
        moving.at(0).pass_on(9).send();
        rt.quiescence().await?;
        assert_eq!(total(moving).await?, 10 * round);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn waiting_for_it_may_be_given_up(rt: Runtime) -> Result<()> {
    let nodes = nodes(&rt).await?;
    nodes.at(0).pass_on(1000).send();
    let mut given_up = Box::pin(rt.quiescence());
    let polled =
        std::future::poll_fn(|context| std::task::Poll::Ready(given_up.as_mut().poll(context))).await;
    assert!(polled.is_pending());
    drop(given_up);
    rt.quiescence().await?;
    assert_eq!(total(nodes).await?, 1001);
    Ok(())
}

/// Quiescence is asked for on every PE, and given up.
#[chare::test(pes = [1, 2, 4, 8])]
async fn a_wait_for_quiescence_that_is_given_up_is_forgotten(rt: Runtime) -> Result<()> {
    let askers = rt.group::<Asker>().create(()).await?;
    askers.ask_and_give_up().await?;
    rt.quiescence().await?;
    // Nobody is left whom it could be told, so what waits for ever after it hangs.
    let inner = super::run(1, async |rt: Runtime| {
        let mut wait = Box::pin(rt.quiescence());
        assert!(futures::poll!(&mut wait).is_pending());
        drop(wait);
        let (_promise, never) = rt.promise::<()>();
        Result::<()>::Ok(never.await?)
    });
    assert_eq!(inner.code(), chare::HANG_EXIT_CODE, "{inner}");
    Ok(())
}

struct Asker;

#[chare]
impl Asker {
    fn new() -> Self {
        Asker
    }

    #[entry]
    async fn ask_and_give_up(this: This<Self>) {
        for _ in 0..1000 {
            let mut wait = Box::pin(this.quiescence());
            assert!(futures::poll!(&mut wait).is_pending());
        }
    }
}
