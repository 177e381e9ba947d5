//! Operations as data: what is to be done, to which buffers, after what.
//!
//! An operation goes through four steps, all of them calls of its backend. [`order`](Operation::order) finds the
//! operations that it must come after; [`enter`](Operation::enter), when it begins, looks whether its inputs are worth
//! anything; the backend carries out the [`snapshot_copies`](Operation::snapshot_copies) and the [`Command`];
//! [`leave`](Operation::leave) spoils what a failed one was to write, frees what it held and stores its outcome. What is left is
//! the completion, to be published.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use crate::arguments::Arguments;
use crate::backend::Block;
use crate::caught::Caught;
use crate::completion::Cell;
use crate::enqueue::OtherCode;
use crate::event::{Event, Stream};
use crate::fault::{FaultKind, FaultRecord};
use crate::graph::{LaunchStep, Plan, Step};
use crate::kernel::Code;
use crate::launch::{Grid, Launch};
use crate::memory::MemoryRef;
use crate::usage::Spent;

/// What one operation does to one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessMode {
    /// Reads it.
    Read,
    /// Writes every element of it.
    Overwrite,
    /// Finds it full of zeros, which the backend has written, and writes it.
    Zeroed,
    /// Reads and writes it.
    Update,
}

impl AccessMode {
    /// Whether what was there before is read.
    pub(crate) fn reads(self) -> bool {
        matches!(self, AccessMode::Read | AccessMode::Update)
    }
}

/// A buffer that an operation uses, kept alive until the operation has ended.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) memory: MemoryRef,
    pub(crate) mode: AccessMode,
    /// The shared memory whose contents are copied into `memory` first (the snapshot rule for updates).
    pub(crate) copy_from: Option<MemoryRef>,
}

impl Access {
    pub(crate) fn new(memory: &MemoryRef, mode: AccessMode) -> Self {
        Access { memory: memory.clone(), mode, copy_from: None }
    }
}

/// What an operation does. The buffers that it speaks of are its accesses.
pub(crate) enum Command {
    /// Runs a kernel with the operation's `arguments`, which name the blocks of the accesses.
    Launch { code: Code, launch: Launch },
    /// Does the steps of a graph with the operation's `arguments`, which are those of the graph.
    Graph(Arc<Plan>),
    /// Is given to the driver by code of others, which has this name and is called once, or never if the operation is refused.
    #[cfg_attr(not(feature = "cuda"), expect(dead_code, reason = "only CUDA calls it"))]
    Code { name: &'static str, code: Mutex<Option<OtherCode>> },
    /// Copies the first access into the second, which may be on another device.
    Copy,
    /// Fills the one access with zeros.
    Zero,
    /// Copies the one access, or a piece of it, from host memory.
    Upload(HostRange),
    /// Copies the one access, or a piece of it, to host memory.
    Download(HostRange),
    /// Does nothing, in order.
    Fence,
}

impl Command {
    /// How many kernels it launches.
    pub(crate) fn launches(&self) -> u64 {
        let mut count = 0;
        self.each_launch(|_, _| count += 1);
        count
    }

    /// Shows the kernels that it launches, by name, with their grids. How many those of others are is not known: they count as one,
    /// without a grid.
    pub(crate) fn each_launch(&self, mut visit: impl FnMut(&'static str, Grid)) {
        match self {
            Command::Launch { code, launch } => visit(code.name, launch.grid()),
            Command::Code { name, .. } => visit(name, Grid::new(0, 0, 0)),
            Command::Graph(plan) => {
                for step in &plan.steps {
                    if let Step::Launch(LaunchStep { code, launch, .. }) = step {
                        visit(code.name, launch.grid());
                    }
                }
            }
            _ => {}
        }
    }
}

/// Host memory that an operation reads or writes.
///
/// It came from [`Backend::allocate_pinned`](crate::backend::Backend::allocate_pinned), unless the device's memory is the
/// host's own. It is valid until the operation has ended, and nobody else uses it before; whoever makes the operation sees to
/// it.
pub(crate) struct HostRange {
    pub(crate) address: NonNull<u8>,
    pub(crate) bytes: usize,
    /// Where in the access the piece begins: a multiple of [`PIECE_ALIGN`].
    pub(crate) at_bytes: usize,
}

/// What all kinds of devices can copy to and from: wgpu copies whole words.
pub(crate) const PIECE_ALIGN: usize = 4;

// SAFETY: it is an address; who makes the operation answers for the memory.
unsafe impl Send for HostRange {}

/// One unit of device work. Its account keeps it when it has ended, so that the next one needs no memory.
pub(crate) struct Operation {
    /// The ordinal of its device.
    pub(crate) device: usize,
    pub(crate) stream: Arc<Stream>,
    pub(crate) accesses: Vec<Access>,
    pub(crate) command: Command,
    /// Of a launch; else empty.
    pub(crate) arguments: Arguments,
    /// Always there from `submit` to its end.
    pub(crate) completion: Option<Arc<Cell>>,
    /// For its backend, from `submit` to its end: those that it comes after. Kept for its memory; empty otherwise.
    pub(crate) after: Vec<Event>,
    /// Its backend is to find out what it takes on the device.
    pub(crate) is_timed: bool,
    /// Nothing else of ours was on the device when it was submitted.
    pub(crate) was_alone: bool,
    /// What it took, if that is known when it ends.
    pub(crate) spent: Option<Spent>,
}

/// The operations of a backend that have not ended.
pub(crate) trait InFlight {
    /// Lets the operation that is being ordered wait for this one, if it has not ended.
    fn wait_for(&mut self, earlier: Event);

    /// Whether this operation has not ended; it may be forgotten otherwise.
    fn contains(&self, event: Event) -> bool;
}

impl Operation {
    /// One that does nothing.
    pub(crate) fn new(device: usize, stream: Arc<Stream>) -> Box<Self> {
        let (command, arguments) = (Command::Fence, Arguments::default());
        let (accesses, completion, after) = Default::default();
        let (is_timed, was_alone, spent) = (false, false, None);
        Box::new(Operation {
            device,
            stream,
            accesses,
            command,
            arguments,
            completion,
            after,
            is_timed,
            was_alone,
            spent,
        })
    }

    /// Records that the operation failed.
    #[cold]
    pub(crate) fn record_fault(&self, caught: Caught) -> Arc<FaultRecord> {
        let completion =
            self.completion.as_ref().expect("an operation that has not ended has its completion");
        completion.record_fault(FaultKind::Kernel, caught)
    }

    /// Records that this kernel, which the operation ran, failed.
    #[cold]
    pub(crate) fn record_fault_of(&self, kernel: &'static str, caught: Caught) -> Arc<FaultRecord> {
        let completion =
            self.completion.as_ref().expect("an operation that has not ended has its completion");
        completion.record_fault_of(FaultKind::Kernel, kernel, caught)
    }

    /// Gives the operation its event, makes it the last one of its stream and its buffers, and shows `in_flight` what it must
    /// come after: the operation before it in its stream, the last write of whatever it reads, the last write and the
    /// reads of whatever it writes. One may be shown twice, and one that has ended long ago.
    ///
    /// Two operations that use one buffer, or one stream, must be ordered one after the other, each together with its way
    /// into the backend's queues: under a lock that they have in common.
    pub(crate) fn order(&self, event: Event, in_flight: &mut impl InFlight) {
        let mut last = self.stream.last.lock().expect("nothing panics under this lock");
        if let Some(earlier) = last.replace(event) {
            in_flight.wait_for(earlier);
        }
        drop(last);
        for access in &self.accesses {
            let mut tracked = access.memory.tracked();
            if let Some(earlier) = tracked.events.last_write {
                in_flight.wait_for(earlier);
            }
            if access.mode != AccessMode::Read {
                tracked.events.reads.drain(..).for_each(|earlier| in_flight.wait_for(earlier));
            }
            drop(tracked);
            let old = access.copy_from.as_ref().and_then(|old| old.tracked().events.last_write);
            if let Some(earlier) = old {
                in_flight.wait_for(earlier);
            }
        }
        for access in &self.accesses {
            let mut tracked = access.memory.tracked();
            if access.mode == AccessMode::Read {
                tracked.events.reads.retain(|&earlier| in_flight.contains(earlier));
                tracked.events.reads.push(event);
            } else {
                tracked.events.last_write = Some(event);
            }
            // What is copied from is shared, and its owner has other memory from now on: nobody will write it
            // again.
        }
    }

    /// Whether an input is known to be spoiled when the operation is about to be ordered. `fails` says of an operation that has not
    /// ended whether it is known to fail; `None` if it has ended.
    #[cfg(feature = "cuda")]
    pub(crate) fn reads_spoiled(&self, fails: impl Fn(Event) -> Option<bool>) -> bool {
        self.accesses.iter().filter(|access| access.mode.reads()).any(|access| {
            let memory = access.copy_from.as_ref().unwrap_or(&access.memory);
            let writer = memory.tracked().events.last_write;
            // What has ended has said what the contents are worth.
            writer.and_then(&fails).unwrap_or_else(|| memory.is_poisoned())
        })
    }

    /// Begins: fails if an input is spoiled by a fault, else what is overwritten counts as whole.
    ///
    /// A backend that begins an operation before those that it depends on have ended sees only the faults known by then;
    /// for the others it answers itself.
    pub(crate) fn enter(&self) -> Result<(), Arc<FaultRecord>> {
        for access in self.accesses.iter().filter(|access| access.mode.reads()) {
            if let Some(fault) = access.copy_from.as_ref().unwrap_or(&access.memory).poison() {
                return Err(fault);
            }
        }
        for access in &self.accesses {
            if !access.mode.reads() && access.memory.is_poisoned() {
                access.memory.set_poison(None);
            }
        }
        Ok(())
    }

    /// The copies that come before the command: from, to, bytes. All on the operation's device.
    pub(crate) fn snapshot_copies(&self) -> impl Iterator<Item = (Block, Block, usize)> {
        let copied = |access: &Access| {
            let old = access.copy_from.as_ref()?;
            Some((old.block(), access.memory.block(), old.len_bytes()))
        };
        self.accesses.iter().filter_map(copied)
    }

    /// Ends: what a failed operation was to write is spoiled, its outcome is stored, and what it held is let go. The
    /// completion is then to be published.
    #[must_use]
    pub(crate) fn leave(self: Box<Self>, outcome: Result<(), Arc<FaultRecord>>) -> Arc<Cell> {
        if let Err(fault) = &outcome {
            for access in self.accesses.iter().filter(|access| access.mode != AccessMode::Read) {
                access.memory.set_poison(Some(fault.clone()));
            }
        }
        self.end(|completion| completion.store(outcome))
    }

    /// Gives its waiter a fault, though the operation has not ended, and may never. What it was to write is spoiled; what it holds, it
    /// keeps.
    #[cfg(feature = "cuda")]
    pub(crate) fn desert(&self, fault: &Arc<FaultRecord>) {
        for access in self.accesses.iter().filter(|access| access.mode != AccessMode::Read) {
            access.memory.set_poison(Some(fault.clone()));
        }
        let completion =
            self.completion.as_ref().expect("an operation that has not ended has its completion");
        let branch = completion.branch().expect("the operation has not left its cell");
        branch.note_end(self);
        completion.publish_overdue(fault.clone());
    }

    /// Ends an operation that has not begun and never will: its devices have been abandoned.
    #[must_use]
    pub(crate) fn refuse(mut self: Box<Self>, device: Arc<str>) -> Arc<Cell> {
        // No launch for the records.
        self.command = Command::Fence;
        self.end(|completion| completion.refuse(device))
    }

    fn end(mut self: Box<Self>, store: impl FnOnce(&Cell)) -> Arc<Cell> {
        let completion = self.completion.take().expect("an operation ends once");
        store(&completion);
        // Before anybody can see that it has ended, so that its memory counts as free by then.
        self.accesses.clear();
        self.arguments.clear();
        self.after.clear();
        let branch = completion.branch().expect("the operation has not left its cell");
        branch.note_end(&self);
        self.command = Command::Fence;
        self.spent = None;
        branch.keep(self);
        completion
    }
}
