//! Simulated runs: the same seed makes the same run, other seeds find other orders, time is virtual, and what cannot be
//! simulated is named.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use chare::device::{DeviceVec, InOut, Kernel, Launch};
use chare::prelude::*;
use chare::{DevicePath, ExitReport, HANG_EXIT_CODE, Link, MainOutput, Network, Options, Sim, Simulation};
use serde::{Deserialize, Serialize};

pub(crate) const ADD: Kernel<(InOut<f64>, f64)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [f64], f64)| {
        buffer.iter_mut().for_each(|element| *element += value);
    });

pub(crate) fn simulate<F, Fut, R>(pes: usize, sim: Sim, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let options = Options::default().with_pes(pes).simulate(sim);
    Runtime::run(options, main).expect("the host device is always there")
}

pub(crate) fn simulation(report: &ExitReport) -> &Simulation {
    report.simulation().expect("it was simulated")
}

/// Does a little of everything.
#[derive(Serialize, Deserialize)]
struct Worker {
    sum: u64,
    log: Vec<u64>,
}

#[chare(index = usize)]
impl Worker {
    fn new() -> Self {
        Worker { sum: 0, log: Vec::new() }
    }

    #[entry]
    fn add(&mut self, amount: u64) {
        self.sum += amount;
    }

    #[entry]
    fn sum(&self) -> u64 {
        self.sum
    }

    #[entry]
    fn note(&mut self, number: u64) {
        self.log.push(number);
    }

    #[entry]
    fn log(&self) -> Vec<u64> {
        self.log.clone()
    }

    #[entry]
    fn pe(&self, cx: &Cx<Self>) -> usize {
        cx.my_pe().index()
    }

    /// Computes for so long, and says when it has done.
    #[entry]
    fn compute(&mut self, cx: &Cx<Self>, time: Duration) -> Duration {
        cx.charge(time);
        cx.elapsed()
    }

    /// Gives so many bytes to each of these, and says when the last of them have come, by what they say.
    #[entry]
    async fn give(this: This<Self>, bytes: usize, to: Vec<usize>) -> Result<Duration> {
        let taken = to.iter().map(|to| this.array().at(*to).take(vec![0; bytes]).future());
        let taken: Vec<_> = taken.collect();
        let mut last = Duration::ZERO;
        for taken in taken {
            last = last.max(taken.await?);
        }
        Ok(last)
    }

    #[entry]
    fn take(&self, cx: &Cx<Self>, _bytes: Vec<u8>) -> Duration {
        cx.elapsed()
    }

    #[entry]
    fn add_up(&self, cx: &Cx<Self>, sum: Promise<usize>) {
        cx.contribute(cx.index(), reduce::Sum, sum);
    }

    /// Passes values round the array, and adds each on its device.
    #[entry]
    async fn round(this: This<Self>, count: u64) -> Result<f64> {
        let all = this.array();
        let (own, elements) = (this.index(), all.shape());
        let to = this.channel::<u64, _>(&all.at((own + 1) % elements), 1);
        let from = this.channel::<u64, _>(&all.at((own + elements - 1) % elements), 1);
        let mut buffer: DeviceVec<f64> = this.device().alloc(4)?;
        for step in 0..count {
            to.send(step)?;
            let value = from.recv().await?;
            this.device().launch(&ADD, 4, (&mut buffer, value as f64))?.await?;
            this.sleep(Duration::from_micros(value)).await;
            all.at((own + step as usize) % elements).add(value).send();
        }
        Ok(this.device().download(&buffer)?.await?[0])
    }

    /// Launches on a device of its own that works when it likes, and says in which order the launches ended.
    #[entry]
    async fn launch(&mut self, cx: &Cx<Self>, order: Arc<Mutex<Vec<usize>>>) -> Result<()> {
        let mut buffer: DeviceVec<f64> = cx.device().alloc(4)?;
        for step in 1..=3 {
            cx.device().launch(&ADD, 4, (&mut buffer, f64::from(step)))?.await?;
            order.lock().expect("not poisoned").push(cx.index());
        }
        assert_eq!(cx.device().download(&buffer)?.await?, [6.0; 4]);
        Ok(())
    }
}

pub(crate) async fn a_little_of_everything(rt: Runtime) -> Result<()> {
    let workers = rt.array::<Worker>(6).create(()).await?;
    for added in workers.round(4).gather().await? {
        assert_eq!(added, 6.0);
    }
    rt.quiescence().await?;
    let sums = workers.sum().gather().await?;
    assert_eq!(sums.iter().sum::<u64>(), 36);
    Ok(())
}

#[test]
fn one_seed_makes_one_run_and_another_seed_another() {
    let specs = ["0", "0:processes=4:hosts=2", "0:migrate=5", "0:processes=2:migrate=3"];
    for spec in specs.map(|spec| spec.parse::<Sim>().expect("a simulation")) {
        let mut hashes = BTreeSet::new();
        for seed in 0..20 {
            let run = || simulate(4, spec.clone().with_seed(seed), a_little_of_everything);
            let (first, second) = (run(), run());
            assert!(first.is_success(), "{spec}, seed {seed}: {first}");
            assert_eq!(simulation(&first), simulation(&second), "{spec}, seed {seed}");
            hashes.insert(simulation(&first).trace_hash);
        }
        assert_eq!(hashes.len(), 20, "{spec}");
    }
}

#[test]
fn a_profile_does_not_change_the_run_and_reads_the_virtual_clock() {
    let main = async |rt: Runtime| {
        let worker = rt.array::<Worker>(2).create(()).await?;
        worker.at(1).compute(Duration::from_secs(7)).await?;
        Result::<()>::Ok(())
    };
    let options = Options::default().with_pes(2).simulate(Sim::new(3));
    let plain = Runtime::run(options.clone(), main).expect("it starts");
    let profiled = Runtime::run(options.with_profile(true), main).expect("it starts");
    assert_eq!(simulation(&plain), simulation(&profiled));
    let profile = profiled.profile().expect("it was asked for");
    let compute = profile.entry("Worker", "compute").expect("it was called");
    assert_eq!((compute.calls, compute.self_time.as_secs()), (1, 7));
}

/// The order in which two elements of two PEs are noted by a third one's: nobody has promised any.
pub(crate) async fn race(rt: Runtime) -> Result<()> {
    let workers = rt.array::<Worker>(2).create(()).await?;
    (0..3).for_each(|number| workers.at(1).note(number).send());
    rt.quiescence().await?;
    let log = workers.at(1).log().await?;
    assert_eq!(log, [0, 1, 2], "plain messages came in another order");
    Ok(())
}

#[test]
fn a_race_is_found_by_a_seed_and_replayed_exactly() {
    let run = |seed| simulate(2, Sim::new(seed), race);
    let found = (0..200).find(|seed| !run(*seed).is_success()).expect("some seed finds it");
    let (first, again) = (run(found), run(found));
    assert!(first.to_string().contains("plain messages came in another order"), "{first}");
    assert_eq!(first.to_string(), again.to_string());
    assert_eq!(simulation(&first), simulation(&again));
    assert!((0..200).any(|seed| run(seed).is_success()), "it is a race, not an error");
}

#[chare::test(pes = [1, 4], seeds = "20:processes=2:migrate=10")]
async fn a_test_is_run_for_many_seeds(rt: Runtime) -> Result<()> {
    a_little_of_everything(rt).await
}

#[test]
fn channels_keep_their_order_in_every_run() {
    struct Line;

    #[chare(index = usize)]
    impl Line {
        fn new() -> Self {
            Line
        }

        #[entry]
        async fn talk(&self, cx: &Cx<Self>) -> Result<()> {
            let to = cx.channel::<u64, _>(&cx.array().at(1), 0);
            (0..8).try_for_each(|number| to.send(number))?;
            Ok(())
        }

        #[entry]
        async fn listen(&self, cx: &Cx<Self>) -> Result<()> {
            let from = cx.channel::<u64, _>(&cx.array().at(0), 0);
            for number in 0..8 {
                assert_eq!(from.recv().await?, number);
            }
            Ok(())
        }
    }

    for seed in 0..50 {
        let report = simulate(2, Sim::new(seed).with_processes(2, 1), async |rt: Runtime| {
            let line = rt.array::<Line>(2).create(()).await?;
            let sent = line.at(0).talk().future();
            line.at(1).listen().await?;
            sent.await?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{seed}: {report}");
    }
}

#[test]
fn time_passes_only_on_the_virtual_clock() {
    let report = simulate(4, Sim::new(1), async |rt: Runtime| {
        let (_promise, value) = rt.promise::<u64>();
        let hour = Duration::from_secs(3600);
        assert!(rt.timeout(hour, value).await.is_err());
        assert!(rt.elapsed() >= hour);
        // One that is given up takes no time.
        assert!(rt.timeout(24 * hour, rt.sleep(hour)).await.is_ok());
        assert!(rt.elapsed() < 3 * hour);
        Result::<()>::Ok(())
    });
    assert!(report.is_success(), "{report}");
    assert_eq!(simulation(&report).time.as_secs(), 7200);
}

#[test]
fn a_calm_run_takes_as_long_as_the_network_says() {
    let ns = Duration::from_nanos;
    let link = |latency, bytes_per_s| Link { latency: ns(latency), bytes_per_s };
    let mut network = Network {
        within_process: link(10, 0),
        between_processes: link(1_000, 0),
        between_hosts: link(100_000, 1_000_000),
        ..Network::default()
    };
    // Four PEs, a process each, two on each host.
    let sim = Sim::new(0).calm().with_processes(4, 2).with_overhead(ns(1));
    let times = |network: &Network| {
        let times = Arc::new(Mutex::new(Vec::new()));
        let kept = times.clone();
        let report = simulate(4, sim.clone().with_network(network.clone()), async move |rt: Runtime| {
            let workers = rt.array::<Worker>(4).create(()).await?;
            for index in 0..4 {
                let began = rt.elapsed();
                workers.at(index).compute(ns(500)).await?;
                kept.lock().expect("not poisoned").push((rt.elapsed() - began).as_nanos() as u64);
            }
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{report}");
        Arc::try_unwrap(times).expect("the run is over").into_inner().expect("not poisoned")
    };
    let measured = times(&network);
    // The call, its run, its answer; main's own steps.
    let own = 500..510;
    assert!(own.contains(&measured[0]), "{measured:?}");
    assert!(own.contains(&(measured[1] - 2_000)), "{measured:?}");
    // Some bytes at 1 us each.
    assert_eq!(measured[2], measured[3]);
    assert!((200_000 + 16_000..200_000 + 500_000).contains(&measured[2]), "{measured:?}");
    network.pairs_of_hosts.insert((0, 1), link(100, 0));
    let measured = times(&network);
    assert!(own.contains(&(measured[3] - 200)), "{measured:?}");
}

/// How many milliseconds it takes until each of six processes on so many hosts has given a megabyte to these, all at once, at a gigabyte
/// a second, in order of the givers.
fn milliseconds_of(hosts: usize, to: impl Fn(usize) -> Vec<usize> + Send + 'static) -> Vec<u64> {
    let link = Link { latency: Duration::ZERO, bytes_per_s: 1_000_000_000 };
    let network = Network { between_processes: link, between_hosts: link, ..Network::default() };
    let times = Arc::new(Mutex::new(Vec::new()));
    let kept = times.clone();
    let sim = Sim::new(0).calm().with_processes(6, hosts).with_network(network);
    let report = simulate(6, sim, async move |rt: Runtime| {
        let workers = rt.array::<Worker>(6).create(()).await?;
        workers.add(0).await?;
        let began = rt.elapsed();
        let given: Vec<_> =
            (0..6).map(|giver| workers.at(giver).give(1_000_000, to(giver)).future()).collect();
        for given in given {
            let took = given.await?.saturating_sub(began);
            kept.lock().expect("not poisoned").push((took.as_micros() as u64 + 500) / 1000);
        }
        Result::<()>::Ok(())
    });
    assert!(report.is_success(), "{report}");
    Arc::try_unwrap(times).expect("the run is over").into_inner().expect("not poisoned")
}

#[test]
fn processes_of_two_hosts_share_what_lies_between_them() {
    // Those of host 0 give to those of host 1, each to another one.
    let three_to_three = |giver| if giver < 3 { vec![giver + 3] } else { Vec::new() };
    assert_eq!(milliseconds_of(2, three_to_three), [1, 2, 3, 0, 0, 0]);
    // On one host each two processes have a way of their own, and on the way to itself a process has none.
    assert_eq!(milliseconds_of(1, three_to_three), [1, 1, 1, 0, 0, 0]);
    // The way back is another one.
    assert_eq!(milliseconds_of(2, |giver| vec![(giver + 3) % 6]), [1, 2, 3, 1, 2, 3]);
    // Nor do three hosts share one: 0 to 2 and 4, 2 to 4, of two processes each.
    let of_three = |giver| match giver {
        0 => vec![2, 4],
        2 => vec![4],
        _ => Vec::new(),
    };
    assert_eq!(milliseconds_of(3, of_three), [1, 0, 1, 0, 0, 0]);
}

#[test]
fn a_thousand_pes_are_simulated_with_their_messages_counted() {
    let sim = Sim::new(0).calm().with_processes(64, 8);
    let report = simulate(1024, sim, async |rt: Runtime| {
        let workers = rt.array::<Worker>(4096).create(()).await?;
        let (promise, sum) = rt.promise();
        workers.add_up(promise).await?;
        assert_eq!(sum.await?, 4096 * 4095 / 2);
        // To the last element of each process.
        for process in 0..64 {
            workers.at(process * 64 + 63).add(1).send();
        }
        rt.quiescence().await?;
        Result::<()>::Ok(())
    });
    assert!(report.is_success(), "{report}");
    let simulation = simulation(&report);
    assert_eq!(simulation.busy.len(), 1024);
    let ways = [simulation.within_processes, simulation.between_processes, simulation.between_hosts];
    assert!(
        ways.iter().all(|carried| carried.messages > 0 && carried.bytes >= carried.messages),
        "{simulation}"
    );
    // The creation and the call reach each PE, and each contributes, whoever sends it on.
    assert!(ways.iter().map(|carried| carried.messages).sum::<u64>() >= 3 * 1023, "{simulation}");
    assert!(simulation.time > Duration::from_micros(10), "{simulation}");
    assert!(simulation.to_string().contains("0:processes=64:hosts=8:calm on 1024 PE(s)"), "{simulation}");
}

/// How many messages go from one of 16 processes to another one.
fn between_processes<F, Fut>(main: F) -> u64
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let report = simulate(64, Sim::new(0).calm().with_processes(16, 4), main);
    assert!(report.is_success(), "{report}");
    let simulation = simulation(&report);
    simulation.between_processes.messages + simulation.between_hosts.messages
}

/// As in Charm++: over a tree of the processes, and not one for each PE.
#[test]
fn a_creation_is_one_message_to_each_other_process_and_one_back() {
    let end = between_processes(async |_: Runtime| Ok(()));
    let created = between_processes(async |rt: Runtime| {
        rt.array::<Worker>(64).create(()).await?;
        rt.array::<Worker>(1000).create(()).await?;
        Ok(())
    });
    assert_eq!(created - end, 2 * (15 + 15));
    let quiescence = between_processes(async |rt: Runtime| Ok(rt.quiescence().await?));
    let empty = between_processes(async |rt: Runtime| {
        rt.array_sparse::<Worker>().create_empty();
        Ok(rt.quiescence().await?)
    });
    // Processes tell each other where they stand in its reductions, too.
    assert!((15..=2 * 15).contains(&(empty - quiescence)), "{empty} - {quiescence}");
}

#[test]
fn chares_move_at_random_and_nothing_is_lost() {
    let mut moves = 0;
    for seed in 0..50 {
        let report = simulate(4, Sim::new(seed).with_migrations(2), async |rt: Runtime| {
            let workers = rt.array::<Worker>(4).create(()).await?;
            let before = workers.pe().gather().await?;
            for number in 0..10 {
                workers.elements().for_each(|worker| worker.add(number).send());
                workers.pe().gather().await?;
            }
            rt.quiescence().await?;
            assert_eq!(workers.sum().gather().await?, [45; 4]);
            assert!(before.iter().all(|pe| *pe < 4));
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{seed}: {report}");
        moves += simulation(&report).migrations;
    }
    assert!(moves > 50, "{moves}");
}

#[test]
fn device_work_ends_in_any_order_that_its_streams_allow() {
    let mut orders = BTreeSet::new();
    for seed in 0..50 {
        let order = Arc::new(Mutex::new(Vec::new()));
        let kept = order.clone();
        let report = simulate(2, Sim::new(seed), async |rt: Runtime| {
            let workers = rt.array::<Worker>(3).create(()).await?;
            workers.launch(kept).await?;
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{seed}: {report}");
        orders.insert(order.lock().expect("not poisoned").clone());
    }
    assert!(orders.iter().all(|order| order.len() == 9));
    assert!(orders.len() > 10, "{orders:?}");
}

#[test]
fn what_waits_for_the_outside_is_named() {
    struct Waits;

    #[chare(index = usize)]
    impl Waits {
        fn new() -> Self {
            Waits
        }

        #[entry]
        async fn for_ever(&self, kept: Arc<Mutex<Vec<std::task::Waker>>>) {
            std::future::poll_fn(|context| {
                kept.lock().expect("not poisoned").push(context.waker().clone());
                Poll::<()>::Pending
            })
            .await;
        }
    }

    let report = simulate(2, Sim::new(1), async |rt: Runtime| {
        let waits = rt.array::<Waits>(4).create(()).await?;
        waits.at(3).for_ever(Arc::default()).await?;
        Result::<()>::Ok(())
    });
    let text = report.to_string();
    assert!(
        text.contains("cannot be simulated: coroutines wait for something outside of the runtime"),
        "{text}"
    );
    assert!(text.contains("Waits[3].for_ever (") && text.contains("on PE 1"), "{text}");
}

#[test]
fn a_coroutine_may_be_woken_by_another_that_sleeps() {
    let report = simulate(1, Sim::new(1), async |rt: Runtime| {
        let (sender, receiver) = futures::channel::oneshot::channel();
        let workers = rt.array::<Worker>(1).create(()).await?;
        let wakes = async {
            rt.sleep(Duration::from_secs(1)).await;
            workers.at(0).add(1).await?;
            sender.send(5).expect("it is awaited");
            Ok(())
        };
        let (woken, value): (Result<()>, _) = futures::future::join(wakes, receiver).await;
        woken?;
        assert_eq!(value?, 5);
        Result::<()>::Ok(())
    });
    assert!(report.is_success(), "{report}");
}

#[test]
fn other_threads_are_refused() {
    let report = simulate(2, Sim::new(1), async |rt: Runtime| {
        let handle = rt.handle();
        let (promise, value) = rt.promise::<u64>();
        thread::spawn(move || {
            let _entered = handle.enter();
            promise.send(1)
        })
        .join()
        .expect("it does not panic")?;
        value.await?;
        Result::<()>::Ok(())
    });
    assert!(report.to_string().contains("a thread that is no PE has sent a message"), "{report}");
    let report = simulate(2, Sim::new(1), async |rt: Runtime| {
        let _handle = rt.handle();
        let (_promise, value) = rt.promise::<u64>();
        value.await?;
        Result::<()>::Ok(())
    });
    assert!(report.to_string().contains("a `Handle` lives"), "{report}");
}

#[test]
fn tokio_is_refused() {
    let report = simulate(1, Sim::new(1), async |_: Runtime| {
        tokio::time::sleep(Duration::from_millis(1)).await;
    });
    let text = report.to_string();
    assert!(text.contains("a simulated run has no threads, no tokio"), "{text}");
}

#[test]
fn a_hang_is_reported_as_in_any_run() {
    let report = simulate(3, Sim::new(1), async |rt: Runtime| {
        let (_promise, value) = rt.promise::<u64>();
        value.await?;
        Result::<()>::Ok(())
    });
    assert_eq!(report.code(), HANG_EXIT_CODE);
    assert!(report.to_string().contains("waits for a promise"), "{report}");
}

#[test]
fn a_program_that_goes_on_for_ever_is_given_up() {
    let report = simulate(2, Sim::new(1).with_max_steps(1000), async |rt: Runtime| {
        loop {
            rt.yield_now().await;
        }
        #[expect(unreachable_code, reason = "it says what the program would return")]
        Result::<()>::Ok(())
    });
    assert!(report.to_string().contains("1000 steps and does not end"), "{report}");
}

#[test]
fn devices_that_work_by_themselves_are_refused() {
    let options = Options::default().with_device("wgpu:0".parse().expect("a device")).simulate(Sim::new(1));
    let error = Runtime::run(options, async |_: Runtime| {}).expect_err("it cannot start").to_string();
    assert!(error.contains("--device wgpu:0 cannot be simulated"), "{error}");
}

#[test]
fn paths_between_processes_of_the_system_are_refused() {
    let options = || Options::default().with_pes(2).simulate(Sim::new(1).with_processes(2, 1));
    let start = |path| Runtime::run(options().with_device_path(path), async |_: Runtime| {});
    let error = start(Some(DevicePath::Ipc)).expect_err("it cannot start").to_string();
    assert!(error.starts_with("--device-path ipc cannot be simulated"), "{error}");
    for path in [None, Some(DevicePath::Staged)] {
        assert!(start(path).expect("it starts").is_success());
    }
}
