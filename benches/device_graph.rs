//! What many small kernels cost their submitter: one by one, and as a graph that is replayed.
//!
//! | case | what is repeated |
//! |---|---|
//! | `launch_64_*` | 64 launches of a kernel on 64 numbers |
//! | `replay_64_*` | a replay of a graph of these, with the buffers and scalars of the time before |
//! | `replay_swapped_*` | one with two buffers that swap their parts every time |
//! | `replay_patched_*` | one with another scalar than ever before |
//! | `end_to_end_64_*` | 64 launches up to the end of the last one |
//! | `end_to_end_replay_*` | a replay up to its end |
//! | `ratio_64_*` | `launch_64` by `replay_64` |
//!
//! The first four are the time of the calls only; what they have submitted is waited for outside of it. Devices are those of `--device`,
//! or host devices (inline, and with a worker) and whatever else this build and machine have; of what is not there it says so.

#[path = "stand_in.rs"]
mod stand_in;

use std::time::{Duration, Instant};

use chare::device::{Account, DeviceVec, Devices, Graph, HostMode, InOut, Launch, Out, kernel};
use chare_benches::{Amount, Bench, Sampler, Summary};

/// Where it is measured, if nobody says where.
const PLACES: [(&str, &str); 4] =
    [("inline", "host:1:inline"), ("worker", "host:1:workers=1"), ("wgpu", "wgpu:0"), ("cuda", "cuda:0")];

/// The launches of a graph.
const LAUNCHES: u64 = 64;

/// The elements of a buffer, and the threads of a launch.
const LEN: u32 = 64;

kernel! {
    const ADD: fn add(buffer: InOut<u32>, value: u32) {
        rust: |_: &Launch, (buffer, value): (&mut [u32], u32)| {
            buffer.iter_mut().for_each(|x| *x = x.wrapping_add(value));
        },
        cuda: "KERNEL add(InOut<u32> buffer, u32 value, Grid grid) {
            u32 i = blockIdx.x * blockDim.x + threadIdx.x;
            if (i < grid.x) buffer[i] += value;
        }",
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32, @align(16) value: u32 }
            @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
            @group(0) @binding(1) var<uniform> arguments: Arguments;
            @compute @workgroup_size(64) fn add(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arguments.grid.x { buffer[at.x] += arguments.value; }
            }",
    }
}

type Params = (InOut<u32>, Out<u32>, u32);

fn record(account: &Account) -> Graph<Params> {
    let graph = account.record::<Params>("add_64", |recording, (mut a, mut b, value)| {
        recording.zero(&mut b)?;
        (1..LAUNCHES).try_for_each(|_| recording.launch(&ADD, LEN, (&mut a, &value)))
    });
    graph.expect("the kernel runs on this device")
}

fn launch(account: &Account, buffer: &mut DeviceVec<u32>) {
    for _ in 0..LAUNCHES {
        drop(account.launch(&ADD, LEN, (&mut *buffer, 1)).expect("no kernel fails here"));
    }
}

fn finish(account: &Account) {
    account.fence().and_then(|fence| fence.wait()).expect("no kernel fails here");
}

/// How long `submit` takes.
fn time_of(submit: impl FnOnce()) -> Duration {
    let start = Instant::now();
    submit();
    start.elapsed()
}

/// Takes samples of `submit`, which is called `count` times in each and says how long it took.
fn measure(bench: &Bench, case: String, count: u64, mut submit: impl FnMut() -> Duration) -> Summary {
    let mut sampler = Sampler::new(bench.options());
    while sampler.wants_more() {
        let time = (0..count).map(|_| submit()).sum();
        sampler.take_ns(time, count);
    }
    let summary = sampler.summary();
    bench.report_on(1, case, Amount::Count(LAUNCHES), "ns", summary);
    summary
}

fn measure_on(bench: &Bench, kind: &str, devices: &Devices) {
    let account = devices.get(0).account("bench");
    let [mut a, mut b] = [(); 2].map(|()| account.alloc::<u32>(LEN as usize).expect("there is memory"));
    let graph = record(&account);
    let count = bench.options().count(200, 2);
    let replay = |a: &mut DeviceVec<u32>, b: &mut DeviceVec<u32>, value: u32| {
        drop(graph.replay((a, b, value)).expect("no kernel fails here"));
    };
    let wants = |case: &str| bench.options().wants(case).then(|| format!("{case}_{kind}"));
    let launched = wants("launch_64").map(|case| {
        measure(bench, case, count, || {
            let time = time_of(|| launch(&account, &mut a));
            finish(&account);
            time
        })
    });
    let replayed = wants("replay_64").map(|case| {
        measure(bench, case, count, || {
            let time = time_of(|| replay(&mut a, &mut b, 1));
            finish(&account);
            time
        })
    });
    if let (Some(launched), Some(replayed)) = (launched, replayed) {
        let (best, median) = (launched.best / replayed.best, launched.median / replayed.median);
        let ratio = Summary { best, median, batches: launched.batches.min(replayed.batches) };
        bench.report_on(1, format!("ratio_64_{kind}"), Amount::Count(LAUNCHES), "ratio", ratio);
    }
    if let Some(case) = wants("replay_swapped") {
        measure(bench, case, count, || {
            std::mem::swap(&mut a, &mut b);
            let time = time_of(|| replay(&mut a, &mut b, 1));
            finish(&account);
            time
        });
    }
    if let Some(case) = wants("replay_patched") {
        let mut value = 1;
        measure(bench, case, count, || {
            value += 1;
            let time = time_of(|| replay(&mut a, &mut b, value));
            finish(&account);
            time
        });
    }
    if let Some(case) = wants("end_to_end_64") {
        measure(bench, case, count, || {
            time_of(|| {
                launch(&account, &mut a);
                finish(&account);
            })
        });
    }
    if let Some(case) = wants("end_to_end_replay") {
        measure(bench, case, count, || {
            time_of(|| {
                graph.replay((&mut a, &mut b, 1)).and_then(|end| end.wait()).expect("no kernel fails here")
            })
        });
    }
}

fn main() {
    let (bench, places) = Bench::of_devices("device_graph", &PLACES);
    stand_in::register(&ADD);
    for place in places {
        match Devices::open(&place.device, HostMode::Inline) {
            Ok(devices) => measure_on(&bench, &place.name, &devices),
            Err(error) => place.is_missing(error),
        }
    }
}
