//! Arrays whose elements come and go: insertion from anywhere, destruction, indexes of the user's, maps.

use chare::prelude::*;
use chare::{BoxError, CallError, ChannelError, Index, Placement};
use reduce::{Gather, Sum};
use serde::{Deserialize, Serialize};

use super::{PES, is_spread, run};

/// The value that no node takes.
const THIRTEEN: u64 = 1 << 13;

#[derive(Serialize, Deserialize)]
struct Node {
    value: u64,
    heard: u64,
}

#[chare(index = usize)]
impl Node {
    fn new(_cx: &Cx<Self>, value: u64) -> Result<Self> {
        if value == THIRTEEN {
            return Err("thirteen is not wanted".into());
        }
        Ok(Node { value, heard: 0 })
    }

    #[entry]
    fn value(&self, cx: &Cx<Self>) -> (usize, u64, usize) {
        (cx.index(), self.value, cx.my_pe().index())
    }

    #[entry]
    fn hear(&mut self) -> u64 {
        self.heard += 1;
        self.heard
    }

    #[entry]
    fn add_up(&self, cx: &Cx<Self>, sum: Callback<(u64, Vec<usize>)>) {
        cx.contribute((self.value, cx.index()), (Sum, Gather), sum);
    }

    /// Inserts a child, which contributes to the same reduction, and moves.
    #[entry]
    fn divide(&self, cx: &Cx<Self>, generation: u32, sum: Callback<(u64, Vec<usize>)>) {
        let child = cx.sparse_array().insert(cx.index() | 1 << (generation + 1), 1).send();
        child.add_up(sum.clone()).send();
        cx.contribute((1, cx.index()), (Sum, Gather), sum);
        cx.this().migrate((cx.my_pe().index() + 1) % cx.num_pes()).send();
    }

    /// Inserts two children each, down to a depth.
    #[entry]
    fn grow(&self, cx: &Cx<Self>, depth: u32) {
        if depth > 0 {
            for child in [2 * cx.index() + 1, 2 * cx.index() + 2] {
                let child = cx.sparse_array().insert(child, child as u64).send();
                child.grow(depth - 1).send();
            }
        }
    }

    #[entry]
    async fn wait_for(this: This<Self>, from: usize) -> Result<u64> {
        let channel = this.channel::<u64, _>(&this.sparse_array().at(from), 1);
        Ok(channel.recv().await?)
    }

    #[entry]
    async fn wait_for_ever(this: This<Self>) {
        this.wait_until(|_| false).await;
    }

    #[entry]
    async fn own_for_a_while(&mut self, cx: &Cx<Self>, promise: Promise<Promise<()>>) -> Result<()> {
        let (to, end) = cx.promise();
        promise.send(to)?;
        Ok(end.await?)
    }

    #[entry]
    fn end(&self, cx: &Cx<Self>) {
        cx.this().destroy().send();
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn elements_are_inserted_in_any_order(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    let indexes = [7, 1_000_000_007, 0, 3, 12, usize::MAX - 1];
    for (index, value) in indexes.into_iter().zip(100..) {
        assert_eq!(nodes.insert(index, value).await?.index(), index);
    }
    nodes.done_inserting().await?;
    for (index, value) in indexes.into_iter().zip(100..) {
        let (there, has, _) = nodes.at(index).value().await?;
        assert_eq!((there, has), (index, value));
    }
    let values = nodes.value().gather().await?;
    assert_eq!(
        values.iter().map(|value| value.0).collect::<Vec<_>>(),
        [0, 3, 7, 12, 1_000_000_007, usize::MAX - 1]
    );
    let (to, sum) = rt.promise();
    nodes.add_up(to.into()).send();
    assert_eq!(sum.await?, ((100..106).sum(), vec![0, 3, 7, 12, 1_000_000_007, usize::MAX - 1]));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_insertion_says_where(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    for (index, pe) in rt.pes().chain(rt.pes()).enumerate() {
        nodes.insert(index, 5).on_pe(pe).send();
        assert_eq!(nodes.at(index).value().await?, (index, 5, pe.index()));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn elements_insert_elements(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    nodes.insert(0, 0).send();
    nodes.at(0).grow(9).send();
    rt.quiescence().await?;
    nodes.done_inserting().await?;
    let values = nodes.value().gather().await?;
    assert_eq!(values.iter().map(|value| value.0).collect::<Vec<_>>(), (0..1023).collect::<Vec<_>>());
    let pes: std::collections::BTreeSet<_> = values.iter().map(|value| value.2).collect();
    assert_eq!(pes.len(), rt.num_pes(), "they are spread");
    let (to, sum) = rt.promise();
    nodes.add_up(to.into()).send();
    assert_eq!(sum.await?.0, (0..1023).sum());
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn calls_of_an_element_that_is_not_there_yet_are_held(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    let early: Vec<_> = (0..20).map(|index| nodes.at(index).value().future()).collect();
    rt.quiescence().await?;
    for index in 0..20 {
        nodes.insert(index, index as u64).on_pe((index * 3) % rt.num_pes()).send();
    }
    for (index, early) in early.into_iter().enumerate() {
        assert_eq!(early.await?, (index, index as u64, (index * 3) % rt.num_pes()));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn after_the_end_of_inserting_absent_elements_do_not_exist(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    nodes.insert(4, 4).send();
    let early = nodes.at(5).value().future();
    rt.quiescence().await?;
    nodes.done_inserting().await?;
    for error in [early.await, nodes.at(6).value().await] {
        let error = error.expect_err("absent").to_string();
        assert!(error.contains("was never inserted, or has been destroyed"), "{error}");
    }
    // Later insertions are possible.
    nodes.insert(6, 60).await?;
    assert_eq!(nodes.at(6).value().await?.1, 60);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn broadcasts_reach_what_was_inserted_before(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    for index in 0..200 {
        nodes.insert(index, 0).send();
        if index % 10 == 9 {
            nodes.hear().send();
        }
        if index % 50 == 49 {
            assert_eq!(nodes.hear().gather().await?.len(), index + 1);
        }
    }
    rt.quiescence().await?;
    // An element hears all broadcasts that are sent after its insertion, and no others: 20, then 4 that are gathered.
    let heard = nodes.hear().gather().await?;
    let expected = |index: u64| 20 - index / 10 + 4 - index / 50 + 1;
    assert_eq!(heard, (0..200).map(expected).collect::<Vec<_>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn inserting_twice_is_refused(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    nodes.insert(1, 1).on_pe(rt.num_pes() - 1).await?;
    let error = nodes.insert(1, 2).await.expect_err("it is there").to_string();
    assert_eq!(error, "Node[1] is there already");
    nodes.done_inserting().await?;
    assert_eq!(nodes.at(1).value().await?.1, 1);
    let (to, sum) = rt.promise();
    nodes.add_up(to.into()).send();
    assert_eq!(sum.await?, (1, vec![1]), "the refused one does not count");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn destructions_are_asked_for_at_once_and_awaited_later(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    for index in 0..10 {
        nodes.insert(index, 1).send();
    }
    nodes.done_inserting().await?;
    let ends: Vec<_> = (0..10).map(|index| nodes.at(index).destroy().future()).collect();
    rt.quiescence().await?;
    assert!(matches!(nodes.at(4).value().await, Err(CallError::NoElement(_))));
    assert!(ends.iter().all(|end| end.is_ready()), "they were asked for when the futures were made");
    for end in ends {
        end.await?;
    }
    assert!(matches!(nodes.at(4).destroy().future().await, Err(CallError::NoElement(_))));
    Ok(())
}

struct Lone;

#[chare]
impl Lone {
    fn new() -> Self {
        Lone
    }

    #[entry]
    fn knock(&self) {}
}

#[chare::test(pes = [1, 2, 4])]
async fn insertions_and_creations_are_sent_at_once_and_awaited_later(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    let insertions: Vec<_> = (0..10).map(|index| nodes.insert(index, 1).future()).collect();
    let creation = rt.single::<Lone>().create(()).future();
    rt.quiescence().await?;
    nodes.done_inserting().await?;
    nodes.at(4).value().await?;
    for (index, insertion) in insertions.into_iter().enumerate() {
        assert_eq!(insertion.await?.index(), index);
    }
    let single = creation.await?;
    single.destroy().await?;
    let text = single.knock().await.expect_err("it was destroyed").to_string();
    assert_eq!(text, "this Lone does not exist: it has been destroyed");
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn destroyed_elements_are_gone_and_may_come_again(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    for index in 0..10 {
        nodes.insert(index, 1).on_pe(index % rt.num_pes()).send();
    }
    nodes.done_inserting().await?;
    for round in 2..6 {
        nodes.at(3).destroy().await?;
        assert!(matches!(nodes.at(3).value().await, Err(CallError::NoElement(_))));
        assert!(matches!(nodes.at(3).destroy().await, Err(CallError::NoElement(_))));
        assert_eq!(nodes.hear().gather().await?.len(), 9);
        let (to, sum) = rt.promise();
        nodes.add_up(to.into()).send();
        assert_eq!(sum.await?.0, 9);
        nodes.insert(3, round).on_pe(round as usize % rt.num_pes()).await?;
        nodes.at(3).migrate((round as usize + 1) % rt.num_pes()).await?;
        assert_eq!(nodes.at(3).value().await?, (3, round, (round as usize + 1) % rt.num_pes()));
        let (to, sum) = rt.promise();
        nodes.add_up(to.into()).send();
        assert_eq!(sum.await?.0, 9 + round);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn what_waits_for_a_destroyed_element_learns_of_it(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    for index in 0..3 {
        nodes.insert(index, 1).on_pe(index % rt.num_pes()).await?;
    }
    let coroutine = nodes.at(0).wait_for_ever().future();
    let receiver = nodes.at(1).wait_for(0).future();
    let both = nodes.at(0).wait_for(1).future();
    rt.quiescence().await?;
    nodes.at(0).destroy().await?;
    assert!(matches!(coroutine.await, Err(CallError::BrokenPromise)));
    assert!(matches!(both.await, Err(CallError::BrokenPromise)));
    let Err(CallError::Failed(failed)) = receiver.await else { panic!("its peer is gone") };
    assert!(failed.to_string().contains("Node has no element [0]"), "{failed}");
    // What comes from another process is the text of the error.
    if !is_spread(&rt) {
        let error = failed.error.downcast_ref::<ChannelError>().expect("of the channel");
        assert!(matches!(error, ChannelError::Peer(CallError::NoElement(_))), "{error}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_destruction_waits_for_an_exclusive_coroutine(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    nodes.insert(0, 1).await?;
    let (to, started) = rt.promise();
    let owner = nodes.at(0).own_for_a_while(to).future();
    let end = started.await?;
    let held = nodes.at(0).value().future();
    nodes.at(0).destroy().send();
    let late = nodes.at(0).value().future();
    rt.quiescence().await?;
    end.send(())?;
    owner.await?;
    assert_eq!(held.await?.1, 1);
    assert!(matches!(late.await, Err(CallError::NoElement(_))));
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn an_element_ends_itself(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    for index in 0..8 {
        nodes.insert(index, 1).send();
    }
    nodes.done_inserting().await?;
    for index in 0..8 {
        nodes.at(index).end().send();
        rt.quiescence().await?;
        assert_eq!(nodes.hear().gather().await?.len(), 7 - index);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4])]
async fn a_constructor_that_fails_is_an_error_of_its_insertion(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    let error = nodes.insert(0, THIRTEEN).await.expect_err("not wanted").to_string();
    assert!(error.contains("thirteen is not wanted"), "{error}");
    assert!(nodes.at(0).value().await.is_err());
    Ok(())
}

#[test]
fn elements_of_dense_arrays_can_be_destroyed() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let leaves = rt.array::<Leaf>((3, 4)).create(()).await?;
            for index in [(1, 2), (2, 3)] {
                let (held, gone) = rt.promise::<()>();
                leaves.at(index).hold(held).await?;
                rt.quiescence().await?;
                assert!(!gone.is_ready(), "it lives");
                leaves.at(index).destroy().await?;
                // From elsewhere the message that breaks it comes on its own.
                assert!(gone.is_ready() || rt.num_pes() > 1, "it is gone when its destruction is over");
                assert!(matches!(gone.await, Err(CallError::BrokenPromise)), "its state is dropped");
                let error = leaves.at(index).whoami().await.expect_err("gone").to_string();
                assert_eq!(error, format!("Leaf has no element [{index:?}]: it has been destroyed"));
            }
            assert_eq!(leaves.whoami().gather().await?.len(), 10);
            Ok::<(), BoxError>(())
        });
        assert!(report.is_success(), "{report}");
    }
}

#[derive(Serialize, Deserialize)]
struct Leaf {
    held: Option<Promise<()>>,
}

#[chare(index = (usize, usize))]
impl Leaf {
    fn new() -> Self {
        Leaf { held: None }
    }

    /// Keeps it as long as it lives.
    #[entry]
    fn hold(&mut self, held: Promise<()>) {
        self.held = Some(held);
    }

    #[entry]
    fn whoami(&self, cx: &Cx<Self>) -> ((usize, usize), usize) {
        (cx.index(), cx.my_pe().index())
    }
}

/// A node of an octree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
struct Octant {
    depth: u8,
    at: [i32; 3],
}

impl Index for Octant {}

#[derive(Serialize, Deserialize)]
struct Tree;

#[chare(index = Octant)]
impl Tree {
    fn new() -> Self {
        Tree
    }

    #[entry]
    fn whoami(&self, cx: &Cx<Self>) -> Octant {
        cx.index()
    }

    #[entry]
    fn panic(&self) {
        panic!("as asked");
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn indexes_of_the_user_name_elements(rt: Runtime) -> Result<()> {
    let tree = rt.array_sparse::<Tree>().create_empty();
    let octants: Vec<_> = (-5..5).map(|x| Octant { depth: 3, at: [x, -x, 7] }).collect();
    for octant in &octants {
        tree.insert(*octant, ()).send();
    }
    tree.done_inserting().await?;
    for (place, octant) in octants.iter().enumerate() {
        assert_eq!(tree.at(*octant).whoami().await?, *octant);
        tree.at(*octant).migrate(place % rt.num_pes()).await?;
        assert_eq!(tree.at(*octant).whoami().await?, *octant, "it takes its index along");
    }
    let mut all = tree.whoami().gather().await?;
    all.sort_unstable();
    assert_eq!(all, octants);
    let error = tree.at(octants[0]).panic().await.expect_err("it panics").to_string();
    assert!(error.starts_with("Tree[Octant { depth: 3, at: [-5, 5, 7] }].panic panicked"), "{error}");
    Ok(())
}

/// Two indexes of one key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
struct Careless(u8);

impl Index for Careless {
    fn key(&self) -> u64 {
        if self.0 == 9 { u64::MAX } else { 1 }
    }
}

struct Clash;

#[chare(index = Careless)]
impl Clash {
    fn new() -> Self {
        Clash
    }
}

#[chare::test(pes = [1, 2])]
async fn keys_that_clash_are_told(rt: Runtime) -> Result<()> {
    let array = rt.array_sparse::<Clash>().create_empty();
    array.insert(Careless(1), ()).await?;
    let error = array.insert(Careless(2), ()).await.expect_err("same key").to_string();
    assert_eq!(
        error,
        "Clash[Careless(2)] has the key 1, and so has [Careless(1)]: give them different ones (`Index::key`)"
    );
    Ok(())
}

#[test]
fn a_key_that_is_none_is_told() {
    let report = run(1, async |rt: Runtime| {
        rt.array_sparse::<Clash>().create_empty().insert(Careless(9), ()).send();
        Ok::<(), BoxError>(())
    });
    assert!(report.to_string().contains("the key of Careless(9) is `u64::MAX`, which is no key"), "{report}");
}

/// Deals elements out like cards; the last one wherever it says.
struct Deal {
    last: usize,
}

impl Placement<(usize, usize)> for Deal {
    fn pe(&self, &(i, j): &(usize, usize), pe_count: usize) -> usize {
        if (i, j) == (2, 3) { self.last } else { (4 * i + j) % pe_count }
    }
}

impl Placement<usize> for Deal {
    fn pe(&self, index: &usize, pe_count: usize) -> usize {
        if *index == 99 { self.last } else { index / 2 % pe_count }
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_map_says_where_elements_begin(rt: Runtime) -> Result<()> {
    let last = rt.num_pes() - 1;
    let leaves = rt.array::<Leaf>((3, 4)).map(Deal { last }).create(()).await?;
    let expected = |i: usize, j: usize| if (i, j) == (2, 3) { last } else { (4 * i + j) % (last + 1) };
    let all = leaves.whoami().gather().await?;
    let wanted = (0..12).map(|n| ((n / 4, n % 4), expected(n / 4, n % 4)));
    assert_eq!(all, wanted.collect::<Vec<_>>());
    for i in 0..3 {
        for j in 0..4 {
            assert_eq!(leaves.at((i, j)).whoami().await?, ((i, j), expected(i, j)));
            leaves.at((i, j)).migrate(i % (last + 1)).await?;
            assert_eq!(leaves.at((i, j)).whoami().await?.1, i % (last + 1));
        }
    }
    let nodes = rt.array_sparse::<Node>().map(Deal { last }).create_empty();
    for index in 0..20 {
        nodes.insert(index, 0).await?;
        assert_eq!(nodes.at(index).value().await?.2, index / 2 % (last + 1));
    }
    nodes.insert(50, 0).on_pe(last).await?;
    assert_eq!(nodes.at(50).value().await?.2, last, "the insertion says more");
    Ok(())
}

#[test]
fn a_map_to_a_pe_that_is_not_there_is_told() {
    for pes in [1, 2] {
        let report = run(pes, async |rt: Runtime| {
            rt.array::<Leaf>((3, 4)).map(Deal { last: 77 }).create(()).await?;
            Ok::<(), BoxError>(())
        });
        let told = format!("[(2, 3)] is mapped to PE 77, and this run has {pes} PEs");
        assert!(report.to_string().contains(&told), "{report}");
        let report = run(pes, async |rt: Runtime| {
            let nodes = rt.array_sparse::<Node>().map(Deal { last: 77 }).create_empty();
            let error = nodes.insert(99, 0).await.expect_err("nowhere").to_string();
            assert_eq!(error, format!("Node[99] is mapped to PE 77, and this run has {} PEs", rt.num_pes()));
            nodes.insert(1, 0).await?;
            nodes.done_inserting().await?;
            assert_eq!(nodes.hear().gather().await?, [1]);
            Ok::<(), BoxError>(())
        });
        assert!(report.is_success(), "{report}");
    }
}

#[test]
fn a_call_of_an_element_that_never_comes_is_in_the_hang_report() {
    for pes in [1, 2, 4] {
        let report = run(pes, async |rt: Runtime| {
            let nodes = rt.array_sparse::<Node>().create_empty();
            nodes.insert(1, 0).await?;
            nodes.at(2).value().await?;
            Ok::<(), BoxError>(())
        });
        let text = report.to_string();
        assert!(text.contains("Node.value for Node[2], which was never inserted"), "{text}");
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn elements_come_and_go_while_all_is_under_way(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    for index in 0..50 {
        nodes.insert(index, 1).send();
    }
    nodes.done_inserting().await?;
    for round in 0..32 {
        let mut sums = Vec::new();
        for step in 0..5 {
            nodes.hear().send();
            nodes.at(3 * ((round + step) % 16)).migrate((round * 7 + step) % rt.num_pes()).send();
            let (to, sum) = rt.promise();
            nodes.add_up(to.into()).send();
            sums.push(sum);
        }
        if round % 2 == 1 {
            // Those under way may have it or not: they count who has contributed.
            nodes.at(3 * (round / 2 % 16) + 1).destroy().send();
        }
        for sum in sums {
            let (sum, members) = sum.await?;
            assert_eq!(sum as usize, members.len(), "round {round}");
        }
        nodes.insert(100 + round, 1).on_pe(round % rt.num_pes()).await?;
        nodes.at(100 + round).migrate((round * 3) % rt.num_pes()).send();
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn who_is_inserted_by_an_element_contributes_with_it(rt: Runtime) -> Result<()> {
    let nodes = rt.array_sparse::<Node>().create_empty();
    nodes.insert(1, 1).send();
    nodes.done_inserting().await?;
    for generation in 0..9 {
        let (to, sum) = rt.promise();
        nodes.divide(generation, to.into()).send();
        assert_eq!(sum.await?.0, 2 << generation, "generation {generation}");
    }
    Ok(())
}

/// Contributes once more when it is dropped.
struct Clinging {
    cx: Cx<Clinging>,
}

impl Drop for Clinging {
    fn drop(&mut self) {
        let (to, _) = self.cx.promise();
        self.cx.contribute(1_u64, Sum, to);
    }
}

#[chare(index = usize)]
impl Clinging {
    fn new(cx: &Cx<Self>) -> Self {
        Clinging { cx: cx.clone() }
    }
}

#[test]
fn a_destroyed_element_has_no_part_in_reductions() {
    for pes in [1, 2] {
        let report = run(pes, async |rt: Runtime| {
            let elements = rt.array::<Clinging>(4).create(()).await?;
            elements.at(1).destroy().await?;
            Ok::<(), BoxError>(())
        });
        let text = report.to_string();
        assert!(
            text.contains("in a destructor") && text.contains("contributes in its own methods"),
            "{text}"
        );
    }
}

/// Is told of coroutines that begin.
struct Tally(usize);

#[chare]
impl Tally {
    fn new() -> Self {
        Tally(0)
    }

    #[entry]
    fn begun(&mut self) {
        self.0 += 1;
    }

    #[entry]
    fn count(&self) -> usize {
        self.0
    }
}

struct Crowd {
    tally: Element<Tally>,
}

#[chare(index = usize)]
impl Crowd {
    fn new(tally: Element<Tally>) -> Self {
        Crowd { tally }
    }

    #[entry]
    async fn own_for_a_turn(&mut self, cx: &Cx<Self>) -> Result<()> {
        self.tally.begun().send();
        cx.sleep(std::time::Duration::from_micros(10)).await;
        Ok(())
    }
}

#[chare::test(pes = [1, 2])]
async fn a_destruction_waits_for_a_coroutine_that_a_broadcast_has_just_begun(rt: Runtime) -> Result<()> {
    let tally = rt.single::<Tally>().create(()).await?;
    // So many that the broadcast takes several turns of a PE, between which the destructions have theirs.
    let crowd = rt.array::<Crowd>(3000).create(tally).await?;
    let broadcast = crowd.own_for_a_turn().future();
    let ends: Vec<_> = (0..3000).step_by(7).map(|index| crowd.at(index).destroy()).collect();
    for end in ends {
        end.await?;
    }
    broadcast.await?;
    rt.quiescence().await?;
    let begun = tally.count().await?;
    assert!((2500..=3000).contains(&begun), "{begun} have begun");
    Ok(())
}
