//! An account: the stream of one owner on one device, and the memory charged to it.
//!
//! # What a launch costs
//!
//! On an inline host device of native speed a launch is a function call with checks, made for blocks of a few
//! thousand elements. With three buffers and a scalar it does: one load for faults to report; per buffer one
//! load and compare for the device and one for shares and spoiled contents; the call through the kernel's
//! function pointer, inside `catch`, which sets and resets a flag of the thread and costs no more until a kernel
//! panics; and it returns a completion that is a tag. No lock, no atomic read-modify-write, no allocation, no clock, no counting.
//! Everything else (other memory, workers, slower devices, a buffer that is shared or spoiled) goes the general way: an
//! [`Operation`] is made and handed to the backend.

use std::fmt;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::args::Args;
use crate::buffer::{DeviceSlice, DeviceVec, Source};
use crate::caught::{Caught, catch};
use crate::completion::{Cell, Completion, Prepared};
use crate::device::{Device, DeviceCore, Ledger};
use crate::error::DeviceError;
use crate::event::Stream;
use crate::fault::{FaultKind, FaultRecord};
use crate::host_vec::HostVec;
use crate::kernel::Kernel;
use crate::launch::{Grid, Launch};
use crate::memory::{MAX_ALIGN, Memory, MemoryRef};
use crate::operation::{Access, AccessMode, Command, HostRange, Operation};
use crate::param::{Element, Params};
use crate::shape::Shape;
use crate::usage::{Direction, Meter, Usage};

/// Operations, and cells of completions, that an account keeps at most for later ones.
const KEPT_OPERATIONS: usize = 64;

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

/// What has been used by operations that have ended, for those to come.
#[derive(Default)]
struct Kept {
    /// Boxed, since operations move by pointer everywhere.
    #[allow(clippy::vec_box)]
    operations: Vec<Box<Operation>>,
    cells: Vec<Arc<Cell>>,
}

struct AccountCore {
    device: Arc<DeviceCore>,
    ledger: Arc<Ledger>,
    stream: Arc<Stream>,
    kept: Mutex<Kept>,
}

impl AccountCore {
    fn new(device: Arc<DeviceCore>, ledger: Arc<Ledger>, is_urgent: bool) -> Arc<Self> {
        let (stream, kept) = (Stream::open(&device.backend, device.ordinal, is_urgent), Mutex::default());
        ledger.join();
        Arc::new(AccountCore { device, ledger, stream, kept })
    }
}

impl Drop for AccountCore {
    fn drop(&mut self) {
        self.ledger.leave();
    }
}

impl Account {
    pub(crate) fn new(device: Arc<DeviceCore>, ledger: Arc<Ledger>) -> Self {
        Account { core: AccountCore::new(device, ledger, false) }
    }

    /// Another account of the same owner, charged to it as this one is, whose work the device prefers to what is not urgent:
    /// for what others wait for, such as the faces of a block. It has a stream of its own: buffers order what the two do.
    #[must_use]
    pub fn urgent(&self) -> Account {
        let (device, ledger) = (self.core.device.clone(), self.core.ledger.clone());
        Account { core: AccountCore::new(device, ledger, true) }
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

    /// What its owner has used the device for, by this account and others; `None` if no records are kept
    /// ([`DeviceSpec::with_records`](crate::DeviceSpec::with_records)). An operation counts when it has ended, before its waiter is woken; a
    /// copy when it is submitted.
    pub fn usage(&self) -> Option<Usage> {
        self.core.ledger.meter.as_ref().map(Meter::usage)
    }

    /// Leaves the record of an operation that ends.
    pub(crate) fn note_end(&self, operation: &Operation) {
        let AccountCore { device, ledger, .. } = &*self.core;
        let (Some(of_device), Some(of_owner)) = (&device.meter, &ledger.meter) else { return };
        let is_alone = of_device.end() && operation.was_alone;
        let launches = operation.command.launches();
        if launches > 0 {
            of_device.add_launches(launches, operation.spent, is_alone);
            of_owner.add_launches(launches, operation.spent, is_alone);
        }
    }

    /// Counts a copy.
    fn note_copied(&self, direction: Direction, bytes: usize) {
        let AccountCore { device, ledger, .. } = &*self.core;
        device.copies.note(direction);
        for meter in [&device.meter, &ledger.meter].into_iter().flatten() {
            meter.add_bytes(direction, bytes as u64);
        }
    }

    /// A buffer of zeros. `shape` is a length or an array of extents.
    ///
    /// Does not wait. The memory of a buffer that has been dropped comes back when the last operation on it has ended and somebody has
    /// looked; an allocation that finds no room looks once. So a loop that allocates more than half of the device, launches and
    /// drops runs out while the first launch still runs: await its [`Completion`] (or that of a [`fence`](Self::fence))
    /// before, or use one buffer again.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] with what each owner holds; a fault nobody awaited.
    pub fn alloc<T: Element>(&self, shape: impl Into<Shape>) -> Result<DeviceVec<T>, DeviceError> {
        self.check()?;
        let (memory, is_zeroed) = self.reserve::<T>(shape.into())?;
        if !is_zeroed {
            self.zero(&memory)?;
        }
        Ok(DeviceVec::new(memory))
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
    /// [`DeviceError::NoSource`] if the kernel is not written in what the device wants, [`DeviceError::Kernel`] if it cannot be
    /// compiled for it, [`DeviceError::WrongDevice`] and [`DeviceError::OtherDevices`], [`DeviceError::OutOfMemory`] for a shared
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
        let runs_at_once = self.core.device.facts.runs_at_once;
        if !runs_at_once {
            self.check_source(kernel)?;
        }
        let mut bound = args.bind();
        X::check(&mut bound, self)?;
        let raw = X::commit(&mut bound);
        let mut plain = runs_at_once;
        X::visit(&bound, &mut |used| {
            plain &= !used.memory.is_poisoned() & used.copy_from.is_none();
        });
        if !plain {
            let command = Command::Launch { code: kernel.code(), launch };
            return self.enqueue::<A, X>(kernel.name(), command, &bound, raw);
        }
        let source = kernel.rust();
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

    /// Makes an operation of a launch, of the replay of a graph, or of code of others, whose arguments have been committed.
    #[inline(never)]
    pub(crate) fn enqueue<A: Params, X: Args<A>>(
        &self,
        name: &'static str,
        command: Command,
        bound: &X::Bound,
        raw: A::Raw,
    ) -> Result<Completion<()>, DeviceError> {
        let mut operation = self.operation();
        X::visit(bound, &mut |used| {
            let (memory, copy_from) = (used.memory.clone(), used.copy_from.cloned());
            operation.accesses.push(Access { memory, mode: used.mode, copy_from });
        });
        operation.command = command;
        A::pack(raw, &mut operation.arguments);
        self.submit(name, operation, Prepared::nothing())
    }

    /// Refuses a kernel that is not written in what the device wants, or cannot be compiled for it.
    #[inline(never)]
    pub(crate) fn check_source<A: Params>(&self, kernel: &Kernel<A>) -> Result<(), DeviceError> {
        let language = self.core.device.facts.language;
        if !kernel.is_written_in(language) {
            return Err(kernel.no_source(language));
        }
        let device = &self.core.device;
        device.backend.prepare(device.ordinal, &kernel.code())
    }

    /// Enqueues a copy of a buffer's contents to the host.
    ///
    /// # Errors
    ///
    /// [`DeviceError::WrongDevice`] and [`DeviceError::OtherDevices`], a fault nobody awaited,
    /// [`DeviceError::Closed`]. The completion fails if the contents are spoiled by a fault.
    pub fn download<T: Element>(&self, source: &impl Source<T>) -> Result<Completion<Vec<T>>, DeviceError> {
        self.fetch(source, |values| values)
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
        self.fetch(source, move |values| {
            ndarray::Array::from_shape_vec(dim, values).expect("the sizes have been compared")
        })
    }

    /// A vector of zeros in host memory that devices copy from and to without a detour; see [`HostVec`].
    ///
    /// # Errors
    ///
    /// [`DeviceError::HostMemory`] if the machine has not so much.
    pub fn host_vec<T: Element>(&self, len: usize) -> Result<HostVec<T>, DeviceError> {
        HostVec::zeros(&self.core.device.host_pool, len)
            .ok_or(DeviceError::HostMemory { len, elem_bytes: size_of::<T>() })
    }

    /// A vector of the program's as one that devices copy from and to without a detour: its memory is pinned where it is, by the driver that
    /// wants that, and not copied. Takes the driver a while, so it is for memory that is used often. [`HostVec::into_vec`] gives it back.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Pin`] if the driver refuses, with its words. The vector is gone then.
    pub fn host_vec_of<T: Element>(&self, values: Vec<T>) -> Result<HostVec<T>, DeviceError> {
        let len = values.len();
        let refused = |said| DeviceError::Pin { len, elem_bytes: size_of::<T>(), said };
        HostVec::of(&self.core.device.host_pool, values).map_err(refused)
    }

    /// Enqueues a copy of `values` over a buffer of as many elements; shares of it keep their values, as for a launch. The
    /// completion gives the vector back. No memory is allocated unless the buffer is shared.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Shape`] for another number of elements, [`DeviceError::WrongDevice`] and [`DeviceError::OtherDevices`],
    /// [`DeviceError::OutOfMemory`] for a shared buffer, a fault nobody awaited, [`DeviceError::Closed`]. The vector is gone
    /// then.
    pub fn write<T: Element>(
        &self,
        buffer: &mut DeviceVec<T>,
        mut values: HostVec<T>,
    ) -> Result<Completion<HostVec<T>>, DeviceError> {
        self.check()?;
        self.check_here(buffer.memory())?;
        self.check_host_vec(&values, buffer.len())?;
        if !buffer.memory().is_unshared() {
            let (fresh, _) = self.reserve::<T>(buffer.shape())?;
            buffer.replace(fresh);
        }
        let command = Command::Upload(values.range());
        let operation = self.operation_on(buffer.memory(), AccessMode::Overwrite, command);
        let completion = self.submit("write", operation, Prepared::host(values))?;
        self.note_copied(Direction::FromHost, buffer.memory().len_bytes());
        Ok(completion)
    }

    /// Enqueues a copy of a buffer's contents into `to`, which has as many elements and comes back from the completion.
    /// Allocates no memory.
    ///
    /// # Errors
    ///
    /// As for [`download`](Self::download), and [`DeviceError::Shape`] for another number of elements. The vector is gone then.
    pub fn read<T: Element>(
        &self,
        source: &impl Source<T>,
        mut to: HostVec<T>,
    ) -> Result<Completion<HostVec<T>>, DeviceError> {
        self.check()?;
        let memory = source.source();
        self.check_here(memory)?;
        self.check_host_vec(&to, memory.len_elems())?;
        let operation = self.operation_on(memory, AccessMode::Read, Command::Download(to.range()));
        let completion = self.submit("read", operation, Prepared::host(to))?;
        self.note_copied(Direction::ToHost, memory.len_bytes());
        Ok(completion)
    }

    /// Refuses host memory of other devices, or of another length.
    fn check_host_vec<T: Element>(&self, values: &HostVec<T>, len: usize) -> Result<(), DeviceError> {
        if values.len() != len {
            return Err(DeviceError::Shape { len, wanted: values.len() });
        }
        if !values.is_of(&self.core.device.host_pool) {
            return Err(DeviceError::OtherHostMemory { owner: self.core.ledger.label.clone() });
        }
        Ok(())
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
        let (fresh, _) = self.reserve::<T>(memory.shape())?;
        let mut operation = self.operation();
        operation.accesses.push(Access::new(memory, AccessMode::Read));
        operation.accesses.push(Access::new(&fresh, AccessMode::Overwrite));
        operation.command = Command::Copy;
        self.submit("copy", operation, Prepared::nothing())?;
        let is_peer = !Arc::ptr_eq(memory.device(), &self.core.device);
        self.note_copied(if is_peer { Direction::FromPeer } else { Direction::Within }, memory.len_bytes());
        if is_peer && self.core.device.backend.is_staged(memory.device().ordinal, self.core.device.ordinal) {
            self.core.device.copies.note_staged();
        }
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
        self.submit("fence", self.operation(), Prepared::nothing())
    }

    /// Returns a fault that nobody awaited.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
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
                buffer: memory.device().facts.name.clone(),
                buffer_owner: memory.ledger().label.clone(),
                owner: self.core.ledger.label.clone(),
            };
        }
        DeviceError::WrongDevice {
            buffer: memory.device().facts.name.clone(),
            device: self.core.device.facts.name.clone(),
            owner: self.core.ledger.label.clone(),
        }
    }

    /// Memory on this account's device, charged to it, and whether it is known to be zeros.
    pub(crate) fn reserve<T: Element>(&self, shape: Shape) -> Result<(MemoryRef, bool), DeviceError> {
        const { assert!(align_of::<T>() <= MAX_ALIGN, "device memory is aligned to 256 bytes") };
        Memory::reserve(&self.core.device, &self.core.ledger, shape, size_of::<T>())
    }

    /// Fills new memory with zeros.
    fn zero(&self, memory: &MemoryRef) -> Result<(), DeviceError> {
        if self.core.device.facts.is_host_memory {
            // SAFETY: the memory has `len_bytes` bytes, and nobody else has it yet.
            unsafe { memory.block().address().write_bytes(0, memory.len_bytes()) };
            return Ok(());
        }
        let operation = self.operation_on(memory, AccessMode::Overwrite, Command::Zero);
        self.submit("zero", operation, Prepared::nothing()).map(drop)
    }

    /// A new buffer with these values.
    fn filled<T: Element>(&self, shape: Shape, values: &[T]) -> Result<DeviceVec<T>, DeviceError> {
        let (memory, _) = self.reserve::<T>(shape)?;
        self.note_copied(Direction::FromHost, memory.len_bytes());
        if self.core.device.facts.is_host_memory {
            let address = memory.block().address().cast::<T>().as_ptr();
            // SAFETY: the memory has `values.len()` elements, and nobody else has it yet.
            unsafe { address.copy_from_nonoverlapping(values.as_ptr(), values.len()) };
            return Ok(DeviceVec::new(memory));
        }
        let mut staged = self.host_vec(values.len())?;
        staged.copy_from_slice(values);
        let operation = self.operation_on(&memory, AccessMode::Overwrite, Command::Upload(staged.range()));
        // What is prepared is kept until the operation has ended, and so is the host memory.
        self.submit("upload", operation, Prepared::host(staged))?;
        Ok(DeviceVec::new(memory))
    }

    /// Reads a buffer, and converts what was read.
    fn fetch<T: Element, R: Send + 'static>(
        &self,
        source: &impl Source<T>,
        convert: impl FnOnce(Vec<T>) -> R + Send + 'static,
    ) -> Result<Completion<R>, DeviceError> {
        self.check()?;
        let memory = source.source();
        self.check_here(memory)?;
        let (len, bytes) = (memory.len_elems(), memory.len_bytes());
        self.note_copied(Direction::ToHost, bytes);
        if self.core.device.facts.runs_at_once && !memory.is_poisoned() {
            let address = memory.block().address().cast::<T>().as_ptr().cast_const();
            // SAFETY: `source` keeps the memory alive; it is initialised and aligned, and an inline device has no operation
            // in flight that could write it.
            let values = unsafe { std::slice::from_raw_parts(address, len) };
            return Ok(Completion::ready(convert(values.to_vec())));
        }
        if !self.core.device.facts.is_host_memory {
            let mut staged = self.host_vec::<T>(len)?;
            let operation = self.operation_on(memory, AccessMode::Read, Command::Download(staged.range()));
            return self.submit("download", operation, Prepared::made(move || convert(staged.to_vec())));
        }
        let mut values = Vec::<T>::with_capacity(len);
        let to = HostRange { address: NonNull::from(values.spare_capacity_mut()).cast(), bytes };
        // What is prepared is kept until the operation has ended, and so is the host memory; it does not move with the vector.
        let prepared = Prepared::made(move || {
            // SAFETY: the operation has succeeded, so it has written the first `len` elements.
            unsafe { values.set_len(len) };
            convert(values)
        });
        self.submit("download", self.operation_on(memory, AccessMode::Read, Command::Download(to)), prepared)
    }

    /// An operation of this account, to be filled.
    fn operation(&self) -> Box<Operation> {
        let kept = self.kept().operations.pop();
        kept.unwrap_or_else(|| Operation::new(self.core.device.ordinal, self.core.stream.clone()))
    }

    /// One that uses one buffer.
    fn operation_on(&self, memory: &MemoryRef, mode: AccessMode, command: Command) -> Box<Operation> {
        let mut operation = self.operation();
        operation.accesses.push(Access::new(memory, mode));
        operation.command = command;
        operation
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.core.kept.lock().expect("nothing panics under this lock")
    }

    /// Keeps an operation of this account that has ended and been emptied.
    pub(crate) fn keep(&self, operation: Box<Operation>) {
        let mut kept = self.kept();
        if kept.operations.len() < KEPT_OPERATIONS {
            kept.operations.push(operation);
        }
    }

    /// Keeps a cell that nobody looks at any more.
    pub(crate) fn keep_cell(&self, cell: Arc<Cell>) {
        let mut kept = self.kept();
        if kept.cells.len() < KEPT_OPERATIONS {
            kept.cells.push(cell);
        }
    }

    /// Hands an operation to the backend.
    fn submit<R: Send + 'static>(
        &self,
        name: &'static str,
        mut operation: Box<Operation>,
        prepared: Prepared<R>,
    ) -> Result<Completion<R>, DeviceError> {
        let ours = |access: &Access| self.is_same_set(&access.memory);
        assert!(operation.accesses.iter().all(ours), "whoever takes a buffer has looked whose it is");
        let kept = self.kept().cells.pop();
        let cell = kept.unwrap_or_else(Cell::new);
        let (payload, make) = prepared.split();
        cell.open(self.clone(), name, payload);
        operation.completion = Some(cell.clone());
        if let Some(meter) = &self.core.device.meter {
            operation.was_alone = meter.begin();
            operation.is_timed = operation.command.launches() > 0;
        }
        let submitted = self.core.device.backend.submit(operation);
        if let Err(error) = submitted {
            self.core.device.meter.as_ref().map(Meter::end);
            cell.withdraw();
            return Err(error);
        }
        Ok(Completion::pending(cell, make))
    }

    /// Looks for operations that have finished. False if nobody needs to.
    pub(crate) fn poll(&self) -> bool {
        self.core.device.backend.poll()
    }

    #[cold]
    pub(crate) fn record_fault(
        &self,
        kind: FaultKind,
        kernel: &'static str,
        caught: Caught,
    ) -> Arc<FaultRecord> {
        let AccountCore { device, ledger, .. } = &*self.core;
        device.faults.record(kind, kernel, &device.facts.name, ledger, caught)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("label", &self.label())
            .field("device", &self.core.device.facts.name)
            .finish()
    }
}
