//! The `cuda` backend by the face that all backends have: what goes wrong on a GPU, and who is told.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::thread::Thread;

use chare_device::cuda::look;
use chare_device::{
    Account, DeviceError, DeviceVec, Devices, Fault, Grid, HostMode, In, InOut, Kernel, Launch, Out, Rest,
};
use cuda_stand_in::Parameter;

use crate::apart::{apart, child};
use crate::kernels::register;
use crate::setting::stand_in;

pub(crate) const ADD: Kernel<(InOut<u64>, u64)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [u64], u64)| {
        buffer.iter_mut().for_each(|x| *x += value);
    })
    .with_ptx("kernel add");
const COPY: Kernel<(In<u64>, Out<u64>)> =
    Kernel::new("copy", |_: &Launch, (from, to): (&[u64], &mut [u64])| to.copy_from_slice(from))
        .with_ptx("kernel copy");
const ASTRAY: Kernel<(InOut<u64>,)> =
    Kernel::new("astray", |_: &Launch, (buffer,): (&mut [u64],)| buffer[0] = buffer[buffer.len()])
        .with_ptx("kernel astray");

pub(crate) fn open() -> Devices {
    register(&ADD);
    register(&COPY);
    register(&ASTRAY);
    Devices::open(&"cuda".parse().expect("a specification"), HostMode::Inline).expect("the stand-in opens")
}

pub(crate) fn values(account: &Account, buffer: &DeviceVec<u64>) -> Vec<u64> {
    account.download(buffer).expect("it is taken").wait().expect("it succeeds")
}

fn fault_of<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> Fault {
    match result {
        Err(DeviceError::Fault(fault)) => fault,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

/// Waits until [`close_gate`]'s answer is dropped.
const GATE: Kernel<(InOut<u64>,)> =
    Kernel::new("gate", |_: &Launch, _: (&mut [u64],)| ()).with_ptx("kernel gate");

fn close_gate() -> Sender<()> {
    let (open, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    on_each_launch("gate", move || {
        let _ = gate.lock().expect("no test panics here").recv();
    });
    open
}

/// Makes `code` what a kernel with one buffer does.
fn on_each_launch(name: &str, code: impl Fn() + Send + Sync + 'static) {
    let number = Parameter::Value { bytes: 8 };
    let parameters = [Parameter::Address { align: 8 }, number, Parameter::Value { bytes: 12 }];
    stand_in().register(name, &parameters, move |_, _| {
        code();
        Ok(())
    });
}

#[test]
fn devices_are_described_by_the_driver() {
    let variables = [("STAND_IN_DEVICES", "3"), ("STAND_IN_MEMORY_MIB", "64")];
    apart("neutral::devices_are_described_by_the_driver", &variables, || {
        let open = |spec: &str| Devices::open(&spec.parse().expect("a specification"), HostMode::Inline);
        let devices = open("auto").expect("it opens");
        assert_eq!(devices.len(), 3);
        assert!(devices.reason().starts_with("CUDA, since there are GPUs and "), "{}", devices.reason());
        let two = open("cuda:2,1:mem=1MiB").expect("it opens");
        let about: Vec<_> = two.iter().map(|device| (device.name(), device.capacity_bytes())).collect();
        assert_eq!(about, [("cuda:2", 1 << 20), ("cuda:1", 1 << 20)]);
        assert_eq!(two.get(1).uuid(), "GPU-63756461-2073-7461-6e64-2d696e200001");
        assert_eq!((two.get(0).uuid(), devices.get(2).capacity_bytes()), (devices.get(2).uuid(), 64 << 20));
        let missing = open("cuda:0,3").expect_err("there are three").to_string();
        assert_eq!(
            missing,
            "no CUDA: CUDA is there but no device: `cuda:3` was asked for, and there are 3, from `cuda:0`"
        );
        assert!(open("auto:inline").expect("it opens").get(0).name().starts_with("host"));
    });
}

/// `CUDA_ERROR_DEVICE_UNAVAILABLE`: another process has the device for itself.
const UNAVAILABLE: i32 = 46;

#[test]
fn only_the_devices_that_are_asked_for_are_opened() {
    let name = "neutral::only_the_devices_that_are_asked_for_are_opened";
    apart(name, &[("STAND_IN_DEVICES", "4")], || {
        let open = |spec: &str| Devices::open(&spec.parse().expect("a specification"), HostMode::Inline);
        let calls = |function| stand_in().call_count(function);
        assert_eq!(look().expect("it answers"), 4);
        stand_in().fail_device(1, UNAVAILABLE);
        register(&ADD);
        let devices = open("cuda:3,0").expect("neither is taken");
        assert_eq!(calls("cuDevicePrimaryCtxRetain"), 2);
        assert_eq!(calls("cuCtxEnablePeerAccess"), 2, "each of the two reaches the other");
        assert_eq!(calls("cuStreamCreateWithPriority"), 0);
        for (device, name) in devices.iter().zip(["cuda:3", "cuda:0"]) {
            assert_eq!(device.name(), name);
            let account = device.account("works");
            let mut buffer = account.upload(vec![1, 2]).expect("there is memory");
            account.launch(&ADD, 2, (&mut buffer, 1)).expect("it is taken");
            assert_eq!(values(&account, &buffer), [2, 3]);
        }
        let account = devices.get(0).account("brings over");
        let far = devices.get(1).account("far").upload(vec![7]).expect("there is memory");
        let near = account.import(&far.share()).expect("it is taken");
        assert_eq!(account.download(&near).expect("it is taken").wait().expect("it succeeds"), [7]);
        let wanted = "no CUDA: cuda:1 cannot be opened: cuDevicePrimaryCtxRetain: CUDA_ERROR_DEVICE_UNAVAILABLE (CUDA-capable \
                      device(s) is/are busy or unavailable); leave it out by naming others, as in `--device cuda:0,2`";
        for spec in ["cuda", "cuda:1", "cuda:0,1"] {
            assert_eq!(open(spec).expect_err("one is taken").to_string(), wanted, "{spec}");
        }
        let before = calls("cuDevicePrimaryCtxRelease_v2");
        drop((far, near, account, devices));
        assert_eq!(calls("cuDevicePrimaryCtxRelease_v2") - before, 2, "both are given back");
    });
}

#[test]
fn nvml_says_how_devices_are_doing() {
    let variables = [("STAND_IN_DEVICES", "3"), ("STAND_IN_MEMORY_MIB", "64"), ("STAND_IN_NEAR_CPU", "62")];
    apart("neutral::nvml_says_how_devices_are_doing", &variables, || {
        let devices = Devices::open(&"cuda:2,0,1".parse().expect("a specification"), HostMode::Inline);
        let vitals = devices.expect("it opens").vitals();
        let said: Vec<_> = vitals.iter().map(ToString::to_string).collect();
        let wanted = [
            "20 % busy, 3 of 64 MiB taken, 42 °C, near processors 0",
            "0 % busy, 1 of 64 MiB taken, 40 °C, near processors 62",
            "10 % busy, 2 of 64 MiB taken, 41 °C, near processors 63",
        ];
        assert_eq!(said, wanted);
    });
}

#[test]
fn without_nvml_all_is_unknown() {
    let name = "neutral::without_nvml_all_is_unknown";
    if std::env::var_os("CHARE_TEST_IS_APART").is_some() {
        println!("said: {}", open().vitals()[1]);
        return;
    }
    let folder = cuda_stand_in::folder().join("alone");
    std::fs::create_dir_all(&folder).expect("the folder of the tests can be written");
    // It may be there already.
    let _ = std::os::unix::fs::symlink(cuda_stand_in::folder().join("libcuda.so"), folder.join("libcuda.so"));
    let output = child(name, &[]).env("LD_LIBRARY_PATH", folder).output().expect("it can be started again");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let has_nvml = said.contains(" % busy") && !said.contains("near processors 0-63");
    assert!(
        has_nvml || said.contains("said: load, memory, temperature and near processors unknown"),
        "{said}"
    );
}

#[test]
fn without_a_driver_the_reason_is_said() {
    let name = "neutral::without_a_driver_the_reason_is_said";
    if std::env::var_os("CHARE_TEST_IS_APART").is_some() {
        let open = |spec: &str| Devices::open(&spec.parse().expect("a specification"), HostMode::Inline);
        match open("cuda") {
            Err(error) => println!("said: {error}"),
            Ok(_) => println!("said: this machine has a driver"),
        }
        println!("chose: {}", open("auto").expect("something opens").reason());
        return;
    }
    let output = child(name, &[]).env_remove("LD_LIBRARY_PATH").output().expect("it can be started again");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_clear = said.contains("said: no CUDA: libcuda not found")
        && said.contains("chose: the host: no CUDA: libcuda not found");
    assert!(is_clear || said.contains("said: this machine has a driver"), "{said}");
}

/// Looks once, then sleeps until something can be looked for. How often it slept; a wake-up that is lost makes this sleep for ever,
/// as it does not trust the time that it is told.
fn sleep_until_it_can_look(devices: &Devices, mut asleep: impl FnMut()) -> u32 {
    let mut slept = 0;
    loop {
        match devices.before_park(false) {
            Rest::LookFirst => return slept,
            Rest::Unlimited => panic!("something is pending"),
            _ => {
                asleep();
                std::thread::park();
                devices.after_park();
                slept += 1;
            }
        }
    }
}

#[test]
fn who_sleeps_is_woken_by_the_device() {
    apart("neutral::who_sleeps_is_woken_by_the_device", &[], || {
        let devices = open();
        let [one, other] = ["one", "other"].map(|label| devices.get(0).account(label));
        let (mut a, mut b) = (one.alloc::<u64>(1).expect("memory"), other.alloc::<u64>(1).expect("memory"));
        assert!(devices.poll());
        for _ in 0..20 {
            let mut gate = Some(close_gate());
            drop(one.launch(&GATE, 1, (&mut a,)).expect("it is taken"));
            let last = other.launch(&COPY, 1, (&a, &mut b)).expect("it is taken");
            let looks = devices.get(0).looks();
            while !last.is_ready() {
                // The kernel is let go when this thread has nothing to do but to sleep.
                sleep_until_it_can_look(&devices, || drop(gate.take()));
                devices.poll();
            }
            // The gate's end and the copy's, perhaps a fill's before: not many.
            let looks = devices.get(0).looks() - looks;
            assert!((1..=6).contains(&looks), "{looks} looks");
            last.wait().expect("no fault");
        }
        // Nothing is pending; who wanted to know just that is told so.
        let rests = [false, true].map(|is_last_awake| devices.before_park(is_last_awake));
        assert_eq!(rests, [Rest::Unlimited, Rest::LookFirst]);
    });
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[test]
fn whoever_looks_sees_to_those_that_sleep() {
    apart("neutral::whoever_looks_sees_to_those_that_sleep", &[("STAND_IN_WORKERS", "4")], || {
        let devices = open();
        let rounds = 200;
        std::thread::scope(|scope| {
            for index in 0..4 {
                let devices = &devices;
                scope.spawn(move || {
                    let account = devices.get(0).account(format!("{index}"));
                    let mut buffer = account.alloc::<u64>(1).expect("memory");
                    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                    let mut context = Context::from_waker(&waker);
                    for _ in 0..rounds {
                        let mut ended = account.launch(&ADD, 1, (&mut buffer, 1)).expect("it is taken");
                        while Pin::new(&mut ended).poll(&mut context).is_pending() {
                            match devices.before_park(false) {
                                Rest::LookFirst => drop(devices.poll()),
                                // As above; another one that ends it unparks this one by the waker.
                                Rest::AtMost(_) => std::thread::park(),
                                _ => {}
                            }
                            devices.after_park();
                        }
                    }
                    assert_eq!(values(&account, &buffer), [rounds]);
                });
            }
        });
    });
}

#[test]
fn what_is_known_to_be_spoiled_is_not_run_on() {
    apart("neutral::what_is_known_to_be_spoiled_is_not_run_on", &[], || {
        let devices = open();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        on_each_launch("gate", move || {
            counted.fetch_add(1, Ordering::SeqCst);
        });
        // It takes no parameters, as far as the driver knows: it is refused.
        stand_in().register("astray", &[], |_, _| Ok(()));
        let [one, other] = ["one", "other"].map(|label| devices.get(0).account(label));
        let mut buffer = one.alloc::<u64>(4).expect("memory");
        let mut copy = one.alloc::<u64>(4).expect("memory");
        // Before anybody has looked, and on another stream; then after its end.
        let mut failed = vec![one.launch(&ASTRAY, 4, (&mut buffer,)).expect("it is taken")];
        failed.push(other.launch(&COPY, 4, (&buffer, &mut copy)).expect("it is taken"));
        failed.push(one.launch(&GATE, 4, (&mut copy,)).expect("it is taken"));
        let faults: Vec<_> = failed.into_iter().map(|failed| fault_of(failed.wait())).collect();
        assert!(faults.iter().all(|fault| *fault == faults[0] && fault.kernel == "astray"), "{faults:?}");
        assert_eq!(fault_of(other.launch(&GATE, 4, (&mut copy,)).expect("it is taken").wait()), faults[0]);
        assert_eq!(runs.load(Ordering::SeqCst), 0);
        // What will be overwritten by then is run on.
        let fresh = other.upload(vec![3_u64; 4]).expect("memory");
        other.launch(&COPY, 4, (&fresh, &mut copy)).expect("it is taken");
        one.launch(&GATE, 4, (&mut copy,)).expect("it is taken").wait().expect("no fault");
        assert_eq!((runs.load(Ordering::SeqCst), values(&one, &copy)), (1, vec![3; 4]));
    });
}

#[test]
fn a_kernel_fault_fails_all_who_wait_for_its_device() {
    apart("neutral::a_kernel_fault_fails_all_who_wait_for_its_device", &[], || {
        let devices = open();
        let [one, other] = ["one", "other"].map(|label| devices.get(0).account(label));
        let far = devices.get(1).account("far");
        let mut buffer = one.alloc::<u64>(4).expect("memory");
        let mut beside = other.upload(vec![1_u64, 2]).expect("memory");
        let mut target = far.alloc::<u64>(4).expect("memory");
        // What is known to be done is no suspect.
        for account in [&one, &other] {
            account.fence().expect("it is taken").wait().expect("no fault");
        }
        let failed = one.launch(&ASTRAY, 4, (&mut buffer,)).expect("it is taken");
        let imported = far.import(&buffer.share()).expect("it is taken");
        let dependent = far.launch(&COPY, 4, (&imported, &mut target)).expect("it is taken");
        let fault = fault_of(failed.wait());
        let expected = "kernel `astray` of one failed on cuda:0: CUDA_ERROR_ASSERT (device-side assert triggered); the device \
                        cannot be used again by this process";
        assert_eq!(fault.to_string(), expected);
        // Whoever waits there, whoever comes later, and what depends on it elsewhere.
        assert_eq!(fault_of(dependent.wait()), fault);
        assert_eq!(fault_of(far.download(&target).expect("it is taken").wait()), fault);
        assert_eq!(fault_of(other.launch(&ADD, 2, (&mut beside, 1)).expect("it is taken").wait()), fault);
        assert_eq!(fault_of(other.fence().expect("it is taken").wait()), fault);
        let refused = other.alloc::<u64>(1 << 20).expect_err("the device is lost");
        assert!(matches!(refused, DeviceError::Lost { .. }), "{refused:?}");
        assert!(
            refused.to_string().starts_with("kernel `astray` failed on cuda:0: CUDA_ERROR_ASSERT"),
            "{refused}"
        );
        // The other device goes on, and what was spoiled there is whole again when it is overwritten.
        let fresh = far.upload(vec![7_u64; 4]).expect("memory");
        far.launch(&COPY, 4, (&fresh, &mut target)).expect("it is taken");
        far.launch(&ADD, 4, (&mut target, 1)).expect("it is taken");
        assert_eq!(values(&far, &target), [8; 4]);
        devices.close();
        assert_eq!(devices.pending(), 0);
        assert!(devices.take_unreported_faults().is_empty());
    });
}

#[test]
fn a_dropped_fault_is_returned_by_the_next_call() {
    apart("neutral::a_dropped_fault_is_returned_by_the_next_call", &[], || {
        let devices = open();
        let account = devices.get(0).account("silent");
        let mut buffer = account.alloc::<u64>(4).expect("memory");
        account.fence().expect("it is taken").wait().expect("no fault");
        drop(account.launch(&ASTRAY, 4, (&mut buffer,)).expect("it is taken"));
        while devices.pending() > 0 {
            devices.poll();
        }
        assert_eq!(fault_of(account.fence()).kernel, "astray");
    });
}

#[test]
fn a_lost_device_fails_its_waiters_only() {
    apart("neutral::a_lost_device_fails_its_waiters_only", &[], || {
        let devices = open();
        let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
        let mut near = here.upload(vec![1_u64; 9]).expect("memory");
        let mut far = there.upload(vec![2_u64; 9]).expect("memory");
        here.fence().expect("it is taken").wait().expect("all is well");
        stand_in().fail_device(0, 999);
        let fault = fault_of(here.launch(&ADD, 9, (&mut near, 1)).expect("it is taken").wait());
        assert!(fault.message.contains("CUDA_ERROR_UNKNOWN") && &*fault.device == "cuda:0", "{fault}");
        there.launch(&ADD, 9, (&mut far, 3)).expect("it is taken");
        assert_eq!(values(&there, &far), [5; 9]);
        // What is on the lost device cannot be brought over.
        let copied = there.import(&near.share()).expect("it is taken");
        assert_eq!(fault_of(there.download(&copied).expect("it is taken").wait()), fault);
    });
}

#[test]
fn what_a_lost_device_was_copied_from_in_flight_is_not_trusted() {
    apart("neutral::what_a_lost_device_was_copied_from_in_flight_is_not_trusted", &[], || {
        let devices = open();
        let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
        let near = here.upload(vec![1_u64; 9]).expect("memory").share();
        let mut far = there.alloc::<u64>(1).expect("memory");
        here.fence().expect("it is taken").wait().expect("all is well");
        let open_gate = close_gate();
        let held = there.launch(&GATE, 1, (&mut far,)).expect("it is taken");
        let copied = there.import(&near).expect("it is taken");
        stand_in().fail_device(0, 999);
        let fault = fault_of(here.download(&near).expect("it is taken").wait());
        drop(open_gate);
        held.wait().expect("this device is not lost");
        assert_eq!(fault_of(there.download(&copied).expect("it is taken").wait()), fault);
    });
}

#[test]
fn what_depends_on_a_fault_ends_after_it() {
    apart("neutral::what_depends_on_a_fault_ends_after_it", &[], || {
        const NOTE: Kernel<(InOut<u64>,)> =
            Kernel::new("note", |_: &Launch, _: (&mut [u64],)| ()).with_ptx("kernel note");
        let devices = open();
        // The stream that is looked at first waits for the other one.
        let (first, second) = (devices.get(0).account("first"), devices.get(0).account("second"));
        let mut buffer = second.upload(vec![1_u64]).expect("memory");
        let mut noted = first.alloc::<u64>(1).expect("memory");
        let (done, is_done) = channel();
        let done = Mutex::new(done);
        on_each_launch("note", move || {
            done.lock().expect("no test panics here").send(()).expect("it is received")
        });
        let grid = Grid::new(1, 1, u32::MAX);
        let failed = second.launch(&ADD, grid, (&mut buffer, 1)).expect("it is taken");
        let dependent = first.download(&buffer).expect("it is taken");
        let last = first.launch(&NOTE, 1, (&mut noted,)).expect("it is taken");
        // So all before it is done, and nobody has looked.
        is_done.recv().expect("the kernel runs");
        let fault = fault_of(dependent.wait());
        assert_eq!(fault_of(failed.wait()), fault);
        last.wait().expect("it has nothing to do with it");
    });
}

#[test]
fn memory_that_others_hold_is_missed_and_not_waited_for() {
    let variables = [("STAND_IN_MEMORY_MIB", "8")];
    apart("neutral::memory_that_others_hold_is_missed_and_not_waited_for", &variables, || {
        let (devices, others) = (open(), open());
        let (mine, theirs) = (devices.get(0).account("mine"), others.get(0).account("theirs"));
        let held = theirs.alloc::<u8>(6 << 20).expect("memory");
        let _own = mine.alloc::<u8>(1 << 19).expect("memory");
        let cannot = |bytes: usize| mine.alloc::<u8>(bytes).expect_err("there is not so much").to_string();
        let rest = "and of 8388608 the driver has 1572864 free; others have 6291456, and buffers here 524288 with 0 between them; \
                    held by mine: 524288; drop buffers, end other programs on the device (`nvidia-smi` lists them), or choose \
                    another device with `--device`";
        for bytes in [4 << 20, 16 << 20] {
            assert_eq!(
                cannot(bytes),
                format!("cuda:0 is out of memory: mine asked for {bytes} bytes, {rest}")
            );
        }
        let spec = "cuda:mem=1MiB".parse().expect("a specification");
        let capped = Devices::open(&spec, HostMode::Inline).expect("it opens");
        assert_eq!(
            capped
                .get(0)
                .account("more")
                .alloc::<u8>(2 << 20)
                .expect_err("more than its capacity")
                .to_string(),
            "cuda:0 is out of memory: more asked for 2097152 bytes, 0 of 1048576 are in use; held by nobody; drop buffers, or \
             give the device more with `mem=`"
        );
        drop(held);
        theirs.fence().expect("it is taken").wait().expect("all is well");
        drop((theirs, others));
        drop(capped);
        let mut buffer = mine.alloc::<u64>(512 << 10).expect("it is free again");
        mine.launch(&ADD, 1, (&mut buffer, 2)).expect("it is taken").wait().expect("all is well");
    });
}

#[test]
fn memory_that_is_dropped_is_there_when_its_last_operation_has_ended() {
    let variables = [("STAND_IN_MEMORY_MIB", "8")];
    apart("neutral::memory_that_is_dropped_is_there_when_its_last_operation_has_ended", &variables, || {
        let devices = open();
        let account = devices.get(0).account("greedy");
        let gate = close_gate();
        let mut buffer = account.alloc::<u64>(640 << 10).expect("memory");
        let running = account.launch(&GATE, 1, (&mut buffer,)).expect("it is taken");
        drop(buffer);
        let error = account.alloc::<u64>(640 << 10).expect_err("it is still used").to_string();
        assert!(error.contains("held by greedy: 5242880; drop buffers"), "{error}");
        drop(gate);
        running.wait().expect("all is well");
        drop(account.alloc::<u64>(640 << 10).expect("it is free again"));
    });
}

#[test]
fn a_launch_that_the_driver_refuses_is_a_fault_of_its_own() {
    apart("neutral::a_launch_that_the_driver_refuses_is_a_fault_of_its_own", &[], || {
        let devices = open();
        let account = devices.get(0).account("large");
        let mut buffer = account.upload(vec![1_u64]).expect("memory");
        let grid = Grid::new(1, 1, u32::MAX);
        let fault = fault_of(account.launch(&ADD, grid, (&mut buffer, 1)).expect("it is taken").wait());
        assert!(fault.message.contains("kernel `add` cannot be launched on cuda:0: grid"), "{fault}");
        assert_eq!(fault_of(account.download(&buffer).expect("it is taken").wait()), fault, "it is spoiled");
        let other = account.upload(vec![5_u64]).expect("memory");
        account.launch(&COPY, 1, (&other, &mut buffer)).expect("it is taken");
        assert_eq!(values(&account, &buffer), [5]);
    });
}

#[test]
fn a_slow_stream_hides_no_other() {
    apart("neutral::a_slow_stream_hides_no_other", &[], || {
        let devices = open();
        let (slow, fast) = (devices.get(0).account("slow"), devices.get(0).account("fast"));
        let open_gate = close_gate();
        let (mut a, mut b) = (slow.alloc::<u64>(1).expect("memory"), fast.alloc::<u64>(1).expect("memory"));
        let held = slow.launch(&GATE, 1, (&mut a,)).expect("it is taken");
        for _ in 0..100 {
            fast.launch(&ADD, 1, (&mut b, 1)).expect("it is taken").wait().expect("all is well");
        }
        // What comes after the slow one has to wait, on whatever stream.
        let share = a.share();
        let after = fast.launch(&COPY, 1, (&share, &mut b)).expect("it is taken");
        devices.poll();
        assert!(!held.is_ready() && !after.is_ready() && devices.pending() == 2);
        drop(open_gate);
        after.wait().expect("all is well");
        held.wait().expect("all is well");
        assert_eq!(values(&fast, &b), [0]);
    });
}

#[test]
fn a_vector_of_the_program_is_pinned_once() {
    apart("neutral::a_vector_of_the_program_is_pinned_once", &[], || {
        let devices = open();
        let account = devices.get(0).account("own");
        let mut buffer = account.alloc::<u64>(100).expect("memory");
        let calls = || {
            let calls = ["cuMemHostRegister_v2", "cuMemHostUnregister", "cuMemHostAlloc"];
            calls.map(|call| stand_in().call_count(call))
        };
        let mut pinned = account.host_vec_of(vec![7_u64; 100]).expect("it is pinned");
        for _ in 0..10 {
            let written =
                account.write(&mut buffer, pinned).expect("it is taken").wait().expect("all is well");
            account.launch(&ADD, 100, (&mut buffer, 1)).expect("it is taken");
            pinned = account.read(&buffer, written).expect("it is taken").wait().expect("all is well");
        }
        assert_eq!((calls(), pinned[99]), ([1, 0, 0], 17));
        let own = pinned.into_vec();
        assert_eq!((calls(), own[99]), ([1, 1, 0], 17));
        drop(account.host_vec_of(own));
        assert_eq!(calls(), [2, 2, 0]);
        stand_in().fail_device(0, 999);
        stand_in().fail_device(1, 999);
        let refused = account.host_vec_of(vec![1_u64]).expect_err("no device is there").to_string();
        assert!(
            refused.contains("a vector of 1 elements of 8 bytes cannot be pinned where it is: "),
            "{refused}"
        );
        assert!(refused.contains("CUDA_ERROR_UNKNOWN"), "{refused}");
    });
}
