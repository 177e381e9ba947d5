//! Code that is loaded, and graphs of its launches.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::{Answer, Context, Status, check, owned, written};

owned!(
    /// Loaded code.
    RawModule(sys::CUmodule),
    sys::cuModuleUnload
);
owned!(
    /// A captured graph.
    RawGraph(sys::CUgraph),
    sys::cuGraphDestroy
);
owned!(
    /// A graph that can be launched.
    RawExecutable(sys::CUgraphExec),
    sys::cuGraphExecDestroy
);

/// The code of a kernel, in a loaded module that it keeps.
pub(in crate::cuda) struct RawFunction {
    pub(in crate::cuda::raw) handle: sys::CUfunction,
    module: RawModule,
}

// SAFETY: the driver's handles may be used by any thread.
unsafe impl Send for RawFunction {}
// SAFETY: as above.
unsafe impl Sync for RawFunction {}

impl RawFunction {
    /// Loads an image (a cubin, or a text that ends with a zero byte) and finds a kernel in it.
    ///
    /// # Safety
    ///
    /// The image is complete: the driver is not told its length.
    pub(in crate::cuda) unsafe fn load(
        context: &Arc<Context>,
        image: &[u8],
        name: &CStr,
    ) -> Answer<RawFunction> {
        context.bind()?;
        // SAFETY: the image is complete, as the caller promises; the module is written.
        let module = unsafe { written(|module| sys::cuModuleLoadData(module, image.as_ptr().cast())) }?;
        let module = RawModule { context: context.clone(), handle: module };
        // SAFETY: the module is live; the function is written.
        let handle =
            unsafe { written(|function| sys::cuModuleGetFunction(function, module.handle, name.as_ptr())) }?;
        Ok(RawFunction { handle, module })
    }

    /// Threads of a block that fill the device best.
    pub(in crate::cuda) fn best_block(&self, shared_bytes: usize) -> Answer<u32> {
        self.module.context.bind()?;
        let mut block = 0;
        // SAFETY: the function is live; both results are written.
        unsafe {
            written(|grid| {
                sys::cuOccupancyMaxPotentialBlockSize(grid, &mut block, self.handle, None, shared_bytes, 0)
            })
        }?;
        Ok(block.max(1) as u32)
    }
}

impl RawExecutable {
    pub(in crate::cuda) fn instantiate(graph: &RawGraph) -> Answer<RawExecutable> {
        graph.context.bind()?;
        // SAFETY: the graph is live; the executable is written.
        let handle =
            unsafe { written(|executable| sys::cuGraphInstantiateWithFlags(executable, graph.handle, 0)) }?;
        Ok(RawExecutable { context: graph.context.clone(), handle })
    }

    /// Gives its later launches the nodes of `graph`; whether the two are alike enough.
    pub(in crate::cuda) fn update(&self, graph: &RawGraph) -> Answer<bool> {
        self.context.bind()?;
        let mut outcome = MaybeUninit::uninit();
        // SAFETY: both are live.
        match check(unsafe { sys::cuGraphExecUpdate_v2(self.handle, graph.handle, outcome.as_mut_ptr()) }) {
            Ok(()) => Ok(true),
            Err(Status(CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE)) => Ok(false),
            Err(status) => Err(status),
        }
    }
}
