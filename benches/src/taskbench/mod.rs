//! Task Bench: graphs of tasks, what a task does, and the smallest task that is worth its overhead.
//!
//! Everything of the benchmark but how tasks are run: the bench of that name runs them on chares. Options carry the names of
//! the original, so that one command line serves both.

mod args;
mod graph;
mod kernel;
mod metg;

pub use args::{Args, TASKBENCH_USAGE};
pub use graph::{Graph, Pair, Pattern, SCRATCH_MARK};
pub use kernel::Kernel;
pub use metg::{Granularity, metg, sweep};
