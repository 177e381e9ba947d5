//! Programs whose chares move while everything is under way, run in many orders of steps and deliveries
//! ([`crate::scheduler::model`]): each message arrives once, broadcasts and reductions reach and count every element
//! once, and what ends in the middle leaves nothing behind.
//!
//! Each program notes in its [`World`] what has happened, and draws from it what to do next.

mod again;
mod aged;
mod bound;
mod dense;
mod endings;
mod ends;
mod forwards;
mod sparse;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::prelude::*;
use crate::report::ExitReport;
use crate::scheduler::model::{self, Case, Order, Rng, explore, shuttled};
pub(crate) use forwards::Trail;

/// What the chares of one run share: numbers that look random, and a log.
struct World<L>(Arc<Shared<L>>);

impl<L> serde::Serialize for World<L> {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("the world is one process"))
    }
}

impl<'de, L> serde::Deserialize<'de> for World<L> {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("the world is one process"))
    }
}

struct Shared<L> {
    rng: Mutex<Rng>,
    log: Mutex<L>,
    /// How many things chares may do of their own accord, so that the run ends.
    whims: Mutex<usize>,
}

impl<L> Clone for World<L> {
    fn clone(&self) -> Self {
        World(self.0.clone())
    }
}

impl<L> World<L> {
    fn log(&self) -> MutexGuard<'_, L> {
        lock(&self.0.log)
    }

    fn below(&self, count: usize) -> usize {
        lock(&self.0.rng).below(count)
    }

    fn once_in(&self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Whether a chare is to do something of its own accord.
    fn has_whim(&self) -> bool {
        let mut whims = lock(&self.0.whims);
        let has_one = *whims > 0 && self.once_in(2);
        *whims -= usize::from(has_one);
        has_one
    }
}

/// Chares are dropped after an assertion has failed, too.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

type Program<L, Fut> = fn(Runtime, World<L>) -> Fut;

/// Runs a program for so many seeds. It ends well, or where its case says, and leaves nothing behind.
fn check<L, Fut>(order: Order, seeds: u64, whims: usize, main: Program<L, Fut>)
where
    L: Default + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    explore(order, seeds, |case| {
        judge(case, whims, |world| model::run(case, |rt| main(rt, world)));
    });
}

/// As `check`, in so many orders that `shuttle` chooses.
fn check_shuttled<L, Fut>(runs: usize, whims: usize, main: Program<L, Fut>)
where
    L: Default + Send + 'static,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    shuttled::explore(runs, move |case| {
        judge(case, whims, |world| shuttled::run(case, move |rt| main(rt, world)));
    });
}

fn judge<L: Default>(case: Case, whims: usize, run: impl FnOnce(World<L>) -> ExitReport) {
    let world = World(Arc::new(Shared {
        rng: Mutex::new(Rng::new(case.seed ^ 1 << 32)),
        log: Mutex::default(),
        whims: Mutex::new(whims),
    }));
    let report = run(world.clone());
    assert!(report.is_success(), "{report}");
    assert_eq!(Arc::strong_count(&world.0), 1, "chares, coroutines and messages have been dropped");
}

/// Something that a program waits for later.
type Later = std::pin::Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// Awaits one of these, any.
async fn await_any<L>(world: &World<L>, laters: &mut Vec<Later>) -> Result<()> {
    if laters.is_empty() {
        return Ok(());
    }
    laters.swap_remove(world.below(laters.len())).await
}
