//! Host devices that do nothing by themselves: operations wait in one queue until somebody looks, and memory is known by
//! numbers.
//!
//! This is the strictest stand-in for a GPU. Whoever used an address of device memory outside of the backend would use a
//! small number; whoever forgot to look would wait for ever; and what an operation needs must be in it, since it
//! runs later, maybe on another thread. One thread at a time runs operations, in the order of their submission, which is
//! an order that everybody's accesses allow.
//!
//! With a seed, a look ends one operation: one that the seed chooses of those that nothing before them holds up. An operation is held
//! up by one that was submitted before it to the same stream, or that uses memory which it uses too, unless both only read it.
//!
//! On a slow device an operation *lingers* when it has run, until its time; what comes after it waits, and looks find nothing. That
//! time is what a GPU's notification is: who sleeps sleeps until then.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{Thread, ThreadId};
use std::time::Instant;

use super::limits::Limits;
use crate::arguments::Slots;
use crate::backend::{Backend, Block, Fresh};
use crate::completion::Cell;
use crate::error::DeviceError;
use crate::event::StreamKey;
use crate::operation::{Access, AccessMode, Command, Operation};
use crate::sleepers::{Pending, Rest};

/// Operations that one look ends at most, so that whoever looks gets back to its own work.
const OPERATIONS_PER_LOOK: usize = 16;

/// Operations that a seed chooses of, from the oldest on.
const CHOICES: usize = 16;

/// Whether an operation must have ended before one that was submitted later begins.
fn holds_up(earlier: &Operation, later: &Operation) -> bool {
    let uses = |operation: &Operation| -> Vec<(Block, bool)> {
        let of = |access: &Access| {
            let own = (access.memory.block(), access.mode != AccessMode::Read);
            let copied = access.copy_from.as_ref().map(|memory| (memory.block(), false));
            [Some(own), copied].into_iter().flatten()
        };
        operation.accesses.iter().flat_map(of).collect()
    };
    let (before, after) = (uses(earlier), uses(later));
    let conflicts = |(block, writes): &(Block, bool)| {
        after.iter().any(|(other, other_writes)| block == other && (*writes || *other_writes))
    };
    Arc::ptr_eq(&earlier.stream, &later.stream) || before.iter().any(conflicts)
}

/// The devices of one set.
pub(super) struct Polled {
    limits: Limits,
    state: Mutex<State>,
    pending: Pending,
    /// Operations that one look ends at most.
    per_look: usize,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Box<Operation>>,
    /// What decides which operation goes next; changes with each choice.
    seed: Option<u64>,
    /// What has run, and when it ends.
    lingering: Option<(Instant, Arc<Cell>)>,
    looks: u64,
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
    pub(super) fn new(limits: Limits, seed: Option<u64>) -> Self {
        let state = State { seed, ..State::default() };
        let per_look = if seed.is_some() { 1 } else { OPERATIONS_PER_LOOK };
        Polled { limits, state: Mutex::new(state), pending: Pending::default(), per_look }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Ends the operation that lingers, or runs the first of the queue. False if there is none, or it is not yet time.
    fn run_first(&self) -> bool {
        let mut state = self.state();
        if let Some((end, _)) = &state.lingering
            && !state.abandoned
            && *end > Instant::now()
        {
            return false;
        }
        if let Some((_, completion)) = state.lingering.take() {
            drop(state);
            self.end(&completion);
            return true;
        }
        let Some(mut operation) = state.pop() else { return false };
        let completion = if state.abandoned {
            drop(state);
            let device = super::name(operation.device);
            operation.refuse(device)
        } else {
            state.resolve(&mut operation);
            drop(state);
            let (end, outcome) = self.limits.run(&mut operation, |block| self.state().address(block));
            let completion = operation.leave(outcome);
            if let Some(end) = end {
                self.state().lingering = Some((end, completion));
                return true;
            }
            completion
        };
        self.end(&completion);
        true
    }

    fn end(&self, completion: &Arc<Cell>) {
        completion.publish();
        self.pending.end();
    }
}

impl State {
    /// Takes the operation that goes next.
    fn pop(&mut self) -> Option<Box<Operation>> {
        let Some(seed) = &mut self.seed else { return self.queue.pop_front() };
        // Knuth's generator, of which the upper half is random enough.
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = (*seed >> 32) as usize;
        let is_free =
            |later: &usize| (0..*later).all(|earlier| !holds_up(&self.queue[earlier], &self.queue[*later]));
        let free: Vec<usize> = (0..self.queue.len().min(CHOICES)).filter(is_free).collect();
        self.queue.remove(*free.get(drawn.checked_rem(free.len())?)?)
    }

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

    /// What it is called does not matter: operations run one at a time, and know their streams.
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
        self.pending.begin();
        state.queue.push_back(operation);
        Ok(())
    }

    fn poll(&self) -> bool {
        let mut state = self.state();
        // Else another thread is at it, or this one, in a waker.
        if state.runner.is_none() {
            state.runner = Some(std::thread::current().id());
            state.looks += u64::from(self.pending.count() > 0);
            drop(state);
            (0..self.per_look).all(|_| self.run_first());
            self.state().runner = None;
        }
        true
    }

    fn loss(&self, device: usize) -> Option<Arc<str>> {
        self.limits.loss(device)
    }

    fn looks(&self) -> u64 {
        self.state().looks
    }

    fn before_park(&self, _: &Thread) -> Rest {
        let state = self.state();
        match &state.lingering {
            // Whoever runs operations may be in a waker, or not get back here soon.
            _ if state.runner.is_some() => Rest::SHORT,
            Some((end, _)) => match end.saturating_duration_since(Instant::now()) {
                left if left.is_zero() || state.abandoned => Rest::LookFirst,
                left => Rest::AtMost(left),
            },
            None if state.queue.is_empty() => Rest::Unlimited,
            None => Rest::LookFirst,
        }
    }

    fn pending(&self) -> Option<&Pending> {
        Some(&self.pending)
    }

    fn abandon(&self) {
        let mut state = self.state();
        (state.closed, state.abandoned) = (true, true);
    }

    fn close(&self) {
        self.state().closed = true;
        // A waker may drop the devices inside of `poll`; then nobody is left to look, but whoever awaits what is left.
        while self.pending.count() > 0 && self.state().runner != Some(std::thread::current().id()) {
            self.poll();
            std::thread::yield_now();
        }
    }
}
