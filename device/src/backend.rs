//! What a backend does for the rest of the crate: memory, and running operations in order.
//!
//! Everything above this line (accounts, snapshots, poisoning, completions) is the same for every backend;
//! everything below knows one kind of device.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::completion::Publish;
use crate::error::DeviceError;
use crate::event::Stream;
use crate::fault::FaultRecord;
use crate::memory::Memory;

/// The devices of one kind.
pub(crate) trait Backend: Send + Sync {
    /// Zeroed memory of `bytes` (a multiple of 256) bytes, aligned to 256; `None` if there is none.
    fn allocate(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `address` came from [`allocate`](Self::allocate) of this backend with the same `bytes`, and nobody
    /// uses it.
    unsafe fn release(&self, address: NonNull<u8>, bytes: usize);

    /// Accepts an operation: it runs after all operations submitted earlier to its stream, after the last
    /// write of whatever it reads, and after the last write and the reads of whatever it writes. Then its
    /// completion is published.
    fn submit(&self, operation: Operation) -> Result<(), DeviceError>;

    /// Operations submitted whose completions have not all been published.
    fn pending(&self) -> usize;
}

/// What one operation does to one buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessMode {
    /// Reads it.
    Read,
    /// Writes every element of it.
    Overwrite,
    /// Reads and writes it.
    Update,
}

/// A buffer that an operation uses, kept alive until the operation has run.
#[derive(Clone)]
pub(crate) struct Access {
    pub(crate) memory: Arc<Memory>,
    pub(crate) mode: AccessMode,
    /// The shared memory whose contents are copied into `memory` first (the snapshot rule for updates).
    pub(crate) copy_from: Option<Arc<Memory>>,
}

/// What an operation does.
pub(crate) type Work = Box<dyn FnOnce(&[Access]) + Send>;

/// One unit of device work.
pub(crate) struct Operation {
    /// The ordinal of its device.
    pub(crate) device: usize,
    pub(crate) stream: Arc<Stream>,
    pub(crate) accesses: Vec<Access>,
    /// Does the work and stores its outcome; does not panic. The accesses are in order when it is called.
    pub(crate) work: Work,
    pub(crate) completion: Arc<dyn Publish>,
}

/// Makes buffers ready for a kernel: fails if an input is spoiled by a fault, and does the copies of the
/// snapshot rule.
pub(crate) fn enter(accesses: &[Access]) -> Result<(), Arc<FaultRecord>> {
    for access in accesses {
        let input = match access.mode {
            AccessMode::Overwrite => None,
            AccessMode::Read | AccessMode::Update => {
                Some(access.copy_from.as_ref().unwrap_or(&access.memory))
            }
        };
        if let Some(fault) = input.and_then(|memory| memory.poison()) {
            return Err(fault);
        }
    }
    for access in accesses {
        if access.mode == AccessMode::Overwrite && access.memory.is_poisoned() {
            access.memory.set_poison(None);
        }
        if let Some(old) = &access.copy_from {
            let bytes = old.len_bytes();
            // SAFETY: both have `len_bytes` bytes; `memory` is new and used by this operation only; `old` is
            // shared, so nobody writes it.
            unsafe { access.memory.address().copy_from_nonoverlapping(old.address(), bytes) };
        }
    }
    Ok(())
}

/// Marks what a failed operation was to write as spoiled.
pub(crate) fn leave_faulted(accesses: &[Access], fault: &Arc<FaultRecord>) {
    for access in accesses.iter().filter(|access| access.mode != AccessMode::Read) {
        access.memory.set_poison(Some(fault.clone()));
    }
}
