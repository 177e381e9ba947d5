//! The stand-in for `libcuda.so`, called through `cudarc` as the backend calls a driver: what it keeps of a GPU, and what
//! it punishes.

#![cfg(target_os = "linux")]

mod apart;
mod driver;
mod misuse;

use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use cuda_stand_in::{Fault, Parameter, StandIn};
use cudarc::driver::{result, sys};

use apart::apart;
use driver::*;

/// A place where kernels wait until a test lets them go on.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Default)]
struct GateState {
    is_open: bool,
    is_reached: bool,
}

impl Gate {
    pub(crate) fn open(&self) {
        self.state.lock().expect("no test panics here").is_open = true;
        self.changed.notify_all();
    }

    /// Waits until a kernel waits here.
    fn wait_until_reached(&self) {
        let state = self.state.lock().expect("no test panics here");
        drop(self.changed.wait_while(state, |state| !state.is_reached).expect("no test panics here"));
    }

    fn pass(&self) {
        let mut state = self.state.lock().expect("no test panics here");
        state.is_reached = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.is_open).expect("no test panics here"));
    }
}

pub(crate) fn register_gate(stand_in: &StandIn) -> Arc<Gate> {
    let gate = Arc::new(Gate::default());
    let waiting = gate.clone();
    stand_in.register("gate", &[], move |_, _| {
        waiting.pass();
        Ok(())
    });
    gate
}

pub(crate) fn stand_in() -> StandIn {
    StandIn::loaded().expect("the library on the path is the stand-in")
}

#[test]
fn devices_describe_themselves() {
    apart("devices_describe_themselves", &[("STAND_IN_DEVICES", "3"), ("STAND_IN_MEMORY_MIB", "64")], || {
        Gpu::open(0);
        assert_eq!(result::device::get_count(), Ok(3));
        let uuid = |ordinal| result::device::get_uuid(ordinal).expect("a device").bytes;
        assert_ne!(uuid(0), uuid(1));
        // SAFETY: the devices are there.
        assert_eq!(unsafe { result::device::total_mem(1) }, Ok(64 << 20));
        let major = sys::CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR;
        // SAFETY: as above.
        assert_eq!(unsafe { result::device::get_attribute(2, major) }, Ok(9));
        assert_eq!(code(result::device::get(3)), Err(Status::CUDA_ERROR_INVALID_DEVICE));
        let error = sys::CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;
        assert_eq!(result::DriverError(error).error_name().expect("a name"), c"CUDA_ERROR_ILLEGAL_ADDRESS");
    });
}

#[test]
fn no_device_is_an_error() {
    apart("no_device_is_an_error", &[("STAND_IN_DEVICES", "0")], || {
        assert_eq!(code(result::init()), Err(Status::CUDA_ERROR_NO_DEVICE));
    });
}

#[test]
fn copies_and_kernels_run_in_stream_order() {
    apart("copies_and_kernels_run_in_stream_order", &[], || {
        Gpu::open(0);
        register_add(&stand_in());
        let (stream, memory, host) = (stream(), alloc(800), pinned(100));
        upload(memory, host, stream);
        let add = function("add");
        for _ in 0..1000 {
            launch(add, stream, &mut [memory, 1, 100]).expect("a launch");
        }
        download(host, memory, stream);
        synchronize(stream).expect("no fault");
        assert!(host.iter().all(|&number| number == 1000), "{host:?}");
    });
}

#[test]
fn fresh_memory_is_garbage_and_fills_work() {
    apart("fresh_memory_is_garbage_and_fills_work", &[], || {
        Gpu::open(0);
        let (stream, memory, host) = (stream(), alloc(64), pinned(8));
        download(host, memory, stream);
        synchronize(stream).expect("no fault");
        assert!(host.iter().all(|&number| number != 0));
        // SAFETY: the memory is there until the stream is done.
        unsafe {
            result::memset_d8_async(memory, 7, 64, stream).expect("a fill");
            sys::cuMemsetD32Async(memory + 8, 9, 2, stream).result().expect("a fill");
        }
        download(host, memory, stream);
        synchronize(stream).expect("no fault");
        assert_eq!((host[0], host[1], host[2]), (0x0707_0707_0707_0707, 9 << 32 | 9, host[0]));
    });
}

#[test]
fn streams_overtake_unless_an_event_orders_them() {
    apart("streams_overtake_unless_an_event_orders_them", &[("STAND_IN_WORKERS", "3")], || {
        Gpu::open(0);
        let gate = register_gate(&stand_in());
        register_add(&stand_in());
        let (first, second, third) = (stream(), stream(), stream());
        let (memory, host) = (alloc(8), pinned(1));
        upload(memory, host, first);
        synchronize(first).expect("no fault");
        let marker = event();
        launch(function("gate"), first, &mut []).expect("a launch");
        launch(function("add"), first, &mut [memory, 5, 1]).expect("a launch");
        // SAFETY: all are there.
        unsafe {
            result::event::record(marker, first).expect("a record");
            assert_eq!(code(result::event::query(marker)), Err(Status::CUDA_ERROR_NOT_READY));
            let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
            result::stream::wait_event(second, marker, flags).expect("a wait");
        }
        // The third does not wait for the first, which cannot go on yet.
        download(host, memory, third);
        synchronize(third).expect("no fault");
        assert_eq!(host[0], 0);
        gate.open();
        download(host, memory, second);
        synchronize(second).expect("no fault");
        assert_eq!(host[0], 5);
        // SAFETY: the event is there.
        assert_eq!(unsafe { result::event::query(marker) }, Ok(()));
    });
}

#[test]
fn streams_interleave_as_the_seed_says() {
    /// The order in which the kernels of four streams run.
    fn order(seed: &str) -> String {
        let name = "streams_interleave_as_the_seed_says";
        let variables = [("STAND_IN_SEED", seed), ("STAND_IN_WORKERS", "1"), ("STAND_IN_DELAY_US", "0")];
        let output = apart::child(name, &variables).output().expect("the test binary can be started again");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = out.lines().find_map(|line| line.split_once("order:")).expect("the order is printed");
        line.1.to_owned()
    }
    if std::env::var_os("CHARE_TEST_IS_APART").is_none() {
        assert_eq!(order("7"), order("7"));
        assert!((0..8).any(|seed| order(&seed.to_string()) != order("7")), "the seed decides nothing");
        return;
    }
    Gpu::open(0);
    let gate = register_gate(&stand_in());
    let order = Arc::new(Mutex::new(Vec::new()));
    let noted = order.clone();
    stand_in().register("note", &[Parameter::Value { bytes: 8 }], move |_, arguments| {
        noted.lock().expect("no kernel panics here").push(arguments.value::<u64>(0));
        Ok(())
    });
    let streams: Vec<sys::CUstream> = (0..4).map(|_| stream()).collect();
    launch(function("gate"), streams[0], &mut []).expect("a launch");
    // From here on the one worker takes nothing before all is queued.
    gate.wait_until_reached();
    let note = function("note");
    for number in 0..40 {
        launch(note, streams[number as usize % 4], &mut [number]).expect("a launch");
    }
    gate.open();
    streams.iter().for_each(|&stream| synchronize(stream).expect("no fault"));
    let order = order.lock().expect("no kernel panics here");
    for stream in 0..4 {
        let own: Vec<u64> = order.iter().copied().filter(|number| number % 4 == stream).collect();
        assert!(own.is_sorted(), "a stream keeps its order");
    }
    println!("order:{order:?}");
}

#[test]
fn a_fault_is_sticky_and_spares_other_devices() {
    apart("a_fault_is_sticky_and_spares_other_devices", &[], || {
        let other = Gpu::open(1);
        register_add(&stand_in());
        let (other_stream, other_memory, other_host) = (stream(), alloc(8), pinned(1));
        let gpu = Gpu::open(0);
        let (stream, memory, marker) = (stream(), alloc(64), event());
        // One element too many.
        launch(function("add"), stream, &mut [memory, 1, 9]).expect("the fault comes later");
        // SAFETY: both are there.
        let _ = unsafe { result::event::record(marker, stream) };
        assert_eq!(synchronize(stream), Err(Status::CUDA_ERROR_ILLEGAL_ADDRESS));
        // SAFETY: the event is there.
        assert_eq!(code(unsafe { result::event::query(marker) }), Err(Status::CUDA_ERROR_ILLEGAL_ADDRESS));
        // SAFETY: a context is current.
        assert_eq!(code(unsafe { result::malloc_sync(8) }), Err(Status::CUDA_ERROR_ILLEGAL_ADDRESS));
        other.bind();
        upload(other_memory, other_host, other_stream);
        launch(function("add"), other_stream, &mut [other_memory, 3, 1]).expect("a launch");
        download(other_host, other_memory, other_stream);
        synchronize(other_stream).expect("another device goes on");
        assert_eq!(other_host[0], 3);
        assert_ne!(gpu.device, other.device);
    });
}

#[test]
fn bad_addresses_and_panics_are_faults() {
    fn fault_of(name: &str, arguments: &mut [u64]) -> Status {
        let stream = stream();
        launch(function(name), stream, arguments).expect("the fault comes later");
        synchronize(stream).expect_err("a fault")
    }
    let cases = [
        ("host", Status::CUDA_ERROR_ILLEGAL_ADDRESS),
        ("peer", Status::CUDA_ERROR_ILLEGAL_ADDRESS),
        ("unaligned", Status::CUDA_ERROR_MISALIGNED_ADDRESS),
        ("panic", Status::CUDA_ERROR_ASSERT),
    ];
    for (case, expected) in cases {
        if std::env::var("CASE").is_ok_and(|wanted| wanted != case) {
            continue;
        }
        apart("bad_addresses_and_panics_are_faults", &[("CASE", case)], || {
            Gpu::open(1);
            let of_peer = alloc(8);
            Gpu::open(0);
            register_add(&stand_in());
            stand_in().register("panics", &[], |_, _| panic!("on purpose"));
            let found = match case {
                "host" => fault_of("add", &mut [std::ptr::from_ref(&0_u64) as u64, 1, 1]),
                "peer" => fault_of("add", &mut [of_peer, 1, 1]),
                "unaligned" => fault_of("add", &mut [alloc(64) + 4, 1, 1]),
                _ => fault_of("panics", &mut []),
            };
            assert_eq!(found, expected, "{case}");
        });
    }
}

#[test]
fn limits_are_kept() {
    apart("limits_are_kept", &[("STAND_IN_MEMORY_MIB", "1")], || {
        Gpu::open(0);
        stand_in().register("idle", &[], |_, _| Ok(()));
        let held = alloc(1 << 19);
        // SAFETY: a context is current.
        let too_much = unsafe { result::malloc_sync((1 << 19) + 1) };
        assert_eq!(code(too_much), Err(Status::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(result::mem_get_info(), Ok((1 << 19, 1 << 20)));
        // SAFETY: it is free.
        unsafe { result::free_sync(held) }.expect("memory can be freed");
        alloc(1 << 20);
        let (idle, stream) = (function("idle"), stream());
        let launched = |grid, block, shared| {
            // SAFETY: the kernel has no parameters.
            code(unsafe { result::launch_kernel(idle, grid, block, shared, stream, &mut []) })
        };
        assert_eq!(launched((1, 1, 1), (1024, 1, 1), 48 << 10), Ok(()));
        for (grid, block, shared) in [
            ((0, 1, 1), (1, 1, 1), 0),
            ((1, 65536, 1), (1, 1, 1), 0),
            ((1, 1, 1), (1025, 1, 1), 0),
            ((1, 1, 1), (32, 33, 1), 0),
            ((1, 1, 1), (1, 1, 65), 0),
            ((1, 1, 1), (1, 1, 1), (48 << 10) + 1),
        ] {
            assert_eq!(
                launched(grid, block, shared),
                Err(Status::CUDA_ERROR_INVALID_VALUE),
                "{grid:?} {block:?}"
            );
        }
    });
}

#[test]
fn host_functions_run_in_stream_order() {
    static SEEN: AtomicU64 = AtomicU64::new(0);
    unsafe extern "C" fn note(state: *mut c_void) {
        SEEN.store(state as u64, Ordering::SeqCst);
    }
    apart("host_functions_run_in_stream_order", &[], || {
        Gpu::open(0);
        let gate = register_gate(&stand_in());
        let stream = stream();
        launch(function("gate"), stream, &mut []).expect("a launch");
        // SAFETY: the function takes any number.
        unsafe { result::stream::launch_host_function(stream, note, 42 as *mut c_void) }.expect("accepted");
        assert_eq!(SEEN.load(Ordering::SeqCst), 0);
        gate.open();
        synchronize(stream).expect("no fault");
        assert_eq!(SEEN.load(Ordering::SeqCst), 42);
    });
}

#[test]
fn graphs_replay_and_can_be_updated() {
    apart("graphs_replay_and_can_be_updated", &[], || {
        Gpu::open(0);
        register_add(&stand_in());
        let (stream, memory, host, add) = (stream(), alloc(8), pinned(1), function("add"));
        upload(memory, host, stream);
        let capture = |addend: u64, launches: usize| {
            // SAFETY: the stream is there.
            unsafe {
                let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
                result::stream::begin_capture(stream, mode).expect("a capture");
                for _ in 0..launches {
                    launch(add, stream, &mut [memory, addend, 1]).expect("captured");
                }
                result::stream::end_capture(stream).expect("a graph")
            }
        };
        let graph = capture(2, 3);
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph is there.
        unsafe { sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0).result() }
            .expect("an executable");
        let update = |graph| {
            let mut outcome = std::mem::MaybeUninit::uninit();
            // SAFETY: both are there.
            code(unsafe { sys::cuGraphExecUpdate_v2(executable, graph, outcome.as_mut_ptr()).result() })
        };
        // SAFETY: as above.
        let replay = || unsafe { result::graph::launch(executable, stream) }.expect("a launch");
        (0..4).for_each(|_| replay());
        update(capture(10, 3)).expect("the same shape");
        replay();
        assert_eq!(update(capture(10, 2)), Err(Status::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE));
        download(host, memory, stream);
        synchronize(stream).expect("no fault");
        assert_eq!(host[0], 4 * 6 + 30);
    });
}

#[test]
fn a_capture_forks_and_joins_by_events() {
    apart("a_capture_forks_and_joins_by_events", &[], || {
        Gpu::open(0);
        register_add(&stand_in());
        let (origin, side, memory, host) = (stream(), stream(), alloc(16), pinned(2));
        upload(memory, host, origin);
        synchronize(origin).expect("no fault");
        let (fork, join, add) = (event(), event(), function("add"));
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: all are there.
        let graph = unsafe {
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            result::stream::begin_capture(origin, mode).expect("a capture");
            result::event::record(fork, origin).expect("a fork");
            result::stream::wait_event(side, fork, flags).expect("a fork");
            launch(add, side, &mut [memory + 8, 1, 1]).expect("captured");
            launch(add, origin, &mut [memory, 2, 1]).expect("captured");
            result::event::record(join, side).expect("a join");
            result::stream::wait_event(origin, join, flags).expect("a join");
            result::stream::end_capture(origin).expect("a graph")
        };
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph is there.
        unsafe {
            sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0).result().expect("an executable");
            result::graph::launch(executable, origin).expect("a launch");
        }
        download(host, memory, origin);
        synchronize(origin).expect("no fault");
        assert_eq!(host, [2, 1]);
    });
}

#[test]
fn modules_are_read_and_checked() {
    apart("modules_are_read_and_checked", &[("STAND_IN_MISUSE", "report")], || {
        Gpu::open(0);
        stand_in().register(
            "a",
            &[Parameter::Address { align: 4 }, Parameter::Value { bytes: 4 }],
            |_, _| Ok(()),
        );
        let ptx = |list: &str| format!(".version 9.0\n.target sm_90\n.visible .entry a({list})\n{{ret;}}\0");
        let find = |image: &str, name: &std::ffi::CStr| {
            // SAFETY: the image ends with a zero byte.
            unsafe {
                let module = code(result::module::load_data(image.as_ptr().cast()))?;
                code(result::module::get_function(module, name.to_owned())).map(drop)
            }
        };
        assert_eq!(find(&ptx(".param .u64 a_0, .param .u32 a_1"), c"a"), Ok(()));
        assert_eq!(find(&ptx(".param .u64 a_0, .param .u32 a_1"), c"b"), Err(Status::CUDA_ERROR_NOT_FOUND));
        assert_eq!(find(&ptx(".param .u64 a_0"), c"a"), Err(Status::CUDA_ERROR_INVALID_IMAGE));
        assert_eq!(
            find(&ptx("").replace("9.0", "9.1"), c"a"),
            Err(Status::CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
        );
        assert_eq!(find("nonsense\0", c"a"), Err(Status::CUDA_ERROR_INVALID_IMAGE));
    });
}

#[test]
fn a_lost_device_fails_every_call() {
    apart("a_lost_device_fails_every_call", &[], || {
        Gpu::open(0);
        let gate = register_gate(&stand_in());
        let stream = stream();
        launch(function("gate"), stream, &mut []).expect("a launch");
        stand_in().fail_device(0, Status::CUDA_ERROR_UNKNOWN as i32);
        assert_eq!(synchronize(stream), Err(Status::CUDA_ERROR_UNKNOWN));
        gate.open();
    });
}

#[test]
fn kernels_choose_their_faults() {
    apart("kernels_choose_their_faults", &[], || {
        Gpu::open(0);
        stand_in().register("fails", &[], |_, _| Err(Fault::LaunchFailed));
        let stream = stream();
        launch(function("fails"), stream, &mut []).expect("the fault comes later");
        assert_eq!(synchronize(stream), Err(Status::CUDA_ERROR_LAUNCH_FAILED));
    });
}
