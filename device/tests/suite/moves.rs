//! Cases of memory that is used on other devices than it is on, and of accounts that move to other devices.

use chare_device::{DeviceError, DeviceSlice, DeviceVec, Devices, Grid, In, InOut};

use crate::cases::{fault_of, until_idle, values};
use crate::kernels::{ADD, COPY, FILL, GATHER, PANIC};

/// The bytes in use on each device.
fn used(devices: &Devices) -> Vec<u64> {
    until_idle(devices);
    devices.iter().map(|device| device.used_bytes()).collect()
}

/// What each device has copied: from the host, to it, and from other devices.
fn copies(devices: &Devices) -> Vec<[u64; 3]> {
    let of = |copies: chare_device::Copies| [copies.from_host, copies.to_host, copies.from_peers];
    devices.iter().map(|device| of(device.copies())).collect()
}

pub(crate) fn shares_of_another_device_are_used_as_they_are(devices: &Devices) {
    let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
    let other = devices.get(0).account("other");
    let mut source = there.alloc::<u32>(64).unwrap();
    there.launch(&FILL, 64, (&mut source, 3)).unwrap();
    let share = source.share();
    there.launch(&ADD, 64, (&mut source, 1)).unwrap();
    let mut targets = [(); 2].map(|()| here.alloc::<u32>(64).unwrap());
    for target in &mut targets {
        here.launch(&COPY, 64, (&share, target)).unwrap();
    }
    let mut sums = [(); 2].map(|()| other.alloc::<u32>(64).unwrap());
    let [sum, count] = &mut sums;
    let local = targets[0].share();
    other.launch(&GATHER, 1, ([Some(&share), None, Some(&local)], [sum, count])).unwrap();
    assert_eq!(copies(devices), [[0, 0, 1], [0; 3]], "one copy for all who are there");
    for target in &targets {
        assert_eq!(values(&here, target), [3; 64]);
    }
    assert_eq!((values(&other, &sums[0])[0], values(&other, &sums[1])[0]), (6, 2));
    drop(local);
    // What has been copied is gone with the last share, and each share of other contents is copied again.
    assert_eq!(used(devices)[0], 5 * 256);
    let again = share.clone();
    drop(share);
    assert_eq!(used(devices)[0], 5 * 256);
    drop(again);
    assert_eq!(used(devices), [4 * 256, 256]);
    other.launch(&COPY, 64, (&source.share(), &mut sums[0])).unwrap();
    assert_eq!(values(&other, &sums[0]), [4; 64]);
    assert_eq!((copies(devices)[0][2], used(devices)), (2, vec![4 * 256, 256]));
}

pub(crate) fn buffers_of_another_device_come_over_when_they_are_written(devices: &Devices) {
    let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
    let [mut updated, mut overwritten, mut spare] = [(); 3].map(|()| there.alloc::<u32>(64).unwrap());
    for _ in 0..100 {
        there.launch(&ADD, 64, (&mut updated, 1)).unwrap();
    }
    let share = updated.share();
    here.launch(&ADD, 64, (&mut updated, 1)).unwrap();
    here.launch(&COPY, 64, (&updated, &mut overwritten)).unwrap();
    assert_eq!((values(&here, &updated), values(&here, &overwritten)), (vec![101; 64], vec![101; 64]));
    assert_eq!(copies(devices)[0][2], 1, "what is overwritten is not copied");
    assert_eq!((here.used_bytes(), there.used_bytes(), used(devices)), (512, 512, vec![512, 512]));
    // The share is on the other device still, where it is used without a copy.
    there.launch(&COPY, 64, (&share, &mut spare)).unwrap();
    drop(share);
    assert_eq!((values(&there, &spare), copies(devices)[1][2]), (vec![100; 64], 0));
    assert_eq!(used(devices), [512, 256]);
    let mut values_here = here.host_vec::<u32>(64).unwrap();
    values_here.fill(7);
    here.write(&mut spare, values_here).unwrap().wait().unwrap();
    assert_eq!((values(&here, &spare), used(devices)), (vec![7; 64], vec![768, 0]));
}

pub(crate) fn an_account_moves_with_work_in_flight(devices: &Devices) {
    let account = devices.get(0).account("mover");
    let urgent = account.urgent();
    let mut buffers = [(); 3].map(|()| account.alloc::<u32>(100).unwrap());
    let mut shares = Vec::new();
    let count = devices.len();
    for round in 0..20 * count {
        for (index, buffer) in buffers.iter_mut().enumerate() {
            for _ in 0..5 {
                let stream = if index == 1 { &urgent } else { &account };
                drop(stream.launch(&ADD, 100, (&mut *buffer, 1)).unwrap());
            }
        }
        if round % 7 == 0 {
            shares.push((5 * (round as u32 + 1), buffers[2].share()));
        }
        let to = devices.get((round + 1) % count);
        account.move_to(to).unwrap();
        assert_eq!((account.device().name(), urgent.device().ordinal()), (to.name(), to.ordinal()));
    }
    let total = 100 * count as u32;
    for buffer in &mut buffers {
        account.launch(&ADD, 100, (&mut *buffer, 1)).unwrap();
        assert_eq!(values(&account, buffer), [total + 1; 100]);
    }
    let owners = devices.iter().map(|device| device.owner_count()).collect::<Vec<_>>();
    assert_eq!((owners.iter().sum::<usize>(), owners[0]), (1, 1));
    for (expected, share) in &shares {
        assert_eq!(account.download(share).unwrap().wait().unwrap(), vec![*expected; 100]);
    }
    let from_host = copies(devices).iter().map(|copies| copies[0]).sum::<u64>();
    assert_eq!(from_host, 0, "nothing went through memory of the program");
    drop(shares);
    let mut held = vec![0; count];
    held[0] = 3 * 512;
    assert_eq!((used(devices), account.used_bytes()), (held, 3 * 512));
    assert!(devices.take_unreported_faults().is_empty());
}

pub(crate) fn what_an_account_only_reads_stays_until_it_is_brought(devices: &Devices) {
    let account = devices.get(0).account("reader");
    let (mut table, mut out) = (account.upload(vec![5_u32; 64]).unwrap(), account.alloc::<u32>(64).unwrap());
    account.move_to(devices.get(1)).unwrap();
    for _ in 0..3 {
        account.launch(&COPY, 64, (&table, &mut out)).unwrap();
    }
    assert_eq!((values(&account, &out), copies(devices)[1][2]), (vec![5; 64], 1));
    assert_eq!((used(devices), account.used_bytes()), (vec![256, 512], 768));
    // The copy that is there becomes the buffer.
    account.bring(&mut table).unwrap();
    account.bring(&mut table).unwrap();
    assert_eq!((used(devices), copies(devices)[1][2]), (vec![0, 512], 1));
    account.launch(&ADD, 64, (&mut table, 1)).unwrap();
    // Back again, read there, and written where the buffer is: the copy is of no use any more.
    let there = devices.get(0).account("there");
    there.launch(&COPY, 64, (&table, &mut out)).unwrap();
    account.launch(&ADD, 64, (&mut table, 1)).unwrap();
    there.launch(&COPY, 64, (&table, &mut out)).unwrap();
    assert_eq!((values(&account, &table), values(&there, &out)), (vec![7; 64], vec![7; 64]));
    drop(table);
    assert_eq!(used(devices), [256, 0]);
}

pub(crate) fn an_account_stays_where_there_is_room(devices: &Devices) {
    let (mover, other) = (devices.get(0).account("mover"), devices.get(1).account("other"));
    let [mut first, mut second] = [(); 2].map(|()| mover.alloc::<u8>(2 << 10).unwrap());
    let mut taken = other.alloc::<u32>(5 << 8).unwrap();
    for _ in 0..20 {
        drop(other.launch(&ADD, 5 << 8, (&mut taken, 1)).unwrap());
    }
    let error = mover.move_to(devices.get(1)).unwrap_err();
    let DeviceError::OutOfMemory(full) = &error else { panic!("{error}") };
    let (device, owner) = (devices.get(1).name(), "mover");
    assert_eq!((&*full.device, &*full.owner, full.requested_bytes), (device, owner, 4 << 10));
    assert_eq!(mover.device().ordinal(), 0);
    drop(taken);
    // There will be room when what uses it has ended; it is looked at.
    while let Err(error) = mover.move_to(devices.get(1)) {
        assert!(matches!(error, DeviceError::OutOfMemory(_)), "{error}");
        std::thread::yield_now();
    }
    // There was room, and now there is for one only.
    let taken = other.alloc::<u8>(5 << 10).unwrap();
    mover.bring(&mut first).unwrap();
    let error = mover.bring(&mut second).unwrap_err();
    assert!(matches!(error, DeviceError::OutOfMemory(_)), "{error}");
    let mut words = mover.alloc::<u32>(64).unwrap();
    assert_eq!(mover.download(&second).unwrap().wait().unwrap(), vec![0; 2 << 10]);
    mover.launch(&FILL, 64, (&mut words, 1)).unwrap();
    // It may go back with what it has.
    mover.move_to(devices.get(0)).unwrap();
    drop(taken);
    mover.bring(&mut first).unwrap();
    assert_eq!((used(devices), mover.used_bytes()), (vec![4 << 10, 256], (4 << 10) + 256));
}

pub(crate) fn as_many_accounts_move_as_fit(devices: &Devices) {
    let there = devices.get(1);
    let [taken, _kept] = [2, 1].map(|kib| there.account("other").alloc::<u8>(kib << 10).unwrap());
    let movers = [(); 4].map(|()| devices.get(0).account("mover"));
    let mut buffers = movers.each_ref().map(|mover| mover.alloc::<u32>(1 << 9).unwrap());
    let go = |mover: usize| match movers[mover].move_to(there) {
        Ok(()) => true,
        Err(error) => {
            assert!(matches!(error, DeviceError::OutOfMemory(_)), "{error}");
            false
        }
    };
    // None has brought anything yet, and who comes and goes is not counted for each time.
    for _ in 0..3 {
        assert_eq!([0, 1, 2, 3].map(go), [true, true, false, false]);
        movers[1].move_to(devices.get(0)).unwrap();
    }
    assert_eq!([3, 1].map(go), [true, false]);
    let refused = movers[2].move_to(there).unwrap_err().to_string();
    let words = "mover asked for 2048 bytes, beside 4096 that are still to come of others that have moved there, 3072 of 8192 are in use";
    assert!(refused.contains(words), "{refused}");
    for mover in [0, 3] {
        movers[mover].launch(&ADD, 1 << 9, (&mut buffers[mover], 1)).unwrap();
        assert_eq!(values(&movers[mover], &buffers[mover]), [1; 1 << 9]);
    }
    assert_eq!((used(devices), go(1)), (vec![4 << 10, 7 << 10], false));
    drop(taken);
    assert_eq!([1, 2].map(go), [true, false]);
    let [_, second, third, _] = &mut buffers;
    movers[1].bring(second).unwrap();
    movers[2].bring(third).unwrap();
    assert_eq!(used(devices), [2 << 10, 7 << 10]);
    drop(buffers);
    assert_eq!([2].map(go), [true]);
}

pub(crate) fn a_fault_follows_an_account_that_moves(devices: &Devices) {
    let account = devices.get(0).account("mover");
    let [mut spoiled, mut whole] = [(); 2].map(|()| account.alloc::<u32>(8).unwrap());
    let failed = account.launch(&PANIC, 8, (&mut spoiled,)).unwrap();
    account.move_to(devices.get(1)).unwrap();
    let dependent = account.launch(&ADD, 8, (&mut spoiled, 1)).unwrap();
    let fault = fault_of(failed.wait());
    assert_eq!((fault.kernel, &*fault.device), ("panic", devices.get(0).name()));
    assert_eq!(fault_of(dependent.wait()), fault);
    assert_eq!(fault_of(account.download(&spoiled).unwrap().wait()), fault);
    // What is overwritten is whole again, and nobody else minds.
    account.launch(&FILL, 8, (&mut spoiled, 4)).unwrap();
    account.launch(&ADD, 8, (&mut whole, 4)).unwrap();
    assert_eq!((values(&account, &spoiled), values(&account, &whole)), (vec![4; 8], vec![4; 8]));
    // One that nobody awaited is the account's, wherever it has gone meanwhile.
    drop(account.launch(&PANIC, 8, (&mut spoiled,)).unwrap());
    account.move_to(devices.get(0)).unwrap();
    until_idle(devices);
    assert_eq!(&*fault_of(account.alloc::<u32>(1)).device, devices.get(1).name());
    assert!(devices.take_unreported_faults().is_empty());
}

pub(crate) fn what_moved_and_is_dropped_in_flight_is_finished(devices: &Devices) {
    let account = devices.get(0).account("mover");
    let [mut kept, mut dropped] = [(); 2].map(|()| account.alloc::<u32>(8).unwrap());
    let add = |buffer: &mut DeviceVec<u32>| {
        for _ in 0..50 {
            drop(account.launch(&ADD, 8, (&mut *buffer, 1)).unwrap());
        }
    };
    add(&mut kept);
    add(&mut dropped);
    account.move_to(devices.get(1)).unwrap();
    add(&mut kept);
    add(&mut dropped);
    let share = kept.share();
    account.move_to(devices.get(0)).unwrap();
    add(&mut kept);
    let reads = (account.download(&share).unwrap(), account.download(&kept).unwrap());
    drop((kept, dropped, share, account));
    devices.close();
    assert!(reads.0.is_ready() && reads.1.is_ready() && devices.pending() == 0);
    assert_eq!((reads.0.wait().unwrap(), reads.1.wait().unwrap()), (vec![100; 8], vec![150; 8]));
    assert_eq!(used(devices), [0, 0]);
    assert_eq!(devices.iter().map(|device| device.owner_count()).sum::<usize>(), 0);
}

pub(crate) fn copies_go_into_buffers_that_are_there(devices: &Devices) {
    let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
    let mut target = here.alloc::<u32>(64).unwrap();
    let (mut near, mut far) = (here.alloc::<u32>(64).unwrap(), there.alloc::<u32>(64).unwrap());
    let before = used(devices);
    for round in 0..10 {
        here.launch(&ADD, 64, (&mut near, 1)).unwrap();
        there.launch(&ADD, 64, (&mut far, 10)).unwrap();
        here.copy_into(&near, &mut target).unwrap();
        assert_eq!(values(&here, &target), [round + 1; 64]);
        here.copy_into(&far.share(), &mut target).unwrap();
        here.launch(&ADD, 64, (&mut target, 1)).unwrap();
        assert_eq!(values(&here, &target), [10 * round + 11; 64]);
        assert_eq!(used(devices), before, "no memory is taken");
    }
    assert_eq!((copies(devices)[0][2], copies(devices)[1][2]), (10, 0));
    // What is shared stays as it is.
    let share = target.share();
    here.copy_into(&near, &mut target).unwrap().wait().unwrap();
    assert_eq!(here.download(&share).unwrap().wait().unwrap(), [101; 64]);
    assert_eq!(values(&here, &target), [10; 64]);
    drop(share);
    // Into a buffer of another device, which is here then.
    here.copy_into(&near, &mut far).unwrap();
    assert_eq!((values(&here, &far), used(devices)), (vec![10; 64], vec![768, 0]));
    let short = here.alloc::<u32>(63).unwrap();
    let refused = here.copy_into(&short, &mut target).err();
    assert!(matches!(refused, Some(DeviceError::Shape { len: 63, wanted: 64 })), "{refused:?}");
    // A fault goes with the contents.
    drop(here.launch(&PANIC, 8, (&mut near,)).unwrap().wait());
    let fault = fault_of(here.copy_into(&near, &mut target).unwrap().wait());
    assert_eq!(fault_of(here.download(&target).unwrap().wait()), fault);
    here.launch(&FILL, 64, (&mut near, 2)).unwrap();
    here.copy_into(&near, &mut target).unwrap().wait().unwrap();
    assert_eq!(values(&here, &target), [2; 64]);
}

pub(crate) fn a_graph_is_replayed_where_its_account_is(devices: &Devices) {
    let account = devices.get(0).account("mover");
    let graph = account.record::<(In<u32>, InOut<u32>, u32)>("twice", |recording, (from, mut to, value)| {
        recording.copy(&from, &mut to)?;
        recording.launch(&ADD, 64, (&mut to, &value))?;
        recording.launch(&ADD, 64, (&mut to, &value))
    });
    let graph = graph.unwrap();
    let [mut a, mut b] = [(); 2].map(|()| account.alloc::<u32>(64).unwrap());
    let count = devices.len();
    for round in 0..6 * count {
        graph.replay((&a, &mut b, 1)).unwrap();
        graph.replay((&b, &mut a, 2)).unwrap();
        account.move_to(devices.get((round + 1) % count)).unwrap();
    }
    let expected = 36 * count as u32;
    assert_eq!((values(&account, &a), values(&account, &b)), (vec![expected; 64], vec![expected - 4; 64]));
}

/// The owner writes, shares and moves, and threads on all devices read what it has shared, each when it comes to it, and two at once.
pub(crate) fn threads_read_what_an_account_shares_on_its_way(devices: &Devices) {
    let (rounds, count) = (100, devices.len());
    std::thread::scope(|scope| {
        let readers = (0..2 * count).map(|reader| {
            let (sender, receiver) = std::sync::mpsc::channel::<(u32, DeviceSlice<u32>)>();
            scope.spawn(move || {
                let account = devices.get(reader % count).account("reader");
                let mut kept = Vec::new();
                for (expected, share) in receiver {
                    let mut seen = account.alloc::<u32>(64).unwrap();
                    account.launch(&COPY, 64, (&share, &mut seen)).unwrap();
                    assert_eq!(values(&account, &seen), [expected; 64]);
                    // Some are kept for a while, so that the owner finds a share, or a copy elsewhere, or nothing.
                    kept.push((expected, share));
                    if kept.len() > reader {
                        let (expected, share) = kept.swap_remove(expected as usize % kept.len());
                        account.launch(&ADD, 64, (&mut seen, 1)).unwrap();
                        account.copy_into(&share, &mut seen).unwrap();
                        drop(share);
                        assert_eq!(values(&account, &seen), [expected; 64]);
                    }
                }
            });
            sender
        });
        let readers = readers.collect::<Vec<_>>();
        let owner = devices.get(0).account("owner");
        let mut buffer = owner.alloc::<u32>(64).unwrap();
        for round in 1..=rounds {
            owner.launch(&ADD, 64, (&mut buffer, 1)).unwrap();
            if round % 3 == 0 {
                owner.move_to(devices.get(round as usize % count)).unwrap();
            }
            let share = buffer.share();
            for reader in &readers {
                reader.send((round, share.clone())).unwrap();
            }
            drop(share);
            if round % 5 == 0 {
                // Reads it where it is by now, by itself.
                let mut seen = owner.alloc::<u32>(64).unwrap();
                owner.launch(&COPY, 64, (&buffer, &mut seen)).unwrap();
                assert_eq!(values(&owner, &seen), [round; 64]);
            }
        }
        drop(readers);
        assert_eq!(values(&owner, &buffer), [rounds; 64]);
    });
    assert_eq!(used(devices).iter().sum::<u64>(), 0);
    assert!(devices.take_unreported_faults().is_empty());
}

/// A kernel that an account has launched on two devices is one in its record.
pub(crate) fn records_are_of_all_devices(devices: &Devices) {
    let account = devices.get(0).account("mover");
    let mut values = account.alloc::<u32>(64).unwrap();
    account.launch(&FILL, 64, (&mut values, 3)).unwrap().wait().unwrap();
    account.launch(&ADD, 64, (&mut values, 1)).unwrap().wait().unwrap();
    account.move_to(devices.get(1)).unwrap();
    for len in [16, 32] {
        account.launch(&ADD, len, (&mut values, 1)).unwrap().wait().unwrap();
    }
    let (usage, kernels) = (account.usage().unwrap(), account.usage_by_kernel().unwrap());
    let of = |name: &str| kernels.iter().find(|usage| usage.kernel == name).unwrap();
    let (fill, add) = (of("fill"), of("add"));
    assert_eq!((usage.launches, fill.launches, add.launches, kernels.len()), (4, 1, 3, 2));
    assert_eq!((add.elements, add.largest), (112, Grid::from(64)));
    assert_eq!(add.launch_time + fill.launch_time, usage.launch_time);
    assert_eq!(add.estimated_time + fill.estimated_time, usage.estimated_time);
    assert!(kernels[0].launch_time >= kernels[1].launch_time, "{kernels:?}");
    let there = devices.get(1).usage_by_kernel().unwrap();
    assert_eq!((there.len(), &*there[0].kernel, there[0].launches), (1, "add", 2));
}
