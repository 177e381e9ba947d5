//! The `wgpu` backend: adapters of Vulkan, Metal or DX12, whose kernels are written in WGSL.
//!
//! # Who owns what
//!
//! Devices of one adapter share one device of wgpu's, and all that is said here of a device, unless they are asked for *apart*: they have one
//! queue, one inbox, one thread, one numbering of memory. So a copy between them is a copy on the device, and the order of submission is
//! that of both. What they do not share is the memory that each may take, and whose fault something is. They are lost together.
//!
//! Each device has one thread, its [`Driver`](driver::Driver), and only this thread records commands, submits and polls.
//! That is a must, and not only simple: a driver may block in `submit` while earlier work runs, callbacks are called inside of
//! `submit` and `poll` only, and neither may happen to a PE. Others do two things with a device: they make and drop buffers
//! (which wgpu allows on any thread, and which waits for nothing), and they put jobs into the device's [`Inbox`](inbox::Inbox).
//! So three things are shared, each under a lock of its own. Two inboxes are locked in the order of their devices, a relay's lock may be
//! taken while an inbox is locked, and no others are ever held together:
//!
//! * the *inbox* of a device: jobs in the order of their submission, and whether the thread sleeps;
//! * its *blocks*: which number is which buffer;
//! * a [`Relay`](inbox::Relay) per copy from one device to another.
//!
//! # Order
//!
//! A device begins its jobs in the order in which they were submitted, and what it begins takes effect in the order in which it
//! was begun: wgpu puts the barriers. That order is one that all accesses to its memory allow, so events are not looked at.
//! A copy between devices that share nothing is two jobs, an *export* on the device of the source and an *import* on the other one, put into both
//! inboxes while both locks are held. The import cannot begin before its relay is filled, and what comes after it on its
//! device waits too. A job waits only for jobs that were submitted before it, so there are no cycles, and each begins.
//!
//! # Batches
//!
//! What is ready when the thread looks, up to [`JOBS_PER_BATCH`](driver::JOBS_PER_BATCH) jobs, is one *batch*: a command buffer
//! for each job and one submission. A job ends when its batch does. [`BATCHES_IN_FLIGHT`](driver::BATCHES_IN_FLIGHT) batches
//! are in flight at most, so that the device has work while the next batch is recorded, and what comes meanwhile goes together.
//! With nothing to record, the thread waits for the oldest batch, for [`LOOK`](driver::LOOK) at a time, so it reports an end as
//! soon as the driver lets it go, and begins new work no later than that. Between an end and its publication there is at most the
//! rest of its batch and the recording of the next one.
//!
//! A batch is *recorded* (each job in a command buffer of its own, so that an error of wgpu is known to be the job's),
//! *submitted*, and *ended*: job after job, what it has downloaded is copied out, it is left, and its completion is published.
//! Where launches are timed and the device has a clock (`stamps`), its batch brings what that says along with its downloads; else the time of a
//! batch is shared by its launches, and said to be estimated.
//!
//! A job that fails while it is recorded is left at once, so that those after it see what it has spoiled; its completion
//! is published in its turn.
//!
//! # Sleep, and the end
//!
//! The thread sleeps if, under the lock of its inbox, there is no job that can begin, and nothing is in flight. Whoever puts a
//! job there, fills a relay that a job there waits for, or closes the inbox, does so before or while it holds this lock and wakes the
//! thread if it sleeps; so either the thread sees it before it sleeps, or it is woken. It stops when the inbox is closed
//! and empty and nothing is in flight: then all that was accepted has been published. Nothing is accepted once an
//! inbox is closed. After `abandon` jobs that have not been recorded are refused in their turn instead.
//!
//! # Faults
//!
//! Every call of wgpu that can fail is made inside of error scopes ([`errors`]); what they catch is the fault of the job, or
//! of all jobs of a batch if it came from its submission. A device that is *lost* (its driver said so, an error came
//! outside of all scopes, or its thread caught a panic of wgpu) stays so: every job in flight and every job that follows
//! is left with a fault that says why. Other devices go on. Where there is a time limit, a device is lost too if a batch is not done
//! in time; what it has downloaded is copied out by this thread, so nobody's memory is touched later. One batch is in flight there: a
//! thread that is blocked in `submit` until the batch before has ended could not tell that this one takes too long.

mod adapter;
mod driver;
mod errors;
mod inbox;
mod kernels;
mod record;
mod staging;
mod stamps;
#[cfg(test)]
mod tests;

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use crate::backend::{Backend, Block, Facts, Fresh, Opened};
use crate::error::DeviceError;
use crate::event::StreamKey;
use crate::host;
use crate::kernel::Language;
use crate::operation::{Command, Operation};
use crate::sleepers::Pending;
use crate::spec::DeviceSpec;
use adapter::Adapter;
use driver::Driver;
use inbox::{Job, Relay, Shared};

/// How many adapters are GPUs; if none is, why.
pub(crate) fn look() -> Result<usize, String> {
    Adapter::look()
}

/// Opens the adapters with these numbers, each as often as its number occurs, or the best ones if there are none.
pub(crate) fn open(spec: &DeviceSpec, numbers: &[usize]) -> Result<Opened, DeviceError> {
    let (backend, devices) = Wgpu::open(spec, numbers)?;
    Ok(Opened { backend: Arc::new(backend), devices })
}

/// The devices of one set.
struct Wgpu {
    /// By ordinal; devices of one adapter have the same, unless they are apart.
    devices: Vec<Arc<Shared>>,
    pending: Arc<Pending>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Wgpu {
    fn open(spec: &DeviceSpec, numbers: &[usize]) -> Result<(Self, Vec<Facts>), DeviceError> {
        let pending = Arc::new(Pending::default());
        let mut backend = Wgpu { devices: Vec::new(), pending, threads: Mutex::default() };
        let mut facts = Vec::new();
        let adapters = Adapter::choose(numbers)?;
        let name = |ordinal: usize| Arc::<str>::from(format!("wgpu:{ordinal}"));
        for (ordinal, adapter) in adapters.iter().enumerate() {
            facts.push(Facts {
                name: name(ordinal),
                uuid: adapter.uuid(),
                speed: 1.0,
                capacity_bytes: spec.capacity_bytes().unwrap_or(u64::MAX),
                language: Language::Wgsl,
                is_host_memory: false,
                runs_at_once: false,
                model: Some(adapter.model()),
                max_buffer_bytes: adapter.limits().max_buffer_size,
            });
            let is_shared = |other: usize| {
                other == ordinal || !spec.is_apart() && adapters[other].number == adapter.number
            };
            let alike: Vec<usize> = (0..adapters.len()).filter(|&other| is_shared(other)).collect();
            if alike[0] < ordinal {
                backend.devices.push(backend.devices[alike[0]].clone());
                continue;
            }
            let names = alike.into_iter().map(|alike| (alike, name(alike))).collect();
            let shared = Shared::open(names, adapter, backend.pending.clone(), spec.time_limit())?;
            backend.devices.push(shared.clone());
            let thread = std::thread::Builder::new().name(format!("wgpu-{ordinal}"));
            match Driver::new(shared).and_then(|driver| {
                let thread = thread.spawn(move || driver.run());
                thread.map_err(|error| DeviceError::Workers { message: error.to_string() })
            }) {
                Ok(thread) => backend.threads().push(thread),
                Err(error) => {
                    backend.close();
                    return Err(error);
                }
            }
        }
        Ok((backend, facts))
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().expect("nothing panics under this lock")
    }

    /// The device of the source, if an operation copies from one that shares nothing with its own.
    fn source_of(&self, operation: &Operation) -> Option<usize> {
        let source = operation.accesses.first()?.memory.device().ordinal;
        let is_copy = matches!(operation.command, Command::Copy);
        (is_copy && self.is_staged(source, operation.device)).then_some(source)
    }
}

impl Backend for Wgpu {
    fn allocate(&self, device: usize, bytes: usize) -> Option<Fresh> {
        let block = self.devices[device].allocate(bytes)?;
        // wgpu clears what has never been written before it is read.
        Some(Fresh { block, is_zeroed: true })
    }

    unsafe fn release(&self, device: usize, block: Block, _: usize) {
        self.devices[device].release(block);
    }

    /// All streams are alike: operations run in the order of their submission anyway.
    fn open_stream(&self, _: usize, _: bool) -> StreamKey {
        StreamKey(0)
    }

    fn close_stream(&self, _: StreamKey) {}

    /// As any other: wgpu copies from and to memory of its own only.
    fn allocate_pinned(&self, bytes: usize) -> Option<NonNull<u8>> {
        host::allocate(bytes)
    }

    unsafe fn release_pinned(&self, address: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller promises what this asks.
        unsafe { host::release(address, bytes) };
    }

    fn loss(&self, device: usize) -> Option<Arc<str>> {
        let lost = self.devices[device].lost()?;
        Some(format!("{} is lost: {lost}", self.devices[device].name(device)).into())
    }

    fn is_staged(&self, from: usize, to: usize) -> bool {
        !Arc::ptr_eq(&self.devices[from], &self.devices[to])
    }

    fn submit(&self, operation: Box<Operation>) -> Result<(), DeviceError> {
        let ordinal = operation.device;
        let device = &self.devices[ordinal];
        let closed = || DeviceError::Closed { device: device.name(ordinal) };
        let Some(source) = self.source_of(&operation) else {
            let mut inbox = device.inbox();
            if inbox.closed {
                return Err(closed());
            }
            self.pending.begin();
            device.push(&mut inbox, Job::Operation(operation));
            return Ok(());
        };
        // In the order of the ordinals, so that two copies in opposite directions do not wait for each other.
        let source_first = source < operation.device;
        let source = &self.devices[source];
        let (mut from, mut to);
        if source_first {
            (from, to) = (source.inbox(), device.inbox());
        } else {
            (to, from) = (device.inbox(), source.inbox());
        }
        if from.closed || to.closed {
            return Err(closed());
        }
        self.pending.begin();
        let relay = Relay::new(device.clone());
        let memory = operation.accesses[0].memory.clone();
        source.push(&mut from, Job::Export { memory, relay: relay.clone() });
        device.push(&mut to, Job::Import { operation, relay });
        Ok(())
    }

    fn poll(&self) -> bool {
        false
    }

    fn pending(&self) -> Option<&Pending> {
        Some(&self.pending)
    }

    fn abandon(&self) {
        for device in &self.devices {
            device.close(true);
        }
    }

    fn close(&self) {
        for device in &self.devices {
            device.close(false);
        }
        for thread in std::mem::take(&mut *self.threads()) {
            // A waker may drop the devices on the thread of one; that one ends by itself.
            if thread.thread().id() != std::thread::current().id() {
                thread.join().expect("the thread catches the panics of wgpu and has none of its own");
            }
        }
    }
}
