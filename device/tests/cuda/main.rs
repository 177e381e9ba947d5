//! The CUDA layer against the stand-in for `libcuda.so`: what it does with a driver, without a GPU.

#![cfg(target_os = "linux")]

#[path = "../stand_in/apart.rs"]
mod apart;
mod code;
mod compile;
mod enqueue;
mod fault;
mod graph;
mod ipc;
#[path = "../stand_in/kernels.rs"]
mod kernels;
mod memory;
mod neutral;
mod order;
mod replay;
mod setting;
mod sources;

use chare_device::cuda::{Cuda, CudaError};

use apart::{apart, child};
use setting::*;

#[test]
fn devices_are_described() {
    apart("devices_are_described", &[("STAND_IN_DEVICES", "3"), ("STAND_IN_MEMORY_MIB", "64")], || {
        let cuda = open();
        assert_eq!(cuda.len(), 3);
        let gpu = cuda.gpu(1);
        assert_eq!((gpu.name(), gpu.capability(), gpu.total_bytes()), ("cuda:1", (9, 0), 64 << 20));
        assert_eq!(gpu.uuid(), "GPU-63756461-2073-7461-6e64-2d696e200001");
        assert_eq!(gpu.free_bytes().expect("no fault"), 64 << 20);
        assert!(gpu.reaches(&cuda.gpu(2)) && gpu.fault().is_none());
    });
}

#[test]
fn streams_are_made_when_they_are_used() {
    apart("streams_are_made_when_they_are_used", &[], || {
        let cuda = open();
        let made = || stand_in().call_count("cuStreamCreateWithPriority");
        let (one, other) = (stream(&cuda.gpu(0)), stream(&cuda.gpu(0)));
        assert_eq!(made(), 0);
        let block = block_of(&cuda, &one, 9, 1);
        assert!(holds(&cuda, &one, &block, 1));
        assert_eq!(made(), 1);
        assert!(holds(&cuda, &other, &block, 1));
        assert_eq!(made(), 2);
        cuda.gpu(0).record("empty", |_| Ok(())).expect("a graph");
        cuda.gpu(0).record("empty", |_| Ok(())).expect("a graph");
        assert_eq!(made(), 3, "one stream records all graphs");
    });
}

#[test]
fn devices_can_be_opened_twice() {
    apart("devices_can_be_opened_twice", &[], || {
        let (first, second) = (open(), open());
        let (one, other) = (stream(&first.gpu(0)), stream(&second.gpu(0)));
        let (a, b) = (block_of(&first, &one, 9, 1), block_of(&second, &other, 9, 2));
        assert!(holds(&first, &one, &a, 1) && holds(&second, &other, &b, 2));
        drop((first, one, a));
        assert!(holds(&second, &other, &b, 2));
    });
}

#[test]
fn no_device_is_a_clear_error() {
    apart("no_device_is_a_clear_error", &[("STAND_IN_DEVICES", "0")], || {
        let message = Cuda::open(settings()).err().expect("an error").to_string();
        assert!(message.starts_with("CUDA is there but no device: CUDA_ERROR_NO_DEVICE"), "{message}");
    });
}

#[test]
fn an_old_driver_is_a_clear_error() {
    apart("an_old_driver_is_a_clear_error", &[("STAND_IN_DRIVER", "12040")], || {
        let message = Cuda::open(settings()).err().expect("an error").to_string();
        assert!(message.contains("it has CUDA 12.4, needed is 12.8; update the driver"), "{message}");
    });
}

#[test]
fn no_driver_is_a_clear_error() {
    let name = "no_driver_is_a_clear_error";
    if std::env::var_os("CHARE_TEST_IS_APART").is_some() {
        match Cuda::open(settings()) {
            Err(error @ CudaError::NoDriver) => println!("said: {error}"),
            Err(other) => panic!("{other}"),
            Ok(_) => println!("said: this machine has a driver"),
        }
        return;
    }
    let output = child(name, &[]).env_remove("LD_LIBRARY_PATH").output().expect("it can be started again");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        said.contains("said: no CUDA: libcuda not found") || said.contains("said: this machine has a driver"),
        "{said}"
    );
}
