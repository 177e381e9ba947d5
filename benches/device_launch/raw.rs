//! What a launch is compared with: a loop of a launch, an event behind it, and queries of the event until it is there, by the driver's
//! own functions. It has one stream and one event, and nothing of the runtime.
//!
//! It uses the device's primary context, as the runtime does, so both may take turns on one thread.

use std::ffi::CString;
use std::ptr;

use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

/// The shape of a launch, which is that of the runtime's.
const BLOCK: (u32, u32, u32) = (32, 1, 1);

/// A stream of a device, and a kernel that counts its launches.
pub(crate) struct RawLoop {
    device: sys::CUdevice,
    context: sys::CUcontext,
    module: sys::CUmodule,
    function: sys::CUfunction,
    stream: sys::CUstream,
    event: sys::CUevent,
    counter: sys::CUdeviceptr,
}

// SAFETY: the driver takes its handles from any thread whose context is theirs, which each call here sees to.
unsafe impl Send for RawLoop {}

impl RawLoop {
    /// Opens the device with this number. The kernel takes the address and the length of a counter of 32 bits, and a grid.
    pub(crate) fn open(number: i32, kernel: &str, ptx: &str) -> Result<Self, DriverError> {
        let [kernel, ptx] = [kernel, ptx].map(|text| CString::new(text).expect("neither holds a zero byte"));
        result::init()?;
        let device = result::device::get(number)?;
        let flags = sys::CUevent_flags::CU_EVENT_DISABLE_TIMING;
        // SAFETY: the device is there, and its context current from here on; the image is a whole text.
        let (context, module, function, counter) = unsafe {
            let context = result::primary_ctx::retain(device)?;
            result::ctx::set_current(context)?;
            let module = result::module::load_data(ptx.as_ptr().cast())?;
            (context, module, result::module::get_function(module, kernel)?, result::malloc_sync(4)?)
        };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)?;
        let event = result::event::create(flags)?;
        // SAFETY: the counter has four bytes and the stream is live.
        unsafe {
            result::memset_d8_async(counter, 0, 4, stream)?;
            result::stream::synchronize(stream)?;
        }
        Ok(RawLoop { device, context, module, function, stream, event, counter })
    }

    /// Launches so often, and polls for the end of each.
    pub(crate) fn run(&mut self, count: u64) -> Result<(), DriverError> {
        let (mut counter, mut len, mut grid) = (self.counter, 1_u64, [1_u32, 1, 1]);
        let mut arguments =
            [ptr::from_mut(&mut counter).cast(), ptr::from_mut(&mut len).cast(), grid.as_mut_ptr().cast()];
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.context)? };
        for _ in 0..count {
            // SAFETY: all handles are live; the kernel takes these arguments, which the driver copies, and writes the counter.
            unsafe {
                result::launch_kernel(self.function, (1, 1, 1), BLOCK, 0, self.stream, &mut arguments)?;
                result::event::record(self.event, self.stream)?;
                while let Err(error) = result::event::query(self.event) {
                    if error.0 != sys::CUresult::CUDA_ERROR_NOT_READY {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    /// How often it has launched, as the device has counted.
    pub(crate) fn launches(&mut self) -> Result<u32, DriverError> {
        let mut launches = [0];
        // SAFETY: all handles are live; the copy has ended before the array does.
        unsafe {
            result::ctx::set_current(self.context)?;
            result::memcpy_dtoh_async(&mut launches, self.counter, self.stream)?;
            result::stream::synchronize(self.stream)?;
        }
        Ok(launches[0])
    }
}

impl Drop for RawLoop {
    fn drop(&mut self) {
        // SAFETY: all handles are live, are used no more, and nothing is in flight. What the driver says at the end helps nobody.
        unsafe {
            let _ = result::ctx::set_current(self.context);
            let _ = result::event::destroy(self.event);
            let _ = result::stream::destroy(self.stream);
            let _ = result::free_sync(self.counter);
            let _ = result::module::unload(self.module);
            let _ = result::primary_ctx::release(self.device);
        }
    }
}
