//! Coroutines that are started again at sync points: nobody can tell, as long as their progress is in `self`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chare::prelude::*;
use chare::{BoxError, ExitReport, Options};

use super::PES;

/// Starts of coroutines, and coroutines that were dropped.
#[derive(Default)]
struct Counts {
    starts: AtomicU64,
    drops: AtomicU64,
}

struct Dropped(Arc<Counts>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, Ordering::Relaxed);
    }
}

struct Cell {
    counts: Arc<Counts>,
    step: u64,
    value: u64,
}

#[chare(index = usize)]
impl Cell {
    fn new(cx: &Cx<Self>, counts: Arc<Counts>) -> Self {
        Cell { counts, step: 0, value: cx.index() as u64 }
    }

    /// Adds up what the neighbours have, step by step.
    #[entry(restart)]
    async fn diffuse(&mut self, cx: &Cx<Self>, steps: u64, label: String) -> Result<u64> {
        self.counts.starts.fetch_add(1, Ordering::Relaxed);
        let _dropped = Dropped(self.counts.clone());
        assert_eq!(label, "the same each time");
        let count = cx.array().shape();
        let channels =
            [1, count - 1].map(|by| cx.channel::<u64, _>(&cx.array().at((cx.index() + by) % count), 0));
        while self.step < steps {
            for channel in &channels {
                channel.send(self.value)?;
            }
            for channel in &channels {
                self.value = self.value.wrapping_mul(31).wrapping_add(channel.recv().await?);
            }
            self.step += 1;
            cx.sync_point().await;
            if self.step.is_multiple_of(7) {
                cx.this().migrate((self.step as usize + cx.index()) % cx.num_pes()).await?;
            }
        }
        Ok(self.value)
    }

    #[entry(restart)]
    async fn count_together(this: This<Self>, until: u64) -> u64 {
        let _dropped = Dropped(this.with(|s| s.counts.clone()));
        this.with(|s| s.counts.starts.fetch_add(1, Ordering::Relaxed));
        while this.with(|s| s.step) < until {
            this.with(|s| s.step += 1);
            this.sync_point().await;
        }
        this.with(|s| s.step)
    }

    /// Gives up waiting for a sync point when another future is ready in the same poll.
    #[entry(restart)]
    async fn choose(&mut self, cx: &Cx<Self>) -> Result<u64> {
        for _ in 0..100 {
            futures::select_biased! {
                () = futures::FutureExt::fuse(cx.sync_point()) => {}
                () = futures::FutureExt::fuse(async {}) => {}
            }
            self.step += 1;
            cx.array().at((cx.index() + 1) % 2).nothing().await?;
            let (to, value) = cx.promise();
            to.send(1)?;
            self.value = value.await?;
        }
        Ok(self.step)
    }

    #[entry]
    fn nothing(&self) {}

    /// Is not declared so.
    #[entry]
    async fn pass(&mut self, cx: &Cx<Self>) -> u64 {
        let mut passed = 0;
        for _ in 0..100 {
            cx.sync_point().await;
            passed += 1;
        }
        passed
    }

    #[entry(restart)]
    async fn fail(&mut self, cx: &Cx<Self>) -> Result<()> {
        self.step += 1;
        if self.step == 20 {
            return Err("at the twentieth".into());
        }
        loop {
            cx.sync_point().await;
        }
    }
}

fn run<F, Fut>(pes: usize, seed: Option<u64>, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let options = Options::default().with_pes(pes);
    let options = seed.into_iter().fold(options, Options::with_restarts);
    Runtime::run(options, main).expect("the host device is always there")
}

const CELLS: usize = 8;

/// What the cells end with, and whatever the report says of restarts is what the coroutines have counted.
fn diffused(pes: usize, seed: Option<u64>) -> (Vec<u64>, Arc<Counts>) {
    let counts = Arc::<Counts>::default();
    let (result, for_cells) = (Arc::new(std::sync::Mutex::new(Vec::new())), counts.clone());
    let values = result.clone();
    let report = run(pes, seed, async move |rt: Runtime| {
        let cells = rt.array::<Cell>(CELLS).create(for_cells).await?;
        let all = cells.diffuse(50, "the same each time".to_owned()).gather().await?;
        *values.lock().expect("nobody panics") = all;
        Ok(())
    });
    assert!(report.is_success(), "{report}");
    let restarted = seed.map(|_| counts.starts.load(Ordering::Relaxed) - CELLS as u64);
    assert_eq!(report.restarted(), restarted);
    let values = result.lock().expect("nobody panics").clone();
    (values, counts)
}

#[test]
fn the_result_is_the_same_however_often_coroutines_are_started_again() {
    let (expected, counts) = diffused(1, None);
    assert_eq!(counts.starts.load(Ordering::Relaxed), CELLS as u64, "nobody asked for restarts");
    for pes in PES {
        for seed in 0..5 {
            let (values, counts) = diffused(pes, Some(seed));
            assert_eq!(values, expected, "seed {seed} at {pes} PEs");
            let starts = counts.starts.load(Ordering::Relaxed);
            assert!((100..400).contains(&starts), "every second of 400 sync points: {starts}");
            assert_eq!(counts.drops.load(Ordering::Relaxed), starts, "each coroutine is dropped once");
        }
    }
}

#[test]
fn coroutines_that_share_a_chare_are_started_again_one_by_one() {
    for pes in [1, 2] {
        let counts = Arc::<Counts>::default();
        let of_main = counts.clone();
        let report = run(pes, Some(3), async move |rt: Runtime| {
            let cells = rt.array::<Cell>(1).create(of_main).await?;
            let both = [cells.at(0).count_together(100).future(), cells.at(0).count_together(200).future()];
            for (counting, least) in both.into_iter().zip([100, 200]) {
                assert!(counting.await? >= least);
            }
            Ok(())
        });
        assert!(report.is_success(), "{report}");
        let starts = counts.starts.load(Ordering::Relaxed);
        assert!(starts > 50 && counts.drops.load(Ordering::Relaxed) == starts, "{starts}");
    }
}

#[test]
fn other_coroutines_pass_sync_points() {
    let report = run(2, Some(1), async |rt: Runtime| {
        let cells = rt.array::<Cell>(2).create(Arc::default()).await?;
        assert_eq!(cells.pass().gather().await?, [100, 100]);
        Ok(())
    });
    assert!(report.is_success(), "{report}");
}

#[test]
fn the_end_of_a_coroutine_that_was_started_again_is_that_of_its_call() {
    let report = run(2, Some(1), async |rt: Runtime| {
        let cells = rt.array::<Cell>(1).create(Arc::default()).await?;
        let error = cells.at(0).fail().await.expect_err("in the end").to_string();
        assert_eq!(error, "Cell[0].fail failed: at the twentieth");
        Ok::<(), BoxError>(())
    });
    assert!(report.is_success(), "{report}");
}

#[test]
fn a_sync_point_that_is_given_up_starts_nothing_again() {
    let report = run(2, Some(1), async |rt: Runtime| {
        let cells = rt.array::<Cell>(2).create(Arc::default()).await?;
        assert_eq!(cells.at(0).choose().await?, 100);
        Ok(())
    });
    assert!(report.is_success(), "{report}");
}
