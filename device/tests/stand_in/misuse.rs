//! What the stand-in punishes: each case ends with the code of a driver and is counted, or ends the process.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use cudarc::driver::{result, sys};

use crate::apart::{apart, child};
use crate::driver::*;
use crate::{register_gate, stand_in};

/// Runs a case that must be one misuse and bring this code.
fn punished(name: &str, expected: Status, case: impl FnOnce() -> Result<(), Status>) {
    apart(name, &[("STAND_IN_MISUSE", "report")], || {
        Gpu::open(0);
        assert_eq!(case(), Err(expected));
        assert_eq!(stand_in().call_count("misuse"), 1);
    });
}

#[test]
fn destroyed_events_are_known() {
    punished("misuse::destroyed_events_are_known", Status::CUDA_ERROR_INVALID_HANDLE, || {
        let (event, stream) = (event(), stream());
        // SAFETY: that it is not there is the test.
        unsafe {
            result::event::destroy(event).expect("it was there");
            code(result::event::record(event, stream))
        }
    });
}

#[test]
fn streams_of_another_context_are_refused() {
    punished("misuse::streams_of_another_context_are_refused", Status::CUDA_ERROR_INVALID_HANDLE, || {
        let stream = stream();
        Gpu::open(1);
        synchronize(stream)
    });
}

#[test]
fn used_memory_is_not_freed() {
    punished("misuse::used_memory_is_not_freed", Status::CUDA_ERROR_INVALID_VALUE, || {
        let gate = register_gate(&stand_in());
        register_add(&stand_in());
        let (stream, memory) = (stream(), alloc(8));
        launch(function("gate"), stream, &mut [])?;
        launch(function("add"), stream, &mut [memory, 1, 1])?;
        // SAFETY: that it is used is the test.
        let freed = code(unsafe { result::free_sync(memory) });
        gate.open();
        synchronize(stream)?;
        // SAFETY: now nobody uses it.
        unsafe { result::free_sync(memory) }.expect("memory that nobody uses can be freed");
        freed
    });
}

#[test]
fn memory_that_another_process_has_open_is_not_freed() {
    let name = "misuse::memory_that_another_process_has_open_is_not_freed";
    if let Ok(bytes) = std::env::var("EXPORTED") {
        Gpu::open(0);
        let bytes: Vec<_> = bytes.split(' ').map(|byte| byte.parse().expect("a byte")).collect();
        let handle = sys::CUipcMemHandle { reserved: bytes.try_into().expect("64 bytes") };
        let mut opened = 0;
        // SAFETY: the address is written.
        code(unsafe { sys::cuIpcOpenMemHandle_v2(&mut opened, handle, 1) }.result()).expect("it is there");
        println!("it is open");
        // Until the other process says that it is enough.
        std::io::stdin().read_line(&mut String::new()).expect("the other process lives");
        return;
    }
    punished(name, Status::CUDA_ERROR_INVALID_VALUE, || {
        let memory = alloc(512);
        let mut handle = sys::CUipcMemHandle { reserved: [0; 64] };
        // SAFETY: the handle is written.
        code(unsafe { sys::cuIpcGetMemHandle(&mut handle, memory) }.result())?;
        // SAFETY: as above. That it is inside of the memory is the test.
        let inside = code(unsafe { sys::cuIpcGetMemHandle(&mut handle.clone(), memory + 256) }.result());
        assert_eq!(inside, Err(Status::CUDA_ERROR_INVALID_VALUE));
        let text = handle.reserved.map(|byte| byte.to_string()).join(" ");
        let mut other = child(name, &[("EXPORTED", &text)]);
        let mut other =
            other.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it can be started");
        let said = BufReader::new(other.stdout.take().expect("it is piped")).lines();
        assert!(said.map_while(Result::ok).any(|line| line.contains("it is open")));
        // SAFETY: that it is open elsewhere is the test.
        let freed = code(unsafe { result::free_sync(memory) });
        drop(other.stdin.take());
        other.wait().expect("it ends");
        // SAFETY: now nobody has it open.
        unsafe { result::free_sync(memory) }.expect("memory that nobody uses can be freed");
        freed
    });
}

#[test]
fn used_pinned_memory_is_not_freed() {
    punished("misuse::used_pinned_memory_is_not_freed", Status::CUDA_ERROR_INVALID_VALUE, || {
        let gate = register_gate(&stand_in());
        let (stream, memory, host) = (stream(), alloc(8), pinned(1));
        launch(function("gate"), stream, &mut [])?;
        upload(memory, host, stream);
        // SAFETY: that it is used is the test.
        let freed = code(unsafe { result::free_host(host.as_mut_ptr().cast()) });
        gate.open();
        synchronize(stream)?;
        freed
    });
}

#[test]
fn copies_stay_inside() {
    punished("misuse::copies_stay_inside", Status::CUDA_ERROR_INVALID_VALUE, || {
        let (stream, memory, host) = (stream(), alloc(8), pinned(2));
        // SAFETY: that it is too long is the test.
        code(unsafe { result::memcpy_htod_async(memory, host, stream) })
    });
}

#[test]
fn captures_are_not_broken() {
    punished("misuse::captures_are_not_broken", Status::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, || {
        let stream = stream();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is there.
        unsafe { result::stream::begin_capture(stream, mode) }.expect("a capture");
        // SAFETY: a context is current.
        let allocated = code(unsafe { result::malloc_sync(8) });
        // SAFETY: the stream is there.
        let ended = code(unsafe { result::stream::end_capture(stream) });
        assert_eq!(ended, Err(Status::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED));
        allocated.map(drop)
    });
}

#[test]
fn captures_do_not_depend_on_the_outside() {
    punished(
        "misuse::captures_do_not_depend_on_the_outside",
        Status::CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
        || {
            let (stream, other, event) = (stream(), stream(), event());
            // SAFETY: all are there.
            unsafe {
                result::event::record(event, other).expect("a record");
                let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
                result::stream::begin_capture(stream, mode).expect("a capture");
                let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
                code(result::stream::wait_event(stream, event, flags))
            }
        },
    );
}

#[test]
fn misuse_ends_the_process() {
    let name = "misuse::misuse_ends_the_process";
    if std::env::var_os("CHARE_TEST_IS_APART").is_some() {
        // SAFETY: that there is no context is the test.
        let _ = unsafe { result::malloc_sync(8) };
        return;
    }
    let output = child(name, &[]).output().expect("the test binary can be started again");
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && message.contains("misuse: no context is current"), "{message}");
}
