//! Blocks of device memory: who is given which piece, and what is done on it.
//!
//! A block notes the last mark of each stream that was given work on it. Its piece may have been used before: the first work
//! of each stream on the block comes after what the piece waits for.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock};

use super::arena::{Piece, note_latest};
use super::error::CudaError;
use super::lane::Mark;
use super::machine::{Gpu, Machine};
use super::raw::{Answer, DeviceMemory, ImportedMemory};
use crate::pool;

/// Device memory. Clones are the same memory; it is recycled when the last is gone and all work on it is done.
#[derive(Clone)]
pub struct Block {
    core: Arc<Core>,
}

struct Core {
    gpu: Gpu,
    address: u64,
    len_bytes: usize,
    /// Where it came from; an imported block has a piece of no slab, for its marks only.
    piece: Mutex<Piece>,
    imported: Option<Arc<ImportedMemory>>,
}

/// The memory of a slab.
pub(super) struct SlabMemory {
    memory: DeviceMemory,
    /// What other processes open it by, since it was first exported.
    handle: OnceLock<[u8; 64]>,
}

impl SlabMemory {
    fn address(&self) -> u64 {
        self.memory.address()
    }

    /// Others may have it open, in which case the driver must not be given it back.
    fn is_exported(&self) -> bool {
        self.handle.get().is_some()
    }

    fn export(&self) -> Answer<[u8; 64]> {
        match self.handle.get() {
            Some(handle) => Ok(*handle),
            None => self.memory.export().map(|handle| *self.handle.get_or_init(|| handle)),
        }
    }
}

/// What another process needs to open a block. It stays valid while the block lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportedBlock {
    /// The UUID of its device.
    pub uuid: [u8; 16],
    /// The driver's name of the slab.
    pub handle: [u8; 64],
    /// Where in the slab the block begins.
    pub offset_bytes: u64,
    /// Its length.
    pub len_bytes: u64,
}

impl Block {
    /// Memory of at least `len_bytes` bytes, aligned to 256, of no particular contents. `lane` is the stream that will use
    /// it first.
    pub(super) fn allocate(gpu: &Gpu, lane: u16, len_bytes: usize) -> Result<Block, CudaError> {
        gpu.state().check()?;
        let piece = pool::class_bytes(len_bytes)
            .map(|class_bytes| take(gpu, lane, class_bytes))
            .transpose()?
            .flatten();
        let Some(piece) = piece else { return Err(out_of_memory(gpu, len_bytes)) };
        Ok(Block::of(gpu, piece, len_bytes))
    }

    fn of(gpu: &Gpu, piece: Piece, len_bytes: usize) -> Block {
        let address = gpu.state().arena().memory(piece.slab).address() + piece.offset_bytes as u64;
        let core = Core { gpu: gpu.clone(), address, len_bytes, piece: Mutex::new(piece), imported: None };
        Block { core: Arc::new(core) }
    }

    /// The device that holds it.
    pub fn gpu(&self) -> &Gpu {
        &self.core.gpu
    }

    /// The length that was asked for.
    pub fn len_bytes(&self) -> usize {
        self.core.len_bytes
    }

    /// Its address, for kernels. Not to be read by the host.
    pub fn address(&self) -> u64 {
        self.core.address
    }

    /// Fails unless `len` bytes are there at `offset`.
    pub(super) fn check_range(
        &self,
        what: &'static str,
        offset_bytes: usize,
        wanted_bytes: usize,
    ) -> Result<(), CudaError> {
        let len_bytes = self.core.len_bytes;
        match offset_bytes.checked_add(wanted_bytes) {
            Some(end) if end <= len_bytes => Ok(()),
            _ => Err(CudaError::Range { what, offset_bytes, wanted_bytes, len_bytes }),
        }
    }

    /// Which memory it is, to tell blocks apart.
    pub(super) fn identity(&self) -> usize {
        Arc::as_ptr(&self.core) as usize
    }

    /// What the first work of a stream on this block must come after; nothing once the stream has worked on it.
    pub(super) fn each_before(
        &self,
        device: u16,
        lane: u16,
        mut wait: impl FnMut(Mark) -> Result<(), CudaError>,
    ) -> Result<(), CudaError> {
        let piece = self.core.piece.lock().expect("nothing panics under this lock");
        let is_own = |mark: &&Mark| mark.device == device && mark.lane == lane;
        if piece.after.is_empty() || piece.uses.iter().any(|mark| is_own(&mark)) {
            return Ok(());
        }
        piece.after.iter().filter(|mark| !is_own(mark)).try_for_each(|&mark| wait(mark))
    }

    /// Notes that the operation at `mark` uses it.
    pub(super) fn note_use(&self, mark: Mark) {
        let mut piece = self.core.piece.lock().expect("nothing panics under this lock");
        note_latest(&mut piece.uses, mark);
    }

    /// Names the block for another process of this machine. Its slab is not given back to the driver from now on, as long as this process
    /// has its devices open: others may have it open after the block has gone.
    ///
    /// # Errors
    ///
    /// If the driver refuses, as on devices without IPC; or the device is lost.
    pub fn export(&self) -> Result<ExportedBlock, CudaError> {
        let state = self.core.gpu.state();
        state.check()?;
        if self.core.imported.is_some() {
            return Err(CudaError::NotExportable);
        }
        let (slab, offset_bytes) = {
            let piece = self.core.piece.lock().expect("nothing panics under this lock");
            (piece.slab, piece.offset_bytes as u64)
        };
        // The driver is called with nothing locked. The slab stays: this block is of it.
        let memory = state.arena().memory(slab).clone();
        let handle = memory.export().map_err(|status| state.explain("cuIpcGetMemHandle", status))?;
        Ok(ExportedBlock { uuid: state.uuid, handle, offset_bytes, len_bytes: self.core.len_bytes as u64 })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let piece = std::mem::take(self.piece.get_mut().expect("nothing panics under this lock"));
        if self.imported.is_none() {
            self.gpu.state().arena().give(piece);
        }
    }
}

impl fmt::Debug for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Block({} bytes on {})", self.core.len_bytes, self.core.gpu.name())
    }
}

impl Gpu {
    /// Opens a block that another process has exported. Each of its slabs is opened once, and stays open until all handles
    /// of the machine are gone, or until it is closed with all others.
    ///
    /// # Errors
    ///
    /// [`CudaError::ForeignDevice`]; [`CudaError::Range`] if the block is not inside of its slab; or what the driver says: that the
    /// exporting process is this one, or has ended.
    pub fn import(&self, exported: &ExportedBlock) -> Result<Block, CudaError> {
        let state = self.state();
        state.check()?;
        if state.uuid != exported.uuid {
            return Err(CudaError::ForeignDevice { uuid: super::machine::format_uuid(&exported.uuid) });
        }
        let mut imports = state.imports.lock().expect("nothing panics under this lock");
        let memory = match imports.get(&exported.handle) {
            Some(memory) => memory.clone(),
            None => {
                let opened = ImportedMemory::open(&state.context, exported.handle);
                let opened = Arc::new(opened.map_err(|status| state.explain("cuIpcOpenMemHandle", status))?);
                imports.entry(exported.handle).or_insert(opened).clone()
            }
        };
        drop(imports);
        let slab_bytes =
            memory.len_bytes().map_err(|status| state.explain("cuMemGetAddressRange", status))?;
        let (offset_bytes, len_bytes) = (exported.offset_bytes as usize, exported.len_bytes as usize);
        if offset_bytes.checked_add(len_bytes).is_none_or(|end| end > slab_bytes) {
            let what = "an imported block in its slab";
            return Err(CudaError::Range {
                what,
                offset_bytes,
                wanted_bytes: len_bytes,
                len_bytes: slab_bytes,
            });
        }
        let core = Core {
            gpu: self.clone(),
            address: memory.address() + exported.offset_bytes,
            len_bytes,
            piece: Mutex::default(),
            imported: Some(memory),
        };
        Ok(Block { core: Arc::new(core) })
    }

    /// Whether the driver knows the device by this UUID.
    pub(super) fn has_uuid(&self, uuid: &[u8; 16]) -> bool {
        self.state().uuid == *uuid
    }

    /// Closes the slabs of other processes of which there are no blocks.
    pub(super) fn close_imports(&self) {
        let mut imports = self.state().imports.lock().expect("nothing panics under this lock");
        let closed: Vec<_> = imports.extract_if(|_, memory| Arc::strong_count(memory) == 1).collect();
        drop(imports);
        drop(closed);
    }

    /// Memory as [`Stream::allocate`](super::Stream::allocate) gives it, but only what can be had at once: `None` rather than
    /// to wait for work that is under way.
    ///
    /// # Errors
    ///
    /// If the device is lost.
    pub fn allocate_at_once(&self, len_bytes: usize) -> Result<Option<Block>, CudaError> {
        self.state().check()?;
        let Some(class_bytes) = pool::class_bytes(len_bytes) else { return Ok(None) };
        let is_over = |mark: &Mark| self.machine.is_over(*mark);
        let mut piece = take_at_once(self, is_over, class_bytes)?;
        if piece.is_none() {
            piece = self.state().arena().merge(class_bytes, is_over);
        }
        if piece.is_none() {
            trim(&self.machine, self);
            piece = take_new(self, class_bytes, class_bytes)?;
        }
        Ok(piece.map(|piece| Block::of(self, piece, len_bytes)))
    }

    /// Gives the driver back the memory of which nothing is handed out or used, and which was not exported; how many bytes are free then.
    ///
    /// # Errors
    ///
    /// If the device is lost.
    pub fn trim(&self) -> Result<usize, CudaError> {
        self.machine.poll_all();
        trim(&self.machine, self);
        self.free_bytes()
    }
}

fn trim(machine: &Machine, gpu: &Gpu) {
    let idle = gpu.state().arena().trim(|memory| memory.is_exported(), |mark| machine.is_over(*mark));
    drop(idle);
}

/// Finds a piece, the cheapest way first; `None` if there is no memory.
fn take(gpu: &Gpu, lane: u16, class_bytes: usize) -> Result<Option<Piece>, CudaError> {
    let (state, machine) = (gpu.state(), &gpu.machine);
    let is_own = |mark: &Mark| mark.device == gpu.index && mark.lane == lane;
    let is_passed = |mark: &Mark| is_own(mark) || machine.is_over(*mark);
    if let Some(piece) = take_at_once(gpu, is_passed, class_bytes)? {
        return Ok(Some(piece));
    }
    // The stream's next work waits on the device.
    if let Some(piece) = state.arena().take_pending(class_bytes) {
        return Ok(Some(piece));
    }
    if let Some(piece) = state.arena().merge(class_bytes, is_passed) {
        return Ok(Some(piece));
    }
    trim(machine, gpu);
    if let Some(piece) = take_new(gpu, class_bytes, class_bytes)? {
        return Ok(Some(piece));
    }
    // Nothing is left but to wait for what is freed and still used.
    machine.synchronize();
    state.check()?;
    let mut freed = state.arena().take(class_bytes, is_passed);
    if freed.is_none() {
        freed = state.arena().merge(class_bytes, is_passed);
    }
    if freed.is_some() {
        return Ok(freed);
    }
    trim(machine, gpu);
    take_new(gpu, class_bytes, class_bytes)
}

/// Finds a piece that can be used at once: one that is free, or of a new slab.
fn take_at_once(
    gpu: &Gpu,
    is_passed: impl Fn(&Mark) -> bool,
    class_bytes: usize,
) -> Result<Option<Piece>, CudaError> {
    let (state, machine) = (gpu.state(), &gpu.machine);
    let take_free = || state.arena().take(class_bytes, &is_passed);
    if let Some(piece) = take_free() {
        return Ok(Some(piece));
    }
    machine.poll_all();
    if let Some(piece) = take_free() {
        return Ok(Some(piece));
    }
    for len_bytes in [machine.settings.slab_bytes.max(class_bytes), class_bytes] {
        if let Some(piece) = take_new(gpu, len_bytes, class_bytes)? {
            return Ok(Some(piece));
        }
    }
    Ok(None)
}

/// A piece of a slab that the driver gives; `None` if it has no memory.
fn take_new(gpu: &Gpu, len_bytes: usize, class_bytes: usize) -> Result<Option<Piece>, CudaError> {
    let state = gpu.state();
    match DeviceMemory::allocate(&state.context, len_bytes) {
        Ok(memory) => {
            let mut arena = state.arena();
            arena.add(Arc::new(SlabMemory { memory, handle: OnceLock::new() }), len_bytes);
            Ok(arena.take(class_bytes, |mark| gpu.machine.is_over(*mark)))
        }
        Err(status) if status.is_out_of_memory() => Ok(None),
        Err(status) => Err(state.explain("cuMemAlloc", status)),
    }
}

#[cold]
fn out_of_memory(gpu: &Gpu, requested_bytes: usize) -> CudaError {
    let (free_bytes, total_bytes) = gpu.state().context.memory().unwrap_or_default();
    let live_bytes = gpu.live_bytes();
    let device = gpu.state().name.clone();
    CudaError::OutOfMemory { device, requested_bytes, live_bytes, free_bytes, total_bytes }
}
