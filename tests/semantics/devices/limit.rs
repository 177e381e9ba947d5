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

/// The runs that have ended, and with them the kernels that are stuck.
static ENDED: AtomicU64 = AtomicU64::new(0);

const STUCK: Kernel<(InOut<f64>,)> = Kernel::new("stuck", |_: &Launch, _: (&mut [f64],)| {
    let before = ENDED.load(Ordering::Relaxed);
    while ENDED.load(Ordering::Relaxed) == before {
        std::thread::yield_now();
    }
});

struct Caller;

/// Knows the device of its own.
struct Guest(usize);

#[chare(index = usize)]
impl Guest {
    fn new(cx: &Cx<Self>) -> Self {
        Guest(cx.device().device().ordinal())
    }

    #[entry]
    fn device(&self) -> usize {
        self.0
    }
}

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

    /// The fault of a kernel that is stuck.
    #[entry]
    async fn wait_for_ever(&mut self, cx: &Cx<Self>) -> Result<Fault> {
        let dev = cx.device();
        let mut buffer = dev.alloc(1)?;
        Ok(fault_of(dev.launch(&STUCK, 1, (&mut buffer,))?.await))
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

#[test]
fn new_chares_get_no_device_that_is_lost() {
    for pes in [1, 2] {
        let options =
            Options::default().with_pes(pes).with_device("host:2:workers=2".parse().expect("devices"));
        let options = options.with_device_timeout(Duration::from_millis(300));
        let report = Runtime::run(options, async |rt: Runtime| {
            let first = rt.single::<Caller>().on_pe(0).create(()).await?;
            let fault = first.wait_for_ever().await?;
            assert!(fault.to_string().contains("failed on host:0: "), "{fault}");
            let map = chare::OverDevices::new(&rt, 8);
            let guests = rt.array::<Guest>(8).map(map).create(()).await?;
            assert_eq!(guests.device().gather().await?, [1; 8]);
            Result::<()>::Ok(())
        });
        ENDED.fetch_add(1, Ordering::Relaxed);
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{pes} PEs: {report}");
    }
}
