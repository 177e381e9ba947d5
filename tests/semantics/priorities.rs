//! Priorities: of what waits on a PE, expedited calls go first, then those of lower priority, equal ones in order of
//! arrival; a call without a priority is in the middle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use chare::Priority;
use chare::prelude::*;

/// Notes what it hears, and can be kept busy meanwhile.
#[derive(Default)]
struct Listener {
    heard: Vec<i64>,
}

#[chare]
impl Listener {
    fn new() -> Self {
        Listener::default()
    }

    /// Keeps its PE busy until it is let go, so that what arrives meanwhile waits.
    #[entry]
    fn keep_busy(&mut self, begun: Promise<()>, go_on: Arc<AtomicBool>) -> Result<()> {
        begun.send(())?;
        while !go_on.load(Ordering::Acquire) {
            thread::yield_now();
        }
        Ok(())
    }

    #[entry]
    fn hear(&mut self, number: i64) -> i64 {
        self.heard.push(number);
        number
    }

    #[entry]
    fn take_heard(&mut self) -> Vec<i64> {
        std::mem::take(&mut self.heard)
    }

    /// Sends to a listener of its own PE, all in one step.
    #[entry]
    fn send_all(&self, to: Element<Listener>, ranks: Vec<Option<i64>>) {
        for rank in ranks {
            send(to, rank);
        }
    }

    #[entry]
    async fn own_it(&mut self, cx: &Cx<Self>, release: chare::PromiseFuture<()>) -> Result<()> {
        let _ = cx;
        Ok(release.await?)
    }
}

/// The number of an expedited call.
const EXPEDITED: i64 = i64::MIN;

fn send(to: Element<Listener>, rank: Option<i64>) {
    match rank {
        None => to.hear(0).send(),
        Some(EXPEDITED) => to.hear(EXPEDITED).expedited().send(),
        Some(rank) => to.hear(rank).priority(rank).send(),
    }
}

const RANKS: [Option<i64>; 12] = [
    Some(3),
    None,
    Some(-1),
    Some(i64::MAX),
    Some(0),
    Some(-7),
    Some(EXPEDITED),
    None,
    Some(3),
    Some(EXPEDITED),
    Some(-7),
    Some(2),
];
const ORDER: [i64; 12] = [EXPEDITED, EXPEDITED, -7, -7, -1, 0, 0, 0, 2, 3, 3, i64::MAX];

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_waits_on_a_pe_goes_by_priority(rt: Runtime) -> Result<()> {
    for pe in rt.pes() {
        let here = rt.single::<Listener>().on_pe(pe).create(()).await?;
        let there = rt.single::<Listener>().on_pe(pe).create(()).await?;
        here.send_all(there, RANKS.to_vec()).await?;
        rt.quiescence().await?;
        assert_eq!(there.take_heard().await?, ORDER);
    }
    Ok(())
}

/// Lets `fill` send while the PE of `listener` is busy.
async fn while_busy(rt: &Runtime, listener: Element<Listener>, fill: impl FnOnce()) -> Result<()> {
    let (begun, has_begun) = rt.promise();
    let go_on = Arc::new(AtomicBool::new(false));
    listener.keep_busy(begun, go_on.clone()).send();
    has_begun.await?;
    fill();
    go_on.store(true, Ordering::Release);
    rt.quiescence().await?;
    Ok(())
}

#[chare::test(pes = [2, 4, 8])]
async fn what_comes_from_another_pe_too(rt: Runtime) -> Result<()> {
    for pe in rt.pes().filter(|&pe| pe != rt.my_pe()) {
        let listener = rt.single::<Listener>().on_pe(pe).create(()).await?;
        while_busy(&rt, listener, || RANKS.into_iter().for_each(|rank| send(listener, rank))).await?;
        assert_eq!(listener.take_heard().await?, ORDER);
    }
    Ok(())
}

#[chare::test(pes = [2, 4, 8])]
async fn what_comes_from_a_thread_too(rt: Runtime) -> Result<()> {
    let listener = rt.single::<Listener>().on_pe(rt.num_pes() - 1).create(()).await?;
    let handle = rt.handle();
    let fill = move || {
        let sender = thread::spawn(move || {
            let _entered = handle.enter();
            RANKS.into_iter().for_each(|rank| send(listener, rank));
        });
        sender.join().expect("nothing panics there");
    };
    while_busy(&rt, listener, fill).await?;
    assert_eq!(listener.take_heard().await?, ORDER);
    Ok(())
}

#[chare::test(pes = [2, 4, 8])]
async fn strings_of_bits_order_a_search_tree(rt: Runtime) -> Result<()> {
    let listener = rt.single::<Listener>().on_pe(rt.num_pes() - 1).create(()).await?;
    let root = Priority::bits([true]);
    let (left, right) = (root.extended(0, 1), root.extended(1, 1));
    let nodes = [(5, right.extended(2, 2)), (4, right.clone()), (1, left.clone()), (2, left.extended(0, 2))];
    let nodes = nodes.into_iter().chain([(3, left.extended(3, 2)), (0, root), (-1, (-1).into())]);
    let fill = || nodes.for_each(|(number, priority)| listener.hear(number).priority(priority).send());
    while_busy(&rt, listener, fill).await?;
    assert_eq!(listener.take_heard().await?, [-1, 0, 1, 2, 3, 4, 5]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn calls_with_a_priority_bring_their_value(rt: Runtime) -> Result<()> {
    let group = rt.group::<Listener>().create(()).await?;
    for pe in rt.pes() {
        assert_eq!(group.on(pe).hear(4).priority(-9).await?, 4);
        assert_eq!(group.on(pe).hear(5).expedited().future().await?, 5);
        let (promise, value) = rt.promise();
        group.on(pe).hear(6).priority(9).to(promise);
        assert_eq!(value.await?, 6);
    }
    let error = group.on(rt.num_pes()).hear(1).priority(1).await.expect_err("there is no such PE");
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_call_that_comes_before_its_chare_waits_for_it(rt: Runtime) -> Result<()> {
    let group = rt.group::<Listener>().create(()).send();
    let heard: Vec<_> = rt.pes().map(|pe| group.on(pe).hear(1).expedited().future()).collect();
    for outcome in heard {
        assert_eq!(outcome.await?, 1);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_an_exclusive_coroutine_holds_back_goes_in_order_of_arrival(rt: Runtime) -> Result<()> {
    let listener = rt.single::<Listener>().on_pe(rt.num_pes() - 1).create(()).await?;
    let (release, released) = rt.promise();
    listener.own_it(released).send();
    rt.quiescence().await?;
    for number in [3, -3, 0] {
        listener.hear(number).priority(number).send();
        rt.quiescence().await?;
    }
    release.send(())?;
    rt.quiescence().await?;
    assert_eq!(listener.take_heard().await?, [3, -3, 0]);
    Ok(())
}
