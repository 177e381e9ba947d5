//! Moves to another process. Run with `CHARE_TEST_PROCESSES=2`, each of these moves chares between the first and the last PE, which
//! are in different processes then; in one process the same programs show the same.

use std::cell::Cell;

use chare::prelude::*;
use chare::{Bulk, CallError};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::is_spread;

/// A chare that has something of everything.
#[derive(Serialize, Deserialize)]
struct Traveller {
    name: String,
    field: Bulk<f64>,
    table: Vec<u32>,
    answer: Option<Promise<u64>>,
    friend: Option<Element<Traveller>>,
    is_open: bool,
    log: Vec<String>,
    #[serde(skip)]
    scratch: Cell<u32>,
}

#[chare(index = usize)]
impl Traveller {
    fn new(cx: &Cx<Self>) -> Self {
        let index = cx.index();
        Traveller {
            name: format!("traveller {index}"),
            field: (0..1000).map(|i| (i * index) as f64).collect::<Vec<_>>().into(),
            table: vec![index as u32; 10],
            answer: None,
            friend: None,
            is_open: false,
            log: Vec::new(),
            scratch: Cell::new(7),
        }
    }

    fn migrated(&mut self, cx: &Cx<Self>) {
        self.log.push(format!("on {}", cx.my_pe().index()));
    }

    #[entry]
    fn meet(&mut self, friend: Element<Traveller>, answer: Promise<u64>) {
        (self.friend, self.answer) = (Some(friend), Some(answer));
    }

    #[entry]
    fn what(&self) -> (String, f64, u32) {
        (self.name.clone(), self.field.iter().sum(), self.table.iter().sum())
    }

    #[entry]
    fn scratch(&self) -> u32 {
        self.scratch.get()
    }

    #[entry]
    async fn tell_friend(this: This<Self>) -> Result<()> {
        let (friend, answer) = this.with(|s| (s.friend.take(), s.answer.take()));
        let (_, sum, _) = friend.expect("it has met one").what().await?;
        answer.expect("somebody waits").send(sum as u64)?;
        Ok(())
    }

    #[entry(when = |s: &Self| s.is_open)]
    fn note(&mut self, note: u32) {
        self.log.push(format!("note {note}"));
    }

    #[entry]
    fn open(&mut self) {
        self.is_open = true;
    }

    #[entry]
    fn log(&self) -> Vec<String> {
        self.log.clone()
    }

    #[entry]
    async fn wait_until_open(this: This<Self>) -> usize {
        this.wait_until(|s| s.is_open).await;
        this.my_pe().index()
    }

    #[entry]
    async fn go(&mut self, cx: &Cx<Self>, to: usize) -> Result<()> {
        Ok(cx.this().migrate(to).await?)
    }
}

async fn travellers(rt: &Runtime) -> Result<(Array<Traveller>, usize)> {
    Ok((rt.array::<Traveller>(8).create(()).await?, rt.num_pes() - 1))
}

#[chare::test(pes = [2, 4, 8])]
async fn a_chare_comes_as_serde_sees_it(rt: Runtime) -> Result<()> {
    let (travellers, last) = travellers(&rt).await?;
    let (one, other) = (travellers.at(1), travellers.at(7));
    let (to, answer) = rt.promise();
    one.meet(other, to).await?;
    let sum = (0..1000).sum::<u64>();
    for to in [last, 0, last] {
        one.migrate(to).await?;
        assert_eq!(one.what().await?, ("traveller 1".to_owned(), sum as f64, 10));
    }
    assert_eq!(one.scratch().await?, if is_spread(&rt) { 0 } else { 7 });
    one.tell_friend().await?;
    assert_eq!(answer.await?, 7 * sum);
    let mut log = [last, 0, last].map(|pe| format!("on {pe}")).to_vec();
    // With few PEs it began on the last one.
    if one.log().await?.len() == 2 {
        log.remove(0);
    }
    assert_eq!(one.log().await?, log);
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn a_promise_that_goes_along_is_broken_when_its_chare_ends(rt: Runtime) -> Result<()> {
    let travellers = rt.array_sparse::<Traveller>().create_empty();
    let one = travellers.insert(3, ()).on_pe(0).await?;
    let (to, answer) = rt.promise();
    one.meet(one, to).await?;
    one.migrate(rt.num_pes() - 1).await?;
    assert_eq!(one.what().await?.0, "traveller 3", "an element of a sparse array knows its index");
    one.destroy().await?;
    assert!(matches!(answer.await, Err(CallError::BrokenPromise)));
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn kept_calls_go_along_in_their_order(rt: Runtime) -> Result<()> {
    let (travellers, last) = travellers(&rt).await?;
    let one = travellers.at(0);
    let notes: Vec<_> = (0..20).map(|note| one.note(note).future()).collect();
    rt.quiescence().await?;
    one.migrate(last).await?;
    rt.quiescence().await?;
    one.open().await?;
    for note in notes {
        note.await?;
    }
    let log = one.log().await?;
    assert_eq!(log[0], format!("on {last}"), "`migrated` runs first");
    // Calls have no order among each other where they are sent; where they are kept, they run in that of their arrival.
    let mut notes = log[1..].to_vec();
    notes.sort_by_key(|note| note.strip_prefix("note ").and_then(|note| note.parse::<u32>().ok()));
    assert_eq!(notes, (0..20).map(|note| format!("note {note}")).collect::<Vec<_>>());
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn a_move_to_another_process_waits_for_coroutines(rt: Runtime) -> Result<()> {
    let (travellers, last) = travellers(&rt).await?;
    let one = travellers.at(0);
    let waiting = one.wait_until_open().future();
    rt.quiescence().await?;
    let moved = one.migrate(last).future();
    rt.quiescence().await?;
    one.open().await?;
    assert_eq!(waiting.await?, if is_spread(&rt) { 0 } else { last });
    moved.await?;
    assert_eq!(one.log().await?, [format!("on {last}")]);
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn who_waits_for_its_own_move_to_another_process_is_told(rt: Runtime) -> Result<()> {
    let (travellers, last) = travellers(&rt).await?;
    let gone = travellers.at(0).go(last).await;
    if is_spread(&rt) {
        let error = gone.expect_err("it would wait for ever").to_string();
        assert!(error.contains("without coroutines") && error.contains("`send` the request"), "{error}");
    }
    travellers.at(0).migrate(last).await?;
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn a_destruction_answers_a_move_that_waits(rt: Runtime) -> Result<()> {
    let travellers = rt.array_sparse::<Traveller>().create_empty();
    let one = travellers.insert(3, ()).on_pe(0).await?;
    let waiting = one.wait_until_open().future();
    rt.quiescence().await?;
    let moved = one.migrate(rt.num_pes() - 1).future();
    rt.quiescence().await?;
    one.destroy().await?;
    let moved = moved.await;
    assert!(moved.is_ok() != is_spread(&rt) || matches!(moved, Err(CallError::NoElement(_))), "{moved:?}");
    assert!(matches!(waiting.await, Err(CallError::BrokenPromise)));
    Ok(())
}

/// Serde does not know it.
struct Rooted {
    count: u32,
}

#[chare(index = usize)]
impl Rooted {
    fn new() -> Self {
        Rooted { count: 0 }
    }

    #[entry]
    fn count(&mut self, cx: &Cx<Self>) -> (u32, usize) {
        self.count += 1;
        (self.count, cx.my_pe().index())
    }
}

/// It refuses, or panics, when it is serialised.
struct Stubborn {
    panics: bool,
    count: u32,
}

impl Serialize for Stubborn {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        assert!(!self.panics, "as asked");
        Err(serde::ser::Error::custom("it does not want to"))
    }
}

impl<'de> Deserialize<'de> for Stubborn {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(D::Error::custom("it never leaves"))
    }
}

#[chare(index = usize)]
impl Stubborn {
    fn new(panics: bool) -> Self {
        Stubborn { panics, count: 0 }
    }

    #[entry]
    fn count(&mut self, cx: &Cx<Self>) -> (u32, usize) {
        self.count += 1;
        (self.count, cx.my_pe().index())
    }
}

/// Has a promise, which serde knows, and something that it cannot take.
#[derive(Serialize, Deserialize)]
struct Debtor {
    answer: Option<Promise<u64>>,
    stubborn: Stubborn,
}

#[chare(index = usize)]
impl Debtor {
    fn new() -> Self {
        Debtor { answer: None, stubborn: Stubborn { panics: false, count: 0 } }
    }

    #[entry]
    fn owe(&mut self, answer: Option<Promise<u64>>) -> u32 {
        self.answer = answer;
        self.stubborn.count
    }
}

#[chare::test(pes = [2, 4])]
async fn a_promise_of_who_cannot_go_is_still_broken(rt: Runtime) -> Result<()> {
    let (debtors, last) = (rt.array::<Debtor>(8).create(()).await?, rt.num_pes() - 1);
    for (index, to) in [(0, last), (7, 0)] {
        let (promise, answer) = rt.promise();
        debtors.at(index).owe(Some(promise)).await?;
        assert_eq!(debtors.at(index).migrate(to).await.is_err(), is_spread(&rt));
        assert_eq!(debtors.at(index).owe(None).await?, 0);
        assert!(matches!(answer.await, Err(CallError::BrokenPromise)));
    }
    Ok(())
}

#[chare::test(pes = [2, 4])]
async fn who_cannot_go_to_another_process_says_why_and_stays_unharmed(rt: Runtime) -> Result<()> {
    if !is_spread(&rt) {
        return Ok(());
    }
    let last = rt.num_pes() - 1;
    let rooted = rt.array::<Rooted>(4).create(()).await?.at(0);
    assert_eq!(rooted.count().await?, (1, 0));
    let error = rooted.migrate(last).await.expect_err("serde does not know it").to_string();
    assert!(error.contains(&format!("Rooted[0] cannot move: PE {last} is in another process")), "{error}");
    assert!(error.contains("derive `serde::Serialize` and `serde::Deserialize` for it"), "{error}");
    assert_eq!(rooted.count().await?, (2, 0));
    for (panics, why) in [(false, "Stubborn` cannot be encoded"), (true, "as asked")] {
        let stubborn = rt.array::<Stubborn>(4).create(panics).await?.at(0);
        assert_eq!(stubborn.count().await?, (1, 0));
        let error = stubborn.migrate(last).await.expect_err("it refuses").to_string();
        assert!(error.contains(why), "{error}");
        assert_eq!(stubborn.count().await?, (2, 0));
    }
    Ok(())
}
