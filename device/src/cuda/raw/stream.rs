//! Streams and events: what is given to a device, and how far it has got.

use std::ffi::{c_int, c_uint, c_void};
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::{Answer, Context, RawExecutable, RawFunction, RawGraph, Status, check, owned, written};

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

/// The parameters of a launch.
pub(in crate::cuda) enum RawParameters<'a> {
    /// The address of each.
    Each(&'a mut [*mut c_void]),
    /// All, one after the other as in a C struct.
    Packed(&'a [u8]),
}

/// What is known of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) enum Query {
    Ready,
    Pending,
    Failed(Status),
}

impl RawEvent {
    pub(in crate::cuda) fn create(context: &Arc<Context>) -> Answer<RawEvent> {
        context.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING as c_uint;
        // SAFETY: the event is written.
        let handle = unsafe { written(|event| sys::cuEventCreate(event, flags)) }?;
        Ok(RawEvent { context: context.clone(), handle })
    }

    /// One that notes the time at which it is complete.
    pub(in crate::cuda) fn create_timed(context: &Arc<Context>) -> Answer<RawEvent> {
        context.bind()?;
        let flags = sys::CUevent_flags::CU_EVENT_DEFAULT as c_uint;
        // SAFETY: the event is written.
        let handle = unsafe { written(|event| sys::cuEventCreate(event, flags)) }?;
        Ok(RawEvent { context: context.clone(), handle })
    }

    /// Milliseconds from `start` to this event. Both are complete, and note their times.
    pub(in crate::cuda) fn since(&self, start: &RawEvent) -> Answer<f32> {
        self.context.bind()?;
        // SAFETY: both are live; the time is written.
        unsafe { written(|time| sys::cuEventElapsedTime_v2(time, start.handle, self.handle)) }
    }

    pub(in crate::cuda) fn query(&self) -> Query {
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

impl RawStream {
    pub(in crate::cuda) fn create(context: &Arc<Context>, priority: c_int) -> Answer<RawStream> {
        context.bind()?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: the stream is written.
        let handle = unsafe { written(|stream| sys::cuStreamCreateWithPriority(stream, flags, priority)) }?;
        Ok(RawStream { context: context.clone(), handle })
    }

    /// The handle, for code of others.
    pub(in crate::cuda) fn address(&self) -> *mut c_void {
        self.handle.cast()
    }

    pub(in crate::cuda) fn bind(&self) -> Answer<()> {
        self.context.bind()
    }

    pub(in crate::cuda) fn record(&self, event: &RawEvent) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: both are live.
        check(unsafe { sys::cuEventRecord(event.handle, self.handle) })
    }

    pub(in crate::cuda) fn wait(&self, event: &RawEvent) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: both are live.
        check(unsafe { sys::cuStreamWaitEvent(self.handle, event.handle, 0) })
    }

    /// Waits on the host until all that was submitted is done.
    pub(in crate::cuda) fn synchronize(&self) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: the stream is live.
        check(unsafe { sys::cuStreamSynchronize(self.handle) })
    }

    /// # Safety
    ///
    /// `from` is pinned and stays, unchanged, until the copy is done; `to` has `len_bytes` bytes until then.
    pub(in crate::cuda) unsafe fn upload(&self, to: u64, from: *const u8, len_bytes: usize) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller.
        check(unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.cast(), len_bytes, self.handle) })
    }

    /// # Safety
    ///
    /// `to` is pinned and nobody else's until the copy is done; `from` has `len_bytes` bytes until then.
    pub(in crate::cuda) unsafe fn download(&self, to: *mut u8, from: u64, len_bytes: usize) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller.
        check(unsafe { sys::cuMemcpyDtoHAsync_v2(to.cast(), from, len_bytes, self.handle) })
    }

    /// Copies between devices or inside of one.
    ///
    /// # Safety
    ///
    /// Both have `len_bytes` bytes until the copy is done.
    pub(in crate::cuda) unsafe fn copy(
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
    pub(in crate::cuda) unsafe fn fill(&self, to: u64, value: u8, len_bytes: usize) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller.
        check(unsafe { sys::cuMemsetD8Async(to, value, len_bytes, self.handle) })
    }

    /// # Safety
    ///
    /// The kernel takes these parameters, and what they point to lives until it is done.
    pub(in crate::cuda) unsafe fn launch(
        &self,
        function: &RawFunction,
        grid: [u32; 3],
        block: [u32; 3],
        shared_bytes: u32,
        parameters: RawParameters<'_>,
    ) -> Answer<()> {
        self.context.bind()?;
        let ([grid_x, grid_y, grid_z], [block_x, block_y, block_z]) = (grid, block);
        let mut extra = [std::ptr::null_mut::<c_void>(); 5];
        let mut len_bytes = match &parameters {
            RawParameters::Each(_) => 0,
            RawParameters::Packed(bytes) => bytes.len(),
        };
        let (parameters, extra) = match parameters {
            RawParameters::Each(addresses) => (addresses.as_mut_ptr(), std::ptr::null_mut()),
            RawParameters::Packed(bytes) => {
                // Names of what follows: where the bytes are, how many; and the end of the list.
                extra[0] = std::ptr::without_provenance_mut(1);
                extra[1] = bytes.as_ptr().cast_mut().cast();
                extra[2] = std::ptr::without_provenance_mut(2);
                extra[3] = (&raw mut len_bytes).cast();
                (std::ptr::null_mut(), extra.as_mut_ptr())
            }
        };
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

    /// Has the driver call `code` on a thread of its own when all before it is done. It is never called, and leaked, if
    /// the context is lost before.
    pub(in crate::cuda) fn notify(&self, code: Box<dyn FnOnce() + Send>) -> Answer<()> {
        /// Calls the code that `state` is.
        unsafe extern "C" fn call(state: *mut c_void) {
            // SAFETY: `state` is the box that was leaked below, and the driver calls once.
            let code = unsafe { Box::from_raw(state.cast::<Box<dyn FnOnce() + Send>>()) };
            // There is nobody to tell of a panic, which must not pass through the driver.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(code));
        }
        self.context.bind()?;
        let state = Box::into_raw(Box::new(code));
        // SAFETY: the stream is live; the function takes this state.
        check(unsafe { sys::cuLaunchHostFunc(self.handle, Some(call), state.cast()) }).inspect_err(|_| {
            // SAFETY: the driver has refused it, so it is still ours.
            drop(unsafe { Box::from_raw(state) });
        })
    }

    /// What this stream is given goes into a graph until [`end_capture`](Self::end_capture).
    pub(in crate::cuda) fn begin_capture(&self) -> Answer<()> {
        self.context.bind()?;
        // Relaxed: other threads, and this one for other streams, go on as ever.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the stream is live.
        check(unsafe { sys::cuStreamBeginCapture_v2(self.handle, mode) })
    }

    pub(in crate::cuda) fn end_capture(&self) -> Answer<RawGraph> {
        self.context.bind()?;
        // SAFETY: the stream is live; the graph is written.
        let handle = unsafe { written(|graph| sys::cuStreamEndCapture(self.handle, graph)) }?;
        Ok(RawGraph { context: self.context.clone(), handle })
    }

    /// # Safety
    ///
    /// What the graph's nodes use lives until it is done.
    pub(in crate::cuda) unsafe fn launch_graph(&self, executable: &RawExecutable) -> Answer<()> {
        self.context.bind()?;
        // SAFETY: promised by the caller; both are live.
        check(unsafe { sys::cuGraphLaunch(executable.handle, self.handle) })
    }
}
