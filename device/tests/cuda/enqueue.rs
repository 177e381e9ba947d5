//! Work that code of others gives to the stream of an account.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chare_device::{
    Account, CudaStream, DeviceError, DevicePtr, DeviceVec, Devices, Each, Fault, HostMode, In, InOut,
    Kernel, Launch, Maybe, Out, Zeroed,
};
use cudarc::driver::{result, sys};

use crate::apart::apart;
use crate::kernels::register;

const ADD: Kernel<(InOut<u64>, u64)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [u64], u64)| {
        buffer.iter_mut().for_each(|x| *x += value);
    })
    .with_ptx("kernel add");

fn open() -> Devices {
    register(&ADD);
    Devices::open(&"cuda".parse().expect("a specification"), HostMode::Inline).expect("the stand-in opens")
}

fn values(account: &Account, buffer: &DeviceVec<u64>) -> Vec<u64> {
    account.download(buffer).expect("it is taken").wait().expect("it succeeds")
}

fn fault_of<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> Fault {
    match result {
        Err(DeviceError::Fault(fault)) => fault,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

/// Copies all of a buffer to another one, as a library would.
fn copy(stream: &CudaStream<'_>, from: DevicePtr<u64>, to: DevicePtr<u64>) -> Result<(), String> {
    assert_eq!(from.len(), to.len());
    let (from, to, bytes) = (from.as_ptr() as u64, to.as_ptr() as u64, from.len() * 8);
    let raw = stream.as_ptr().cast::<sys::CUstream_st>();
    // SAFETY: the buffers have this length, one is read and the other written.
    unsafe { result::memcpy_dtod_async(to, from, bytes, raw) }.map_err(|error| error.to_string())
}

#[test]
fn code_of_others_is_ordered_as_a_launch() {
    apart("enqueue::code_of_others_is_ordered_as_a_launch", &[], || {
        let devices = open();
        let [one, other] = ["one", "other"].map(|label| devices.get(0).account(label));
        let mut from = one.upload(vec![1_u64; 100]).expect("memory");
        let mut to = other.alloc::<u64>(100).expect("memory");
        for _ in 0..50 {
            one.launch(&ADD, 100, (&mut from, 1)).expect("it is taken");
            let done =
                other.enqueue_cuda::<(In<u64>, Out<u64>)>("copy", (&from, &mut to), |stream, (a, b)| {
                    copy(&stream, a, b)
                });
            drop(done.expect("it is taken"));
            one.launch(&ADD, 100, (&mut from, 1)).expect("it is taken");
        }
        assert_eq!((values(&one, &from), values(&other, &to)), (vec![101; 100], vec![100; 100]));
        // Snapshots, zeros, groups and absent buffers are those of a launch.
        let share = to.share();
        let mut zeroed = other.upload(vec![5_u64; 100]).expect("memory");
        type Params = (Each<InOut<u64>, 1>, Zeroed<u64>, Maybe<In<u64>>, u64);
        let seen =
            other.enqueue_cuda::<Params>("look", ([&mut to], &mut zeroed, None::<&DeviceVec<u64>>, 7), {
                |stream, ([to], zeroed, absent, scalar)| {
                    assert!(absent.is_none() && scalar == 7 && !to.is_empty());
                    copy(&stream, zeroed, to)
                }
            });
        seen.expect("it is taken").wait().expect("all is well");
        assert_eq!(other.download(&share).expect("it is taken").wait().expect("all is well"), [100; 100]);
        assert_eq!((values(&other, &to), values(&other, &zeroed)), (vec![0; 100], vec![0; 100]));
        // More than a stream is given at once: what is held is called in its turn, by whoever looks.
        let numbers = Arc::new(std::sync::Mutex::new(Vec::new()));
        for number in 0..2000 {
            let numbers = numbers.clone();
            let noted = one.enqueue_cuda::<(InOut<u64>,)>("number", (&mut from,), move |_, _| {
                numbers.lock().expect("no test panics here").push(number);
                Ok(())
            });
            drop(noted.expect("it is taken"));
        }
        one.fence().expect("it is taken").wait().expect("all is well");
        assert_eq!(*numbers.lock().expect("no test panics here"), (0..2000).collect::<Vec<_>>());
        devices.close();
        let after = other.enqueue_cuda::<(In<u64>,)>("late", (&to,), |_, _| panic!("it is not called"));
        assert!(matches!(after, Err(DeviceError::Closed { .. })), "{after:?}");
    });
}

#[test]
fn code_of_others_that_fails_is_a_fault() {
    apart("enqueue::code_of_others_that_fails_is_a_fault", &[], || {
        let devices = open();
        let account = devices.get(0).account("failing");
        let mut buffer = account.upload(vec![1_u64]).expect("memory");
        let failed = account.enqueue_cuda::<(InOut<u64>,)>("refuses", (&mut buffer,), |_, _| {
            Err("CUBLAS_STATUS_NOT_SUPPORTED".to_owned())
        });
        let fault = fault_of(failed.expect("it is taken").wait());
        assert_eq!(
            fault.to_string(),
            "kernel `refuses` of failing failed on cuda:0: kernel `refuses` cannot be launched on cuda:0: \
             CUBLAS_STATUS_NOT_SUPPORTED"
        );
        assert_eq!(fault_of(account.download(&buffer).expect("it is taken").wait()), fault, "it is spoiled");
        let panicked = account.enqueue_cuda::<(Out<u64>,)>("panics", (&mut buffer,), |_, _| panic!("oh"));
        let fault = fault_of(panicked.expect("it is taken").wait());
        assert!(fault.kernel == "panics" && fault.message.contains("oh, at "), "{fault}");
        // The device goes on.
        let mut other = account.upload(vec![3_u64]).expect("memory");
        account.launch(&ADD, 1, (&mut other, 1)).expect("it is taken");
        assert_eq!(values(&account, &other), [4]);
    });
}

#[test]
fn code_of_others_that_uses_its_devices_is_stopped() {
    apart("enqueue::code_of_others_that_uses_its_devices_is_stopped", &[], || {
        let devices = open();
        let account = devices.get(0).account("nested");
        let mut buffer = account.upload(vec![1_u64]).expect("memory");
        let (beside, pending) = (account.clone(), account.fence().expect("it is taken"));
        let called = Arc::new(AtomicBool::new(false));
        let note = called.clone();
        let launches = account.enqueue_cuda::<(InOut<u64>,)>("launches", (&mut buffer,), move |_, _| {
            note.store(true, Ordering::Relaxed);
            beside.fence().map(drop).map_err(|error| error.to_string())
        });
        let said = "must not use its devices otherwise";
        let fault = fault_of(launches.expect("it is taken").wait());
        assert!(called.load(Ordering::Relaxed) && fault.message.contains(said), "{fault}");
        let waits = account.enqueue_cuda::<(Out<u64>,)>("waits", (&mut buffer,), move |_, _| {
            pending.wait().map_err(|error| error.to_string())
        });
        // What has ended may be awaited.
        match waits.expect("it is taken").wait() {
            Ok(()) => {}
            Err(error) => assert!(error.to_string().contains(said), "{error}"),
        }
        let mut other = account.upload(vec![3_u64]).expect("memory");
        account.launch(&ADD, 1, (&mut other, 1)).expect("it is taken");
        assert_eq!(values(&account, &other), [4]);
    });
}
