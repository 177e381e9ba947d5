//! The device suite: what holds for every backend. Each case runs inline, on one and on three worker threads,
//! and where memory is no address and operations run when somebody looks.

#![allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion")]

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use chare_device::{
    Account, Completion, DeviceError, DeviceSlice, DeviceSpec, DeviceVec, Devices, Each, HostMode, In, InOut,
    Kernel, Launch, Maybe, Out,
};

const FILL: Kernel<(Out<u64>, u64)> = Kernel::new("fill", fill);
const ADD: Kernel<(InOut<u64>, u64)> = Kernel::new("add", add);
const COPY: Kernel<(In<u64>, Out<u64>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[u64], &mut [u64])| to.copy_from_slice(from));
const PANIC: Kernel<(InOut<u64>,)> =
    Kernel::new("panic", |_: &Launch, (buffer,): (&mut [u64],)| panic!("no more {}", buffer.len()));
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
fn launches_of_one_account_run_in_order() {
    on_each("host", |devices| {
        let account = devices.get(0).account("order");
        let mut buffer = account.alloc::<u64>(4).unwrap();
        assert_eq!(values(&account, &buffer), [0; 4]);
        account.launch(&FILL, 4, (&mut buffer, 1)).unwrap();
        for _ in 0..10 {
            account.launch(&ADD, 4, (&mut buffer, 3)).unwrap();
        }
        assert_eq!(values(&account, &buffer), [31; 4]);
    });
}

#[test]
fn thousands_of_small_launches() {
    on_each("host", |devices| {
        let accounts: Vec<_> = (0..20).map(|n| devices.get(0).account(format!("a{n}"))).collect();
        let mut buffers: Vec<_> = accounts.iter().map(|account| account.alloc::<u64>(2).unwrap()).collect();
        for _ in 0..500 {
            for (account, buffer) in accounts.iter().zip(&mut buffers) {
                account.launch(&ADD, 2, (buffer, 1)).unwrap();
            }
        }
        for (account, buffer) in accounts.iter().zip(&buffers) {
            assert_eq!(values(account, buffer), [500; 2]);
        }
        for account in &accounts {
            account.fence().unwrap().wait().unwrap();
        }
        assert!(devices.take_unreported_faults().is_empty());
    });
}

#[test]
fn a_share_is_a_snapshot() {
    on_each("host", |devices| {
        let account = devices.get(0).account("snapshot");
        let mut buffer = account.upload(vec![1, 2, 3]).unwrap();
        let before = account.used_bytes();
        let one = buffer.share();
        account.launch(&ADD, 3, (&mut buffer, 10)).unwrap();
        let two = buffer.share();
        account.launch(&FILL, 3, (&mut buffer, 7)).unwrap();
        let read = |slice: &DeviceSlice<u64>| account.download(slice).unwrap().wait().unwrap();
        assert_eq!(read(&one), [1, 2, 3]);
        assert_eq!(read(&two), [11, 12, 13]);
        assert_eq!(values(&account, &buffer), [7, 7, 7]);
        assert_eq!(account.used_bytes(), 3 * before, "each snapshot has memory of its own");
        drop((one, two));
        account.launch(&ADD, 3, (&mut buffer, 1)).unwrap().wait().unwrap();
        assert_eq!(account.used_bytes(), before, "without shares writes are in place");
        assert_eq!(values(&account, &buffer), [8, 8, 8]);
    });
}

#[test]
fn a_kernel_may_read_a_share_of_what_it_writes() {
    on_each("host", |devices| {
        let account = devices.get(0).account("self");
        let mut buffer = account.upload(vec![4, 5]).unwrap();
        let share = buffer.share();
        account.launch(&ADD, 2, (&mut buffer, 1)).unwrap();
        account.launch(&COPY, 2, (&share, &mut buffer)).unwrap();
        assert_eq!(values(&account, &buffer), [4, 5]);
    });
}

#[test]
fn buffers_order_the_work_of_different_accounts() {
    on_each("host", |devices| {
        let [a, b, c] = ["a", "b", "c"].map(|label| devices.get(0).account(label));
        let mut source = a.alloc::<u64>(8).unwrap();
        let mut target = b.alloc::<u64>(8).unwrap();
        for round in 1..=200 {
            a.launch(&FILL, 8, (&mut source, round)).unwrap();
            b.launch(&COPY, 8, (&source.share(), &mut target)).unwrap();
            // Written again at once: after the read of `b`, or in other memory.
            c.launch(&ADD, 8, (&mut source, 1000)).unwrap();
            b.launch(&ADD, 8, (&mut target, 1)).unwrap();
            assert_eq!(values(&c, &source), [round + 1000; 8]);
            assert_eq!(values(&a, &target), [round + 1; 8]);
        }
    });
}

#[test]
fn swapped_buffers_keep_their_contents() {
    on_each("host", |devices| {
        let account = devices.get(0).account("swap");
        let (mut u, mut v) = (account.upload(vec![1]).unwrap(), account.upload(vec![100]).unwrap());
        for _ in 0..5 {
            account.launch(&COPY, 1, (&u, &mut v)).unwrap();
            account.launch(&ADD, 1, (&mut v, 1)).unwrap();
            std::mem::swap(&mut u, &mut v);
        }
        assert_eq!((values(&account, &u), values(&account, &v)), (vec![6], vec![5]));
    });
}

#[test]
fn groups_of_buffers_and_absent_ones() {
    type Gather = (Each<Maybe<In<u64>>, 3>, Each<Out<u64>, 2>);
    const GATHER: Kernel<Gather> =
        Kernel::new("gather", |_: &Launch, (from, [sum, count]): ([Option<&[u64]>; 3], [&mut [u64]; 2])| {
            sum[0] = from.iter().flatten().map(|part| part[0]).sum();
            count[0] = from.iter().flatten().count() as u64;
        });
    on_each("host", |devices| {
        let account = devices.get(0).account("groups");
        let one = account.upload(vec![5u64]).unwrap();
        let three = account.upload(vec![6u64]).unwrap().share();
        let mut out = [account.alloc::<u64>(1).unwrap(), account.alloc::<u64>(1).unwrap()];
        let parts = [Some(&one.share()), None, Some(&three)];
        account.launch(&GATHER, 1, (parts, out.each_mut())).unwrap();
        assert_eq!((values(&account, &out[0]), values(&account, &out[1])), (vec![11], vec![2]));
    });
}

#[test]
fn arrays_keep_their_shape() {
    on_each("host", |devices| {
        let account = devices.get(0).account("arrays");
        let array = ndarray::Array::from_shape_fn((2, 3, 4), |(i, j, k)| (100 * i + 10 * j + k) as f32);
        let buffer = account.from_array(&array).unwrap();
        assert_eq!((buffer.len(), buffer.shape().extents()), (24, &[2usize, 3, 4][..]));
        assert_eq!(account.to_array(&buffer, (2, 3, 4)).unwrap().wait().unwrap(), array);
        let refused = account.to_array(&buffer, (2, 3)).err();
        assert!(matches!(refused, Some(DeviceError::Shape { len: 24, wanted: 6 })), "{refused:?}");
        let refused = account.from_array(&array.t()).err();
        assert!(matches!(refused, Some(DeviceError::Layout)), "{refused:?}");
    });
}

#[test]
fn host_vectors_come_back_with_their_memory() {
    on_each("host", |devices| {
        let account = devices.get(0).account("pinned");
        let mut buffer = account.alloc::<u64>(3).unwrap();
        let mut values = account.host_vec::<u64>(3).unwrap();
        let address = values.as_ptr();
        for round in 1..=20 {
            values.copy_from_slice(&[round, 2 * round, 3 * round]);
            let share = buffer.share();
            let before = account.download(&share).unwrap();
            let written = account.write(&mut buffer, values).unwrap();
            account.launch(&ADD, 3, (&mut buffer, 1)).unwrap();
            values = written.wait().unwrap();
            assert_eq!(*values, [round, 2 * round, 3 * round]);
            values = account.read(&buffer, values).unwrap().wait().unwrap();
            assert_eq!(
                (&*values, values.as_ptr()),
                (&[round + 1, 2 * round + 1, 3 * round + 1][..], address)
            );
            let expected = if round == 1 { [0; 3] } else { [round, 2 * round - 1, 3 * round - 2] };
            assert_eq!(before.wait().unwrap(), expected, "a share keeps its values");
        }
        drop(values);
        let again = account.host_vec::<u64>(2).unwrap();
        assert_eq!(
            (&*again, again.as_ptr()),
            (&[0, 0][..], address),
            "the memory is there for the next, and cleared"
        );
        let refused = account.write(&mut buffer, again).err();
        assert!(matches!(refused, Some(DeviceError::Shape { len: 3, wanted: 2 })), "{refused:?}");
        let refused = account.host_vec::<u64>(usize::MAX / 4).err();
        assert!(matches!(refused, Some(DeviceError::HostMemory { .. })), "{refused:?}");
    });
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
fn a_fault_reaches_its_waiter_and_what_depends_on_it() {
    on_each("host", |devices| {
        let account = devices.get(0).account("chare 7");
        let mut buffer = account.alloc::<u64>(4).unwrap();
        let mut copied = account.alloc::<u64>(4).unwrap();
        let failed = account.launch(&PANIC, 4, (&mut buffer,)).unwrap();
        let dependent = account.launch(&COPY, 4, (&buffer, &mut copied)).unwrap();
        let read = account.download(&copied).unwrap();
        for fault in [fault_of(failed.wait()), fault_of(dependent.wait()), fault_of(read.wait())] {
            assert_eq!((fault.kernel, &*fault.device, &*fault.owner), ("panic", "host:0", "chare 7"));
            assert_eq!(&*fault.message, "no more 4");
            let place = fault.location.as_deref().expect("the hook has seen it");
            assert!(place.starts_with(&format!("{}:", file!())), "{place}");
            let text = format!("kernel `panic` of chare 7 failed on host:0 at {place}: no more 4");
            assert_eq!(fault.to_string(), text);
        }
        // Overwriting makes a buffer whole again, and the account works on.
        account.launch(&FILL, 4, (&mut buffer, 9)).unwrap();
        account.launch(&COPY, 4, (&buffer, &mut copied)).unwrap();
        assert_eq!(values(&account, &copied), [9; 4]);
        assert!(devices.take_unreported_faults().is_empty());
    });
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
fn a_fault_nobody_awaited_is_returned_by_the_next_call() {
    on_each("host", |devices| {
        let (account, other) = (devices.get(0).account("one"), devices.get(0).account("other"));
        let mut buffer = account.alloc::<u64>(1).unwrap();
        drop(account.launch(&PANIC, 1, (&mut buffer,)).unwrap());
        until_idle(devices);
        other.alloc::<u64>(1).unwrap();
        assert_eq!(fault_of(account.alloc::<u64>(1)).kernel, "panic");
        account.alloc::<u64>(1).unwrap();
        assert!(devices.take_unreported_faults().is_empty());
    });
}

#[test]
fn faults_that_nobody_asked_for_are_taken_at_the_end() {
    on_each("host", |devices| {
        let account = devices.get(0).account("silent");
        let mut buffers = [0; 3].map(|_| account.alloc::<u64>(1).unwrap());
        let [a, b, c] = &mut buffers;
        let unpolled = account.launch(&PANIC, 1, (a,)).unwrap();
        let awaited = account.launch(&PANIC, 1, (b,)).unwrap();
        assert_eq!(fault_of(awaited.wait()).kernel, "panic");
        drop(account.launch(&PANIC, 1, (c,)).unwrap());
        until_idle(devices);
        drop(account);
        assert_eq!(devices.take_unreported_faults().len(), 2);
        assert!(devices.take_unreported_faults().is_empty());
        assert!(unpolled.is_ready());
        fault_of(unpolled.wait());
    });
}

#[test]
fn out_of_memory_says_who_holds_it() {
    on_each("host:mem=64KiB", |devices| {
        let device = devices.get(0);
        let (small, large) = (device.account("small"), device.account("large"));
        let _a = small.alloc::<u8>(8 << 10).unwrap();
        let b = large.alloc::<u8>(32 << 10).unwrap();
        assert_eq!((device.used_bytes(), device.capacity_bytes()), (40 << 10, 64 << 10));
        let error = small.alloc::<u8>(32 << 10).unwrap_err();
        let DeviceError::OutOfMemory(details) = &error else { panic!("{error}") };
        assert_eq!((details.requested_bytes, details.used_bytes), (32 << 10, 40 << 10));
        assert_eq!(
            error.to_string(),
            "host:0 is out of memory: small asked for 32768 bytes, 40960 of 65536 are in use; held by large: 32768, small: 8192; \
             drop buffers, or give the device more with `mem=`"
        );
        // What is free in the pool, in whatever class, is there for everybody.
        drop(b);
        let c = small.alloc::<u64>(7 << 10).unwrap();
        assert_eq!(values(&small, &c), [0; 7 << 10]);
        assert!(large.alloc::<u64>([usize::MAX / 2]).is_err());
        assert!(large.alloc::<u8>([usize::MAX, 3]).is_err());
    });
}

#[test]
fn a_launch_that_is_refused_changes_nothing() {
    on_each("host:mem=8KiB", |devices| {
        let account = devices.get(0).account("full");
        let mut one = account.upload(vec![1u64; 256]).unwrap();
        let mut two = account.upload(vec![2u64; 256]).unwrap();
        let _filler = account.alloc::<u64>(256).unwrap();
        let shares = (one.share(), two.share());
        const BOTH: Kernel<(Out<u64>, Out<u64>)> =
            Kernel::new("both", |_: &Launch, (a, b): (&mut [u64], &mut [u64])| {
                a.fill(8);
                b.fill(9);
            });
        // There is memory to take one of the two aside, not both.
        let refused = account.launch(&BOTH, 1, (&mut one, &mut two)).err();
        assert!(matches!(refused, Some(DeviceError::OutOfMemory(_))), "{refused:?}");
        assert_eq!((values(&account, &one)[0], values(&account, &two)[0]), (1, 2));
        drop(shares);
        account.launch(&BOTH, 1, (&mut one, &mut two)).unwrap();
        assert_eq!((values(&account, &one)[255], values(&account, &two)[255]), (8, 9));
    });
}

#[test]
fn memory_is_recycled_and_new_buffers_are_zeroed() {
    on_each("host", |devices| {
        let account = devices.get(0).account("recycle");
        for round in 0..50 {
            let mut buffer = account.alloc::<u64>(100).unwrap();
            assert_eq!(values(&account, &buffer), [0; 100], "round {round}");
            account.launch(&FILL, 100, (&mut buffer, u64::MAX)).unwrap();
            drop(buffer);
            account.fence().unwrap().wait().unwrap();
        }
        assert_eq!((account.used_bytes(), devices.get(0).used_bytes()), (0, 0));
    });
}

#[test]
fn buffers_of_another_device_are_imported() {
    on_each("host:2", |devices| {
        let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
        let source = there.upload(vec![3u64, 4]).unwrap();
        let mut target = here.alloc::<u64>(2).unwrap();
        let refused = here.launch(&COPY, 2, (&source, &mut target)).err();
        assert!(matches!(refused, Some(DeviceError::WrongDevice { .. })), "{refused:?}");
        let local = here.import(&source.share()).unwrap();
        drop(source);
        here.launch(&COPY, 2, (&local, &mut target)).unwrap();
        let copies = |ordinal: usize| {
            let copies = devices.get(ordinal).copies();
            [copies.from_host, copies.to_host, copies.from_peers]
        };
        assert_eq!([copies(0), copies(1)], [[0, 0, 1], [1, 0, 0]]);
        assert_eq!(values(&here, &target), [3, 4]);
        assert_eq!(here.import(&local).unwrap().len(), 2);
        assert_eq!(copies(0), [0, 1, 1]);
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
fn a_kept_completion_keeps_its_fault() {
    on_each("host", |devices| {
        let account = devices.get(0).account("keeper");
        let mut buffers = [0; 2].map(|_| account.alloc::<u64>(1).unwrap());
        let [a, b] = &mut buffers;
        let kept = account.launch(&PANIC, 1, (a,)).unwrap();
        drop(account.launch(&PANIC, 1, (b,)).unwrap());
        until_idle(devices);
        assert_eq!(devices.take_dropped_faults().len(), 1);
        assert_eq!(fault_of(kept.wait()).kernel, "panic");
        assert!(devices.take_unreported_faults().is_empty());
    });
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
    let absent = [("cuda", "cuda"), ("wgpu:0:mem=1GiB", "wgpu")];
    for (spec, backend) in
        absent.into_iter().filter(|(_, backend)| *backend != "wgpu" || !cfg!(feature = "wgpu"))
    {
        let error = Devices::open(&spec.parse().unwrap(), HostMode::Inline).unwrap_err().to_string();
        let text = format!(
            "this build has no `{backend}`: build it with `--features {backend}`, or use `--device auto` or `host`"
        );
        assert_eq!(error, text);
    }
}

#[test]
fn devices_have_names_and_a_reason() {
    let devices = Devices::open(&DeviceSpec::default(), HostMode::Workers(1)).unwrap();
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
