//! Streams: what is given to one runs in the order of the calls.

use std::ffi::c_void;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use super::error::{CudaError, DeviceFault};
use super::kernel::{Extent, Function, Parameters};
use super::lane::{Lane, Mark, NOTIFICATION};
use super::machine::{DeviceState, Gpu};
use super::memory::Block;
use super::pinned::{InFlight, Pinned};
use super::raw::{Answer, RawEvent, RawStream, forget_bound};

/// Whose work is preferred when a device has the choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Ordinary work.
    Normal = 0,
    /// Work that others wait for, such as packing what is sent.
    High = 1,
}

/// Two events that note their times.
pub(super) struct Timer {
    start: RawEvent,
    end: RawEvent,
}

impl Timer {
    /// The time from one to the other, when both are complete.
    pub(super) fn elapsed(&self) -> Option<Duration> {
        let ms = self.end.since(&self.start).ok()?;
        Duration::try_from_secs_f64(f64::from(ms) / 1e3).ok()
    }
}

/// A stream of the pool of a device. Clones are the same stream.
#[derive(Clone)]
pub struct Stream {
    pub(super) gpu: Gpu,
    pub(super) lane: u16,
}

impl Stream {
    /// Its device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    fn state(&self) -> &DeviceState {
        self.gpu.state()
    }

    fn lane(&self) -> &Lane {
        &self.state().lanes[usize::from(self.lane)]
    }

    /// The driver's stream, made if it is not there.
    fn raw(&self) -> Result<&RawStream, CudaError> {
        self.lane().raw().map_err(|status| self.state().explain("cuStreamCreate", status))
    }

    fn mark_at(&self, position: u64) -> Mark {
        Mark { device: self.gpu.index, lane: self.lane, position }
    }

    /// Gives the stream one operation that uses `blocks`.
    ///
    /// # Panics
    ///
    /// If a block is of another machine.
    pub(super) fn submit<'a>(
        &self,
        label: &'static str,
        driver_call: &'static str,
        blocks: impl Iterator<Item = &'a Block> + Clone,
        call: impl FnOnce(&RawStream) -> Answer<()>,
    ) -> Result<Mark, CudaError> {
        let state = self.state();
        state.check()?;
        for block in blocks.clone() {
            let is_ours = Arc::ptr_eq(&block.gpu().machine, &self.gpu.machine);
            assert!(is_ours, "a block is used with the devices that it was allocated with");
            block.each_before(self.gpu.index, self.lane, |mark| self.come_after(mark))?;
        }
        self.raw()?;
        let lane = self.lane();
        let answer = lane.submit(&mut lane.lock(), || state.create_event(), label, call);
        let devices = || blocks.clone().map(|block| block.gpu().state());
        let mark = self.mark_at(answer.map_err(|status| state.blame(driver_call, status, devices()))?);
        blocks.for_each(|block| block.note_use(mark));
        Ok(mark)
    }

    /// Waits on the device for a mark, unless it is over.
    fn come_after(&self, mark: Mark) -> Result<(), CudaError> {
        if self.gpu.machine.is_over(mark) {
            return Ok(());
        }
        let source = &self.gpu.machine.devices[usize::from(mark.device)];
        let create = || source.create_event();
        let held = self.gpu.machine.lane(mark).hold_back(self.raw()?, mark.position, create);
        let waits =
            held.map_err(|status| self.state().blame("cuStreamWaitEvent", status, std::iter::once(source)))?;
        if waits {
            self.lane().note_wait();
        }
        Ok(())
    }

    /// Marks what was given to the stream up to now, by an event of its own: it is known to be reached as soon as it is,
    /// however much is given to the stream later. (The mark of a single operation is free, and may be known late.)
    ///
    /// # Errors
    ///
    /// If the device is lost.
    pub fn mark(&self) -> Result<Mark, CudaError> {
        let (state, lane) = (self.state(), self.lane());
        state.check()?;
        let marked = lane.mark(&mut lane.lock(), || state.create_event());
        marked.map(|position| self.mark_at(position)).map_err(|status| state.explain("cuEventRecord", status))
    }

    /// Makes what comes next on this stream come after a mark of any stream of this machine. The host does not wait.
    ///
    /// # Errors
    ///
    /// The fault of either device. What was to be waited for never happens if the mark's device is lost.
    pub fn wait(&self, mark: Mark) -> Result<(), CudaError> {
        self.state().check()?;
        let machine = &self.gpu.machine;
        if machine.lane(mark).has_completed(mark.position)
            || (mark.device, mark.lane) == (self.gpu.index, self.lane)
        {
            return Ok(());
        }
        machine.devices[usize::from(mark.device)].check()?;
        self.come_after(mark)
    }

    /// Asks the driver how far the stream has got: marks that are reached are known to be afterwards.
    ///
    /// # Errors
    ///
    /// If the device is lost.
    pub fn poll(&self) -> Result<(), Arc<DeviceFault>> {
        if let Some(fault) = self.gpu.fault() {
            return Err(fault);
        }
        let answer = self.lane().poll();
        answer.map_err(|status| self.state().fail(status))
    }

    /// Whether so much is unfinished that the driver may soon block whoever submits more. Polls.
    pub fn is_full(&self) -> bool {
        let full_at = self.gpu.machine.settings.full_at;
        self.lane().unfinished_count() >= full_at
            && self.poll().is_ok()
            && self.lane().unfinished_count() >= full_at
    }

    /// Memory of at least `len_bytes` bytes, aligned to 256, of no particular contents; cheapest if this stream uses it first.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`] after all pools have given back what they can, for which the host may wait; or the device is
    /// lost.
    pub fn allocate(&self, len_bytes: usize) -> Result<Block, CudaError> {
        Block::allocate(&self.gpu, self.lane, len_bytes)
    }

    /// Copies all of `from` into a block.
    ///
    /// # Errors
    ///
    /// If it does not fit, or the device is lost. The pinned memory is recycled.
    pub fn upload(&self, to: &Block, offset_bytes: usize, from: Pinned) -> Result<InFlight, CudaError> {
        to.check_range("an upload", offset_bytes, from.len())?;
        assert!(Arc::ptr_eq(from.machine(), &self.gpu.machine), "pinned memory is used with its own devices");
        let (address, source, len) = (to.address() + offset_bytes as u64, from.address(), from.len());
        let mark = self.submit("upload", "cuMemcpyHtoDAsync", std::iter::once(to), |stream| {
            // SAFETY: `from` is in flight from here on, so nobody touches it until the copy is done; the block notes its
            // use, so its memory stays; the range was checked.
            unsafe { stream.upload(address, source.as_ptr(), len) }
        });
        self.now_in_flight(from, mark)
    }

    /// Copies a part of a block over all of `to`.
    ///
    /// # Errors
    ///
    /// As [`upload`](Self::upload).
    pub fn download(&self, from: &Block, offset_bytes: usize, to: Pinned) -> Result<InFlight, CudaError> {
        from.check_range("a download", offset_bytes, to.len())?;
        assert!(Arc::ptr_eq(to.machine(), &self.gpu.machine), "pinned memory is used with its own devices");
        let (address, target, len) = (from.address() + offset_bytes as u64, to.address(), to.len());
        let mark = self.submit("download", "cuMemcpyDtoHAsync", std::iter::once(from), |stream| {
            // SAFETY: as in `upload`.
            unsafe { stream.download(target.as_ptr(), address, len) }
        });
        self.now_in_flight(to, mark)
    }

    /// Copies pinned memory, which somebody else keeps, into a block, from an offset on.
    ///
    /// # Errors
    ///
    /// As [`upload`](Self::upload).
    ///
    /// # Safety
    ///
    /// `from` are so many bytes of a [`Pinned`] of this machine, or registered with it, which stay, unchanged, until the mark is reached or the
    /// device lost.
    pub(super) unsafe fn upload_from(
        &self,
        (to, offset_bytes): (&Block, usize),
        (from, len_bytes): (NonNull<u8>, usize),
    ) -> Result<Mark, CudaError> {
        to.check_range("an upload", offset_bytes, len_bytes)?;
        let address = to.address() + offset_bytes as u64;
        self.submit("upload", "cuMemcpyHtoDAsync", std::iter::once(to), |stream| {
            // SAFETY: promised by the caller; the block notes its use, so its memory stays; the range was checked.
            unsafe { stream.upload(address, from.as_ptr(), len_bytes) }
        })
    }

    /// Copies a block, from an offset on, to pinned memory that somebody else keeps.
    ///
    /// # Errors
    ///
    /// As [`upload`](Self::upload).
    ///
    /// # Safety
    ///
    /// `to` are so many bytes of a [`Pinned`] of this machine, or registered with it, which stay, used by nobody, until the mark is reached or the
    /// device lost.
    pub(super) unsafe fn download_to(
        &self,
        (from, offset_bytes): (&Block, usize),
        (to, len_bytes): (NonNull<u8>, usize),
    ) -> Result<Mark, CudaError> {
        from.check_range("a download", offset_bytes, len_bytes)?;
        let address = from.address() + offset_bytes as u64;
        self.submit("download", "cuMemcpyDtoHAsync", std::iter::once(from), |stream| {
            // SAFETY: as in `upload_from`.
            unsafe { stream.download(to.as_ptr(), address, len_bytes) }
        })
    }

    fn now_in_flight(&self, pinned: Pinned, mark: Result<Mark, CudaError>) -> Result<InFlight, CudaError> {
        match mark {
            Ok(mark) => {
                // The host waits for this one. A fault shows when it asks.
                let _ = self.mark();
                Ok(pinned.in_flight(mark))
            }
            Err(error) => {
                // Should the driver have begun the copy all the same, it is over before the memory is seen again: because
                // the stream is done, or the device lost.
                let state = self.state();
                let _ = self.lane().synchronize(|| state.create_event());
                Err(error)
            }
        }
    }

    /// Copies between blocks, of this device or others.
    ///
    /// # Errors
    ///
    /// If a range does not fit, or this stream's device is lost.
    pub fn copy(
        &self,
        (to, to_offset): (&Block, usize),
        (from, from_offset): (&Block, usize),
        len_bytes: usize,
    ) -> Result<Mark, CudaError> {
        to.check_range("the target of a copy", to_offset, len_bytes)?;
        from.check_range("the source of a copy", from_offset, len_bytes)?;
        self.submit("copy", "cuMemcpyAsync", [to, from].into_iter(), |stream| {
            // SAFETY: both blocks note their use, so their memory stays; the ranges were checked.
            unsafe { copy(stream, (to, to_offset), (from, from_offset), len_bytes) }
        })
    }

    /// Sets every byte of a block.
    ///
    /// # Errors
    ///
    /// If the device is lost.
    pub fn fill(&self, block: &Block, value: u8) -> Result<Mark, CudaError> {
        self.fill_front(block, value, block.len_bytes())
    }

    /// Sets the first bytes of a block.
    ///
    /// # Errors
    ///
    /// If there are not so many, or the device is lost.
    pub fn fill_front(&self, block: &Block, value: u8, len_bytes: usize) -> Result<Mark, CudaError> {
        block.check_range("a fill", 0, len_bytes)?;
        self.submit("fill", "cuMemsetD8Async", std::iter::once(block), |stream| {
            // SAFETY: the block notes its use, so its memory stays; the range was checked.
            unsafe { stream.fill(block.address(), value, len_bytes) }
        })
    }

    /// Launches a kernel that touches `blocks`.
    ///
    /// # Errors
    ///
    /// [`CudaError::Launch`] if it cannot be launched so; or the device is lost.
    ///
    /// # Safety
    ///
    /// The kernel takes these parameters, and touches no memory but that of `blocks`, inside of their lengths.
    pub unsafe fn launch(
        &self,
        function: &Function,
        extent: &Extent,
        parameters: &Parameters,
        blocks: &[&Block],
    ) -> Result<Mark, CudaError> {
        if extent.is_empty() {
            return Ok(self.mark_at(self.lane().lock().submitted()));
        }
        check_reach(&self.gpu, function.name(), blocks)?;
        let shape = function.shape(self.state(), extent, parameters)?;
        let launched = self.submit(function.name(), "cuLaunchKernel", blocks.iter().copied(), |stream| {
            // SAFETY: promised by the caller; the blocks note their use, so their memory stays.
            unsafe { function.launch(stream, shape, extent.shared_bytes, parameters) }
        });
        launched.map_err(|error| refine(error, function.name(), shape))
    }

    /// Has `code` called when all that was given to the stream is done, on a thread of the driver's: to wake who sleeps.
    /// It costs more than asking for a mark, holds up the stream while it runs, and must not call the driver. It is
    /// never called if the device is lost: who sleeps looks after that now and then. A panic in it is lost.
    ///
    /// # Errors
    ///
    /// If the device is lost.
    pub fn notify(&self, code: impl FnOnce() + Send + 'static) -> Result<Mark, CudaError> {
        let code = Box::new(code);
        self.submit(NOTIFICATION, "cuLaunchHostFunc", std::iter::empty(), |stream| stream.notify(code))
    }

    /// A timer for work of this stream.
    pub(super) fn make_timer(&self) -> Option<Timer> {
        let make = || RawEvent::create_timed(&self.state().context).ok();
        Some(Timer { start: make()?, end: make()? })
    }

    /// Notes the time when all is done that the stream has been given: the start, and then the end. What the driver refuses leaves no
    /// time.
    pub(super) fn note_time(&self, timer: &Timer, is_end: bool) {
        let lane = self.lane();
        let _order = lane.lock();
        let _ = lane.raw().and_then(|raw| raw.record(if is_end { &timer.end } else { &timer.start }));
    }

    /// Runs code of others that gives work to the stream, by the driver's handle of it; the work comes after all that was
    /// given to the stream before, and counts as one operation that touches `blocks`. The code must return without waiting
    /// for the work. The device's context is current while it runs.
    ///
    /// # Errors
    ///
    /// If the device is lost.
    ///
    /// # Safety
    ///
    /// What the code gives to the stream touches no memory but that of `blocks`, and what the code keeps alive until it is
    /// done. The code does not end the stream's life, wait for it, or capture it.
    pub unsafe fn enqueue<R>(
        &self,
        label: &'static str,
        blocks: &[&Block],
        code: impl FnOnce(*mut c_void) -> R,
    ) -> Result<(R, Mark), CudaError> {
        let state = self.state();
        state.check()?;
        check_reach(&self.gpu, label, blocks)?;
        // The code runs without the lane's lock, as it may use this very stream. So the blocks are ordered first, and
        // noted by an operation of no calls that comes after.
        for block in blocks {
            block.each_before(self.gpu.index, self.lane, |mark| self.come_after(mark))?;
        }
        let raw = self.raw()?;
        raw.bind().map_err(|status| state.explain("cuCtxSetCurrent", status))?;
        let unbound = Unbound;
        let value = code(raw.address());
        drop(unbound);
        let mark = self.submit(label, "cuEventRecord", blocks.iter().copied(), |_| Ok(()))?;
        Ok((value, mark))
    }
}

/// Forgets, also when the code panics, which context is current.
struct Unbound;

impl Drop for Unbound {
    fn drop(&mut self) {
        forget_bound();
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Stream({} of {})", self.lane, self.gpu.name())
    }
}

/// Fails unless kernels of the device can touch all blocks.
pub(super) fn check_reach(gpu: &Gpu, kernel: &'static str, blocks: &[&Block]) -> Result<(), CudaError> {
    let Some(far) = blocks.iter().find(|block| !gpu.reaches(block.gpu())) else { return Ok(()) };
    let reason = format!("it cannot reach memory of {}; copy the block over first", far.gpu().name());
    Err(CudaError::Launch { kernel, device: gpu.state().name.clone(), reason })
}

/// A refused launch, with its shape.
pub(super) fn refine(error: CudaError, kernel: &'static str, shape: ([u32; 3], [u32; 3])) -> CudaError {
    match error {
        CudaError::Call { device, status, call: "cuLaunchKernel" } => {
            let reason = format!("grid {:?}, block {:?}: {status}", shape.0, shape.1);
            CudaError::Launch { kernel, device, reason }
        }
        other => other,
    }
}

/// Copies between blocks on a stream.
///
/// # Safety
///
/// The ranges are inside of the blocks, whose memory stays until the copy is done.
pub(super) unsafe fn copy(
    stream: &RawStream,
    (to, to_offset): (&Block, usize),
    (from, from_offset): (&Block, usize),
    len_bytes: usize,
) -> Answer<()> {
    let end = |block: &Block, offset: usize| block.address() + offset as u64;
    let (to_context, from_context) = (&to.gpu().state().context, &from.gpu().state().context);
    let (to, from) = (end(to, to_offset), end(from, from_offset));
    // SAFETY: promised by the caller.
    unsafe { stream.copy((to, to_context), (from, from_context), len_bytes) }
}
