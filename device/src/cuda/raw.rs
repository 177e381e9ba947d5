//! The driver's functions, each called in one place, and the handles that they give, each owned by one value.
//!
//! A value here keeps its context alive, binds it before each call, and gives itself back when it is dropped. What is
//! `unsafe` here is so because memory is touched later than the call returns; who may touch which memory is decided by the
//! callers (`memory`, `pinned`).

use std::cell::Cell;
use std::ffi::{CStr, c_int, c_uint, c_void};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

/// A result code of the driver other than success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(CUresult);

impl Status {
    /// Whether the context is lost with it.
    pub fn is_sticky(self) -> bool {
        use CUresult::*;
        matches!(
            self.0,
            CUDA_ERROR_ILLEGAL_ADDRESS
                | CUDA_ERROR_LAUNCH_TIMEOUT
                | CUDA_ERROR_ASSERT
                | CUDA_ERROR_HARDWARE_STACK_ERROR
                | CUDA_ERROR_ILLEGAL_INSTRUCTION
                | CUDA_ERROR_MISALIGNED_ADDRESS
                | CUDA_ERROR_INVALID_ADDRESS_SPACE
                | CUDA_ERROR_INVALID_PC
                | CUDA_ERROR_LAUNCH_FAILED
                | CUDA_ERROR_ECC_UNCORRECTABLE
                | CUDA_ERROR_NVLINK_UNCORRECTABLE
                | CUDA_ERROR_CONTEXT_IS_DESTROYED
                | CUDA_ERROR_EXTERNAL_DEVICE
                | CUDA_ERROR_UNKNOWN
        )
    }

    /// Whether there was not enough memory.
    pub(super) fn is_out_of_memory(self) -> bool {
        self.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
    }

    pub(super) fn is_no_device(self) -> bool {
        self.0 == CUresult::CUDA_ERROR_NO_DEVICE
    }

    pub(super) fn is_not_found(self) -> bool {
        self.0 == CUresult::CUDA_ERROR_NOT_FOUND
    }

    fn text(
        self,
        ask: unsafe fn(CUresult, *mut *const std::ffi::c_char) -> CUresult,
    ) -> Option<&'static str> {
        let mut text = std::ptr::null();
        // SAFETY: the driver writes the address of a constant string, or none.
        let status = unsafe { ask(self.0, &mut text) };
        if status != CUresult::CUDA_SUCCESS || text.is_null() {
            return None;
        }
        // SAFETY: as above.
        unsafe { CStr::from_ptr(text) }.to_str().ok()
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.text(sys::cuGetErrorName), self.text(sys::cuGetErrorString)) {
            (Some(name), Some(text)) => write!(f, "{name} ({text})"),
            _ => write!(f, "code {}", self.0 as u32),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What a driver's function says.
pub(super) type Answer<T> = Result<T, Status>;

fn check(code: CUresult) -> Answer<()> {
    if code == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(Status(code)) }
}

/// Calls a function that writes its result through its first argument.
///
/// # Safety
///
/// On success, `call` has written a value.
unsafe fn written<T>(call: impl FnOnce(*mut T) -> CUresult) -> Answer<T> {
    let mut place = MaybeUninit::uninit();
    check(call(place.as_mut_ptr()))?;
    // SAFETY: promised by the caller.
    Ok(unsafe { place.assume_init() })
}

/// Whether there is a driver. Nothing else here may be called if there is none.
pub(super) fn has_driver() -> bool {
    // SAFETY: loads the driver's library, if there is one.
    unsafe { sys::is_culib_present() }
}

pub(super) fn init() -> Answer<()> {
    // SAFETY: there is a driver (`has_driver`).
    check(unsafe { sys::cuInit(0) })
}

/// The version of CUDA that the driver has, as 1000 * major + 10 * minor.
pub(super) fn driver_version() -> Answer<c_int> {
    // SAFETY: the version is written.
    unsafe { written(|version| sys::cuDriverGetVersion(version)) }
}

pub(super) fn device_count() -> Answer<c_int> {
    // SAFETY: the count is written.
    unsafe { written(|count| sys::cuDeviceGetCount(count)) }
}

/// What the driver says about a device.
pub(super) struct Description {
    pub(super) device: sys::CUdevice,
    pub(super) name: String,
    pub(super) uuid: [u8; 16],
    pub(super) total_bytes: usize,
    pub(super) capability: (u32, u32),
    pub(super) multiprocessor_count: u32,
    pub(super) max_threads_of_block: u32,
}

pub(super) fn describe(ordinal: c_int) -> Answer<Description> {
    use sys::CUdevice_attribute::*;
    let mut name = [0_u8; 256];
    // SAFETY: each function writes its result; the name's buffer has the length that is told.
    unsafe {
        let device = written(|device| sys::cuDeviceGet(device, ordinal))?;
        let attribute =
            |which| written(|value| sys::cuDeviceGetAttribute(value, which, device)).map(|v| v as u32);
        check(sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as c_int, device))?;
        let uuid = written(|uuid| sys::cuDeviceGetUuid_v2(uuid, device))?;
        Ok(Description {
            device,
            name: CStr::from_bytes_until_nul(&name).unwrap_or_default().to_string_lossy().into_owned(),
            uuid: uuid.bytes.map(|byte| byte as u8),
            total_bytes: written(|bytes| sys::cuDeviceTotalMem_v2(bytes, device))?,
            capability: (
                attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
                attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
            ),
            multiprocessor_count: attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            max_threads_of_block: attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
        })
    }
}

thread_local! {
    /// The token of the context that this thread has made current last; null if it may be another.
    static BOUND: Cell<*const u8> = const { Cell::new(std::ptr::null()) };
}

/// Notes that the current context of this thread may have been changed by others.
pub(super) fn forget_bound() {
    BOUND.set(std::ptr::null());
}

/// The primary context of a device, retained.
pub(super) struct Context {
    device: sys::CUdevice,
    handle: sys::CUcontext,
    /// One leaked byte. Its address is this context's name, and never that of another one, which the driver may give the
    /// same handle.
    token: &'static u8,
}

// SAFETY: a context may be used by any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn retain(device: sys::CUdevice) -> Answer<Arc<Context>> {
        // SAFETY: the context is written.
        let handle = unsafe { written(|context| sys::cuDevicePrimaryCtxRetain(context, device)) }?;
        Ok(Arc::new(Context { device, handle, token: Box::leak(Box::new(0)) }))
    }

    /// Makes it this thread's current context.
    #[inline]
    pub(super) fn bind(&self) -> Answer<()> {
        if BOUND.get() == std::ptr::from_ref(self.token) {
            return Ok(());
        }
        // SAFETY: the context is retained.
        check(unsafe { sys::cuCtxSetCurrent(self.handle) })?;
        BOUND.set(self.token);
        Ok(())
    }

    /// Free and total bytes of the device.
    pub(super) fn memory(&self) -> Answer<(usize, usize)> {
        self.bind()?;
        let mut total = 0;
        // SAFETY: both are written.
        let free = unsafe { written(|free| sys::cuMemGetInfo_v2(free, &mut total)) }?;
        Ok((free, total))
    }

    /// Lowest and highest priority of streams.
    pub(super) fn priorities(&self) -> Answer<(c_int, c_int)> {
        self.bind()?;
        let mut highest = 0;
        // SAFETY: both are written.
        let lowest = unsafe { written(|lowest| sys::cuCtxGetStreamPriorityRange(lowest, &mut highest)) }?;
        Ok((lowest, highest))
    }

    /// Lets kernels of this context touch the memory of `peer`; whether they can.
    pub(super) fn enable_peer(&self, peer: &Context) -> Answer<bool> {
        // SAFETY: the answer is written.
        let can = unsafe { written(|can| sys::cuDeviceCanAccessPeer(can, self.device, peer.device)) }?;
        if can == 0 {
            return Ok(false);
        }
        self.bind()?;
        // SAFETY: the peer's context is retained.
        match check(unsafe { sys::cuCtxEnablePeerAccess(peer.handle, 0) }) {
            Ok(()) | Err(Status(CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED)) => Ok(true),
            Err(Status(
                CUresult::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED | CUresult::CUDA_ERROR_TOO_MANY_PEERS,
            )) => Ok(false),
            Err(status) => Err(status),
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: everything made in it kept it alive. What the driver says is no use any more.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// Defines an owned handle of the driver.
macro_rules! owned {
    ($(#[$doc:meta])* $name:ident($handle:ty), $destroy:path) => {
        $(#[$doc])*
        pub(super) struct $name {
            context: Arc<Context>,
            handle: $handle,
        }

        // SAFETY: the driver's handles may be used by any thread.
        unsafe impl Send for $name {}
        // SAFETY: as above.
        unsafe impl Sync for $name {}

        impl Drop for $name {
            fn drop(&mut self) {
                if self.context.bind().is_ok() {
                    // SAFETY: the handle is ours and live. A faulted context answers with its fault.
                    let _ = unsafe { $destroy(self.handle) };
                }
            }
        }
    };
}

owned!(
    /// A stream that does not wait for the null stream.
    RawStream(sys::CUstream),
    sys::cuStreamDestroy_v2
);
owned!(
    /// An event without timing.
    RawEvent(sys::CUevent),
    sys::cuEventDestroy_v2
);
owned!(
    /// Device memory of the driver's.
    DeviceMemory(sys::CUdeviceptr),
    sys::cuMemFree_v2
);
owned!(
    /// Device memory of another process.
    ImportedMemory(sys::CUdeviceptr),
    sys::cuIpcCloseMemHandle
);
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

/// What is known of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Query {
    Ready,
    Pending,
    Failed(Status),
}

impl RawEvent {
    pub(super) fn create(context: &Arc<Context>) -> Answer<RawEvent> {
        context.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint;
        // SAFETY: the event is written.
        let handle = unsafe { written(|event| sys::cuEventCreate(event, flags)) }?;
        Ok(RawEvent { context: context.clone(), handle })
    }

    pub(super) fn query(&self) -> Query {
        if let Err(status) = self.context.bind() {
            return Query::Failed(status);
        }
        // SAFETY: the event is live.
        match unsafe { sys::cuEventQuery(self.handle) } {
            CUresult::CUDA_SUCCESS => Query::Ready,
            CUresult::CUDA_ERROR_NOT_READY => Query::Pending,
            code => Query::Failed(Status(code)),
        }
    }
}

/// The code of a kernel, in a loaded module that it keeps.
pub(super) struct RawFunction {
    handle: sys::CUfunction,
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
    pub(super) unsafe fn load(context: &Arc<Context>, image: &[u8], name: &CStr) -> Answer<RawFunction> {
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
    pub(super) fn best_block(&self, shared_bytes: usize) -> Answer<u32> {
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

impl RawStream {
    pub(super) fn create(context: &Arc<Context>, priority: c_int) -> Answer<RawStream> {
        context.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: the stream is written.
        let handle = unsafe { written(|stream| sys::cuStreamCreateWithPriority(stream, flags, priority)) }?;
        Ok(RawStream { context: context.clone(), handle })
    }

    /// The handle, for code of others.
    pub(super) fn address(&self) -> *mut c_void {
        self.handle.cast()
    }

    pub(super) fn bind(&self) -> Answer<()> {
        self.context.bind()
    }

    pub(super) fn record(&self, event: &RawEvent) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: both are live.
        check(unsafe { sys::cuEventRecord(event.handle, self.handle) })
    }

    pub(super) fn wait(&self, event: &RawEvent) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: both are live.
        check(unsafe { sys::cuStreamWaitEvent(self.handle, event.handle, 0) })
    }

    /// Waits on the host until all that was submitted is done.
    pub(super) fn synchronize(&self) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: the stream is live.
        check(unsafe { sys::cuStreamSynchronize(self.handle) })
    }

    /// # Safety
    ///
    /// `from` is pinned and stays, unchanged, until the copy is done; `to` has `len_bytes` bytes until then.
    pub(super) unsafe fn upload(&self, to: u64, from: *const u8, len_bytes: usize) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller.
        check(unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), len_bytes, self.handle) })
    }

    /// # Safety
    ///
    /// `to` is pinned and nobody else's until the copy is done; `from` has `len_bytes` bytes until then.
    pub(super) unsafe fn download(&self, to: *mut u8, from: u64, len_bytes: usize) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller.
        check(unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, len_bytes, self.handle) })
    }

    /// Copies between devices or inside of one.
    ///
    /// # Safety
    ///
    /// Both have `len_bytes` bytes until the copy is done.
    pub(super) unsafe fn copy(
        &self,
        (to, to_context): (u64, &Context),
        (from, from_context): (u64, &Context),
        len_bytes: usize,
    ) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller; the contexts are retained.
        check(unsafe {
            if std::ptr::eq(to_context, from_context) {
                sys::cuMemcpyDtoDAsync_v2(to, from, len_bytes, self.handle)
            } else {
                sys::cuMemcpyPeerAsync(
                    to,
                    to_context.handle,
                    from,
                    from_context.handle,
                    len_bytes,
                    self.handle,
                )
            }
        })
    }

    /// # Safety
    ///
    /// `to` has `len_bytes` bytes until the fill is done.
    pub(super) unsafe fn fill(&self, to: u64, value: u8, len_bytes: usize) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller.
        check(unsafe { sys::cuMemsetD8Async(to, value, len_bytes, self.handle) })
    }

    /// # Safety
    ///
    /// The kernel takes these parameters, and what they point to lives until it is done.
    pub(super) unsafe fn launch(
        &self,
        function: &RawFunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        parameters: &mut [*mut c_void],
    ) -> Answer<()> {
        self.context.bind()?;
        let ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]) = (grid, block);
        let (parameters, extra) = (parameters.as_mut_ptr(), std::ptr::null_mut());
        // SAFETY: promised by the caller; the function is loaded.
        check(unsafe {
            sys::cuLaunchKernel(
                function.handle,
                grid_x,
                grid_y,
                grid_z,
                block_x,
                block_y,
                block_z,
                shared_bytes,
                self.handle,
                parameters,
                extra,
            )
        })
    }

    /// What this stream is given goes into a graph until [`end_capture`](Self::end_capture).
    pub(super) fn begin_capture(&self) -> Answer<()> {
        self.context.bind()?;
        // Relaxed: other threads, and this one for other streams, go on as ever.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is live.
        check(unsafe { sys::cuStreamBeginCapture_v2(self.handle, mode) })
    }

    pub(super) fn end_capture(&self) -> Answer<RawGraph> {
        self.context.bind()?;
        // SAFETY: the stream is live; the graph is written.
        let handle = unsafe { written(|graph| sys::cuStreamEndCapture(self.handle, graph)) }?;
        Ok(RawGraph { context: self.context.clone(), handle })
    }

    /// # Safety
    ///
    /// What the graph's nodes use lives until it is done.
    pub(super) unsafe fn launch_graph(&self, executable: &RawExecutable) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller; both are live.
        check(unsafe { sys::cuGraphLaunch(executable.handle, self.handle) })
    }
}

impl RawExecutable {
    pub(super) fn instantiate(graph: &RawGraph) -> Answer<RawExecutable> {
        graph.context.bind()?;
        // SAFETY: the graph is live; the executable is written.
        let handle =
            unsafe { written(|executable| sys::cuGraphInstantiateWithFlags(executable, graph.handle, 0)) }?;
        Ok(RawExecutable { context: graph.context.clone(), handle })
    }

    /// Gives its later launches the nodes of `graph`; whether the two are alike enough.
    pub(super) fn update(&self, graph: &RawGraph) -> Answer<bool> {
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

impl DeviceMemory {
    pub(super) fn allocate(context: &Arc<Context>, len_bytes: usize) -> Answer<DeviceMemory> {
        context.bind()?;
        // SAFETY: the address is written.
        let handle = unsafe { written(|address| sys::cuMemAlloc_v2(address, len_bytes)) }?;
        Ok(DeviceMemory { context: context.clone(), handle })
    }

    pub(super) fn address(&self) -> u64 {
        self.handle
    }

    /// The name by which another process can open it.
    pub(super) fn export(&self) -> Answer<[u8; 64]> {
        self.context.bind()?;
        // SAFETY: the memory is live; the handle is written.
        let handle = unsafe { written(|handle| sys::cuIpcGetMemHandle(handle, self.handle)) }?;
        Ok(handle.reserved.map(|byte| byte as u8))
    }
}

impl ImportedMemory {
    pub(super) fn open(context: &Arc<Context>, handle: [u8; 64]) -> Answer<ImportedMemory> {
        context.bind()?;
        let handle = sys::CUipcMemHandle { reserved: handle.map(|byte| byte as std::ffi::c_char) };
        let flags = sys::CUipcMem_flags_enum::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as c_uint;
        // SAFETY: the address is written.
        let address = unsafe { written(|address| sys::cuIpcOpenMemHandle_v2(address, handle, flags)) }?;
        Ok(ImportedMemory { context: context.clone(), handle: address })
    }

    pub(super) fn address(&self) -> u64 {
        self.handle
    }
}

/// Host memory that devices can copy from and to at any time.
pub(super) struct HostMemory {
    context: Arc<Context>,
    address: NonNull<u8>,
}

// SAFETY: plain memory; who may touch it is decided by `pinned`.
unsafe impl Send for HostMemory {}

impl HostMemory {
    pub(super) fn allocate(context: &Arc<Context>, len_bytes: usize) -> Answer<HostMemory> {
        context.bind()?;
        // For all devices; cached by the host, which write-combined memory is not.
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: the address is written.
        let address = unsafe { written(|address| sys::cuMemHostAlloc(address, len_bytes, flags)) }?;
        let address: NonNull<u8> =
            NonNull::new(address.cast()).ok_or(Status(CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        // SAFETY: the memory is new and has this length. Bytes that the host may read must be initialised.
        unsafe { address.write_bytes(0, len_bytes) };
        Ok(HostMemory { context: context.clone(), address })
    }

    pub(super) fn address(&self) -> NonNull<u8> {
        self.address
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: the memory is ours, and no copy uses it (`arena`).
            let _ = unsafe { sys::cuMemFreeHost(self.address.as_ptr().cast()) };
        }
    }
}
