//! Jacobi's method on a 3-D field of `f32` by one chare and by 64, beside what the device's memory can do.
//!
//! | case | what is measured |
//! |---|---|
//! | `copy_*` | copies of a large buffer to another one on the device: bytes that are read and written in a second |
//! | `jacobi_1_*` | an iteration of one chare that has the whole field |
//! | `share_1_*` | the bytes that this reads and writes at least in a second, by those of the copies |
//! | `jacobi_64_*` | an iteration of 64 chares, each with a block of the same field, whose faces go over channels |
//! | `ratio_64_*` | `jacobi_64` by `jacobi_1` |
//!
//! All take turns in one run; ratios are those of the best batches, and the medians of the turns. Both fields must have the same residual
//! at the end of each batch.

#[path = "jacobi3d/blocks.rs"]
mod blocks;
#[path = "jacobi3d/problem.rs"]
mod problem;
#[path = "stand_in.rs"]
mod stand_in;

use std::time::{Duration, Instant};

use chare::StartError;
use chare::device::{DeviceVec, Graph, In, Language, Out};
use chare::prelude::*;
use chare_benches::{Amount, Bench, Options, Place, Sampler, Summary, run_with};
use chare_kernels::jacobi3d::{JACOBI3D_F32, PACK_FACES_F32, UNPACK_FACES_F32};

use blocks::{Block, BlockEntries};
use problem::Problem;

const PLACES: [(&str, &str); 2] = [("inline", "host:1:inline"), ("cuda", "cuda:0")];

/// Along an edge of the field, if it is cut.
const BLOCKS: u32 = 4;

/// What a step moves at least: each cell is read once, and written once.
const BYTES_OF_CELL: f64 = 8.0;

/// How much is done in a batch.
#[derive(Clone, Copy)]
struct Size {
    /// Cells of the field along an edge.
    cells: u32,
    steps: u64,
    /// Elements of the buffers that are copied.
    copied: usize,
    copies: u64,
}

impl Size {
    fn of(options: &Options, is_host: bool) -> Size {
        match (options.is_smoke(), is_host) {
            (true, _) => Size { cells: 8, steps: 2, copied: 1024, copies: 2 },
            (false, true) => Size { cells: 512, steps: 2, copied: 1 << 26, copies: 2 },
            // Long enough that its beginning and its end do not count.
            (false, false) => Size { cells: 512, steps: 50, copied: 1 << 28, copies: 16 },
        }
    }

    /// The bytes that the copies of a batch read and write.
    fn copied_bytes(self) -> f64 {
        (2 * self.copies) as f64 * (self.copied * size_of::<f32>()) as f64
    }

    /// The field in one block, and cut into many.
    fn problems(self) -> [Problem; 2] {
        [1, BLOCKS].map(|along| Problem::new(self.cells, self.cells / along))
    }

    fn cell_count(self) -> u64 {
        self.problems()[0].cell_count()
    }
}

/// Copies memory on its device.
struct Copier {
    graph: Graph<(In<f32>, Out<f32>)>,
    from: DeviceVec<f32>,
    to: DeviceVec<f32>,
}

#[chare]
impl Copier {
    fn new(cx: &Cx<Self>, len: usize, copies: u64) -> Result<Self> {
        let dev = cx.device();
        let graph = dev.record("copies", |recording, (from, mut to)| {
            (0..copies).try_for_each(|_| recording.copy(&from, &mut to))
        });
        Ok(Copier { graph: graph?, from: dev.alloc(len)?, to: dev.alloc(len)? })
    }

    #[entry]
    async fn copy(&mut self) -> Result<()> {
        Ok(self.graph.replay((&self.from, &mut self.to))?.await?)
    }
}

/// Nanoseconds of each batch, and ratios of turns.
struct Turns {
    copy: Sampler,
    one: Sampler,
    share: Sampler,
    many: Sampler,
    ratio: Sampler,
}

impl Turns {
    fn new(options: &Options) -> Turns {
        let [copy, one, share, many, ratio] = [(); 5].map(|()| Sampler::new(options).with_batches(5));
        Turns { copy, one, share, many, ratio }
    }

    fn want_more(&mut self) -> bool {
        let all = [&mut self.copy, &mut self.one, &mut self.share, &mut self.many, &mut self.ratio];
        all.into_iter().fold(false, |any, sampler| any | sampler.wants_more())
    }

    fn take(&mut self, size: Size, copy: Duration, one: Duration, many: Duration) {
        self.copy.take_ns(copy, 1);
        self.one.take_ns(one, size.steps);
        self.many.take_ns(many, size.steps);
        self.share.take(share(size, copy.as_nanos() as f64, one.as_nanos() as f64 / size.steps as f64));
        self.ratio.take(many.as_secs_f64() / one.as_secs_f64());
    }

    fn report(self, bench: &Bench, name: &str, size: Size) {
        let (cells, copied) =
            (Amount::Count(size.cell_count()), Amount::Bytes((size.copied * size_of::<f32>()) as u64));
        let (copy, one, many) = (self.copy.summary(), self.one.summary(), self.many.summary());
        // Bytes in a nanosecond are thousands of MB in a second.
        bench.report(format!("copy_{name}"), copied, "MB/s", copy.as_rate_of(size.copied_bytes() * 1e3));
        bench.report(format!("jacobi_1_{name}"), cells, "ms", one.per(1e6));
        let share_of_best = Summary { best: share(size, copy.best, one.best), ..self.share.summary() };
        bench.report(format!("share_1_{name}"), cells, "ratio", share_of_best);
        bench.report(format!("jacobi_64_{name}"), cells, "ms", many.per(1e6));
        let ratio = Summary { best: many.best / one.best, ..self.ratio.summary() };
        bench.report(format!("ratio_64_{name}"), cells, "ratio", ratio);
    }
}

/// What a step of `step_ns` moves in a second, by what copies of `copy_ns` a batch move.
fn share(size: Size, copy_ns: f64, step_ns: f64) -> f64 {
    (BYTES_OF_CELL * size.cell_count() as f64 / step_ns) / (size.copied_bytes() / copy_ns)
}

async fn measure(rt: Runtime, options: Options) -> Result<(Turns, Size)> {
    let size = Size::of(&options, rt.device_language() == Language::Rust);
    let [whole, cut] = size.problems();
    let copier = rt.single::<Copier>().on_pe(0_usize).create((size.copied, size.copies)).await?;
    let one = rt.array::<Block<f32>>(whole.blocks()).create(whole).await?;
    let many = rt.array::<Block<f32>>(cut.blocks()).create(cut).await?;
    let mut turns = Turns::new(&options);
    while turns.want_more() {
        let start = Instant::now();
        copier.copy().await?;
        let copy_time = start.elapsed();

        let start = Instant::now();
        one.solve(size.steps, false).await?;
        let one_time = start.elapsed();

        let start = Instant::now();
        many.solve(size.steps, false).await?;
        let many_time = start.elapsed();

        let [residual, expected] =
            [many.at((0, 0, 0)).take_residuals().await?, one.at((0, 0, 0)).take_residuals().await?];
        assert_eq!(residual, expected, "cutting the field changes no value");
        assert!(expected.len() == 1 && expected[0].is_finite() && expected[0] > 0.0, "{expected:?}");
        turns.take(size, copy_time, one_time, many_time);
    }
    Ok((turns, size))
}

fn main() {
    let (bench, places) = Bench::of_devices("device_jacobi", &PLACES);
    stand_in::register(&JACOBI3D_F32);
    stand_in::register(&PACK_FACES_F32);
    stand_in::register(&UNPACK_FACES_F32);
    for place in places {
        if let Err(error) = measure_at(&bench, &place) {
            place.is_missing(error);
        }
    }
}

fn measure_at(bench: &Bench, place: &Place) -> std::result::Result<(), StartError> {
    let options = bench.options();
    let cases = ["copy", "jacobi_1", "share_1", "jacobi_64", "ratio_64"];
    if !cases.iter().any(|case| options.wants(&format!("{case}_{}", place.name))) {
        return Ok(());
    }
    let owned = options.clone();
    let (turns, size) = run_with(place.options(options.pes()), |rt| measure(rt, owned))?;
    turns.report(bench, &place.name, size);
    Ok(())
}
