//! Lets a stand-in for the CUDA driver run the kernels of a bench, if that is the driver: so the benches of GPUs are tried where there
//! is none (`tests/cuda-stand-in`). Figures of such a run mean nothing.

use chare::device::{Kernel, Params};

#[cfg(target_os = "linux")]
#[path = "../device/tests/stand_in/kernels.rs"]
mod kernels;

/// Makes the Rust source of a kernel what a stand-in runs.
#[cfg(target_os = "linux")]
pub(crate) fn register<A: Params>(kernel: &Kernel<A>) {
    if cuda_stand_in::StandIn::loaded().is_some() {
        kernels::register(kernel);
    }
}

/// There is a stand-in on Linux only.
#[cfg(not(target_os = "linux"))]
pub(crate) fn register<A: Params>(_kernel: &Kernel<A>) {}
