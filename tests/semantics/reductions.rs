//! Reductions: every reducer against a plain loop, any number in flight, to every kind of callback, and what is said
//! when the elements do not agree.

use chare::prelude::*;
use ndarray::{Array1, Array2, ShapeBuilder};

use super::{PES, run};

const COUNT: usize = 37;

#[derive(Default)]
struct Member {
    /// Barriers that it has come to.
    came: usize,
}

/// The value that an element contributes: small, of both signs, not in order.
fn value(index: usize) -> i64 {
    (index as i64 * 7) % 13 - 5
}

/// The reducer that a call asks for.
#[derive(Clone, Copy, serde::Serialize, serde::Deserialize)]
enum Op {
    Sum,
    Min,
    Max,
    And,
    Or,
    Xor,
}

#[chare(index = usize)]
impl Member {
    fn new() -> Self {
        Member::default()
    }

    #[entry]
    fn integer(&self, cx: &Cx<Self>, op: Op, to: Callback<i64>) {
        let value = value(cx.index());
        match op {
            Op::Sum => cx.contribute(value, reduce::Sum, to),
            Op::Min => cx.contribute(value, reduce::Min, to),
            Op::Max => cx.contribute(value, reduce::Max, to),
            Op::And => cx.contribute(value, reduce::And, to),
            Op::Or => cx.contribute(value, reduce::Or, to),
            Op::Xor => cx.contribute(value, reduce::Xor, to),
        }
    }

    #[entry]
    fn logical(&self, cx: &Cx<Self>, op: Op, yes_from: usize, to: Callback<bool>) {
        let value = cx.index() >= yes_from;
        match op {
            Op::And => cx.contribute(value, reduce::And, to),
            Op::Or => cx.contribute(value, reduce::Or, to),
            _ => cx.contribute(value, reduce::Xor, to),
        }
    }

    #[entry]
    fn product(&self, cx: &Cx<Self>, to: Promise<u128>) {
        cx.contribute(cx.index() as u128 % 7 + 1, reduce::Product, to);
    }

    #[entry]
    fn extremes(&self, cx: &Cx<Self>, nan_at: usize, to: Promise<f64>, least: Promise<f64>) {
        let value = if cx.index() == nan_at { f64::NAN } else { value(cx.index()) as f64 };
        cx.contribute(value, reduce::Max, to);
        cx.contribute(value, reduce::Min, least);
    }

    #[entry]
    fn rows(&self, cx: &Cx<Self>, sums: Promise<Vec<f64>>, largest: Promise<[u64; 3]>) {
        let i = cx.index();
        cx.contribute(vec![1.0, i as f64, -(i as f64)], reduce::Sum, sums);
        cx.contribute([i as u64, 100 - i as u64, 7], reduce::Max, largest);
    }

    #[entry]
    fn fields(&self, cx: &Cx<Self>, sums: Promise<Array2<f64>>, largest: Promise<Box<[f64]>>) {
        let i = cx.index() as f64;
        // Odd elements give the same values in the other order of memory.
        let shape = (2, 3).set_f(cx.index() % 2 == 1);
        cx.contribute(Array2::from_shape_fn(shape, |(r, c)| i * (r + 10 * c) as f64), reduce::Sum, sums);
        cx.contribute(vec![i, -i].into_boxed_slice(), reduce::Max, largest);
    }

    #[entry]
    async fn mean_field(this: This<Self>) -> Result<Array1<f64>> {
        let field = Array1::from_elem(4, this.index() as f64);
        Ok(this.allreduce(field, reduce::Sum).await? / COUNT as f64)
    }

    #[entry]
    fn disagree_on_shape(&self, cx: &Cx<Self>, to: Promise<Array2<u8>>) {
        let shape = if cx.index() == COUNT - 1 { (2, 3) } else { (3, 2) };
        cx.contribute(Array2::zeros(shape), reduce::Sum, to);
    }

    /// Every element wants the result for itself.
    #[entry]
    async fn to_myself(this: This<Self>) -> Result<u64, CallError> {
        let (to, sum) = this.promise();
        this.contribute(1_u64, reduce::Sum, to);
        sum.await
    }

    #[entry]
    fn name(&self, cx: &Cx<Self>, to: Promise<Vec<String>>) {
        cx.contribute(format!("member {}", cx.index()), reduce::Gather, to);
    }

    #[entry]
    fn spread(&self, cx: &Cx<Self>, to: Promise<(i64, i64)>) {
        cx.contribute(value(cx.index()), Extent, to);
    }

    /// Contributes to many reductions; even elements at once, odd ones as the results of others come in.
    #[entry]
    async fn contribute_many(this: This<Self>, sums: Vec<Promise<u64>>) -> Result<()> {
        let index = this.index();
        for (number, sum) in sums.into_iter().enumerate() {
            if index % 2 == 1 && number % 3 == index % 3 {
                this.array().at((index + number) % COUNT).nothing().await?;
            }
            this.contribute((number * index) as u64, reduce::Sum, sum);
        }
        Ok(())
    }

    #[entry]
    fn nothing(&self) {}

    #[entry]
    async fn sums_so_far(this: This<Self>, rounds: usize) -> Result<u64> {
        let mut total = this.index() as u64;
        for _ in 0..rounds {
            total = this.allreduce(total, reduce::Sum).await? % 1_000_003;
        }
        Ok(total)
    }

    /// Comes to one barrier after the other; who has left one finds that another, each time one more, has come to it.
    #[entry]
    async fn meet(this: This<Self>, rounds: usize) -> Result<()> {
        for round in 1..=rounds {
            this.with(|member| member.came += 1);
            this.barrier().await?;
            let other = this.array().at((this.index() + COUNT / 2 + round) % COUNT);
            assert!(other.came().await? >= round, "left barrier {round} too early");
        }
        Ok(())
    }

    #[entry]
    fn came(&self) -> usize {
        self.came
    }

    /// Comes to three barriers, the late one to the last when it is let in, and says so when it has left that.
    #[entry]
    async fn meet_the_late_one(
        this: This<Self>,
        late: usize,
        let_in: Promise<Promise<()>>,
        left: Promise<()>,
    ) -> Result<()> {
        this.barrier().await?;
        this.barrier().await?;
        if this.index() == late {
            let (to, open) = this.promise();
            let_in.send(to)?;
            open.await?;
        }
        this.barrier().await?;
        // Whoever is first has said it.
        let _ = left.send(());
        Ok(())
    }

    #[entry]
    fn disagree(&self, cx: &Cx<Self>, to: Promise<u64>) {
        if cx.index() == COUNT - 1 {
            cx.contribute(1_u64, reduce::Max, to);
        } else {
            cx.contribute(1_u64, reduce::Sum, to);
        }
    }

    #[entry]
    async fn disagree_and_wait(this: This<Self>) -> String {
        let error = match this.index() {
            5 => this.allreduce(true, reduce::Or).await.expect_err("the others give Sum"),
            _ => this.allreduce(1_u64, reduce::Sum).await.expect_err("one gives Or"),
        };
        error.to_string()
    }

    /// Odd elements wait for the result, even ones send it on. Returns what the waiting ones are told.
    #[entry]
    async fn disagree_on_target(this: This<Self>, to: Promise<u64>) -> String {
        if this.index().is_multiple_of(2) {
            this.contribute(1_u64, reduce::Sum, to);
            return String::new();
        }
        drop(to);
        this.allreduce(1_u64, reduce::Sum).await.expect_err("the elements disagree").to_string()
    }

    #[entry]
    fn disagree_on_length(&self, cx: &Cx<Self>, to: Promise<Vec<u8>>) {
        let length = if cx.index() == COUNT - 1 { 3 } else { 2 };
        cx.contribute(vec![0; length], reduce::Sum, to);
    }

    #[entry]
    async fn overflow(this: This<Self>) -> String {
        let value: u8 = if [0, COUNT - 1].contains(&this.index()) { 200 } else { 0 };
        this.allreduce(value, reduce::Sum).await.expect_err("400 does not fit").to_string()
    }

    #[entry]
    fn overflow_at(&self, cx: &Cx<Self>, to: Callback<i64>) {
        cx.contribute(i64::MAX, reduce::Sum, to);
    }
}

/// The smallest and the largest value: a reducer of a program's own.
#[derive(Clone, Copy)]
struct Extent;

impl reduce::Reducer<i64> for Extent {
    type Partial = (i64, i64);
    type Output = (i64, i64);
    fn start(&self, value: i64, _: u64) -> (i64, i64) {
        (value, value)
    }
    fn merge(&self, into: &mut (i64, i64), other: (i64, i64)) {
        *into = (into.0.min(other.0), into.1.max(other.1));
    }
    fn finish(&self, partial: (i64, i64)) -> (i64, i64) {
        partial
    }
}

async fn members(rt: &Runtime) -> Result<Array<Member>> {
    Ok(rt.array::<Member>(COUNT).create(()).await?)
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn every_reducer_agrees_with_a_loop(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let values = || (0..COUNT).map(value);
    let fold = |f: fn(i64, i64) -> i64| values().reduce(f).expect("not empty");
    let expected = [
        (Op::Sum, values().sum()),
        (Op::Min, fold(i64::min)),
        (Op::Max, fold(i64::max)),
        (Op::And, fold(|a, b| a & b)),
        (Op::Or, fold(|a, b| a | b)),
        (Op::Xor, fold(|a, b| a ^ b)),
    ];
    for (op, expected) in expected {
        let (to, result) = rt.promise();
        members.integer(op, to.into()).send();
        assert_eq!(result.await?, expected);
    }
    let (to, result) = rt.promise();
    members.product(to).send();
    assert_eq!(result.await?, (0..COUNT as u128).map(|i| i % 7 + 1).product());
    let (to, result) = rt.promise();
    members.spread(to).send();
    assert_eq!(result.await?, (fold(i64::min), fold(i64::max)));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn logical_reducers_agree_with_a_loop(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    for yes_from in [0, 1, 20, COUNT] {
        let ask = |op| {
            let (to, result) = rt.promise();
            members.logical(op, yes_from, to.into()).send();
            result
        };
        assert_eq!(ask(Op::And).await?, yes_from == 0);
        assert_eq!(ask(Op::Or).await?, yes_from < COUNT);
        assert_eq!(ask(Op::Xor).await?, (COUNT - yes_from) % 2 == 1);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_nan_reaches_the_result(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    for nan_at in [0, 5, COUNT - 1, COUNT] {
        let ((to, largest), (least_to, least)) = (rt.promise(), rt.promise());
        members.extremes(nan_at, to, least_to).send();
        let (largest, least): (f64, f64) = (largest.await?, least.await?);
        if nan_at < COUNT {
            assert!(largest.is_nan() && least.is_nan(), "{largest} {least}");
        } else {
            assert_eq!((largest, least), (7.0, -5.0));
        }
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn containers_are_reduced_element_by_element(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let ((sums, sum), (largest, most)) = (rt.promise(), rt.promise());
    members.rows(sums, largest).send();
    let total = (0..COUNT).sum::<usize>() as f64;
    assert_eq!(sum.await?, [COUNT as f64, total, -total]);
    assert_eq!(most.await?, [COUNT as u64 - 1, 100, 7]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn arrays_of_ndarray_and_boxes_are_reduced_element_by_element(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let ((sums, sum), (largest, most)) = (rt.promise(), rt.promise());
    members.fields(sums, largest).send();
    let total = (0..COUNT).sum::<usize>() as f64;
    assert_eq!(sum.await?, Array2::from_shape_fn((2, 3), |(r, c)| total * (r + 10 * c) as f64));
    assert_eq!(*most.await?, [COUNT as f64 - 1.0, 0.0]);
    let mean = Array1::from_elem(4, total / COUNT as f64);
    assert!(members.mean_field().gather().await?.iter().all(|field| *field == mean));
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn of_several_targets_that_of_the_lowest_element_gets_the_result(rt: Runtime) -> Result<()> {
    // The elements contribute one after another, in this order.
    for order in [Vec::from_iter(0..8), Vec::from_iter((0..8).rev()), vec![5, 1, 7, 3, 0, 2, 6, 4]] {
        let members = rt.array::<Member>(8).create(()).await?;
        let mut outcomes = Vec::new();
        for index in order {
            outcomes.push((index, members.at(index).to_myself().future()));
            rt.quiescence().await?;
        }
        for (index, outcome) in outcomes {
            match outcome.await {
                Ok(sum) => assert_eq!((index, sum), (0, 8)),
                Err(error) => {
                    assert!(index > 0 && error.to_string().contains("broken promise"), "{index}: {error}");
                }
            }
        }
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn gather_sorts_by_index(rt: Runtime) -> Result<()> {
    let (to, names) = rt.promise();
    members(&rt).await?.name(to).send();
    assert_eq!(names.await?, (0..COUNT).map(|i| format!("member {i}")).collect::<Vec<_>>());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn many_are_in_flight_while_elements_are_out_of_step(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let (sums, results): (Vec<_>, Vec<_>) = (0..200).map(|_| rt.promise()).unzip();
    members.contribute_many(sums).send();
    let indexes: usize = (0..COUNT).sum();
    for (number, result) in results.into_iter().enumerate() {
        assert_eq!(result.await?, (number * indexes) as u64);
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn allreduce_brings_every_element_the_result(rt: Runtime) -> Result<()> {
    let mut expected = (0..COUNT as u64).sum::<u64>() % 1_000_003;
    for _ in 1..30 {
        expected = expected * COUNT as u64 % 1_000_003;
    }
    assert_eq!(members(&rt).await?.sums_so_far(30).gather().await?, [expected; COUNT]);
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_barrier_lets_nobody_through_before_all_have_come(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    members.meet(20).await?;
    for late in [0, COUNT / 2, COUNT - 1] {
        let ((let_in, waiting), (to, left)) = (rt.promise(), rt.promise());
        let met = members.meet_the_late_one(late, let_in, to).future();
        let open = waiting.await?;
        rt.quiescence().await?;
        assert!(!left.is_ready(), "somebody has not waited for element {late}");
        open.send(())?;
        met.await?;
        left.await?;
    }
    Ok(())
}

/// Receives results, and takes part in reductions of its group.
struct Board {
    results: Vec<i64>,
}

#[chare]
impl Board {
    fn new() -> Self {
        Board { results: Vec::new() }
    }

    #[entry]
    fn result(&mut self, value: i64) {
        self.results.push(value);
    }

    #[entry]
    fn results(&self) -> Vec<i64> {
        self.results.clone()
    }

    #[entry]
    fn add_floats(&self, cx: &Cx<Self>, to: Promise<f64>) {
        let value = [1e16, 1.0, -1e16, 0.3, 7e-9][cx.index() % 5];
        cx.contribute(value, reduce::Sum, to);
    }

    #[entry]
    fn contribute_alone(&self, cx: &Cx<Self>) {
        cx.contribute((), reduce::Nop, Callback::ignore());
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn results_go_to_every_kind_of_callback(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let single = rt.single::<Board>().create(()).await?;
    let group = rt.group::<Board>().create(()).await?;
    let last = rt.num_pes() - 1;
    let sum = (0..COUNT).map(value).sum::<i64>();
    members.integer(Op::Sum, single.callback(Board::RESULT)).send();
    members.integer(Op::Max, group.callback(Board::RESULT)).send();
    members.integer(Op::Min, group.on(last).callback(Board::RESULT)).send();
    members.integer(Op::Min, Callback::ignore()).send();
    rt.quiescence().await?;
    assert_eq!(single.results().await?, [sum]);
    let mut at_last = group.on(last).results().await?;
    at_last.sort_unstable();
    assert_eq!(at_last, [-5, 7]);
    for pe in 0..last {
        assert_eq!(group.on(pe).results().await?, [7]);
    }
    Ok(())
}

#[test]
fn a_result_may_end_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            members(&rt).await?.integer(Op::Sum, Callback::exit()).send();
            rt.promise::<()>().1.await?;
            Result::<()>::Ok(())
        });
        assert_eq!(report.code(), 0, "{report}");
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn sums_of_floats_are_the_same_every_time(rt: Runtime) -> Result<()> {
    let group = rt.group::<Board>().create(()).await?;
    let mut results = Vec::new();
    for _ in 0..20 {
        let (to, sum) = rt.promise::<f64>();
        group.add_floats(to).send();
        results.push(sum.await?.to_bits());
    }
    assert!(results.iter().all(|bits| *bits == results[0]), "{results:x?}");
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_few_elements_reduce_on_many_pes(rt: Runtime) -> Result<()> {
    for count in [1, 3] {
        let members = rt.array::<Member>(count).create(()).await?;
        let (to, sum) = rt.promise();
        members.integer(Op::Sum, to.into()).send();
        assert_eq!(sum.await?, (0..count).map(value).sum());
    }
    Ok(())
}

/// The error of a reduction, which must name the chare and say these words.
fn check<T: std::fmt::Debug>(outcome: Result<T, CallError>, words: &[&str]) {
    match outcome {
        Err(CallError::Reduction(text)) => {
            assert!(text.contains("Member") && words.iter().all(|word| text.contains(word)), "{text}");
        }
        outcome => panic!("{outcome:?}"),
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn elements_that_disagree_on_the_target_are_told(rt: Runtime) -> Result<()> {
    let members = rt.array::<Member>(8).create(()).await?;
    let (to, sum) = rt.promise::<u64>();
    let told = members.disagree_on_target(to).gather().await?;
    for words in told.into_iter().skip(1).step_by(2) {
        // What is given in other processes is named only where it is given, too.
        let is_unnamed = super::is_spread(&rt) && words.contains("those in other processes gave");
        assert!(words.contains("must agree"), "{words}");
        assert!(words.contains("allreduce") || is_unnamed, "{words}");
    }
    assert!(sum.await.is_err());
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn elements_that_disagree_on_the_reducer_are_told(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let (to, sum) = rt.promise();
    members.disagree(to).await?;
    check(sum.await, &["must agree", "Sum", "Max"]);
    for outcome in members.disagree_and_wait().gather().await? {
        assert!(outcome.contains("must agree"), "{outcome}");
    }
    Ok(())
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn contributions_that_cannot_be_merged_are_reported(rt: Runtime) -> Result<()> {
    let members = members(&rt).await?;
    let (to, sum) = rt.promise();
    members.disagree_on_length(to).await?;
    check(sum.await, &["different lengths: one of", "2", "3"]);
    let (to, sum) = rt.promise();
    members.disagree_on_shape(to).await?;
    check(sum.await, &["different shapes: one of", "[2, 3]", "[3, 2]"]);
    for outcome in members.overflow().gather().await? {
        assert!(outcome.contains("overflowed"), "{outcome}");
    }
    assert_eq!(members.sums_so_far(1).gather().await?.len(), COUNT);
    Ok(())
}

#[test]
fn a_failed_reduction_to_an_entry_ends_the_program() {
    for pes in PES {
        let report = run(pes, async |rt: Runtime| {
            let board = rt.single::<Board>().create(()).await?;
            members(&rt).await?.overflow_at(board.callback(Board::RESULT)).send();
            rt.promise::<()>().1.await?;
            Result::<()>::Ok(())
        });
        let text = report.to_string();
        assert_eq!(report.code(), 1, "{text}");
        assert!(matches!(report.unawaited(), Some(CallError::Reduction(_))), "{text}");
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn a_singleton_has_nothing_to_reduce_over(rt: Runtime) -> Result<()> {
    let error = rt.single::<Board>().create(()).await?.contribute_alone().await.unwrap_err().to_string();
    assert!(error.contains("a singleton has no collection"), "{error}");
    Ok(())
}

/// Reduces round after round until a message has come.
struct Looper {
    told: bool,
}

#[chare(index = usize)]
impl Looper {
    fn new() -> Self {
        Looper { told: false }
    }

    #[entry]
    fn tell(&mut self) {
        self.told = true;
    }

    #[entry]
    async fn until_all_are_told(this: This<Self>) -> Result<()> {
        while !this.allreduce(this.with(|looper| looper.told), reduce::And).await? {}
        Ok(())
    }

    #[entry]
    async fn until_told(this: This<Self>) -> Result<()> {
        loop {
            let (to, told) = this.promise();
            this.contribute(this.with(|looper| looper.told), reduce::And, to);
            if told.await? {
                return Ok(());
            }
        }
    }
}

#[chare::test(pes = [1, 2, 4, 8])]
async fn who_reduces_in_a_loop_lets_others_run(rt: Runtime) -> Result<()> {
    for count in [1, COUNT] {
        let loopers = rt.array::<Looper>(count).create(()).await?;
        let until = loopers.until_all_are_told().future();
        loopers.tell().send();
        until.await?;
    }
    let alone = rt.array::<Looper>(1).create(()).await?;
    let until = alone.at(0).until_told().future();
    alone.tell().send();
    Ok(until.await?)
}
