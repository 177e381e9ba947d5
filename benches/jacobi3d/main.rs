//! Jacobi's method on a 3-D field of `f64`, cut into many blocks, with the largest change reduced over all of them in every
//! iteration: milliseconds an iteration.
//!
//! `chare_*` is the program as a user who cares for speed writes it: one coroutine per block, faces sent as device memory
//! over channels, kernels launched through the device API. `plain_*` does the same without the runtime: as many threads,
//! each with the same blocks, the same kernel functions and copies of faces, and a barrier that spins. The two run in turns
//! on the same machine at the same time of day; `ratio_*` is `chare` over `plain`, of the best batches and in the median of
//! the turns. All residuals of the two must be equal, bit for bit.
//!
//! With `--ranks N` the blocks are spread over processes. Threads of one process are no match for those, so `plain` computes the residuals
//! again and is not timed.

mod blocks;
mod plain;
mod problem;

use std::time::Instant;

use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler, Summary};

use blocks::{Block, BlockEntries};
use plain::Plain;
use problem::Problem;

/// The three sizes: cells of the field and of a block along an edge, iterations of a batch.
const SIZES: [(u32, u32, u64); 3] = [(256, 64, 5), (256, 32, 5), (128, 16, 20)];

/// Batches with the runtime, and the same without if those are timed.
struct Turns {
    chare: Sampler,
    plain: Option<Plainly>,
}

struct Plainly {
    plain: Sampler,
    ratio: Sampler,
}

impl Turns {
    fn wants_more(&mut self) -> bool {
        let plain = self.plain.as_mut();
        let plain_wants = plain.is_some_and(|turns| turns.plain.wants_more() | turns.ratio.wants_more());
        self.chare.wants_more() | plain_wants
    }
}

async fn measure(rt: Runtime, mut turns: Turns, problem: Problem, steps: u64) -> Result<Turns> {
    let blocks = rt.array::<Block<f64>>(problem.blocks()).create(problem).await?;
    let mut plain = Plain::new(problem, if turns.plain.is_some() { rt.num_pes() } else { 1 });
    while turns.wants_more() {
        let start = Instant::now();
        blocks.solve(steps, true).await?;
        let chare_time = start.elapsed();
        let residuals = blocks.at((0, 0, 0)).take_residuals().await?;

        let start = Instant::now();
        let expected = plain.solve(steps);
        let plain_time = start.elapsed();

        assert_eq!(residuals, expected, "the runtime changes no value");
        assert!(expected.iter().all(|residual| residual.is_finite() && *residual > 0.0));
        turns.chare.take_ns(chare_time, steps);
        if let Some(Plainly { plain, ratio }) = &mut turns.plain {
            plain.take_ns(plain_time, steps);
            ratio.take(chare_time.as_secs_f64() / plain_time.as_secs_f64());
        }
    }
    Ok(turns)
}

fn main() {
    let bench = Bench::on_processes("jacobi3d", 1, "", |_, _| Ok(false));
    let options = bench.options();
    for (cells, block, steps) in SIZES {
        let name = format!("{cells}_in_{block}");
        if !options.wants(&name) {
            continue;
        }
        let problem = if options.is_smoke() { Problem::new(8, 4) } else { Problem::new(cells, block) };
        let steps = options.count(steps, 2);
        let sampler = || Sampler::new(options).with_batches(15);
        let plain = (options.ranks() == 1).then(|| Plainly { plain: sampler(), ratio: sampler() });
        let turns = Turns { chare: sampler(), plain };
        let Some(turns) = bench.run(move |rt| measure(rt, turns, problem, steps)) else { continue };

        let cells = Amount::Count(problem.cell_count());
        let chare = turns.chare.summary();
        bench.report(format!("chare_{name}"), cells, "ms", chare.per(1e6));
        if let Some(Plainly { plain, ratio }) = turns.plain {
            let (plain, ratio) = (plain.summary(), ratio.summary());
            let ratio = Summary { best: chare.best / plain.best, ..ratio };
            bench.report(format!("plain_{name}"), cells, "ms", plain.per(1e6));
            bench.report(format!("ratio_{name}"), cells, "ratio", ratio);
        }
    }
}
