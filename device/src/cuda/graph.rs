//! Graphs: launches recorded once and replayed by one call.
//!
//! A device has one stream that records, which is given nothing else; so recording needs no care of others. A graph keeps
//! the blocks of its nodes, and each replay notes their use like a launch.

use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard};

use super::error::CudaError;
use super::kernel::{Extent, Function, Parameters};
use super::lane::Mark;
use super::machine::Gpu;
use super::memory::Block;
use super::raw::{RawExecutable, RawGraph, RawStream, Status, forget_bound};
use super::stream::{self, Stream};

/// Records work for a graph instead of running it.
pub struct Recording<'a> {
    gpu: &'a Gpu,
    stream: MutexGuard<'a, RawStream>,
    blocks: Vec<Block>,
    is_open: bool,
}

/// Work that is replayed as a whole.
pub struct Graph {
    gpu: Gpu,
    label: &'static str,
    /// The driver does not allow two threads to launch it at once.
    executable: Mutex<RawExecutable>,
    blocks: Vec<Block>,
}

impl Gpu {
    /// Records what `body` gives to the recording and makes a graph of it.
    ///
    /// # Errors
    ///
    /// What `body` returns, or what the driver says.
    pub fn record(
        &self,
        label: &'static str,
        body: impl FnOnce(&mut Recording<'_>) -> Result<(), CudaError>,
    ) -> Result<Graph, CudaError> {
        let (graph, blocks) = self.capture(body)?;
        let executable = RawExecutable::instantiate(&graph);
        let executable = executable.map_err(|status| self.state().explain("cuGraphInstantiate", status))?;
        Ok(Graph { gpu: self.clone(), label, executable: Mutex::new(executable), blocks })
    }

    fn capture(
        &self,
        body: impl FnOnce(&mut Recording<'_>) -> Result<(), CudaError>,
    ) -> Result<(RawGraph, Vec<Block>), CudaError> {
        let state = self.state();
        state.check()?;
        let stream = state.recorder()?;
        stream.begin_capture().map_err(|status| state.explain("cuStreamBeginCapture", status))?;
        let mut recording = Recording { gpu: self, stream, blocks: Vec::new(), is_open: true };
        let outcome = body(&mut recording);
        recording.is_open = false;
        let graph = recording.stream.end_capture();
        let mut blocks = std::mem::take(&mut recording.blocks);
        blocks.sort_unstable_by_key(Block::identity);
        blocks.dedup_by_key(|block| block.identity());
        outcome?;
        let graph = graph.map_err(|status| state.explain("cuStreamEndCapture", status))?;
        Ok((graph, blocks))
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if self.is_open {
            // The body has panicked.
            drop(self.stream.end_capture());
        }
    }
}

impl Recording<'_> {
    fn keep(
        &mut self,
        call: &'static str,
        blocks: &[&Block],
        answer: Result<(), Status>,
    ) -> Result<(), CudaError> {
        self.blocks.extend(blocks.iter().copied().cloned());
        answer.map_err(|status| self.gpu.state().explain(call, status))
    }

    /// Records a launch; see [`Stream::launch`].
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Safety
    ///
    /// As there, at each replay.
    pub unsafe fn launch(
        &mut self,
        function: &Function,
        extent: &Extent,
        parameters: &Parameters,
        blocks: &[&Block],
    ) -> Result<(), CudaError> {
        if extent.is_empty() {
            return Ok(());
        }
        stream::check_reach(self.gpu, function.name(), blocks)?;
        let shape = function.shape(self.gpu.state(), extent, parameters)?;
        // SAFETY: promised by the caller; the graph keeps the blocks.
        let answer = unsafe { function.launch(&self.stream, shape, extent.shared_bytes, parameters) };
        let kept = self.keep("cuLaunchKernel", blocks, answer);
        kept.map_err(|error| stream::refine(error, function.name(), shape))
    }

    /// Records a copy between blocks.
    ///
    /// # Errors
    ///
    /// If a range does not fit.
    pub fn copy(
        &mut self,
        (to, to_offset): (&Block, usize),
        (from, from_offset): (&Block, usize),
        len_bytes: usize,
    ) -> Result<(), CudaError> {
        to.check_range("the target of a copy", to_offset, len_bytes)?;
        from.check_range("the source of a copy", from_offset, len_bytes)?;
        // SAFETY: the ranges were checked; the graph keeps the blocks.
        let answer = unsafe { stream::copy(&self.stream, (to, to_offset), (from, from_offset), len_bytes) };
        self.keep("cuMemcpyAsync", &[to, from], answer)
    }

    /// Records that every byte of a block is set.
    ///
    /// # Errors
    ///
    /// If the driver refuses.
    pub fn fill(&mut self, block: &Block, value: u8) -> Result<(), CudaError> {
        // SAFETY: the graph keeps the block.
        let answer = unsafe { self.stream.fill(block.address(), value, block.len_bytes()) };
        self.keep("cuMemsetD8Async", &[block], answer)
    }

    /// Makes the graph keep nothing of what has been recorded.
    ///
    /// # Safety
    ///
    /// Whoever replays the graph keeps the blocks until the replay is done, and orders what is done to them.
    pub(super) unsafe fn forget_blocks(&mut self) {
        self.blocks.clear();
    }

    /// Records what code of others gives to the recording stream; see [`Stream::enqueue`].
    ///
    /// # Errors
    ///
    /// If the context cannot be made current.
    ///
    /// # Safety
    ///
    /// As there, at each replay; and all of it can be captured.
    pub unsafe fn enqueue<R>(
        &mut self,
        blocks: &[&Block],
        code: impl FnOnce(*mut c_void) -> R,
    ) -> Result<R, CudaError> {
        let bound = self.stream.bind();
        self.keep("cuCtxSetCurrent", blocks, bound)?;
        let value = code(self.stream.address());
        forget_bound();
        Ok(value)
    }
}

impl Graph {
    /// Records anew, for other blocks or parameters. If the kinds of work and their order are the same, the graph is
    /// patched, else made again. Replays that were submitted are not touched. Whether it was patched.
    ///
    /// # Errors
    ///
    /// As [`Gpu::record`]; the graph is as it was.
    pub fn update(
        &mut self,
        body: impl FnOnce(&mut Recording<'_>) -> Result<(), CudaError>,
    ) -> Result<bool, CudaError> {
        let (graph, blocks) = self.gpu.capture(body)?;
        let explain = |status: Status| self.gpu.state().explain("cuGraphExecUpdate", status);
        let executable = self.executable.get_mut().expect("nothing panics under this lock");
        let is_patched = executable.update(&graph).map_err(explain)?;
        if !is_patched {
            *executable = RawExecutable::instantiate(&graph).map_err(explain)?;
        }
        self.blocks = blocks;
        Ok(is_patched)
    }
}

impl Stream {
    /// Replays a graph, as one operation.
    ///
    /// # Errors
    ///
    /// [`CudaError::Launch`] if it was recorded on another device; or the device is lost.
    pub fn replay(&self, graph: &Graph) -> Result<Mark, CudaError> {
        if graph.gpu.index != self.gpu.index {
            let (kernel, device) = (graph.label, self.gpu.state().name.clone());
            return Err(CudaError::Launch {
                kernel,
                device,
                reason: "it was recorded on another device".to_owned(),
            });
        }
        self.submit(graph.label, "cuGraphLaunch", graph.blocks.iter(), |stream| {
            let executable = graph.executable.lock().expect("nothing panics under this lock");
            // SAFETY: whoever recorded has promised it of each replay; the blocks note their use, so their memory stays.
            unsafe { stream.launch_graph(&executable) }
        })
    }
}
