//! Waits with a limit: what comes in time is brought, even beside a timer that has fired; what does not is over, or can be
//! waited for further. Timers are forgotten with their waits.

use std::thread;

use chare::{Elapsed, HANG_EXIT_CODE};
use futures::future::poll_immediate;

use super::*;
use crate::{PES, run, run_in_one_process};

/// Waits with limits, owning its chare.
struct Limited;

#[chare(index = usize)]
impl Limited {
    fn new() -> Self {
        Limited
    }

    /// Whether a call ends in time.
    #[entry]
    async fn call_in_time(
        &mut self,
        cx: &Cx<Self>,
        limit: Duration,
        server: Element<Server>,
        key: Key,
    ) -> Result<bool> {
        match cx.timeout(limit, server.echo_after(key, 5)).await {
            Ok(value) => Ok(value? == 5),
            Err(Elapsed { limit: waited }) => {
                assert_eq!(waited, limit);
                Ok(false)
            }
        }
    }

    /// Receives as many values as there are, with limits that are over at once; some of the time nothing is there.
    #[entry]
    async fn receive_in_time(this: This<Self>, from: usize, count: u64) -> Result<u64> {
        let channel = this.channel::<u64, _>(&this.array().at(from), 0);
        let (mut next, mut missed) = (0, 0);
        while next < count {
            match this.timeout(Duration::ZERO, channel.recv()).await {
                Ok(number) => {
                    assert_eq!(number?, next, "nothing is lost");
                    next += 1;
                }
                Err(Elapsed { .. }) => missed += 1,
            }
        }
        Ok(missed)
    }

    /// Sends now and then.
    #[entry]
    async fn send_at_times(this: This<Self>, to: usize, count: u64) -> Result<()> {
        let channel = this.channel(&this.array().at(to), 0);
        for number in 0..count {
            channel.send(number)?;
            if number.is_multiple_of(3) {
                this.sleep(Duration::from_micros(number % 50)).await;
            }
        }
        Ok(())
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_comes_in_time_is_brought_and_what_does_not_is_over(rt: Runtime) -> Result<()> {
    let servers = rt.array::<Server>(NODES).create(()).await?;
    let limited = rt.array::<Limited>(NODES).create(()).await?;
    for index in [0, NODES / 2, NODES - 1] {
        let server = servers.at((index + 1) % NODES);
        let (key, open) = rt.promise();
        let waiting = limited.at(index).call_in_time(HOUR, server, key).future();
        rt.quiescence().await?;
        open.await?.send(())?;
        assert!(waiting.await?, "it is in time");
        let (key, open) = rt.promise();
        assert!(!limited.at(index).call_in_time(MOMENT, server, key).await?, "nothing has opened the gate");
        open.await?.send(())?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_is_there_needs_no_time(rt: Runtime) -> Result<()> {
    let (promise, value) = rt.promise();
    promise.send(3)?;
    assert_eq!(rt.timeout(Duration::ZERO, value).await??, 3);
    assert_eq!(rt.timeout(Duration::ZERO, std::future::ready(4)).await?, 4);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_value_beside_a_timer_that_has_fired_is_brought(rt: Runtime) -> Result<()> {
    let (promise, value) = rt.promise();
    let mut limited = pin!(rt.timeout(MOMENT, value));
    assert!(poll_immediate(limited.as_mut()).await.is_none());
    // Its deadline is the later one.
    rt.sleep(2 * MOMENT).await;
    promise.send(3)?;
    assert_eq!(limited.await??, 3);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_future_that_was_lent_can_be_waited_for_further(rt: Runtime) -> Result<()> {
    let servers = rt.array::<Server>(NODES).create(()).await?;
    for server in [servers.at(0), servers.at(NODES - 1)] {
        let calls = server.calls().await?;
        let (key, open) = rt.promise();
        let mut call = server.echo_after(key, 6);
        for _ in 0..3 {
            let elapsed = rt.timeout(MOMENT, &mut call).await.expect_err("the gate is closed");
            assert_eq!(elapsed.to_string(), "nothing came within 1ms");
        }
        open.await?.send(())?;
        assert_eq!(rt.timeout(HOUR, call).await??, 6);
        assert_eq!(server.calls().await?, calls + 1, "it was sent once");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn limits_nest(rt: Runtime) -> Result<()> {
    let (_promise, mut never) = rt.promise::<()>();
    let inner = rt.timeout(HOUR, rt.timeout(MOMENT, &mut never)).await?;
    assert_eq!(inner.expect_err("it never comes").limit, MOMENT);
    let outer = rt.timeout(MOMENT, rt.timeout(HOUR, &mut never)).await;
    assert_eq!(outer.expect_err("it never comes").limit, MOMENT);
    let many = join_all((0..1000).map(|_| rt.timeout(MOMENT, futures::future::pending::<()>()))).await;
    assert!(many.iter().all(Result::is_err));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn limits_lose_no_value_of_a_channel(rt: Runtime) -> Result<()> {
    let limited = rt.array::<Limited>(NODES).create(()).await?;
    for (from, to) in [(0, 1), (0, NODES - 1), (NODES - 1, 0)] {
        let receiving = limited.at(to).receive_in_time(from, 500).future();
        limited.at(from).send_at_times(to, 500).await?;
        receiving.await?;
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn limits_prevent_no_quiescence(rt: Runtime) -> Result<()> {
    let (_promise, never) = rt.promise::<()>();
    let mut limited = pin!(rt.timeout(HOUR, never));
    match select(&mut limited, rt.quiescence()).await {
        Either::Left(_) => panic!("an hour is not over"),
        Either::Right((quiet, _)) => quiet?,
    }
    Ok(())
}

/// The timer of a wait that is over keeps nothing alive: the hang is found at once, not after an hour.
#[test]
fn a_timeout_that_has_its_value_sets_no_alarm() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let server = rt.array::<Server>(NODES).create(()).await?.at(NODES - 1);
            let mut limited = pin!(rt.timeout(HOUR, server.echo(1)));
            assert_eq!(limited.as_mut().await??, 1);
            let (_promise, never) = rt.promise::<()>();
            never.await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), HANG_EXIT_CODE, "{report}");
    }
}

/// Nor does one that is dropped on another thread, or on another PE.
#[test]
fn a_timer_that_is_dropped_elsewhere_is_forgotten() {
    for pes in PES {
        let report = run_in_one_process(pes, async |rt: Runtime| {
            let mut hour = Box::pin(rt.sleep(HOUR));
            let mut limited = Box::pin(rt.timeout(HOUR, futures::future::pending::<()>()));
            assert!(poll_immediate(hour.as_mut()).await.is_none());
            assert!(poll_immediate(limited.as_mut()).await.is_none());
            let thread = thread::spawn(move || drop(hour));
            assert!(thread.join().is_ok());
            let droppers = rt.group::<Dropper>().create(()).await?;
            droppers.on(rt.num_pes() - 1).let_go(limited).await?;
            let (_promise, never) = rt.promise::<()>();
            never.await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), HANG_EXIT_CODE, "{report}");
    }
}

struct Dropper;

#[chare]
impl Dropper {
    fn new() -> Self {
        Dropper
    }

    #[entry]
    fn let_go(&self, limited: std::pin::Pin<Box<chare::Timeout<futures::future::Pending<()>>>>) {
        drop(limited);
    }

    /// Sleeps many times at once; how many are over when the last is.
    #[entry]
    async fn sleep_often(this: This<Self>, count: u64) -> Result<usize> {
        let naps = (0..count).map(|number| this.sleep(Duration::from_micros(number * 7919 % 50_000)));
        let mut set: FuturesUnordered<_> = naps.collect();
        let mut over = 0;
        while let Some(()) = set.next().await {
            over += 1;
        }
        Ok(over)
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_hundred_thousand_timers_are_pending_at_once(rt: Runtime) -> Result<()> {
    let group = rt.group::<Dropper>().create(()).await?;
    let each = 100_000 / rt.num_pes();
    assert_eq!(group.sleep_often(each as u64).gather().await?, vec![each; rt.num_pes()]);
    Ok(())
}
