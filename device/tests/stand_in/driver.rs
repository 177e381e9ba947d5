//! The least that the tests need of a driver: everything by `cudarc`, as the backend calls it.

use std::ffi::c_void;

use cuda_stand_in::{Parameter, StandIn};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys;

pub(crate) type Status = sys::CUresult;

/// A device with its context current.
pub(crate) struct Gpu {
    pub(crate) device: i32,
    pub(crate) context: sys::CUcontext,
}

impl Gpu {
    pub(crate) fn open(ordinal: i32) -> Gpu {
        result::init().expect("the stand-in starts");
        let device = result::device::get(ordinal).expect("the device is there");
        // SAFETY: the device is there.
        let context = unsafe { result::primary_ctx::retain(device) }.expect("a context");
        let gpu = Gpu { device, context };
        gpu.bind();
        gpu
    }

    pub(crate) fn bind(&self) {
        // SAFETY: the context is retained.
        unsafe { result::ctx::set_current(self.context) }.expect("a context can be made current");
    }
}

pub(crate) fn stream() -> sys::CUstream {
    result::stream::create(result::stream::StreamKind::NonBlocking).expect("a stream")
}

pub(crate) fn event() -> sys::CUevent {
    result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING).expect("an event")
}

pub(crate) fn alloc(len_bytes: usize) -> sys::CUdeviceptr {
    // SAFETY: a context is current.
    unsafe { result::malloc_sync(len_bytes) }.expect("memory")
}

pub(crate) fn synchronize(stream: sys::CUstream) -> Result<(), Status> {
    // SAFETY: the stream is there.
    code(unsafe { result::stream::synchronize(stream) })
}

pub(crate) fn code<T>(outcome: Result<T, DriverError>) -> Result<T, Status> {
    outcome.map_err(|error| error.0)
}

/// `len` numbers in pinned memory.
pub(crate) fn pinned(len: usize) -> &'static mut [u64] {
    // SAFETY: a context is current; the memory is ours, large enough, and initialised before it is seen.
    unsafe {
        let address = result::malloc_host(len * 8, 0).expect("pinned memory");
        address.cast::<u8>().write_bytes(0, len * 8);
        std::slice::from_raw_parts_mut(address.cast(), len)
    }
}

/// Starts to copy to a device.
pub(crate) fn upload(to: sys::CUdeviceptr, from: &[u64], stream: sys::CUstream) {
    // SAFETY: the tests keep both ends until the stream is done.
    unsafe { result::memcpy_htod_async(to, from, stream) }.expect("a copy");
}

/// Starts to copy from a device.
pub(crate) fn download(to: &mut [u64], from: sys::CUdeviceptr, stream: sys::CUstream) {
    // SAFETY: as above.
    unsafe { result::memcpy_dtoh_async(to, from, stream) }.expect("a copy");
}

/// A kernel of a listing.
pub(crate) fn function(name: &str) -> sys::CUfunction {
    let listing = format!("kernel {name}\n\0");
    // SAFETY: the listing ends with a zero byte; the module is never unloaded.
    unsafe {
        let module = result::module::load_data(listing.as_ptr().cast()).expect("a module");
        result::module::get_function(module, std::ffi::CString::new(name).expect("a name")).expect("a kernel")
    }
}

/// Launches one thread.
pub(crate) fn launch(
    function: sys::CUfunction,
    stream: sys::CUstream,
    arguments: &mut [u64],
) -> Result<(), Status> {
    let mut addresses: Vec<*mut c_void> =
        arguments.iter_mut().map(|argument| std::ptr::from_mut(argument).cast()).collect();
    // SAFETY: the tests pass the arguments that they registered.
    code(unsafe { result::launch_kernel(function, (1, 1, 1), (1, 1, 1), 0, stream, &mut addresses) })
}

/// Registers a kernel that adds its second argument to `count` numbers at its first.
pub(crate) fn register_add(stand_in: &StandIn) {
    let parameters =
        [Parameter::Address { align: 8 }, Parameter::Value { bytes: 8 }, Parameter::Value { bytes: 8 }];
    stand_in.register("add", &parameters, |_, arguments| {
        let (addend, count) = (arguments.value::<u64>(1), arguments.value::<u64>(2));
        for number in arguments.slice::<u64>(0, count as usize)? {
            *number = number.wrapping_add(addend);
        }
        Ok(())
    });
}
