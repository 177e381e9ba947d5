//! Worker threads that drain the streams of their device.
//!
//! A stream runs one operation at a time, in order. A worker takes the head of a stream that is drawn from the seed among
//! those that can run; waits for a time drawn from the seed; then looks up the addresses and runs the operation. So streams
//! overtake each other, and whatever no event orders happens in another order under another seed.

use std::ffi::c_void;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::kernel::{Call, Parameter, RawArgument, read_address};
use crate::world::{Progress, State, World};

/// One operation of a stream.
#[derive(Clone)]
pub(crate) enum Work {
    Kernel(Arc<Call>),
    Copy {
        to: End,
        from: End,
        len_bytes: u64,
    },
    Set {
        to: u64,
        pattern: Vec<u8>,
        count: u64,
    },
    Host {
        function: HostFunction,
        state: Address,
    },
    Record {
        progress: Arc<Progress>,
        count: u64,
    },
    Wait {
        progress: Arc<Progress>,
        count: u64,
        source: usize,
    },
    /// The nodes of a graph, in an order that keeps their dependencies.
    Graph(Vec<Work>),
}

/// A function that a stream calls.
pub(crate) type HostFunction = extern "C" fn(*mut c_void);

/// One end of a copy.
#[derive(Clone)]
pub(crate) enum End {
    Device(u64),
    Host(Address),
    /// What pageable memory held at the call.
    Staged(Arc<Vec<u8>>),
}

/// An address of the host's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address(pub(crate) *mut u8);

// SAFETY: a number; what may be done at it is the business of whoever gave it to the driver.
unsafe impl Send for Address {}
// SAFETY: as above.
unsafe impl Sync for Address {}

impl Work {
    /// Whether it touches the `len` bytes of device memory at `start`.
    pub(crate) fn touches_device(&self, start: u64, len_bytes: u64) -> bool {
        let inside = |address: u64| address.wrapping_sub(start) < len_bytes;
        let end_inside = |end: &End| matches!(end, End::Device(address) if inside(*address));
        match self {
            Work::Kernel(call) => call.addresses().any(|(address, _)| inside(address)),
            Work::Copy { to, from, .. } => end_inside(to) || end_inside(from),
            Work::Set { to, .. } => inside(*to),
            Work::Graph(nodes) => nodes.iter().any(|node| node.touches_device(start, len_bytes)),
            Work::Host { .. } | Work::Record { .. } | Work::Wait { .. } => false,
        }
    }

    /// Whether it touches the `len` bytes of host memory at `start`.
    pub(crate) fn touches_host(&self, start: usize, len_bytes: usize) -> bool {
        let inside =
            |end: &End| matches!(end, End::Host(at) if (at.0 as usize).wrapping_sub(start) < len_bytes);
        match self {
            Work::Copy { to, from, .. } => inside(to) || inside(from),
            Work::Graph(nodes) => nodes.iter().any(|node| node.touches_host(start, len_bytes)),
            _ => false,
        }
    }
}

/// An operation whose addresses have been looked up.
enum Ready {
    Nothing,
    Kernel(Arc<Call>, Vec<RawArgument>),
    Copy { to: *mut u8, from: *const u8, len_bytes: usize, _staged: Option<Arc<Vec<u8>>> },
    Set { to: *mut u8, pattern: Vec<u8>, count: usize },
    Host(HostFunction, Address),
}

impl Ready {
    fn run(self) -> Result<(), Code> {
        match self {
            Ready::Nothing => {}
            Ready::Kernel(call, arguments) => return call.kernel.run(call.geometry, &arguments),
            // SAFETY: both ends were looked up in live allocations, which nobody can free while this runs, or were given
            // to the driver to copy from or to.
            Ready::Copy { to, from, len_bytes, .. } => unsafe { std::ptr::copy(from, to, len_bytes) },
            Ready::Set { to, pattern, count } => {
                for index in 0..count {
                    // SAFETY: as above; the length was checked.
                    unsafe { to.add(index * pattern.len()).copy_from(pattern.as_ptr(), pattern.len()) };
                }
            }
            Ready::Host(function, state) => function(state.0.cast()),
        }
        Ok(())
    }
}

/// Starts the workers of all devices. They end with the process.
pub(crate) fn start(world: &'static World) {
    for device in 0..world.settings.device_count {
        for index in 0..world.settings.worker_count {
            let name = format!("cuda-{device}-{index}");
            let thread = std::thread::Builder::new().name(name).spawn(move || drain(world, device));
            drop(thread.expect("the system has room for the stand-in's threads"));
        }
    }
}

/// The life of a worker.
fn drain(world: &'static World, device: usize) {
    let mut state = world.lock();
    loop {
        let Some((handle, work)) = state.take_runnable(device) else {
            state = world.runnable.wait(state).expect("a panic in a driver function ends the process");
            continue;
        };
        let delay_us = state.draw(world.settings.delay_us + 1);
        drop(state);
        if delay_us > 0 {
            std::thread::sleep(Duration::from_micros(delay_us));
        }
        let ready = world.lock().resolve(device, &work);
        let outcome = ready.and_then(Ready::run);
        state = world.lock();
        state.finish(device, handle, &work, outcome);
        world.finished.notify_all();
        world.runnable.notify_all();
    }
}

impl State {
    /// Takes the head of a stream that can run.
    fn take_runnable(&mut self, device: usize) -> Option<(u64, Work)> {
        let can_run = |work: &Work| match work {
            Work::Wait { progress, count, source } => {
                progress.has_reached(*count) || self.contexts[*source].fault.is_some()
            }
            _ => true,
        };
        let streams =
            self.streams.iter().filter(|(_, stream)| stream.device == device && stream.running.is_none());
        let runnable = streams.filter(|(_, stream)| stream.queue.front().is_some_and(can_run));
        let handles: Vec<u64> = runnable.map(|(&handle, _)| handle).collect();
        if handles.is_empty() {
            return None;
        }
        let handle = handles[self.draw(handles.len() as u64) as usize];
        let stream = self.streams.get_mut(&handle)?;
        let mut work = stream.queue.pop_front()?;
        while let Work::Graph(nodes) = work {
            nodes.into_iter().rev().for_each(|node| stream.queue.push_front(node));
            work = stream.queue.pop_front()?;
        }
        stream.running = Some(work.clone());
        Some((handle, work))
    }

    fn finish(&mut self, device: usize, handle: u64, work: &Work, outcome: Result<(), Code>) {
        match (outcome, work) {
            (Err(code), _) => self.poison(device, code),
            (Ok(()), Work::Record { progress, count }) if self.contexts[device].fault.is_none() => {
                let mut completed = progress.completed.lock().expect("nothing panics under this lock");
                *completed = (completed.0.max(*count), Some(Instant::now()));
            }
            _ => {}
        }
        let stream = self.streams.get_mut(&handle).expect("a stream with work is kept");
        stream.running = None;
        if stream.is_destroyed && stream.is_idle() {
            self.streams.remove(&handle);
        }
    }

    /// Looks up the addresses of an operation, as the device would when it runs it.
    fn resolve(&self, device: usize, work: &Work) -> Result<Ready, Code> {
        if self.contexts[device].fault.is_some() {
            return Ok(Ready::Nothing);
        }
        match work {
            Work::Kernel(call) => self.resolve_call(device, call),
            Work::Copy { to, from, len_bytes } => {
                let staged = match from {
                    End::Staged(bytes) => Some(bytes.clone()),
                    _ => None,
                };
                let (to, from) = (self.resolve_end(to, *len_bytes)?, self.resolve_end(from, *len_bytes)?);
                Ok(Ready::Copy { to, from, len_bytes: *len_bytes as usize, _staged: staged })
            }
            Work::Set { to, pattern, count } => {
                let to = self.resolve_end(&End::Device(*to), count * pattern.len() as u64)?;
                Ok(Ready::Set { to, pattern: pattern.clone(), count: *count as usize })
            }
            Work::Host { function, state } => Ok(Ready::Host(*function, *state)),
            Work::Record { .. } | Work::Wait { .. } | Work::Graph(_) => Ok(Ready::Nothing),
        }
    }

    fn resolve_end(&self, end: &End, len_bytes: u64) -> Result<*mut u8, Code> {
        match end {
            End::Device(address) => {
                let place = self.memories.place(*address).filter(|place| place.len_bytes >= len_bytes);
                place.map(|place| place.host).ok_or(Code::ILLEGAL_ADDRESS)
            }
            End::Host(address) => Ok(address.0),
            End::Staged(bytes) => Ok(bytes.as_ptr().cast_mut()),
        }
    }

    /// The arguments of a kernel, its addresses looked up. A null address is passed on as no bytes.
    fn resolve_call(&self, device: usize, call: &Arc<Call>) -> Result<Ready, Code> {
        let mut arguments = Vec::with_capacity(call.values.len());
        for (parameter, value) in call.kernel.parameters.iter().zip(&call.values) {
            let argument = match *parameter {
                Parameter::Value { bytes } => {
                    RawArgument { start: value.as_ptr().cast_mut(), len_bytes: u64::from(bytes) }
                }
                Parameter::Address { .. } if read_address(value) == 0 => {
                    RawArgument { start: std::ptr::null_mut(), len_bytes: 0 }
                }
                Parameter::Address { align } => {
                    let place = self.memories.place(read_address(value)).ok_or(Code::ILLEGAL_ADDRESS)?;
                    if place.device != device && !self.contexts[device].peers.contains(&place.device) {
                        return Err(Code::ILLEGAL_ADDRESS);
                    }
                    if !(place.host as u64).is_multiple_of(u64::from(align.max(1))) {
                        return Err(Code::MISALIGNED_ADDRESS);
                    }
                    RawArgument { start: place.host, len_bytes: place.len_bytes }
                }
            };
            arguments.push(argument);
        }
        Ok(Ready::Kernel(call.clone(), arguments))
    }
}
