//! Batches and buffers over MPI.
//!
//! The invariant: memory that MPI may still touch is owned here, and is leaked rather than freed if MPI cannot be waited for.
//! Batches and buffers may be moved meanwhile: their memory stays where it is.

use std::collections::VecDeque;
use std::mem;
use std::process;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::batch::Batch;
use crate::buffer::{Buffer, Landing};
use crate::error::Error;
use crate::frame::Rank;
use crate::limits::Limits;
use crate::network::{Event, FreeBatches, Nap, Network};
use crate::wire::WireError;

use super::Started;
use super::call::{self, Comm, Completions, Failure, Request};

/// How many batches can come before the next poll without a copy by MPI. They are filled in turns, so that more of them would be more memory
/// that every message has to find in caches again: with 8, it took 15 to 20 ns more (in turns), and streams were no faster.
const POSTED: usize = 2;
/// Batches to one rank that MPI has not sent yet. Short ones have gone at once, unless the rank does not keep up.
const MOST_PENDING: usize = 2;

pub(super) struct Mpi {
    started: Arc<Started>,
    batch_comm: Option<Comm>,
    bulk_comm: Option<Comm>,
    chunk_bytes: usize,
    /// Receives for batches, oldest first.
    posted: VecDeque<(Batch, Request)>,
    /// All other operations; what each is stands at the same place in `owners`.
    requests: Vec<Request>,
    owners: Vec<Owner>,
    /// Batches in `owners`, by rank.
    pending: Vec<usize>,
    /// Buffers in flight, by the number that their operations have.
    transfers: Vec<Option<Transfer>>,
    free_transfers: Vec<usize>,
    completions: Completions,
    /// Of the last look, kept for its memory.
    ended: Vec<(usize, Result<call::Ended, Failure>)>,
    is_closed: bool,
}

// SAFETY: communicators and requests are names that MPI gives; whether another thread may use them is asked before each use
// (`admit`).
unsafe impl Send for Mpi {}

/// What an operation is for.
enum Owner {
    Batch(Rank, Batch),
    Transfer(usize),
}

/// A buffer in flight, in one or more pieces.
struct Transfer {
    memory: Memory,
    pieces_left: usize,
    bytes_came: usize,
}

enum Memory {
    #[expect(dead_code, reason = "owned for as long as MPI reads it")]
    Sent(Buffer),
    Received {
        from: Rank,
        id: u64,
        landing: Landing,
    },
}

impl Mpi {
    pub(super) fn new(
        started: Arc<Started>,
        batch_comm: Comm,
        bulk_comm: Comm,
        limits: &Limits,
    ) -> Result<Mpi, Failure> {
        let pending = vec![0; batch_comm.size()?];
        let mut mpi = Mpi {
            started,
            pending,
            batch_comm: Some(batch_comm),
            bulk_comm: Some(bulk_comm),
            chunk_bytes: limits.chunk_bytes,
            posted: VecDeque::with_capacity(POSTED),
            requests: Vec::new(),
            owners: Vec::new(),
            transfers: Vec::new(),
            free_transfers: Vec::new(),
            completions: Completions::default(),
            ended: Vec::new(),
            is_closed: false,
        };
        for _ in 0..POSTED {
            mpi.post(Batch::new(limits.batch_bytes))?;
        }
        Ok(mpi)
    }

    fn batch_comm(&self) -> &Comm {
        self.batch_comm.as_ref().expect("freed by drop only")
    }

    fn bulk_comm(&self) -> &Comm {
        self.bulk_comm.as_ref().expect("freed by drop only")
    }

    /// Refuses a thread that may not use MPI.
    fn admit(&self) -> Result<(), Error> {
        if self.started.admits_this_thread() {
            return Ok(());
        }
        let is_funneled = self.started.level == crate::ThreadLevel::Funneled;
        Err(Error::WrongThread {
            granted: if is_funneled { "MPI_THREAD_FUNNELED" } else { "MPI_THREAD_SINGLE" },
        })
    }

    /// Posts a receive for the next batch of anybody.
    fn post(&mut self, mut batch: Batch) -> Result<(), Failure> {
        let memory = batch.memory_mut();
        let (start, len) = (memory.as_mut_ptr(), memory.len());
        // SAFETY: the memory is owned by `posted` until the receive has ended or is cancelled, and is leaked otherwise.
        let request = unsafe { self.batch_comm().receive(start, len, None) }?;
        self.posted.push_back((batch, request));
        Ok(())
    }

    /// The number of a new transfer.
    fn transfer(&mut self, transfer: Transfer) -> usize {
        match self.free_transfers.pop() {
            Some(place) => {
                self.transfers[place] = Some(transfer);
                place
            }
            None => {
                self.transfers.push(Some(transfer));
                self.transfers.len() - 1
            }
        }
    }

    /// Where the pieces of a buffer begin, and how long they are.
    fn pieces(&self, len: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
        let chunk_bytes = self.chunk_bytes;
        (0..len).step_by(chunk_bytes).map(move |start| (start, chunk_bytes.min(len - start)))
    }

    fn begin(&mut self, request: Request, owner: Owner) {
        self.requests.push(request);
        self.owners.push(owner);
    }

    /// Takes the batch that has come, if one has. Only one: to look for a second one costs what the first one costs, and would
    /// be paid before the first one is read.
    fn take_arrival(&mut self, free: &mut FreeBatches, events: &mut Vec<Event>) -> Result<(), Error> {
        let (_, request) = self.posted.front_mut().expect("receives are always posted");
        let ended = call::test(request).map_err(failed)?;
        if let Some(ended) = ended {
            let (mut batch, _) = self.posted.pop_front().expect("it is the first");
            batch.set_len(ended.bytes);
            events.push(Event::Batch { from: Rank(ended.source), batch });
        }
        // The place of a batch that has come is posted again when nothing comes, or when few are left: an answer need not wait for it.
        if self.posted.len() < if ended.is_some() { POSTED / 2 } else { POSTED } {
            self.post(free.take()).map_err(failed)?;
        }
        Ok(())
    }

    /// Takes the ends of all else.
    fn take_ends(&mut self, free: &mut FreeBatches, events: &mut Vec<Event>) -> Result<(), Error> {
        if self.requests.is_empty() {
            return Ok(());
        }
        let mut ended = mem::take(&mut self.ended);
        let tested = self.completions.test_some(&mut self.requests, |index, end| ended.push((index, end)));
        // From the last to the first, so that those that move into the places of removed ones are not among them.
        ended.sort_unstable_by_key(|(index, _)| std::cmp::Reverse(*index));
        let mut outcome = tested.map_err(failed);
        for (index, end) in ended.drain(..) {
            self.requests.swap_remove(index);
            let taken = match self.owners.swap_remove(index) {
                Owner::Batch(to, batch) => {
                    self.pending[to.index()] -= 1;
                    free.put(batch);
                    end.map(drop).map_err(failed)
                }
                Owner::Transfer(number) => self.take_piece(number, end, events),
            };
            outcome = outcome.and(taken);
        }
        self.ended = ended;
        outcome
    }

    fn take_piece(
        &mut self,
        number: usize,
        end: Result<call::Ended, Failure>,
        events: &mut Vec<Event>,
    ) -> Result<(), Error> {
        let transfer = self.transfers[number].as_mut().expect("a piece belongs to a transfer");
        transfer.pieces_left -= 1;
        let ended = end.map_err(|failure| match &transfer.memory {
            Memory::Sent(_) => failed(failure),
            Memory::Received { from, .. } => Error::Network(format!("a buffer from {from}: {failure}")),
        })?;
        transfer.bytes_came += ended.bytes;
        if transfer.pieces_left > 0 {
            return Ok(());
        }
        let transfer = self.transfers[number].take().expect("it is here");
        self.free_transfers.push(number);
        if let Memory::Received { from, id, landing } = transfer.memory {
            if transfer.bytes_came != landing.len() {
                let (announced, came) = (landing.len() as u64, transfer.bytes_came as u64);
                return Err(Error::Corrupt { rank: from, what: WireError::BufferLength { announced, came } });
            }
            // SAFETY: as many bytes have come as there are, in pieces that do not overlap, and no piece is in flight.
            let buffer = unsafe { landing.assume_filled() };
            events.push(Event::Bulk { from, id, buffer });
        }
        Ok(())
    }
}

impl Network for Mpi {
    fn send_batch(&mut self, to: Rank, batch: Batch, free: &mut FreeBatches) -> Result<(), Error> {
        self.admit()?;
        let bytes = batch.bytes();
        // SAFETY: the memory is owned by `owners` until the send has ended, or is leaked; nobody writes it.
        let request = unsafe { self.batch_comm().send(bytes.as_ptr(), bytes.len(), to.0) };
        let mut request = request.map_err(|failure| lost(to, failure))?;
        if call::test_send(&mut request).map_err(|failure| lost(to, failure))? {
            free.put(batch);
        } else {
            self.pending[to.index()] += 1;
            self.begin(request, Owner::Batch(to, batch));
        }
        Ok(())
    }

    fn send_bulk(&mut self, to: Rank, buffer: Buffer) -> Result<(), Error> {
        self.admit()?;
        let (start, len) = (buffer.start(), buffer.len());
        let pieces_left = self.pieces(len).count();
        let number = self.transfer(Transfer { memory: Memory::Sent(buffer), pieces_left, bytes_came: 0 });
        for (offset, len) in self.pieces(len) {
            // SAFETY: the piece lies in the buffer, which is owned by `transfers` until all pieces have ended, or is leaked.
            let request = unsafe { self.bulk_comm().send(start.add(offset), len, to.0) };
            self.begin(request.map_err(|failure| lost(to, failure))?, Owner::Transfer(number));
        }
        Ok(())
    }

    fn receive_bulk(&mut self, from: Rank, id: u64, mut landing: Landing) -> Result<(), Error> {
        self.admit()?;
        let (start, len) = (landing.as_mut_ptr(), landing.len());
        let pieces_left = self.pieces(len).count();
        let memory = Memory::Received { from, id, landing };
        let number = self.transfer(Transfer { memory, pieces_left, bytes_came: 0 });
        for (offset, len) in self.pieces(len) {
            // SAFETY: as in `send_bulk`; pieces do not overlap, and nobody reads the landing before all have ended.
            let request = unsafe { self.bulk_comm().receive(start.add(offset), len, Some(from.0)) };
            self.begin(request.map_err(|failure| lost(from, failure))?, Owner::Transfer(number));
        }
        Ok(())
    }

    fn poll(&mut self, free: &mut FreeBatches, events: &mut Vec<Event>) -> Result<(), Error> {
        self.admit()?;
        self.take_arrival(free, events)?;
        self.take_ends(free, events)
    }

    fn is_behind(&self, to: Rank) -> bool {
        self.pending[to.index()] >= MOST_PENDING
    }

    fn gather(&mut self, own: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Error> {
        self.admit()?;
        let comm = self.batch_comm();
        let mut lengths = vec![[0_u8; 8]; comm.size().map_err(failed)?];
        comm.gather_all(&(own.len() as u64).to_le_bytes(), lengths.as_flattened_mut()).map_err(failed)?;
        let lengths = lengths.into_iter().map(|len| u64::from_le_bytes(len) as usize);
        // All bring as much as the one with the most, since that is what a library gathers best.
        let longest = lengths.clone().max().unwrap_or(0).max(1);
        let mut padded = own.to_vec();
        padded.resize(longest, 0);
        let mut all = vec![0; longest * lengths.len()];
        comm.gather_all(&padded, &mut all).map_err(failed)?;
        Ok(Some(all.chunks_exact(longest).zip(lengths).map(|(of_one, len)| of_one[..len].to_vec()).collect()))
    }

    fn reaches_cuda(&self) -> Result<(), &'static str> {
        match call::query_cuda() {
            Some(true) => Ok(()),
            Some(false) => Err("MPI says that it knows nothing of CUDA"),
            None => Err("MPI does not say whether it knows of CUDA"),
        }
    }

    fn is_idle(&self) -> bool {
        self.requests.is_empty()
    }

    fn is_woken(&self) -> bool {
        false
    }

    fn before_nap(&mut self) -> Nap {
        Nap::Briefly
    }

    fn closed(&mut self) {
        self.is_closed = true;
    }

    fn ends_processes(&self) -> bool {
        true
    }

    fn abort(&mut self, exit_code: i32) {
        call::abort(exit_code);
        // Some libraries return while the launcher is still at it.
        process::exit(exit_code);
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        if self.is_closed && self.started.admits_this_thread() {
            for (_, request) in self.posted.drain(..) {
                call::cancel(request);
            }
            for comm in [self.batch_comm.take(), self.bulk_comm.take()].into_iter().flatten() {
                comm.free();
            }
        } else {
            self.started.is_broken.store(true, Ordering::Relaxed);
            mem::forget(mem::take(&mut self.posted));
            mem::forget(mem::take(&mut self.owners));
            mem::forget(mem::take(&mut self.transfers));
        }
    }
}

fn failed(failure: Failure) -> Error {
    Error::Network(failure.to_string())
}

fn lost(rank: Rank, failure: Failure) -> Error {
    Error::Lost { rank, why: failure.to_string() }
}
