//! What cannot go to another process. Run with `CHARE_TEST_PROCESSES=2`, arguments here are refused where they would leave theirs, and all goes
//! on; in one process they are arguments like any others.

use chare::prelude::*;
use chare::{CallError, PeId, PromiseFuture};
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::is_spread;

/// What serde does not know.
#[derive(Clone)]
struct Rooted;

/// What refuses, or panics, when it is serialised.
#[derive(Clone)]
struct Stubborn {
    panics: bool,
}

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        assert!(!self.panics, "as asked");
        Err(S::Error::custom("it does not want to"))
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        unreachable!("it never leaves")
    }
}

/// What has been serialised in part when that fails.
#[derive(Clone, Serialize, Deserialize)]
struct Half {
    promise: Promise<u64>,
    other: Stubborn,
}

struct Member {
    sum: u64,
}

#[chare(index = usize)]
impl Member {
    fn new() -> Self {
        Member { sum: 0 }
    }

    #[entry]
    fn add(&mut self, value: u64) -> u64 {
        self.sum += value;
        self.sum
    }

    #[entry]
    fn root(&mut self, _: Rooted) -> u64 {
        self.sum += 1000;
        self.sum
    }

    #[entry]
    fn insist(&mut self, _: Stubborn) -> u64 {
        self.sum += 1000;
        self.sum
    }

    #[entry]
    fn take(&mut self, _: Half) -> u64 {
        self.sum += 1000;
        self.sum
    }

    #[entry]
    fn give(&self, promise: Promise<u64>) -> Half {
        Half { promise, other: Stubborn { panics: false } }
    }

    #[entry]
    fn echo(&self, pes: Vec<PeId>) -> (Vec<PeId>, Option<PeId>) {
        (pes.clone(), pes.last().copied())
    }

    /// Broadcasts from where it is; returns the error.
    #[entry]
    async fn ask_all(cx: This<Self>) -> Option<String> {
        cx.array().root(Rooted).await.err().map(|error| error.to_string())
    }
}

/// A chare whose constructor takes what may not leave.
struct Settler;

#[chare(index = usize)]
impl Settler {
    fn new(_: Half) -> Self {
        Settler
    }

    #[entry]
    fn is_there(&self) -> bool {
        true
    }
}

/// The same without an index.
struct Hermit;

#[chare]
impl Hermit {
    fn new(_: Half) -> Self {
        Hermit
    }

    #[entry]
    fn is_there(&self) -> bool {
        true
    }
}

/// Fails unless an outcome is an error, with this text, just if the PEs are in several processes.
fn check<T>(rt: &Runtime, outcome: Result<T, CallError>, text: &str) {
    match outcome {
        Ok(_) => assert!(!is_spread(rt), "{text}"),
        Err(error) => {
            assert!(is_spread(rt) && error.to_string().contains(text), "{error}");
        }
    }
}

/// What refuses with a promise in it, whose other end is the future.
fn half(rt: &Runtime, panics: bool) -> (Half, PromiseFuture<u64>) {
    let (promise, answer) = rt.promise();
    (Half { promise, other: Stubborn { panics } }, answer)
}

fn is_broken(outcome: &Result<u64, CallError>) -> bool {
    matches!(outcome, Err(CallError::BrokenPromise))
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_broadcast_that_cannot_leave_is_refused_and_the_next_one_comes(rt: Runtime) -> Result<()> {
    let members = rt.array::<Member>(8).create(()).await?;
    let why = "Member.root was not sent to another process: a value of type";
    check(&rt, members.root(Rooted).await, why);
    check(&rt, members.root(Rooted).gather().await, why);
    check(&rt, members.root(Rooted).priority(-1).await, why);
    let insist = |panics| members.insist(Stubborn { panics });
    check(&rt, insist(false).await, "Member.insist was not sent to another process");
    check(&rt, insist(true).await, "as asked");
    // From other PEs, to whose process that of the root is another.
    for index in [0, 7] {
        let error = members.at(index).ask_all().await?;
        assert_eq!(error.is_some_and(|error| error.contains(why)), is_spread(&rt));
    }
    let expected = if is_spread(&rt) { 1 } else { 7001 };
    assert_eq!(members.add(1).gather().await?, [expected; 8]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn promises_in_what_cannot_leave_are_broken(rt: Runtime) -> Result<()> {
    let members = rt.array::<Member>(8).create(()).await?;
    for panics in [false, true] {
        let (value, answer) = half(&rt, panics);
        check(&rt, members.at(7).take(value).await, "Member.take was not sent to another process");
        assert!(is_broken(&answer.await));
        let (value, answer) = half(&rt, panics);
        check(&rt, members.take(value).await, "Member.take was not sent to another process");
        assert!(is_broken(&answer.await));
    }
    let (promise, answer) = rt.promise();
    check(&rt, members.at(7).give(promise).await.map(drop), "the value was not sent to another process");
    assert!(is_broken(&answer.await));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_insertion_that_cannot_leave_is_refused_and_the_next_one_comes(rt: Runtime) -> Result<()> {
    let settlers = rt.array_sparse::<Settler>().create_empty();
    let mut answers = Vec::new();
    for index in 0..8 {
        let (value, answer) = half(&rt, index % 2 == 0);
        let inserted = settlers.insert(index, value).on_pe(rt.num_pes() - 1).await;
        check(&rt, inserted, "was not sent to another process");
        answers.push(answer);
    }
    settlers.done_inserting().await?;
    for answer in answers {
        assert!(is_broken(&answer.await));
    }
    let count = settlers.is_there().gather().await?.len();
    assert_eq!(count, if is_spread(&rt) { 0 } else { 8 });
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_creation_that_cannot_leave_is_an_error_of_whoever_awaits_it(rt: Runtime) -> Result<()> {
    let last = rt.num_pes() - 1;
    let why = "was not created in another process";
    for panics in [false, true] {
        let (value, answer) = half(&rt, panics);
        check(&rt, rt.array::<Settler>(8).create(value).await, why);
        assert!(is_broken(&answer.await));
        let (value, answer) = half(&rt, panics);
        check(&rt, rt.group::<Hermit>().create(value).await, why);
        assert!(is_broken(&answer.await));
        let (value, answer) = half(&rt, panics);
        check(&rt, rt.single::<Hermit>().on_pe(last).create(value).await, why);
        assert!(is_broken(&answer.await));
    }
    Ok(())
}

#[derive(Serialize, Deserialize)]
struct Asker {
    one: Element<Settler>,
    all: Array<Settler>,
    single: Element<Hermit>,
}

#[chare(index = usize)]
impl Asker {
    fn new(one: Element<Settler>, all: Array<Settler>, single: Element<Hermit>) -> Self {
        Asker { one, all, single }
    }

    /// The errors of calls from here.
    #[entry]
    async fn ask(cx: This<Self>) -> Vec<Option<String>> {
        let (one, all, single) = cx.with(|asker| (asker.one, asker.all, asker.single));
        let outcomes =
            [one.is_there().await.err(), all.is_there().await.err(), single.is_there().await.err()];
        outcomes.into_iter().map(|error| error.map(|error| error.to_string())).collect()
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn calls_of_what_was_not_created_say_so_wherever_they_come_from(rt: Runtime) -> Result<()> {
    let (last, why) = (rt.num_pes() - 1, "was not created in another process");
    let (all, created) = rt.array::<Settler>(8).create(half(&rt, false).0).start();
    let (single, also) = rt.single::<Hermit>().on_pe(last).create(half(&rt, false).0).start();
    // Some of the calls come before the news does.
    let askers = rt.array::<Asker>(8).create((all.at(5), all, single)).await?;
    for errors in askers.ask().gather().await? {
        for error in errors {
            assert_eq!(error.is_some_and(|error| error.contains(why)), is_spread(&rt));
        }
    }
    check(&rt, created.await, why);
    check(&rt, also.await, why);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_number_of_a_pe_is_a_value_like_any_other(rt: Runtime) -> Result<()> {
    let members = rt.array::<Member>(8).create(()).await?;
    let pes: Vec<_> = [0, 7, 1000, u32::MAX as usize].map(PeId::new).into();
    for echo in members.echo(pes.clone()).gather().await? {
        assert_eq!(echo, (pes.clone(), pes.last().copied()));
    }
    Ok(())
}
