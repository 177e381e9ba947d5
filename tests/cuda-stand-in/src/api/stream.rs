//! Streams, and the functions of the host's that they call.

use std::collections::VecDeque;

use super::{In, Out, driver};
use crate::code::Code;
use crate::engine::{Address, HostFunction, Work};
use crate::world::{Stream, world};

const NON_BLOCKING: u32 = 1;

fn create(stream: Out<u64>, flags: u32) -> Result<(), Code> {
    let mut state = world().lock();
    let device = state.current()?;
    if flags != NON_BLOCKING {
        let what = "a stream that waits for the null stream, which is not implemented";
        return Err(world().misuse(Code::NOT_SUPPORTED, what));
    }
    let handle = state.new_handle();
    let made = Stream { device, queue: VecDeque::new(), running: None, is_destroyed: false, capture: None };
    state.streams.insert(handle, made);
    stream.put(handle)
}

driver! {
    fn cuStreamCreate(stream: Out<u64>, flags: u32) {
        create(stream, flags)
    }

    fn cuStreamCreateWithPriority(stream: Out<u64>, flags: u32, _priority: i32) {
        create(stream, flags)
    }

    fn cuStreamDestroy_v2(stream: u64) {
        let mut state = world().lock();
        let found = state.streams.get_mut(&stream).filter(|stream| !stream.is_destroyed);
        let Some(found) = found else {
            return Err(world().misuse(Code::INVALID_HANDLE, "a stream destroyed that is not there"));
        };
        if found.capture.is_some() {
            return Err(world().misuse(Code::STREAM_CAPTURE_UNSUPPORTED, "a stream destroyed that captures"));
        }
        found.is_destroyed = true;
        if found.is_idle() {
            state.streams.remove(&stream);
        }
        Ok(())
    }

    fn cuStreamQuery(stream: u64) {
        let mut state = world().lock();
        state.check_not_capturing(stream, "a query")?;
        if state.stream(stream)?.is_idle() { Ok(()) } else { Err(Code::NOT_READY) }
    }

    fn cuStreamSynchronize(stream: u64) {
        let device = {
            let mut state = world().lock();
            state.check_not_capturing(stream, "a synchronisation")?;
            state.stream(stream)?.device
        };
        world().wait_until(|state| {
            state.contexts[device].fault.is_some() || state.streams.get(&stream).is_none_or(Stream::is_idle)
        });
        world().lock().check_healthy(device)
    }

    fn cuStreamWaitEvent(stream: u64, event: u64, _flags: u32) {
        world().lock().wait(stream, event)
    }

    fn cuLaunchHostFunc(stream: u64, function: HostFunction, state: In<u8>) {
        world().lock().submit(stream, Work::Host { function, state: Address(state.address()) })
    }
}
