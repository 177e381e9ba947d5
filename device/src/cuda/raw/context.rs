//! Contexts: one per device, retained while anything made in it lives, made current only when it is not.

use std::cell::Cell;
use std::ffi::c_int;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::{Answer, Status, check, written};

thread_local! {
    /// The token of the context that this thread has made current last; null if it may be another.
    static BOUND: Cell<*const u8> = const { Cell::new(std::ptr::null()) };
}

/// Notes that the current context of this thread may have been changed by others.
pub(in crate::cuda) fn forget_bound() {
    BOUND.set(std::ptr::null());
}

/// The primary context of a device, retained.
pub(in crate::cuda) struct Context {
    device: sys::CUdevice,
    pub(in crate::cuda::raw) handle: sys::CUcontext,
    /// One leaked byte. Its address is this context's name, and never that of another one, which the driver may give the
    /// same handle.
    token: &'static u8,
}

// SAFETY: a context may be used by any thread.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub(in crate::cuda) fn retain(device: sys::CUdevice) -> Answer<Arc<Context>> {
        // SAFETY: the context is written.
        let handle = unsafe { written(|context| sys::cuDevicePrimaryCtxRetain(context, device)) }?;
        Ok(Arc::new(Context { device, handle, token: Box::leak(Box::new(0)) }))
    }

    /// Makes it this thread's current context.
    #[inline]
    pub(in crate::cuda) fn bind(&self) -> Answer<()> {
        if BOUND.get() == std::ptr::from_ref(self.token) {
            return Ok(());
        }
        // SAFETY: the context is retained.
        check(unsafe { sys::cuCtxSetCurrent(self.handle) })?;
        BOUND.set(self.token);
        Ok(())
    }

    /// Free and total bytes of the device.
    pub(in crate::cuda) fn memory(&self) -> Answer<(usize, usize)> {
        self.bind()?;
        let mut total = 0;
        // SAFETY: both are written.
        let free = unsafe { written(|free| sys::cuMemGetInfo_v2(free, &mut total)) }?;
        Ok((free, total))
    }

    /// Lowest and highest priority of streams.
    pub(in crate::cuda) fn priorities(&self) -> Answer<(c_int, c_int)> {
        self.bind()?;
        let mut highest = 0;
        // SAFETY: both are written.
        let lowest = unsafe { written(|lowest| sys::cuCtxGetStreamPriorityRange(lowest, &mut highest)) }?;
        Ok((lowest, highest))
    }

    /// Lets kernels of this context touch the memory of `peer`; whether they can.
    pub(in crate::cuda) fn enable_peer(&self, peer: &Context) -> Answer<bool> {
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
