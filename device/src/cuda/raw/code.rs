//! Code that is loaded, and graphs of its launches.

use std::ffi::{CStr, c_void};
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

/// Bytes of what the driver's compiler has to say that are kept.
const LOG_BYTES: usize = 16 << 10;

/// Code that was not loaded.
pub(in crate::cuda) struct Refusal {
    pub(in crate::cuda) status: Status,
    /// It was loaded, and has no kernel of the name.
    pub(in crate::cuda) is_without_kernel: bool,
    /// What the driver's compiler wrote; empty if it had nothing to compile, or to say.
    pub(in crate::cuda) log: String,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Refusal {
        Refusal { status, is_without_kernel: false, log: String::new() }
    }
}

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
    ) -> Result<RawFunction, Refusal> {
        context.bind()?;
        let mut log = vec![0_u8; LOG_BYTES];
        let mut options = [
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER,
            sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ];
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(LOG_BYTES)];
        let (count, image) = (options.len() as u32, image.as_ptr().cast());
        let load = |module| {
            // SAFETY: the image is complete, as the caller promises; both lists have `count` entries; the log has room for as
            // much as is said; the module is written.
            unsafe {
                sys::cuModuleLoadDataEx(module, image, count, options.as_mut_ptr(), values.as_mut_ptr())
            }
        };
        // SAFETY: as above.
        let module = unsafe { written(load) };
        let module = module.map_err(|status| Refusal { log: text_of(&log), ..status.into() })?;
        let module = RawModule { context: context.clone(), handle: module };
        // SAFETY: the module is live; the function is written.
        let handle =
            unsafe { written(|function| sys::cuModuleGetFunction(function, module.handle, name.as_ptr())) };
        let refused = |status: Status| Refusal { is_without_kernel: status.is_not_found(), ..status.into() };
        Ok(RawFunction { handle: handle.map_err(refused)?, module })
    }

    /// Lets its blocks have so much dynamic shared memory.
    pub(in crate::cuda) fn allow_shared(&self, bytes: u32) -> Answer<()> {
        self.module.context.bind()?;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
        // SAFETY: the function is live.
        check(unsafe { sys::cuFuncSetAttribute(self.handle, attribute, bytes) })
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

/// The text of a buffer that a C string was written to, or nothing.
fn text_of(buffer: &[u8]) -> String {
    let text = buffer.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).trim().to_owned()
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
