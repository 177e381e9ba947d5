//! Measuring and reporting, shared by the benches.
//!
//! This crate is apart because it is a client of the runtime like any program: it uses public API only. Each bench is a
//! program of its own, run as `cargo bench -p chare-benches --bench NAME -- [--pes N] [--ranks N] [--case TEXT] [--json] [--smoke]`,
//! prints one [`Row`] per measured quantity, and panics if what it computed is wrong.
//!
//! Whole batches of operations are timed, never single ones. The *best* batch is the figure of a quiet machine, and the one
//! to compare; the *median* says what a user gets on this one.
//!
//! ```
//! use std::time::Instant;
//! use chare_benches::{Amount, Bench, Sampler};
//!
//! let bench = Bench::new("sum", chare_benches::Options::smoke());
//! let mut sampler = Sampler::new(bench.options());
//! while sampler.wants_more() {
//!     let start = Instant::now();
//!     let sum: u64 = (0..1000).map(std::hint::black_box).sum();
//!     sampler.take(start.elapsed().as_nanos() as f64 / 1000.0);
//!     assert_eq!(sum, 499_500);
//! }
//! bench.report("plain", Amount::Count(1000), "ns", sampler.summary());
//! ```

mod devices;
mod options;
mod processes;
mod report;
mod run;
mod sampler;
pub mod taskbench;

pub use devices::Place;
pub use options::{OptionValue, Options, OptionsError, USAGE};
pub use report::{Amount, Bench, Row};
pub use run::{run, run_with};
pub use sampler::{Sampler, Summary};
