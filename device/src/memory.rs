//! One allocation of device memory: who pays for it, what must finish before it is used, and who shares it.
//!
//! A [`Memory`] is kept by the [`DeviceVec`](crate::DeviceVec) that owns it, by the shares of it and by
//! submitted operations that use it; after the last of them it goes back to its device's pool. Its contents
//! are always initialised bytes. Where they are, only the backend knows ([`Block`]).
//!
//! What is left then is a *shell*, without memory and owned by nobody, which its owner's ledger keeps for the next buffer: so
//! buffers that come and go in every step need none of the host's memory.
//!
//! `state` holds three facts that every launch needs, so that one load answers all: the number of shares, whether
//! there are twins, and whether the contents are poisoned (a kernel failed while writing them). Only a share or the owner (by `&`)
//! can make another share, so whoever holds `&mut DeviceVec` and reads zero shares is the only one who can
//! start a use of the memory.
//!
//! A *twin* is memory on another device with the same contents, at most one a device, for those there who read this memory. It is
//! made by who holds a share or the owner by `&`, and only read through this memory; the writer forgets it, and so does the last share that goes.
//! Others may have it as a memory of its own by then: operations, and shares of it.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::backend::Block;
use crate::device::{DeviceCore, Ledger};
use crate::error::DeviceError;
use crate::event::BufferEvents;
use crate::fault::FaultRecord;
use crate::lending::Borrowed;
use crate::shape::Shape;

/// The alignment of every allocation, as `cuMemAlloc` promises it.
pub(crate) const MAX_ALIGN: usize = 256;

/// Bit of `state`: the contents are what a failed kernel left.
const POISONED: u32 = 1;
/// Bit of `state`: there are twins.
const TWINNED: u32 = 2;
/// Added to `state` for each share.
const SHARE: u32 = 4;

/// An allocation of device memory. See the module's comment.
// In this order, so that what a launch reads stands in the first cache line.
#[repr(C)]
pub struct Memory {
    state: AtomicU32,
    block: Block,
    len_elems: usize,
    device: Arc<DeviceCore>,
    ledger: Arc<Ledger>,
    reserved_bytes: usize,
    len_bytes: usize,
    tracked: Mutex<Tracked>,
    shape: Shape,
    /// Of memory that came from another process: its bytes. No operation uses it, and there is no block.
    landed: Option<HostBytes>,
    /// Of memory that another process lends: what keeps it open.
    borrowed: Option<Borrowed>,
}

/// Bytes in memory of the host, whoever has allocated them.
pub(crate) type HostBytes = Box<dyn AsRef<[u8]> + Send + Sync>;

/// What operations leave behind on a buffer.
#[derive(Debug, Default)]
pub(crate) struct Tracked {
    pub(crate) events: BufferEvents,
    /// The fault that poisoned the contents. `Some` exactly if `POISONED` is set.
    poison: Option<Arc<FaultRecord>>,
    /// Some exactly if `TWINNED` is set.
    twins: Vec<MemoryRef>,
}

impl Tracked {
    /// Forgets all, and keeps the memory.
    fn reset(&mut self) {
        self.events.last_write = None;
        self.events.reads.clear();
        self.poison = None;
        self.twins.clear();
    }
}

impl Memory {
    /// Takes `shape.len()` elements of `elem_bytes` bytes from the pool of `device`, charged to `ledger`. The second value
    /// says whether they are known to be zeros; else their bytes are initialised, and of no particular value.
    pub(crate) fn reserve(
        device: &Arc<DeviceCore>,
        ledger: &Arc<Ledger>,
        shape: Shape,
        elem_bytes: usize,
    ) -> Result<(MemoryRef, bool), DeviceError> {
        let len_elems = shape.len();
        let wanted_bytes = len_elems.checked_mul(elem_bytes);
        let reserved = match wanted_bytes {
            Some(bytes) => device.class_bytes(ledger, bytes)?,
            None => None,
        };
        let Some((reserved_bytes, fresh)) =
            reserved.and_then(|bytes| Some((bytes, device.take_block(bytes)?)))
        else {
            return Err(device.out_of_memory(ledger, reserved.unwrap_or(usize::MAX)));
        };
        ledger.used_bytes.fetch_add(reserved_bytes as u64, Ordering::Relaxed);
        let mut shell = ledger.take_shell();
        // Whoever has put it there may not yet have let go of it.
        let ours = shell.as_mut().and_then(|shell| Arc::get_mut(&mut shell.0));
        let memory = match ours {
            Some(memory) => {
                debug_assert!(Arc::ptr_eq(&memory.device, device), "a ledger is of one device");
                (memory.block, memory.reserved_bytes) = (fresh.block, reserved_bytes);
                (memory.len_elems, memory.len_bytes) = (len_elems, wanted_bytes.unwrap_or(0));
                memory.shape = shape;
                shell.expect("it was just filled")
            }
            None => MemoryRef(Arc::new(Memory {
                state: AtomicU32::new(0),
                block: fresh.block,
                len_elems,
                device: device.clone(),
                ledger: ledger.clone(),
                reserved_bytes,
                len_bytes: wanted_bytes.unwrap_or(0),
                tracked: Mutex::default(),
                shape,
                landed: None,
                borrowed: None,
            })),
        };
        Ok((memory, fresh.is_zeroed))
    }

    /// What came from another process, as memory of a device that is none: `device` is where no account is ever bound. There are as many bytes,
    /// unless it is spoiled.
    pub(crate) fn landed_at(
        device: &Arc<DeviceCore>,
        ledger: &Arc<Ledger>,
        shape: Shape,
        len_bytes: usize,
        bytes: HostBytes,
    ) -> MemoryRef {
        MemoryRef(Arc::new(Memory {
            state: AtomicU32::new(0),
            block: Block::at(NonNull::dangling()),
            len_elems: shape.len(),
            device: device.clone(),
            ledger: ledger.clone(),
            reserved_bytes: 0,
            len_bytes,
            tracked: Mutex::default(),
            shape,
            landed: Some(bytes),
            borrowed: None,
        }))
    }

    /// What another process lends, as memory of `device`. It counts as shared for as long as it is here: the lender has a share.
    pub(crate) fn borrowed_at(
        device: &Arc<DeviceCore>,
        ledger: &Arc<Ledger>,
        shape: Shape,
        len_bytes: usize,
        borrowed: Borrowed,
    ) -> MemoryRef {
        MemoryRef(Arc::new(Memory {
            state: AtomicU32::new(SHARE),
            block: borrowed.block(),
            len_elems: shape.len(),
            device: device.clone(),
            ledger: ledger.clone(),
            reserved_bytes: 0,
            len_bytes,
            tracked: Mutex::default(),
            shape,
            landed: None,
            borrowed: Some(borrowed),
        }))
    }

    /// Whether it is not of this process's pools.
    pub(crate) fn is_foreign(&self) -> bool {
        self.landed.is_some() || self.borrowed.is_some()
    }

    /// The bytes, if it came from another process.
    pub(crate) fn landed(&self) -> Option<&[u8]> {
        self.landed.as_ref().map(|bytes| (**bytes).as_ref())
    }

    #[inline(always)]
    pub(crate) fn block(&self) -> Block {
        self.block
    }

    #[inline(always)]
    pub(crate) fn len_elems(&self) -> usize {
        self.len_elems
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub(crate) fn shape(&self) -> Shape {
        self.shape
    }

    #[inline(always)]
    pub(crate) fn device(&self) -> &Arc<DeviceCore> {
        &self.device
    }

    /// Who pays for it.
    pub(crate) fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Whether nobody shares the memory, nor has a twin of it. With `&mut` of its owner, this stays so.
    #[inline(always)]
    pub(crate) fn is_sole(&self) -> bool {
        // Pairs as in `is_unshared`: who has made a twin by a share has dropped the share since.
        self.state.load(Ordering::Acquire) < TWINNED
    }

    /// Whether nobody shares the memory. With `&mut` of its owner, this stays so.
    pub(crate) fn is_unshared(&self) -> bool {
        // Pairs with the release in `remove_share`: what a former share's holder read happens before our
        // writes.
        self.state.load(Ordering::Acquire) < SHARE
    }

    #[inline(always)]
    pub(crate) fn is_poisoned(&self) -> bool {
        // Pairs with the release in `set_poison`.
        self.state.load(Ordering::Acquire) & POISONED != 0
    }

    /// Counts one more share.
    pub(crate) fn add_share(&self) {
        // Relaxed, as for `Arc`: the caller has the memory through an owner or a share already.
        let before = self.state.fetch_add(SHARE, Ordering::Relaxed);
        assert!(before < u32::MAX / 2, "a buffer has fewer than 2^29 shares");
    }

    /// Counts one share less.
    pub(crate) fn remove_share(&self) {
        // Pairs with the acquire in `is_unshared`.
        let before = self.state.fetch_sub(SHARE, Ordering::Release);
        if before / SHARE == 1 && before & TWINNED != 0 {
            self.forget_twins();
        }
    }

    /// The twin on a device.
    pub(crate) fn twin_at(&self, device: &Arc<DeviceCore>) -> Option<MemoryRef> {
        if self.is_sole() {
            return None;
        }
        self.tracked().twins.iter().find(|twin| Arc::ptr_eq(&twin.device, device)).cloned()
    }

    /// Makes `twin`, which has the same contents, the twin on its device, unless there is one; the one that there is then.
    pub(crate) fn keep_twin(&self, twin: MemoryRef) -> MemoryRef {
        let mut tracked = self.tracked();
        let earlier =
            tracked.twins.iter().find(|earlier| Arc::ptr_eq(&earlier.device, &twin.device)).cloned();
        if earlier.is_none() {
            self.state.fetch_or(TWINNED, Ordering::Release);
            tracked.twins.push(twin.clone());
        }
        drop(tracked);
        earlier.unwrap_or(twin)
    }

    /// Lets go of all twins. Who reads one goes on.
    #[cold]
    pub(crate) fn forget_twins(&self) {
        // One by one: the list keeps its memory, and nothing is dropped under the lock.
        let pop = || {
            let mut tracked = self.tracked();
            let twin = tracked.twins.pop();
            if tracked.twins.is_empty() {
                self.state.fetch_and(!TWINNED, Ordering::Release);
            }
            twin
        };
        while let Some(twin) = pop() {
            drop(twin);
        }
    }

    /// The events and the poison, for the backend that orders operations.
    pub(crate) fn tracked(&self) -> MutexGuard<'_, Tracked> {
        self.tracked.lock().expect("nothing panics under this lock")
    }

    /// The fault that poisoned the contents.
    pub(crate) fn poison(&self) -> Option<Arc<FaultRecord>> {
        if self.is_poisoned() { self.tracked().poison.clone() } else { None }
    }

    /// Says what the contents are worth: spoiled by a fault, or (`None`) whole again.
    #[cold]
    pub(crate) fn set_poison(&self, fault: Option<Arc<FaultRecord>>) {
        let mut tracked = self.tracked();
        // Pairs with the acquire in `is_poisoned`.
        match &fault {
            Some(_) => self.state.fetch_or(POISONED, Ordering::Release),
            None => self.state.fetch_and(!POISONED, Ordering::Release),
        };
        tracked.poison = fault;
    }
}

impl Memory {
    /// Gives the memory back, once: a block has at least a byte.
    fn release(&mut self) {
        let reserved_bytes = std::mem::take(&mut self.reserved_bytes);
        if reserved_bytes > 0 {
            self.ledger.used_bytes.fetch_sub(reserved_bytes as u64, Ordering::Relaxed);
            self.device.give_block(self.block, reserved_bytes);
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.release();
    }
}

/// A counted reference to memory. The last one leaves a shell.
#[derive(Clone)]
pub struct MemoryRef(Arc<Memory>);

impl fmt::Debug for MemoryRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryRef({} bytes)", self.reserved_bytes)
    }
}

impl MemoryRef {
    /// Whether it can be [relabelled](Self::relabelled).
    pub(crate) fn can_be(&self, shape: Shape) -> bool {
        self.shape() == shape || Arc::strong_count(&self.0) == 1
    }

    /// The same as elements of another shape, which take as many bytes. Nobody else may have it then.
    pub(crate) fn relabelled(mut self, shape: Shape) -> Self {
        if self.shape() == shape {
            return self;
        }
        let memory = Arc::get_mut(&mut self.0).expect("nobody else has it");
        (memory.shape, memory.len_elems) = (shape, shape.len());
        self
    }
}

impl Deref for MemoryRef {
    type Target = Memory;

    #[inline(always)]
    fn deref(&self) -> &Memory {
        &self.0
    }
}

impl Drop for MemoryRef {
    fn drop(&mut self) {
        // Two that are the last at once both see another one; then there is no shell, and nothing worse.
        let Some(memory) = Arc::get_mut(&mut self.0) else { return };
        if memory.reserved_bytes == 0 {
            return;
        }
        memory.release();
        *memory.state.get_mut() = 0;
        memory.tracked.get_mut().expect("nothing panics under this lock").reset();
        let unkept = self.0.ledger.keep_shell(MemoryRef(self.0.clone()));
        drop(unkept);
    }
}
