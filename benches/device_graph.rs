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
//!
//! The first four are the time of the calls only; what they have submitted is waited for outside of it. Devices are those of `--device`,
//! or host devices (inline, and with a worker) and whatever else this build and machine have; of what is not there it says so.

use std::time::{Duration, Instant};

use chare::device::{Account, DeviceVec, Devices, Graph, HostMode, InOut, Launch, Out, kernel};
use chare_benches::{Amount, Bench, Sampler};

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
fn measure(bench: &Bench, case: String, count: u64, mut submit: impl FnMut() -> Duration) {
    let mut sampler = Sampler::new(bench.options());
    while sampler.wants_more() {
        let time = (0..count).map(|_| submit()).sum();
        sampler.take_ns(time, count);
    }
    bench.report_on(1, case, Amount::Count(LAUNCHES), "ns", sampler.summary());
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
    if let Some(case) = wants("launch_64") {
        measure(bench, case, count, || {
            let time = time_of(|| launch(&account, &mut a));
            finish(&account);
            time
        });
    }
    if let Some(case) = wants("replay_64") {
        measure(bench, case, count, || {
            let time = time_of(|| replay(&mut a, &mut b, 1));
            finish(&account);
            time
        });
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
    let mut specs = Vec::new();
    let bench =
        Bench::from_args_with("device_graph", "  --device D     on this device only\n", |option, value| {
            if option == "--device" {
                let spec = value()?;
                specs.push((spec.clone(), spec));
            }
            Ok(option == "--device")
        });
    if specs.is_empty() {
        let all = [
            ("inline", "host:1:inline"),
            ("worker", "host:1:workers=1"),
            ("wgpu", "wgpu:0"),
            ("cuda", "cuda:0"),
        ];
        specs.extend(all.map(|(kind, spec)| (kind.to_owned(), spec.to_owned())));
    }
    for (kind, spec) in specs {
        let parsed = spec.parse().map_err(chare::device::DeviceError::from);
        match parsed.and_then(|parsed| Devices::open(&parsed, HostMode::Inline)) {
            Ok(devices) => measure_on(&bench, &kind, &devices),
            Err(error) => eprintln!("{spec} is not measured: {error}"),
        }
    }
}
