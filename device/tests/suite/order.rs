//! Cases of operations that give a device nothing to do: what comes after them comes after what they come after. And of those that
//! never end: what comes after them fails, and what does not goes on.

use chare_device::{Account, DeviceError, DeviceVec, Devices, Path};

use crate::cases::{fault_of, values};
use crate::kernels::{ADD, COPY, FILL, LATE, PANIC};

/// So many rounds take a device some milliseconds.
const ROUNDS: u32 = 1 << 20;

/// Three owners, and a buffer of zeros to which the first one adds one, late. All that is launched has been launched once before,
/// so that nobody waits for a compiler meanwhile.
fn begin(devices: &Devices) -> ([Account; 3], DeviceVec<u32>) {
    let owners = ["first", "second", "third"].map(|label| devices.get(0).account(label));
    let mut buffer = owners[0].alloc::<u32>(4).unwrap();
    for owner in &owners {
        let (mut from, mut to) = (owner.alloc::<u32>(4).unwrap(), owner.alloc::<u32>(4).unwrap());
        owner.launch(&LATE, 1, (&mut from, 1)).unwrap();
        owner.launch(&ADD, 4, (&mut from, 1)).unwrap();
        owner.launch(&COPY, 4, (&from, &mut to)).unwrap();
        owner.launch(&FILL, 4, (&mut to, 1)).unwrap();
        fault_of(owner.launch(&PANIC, 4, (&mut to,)).unwrap().wait());
    }
    owners[0].launch(&FILL, 4, (&mut buffer, 0)).unwrap().wait().unwrap();
    owners[0].launch(&LATE, 1, (&mut buffer, ROUNDS)).unwrap();
    (owners, buffer)
}

pub(crate) fn an_empty_launch_keeps_the_order(devices: &Devices) {
    let ([_, second, third], mut buffer) = begin(devices);
    second.launch(&ADD, 0, (&mut buffer, 0)).unwrap();
    let read = third.download(&buffer).unwrap();
    assert_eq!(read.wait().unwrap()[0], 1);
}

pub(crate) fn a_launch_that_the_device_refuses_keeps_the_order(devices: &Devices) {
    let ([_, second, third], mut buffer) = begin(devices);
    let refused = second.launch(&PANIC, 4, (&mut buffer,)).unwrap();
    third.launch(&FILL, 4, (&mut buffer, 9)).unwrap();
    fault_of(refused.wait());
    assert_eq!(values(&third, &buffer), [9; 4]);
}

pub(crate) fn a_launch_on_spoiled_input_keeps_the_order(devices: &Devices) {
    let ([_, second, third], mut buffer) = begin(devices);
    let mut spoiled = second.alloc::<u32>(4).unwrap();
    fault_of(second.launch(&PANIC, 4, (&mut spoiled,)).unwrap().wait());
    let void = second.launch(&COPY, 4, (&spoiled, &mut buffer)).unwrap();
    third.launch(&FILL, 4, (&mut buffer, 9)).unwrap();
    fault_of(void.wait());
    assert_eq!(values(&third, &buffer), [9; 4]);
}

pub(crate) fn a_kernel_that_is_overdue_loses_its_device_whatever_follows(devices: &Devices) {
    let [first, beside] = ["first", "beside"].map(|label| devices.get(0).account(label));
    let far = devices.get(1).account("far");
    let whole = far.upload(vec![5_u32; 4]).unwrap();
    far.fence().unwrap().wait().unwrap();
    let (mut late, mut other) = (first.alloc::<u32>(4).unwrap(), beside.alloc::<u32>(4).unwrap());
    assert!(devices.iter().all(|device| device.loss().is_none()));
    // Adapters that are no silicon leave a loop after some rounds, but do that in each of many groups.
    let overdue = first.launch(&LATE, 1 << 12, (&mut late, 1 << 28)).unwrap();
    // More than a device takes at a time, if it takes several.
    for _ in 0..200 {
        drop(beside.launch(&FILL, 4, (&mut other, 1)));
    }
    let fault = fault_of(overdue.wait());
    assert!(fault.kernel == "late" && fault.message.contains("more than 0.2 s"), "{fault}");
    assert!(devices.get(0).loss().is_some());
    // Nobody goes there.
    assert!(matches!(far.move_to(devices.get(0)), Err(DeviceError::Lost { .. })));
    if devices.path(0, 1) == Path::Adapter {
        assert!(devices.get(1).loss().is_some(), "devices that share an adapter's queue share its fate");
        return;
    }
    // What the other device has is as it was.
    assert_eq!(far.device().ordinal(), 1);
    assert_eq!(devices.get(1).loss(), None);
    assert_eq!(values(&far, &whole), [5; 4]);
}
