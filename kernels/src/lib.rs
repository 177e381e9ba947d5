//! Typed kernels of scientific codes, one module per subject.
//!
//! This crate is apart because it is a client of [`chare_device`] like any user's own kernels: nothing in the
//! runtime knows it. Each kernel is a constant whose parameters are checked when the program compiles, with a
//! Rust source that runs on host devices and sources in CUDA C and WGSL for others; [`cases`] run each on random inputs. The plain Rust functions behind the sources are public too, for
//! programs that have no runtime.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::jacobi3d::{JACOBI3D_F64, padded_shape};
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("block");
//! let dims = [8, 8, 8];
//! let u = account.upload(vec![1.0; padded_shape(dims).into_iter().product()])?;
//! let mut unew = account.alloc::<f64>(padded_shape(dims))?;
//! let mut residual = account.alloc::<f64>(1)?;
//! account.launch(&JACOBI3D_F64, dims, (&u, &mut unew, &mut residual, dims))?;
//! assert_eq!(account.download(&residual)?.wait()?, [0.0]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion"))]

mod face;
pub mod jacobi3d;
mod real;

use chare_device::parity::Case;

pub use face::Face;
pub use real::Real;

/// The parity cases of all kernels of this crate.
pub fn cases() -> Vec<Case> {
    jacobi3d::cases()
}
