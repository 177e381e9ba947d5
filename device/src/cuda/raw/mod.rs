//! The driver's functions, each called in one place, and the handles that they give, each owned by one value.
//!
//! A value here keeps its context alive, binds it before each call, and gives itself back when it is dropped. What is
//! `unsafe` here is so because memory is touched later than the call returns; who may touch which memory is decided by the
//! callers (`memory`, `pinned`).

mod code;
mod context;
mod memory;
mod stream;

pub(in crate::cuda) use code::{RawExecutable, RawFunction, RawGraph, Refusal};
pub(in crate::cuda) use context::{Context, forget_bound};
pub(in crate::cuda) use memory::{DeviceMemory, HostMemory, ImportedMemory, RegisteredMemory};
pub(in crate::cuda) use stream::{Query, RawEvent, RawParameters, RawStream};

use std::ffi::{CStr, c_int};
use std::fmt;
use std::mem::MaybeUninit;

use cudarc::driver::sys::{self, CUresult};

/// A result code of the driver other than success.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub(in crate::cuda::raw) CUresult);

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
                | CUDA_ERROR_CONTAINED
                | CUDA_ERROR_TENSOR_MEMORY_LEAK
                | CUDA_ERROR_UNKNOWN
        )
    }

    /// That of a kernel that has run for too long.
    pub(in crate::cuda) fn timeout() -> Status {
        Status(CUresult::CUDA_ERROR_LAUNCH_TIMEOUT)
    }

    /// Whether there was not enough memory.
    pub(in crate::cuda) fn is_out_of_memory(self) -> bool {
        self.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY
    }

    pub(in crate::cuda) fn is_no_device(self) -> bool {
        self.0 == CUresult::CUDA_ERROR_NO_DEVICE
    }

    pub(in crate::cuda) fn is_not_found(self) -> bool {
        self.0 == CUresult::CUDA_ERROR_NOT_FOUND
    }

    /// What to do about code that is refused with it, for a device of this compute capability.
    pub(in crate::cuda) fn remedy_for_code(self, (major, minor): (u32, u32)) -> Option<String> {
        match self.0 {
            CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => Some(
                "update the driver, or compile with a CUDA that is no newer than the driver's".to_owned(),
            ),
            CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU => Some(format!(
                "compile it for this device, sm_{major}{minor}, or as PTX for one that is no newer"
            )),
            CUresult::CUDA_ERROR_INVALID_IMAGE => Some(
                "it must be the text of PTX, or a whole cubin, and have the parameters of its declaration"
                    .to_owned(),
            ),
            _ => None,
        }
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
pub(in crate::cuda) type Answer<T> = Result<T, Status>;

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
pub(in crate::cuda) fn has_driver() -> bool {
    // SAFETY: loads the driver's library, if there is one.
    unsafe { sys::is_culib_present() }
}

pub(in crate::cuda) fn init() -> Answer<()> {
    // SAFETY: there is a driver (`has_driver`).
    check(unsafe { sys::cuInit(0) })
}

/// The version of CUDA that the driver has, as 1000 * major + 10 * minor.
pub(in crate::cuda) fn driver_version() -> Answer<c_int> {
    // SAFETY: the version is written.
    unsafe { written(|version| sys::cuDriverGetVersion(version)) }
}

pub(in crate::cuda) fn device_count() -> Answer<c_int> {
    // SAFETY: the count is written.
    unsafe { written(|count| sys::cuDeviceGetCount(count)) }
}

/// What the driver says about a device.
pub(in crate::cuda) struct Description {
    pub(in crate::cuda) device: sys::CUdevice,
    pub(in crate::cuda) name: String,
    pub(in crate::cuda) uuid: [u8; 16],
    pub(in crate::cuda) total_bytes: usize,
    pub(in crate::cuda) capability: (u32, u32),
    pub(in crate::cuda) multiprocessor_count: u32,
    pub(in crate::cuda) max_threads_of_block: u32,
}

pub(in crate::cuda) fn describe(ordinal: c_int) -> Answer<Description> {
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

/// Defines an owned handle of the driver.
macro_rules! owned {
    ($(#[$doc:meta])* $name:ident($handle:ty), $destroy:path) => {
        $(#[$doc])*
        pub(in crate::cuda) struct $name {
            pub(in crate::cuda::raw) context: Arc<Context>,
            pub(in crate::cuda::raw) handle: $handle,
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
pub(in crate::cuda::raw) use owned;
