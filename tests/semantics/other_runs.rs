//! What one run has made and another uses: proxies, promises and futures name their run, so nothing foreign is ever
//! reached, and whoever tries is told.

use std::sync::mpsc;

use chare::prelude::*;
use chare::{ExitReport, NoElement};

use super::{PES, is_spread, run};

#[derive(Default)]
struct Notes(Vec<u32>);

#[chare(index = usize)]
impl Notes {
    fn new() -> Self {
        Notes::default()
    }

    #[entry]
    fn note(&mut self, value: u32) -> u32 {
        self.0.push(value);
        value
    }

    #[entry]
    fn notes(&self) -> Vec<u32> {
        self.0.clone()
    }
}

/// A type that the second run has in the place of the first one's `Notes`.
struct Other;

#[chare(index = usize)]
impl Other {
    fn new() -> Self {
        Other
    }

    #[entry]
    async fn alone(&mut self) -> u32 {
        7
    }
}

struct Single;

#[chare]
impl Single {
    fn new() -> Self {
        Single
    }

    #[entry]
    fn one(&self) -> u32 {
        1
    }
}

/// What the first run leaves behind.
struct Left {
    notes: Array<Notes>,
    sparse: SparseArray<Notes>,
    single: Element<Single>,
    group: Group<Single>,
    callback: Callback<u32>,
    promise: Promise<u32>,
    value: chare::PromiseFuture<u32>,
}

fn first_run(pes: usize) -> Left {
    let (send, receive) = mpsc::channel();
    let report = run(pes, async move |rt: Runtime| {
        let notes = rt.array::<Notes>(8).create(()).await?;
        let (promise, value) = rt.promise();
        let left = Left {
            notes,
            sparse: rt.array_sparse::<Notes>().create_empty(),
            single: rt.single::<Single>().on_pe(pes - 1).create(()).await?,
            group: rt.group::<Single>().create(()).await?,
            callback: notes.at(0).callback(Notes::NOTE),
            promise,
            value,
        };
        Result::<()>::Ok(send.send(left)?)
    });
    assert!(report.is_success(), "{report}");
    receive.recv().expect("the first run has sent it")
}

#[track_caller]
fn told(outcome: Result<impl std::fmt::Debug, CallError>) {
    let error = outcome.expect_err("nothing answers by the proxy of another run");
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    assert!(error.to_string().contains("made in another run"), "{error}");
}

#[test]
fn proxies_are_refused_and_reach_nobody() {
    for (first, second) in [(1, 1), (2, 2), (8, 1), (1, 4), (4, 8)] {
        let left = first_run(first);
        let report = run(second, async move |rt: Runtime| {
            told(left.notes.at(0).note(1).await);
            told(left.notes.note(1).await);
            told(left.single.one().await);
            let others = rt.array::<Other>(8).create(()).await?;
            let notes = rt.array::<Notes>(8).create(()).await?;
            told(left.notes.at(7).note(1).await);
            told(left.notes.note(1).await);
            told(left.notes.note(1).gather().await);
            let places = left.notes.note(1).gather_results().await;
            told(places);
            told(left.group.one().await);
            told(left.group.on(0).one().await);
            assert_eq!(notes.notes().gather().await?, vec![Vec::<u32>::new(); 8]);
            assert_eq!(others.alone().gather().await?, vec![7; 8]);
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
    }
}

/// Uses what it is sent.
struct User;

#[chare(index = usize)]
impl User {
    fn new() -> Self {
        User
    }

    #[entry]
    async fn call_array(&mut self, notes: Array<Notes>) -> Result<u32> {
        Ok(notes.at(0).note(1).await?)
    }

    #[entry]
    async fn call_sparse_array(&mut self, notes: SparseArray<Notes>) -> Result<u32> {
        Ok(notes.at(0).note(1).await?)
    }

    #[entry]
    async fn call_group(&mut self, group: Group<Single>) -> Result<u32> {
        Ok(group.on(0).one().await?)
    }

    #[entry]
    async fn call_single(&mut self, single: Vec<Element<Single>>) -> Result<u32> {
        Ok(single[0].one().await?)
    }

    #[entry]
    fn fulfil(&self, promise: Promise<u32>) {
        drop(promise.send(1));
    }

    #[entry]
    fn deliver(&self, callback: Callback<u32>) {
        drop(callback.deliver(1));
    }

    #[entry]
    fn exit(&self, callback: Callback<()>) {
        drop(callback.deliver(()));
    }
}

/// What another process gets would be of its own run.
#[chare::test(pes = [1, 2, 4, 8])]
async fn what_is_sent_on_is_refused_as_well(rt: Runtime) -> Result<()> {
    let elsewhere = std::thread::spawn(|| (first_run(2), first_run(2)));
    let (left, another) = elsewhere.join().expect("the first run succeeds");
    let users = rt.array::<User>(rt.num_pes()).create(()).await?;
    let last = users.at(rt.num_pes() - 1);
    let outcomes = [
        last.call_array(left.notes).await,
        last.call_sparse_array(left.sparse).await,
        last.call_group(left.group).await,
        last.call_single(vec![left.single]).await,
        users.call_array(another.notes).gather().await.map(|notes| notes[0]),
    ];
    for outcome in outcomes {
        let error = outcome.expect_err("nothing answers by the proxy of another run").to_string();
        assert!(error.contains("made in another run; use proxies in the run that made them"), "{error}");
    }
    if !is_spread(&rt) {
        return Ok(());
    }
    // Who uses these is told by a panic, and the run ends. They do not come so far.
    let exit = std::thread::spawn(exit_of_another_run).join().expect("the first run succeeds");
    for outcome in [last.fulfil(left.promise).await, last.deliver(left.callback).await, last.exit(exit).await]
    {
        let error = outcome.expect_err("it is of another run").to_string();
        assert!(error.contains("was made in another run; use "), "{error}");
    }
    Ok(())
}

#[track_caller]
fn ended_by(report: &ExitReport, words: &str) {
    assert_eq!(report.code(), 1, "{report}");
    assert!(report.to_string().contains(words), "{report}");
}

#[test]
fn what_nobody_awaits_ends_the_run() {
    for pes in PES {
        let sends: [fn(Left); 3] = [
            |left| left.notes.at(0).note(1).send(),
            |left| left.notes.note(1).send(),
            |left| left.callback.deliver(1).expect("only promises give back"),
        ];
        for send in sends {
            let left = first_run(pes);
            let report = run(pes, async move |rt: Runtime| {
                send(left);
                rt.quiescence().await?;
                Result::<()>::Ok(())
            });
            ended_by(&report, "made in another run");
            assert!(
                matches!(report.unawaited(), Some(CallError::NoElement(error)) if named(error)),
                "{report}"
            );
        }
    }
}

fn named(error: &NoElement) -> bool {
    error.chare == "Notes"
}

#[test]
fn promises_and_futures_of_another_run_are_told() {
    for pes in PES {
        let Left { promise, .. } = first_run(pes);
        ended_by(&run(pes, async move |_: Runtime| drop(promise.send(3))), "another run");
        let Left { value, .. } = first_run(pes);
        let report = run(pes, async move |_: Runtime| {
            assert!(matches!(value.await, Err(CallError::Ended)), "its run is over");
        });
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn a_promise_that_is_dropped_in_another_run_breaks() {
    for pes in PES {
        let (send, receive) = mpsc::channel();
        let waiting = std::thread::spawn(move || {
            run(pes, async move |rt: Runtime| {
                let (promise, value) = rt.promise::<u32>();
                send.send((promise, rt.handle()))?;
                assert!(matches!(value.await, Err(CallError::BrokenPromise)));
                Result::<()>::Ok(())
            })
        });
        let (promise, _handle) = receive.recv().expect("the waiting run has sent it");
        let report = run(pes, async move |_: Runtime| drop(promise));
        assert!(report.is_success(), "{report}");
        let report = waiting.join().expect("the assertion in it holds");
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn a_promise_that_is_dropped_on_a_thread_that_has_entered_nothing_breaks() {
    for pes in PES {
        let report = run(pes, async move |rt: Runtime| {
            let (promise, value) = rt.promise::<u32>();
            let _handle = rt.handle();
            let thread = std::thread::spawn(move || drop(promise));
            assert!(matches!(value.await, Err(CallError::BrokenPromise)));
            assert!(thread.join().is_ok());
        });
        assert!(report.is_success(), "{report}");
    }
}

fn exit_of_another_run() -> Callback<()> {
    let (send, receive) = mpsc::channel();
    let report = run(1, async move |_: Runtime| Result::<()>::Ok(send.send(Callback::exit())?));
    assert!(report.is_success(), "{report}");
    receive.recv().expect("the first run has sent it")
}

#[test]
fn the_exit_of_another_run_is_refused() {
    for pes in PES {
        let exit = exit_of_another_run();
        ended_by(&run(pes, async move |_: Runtime| drop(exit.deliver(()))), "another run");
        // Made outside of all runs it ends the one that it is delivered in.
        let exit = Callback::<()>::exit();
        let report = run(pes, async move |rt: Runtime| {
            exit.deliver(()).expect("only promises give back");
            rt.sleep(std::time::Duration::MAX).await;
        });
        assert!(report.is_success(), "{report}");
    }
}
