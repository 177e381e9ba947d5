//! Elements that end early, or never begin: what becomes of calls, broadcasts and reductions that counted on them.

use chare::prelude::*;
use reduce::{Gather, Sum};
use serde::{Deserialize, Serialize};

/// Hears once its gate is open.
#[derive(Serialize, Deserialize)]
struct Gate {
    is_open: bool,
    heard: u64,
}

#[chare(index = usize)]
impl Gate {
    fn new() -> Self {
        Gate { is_open: false, heard: 0 }
    }

    #[entry]
    fn open(&mut self) {
        self.is_open = true;
    }

    #[entry(when = |s: &Self| s.is_open)]
    fn hear(&mut self, number: u64) -> u64 {
        self.heard += number;
        number
    }

    /// As `hear`, with a condition on the arguments.
    #[entry(when(self.heard == number))]
    fn hear_in_turn(&mut self, number: u64) -> u64 {
        self.heard += 1;
        number
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_broadcast_goes_on_without_elements_that_end_while_they_keep_it(rt: Runtime) -> Result<()> {
    let sparse = rt.array_sparse::<Gate>().elements(0..10).create(()).await?;
    let dense = rt.array::<Gate>(10).create(()).await?;
    // Kept by all, for one condition and another, awaited or not.
    let heard = sparse.hear(1).gather();
    let in_turn = dense.hear_in_turn(1).gather_results();
    let awaited = dense.hear(1).future();
    dense.hear(1).send();
    sparse.hear_in_turn(7).send();
    let (call, other) = (sparse.at(3).hear(5).future(), dense.at(3).hear_in_turn(5).future());
    rt.quiescence().await?;
    sparse.at(8).migrate(rt.num_pes() - 1).await?;
    for end in [3, 8] {
        sparse.at(end).destroy().await?;
        dense.at(end).destroy().await?;
    }
    for error in [call.await, other.await] {
        assert!(matches!(error, Err(CallError::NoElement(_))), "a call of an element that ends is an error");
    }
    sparse.open().await?;
    dense.open().await?;
    assert_eq!(heard.await?, [1; 8]);
    awaited.await?;
    for outcome in in_turn.await? {
        assert_eq!(outcome?, 1);
    }
    Ok(())
}

/// Fails if it is told to, at once or while others wait for it.
struct Frail;

/// How a constructor ends.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
enum Fate {
    Well,
    Error,
    Panic,
}

impl Fate {
    fn meet(self) -> Result<Frail> {
        match self {
            Fate::Well => Ok(Frail),
            Fate::Error => Err("too frail".into()),
            Fate::Panic => panic!("too frail"),
        }
    }
}

#[chare(index = usize)]
impl Frail {
    async fn new(cx: &Cx<Self>, fate: Fate, wait: Option<Promise<Promise<()>>>) -> Result<Self> {
        if let Some(started) = wait {
            let (go_on, may_go_on) = cx.promise();
            started.send(go_on)?;
            may_go_on.await?;
        }
        fate.meet()
    }

    #[entry]
    fn number(&self, cx: &Cx<Self>) -> usize {
        cx.index()
    }

    #[entry]
    fn add_up(&self, cx: &Cx<Self>, sum: Callback<(u64, Vec<usize>)>) {
        cx.contribute((1, cx.index()), (Sum, Gather), sum);
    }
}

/// As [`Frail`], with a constructor that runs at once and contributes before it fails.
struct Prompt;

#[chare(index = usize)]
impl Prompt {
    fn new(cx: &Cx<Self>, fate: Fate, sum: Option<Promise<Vec<usize>>>) -> Result<Self> {
        if let Some(sum) = sum {
            cx.contribute(cx.index(), Gather, sum);
        }
        fate.meet().map(|_| Prompt)
    }

    #[entry]
    fn number(&self, cx: &Cx<Self>) -> usize {
        cx.index()
    }

    #[entry]
    fn list(&self, cx: &Cx<Self>, indexes: Callback<Vec<usize>>) {
        cx.contribute(cx.index(), Gather, indexes);
    }
}

/// Whether it is the error of one of these constructors.
fn is_frail<V>(outcome: Result<V, CallError>) -> bool {
    outcome.is_err_and(|error| error.to_string().ends_with("too frail"))
}

async fn indexes(rt: &Runtime, array: SparseArray<Frail>) -> Result<(u64, Vec<usize>)> {
    let (to, sum) = rt.promise();
    array.add_up(to.into()).send();
    Ok(sum.await?)
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_insertion_that_fails_leaves_no_element(rt: Runtime) -> Result<()> {
    let array = rt.array_sparse::<Frail>().create_empty();
    for index in 0..4 {
        array.insert(index, (Fate::Well, None)).send();
    }
    for pe in rt.pes() {
        for fate in [Fate::Error, Fate::Panic] {
            assert!(is_frail(array.insert(7, (fate, None)).on_pe(pe).await));
        }
    }
    array.done_inserting().await?;
    assert_eq!(array.number().gather().await?, [0, 1, 2, 3]);
    assert_eq!(indexes(&rt, array).await?, (4, vec![0, 1, 2, 3]));
    let error = array.at(7).number().await.expect_err("there is none");
    assert!(matches!(error, CallError::NoElement(_)), "{error}");
    assert!(is_frail(array.insert(7, (Fate::Error, None)).await));
    // The index may be inserted again, and the element takes part.
    array.insert(7, (Fate::Well, None)).on_pe(rt.num_pes() - 1).await?;
    assert_eq!(array.at(7).number().await?, 7);
    assert_eq!(array.number().gather().await?, [0, 1, 2, 3, 7]);
    assert_eq!(indexes(&rt, array).await?, (5, vec![0, 1, 2, 3, 7]));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_waits_for_an_element_under_construction_learns_of_its_failure(rt: Runtime) -> Result<()> {
    for (fate, pe) in
        [Fate::Error, Fate::Panic].into_iter().flat_map(|fate| rt.pes().map(move |pe| (fate, pe)))
    {
        let array = rt.array_sparse::<Frail>().create_empty();
        array.insert(0, (Fate::Well, None)).send();
        let (to, started) = rt.promise();
        let insertion = array.insert(1, (fate, Some(to))).on_pe(pe);
        let (heard, call, sum) = {
            let mut insertion = std::pin::pin!(insertion);
            assert!(futures::future::poll_immediate(&mut insertion).await.is_none());
            let go_on = started.await?;
            array.done_inserting().await?;
            let waiting = (array.number().gather(), array.at(1).number().future(), array.number().future());
            let (to, sum) = rt.promise();
            array.add_up(to.into()).send();
            rt.quiescence().await?;
            go_on.send(())?;
            assert!(is_frail(insertion.await));
            waiting.2.await?;
            (waiting.0, waiting.1, sum)
        };
        assert!(is_frail(call.await), "it waited for the constructor");
        assert_eq!(heard.await?, [0], "a broadcast goes on without it");
        assert_eq!(sum.await?, (1, vec![0]), "and so does a reduction");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_a_constructor_contributes_before_it_fails_counts(rt: Runtime) -> Result<()> {
    let array = rt.array_sparse::<Prompt>().create_empty();
    let (first, all) = rt.promise();
    array.insert(0, (Fate::Well, Some(first.clone()))).send();
    for pe in rt.pes() {
        assert!(is_frail(array.insert(1 + pe.index(), (Fate::Panic, Some(first.clone()))).on_pe(pe).await));
    }
    array.done_inserting().await?;
    assert_eq!(all.await?, (0..=rt.num_pes()).collect::<Vec<_>>());
    let (to, second) = rt.promise();
    array.list(to.into()).send();
    assert_eq!(second.await?, [0], "they have no part in the next one");
    assert_eq!(array.number().gather().await?, [0]);
    Ok(())
}

/// Fails at one index.
#[derive(Serialize, Deserialize)]
struct Chosen;

#[chare(index = usize)]
impl Chosen {
    fn new(cx: &Cx<Self>, fails_at: usize) -> Result<Self> {
        if cx.index() == fails_at { Err("too frail".into()) } else { Ok(Chosen) }
    }

    #[entry]
    fn count(&self, cx: &Cx<Self>, sum: Callback<u64>) {
        cx.contribute(1, Sum, sum);
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn arrays_go_on_without_elements_that_were_not_created(rt: Runtime) -> Result<()> {
    let leader = rt.array::<Chosen>(8).create(8).await?;
    leader.at(2).destroy().await?;
    leader.at(5).migrate(rt.num_pes() - 1).await?;
    // The follower lacks 2, which has nothing to be bound to, and one that fails.
    for fails_at in [5, 8] {
        let (follower, created) = rt.array::<Chosen>(8).bound_to(&leader).create(fails_at).start();
        created.await.expect_err("not all are created");
        let (to, count) = rt.promise();
        follower.count(to.into()).await?;
        assert_eq!(count.await?, if fails_at == 5 { 6 } else { 7 });
    }
    let (dense, created) = rt.array::<Chosen>(8).create(3).start();
    assert!(is_frail(created.await));
    let (to, count) = rt.promise();
    dense.count(to.into()).await?;
    assert_eq!(count.await?, 7);
    let (to, _) = rt.promise();
    assert!(is_frail(dense.at(3).count(to.into()).await), "calls are told why");
    // Nor is there anything to bind to where the leader's constructor has failed.
    let (follower, created) = rt.array::<Chosen>(8).bound_to(&dense).create(8).start();
    let error = created.await.expect_err("one has no leader").to_string();
    assert!(error.contains("nothing to be bound to") && error.ends_with("too frail"), "{error}");
    let (to, count) = rt.promise();
    follower.count(to.into()).await?;
    assert_eq!(count.await?, 7);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_initial_element_that_fails_may_be_inserted_later(rt: Runtime) -> Result<()> {
    let (array, created) = rt.array_sparse::<Chosen>().elements(0..6).create(4).start();
    assert!(is_frail(created.await));
    let (to, count) = rt.promise();
    array.count(to.into()).await?;
    assert_eq!(count.await?, 5);
    array.insert(4, 8).await?;
    let (to, count) = rt.promise();
    array.count(to.into()).await?;
    assert_eq!(count.await?, 6);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_insertion_behind_a_destruction_is_refused_or_good(rt: Runtime) -> Result<()> {
    let array = rt.array_sparse::<Frail>().elements(0..40).create((Fate::Well, None)).await?;
    let mut count = 40;
    for index in 0..40 {
        array.at(index).destroy().send();
        match array.insert(index, (Fate::Well, None)).on_pe((index * 7) % rt.num_pes()).await {
            Ok(element) => assert_eq!(element.number().await?, index),
            Err(CallError::Refused(_)) => {
                rt.quiescence().await?;
                assert!(matches!(array.at(index).number().await, Err(CallError::NoElement(_))));
                count -= 1;
            }
            Err(error) => return Err(error.into()),
        }
    }
    assert_eq!(array.number().gather().await?.len(), count);
    assert_eq!(indexes(&rt, array).await?.0, count as u64);
    Ok(())
}
