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
use crate::param::Element;
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
/// Made by [`Account::host_vec`](crate::Account::host_vec); seen as a slice. It is passed by value to
/// [`Account::write`](crate::Account::write) and [`Account::read`](crate::Account::read), whose completions
/// give it back. Dropping it returns its memory to the devices' pool.
pub struct HostVec<T> {
    memory: HostMemory,
    len: usize,
    elements: PhantomData<T>,
}

/// Pooled host memory, whatever is in it. Goes back to its pool when it is dropped.
pub(crate) struct HostMemory {
    pool: Arc<HostPool>,
    block: Block,
    class_bytes: usize,
}

impl<T: Element> HostVec<T> {
    /// So many zeros; `None` if the machine has not the memory.
    pub(crate) fn zeros(pool: &Arc<HostPool>, len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>())?;
        let class_bytes = pool::class_bytes(bytes)?;
        let taken = pool.pool.lock().expect("nothing panics under this lock").take(
            class_bytes,
            u64::MAX,
            &*pool.backend,
        );
        let Fresh { block, is_zeroed } = taken?;
        if !is_zeroed {
            // SAFETY: the block has at least so many bytes, and nobody else has it.
            unsafe { block.address().write_bytes(0, bytes) };
        }
        let memory = HostMemory { pool: pool.clone(), block, class_bytes };
        Some(HostVec { memory, len, elements: PhantomData })
    }

    /// Its memory, for an operation whose completion keeps this vector.
    pub(crate) fn range(&mut self) -> HostRange {
        HostRange { address: self.memory.block.address(), bytes: self.len * size_of::<T>() }
    }

    /// Whether it belongs to these devices.
    pub(crate) fn is_of(&self, pool: &Arc<HostPool>) -> bool {
        Arc::ptr_eq(&self.memory.pool, pool)
    }

    fn address(&self) -> NonNull<T> {
        self.memory.block.address().cast()
    }
}

impl<T: Element> Prepared<HostVec<T>> {
    /// The vector itself, which takes no memory to keep.
    pub(crate) fn host(vector: HostVec<T>) -> Self {
        let HostVec { memory, len, .. } = vector;
        Prepared::of(Payload::Host(memory, len), |payload| match payload {
            Payload::Host(memory, len) => HostVec { memory, len, elements: PhantomData },
            _ => unreachable!("what comes out is what was put in above"),
        })
    }
}

impl<T: Element> Deref for HostVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the block holds `len` initialised elements, aligned to 256, and only this vector uses it.
        unsafe { std::slice::from_raw_parts(self.address().as_ptr(), self.len) }
    }
}

impl<T: Element> DerefMut for HostVec<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.address().as_ptr(), self.len) }
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        self.pool.pool.lock().expect("nothing panics under this lock").give(self.block, self.class_bytes);
    }
}

impl<T: Element> fmt::Debug for HostVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostVec<{}>[{}]", std::any::type_name::<T>(), self.len)
    }
}
