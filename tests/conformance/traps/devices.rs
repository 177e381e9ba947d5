//! Devices, on two virtual ones that compute on threads of their own, two kernels each at once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::Random;
use chare::device::{Account, DeviceError, DeviceSlice, DeviceVec, InOut, Kernel, Launch};
use chare::prelude::*;

const ADD: Kernel<(InOut<f64>, f64)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [f64], f64)| {
        buffer.iter_mut().for_each(|element| *element += value);
    });
const FAIL: Kernel<(InOut<f64>,)> =
    Kernel::new("fail", |_: &Launch, (buffer,): (&mut [f64],)| buffer[0] = buffer[buffer.len()]);

/// Kernels that wait until their gate is open: each test has its own, as kernels capture nothing. All processes have them.
static GATES: [AtomicBool; 64] = [const { AtomicBool::new(false) }; 64];
const WAIT: Kernel<(InOut<f64>, u64)> =
    Kernel::new("wait", |_: &Launch, (buffer, gate): (&mut [f64], u64)| {
        while !GATES[gate as usize].load(Ordering::Acquire) {
            thread::yield_now();
        }
        buffer.fill(7.0);
    });

/// One of a test for each number of PEs, which run at once.
fn gate_of(test: u64, rt: &Runtime) -> u64 {
    test * 16 + rt.num_pes() as u64
}

/// Opens gates in its process.
struct Porter;

#[chare]
impl Porter {
    fn new() -> Self {
        Porter
    }

    #[entry]
    fn open(&self, gate: u64) {
        GATES[gate as usize].store(true, Ordering::Release);
    }
}

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
    async fn be_slow(&mut self, cx: &Cx<Self>, gate: u64) -> Result<f64> {
        let dev = cx.device();
        dev.launch(&WAIT, 8, (&mut self.buffer, gate))?.await?;
        Ok(dev.download(&self.buffer)?.await?[0])
    }

    /// Whether the completion waited for its own kernel.
    #[entry]
    async fn be_pending(&mut self, cx: &Cx<Self>, gate: u64, launched: Promise<()>) -> Result<bool> {
        let completion = cx.device().launch(&WAIT, 8, (&mut self.buffer, gate))?;
        let is_pending = !completion.is_ready();
        launched.send(())?;
        completion.await?;
        Ok(is_pending && GATES[gate as usize].load(Ordering::Acquire))
    }

    #[entry]
    fn launch_quietly(&mut self, cx: &Cx<Self>, gate: u64, to: Callback<()>) -> Result<()> {
        let dev = cx.device();
        let completion = dev.launch(&WAIT, 8, (&mut self.buffer, gate))?;
        cx.this().wait_for(completion, to).send();
        Ok(())
    }

    #[entry]
    async fn wait_for(&self, completion: chare::device::Completion<()>, to: Callback<()>) -> Result<()> {
        completion.await?;
        Ok(to.deliver(())?)
    }
}

/// HAPI until 2026, and cudarc: an error of an event reads as "still pending", so a kernel that fails is a hang.
#[chare::test(pes = [1, 2, 4, 8], device = "host:2:workers=4")]
async fn a_fault_is_an_error_and_no_hang(rt: Runtime) -> Result<()> {
    let workers = rt.array::<Worker>(8).create(()).await?;
    for (index, fault) in workers.fail().gather().await?.into_iter().enumerate() {
        assert!(fault.contains("`fail`") && fault.contains(&format!("Worker[{index}]")), "{fault}");
    }
    Ok(())
}

/// HAPI: completions are looked at in one queue per PE, up to the first that is not finished.
#[chare::test(pes = [1, 2, 4, 8], device = "host:2:workers=4", unsimulated = "its kernels wait for the program")]
async fn a_slow_stream_hides_no_finished_one(rt: Runtime) -> Result<()> {
    let (gate, porters) = (gate_of(0, &rt), rt.group::<Porter>().create(()).await?);
    let workers = rt.array::<Worker>(8).create(()).await?;
    let slow = workers.at(0).be_slow(gate).future();
    for value in 1..=3 {
        for index in 1..8 {
            assert_eq!(workers.at(index).add(1.0).await?, [f64::from(value); 8]);
        }
    }
    assert!(!slow.is_ready());
    porters.open(gate).await?;
    assert_eq!(slow.await?, 7.0);
    Ok(())
}

/// charm4py: an event recorded on a stream of another device than the current one was never recorded, and such an event
/// counts as finished; its example of several devices records on streams that nothing was launched on.
#[chare::test(pes = [1, 2, 4, 8], device = "host:2:workers=4", unsimulated = "its kernels wait for the program")]
async fn a_completion_is_of_its_kernel_on_every_device(rt: Runtime) -> Result<()> {
    let (gate, porters) = (gate_of(1, &rt), rt.group::<Porter>().create(()).await?);
    let workers = rt.array::<Worker>(8).create(()).await?;
    // Of the first and the last PE, so on both devices if there are several PEs.
    let (to, launched) = rt.promises(2);
    let pending = [0, 7].map(|index| workers.at(index).be_pending(gate, to.clone()).future());
    launched.await?;
    assert!(pending.iter().all(|pending| !pending.is_ready()));
    porters.open(gate).await?;
    for pending in pending {
        assert!(pending.await?, "a completion came before its kernel had finished");
    }
    Ok(())
}

/// As HAPI has it, and a port may lose it: device work that is pending is no quiescence.
#[chare::test(pes = [1, 2, 4, 8], device = "host:2:workers=4", unsimulated = "its kernels wait for the program")]
async fn pending_kernels_are_no_quiescence(rt: Runtime) -> Result<()> {
    let (gate, porters) = (gate_of(2, &rt), rt.group::<Porter>().create(()).await?);
    let workers = rt.array::<Worker>(8).create(()).await?;
    let (to, finished) = rt.promises(2);
    for index in [0, 7] {
        workers.at(index).launch_quietly(gate, (&to).into()).await?;
    }
    let mut quiescence = rt.quiescence();
    rt.timeout(Duration::from_millis(2), &mut quiescence).await.expect_err("kernels are pending");
    assert!(!finished.is_ready());
    porters.open(gate).await?;
    quiescence.await?;
    assert!(finished.is_ready(), "what waits for the kernels has run");
    Ok(())
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
                this.this().migrate(crate::pe_here(&this, &mut random)).send();
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
                this.this().migrate(crate::pe_here(&this, &mut random)).send();
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
async fn device_memory_follows_a_chare_that_moves(rt: Runtime) -> Result<()> {
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
    assert!((moves == 0) == (rt.num_pes() == rt.num_processes()), "{moves} moves");
    Ok(())
}

macro_rules! on_devices {
    ($($name:ident: $device:literal $(, $option:ident = $why:literal)*;)*) => {$(
        #[chare::test(
            pes = [1, 2, 4, 8],
            device = $device
            $(, $option = $why)*
        )]
        async fn $name(rt: Runtime) -> Result<()> {
            device_memory_follows_a_chare_that_moves(rt).await
        }
    )*};
}

on_devices! {
    device_memory_follows_a_chare_on_devices_that_work_at_once: "host:2:inline";
    device_memory_follows_a_chare_on_devices_that_are_polled: "host:2:polled";
    device_memory_follows_a_chare_on_devices_with_workers: "host:2:workers=4", unsimulated = "all that work by themselves are alike";
}
