//! Pinned memory: host memory that devices copy from and to while the host goes on.
//!
//! Invariant: a [`Pinned`] is used by nobody else, so the host may read and write it; while a copy uses it, it is inside of
//! an [`InFlight`], which gives it out only when the copy is done.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, MutexGuard};

use super::arena::{Arena, Piece};
use super::error::{CudaError, DeviceFault};
use super::lane::{Mark, Progress};
use super::machine::{Gpu, Machine};
use super::raw::{HostMemory, RegisteredMemory};
use crate::pool;

/// Pinned memory that nobody else uses. Goes back to the pool when it is dropped.
pub struct Pinned {
    machine: Arc<Machine>,
    address: NonNull<u8>,
    len_bytes: usize,
    piece: Piece,
}

// SAFETY: it owns plain memory.
unsafe impl Send for Pinned {}
// SAFETY: as above.
unsafe impl Sync for Pinned {}

/// Finds memory of which all uses are over.
pub(super) fn allocate(machine: &Arc<Machine>, len_bytes: usize) -> Result<Pinned, CudaError> {
    let nowhere = || CudaError::OutOfMemory {
        device: Arc::from("the host"),
        requested_bytes: len_bytes,
        live_bytes: machine.pinned().live_bytes(),
        free_bytes: 0,
        total_bytes: 0,
    };
    let class_bytes = pool::class_bytes(len_bytes).ok_or_else(nowhere)?;
    let take = |mut arena: MutexGuard<'_, Arena<HostMemory>>| {
        let piece = arena.take(class_bytes, |mark| machine.is_over(*mark))?;
        let slab = arena.memory(piece.slab).address();
        // SAFETY: the piece lies in the slab.
        let address = unsafe { slab.add(piece.offset_bytes) };
        Some(Pinned { machine: machine.clone(), address, len_bytes, piece })
    };
    if let Some(pinned) = take(machine.pinned()) {
        return Ok(pinned);
    }
    machine.poll_all();
    if let Some(pinned) = take(machine.pinned()) {
        return Ok(pinned);
    }
    let slab_bytes = machine.settings.pinned_slab_bytes.max(class_bytes);
    let mut refusal = nowhere();
    for device in &machine.devices {
        if let Err(error) = device.check() {
            refusal = error;
            continue;
        }
        match HostMemory::allocate(&device.context, slab_bytes) {
            Ok(memory) => {
                let mut arena = machine.pinned();
                arena.add(memory, slab_bytes);
                return Ok(take(arena).expect("a new slab has room"));
            }
            Err(status) if status.is_out_of_memory() => return Err(nowhere()),
            Err(status) => refusal = device.explain("cuMemHostAlloc", status),
        }
    }
    Err(refusal)
}

/// Pins memory of others where it is, for all devices.
pub(super) fn register(
    gpu: &Gpu,
    address: NonNull<u8>,
    len_bytes: usize,
) -> Result<RegisteredMemory, CudaError> {
    let state = gpu.state();
    state.check()?;
    let registered = RegisteredMemory::register(&state.context, address, len_bytes);
    registered.map_err(|status| state.explain("cuMemHostRegister", status))
}

impl Pinned {
    pub(super) fn address(&self) -> NonNull<u8> {
        self.address
    }

    pub(super) fn machine(&self) -> &Arc<Machine> {
        &self.machine
    }

    /// What a copy at `mark` leaves behind: the memory, when it is done.
    pub(super) fn in_flight(mut self, mark: Mark) -> InFlight {
        self.piece.uses.push(mark);
        InFlight { pinned: Some(self), mark }
    }
}

impl Deref for Pinned {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the piece has so many bytes, initialised when the slab was made; nobody else uses it.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr(), self.len_bytes) }
    }
}

impl DerefMut for Pinned {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.len_bytes) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.machine.pinned().give(std::mem::take(&mut self.piece));
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pinned({} bytes)", self.len_bytes)
    }
}

/// Pinned memory that a copy uses. Dropping it leaves the copy alone; the memory is recycled when that is done.
#[derive(Debug)]
#[must_use = "the memory comes back when the copy is done"]
pub struct InFlight {
    /// `Some` until it has been given out.
    pinned: Option<Pinned>,
    mark: Mark,
}

impl InFlight {
    /// Where the copy stands in its stream.
    pub fn mark(&self) -> Mark {
        self.mark
    }

    /// Gives the memory back if the copy is done; does not wait.
    ///
    /// # Errors
    ///
    /// If the device is lost. The memory is recycled.
    pub fn take(mut self) -> Result<Result<Pinned, InFlight>, Arc<DeviceFault>> {
        let progress = self.pinned.as_ref().map(|pinned| pinned.machine.query(self.mark));
        match progress {
            Some(Progress::Fault(fault)) => Err(fault),
            Some(Progress::Ready) => {
                let mut pinned = self.pinned.take().expect("it is given out once, by value");
                pinned.piece.uses.clear();
                pinned.piece.after.clear();
                Ok(Ok(pinned))
            }
            Some(Progress::Pending) | None => Ok(Err(self)),
        }
    }
}
