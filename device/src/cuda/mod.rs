//! NVIDIA GPUs: what the `cuda` backend is made of, over the driver's functions as `cudarc` loads them.
//!
//! Everything here is either *owned by the machine* (contexts, streams, slabs of memory) or *a handle* ([`Gpu`], [`Stream`],
//! [`Block`], [`Pinned`]) that keeps the machine alive. So nothing of CUDA ends before the last handle to it.
//!
//! # Positions and marks
//!
//! A stream counts what it is given: the n-th operation is at *position* n. A [`Mark`] names a position of a stream, by
//! three numbers. The driver is asked about events only: an event recorded after position n is complete when all up to n
//! is done. A stream keeps its pending events in order and asks about the oldest; when that is complete it knows that all
//! marks up to it are reached, and the event goes back to the pool. So
//!
//! * to *wait* for a mark, another stream waits for the first event at or after it; if there is none yet it is recorded
//!   then. That may be later than the mark, never earlier; what the host waits for gets its event at once ([`Stream::mark`]).
//! * to *ask* for a mark costs one atomic read once it is reached, and one driver call while it is not.
//! * a stream records an event by itself now and then, so positions become known, and the number of unfinished operations
//!   is bounded by what the caller looks at ([`Stream::is_full`]).
//!
//! # When memory may be used again
//!
//! Each piece of memory, of a device or pinned, lists the last mark of each stream that was given work on it. Nothing can
//! be forgotten there: operations take the [`Block`]s they use, and note them. Dropping a block gives its piece to the
//! arena with this list. The arena gives it to whoever asks next
//!
//! 1. if all of the list is reached, or is of the asker's own stream, which comes later in order anyway; or,
//! 2. if memory is short, at the price that the asker's stream waits for the list, on the device.
//!
//! A slab goes back to the driver only if no piece of it is handed out and all lists of its pieces are reached. So the
//! driver never frees memory in use, and the host waits only when the alternative is to fail for want of memory.
//!
//! Pinned memory is seen by the host as a slice, so it is owned by one side at a time: a copy takes it by value
//! and gives an [`InFlight`], which has it back only when the copy's mark is reached.
//!
//! # Who may touch a stream
//!
//! Anybody, from any thread: all that changes a stream holds its lock, from the driver's call to the count of the
//! position, so positions are in the order of the calls. At most one of these locks is held at a time, and never together
//! with that of an arena; the driver is called with one stream's lock held at most. A wait of one stream for another
//! holds the lock of the one that is waited for. What must stay together (a wait and the launch that needs it) is up to the
//! caller: a stream whose callers are several threads orders their calls somehow.
//!
//! A thread's current context is changed by one function, before each call that needs it, and remembered per thread, so
//! that a call for the context that is current costs a comparison. Code of others that may change it runs in
//! [`Stream::enqueue`], after which nothing is remembered.
//!
//! # Faults
//!
//! A kernel that fails poisons its device's context: the code comes back from whatever call is next, and from all later
//! ones. The first call that sees such a code makes the [`DeviceFault`] of that device, once: it names the oldest
//! unfinished operation of each stream (one of them did it; the driver does not say which). From then on no call for
//! this device reaches the driver, except to ask whether it is over; each fails with the same fault. So every waiter of
//! the device gets it, whichever stream it waits for, and nobody of another device. Only marks that were known to be reached
//! before the fault stay reached. What is freed on a faulted device is dropped without looking at the driver's answer.

mod arena;
mod backend;
mod cache;
mod compile;
mod error;
mod functions;
mod graph;
mod kernel;
mod lane;
mod machine;
mod memory;
mod nvml;
mod open;
mod pinned;
mod raw;
mod replay;
mod shipped;
mod stream;

pub(crate) use backend::open;
pub use compile::{Compiler, Image, ImageKind};
pub use error::{CudaError, DeviceFault};
pub use graph::{Graph, Recording};
pub use kernel::{Code, Extent, Function, Parameters};
pub use lane::{Mark, Progress};
pub use machine::{Gpu, Settings};
pub use memory::{Block, ExportedBlock};
pub(crate) use nvml::vitals;
pub use open::{Cuda, look};
pub use pinned::{InFlight, Pinned};
pub use shipped::ship;
pub(crate) use shipped::ship_all;
pub use stream::{Priority, Stream};
