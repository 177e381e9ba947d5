//! Graphs of accounts on the `cuda` backend: what the driver is asked for, and who is told of a fault.

use chare_device::{DeviceError, Devices, HostMode, In, InOut, Kernel, Launch};

use crate::apart::apart;
use crate::kernels::register;
use crate::setting::stand_in;

const ADD: Kernel<(InOut<u64>, u64)> =
    Kernel::new("add", |_: &Launch, (buffer, value): (&mut [u64], u64)| {
        buffer.iter_mut().for_each(|x| *x += value);
    })
    .with_ptx("kernel add");
const ASTRAY: Kernel<(InOut<u64>,)> =
    Kernel::new("astray", |_: &Launch, (buffer,): (&mut [u64],)| buffer[0] = buffer[buffer.len()])
        .with_ptx("kernel astray");

fn open() -> Devices {
    register(&ADD);
    register(&ASTRAY);
    Devices::open(&"cuda".parse().expect("a specification"), HostMode::Inline).expect("the stand-in opens")
}

/// How often the driver was asked to launch kernels, make executable graphs, patch them and launch them.
fn calls() -> [u64; 4] {
    ["cuLaunchKernel", "cuGraphInstantiateWithFlags", "cuGraphExecUpdate_v2", "cuGraphLaunch"]
        .map(|call| stand_in().call_count(call))
}

#[test]
fn a_replay_is_one_call() {
    apart("replay::a_replay_is_one_call", &[], || {
        let devices = open();
        let account = devices.get(0).account("graph");
        let graph =
            account.record::<(In<u64>, InOut<u64>, u64)>("turn", |recording, (from, mut to, value)| {
                recording.copy(&from, &mut to)?;
                (0..10).try_for_each(|_| recording.launch(&ADD, 4, (&mut to, &value)))
            });
        let graph = graph.expect("it is recorded");
        let [mut a, mut b] = [0, 0].map(|_| account.alloc::<u64>(4).expect("memory"));
        assert_eq!(calls(), [0; 4], "recorded is not given to the driver");
        for _ in 0..20 {
            graph.replay((&a, &mut b, 1)).expect("it is taken");
            graph.replay((&b, &mut a, 1)).expect("it is taken");
        }
        assert_eq!(calls(), [20, 2, 0, 40], "two buffers in turn have two executables");
        for value in 2..5 {
            graph.replay((&a, &mut b, value)).expect("it is taken");
        }
        assert_eq!(calls(), [50, 2, 3, 43], "other scalars are patched in");
        let mut others = [0; 6].map(|_| account.alloc::<u64>(4).expect("memory"));
        for other in &mut others {
            graph.replay((&a, other, 1)).expect("it is taken");
        }
        assert_eq!(calls(), [110, 4, 7, 49], "no more than four are kept");
        let values = account.download(&others[5]).expect("it is taken").wait().expect("all is well");
        assert_eq!(values, [410; 4]);
    });
}

#[test]
fn a_fault_in_a_replay_says_what_it_can() {
    apart("replay::a_fault_in_a_replay_says_what_it_can", &[("STAND_IN_DEVICES", "3")], || {
        let devices = open();
        let message = |device: usize, is_one: bool| {
            let account = devices.get(device).account("owner");
            let graph = account.record::<(InOut<u64>,)>("step", |recording, (mut x,)| {
                if !is_one {
                    recording.launch(&ADD, 4, (&mut x, 1))?;
                }
                recording.launch(&ASTRAY, 4, (&mut x,))
            });
            let graph = graph.expect("it is recorded");
            let mut buffer = account.alloc::<u64>(4).expect("memory");
            // Nothing else that could be meant is in flight: a driver that has failed says so of all.
            account.download(&buffer).expect("it is taken").wait().expect("all is well");
            let outcome = graph.replay((&mut buffer,)).expect("it is taken").wait();
            let Err(DeviceError::Fault(fault)) = outcome else { panic!("a fault was expected: {outcome:?}") };
            let after = graph.replay((&mut buffer,)).expect("it is taken").wait();
            assert!(matches!(after, Err(DeviceError::Fault(later)) if later == fault));
            fault.to_string()
        };
        let what = "CUDA_ERROR_ASSERT (device-side assert triggered); the device cannot be used again by this process";
        assert_eq!(message(0, true), format!("kernel `astray` of owner failed on cuda:0: {what}"));
        assert_eq!(
            message(1, false),
            format!(
                "kernel `step` of owner failed on cuda:1: {what}; it is a graph, of the kernels `add`, `astray`"
            )
        );
        // The third goes on.
        let account = devices.get(2).account("fine");
        let graph = account
            .record::<(InOut<u64>,)>("fine", |recording, (mut x,)| recording.launch(&ADD, 4, (&mut x, 6)));
        let mut buffer = account.alloc::<u64>(2).expect("memory");
        graph.expect("it is recorded").replay((&mut buffer,)).expect("it is taken");
        let values = account.download(&buffer).expect("it is taken").wait().expect("all is well");
        assert_eq!(values, [6; 2]);
    });
}

#[test]
fn graphs_keep_no_memory() {
    apart("replay::graphs_keep_no_memory", &[("STAND_IN_MEMORY_MIB", "8")], || {
        let devices = open();
        let account = devices.get(0).account("large");
        let graph = account
            .record::<(InOut<u64>,)>("add", |recording, (mut x,)| recording.launch(&ADD, 1, (&mut x, 1)));
        let graph = graph.expect("it is recorded");
        for _ in 0..10 {
            let mut buffer = account.alloc::<u64>(600 << 10).expect("it is free again");
            graph.replay((&mut buffer,)).expect("it is taken").wait().expect("all is well");
            let values = account.download(&buffer).expect("it is taken").wait().expect("all is well");
            assert_eq!(values[599 << 10], 1);
        }
        drop(account);
        devices.close();
        drop(graph);
        assert!(devices.take_unreported_faults().is_empty());
    });
}
