//! Typed kernels of scientific codes, one module per subject.
//!
//! This crate is apart because it is a client of [`chare_device`] like any user's own kernels: nothing in the
//! runtime knows it. Each kernel is a constant whose parameters are checked when the program compiles, with a
//! Rust source that runs on host devices and sources in CUDA C and, for 32 bits, in WGSL; the modules say what the layout and the units of
//! buffers are. Most have a trait of the floating-point type too, for generic programs. The plain Rust functions behind the sources are public, for
//! programs that have no runtime. [`cases`] are the kernels on random inputs: every device must agree with the Rust source.
//!
//! | module | what its kernels do |
//! |---|---|
//! | [`axpy`] | `y = a x + y` |
//! | [`reduce`] | sums, smallest and largest elements, dot products, of any length by functions that launch what it takes |
//! | [`scan`] | running sums, likewise |
//! | [`gemm`] | products of matrices |
//! | [`histogram`] | counts by bin |
//! | [`kmeans`] | the nearest centroid of each point |
//! | [`jacobi2d`], [`jacobi3d`] | steps of Jacobi's method on blocks, and their edges and faces for neighbours |
//! | [`wave2d`] | steps of the wave equation on such blocks |
//! | [`nbody`] | gravity of all bodies on all |
//! | [`lennard_jones`] | forces between the particles of two cells |
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

pub mod axpy;
mod face;
pub mod gemm;
pub mod histogram;
pub mod jacobi2d;
pub mod jacobi3d;
pub mod kmeans;
pub mod lennard_jones;
pub mod nbody;
mod real;
pub mod reduce;
pub mod scan;
pub mod wave2d;

use chare_device::parity::Case;
use chare_device::{Grid, Params};

pub use face::Face;
pub use real::Real;

/// What a source with the parameters `A` is given.
type Views<'v, A> = <A as Params>::Views<'v>;

/// More threads than this fill no GPU better, and as many workgroups as this takes are allowed everywhere.
const MOST_THREADS: usize = 1 << 22;

/// A grid for `len` elements, for kernels whose threads go on by the size of the grid: one thread an element, or fewer if there are many
/// elements.
pub fn grid_for(len: usize) -> Grid {
    Grid::from(len.min(MOST_THREADS) as u32)
}

/// The parity cases of all kernels of this crate.
pub fn cases() -> Vec<Case> {
    let subjects = [
        axpy::cases(),
        gemm::cases(),
        histogram::cases(),
        jacobi2d::cases(),
        jacobi3d::cases(),
        kmeans::cases(),
        lennard_jones::cases(),
        nbody::cases(),
        reduce::cases(),
        scan::cases(),
        wave2d::cases(),
    ];
    subjects.into_iter().flatten().collect()
}
