//! Why a call failed, and which failures are the end of a device.

use std::fmt;
use std::sync::Arc;

use super::raw::Status;

/// Why something about CUDA failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// There is no driver on this machine.
    #[error("no CUDA: libcuda not found; install the NVIDIA driver, or put its library on the library path")]
    NoDriver,
    /// There is a driver, and no device that it can use.
    #[error("CUDA is there but no device: {reason}")]
    NoDevice {
        /// What the driver said.
        reason: String,
    },
    /// The driver has not the functions that are needed.
    #[error("the NVIDIA driver is too old: it has CUDA {}.{}, needed is {}.{}; update the driver", found.0, found.1, needed.0, needed.1)]
    DriverTooOld {
        /// What it has.
        found: (i32, i32),
        /// What is needed.
        needed: (i32, i32),
    },
    /// There is no memory left, after all pools have given back what nobody uses.
    #[error(
        "{device} is out of memory: {requested_bytes} bytes were asked for; {live_bytes} bytes are in use here, {free_bytes} of \
         {total_bytes} are free and in pieces too small, or used by others"
    )]
    OutOfMemory {
        /// The device; `the host` for pinned memory.
        device: Arc<str>,
        /// What was asked for.
        requested_bytes: usize,
        /// What is handed out.
        live_bytes: usize,
        /// What the driver has left.
        free_bytes: usize,
        /// What the device has.
        total_bytes: usize,
    },
    /// A device is there and cannot be opened: it is taken, or broken.
    #[error(
        "{device} cannot be opened: {call}: {status}; leave it out by naming others, as in `--device cuda:0,2`"
    )]
    Open {
        /// The driver's function.
        call: &'static str,
        /// The device.
        device: Arc<str>,
        /// What it returned.
        status: Status,
    },
    /// A kernel failed, or the device was lost: nothing can be done with this device any more.
    #[error(transparent)]
    Fault(Arc<DeviceFault>),
    /// A call was refused; the device goes on.
    #[error("{call} failed on {device}: {status}")]
    Call {
        /// The driver's function.
        call: &'static str,
        /// The device.
        device: Arc<str>,
        /// What it returned.
        status: Status,
    },
    /// Kernels cannot be compiled for machines elsewhere.
    #[error("kernels cannot be shipped: {reason}")]
    Ship {
        /// Why not.
        reason: String,
    },
    /// A kernel cannot be launched like this.
    #[error("kernel `{kernel}` cannot be launched on {device}: {reason}")]
    Launch {
        /// The kernel.
        kernel: &'static str,
        /// The device.
        device: Arc<str>,
        /// Why.
        reason: String,
    },
    /// There is no compiler on this machine.
    #[error(
        "kernel `{kernel}` is CUDA C, and there is no NVRTC: libnvrtc not found; install it (`pip install nvidia-cuda-nvrtc==13.0.*`) \
         and put its folder on the library path, or embed compiled code"
    )]
    NoCompiler {
        /// The kernel.
        kernel: &'static str,
    },
    /// CUDA C that does not compile.
    #[error("kernel `{kernel}` does not compile for {target}:\n{log}")]
    Compile {
        /// The kernel.
        kernel: &'static str,
        /// The architecture.
        target: String,
        /// What NVRTC wrote, with line and caret.
        log: String,
    },
    /// PTX or a cubin that the driver refuses.
    #[error("kernel `{kernel}` cannot be loaded on {device}: {reason}")]
    Load {
        /// The kernel.
        kernel: &'static str,
        /// The device.
        device: Arc<str>,
        /// The driver's code, what to do, and what its compiler wrote.
        reason: String,
    },
    /// A module without the kernel that it was loaded for.
    #[error("the code loaded on {device} has no kernel `{kernel}`; declare it `extern \"C\" __global__`")]
    NoKernel {
        /// The kernel.
        kernel: &'static str,
        /// The device.
        device: Arc<str>,
    },
    /// An access past the end of a block, or blocks of two sizes.
    #[error("{what}: {wanted_bytes} bytes at {offset_bytes} of {len_bytes}")]
    Range {
        /// What was tried.
        what: &'static str,
        /// Where.
        offset_bytes: usize,
        /// How much.
        wanted_bytes: usize,
        /// How much there is.
        len_bytes: usize,
    },
    /// A block that belongs to another process was to be exported by this one.
    #[error("a block that was imported cannot be exported again; export it where it was allocated")]
    NotExportable,
    /// Memory that another process exported and that is of no device here.
    #[error("exported memory is on device {uuid}, which this process has not opened")]
    ForeignDevice {
        /// That device.
        uuid: String,
    },
}

/// The end of a device, for this process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceFault {
    /// The device.
    pub device: Arc<str>,
    /// What the driver returned.
    pub status: Status,
    /// The operations that were the oldest unfinished ones of their streams. One of them failed.
    pub suspects: Vec<&'static str>,
}

impl fmt::Display for DeviceFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceFault { device, status, suspects } = self;
        match suspects.as_slice() {
            [] => write!(f, "{device} was lost: {status}"),
            [kernel] => write!(f, "kernel `{kernel}` failed on {device}: {status}"),
            several => {
                write!(f, "a kernel failed on {device}, one of")?;
                for (index, kernel) in several.iter().enumerate() {
                    write!(f, "{} `{kernel}`", if index == 0 { "" } else { "," })?;
                }
                write!(f, ": {status}")
            }
        }?;
        write!(f, "; the device cannot be used again by this process")
    }
}

impl std::error::Error for DeviceFault {}
