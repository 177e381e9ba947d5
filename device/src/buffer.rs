//! Typed handles to device memory: the owner's [`DeviceVec`] and the read-only snapshot [`DeviceSlice`].
//!
//! Neither holds an address: both are one pointer to a [`Memory`], which the owner's handle exchanges for
//! another one when it writes while shares live. So a handle can be moved, swapped and sent while operations
//! on it are in flight.

use std::fmt;
use std::marker::PhantomData;

use crate::memory::MemoryRef;
use crate::param::DevicePod;
use crate::shape::Shape;

/// A typed buffer in device memory, charged to the [`Account`](crate::Account) that allocated it.
///
/// In a launch, `&DeviceVec` is read and `&mut DeviceVec` is written, and comes over if it is on another device than the account that
/// launches. Dropping it frees the memory in stream
/// order: it goes back to the device's pool after the last share is gone and the last operation using it has
/// finished.
pub struct DeviceVec<T> {
    memory: MemoryRef,
    elements: PhantomData<fn() -> T>,
}

impl<T: DevicePod> DeviceVec<T> {
    pub(crate) fn new(memory: MemoryRef) -> Self {
        DeviceVec { memory, elements: PhantomData }
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.memory.len_elems()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The extents it was allocated with.
    pub fn shape(&self) -> Shape {
        self.memory.shape()
    }

    /// A snapshot of the contents as they are after everything enqueued so far.
    ///
    /// Returns at once and copies nothing. Until the last clone of it is dropped, a launch that overwrites
    /// this buffer ([`Out`](crate::Out)) gets other memory from the pool, and one that updates it
    /// ([`InOut`](crate::InOut)) copies first; afterwards writes are in place again.
    pub fn share(&self) -> DeviceSlice<T> {
        DeviceSlice::of(self.memory.clone())
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &MemoryRef {
        &self.memory
    }

    /// Puts other memory in the place of the present one, which is returned.
    pub(crate) fn replace(&mut self, memory: MemoryRef) -> MemoryRef {
        std::mem::replace(&mut self.memory, memory)
    }
}

impl<T: DevicePod> fmt::Debug for DeviceVec<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DeviceVec<{}>{:?} on {}",
            std::any::type_name::<T>(),
            self.shape(),
            self.memory.device().facts.name
        )
    }
}

/// A read-only snapshot of a [`DeviceVec`]: cloneable, sendable, and never changed by later writes of the
/// owner. It can be used by accounts on any device of the set: on another one it is copied at its first use there, and the copy is kept
/// for later uses until the last clone is dropped.
pub struct DeviceSlice<T> {
    memory: MemoryRef,
    elements: PhantomData<fn() -> T>,
}

impl<T: DevicePod> DeviceSlice<T> {
    pub(crate) fn of(memory: MemoryRef) -> Self {
        memory.add_share();
        DeviceSlice { memory, elements: PhantomData }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.memory.len_elems()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The extents of the buffer it was taken of.
    pub fn shape(&self) -> Shape {
        self.memory.shape()
    }

    #[inline(always)]
    pub(crate) fn memory(&self) -> &MemoryRef {
        &self.memory
    }
}

impl<T> Clone for DeviceSlice<T> {
    fn clone(&self) -> Self {
        self.memory.add_share();
        DeviceSlice { memory: self.memory.clone(), elements: PhantomData }
    }
}

impl<T> Drop for DeviceSlice<T> {
    fn drop(&mut self) {
        self.memory.remove_share();
    }
}

impl<T: DevicePod> fmt::Debug for DeviceSlice<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "DeviceSlice<{}>{:?} on {}",
            std::any::type_name::<T>(),
            self.shape(),
            self.memory.device().facts.name
        )
    }
}

/// What device memory can be read from: [`DeviceVec`] and [`DeviceSlice`]. Not for implementing elsewhere.
///
/// # Safety
///
/// The memory holds elements of type `T`.
pub unsafe trait Source<T: DevicePod> {
    #[doc(hidden)]
    fn source(&self) -> &MemoryRef;
}

// SAFETY: the memory is that of a buffer of `T`.
unsafe impl<T: DevicePod> Source<T> for DeviceVec<T> {
    fn source(&self) -> &MemoryRef {
        &self.memory
    }
}

// SAFETY: the memory is that of a buffer of `T`.
unsafe impl<T: DevicePod> Source<T> for DeviceSlice<T> {
    fn source(&self) -> &MemoryRef {
        &self.memory
    }
}
