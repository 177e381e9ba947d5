//! What is so on host devices only: order that a kernel can hold up, speeds, faults of Rust sources, worker threads. What holds
//! everywhere is in the suite.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use chare_device::{
    Account, Completion, DeviceError, DeviceVec, Devices, HostMode, In, InOut, Kernel, Launch, Out,
};

const FILL: Kernel<(Out<u64>, u64)> = Kernel::new("fill", fill);
const ADD: Kernel<(InOut<u64>, u64)> = Kernel::new("add", add);
const COPY: Kernel<(In<u64>, Out<u64>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[u64], &mut [u64])| to.copy_from_slice(from));
const BEYOND: Kernel<(In<u64>, Out<u64>)> =
    Kernel::new("beyond", |_: &Launch, (from, to): (&[u64], &mut [u64])| to[0] = from[from.len()]);

fn fill(_: &Launch, (out, value): (&mut [u64], u64)) {
    out.fill(value);
}

fn add(_: &Launch, (buffer, value): (&mut [u64], u64)) {
    for x in buffer {
        *x += value;
    }
}

fn open(spec: &str) -> Devices {
    Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap()
}

/// Runs a case on each kind of host device, with `host` and the suffixes of `spec`.
fn on_each(spec: &str, case: impl Fn(&Devices)) {
    for mode in [":inline", ":workers=1", ":workers=3", ":polled"] {
        let devices = open(&format!("{spec}{mode}"));
        case(&devices);
        drop(devices);
    }
}

fn values(account: &Account, buffer: &DeviceVec<u64>) -> Vec<u64> {
    account.download(buffer).unwrap().wait().unwrap()
}

fn fault_of<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> chare_device::Fault {
    match result {
        Err(DeviceError::Fault(fault)) => fault,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

#[test]
fn host_vectors_of_other_devices_are_refused() {
    let (one, other) = (open("host:inline"), open("host:inline"));
    let (mine, theirs) = (one.get(0).account("mine"), other.get(0).account("theirs"));
    let mut buffer = theirs.alloc::<u64>(2).unwrap();
    for refused in [
        theirs.write(&mut buffer, mine.host_vec(2).unwrap()).err(),
        theirs.read(&buffer, mine.host_vec(2).unwrap()).err(),
    ] {
        let text = refused.unwrap().to_string();
        assert!(text.contains("another run's") && text.contains("theirs"), "{text}");
    }
}

#[test]
fn an_index_out_of_bounds_is_a_fault() {
    on_each("host", |devices| {
        let account = devices.get(0).account("bounds");
        let from = account.alloc::<u64>(4).unwrap();
        let mut to = account.alloc::<u64>(4).unwrap();
        let fault = fault_of(account.launch(&BEYOND, 4, (&from, &mut to)).unwrap().wait());
        assert_eq!(fault.kernel, "beyond");
        assert!(fault.message.contains("index out of bounds"), "{fault}");
        assert_eq!(values(&account, &from), [0; 4], "what was only read is whole");
    });
}

#[test]
fn dropping_everything_in_flight_finishes_it() {
    static RAN: AtomicU32 = AtomicU32::new(0);
    const COUNT: Kernel<(InOut<u64>,)> = Kernel::new("count", |_: &Launch, _: (&mut [u64],)| {
        RAN.fetch_add(1, Ordering::Relaxed);
    });
    for (mode, total) in [("inline", 100), ("workers=1", 200), ("workers=3", 300)] {
        let devices = open(&format!("host:{mode}"));
        let account = devices.get(0).account("short-lived");
        let mut buffer = account.alloc::<u64>(8).unwrap();
        let completions: Vec<Completion<()>> =
            (0..100).map(|_| account.launch(&COUNT, 8, (&mut buffer,)).unwrap()).collect();
        drop((completions, buffer, account));
        drop(devices);
        assert_eq!(RAN.load(Ordering::Relaxed), total);
    }
}

#[test]
fn closed_devices_refuse_work_and_keep_results() {
    let devices = open("host:workers=1");
    let account = devices.get(0).account("late");
    let mut buffer = account.upload(vec![5u64]).unwrap();
    let read = account.download(&buffer).unwrap();
    drop(devices);
    assert!(read.is_ready());
    assert_eq!(read.wait().unwrap(), [5]);
    let refused = account.launch(&FILL, 1, (&mut buffer, 1)).err();
    assert!(matches!(refused, Some(DeviceError::Closed { .. })), "{refused:?}");
}

#[test]
fn abandoned_devices_begin_nothing_more() {
    static GATE: Gate = Gate::new();
    static BEGUN: AtomicU32 = AtomicU32::new(0);
    const GATED: Kernel<(Out<u64>,)> = Kernel::new("gated", |_: &Launch, (out,): (&mut [u64],)| {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        GATE.pass();
        out.fill(5);
    });
    const BEGIN: Kernel<(InOut<u64>,)> = Kernel::new("begin", |_: &Launch, _: (&mut [u64],)| {
        BEGUN.fetch_add(1, Ordering::SeqCst);
    });
    const BEGIN_SLOWLY: Kernel<(InOut<u64>,)> =
        Kernel::new("begin_slowly", |_: &Launch, _: (&mut [u64],)| {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_millis(1) {}
            BEGUN.fetch_add(1, Ordering::SeqCst);
        });
    // The second device is so slow that what it does in a millisecond would count as finished in a quarter of an hour.
    let devices = open("host:2@1000000,1:workers=2");
    let (account, slow) = (devices.get(0).account("gated"), devices.get(1).account("slow"));
    let mut buffers = (account.alloc::<u64>(1).unwrap(), slow.alloc::<u64>(1).unwrap());
    let begun = account.launch(&GATED, 1, (&mut buffers.0,)).unwrap();
    let lingering = slow.launch(&BEGIN_SLOWLY, 1, (&mut buffers.1,)).unwrap();
    while BEGUN.load(Ordering::SeqCst) < 2 {
        std::thread::yield_now();
    }
    let queued = [(); 100].map(|()| account.launch(&BEGIN, 1, (&mut buffers.0,)).unwrap());
    let after_the_slow_one = slow.download(&buffers.1).unwrap();
    devices.abandon();
    assert!(matches!(account.fence(), Err(DeviceError::Closed { .. })));
    GATE.open();
    begun.wait().unwrap();
    lingering.wait().unwrap();
    assert!(matches!(after_the_slow_one.wait(), Err(DeviceError::Closed { .. })));
    for completion in queued {
        assert!(matches!(completion.wait(), Err(DeviceError::Closed { device }) if &*device == "host:0"));
    }
    devices.close();
    assert_eq!((BEGUN.load(Ordering::SeqCst), devices.pending()), (2, 0));
    assert!(devices.take_unreported_faults().is_empty());
}

#[test]
fn slow_devices_do_the_same_work() {
    on_each("host:3@1,4,2", |devices| {
        let speeds: Vec<f64> = devices.iter().map(|device| device.speed()).collect();
        assert_eq!(speeds, [1.0, 4.0, 2.0]);
        let accounts: Vec<_> = devices.iter().map(|device| device.account("paced")).collect();
        let mut buffers: Vec<_> = accounts.iter().map(|account| account.alloc::<u64>(16).unwrap()).collect();
        for _ in 0..100 {
            for (account, buffer) in accounts.iter().zip(&mut buffers) {
                account.launch(&ADD, 16, (buffer, 1)).unwrap();
            }
        }
        for (account, buffer) in accounts.iter().zip(&buffers) {
            assert_eq!(values(account, buffer), [100; 16]);
        }
    });
}

#[test]
fn what_is_not_built_says_how_to_build_it() {
    let absent =
        [("cuda", "cuda", cfg!(feature = "cuda")), ("wgpu:0:mem=1GiB", "wgpu", cfg!(feature = "wgpu"))];
    for (spec, backend, _) in absent.into_iter().filter(|(_, _, is_built)| !is_built) {
        let error = Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap_err().to_string();
        let text = format!(
            "this build has no `{backend}`: build it with `--features {backend}`, or use `--device auto` or `host`"
        );
        assert_eq!(error, text);
    }
}

#[test]
fn devices_have_names_and_a_reason() {
    let devices = open("auto:workers=1");
    assert_eq!((devices.len(), devices.get(0).name(), devices.get(0).ordinal()), (1, "host:0", 0));
    assert!(devices.get(0).uuid().starts_with("host:") && devices.reason().contains("host"));
    let two = open("host:2");
    assert_ne!(two.get(0).uuid(), two.get(1).uuid());
}

/// A latch that kernels of one test wait at.
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    const fn new() -> Self {
        Gate { open: Mutex::new(false), opened: Condvar::new() }
    }

    fn pass(&self) {
        drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

#[test]
fn one_worker_serves_streams_that_wait_for_each_other() {
    static GATE: Gate = Gate::new();
    const GATED: Kernel<(Out<u64>, u64)> =
        Kernel::new("gated", |_: &Launch, (out, value): (&mut [u64], u64)| {
            GATE.pass();
            out.fill(value);
        });
    let devices = open("host:2:workers=1");
    let accounts: Vec<_> = (0..6).map(|n| devices.get(n % 2).account(format!("stream {n}"))).collect();
    let mut buffers: Vec<_> = accounts.iter().map(|account| account.alloc::<u64>(3).unwrap()).collect();
    // While the worker is held in the first kernel, a chain of dependent work over all streams piles up
    // behind it.
    accounts[0].launch(&GATED, 3, (&mut buffers[0], 1)).unwrap();
    for n in (1..6).chain((0..5).rev()) {
        let from = if n == 0 { 1 } else { n - 1 };
        let share = accounts[n].import(&buffers[from].share()).unwrap();
        accounts[n].launch(&COPY, 3, (&share, &mut buffers[n])).unwrap();
        accounts[n].launch(&ADD, 3, (&mut buffers[n], 1)).unwrap();
    }
    let last = accounts[0].download(&buffers[0]).unwrap();
    assert!(!last.is_ready());
    assert!(devices.pending() > 12);
    GATE.open();
    let zeroth = last.wait().unwrap();
    // 0 -> 1 adds one; then the way back: 0 <- 1, after 1 <- 0 of the way there.
    assert_eq!(zeroth, [3; 3]);
}

#[test]
fn what_is_urgent_goes_first() {
    static GATE: Gate = Gate::new();
    static ORDER: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    const GATED: Kernel<(Out<u64>,)> = Kernel::new("gated", |_: &Launch, _: (&mut [u64],)| GATE.pass());
    const NOTE: Kernel<(InOut<u64>, u64)> =
        Kernel::new("note", |_: &Launch, (_, number): (&mut [u64], u64)| ORDER.lock().unwrap().push(number));
    let devices = open("host:workers=1");
    let (account, other) = (devices.get(0).account("usual"), devices.get(0).account("other"));
    let (urgent, used) = (account.urgent(), account.used_bytes());
    assert_eq!((urgent.label(), used), ("usual", 0));
    let mut buffers = [0; 4].map(|_| urgent.alloc::<u64>(1).unwrap());
    assert_eq!(account.used_bytes(), 4 * 256, "they are one owner");
    let [a, b, c, d] = &mut buffers;
    account.launch(&GATED, 1, (a,)).unwrap();
    // Ready at once, in this order; the last one only after a usual one before it.
    other.launch(&NOTE, 1, (&mut *b, 1)).unwrap();
    other.launch(&NOTE, 1, (&mut *d, 2)).unwrap();
    urgent.launch(&NOTE, 1, (c, 3)).unwrap();
    let last = urgent.launch(&NOTE, 1, (b, 4)).unwrap();
    GATE.open();
    last.wait().unwrap();
    account.fence().unwrap().wait().unwrap();
    other.fence().unwrap().wait().unwrap();
    assert_eq!(*ORDER.lock().unwrap(), [3, 1, 4, 2]);
}

#[test]
fn a_slow_stream_does_not_hide_a_finished_one() {
    static GATE: Gate = Gate::new();
    const GATED: Kernel<(Out<u64>,)> = Kernel::new("gated", |_: &Launch, _: (&mut [u64],)| GATE.pass());
    let devices = open("host:workers=2");
    let (slow, fast) = (devices.get(0).account("slow"), devices.get(0).account("fast"));
    let mut buffers = (slow.alloc::<u64>(1).unwrap(), fast.alloc::<u64>(1).unwrap());
    let held = slow.launch(&GATED, 1, (&mut buffers.0,)).unwrap();
    fast.launch(&FILL, 1, (&mut buffers.1, 6)).unwrap().wait().unwrap();
    assert!(!held.is_ready());
    GATE.open();
    held.wait().unwrap();
}

#[test]
fn pending_counts_until_the_waker_has_been_called() {
    static GATE: Gate = Gate::new();
    const GATED: Kernel<(Out<u64>,)> = Kernel::new("gated", |_: &Launch, _: (&mut [u64],)| GATE.pass());
    struct Count {
        devices: Arc<Devices>,
        pending_at_wake: AtomicU32,
    }
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.pending_at_wake.store(self.devices.pending() as u32, Ordering::SeqCst);
        }
    }
    let devices = Arc::new(open("host:workers=1"));
    let account = devices.get(0).account("waker");
    let mut buffer = account.alloc::<u64>(1).unwrap();
    let mut completion = account.launch(&GATED, 1, (&mut buffer,)).unwrap();
    let count = Arc::new(Count { devices: devices.clone(), pending_at_wake: AtomicU32::new(0) });
    let waker = Waker::from(count.clone());
    assert!(Pin::new(&mut completion).poll(&mut Context::from_waker(Waker::noop())).is_pending());
    // The waker of the last poll is the one that is called.
    assert!(Pin::new(&mut completion).poll(&mut Context::from_waker(&waker)).is_pending());
    GATE.open();
    until_idle(&devices);
    assert_eq!(count.pending_at_wake.load(Ordering::SeqCst), 1);
    assert!(matches!(Pin::new(&mut completion).poll(&mut Context::from_waker(&waker)), Poll::Ready(Ok(()))));
}

/// Waits until nothing is pending.
fn until_idle(devices: &Devices) {
    while devices.pending() > 0 {
        devices.poll();
        std::thread::yield_now();
    }
}
