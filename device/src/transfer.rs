//! Copies: between buffers, wherever they are, and between devices and host memory.
//!
//! What comes from another device is read there, in the order of its buffer, by an operation of the device that takes it; what the host
//! wants is read where it is. Neither waits.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::account::Account;
use crate::args::Written;
use crate::branch::Branch;
use crate::buffer::{DeviceSlice, DeviceVec, Source};
use crate::completion::{Completion, Prepared};
use crate::error::DeviceError;
use crate::host_vec::HostVec;
use crate::memory::MemoryRef;
use crate::operation::{Access, AccessMode, Command, HostRange};
use crate::param::DevicePod;
use crate::processes::Leaving;
use crate::shape::Shape;
use crate::usage::Direction;

impl Account {
    /// Enqueues a copy of a buffer's contents to the host.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OtherDevices`], a fault nobody awaited, [`DeviceError::Closed`]. The completion fails if the contents are spoiled by a fault.
    pub fn download<T: DevicePod>(&self, source: &impl Source<T>) -> Result<Completion<Vec<T>>, DeviceError> {
        self.fetch(source.source(), source.source().len_elems(), |values| values)
    }

    /// As [`download`](Self::download), of the bytes of a share that is about to leave its process.
    ///
    /// # Errors
    ///
    /// As there.
    #[doc(hidden)]
    pub fn download_bytes(&self, leaving: &Leaving) -> Result<Completion<Vec<u8>>, DeviceError> {
        let memory = leaving.memory();
        self.fetch(memory, memory.len_bytes(), |bytes| bytes)
    }

    /// Enqueues a copy of a buffer's contents into an array of the given shape.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Shape`] if the shape has another number of elements; else as for
    /// [`download`](Self::download).
    #[cfg(feature = "ndarray")]
    #[allow(clippy::wrong_self_convention, clippy::missing_panics_doc)]
    pub fn to_array<T, I>(
        &self,
        source: &impl Source<T>,
        shape: I,
    ) -> Result<Completion<ndarray::Array<T, I::Dim>>, DeviceError>
    where
        T: DevicePod,
        I: ndarray::IntoDimension,
        I::Dim: 'static,
    {
        use ndarray::Dimension;
        let (len, dim) = (source.source().len_elems(), shape.into_dimension());
        if dim.size_checked() != Some(len) {
            return Err(DeviceError::Shape { len, wanted: dim.size_checked().unwrap_or(usize::MAX) });
        }
        self.fetch(source.source(), len, move |values| {
            ndarray::Array::from_shape_vec(dim, values).expect("the sizes have been compared")
        })
    }

    /// Enqueues a copy of `values` over a buffer of as many elements; shares of it keep their values, as for a launch. The
    /// completion gives the vector back. No memory is allocated unless the buffer is shared.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Shape`] for another number of elements, [`DeviceError::OtherDevices`], [`DeviceError::OutOfMemory`] for a buffer
    /// that is shared or comes from another device, a fault nobody awaited, [`DeviceError::Closed`]. The vector is gone
    /// then.
    pub fn write<T: DevicePod>(
        &self,
        buffer: &mut DeviceVec<T>,
        mut values: HostVec<T>,
    ) -> Result<Completion<HostVec<T>>, DeviceError> {
        let branch = self.checked()?;
        self.check_host_vec(&values, buffer.len())?;
        Written::new(buffer).overwrite(branch)?;
        let command = Command::Upload(values.range());
        let operation = branch.operation_on(buffer.memory(), AccessMode::Overwrite, command);
        let completion = branch.submit("write", operation, Prepared::host(values))?;
        branch.note_copied(Direction::FromHost, buffer.memory().len_bytes());
        Ok(completion)
    }

    /// Enqueues a copy of a buffer's contents into `to`, which has as many elements and comes back from the completion.
    /// Allocates no memory.
    ///
    /// # Errors
    ///
    /// As for [`download`](Self::download), and [`DeviceError::Shape`] for another number of elements. The vector is gone then.
    pub fn read<T: DevicePod>(
        &self,
        source: &impl Source<T>,
        mut to: HostVec<T>,
    ) -> Result<Completion<HostVec<T>>, DeviceError> {
        self.checked()?;
        let memory = source.source();
        self.check_host_vec(&to, memory.len_elems())?;
        if let Some(bytes) = self.landed(memory)? {
            return Ok(memory.poison().map_or_else(
                || {
                    bytemuck::cast_slice_mut(&mut to).copy_from_slice(bytes);
                    Completion::ready(to)
                },
                Completion::faulted,
            ));
        }
        let branch = self.branch_near(memory)?;
        branch.note_copied(Direction::ToHost, memory.len_bytes());
        if let Some(values) = branch.values_now(memory, to.len()) {
            to.copy_from_slice(values);
            return Ok(Completion::ready(to));
        }
        let operation = branch.operation_on(memory, AccessMode::Read, Command::Download(to.range()));
        branch.submit("read", operation, Prepared::host(to))
    }

    /// Refuses host memory of other devices, or of another length.
    fn check_host_vec<T: DevicePod>(&self, values: &HostVec<T>, len: usize) -> Result<(), DeviceError> {
        if values.len() != len {
            return Err(DeviceError::Shape { len, wanted: values.len() });
        }
        if !values.is_of(&self.branch().device.host_pool) {
            return Err(DeviceError::OtherHostMemory { owner: self.label().into() });
        }
        Ok(())
    }

    /// Enqueues a copy of a buffer, from this device or another one of the same set, into a new buffer of this
    /// account.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OtherDevices`], [`DeviceError::OutOfMemory`], a fault nobody awaited, [`DeviceError::Closed`].
    pub fn copy<T: DevicePod>(&self, source: &impl Source<T>) -> Result<DeviceVec<T>, DeviceError> {
        let branch = self.checked()?;
        branch.check_same_set(source.source())?;
        Ok(DeviceVec::new(branch.copy_of(source.source())?))
    }

    /// Enqueues a copy of a buffer, from any device of the set, over a buffer that is there already, and has as many elements: where what was
    /// received is to stand. Shares of that keep their values, as for a launch. No memory is allocated, unless it is shared or comes from another
    /// device.
    ///
    /// ```
    /// # use chare_device::*;
    /// # let devices = Devices::open(&"host:2".parse()?, HostMode::Inline)?;
    /// let (here, there) = (devices.get(0).account("here"), devices.get(1).account("there"));
    /// let (received, mut ghosts) = (there.upload(vec![1.0; 8])?.share(), here.alloc::<f64>(8)?);
    /// here.copy_into(&received, &mut ghosts)?;
    /// assert_eq!(here.download(&ghosts)?.wait()?, [1.0; 8]);
    /// # Ok::<(), DeviceError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`DeviceError::Shape`] for another number of elements; else as for [`copy`](Self::copy). The buffer is as before then, except after
    /// `Closed`.
    pub fn copy_into<T: DevicePod>(
        &self,
        source: &impl Source<T>,
        to: &mut DeviceVec<T>,
    ) -> Result<Completion<()>, DeviceError> {
        let branch = self.checked()?;
        let from = source.source();
        branch.check_same_set(from)?;
        if from.len_elems() != to.len() {
            return Err(DeviceError::Shape { len: from.len_elems(), wanted: to.len() });
        }
        Written::new(to).overwrite(branch)?;
        branch.copy_over(from, to.memory())
    }

    /// A snapshot on this account's device: the same one if it is there, else a copy of it, which all who use the snapshot there have in
    /// common. Calls that take a snapshot from elsewhere do this by themselves.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub fn import<T: DevicePod>(&self, slice: &DeviceSlice<T>) -> Result<DeviceSlice<T>, DeviceError> {
        let branch = self.checked()?;
        if branch.is_here(slice.memory()) {
            return Ok(slice.clone());
        }
        Ok(DeviceSlice::of(branch.brought(slice.memory())?))
    }

    /// Brings a buffer to this account's device now, as its next update would, and charges it to this account. Does nothing to one that is here.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy). The buffer is where it was then.
    pub fn bring<T: DevicePod>(&self, buffer: &mut DeviceVec<T>) -> Result<(), DeviceError> {
        let branch = self.checked()?;
        if !branch.is_here(buffer.memory()) {
            branch.check_same_set(buffer.memory())?;
            let here = branch.moved(buffer.memory())?;
            buffer.replace(here);
        }
        Ok(())
    }

    /// The bytes of memory that came from another process, unless that was one of another set of devices.
    fn landed<'m>(&self, memory: &'m MemoryRef) -> Result<Option<&'m [u8]>, DeviceError> {
        let bytes = memory.landed();
        bytes.map(|bytes| self.branch().check_same_set(memory).map(|()| bytes)).transpose()
    }

    /// Reads a buffer as so many elements, which are all of it, and converts what was read.
    fn fetch<T: DevicePod, R: Send + 'static>(
        &self,
        memory: &MemoryRef,
        len: usize,
        convert: impl FnOnce(Vec<T>) -> R + Send + 'static,
    ) -> Result<Completion<R>, DeviceError> {
        self.checked()?;
        if let Some(bytes) = self.landed(memory)? {
            if let Some(fault) = memory.poison() {
                return Ok(Completion::faulted(fault));
            }
            let mut values = vec![T::zeroed(); len];
            bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
            return Ok(Completion::ready(convert(values)));
        }
        let branch = self.branch_near(memory)?;
        let bytes = memory.len_bytes();
        branch.note_copied(Direction::ToHost, bytes);
        if let Some(values) = branch.values_now(memory, len) {
            return Ok(Completion::ready(convert(values.to_vec())));
        }
        if !branch.device.facts.is_host_memory {
            let mut staged = self.host_vec::<T>(len)?;
            let operation = branch.operation_on(memory, AccessMode::Read, Command::Download(staged.range()));
            return branch.submit("download", operation, Prepared::made(move || convert(staged.to_vec())));
        }
        let mut values = Vec::<T>::with_capacity(len);
        let to = HostRange { address: NonNull::from(values.spare_capacity_mut()).cast(), bytes, at_bytes: 0 };
        // What is prepared is kept until the operation has ended, and so is the host memory; it does not move with the vector.
        let prepared = Prepared::made(move || {
            // SAFETY: the operation has succeeded, so it has written the first `len` elements.
            unsafe { values.set_len(len) };
            convert(values)
        });
        branch.submit(
            "download",
            branch.operation_on(memory, AccessMode::Read, Command::Download(to)),
            prepared,
        )
    }
}

impl Branch {
    /// Memory of this device as its elements or its bytes, of which there are so many, if it can be read as it is.
    fn values_now<'m, T: DevicePod>(&self, memory: &'m MemoryRef, len: usize) -> Option<&'m [T]> {
        debug_assert_eq!(len * size_of::<T>(), memory.len_bytes(), "all of it");
        if !self.device.facts.runs_at_once || memory.is_poisoned() {
            return None;
        }
        let address = memory.block().address().cast::<T>().as_ptr().cast_const();
        // SAFETY: the reference keeps the memory alive; it is initialised and aligned, and an inline device has no operation in flight that
        // could write it. Its owner is borrowed, or shares it.
        Some(unsafe { std::slice::from_raw_parts(address, len) })
    }

    /// Enqueues a copy of what came from another process over memory on this device, which has as many bytes.
    pub(crate) fn fill(
        self: &Arc<Self>,
        landed: &MemoryRef,
        bytes: &[u8],
        to: &MemoryRef,
    ) -> Result<Completion<()>, DeviceError> {
        if landed.is_poisoned() {
            // It fails when it begins, and spoils what it was to write.
            let mut operation = self.operation_on(to, AccessMode::Overwrite, Command::Fence);
            operation.accesses.push(Access::new(landed, AccessMode::Read));
            return self.submit("upload", operation, Prepared::nothing());
        }
        self.note_copied(Direction::FromHost, bytes.len());
        if self.device.facts.is_host_memory {
            let from = HostRange { address: NonNull::from(bytes).cast(), bytes: bytes.len(), at_bytes: 0 };
            let operation = self.operation_on(to, AccessMode::Overwrite, Command::Upload(from));
            // What is prepared is kept until the operation has ended, and so are the bytes, which nobody changes.
            return self.submit("upload", operation, Prepared::keeping(landed.clone()));
        }
        let staged = HostVec::zeros(&self.device.host_pool, bytes.len());
        let no_memory = DeviceError::HostMemory { len: bytes.len(), elem_bytes: 1 };
        let mut staged: HostVec<u8> = staged.ok_or(no_memory)?;
        staged.copy_from_slice(bytes);
        let operation = self.operation_on(to, AccessMode::Overwrite, Command::Upload(staged.range()));
        // Likewise.
        self.submit("upload", operation, Prepared::keeping(staged))
    }

    /// Fills new memory with zeros.
    pub(crate) fn zero(self: &Arc<Self>, memory: &MemoryRef) -> Result<(), DeviceError> {
        if self.device.facts.is_host_memory {
            // SAFETY: the memory has `len_bytes` bytes, and nobody else has it yet.
            unsafe { memory.block().address().write_bytes(0, memory.len_bytes()) };
            return Ok(());
        }
        let operation = self.operation_on(memory, AccessMode::Overwrite, Command::Zero);
        self.submit("zero", operation, Prepared::nothing()).map(drop)
    }

    /// A new buffer with these values.
    pub(crate) fn filled<T: DevicePod>(
        self: &Arc<Self>,
        shape: Shape,
        values: &[T],
    ) -> Result<DeviceVec<T>, DeviceError> {
        let (memory, _) = self.reserve::<T>(shape)?;
        self.note_copied(Direction::FromHost, memory.len_bytes());
        if self.device.facts.is_host_memory {
            let address = memory.block().address().cast::<T>().as_ptr();
            // SAFETY: the memory has `values.len()` elements, and nobody else has it yet.
            unsafe { address.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
            return Ok(DeviceVec::new(memory));
        }
        let staged = HostVec::zeros(&self.device.host_pool, values.len());
        let no_memory = DeviceError::HostMemory { len: values.len(), elem_bytes: size_of::<T>() };
        let mut staged = staged.ok_or(no_memory)?;
        staged.copy_from_slice(values);
        let operation = self.operation_on(&memory, AccessMode::Overwrite, Command::Upload(staged.range()));
        // What is prepared is kept until the operation has ended, and so is the host memory.
        self.submit("upload", operation, Prepared::host(staged))?;
        Ok(DeviceVec::new(memory))
    }
}
