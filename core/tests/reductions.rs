//! Reductions over many processes: how many messages they take, that PEs' parts keep their order, and that none is forgotten or kept while elements come,
//! go and move.

mod simulation;

use std::collections::BTreeSet;
use std::thread;

use chare::device::DeviceSlice;
use chare::prelude::*;
use chare::reduction::Reducer;
use chare::{Bulk, CallError, Options, Placement, Sim};
use chare_transport::{Identity, Limits, local};
use reduce::{Gather, Sum};
use serde::{Deserialize, Serialize};
use simulation::{simulate, succeeded};

/// Runs a program on processes of so many PEs, which are joined by queues.
fn join<F, Fut>(processes: usize, pes: usize, main: F)
where
    F: FnOnce(Runtime) -> Fut + Clone + Send,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let identities = vec![Identity::new(0, "test"); processes];
    let processes = local::connect(&identities, &Limits::default()).expect("equal processes meet");
    let options = Options::default().with_pes(pes).with_device("host".parse().expect("a device"));
    thread::scope(|scope| {
        let run = |process| {
            let (main, options) = (main.clone(), options.clone());
            scope.spawn(move || Runtime::join(process, options, main).expect("it starts"))
        };
        let runs: Vec<_> = processes.into_iter().map(run).collect();
        for run in runs {
            let report = run.join().expect("a run panics nowhere");
            assert!(report.is_success(), "{report}");
        }
    });
}

/// One string after another: the order shows.
#[derive(Clone, Copy)]
struct InOrder;

impl Reducer<String> for InOrder {
    type Partial = String;
    type Output = String;
    fn start(&self, value: String, _: u64) -> String {
        value
    }
    fn merge(&self, into: &mut String, other: String) {
        into.push_str(&other);
    }
    fn finish(&self, partial: String) -> String {
        partial
    }
}

/// The highest values, so many: a reducer with a field.
#[derive(Clone, Copy)]
struct Highest(usize);

impl Reducer<u64> for Highest {
    type Partial = Vec<u64>;
    type Output = Vec<u64>;
    fn start(&self, value: u64, _: u64) -> Vec<u64> {
        vec![value]
    }
    fn merge(&self, into: &mut Vec<u64>, other: Vec<u64>) {
        into.extend(other);
        into.sort_unstable_by(|a, b| b.cmp(a));
        into.truncate(self.0);
    }
    fn finish(&self, partial: Vec<u64>) -> Vec<u64> {
        partial
    }
}

/// How many values there are.
#[derive(Clone, Copy)]
struct Count;

impl<T: Send + 'static> Reducer<T> for Count {
    type Partial = u64;
    type Output = u64;
    fn start(&self, _: T, _: u64) -> u64 {
        1
    }
    fn merge(&self, into: &mut u64, other: u64) {
        *into += other;
    }
    fn finish(&self, partial: u64) -> u64 {
        partial
    }
}

struct Member;

#[chare]
impl Member {
    fn new() -> Self {
        Member
    }

    #[entry]
    async fn meet(&self, cx: &Cx<Self>, rounds: usize) -> Result<()> {
        for _ in 0..rounds {
            cx.barrier().await?;
        }
        Ok(())
    }

    /// Contributes to several reductions at once.
    #[entry]
    async fn line_up(this: This<Self>, rounds: usize) -> Result<Vec<String>> {
        let name = |round: usize| format!("{}.{round} ", this.my_pe());
        let lines: Vec<_> = (0..rounds).map(|round| this.allreduce(name(round), InOrder)).collect();
        let mut results = Vec::new();
        for line in lines {
            results.push(line.await?);
        }
        Ok(results)
    }

    #[entry]
    fn tell(&self, cx: &Cx<Self>, line: Callback<String>, all: Callback<Vec<usize>>) {
        cx.contribute(format!("{} ", cx.my_pe()), InOrder, line);
        cx.contribute(cx.my_pe().index(), Gather, all);
    }

    #[entry]
    fn highest(&self, cx: &Cx<Self>, to: Vec<Callback<Vec<u64>>>) {
        for (count, to) in to.into_iter().enumerate() {
            cx.contribute(cx.my_pe().index() as u64, Highest(count + 1), to);
        }
    }

    /// The members from `from` on contribute something else.
    #[entry]
    fn disagree(&self, cx: &Cx<Self>, from: usize, to: Callback<u64>) {
        if cx.my_pe().index() >= from {
            cx.contribute(1_u64, reduce::Max, to);
        } else {
            cx.contribute(1_u64, Sum, to);
        }
    }

    /// Those from `from` on wait for the result, the others send it.
    #[entry]
    async fn disagree_on_target(this: This<Self>, from: usize, to: Callback<u64>) -> String {
        if this.my_pe().index() < from {
            this.contribute(1_u64, Sum, to);
            return String::new();
        }
        this.allreduce(1_u64, Sum).await.map_or_else(|error| error.to_string(), |sum| sum.to_string())
    }

    /// Those from `from` on contribute values of another type that has the same name.
    #[entry]
    fn disagree_on_namesake(&self, cx: &Cx<Self>, from: usize, to: Callback<u64>) {
        if cx.my_pe().index() >= from {
            struct Value;
            cx.contribute(Value, Count, to);
        } else {
            struct Value(#[expect(unused)] u8);
            cx.contribute(Value(1), Count, to);
        }
    }

    #[entry]
    fn overflow(&self, cx: &Cx<Self>, at: usize, to: Callback<u8>) {
        cx.contribute(if cx.my_pe().index() == at { 250_u8 } else { 1 }, Sum, to);
    }
}

/// Makes a group whose root is its own PE.
struct Maker;

#[chare]
impl Maker {
    fn new() -> Self {
        Maker
    }

    #[entry]
    async fn group(&self, cx: &Cx<Self>) -> Result<Group<Member>> {
        let rt: &Runtime = cx;
        Ok(rt.group::<Member>().create(()).await?)
    }

    #[entry]
    async fn contents(this: This<Self>, shares: Vec<DeviceSlice<u64>>) -> Result<Vec<Vec<u64>>> {
        let mut contents = Vec::new();
        for share in &shares {
            contents.push(this.device().download(share)?.await?);
        }
        Ok(contents)
    }
}

/// A group with its root on `pe`.
async fn group_of(rt: &Runtime, pe: usize) -> Result<Group<Member>> {
    let maker = rt.single::<Maker>().on_pe(pe).create(()).await?;
    Ok(maker.group().await?)
}

/// Messages between processes, and all, of so many reductions to a root in the middle.
fn barriers(rounds: usize) -> [u64; 2] {
    let report = simulate(64, Sim::new(0).with_processes(16, 1), async move |rt: Runtime| {
        group_of(&rt, 37).await?.meet(rounds).await?;
        Result::<()>::Ok(())
    });
    let simulation = succeeded(&report);
    let between = simulation.between_processes.messages;
    [between, between + simulation.within_processes.messages]
}

#[test]
fn each_process_sends_its_parts_at_once() {
    let counts = [0, 1, 11].map(barriers);
    for (few, many, rounds) in [(counts[0], counts[1], 1), (counts[1], counts[2], 10)] {
        // One from each process, and the result to each.
        assert_eq!(many[0] - few[0], rounds * 2 * 15);
        // Inside of a process: from the three others of each, and the result to the three others of the root's.
        assert_eq!(many[1] - few[1], rounds * (2 * 15 + 16 * 3 + 3));
    }
}

#[test]
fn parts_keep_the_order_of_their_pes() {
    for (processes, pes) in [(1, 6), (2, 6), (3, 9), (5, 10), (5, 13), (8, 16), (16, 16)] {
        for seed in 0..12 {
            let root = seed as usize * 5 % pes;
            let sim = Sim::new(seed).with_processes(processes, 1);
            let report = simulate(pes, sim, async move |rt: Runtime| {
                let line = |end: &str| (0..pes).map(|pe| format!("{pe}{end} ")).collect::<String>();
                let group = group_of(&rt, root).await?;
                let rounds: Vec<_> = (0..4).map(|round| line(&format!(".{round}"))).collect();
                assert_eq!(group.line_up(4).gather().await?, vec![rounds; pes]);
                let (to, all) = rt.promise();
                let (first, at_once) = rt.promise();
                group.tell(first.into(), to.into()).send();
                assert_eq!((at_once.await?, all.await?), (line(""), (0..pes).collect()));
                Result::<()>::Ok(())
            });
            succeeded(&report);
        }
    }
}

#[test]
fn a_reducer_may_have_another_field_each_time() {
    for seed in 0..20 {
        let report = simulate(12, Sim::new(seed).with_processes(6, 1), async |rt: Runtime| {
            let group = group_of(&rt, 5).await?;
            let (to, highest): (Vec<_>, Vec<_>) = (0..6).map(|_| rt.promise()).unzip();
            group.highest(to.into_iter().map(Callback::from).collect()).send();
            for (count, highest) in (1..).zip(highest) {
                assert_eq!(highest.await?, (12 - count..12).rev().collect::<Vec<u64>>());
            }
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
}

#[test]
fn what_does_not_fit_is_told_wherever_it_is() {
    for seed in 0..24 {
        let from = seed as usize / 2 + 1;
        let report = simulate(12, Sim::new(seed).with_processes(6, 1), async move |rt: Runtime| {
            let group = group_of(&rt, from % 12).await?;
            let failed = |error: Result<u64, CallError>, text: &str| {
                let error = error.expect_err("they disagree").to_string();
                assert!(error.contains(text), "{error}");
            };
            if from < 12 {
                let (to, result) = rt.promise();
                group.disagree(from, to.into()).send();
                failed(result.await, "its elements must agree");
                let (to, result) = rt.promise();
                let told = group.disagree_on_target(from, to.into()).gather().await?;
                assert!(told[..from].iter().all(String::is_empty), "{told:?}");
                assert!(told[from..].iter().all(|text| text.contains("its elements must agree")), "{told:?}");
                failed(result.await, "its elements must agree");
            }
            if from % 2 == 1 {
                // One process has both types, and is not that of the root.
                let group = group_of(&rt, (from + 6) % 12).await?;
                let (to, result) = rt.promise();
                group.disagree_on_namesake(from, to.into()).send();
                failed(result.await, "its elements must agree");
            }
            let (to, result) = rt.promise();
            group.overflow(from % 12, to.into()).send();
            failed(result.await.map(u64::from), "a sum reduction overflowed");
            // And the next one is good.
            group.meet(1).await?;
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
}

/// An element of an array whose elements come, go and move.
#[derive(Serialize, Deserialize)]
struct Walker;

#[derive(Clone)]
struct On(Vec<usize>);

impl Placement<usize> for On {
    fn pe(&self, index: &usize, _: usize) -> usize {
        self.0[index % self.0.len()]
    }
}

#[chare(index = usize)]
impl Walker {
    fn new() -> Self {
        Walker
    }

    #[entry]
    fn add_up(&self, cx: &Cx<Self>, to: Callback<(u64, Vec<usize>)>) {
        cx.contribute((1, cx.index()), (Sum, Gather), to);
    }

    /// Contributes once for each, and moves after some.
    #[entry]
    fn walk(&self, cx: &Cx<Self>, to: Vec<Callback<Vec<usize>>>) {
        let Some((first, rest)) = to.split_first() else { return };
        cx.contribute(cx.index(), Gather, first.clone());
        if (cx.index() + rest.len()).is_multiple_of(3) {
            cx.this().migrate((cx.my_pe().index() * 5 + rest.len()) % cx.num_pes()).send();
        }
        if cx.index() > 100 && cx.index() - 100 == rest.len() {
            return cx.this().destroy().send();
        }
        cx.this().walk(rest.to_vec()).send();
    }

    #[entry]
    async fn meet(&self, cx: &Cx<Self>, rounds: usize) -> Result<()> {
        for _ in 0..rounds {
            cx.barrier().await?;
        }
        Ok(())
    }

    /// Each wants the result for itself.
    #[entry]
    async fn to_myself(this: This<Self>) -> Result<u64, CallError> {
        let (to, sum) = this.promise();
        this.contribute(1_u64, Sum, to);
        sum.await
    }

    #[entry]
    fn line_up(&self, cx: &Cx<Self>, line: Callback<String>) {
        cx.contribute(format!("{} ", cx.my_pe()), InOrder, line);
    }

    #[entry]
    fn field(&self, cx: &Cx<Self>, to: Callback<Vec<Bulk<f64>>>) {
        cx.contribute(Bulk::from(vec![cx.index() as f64; 100]), Gather, to);
    }

    /// Gives an end of a promise, and waits for its value.
    #[entry]
    async fn offer(this: This<Self>, to: Callback<Vec<Promise<usize>>>) -> Result<usize> {
        let (end, value) = this.promise();
        this.contribute(end, Gather, to);
        Ok(value.await?)
    }

    /// Device memory, which is gathered, and the PEs in the order in which they are merged.
    #[entry]
    fn share(&self, cx: &Cx<Self>, to: Callback<(Vec<DeviceSlice<u64>>, String)>) -> Result<()> {
        let share = cx.device().upload(vec![cx.index() as u64; 2])?.share();
        cx.contribute((share, format!("{} ", cx.my_pe())), (Gather, InOrder), to);
        Ok(())
    }
}

#[test]
fn places_that_lose_are_given_up_where_they_come_from() {
    for seed in 0..20 {
        // Elements are in another order than their PEs.
        let on = On((0..32).map(|index| (index * 11 + seed as usize) % 32).collect());
        let report = simulate(32, Sim::new(seed).with_processes(16, 1), async move |rt: Runtime| {
            let walkers = rt.array::<Walker>(32).map(on).create(()).await?;
            let all: Vec<_> = (0..32).map(|index| walkers.at(index).to_myself().future()).collect();
            for (index, outcome) in all.into_iter().enumerate() {
                match outcome.await {
                    Ok(sum) => assert_eq!((index, sum), (0, 32)),
                    Err(error) => {
                        assert!(
                            index > 0 && error.to_string().contains("broken promise"),
                            "{index}: {error}"
                        );
                    }
                }
            }
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
}

#[test]
fn ends_of_promises_go_up_once() {
    for seed in 0..20 {
        let report = simulate(12, Sim::new(seed).with_processes(3, 1), async |rt: Runtime| {
            let walkers = rt.array::<Walker>(24).create(()).await?;
            let (to, ends) = rt.promise();
            let offers: Vec<_> =
                (0..24).map(|index| walkers.at(index).offer(Callback::from(&to)).future()).collect();
            for (index, end) in ends.await?.into_iter().enumerate() {
                // Every other one is dropped, so its promise breaks.
                if index % 2 == 0 {
                    end.send(index)?;
                }
            }
            for (index, offer) in offers.into_iter().enumerate() {
                match offer.await {
                    Ok(value) => assert_eq!((value, value % 2), (index, 0)),
                    Err(error) => {
                        assert!(index % 2 == 1 && error.to_string().contains("broken promise"), "{error}");
                    }
                }
            }
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
}

#[test]
fn elements_may_be_on_some_processes_only() {
    for seed in 0..20 {
        for on in [vec![0], vec![15], vec![3, 12], vec![5, 6, 7], vec![15, 9, 2]] {
            let sim = Sim::new(seed).with_processes(8, 1);
            let report = simulate(16, sim, async move |rt: Runtime| {
                let array = rt.array::<Walker>(7).map(On(on)).create(()).await?;
                for _ in 0..3 {
                    let (to, sum) = rt.promise();
                    array.add_up(to.into()).send();
                    assert_eq!(sum.await?, (7, (0..7).collect()));
                }
                Result::<()>::Ok(())
            });
            succeeded(&report);
        }
    }
}

const ROUNDS: usize = 12;

/// Elements contribute to many reductions, end and move.
async fn walk(rt: Runtime) -> Result<()> {
    let walkers = rt.array_sparse::<Walker>().create_empty();
    // Those above 100 end: 101 after all but one, and so on.
    let indexes: BTreeSet<_> = (0..20).chain(101..101 + ROUNDS - 2).collect();
    for index in &indexes {
        walkers.insert(*index, ()).send();
    }
    walkers.done_inserting().await?;
    let (to, all): (Vec<_>, Vec<_>) = (0..ROUNDS).map(|_| rt.promise()).unzip();
    walkers.walk(to.into_iter().map(Callback::from).collect()).send();
    for (round, all) in all.into_iter().enumerate() {
        let lives = |index: &&usize| **index <= 100 || **index - 100 + round < ROUNDS;
        assert_eq!(all.await?, indexes.iter().filter(lives).copied().collect::<Vec<_>>(), "{round}");
    }
    Ok(())
}

#[test]
fn nothing_is_forgotten_or_kept_while_elements_come_go_and_move() {
    for seed in 0..60 {
        let sim = Sim::new(seed).with_processes([2, 3, 5, 16][seed as usize % 4], 1);
        let sim = if seed % 8 < 4 { sim } else { sim.with_migrations(5) };
        succeeded(&simulate(16, sim, walk));
    }
    for (processes, pes) in [(2, 2), (7, 1), (4, 3)] {
        join(processes, pes, walk);
    }
}

#[test]
fn elements_inserted_later_take_part() {
    for seed in 0..40 {
        let report = simulate(15, Sim::new(seed).with_processes(5, 1), async |rt: Runtime| {
            let walkers = rt.array_sparse::<Walker>().create_empty();
            for index in 0..3 {
                walkers.insert(index, ()).on_pe(index).await?;
            }
            walkers.done_inserting().await?;
            for round in 3..15 {
                let (to, sum) = rt.promise();
                walkers.add_up(to.into()).send();
                assert_eq!(sum.await?, (round as u64, (0..round).collect()));
                walkers.insert(round, ()).on_pe(round).await?;
            }
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
}

/// A sparse array with an element on each PE, of 4 processes, which has stood still.
async fn inserted(rt: &Runtime) -> Result<SparseArray<Walker>> {
    let walkers = rt.array_sparse::<Walker>().create_empty();
    for index in 0..12 {
        walkers.insert(index, ()).on_pe(index).await?;
    }
    walkers.done_inserting().await?;
    rt.quiescence().await?;
    Ok(walkers)
}

#[test]
fn inserted_elements_are_waited_for_from_the_first_time() {
    let messages = |rounds: usize| {
        let report = simulate(12, Sim::new(0).with_processes(4, 1), async move |rt: Runtime| {
            inserted(&rt).await?.meet(rounds).await?;
            Result::<()>::Ok(())
        });
        succeeded(&report).between_processes.messages
    };
    assert_eq!(messages(1) - messages(0), 2 * 3);
    for seed in 0..20 {
        let report = simulate(12, Sim::new(seed).with_processes(4, 1), async |rt: Runtime| {
            let (to, line) = rt.promise();
            inserted(&rt).await?.line_up(to.into()).send();
            assert_eq!(line.await?, (0..12).map(|pe| format!("{pe} ")).collect::<String>());
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
}

#[test]
fn more_buffers_than_a_message_takes_go_up_in_several() {
    let gather = |on: Vec<usize>| {
        async move |rt: Runtime| {
            let fields = rt.array::<Walker>(4800).map(On(on)).create(()).await?;
            let (to, all) = rt.promise();
            fields.field(to.into()).send();
            let all: Vec<Bulk<f64>> = all.await?;
            assert_eq!(all.len(), 4800);
            assert!(all.iter().enumerate().all(|(index, values)| **values == [index as f64; 100]));
            Ok(())
        }
    };
    // The root's process reads them; another one does, since it has none of its own; one passes them on unread.
    join(3, 2, gather((0..6).collect()));
    join(3, 2, gather((2..6).collect()));
    join(13, 1, gather(vec![2, 3]));
}

#[test]
fn device_memory_goes_up_in_as_many_messages_as_it_needs() {
    let gather = |pes: usize, each: usize| {
        async move |rt: Runtime| {
            let on = On((0..pes).collect());
            let shares = rt.array::<Walker>(pes * each).map(on).create(()).await?;
            let (to, all) = rt.promise();
            shares.share(to.into()).send();
            let (all, line): (Vec<DeviceSlice<u64>>, String) = all.await?;
            assert_eq!(line, (0..pes).map(|pe| format!("{pe} ").repeat(each)).collect::<String>());
            let maker = rt.single::<Maker>().on_pe(0).create(()).await?;
            let contents = maker.contents(all).await?;
            assert_eq!(contents, (0..(pes * each) as u64).map(|index| vec![index; 2]).collect::<Vec<_>>());
            Ok(())
        }
    };
    // Each PE's fit in one message; those of a process do not, or not those of two processes of which one sends by the other.
    join(3, 4, gather(12, 400));
    join(7, 1, gather(7, 600));
    join(7, 2, gather(14, 450));
}
