//! The one trait between the protocol and what carries messages.
//!
//! # What a network promises
//!
//! * Batches from one process to another arrive in the order of [`Network::send_batch`], each once and whole.
//! * The n-th buffer that a process sends to another is received into the n-th memory that the other has posted for it.
//! * Nothing blocks. What has been handed over makes progress in [`Network::poll`] only, and at both ends: a process that does
//!   not poll may hold up those that send to it, and nobody else.
//! * There is no limit on how much may be handed over: the protocol's windows are that limit.
//! * The memory of what is handed over is the network's until an event gives it back.

use crate::batch::Batch;
use crate::buffer::{Buffer, Landing};
use crate::error::Error;
use crate::frame::Rank;

/// Carries batches and buffers between the processes of a job, for one of them.
pub trait Network: Send {
    /// Takes a batch to be sent. If it has gone at once, its memory goes to `free`; else an event will return it.
    ///
    /// # Errors
    /// If the network has failed.
    fn send_batch(&mut self, to: Rank, batch: Batch, free: &mut FreeBatches) -> Result<(), Error>;

    /// Takes a buffer to be sent, and frees it when it has gone.
    ///
    /// # Errors
    /// If the network has failed.
    fn send_bulk(&mut self, to: Rank, buffer: Buffer) -> Result<(), Error>;

    /// Takes memory for the next buffer from a process.
    ///
    /// # Errors
    /// If the network has failed.
    fn receive_bulk(&mut self, from: Rank, id: u64, landing: Landing) -> Result<(), Error>;

    /// Makes progress without waiting, and tells what has happened. Memory for what arrives is taken from `free`.
    ///
    /// # Errors
    /// If the network has failed, or a peer is lost. Events that were told come first.
    fn poll(&mut self, free: &mut FreeBatches, events: &mut Vec<Event>) -> Result<(), Error>;

    /// Whether so much that was handed over for a process has not gone that what is small should wait, and go together. A network that
    /// can be behind does not let the driver nap until it is woken.
    fn is_behind(&self, _: Rank) -> bool {
        false
    }

    /// Has all processes know what each of them brings, by rank; waits for them. None if they are all parts of one process of the system.
    ///
    /// # Errors
    /// If the network has failed.
    fn gather(&mut self, own: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Error>;

    /// Whether it says of itself that it sends and receives memory of CUDA devices.
    ///
    /// # Errors
    /// Why not.
    fn reaches_cuda(&self) -> Result<(), &'static str>;

    /// Whether all that was handed over to be sent has gone.
    fn is_idle(&self) -> bool;

    /// Whether a driver that naps is woken by what arrives.
    fn is_woken(&self) -> bool {
        true
    }

    /// How the driver may nap, asked after it has announced it.
    fn before_nap(&mut self) -> Nap;

    /// The driver has closed in agreement with all others: nothing is in flight.
    fn closed(&mut self);

    /// Whether [`Network::abort`] ends processes, which should have a moment to say what they know.
    fn ends_processes(&self) -> bool;

    /// Ends the job for all its processes, where the network can; this one too, then it does not return.
    fn abort(&mut self, exit_code: i32);
}

/// How long the driver's thread may sleep.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nap {
    /// Not at all: there is something to do.
    Stay,
    /// Shortly: what arrives wakes nobody.
    Briefly,
    /// Until the hook is called.
    UntilWoken,
}

/// What has happened on a network.
#[derive(Debug)]
pub enum Event {
    /// A batch has come.
    Batch {
        /// Who sent it.
        from: Rank,
        /// The batch.
        batch: Batch,
    },
    /// A batch has gone, and its memory is free.
    BatchSent(Batch),
    /// A buffer has come; with as many bytes as came, if not as many as were wanted.
    Bulk {
        /// Who sent it.
        from: Rank,
        /// The name of the memory that it was to come to.
        id: u64,
        /// That memory, or other memory of the same alignment.
        buffer: Buffer,
    },
}

/// Batches that nobody uses, kept for the next.
#[derive(Debug)]
pub struct FreeBatches {
    batches: Vec<Batch>,
    batch_bytes: usize,
}

/// So much is kept after a burst; the rest goes back to the allocator.
const MOST_FREE: usize = 32;

impl FreeBatches {
    pub(crate) fn new(batch_bytes: usize) -> Self {
        FreeBatches { batches: Vec::with_capacity(MOST_FREE), batch_bytes }
    }

    /// A batch, free or new.
    pub fn take(&mut self) -> Batch {
        self.batches.pop().unwrap_or_else(|| Batch::new(self.batch_bytes))
    }

    /// Keeps a batch for later.
    #[inline(always)]
    pub fn put(&mut self, mut batch: Batch) {
        if self.batches.len() < MOST_FREE && batch.capacity() == self.batch_bytes {
            batch.clear();
            self.batches.push(batch);
        }
    }
}
