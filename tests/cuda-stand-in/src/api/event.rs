//! Events.

use std::sync::Arc;

use super::{Out, driver};
use crate::code::Code;
use crate::world::{Event, world};

const DISABLE_TIMING: u32 = 2;

driver! {
    fn cuEventCreate(event: Out<u64>, flags: u32) {
        let mut state = world().lock();
        let device = state.current()?;
        let handle = state.new_handle();
        let is_timed = flags & DISABLE_TIMING == 0;
        let made = Event { device, is_timed, recorded: 0, progress: Arc::default(), captured: None };
        state.events.insert(handle, made);
        event.put(handle)
    }

    fn cuEventRecord(event: u64, stream: u64) {
        world().lock().record(event, stream)
    }

    fn cuEventQuery(event: u64) {
        let mut state = world().lock();
        let asked = state.event(event)?;
        if asked.captured.is_some() {
            return Err(world().misuse(Code::CAPTURED_EVENT, "a query of an event recorded in a capture"));
        }
        if asked.progress.has_reached(asked.recorded) { Ok(()) } else { Err(Code::NOT_READY) }
    }

    fn cuEventSynchronize(event: u64) {
        let (progress, count, device) = {
            let mut state = world().lock();
            state.check_no_capture("cuEventSynchronize")?;
            let asked = state.event(event)?;
            (asked.progress.clone(), asked.recorded, asked.device)
        };
        world().wait_until(|state| progress.has_reached(count) || state.contexts[device].fault.is_some());
        world().lock().check_healthy(device)
    }

    fn cuEventElapsedTime_v2(milliseconds: Out<f32>, start: u64, end: u64) {
        let mut state = world().lock();
        let mut time_of = |event: u64| {
            let asked = state.event(event)?;
            if !asked.is_timed || asked.recorded == 0 {
                return Err(world().misuse(Code::INVALID_HANDLE, "the time of an event without one"));
            }
            let completed = *asked.progress.completed.lock().expect("nothing panics under this lock");
            if completed.0 < asked.recorded { Err(Code::NOT_READY) } else { completed.1.ok_or(Code::NOT_READY) }
        };
        let (start, end) = (time_of(start)?, time_of(end)?);
        milliseconds.put(end.saturating_duration_since(start).as_secs_f32() * 1e3)
    }

    fn cuEventDestroy_v2(event: u64) {
        match world().lock().events.remove(&event) {
            Some(_) => Ok(()),
            None => Err(world().misuse(Code::INVALID_HANDLE, "an event destroyed that is not there")),
        }
    }
}
