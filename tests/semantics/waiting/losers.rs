//! Waits that lose: dropped at every stage, they lose nothing but their own interest, and what they were woken for goes to
//! the next.

use std::cell::Cell;
use std::thread;

use chare::{CallFuture, Permit};
use futures::future::poll_immediate;

use super::*;
use crate::{PES, run, run_in_one_process};

/// Values that a chare may send before it needs credit, or reserve at once.
const WINDOW: usize = 1024;

/// Receives and sends, and gives up doing so.
struct Loser;

#[chare(index = usize)]
impl Loser {
    fn new() -> Self {
        Loser
    }

    #[entry]
    fn send_numbers(&self, cx: &Cx<Self>, to: usize, from: u64, count: u64) -> Result<()> {
        let channel = cx.channel(&cx.array().at(to), 0);
        (from..from + count).try_for_each(|number| Ok(channel.send(number)?))
    }

    /// Loses receivers before their first poll, while they wait, and when they have been woken.
    #[entry]
    async fn lose_receivers(this: This<Self>, from: usize) -> Result<()> {
        let peer = this.array().at(from);
        let channel = this.channel::<u64, _>(&peer, 0);
        let mut next = 0;
        for early in [true, false].repeat(10) {
            drop(channel.recv());
            let mut lost: Vec<_> = (0..4).map(|_| Box::pin(channel.recv())).collect();
            for receiving in &mut lost {
                assert!(poll_immediate(receiving).await.is_none(), "everything was received");
            }
            if early {
                drop(lost.drain(..2));
            }
            peer.send_numbers(this.index(), next, 3).await?;
            this.quiescence().await?;
            // All three values have come, and have woken as many receivers as there are.
            assert_eq!(lost.pop().ok_or("two are left")?.await?, next);
            drop(lost);
            for number in [next + 1, next + 2] {
                let received = poll_immediate(channel.recv()).await;
                assert_eq!(received.ok_or("nothing is lost")??, number);
            }
            next += 3;
        }
        assert!(channel.try_recv()?.is_none());
        Ok(())
    }

    /// Loses the right to send, in every way; all of it is there in the end.
    #[entry]
    async fn lose_credit(this: This<Self>, to: usize) -> Result<()> {
        let channel = this.channel::<u64, _>(&this.array().at(to), 0);
        for _ in 0..2 * WINDOW {
            drop(channel.reserve());
            let won = select(channel.reserve(), this.sleep(HOUR)).await;
            drop(won);
            assert!(this.timeout(HOUR, channel.reserve()).await.is_ok());
        }
        let all = reserve_all(&channel).await;
        let (give_up, gave_up) = this.promise::<()>();
        // The first is woken by the credit, and gives it up in the same turn.
        let first = async {
            match select(gave_up, channel.reserve()).await {
                Either::Left((outcome, _woken)) => Ok(outcome?),
                Either::Right(_) => Err("it was told first".into()),
            }
        };
        let second = async {
            channel.reserve().await.send(1);
            Result::<()>::Ok(())
        };
        let give_back = async {
            let mut all = all;
            drop(all.pop());
            Result::<()>::Ok(give_up.send(())?)
        };
        let (first, second, back) = futures::join!(first, second, give_back);
        first.and(second).and(back)?;
        assert_eq!(reserve_all(&channel).await.len(), WINDOW - 1, "one is on its way, the rest is back");
        Ok(())
    }

    /// Polls the future of a call that was made elsewhere, once, and drops it when it is told to.
    #[entry]
    async fn lose_a_call(
        this: This<Self>,
        mut call: CallFuture<u64>,
        polled: Promise<()>,
        key: Key,
    ) -> Result<()> {
        assert!(poll_immediate(&mut call).await.is_none());
        polled.send(())?;
        wait_for_key(&this, key).await?;
        this.sleep(Duration::ZERO).await;
        drop(call);
        Ok(())
    }
}

/// Takes all the credit that there is.
async fn reserve_all<'a>(channel: &'a Channel<u64>) -> Vec<Permit<'a, u64>> {
    let mut all = Vec::new();
    while let Some(permit) = poll_immediate(channel.reserve()).await {
        all.push(permit);
    }
    all
}

/// Two chares of 16: next to each other on one PE, or far apart, in both directions.
const ENDS: [(usize, usize); 3] = [(0, 1), (0, NODES - 1), (NODES - 1, 0)];

#[chare::test(pes = [1, 2, 4, 8])]
async fn receivers_that_lose_leave_the_values(rt: Runtime) -> Result<()> {
    let losers = rt.array::<Loser>(NODES).create(()).await?;
    for (from, to) in ENDS {
        losers.at(to).lose_receivers(from).await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn senders_that_lose_leave_the_credit(rt: Runtime) -> Result<()> {
    let losers = rt.array::<Loser>(NODES).create(()).await?;
    for (from, to) in ENDS {
        losers.at(from).lose_credit(to).await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_call_that_loses_runs_if_it_was_polled_and_only_then(rt: Runtime) -> Result<()> {
    let servers = rt.array::<Server>(NODES).create(()).await?;
    for index in [0, NODES - 1] {
        let server = servers.at(index);
        for polled in [false, true, false, true] {
            let before = server.calls().await?;
            let (key, waiting) = rt.promise();
            let waits = [server.echo_after(key, 1).boxed(), rt.sleep(Duration::ZERO).map(|()| Ok(0)).boxed()];
            match polled {
                false => drop(waits),
                true => assert_eq!(select_all(waits).await.0?, 0),
            }
            rt.quiescence().await?;
            assert_eq!(server.calls().await?, before + u64::from(polled));
            match polled {
                false => assert!(matches!(waiting.await, Err(CallError::BrokenPromise))),
                true => waiting.await?.send(())?,
            }
        }
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn whatever_loses_runs_all_the_same(rt: Runtime) -> Result<()> {
    let (nodes, servers) = create(&rt).await?;
    // What is all on one PE may end at once.
    let _ = rt.timeout(Duration::ZERO, servers.echo(1)).await;
    let _ = rt.timeout(Duration::ZERO, servers.echo(1).gather()).await;
    assert!(rt.timeout(Duration::ZERO, nodes.everything(How::Unordered, servers)).await.is_err());
    rt.quiescence().await?;
    for _ in 0..3 {
        // Those that lose wait for a reduction, too, which goes on without them.
        assert!(rt.timeout(Duration::ZERO, nodes.join_both(servers).gather()).await.is_err());
    }
    assert_eq!(nodes.join_both(servers).gather().await?, [1 + 3 * NODES as u64; NODES]);
    Ok(())
}

#[track_caller]
fn expect_unseen(report: &chare::ExitReport) {
    assert_eq!(report.code(), 1, "{report}");
    let text = report.to_string();
    assert!(text.contains("Server") && text.contains("nobody saw this"), "{text}");
}

#[test]
fn the_error_of_a_call_that_has_lost_is_one_that_nobody_awaits() {
    for pes in PES {
        for polled in [false, true] {
            let report = run(pes, async move |rt: Runtime| {
                let server = rt.array::<Server>(NODES).create(()).await?.at(NODES - 1);
                let (key, waiting) = rt.promise();
                let call = server.fail_after(key);
                match polled {
                    false => drop(call),
                    true => {
                        assert!(rt.timeout(Duration::ZERO, call).await.is_err());
                        waiting.await?.send(())?;
                    }
                }
                rt.quiescence().await?;
                Result::<()>::Ok(())
            });
            if polled { expect_unseen(&report) } else { assert!(report.is_success(), "{report}") }
        }
    }
}

/// The error may be anywhere between the method and the future when that goes.
#[test]
fn nor_is_it_lost_when_the_future_goes_elsewhere() {
    for pes in PES {
        for (opens_first, index) in [(false, 0), (true, 0), (false, NODES - 1), (true, NODES - 1)] {
            let report = run_in_one_process(pes, async move |rt: Runtime| {
                let server = rt.array::<Server>(NODES).create(()).await?.at(NODES / 2);
                let loser = rt.array::<Loser>(NODES).create(()).await?.at(index);
                let ((key, open), (told, let_go)) = (rt.promise(), rt.promise());
                let (polled, was_polled) = rt.promise();
                loser.lose_a_call(server.fail_after(key).future(), polled, told).send();
                was_polled.await?;
                let (open, let_go) = (open.await?, let_go.await?);
                if opens_first {
                    open.send(())?;
                    rt.quiescence().await?;
                    let_go.send(())?;
                } else {
                    let_go.send(())?;
                    open.send(())?;
                }
                rt.quiescence().await?;
                Result::<()>::Ok(())
            });
            expect_unseen(&report);
        }
    }
}

#[test]
fn nor_when_it_goes_on_another_thread() {
    for pes in PES {
        for gathers in [false, true] {
            let report = run(pes, async move |rt: Runtime| {
                let servers = rt.array::<Server>(NODES).create(()).await?;
                let mut lost: Wait<'static> = if gathers {
                    servers.fail().gather_results().map(|outcomes| Ok(outcomes?.len() as u64)).boxed()
                } else {
                    servers.at(NODES - 1).fail().future().map(|outcome| Ok(outcome?)).boxed()
                };
                let handle = rt.handle();
                let (polled, was_polled) = rt.promise::<()>();
                let (let_go, told) = std::sync::mpsc::channel();
                let thread = thread::spawn(move || {
                    let _entered = handle.enter();
                    let context = &mut std::task::Context::from_waker(std::task::Waker::noop());
                    assert!(lost.poll_unpin(context).is_pending());
                    polled.send(()).expect("the first value");
                    told.recv().expect("main tells");
                    drop(lost);
                });
                was_polled.await?;
                rt.quiescence().await?;
                let_go.send(())?;
                assert!(thread.join().is_ok());
                rt.quiescence().await?;
                Result::<()>::Ok(())
            });
            expect_unseen(&report);
        }
    }
}

/// A value that counts its drops.
struct Counted;

thread_local! {
    static DROPPED: Cell<usize> = const { Cell::new(0) };
}

impl Drop for Counted {
    fn drop(&mut self) {
        DROPPED.set(DROPPED.get() + 1);
    }
}

/// A value of a promise is dropped once, when its reader has gone before, or goes with it.
#[chare::test(pes = [1, 2, 4, 8])]
async fn a_value_that_nobody_reads_is_dropped(rt: Runtime) -> Result<()> {
    let before = DROPPED.get();
    for polled in [false, true] {
        for sent_first in [false, true] {
            let (promise, mut value) = rt.promise();
            if polled {
                assert!(rt.timeout(Duration::ZERO, &mut value).await.is_err());
            }
            if sent_first {
                promise.send(Counted)?;
                drop(value);
            } else {
                drop(value);
                promise.send(Counted)?;
            }
        }
    }
    rt.quiescence().await?;
    assert_eq!(DROPPED.get() - before, 4);
    Ok(())
}
