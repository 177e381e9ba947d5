//! PEs sleep while devices work, and are woken by them.

use std::time::{Duration, Instant};

use super::*;

/// Takes a while, of which a slow device makes a long time.
const BUSY: Kernel<(InOut<f64>,)> = Kernel::new("busy", |_: &Launch, (buffer,): (&mut [f64],)| {
    let start = Instant::now();
    while start.elapsed() < Duration::from_micros(200) {
        std::hint::spin_loop();
    }
    buffer.iter_mut().for_each(|element| *element += 1.0);
});

/// Looks that one PE may need for one wait: it looks for a while before it sleeps. While the kernel works there were time for
/// many times as many.
const LOOKS_PER_WAIT: u64 = 20_000;

struct Patient {
    buffer: DeviceVec<f64>,
}

#[chare]
impl Patient {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Patient { buffer: cx.device().alloc(1)? })
    }

    /// Waits for a long kernel; how often somebody has looked for its end.
    #[entry]
    async fn wait(&mut self, cx: &Cx<Self>) -> Result<u64> {
        let dev = cx.device();
        let before = dev.device().looks();
        dev.launch(&BUSY, 1, (&mut self.buffer,))?.await?;
        Ok(dev.device().looks() - before)
    }

    /// Starts a long kernel that nobody waits for.
    #[entry]
    fn start(&mut self, cx: &Cx<Self>) -> Result<()> {
        drop(cx.device().launch(&BUSY, 1, (&mut self.buffer,))?);
        Ok(())
    }
}

#[test]
fn pes_sleep_until_a_device_wakes_them() {
    for pes in PES {
        // The first device, that of PE 0, is two thousand times as slow as the other one.
        let report = run(pes, "host:2@1,2000:polled", async move |rt: Runtime| {
            let patient = rt.single::<Patient>().on_pe(0_usize).create(()).await?;
            let looks = patient.wait().await?;
            assert!(looks < LOOKS_PER_WAIT * pes as u64, "{looks} looks for one end");
            Result::<()>::Ok(())
        });
        assert!(report.is_success(), "{pes} PEs: {report}");
    }
}

#[test]
fn quiescence_comes_when_sleeping_pes_are_woken_by_the_last_end() {
    for pes in PES {
        for device in ["host:2@1,500:polled", "host:2@1,500:workers=2"] {
            let report = run(pes, device, async move |rt: Runtime| {
                let patient = rt.single::<Patient>().on_pe(pes - 1).create(()).await?;
                for _ in 0..2 {
                    patient.start().await?;
                    rt.quiescence().await?;
                }
                Result::<()>::Ok(())
            });
            assert!(report.is_success(), "{pes} PEs, {device}: {report}");
        }
    }
}
