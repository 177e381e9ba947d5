//! Threads that are no PEs: by a handle they send, fulfil, await and end; without one they are told what is missing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::{self, Thread};

use chare::prelude::*;
use chare::{CallFuture, Handle};

use super::{PES, run};

struct Counter(u64);

#[chare(index = usize)]
impl Counter {
    fn new() -> Self {
        Counter(0)
    }

    #[entry]
    fn add(&mut self, amount: u64) -> u64 {
        self.0 += amount;
        self.0
    }

    /// Waits until it has been added to.
    #[entry]
    async fn positive(this: This<Self>) -> u64 {
        this.wait_until(|counter| counter.0 > 0).await;
        this.with(|counter| counter.0)
    }

    #[entry]
    async fn fail_when_positive(this: This<Self>) -> Result<()> {
        this.wait_until(|counter| counter.0 > 0).await;
        Err("positive".into())
    }
}

async fn counters(rt: &Runtime) -> Result<Array<Counter>> {
    Ok(rt.array::<Counter>(16).create(()).await?)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
fn block_on<F: Future>(future: F) -> F::Output {
    let waker = Arc::new(Unpark(thread::current())).into();
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// Starts a thread that has entered the runtime; the promise brings what it has computed.
fn outside<T: Send + 'static>(handle: Handle, done: Promise<T>, work: impl FnOnce() -> T + Send + 'static) {
    thread::spawn(move || {
        let _entered = handle.enter();
        done.send(work()).expect("nobody else sends");
    });
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn a_thread_sends_calls_and_broadcasts(rt: Runtime) -> Result<()> {
    let counters = counters(&rt).await?;
    let (done, finished) = rt.promise();
    outside(rt.handle(), done, move || {
        for index in 0..16 {
            counters.at(index).add(index as u64).send();
        }
        counters.add(100).send();
    });
    finished.await?;
    rt.quiescence().await?;
    assert_eq!(counters.add(0).gather().await?, (100..116).collect::<Vec<u64>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn a_thread_sends_the_value_of_a_call_on(rt: Runtime) -> Result<()> {
    let counters = counters(&rt).await?;
    let (promise, value) = rt.promise();
    let (done, finished) = rt.promise();
    outside(rt.handle(), done, move || counters.at(15).add(3).to(promise));
    finished.await?;
    assert_eq!(value.await?, 3);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn a_thread_awaits_what_a_pe_has_sent(rt: Runtime) -> Result<()> {
    let counters = counters(&rt).await?;
    for index in [0, 15] {
        let waiting: CallFuture<u64> = counters.at(index).positive().future();
        let (done, finished) = rt.promise();
        outside(rt.handle(), done, move || block_on(waiting));
        counters.at(index).add(8).send();
        assert_eq!(finished.await??, 8);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn many_threads_send_at_once(rt: Runtime) -> Result<()> {
    let counters = counters(&rt).await?;
    let (done, finished) = rt.promises(4);
    for _ in 0..4 {
        outside(rt.handle(), done.clone(), move || {
            (0..1000).for_each(|number| counters.at(number % 16).add(1).send());
        });
    }
    drop(done);
    finished.await?;
    rt.quiescence().await?;
    assert_eq!(counters.add(0).gather().await?.iter().sum::<u64>(), 4000);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn dropping_a_promise_outside_breaks_it(rt: Runtime) -> Result<()> {
    let (promise, value) = rt.promise::<()>();
    let (done, finished) = rt.promise();
    outside(rt.handle(), done, move || drop(promise));
    finished.await?;
    assert!(matches!(value.await, Err(CallError::BrokenPromise)));
    Ok(())
}

#[test]
fn the_error_of_a_call_that_a_thread_has_given_up_ends_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let counter = counters(&rt).await?.at(15);
            let waiting = counter.fail_when_positive().future();
            let (done, finished) = rt.promise();
            outside(rt.handle(), done, move || drop(waiting));
            finished.await?;
            rt.quiescence().await?;
            counter.add(1).send();
            rt.sleep(std::time::Duration::MAX).await;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1, "{report}");
        assert!(report.to_string().contains("positive"), "{report}");
    }
}

#[test]
fn a_thread_may_end_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let (runtime, handle) = (rt.clone(), rt.handle());
            thread::spawn(move || {
                let _entered = handle.enter();
                runtime.exit(12);
            });
            rt.sleep(std::time::Duration::MAX).await;
        });
        assert_eq!(report.code(), 12, "{report}");
    }
}

#[test]
fn what_is_sent_after_the_end_is_dropped() {
    for pes in PES {
        let (out, handle) = std::sync::mpsc::channel();
        let report = run(pes, async move |rt: Runtime| {
            let (promise, _value) = rt.promise::<u64>();
            out.send((rt.handle(), counters(&rt).await?, promise))?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        let (handle, counters, promise) = handle.recv().expect("main has sent it");
        let _entered = handle.enter();
        counters.at(0).add(1).send();
        counters.add(1).send();
        assert!(promise.send(1).is_ok(), "a promise takes a value, wherever its reader is");
    }
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn a_thread_that_has_not_entered_is_told(rt: Runtime) -> Result<()> {
    let counters = counters(&rt).await?;
    let (promise, value) = rt.promise::<()>();
    let sent = promise.clone();
    let messages = thread::spawn(move || {
        let attempt = |work: &dyn Fn()| {
            let panic = catch_unwind(AssertUnwindSafe(work)).expect_err("no runtime is entered");
            panic
                .downcast_ref::<String>()
                .cloned()
                .or(panic.downcast_ref::<&str>().map(|text| text.to_string()))
        };
        [
            attempt(&|| counters.at(0).add(1).send()),
            attempt(&|| counters.add(1).send()),
            attempt(&|| drop(counters.at(0).add(1).future())),
            attempt(&|| drop(sent.send(()))),
        ]
    });
    let messages = messages.join().expect("the panics were caught");
    for message in messages {
        let message = message.expect("panics carry a text");
        assert!(message.contains("this thread"), "{message}");
    }
    drop((promise, value));
    Ok(())
}
