//! What a device's thread shares with others: its jobs, and its memory by number.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::adapter::{self, Adapter, Lost};
use super::errors::scoped;
use crate::backend::Block;
use crate::error::DeviceError;
use crate::fault::FaultRecord;
use crate::memory::MemoryRef;
use crate::operation::Operation;
use crate::sleepers::Pending;

/// One device of wgpu's, and as many of ours as share it.
pub(super) struct Shared {
    /// Ours, by ordinal.
    names: Vec<(usize, Arc<str>)>,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    /// For the time of a batch.
    pub(super) time_limit: Option<Duration>,
    /// The nanoseconds of a tick of the device's clock, if it notes when a pass begins and ends.
    pub(super) tick_ns: Option<f64>,
    /// Operations of the whole set that have not been published.
    pub(super) pending: Arc<Pending>,
    lost: Lost,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    blocks: Mutex<Blocks>,
    /// How its thread has submitted.
    #[cfg(test)]
    pub(super) submitted: Mutex<Submitted>,
}

/// What tests look at: how many jobs each batch had, and how many batches were in flight with it at most.
#[cfg(test)]
#[derive(Default)]
pub(super) struct Submitted {
    pub(super) jobs: Vec<usize>,
    pub(super) most_in_flight: usize,
}

/// The jobs of a device that have not begun.
#[derive(Default)]
pub(super) struct Inbox {
    pub(super) jobs: VecDeque<Job>,
    /// Nothing more is taken.
    pub(super) closed: bool,
    /// Nothing more is begun.
    pub(super) abandoned: bool,
    /// The thread waits for a wake-up.
    asleep: bool,
}

/// The buffer of block `n` at `n - 1`.
#[derive(Default)]
struct Blocks {
    buffers: Vec<Option<wgpu::Buffer>>,
    /// Places that are free.
    free: Vec<usize>,
}

/// One thing to do.
pub(super) enum Job {
    Operation(Box<Operation>),
    /// The first half of a copy to another device.
    Export {
        memory: MemoryRef,
        relay: Arc<Relay>,
    },
    /// The second half: the operation is the copy.
    Import {
        operation: Box<Operation>,
        relay: Arc<Relay>,
    },
}

impl Job {
    /// Whether it may begin when all before it have begun.
    pub(super) fn is_ready(&self) -> bool {
        match self {
            Job::Operation(_) | Job::Export { .. } => true,
            Job::Import { relay, .. } => relay.contents().is_some(),
        }
    }
}

/// Memory on its way from one device to another.
pub(super) struct Relay {
    contents: Mutex<Option<Contents>>,
    /// Who waits for it.
    to: Arc<Shared>,
}

/// What an export brings.
pub(super) type Contents = Result<Vec<u8>, Missing>;

/// Why an export brings nothing.
pub(super) enum Missing {
    /// The source is spoiled.
    Spoiled(Arc<FaultRecord>),
    /// It could not be read.
    Unread(String),
    /// Its device has been abandoned.
    Abandoned,
}

impl Relay {
    pub(super) fn new(to: Arc<Shared>) -> Arc<Self> {
        Arc::new(Relay { contents: Mutex::new(None), to })
    }

    fn contents(&self) -> MutexGuard<'_, Option<Contents>> {
        self.contents.lock().expect("nothing panics under this lock")
    }

    pub(super) fn fill(&self, contents: Contents) {
        *self.contents() = Some(contents);
        self.to.wake(&mut self.to.inbox());
    }

    /// Takes what has been filled in.
    pub(super) fn take(&self) -> Contents {
        self.contents().take().expect("an import begins when its relay has been filled, once")
    }
}

impl Shared {
    pub(super) fn open(
        names: Vec<(usize, Arc<str>)>,
        adapter: &Adapter,
        pending: Arc<Pending>,
        time_limit: Option<Duration>,
    ) -> Result<Arc<Self>, DeviceError> {
        let lost = Lost::default();
        let (device, queue) = adapter.open(&lost)?;
        let (limits, wake) = (device.limits(), Condvar::new());
        let (inbox, blocks) = (Mutex::default(), Mutex::default());
        let has_clock = device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let tick_ns = has_clock.then(|| f64::from(queue.get_timestamp_period())).filter(|&ns| ns > 0.0);
        Ok(Arc::new(Shared {
            names,
            device,
            queue,
            limits,
            time_limit,
            tick_ns,
            pending,
            lost,
            inbox,
            wake,
            blocks,
            #[cfg(test)]
            submitted: Mutex::default(),
        }))
    }

    /// Notes a batch.
    #[cfg(test)]
    pub(super) fn note_submitted(&self, jobs: usize, in_flight: usize) {
        let mut submitted = self.submitted.lock().unwrap();
        submitted.jobs.push(jobs);
        submitted.most_in_flight = submitted.most_in_flight.max(in_flight);
    }

    /// What messages call one of the devices that share this.
    pub(super) fn name(&self, ordinal: usize) -> Arc<str> {
        let named = self.names.iter().find(|(named, _)| *named == ordinal);
        named.expect("an operation is on a device that shares this").1.clone()
    }

    pub(super) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nothing panics under this lock")
    }

    fn blocks(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().expect("nothing panics under this lock")
    }

    /// Adds a job to the device's inbox.
    pub(super) fn push(&self, inbox: &mut Inbox, job: Job) {
        inbox.jobs.push_back(job);
        self.wake(inbox);
    }

    fn wake(&self, inbox: &mut Inbox) {
        if std::mem::take(&mut inbox.asleep) {
            self.wake.notify_one();
        }
    }

    /// Waits until something has been put into the inbox, a relay has been filled, or it has been closed.
    pub(super) fn sleep<'a>(&'a self, mut inbox: MutexGuard<'a, Inbox>) -> MutexGuard<'a, Inbox> {
        inbox.asleep = true;
        self.wake.wait_while(inbox, |inbox| inbox.asleep).expect("nothing panics under this lock")
    }

    /// Takes nothing more, and begins nothing more if it is abandoned.
    pub(super) fn close(&self, abandoned: bool) {
        let mut inbox = self.inbox();
        inbox.closed = true;
        inbox.abandoned |= abandoned;
        self.wake(&mut inbox);
    }

    /// Why the device can do no more, if it is so.
    pub(super) fn lost(&self) -> Option<String> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn lose(&self, why: &str) {
        adapter::lose(&self.lost, why);
    }

    /// A buffer of the device.
    pub(super) fn make_buffer(
        &self,
        bytes: u64,
        usage: wgpu::BufferUsages,
        mapped_at_creation: bool,
    ) -> Result<wgpu::Buffer, String> {
        let descriptor = wgpu::BufferDescriptor { label: None, size: bytes, usage, mapped_at_creation };
        scoped(&self.device, || self.device.create_buffer(&descriptor))
    }

    /// New memory, all zeros; `None` too if the device is lost, where it would be of no use.
    pub(super) fn allocate(&self, bytes: usize) -> Option<Block> {
        if self.lost().is_some() {
            return None;
        }
        let usage = wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST;
        let buffer = self.make_buffer(bytes as u64, usage, false).ok()?;
        let mut blocks = self.blocks();
        let index = blocks.free.pop().unwrap_or(blocks.buffers.len());
        if index == blocks.buffers.len() {
            blocks.buffers.push(Some(buffer));
        } else {
            blocks.buffers[index] = Some(buffer);
        }
        Some(Block::numbered(NonZeroUsize::MIN.saturating_add(index)))
    }

    pub(super) fn release(&self, block: Block) {
        let index = block.address().addr().get() - 1;
        let mut blocks = self.blocks();
        let buffer = blocks.buffers[index].take();
        blocks.free.push(index);
        drop(blocks);
        // With no lock held: freeing it may take the driver a while.
        drop(buffer);
    }

    /// The buffer of a block that somebody keeps.
    pub(super) fn buffer(&self, block: Block) -> wgpu::Buffer {
        self.buffer_numbered(block.address().addr().get())
    }

    /// [`buffer`](Self::buffer), by the number that arguments have.
    pub(super) fn buffer_numbered(&self, number: usize) -> wgpu::Buffer {
        self.blocks().buffers[number - 1].clone().expect("an operation keeps its memory")
    }
}
