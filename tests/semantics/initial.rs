//! Sparse arrays that have elements from their creation, without a message for each.

use chare::prelude::*;
use chare::{BoxError, CallError, Index, Placement, Strided};
use reduce::{Gather, Sum};
use serde::{Deserialize, Serialize};

use super::{PES, is_spread, run};

#[derive(Serialize, Deserialize)]
struct Cell {
    heard: u64,
    value: u64,
}

/// The value that no cell takes.
const THIRTEEN: u64 = 13;

#[chare(index = (usize, usize))]
impl Cell {
    fn new(cx: &Cx<Self>, value: u64) -> Result<Self> {
        if value == THIRTEEN && cx.index() == (4, 4) {
            return Err("thirteen is not wanted".into());
        }
        Ok(Cell { heard: 0, value })
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> ((usize, usize), usize) {
        (cx.index(), cx.my_pe().index())
    }

    /// Inserts the element beside this one.
    #[entry]
    fn multiply(&self, cx: &Cx<Self>) {
        let (i, j) = cx.index();
        cx.sparse_array().insert((i, j + 1), 1).send();
    }

    #[entry]
    fn hear(&mut self) -> u64 {
        self.heard += 1;
        self.heard
    }

    #[entry]
    fn add_up(&self, cx: &Cx<Self>, sum: Callback<(u64, Vec<(usize, usize)>)>) {
        cx.contribute((self.value, cx.index()), (Sum, Gather), sum);
    }

    #[entry]
    fn wander(&self, cx: &Cx<Self>, steps: usize) {
        if steps > 0 {
            cx.this().migrate((cx.index().0 + 3 * cx.index().1 + steps) % cx.num_pes()).send();
            cx.this().wander(steps - 1).send();
        }
    }
}

/// Every second column of every third row.
fn lattice() -> Strided<(usize, usize)> {
    Strided::new((1, 0), (20, 9), (3, 2))
}

fn indexes() -> Vec<(usize, usize)> {
    (1..20).step_by(3).flat_map(|i| (0..9).step_by(2).map(move |j| (i, j))).collect()
}

/// Deals rows out like cards.
struct ByRow;

impl Placement<(usize, usize)> for ByRow {
    fn pe(&self, &(i, _): &(usize, usize), pe_count: usize) -> usize {
        i % pe_count
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn all_elements_of_the_range_are_there_and_no_others(rt: Runtime) -> Result<()> {
    let cells = rt.array_sparse::<Cell>().strided(lattice()).create(2).await?;
    let mut all = cells.place().gather().await?;
    all.sort_unstable();
    assert_eq!(all.iter().map(|(index, _)| *index).collect::<Vec<_>>(), indexes());
    for (index, pe) in all {
        assert_eq!(cells.at(index).place().await?, (index, pe));
    }
    let pes: std::collections::BTreeSet<_> =
        cells.place().gather().await?.into_iter().map(|(_, pe)| pe).collect();
    assert_eq!(pes.len(), rt.num_pes(), "they are spread");
    // It counts as sealed.
    let error = cells.at((0, 0)).hear().await.expect_err("not in the range").to_string();
    assert!(error.contains("was never inserted, or has been destroyed"), "{error}");
    let (to, sum) = rt.promise();
    cells.add_up(to.into()).send();
    assert_eq!(sum.await?, (2 * indexes().len() as u64, indexes()));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn elements_come_and_go_later_as_ever(rt: Runtime) -> Result<()> {
    let cells = rt.array_sparse::<Cell>().strided(lattice()).create(1).await?;
    let error = cells.insert((4, 2), 1).await.expect_err("it is there").to_string();
    assert_eq!(error, "Cell[(4, 2)] is there already");
    cells.insert((0, 0), 5).await?;
    cells.at((4, 2)).destroy().await?;
    assert!(matches!(cells.at((4, 2)).hear().await, Err(CallError::NoElement(_))));
    let (to, sum) = rt.promise();
    cells.add_up(to.into()).send();
    let (sum, there) = sum.await?;
    assert_eq!((sum, there.len()), (indexes().len() as u64 - 1 + 5, indexes().len()));
    cells.insert((4, 2), 7).on_pe(rt.num_pes() - 1).await?;
    assert_eq!(cells.at((4, 2)).place().await?, ((4, 2), rt.num_pes() - 1));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_map_places_them_and_their_homes_know(rt: Runtime) -> Result<()> {
    let cells = rt.array_sparse::<Cell>().map(ByRow).strided(lattice()).create(1).await?;
    for (index, pe) in cells.place().gather().await? {
        assert_eq!(pe, index.0 % rt.num_pes());
    }
    for index in indexes() {
        assert_eq!(cells.at(index).place().await?.1, index.0 % rt.num_pes());
        let error = cells.insert(index, 1).await.expect_err("it is there").to_string();
        assert_eq!(error, format!("Cell[{index:?}] is there already"));
    }
    for index in indexes() {
        cells.at(index).migrate(index.1 % rt.num_pes()).await?;
        assert_eq!(cells.at(index).place().await?.1, index.1 % rt.num_pes());
        cells.at(index).destroy().await?;
        assert!(matches!(cells.at(index).place().await, Err(CallError::NoElement(_))));
        cells.insert(index, 3).await?;
        assert_eq!(cells.at(index).place().await?.1, index.0 % rt.num_pes(), "placed by the map again");
    }
    Ok(())
}

/// A map that no other process could be told.
struct Listed(Box<dyn Fn(usize) -> usize + Send + Sync>);

impl Placement<(usize, usize)> for Listed {
    fn pe(&self, &(i, j): &(usize, usize), pe_count: usize) -> usize {
        self.0(7 * i + j) % pe_count
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn what_is_inserted_anywhere_goes_where_the_map_says(rt: Runtime) -> Result<()> {
    let places = [5, 3, 3, 0, 6, 1, 7, 2];
    let map = Listed(Box::new(move |number| places[number % 8]));
    let cells = rt.array_sparse::<Cell>().map(map).strided(lattice()).create(1).await?;
    cells.multiply().await?;
    rt.quiescence().await?;
    let all = cells.place().gather().await?;
    assert_eq!(all.len(), 2 * indexes().len());
    for ((i, j), pe) in all {
        assert_eq!(pe, places[(7 * i + j) % 8] % rt.num_pes());
    }
    Ok(())
}

/// Nothing is awaited before elements move, end and are inserted: news of them may come to a PE before the array does.
#[chare::test(pes = [1, 2, 4, 8], unsimulated = "plain messages are taken to come in order")]
async fn everything_may_happen_before_all_pes_know_the_array(rt: Runtime) -> Result<()> {
    for round in 0..40 {
        let cells = rt.array_sparse::<Cell>().map(ByRow).strided(lattice()).create(1).send();
        let doomed = indexes()[round % indexes().len()];
        for index in indexes() {
            cells.at(index).wander(if index == doomed { 0 } else { 3 }).send();
        }
        cells.at(doomed).migrate((round + 1) % rt.num_pes()).send();
        cells.hear().send();
        cells.at(doomed).destroy().await?;
        let (to, sum) = rt.promise();
        cells.add_up(to.into()).send();
        assert_eq!(sum.await?.0, indexes().len() as u64 - 1, "round {round}");
        cells.insert(doomed, 9).await?;
        rt.quiescence().await?;
        for index in indexes() {
            let heard = if index == doomed { 1 } else { 2 };
            assert_eq!(cells.at(index).hear().await?, heard, "{index:?} in round {round}");
        }
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_creation_brings_the_errors_of_constructors(rt: Runtime) -> Result<()> {
    let error = rt.array_sparse::<Cell>().strided(lattice()).create(THIRTEEN).await.expect_err("one fails");
    assert!(error.to_string().contains("thirteen is not wanted"), "{error}");
    Ok(())
}

struct Slow;

#[chare(index = usize)]
impl Slow {
    /// One waits until the key is used.
    async fn new(cx: &Cx<Self>, late: usize, key: Promise<Promise<()>>) -> Result<Self> {
        if cx.index() == late {
            let (open, opened) = cx.promise();
            key.send(open)?;
            opened.await?;
        }
        Ok(Slow)
    }

    #[entry]
    fn own_index(&self, cx: &Cx<Self>) -> usize {
        cx.index()
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn a_creation_waits_for_all_constructors(rt: Runtime) -> Result<()> {
    for late in [1_000_000, 3_000_000, 4_990_000] {
        let range = Strided::new(1_000_000, 5_000_000, 10_000);
        let (key, waiting) = rt.promise();
        let (slow, created) = rt.array_sparse::<Slow>().strided(range).create((late, key)).start();
        let open = waiting.await?;
        rt.quiescence().await?;
        assert!(!created.is_ready(), "{late} is not constructed");
        open.send(())?;
        created.await?;
        assert!(slow.own_index().gather().await?.into_iter().eq((1_000_000..5_000_000).step_by(10_000)));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn an_empty_range_makes_an_empty_array(rt: Runtime) -> Result<()> {
    let cells = rt.array_sparse::<Cell>().strided(Strided::new((3, 3), (3, 9), (1, 1))).create(1).await?;
    assert_eq!(cells.hear().gather().await?, []);
    assert!(matches!(cells.at((3, 3)).hear().await, Err(CallError::NoElement(_))));
    cells.insert((3, 3), 1).await?;
    assert_eq!(cells.hear().gather().await?, [1]);
    Ok(())
}

/// A node of a tree, by the way to it; careless about keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
struct Way(u8, u64);

impl Index for Way {
    fn key(&self) -> u64 {
        self.1
    }
}

struct Node;

#[chare(index = Way)]
impl Node {
    fn new() -> Self {
        Node
    }

    #[entry]
    fn whoami(&self, cx: &Cx<Self>) -> Way {
        cx.index()
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn any_indexes_may_be_listed(rt: Runtime) -> Result<()> {
    let ways: Vec<_> = [9, 2, 77, 5].into_iter().map(|key| Way(1, key)).collect();
    let nodes = rt.array_sparse::<Node>().elements(ways.clone()).create(()).await?;
    assert_eq!(nodes.whoami().gather().await?, [Way(1, 2), Way(1, 5), Way(1, 9), Way(1, 77)]);
    for way in ways {
        assert_eq!(nodes.at(way).whoami().await?, way);
    }
    Ok(())
}

/// serde does not know it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
struct Unsaid(u64);

impl Index for Unsaid {
    fn key(&self) -> u64 {
        self.0
    }
}

struct Leaf;

#[chare(index = Unsaid)]
impl Leaf {
    fn new() -> Self {
        Leaf
    }

    #[entry]
    fn number(&self, cx: &Cx<Self>) -> u64 {
        cx.index().0
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn listed_indexes_that_serde_does_not_know_stay_in_their_process(rt: Runtime) -> Result<()> {
    let created = rt.array_sparse::<Leaf>().elements([4, 1, 9].map(Unsaid)).create(()).await;
    if !is_spread(&rt) {
        assert_eq!(created?.number().gather().await?, [1, 4, 9]);
        return Ok(());
    }
    let Err(error) = created else { panic!("others cannot read it") };
    let error = error.to_string();
    let told = "Leaf was not created in another process: a value of type `";
    assert!(error.contains(told) && error.contains("::Unsaid` cannot be sent"), "{error}");
    Ok(())
}

/// What the report of a run says in which `main` makes a mistake.
fn report_of<F>(main: F) -> String
where
    F: Fn(Runtime) + Send + Sync + Copy + 'static,
{
    let report = run(2, async move |rt: Runtime| {
        main(rt);
        Ok::<(), BoxError>(())
    });
    assert!(!report.is_success());
    report.to_string()
}

#[test]
fn nonsense_is_told() {
    type At = (usize, usize);
    let ranges: [(At, At, At, &str); 3] = [
        ((0, 0), (4, 4), (1, 0), "with the step (1, 0) never ends: give a step above 0"),
        ((0, 5), (4, 4), (1, 1), "from (0, 5) to (4, 4) ends before it starts"),
        ((0, 0), (usize::MAX, 3), (1, 1), "has more indexes than 64 bits count"),
    ];
    for (start, end, step, told) in ranges {
        let report = report_of(move |_| _ = Strided::new(start, end, step));
        assert!(report.contains(told), "{report}");
    }
    let lists = [
        (vec![Way(0, 3), Way(1, 2), Way(1, 3)], "[Way(0, 3)] and [Way(1, 3)] both have the key 3"),
        (vec![Way(0, 3), Way(0, 3)], "[Way(0, 3)] is given twice: an array has one element of each index"),
        (vec![Way(0, u64::MAX)], "the key of Way(0, 18446744073709551615) is `u64::MAX`, which is no key"),
    ];
    for (ways, told) in lists {
        let report = run(2, async |rt: Runtime| {
            rt.array_sparse::<Node>().elements(ways).create(()).send();
            Ok::<(), BoxError>(())
        });
        assert!(report.to_string().contains(told), "{report}");
    }
    let report = report_of(|rt| {
        rt.array_sparse::<Slow>().strided(Strided::new(0, usize::MAX, 1)).create((0, rt.promise().0)).send();
    });
    assert!(report.contains("an array of 18446744073709551615 elements does not fit in memory"), "{report}");
}

/// Maps what is not there to nowhere, or panics.
struct Mad {
    panics: bool,
}

impl Placement<(usize, usize)> for Mad {
    fn pe(&self, &(i, _): &(usize, usize), _: usize) -> usize {
        assert!(!self.panics || i < 10, "the map is mad");
        if i < 10 { 0 } else { 77 }
    }
}

#[test]
fn a_map_that_says_nonsense_is_told() {
    for pes in PES {
        for (panics, told) in [
            (false, "Cell[(10, 0)] is mapped to PE 77, and this run has"),
            (true, "the map of Cell[(10, 0)]: panic at"),
        ] {
            let report = run(pes, async move |rt: Runtime| {
                rt.array_sparse::<Cell>().map(Mad { panics }).strided(lattice()).create(1).await?;
                Ok::<(), BoxError>(())
            });
            assert!(report.to_string().contains(told), "{report}");
        }
    }
}
