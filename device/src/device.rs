//! Devices: opening them, their memory, and what each account has of it.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use crate::account::Account;
use crate::backend::{Backend, Block, Facts, Fresh, Opened};
use crate::branch::Arrivals;
use crate::caught;
use crate::choice::{self, Choice};
use crate::error::{DeviceError, OutOfMemory};
use crate::fault::{Fault, FaultLog};
use crate::host_vec::HostPool;
use crate::kernel::Language;
use crate::kernel::declared::KERNELS;
use crate::memory::{MAX_ALIGN, MemoryRef};
use crate::pool::{self, DeviceMemory, Pool};
use crate::processes::Landing;
use crate::sleepers::{Pending, Rest};
use crate::spec::{DeviceSpec, HostMode};
use crate::usage::{Direction, KernelUsage, Meter, Usage};

/// The devices of one runtime.
///
/// Dropping it [closes](Self::close) it. Buffers and completions may outlive it.
pub struct Devices {
    devices: Vec<Device>,
    backend: Arc<dyn Backend>,
    faults: Arc<FaultLog>,
    reason: String,
    passes_over_gpus: bool,
    landing: Landing,
}

impl Devices {
    /// Opens the devices that `spec` asks for. `default_mode` says where host kernels run if the
    /// specification does not.
    ///
    /// `auto` takes GPUs through CUDA, else GPUs through wgpu, else the host; and of GPUs only those that can run what the
    /// program is made of. That is known from its [`kernel!`](crate::kernel!)s, those of libraries included: at least one has a
    /// source for them, and none is without. Only a kernel of 64-bit numbers may be without WGSL, since few adapters have such
    /// numbers. A kernel that is made by [`Kernel::new`](crate::Kernel::new) alone has no say.
    ///
    /// The first call in a process installs a panic hook that is silent about kernels, whose panics are
    /// faults; all other panics go to the hook that was there before.
    ///
    /// # Errors
    ///
    /// [`SpecError::NotBuilt`](crate::SpecError::NotBuilt) if the backend is not in this build, [`DeviceError::Workers`]
    /// if the worker threads cannot be started, [`DeviceError::NotFound`] if the machine has no such device.
    pub fn open(spec: &DeviceSpec, default_mode: HostMode) -> Result<Devices, DeviceError> {
        caught::install_hook();
        let Choice { mut opened, reason, passes_over_gpus } =
            choice::choose(spec, default_mode, Some(&KERNELS))?;
        // What runs at once leaves no record.
        opened.devices.iter_mut().for_each(|facts| facts.runs_at_once &= !spec.keeps_records());
        let mut devices = Self::of(opened, reason, spec.keeps_records());
        devices.passes_over_gpus = passes_over_gpus;
        Ok(devices)
    }

    /// As [`open`](Self::open), for a program whose kernels are written in every language: what `auto` may come to.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn open_for_any(spec: &DeviceSpec, default_mode: HostMode) -> Result<Devices, DeviceError> {
        caught::install_hook();
        let Choice { opened, reason, .. } = choice::choose(spec, default_mode, None)?;
        Ok(Self::of(opened, reason, false))
    }

    pub(crate) fn of(
        Opened { backend, devices }: Opened,
        reason: impl Into<String>,
        keeps_records: bool,
    ) -> Devices {
        let faults = Arc::new(FaultLog::default());
        let host_pool = HostPool::new(backend.clone());
        let sibling_count = devices.len();
        let core = |(ordinal, facts)| {
            Arc::new(DeviceCore {
                facts,
                ordinal,
                sibling_count,
                pool: Mutex::default(),
                ledgers: Mutex::default(),
                arrivals: Mutex::default(),
                owners: Arc::default(),
                faults: faults.clone(),
                backend: backend.clone(),
                host_pool: host_pool.clone(),
                copies: CopyCounts::default(),
                meter: keeps_records.then(Meter::default),
            })
        };
        let landing = Landing::at(core((sibling_count, Landing::facts(&devices[0]))));
        let devices = devices.into_iter().enumerate().map(|facts| Device { core: core(facts) }).collect();
        Devices { devices, backend, faults, reason: reason.into(), passes_over_gpus: false, landing }
    }

    /// How many devices there are: at least one.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.devices.len()
    }

    /// The device with this ordinal.
    ///
    /// # Panics
    ///
    /// If `ordinal` is not less than [`len`](Self::len).
    pub fn get(&self, ordinal: usize) -> &Device {
        &self.devices[ordinal]
    }

    /// The devices, by ordinal.
    pub fn iter(&self) -> std::slice::Iter<'_, Device> {
        self.devices.iter()
    }

    /// Why these devices were chosen, in a few words.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the choice was left to the program and GPUs of this machine were not taken, since its kernels are not
    /// written for them. [`reason`](Self::reason) says which.
    pub fn passes_over_gpus(&self) -> bool {
        self.passes_over_gpus
    }

    /// An account that only copies from devices of the set to the host, wherever what it copies is. It is not counted among the owners of
    /// any.
    #[doc(hidden)]
    pub fn courier(&self, label: impl AsRef<str>) -> Account {
        Account::courier(&self.devices[0].core, label.as_ref())
    }

    /// Where what came from other processes lies.
    pub(crate) fn landing(&self) -> &Landing {
        &self.landing
    }

    pub(crate) fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    pub(crate) fn shared_backend(&self) -> &Arc<dyn Backend> {
        &self.backend
    }

    /// Operations submitted and not finished, over all devices. An operation counts until after the waker of
    /// its completion has been called, so at zero every waiter has been woken.
    pub fn pending(&self) -> usize {
        self.backend.pending().map_or(0, Pending::count)
    }

    /// Looks for operations that have finished, and wakes who waits for them, on the calling thread. False if the devices
    /// do that by themselves: then nobody needs to call this.
    ///
    /// Never waits. [`Completion::wait`](crate::Completion::wait) and [`close`](Self::close) call it.
    pub fn poll(&self) -> bool {
        self.backend.poll()
    }

    /// Asks how long this thread may sleep, having looked in vain ([`poll`](Self::poll)). It is unparked when something may have ended
    /// that was submitted before, by itself or by a thread that is asleep too; and if `is_last_awake`, when nothing is
    /// pending any more. It parks, then says that it is awake ([`after_park`](Self::after_park)), and looks.
    ///
    /// Ends nothing and calls no waker. Never waits for a device.
    pub fn before_park(&self, is_last_awake: bool) -> Rest {
        let Some(pending) = self.backend.pending() else { return Rest::Unlimited };
        let sleeper = std::thread::current();
        if is_last_awake && !pending.ask_at_zero(&sleeper) {
            return Rest::LookFirst;
        }
        self.backend.before_park(&sleeper)
    }

    /// The thread that has called [`before_park`](Self::before_park) is awake, and about to look.
    pub fn after_park(&self) {
        self.backend.after_park(std::thread::current().id());
    }

    /// Waits until every submitted operation has finished and every completion has been published, then joins the
    /// worker threads. Afterwards devices with workers refuse to do more.
    pub fn close(&self) {
        self.backend.close();
    }

    /// Gives up what is submitted and has not begun: it never runs, and its completion returns
    /// [`DeviceError::Closed`]. A kernel that has begun ends by itself. Devices with workers refuse to do more. Returns
    /// at once; [`close`](Self::close) waits for the kernels that have begun.
    pub fn abandon(&self) {
        self.backend.abandon();
    }

    /// Takes the faults whose completion was dropped, and that no later call of their account has returned. In the
    /// order in which they happened. Leaves those whose completion may still be awaited.
    pub fn take_dropped_faults(&self) -> Vec<Fault> {
        self.faults.take_all_dropped()
    }

    /// Takes the faults that nobody has been given: those whose completion was dropped or has not been
    /// polled, and that no later call of their account has returned. In the order in which they happened.
    pub fn take_unreported_faults(&self) -> Vec<Fault> {
        self.faults.take_unreported()
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        self.backend.close();
    }
}

impl fmt::Debug for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.devices).finish()
    }
}

/// One device. A cheap clone.
#[derive(Clone)]
pub struct Device {
    core: Arc<DeviceCore>,
}

impl Device {
    pub(crate) fn from_core(core: &Arc<DeviceCore>) -> Self {
        Device { core: core.clone() }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.core.facts.name
    }

    /// The model of a GPU, and what it is reached through; nothing for host devices.
    pub fn model(&self) -> Option<&str> {
        self.core.facts.model.as_deref()
    }

    /// Its place among the devices of this process.
    pub fn ordinal(&self) -> usize {
        self.core.ordinal
    }

    /// A name that no other device has, and that every process sharing the device knows it by. Virtual host
    /// devices are not shared between processes.
    pub fn uuid(&self) -> &str {
        &self.core.facts.uuid
    }

    /// What its kernels are written in.
    pub fn language(&self) -> Language {
        self.core.facts.language
    }

    /// Its relative speed, as specified.
    pub fn speed(&self) -> f64 {
        self.core.facts.speed
    }

    /// The bytes it can hold; `u64::MAX` if no limit was stated.
    pub fn capacity_bytes(&self) -> u64 {
        self.core.facts.capacity_bytes
    }

    /// The bytes in use, in size classes of the pool. Freed memory counts until the last operation on it has
    /// finished.
    pub fn used_bytes(&self) -> u64 {
        self.core.pool().live_bytes() as u64
    }

    /// Why it is lost: nothing can be done with it any more, and whoever needs it gets a fault. `None` if it is not known to be. Asks
    /// nobody.
    pub fn loss(&self) -> Option<Arc<str>> {
        self.core.backend.loss(self.core.ordinal)
    }

    /// The accounts that are bound to it, or were when they were dropped and memory is still charged to them.
    pub fn owner_count(&self) -> usize {
        // One is this device's own.
        Arc::strong_count(&self.core.owners) - 1
    }

    /// How many copies have been enqueued so far that cross the border of this device's memory, by where they come from or go.
    pub fn copies(&self) -> Copies {
        let counts = &self.core.copies;
        let all = [&counts.from_host, &counts.to_host, &counts.from_peers, &counts.staged];
        let [from_host, to_host, from_peers, staged] = all.map(|count| count.load(Ordering::Relaxed));
        Copies { from_host, to_host, from_peers, staged }
    }

    /// What all owners have used it for; `None` if no records are kept ([`DeviceSpec::with_records`](crate::DeviceSpec::with_records)).
    pub fn usage(&self) -> Option<Usage> {
        self.core.meter.as_ref().map(Meter::usage)
    }

    /// What each kernel has had of this, the one with the most time first; `None` if no records are kept.
    pub fn usage_by_kernel(&self) -> Option<Vec<KernelUsage>> {
        self.core.meter.as_ref().map(Meter::usage_by_kernel)
    }

    /// How often somebody has looked for what has ended, while something was pending on any device of the set. Zero where devices wake
    /// who waits by themselves.
    pub fn looks(&self) -> u64 {
        self.core.backend.looks()
    }

    /// Opens an account: a stream of work on this device, and the bytes held by one owner. `label` stands in
    /// messages.
    pub fn account(&self, label: impl AsRef<str>) -> Account {
        Account::new(&self.core, label.as_ref())
    }

    pub(crate) fn core(&self) -> &Arc<DeviceCore> {
        &self.core
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("name", &self.name())
            .field("speed", &self.speed())
            .finish_non_exhaustive()
    }
}

/// Copies across the border of one device's memory; see [`Device::copies`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Copies {
    /// From memory of the program: uploads and writes.
    pub from_host: u64,
    /// To memory of the program: downloads and reads.
    pub to_host: u64,
    /// From other devices of the set.
    pub from_peers: u64,
    /// Those of `from_peers` that go through memory of the host, as far as is known here: what the driver does between two GPUs is not.
    pub staged: u64,
}

/// What is counted for [`Copies`].
#[derive(Debug, Default)]
pub(crate) struct CopyCounts {
    from_host: AtomicU64,
    to_host: AtomicU64,
    from_peers: AtomicU64,
    staged: AtomicU64,
}

impl CopyCounts {
    pub(crate) fn note(&self, direction: Direction) {
        let count = match direction {
            Direction::FromHost => &self.from_host,
            Direction::ToHost => &self.to_host,
            Direction::FromPeer => &self.from_peers,
            Direction::Within => return,
        };
        count.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn note_staged(&self) {
        self.staged.fetch_add(1, Ordering::Relaxed);
    }
}

/// Shells of memory that an owner keeps at most.
const KEPT_SHELLS: usize = 64;

/// What one owner holds on one device. Outlives its account while memory is charged to
/// it.
#[derive(Debug)]
pub(crate) struct Ledger {
    pub(crate) label: Arc<str>,
    pub(crate) used_bytes: AtomicU64,
    /// The accounts that are charged to it: streams of one owner.
    accounts: AtomicUsize,
    /// What is left of memory that has gone back to the pool, for the next buffer; `None` when the last account is gone.
    shells: Mutex<Option<Vec<MemoryRef>>>,
    /// Counted by its clones: one while the owner is bound to the device.
    present: Mutex<Option<Arc<()>>>,
    /// If records are kept.
    pub(crate) meter: Option<Meter>,
}

impl Ledger {
    fn new(label: Arc<str>, keeps_records: bool) -> Self {
        let shells = Mutex::new(Some(Vec::new()));
        Ledger {
            label,
            used_bytes: AtomicU64::new(0),
            accounts: AtomicUsize::new(0),
            shells,
            present: Mutex::default(),
            meter: keeps_records.then(Meter::default),
        }
    }

    /// Its owner is bound to the device from now on.
    pub(crate) fn arrive(&self, device: &DeviceCore) {
        *self.present.lock().expect("nothing panics under this lock") = Some(device.owners.clone());
    }

    /// Its owner is bound to another device.
    pub(crate) fn depart(&self) {
        *self.present.lock().expect("nothing panics under this lock") = None;
    }

    /// Counts one account more.
    pub(crate) fn join(&self) {
        self.accounts.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one account less. With the last one what was kept goes: shells keep their ledger alive.
    pub(crate) fn leave(&self) {
        if self.accounts.fetch_sub(1, Ordering::AcqRel) == 1 {
            let shells = self.shells().take();
            drop(shells);
        }
    }

    fn shells(&self) -> MutexGuard<'_, Option<Vec<MemoryRef>>> {
        self.shells.lock().expect("nothing panics under this lock")
    }

    /// Takes what is left of a buffer that is gone.
    pub(crate) fn take_shell(&self) -> Option<MemoryRef> {
        self.shells().as_mut()?.pop()
    }

    /// Keeps what is left of a buffer that is gone, or gives it back.
    pub(crate) fn keep_shell(&self, shell: MemoryRef) -> Option<MemoryRef> {
        match self.shells().as_mut() {
            Some(shells) if shells.len() < KEPT_SHELLS => shells.push(shell),
            _ => return Some(shell),
        }
        None
    }
}

/// The state of a device.
pub(crate) struct DeviceCore {
    pub(crate) facts: Facts,
    pub(crate) ordinal: usize,
    /// How many devices the set has.
    pub(crate) sibling_count: usize,
    pool: Mutex<Pool>,
    ledgers: Mutex<Vec<Weak<Ledger>>>,
    arrivals: Mutex<Arrivals>,
    /// As many clones as owners that are bound to it.
    owners: Arc<()>,
    pub(crate) faults: Arc<FaultLog>,
    pub(crate) backend: Arc<dyn Backend>,
    /// That of the set.
    pub(crate) host_pool: Arc<HostPool>,
    pub(crate) copies: CopyCounts,
    /// If records are kept.
    pub(crate) meter: Option<Meter>,
}

impl DeviceCore {
    fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().expect("nothing panics under this lock")
    }

    fn ledgers(&self) -> MutexGuard<'_, Vec<Weak<Ledger>>> {
        self.ledgers.lock().expect("nothing panics under this lock")
    }

    /// Who has moved here.
    pub(crate) fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        self.arrivals.lock().expect("nothing panics under this lock")
    }

    /// A ledger for an owner of this name.
    pub(crate) fn open_ledger(&self, label: Arc<str>) -> Arc<Ledger> {
        let ledger = Arc::new(Ledger::new(label, self.meter.is_some()));
        let mut ledgers = self.ledgers();
        // Now and then forget the ones that are gone; doubling keeps the cost per account constant.
        if ledgers.len() == ledgers.capacity() {
            ledgers.retain(|ledger| ledger.strong_count() > 0);
            let more = ledgers.len().max(8);
            ledgers.reserve(more);
        }
        ledgers.push(Arc::downgrade(&ledger));
        ledger
    }

    /// How much could be allocated now, in pieces that fit.
    pub(crate) fn room_bytes(&self) -> u64 {
        let used_bytes = self.pool().live_bytes() as u64;
        let left_bytes = self.facts.capacity_bytes.saturating_sub(used_bytes);
        match self.backend.driver_memory(self.ordinal) {
            Some(driver) => left_bytes.min(driver.free_bytes + driver.taken_bytes.saturating_sub(used_bytes)),
            None => left_bytes,
        }
    }

    /// Takes a block of class size `bytes`.
    pub(crate) fn take_block(&self, bytes: usize) -> Option<Fresh> {
        let take = || {
            self.pool().take(bytes, self.facts.capacity_bytes, &DeviceMemory(&*self.backend, self.ordinal))
        };
        // What is free may be kept by operations that have finished and have not been looked at.
        take().or_else(|| if self.backend.poll() { take() } else { None })
    }

    /// Takes back a block of class size `bytes` that nobody uses any more.
    pub(crate) fn give_block(&self, block: Block, bytes: usize) {
        self.pool().give(block, bytes);
    }

    /// The size of the block for `bytes` bytes, if the device can have one of it.
    pub(crate) fn class_bytes(&self, ledger: &Ledger, bytes: usize) -> Result<Option<usize>, DeviceError> {
        let align = MAX_ALIGN as u64;
        let limit_bytes = self.facts.max_buffer_bytes / align * align;
        if bytes as u64 > limit_bytes {
            let (device, owner) = (self.facts.name.clone(), ledger.label.clone());
            return Err(DeviceError::TooLarge { device, owner, bytes: bytes as u64, limit_bytes });
        }
        // The largest class may be cut off by the limit.
        Ok(pool::class_bytes(bytes)
            .map(|class| class.min(usize::try_from(limit_bytes).unwrap_or(usize::MAX))))
    }

    /// The error for a request of `bytes` by the owner of `ledger`.
    #[cold]
    pub(crate) fn out_of_memory(&self, ledger: &Ledger, bytes: usize) -> DeviceError {
        self.out_of_memory_beside(ledger, bytes, 0)
    }

    /// The error for a request beside what is to come of others.
    #[cold]
    pub(crate) fn out_of_memory_beside(
        &self,
        ledger: &Ledger,
        bytes: usize,
        awaited_bytes: u64,
    ) -> DeviceError {
        let driver = self.backend.driver_memory(self.ordinal);
        // What has just been asked may have found it lost.
        if let Some(message) = self.backend.loss(self.ordinal) {
            return DeviceError::Lost { message };
        }
        let (used_bytes, capacity_bytes) = (self.pool().live_bytes() as u64, self.facts.capacity_bytes);
        let wanted_bytes = used_bytes.saturating_add(bytes as u64).saturating_add(awaited_bytes);
        let is_capped = wanted_bytes > capacity_bytes;
        let driver = driver.filter(|driver| !is_capped || capacity_bytes >= driver.total_bytes);
        let ledgers = self.ledgers();
        let held = |ledger: Arc<Ledger>| (ledger.label.clone(), ledger.used_bytes.load(Ordering::Relaxed));
        let mut owners: Vec<_> = ledgers.iter().filter_map(Weak::upgrade).map(held).collect();
        drop(ledgers);
        owners.retain(|(_, bytes)| *bytes > 0);
        owners.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        DeviceError::OutOfMemory(Box::new(OutOfMemory {
            device: self.facts.name.clone(),
            owner: ledger.label.clone(),
            requested_bytes: bytes as u64,
            capacity_bytes,
            used_bytes,
            awaited_bytes,
            owners,
            driver,
        }))
    }
}

impl Drop for DeviceCore {
    fn drop(&mut self) {
        // Every block handed out keeps the device alive, so all of them are back.
        self.pool
            .get_mut()
            .expect("nothing panics under this lock")
            .trim(&DeviceMemory(&*self.backend, self.ordinal));
    }
}
