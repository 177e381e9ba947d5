//! The reducers that keep more than one value, and those of a program's own: each against a plain loop, to every kind of
//! target, with elements out of step.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};

use chare::prelude::*;
use chare::reduction::{
    Concat, First, Gather, Law, Max, MaxLoc, Min, MinLoc, Reducer, Set, Statistics, Sum, Summary, Union,
    check_laws,
};
use chare::{Options, Sim};
use serde::{Deserialize, Serialize, Serializer};

use super::{PES, run};

const COUNT: usize = 23;

/// The value that an element contributes: of both signs, not in order, some of them equal.
fn value(index: usize) -> i64 {
    ((index as i64 * 7) % 13).min(11) - 5
}

/// As many names as the index says, up to three.
fn names(index: usize) -> Vec<String> {
    (0..index % 4).map(|name| format!("{index}.{name}")).collect()
}

fn loop_over<V>(f: impl Fn(usize) -> V) -> Vec<V> {
    (0..COUNT).map(f).collect()
}

type Report = (i64, (i64, usize), Vec<String>, BTreeSet<i64>, Summary, usize);

fn report_of(index: usize, offset: i64) -> (i64, (i64, usize), Vec<String>, i64, i32, usize) {
    let value = value(index) + offset;
    (value, (value, index), names(index), value, value as i32, index)
}

const REPORTERS: (Sum, MaxLoc, Concat, Set, Statistics, First) =
    (Sum, MaxLoc, Concat, Set, Statistics, First);

/// What a loop over all elements says, against the result.
fn check_report(report: Report, offset: i64) {
    let values = loop_over(|index| value(index) + offset);
    let (sum, (most, at), all_names, set, summary, first) = report;
    let max = *values.iter().max().expect("not empty");
    let (total, count) = (values.iter().sum::<i64>(), COUNT as f64);
    assert_eq!(sum, total);
    assert_eq!((most, at), (max, values.iter().position(|value| *value == max).expect("it is there")));
    assert_eq!(all_names, loop_over(names).concat());
    assert_eq!(set, values.iter().copied().collect::<BTreeSet<_>>());
    assert_eq!(first, 0);
    let mean = total as f64 / count;
    let variance = values.iter().map(|value| (*value as f64 - mean).powi(2)).sum::<f64>() / count;
    assert_eq!((summary.count(), summary.max()), (COUNT as u64, max as f64));
    assert!((summary.mean() - mean).abs() < 1e-9, "{summary:?}, not {mean}");
    assert!((summary.variance() - variance).abs() < 1e-9, "{summary:?}, not {variance}");
}

struct Member;

#[chare(index = usize)]
impl Member {
    fn new() -> Self {
        Member
    }

    #[entry]
    fn report(&self, cx: &Cx<Self>, to: Callback<Report>) {
        cx.contribute(report_of(cx.index(), 0), REPORTERS, to);
    }

    #[entry]
    fn list(&self, cx: &Cx<Self>, to: Promise<Vec<usize>>, names: Promise<Vec<String>>, one: Promise<usize>) {
        cx.contribute(cx.index(), Gather, to);
        cx.contribute(self::names(cx.index()), Concat, names);
        cx.contribute(cx.index(), First, one);
    }

    /// Every element gets the reports of all rounds; odd ones wait for others between them.
    #[entry]
    async fn keep_reporting(this: This<Self>, rounds: i64) -> Result<()> {
        let index = this.index();
        let mut reports = Vec::new();
        for round in 0..rounds {
            if index % 2 == 1 && round as usize % 3 == index % 3 {
                this.array().at((index + round as usize) % COUNT).nothing().await?;
            }
            reports.push(this.allreduce(report_of(index, round), REPORTERS));
            if round % 5 == 4 {
                this.barrier().await?;
            }
        }
        for (round, report) in reports.into_iter().enumerate() {
            check_report(report.await?, round as i64);
        }
        Ok(())
    }

    #[entry]
    fn nothing(&self) {}

    #[entry]
    fn locate(
        &self,
        cx: &Cx<Self>,
        nans: Vec<usize>,
        least: Promise<(f64, [f64; 2])>,
        most: Promise<(f64, usize)>,
    ) {
        let (index, place) = (cx.index(), [cx.index() as f64, 0.5]);
        let value = if nans.contains(&index) { f64::NAN } else { value(index) as f64 };
        cx.contribute((value, place), MinLoc, least);
        cx.contribute((value, index), MaxLoc, most);
    }

    #[entry]
    async fn summarise_cells(this: This<Self>) -> Result<Summary> {
        let cells: Summary = (0..this.index()).map(|cell| cell as f32).collect();
        Ok(this.allreduce(cells, Statistics).await?)
    }

    #[entry]
    async fn unite(this: This<Self>) -> Result<BTreeSet<usize>> {
        let factors = (2..=this.index()).filter(|factor| this.index().is_multiple_of(*factor));
        Ok(this.allreduce(factors.collect(), Union).await?)
    }

    #[entry]
    async fn pairs(this: This<Self>) -> Result<((i64, i64), Vec<bool>)> {
        let value = value(this.index());
        Ok(this.allreduce(((value, value), value > 0), ((Min, Max), Gather)).await?)
    }

    #[entry]
    fn longest_run(&self, cx: &Cx<Self>, to: Promise<u64>) {
        cx.contribute((cx.index(), value(cx.index()) > -3), LongestRun, to);
    }

    #[entry]
    fn overflow(&self, cx: &Cx<Self>, to: Promise<(u8, u8)>) {
        cx.contribute((1, 200), (Max, Sum), to);
    }

    #[entry]
    fn disagree(&self, cx: &Cx<Self>, to: Promise<(u8, u8)>) {
        if cx.index() == COUNT - 1 {
            cx.contribute((1, 1), (Sum, Min), to);
        } else {
            cx.contribute((1, 1), (Sum, Max), to);
        }
    }
}

/// The longest run of neighbours that say yes: a reducer that needs all answers in order.
#[derive(Clone, Copy)]
struct LongestRun;

impl Reducer<(usize, bool)> for LongestRun {
    type Partial = Vec<usize>;
    type Output = u64;
    fn start(&self, (index, says_yes): (usize, bool), from: u64) -> Vec<usize> {
        assert_eq!(index as u64, from, "elements of arrays are numbered");
        Vec::from_iter(says_yes.then_some(index))
    }
    fn merge(&self, into: &mut Vec<usize>, other: Vec<usize>) {
        into.extend(other);
    }
    fn finish(&self, mut partial: Vec<usize>) -> u64 {
        partial.sort_unstable();
        partial.chunk_by(|one, next| one + 1 == *next).map(|run| run.len() as u64).max().unwrap_or(0)
    }
}

/// Takes the last contribution that comes.
#[derive(Clone, Copy)]
struct Latest;

impl Reducer<u8> for Latest {
    type Partial = u8;
    type Output = u8;
    fn start(&self, value: u8, _: u64) -> u8 {
        value
    }
    fn merge(&self, into: &mut u8, other: u8) {
        *into = other;
    }
    fn finish(&self, partial: u8) -> u8 {
        partial
    }
}

/// A number that counts how often it is serialised.
#[derive(Clone, Copy, Deserialize)]
struct Counted(u64);

static SERIALISED: AtomicU64 = AtomicU64::new(0);

impl Serialize for Counted {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        SERIALISED.fetch_add(1, Ordering::Relaxed);
        serializer.serialize_newtype_struct("Counted", &self.0)
    }
}

#[derive(Clone, Copy)]
struct SumOfCounted;

impl Reducer<u64> for SumOfCounted {
    type Partial = Counted;
    type Output = u64;
    fn start(&self, value: u64, _: u64) -> Counted {
        Counted(value)
    }
    fn merge(&self, into: &mut Counted, other: Counted) {
        into.0 += other.0;
    }
    fn finish(&self, partial: Counted) -> u64 {
        partial.0
    }
}

struct Adder;

#[chare]
impl Adder {
    fn new() -> Self {
        Adder
    }

    #[entry]
    fn add_up(&self, cx: &Cx<Self>, to: Promise<u64>) {
        cx.contribute(cx.my_pe().index() as u64, SumOfCounted, to);
    }
}

#[test]
fn a_number_is_serialised_only_where_it_leaves_its_process() {
    for seed in 0..10 {
        let before = SERIALISED.load(Ordering::Relaxed);
        let sim = Sim::new(seed).with_processes(2, 1);
        let options = Options::default().with_pes(8).simulate(sim);
        let report = Runtime::run(options, async |rt: Runtime| {
            let (to, sum) = rt.promise();
            rt.group::<Adder>().create(()).await?.add_up(to).await?;
            assert_eq!(sum.await?, 28);
            Result::<()>::Ok(())
        });
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{report}");
        // The four parts of the second process go as one.
        assert_eq!(SERIALISED.load(Ordering::Relaxed) - before, 1, "seed {seed}");
    }
}

/// Receives reports, whole or as the arguments of an entry.
struct Board {
    reports: Vec<Report>,
}

#[chare]
impl Board {
    fn new() -> Self {
        Board { reports: Vec::new() }
    }

    #[entry]
    fn whole(&mut self, report: Report) {
        self.reports.push(report);
    }

    #[entry]
    fn parts(
        &mut self,
        sum: i64,
        most: (i64, usize),
        names: Vec<String>,
        set: BTreeSet<i64>,
        summary: Summary,
        first: usize,
    ) {
        self.reports.push((sum, most, names, set, summary, first));
    }

    #[entry]
    fn reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }
}

async fn members(rt: &Runtime) -> Result<Array<Member>> {
    Ok(rt.array::<Member>(COUNT).create(()).await?)
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_tuple_goes_to_every_kind_of_callback(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let (to, report) = rt.promise();
    members.report(to.into()).send();
    check_report(report.await?, 0);
    let single = rt.single::<Board>().create(()).await?;
    let group = rt.group::<Board>().create(()).await?;
    members.report(single.callback(Board::WHOLE)).send();
    members.report(single.callback(Board::PARTS)).send();
    members.report(group.callback(Board::PARTS)).send();
    rt.quiescence().await?;
    let reports = single.reports().await?;
    assert_eq!(reports.len(), 2);
    reports.into_iter().for_each(|report| check_report(report, 0));
    for mut reports in group.reports().gather().await? {
        check_report(reports.pop().expect("every member gets one"), 0);
        assert!(reports.is_empty());
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn many_tuples_are_in_flight_while_elements_are_out_of_step(rt: Runtime) -> Result<()> {
    members(&rt).await?.keep_reporting(40).await?;
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn tuples_nest(rt: Runtime) -> Result<()> {
    let values = loop_over(value);
    let extent = (*values.iter().min().expect("not empty"), *values.iter().max().expect("not empty"));
    for result in members(&rt).await?.pairs().gather().await? {
        assert_eq!(result, (extent, values.iter().map(|value| *value > 0).collect()));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn the_order_of_arrival_does_not_show(rt: Runtime) -> Result<()> {
    let orders =
        [Vec::from_iter(0..COUNT), Vec::from_iter((0..COUNT).rev()), loop_over(|i| (i * 5 + 7) % COUNT)];
    for order in orders {
        let members = members(&rt).await?;
        let ((to, indexes), (to_names, all_names), (to_one, one)) =
            (rt.promise(), rt.promise(), rt.promise());
        let ((to_least, least), (to_most, most)) = (rt.promise(), rt.promise());
        for index in order {
            let member = members.at(index);
            member.list(to.clone(), to_names.clone(), to_one.clone()).send();
            rt.quiescence().await?;
            member.locate(Vec::new(), to_least.clone(), to_most.clone()).send();
        }
        assert_eq!(indexes.await?, loop_over(|index| index));
        assert_eq!(all_names.await?, loop_over(names).concat());
        assert_eq!(one.await?, 0);
        // Several elements have the extremes.
        assert_eq!([0, 13, 9, 11, 22].map(value), [-5, -5, 6, 6, 6]);
        assert_eq!(least.await?, (-5.0, [0.0, 0.5]));
        assert_eq!(most.await?, (6.0, 9));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_nan_is_found_where_it_is(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    for nans in [vec![0], vec![COUNT - 1], vec![COUNT - 2, 4, 17]] {
        let lowest = *nans.iter().min().expect("not empty");
        let ((to_least, least), (to_most, most)) = (rt.promise(), rt.promise());
        members.locate(nans, to_least, to_most).send();
        let (least, [place, _]) = least.await?;
        let (most, index) = most.await?;
        assert!(least.is_nan() && most.is_nan());
        assert_eq!((place, index), (lowest as f64, lowest));
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn summaries_of_many_samples_merge(rt: Runtime) -> Result<()> {
    let cells: Vec<f64> = (0..COUNT).flat_map(|index| (0..index).map(|cell| cell as f64)).collect();
    let count = cells.len() as f64;
    let mean = cells.iter().sum::<f64>() / count;
    let squares = cells.iter().map(|cell| (cell - mean).powi(2)).sum::<f64>();
    for summary in members(&rt).await?.summarise_cells().gather().await? {
        assert_eq!(
            (summary.count(), summary.min(), summary.max()),
            (cells.len() as u64, 0.0, COUNT as f64 - 2.0)
        );
        assert!((summary.mean() - mean).abs() < 1e-9, "{summary:?}");
        assert!((summary.variance() - squares / count).abs() < 1e-9, "{summary:?}");
        assert!((summary.sample_variance() - squares / (count - 1.0)).abs() < 1e-9, "{summary:?}");
        assert!((summary.standard_deviation().powi(2) - squares / count).abs() < 1e-9, "{summary:?}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn sets_unite(rt: Runtime) -> Result<()> {
    let all = members(&rt).await?.unite().gather().await?;
    assert!(all.iter().all(|union| union.iter().copied().eq(2..COUNT)), "{all:?}");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_reducer_of_a_programs_own_may_sort_at_the_end(rt: Runtime) -> Result<()> {
    let samples: Vec<_> = (0..6).map(|index| (index, index % 3 > 0)).collect();
    check_laws(LongestRun, &samples)?;
    let (to, longest) = rt.promise();
    members(&rt).await?.longest_run(to).send();
    let answers = loop_over(|index| value(index) > -3);
    let runs = answers.split(|says_yes| !says_yes);
    assert_eq!(longest.await?, runs.map(<[bool]>::len).max().expect("not empty") as u64);
    Ok(())
}

#[test]
fn the_laws_are_checked_without_a_runtime() {
    let broken = check_laws(Latest, &[3, 1, 2]).expect_err("the last one depends on the order");
    assert_eq!(broken.law(), Law::Commutative);
    let text = broken.to_string();
    assert!(
        ["Latest", "not commutative", "merge(0, 1) gives 1", "merge(1, 0) gives 3"]
            .iter()
            .all(|w| text.contains(w)),
        "{text}"
    );
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn an_error_in_one_part_of_a_tuple_is_that_of_all(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let (to, both) = rt.promise();
    members.overflow(to).await?;
    let error = both.await.expect_err("the sum does not fit");
    assert!(
        matches!(&error, CallError::Reduction(text) if text.contains("a sum reduction overflowed")),
        "{error}"
    );
    let (to, both) = rt.promise();
    members.disagree(to).await?;
    let error = both.await.expect_err("one gives another tuple");
    assert!(matches!(&error, CallError::Reduction(text) if text.contains("must agree")), "{error}");
    members.keep_reporting(1).await?;
    Ok(())
}

#[test]
fn a_tuple_that_fails_on_its_way_to_an_entry_ends_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let failing = rt.array::<Failing>(3).create(()).await?;
            failing.fail(rt.single::<Failed>().create(()).await?.callback(Failed::TAKE)).send();
            rt.promise::<()>().1.await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 1, "{report}");
        assert!(matches!(report.unawaited(), Some(CallError::Reduction(_))), "{report}");
    }
}

/// Contributes what does not fit.
struct Failing;

#[chare(index = usize)]
impl Failing {
    fn new() -> Self {
        Failing
    }

    #[entry]
    fn fail(&self, cx: &Cx<Self>, to: Callback<(i64, usize)>) {
        cx.contribute((i64::MAX, cx.index()), (Sum, First), to);
    }
}

/// Takes what does not come.
struct Failed;

#[chare]
impl Failed {
    fn new() -> Self {
        Failed
    }

    #[entry]
    fn take(&self, _sum: i64, _first: usize) {
        panic!("the reduction fails");
    }
}
