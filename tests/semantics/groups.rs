//! Groups: one chare on every PE, whose index is its PE's number.

use chare::prelude::*;

use super::run;

struct Member {
    start: u64,
}

#[chare]
impl Member {
    fn new(cx: &Cx<Self>, start: u64) -> Self {
        Member { start: start + cx.index() as u64 }
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> (usize, usize) {
        assert_eq!(cx.group().map(|group| group.on(cx.my_pe())), Some(cx.this()));
        (cx.index(), cx.my_pe().index())
    }

    #[entry]
    fn start(&self) -> u64 {
        self.start
    }

    #[entry]
    async fn create_another(&self, cx: &Cx<Self>) -> Result<Group<Member>> {
        let rt: &Runtime = cx;
        Ok(rt.group::<Member>().create(1000).await?)
    }

    /// Calls a group that may be unknown on this PE still.
    #[entry]
    async fn call_all(&self, cx: &Cx<Self>, of: Group<Member>) -> Result<u64> {
        let here = of.on(cx.my_pe()).start().await?;
        let others: Vec<u64> = of.start().gather().await?;
        Ok(here + others.iter().sum::<u64>())
    }
}

/// A generic chare: the types of it that other processes know are listed.
struct Pair<T> {
    left: T,
    right: T,
}

#[chare(types = [Pair<u32>, Pair<String>])]
impl<T: Clone + Send + serde::Serialize + serde::de::DeserializeOwned + 'static> Pair<T> {
    fn new(left: T, right: T) -> Self {
        Pair { left, right }
    }

    #[entry]
    fn swap(&mut self) -> (T, T) {
        std::mem::swap(&mut self.left, &mut self.right);
        (self.left.clone(), self.right.clone())
    }

    #[entry]
    fn replace(&mut self, left: T) {
        self.left = left;
    }
}

#[chare::test(pes = [1, 2, 4])]
async fn generic_chares_are_told_apart(rt: Runtime) -> Result<()> {
    let numbers = rt.group::<Pair<u32>>().create((1, 2)).await?;
    let texts = rt.group::<Pair<String>>().create(("a".to_owned(), "b".to_owned())).await?;
    numbers.replace(3).await?;
    texts.on(rt.num_pes() - 1).replace("c".to_owned()).await?;
    for pe in rt.pes() {
        assert_eq!(numbers.on(pe).swap().await?, (2, 3));
        let left = if pe.index() + 1 == rt.num_pes() { "c" } else { "a" };
        assert_eq!(texts.on(pe).swap().await?, ("b".to_owned(), left.to_owned()));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn each_pe_has_one_member(rt: Runtime) -> Result<()> {
    let group = rt.group::<Member>().create(7).await?;
    let pes = rt.num_pes();
    assert_eq!(group.place().gather().await?, (0..pes).map(|pe| (pe, pe)).collect::<Vec<_>>());
    for pe in rt.pes() {
        assert_eq!(group.on(pe).place().await?, (pe.index(), pe.index()));
        assert_eq!(group.on(pe).start().await?, 7 + pe.index() as u64);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_pe_that_does_not_exist_has_none(rt: Runtime) -> Result<()> {
    let group = rt.group::<Member>().create(0).await?;
    let error = group.on(rt.num_pes()).start().await.unwrap_err();
    assert!(matches!(error, CallError::NoElement(_)) && error.to_string().contains("Member"), "{error}");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn groups_are_created_from_any_pe(rt: Runtime) -> Result<()> {
    let group = rt.group::<Member>().create(0).await?;
    for another in group.create_another().gather().await? {
        assert_ne!(another, group);
        let starts = another.start().gather().await?;
        assert_eq!(starts, (0..rt.num_pes() as u64).map(|pe| 1000 + pe).collect::<Vec<_>>());
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_group_may_be_used_wherever_its_proxy_has_come(rt: Runtime) -> Result<()> {
    let first = rt.group::<Member>().create(0).await?;
    let pes = rt.num_pes() as u64;
    for start in 0..50 {
        let young = rt.group::<Member>().create(start).send();
        let sums = first.call_all(young).gather().await?;
        let all = pes * start + (0..pes).sum::<u64>();
        assert_eq!(sums, (0..pes).map(|pe| all + start + pe).collect::<Vec<_>>());
    }
    Ok(())
}

struct Counter(u64);

#[chare]
impl Counter {
    fn new() -> Self {
        Counter(0)
    }

    /// How often it has been called.
    #[entry]
    fn count(&mut self) -> u64 {
        self.0 += 1;
        self.0
    }
}

struct Chosen;

#[chare]
impl Chosen {
    fn new() -> Self {
        Chosen
    }

    #[entry]
    fn place(&self, cx: &Cx<Self>) -> (usize, usize) {
        (cx.index(), cx.my_pe().index())
    }

    #[entry]
    fn count(&self, cx: &Cx<Self>, total: Callback<usize>) {
        cx.contribute(1, chare::reduction::Sum, total);
    }
}

#[chare::test(pes = [4, 8])]
async fn a_group_may_be_on_chosen_pes_only(rt: Runtime) -> Result<()> {
    let group = rt.group::<Chosen>().on_pes([3, 1, 3]).create(()).await?;
    assert_eq!(group.place().gather().await?, [(1, 1), (3, 3)]);
    assert_eq!(group.on(3).place().await?, (3, 3));
    let (to, total) = rt.promise();
    group.count(to.into()).send();
    assert_eq!(total.await?, 2);
    for pe in [0, 2, 99] {
        let error = group.on(pe).place().await.expect_err("no member there").to_string();
        assert_eq!(error, format!("Chosen has no element [{pe}]: it has members on these PEs only: 1, 3"));
    }
    let early = rt.group::<Chosen>().on_pes([2]).create(()).send();
    assert_eq!(early.on(2).place().await?, (2, 2));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_slice_of_a_group_gets_a_broadcast_that_the_others_do_not(rt: Runtime) -> Result<()> {
    let (group, pes) = (rt.group::<Counter>().create(()).await?, rt.num_pes());
    let even: Vec<usize> = (0..pes).step_by(2).collect();
    assert_eq!(group.slice(..).step_by(2).count().gather().await?, vec![1; even.len()]);
    group.slice(..=0).count().await?;
    group.slice(1..).count().send();
    // In one order with the broadcasts to all.
    let expected: Vec<u64> = (0..pes).map(|pe| u64::from(pe % 2 == 0) + 2).collect();
    assert_eq!(group.count().gather().await?, expected);
    // Nobody is there.
    assert_eq!(group.slice(pes..).count().gather().await?, []);
    group.slice(0..0).count().await?;
    // Every third of every second.
    let few = (0..pes).step_by(6).count();
    assert_eq!(group.slice(..).step_by(2).step_by(3).count().gather().await?.len(), few);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_slice_may_be_called_before_the_group_is_there(rt: Runtime) -> Result<()> {
    for _ in 0..20 {
        let group = rt.group::<Counter>().create(()).send();
        group.slice(1..).count().send();
        group.slice(..1).count().send();
        assert_eq!(group.count().gather().await?, vec![2; rt.num_pes()]);
    }
    Ok(())
}

#[chare::test(pes = [4, 8])]
async fn a_slice_passes_over_pes_without_a_member(rt: Runtime) -> Result<()> {
    let group = rt.group::<Chosen>().on_pes([1, 2]).create(()).await?;
    assert_eq!(group.slice(2..).place().gather().await?, [(2, 2)]);
    assert_eq!(format!("{:?}", group.slice(2..9).step_by(3)), format!("{group:?} on PEs 2..9 by 3"));
    Ok(())
}

#[test]
fn a_slice_with_the_step_0_is_told() {
    let report = run(1, async move |rt: Runtime| {
        let group = rt.group::<Counter>().create(()).await?;
        group.slice(..).step_by(0).count().await?;
        Ok::<(), chare::BoxError>(())
    });
    assert!(report.to_string().contains("a slice with the step 0 never ends"), "{report}");
}

#[test]
fn a_group_on_no_pe_or_on_one_that_is_not_there_is_told() {
    for (pes, told) in [
        (Vec::<usize>::new(), "a group on no PEs cannot be created"),
        (vec![1, 2], "there is no PE 2: this run has 2 PEs"),
    ] {
        let report = run(2, async move |rt: Runtime| {
            rt.group::<Chosen>().on_pes(pes).create(()).await?;
            Ok::<(), chare::BoxError>(())
        });
        assert!(report.to_string().contains(told), "{report}");
    }
}
