//! Host memory that devices copy from and to: pinned where that matters, pooled, and given away while a copy is under way.
//!
//! A [`HostVec`] is passed by value to a copy and comes back from its completion, so no copy runs under a borrow. Its memory
//! belongs to a set of devices and goes back to their pool; in steady state none is allocated.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use crate::backend::{Backend, Block, Fresh};
use crate::completion::{Payload, Prepared};
use crate::operation::HostRange;
use crate::param::DevicePod;
use crate::pool::{self, Pool, Source};

/// The free host memory of one set of devices.
pub(crate) struct HostPool {
    backend: Arc<dyn Backend>,
    pool: Mutex<Pool>,
}

impl HostPool {
    pub(crate) fn new(backend: Arc<dyn Backend>) -> Arc<Self> {
        Arc::new(HostPool { backend, pool: Mutex::default() })
    }
}

impl Source for dyn Backend {
    fn allocate(&self, bytes: usize) -> Option<Fresh> {
        let address = self.allocate_pinned(bytes)?;
        Some(Fresh { block: Block::at(address), is_zeroed: true })
    }

    unsafe fn release(&self, block: Block, bytes: usize) {
        // SAFETY: the caller promises what this asks.
        unsafe { self.release_pinned(block.address(), bytes) };
    }
}

impl Drop for HostPool {
    fn drop(&mut self) {
        // Every vector keeps the pool, so all blocks are back.
        self.pool.get_mut().expect("nothing panics under this lock").trim(&*self.backend);
    }
}

/// A vector of plain data in host memory that devices of one set copy from and to without a detour.
///
/// Made by [`Account::host_vec`](crate::Account::host_vec), or of a vector of the program's by
/// [`Account::host_vec_of`](crate::Account::host_vec_of); seen as a slice. It is passed by value to
/// [`Account::write`](crate::Account::write) and [`Account::read`](crate::Account::read), whose completions
/// give it back. Dropping it returns its memory to the devices' pool, or frees it if it was the program's.
pub struct HostVec<T> {
    memory: HostMemory,
    len: usize,
    elements: PhantomData<T>,
}

/// Host memory of a set of devices, whatever is in it.
pub(crate) struct HostMemory {
    pool: Arc<HostPool>,
    block: Block,
    origin: Origin,
}

/// Where host memory goes when it is dropped.
enum Origin {
    /// Back to its pool.
    Pool { class_bytes: usize },
    /// It is a vector of so many elements of room, which this frees; it was pinned where it is.
    Vector { capacity: usize, free: unsafe fn(NonNull<u8>, usize) },
    /// Nowhere: it has been taken out.
    Taken,
}

impl<T: DevicePod> HostVec<T> {
    /// So many zeros; `None` if the machine has not the memory.
    pub(crate) fn zeros(pool: &Arc<HostPool>, len: usize) -> Option<Self> {
        let (mut vector, is_zeroed) = Self::any(pool, len)?;
        if !is_zeroed {
            vector.fill(T::zeroed());
        }
        Some(vector)
    }

    /// So many values that are to be written over; `None` if the machine has not the memory.
    pub(crate) fn to_fill(pool: &Arc<HostPool>, len: usize) -> Option<Self> {
        Some(Self::any(pool, len)?.0)
    }

    /// So many values, and whether they are known to be zeros.
    fn any(pool: &Arc<HostPool>, len: usize) -> Option<(Self, bool)> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let class_bytes = pool::class_bytes(bytes)?;
        let taken = pool.pool.lock().expect("nothing panics under this lock").take(
            class_bytes,
            u64::MAX,
            &*pool.backend,
        );
        // What is new is zeros, and what comes from the pool has been: so all of it is initialised, and any bytes are a `T`.
        let Fresh { block, is_zeroed } = taken?;
        let memory = HostMemory { pool: pool.clone(), block, origin: Origin::Pool { class_bytes } };
        Some((HostVec { memory, len, elements: PhantomData }, is_zeroed))
    }

    /// A vector of the program's, pinned where it is; or why it cannot be.
    pub(crate) fn of(pool: &Arc<HostPool>, values: Vec<T>) -> Result<Self, String> {
        let mut values = std::mem::ManuallyDrop::new(values);
        let address = NonNull::new(values.as_mut_ptr()).expect("a vector's address is not null");
        let (len, capacity) = (values.len(), values.capacity());
        let free: unsafe fn(NonNull<u8>, usize) = |address, capacity| {
            // SAFETY: the caller promises that this was a vector's, which had this room; plain data has no destructors, so it may be
            // seen as empty.
            drop(unsafe { Vec::<T>::from_raw_parts(address.cast().as_ptr(), 0, capacity) });
        };
        if let Err(said) = pool.backend.pin(address.cast(), len * size_of::<T>()) {
            // SAFETY: it is the vector's, and nobody else has it.
            unsafe { free(address.cast(), capacity) };
            return Err(said);
        }
        let origin = Origin::Vector { capacity, free };
        let memory = HostMemory { pool: pool.clone(), block: Block::at(address.cast()), origin };
        Ok(HostVec { memory, len, elements: PhantomData })
    }

    /// The values as a vector: the one that it was made of, which is not pinned any more, or a copy of pooled memory.
    pub fn into_vec(mut self) -> Vec<T> {
        let (address, len) = (self.address(), self.len);
        match std::mem::replace(&mut self.memory.origin, Origin::Taken) {
            Origin::Vector { capacity, .. } => {
                // SAFETY: it was pinned by `pin`, and no operation uses what is not given away.
                unsafe { self.memory.pool.backend.unpin(address.cast()) };
                // SAFETY: it was made of a vector of this type, with this room, whose elements have always been initialised; it is
                // nobody else's any more.
                unsafe { Vec::from_raw_parts(address.as_ptr(), len, capacity) }
            }
            pooled => {
                self.memory.origin = pooled;
                self.to_vec()
            }
        }
    }

    /// Its memory, for an operation whose completion keeps this vector.
    pub(crate) fn range(&mut self) -> HostRange {
        self.range_at(0)
    }

    /// As `range`, for a piece that begins so far in the device's memory.
    pub(crate) fn range_at(&mut self, at_bytes: usize) -> HostRange {
        HostRange { address: self.memory.block.address(), bytes: self.len * size_of::<T>(), at_bytes }
    }

    /// Whether it belongs to these devices.
    pub(crate) fn is_of(&self, pool: &Arc<HostPool>) -> bool {
        Arc::ptr_eq(&self.memory.pool, pool)
    }

    fn address(&self) -> NonNull<T> {
        self.memory.block.address().cast()
    }
}

impl<T: DevicePod> Prepared<HostVec<T>> {
    /// The vector itself, which takes no memory to keep.
    pub(crate) fn host(vector: HostVec<T>) -> Self {
        let HostVec { memory, len, .. } = vector;
        Prepared::of(Payload::Host(memory, len), |payload| match payload {
            Payload::Host(memory, len) => HostVec { memory, len, elements: PhantomData },
            _ => unreachable!("what comes out is what was put in above"),
        })
    }
}

impl<T: DevicePod> Deref for HostVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the block holds `len` initialised elements, aligned for them, and only this vector uses it.
        unsafe { std::slice::from_raw_parts(self.address().as_ptr(), self.len) }
    }
}

impl<T: DevicePod> DerefMut for HostVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.address().as_ptr(), self.len) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        match self.origin {
            Origin::Pool { class_bytes } => {
                self.pool.pool.lock().expect("nothing panics under this lock").give(self.block, class_bytes);
            }
            Origin::Vector { capacity, free } => {
                let address = self.block.address();
                // SAFETY: it was pinned by `pin`; what is dropped is used by no operation.
                unsafe { self.pool.backend.unpin(address) };
                // SAFETY: it is the vector's that this was made of.
                unsafe { free(address, capacity) };
            }
            Origin::Taken => {}
        }
    }
}

impl<T: DevicePod> fmt::Debug for HostVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostVec<{}>[{}]", std::any::type_name::<T>(), self.len)
    }
}
