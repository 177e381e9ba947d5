//! Devices that are lost: what takes a look inside to be caused.

use std::sync::Arc;

use super::Wgpu;
use super::inbox::Shared;
use crate::backend::Opened;
use crate::device::Devices;
use crate::error::DeviceError;
use crate::fault::Fault;
use crate::{In, InOut, Launch, kernel};

kernel! {
    const ADD: fn add(buffer: InOut<u32>, value: u32) {
        rust: |_: &Launch, (buffer, value): (&mut [u32], u32)| buffer.iter_mut().for_each(|x| *x += value),
        wgsl: "
            struct Arguments { grid: vec3<u32>, present: u32, @align(16) value: u32 }
            @group(0) @binding(0) var<storage, read_write> buffer: array<u32>;
            @group(0) @binding(1) var<uniform> arguments: Arguments;
            @compute @workgroup_size(64) fn add(@builtin(global_invocation_id) at: vec3<u32>) {
                if at.x < arguments.grid.x { buffer[at.x] += arguments.value; }
            }",
    }
}

kernel! {
    const SUM: fn sum(from: In<u32>, to: InOut<u32>) {
        rust: |_: &Launch, (from, to): (&[u32], &mut [u32])| to[0] += from[0],
        wgsl: "
            @group(0) @binding(0) var<storage, read> from_array: array<u32>;
            @group(0) @binding(1) var<storage, read_write> to_array: array<u32>;
            @compute @workgroup_size(1) fn sum() { to_array[0] += from_array[0]; }",
    }
}

/// Two devices of one adapter that share nothing, and how to get inside; `None`, and a word about it, on a machine without adapters.
fn open() -> Option<(Devices, Vec<Arc<Shared>>)> {
    open_as("wgpu:0x2:apart")
}

fn open_as(spec: &str) -> Option<(Devices, Vec<Arc<Shared>>)> {
    match Wgpu::open(&spec.parse().unwrap(), &[0, 0]) {
        Ok((backend, devices)) => {
            let inside = backend.devices.clone();
            Some((Devices::of(Opened { backend: Arc::new(backend), devices }, "for a test", false), inside))
        }
        Err(error) => {
            let required = std::env::var("REQUIRE_DEVICE").is_ok_and(|kinds| kinds.contains("wgpu"));
            assert!(!required, "REQUIRE_DEVICE wants wgpu, and there is {error}");
            eprintln!("skipped: {error}");
            None
        }
    }
}

fn fault_of<T>(outcome: Result<T, DeviceError>) -> Fault {
    match outcome {
        Err(DeviceError::Fault(fault)) => fault,
        Err(error) => panic!("a fault was expected, not {error}"),
        Ok(_) => panic!("a fault was expected"),
    }
}

#[test]
fn a_lost_device_fails_all_that_is_in_flight_and_all_that_follows_and_no_other_device() {
    let Some((devices, inside)) = open() else { return };
    let (account, other) = (devices.get(0).account("mine"), devices.get(1).account("other"));
    let mut buffer = account.upload(vec![1u32; 100]).unwrap();
    let mut whole = other.upload(vec![1u32; 100]).unwrap();
    account.fence().unwrap().wait().unwrap();
    // Held, so that all of this is still in the inbox when the device is lost.
    let inbox = inside[0].inbox();
    inside[0].lose("its cable was pulled");
    drop(inbox);
    let launched: Vec<_> = (0..200).map(|_| account.launch(&ADD, 100, (&mut buffer, 1)).unwrap()).collect();
    let read = account.download(&buffer).unwrap();
    let copied = other.copy(&buffer).unwrap();
    other.launch(&ADD, 100, (&mut whole, 1)).unwrap();
    for launched in launched {
        let fault = fault_of(launched.wait());
        assert_eq!((fault.kernel, &*fault.device, &*fault.owner), ("add", "wgpu:0", "mine"));
        assert_eq!(&*fault.message, "the device is lost: its cable was pulled");
    }
    assert_eq!(fault_of(read.wait()).kernel, "add");
    assert_eq!(fault_of(other.download(&copied).unwrap().wait()).kernel, "add");
    assert_eq!(other.download(&whole).unwrap().wait().unwrap(), [2; 100]);
    // By the completion, or by the call after the upload, whose completion nobody has.
    let late = account.upload(vec![1u32]).and_then(|late| account.download(&late)?.wait());
    assert!(fault_of(late).message.contains("is lost"));
    devices.close();
    assert_eq!(devices.pending(), 0);
}

#[test]
fn a_driver_that_loses_its_device_is_heard() {
    let Some((devices, inside)) = open() else { return };
    let account = devices.get(0).account("mine");
    let (from, mut to) = (account.upload(vec![1u32]).unwrap(), account.alloc::<u32>(1).unwrap());
    account.launch(&SUM, 1, (&from, &mut to)).unwrap().wait().unwrap();
    let before: Vec<_> = (0..100).map(|_| account.launch(&SUM, 1, (&from, &mut to)).unwrap()).collect();
    inside[0].device.destroy();
    let mut outcome = Ok(());
    // It may take until a later look.
    for _ in 0..10_000 {
        outcome = account.launch(&SUM, 1, (&from, &mut to)).and_then(|completion| completion.wait());
        if outcome.is_err() {
            break;
        }
    }
    let fault = fault_of(outcome);
    assert_eq!((fault.kernel, &*fault.device), ("sum", "wgpu:0"));
    before.into_iter().for_each(|completion| drop(completion.wait()));
    devices.close();
    assert_eq!(devices.pending(), 0);
}

#[test]
fn an_error_that_no_scope_has_caught_loses_the_device_and_panics_nowhere() {
    let Some((devices, inside)) = open() else { return };
    let account = devices.get(0).account("mine");
    let buffer = account.upload(vec![1u32]).unwrap();
    account.fence().unwrap().wait().unwrap();
    let usage = wgpu::BufferUsages::STORAGE;
    drop(inside[0].device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: u64::MAX / 8 * 4,
        usage,
        mapped_at_creation: false,
    }));
    let fault = fault_of(account.download(&buffer).unwrap().wait());
    assert!(fault.kernel == "download" && fault.message.starts_with("the device is lost: "), "{fault}");
}

#[test]
fn devices_that_share_an_adapter_are_lost_together() {
    let Some((devices, inside)) = open_as("wgpu:0x2") else { return };
    assert!(Arc::ptr_eq(&inside[0], &inside[1]));
    let (account, other) = (devices.get(0).account("mine"), devices.get(1).account("other"));
    let (buffer, whole) = (account.upload(vec![1u32]).unwrap(), other.upload(vec![1u32]).unwrap());
    account.fence().unwrap().wait().unwrap();
    other.fence().unwrap().wait().unwrap();
    inside[0].lose("its cable was pulled");
    let faults =
        [account.download(&buffer), other.download(&whole)].map(|read| fault_of(read.unwrap().wait()));
    let seen = faults.each_ref().map(|fault| (&*fault.device, &*fault.owner));
    assert_eq!(seen, [("wgpu:0", "mine"), ("wgpu:1", "other")]);
    devices.abandon();
    let refused = other.fence().err().unwrap().to_string();
    assert_eq!(refused, "wgpu:1 has been closed");
}
