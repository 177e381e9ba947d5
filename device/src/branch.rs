//! Where an account is: its owner, bound to one device at a time, and its *branch* at each device that it has used.
//!
//! A branch is what belongs to a device: a stream there, the ledger that memory there is charged to, and operations that are
//! kept for later ones. Branches stay as long as their account, so that a move is one store, and whoever is about to use the
//! account on another thread has a branch that is whole, be it the old one or the new one. A call takes one branch and keeps
//! to it; an operation ends at the branch that submitted it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, Weak};

use crate::args::Args;
use crate::caught::Caught;
use crate::completion::{Cell, Completion, Prepared};
use crate::device::{DeviceCore, Ledger};
use crate::error::DeviceError;
use crate::event::Stream;
use crate::fault::{FaultKind, FaultRecord};
use crate::kernel::{Code, Kernel};
use crate::memory::{MAX_ALIGN, Memory, MemoryRef};
use crate::operation::{Access, AccessMode, Command, Operation};
use crate::param::{DevicePod, Params};
use crate::shape::Shape;
use crate::usage::{self, Direction, KernelUsage, Meter, Usage};

/// Operations, and cells of completions, that a branch keeps at most for later ones.
const KEPT_OPERATIONS: usize = 64;

/// Who accounts belong to, and where it is.
pub(crate) struct Owner {
    /// What messages call it. This very allocation is what tells it from others of the same name.
    label: Arc<str>,
    /// The ordinal of the device that it is bound to. There is a place for it.
    now: AtomicUsize,
    /// By ordinal: where it has ever been.
    places: Box<[OnceLock<Place>]>,
    /// Taken by who moves it.
    moving: Mutex<()>,
}

/// A device, and what the owner holds there.
struct Place {
    device: Arc<DeviceCore>,
    ledger: Arc<Ledger>,
    /// Whether it is among the device's arrivals. Changed under their lock.
    is_listed: AtomicBool,
}

impl Owner {
    pub(crate) fn new(label: &str, device: &Arc<DeviceCore>) -> Arc<Self> {
        let places = (0..device.sibling_count).map(|_| OnceLock::new()).collect();
        let now = AtomicUsize::new(device.ordinal);
        let owner = Owner { label: label.into(), now, places, moving: Mutex::default() };
        owner.place(device);
        Arc::new(owner)
    }

    /// Counts it among those that are bound to the device.
    pub(crate) fn arrive(&self, device: &Arc<DeviceCore>) {
        self.place(device).ledger.arrive(device);
    }

    /// How many devices there are where it could be.
    pub(crate) fn device_count(&self) -> usize {
        self.places.len()
    }

    pub(crate) fn label(&self) -> &Arc<str> {
        &self.label
    }

    /// The ordinal of its device.
    #[inline(always)]
    pub(crate) fn now(&self) -> usize {
        // Pairs with the release in `move_to`: the place is there.
        self.now.load(Ordering::Acquire)
    }

    fn place(&self, device: &Arc<DeviceCore>) -> &Place {
        self.places[device.ordinal].get_or_init(|| {
            let ledger = device.open_ledger(self.label.clone());
            Place { device: device.clone(), ledger, is_listed: AtomicBool::new(false) }
        })
    }

    fn ledgers(&self) -> impl Iterator<Item = (usize, &Arc<Ledger>)> {
        self.places
            .iter()
            .enumerate()
            .filter_map(|(ordinal, place)| place.get().map(|place| (ordinal, &place.ledger)))
    }

    /// What is charged to it, on all devices.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.ledgers().map(|(_, ledger)| ledger.used_bytes.load(Ordering::Relaxed)).sum()
    }

    /// What it has used all devices for.
    pub(crate) fn usage(&self) -> Option<Usage> {
        let usages = self.ledgers().map(|(_, ledger)| Some(ledger.meter.as_ref()?.usage()));
        usages.reduce(|sum, usage| Some(sum?.and(&usage?)))?
    }

    /// What each kernel has had of all devices.
    pub(crate) fn usage_by_kernel(&self) -> Option<Vec<KernelUsage>> {
        let usages = self.ledgers().map(|(_, ledger)| Some(ledger.meter.as_ref()?.usage_by_kernel()));
        let usages = usages.collect::<Option<Vec<_>>>()?;
        Some(usage::by_kernel(usages.into_iter().flatten()))
    }

    /// What it holds on other devices than this one.
    fn held_elsewhere_bytes(&self, ordinal: usize) -> u64 {
        let elsewhere = self.ledgers().filter(|(other, _)| *other != ordinal);
        elsewhere.map(|(_, ledger)| ledger.used_bytes.load(Ordering::Relaxed)).sum()
    }

    /// Binds it to another device of the set, if that has room for all that it holds elsewhere, beside what is to come of others that
    /// have moved there.
    pub(crate) fn move_to(self: &Arc<Self>, device: &Arc<DeviceCore>) -> Result<(), DeviceError> {
        let to = device.ordinal;
        if self.now() == to {
            return Ok(());
        }
        if let Some(message) = device.backend.loss(to) {
            return Err(DeviceError::Lost { message });
        }
        let place = self.place(device);
        // What is free may be kept by operations that have finished and have not been looked at. No lock is held then: a look may wake
        // somebody.
        if self.goes_to(device, place) || device.backend.poll() && self.goes_to(device, place) {
            return Ok(());
        }
        let bytes = usize::try_from(self.held_elsewhere_bytes(to)).unwrap_or(usize::MAX);
        let awaited_bytes = device.arrivals().awaited_bytes;
        Err(device.out_of_memory_beside(&place.ledger, bytes, awaited_bytes))
    }

    /// Binds it to a device if there is room, and lists it there until it has brought all that it holds.
    fn goes_to(self: &Arc<Self>, device: &Arc<DeviceCore>, place: &Place) -> bool {
        let _moving = self.moving.lock().expect("nothing panics under this lock");
        let (from, to) = (self.now(), device.ordinal);
        if from == to {
            return true;
        }
        let held_bytes = self.held_elsewhere_bytes(to);
        // What is brought meanwhile counts twice, as it is counted before the room is.
        let fits = |arrivals: &Arrivals| {
            let wanted_bytes = held_bytes.saturating_add(arrivals.awaited_bytes);
            wanted_bytes <= device.room_bytes()
        };
        let mut arrivals = device.arrivals();
        if !fits(&arrivals) {
            arrivals.look_again(to);
            if !fits(&arrivals) {
                return false;
            }
        }
        if held_bytes > 0 {
            arrivals.awaited_bytes += held_bytes;
            if !place.is_listed.swap(true, Ordering::Relaxed) {
                arrivals.push(self, to);
            }
        }
        place.ledger.arrive(device);
        // Pairs with the acquire in `now`.
        self.now.store(to, Ordering::Release);
        drop(arrivals);
        self.places[from].get().expect("it has been there").ledger.depart();
        true
    }
}

/// The owners that have moved to a device and may hold memory on others that is still to come.
#[derive(Default)]
pub(crate) struct Arrivals {
    /// Each once.
    owners: Vec<Weak<Owner>>,
    /// What is to come, or more: it is counted again when it matters.
    awaited_bytes: u64,
}

impl Arrivals {
    fn push(&mut self, owner: &Arc<Owner>, ordinal: usize) {
        // Now and then forget the ones that are through; doubling keeps the cost per owner constant.
        if self.owners.len() == self.owners.capacity() {
            let awaited_bytes = self.awaited_bytes;
            self.look_again(ordinal);
            // Who is about to be listed has been counted, and is not among those that were looked at.
            self.awaited_bytes = awaited_bytes;
            let more = self.owners.len().max(8);
            self.owners.reserve(more);
        }
        self.owners.push(Arc::downgrade(owner));
    }

    /// Counts again what is to come to the device with this ordinal, and forgets who has gone on or has brought all.
    fn look_again(&mut self, ordinal: usize) {
        let mut awaited_bytes = 0;
        self.owners.retain(|owner| {
            let Some(owner) = owner.upgrade() else { return false };
            let is_here = owner.now() == ordinal;
            let bytes = if is_here { owner.held_elsewhere_bytes(ordinal) } else { 0 };
            awaited_bytes += bytes;
            if bytes == 0 {
                let place = owner.places[ordinal].get().expect("it is listed there");
                place.is_listed.store(false, Ordering::Relaxed);
            }
            bytes > 0
        });
        self.awaited_bytes = awaited_bytes;
    }
}

/// What has been used by operations that have ended, for those to come.
#[derive(Default)]
struct Kept {
    /// Boxed, since operations move by pointer everywhere.
    #[allow(clippy::vec_box)]
    operations: Vec<Box<Operation>>,
    cells: Vec<Arc<Cell>>,
}

/// An account at one device. See the module's comment.
pub struct Branch {
    pub(crate) device: Arc<DeviceCore>,
    pub(crate) ledger: Arc<Ledger>,
    stream: Arc<Stream>,
    kept: Mutex<Kept>,
}

impl Drop for Branch {
    fn drop(&mut self) {
        self.ledger.leave();
    }
}

impl Branch {
    /// One at the device with this ordinal, where the owner has been.
    pub(crate) fn at(owner: &Owner, ordinal: usize, is_urgent: bool) -> Arc<Self> {
        let place = owner.places[ordinal].get().expect("the owner has been there");
        Self::open(place, is_urgent)
    }

    /// One at the device of some memory, which the owner need not be bound to.
    pub(crate) fn near(owner: &Owner, memory: &Memory, is_urgent: bool) -> Arc<Self> {
        Self::open(owner.place(memory.device()), is_urgent)
    }

    fn open(place: &Place, is_urgent: bool) -> Arc<Self> {
        let (device, ledger) = (place.device.clone(), place.ledger.clone());
        let (stream, kept) = (Stream::open(&device.backend, device.ordinal, is_urgent), Mutex::default());
        ledger.join();
        Arc::new(Branch { device, ledger, stream, kept })
    }

    /// Leaves the record of an operation that ends.
    pub(crate) fn note_end(&self, operation: &Operation) {
        let (Some(of_device), Some(of_owner)) = (&self.device.meter, &self.ledger.meter) else { return };
        let is_alone = of_device.end() && operation.was_alone;
        of_device.add_launches(&operation.command, operation.spent, is_alone);
        of_owner.add_launches(&operation.command, operation.spent, is_alone);
    }

    /// Counts a copy.
    pub(crate) fn note_copied(&self, direction: Direction, bytes: usize) {
        self.device.copies.note(direction);
        for meter in [&self.device.meter, &self.ledger.meter].into_iter().flatten() {
            meter.add_bytes(direction, bytes as u64);
        }
    }

    /// Returns a fault that nobody awaited.
    #[inline(always)]
    pub(crate) fn check(&self) -> Result<(), DeviceError> {
        if self.device.faults.has_dropped() { self.check_slow() } else { Ok(()) }
    }

    #[cold]
    #[inline(never)]
    fn check_slow(&self) -> Result<(), DeviceError> {
        match self.device.faults.take_dropped(&self.ledger.label) {
            Some(fault) => Err(DeviceError::Fault(fault)),
            None => Ok(()),
        }
    }

    /// Refuses a kernel that cannot be compiled for the device.
    pub(crate) fn prepare(&self, code: &Code) -> Result<(), DeviceError> {
        self.device.backend.prepare(self.device.ordinal, code)
    }

    /// Whether memory is on this device.
    #[inline(always)]
    pub(crate) fn is_here(&self, memory: &Memory) -> bool {
        Arc::ptr_eq(memory.device(), &self.device)
    }

    /// Refuses memory of another set of devices: its events are numbered by another backend, which orders nothing
    /// here.
    pub(crate) fn check_same_set(&self, memory: &Memory) -> Result<(), DeviceError> {
        if self.is_same_set(memory) {
            return Ok(());
        }
        Err(DeviceError::OtherDevices {
            buffer: memory.device().facts.name.clone(),
            buffer_owner: memory.ledger().label.clone(),
            owner: self.ledger.label.clone(),
        })
    }

    fn is_same_set(&self, memory: &Memory) -> bool {
        Arc::ptr_eq(&memory.device().backend, &self.device.backend)
    }

    /// Memory on this device, charged to its owner, and whether it is known to be zeros.
    pub(crate) fn reserve<T: DevicePod>(&self, shape: Shape) -> Result<(MemoryRef, bool), DeviceError> {
        const { assert!(align_of::<T>() <= MAX_ALIGN, "device memory is aligned to 256 bytes") };
        self.reserve_bytes(shape, size_of::<T>())
    }

    pub(crate) fn reserve_bytes(
        &self,
        shape: Shape,
        elem_bytes: usize,
    ) -> Result<(MemoryRef, bool), DeviceError> {
        Memory::reserve(&self.device, &self.ledger, shape, elem_bytes)
    }

    /// What memory of another device of the set holds, on this one: a copy that is there already, or a new one, which others will find.
    /// It is to be read only.
    #[cold]
    #[inline(never)]
    pub(crate) fn brought(self: &Arc<Self>, memory: &MemoryRef) -> Result<MemoryRef, DeviceError> {
        self.check_same_set(memory)?;
        match memory.twin_at(&self.device) {
            Some(twin) => Ok(twin),
            // Two may do this at once, and one of the copies is for nothing then. No lock is held meanwhile: an allocation may end
            // operations.
            None => Ok(memory.keep_twin(self.copy_of(memory)?)),
        }
    }

    /// What memory of another device of the set holds, in memory on this one that may be written.
    pub(crate) fn moved(self: &Arc<Self>, memory: &MemoryRef) -> Result<MemoryRef, DeviceError> {
        let twin = if memory.is_unshared() { memory.twin_at(&self.device) } else { None };
        // One that somebody else has, or pays for, stays as it is.
        let own = twin.filter(|twin| twin.is_sole() && Arc::ptr_eq(twin.ledger(), &self.ledger));
        own.map_or_else(|| self.copy_of(memory), Ok)
    }

    /// New memory on this device with the contents of other memory of the set, which is read in its order.
    pub(crate) fn copy_of(self: &Arc<Self>, memory: &MemoryRef) -> Result<MemoryRef, DeviceError> {
        let elem_bytes = memory.len_bytes().checked_div(memory.len_elems()).unwrap_or(1);
        let (fresh, _) = self.reserve_bytes(memory.shape(), elem_bytes)?;
        self.copy_over(memory, &fresh)?;
        Ok(fresh)
    }

    /// Enqueues a copy of memory of the set over memory on this device, which has as many bytes.
    pub(crate) fn copy_over(
        self: &Arc<Self>,
        from: &MemoryRef,
        to: &MemoryRef,
    ) -> Result<Completion<()>, DeviceError> {
        if let Some(bytes) = from.landed() {
            return self.fill(from, bytes, to);
        }
        let mut operation = self.operation();
        operation.accesses.push(Access::new(from, AccessMode::Read));
        operation.accesses.push(Access::new(to, AccessMode::Overwrite));
        operation.command = Command::Copy;
        let completion = self.submit("copy", operation, Prepared::nothing())?;
        let is_peer = !self.is_here(from);
        self.note_copied(if is_peer { Direction::FromPeer } else { Direction::Within }, from.len_bytes());
        if is_peer && self.device.backend.is_staged(from.device().ordinal, self.device.ordinal) {
            self.device.copies.note_staged();
        }
        Ok(completion)
    }

    /// An operation of this branch, to be filled.
    pub(crate) fn operation(&self) -> Box<Operation> {
        let kept = self.kept().operations.pop();
        kept.unwrap_or_else(|| Operation::new(self.device.ordinal, self.stream.clone()))
    }

    /// One that uses one buffer.
    pub(crate) fn operation_on(
        &self,
        memory: &MemoryRef,
        mode: AccessMode,
        command: Command,
    ) -> Box<Operation> {
        let mut operation = self.operation();
        operation.accesses.push(Access::new(memory, mode));
        operation.command = command;
        operation
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().expect("nothing panics under this lock")
    }

    /// Keeps an operation of this branch that has ended and been emptied.
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
    pub(crate) fn submit<R: Send + 'static>(
        self: &Arc<Self>,
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
        if let Some(meter) = &self.device.meter {
            operation.was_alone = meter.begin();
            operation.is_timed = operation.command.launches() > 0;
        }
        let submitted = self.device.backend.submit(operation);
        if let Err(error) = submitted {
            self.device.meter.as_ref().map(Meter::end);
            cell.withdraw();
            return Err(error);
        }
        Ok(Completion::pending(cell, make))
    }

    /// Makes an operation of a launch, of the replay of a graph, or of code of others, whose arguments have been committed.
    #[inline(never)]
    pub(crate) fn enqueue<A: Params, X: Args<A>>(
        self: &Arc<Self>,
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
        let language = self.device.facts.language;
        if !kernel.is_written_in(language) {
            return Err(kernel.no_source(language));
        }
        self.prepare(&kernel.code())
    }

    /// Looks for operations that have finished. False if nobody needs to.
    pub(crate) fn poll(&self) -> bool {
        self.device.backend.poll()
    }

    #[cold]
    pub(crate) fn record_fault(
        &self,
        kind: FaultKind,
        kernel: &'static str,
        caught: Caught,
    ) -> Arc<FaultRecord> {
        self.device.faults.record(kind, kernel, &self.device.facts.name, &self.ledger.label, caught)
    }
}
