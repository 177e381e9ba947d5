//! The cases.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chare_device::{Account, DeviceError, DeviceSlice, DeviceVec, Devices, Fault, Grid, InOut, Language};

use crate::kernels::{ADD, BOTH, COPY, FILL, GATHER, PANIC};

pub(crate) fn values(account: &Account, buffer: &DeviceVec<u32>) -> Vec<u32> {
    account.download(buffer).unwrap().wait().unwrap()
}

pub(crate) fn fault_of<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> Fault {
    match result {
        Err(DeviceError::Fault(fault)) => fault,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

/// Waits until nothing is pending.
pub(crate) fn until_idle(devices: &Devices) {
    while devices.pending() > 0 {
        devices.poll();
        std::thread::yield_now();
    }
}

pub(crate) fn launches_of_one_account_run_in_order(devices: &Devices) {
    let account = devices.get(0).account("order");
    let mut buffer = account.alloc::<u32>(4).unwrap();
    assert_eq!(values(&account, &buffer), [0; 4]);
    account.launch(&FILL, 4, (&mut buffer, 1)).unwrap();
    for _ in 0..10 {
        account.launch(&ADD, 4, (&mut buffer, 3)).unwrap();
    }
    assert_eq!(values(&account, &buffer), [31; 4]);
}

pub(crate) fn thousands_of_small_launches(devices: &Devices) {
    let accounts: Vec<_> = (0..20).map(|n| devices.get(0).account(format!("a{n}"))).collect();
    let mut buffers: Vec<_> = accounts.iter().map(|account| account.alloc::<u32>(2).unwrap()).collect();
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
}

pub(crate) fn a_share_is_a_snapshot(devices: &Devices) {
    let account = devices.get(0).account("snapshot");
    let mut buffer = account.upload(vec![1, 2, 3]).unwrap();
    let before = account.used_bytes();
    let one = buffer.share();
    account.launch(&ADD, 3, (&mut buffer, 10)).unwrap();
    let two = buffer.share();
    account.launch(&FILL, 3, (&mut buffer, 7)).unwrap();
    let read = |slice: &DeviceSlice<u32>| account.download(slice).unwrap().wait().unwrap();
    assert_eq!(read(&one), [1, 2, 3]);
    assert_eq!(read(&two), [11, 12, 13]);
    assert_eq!(values(&account, &buffer), [7, 7, 7]);
    assert_eq!(account.used_bytes(), 3 * before, "each snapshot has memory of its own");
    drop((one, two));
    account.launch(&ADD, 3, (&mut buffer, 1)).unwrap().wait().unwrap();
    assert_eq!(account.used_bytes(), before, "without shares writes are in place");
    assert_eq!(values(&account, &buffer), [8, 8, 8]);
}

pub(crate) fn a_kernel_may_read_a_share_of_what_it_writes(devices: &Devices) {
    let account = devices.get(0).account("self");
    let mut buffer = account.upload(vec![4, 5]).unwrap();
    let share = buffer.share();
    account.launch(&ADD, 2, (&mut buffer, 1)).unwrap();
    account.launch(&COPY, 2, (&share, &mut buffer)).unwrap();
    assert_eq!(values(&account, &buffer), [4, 5]);
}

pub(crate) fn buffers_order_the_work_of_different_accounts(devices: &Devices) {
    let [a, b, c] = ["a", "b", "c"].map(|label| devices.get(0).account(label));
    let mut source = a.alloc::<u32>(8).unwrap();
    let mut target = b.alloc::<u32>(8).unwrap();
    for round in 1..=200 {
        a.launch(&FILL, 8, (&mut source, round)).unwrap();
        b.launch(&COPY, 8, (&source.share(), &mut target)).unwrap();
        // Written again at once: after the read of `b`, or in other memory.
        c.launch(&ADD, 8, (&mut source, 1000)).unwrap();
        b.launch(&ADD, 8, (&mut target, 1)).unwrap();
        assert_eq!(values(&c, &source), [round + 1000; 8]);
        assert_eq!(values(&a, &target), [round + 1; 8]);
    }
}

pub(crate) fn swapped_buffers_keep_their_contents(devices: &Devices) {
    let account = devices.get(0).account("swap");
    let (mut u, mut v) = (account.upload(vec![1]).unwrap(), account.upload(vec![100]).unwrap());
    for _ in 0..5 {
        account.launch(&COPY, 1, (&u, &mut v)).unwrap();
        account.launch(&ADD, 1, (&mut v, 1)).unwrap();
        std::mem::swap(&mut u, &mut v);
    }
    assert_eq!((values(&account, &u), values(&account, &v)), (vec![6], vec![5]));
}

pub(crate) fn groups_of_buffers_and_absent_ones(devices: &Devices) {
    let account = devices.get(0).account("groups");
    let one = account.upload(vec![5u32]).unwrap();
    let three = account.upload(vec![6u32]).unwrap().share();
    let mut out = [account.alloc::<u32>(1).unwrap(), account.alloc::<u32>(1).unwrap()];
    let parts = [Some(&one.share()), None, Some(&three)];
    account.launch(&GATHER, 1, (parts, out.each_mut())).unwrap();
    assert_eq!((values(&account, &out[0]), values(&account, &out[1])), (vec![11], vec![2]));
}

pub(crate) fn arrays_keep_their_shape(devices: &Devices) {
    let account = devices.get(0).account("arrays");
    let array = ndarray::Array::from_shape_fn((2, 3, 4), |(i, j, k)| (100 * i + 10 * j + k) as f32);
    let buffer = account.from_array(&array).unwrap();
    assert_eq!((buffer.len(), buffer.shape().extents()), (24, &[2usize, 3, 4][..]));
    assert_eq!(account.to_array(&buffer, (2, 3, 4)).unwrap().wait().unwrap(), array);
    let refused = account.to_array(&buffer, (2, 3)).err();
    assert!(matches!(refused, Some(DeviceError::Shape { len: 24, wanted: 6 })), "{refused:?}");
    let refused = account.from_array(&array.t()).err();
    assert!(matches!(refused, Some(DeviceError::Layout)), "{refused:?}");
}

pub(crate) fn host_vectors_come_back_with_their_memory(devices: &Devices) {
    let account = devices.get(0).account("pinned");
    let mut buffer = account.alloc::<u32>(3).unwrap();
    let mut values = account.host_vec::<u32>(3).unwrap();
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
        assert_eq!((&*values, values.as_ptr()), (&[round + 1, 2 * round + 1, 3 * round + 1][..], address));
        let expected = if round == 1 { [0; 3] } else { [round, 2 * round - 1, 3 * round - 2] };
        assert_eq!(before.wait().unwrap(), expected, "a share keeps its values");
    }
    drop(values);
    let again = account.host_vec::<u32>(2).unwrap();
    assert_eq!(
        (&*again, again.as_ptr()),
        (&[0, 0][..], address),
        "the memory is there for the next, and cleared"
    );
    let refused = account.write(&mut buffer, again).err();
    assert!(matches!(refused, Some(DeviceError::Shape { len: 3, wanted: 2 })), "{refused:?}");
    let refused = account.host_vec::<u32>(usize::MAX / 4).err();
    assert!(matches!(refused, Some(DeviceError::HostMemory { .. })), "{refused:?}");
}

pub(crate) fn a_fault_reaches_its_waiter_and_what_depends_on_it(devices: &Devices) {
    let account = devices.get(0).account("chare 7");
    let mut buffer = account.alloc::<u32>(4).unwrap();
    let mut copied = account.alloc::<u32>(4).unwrap();
    let failed = account.launch(&PANIC, 4, (&mut buffer,)).unwrap();
    let dependent = account.launch(&COPY, 4, (&buffer, &mut copied)).unwrap();
    let read = account.download(&copied).unwrap();
    for fault in [fault_of(failed.wait()), fault_of(dependent.wait()), fault_of(read.wait())] {
        let name = devices.get(0).name();
        assert_eq!((fault.kernel, &*fault.device, &*fault.owner), ("panic", name, "chare 7"));
        let mut at = String::new();
        if devices.get(0).language() == Language::Rust {
            assert_eq!(&*fault.message, "no more 4");
            let place = fault.location.as_deref().expect("the hook has seen it");
            assert!(place.contains("kernels.rs:"), "{place}");
            at = format!(" at {place}");
        }
        let text = format!("kernel `panic` of chare 7 failed on {name}{at}: {}", fault.message);
        assert_eq!(fault.to_string(), text);
        assert!(!fault.message.is_empty());
    }
    // Overwriting makes a buffer whole again, and the account works on.
    account.launch(&FILL, 4, (&mut buffer, 9)).unwrap();
    account.launch(&COPY, 4, (&buffer, &mut copied)).unwrap();
    assert_eq!(values(&account, &copied), [9; 4]);
    assert!(devices.take_unreported_faults().is_empty());
}

pub(crate) fn a_fault_nobody_awaited_is_returned_by_the_next_call(devices: &Devices) {
    let (account, other) = (devices.get(0).account("one"), devices.get(0).account("other"));
    let mut buffer = account.alloc::<u32>(1).unwrap();
    drop(account.launch(&PANIC, 1, (&mut buffer,)).unwrap());
    until_idle(devices);
    other.alloc::<u32>(1).unwrap();
    assert_eq!(fault_of(account.alloc::<u32>(1)).kernel, "panic");
    account.alloc::<u32>(1).unwrap();
    assert!(devices.take_unreported_faults().is_empty());
}

pub(crate) fn faults_that_nobody_asked_for_are_taken_at_the_end(devices: &Devices) {
    let account = devices.get(0).account("silent");
    let mut buffers = [0; 3].map(|_| account.alloc::<u32>(1).unwrap());
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
}

pub(crate) fn out_of_memory_says_who_holds_it(devices: &Devices) {
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
        format!(
            "{} is out of memory: small asked for 32768 bytes, 40960 of 65536 are in use; held by large: 32768, small: \
             8192; drop buffers, or give the device more with `mem=`",
            device.name()
        )
    );
    // What is free in the pool, in whatever class, is there for everybody.
    drop(b);
    until_idle(devices);
    let c = small.alloc::<u32>(14 << 10).unwrap();
    assert_eq!(values(&small, &c), [0; 14 << 10]);
    assert!(large.alloc::<u32>([usize::MAX / 2]).is_err());
    assert!(large.alloc::<u8>([usize::MAX, 3]).is_err());
}

pub(crate) fn a_launch_that_is_refused_changes_nothing(devices: &Devices) {
    let account = devices.get(0).account("full");
    let mut one = account.upload(vec![1u32; 512]).unwrap();
    let mut two = account.upload(vec![2u32; 512]).unwrap();
    let _filler = account.alloc::<u32>(512).unwrap();
    let shares = (one.share(), two.share());
    // There is memory to take one of the two aside, not both.
    let refused = account.launch(&BOTH, 1, (&mut one, &mut two)).err();
    assert!(matches!(refused, Some(DeviceError::OutOfMemory(_))), "{refused:?}");
    assert_eq!((values(&account, &one)[0], values(&account, &two)[0]), (1, 2));
    drop(shares);
    account.launch(&BOTH, 1, (&mut one, &mut two)).unwrap();
    assert_eq!((values(&account, &one)[511], values(&account, &two)[511]), (8, 9));
}

pub(crate) fn memory_is_recycled_and_new_buffers_are_zeroed(devices: &Devices) {
    let account = devices.get(0).account("recycle");
    for round in 0..50 {
        let mut buffer = account.alloc::<u32>(100).unwrap();
        assert_eq!(values(&account, &buffer), [0; 100], "round {round}");
        account.launch(&FILL, 100, (&mut buffer, u32::MAX)).unwrap();
        drop(buffer);
        account.fence().unwrap().wait().unwrap();
    }
    assert_eq!((account.used_bytes(), devices.get(0).used_bytes()), (0, 0));
}

pub(crate) fn buffers_of_another_device_are_imported(devices: &Devices) {
    let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
    let source = there.upload(vec![3u32, 4]).unwrap();
    let mut target = here.alloc::<u32>(2).unwrap();
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
}

pub(crate) fn a_kept_completion_keeps_its_fault(devices: &Devices) {
    let account = devices.get(0).account("keeper");
    let mut buffers = [0; 2].map(|_| account.alloc::<u32>(1).unwrap());
    let [a, b] = &mut buffers;
    let kept = account.launch(&PANIC, 1, (a,)).unwrap();
    drop(account.launch(&PANIC, 1, (b,)).unwrap());
    until_idle(devices);
    assert_eq!(devices.take_dropped_faults().len(), 1);
    assert_eq!(fault_of(kept.wait()).kernel, "panic");
    assert!(devices.take_unreported_faults().is_empty());
}

pub(crate) fn memory_goes_around_all_devices_in_order(devices: &Devices) {
    let accounts: Vec<_> = devices.iter().map(|device| device.account("ring")).collect();
    let count = accounts.len();
    let len = 300;
    let mut buffers: Vec<_> = accounts.iter().map(|account| account.alloc::<u32>(len).unwrap()).collect();
    for round in 0..20 * count {
        let (to, from) = (round % count, (round + count - 1) % count);
        let share = buffers[from].share();
        // Written at once, and before the copy has been made: what is copied is what was shared.
        accounts[from].launch(&ADD, len as u32, (&mut buffers[from], 1000)).unwrap();
        buffers[to] = accounts[to].copy(&share).unwrap();
        drop(share);
        accounts[to].launch(&ADD, len as u32, (&mut buffers[to], 1)).unwrap();
    }
    let rounds = 20 * count as u32;
    assert_eq!(values(&accounts[count - 1], &buffers[count - 1]), vec![rounds; len]);
    assert_eq!(values(&accounts[0], &buffers[0]), vec![rounds - count as u32 + 1 + 1000; len]);
    assert!(devices.take_unreported_faults().is_empty());
}

pub(crate) fn what_is_dropped_in_flight_is_finished(devices: &Devices) {
    let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
    let mut buffer = here.alloc::<u32>(8).unwrap();
    for _ in 0..100 {
        drop(here.launch(&ADD, 8, (&mut buffer, 1)).unwrap());
    }
    let copy = there.copy(&buffer).unwrap();
    let read = there.download(&copy).unwrap();
    drop((buffer, copy, here, there));
    devices.close();
    assert!(read.is_ready() && devices.pending() == 0);
    assert_eq!(read.wait().unwrap(), [100; 8]);
    assert_eq!(devices.iter().map(|device| device.used_bytes()).sum::<u64>(), 0);
}

/// Whoever launches and copies is known by it, and so is where.
pub(crate) fn records_say_what_was_done(devices: &Devices) {
    let (one, far) = (devices.get(0).account("one"), devices.get(1).account("far"));
    let urgent = one.urgent();
    let mut buffer = one.upload(vec![1_u32; 1000]).unwrap();
    one.fence().unwrap().wait().unwrap();
    for account in [&one, &urgent, &one] {
        account.launch(&ADD, 1000, (&mut buffer, 1)).unwrap().wait().unwrap();
    }
    let copy = far.import(&buffer.share()).unwrap();
    let twice = far.copy(&copy).unwrap();
    assert_eq!(far.download(&twice).unwrap().wait().unwrap(), [4; 1000]);
    let host = far.host_vec::<u32>(1000).unwrap();
    far.read(&twice, host).unwrap().wait().unwrap();
    let (of_one, of_far) = (one.usage().unwrap(), far.usage().unwrap());
    assert_eq!((of_one.launches, of_one.from_host_bytes, of_one.to_host_bytes), (3, 4000, 0));
    let bytes_of_far = (of_far.from_host_bytes, of_far.to_host_bytes, of_far.from_peers_bytes);
    assert_eq!((of_far.launches, bytes_of_far, of_far.within_bytes), (0, (0, 8000, 4000), 4000));
    assert!(of_one.launch_time > Duration::ZERO && of_far.launch_time == Duration::ZERO, "{of_one:?}");
    // Each was waited for, so the device had nothing else to do.
    assert_eq!(of_one.alone_time, of_one.launch_time);
    // An adapter may have no clock, or one that is too coarse for some launches.
    let most_estimated =
        if devices.get(0).name().starts_with("wgpu") { of_one.launch_time } else { Duration::ZERO };
    assert!(of_one.estimated_time <= most_estimated, "{of_one:?}");
    assert_eq!((devices.get(0).usage(), devices.get(1).usage()), (Some(of_one), Some(of_far)));
    let [add] = &one.usage_by_kernel().unwrap()[..] else { panic!("one kernel was launched") };
    assert_eq!((&*add.kernel, add.launches, add.elements, add.largest), ("add", 3, 3000, Grid::from(1000)));
    assert_eq!((add.launch_time, add.estimated_time), (of_one.launch_time, of_one.estimated_time));
    // A launch that fails is one, and what nobody looked at yet is none.
    let mut values = one.alloc::<u32>(8).unwrap();
    assert!(one.launch(&PANIC, 8, (&mut values,)).unwrap().wait().is_err());
    assert_eq!(one.usage().unwrap().launches, 4);
    let kernels = devices.get(0).usage_by_kernel().unwrap();
    assert_eq!((kernels.len(), far.usage_by_kernel().unwrap().len()), (2, 0));
    assert!(kernels.iter().any(|usage| usage.kernel == "panic" && usage.launches == 1), "{kernels:?}");
}

pub(crate) fn code_for_cuda_is_refused_elsewhere(devices: &Devices) {
    let account = devices.get(0).account("sgemm");
    let mut buffer = account.upload(vec![1_u32, 2]).unwrap();
    let is_called = Arc::new(AtomicBool::new(false));
    let note = is_called.clone();
    let outcome =
        account.enqueue_cuda::<(InOut<u32>,)>("nothing", (&mut buffer,), move |stream, (buffer,)| {
            note.store(!stream.as_ptr().is_null() && buffer.len() == 2, Ordering::Relaxed);
            Ok(())
        });
    let is_cuda = devices.get(0).language() == Language::CudaC;
    match outcome {
        Ok(completion) => completion.wait().unwrap(),
        Err(error) => assert_eq!(
            error.to_string(),
            format!(
                "`nothing` of sgemm is for CUDA, and {} is no CUDA device; launch a kernel there, or run with `--device cuda`",
                devices.get(0).name()
            )
        ),
    }
    assert_eq!(is_called.load(Ordering::Relaxed), is_cuda);
    assert_eq!(values(&account, &buffer), [1, 2]);
}

pub(crate) fn vectors_of_the_program_are_copied_from_where_they_are(devices: &Devices) {
    let account = devices.get(0).account("own");
    let mut buffer = account.alloc::<u32>(1000).unwrap();
    let mut own = Vec::with_capacity(2000);
    own.extend(0..1000_u32);
    let address = own.as_ptr();
    let mut pinned = account.host_vec_of(own).unwrap();
    assert_eq!((pinned.as_ptr(), pinned[999]), (address, 999));
    for _ in 0..10 {
        pinned[0] += 1;
        pinned = account.write(&mut buffer, pinned).unwrap().wait().unwrap();
        account.launch(&ADD, 1000, (&mut buffer, 1)).unwrap();
        pinned = account.read(&buffer, pinned).unwrap().wait().unwrap();
    }
    let own = pinned.into_vec();
    assert_eq!((own.as_ptr(), own.capacity()), (address, 2000), "it is the one that was given");
    assert_eq!((own[0], own[999]), (20, 1009));
    // Again, and dropped while a copy is under way; or with nothing in it; or of pooled memory.
    let again = account.host_vec_of(own).unwrap();
    drop(account.write(&mut buffer, again).unwrap());
    assert_eq!(values(&account, &buffer)[999], 1009);
    let nothing = account.host_vec_of(Vec::<u32>::new()).unwrap();
    let mut none = account.alloc::<u32>(0).unwrap();
    assert!(account.write(&mut none, nothing).unwrap().wait().unwrap().into_vec().is_empty());
    let mut pooled = account.host_vec::<u32>(3).unwrap();
    pooled[1] = 5;
    assert_eq!(pooled.into_vec(), [0, 5, 0]);
    let wrong = account.host_vec_of(vec![1_u32]).unwrap();
    assert!(matches!(account.write(&mut buffer, wrong), Err(DeviceError::Shape { .. })));
}
