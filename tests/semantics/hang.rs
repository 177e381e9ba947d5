//! The hang report: a program that can never go on ends with exit code 3 and says what each coroutine waits for, where,
//! and what is held. Waiting for a timer or for the outside world is not a hang.

use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

use chare::prelude::*;
use chare::{ExitReport, HANG_EXIT_CODE};

use super::{PES, run, run_in_one_process};

/// `file:line` of the line of this file that ends with `// here: <mark>`.
fn place(mark: &str) -> String {
    let mark = format!("// here: {mark}");
    let line = include_str!("hang.rs").lines().position(|line| line.ends_with(&mark));
    format!("{}:{}", file!(), 1 + line.expect("the mark stands in this file"))
}

/// Checks that a run hung, and that one line of the report has all of these words.
#[track_caller]
fn expect(report: &ExitReport, words: &[&str]) {
    assert_eq!(report.code(), HANG_EXIT_CODE, "{report}");
    let text = report.hang().expect("a hang has a report");
    assert!(
        text.lines().any(|line| words.iter().all(|word| line.contains(word))),
        "no line has all of {words:?}:\n{report}"
    );
    assert!(report.to_string().contains(text.trim_end()));
}

/// Waits in many ways for what never comes.
#[derive(Default)]
struct Stuck {
    ready: bool,
}

#[chare(index = usize)]
impl Stuck {
    fn new() -> Self {
        Stuck::default()
    }

    #[entry]
    fn nothing(&self) {}

    #[entry]
    async fn on_a_promise(this: This<Self>) -> Result<()> {
        let (_promise, value) = this.promise::<()>(); // here: promise
        Ok(value.await?)
    }

    #[entry]
    async fn on_a_condition(this: This<Self>) {
        this.wait_until(|stuck| stuck.ready).await; // here: condition
    }

    #[entry]
    async fn on_a_channel(this: This<Self>) -> Result<()> {
        let channel = this.channel(&this.array().at(0), 5);
        Ok(channel.recv().await?) // here: channel
    }

    #[entry]
    async fn on_credit(this: This<Self>) -> Result<()> {
        let channel = this.channel(&this.array().at(0), 6);
        loop {
            channel.reserve().await.send(0_u8); // here: credit
        }
    }

    #[entry]
    fn overfill(&self, cx: &Cx<Self>) -> Result<()> {
        let channel = cx.channel(&cx.array().at(0), 6);
        (0..3000).try_for_each(|value| Ok(channel.send(value)?))
    }

    #[entry]
    async fn on_a_reduction(this: This<Self>) -> Result<u64> {
        Ok(this.allreduce(1_u64, reduce::Sum).await?) // here: reduction
    }

    #[entry]
    async fn on_its_own_entry(&mut self, cx: &Cx<Self>) -> Result<()> {
        Ok(cx.this().nothing().await?) // here: own entry
    }

    #[entry]
    async fn on_two_things(this: This<Self>) {
        let channel = this.channel::<(), _>(&this.array().at(0), 1);
        let mut receiving = std::pin::pin!(channel.recv());
        let mut waiting = std::pin::pin!(this.wait_until(|stuck| stuck.ready));
        std::future::poll_fn(|context| match receiving.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => waiting.as_mut().poll(context),
        })
        .await;
    }

    #[entry]
    async fn on_a_value_of(this: This<Self>, value: chare::PromiseFuture<()>) -> Result<()> {
        this.with(|stuck| stuck.ready = false);
        Ok(value.await?)
    }
}

async fn stuck(rt: &Runtime) -> Result<Array<Stuck>> {
    Ok(rt.array::<Stuck>(16).create(()).await?)
}

#[test]
fn a_promise_is_named() {
    for pes in PES {
        let report =
            run(pes, async |rt: Runtime| Result::<()>::Ok(stuck(&rt).await?.at(9).on_a_promise().await?)); // here: call
        expect(&report, &["Stuck[9].on_a_promise", file!(), "waits for a promise", &place("promise")]);
        expect(&report, &["main", "the outcome of Stuck[9].on_a_promise", &place("call")]);
    }
}

#[test]
fn a_condition_is_named() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            stuck(&rt).await?.on_a_condition().await?; // here: broadcast
            Result::<()>::Ok(())
        });
        for index in [0, 15] {
            let who = format!("Stuck[{index}].on_a_condition");
            expect(&report, &[&who, "condition", &place("condition")]);
        }
        expect(&report, &["main", "the end of Stuck.on_a_condition on all elements", &place("broadcast")]);
    }
}

#[test]
fn a_channel_is_named_with_its_peer() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            stuck(&rt).await?.at(14).on_a_channel().await?;
            Result::<()>::Ok(())
        });
        expect(&report, &["Stuck[14].on_a_channel", "a value from Stuck[0] in channel 5", &place("channel")]);
    }
}

#[test]
fn missing_credit_is_named_and_so_is_what_was_not_read() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            stuck(&rt).await?.at(15).on_credit().await?;
            Result::<()>::Ok(())
        });
        expect(&report, &["Stuck[15].on_credit", "credit from Stuck[0] in channel 6", &place("credit")]);
        expect(&report, &["held", "values for Stuck[0] in channel 6 from Stuck[15]", "has not opened"]);
    }
}

#[test]
fn a_backlog_is_named() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let stuck = stuck(&rt).await?;
            stuck.at(15).overfill().await?;
            stuck.at(3).on_a_promise().await?;
            Result::<()>::Ok(())
        });
        expect(&report, &["held", "values of Stuck[15] in channel 6 wait for credit of Stuck[0]"]);
    }
}

#[test]
fn a_reduction_is_named_with_who_is_missing() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let stuck = stuck(&rt).await?;
            let waits: Vec<_> = (0..16)
                .filter(|i| ![3, 12].contains(i))
                .map(|i| stuck.at(i).on_a_reduction().future())
                .collect();
            for wait in waits {
                wait.await?;
            }
            Result::<()>::Ok(())
        });
        expect(&report, &["Stuck[2].on_a_reduction", "reduction 0 of Stuck", &place("reduction")]);
        expect(&report, &["reduction 0 of Stuck", "have contributed", "missing", "[3]"]);
        expect(&report, &["reduction 0 of Stuck", "have contributed", "missing", "[12]"]);
    }
}

#[test]
fn an_exclusive_coroutine_that_waits_for_its_own_entry_is_named() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            stuck(&rt).await?.at(8).on_its_own_entry().await?;
            Result::<()>::Ok(())
        });
        let waits = ["Stuck[8].on_its_own_entry", "the outcome of Stuck[8].nothing", &place("own entry")];
        expect(&report, &waits);
        expect(&report, &["held", "Stuck.nothing for Stuck[8]", "an exclusive coroutine owns"]);
    }
}

#[test]
fn all_that_a_coroutine_waits_for_is_named() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            stuck(&rt).await?.at(8).on_two_things().await?;
            Result::<()>::Ok(())
        });
        expect(&report, &["Stuck[8].on_two_things", "channel 1", ", or for ", "condition"]);
    }
}

#[test]
fn a_reading_end_on_another_pe_is_named() {
    for pes in PES {
        let report = run_in_one_process(pes, async |rt: Runtime| {
            let (_promise, value) = rt.promise(); // here: lent
            stuck(&rt).await?.at(15).on_a_value_of(value).await?;
            Result::<()>::Ok(())
        });
        expect(&report, &["Stuck[15].on_a_value_of", "a promise", &place("lent")]);
    }
}

/// Its constructor never ends.
struct Unborn;

#[chare]
impl Unborn {
    async fn new(cx: &Cx<Self>) -> Result<Self> {
        let (_promise, value) = cx.promise(); // here: constructor
        value.await?;
        Ok(Unborn)
    }

    #[entry]
    fn nothing(&self) {}
}

#[test]
fn a_constructor_is_named_and_so_is_what_waits_for_it() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let group = rt.group::<Unborn>().create(()).send();
            group.on(0).nothing().send();
            rt.group::<Unborn>().create(()).await?; // here: creation
            Result::<()>::Ok(())
        });
        expect(&report, &["Unborn.new", "a promise", &place("constructor")]);
        expect(&report, &["main", "the creation of Unborn", &place("creation")]);
        expect(&report, &["held", "Unborn.nothing for Unborn[0]", "constructor has not ended"]);
    }
}

#[test]
fn a_hang_after_quiescence_was_awaited_is_still_one() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let stuck = stuck(&rt).await?;
            let wait = stuck.at(1).on_a_condition().future();
            rt.quiescence().await?;
            wait.await?;
            Result::<()>::Ok(())
        });
        expect(&report, &["Stuck[1].on_a_condition", "condition"]);
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn sleeping_is_not_a_hang(rt: Runtime) -> Result<()> {
    let waiting = stuck(&rt).await?.at(15).on_a_promise().future();
    rt.sleep(Duration::from_millis(20)).await;
    drop(waiting);
    Ok(())
}

/// A future of the outside world: a flag that a thread raises.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<(bool, Option<Waker>)>>);

impl Flag {
    async fn raised(&self) {
        std::future::poll_fn(|context| {
            let mut state = self.0.lock().expect("nobody panics with the lock");
            state.1 = Some(context.waker().clone());
            if state.0 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn raise(&self) {
        let waker = {
            let mut state = self.0.lock().expect("nobody panics with the lock");
            state.0 = true;
            state.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Long enough that a wrong hang report would come before.
const A_WHILE: Duration = Duration::from_millis(20);

/// Waits for the outside.
struct Looker;

#[chare]
impl Looker {
    fn new() -> Self {
        Looker
    }

    #[entry]
    async fn look(&self) -> u32 {
        let flag = Flag::default();
        let outside = flag.clone();
        let thread = thread::spawn(move || {
            thread::sleep(A_WHILE);
            outside.raise();
        });
        flag.raised().await;
        thread.join().map_or(0, |()| 1)
    }
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn waiting_for_the_outside_is_neither_a_hang_nor_quiescence(rt: Runtime) -> Result<()> {
    let lookers = rt.group::<Looker>().create(()).await?;
    assert_eq!(lookers.look().gather().await?, vec![1; rt.num_pes()]);
    let looking = lookers.on(rt.num_pes() - 1).look().future();
    let flag = Flag::default();
    lookers.on(0).look().send();
    rt.quiescence().await?;
    flag.raise();
    assert_eq!(looking.await?, 1);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8], unsimulated = "another thread takes part")]
async fn a_thread_with_a_handle_may_still_fulfil_a_promise(rt: Runtime) -> Result<()> {
    let (promise, value) = rt.promise();
    let handle = rt.handle();
    let thread = thread::spawn(move || {
        thread::sleep(A_WHILE);
        let _entered = handle.enter();
        promise.send(6).expect("nobody else sends");
    });
    assert_eq!(value.await?, 6);
    assert!(thread.join().is_ok());
    Ok(())
}

#[test]
fn a_handle_that_is_gone_leaves_a_hang() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let handle = rt.handle();
            let (_promise, value) = rt.promise::<()>();
            let thread = thread::spawn(move || {
                thread::sleep(A_WHILE);
                drop(handle);
            });
            value.await?;
            assert!(thread.join().is_ok());
            Result::<()>::Ok(())
        });
        expect(&report, &["main", "a promise"]);
    }
}
