//! What takes a look inside to be caused or seen: devices that are lost, batches, and clocks.

use std::pin::Pin;
use std::sync::{Arc, Barrier};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::Wgpu;
use super::driver::{BATCHES_IN_FLIGHT, JOBS_PER_BATCH};
use super::inbox::Shared;
use crate::account::Account;
use crate::backend::Opened;
use crate::device::Devices;
use crate::error::DeviceError;
use crate::fault::Fault;
use crate::spec::DeviceSpec;
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
    let spec: DeviceSpec = spec.parse().unwrap();
    open_spec(&spec)
}

fn open_spec(spec: &DeviceSpec) -> Option<(Devices, Vec<Arc<Shared>>)> {
    match Wgpu::open(spec, &[0, 0]) {
        Ok((backend, devices)) => {
            let (inside, opened) = (backend.devices.clone(), Opened { backend: Arc::new(backend), devices });
            Some((Devices::of(opened, "for a test", spec.keeps_records()), inside))
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
    let late = account.upload(vec![1u32]).err();
    assert!(matches!(late, Some(DeviceError::Lost { .. })), "{late:?}");
    assert_eq!(devices.get(0).loss().as_deref(), Some("wgpu:0 is lost: its cable was pulled"));
    assert_eq!(devices.get(1).loss(), None);
    // Nobody goes there, and what they have stays whole.
    assert!(matches!(other.move_to(devices.get(0)), Err(DeviceError::Lost { .. })));
    assert_eq!(other.download(&whole).unwrap().wait().unwrap(), [2; 100]);
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

/// Wakes nobody, and keeps the thread of the device: it arrives, and goes on when it is let go.
struct Hold(Barrier);

impl Wake for Hold {
    fn wake(self: Arc<Self>) {
        self.0.wait();
        self.0.wait();
    }
}

/// Calls `body` while the thread of the account's device is kept from its inbox, with nothing in flight.
fn while_held<R>(account: &Account, body: impl FnOnce() -> R) -> R {
    let hold = Arc::new(Hold(Barrier::new(2)));
    let waker = Waker::from(hold.clone());
    // One that has ended before it was asked for holds nothing.
    let mut fences = std::iter::repeat_with(|| account.fence().unwrap());
    let context = &mut Context::from_waker(&waker);
    let _held = fences.find_map(|mut fence| Pin::new(&mut fence).poll(context).is_pending().then_some(fence));
    hold.0.wait();
    let value = body();
    hold.0.wait();
    value
}

#[test]
fn what_is_ready_goes_together_and_only_so_much_is_in_flight() {
    let Some((devices, inside)) = open() else { return };
    let account = devices.get(0).account("mine");
    let mut buffer = account.upload(vec![1u32; 100]).unwrap();
    const LAUNCHES: usize = 3 * JOBS_PER_BATCH + 8;
    let read = while_held(&account, || {
        *inside[0].submitted.lock().unwrap() = Default::default();
        for _ in 0..LAUNCHES {
            drop(account.launch(&ADD, 100, (&mut buffer, 1)).unwrap());
        }
        account.download(&buffer).unwrap()
    });
    assert_eq!(read.wait().unwrap(), [1 + LAUNCHES as u32; 100]);
    let submitted = inside[0].submitted.lock().unwrap();
    assert_eq!(submitted.jobs, [JOBS_PER_BATCH, JOBS_PER_BATCH, JOBS_PER_BATCH, 9]);
    assert!((1..=BATCHES_IN_FLIGHT).contains(&submitted.most_in_flight), "{}", submitted.most_in_flight);
}

#[test]
fn times_are_the_devices_if_it_has_a_clock_and_else_estimated() {
    let spec: DeviceSpec = "wgpu:0x2:apart".parse().unwrap();
    let Some((devices, inside)) = open_spec(&spec.with_records()) else { return };
    let account = devices.get(0).account("mine");
    let mut buffer = account.upload(vec![1u32; 1 << 20]).unwrap();
    let graph = account.record::<(InOut<u32>,)>("thrice", |recording, (mut buffer,)| {
        (0..3).try_for_each(|_| recording.launch(&ADD, 1 << 20, (&mut buffer, 1)))
    });
    let graph = graph.unwrap();
    // Of more than one batch, of which some operations have no launch.
    let read = while_held(&account, || {
        for _ in 0..JOBS_PER_BATCH {
            drop(account.launch(&ADD, 1 << 20, (&mut buffer, 1)).unwrap());
            drop(account.fence().unwrap());
        }
        drop(graph.replay((&mut buffer,)).unwrap());
        account.download(&buffer).unwrap()
    });
    assert_eq!(read.wait().unwrap(), vec![4 + JOBS_PER_BATCH as u32; 1 << 20]);
    let usage = account.usage().unwrap();
    assert!(usage.launches == JOBS_PER_BATCH as u64 + 3 && usage.launch_time > Duration::ZERO, "{usage:?}");
    match inside[0].tick_ns {
        Some(_) => assert!(usage.estimated_time < usage.launch_time, "{usage:?}"),
        None => assert_eq!(usage.estimated_time, usage.launch_time),
    }
    // What is not asked for is not noted.
    let Some((devices, inside)) = open() else { return };
    let account = devices.get(0).account("mine");
    account.launch(&ADD, 1, (&mut account.alloc::<u32>(1).unwrap(), 1)).unwrap().wait().unwrap();
    assert_eq!((account.usage(), inside[0].lost()), (None, None));
}
