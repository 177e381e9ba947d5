//! What a launch costs: nanoseconds from an empty launch to the resumed coroutine that awaited it, one after the other.
//!
//! | case | where the kernel runs |
//! |---|---|
//! | `inline` | in the call: a launch that is a checked call of a function |
//! | `inline_operation` | in the call, as an operation like those of other devices: what records of launches cost |
//! | `worker` | on a thread of the device's, which wakes the PE |
//! | `polled` | on the PE, when it looks for what has ended |
//! | `worker_pipelined` | on a thread of the device's, and only the last of 64 launches is awaited |
//!
//! One PE launches: run it with `--pes 1`, so that a worker has a core.

use std::time::Instant;

use chare::device::{DeviceVec, InOut, Kernel, Launch};
use chare::prelude::*;
use chare_benches::{Amount, Bench, Sampler};

/// Case, device, whether records are kept, launches to one that is awaited.
const CASES: [(&str, &str, bool, u64); 5] = [
    ("inline", "host:inline", false, 1),
    ("inline_operation", "host:inline", true, 1),
    ("worker", "host:workers=1", false, 1),
    ("polled", "host:polled", false, 1),
    ("worker_pipelined", "host:workers=1", false, 64),
];

const COUNT: Kernel<(InOut<u64>,)> =
    Kernel::new("count", |_: &Launch, (launches,): (&mut [u64],)| launches[0] += 1);

struct Launcher {
    launches: DeviceVec<u64>,
}

#[chare]
impl Launcher {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Launcher { launches: cx.device().alloc(1)? })
    }

    /// Launches so often, and awaits each `every`-th; how often it has launched in all.
    #[entry]
    async fn launch(&mut self, cx: &Cx<Self>, count: u64, every: u64) -> Result<u64> {
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

async fn measure(rt: Runtime, mut sampler: Sampler, count: u64, every: u64) -> Result<Sampler> {
    let launcher = rt.single::<Launcher>().on_pe(0_usize).create(()).await?;
    let mut expected = 0;
    while sampler.wants_more() {
        let start = Instant::now();
        let launches = launcher.launch(count, every).await?;
        sampler.take_ns(start.elapsed(), count);
        expected += count;
        assert_eq!(launches, expected, "launches were lost");
    }
    Ok(sampler)
}

fn main() {
    let bench = Bench::from_args("device_launch");
    let options = bench.options();
    let count = options.count(6400, 64);
    for (name, device, keeps_records, every) in CASES {
        if !options.wants(name) {
            continue;
        }
        let device = device.parse().expect("a specification");
        let run_options =
            chare::Options::default().with_pes(options.pes()).with_device(device).with_profile(keeps_records);
        let (sampler, (send, receive)) = (Sampler::new(options), std::sync::mpsc::channel());
        let report = Runtime::run(run_options, async move |rt| {
            let sampler = measure(rt, sampler, count, every).await?;
            // The receiver lives until the run has ended.
            drop(send.send(sampler));
            Result::<()>::Ok(())
        });
        let report = report.expect("the host is always there");
        assert!(report.is_success(), "{report}");
        let sampler = receive.recv().expect("a run that ends well has sent it");
        bench.report(name, Amount::Count(count), "ns", sampler.summary());
    }
}
