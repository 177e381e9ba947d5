//! Devices: kernels compute while coroutines wait, no fault is lost, and what is pending at the end of a run ends with it;
//! in `memory`, whose memory it is; in `binding`, which device a chare gets; in `sleep`, that nobody is busy waiting; in `records`, what
//! a device has done; in `limit`, how long a kernel may take; in `across`, device memory in messages; in `pieces`, long ones; in `many`, more than a frame takes. On devices that compute at once, on devices with threads of
//! their own, and on devices that compute when a PE looks.

/// Tests of a scenario on two devices of each kind that computes beside the PE, or when that looks.
macro_rules! on_kinds_that_go_on {
    ($($scenario:ident: $workers:ident $polled:ident,)*) => {$(
        #[chare::test(pes = [1, 2, 4], device = "host:2:workers=2")]
        async fn $workers(rt: Runtime) -> Result<()> {
            $scenario(rt).await
        }

        #[chare::test(pes = [1, 2, 4], device = "host:2:polled")]
        async fn $polled(rt: Runtime) -> Result<()> {
            $scenario(rt).await
        }
    )*};
}

/// Tests of a scenario on two devices of each kind.
macro_rules! on_each_kind {
    ($($scenario:ident: $inline:ident $workers:ident $polled:ident,)*) => {
        $(
            #[chare::test(pes = [1, 2, 4], device = "host:2:inline")]
            async fn $inline(rt: Runtime) -> Result<()> {
                $scenario(rt).await
            }
        )*
        on_kinds_that_go_on! { $($scenario: $workers $polled,)* }
    };
}

mod across;
mod binding;
mod limit;
mod many;
mod memory;
mod pieces;
mod records;
mod sleep;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Wake, Waker};

use chare::device::{
    Account, Completion, Device, DeviceError, DeviceVec, Fault, In, InOut, Kernel, Launch, Out,
};
use chare::prelude::*;
use chare::{ExitReport, MainOutput, Options};

use super::PES;

const SCALE: Kernel<(In<f64>, Out<f64>, f64)> = Kernel::new("scale", scale);
const ADD: Kernel<(InOut<f64>, f64)> = Kernel::new("add", add);
const FILL: Kernel<(Out<f64>, f64)> =
    Kernel::new("fill", |_: &Launch, (out, value): (&mut [f64], f64)| out.fill(value));
const COPY: Kernel<(In<f64>, Out<f64>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[f64], &mut [f64])| to.copy_from_slice(from));
const PANIC: Kernel<(InOut<f64>,)> =
    Kernel::new("panic", |_: &Launch, (buffer,): (&mut [f64],)| panic!("no more {}", buffer.len()));
const BEYOND: Kernel<(InOut<f64>,)> =
    Kernel::new("beyond", |_: &Launch, (buffer,): (&mut [f64],)| buffer[0] = buffer[buffer.len()]);

fn scale(_: &Launch, (from, to, factor): (&[f64], &mut [f64], f64)) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = factor * from;
    }
}

fn add(_: &Launch, (buffer, value): (&mut [f64], f64)) {
    buffer.iter_mut().for_each(|element| *element += value);
}

/// Devices of each kind.
const KINDS: [&str; 3] = ["host:inline", "host:workers=2", "host:polled"];

/// Virtual devices of each kind, as a mixed machine would have them.
const MIXED: [&str; 3] =
    ["host:4@1,3,1,3:mem=1MiB:inline", "host:4@1,3,1,3:mem=1MiB:workers=3", "host:4@1,3,1,3:mem=1MiB:polled"];

fn run<F, Fut, R>(pes: usize, device: &str, main: F) -> ExitReport
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let options = Options::default().with_pes(pes).with_device(device.parse().expect("a device"));
    Runtime::run(options, main).expect("the host device is always there")
}

/// Runs a program that ends well on each number of PEs and each of these devices.
#[track_caller]
fn on_each<F, Fut>(devices: &[&str], main: F)
where
    F: Fn(Runtime) -> Fut,
    Fut: Future<Output = Result<()>> + Send + 'static,
{
    for pes in PES {
        for device in devices {
            let report = run(pes, device, &main);
            assert!(report.is_success(), "{pes} PEs, {device}: {report}");
        }
    }
}

/// Checks that a run was ended by a fault of this kernel that nobody awaited.
#[track_caller]
fn expect_fault(report: &ExitReport, kernel: &str, owner: &str) {
    let text = report.to_string();
    let words = [format!("kernel `{kernel}` of {owner} failed on host:"), format!(" at {}:", file!())];
    assert_eq!(report.code(), 1, "{text}");
    assert!(words.iter().all(|word| text.contains(word)) && text.contains("nobody awaited it"), "{text}");
}

#[track_caller]
fn fault_of<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> Fault {
    match result {
        Err(DeviceError::Fault(fault)) => fault,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

/// What kernels of one test wait for.
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    const fn new() -> Self {
        Gate(Mutex::new(false), Condvar::new())
    }

    fn set(&self, open: bool) {
        *self.0.lock().expect("nothing panics under this lock") = open;
        self.1.notify_all();
    }

    fn pass(&self) {
        let open = self.0.lock().expect("nothing panics under this lock");
        drop(self.1.wait_while(open, |open| !*open).expect("nothing panics under this lock"));
    }
}

/// Opens a gate when it is dropped: in a chare, at the end of the run.
struct OpensLate(&'static Gate);

impl Drop for OpensLate {
    fn drop(&mut self) {
        self.0.set(true);
    }
}

/// Launches what it is told to.
struct Worker {
    buffer: DeviceVec<f64>,
    kept: Option<Completion<()>>,
}

#[chare(index = usize)]
impl Worker {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        Ok(Worker { buffer: cx.device().alloc(4)?, kept: None })
    }

    #[entry]
    async fn compute(&mut self, cx: &Cx<Self>, rounds: u32) -> Result<Vec<f64>> {
        let dev = cx.device();
        let from = dev.upload(vec![1.0, 2.0, 3.0, cx.index() as f64])?;
        dev.launch(&SCALE, 4, (&from, &mut self.buffer, 10.0))?.await?;
        for _ in 0..rounds {
            dev.launch(&ADD, 4, (&mut self.buffer, 1.0))?.await?;
        }
        Ok(dev.download(&self.buffer)?.await?)
    }

    /// As `compute`, with others in between.
    #[entry]
    async fn compute_shared(this: This<Self>, rounds: u32) -> Result<f64> {
        let dev = this.device();
        let mut own = dev.alloc::<f64>(1)?;
        for _ in 0..rounds {
            dev.launch(&ADD, 1, (&mut own, 1.0))?.await?;
            this.with(|worker| dev.launch(&ADD, 4, (&mut worker.buffer, 1.0)))?.await?;
        }
        Ok(dev.download(&own)?.await?[0])
    }

    #[entry]
    async fn first(&mut self, cx: &Cx<Self>) -> Result<f64> {
        Ok(cx.device().download(&self.buffer)?.await?[0])
    }

    /// Launches a kernel that fails, and work that depends on it.
    #[entry]
    async fn fail_and_depend(&mut self, cx: &Cx<Self>, beyond: bool) -> Result<Vec<Fault>> {
        let dev = cx.device();
        let mut copied = dev.alloc(4)?;
        let kernel = if beyond { &BEYOND } else { &PANIC };
        let failed = dev.launch(kernel, 4, (&mut self.buffer,))?;
        let dependent = dev.launch(&COPY, 4, (&self.buffer, &mut copied))?;
        let read = dev.download(&copied)?;
        let faults = vec![fault_of(failed.await), fault_of(dependent.await), fault_of(read.await)];
        // What is overwritten is whole again.
        dev.launch(&FILL, 4, (&mut self.buffer, 8.0))?;
        assert_eq!(dev.download(&self.buffer)?.await?, [8.0; 4]);
        Ok(faults)
    }

    /// Launches a kernel that fails, and drops its completion.
    #[entry]
    fn fail_unawaited(&mut self, cx: &Cx<Self>) -> Result<()> {
        drop(cx.device().launch(&PANIC, 4, (&mut self.buffer,))?);
        Ok(())
    }

    /// As `fail_unawaited`; waits until it has failed, and then exits.
    #[entry]
    fn fail_unawaited_and_exit(&mut self, cx: &Cx<Self>, code: i32) -> Result<()> {
        drop(cx.device().launch(&PANIC, 4, (&mut self.buffer,))?);
        cx.exit(code);
        Ok(())
    }

    /// Launches a kernel that fails, and then another one that it awaits.
    #[entry]
    async fn fail_unawaited_and_go_on(&mut self, cx: &Cx<Self>) -> Result<(Fault, f64)> {
        let dev = cx.device();
        let mut other = dev.alloc(1)?;
        let failed = dev.launch(&PANIC, 4, (&mut self.buffer,))?;
        let later = dev.launch(&FILL, 1, (&mut other, 5.0))?;
        drop(failed);
        later.await?;
        let refused = fault_of(dev.alloc::<f64>(1));
        Ok((refused, dev.download(&other)?.await?[0]))
    }

    /// Launches a kernel that fails, and keeps its completion through quiescence.
    #[entry]
    async fn fail_and_await_later(&mut self, cx: &Cx<Self>) -> Result<Fault> {
        let failed = cx.device().launch(&PANIC, 4, (&mut self.buffer,))?;
        cx.quiescence().await?;
        Ok(fault_of(failed.await))
    }

    /// Launches a kernel that fails, and never looks.
    #[entry]
    fn fail_and_keep(&mut self, cx: &Cx<Self>) -> Result<()> {
        self.kept = Some(cx.device().launch(&PANIC, 4, (&mut self.buffer,))?);
        Ok(())
    }
}

async fn workers(rt: &Runtime, count: usize) -> Result<Array<Worker>> {
    Ok(rt.array::<Worker>(count).create(()).await?)
}

#[test]
fn kernels_compute_and_wake_their_coroutines() {
    let all = [KINDS, MIXED].concat();
    on_each(&all, async |rt: Runtime| {
        let workers = workers(&rt, 16).await?;
        for (index, values) in workers.compute(50).gather().await?.into_iter().enumerate() {
            assert_eq!(values, [60.0, 70.0, 80.0, 50.0 + 10.0 * index as f64]);
        }
        let shared = (0..16)
            .flat_map(|index| [30, 20].map(|rounds| workers.at(index).compute_shared(rounds).future()));
        for (number, value) in shared.collect::<Vec<_>>().into_iter().enumerate() {
            assert_eq!(value.await?, [30.0, 20.0][number % 2]);
        }
        assert_eq!(workers.first().gather().await?, vec![110.0; 16]);
        Ok(())
    });
}

#[test]
fn a_fault_reaches_everybody_who_waits() {
    let all = [KINDS, MIXED].concat();
    on_each(&all, async |rt: Runtime| {
        let workers = workers(&rt, 16).await?;
        for (beyond, kernel, message) in [(false, "panic", "no more 4"), (true, "beyond", "out of bounds")] {
            for (index, faults) in workers.fail_and_depend(beyond).gather().await?.into_iter().enumerate() {
                for fault in faults {
                    assert_eq!((fault.kernel, &*fault.owner), (kernel, &*format!("Worker[{index}]")));
                    assert!(fault.message.contains(message), "{fault}");
                    assert!(fault.to_string().contains(&format!(" at {}:", file!())), "{fault}");
                }
            }
        }
        // Each has been given to somebody.
        Ok(rt.quiescence().await?)
    });
}

#[test]
fn a_fault_that_nobody_awaited_is_the_next_calls_error() {
    on_each(&[KINDS[0], KINDS[1], KINDS[2], "host:workers=1", MIXED[1]], async |rt: Runtime| {
        let workers = workers(&rt, 16).await?;
        for (index, (fault, value)) in
            workers.fail_unawaited_and_go_on().gather().await?.into_iter().enumerate()
        {
            assert_eq!((fault.kernel, &*fault.owner), ("panic", &*format!("Worker[{index}]")));
            assert_eq!(value, 5.0);
        }
        Ok(rt.quiescence().await?)
    });
}

#[test]
fn a_fault_that_nobody_awaited_ends_the_program_at_quiescence() {
    for pes in PES {
        for device in KINDS {
            let report = run(pes, device, async |rt: Runtime| {
                workers(&rt, 16).await?.at(15).fail_unawaited().await?;
                rt.quiescence().await?;
                panic!("the program goes on");
                #[allow(unreachable_code)]
                Result::<()>::Ok(())
            });
            expect_fault(&report, "panic", "Worker[15]");
        }
    }
}

#[test]
fn a_completion_that_is_kept_may_be_awaited_after_quiescence() {
    on_each(&KINDS, async |rt: Runtime| {
        let workers = workers(&rt, 16).await?;
        for fault in workers.fail_and_await_later().gather().await? {
            assert_eq!(fault.kernel, "panic");
        }
        Ok(rt.quiescence().await?)
    });
}

#[test]
fn a_fault_is_told_where_the_program_would_hang() {
    for pes in PES {
        for device in KINDS {
            let report = run(pes, device, async |rt: Runtime| {
                workers(&rt, 16).await?.at(3).fail_and_keep().await?;
                let (_promise, never) = rt.promise::<()>();
                Result::<()>::Ok(never.await?)
            });
            expect_fault(&report, "panic", "Worker[3]");
        }
    }
}

#[test]
fn a_fault_that_nobody_awaited_spoils_a_good_end() {
    type Begin = fn(Element<Worker>) -> chare::CallFuture<()>;
    let begins: [Begin; 3] = [
        |worker| worker.fail_unawaited().future(),
        |worker| worker.fail_and_keep().future(),
        |worker| worker.fail_unawaited_and_exit(0).future(),
    ];
    for pes in PES {
        for device in KINDS {
            for begin in begins {
                let report = run(pes, device, async move |rt: Runtime| {
                    begin(workers(&rt, 16).await?.at(14)).await?;
                    Result::<()>::Ok(())
                });
                expect_fault(&report, "panic", "Worker[14]");
            }
            let report = run(pes, device, async |rt: Runtime| {
                workers(&rt, 16).await?.fail_unawaited().await?;
                Result::<()>::Ok(())
            });
            assert!(report.to_string().contains("and 15 more device fault(s)"), "{report}");
            let report = run(pes, device, async |rt: Runtime| {
                workers(&rt, 16).await?.at(14).fail_unawaited_and_exit(7).await?;
                Result::<()>::Ok(())
            });
            assert_eq!((report.code(), report.to_string().as_str()), (7, ""), "the first reason counts");
        }
    }
}

static LATE: Gate = Gate::new();
const FAIL_LATE: Kernel<(InOut<f64>,)> = Kernel::new("fail_late", |_: &Launch, _: (&mut [f64],)| {
    LATE.pass();
    panic!("after the end");
});

static HELD: Gate = Gate::new();
static BEGUN: AtomicU64 = AtomicU64::new(0);
const HOLD: Kernel<(InOut<f64>,)> = Kernel::new("hold", |_: &Launch, _: (&mut [f64],)| {
    BEGUN.fetch_add(1, Ordering::SeqCst);
    HELD.pass();
});

static PARKED: Gate = Gate::new();
const HOLD_PARKED: Kernel<(InOut<f64>,)> =
    Kernel::new("hold_parked", |_: &Launch, _: (&mut [f64],)| PARKED.pass());

static WAITED: Gate = Gate::new();
const HOLD_WAITED: Kernel<(InOut<f64>,)> =
    Kernel::new("hold_waited", |_: &Launch, _: (&mut [f64],)| WAITED.pass());

static QUIET: Gate = Gate::new();
static FINISHED: AtomicBool = AtomicBool::new(false);
const HOLD_QUIET: Kernel<(InOut<f64>,)> = Kernel::new("hold_quiet", |_: &Launch, _: (&mut [f64],)| {
    QUIET.pass();
    FINISHED.store(true, Ordering::SeqCst);
});

/// Loses the wake-up that it is to pass on.
struct Alarm(#[allow(dead_code, reason = "held, so that somebody might still wake")] Waker);

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        panic!("no time to wake");
    }
}

/// Has work on its device when the run ends.
struct Busy {
    dev: Account,
    buffer: DeviceVec<f64>,
    gate: Option<OpensLate>,
}

#[chare]
impl Busy {
    fn new(cx: &Cx<Self>) -> Result<Self> {
        let dev = cx.device();
        Ok(Busy { buffer: dev.alloc(4)?, dev, gate: None })
    }

    /// Launches a kernel that fails after the end.
    #[entry]
    fn fail_late(&mut self) -> Result<()> {
        LATE.set(false);
        self.gate = Some(OpensLate(&LATE));
        drop(self.dev.launch(&FAIL_LATE, 4, (&mut self.buffer,))?);
        Ok(())
    }

    /// Launches a kernel that ends at the end, and many behind it.
    #[entry]
    fn queue(&mut self) -> Result<()> {
        HELD.set(false);
        BEGUN.store(0, Ordering::SeqCst);
        self.gate = Some(OpensLate(&HELD));
        for _ in 0..100 {
            drop(self.dev.launch(&HOLD, 4, (&mut self.buffer,))?);
        }
        while BEGUN.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        Ok(())
    }

    #[entry]
    fn fail(&self) -> Result<(), String> {
        Err("on purpose".to_owned())
    }

    /// Waits for a kernel by a waker that panics.
    #[entry]
    async fn wait_in_vain(&mut self) -> Result<()> {
        WAITED.set(false);
        let mut held = self.dev.launch(&HOLD_WAITED, 4, (&mut self.buffer,))?;
        std::future::poll_fn(|context| {
            let alarm = Waker::from(Arc::new(Alarm(context.waker().clone())));
            let polled = std::pin::Pin::new(&mut held).poll(&mut Context::from_waker(&alarm));
            WAITED.set(true);
            polled
        })
        .await?;
        Ok(())
    }

    /// Launches a kernel that waits for the gate.
    #[entry]
    fn launch_quiet(&mut self) -> Result<()> {
        // However the run ends, the kernel does.
        self.gate = Some(OpensLate(&QUIET));
        QUIET.set(false);
        FINISHED.store(false, Ordering::SeqCst);
        drop(self.dev.launch(&HOLD_QUIET, 4, (&mut self.buffer,))?);
        Ok(())
    }

    #[entry]
    async fn open_later(this: This<Self>) {
        this.sleep(std::time::Duration::from_millis(2)).await;
        QUIET.set(true);
    }

    /// Parks with device data of every kind, and work on it.
    #[entry]
    async fn park(this: This<Self>, to: Promise<Device>) -> Result<()> {
        PARKED.set(false);
        let (gate, dev) = (OpensLate(&PARKED), this.device());
        let mut own = dev.upload(vec![1.0; 100])?;
        let share = own.share();
        let held = dev.launch(&HOLD_PARKED, 1, (&mut own,))?;
        let behind = dev.launch(&ADD, 100, (&mut own, 1.0))?;
        let read = dev.download(&own)?;
        this.with(|busy| busy.buffer = own);
        to.send(dev.device())?;
        held.await?;
        drop((gate, share, behind, read));
        Ok(())
    }
}

#[test]
fn work_that_is_pending_at_a_good_end_is_finished() {
    for pes in PES {
        for device in ["host:workers=1", "host:2:workers=3"] {
            for exit in [false, true] {
                let report = run(pes, device, async move |rt: Runtime| {
                    let busy = rt.single::<Busy>().on_pe(rt.num_pes() - 1).create(()).await?;
                    busy.fail_late().await?;
                    if exit {
                        rt.exit(0);
                    }
                    Result::<()>::Ok(())
                });
                expect_fault(&report, "fail_late", "Busy");
                assert!(report.to_string().contains("after the end"), "{report}");
            }
        }
    }
}

#[test]
fn work_that_has_not_begun_at_a_bad_end_is_given_up() {
    type End = fn(&Runtime, Element<Busy>);
    let ends: [(i32, End); 3] =
        [(5, |rt, _| rt.exit(5)), (1, |rt, _| rt.abort("enough")), (1, |_, busy| busy.fail().send())];
    for pes in PES {
        for device in ["host:workers=1", "host:2:workers=3"] {
            for (code, end) in ends {
                let report = run(pes, device, async move |rt: Runtime| {
                    let busy = rt.single::<Busy>().on_pe(rt.num_pes() - 1).create(()).await?;
                    busy.queue().await?;
                    end(&rt, busy);
                    let (_promise, never) = rt.promise::<()>();
                    Result::<()>::Ok(never.await?)
                });
                assert_eq!(report.code(), code, "{report}");
                assert_eq!(BEGUN.load(Ordering::SeqCst), 1, "only the kernel that had begun");
            }
        }
    }
}

#[test]
fn a_waker_that_panics_on_a_device_ends_the_program() {
    for pes in PES {
        for device in ["host:workers=1", "host:2:workers=3"] {
            let report = run(pes, device, async move |rt: Runtime| {
                let busy = rt.single::<Busy>().on_pe(rt.num_pes() - 1).create(()).await?;
                Result::<()>::Ok(busy.wait_in_vain().await?)
            });
            let text = report.to_string();
            let words = ["aborted: a waker that waited for kernel `hold_waited` of Busy", "no time to wake"];
            assert!(report.code() == 1 && words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}

#[test]
fn pending_work_holds_off_quiescence() {
    on_each(&["host:workers=1", "host:2:workers=3"], async |rt: Runtime| {
        let busy = rt.single::<Busy>().on_pe(rt.num_pes() - 1).create(()).await?;
        for _ in 0..3 {
            busy.launch_quiet().await?;
            // A timer does not hold off quiescence, so nothing else does.
            busy.open_later().send();
            rt.quiescence().await?;
            assert!(FINISHED.load(Ordering::SeqCst), "quiescence while a kernel runs");
        }
        Ok(())
    });
}

#[test]
fn device_data_of_parked_coroutines_goes_with_the_run() {
    for pes in PES {
        for (end, code) in [("return", 0), ("exit", 3)] {
            let device = Arc::new(Mutex::new(None));
            let kept = device.clone();
            let report = run(pes, "host:workers=2", async move |rt: Runtime| {
                let busy = rt.single::<Busy>().on_pe(rt.num_pes() - 1).create(()).await?;
                let (to, device) = rt.promise();
                busy.park(to).send();
                let device = device.await?;
                assert!(device.used_bytes() > 2000);
                *kept.lock().expect("not poisoned") = Some(device);
                if end == "exit" {
                    rt.exit(3);
                }
                Result::<()>::Ok(())
            });
            assert_eq!((report.code(), report.to_string().as_str()), (code, ""));
            let device = device.lock().expect("not poisoned").take().expect("main has put it there");
            assert_eq!(device.used_bytes(), 0, "all memory is back");
        }
    }
}
