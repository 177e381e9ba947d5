//! `y = a x + y`, on vectors of one length.
//!
//! The grid of a launch is that of [`grid_for`] the length: threads go on by its size. It is written in Rust and
//! CUDA C; for `f32` in WGSL too. Devices may fuse the multiplication and the addition.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::axpy::AXPY_F32;
//! use chare_kernels::grid_for;
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("vectors");
//! let (x, mut y) = (account.upload(vec![1.0; 1000])?, account.upload(vec![0.5; 1000])?);
//! account.launch(&AXPY_F32, grid_for(1000), (2.0, &x, &mut y))?;
//! assert_eq!(account.download(&y)?.wait()?, [2.5; 1000]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

use chare_device::parity::Case;
use chare_device::{In, InOut, Kernel, Launch, kernel};

use crate::{Real, Views, grid_for};

/// The parameters: `a`, `x`, `y`.
pub type AxpyParams<T> = (T, In<T>, InOut<T>);

/// The kernel of this module for one floating-point type.
pub trait Axpy: Real {
    /// Adds `a` times `x` to `y`.
    const AXPY: Kernel<AxpyParams<Self>>;
}

macro_rules! kernels {
    ($T:ident: $AXPY:ident $axpy:ident $(; $wgsl:expr)?) => {
        kernel! {
            #[doc = concat!("[`Axpy::AXPY`] for `", stringify!($T), "`.")]
            pub const $AXPY: fn $axpy(a: $T, x: In<$T>, y: InOut<$T>) {
                rust: source::<$T>,
                cuda: include_str!("axpy.cu")
                $(, wgsl: $wgsl)?
            }
        }

        impl Axpy for $T {
            const AXPY: Kernel<AxpyParams<$T>> = $AXPY;
        }
    };
}
kernels!(f32: AXPY_F32 axpy_f32; include_str!("axpy.wgsl"));
kernels!(f64: AXPY_F64 axpy_f64);

fn source<T: Real>(_: &Launch, (a, x, y): Views<'_, AxpyParams<T>>) {
    axpy(a, x, y);
}

/// Adds `a` times `x` to `y`.
///
/// # Panics
///
/// If `x` and `y` are not of one length.
pub fn axpy<T: Real>(a: T, x: &[T], y: &mut [T]) {
    assert_eq!(x.len(), y.len(), "x and y: vectors of one length");
    for (y, x) in y.iter_mut().zip(x) {
        *y += a * *x;
    }
}

/// The kernel for both types, with grids of one thread an element and of fewer.
pub(crate) fn cases() -> Vec<Case> {
    fn fewer<T: Axpy>() -> Case {
        Case::of(&T::AXPY, |random| {
            let len = random.within(&(0..5000));
            let threads = len.div_ceil(1 + random.below(3) as usize);
            (grid_for(threads), (random.value::<T>(), len, len))
        })
    }
    vec![fewer::<f32>().within_absolute(1e-6), fewer::<f64>().within_absolute(1e-15)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_element_is_added_to() {
        let (x, mut y) = ([1.0, 2.0, -3.0], [0.5, 0.25, 8.0]);
        axpy(2.0, &x, &mut y);
        assert_eq!(y, [2.5, 4.25, 2.0]);
    }

    #[test]
    #[should_panic(expected = "x and y: vectors of one length")]
    fn a_wrong_size_is_refused() {
        axpy(1.0f32, &[1.0], &mut [1.0, 2.0]);
    }
}
