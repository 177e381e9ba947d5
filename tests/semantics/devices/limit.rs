//! Kernels that run for longer than they may.

use std::time::{Duration, Instant};

use super::*;

/// Takes a while, of which a slow device makes a long time.
const BUSY: Kernel<(InOut<f64>,)> = Kernel::new("busy", |_: &Launch, (buffer,): (&mut [f64],)| {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(100) {
        std::hint::spin_loop();
    }
    buffer[0] += 1.0;
});

struct Caller;

#[chare]
impl Caller {
    fn new() -> Self {
        Caller
    }

    #[entry]
    async fn compute(&mut self, cx: &Cx<Self>) -> Result<Option<Fault>> {
        let dev = cx.device();
        let mut buffer = dev.alloc(1)?;
        match dev.launch(&BUSY, 1, (&mut buffer,))?.await {
            Ok(()) => Ok(None),
            result => Ok(Some(fault_of(result))),
        }
    }
}

#[test]
fn a_kernel_that_runs_too_long_is_a_fault_of_its_waiter_and_its_device_is_lost() {
    for kind in ["inline", "workers=1", "workers=3", "polled"] {
        // A hundred microseconds are two seconds on the first device.
        let device = format!("host:2@1,20000:{kind}").parse().expect("a device");
        let options = Options::default().with_pes(2).with_device(device);
        let options = options.with_device_timeout(Duration::from_millis(500));
        let report = Runtime::run(options, async |rt: Runtime| {
            let [slow, fast] = [0_usize, 1].map(|pe| rt.single::<Caller>().on_pe(pe).create(()));
            let (slow, fast) = (slow.await?, fast.await?);
            let fault = slow.compute().await?.expect("it takes too long");
            let text = fault.to_string();
            let limit = "it has run for more than 0.5 s, which is the limit (`--device-timeout`)";
            assert!(text.starts_with("kernel `busy` of ") && text.contains(limit), "{text}");
            // Where it is lost, its chares fail with the same fault, or find no memory.
            if let Ok(again) = slow.compute().await {
                assert_eq!(again, Some(fault));
            }
            assert_eq!(fast.compute().await?, None);
            Result::<()>::Ok(())
        });
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{kind}: {report}");
    }
}
