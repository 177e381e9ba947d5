//! How many elements fall into each of several equal bins.
//!
//! Bin `i` begins at `low + i / bins_per_unit`, in the unit of the elements, and ends where the next one begins; an element on the border
//! belongs to the upper one. Elements below `low`, beyond the last bin, and NaN are not counted. There are as many bins as counts; [`bins_per_unit`] is for a range that is cut into so many.
//!
//! The grid of a launch is that of [`grid_for`] the number of elements: threads go on by its size. Counts are exact and equal
//! on all devices. Blocks of 256 threads count in shared memory if there are at most 2048 bins, and in the buffer else. Written in Rust
//! and CUDA C; for `f32` in WGSL too.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::grid_for;
//! use chare_kernels::histogram::{HISTOGRAM_F32, bins_per_unit};
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("ages");
//! let ages = account.upload(vec![3.0, 17.5, 41.0, 30.0, 99.0, 12.0])?;
//! let mut counts = account.alloc::<u32>(3)?;
//! let arguments = (&ages, &mut counts, 0.0, bins_per_unit(0.0, 60.0, 3));
//! account.launch(&HISTOGRAM_F32, grid_for(6), arguments)?;
//! assert_eq!(account.download(&counts)?.wait()?, [3, 1, 1]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

use chare_device::parity::Case;
use chare_device::{In, Kernel, Launch, Zeroed, kernel};

use crate::{Real, Views, grid_for};

/// The parameters: the elements, the counts, where the first bin begins, and how many bins a unit has.
pub type HistogramParams<T> = (In<T>, Zeroed<u32>, T, T);

/// The kernel of this module for one floating-point type.
pub trait Histogram: Real {
    /// Counts elements by bin; see [`count`].
    const HISTOGRAM: Kernel<HistogramParams<Self>>;
}

macro_rules! kernels {
    ($T:ident: $HISTOGRAM:ident $histogram:ident $(; $wgsl:expr)?) => {
        kernel! {
            #[doc = concat!("[`Histogram::HISTOGRAM`] for `", stringify!($T), "`.")]
            pub const $HISTOGRAM: fn $histogram(x: In<$T>, counts: Zeroed<u32>, low: $T, bins_per_unit: $T) {
                block: [256, 1, 1],
                rust: source::<$T>,
                cuda: include_str!("histogram.cu")
                $(, wgsl: $wgsl)?
            }
        }

        impl Histogram for $T {
            const HISTOGRAM: Kernel<HistogramParams<$T>> = $HISTOGRAM;
        }
    };
}
kernels!(f32: HISTOGRAM_F32 histogram_f32; include_str!("histogram.wgsl"));
kernels!(f64: HISTOGRAM_F64 histogram_f64);

fn source<T: Real>(_: &Launch, (x, counts, low, bins_per_unit): Views<'_, HistogramParams<T>>) {
    count(x, counts, low, bins_per_unit);
}

/// How many bins a unit has if the range from `low` to `high` has `bins`.
pub fn bins_per_unit<T: Real>(low: T, high: T, bins: u32) -> T {
    T::from_f64(f64::from(bins)) / (high - low)
}

/// Adds the number of elements in each bin to `counts`.
pub fn count<T: Real>(x: &[T], counts: &mut [u32], low: T, bins_per_unit: T) {
    let (zero, end) = (T::default(), T::from_f64(counts.len() as f64));
    for x in x {
        let bin = (*x - low) * bins_per_unit;
        // Not so for NaN.
        if bin >= zero && bin < end {
            counts[bin.truncated()] += 1;
        }
    }
}

/// The kernel for both types: with few bins and with more than shared memory has, and elements outside of them.
pub(crate) fn cases() -> Vec<Case> {
    fn of_type<T: Histogram>() -> Case {
        Case::of(&T::HISTOGRAM, |random| {
            let len = random.within(&(0..20_000));
            let most = if random.below(4) == 0 { 5000 } else { 100 };
            let bins = 1 + random.below(most);
            let (low, high) = (T::from_f64(-0.75), T::from_f64(0.875));
            let grid = grid_for(len.div_ceil(1 + random.below(9) as usize));
            (grid, (len, bins as usize, low, bins_per_unit(low, high, bins)))
        })
    }
    vec![of_type::<f32>(), of_type::<f64>()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn borders_belong_to_the_upper_bin() {
        let x = [-0.1, -0.0, 0.0, 0.49, 0.5, 0.99, 1.0, 1.5, 2.0, f64::NAN, f64::INFINITY, -f64::INFINITY];
        let mut counts = [0, 10, 0, 0];
        count(&x, &mut counts, 0.0, bins_per_unit(0.0, 2.0, 4));
        assert_eq!(counts, [3, 12, 1, 1]);
        count(&x, &mut [], 0.0, 1.0);
    }

    #[test]
    fn all_that_is_inside_is_counted() {
        let x: Vec<f32> = (0..10_000).map(|n| (n % 997) as f32).collect();
        let mut counts = [0; 10];
        count(&x, &mut counts, 0.0, bins_per_unit(0.0, 1000.0, 10));
        let expected: Vec<u32> =
            (0..10).map(|bin| x.iter().filter(|x| (**x / 100.0) as u32 == bin).count() as u32).collect();
        assert_eq!(counts.to_vec(), expected);
    }
}
