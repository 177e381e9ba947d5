//! Three of the Parallel Research Kernels on chares, with their own validation: `stencil` (star of radius 2) and `synch_p2p` in
//! MFlop/s, `transpose` in MB/s, by the formulas of the originals.
//!
//! Each batch creates the array, does one iteration that is not timed and then all others; the amount is the number of
//! chares on a PE. Operations and their number are those of the originals; `stencil` walks over the grid once in an
//! iteration where the original walks twice.

mod p2p;
mod rows;
mod stencil;
mod transpose;

use std::time::{Duration, Instant};

use chare::prelude::*;
use chare_benches::{Amount, Bench, OptionValue, OptionsError, Sampler, run};

use p2p::{Pipeline, Strip, StripEntries};
use stencil::{Block, BlockEntries, Grid};
use transpose::{Matrix, Part, PartEntries};

const OWN_USAGE: &str = "
options of prk
  --chares-per-pe N  Chares on each PE [default: 1 and 4]
  --iterations N     Timed iterations [default: 150 of stencil, 1000 of synch_p2p, 80 of transpose]";

/// How far a result may be from what the theory says.
const EPSILON: f64 = 1e-8;
const TILE: usize = 64;

/// What a batch does.
#[derive(Clone, Copy, Debug)]
struct Batch {
    chares: usize,
    iterations: usize,
    order: usize,
}

async fn stencil(rt: Runtime, batch: Batch) -> Result<Duration> {
    let grid = Grid { order: batch.order, blocks: closest_to_square(batch.chares) };
    let blocks = rt.array::<Block>(grid.blocks).create(grid).await?;
    blocks.iterate(1).await?;
    let start = Instant::now();
    blocks.iterate(batch.iterations).await?;
    let elapsed = start.elapsed();
    let norm = blocks.norm().gather().await?.into_iter().sum::<f64>() / grid.inner_cell_count();
    let expected = 2.0 * (batch.iterations + 1) as f64;
    assert!((norm - expected).abs() <= EPSILON, "the norm is {norm}, not {expected}");
    Ok(elapsed)
}

async fn synch_p2p(rt: Runtime, batch: Batch) -> Result<Duration> {
    let pipeline = Pipeline { columns: batch.order, rows: batch.order, strips: batch.chares };
    let strips = rt.array::<Strip>(batch.chares).create(pipeline).await?;
    let (mut corner, mut elapsed) = (0.0, Duration::ZERO);
    for (number, iterations) in [1, batch.iterations].into_iter().enumerate() {
        let (promise, finished) = rt.promise();
        strips.prepare(iterations, promise).await?;
        let start = Instant::now();
        if number == 0 {
            strips.at(0).go_on().send()
        } else {
            strips.at(0).corner(-corner).send()
        }
        corner = finished.await?;
        elapsed = start.elapsed();
    }
    let expected = ((batch.iterations + 1) * (2 * batch.order - 2)) as f64;
    assert!((corner - expected).abs() / expected < EPSILON, "the corner is {corner}, not {expected}");
    Ok(elapsed)
}

async fn transpose(rt: Runtime, batch: Batch) -> Result<Duration> {
    let matrix = Matrix { order: batch.order, parts: batch.chares, tile: TILE };
    let parts = rt.array::<Part>(batch.chares).create(matrix).await?;
    parts.iterate(1).await?;
    let start = Instant::now();
    parts.iterate(batch.iterations).await?;
    let elapsed = start.elapsed();
    let error = parts.error(batch.iterations + 1).gather().await?.into_iter().sum::<f64>();
    assert!(error < EPSILON, "the elements differ by {error} together");
    Ok(elapsed)
}

/// The factors of a number that are closest to each other, the larger one first.
fn closest_to_square(number: usize) -> (usize, usize) {
    let across = (1..=number.isqrt()).rev().find(|across| number.is_multiple_of(*across)).unwrap_or(1);
    (number / across, across)
}

/// One of the kernels.
struct Kernel {
    name: &'static str,
    iterations: u64,
    order: u64,
    unit: &'static str,
    /// What an iteration counts for, by the order.
    work: fn(f64) -> f64,
}

const KERNELS: [Kernel; 3] = [
    // A multiplication and an addition for each of 9 points, and one for the input.
    Kernel {
        name: "stencil",
        iterations: 150,
        order: 4000,
        unit: "MFlop/s",
        work: |n| 19.0 * (n - 4.0).powi(2),
    },
    Kernel {
        name: "synch_p2p",
        iterations: 1000,
        order: 2000,
        unit: "MFlop/s",
        work: |n| 2.0 * (n - 1.0).powi(2),
    },
    Kernel { name: "transpose", iterations: 80, order: 4000, unit: "MB/s", work: |n| 16.0 * n * n },
];

/// What the command line asks for besides.
#[derive(Default)]
struct Own {
    chares_per_pe: Option<u64>,
    iterations: Option<u64>,
}

impl Own {
    fn take(&mut self, name: &str, value: &mut OptionValue<'_>) -> Result<bool, OptionsError> {
        let place = match name {
            "--chares-per-pe" => &mut self.chares_per_pe,
            "--iterations" => &mut self.iterations,
            _ => return Ok(false),
        };
        let value = value()?;
        let count = value.parse().ok().filter(|count| (1..=100_000).contains(count));
        *place =
            Some(count.ok_or_else(|| OptionsError::Wrong(format!("{name} {value}: give a count from 1")))?);
        Ok(true)
    }
}

fn main() {
    let mut own = Own::default();
    let bench = Bench::from_args_with("prk", OWN_USAGE, |name, value| own.take(name, value));
    let (options, pes) = (bench.options(), bench.options().pes());
    for Kernel { name, iterations, order, unit, work } in KERNELS {
        for per_pe in own.chares_per_pe.map_or(vec![1, 4], |count| vec![count]) {
            if !options.wants(name) {
                continue;
            }
            let chares = per_pe as usize * pes;
            let iterations = own.iterations.unwrap_or(options.count(iterations, 3));
            // Parts of the transposed matrix are all of one size.
            let order = options.count(order, 100).next_multiple_of(chares as u64) as usize;
            if 4 * chares > order {
                eprintln!(
                    "error: {chares} chares are too many for {name} of order {order}: at most a fourth of that"
                );
                std::process::exit(2);
            }
            let batch = Batch { chares, iterations: iterations as usize, order };
            let mut sampler =
                Sampler::new(options).with_batches(3).with_time(Duration::ZERO).without_warm_up();
            while sampler.wants_more() {
                let elapsed = match name {
                    "stencil" => run(pes, move |rt| stencil(rt, batch)),
                    "synch_p2p" => run(pes, move |rt| synch_p2p(rt, batch)),
                    _ => run(pes, move |rt| transpose(rt, batch)),
                };
                sampler.take_ns(elapsed, iterations);
            }
            // So much in a nanosecond is a thousand times as many millions in a second.
            let rate = sampler.summary().as_rate_of(work(order as f64) * 1e3);
            bench.report(name, Amount::Count(per_pe), unit, rate);
        }
    }
}
