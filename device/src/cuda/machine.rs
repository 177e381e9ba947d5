//! The devices of one opening: their contexts, streams and memory, and the fault that ends one.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::arena::Arena;
use super::compile::{Compiler, ImageKind};
use super::error::{CudaError, DeviceFault};
use super::kernel::{Function, KernelKey};
use super::lane::{Lane, Mark, Progress};
use super::memory::SlabMemory;
use super::raw::{Context, HostMemory, ImportedMemory, RawEvent, RawStream, Status};
use super::stream::{Priority, Stream};

/// How the devices are used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Device memory is taken from the driver in pieces of at least this size.
    pub slab_bytes: usize,
    /// Pinned memory is taken from the driver in pieces of at least this size.
    pub pinned_slab_bytes: usize,
    /// Streams of a device, of each priority.
    pub stream_count: u16,
    /// From so many unfinished operations on, a stream is full.
    pub full_at: u64,
    /// Where compiled kernels are kept; `None`: nowhere.
    pub cache: Option<PathBuf>,
    /// Where kernels are that were compiled elsewhere; `None`: nowhere.
    pub shipped: Option<PathBuf>,
    /// What CUDA C is compiled to.
    pub image: ImageKind,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            slab_bytes: 64 << 20,
            pinned_slab_bytes: 4 << 20,
            stream_count: 16,
            full_at: 256,
            cache: super::cache::default_folder(),
            shipped: super::shipped::folder(),
            image: ImageKind::Cubin,
        }
    }
}

/// All devices that were opened together.
pub(super) struct Machine {
    pub(super) devices: Vec<DeviceState>,
    pub(super) pinned: Mutex<Arena<HostMemory>>,
    pub(super) compiler: Compiler,
    pub(super) settings: Settings,
}

/// One device.
pub(super) struct DeviceState {
    pub(super) index: u16,
    pub(super) name: Arc<str>,
    pub(super) product: String,
    pub(super) uuid: [u8; 16],
    pub(super) total_bytes: usize,
    pub(super) capability: (u32, u32),
    pub(super) multiprocessor_count: u32,
    pub(super) max_threads_of_block: u32,
    /// By device: whether kernels here may touch memory there.
    pub(super) peers: Vec<bool>,
    /// First those of normal priority, then those of high priority.
    pub(super) lanes: Vec<Lane>,
    pub(super) lowest_priority: i32,
    /// Records graphs, and nothing else; made when the first is recorded.
    pub(super) recorder: OnceLock<Mutex<RawStream>>,
    pub(super) next_lane: [AtomicUsize; 2],
    pub(super) memory: Mutex<Arena<Arc<SlabMemory>>>,
    /// Memory of other processes, by handle: opened once, and closed with all other memory of theirs, or with the machine.
    pub(super) imports: Mutex<HashMap<[u8; 64], Arc<ImportedMemory>>>,
    pub(super) kernels: Mutex<HashMap<KernelKey, Arc<Function>>>,
    pub(super) fault: OnceLock<Arc<DeviceFault>>,
    pub(super) context: Arc<Context>,
}

impl DeviceState {
    /// Fails if the device is lost.
    #[inline]
    pub(super) fn check(&self) -> Result<(), CudaError> {
        self.fault.get().map_or(Ok(()), |fault| Err(CudaError::Fault(fault.clone())))
    }

    /// The error for what the driver returned. No lane's lock may be held.
    #[cold]
    pub(super) fn explain(&self, call: &'static str, status: Status) -> CudaError {
        if status.is_sticky() {
            return CudaError::Fault(self.fail(status));
        }
        CudaError::Call { call, device: self.name.clone(), status }
    }

    /// Ends the device. No lane's lock may be held.
    #[cold]
    pub(super) fn fail(&self, status: Status) -> Arc<DeviceFault> {
        let make = || {
            let mut suspects: Vec<&'static str> = self.lanes.iter().filter_map(Lane::oldest).collect();
            suspects.sort_unstable();
            suspects.dedup();
            Arc::new(DeviceFault { device: self.name.clone(), status, suspects })
        };
        self.fault.get_or_init(make).clone()
    }

    /// The error for a call that concerned other devices too: it may have returned the fault of any of them. No lane's
    /// lock may be held.
    #[cold]
    pub(super) fn blame<'a>(
        &self,
        call: &'static str,
        status: Status,
        others: impl Iterator<Item = &'a DeviceState>,
    ) -> CudaError {
        if status.is_sticky() {
            for other in others.filter(|other| other.index != self.index) {
                let probed = other.context.memory();
                if let Err(fault) = other.check().and(probed.map_err(|status| other.explain(call, status)))
                    && self.context.memory().is_ok()
                {
                    return fault;
                }
            }
        }
        self.explain(call, status)
    }

    pub(super) fn create_event(&self) -> Result<RawEvent, Status> {
        RawEvent::create(&self.context)
    }

    /// The stream that records graphs.
    pub(super) fn recorder(&self) -> Result<MutexGuard<'_, RawStream>, CudaError> {
        let recorder = match self.recorder.get() {
            Some(recorder) => recorder,
            None => {
                let made = RawStream::create(&self.context, self.lowest_priority);
                let made = made.map_err(|status| self.explain("cuStreamCreate", status))?;
                self.recorder.get_or_init(|| Mutex::new(made))
            }
        };
        Ok(recorder.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    pub(super) fn arena(&self) -> MutexGuard<'_, Arena<Arc<SlabMemory>>> {
        self.memory.lock().expect("nothing panics under this lock")
    }
}

impl Machine {
    pub(super) fn lane(&self, mark: Mark) -> &Lane {
        &self.devices[usize::from(mark.device)].lanes[usize::from(mark.lane)]
    }

    /// Whether a mark is known to be reached; or never will be, because its device is lost.
    #[inline]
    pub(super) fn is_over(&self, mark: Mark) -> bool {
        self.lane(mark).has_completed(mark.position)
            || self.devices[usize::from(mark.device)].fault.get().is_some()
    }

    pub(super) fn query(&self, mark: Mark) -> Progress {
        let (lane, device) = (self.lane(mark), &self.devices[usize::from(mark.device)]);
        if lane.has_completed(mark.position) {
            return Progress::Ready;
        }
        if let Some(fault) = device.fault.get() {
            return Progress::Fault(fault.clone());
        }
        let answer = lane.look_for(mark.position, || device.create_event());
        match answer {
            Ok(()) if lane.has_completed(mark.position) => Progress::Ready,
            Ok(()) => Progress::Pending,
            Err(status) => Progress::Fault(device.fail(status)),
        }
    }

    /// Asks the driver how far all streams have got. A device that is found lost is lost from then on.
    pub(super) fn poll_all(&self) {
        for device in self.devices.iter().filter(|device| device.fault.get().is_none()) {
            let failed = device.lanes.iter().find_map(|lane| lane.poll().err());
            failed.inspect(|&status| drop(device.fail(status)));
        }
    }

    /// Waits on the host until all that was submitted is done, or its device is lost.
    pub(super) fn synchronize(&self) {
        for device in self.devices.iter().filter(|device| device.fault.get().is_none()) {
            let create = || device.create_event();
            let failed = device.lanes.iter().find_map(|lane| lane.synchronize(create).err());
            failed.inspect(|&status| drop(device.fail(status)));
        }
    }

    pub(super) fn pinned(&self) -> MutexGuard<'_, Arena<HostMemory>> {
        self.pinned.lock().expect("nothing panics under this lock")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Memory must not be freed under what uses it.
        self.synchronize();
    }
}

/// A device. A cheap clone.
#[derive(Clone)]
pub struct Gpu {
    pub(super) machine: Arc<Machine>,
    pub(super) index: u16,
}

impl Gpu {
    #[inline]
    pub(super) fn state(&self) -> &DeviceState {
        &self.machine.devices[usize::from(self.index)]
    }

    /// What messages call it: `cuda:0`.
    pub fn name(&self) -> &str {
        &self.state().name
    }

    /// What its maker calls it.
    pub fn product(&self) -> &str {
        &self.state().product
    }

    /// Its UUID, as `nvidia-smi` writes it.
    pub fn uuid(&self) -> String {
        format_uuid(&self.state().uuid)
    }

    /// Its compute capability, major and minor.
    pub fn capability(&self) -> (u32, u32) {
        self.state().capability
    }

    /// The bytes of its memory.
    pub fn total_bytes(&self) -> usize {
        self.state().total_bytes
    }

    /// The bytes of its memory that nobody has taken from the driver.
    ///
    /// # Errors
    ///
    /// If the device is lost.
    pub fn free_bytes(&self) -> Result<usize, CudaError> {
        self.state().check()?;
        let memory = self.state().context.memory();
        memory.map(|(free, _)| free).map_err(|status| self.state().explain("cuMemGetInfo", status))
    }

    /// The bytes that are handed out in blocks.
    pub fn live_bytes(&self) -> usize {
        self.state().arena().live_bytes()
    }

    /// The bytes that have been taken from the driver for blocks.
    pub fn taken_bytes(&self) -> usize {
        self.state().arena().slab_bytes()
    }

    /// How many blocks of threads run at once, at least.
    pub fn multiprocessor_count(&self) -> u32 {
        self.state().multiprocessor_count
    }

    /// Whether its kernels may touch memory of `peer` where it is.
    pub fn reaches(&self, peer: &Gpu) -> bool {
        self.state().peers[usize::from(peer.index)]
    }

    /// A stream from the pool. The pool gives them in turn, so several owners share one when there are more owners than
    /// streams.
    pub fn stream(&self, priority: Priority) -> Stream {
        let count = usize::from(self.machine.settings.stream_count);
        let turn = self.state().next_lane[priority as usize].fetch_add(1, Ordering::Relaxed) % count;
        Stream { gpu: self.clone(), lane: (priority as usize * count + turn) as u16 }
    }

    /// Why the device is lost, if that is known.
    pub fn fault(&self) -> Option<Arc<DeviceFault>> {
        self.state().fault.get().cloned()
    }

    /// Loses the device, which has taken too long.
    pub(super) fn give_up(&self) {
        drop(self.state().fail(Status::timeout()));
    }

    /// How far a mark of any stream of this machine has got. Does not wait.
    pub fn query(&self, mark: Mark) -> Progress {
        self.machine.query(mark)
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("name", &self.name()).field("uuid", &self.uuid()).finish_non_exhaustive()
    }
}

pub(super) fn format_uuid(uuid: &[u8; 16]) -> String {
    let hex = |range: std::ops::Range<usize>| -> String {
        uuid[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    format!("GPU-{}-{}-{}-{}-{}", hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16))
}
