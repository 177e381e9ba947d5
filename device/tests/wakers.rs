//! Wakers are code of the user's: their clones, wake-ups and destructors run under no lock and may panic. A panic on a
//! device's thread is a fault, so it is told; one on the thread that polls is that thread's.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Wake, Waker};

use chare_device::{Account, Completion, DeviceError, Devices, FaultKind, HostMode, InOut, Kernel, Launch};

const ADD: Kernel<(InOut<u64>,)> = Kernel::new("add", |_: &Launch, (b,): (&mut [u64],)| b[0] += 1);

fn open(spec: &str) -> Devices {
    Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap()
}

/// Polls once.
fn poll(completion: &mut Completion<()>, waker: &Waker) -> Poll<Result<(), DeviceError>> {
    Pin::new(completion).poll(&mut Context::from_waker(waker))
}

fn until_idle(devices: &Devices) {
    while devices.pending() > 0 {
        std::thread::yield_now();
    }
}

/// What the kernel of one test waits for.
struct Gate(Mutex<bool>, Condvar);

impl Gate {
    const fn new() -> Self {
        Gate(Mutex::new(false), Condvar::new())
    }

    fn set(&self, open: bool) {
        *self.0.lock().unwrap() = open;
        self.1.notify_all();
    }

    fn pass(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |open| !*open).unwrap());
    }
}

/// Panics when it wakes.
struct Alarm;

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        panic!("no time to wake");
    }
}

/// Panics when the last copy goes.
struct Grave;

impl Wake for Grave {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Grave {
    fn drop(&mut self) {
        panic!("no time to go");
    }
}

#[test]
fn a_waker_that_panics_is_a_fault_and_its_worker_goes_on() {
    static GATE: Gate = Gate::new();
    const GATED: Kernel<(InOut<u64>,)> = Kernel::new("gated", |_: &Launch, _: (&mut [u64],)| GATE.pass());
    let wakers: [fn() -> (Waker, &'static str); 2] =
        [|| (Arc::new(Alarm).into(), "no time to wake"), || (Arc::new(Grave).into(), "no time to go")];
    for spec in ["host:workers=1", "host:2@1,2:workers=2"] {
        for make in wakers {
            let devices = open(spec);
            let device = devices.get(devices.len() - 1);
            let (account, other) = (device.account("sleeper"), device.account("other"));
            let mut buffer = account.alloc::<u64>(1).unwrap();
            GATE.set(false);
            let mut held = account.launch(&GATED, 1, (&mut buffer,)).unwrap();
            let (waker, words) = make();
            assert!(poll(&mut held, &waker).is_pending());
            drop(waker);
            GATE.set(true);
            until_idle(&devices);
            // The operation itself has succeeded, and the thread works on.
            assert!(matches!(poll(&mut held, Waker::noop()), Poll::Ready(Ok(()))));
            let mut another = other.alloc::<u64>(1).unwrap();
            other.launch(&ADD, 1, (&mut another,)).unwrap().wait().unwrap();
            let Err(DeviceError::Fault(fault)) = account.fence() else { panic!("the account is told") };
            assert_eq!((fault.kind, fault.kernel, &*fault.owner), (FaultKind::Waker, "gated", "sleeper"));
            let place = fault.location.as_deref().expect("the hook has seen it");
            assert!(place.starts_with(&format!("{}:", file!())), "{place}");
            let name = device.name();
            let text = format!(
                "a waker that waited for kernel `gated` of sleeper on {name} panicked at {place}: {words}"
            );
            assert_eq!(fault.to_string(), text);
            account.launch(&ADD, 1, (&mut buffer,)).unwrap().wait().unwrap();
            devices.close();
            assert!(devices.take_unreported_faults().is_empty());
        }
    }
}

#[test]
fn a_wakers_panic_that_nobody_is_told_is_taken_at_the_end() {
    static GATE: Gate = Gate::new();
    const GATED: Kernel<(InOut<u64>,)> = Kernel::new("gated", |_: &Launch, _: (&mut [u64],)| GATE.pass());
    let devices = open("host:workers=1");
    let account = devices.get(0).account("sleeper");
    let mut buffer = account.alloc::<u64>(1).unwrap();
    let mut held = account.launch(&GATED, 1, (&mut buffer,)).unwrap();
    assert!(poll(&mut held, &Arc::new(Alarm).into()).is_pending());
    GATE.set(true);
    devices.close();
    // Though its completion is kept: the fault is not what the completion brings.
    let faults = devices.take_dropped_faults();
    assert_eq!(faults.iter().map(|fault| &*fault.message).collect::<Vec<_>>(), ["no time to wake"]);
    held.wait().unwrap();
}

/// A waker whose clones and destructors do as they are told.
struct Script {
    cloned: Box<dyn Fn() + Send + Sync>,
    dropped: Box<dyn Fn() + Send + Sync>,
}

static SCRIPTED: RawWakerVTable = RawWakerVTable::new(clone_scripted, drop_scripted, |_| {}, drop_scripted);

unsafe fn clone_scripted(script: *const ()) -> RawWaker {
    // SAFETY: it came from `Arc::into_raw` in `scripted`, and the waker that is cloned holds it.
    let held = std::mem::ManuallyDrop::new(unsafe { Arc::from_raw(script.cast::<Script>()) });
    (held.cloned)();
    RawWaker::new(Arc::into_raw(Arc::clone(&held)).cast(), &SCRIPTED)
}

unsafe fn drop_scripted(script: *const ()) {
    // SAFETY: as above; this waker's hold ends here.
    let held = unsafe { Arc::from_raw(script.cast::<Script>()) };
    (held.dropped)();
}

fn scripted(cloned: impl Fn() + Send + Sync + 'static, dropped: impl Fn() + Send + Sync + 'static) -> Waker {
    let script = Arc::new(Script { cloned: Box::new(cloned), dropped: Box::new(dropped) });
    // SAFETY: the functions of the table take what `Arc::into_raw` of a `Script` gave, on any thread.
    unsafe { Waker::from_raw(RawWaker::new(Arc::into_raw(script).cast(), &SCRIPTED)) }
}

/// A kernel that is held at `gate`, and a second account.
fn held(devices: &Devices, kernel: &Kernel<(InOut<u64>,)>) -> (Account, Completion<()>) {
    let account = devices.get(0).account("held");
    let mut buffer = account.alloc::<u64>(1).unwrap();
    let completion = account.launch(kernel, 1, (&mut buffer,)).unwrap();
    (account, completion)
}

/// Makes a kernel end while a waker is cloned or dropped, and waits there until it has been published.
fn ends_meanwhile(gate: &'static Gate, devices: &Arc<Devices>) -> impl Fn() + Send + Sync + 'static {
    let devices = devices.clone();
    move || {
        gate.set(true);
        until_idle(&devices);
    }
}

#[test]
fn wakers_are_cloned_and_dropped_under_no_lock() {
    static GATE: Gate = Gate::new();
    const GATED: Kernel<(InOut<u64>,)> = Kernel::new("gated", |_: &Launch, _: (&mut [u64],)| GATE.pass());
    let devices = Arc::new(open("host:workers=1"));
    // The operation finishes, for which it takes the completion's lock, while the first poll clones its waker.
    GATE.set(false);
    let (_, mut completion) = held(&devices, &GATED);
    let waker = scripted(ends_meanwhile(&GATE, &devices), || ());
    assert!(poll(&mut completion, &waker).is_ready());
    // While a later poll drops the waker of the one before.
    GATE.set(false);
    let (_, mut completion) = held(&devices, &GATED);
    let waker = scripted(|| (), ends_meanwhile(&GATE, &devices));
    assert!(poll(&mut completion, &waker).is_pending());
    let _ = poll(&mut completion, Waker::noop());
    assert!(poll(&mut completion, Waker::noop()).is_ready());
    // While a completion that is dropped drops its waker.
    GATE.set(false);
    let (account, mut completion) = held(&devices, &GATED);
    assert!(poll(&mut completion, &waker).is_pending());
    drop(completion);
    account.fence().unwrap().wait().unwrap();
    devices.close();
    assert!(devices.take_unreported_faults().is_empty());
}

#[test]
fn a_panic_where_a_waker_is_cloned_or_dropped_is_the_pollers_own() {
    static GATE: Gate = Gate::new();
    const GATED: Kernel<(InOut<u64>,)> = Kernel::new("gated", |_: &Launch, _: (&mut [u64],)| {
        GATE.pass();
        panic!("the kernel's own");
    });
    let panics = |step: &mut dyn FnMut()| catch_unwind(AssertUnwindSafe(step)).unwrap_err();
    let devices = Arc::new(open("host:workers=1"));
    GATE.set(false);
    let (account, mut completion) = held(&devices, &GATED);
    let unclonable = scripted(|| panic!("no clone"), || ());
    panics(&mut || drop(poll(&mut completion, &unclonable)));
    // It may be polled again.
    assert!(poll(&mut completion, &Arc::new(Grave).into()).is_pending());
    panics(&mut || drop(poll(&mut completion, Waker::noop())));
    let (tell, told): (_, Receiver<()>) = channel();
    let tell = Mutex::new(tell);
    let tells = scripted(|| (), move || tell.lock().unwrap().send(()).unwrap());
    assert!(poll(&mut completion, &tells).is_pending());
    assert!(told.try_recv().is_err());
    assert!(poll(&mut completion, &Arc::new(Grave).into()).is_pending());
    told.try_recv().unwrap();
    panics(&mut || drop(std::mem::replace(&mut completion, account.fence().unwrap())));
    // Nor is the fault of the kernel lost by the panic where its completion was dropped.
    GATE.set(true);
    completion.wait().unwrap();
    let faults = devices.take_dropped_faults();
    assert_eq!(faults.iter().map(|fault| &*fault.message).collect::<Vec<_>>(), ["the kernel's own"]);
    std::mem::forget(tells);
}
