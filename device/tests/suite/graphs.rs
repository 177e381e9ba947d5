//! The cases of graphs: a replay is what its launches would be one by one, as one operation.

use std::time::Duration;

use chare_device::{Account, DeviceError, DeviceVec, Devices, Each, Fault, Grid, In, InOut, Out, Zeroed};

use crate::kernels::{ADD, COPY, FILL, GATHER, PANIC};

fn values(account: &Account, buffer: &DeviceVec<u32>) -> Vec<u32> {
    account.download(buffer).unwrap().wait().unwrap()
}

fn fault_of<T: std::fmt::Debug>(result: Result<T, DeviceError>) -> Fault {
    match result {
        Err(DeviceError::Fault(fault)) => fault,
        other => panic!("a fault was expected, not {other:?}"),
    }
}

pub(crate) fn a_graph_is_replayed_in_order(devices: &Devices) {
    let account = devices.get(0).account("graph");
    let graph = account.record::<(InOut<u32>, Out<u32>, u32)>("step", |recording, (mut x, mut y, value)| {
        recording.launch(&ADD, 4, (&mut x, &value))?;
        recording.launch(&COPY, 4, (&x, &mut y))?;
        recording.launch(&ADD, 4, (&mut y, 100))?;
        recording.launch(&ADD, 4, (&mut x, 1))
    });
    let graph = graph.unwrap();
    let (mut x, mut y) = (account.upload(vec![5; 4]).unwrap(), account.alloc::<u32>(4).unwrap());
    assert_eq!(values(&account, &x), [5; 4], "recorded is not run");
    for _ in 0..10 {
        graph.replay((&mut x, &mut y, 2)).unwrap();
    }
    assert_eq!((values(&account, &x), values(&account, &y)), (vec![35; 4], vec![134; 4]));
    account.launch(&FILL, 4, (&mut x, 7)).unwrap();
    graph.replay((&mut x, &mut y, 2)).unwrap().wait().unwrap();
    account.launch(&ADD, 4, (&mut x, 90)).unwrap();
    assert_eq!((values(&account, &x), values(&account, &y)), (vec![100; 4], vec![109; 4]));
    assert_eq!((graph.name(), devices.take_unreported_faults().len()), ("step", 0));
}

pub(crate) fn what_changes_between_replays_is_seen(devices: &Devices) {
    let account = devices.get(0).account("changes");
    let graph = account.record::<(In<u32>, Out<u32>, u32)>("next", |recording, (from, mut to, value)| {
        recording.copy(&from, &mut to)?;
        recording.launch(&ADD, 3, (&mut to, &value))
    });
    let graph = graph.unwrap();
    // Scalars, buffers in turn, and buffers that come and go, more than any backend keeps executables for.
    let (mut a, mut b) = (account.alloc::<u32>(3).unwrap(), account.alloc::<u32>(3).unwrap());
    let mut expected = 0;
    for value in 0..20 {
        graph.replay((&a, &mut b, value)).unwrap();
        std::mem::swap(&mut a, &mut b);
        expected += value;
        if value % 3 == 0 {
            b = account.upload(vec![value, 8, 9]).unwrap();
        }
    }
    assert_eq!(values(&account, &a), [expected; 3]);
    // Of another length: only the copy looks at it.
    let longer = account.upload(vec![1_u32; 5]).unwrap();
    let mut target = account.alloc::<u32>(5).unwrap();
    graph.replay((&longer, &mut target, 3)).unwrap();
    assert_eq!(values(&account, &target)[..3], [4; 3]);
}

pub(crate) fn a_replay_leaves_shares_as_they_are(devices: &Devices) {
    let account = devices.get(0).account("snapshot");
    let graph = account.record::<(InOut<u32>, Out<u32>)>("both", |recording, (mut x, mut y)| {
        recording.launch(&ADD, 2, (&mut x, 10))?;
        recording.launch(&FILL, 2, (&mut y, 5))
    });
    let graph = graph.unwrap();
    let (mut x, mut y) = (account.upload(vec![1, 2]).unwrap(), account.upload(vec![3, 4]).unwrap());
    let before = account.used_bytes();
    let (old_x, old_y) = (x.share(), y.share());
    graph.replay((&mut x, &mut y)).unwrap();
    graph.replay((&mut x, &mut y)).unwrap();
    let read = |slice| account.download(slice).unwrap().wait().unwrap();
    assert_eq!((read(&old_x), read(&old_y)), (vec![1, 2], vec![3, 4]));
    assert_eq!((values(&account, &x), values(&account, &y)), (vec![21, 22], vec![5, 5]));
    assert_eq!(account.used_bytes(), 2 * before);
    drop((old_x, old_y));
    graph.replay((&mut x, &mut y)).unwrap().wait().unwrap();
    assert_eq!(account.used_bytes(), before, "without shares writes are in place");
    // A share of what it writes, as what it reads.
    let copy = account.record::<(In<u32>, InOut<u32>)>("self", |recording, (from, mut to)| {
        recording.launch(&ADD, 2, (&mut to, 1))?;
        recording.copy(&from, &mut to)
    });
    let share = x.share();
    copy.unwrap().replay((&share, &mut x)).unwrap();
    assert_eq!(values(&account, &x), [31, 32]);
}

pub(crate) fn graphs_of_several_accounts_are_ordered(devices: &Devices) {
    let [a, b] = ["a", "b"].map(|label| devices.get(0).account(label));
    let record = |account: &Account| {
        let graph = account.record::<(InOut<u32>, u32)>("add", |recording, (mut x, value)| {
            recording.launch(&ADD, 64, (&mut x, &value))?;
            recording.launch(&ADD, 64, (&mut x, 1))
        });
        graph.unwrap()
    };
    let (one, other) = (record(&a), record(&b).clone());
    let mut buffer = a.alloc::<u32>(64).unwrap();
    let mut copied = Vec::new();
    for round in 0..50 {
        one.replay((&mut buffer, 1)).unwrap();
        copied.push((5 * round + 2, b.copy(&buffer).unwrap()));
        other.replay((&mut buffer, 0)).unwrap();
        a.launch(&ADD, 64, (&mut buffer, 2)).unwrap();
    }
    for (value, copy) in copied {
        assert_eq!(values(&b, &copy), [value; 64]);
    }
    assert_eq!(values(&b, &buffer), [250; 64]);
}

pub(crate) fn groups_absent_buffers_and_zeros_in_graphs(devices: &Devices) {
    let account = devices.get(0).account("groups");
    type Params = (Each<In<u32>, 2>, Each<Out<u32>, 2>, Zeroed<u32>, InOut<u32>);
    let graph = account.record::<Params>("gather", |recording, ([a, b], mut outs, mut zeroed, mut kept)| {
        let [sum, count] = &mut outs;
        recording.launch(&GATHER, 1, ([Some(&a), None, Some(&b)], [&mut *sum, &mut *count]))?;
        recording.launch(&ADD, 2, (&mut zeroed, 6))?;
        recording.launch(&ADD, 2, (&mut kept, 1))?;
        recording.zero(&mut kept)?;
        recording.launch(&ADD, 2, (&mut kept, 3))
    });
    let graph = graph.unwrap();
    let [a, b] = [30, 4].map(|value| account.upload(vec![value]).unwrap());
    let [mut sum, mut count] = [(); 2].map(|()| account.alloc::<u32>(1).unwrap());
    let [mut zeroed, mut kept] = [(); 2].map(|()| account.upload(vec![77_u32; 2]).unwrap());
    for _ in 0..2 {
        graph.replay(([&a, &b], [&mut sum, &mut count], &mut zeroed, &mut kept)).unwrap();
    }
    assert_eq!((values(&account, &sum), values(&account, &count)), (vec![34], vec![2]));
    assert_eq!((values(&account, &zeroed), values(&account, &kept)), (vec![6; 2], vec![3; 2]));
}

pub(crate) fn a_fault_in_a_graph_names_its_kernel(devices: &Devices) {
    let account = devices.get(0).account("faulty");
    let graph =
        account.record::<(InOut<u32>, InOut<u32>, Out<u32>)>("bad", |recording, (mut x, mut y, mut z)| {
            recording.launch(&FILL, 1, (&mut z, 1))?;
            recording.launch(&ADD, 1, (&mut x, 1))?;
            recording.launch(&PANIC, 1, (&mut y,))?;
            recording.launch(&COPY, 1, (&y, &mut x))
        });
    let graph = graph.unwrap();
    let [mut x, mut y, mut z] = [1, 2, 3].map(|value| account.upload(vec![value]).unwrap());
    let fault = fault_of(graph.replay((&mut x, &mut y, &mut z)).unwrap().wait());
    assert_eq!((fault.kernel, &*fault.owner), ("panic", "faulty"));
    for buffer in [&x, &y, &z] {
        assert_eq!(fault_of(account.download(buffer).unwrap().wait()), fault, "all it may write is spoiled");
    }
    account.launch(&FILL, 1, (&mut z, 9)).unwrap();
    assert_eq!(values(&account, &z), [9], "whole again when it is overwritten");
    // What reads what is spoiled fails with the same fault, and what overwrites it does not.
    let copy = account.record::<(In<u32>, Out<u32>)>("copy", |recording, (from, mut to)| {
        recording.copy(&from, &mut to)?;
        recording.launch(&ADD, 1, (&mut to, 1))
    });
    let copy = copy.unwrap();
    assert_eq!(fault_of(copy.replay((&x, &mut z)).unwrap().wait()), fault);
    let whole = account.upload(vec![40]).unwrap();
    copy.replay((&whole, &mut z)).unwrap().wait().unwrap();
    assert_eq!(values(&account, &z), [41]);
    // Nobody awaits it: the next call returns it, be it a replay.
    let [mut x, mut y] = [1, 2].map(|value| account.upload(vec![value]).unwrap());
    drop(graph.replay((&mut x, &mut y, &mut z)).unwrap());
    while devices.pending() > 0 {
        devices.poll();
        std::thread::yield_now();
    }
    assert_eq!(fault_of(copy.replay((&whole, &mut z))).kernel, "panic");
    assert!(devices.take_unreported_faults().is_empty());
}

pub(crate) fn a_replay_in_flight_keeps_what_it_uses(devices: &Devices) {
    let account = devices.get(0).account("gone");
    let result = {
        let graph = account.record::<(In<u32>, InOut<u32>)>("last", |recording, (x, mut y)| {
            recording.copy(&x, &mut y)?;
            (0..30).try_for_each(|_| recording.launch(&ADD, 100, (&mut y, 1)))
        });
        let graph = graph.unwrap();
        let (x, mut y) = (account.upload(vec![12; 100]).unwrap(), account.alloc::<u32>(100).unwrap());
        for _ in 0..10 {
            drop(graph.replay((&x, &mut y)).unwrap());
        }
        drop((graph, x));
        // What takes the memory of `x` comes later.
        let _other = account.upload(vec![99_u32; 100]).unwrap();
        account.download(&y).unwrap()
    };
    drop(account);
    assert_eq!(result.wait().unwrap(), [42; 100]);
    devices.close();
    assert_eq!(devices.get(0).used_bytes(), 0);
}

pub(crate) fn graphs_of_64_kernels_in_turn(devices: &Devices) {
    let account = devices.get(0).account("turns");
    let graph = account.record::<(In<u32>, InOut<u32>)>("many", |recording, (from, mut to)| {
        recording.copy(&from, &mut to)?;
        (0..64).try_for_each(|_| recording.launch(&ADD, 16, (&mut to, 1)))
    });
    let graph = graph.unwrap();
    let [mut a, mut b] = [(); 2].map(|()| account.alloc::<u32>(16).unwrap());
    for _ in 0..50 {
        graph.replay((&a, &mut b)).unwrap();
        graph.replay((&b, &mut a)).unwrap();
    }
    assert_eq!(values(&account, &a), [6400; 16]);
}

pub(crate) fn graphs_are_recorded_right(devices: &Devices) {
    let account = devices.get(0).account("careless");
    let unwritten = account.record::<(In<u32>, Out<u32>)>("lazy", |_, _| Ok(())).err().unwrap();
    assert_eq!(
        unwritten.to_string(),
        "graph `lazy` declares to overwrite its buffer 2, and never writes it; declare it `In`"
    );
    let read_first = account.record::<(Out<u32>, u32)>("hasty", |recording, (mut x, value)| {
        recording.launch(&ADD, 1, (&mut x, &value))
    });
    assert_eq!(
        read_first.err().unwrap().to_string(),
        "graph `hasty` declares to overwrite its buffer 1, and reads it first; declare it `InOut`"
    );
    let failed = account.record::<(InOut<u32>,)>("failed", |recording, (mut x,)| {
        recording.launch(&PANIC, 1, (&mut x,))?;
        Err(DeviceError::Layout)
    });
    assert!(matches!(failed, Err(DeviceError::Layout)));
    assert!(devices.pending() == 0 && devices.take_unreported_faults().is_empty(), "nothing was run");
}

pub(crate) fn replays_that_are_refused_change_nothing(devices: &Devices) {
    let here = devices.get(0).account("here");
    let graph = here
        .record::<(In<u32>, InOut<u32>)>("copy", |recording, (from, mut to)| recording.copy(&from, &mut to));
    let graph = graph.unwrap();
    let near = here.upload(vec![1_u32, 2]).unwrap();
    let mut target = here.upload(vec![5_u32, 6]).unwrap();
    let share = target.share();
    let short = here.upload(vec![7_u32]).unwrap();
    let refused = graph.replay((&short, &mut target)).err();
    assert!(matches!(refused, Some(DeviceError::Shape { len: 1, wanted: 2 })), "{refused:?}");
    assert_eq!(values(&here, &target), [5, 6]);
    drop(share);
    graph.replay((&near, &mut target)).unwrap();
    assert_eq!(values(&here, &target), [1, 2]);
    // Inline devices have nothing to close.
    let is_inline = here.fence().unwrap().is_ready() && !devices.poll();
    devices.close();
    let after = graph.replay((&near, &mut target));
    assert!(matches!(after, Err(DeviceError::Closed { .. })) || is_inline && after.is_ok(), "{after:?}");
}

pub(crate) fn an_empty_graph_is_a_fence(devices: &Devices) {
    let account = devices.get(0).account("empty");
    let graph = account.record::<(In<u32>, InOut<u32>)>("nothing", |_, _| Ok(())).unwrap();
    let (x, mut y) = (account.upload(vec![1_u32]).unwrap(), account.upload(vec![2_u32]).unwrap());
    account.launch(&ADD, 1, (&mut y, 1)).unwrap();
    graph.replay((&x, &mut y)).unwrap().wait().unwrap();
    let nothing: [u32; 0] = [];
    let mut none = account.alloc::<u32>(0).unwrap();
    graph.replay((&x, &mut none)).unwrap().wait().unwrap();
    assert_eq!((values(&account, &y), values(&account, &none)), (vec![3], nothing.to_vec()));
}

/// What a graph launches counts for each kernel, with parts of the time of all.
pub(crate) fn records_name_the_kernels_of_graphs(devices: &Devices) {
    let account = devices.get(0).account("one");
    let (source, mut buffer) =
        (account.upload(vec![1_u32; 1000]).unwrap(), account.alloc::<u32>(1000).unwrap());
    let graph = account.record::<(In<u32>, InOut<u32>)>("both", |recording, (source, mut buffer)| {
        recording.launch(&COPY, 1000, (&source, &mut buffer))?;
        recording.launch(&ADD, Grid::from(500), (&mut buffer, 1))?;
        recording.launch(&ADD, Grid::from(1000), (&mut buffer, 1))
    });
    let graph = graph.unwrap();
    for _ in 0..2 {
        graph.replay((&source, &mut buffer)).unwrap().wait().unwrap();
    }
    let (usage, kernels) = (account.usage().unwrap(), account.usage_by_kernel().unwrap());
    let of = |name: &str| kernels.iter().find(|usage| usage.kernel == name).unwrap();
    let (copy, add) = (of("copy"), of("add"));
    assert_eq!((usage.launches, copy.launches, add.launches, kernels.len()), (6, 2, 4, 2));
    assert_eq!((copy.elements, add.elements, add.largest), (2000, 3000, Grid::from(1000)));
    assert_eq!((copy.estimated_time, add.estimated_time), (copy.launch_time, add.launch_time));
    assert!(add.launch_time > Duration::ZERO && add.launch_time + copy.launch_time <= usage.launch_time);
}
