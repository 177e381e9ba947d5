//! Devices, on two virtual ones that compute on threads of their own, two kernels each at once.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::Random;
use chare::Options;
use chare::device::{Account, DeviceError, DeviceSlice, DeviceVec, InOut, Kernel, Launch};
use chare::prelude::*;

const ADD: Kernel<(InOut<f64>, f64)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [f64], f64)| {
        buffer.iter_mut().for_each(|element| *element += value);
    });
const FAIL: Kernel<(InOut<f64>,)> =
    Kernel::new("fail", |_: &Launch, (buffer,): (&mut [f64],)| buffer[0] = buffer[buffer.len()]);

/// Runs a program on two devices, at each number of PEs. It is never simulated, where a kernel that waits is waited for.
#[track_caller]
fn on_two_devices<F, Fut>(main: F)
where
    F: Fn(Runtime) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    for pes in [1, 2, 4, 8] {
        on("host:2:workers=4", Options::default().with_pes(pes), &main);
    }
}

#[track_caller]
fn on<F, Fut>(device: &str, options: Options, main: &F)
where
    F: Fn(Runtime) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    let options = options.with_device(device.parse().expect("a device"));
    let run = format!("{} PE(s), {device}", options.pes());
    let report = Runtime::run(options, main).expect("the host device is always there");
    assert!(report.is_success(), "{run}: {report}");
}

/// Kernels that wait: each test has its own gate, since kernels capture nothing.
macro_rules! gate {
    ($gate:ident, $kernel:ident) => {
        static $gate: AtomicBool = AtomicBool::new(false);
        const $kernel: Kernel<(InOut<f64>,)> = Kernel::new("wait", |_: &Launch, (buffer,): (&mut [f64],)| {
            while !$gate.load(Ordering::Acquire) {
                thread::yield_now();
            }
            buffer.fill(7.0);
        });
    };
}

gate!(SLOW_GATE, SLOW);
gate!(PENDING_GATE, PENDING);
gate!(QUIET_GATE, QUIET);

static QUIET_FINISHED: AtomicUsize = AtomicUsize::new(0);

struct Worker {
    buffer: DeviceVec<f64>,
}

#[chare(index = usize)]
impl Worker {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Worker { buffer: cx.device().alloc(8)? })
    }

    #[entry]
    async fn add(&mut self, cx: &Cx<Self>, value: f64) -> Result<Vec<f64>> {
        let dev = cx.device();
        dev.launch(&ADD, 8, (&mut self.buffer, value))?.await?;
        Ok(dev.download(&self.buffer)?.await?)
    }

    #[entry]
    async fn fail(&mut self, cx: &Cx<Self>) -> Result<String> {
        match cx.device().launch(&FAIL, 8, (&mut self.buffer,))?.await {
            Err(DeviceError::Fault(fault)) => Ok(fault.to_string()),
            other => Err(format!("a fault was expected, not {other:?}").into()),
        }
    }

    #[entry]
    async fn be_slow(&mut self, cx: &Cx<Self>) -> Result<f64> {
        let dev = cx.device();
        dev.launch(&SLOW, 8, (&mut self.buffer,))?.await?;
        Ok(dev.download(&self.buffer)?.await?[0])
    }

    /// Whether the completion waited for its own kernel.
    #[entry]
    async fn be_pending(&mut self, cx: &Cx<Self>, launched: Promise<()>) -> Result<bool> {
        let completion = cx.device().launch(&PENDING, 8, (&mut self.buffer,))?;
        let is_pending = !completion.is_ready();
        launched.send(())?;
        completion.await?;
        Ok(is_pending && PENDING_GATE.load(Ordering::Acquire))
    }

    #[entry]
    fn launch_quietly(&mut self, cx: &Cx<Self>, to: Callback<()>) -> Result<()> {
        let dev = cx.device();
        let completion = dev.launch(&QUIET, 8, (&mut self.buffer,))?;
        cx.this().wait_for(completion, to).send();
        Ok(())
    }

    #[entry]
    async fn wait_for(&self, completion: chare::device::Completion<()>, to: Callback<()>) -> Result<()> {
        completion.await?;
        QUIET_FINISHED.fetch_add(1, Ordering::AcqRel);
        Ok(to.deliver(())?)
    }
}

/// HAPI until 2026, and cudarc: an error of an event reads as "still pending", so a kernel that fails is a hang.
#[test]
fn a_fault_is_an_error_and_no_hang() {
    let main = async |rt: Runtime| {
        let workers = rt.array::<Worker>(8).create(()).await?;
        for (index, fault) in workers.fail().gather().await?.into_iter().enumerate() {
            assert!(fault.contains("`fail`") && fault.contains(&format!("Worker[{index}]")), "{fault}");
        }
        Ok(())
    };
    crate::each_run(|options| on("host:2:workers=4", options, &main));
}

/// HAPI: completions are looked at in one queue per PE, up to the first that is not finished.
#[test]
fn a_slow_stream_hides_no_finished_one() {
    on_two_devices(async |rt: Runtime| {
        SLOW_GATE.store(false, Ordering::Release);
        let workers = rt.array::<Worker>(8).create(()).await?;
        let slow = workers.at(0).be_slow().future();
        for value in 1..=3 {
            for index in 1..8 {
                assert_eq!(workers.at(index).add(1.0).await?, [f64::from(value); 8]);
            }
        }
        assert!(!slow.is_ready());
        SLOW_GATE.store(true, Ordering::Release);
        assert_eq!(slow.await?, 7.0);
        Ok(())
    });
}

/// charm4py: an event recorded on a stream of another device than the current one was never recorded, and such an event
/// counts as finished; its example of several devices records on streams that nothing was launched on.
#[test]
fn a_completion_is_of_its_kernel_on_every_device() {
    on_two_devices(async |rt: Runtime| {
        let workers = rt.array::<Worker>(8).create(()).await?;
        // Of the first and the last PE, so on both devices if there are several PEs.
        PENDING_GATE.store(false, Ordering::Release);
        let (to, launched) = rt.promises(2);
        let pending = [0, 7].map(|index| workers.at(index).be_pending(to.clone()).future());
        launched.await?;
        assert!(pending.iter().all(|pending| !pending.is_ready()));
        PENDING_GATE.store(true, Ordering::Release);
        for pending in pending {
            assert!(pending.await?, "a completion came before its kernel had finished");
        }
        Ok(())
    });
}

/// As HAPI has it, and a port may lose it: device work that is pending is no quiescence.
#[test]
fn pending_kernels_are_no_quiescence() {
    on_two_devices(async |rt: Runtime| {
        QUIET_GATE.store(false, Ordering::Release);
        QUIET_FINISHED.store(0, Ordering::Release);
        let workers = rt.array::<Worker>(8).create(()).await?;
        let (to, finished) = rt.promises(2);
        for index in [0, 7] {
            workers.at(index).launch_quietly((&to).into()).await?;
        }
        let mut quiescence = rt.quiescence();
        rt.timeout(Duration::from_millis(2), &mut quiescence).await.expect_err("kernels are pending");
        assert_eq!(QUIET_FINISHED.load(Ordering::Acquire), 0);
        QUIET_GATE.store(true, Ordering::Release);
        quiescence.await?;
        assert_eq!(QUIET_FINISHED.load(Ordering::Acquire), 2);
        finished.await?;
        Ok(())
    });
}

const CARRIERS: usize = 8;
fn rounds() -> usize {
    crate::real_or_simulated(30, 6)
}

const LENGTH: usize = 64;
const BYTES: u64 = LENGTH as u64 * 8;

/// Sends snapshots of its buffer, takes those of another one, and moves all the time.
struct Carrier {
    buffer: DeviceVec<f64>,
    moves: usize,
    arguments: usize,
}

/// What the snapshots of a round hold: the one that goes by a channel, and the one that goes as an argument.
fn contents(from: usize, round: usize) -> [f64; 2] {
    let first = (from * rounds() + round) as f64 * 2.0 + 1.0;
    [first, first + 1.0]
}

#[chare(index = usize)]
impl Carrier {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        // Each snapshot is one more than the one before.
        let buffer = cx.device().upload(vec![contents(cx.index(), 0)[0] - 1.0; LENGTH])?;
        Ok(Carrier { buffer, moves: 0, arguments: 0 })
    }

    fn migrated(&mut self) {
        self.moves += 1;
    }

    #[entry]
    async fn send_all(this: This<Self>, to: Element<Carrier>) -> Result<()> {
        let (channel, mut random) = (this.channel(&to, 0), Random(this.index() as u64));
        for round in 0..rounds() {
            let dev = this.device();
            let add_and_share = || {
                this.with(|carrier| {
                    drop(dev.launch(&ADD, LENGTH as u32, (&mut carrier.buffer, 1.0))?);
                    Ok::<_, DeviceError>(carrier.buffer.share())
                })
            };
            channel.send(add_and_share()?)?;
            to.take(this.index(), round, add_and_share()?).send();
            if random.below(2) == 0 {
                this.this().migrate(random.below(this.num_pes())).send();
            }
            this.sleep(Duration::ZERO).await;
        }
        Ok(())
    }

    #[entry]
    async fn receive_all(this: This<Self>, from: Element<Carrier>) -> Result<()> {
        let channel = this.channel::<DeviceSlice<f64>, _>(&from, 0);
        let mut random = Random(!this.index() as u64);
        for round in 0..rounds() {
            let snapshot = channel.recv().await?;
            if random.below(3) == 0 {
                this.this().migrate(random.below(this.num_pes())).send();
            }
            let [expected, _] = contents(from.index(), round);
            assert_eq!(read(&this.device(), snapshot).await?, [expected; LENGTH]);
        }
        Ok(())
    }

    #[entry]
    async fn take(this: This<Self>, from: usize, round: usize, snapshot: DeviceSlice<f64>) -> Result<()> {
        let [_, expected] = contents(from, round);
        assert_eq!(read(&this.device(), snapshot).await?, [expected; LENGTH]);
        this.with(|carrier| carrier.arguments += 1);
        Ok(())
    }

    /// How often it has moved, how many snapshots have come as arguments, its own bytes on all devices and those in use on its
    /// device, and the copies that its device has made from the other one.
    #[entry]
    fn account(&self, cx: &Cx<Self>) -> (usize, usize, [u64; 3]) {
        let (dev, device) = (cx.device(), cx.device().device());
        (self.moves, self.arguments, [dev.used_bytes(), device.used_bytes(), device.copies().from_peers])
    }
}

async fn read(dev: &Account, snapshot: DeviceSlice<f64>) -> Result<Vec<f64>> {
    let here = dev.import(&snapshot)?;
    drop(snapshot);
    Ok(dev.download(&here)?.await?)
}

/// Charm++ addresses device memory to a PE when it is sent, so a migration meanwhile leaves it behind: an abort, or a
/// message that nobody ever matches. Here it follows its chare, by channels and as an argument.
#[test]
fn device_memory_follows_a_chare_that_moves() {
    // Simulated, all that work by themselves are alike.
    let devices = ["host:2:inline", "host:2:polled", "host:2:workers=4"];
    for device in &devices[..crate::real_or_simulated(3, 2)] {
        let main = async |rt: Runtime| {
            let carriers = rt.array::<Carrier>(CARRIERS).create(()).await?;
            // Each is on another device than its mate: of another PE, or the less loaded one of the only PE.
            let mate = |carrier: Element<Carrier>| carriers.at(CARRIERS - 1 - carrier.index());
            let work: Vec<_> = carriers
                .elements()
                .flat_map(|carrier| {
                    let mate = mate(carrier);
                    [carrier.send_all(mate).future(), carrier.receive_all(mate).future()]
                })
                .collect();
            for work in work {
                work.await?;
            }
            rt.quiescence().await?;
            let is_alone = rt.num_pes() == 1;
            let mut moves = 0;
            for (moved, arguments, [own, all, from_peers]) in carriers.account().gather().await? {
                moves += moved;
                assert_eq!(arguments, rounds());
                // Where there are several PEs chares have other devices now, and their buffers too.
                assert_eq!((own, all % BYTES), (BYTES, 0), "snapshots are gone");
                if is_alone {
                    assert_eq!(all, (CARRIERS / 2) as u64 * BYTES);
                    assert_eq!(from_peers, (CARRIERS * rounds()) as u64);
                }
            }
            assert!((moves == 0) == is_alone, "{moves} moves");
            Ok(())
        };
        crate::each_run(|options| on(device, options, &main));
    }
}
