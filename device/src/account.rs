//! An account: the stream of one owner on one device, and the memory charged to it.
//!
//! # What a launch costs
//!
//! On an inline host device of native speed a launch is a function call with checks, made for blocks of a few
//! thousand elements. With three buffers and a scalar it does: one load for faults to report; per buffer one
//! load and compare for the device and one for shares and spoiled contents; the call through the kernel's
//! function pointer, inside `catch`, which sets and resets a flag of the thread and costs no more until a kernel
//! panics; and it returns a completion that is a tag. No lock, no atomic read-modify-write, no allocation, no clock, no counting.
//! Everything else (workers, slower devices, a buffer that is shared or spoiled) goes the general way: an
//! [`Operation`] is allocated and handed to the backend.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::args::Args;
use crate::backend::{Access, AccessMode, Backend, Operation, enter, leave_faulted};
use crate::buffer::{DeviceSlice, DeviceVec, Source};
use crate::caught::{Caught, catch};
use crate::completion::{Cell, Completion};
use crate::device::{Device, DeviceCore, Ledger};
use crate::error::DeviceError;
use crate::event::Stream;
use crate::fault::{FaultKind, FaultRecord};
use crate::kernel::Kernel;
use crate::launch::{Grid, Launch};
use crate::memory::{Contents, MAX_ALIGN, Memory};
use crate::param::{Element, Params};
use crate::shape::Shape;

/// The device account of one owner: bound to one device and one stream. A cheap clone; all clones are the
/// same account.
///
/// Calls return when the work is *enqueued*; it runs in the order of the calls. Every call that can fail
/// first returns a fault of this account that nobody awaited, if there is one; what it was to do is then not
/// done.
#[derive(Clone)]
pub struct Account {
    core: Arc<AccountCore>,
}

struct AccountCore {
    device: Arc<DeviceCore>,
    ledger: Arc<Ledger>,
    stream: Arc<Stream>,
}

impl Account {
    pub(crate) fn new(device: Arc<DeviceCore>, ledger: Arc<Ledger>) -> Self {
        Account { core: Arc::new(AccountCore { device, ledger, stream: Arc::default() }) }
    }

    /// The device this account is bound to.
    pub fn device(&self) -> Device {
        Device::from_core(&self.core.device)
    }

    /// What messages call its owner.
    pub fn label(&self) -> &str {
        &self.core.ledger.label
    }

    /// The bytes charged to this account, in size classes of the pool: its buffers, shares of them that
    /// others still hold, and freed memory that an operation still uses.
    pub fn used_bytes(&self) -> u64 {
        self.core.ledger.used_bytes.load(Ordering::Relaxed)
    }

    /// A buffer of zeros. `shape` is a length or an array of extents.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] with what each owner holds; a fault nobody awaited.
    pub fn alloc<T: Element>(&self, shape: impl Into<Shape>) -> Result<DeviceVec<T>, DeviceError> {
        self.check()?;
        Ok(DeviceVec::new(self.reserve::<T>(shape.into(), Contents::Zeros)?))
    }

    /// A buffer with the elements of `values`.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    pub fn upload<T: Element>(&self, values: Vec<T>) -> Result<DeviceVec<T>, DeviceError> {
        self.from_slice(&values)
    }

    /// A buffer with a copy of `values`, which is not used after the return.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[allow(clippy::wrong_self_convention)]
    pub fn from_slice<T: Element>(&self, values: &[T]) -> Result<DeviceVec<T>, DeviceError> {
        self.check()?;
        self.filled(Shape::from(values.len()), values)
    }

    /// A buffer with the elements and the shape of an array in standard (row-major, contiguous) layout.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Layout`] for another layout, [`DeviceError::Axes`] for more than six axes; else as for
    /// [`alloc`](Self::alloc).
    #[cfg(feature = "ndarray")]
    #[allow(clippy::wrong_self_convention)]
    pub fn from_array<T, S, D>(
        &self,
        array: &ndarray::ArrayBase<S, D, T>,
    ) -> Result<DeviceVec<T>, DeviceError>
    where
        T: Element,
        S: ndarray::Data<Elem = T>,
        D: ndarray::Dimension,
    {
        self.check()?;
        let values = array.as_slice().ok_or(DeviceError::Layout)?;
        self.filled(Shape::try_from(array.shape())?, values)
    }

    /// Enqueues a kernel over `grid` elements. `args` is a tuple with one [`Arg`](crate::Arg) per parameter.
    ///
    /// The arguments are taken for the call only. A buffer that is written while shares of it live gets other
    /// memory first (see [`DeviceVec::share`]). A kernel that panics is a fault: the completion returns it,
    /// what the kernel was to write is *spoiled*, and every later operation that reads it fails with the same
    /// fault, until a kernel overwrites it ([`Out`](crate::Out)). Other launches of the account go on (on
    /// host devices; a GPU may refuse all).
    ///
    /// # Errors
    ///
    /// [`DeviceError::WrongDevice`] and [`DeviceError::OtherDevices`], [`DeviceError::OutOfMemory`] for a shared
    /// buffer that is written, a fault nobody awaited, [`DeviceError::Closed`]. Nothing is enqueued then, and except after `Closed` all
    /// buffers are as before.
    #[inline]
    pub fn launch<A, X>(
        &self,
        kernel: &Kernel<A>,
        grid: impl Into<Grid>,
        args: X,
    ) -> Result<Completion<()>, DeviceError>
    where
        A: Params,
        X: Args<A>,
    {
        self.check()?;
        let launch = Launch::new(grid.into());
        let mut bound = args.bind();
        X::check(&mut bound, self)?;
        let raw = X::commit(&mut bound);
        let mut plain = self.core.device.runs_at_once;
        X::visit(&bound, &mut |used| {
            plain &= !used.memory.is_poisoned() & used.copy_from.is_none();
        });
        let source = kernel.rust();
        if !plain {
            let mut accesses = Vec::new();
            X::visit(&bound, &mut |used| {
                let (memory, copy_from) = (used.memory.clone(), used.copy_from.cloned());
                accesses.push(Access { memory, mode: used.mode, copy_from });
            });
            // SAFETY: the operation keeps the memory of `accesses` alive until this has run, and the backend
            // runs it in the order their events ask for: nobody else writes any of it meanwhile, nor reads
            // what it writes.
            return self.submit(kernel.name(), accesses, move || unsafe { source(&launch, A::views(raw)) });
        }
        // SAFETY: the borrows in `bound` keep the memory alive during the call. What is written is borrowed
        // by `&mut` and not shared (`check`), so nobody else uses it; what is read can only be read by others.
        // Inline devices have no operations in flight.
        let outcome = catch(|| unsafe { source(&launch, A::views(raw)) });
        match outcome {
            Ok(()) => Ok(Completion::ready(())),
            Err(caught) => {
                let fault = self.record_fault(FaultKind::Kernel, kernel.name(), caught);
                X::visit(&bound, &mut |used| {
                    if used.mode != AccessMode::Read {
                        used.memory.set_poison(Some(fault.clone()));
                    }
                });
                Ok(Completion::faulted(fault))
            }
        }
    }

    /// Enqueues a copy of a buffer's contents to the host.
    ///
    /// # Errors
    ///
    /// [`DeviceError::WrongDevice`] and [`DeviceError::OtherDevices`], a fault nobody awaited,
    /// [`DeviceError::Closed`]. The completion fails if the contents are spoiled by a fault.
    pub fn download<T: Element>(&self, source: &impl Source<T>) -> Result<Completion<Vec<T>>, DeviceError> {
        self.read(source, |values| values.to_vec())
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
        T: Element,
        I: ndarray::IntoDimension,
        I::Dim: 'static,
    {
        use ndarray::Dimension;
        let (len, dim) = (source.source().len_elems(), shape.into_dimension());
        if dim.size_checked() != Some(len) {
            return Err(DeviceError::Shape { len, wanted: dim.size_checked().unwrap_or(usize::MAX) });
        }
        self.read(source, move |values| {
            ndarray::Array::from_shape_vec(dim, values.to_vec()).expect("the sizes have been compared")
        })
    }

    /// Enqueues a copy of a buffer, from this device or another one of the same set, into a new buffer of this
    /// account.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OtherDevices`], [`DeviceError::OutOfMemory`], a fault nobody awaited, [`DeviceError::Closed`].
    pub fn copy<T: Element>(&self, source: &impl Source<T>) -> Result<DeviceVec<T>, DeviceError> {
        self.check()?;
        let memory = source.source();
        self.check_same_set(memory)?;
        let fresh = self.reserve::<T>(memory.shape(), Contents::Unspecified)?;
        let (from, to, bytes) = (memory.clone(), fresh.clone(), memory.len_bytes());
        let accesses = vec![
            Access { memory: memory.clone(), mode: AccessMode::Read, copy_from: None },
            Access { memory: fresh.clone(), mode: AccessMode::Overwrite, copy_from: None },
        ];
        // SAFETY: two allocations of `bytes` bytes, ordered and kept alive as accesses of the operation.
        let body = move || unsafe { to.address().copy_from_nonoverlapping(from.address(), bytes) };
        self.submit("copy", accesses, body)?;
        Ok(DeviceVec::new(fresh))
    }

    /// A snapshot that this account can use: the same one if it is on this account's device, else a copy of
    /// it here.
    ///
    /// # Errors
    ///
    /// As for [`copy`](Self::copy).
    pub fn import<T: Element>(&self, slice: &DeviceSlice<T>) -> Result<DeviceSlice<T>, DeviceError> {
        if Arc::ptr_eq(slice.memory().device(), &self.core.device) {
            self.check()?;
            return Ok(slice.clone());
        }
        Ok(self.copy(slice)?.share())
    }

    /// A completion of everything enqueued so far.
    ///
    /// # Errors
    ///
    /// A fault nobody awaited, [`DeviceError::Closed`].
    pub fn fence(&self) -> Result<Completion<()>, DeviceError> {
        self.check()?;
        self.submit("fence", Vec::new(), || ())
    }

    /// Returns a fault that nobody awaited.
    #[inline(always)]
    fn check(&self) -> Result<(), DeviceError> {
        if self.core.device.faults.has_dropped() { self.check_slow() } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn check_slow(&self) -> Result<(), DeviceError> {
        match self.core.device.faults.take_dropped(&self.core.ledger) {
            Some(fault) => Err(DeviceError::Fault(fault)),
            None => Ok(()),
        }
    }

    /// Refuses memory of another set of devices: its events are numbered by another backend, which orders nothing
    /// here.
    fn check_same_set(&self, memory: &Memory) -> Result<(), DeviceError> {
        if self.is_same_set(memory) { Ok(()) } else { Err(self.wrong_device(memory)) }
    }

    fn is_same_set(&self, memory: &Memory) -> bool {
        Arc::ptr_eq(&memory.device().backend, &self.core.device.backend)
    }

    /// Refuses memory of another device.
    #[inline(always)]
    pub(crate) fn check_here(&self, memory: &Memory) -> Result<(), DeviceError> {
        if Arc::ptr_eq(memory.device(), &self.core.device) { Ok(()) } else { Err(self.wrong_device(memory)) }
    }

    #[cold]
    #[inline(never)]
    fn wrong_device(&self, memory: &Memory) -> DeviceError {
        if !self.is_same_set(memory) {
            return DeviceError::OtherDevices {
                buffer: memory.device().name.clone(),
                buffer_owner: memory.ledger().label.clone(),
                owner: self.core.ledger.label.clone(),
            };
        }
        DeviceError::WrongDevice {
            buffer: memory.device().name.clone(),
            device: self.core.device.name.clone(),
            owner: self.core.ledger.label.clone(),
        }
    }

    /// Memory on this account's device, charged to it.
    pub(crate) fn reserve<T: Element>(
        &self,
        shape: Shape,
        contents: Contents,
    ) -> Result<Arc<Memory>, DeviceError> {
        const { assert!(align_of::<T>() <= MAX_ALIGN, "device memory is aligned to 256 bytes") };
        Memory::new(&self.core.device, &self.core.ledger, shape, size_of::<T>(), contents)
    }

    fn filled<T: Element>(&self, shape: Shape, values: &[T]) -> Result<DeviceVec<T>, DeviceError> {
        let memory = self.reserve::<T>(shape, Contents::Unspecified)?;
        // SAFETY: the memory has `values.len()` elements, and nobody else has it yet.
        unsafe {
            memory.address().cast::<T>().as_ptr().copy_from_nonoverlapping(values.as_ptr(), values.len())
        };
        Ok(DeviceVec::new(memory))
    }

    fn read<T: Element, R: Send + 'static>(
        &self,
        source: &impl Source<T>,
        convert: impl FnOnce(&[T]) -> R + Send + 'static,
    ) -> Result<Completion<R>, DeviceError> {
        self.check()?;
        let memory = source.source();
        self.check_here(memory)?;
        if self.core.device.runs_at_once && !memory.is_poisoned() {
            // SAFETY: `source` keeps the memory alive; it is initialised and aligned, and an inline device has no operation
            // in flight that could write it.
            let values = unsafe {
                std::slice::from_raw_parts(
                    memory.address().cast::<T>().as_ptr().cast_const(),
                    memory.len_elems(),
                )
            };
            return Ok(match catch(|| convert(values)) {
                Ok(value) => Completion::ready(value),
                Err(caught) => Completion::faulted(self.record_fault(FaultKind::Kernel, "download", caught)),
            });
        }
        let from = memory.clone();
        let accesses = vec![Access { memory: memory.clone(), mode: AccessMode::Read, copy_from: None }];
        self.submit("download", accesses, move || {
            // SAFETY: the memory is alive (`from`), initialised, aligned, and nobody writes it while this
            // operation, which has declared that it reads it, runs.
            convert(unsafe { std::slice::from_raw_parts(from.address().cast().as_ptr(), from.len_elems()) })
        })
    }

    /// Hands an operation to the backend.
    fn submit<R: Send + 'static>(
        &self,
        name: &'static str,
        accesses: Vec<Access>,
        body: impl FnOnce() -> R + Send + 'static,
    ) -> Result<Completion<R>, DeviceError> {
        let ours = |access: &Access| self.is_same_set(&access.memory);
        assert!(accesses.iter().all(ours), "whoever takes a buffer has looked whose it is");
        let cell = Cell::new(self.clone(), name);
        let outcome = cell.clone();
        let work = move |accesses: &[Access]| {
            let result = enter(accesses)
                .and_then(|()| catch(body).map_err(|caught| outcome.record_fault(FaultKind::Kernel, caught)));
            if let Err(fault) = &result {
                leave_faulted(accesses, fault);
            }
            outcome.store(result);
        };
        let AccountCore { device, stream, .. } = &*self.core;
        device.backend.submit(Operation {
            device: device.ordinal,
            stream: stream.clone(),
            accesses,
            work: Box::new(work),
            completion: cell.clone(),
        })?;
        Ok(Completion::pending(cell))
    }

    #[cold]
    pub(crate) fn record_fault(
        &self,
        kind: FaultKind,
        kernel: &'static str,
        caught: Caught,
    ) -> Arc<FaultRecord> {
        let AccountCore { device, ledger, .. } = &*self.core;
        device.faults.record(kind, kernel, &device.name, ledger, caught)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("label", &self.label())
            .field("device", &self.core.device.name)
            .finish()
    }
}
