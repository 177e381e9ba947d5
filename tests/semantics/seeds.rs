//! Each thing that a seed decides makes a difference that a program sees, over some seeds. All times are those of the virtual clock, and all
//! draws those of the seeds, so a test passes on every machine or on none.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chare::device::DeviceVec;
use chare::prelude::*;
use chare::{Link, Network, Sim};
use serde::{Deserialize, Serialize};

use crate::simulation::{ADD, a_little_of_everything, simulate, simulation};

/// Runs a program that succeeds, for what it comes to.
fn value_of<F, Fut, T>(pes: usize, sim: Sim, main: F) -> T
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = Result<T>> + Send + 'static,
    T: Send + 'static,
{
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let report = simulate(pes, sim, |rt| {
        let running = main(rt);
        async move {
            let value = running.await?;
            *keep.lock().expect("not poisoned") = Some(value);
            Result::<()>::Ok(())
        }
    });
    assert!(report.is_success(), "{report}");
    kept.lock().expect("not poisoned").take().expect("it has succeeded")
}

type Log = Arc<Mutex<Vec<(usize, Duration)>>>;

#[derive(Serialize, Deserialize)]
struct Probe;

#[chare(index = usize)]
impl Probe {
    fn new() -> Self {
        Probe
    }

    #[entry]
    fn pe(&self, cx: &Cx<Self>) -> usize {
        cx.my_pe().index()
    }

    /// Notes when it goes to sleep, and when it wakes.
    #[entry]
    async fn sleep_until(this: This<Self>, time: Duration, log: Log) {
        log.lock().expect("not poisoned").push((this.index(), this.elapsed()));
        this.sleep(time - this.elapsed()).await;
        log.lock().expect("not poisoned").push((this.index(), this.elapsed()));
    }

    /// How long each of so many launches took, one after the other; noted, too.
    #[entry]
    async fn launch(this: This<Self>, times: usize, log: Log) -> Result<Vec<Duration>> {
        let mut buffer: DeviceVec<f64> = this.device().alloc(4)?;
        let mut took = Vec::new();
        for _ in 0..times {
            let began = this.elapsed();
            this.device().launch(&ADD, 4, (&mut buffer, 1.0))?.await?;
            took.push(this.elapsed() - began);
            log.lock().expect("not poisoned").push((this.index(), this.elapsed()));
        }
        Ok(took)
    }
}

/// How often this PE, which always has something to do, has not gone on at once, in 2000 steps.
async fn stalls(rt: &Runtime) -> usize {
    let mut count = 0;
    for _ in 0..2000 {
        let before = rt.elapsed();
        rt.yield_now().await;
        count += usize::from(rt.elapsed() - before > Duration::from_micros(1));
    }
    count
}

#[test]
fn pes_stall_never_or_seldom_or_often() {
    let kinds =
        (0..40).map(|seed| match value_of(1, Sim::new(seed), async |rt: Runtime| Ok(stalls(&rt).await)) {
            0 => "never",
            1..=30 => "seldom",
            _ => "often",
        });
    assert_eq!(kinds.collect::<BTreeSet<_>>(), BTreeSet::from(["never", "often", "seldom"]));
}

#[test]
fn runs_differ_in_how_long_messages_take_and_a_few_take_much_longer() {
    let mut usual_ns = Vec::new();
    for seed in 0..60 {
        let took = value_of(2, Sim::new(seed), async |rt: Runtime| {
            let probe = rt.array::<Probe>(2).create(()).await?.at(1);
            let mut took = Vec::new();
            for _ in 0..300 {
                let began = rt.elapsed();
                assert_eq!(probe.pe().await?, 1);
                took.push((rt.elapsed() - began).as_nanos());
            }
            // A stall takes as long as a message that takes much longer.
            Ok((stalls(&rt).await == 0).then_some(took))
        });
        if let Some(mut took) = took {
            took.sort_unstable();
            let (usual, longest) = (took[150], took[299]);
            assert!(longest > 3 * usual, "seed {seed}: {usual} ns, and {longest} at most");
            usual_ns.push(usual);
        }
    }
    usual_ns.sort_unstable();
    assert!(usual_ns[0] < 2_000 && usual_ns[usual_ns.len() - 1] > 100_000, "{usual_ns:?}");
}

#[test]
fn of_two_things_at_one_moment_either_may_go_first() {
    let moment = Duration::from_secs(1);
    let mut orders = BTreeSet::new();
    for seed in 0..60 {
        // PEs take no time, so they wake at the very moment.
        let sim = Sim::new(seed).with_overhead(Duration::ZERO);
        let log = value_of(2, sim, async move |rt: Runtime| {
            let log = Log::default();
            rt.array::<Probe>(2).create(()).await?.sleep_until(moment, log.clone()).await?;
            let log = log.lock().expect("not poisoned").clone();
            Ok(log)
        });
        let [first, _, woken, last] = log[..] else { panic!("{log:?}") };
        // Not if one has stalled.
        if woken.1 == moment && last.1 == moment {
            orders.insert(first.0 == woken.0);
        }
    }
    assert_eq!(orders.len(), 2, "they wake in the order in which they went to sleep: {orders:?}");
}

#[test]
fn devices_are_looked_at_sooner_or_later() {
    let mut has_waited = false;
    for seed in 0..40 {
        let took = value_of(1, Sim::new(seed), async |rt: Runtime| {
            let took = rt.array::<Probe>(1).create(()).await?.at(0).launch(50, Log::default()).await?;
            Ok((stalls(&rt).await == 0).then_some(took))
        });
        has_waited |= took.is_some_and(|took| took.iter().any(|took| *took > Duration::from_micros(100)));
    }
    assert!(has_waited, "no PE has let a device wait");
}

#[test]
fn devices_are_looked_at_by_any_pe() {
    // Who waits on PE 0 is woken by a message if PE 1 looks.
    let second = Duration::from_secs(1);
    let link = Link { latency: second, bytes_per_s: 0 };
    for calm in [false, true] {
        let sim = Sim::new(1).with_network(Network { within_process: link, ..Network::default() });
        let took = value_of(2, if calm { sim.calm() } else { sim }, async |rt: Runtime| {
            Ok(rt.array::<Probe>(2).create(()).await?.at(0).launch(20, Log::default()).await?)
        });
        let late = took.iter().filter(|took| **took >= second).count();
        assert!((1..20).contains(&late), "calm {calm}: {took:?}");
    }
}

#[test]
fn either_of_two_operations_may_end_first() {
    for calm in [false, true] {
        let first = (0..40).map(|seed| {
            let sim = Sim::new(seed);
            value_of(1, if calm { sim.calm() } else { sim }, async |rt: Runtime| {
                let log = Log::default();
                rt.array::<Probe>(2).create(()).await?.launch(1, log.clone()).await?;
                let first = log.lock().expect("not poisoned")[0].0;
                Ok(first)
            })
        });
        assert_eq!(first.collect::<BTreeSet<_>>(), BTreeSet::from([0, 1]), "calm {calm}");
    }
}

#[test]
fn any_chare_moves_to_any_pe() {
    for calm in [false, true] {
        let mut places = BTreeSet::new();
        for seed in 0..300 {
            // Also to the other process.
            let sim = Sim::new(seed).with_processes(2, 1).with_migrations(10);
            let pes = value_of(4, if calm { sim.calm() } else { sim }, async |rt: Runtime| {
                Ok(rt.array::<Probe>(8).create(()).await?.pe().gather().await?)
            });
            places.extend(pes.into_iter().enumerate());
        }
        assert_eq!(places.len(), 8 * 4, "calm {calm}: {places:?}");
    }
}

#[test]
fn chares_move_after_some_steps_or_others() {
    let moves = (0..40).map(|seed| {
        let report = simulate(2, Sim::new(seed).calm().with_migrations(20), async |rt: Runtime| {
            rt.array::<Probe>(8).create(()).await?.pe().gather().await?;
            Result::<()>::Ok(())
        });
        let simulation = simulation(&report);
        (simulation.steps / 20).abs_diff(simulation.migrations)
    });
    let moves: BTreeSet<_> = moves.collect();
    assert!(moves.len() > 2, "how many moves more or less than one in 20 steps: {moves:?}");
}

#[test]
fn in_a_calm_run_only_devices_and_moves_are_drawn() {
    let count_runs = |spec: &str, uses_devices: bool| {
        let sim: Sim = spec.parse().expect("a simulation");
        let hash = |seed| {
            let report = simulate(4, sim.clone().with_seed(seed), async move |rt: Runtime| {
                let probes = rt.array::<Probe>(8).create(()).await?;
                let moment = rt.elapsed() + Duration::from_millis(1);
                probes.sleep_until(moment, Log::default()).await?;
                probes.pe().gather().await?;
                if uses_devices { a_little_of_everything(rt).await } else { Ok(()) }
            });
            assert!(report.is_success(), "{report}");
            simulation(&report).trace_hash
        };
        (0..10).map(hash).collect::<BTreeSet<_>>().len()
    };
    assert_eq!(count_runs("0:calm", false), 1);
    assert_eq!(count_runs("0:calm", true), 10);
    assert_eq!(count_runs("0:calm:migrate=3", false), 10);
    assert_eq!(count_runs("0", false), 10);
}
