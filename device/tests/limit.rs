//! The time limit of kernels: who waits gets a fault, the device is lost, other devices go on, and nothing waits for a kernel that
//! never ends.

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "stand_in/apart.rs"]
mod apart;
#[cfg(all(feature = "cuda", target_os = "linux"))]
#[path = "stand_in/kernels.rs"]
mod register;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

use chare_device::{DeviceError, DeviceVec, Devices, Fault, HostMode, HostVec, InOut, Launch, kernel};

/// A place where kernels stay until it is opened.
struct Gate(Mutex<bool>, Condvar);

static GATE: Gate = Gate(Mutex::new(false), Condvar::new());

/// For the kernel of a graph.
static GRAPH_GATE: Gate = Gate(Mutex::new(false), Condvar::new());

impl Gate {
    fn pass(&self) {
        let open = self.0.lock().expect("nothing panics under this lock");
        drop(self.1.wait_while(open, |open| !*open).expect("nothing panics under this lock"));
    }

    fn open(&self) {
        *self.0.lock().expect("nothing panics under this lock") = true;
        self.1.notify_all();
    }
}

kernel! {
    const STUCK: fn stuck(buffer: InOut<u32>) {
        rust: |_: &Launch, (buffer,): (&mut [u32],)| {
            GATE.pass();
            buffer.fill(7);
        },
        ptx: "kernel stuck",
    }
}

kernel! {
    /// The first of its launches is stuck.
    const STUCK_ONCE: fn stuck_once(buffer: InOut<u32>) {
        rust: |_: &Launch, (buffer,): (&mut [u32],)| {
            static IS_LATER: AtomicBool = AtomicBool::new(false);
            if !IS_LATER.swap(true, Ordering::Relaxed) {
                GRAPH_GATE.pass();
            }
            buffer.fill(7);
        },
    }
}

kernel! {
    /// Takes a hundred microseconds, of which a slow device makes more.
    const BUSY: fn busy(buffer: InOut<u32>) {
        rust: |_: &Launch, (buffer,): (&mut [u32],)| {
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(100) {
                std::hint::spin_loop();
            }
            buffer[0] += 1;
        },
        ptx: "kernel busy",
    }
}

fn open(spec: &str) -> Devices {
    Devices::open(&spec.parse().expect("a specification"), HostMode::Inline).expect("it opens")
}

#[track_caller]
fn fault_of<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> Fault {
    match result {
        Err(DeviceError::Fault(fault)) => fault,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

/// Checks that the first device is lost by this fault, and the second one works.
#[track_caller]
fn expect_lost(devices: &Devices, fault: &Fault, kernel: &str, seconds: &str) {
    let text = fault.to_string();
    let expected = format!(
        "kernel `{kernel}` of first failed on {}: it has run for more than {seconds} s, which is the limit \
         (`--device-timeout`); the device counts as lost",
        devices.get(0).name()
    );
    assert_eq!(text, expected);
    let (other, second) = (devices.get(0).account("other"), devices.get(1).account("second"));
    assert_eq!(fault_of(other.fence().expect("it is taken").wait()), *fault);
    let mut whole: DeviceVec<u32> = second.alloc(2).expect("memory");
    second.launch(&BUSY, 1, (&mut whole,)).expect("it is taken").wait().expect("no fault");
    assert_eq!(second.download(&whole).expect("it is taken").wait().expect("no fault"), [1, 0]);
}

#[test]
fn a_kernel_that_takes_too_long_on_a_slow_device_is_a_fault() {
    for kind in ["inline", "workers=1", "workers=3", "polled"] {
        // A hundred microseconds are two seconds on the first device.
        let devices = open(&format!("host:2@1,20000:timeout=0.5:{kind}"));
        let first = devices.get(0).account("first");
        let mut buffer = first.upload(vec![1_u32; 4]).expect("memory");
        let failed = first.launch(&BUSY, 1, (&mut buffer,)).expect("it is taken");
        let dependent = first.download(&buffer);
        let fault = fault_of(failed.wait());
        assert_eq!(fault_of(dependent.expect("it is taken").wait()), fault, "{kind}");
        expect_lost(&devices, &fault, "busy", "0.5");
        assert!(devices.take_unreported_faults().is_empty(), "{kind}");
    }
}

#[test]
fn nobody_waits_for_a_kernel_that_never_ends() {
    let mut kept = Vec::new();
    for workers in [1, 2, 4] {
        let devices = open(&format!("host:2:timeout=0.5:workers={workers}"));
        let first = devices.get(0).account("first");
        let mut buffer = first.upload(vec![1_u32; 4]).expect("memory");
        let used_bytes = first.used_bytes();
        let failed = first.launch(&STUCK, 1, (&mut buffer,)).expect("it is taken");
        let after = first.launch(&BUSY, 1, (&mut buffer,)).expect("it is taken");
        let host: HostVec<u32> = first.host_vec(4).expect("memory");
        let read = first.read(&buffer, host).expect("it is taken");
        let fault = fault_of(failed.wait());
        assert_eq!(fault_of(after.wait()), fault);
        assert_eq!(fault_of(read.wait()), fault);
        expect_lost(&devices, &fault, "stuck", "0.5");
        // The kernel has its memory still.
        drop(buffer);
        assert_eq!(first.used_bytes(), used_bytes);
        devices.close();
        assert_eq!(devices.pending(), 0);
        kept.push((first, devices));
    }
    // The threads of these kernels go on, and give the memory back.
    GATE.open();
    for (first, _) in &kept {
        while first.used_bytes() > 0 {
            std::thread::yield_now();
        }
    }
}

#[test]
fn a_graph_that_is_stuck_on_one_device_is_replayed_on_another() {
    let devices = open("host:2:timeout=0.5:workers=2");
    let account = devices.get(0).account("first");
    let mut buffer = account.alloc::<u32>(4).expect("memory");
    let recorded = account.record::<(InOut<u32>,)>("once", |recording, (mut buffer,)| {
        recording.launch(&STUCK_ONCE, 1, (&mut buffer,))
    });
    let graph = recorded.expect("a graph");
    let fault = fault_of(graph.replay((&mut buffer,)).expect("it is taken").wait());
    assert_eq!(fault.kernel, "once");
    account.move_to(devices.get(1)).expect("there is room");
    let mut other = account.alloc::<u32>(4).expect("memory");
    graph.replay((&mut other,)).expect("it is taken").wait().expect("no fault");
    assert_eq!(account.download(&other).expect("it is taken").wait().expect("no fault"), [7; 4]);
    GRAPH_GATE.open();
}

#[test]
fn a_limit_that_is_kept_changes_nothing() {
    for kind in ["inline", "workers=2", "polled"] {
        let devices = open(&format!("host:2:timeout=1000:{kind}"));
        let account = devices.get(1).account("first");
        let mut buffer = account.alloc::<u32>(1).expect("memory");
        for _ in 0..100 {
            drop(account.launch(&BUSY, 1, (&mut buffer,)).expect("it is taken"));
        }
        assert_eq!(
            account.download(&buffer).expect("it is taken").wait().expect("no fault"),
            [100],
            "{kind}"
        );
    }
}

#[cfg(feature = "wgpu")]
kernel! {
    /// Takes a while, on GPUs too.
    const LONG: fn long(buffer: InOut<u32>) {
        rust: |_: &Launch, _: (&mut [u32],)| (),
        wgsl: "
            @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
            @compute @workgroup_size(64) fn long() {
                var value = 1u;
                for (var step = 0u; step < 10000u; step++) { value = value * 1664525u + (value >> 16u); }
                buffer[0] = value;
            }",
    }
}

/// What is not done when it is first looked for is overdue here.
#[cfg(feature = "wgpu")]
#[test]
fn a_batch_of_wgpu_that_takes_too_long_loses_its_device() {
    let open = |spec: &str| Devices::open(&spec.parse().expect("a specification"), HostMode::Inline);
    let devices = match open("wgpu:0x2:apart:timeout=0.000001") {
        Ok(devices) => devices,
        Err(error @ DeviceError::NotFound { .. }) => {
            let required = std::env::var("REQUIRE_DEVICE").is_ok_and(|kinds| kinds.contains("wgpu"));
            assert!(!required, "REQUIRE_DEVICE wants wgpu, and there is {error}");
            return println!("skipped: {error}");
        }
        Err(error) => panic!("{error}"),
    };
    let (first, second) = (devices.get(0).account("first"), devices.get(1).account("second"));
    let mut buffer = first.alloc::<u32>(4).expect("memory");
    let failed = first.launch(&LONG, 64 * 256, (&mut buffer,)).expect("it is taken");
    let read = first.download(&buffer).expect("it is taken");
    let fault = fault_of(failed.wait());
    assert_eq!((fault.kernel, &*fault.device, &*fault.owner), ("long", "wgpu:0", "first"));
    let lost =
        "the device is lost: it has run for more than 0.000001 s, which is the limit (`--device-timeout`)";
    assert!(fault.message.starts_with(lost), "{fault}");
    for later in [fault_of(read.wait()), fault_of(first.fence().expect("it is taken").wait())] {
        assert!(later.message.starts_with(lost), "{later}");
    }
    second.fence().expect("it is taken").wait().expect("the other device goes on");
    devices.close();
    assert_eq!(devices.pending(), 0);
}

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[test]
fn a_stream_of_cuda_that_is_stuck_loses_its_device() {
    apart::apart("a_stream_of_cuda_that_is_stuck_loses_its_device", &[], || {
        register::register(&STUCK);
        register::register(&BUSY);
        let devices = open("cuda:0,1:timeout=0.5");
        let first = devices.get(0).account("first");
        let beside = devices.get(0).account("beside");
        let mut buffer = first.upload(vec![1_u32; 4]).expect("memory");
        let mut other = beside.alloc::<u32>(1).expect("memory");
        let failed = first.launch(&STUCK, 1, (&mut buffer,)).expect("it is taken");
        let host: HostVec<u32> = first.host_vec(4).expect("memory");
        let read = first.read(&buffer, host).expect("it is taken");
        let fault = fault_of(failed.wait());
        assert_eq!(fault_of(read.wait()), fault);
        expect_lost(&devices, &fault, "stuck", "0.5");
        let refused = beside.launch(&BUSY, 1, (&mut other,)).expect("it is taken").wait();
        assert_eq!(fault_of(refused), fault);
        assert!(matches!(beside.alloc::<u32>(1 << 20), Err(DeviceError::Lost { .. })));
        devices.close();
        drop(devices);
        // What the driver may still write to is nobody else's by now.
        GATE.open();
    });
}

#[cfg(all(feature = "cuda", target_os = "linux"))]
#[test]
fn a_device_of_cuda_that_waits_for_a_stuck_one_goes_on() {
    apart::apart("a_device_of_cuda_that_waits_for_a_stuck_one_goes_on", &[], || {
        register::register(&STUCK);
        register::register(&BUSY);
        let devices = open("cuda:0,1:timeout=0.5");
        let (first, far) = (devices.get(0).account("first"), devices.get(1).account("far"));
        let mut buffer = first.upload(vec![1_u32; 4]).expect("memory");
        first.fence().expect("it is taken").wait().expect("no fault");
        let failed = first.launch(&STUCK, 1, (&mut buffer,)).expect("it is taken");
        let copied = far.copy(&buffer).expect("it is taken");
        let read = far.download(&copied).expect("it is taken");
        let fault = fault_of(failed.wait());
        // If the other device waited for the first one, this would be found one limit later, and would lose it too.
        assert_eq!(fault_of(read.wait()), fault);
        expect_lost(&devices, &fault, "stuck", "0.5");
        assert_eq!(devices.get(1).loss(), None);
        devices.close();
        GATE.open();
    });
}
