//! What a launch costs: nanoseconds from an empty launch to the resumed coroutine that awaited it, one after the other.
//!
//! | case | where the kernel runs |
//! |---|---|
//! | `inline` | in the call: a launch that is a checked call of a function |
//! | `inline_operation` | in the call, as an operation like those of other devices: what records of launches cost |
//! | `worker` | on a thread of the device's, which wakes the PE |
//! | `polled` | on the PE, when it looks for what has ended |
//! | `wgpu`, `cuda` | there |
//! | `*_pipelined` | likewise, and only the last of 64 launches is awaited |
//! | `raw_cuda` | there, by a loop of a launch, an event and queries of it that has nothing of the runtime |
//! | `ratio_cuda` | `cuda` by `raw_cuda`, in turns: of the best batches, and the median of the turns |
//!
//! With `--device` the cases are its devices only. One PE launches: run it with `--pes 1`, so that a worker has a core.

#[path = "../stand_in.rs"]
mod stand_in;

mod raw;

use std::time::Instant;

use chare::StartError;
use chare::device::{DeviceVec, InOut, Kernel, Language, Launch};
use chare::prelude::*;
use chare_benches::{Amount, Bench, Place, Sampler, Summary, run_with};

use raw::RawLoop;

/// Case, device.
const PLACES: [(&str, &str); 6] = [
    ("inline", "host:inline"),
    ("inline_operation", "host:inline"),
    ("worker", "host:workers=1"),
    ("polled", "host:polled"),
    ("wgpu", "wgpu:0"),
    ("cuda", "cuda:0"),
];

/// The one that is an operation since records are kept.
const WITH_RECORDS: &str = "inline_operation";

/// Launches to one that is awaited, if not each is.
const PIPELINED: u64 = 64;

const COUNT: Kernel<(InOut<u32>,)> =
    Kernel::new("count", |_: &Launch, (launches,): (&mut [u32],)| launches[0] += 1)
        .with_ptx(PTX)
        .with_wgsl(
            "@group(0) @binding(0) var<storage, read_write> launches: array<u32>;
            @compute @workgroup_size(32, 1, 1) fn count(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x == 0u { launches[0] += 1u; }
            }",
        )
        .with_block([32, 1, 1]);

/// For all GPUs since Turing, so that no compiler is needed and both loops run the same code.
const PTX: &str = "
.version 6.4
.target sm_75
.address_size 64

.visible .entry count(
    .param .u64 count_param_0,
    .param .u64 count_param_1,
    .param .align 4 .b8 count_param_2[12]
)
{
    .reg .pred %p<2>;
    .reg .b32 %r<4>;
    .reg .b64 %rd<3>;

    mov.u32 %r1, %tid.x;
    setp.ne.u32 %p1, %r1, 0;
    @%p1 bra DONE;
    ld.param.u64 %rd1, [count_param_0];
    cvta.to.global.u64 %rd2, %rd1;
    ld.global.u32 %r2, [%rd2];
    add.u32 %r3, %r2, 1;
    st.global.u32 [%rd2], %r3;
DONE:
    ret;
}
";

struct Launcher {
    launches: DeviceVec<u32>,
}

#[chare]
impl Launcher {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Launcher { launches: cx.device().alloc(1)? })
    }

    /// Launches so often, and awaits each `every`-th; how often it has launched in all.
    #[entry]
    async fn launch(&mut self, cx: &Cx<Self>, count: u64, every: u64) -> Result<u32> {
        let dev = cx.device();
        for number in 1..=count {
            let ended = dev.launch(&COUNT, 1, (&mut self.launches,))?;
            if number % every == 0 {
                ended.await?;
            }
        }
        Ok(dev.download(&self.launches)?.await?[0])
    }
}

/// The same launches through the runtime and without it.
struct Turns {
    chare: Sampler,
    raw: Sampler,
    ratio: Sampler,
}

/// Whether there is a loop without the runtime, too.
async fn measure(rt: Runtime, mut turns: Turns, count: u64, every: u64) -> Result<(Turns, bool)> {
    let launcher = rt.single::<Launcher>().on_pe(0_usize).create(()).await?;
    let mut raw = match rt.device_language() {
        Language::CudaC if every == 1 => Some(RawLoop::open(number_of_device(&rt)?, COUNT.name(), PTX)?),
        _ => None,
    };
    let mut expected = 0;
    while turns.chare.wants_more() | (raw.is_some() && turns.raw.wants_more() | turns.ratio.wants_more()) {
        let start = Instant::now();
        let launches = launcher.launch(count, every).await?;
        let time = start.elapsed();
        turns.chare.take_ns(time, count);
        expected += count as u32;
        assert_eq!(launches, expected, "launches were lost");
        if let Some(raw) = &mut raw {
            let start = Instant::now();
            raw.run(count)?;
            let raw_time = start.elapsed();
            assert_eq!(raw.launches()?, expected, "launches were lost");
            turns.raw.take_ns(raw_time, count);
            turns.ratio.take(time.as_secs_f64() / raw_time.as_secs_f64());
        }
    }
    Ok((turns, raw.is_some()))
}

/// The number by which the driver knows the device of PE 0.
fn number_of_device(rt: &Runtime) -> Result<i32> {
    let names = rt.device_names();
    let digits =
        names[0].strip_prefix("cuda:").map(|rest| rest.split(|letter: char| !letter.is_ascii_digit()));
    let digits =
        digits.and_then(|mut parts| parts.next()).ok_or("a device of CUDA is called by its number")?;
    Ok(digits.parse()?)
}

fn main() {
    let (bench, places) = Bench::of_devices("device_launch", &PLACES);
    stand_in::register(&COUNT);
    for place in places {
        let measured = [1, PIPELINED].into_iter().try_for_each(|every| measure_at(&bench, &place, every));
        if let Err(error) = measured {
            place.is_missing(error);
        }
    }
}

fn measure_at(bench: &Bench, place: &Place, every: u64) -> std::result::Result<(), StartError> {
    let options = bench.options();
    let case = if every == 1 { place.name.clone() } else { format!("{}_pipelined", place.name) };
    if !options.wants(&case) {
        return Ok(());
    }
    let count = options.count(6400, 64);
    let [chare, raw, ratio] = [(); 3].map(|()| Sampler::new(options));
    let turns = Turns { chare, raw, ratio };
    let run_options = place.options(options.pes()).with_profile(place.name == WITH_RECORDS);
    let (turns, is_compared) = run_with(run_options, |rt| measure(rt, turns, count, every))?;
    let (amount, chare) = (Amount::Count(count), turns.chare.summary());
    bench.report(&case, amount, "ns", chare);
    if is_compared {
        let (raw, ratio) = (turns.raw.summary(), turns.ratio.summary());
        bench.report(format!("raw_{case}"), amount, "ns", raw);
        let ratio = Summary { best: chare.best / raw.best, ..ratio };
        bench.report(format!("ratio_{case}"), amount, "ratio", ratio);
    }
    Ok(())
}
