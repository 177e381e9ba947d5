//! Host devices that do nothing by themselves: operations wait in one queue until somebody looks, and memory is known by
//! numbers.
//!
//! This is the strictest stand-in for a GPU. Whoever used an address of device memory outside of the backend would use a
//! small number; whoever forgot to look would wait for ever; and what an operation needs must be in it, since it
//! runs later, maybe on another thread. One thread at a time runs operations, in the order of their submission, which is
//! an order that everybody's accesses allow.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::ThreadId;

use super::{pace, run};
use crate::arguments::Slots;
use crate::backend::{Backend, Block, Fresh};
use crate::error::DeviceError;
use crate::event::StreamKey;
use crate::operation::{Command, Operation};

/// Operations that one look ends at most, so that whoever looks gets back to its own work.
const OPERATIONS_PER_LOOK: usize = 16;

/// The devices of one set.
pub(super) struct Polled {
    slowdowns: Vec<f64>,
    state: Mutex<State>,
    pending: AtomicUsize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Box<Operation>>,
    /// The memory of block `n` at `n - 1`.
    memory: Vec<Option<Address>>,
    /// Places in `memory` that are free.
    free: Vec<usize>,
    /// Those of the launch that begins; kept for their memory.
    slots: Slots,
    /// The thread that runs operations.
    runner: Option<ThreadId>,
    closed: bool,
    abandoned: bool,
}

/// Where a block is.
#[derive(Clone, Copy)]
struct Address(NonNull<u8>);

// SAFETY: it is an address; operations, which are run one at a time, use the memory.
unsafe impl Send for Address {}

impl Polled {
    pub(super) fn new(slowdowns: Vec<f64>) -> Self {
        Polled { slowdowns, state: Mutex::default(), pending: AtomicUsize::new(0) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Runs the first operation of the queue, if there is one.
    fn run_first(&self) -> bool {
        let mut state = self.state();
        let Some(mut operation) = state.queue.pop_front() else { return false };
        let completion = if state.abandoned {
            drop(state);
            let device = super::name(operation.device);
            operation.refuse(device)
        } else {
            state.resolve(&mut operation);
            drop(state);
            let mut outcome = Ok(());
            pace::run_slowed(self.slowdowns[operation.device], || {
                outcome = run::run(&operation, |block| self.state().address(block));
            });
            operation.leave(outcome)
        };
        completion.publish();
        // Pairs with the acquire in `pending`.
        self.pending.fetch_sub(1, Ordering::Release);
        true
    }
}

impl State {
    fn address(&self, block: Block) -> NonNull<u8> {
        let number = block.address().addr().get();
        self.memory[number - 1].expect("an operation keeps its memory").0
    }

    /// Puts addresses in the place of numbers in the arguments of a kernel or a graph.
    fn resolve(&mut self, operation: &mut Operation) {
        let describe = match &operation.command {
            Command::Launch { code, .. } => code.describe,
            Command::Graph(plan) => plan.describe,
            _ => return,
        };
        self.slots.clear();
        describe(&mut self.slots);
        for slot in self.slots.list.iter().filter(|slot| slot.buffer.is_some()) {
            let word = operation.arguments.word_mut(slot.offset);
            if *word != 0 {
                let address = self.memory[*word as usize - 1].expect("an operation keeps its memory").0;
                *word = address.as_ptr().expose_provenance() as u64;
            }
        }
    }
}

impl Backend for Polled {
    fn allocate(&self, _: usize, bytes: usize) -> Option<Fresh> {
        let address = Some(Address(super::allocate(bytes)?));
        let mut state = self.state();
        let index = state.free.pop().unwrap_or(state.memory.len());
        if index == state.memory.len() {
            state.memory.push(address);
        } else {
            state.memory[index] = address;
        }
        // As if nothing were known of it, so that zeros are written.
        let number = NonZeroUsize::MIN.saturating_add(index);
        Some(Fresh { block: Block::numbered(number), is_zeroed: false })
    }

    unsafe fn release(&self, _: usize, block: Block, bytes: usize) {
        let index = block.address().addr().get() - 1;
        let mut state = self.state();
        let address = state.memory[index].take().expect("memory is released once").0;
        state.free.push(index);
        drop(state);
        // SAFETY: it came from `allocate` with as many bytes, as the caller promises, and nobody uses it.
        unsafe { super::release(address, bytes) };
    }

    /// All streams are alike: operations run in the order of their submission anyway.
    fn open_stream(&self, _: usize, _: bool) -> StreamKey {
        StreamKey(0)
    }

    fn close_stream(&self, _: StreamKey) {}

    fn allocate_pinned(&self, bytes: usize) -> Option<NonNull<u8>> {
        super::allocate(bytes)
    }

    unsafe fn release_pinned(&self, address: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller promises what this asks.
        unsafe { super::release(address, bytes) };
    }

    fn submit(&self, operation: Box<Operation>) -> Result<(), DeviceError> {
        let mut state = self.state();
        if state.closed {
            return Err(DeviceError::Closed { device: super::name(operation.device) });
        }
        self.pending.fetch_add(1, Ordering::Relaxed);
        state.queue.push_back(operation);
        Ok(())
    }

    fn poll(&self) -> bool {
        let mut state = self.state();
        // Else another thread is at it, or this one, in a waker.
        if state.runner.is_none() {
            state.runner = Some(std::thread::current().id());
            drop(state);
            (0..OPERATIONS_PER_LOOK).all(|_| self.run_first());
            self.state().runner = None;
        }
        true
    }

    fn pending(&self) -> usize {
        // Pairs with the release in `run_first`: at zero, what the wakers did is visible.
        self.pending.load(Ordering::Acquire)
    }

    fn abandon(&self) {
        let mut state = self.state();
        (state.closed, state.abandoned) = (true, true);
    }

    fn close(&self) {
        self.state().closed = true;
        // A waker may drop the devices inside of `poll`; then nobody is left to look, but whoever awaits what is left.
        while self.pending() > 0 && self.state().runner != Some(std::thread::current().id()) {
            self.poll();
            std::thread::yield_now();
        }
    }
}
