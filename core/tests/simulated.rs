//! What goes from one process of a simulated run to another is encoded and decoded, as between real ones.

mod simulation;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use chare::device::DeviceVec;
use chare::prelude::*;
use chare::{CallError, Sim};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use simulation::{simulate, succeeded};

static DECODED: AtomicUsize = AtomicUsize::new(0);
static CHANGES: AtomicUsize = AtomicUsize::new(0);

/// A value that comes back changed: its codec is wrong.
struct Crooked(u64);

impl Serialize for Crooked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Crooked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        DECODED.fetch_add(1, Ordering::Relaxed);
        u64::deserialize(deserializer).map(|value| Crooked(value + 1))
    }
}

struct Member;

#[chare]
impl Member {
    fn new() -> Self {
        Member
    }

    #[entry]
    fn number(&self, cx: &Cx<Self>) -> usize {
        cx.my_pe().index()
    }

    #[entry]
    fn rest(&self) {}

    #[entry]
    fn fail(&self, cx: &Cx<Self>, at: usize) -> Result<Vec<f64>> {
        if cx.my_pe().index() == at { Err("as asked".into()) } else { Ok(vec![0.5; 100]) }
    }
}

/// Gives promises to other processes while device memory is on its way there.
struct Giver;

#[chare(index = usize)]
impl Giver {
    fn new() -> Self {
        Giver
    }

    #[entry]
    fn take(&self, _: DeviceVec<f64>) {}

    /// Keeps an end for as long as it takes to come here.
    #[entry]
    fn forget(&self, _: Promise<DeviceVec<f64>>) {}

    #[entry]
    fn fulfil(&self, cx: &Cx<Self>, promise: Promise<DeviceVec<f64>>, how: How) -> Result<()> {
        let all = cx.array();
        let field = || cx.device().upload(vec![1.5; 2]);
        all.at(cx.index() + 1).forget(promise.clone()).send();
        match how {
            How::Value => promise.send(field()?)?,
            How::Error => {
                all.at(0).take(field()?).send();
                promise.fail(CallError::Refused("as asked".into()));
            }
            How::Onward => {
                all.at(0).take(field()?).send();
                all.at(4).fulfil(promise, How::Value).send();
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
enum How {
    Value,
    Error,
    Onward,
}

struct Field;

#[chare(index = usize)]
impl Field {
    fn new() -> Self {
        Field
    }

    #[entry]
    fn values(&self, cx: &Cx<Self>) -> Vec<f64> {
        vec![cx.index() as f64; 100]
    }
}

struct Node {
    kept: Option<Promise<u64>>,
}

#[chare(index = usize)]
impl Node {
    fn new() -> Self {
        Node { kept: None }
    }

    #[entry]
    fn value(&self, value: Crooked) -> u64 {
        value.0
    }

    #[entry]
    fn tell(&self, to: Sender<u64>) -> Result<()> {
        Ok(to.send(1)?)
    }

    #[entry]
    fn sum(&self, field: Vec<f64>) -> f64 {
        field.iter().sum()
    }

    /// Passes a promise on to the next element, or fulfils it, or forgets it.
    #[entry]
    fn pass(&mut self, cx: &Cx<Self>, promise: Promise<u64>, steps: usize, is_kept: bool) {
        let next = cx.array().at((cx.index() + 1) % 4);
        match steps {
            0 if is_kept => self.kept = Some(promise),
            0 => {}
            _ => next.pass(promise, steps - 1, is_kept).send(),
        }
    }

    #[entry]
    fn fulfil(&mut self, value: u64) -> Result<()> {
        Ok(self.kept.take().expect("it was kept").send(value)?)
    }
}

#[test]
fn a_wrong_codec_shows_where_a_call_leaves_its_process() {
    for (processes, difference) in [(1, 0), (2, 1)] {
        for seed in 0..10 {
            let sim = Sim::new(seed).with_processes(processes, 1);
            let report = simulate(4, sim, async move |rt: Runtime| {
                let nodes = rt.array::<Node>(4).create(()).await?;
                assert_eq!(nodes.at(0).value(Crooked(5)).await?, 5);
                assert_eq!(nodes.at(3).value(Crooked(5)).await?, 5 + difference);
                Result::<()>::Ok(())
            });
            succeeded(&report);
        }
    }
    assert_eq!(DECODED.load(Ordering::Relaxed), 10);
}

#[test]
fn what_cannot_leave_its_process_is_refused() {
    let report = simulate(4, Sim::new(3).with_processes(2, 1), async |rt: Runtime| {
        let nodes = rt.array::<Node>(4).create(()).await?;
        let (to, told) = mpsc::channel();
        nodes.at(1).tell(to.clone()).await?;
        assert_eq!(told.try_recv(), Ok(1));
        let error = nodes.at(2).tell(to).await.expect_err("it is in another process");
        assert!(error.to_string().contains("Node.tell was not sent to another process"), "{error}");
        Result::<()>::Ok(())
    });
    succeeded(&report);
}

#[test]
fn ends_of_promises_are_counted_over_processes_in_every_order() {
    for seed in 0..100 {
        let sim = Sim::new(seed).with_processes(if seed % 2 == 0 { 4 } else { 2 }, 1);
        let report = simulate(4, sim, async |rt: Runtime| {
            let nodes = rt.array::<Node>(4).create(()).await?;
            let (promise, value) = rt.promise();
            nodes.at(1).pass(promise, 6, true).send();
            let (forgotten, never) = rt.promise::<u64>();
            nodes.at(2).pass(forgotten, 5, false).send();
            rt.quiescence().await?;
            nodes.at(3).fulfil(7).await?;
            assert_eq!(value.await?, 7);
            let broken = rt.timeout(Duration::from_secs(1), never).await.expect("it is broken at once");
            assert!(broken.is_err(), "nobody holds an end");
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
}

#[test]
fn bytes_between_processes_are_those_that_are_sent() {
    let bytes = |processes: usize, len: usize| {
        let sim = Sim::new(0).with_processes(processes, 1);
        let report = simulate(2, sim, async move |rt: Runtime| {
            let nodes = rt.array::<Node>(2).create(()).await?;
            assert_eq!(nodes.at(1).sum(vec![0.5; len]).await?, len as f64 / 2.0);
            Result::<()>::Ok(())
        });
        let simulation = succeeded(&report);
        simulation.between_processes.bytes + simulation.within_processes.bytes
    };
    let (short, long) = (bytes(2, 100), bytes(2, 10_100));
    // The lengths are written with a byte more.
    assert!((80_000..80_008).contains(&(long - short)), "{short} {long}");
    assert_eq!(bytes(1, 100), bytes(1, 10_100), "nothing is encoded inside of a process");
}

#[test]
fn chares_move_between_processes_at_random() {
    #[derive(Serialize, Deserialize)]
    struct Mover {
        calls: usize,
        processes: Vec<usize>,
    }

    #[chare(index = usize)]
    impl Mover {
        fn new() -> Self {
            Mover { calls: 0, processes: Vec::new() }
        }

        #[entry]
        fn note(&mut self, cx: &Cx<Self>) {
            self.calls += 1;
            self.processes.push(cx.process_of(cx.my_pe()));
        }

        #[entry]
        fn history(&self) -> (usize, Vec<usize>) {
            (self.calls, self.processes.clone())
        }
    }

    for seed in 0..20 {
        let sim = Sim::new(seed).with_processes(2, 1).with_migrations(4);
        let report = simulate(4, sim, async |rt: Runtime| {
            let movers = rt.array::<Mover>(4).create(()).await?;
            for _ in 0..20 {
                movers.note().await?;
            }
            let mut changes = 0;
            for (calls, processes) in movers.history().gather().await? {
                assert_eq!((calls, processes.len()), (20, 20));
                changes += processes.windows(2).filter(|pair| pair[0] != pair[1]).count();
            }
            CHANGES.fetch_add(changes, Ordering::Relaxed);
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
    let changes = CHANGES.load(Ordering::Relaxed);
    assert!(changes > 20, "{changes}");
}

/// Messages between processes of so many broadcasts from a PE in the middle, and all messages.
fn broadcasts(count: usize, is_gathered: bool) -> [u64; 2] {
    let sim = Sim::new(0).with_processes(16, 1);
    let report = simulate(64, sim, async move |rt: Runtime| {
        let group = rt.group::<Member>().create(()).await?;
        for _ in 0..count {
            if is_gathered {
                assert_eq!(group.number().gather().await?, (0..64).collect::<Vec<_>>());
            } else {
                group.rest().await?;
            }
        }
        Result::<()>::Ok(())
    });
    let simulation = succeeded(&report);
    let between = simulation.between_processes.messages;
    [between, between + simulation.within_processes.messages]
}

#[test]
fn a_broadcast_and_its_end_cross_once_to_and_from_each_process() {
    for is_gathered in [false, true] {
        let (few, many) = (broadcasts(1, is_gathered), broadcasts(11, is_gathered));
        assert_eq!(many[0] - few[0], 10 * 2 * 15);
        // Inside of a process: to the three others of the root's, and from the three others of each.
        assert_eq!(many[1] - few[1], 10 * (2 * 15 + 3 + 16 * 3));
    }
}

#[test]
fn errors_and_large_values_come_from_everywhere() {
    for seed in 0..20 {
        let report = simulate(12, Sim::new(seed).with_processes(6, 1), async |rt: Runtime| {
            let group = rt.group::<Member>().create(()).await?;
            for at in 0..12 {
                let error = group.fail(at).await.expect_err("one of them fails");
                assert!(error.to_string().contains("as asked"), "{error}");
                let error = group.fail(at).gather().await.expect_err("one of them fails");
                assert!(error.to_string().contains("as asked"), "{error}");
            }
            assert_eq!(group.fail(12).gather().await?, vec![vec![0.5; 100]; 12]);
            Result::<()>::Ok(())
        });
        succeeded(&report);
    }
}

#[test]
fn more_buffers_than_a_message_takes_come_in_several() {
    let report = simulate(6, Sim::new(1).with_processes(3, 1), async |rt: Runtime| {
        let fields = rt.array::<Field>(4800).create(()).await?;
        let all = fields.values().gather().await?;
        assert!(all.iter().enumerate().all(|(index, values)| *values == vec![index as f64; 100]));
        Result::<()>::Ok(())
    });
    succeeded(&report);
}

/// A message waits for its device memory, and those after it wait behind it; those of other PEs of the process do not.
#[test]
fn an_end_that_is_given_up_on_another_pe_overtakes_nothing() {
    for seed in 0..200 {
        for how in [How::Value, How::Error, How::Onward] {
            let report = simulate(6, Sim::new(seed).with_processes(3, 1), async move |rt: Runtime| {
                let givers = rt.array::<Giver>(6).create(()).await?;
                let (promise, value) = rt.promise();
                givers.at(2).fulfil(promise, how).await?;
                match value.await {
                    Ok(field) => assert_eq!((field.len(), how == How::Error), (2, false)),
                    Err(error) => {
                        let is_asked = how == How::Error && error.to_string().contains("as asked");
                        assert!(is_asked, "{how:?}: {error}");
                    }
                }
                Result::<()>::Ok(())
            });
            assert!(report.is_success(), "seed {seed}: {report}");
        }
    }
}

/// Small numbers, which serde would write with a byte each.
#[cfg(feature = "ndarray")]
mod plain_memory {
    use chare::reduction::Sum;
    use ndarray::{Array1, Array2};

    use super::*;

    #[derive(Serialize, Deserialize)]
    struct Patch {
        level: u32,
        #[serde(with = "chare::bulk")]
        cells: Array2<u64>,
    }

    #[derive(Serialize, Deserialize)]
    struct Table {
        #[serde(with = "chare::bulk")]
        rows: Array2<u64>,
    }

    #[chare(index = usize)]
    impl Table {
        fn new(len: usize) -> Self {
            Table { rows: Array2::zeros((len, 1)) }
        }

        #[entry]
        fn take(&self, rows: Array2<u64>) -> usize {
            rows.len()
        }

        #[entry]
        fn give(&self, len: usize) -> Array1<u64> {
            Array1::zeros(len)
        }

        #[entry]
        fn take_patch(&self, patch: Patch) -> usize {
            patch.cells.len()
        }

        #[entry]
        fn rows(&self) -> usize {
            self.rows.len()
        }

        #[entry]
        fn pass_on(&self, cx: &Cx<Self>, to: usize, len: usize) -> Result<()> {
            Ok(cx.channel(&cx.array().at(to), 0).send(vec![0_u64; len])?)
        }

        #[entry]
        async fn await_it(this: This<Self>, from: usize) -> Result<usize> {
            let values: Vec<u64> = this.channel(&this.array().at(from), 0).recv().await?;
            Ok(values.len())
        }

        #[entry]
        fn fulfil(&self, promise: Promise<Array2<u64>>, len: usize) -> Result<()> {
            Ok(promise.send(Array2::zeros((len, 1)))?)
        }

        #[entry]
        fn add(&self, cx: &Cx<Self>, to: Promise<Vec<u64>>, len: usize) {
            cx.contribute(vec![0_u64; len], Sum, to);
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Way {
        Argument,
        Value,
        Field,
        State,
        Channel,
        Promise,
        Reduction,
    }

    /// What is sent between processes if so many numbers go one way once.
    fn bytes(way: Way, len: usize) -> u64 {
        let sim = Sim::new(0).with_processes(2, 1);
        let report = simulate(2, sim, async move |rt: Runtime| {
            let is_state = matches!(way, Way::State);
            let tables = rt.array::<Table>(2).create(if is_state { len } else { 0 }).await?;
            let (here, there) = (tables.at(0), tables.at(1));
            let came = match way {
                Way::Argument => there.take(Array2::zeros((len, 1))).await?,
                Way::Value => there.give(len).await?.len(),
                Way::Field => there.take_patch(Patch { level: 1, cells: Array2::zeros((len, 1)) }).await?,
                Way::State => {
                    there.migrate(0).await?;
                    there.rows().await?
                }
                Way::Channel => {
                    there.pass_on(0, len).await?;
                    here.await_it(1).await?
                }
                Way::Promise => {
                    let (promise, value) = rt.promise();
                    there.fulfil(promise, len).await?;
                    value.await?.len()
                }
                Way::Reduction => {
                    let (promise, value) = rt.promise();
                    tables.add(promise, len).await?;
                    value.await?.len()
                }
            };
            assert_eq!(came, len);
            Result::<()>::Ok(())
        });
        succeeded(&report).between_processes.bytes
    }

    #[test]
    fn goes_as_it_lies_whatever_it_is_a_value_of() {
        use Way::*;
        for way in [Argument, Value, Field, State, Channel, Promise, Reduction] {
            let (short, long) = (bytes(way, 1000), bytes(way, 11_000));
            // Lengths are numbers of one byte more.
            assert!((80_000..80_050).contains(&(long - short)), "{way:?}: {short} {long}");
        }
    }
}
