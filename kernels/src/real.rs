//! The floating-point types that kernels are written for.

use std::ops::{Add, AddAssign, Div, Mul, Neg, Sub};

use chare_device::parity::Sample;
use chare_device::{DevicePod, Scalar};

/// `f32` or `f64`. Not for implementing elsewhere.
pub trait Real:
    DevicePod
    + Scalar
    + Sample
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
{
    /// Infinity.
    const INFINITY: Self;

    /// One sixth, rounded.
    const SIXTH: Self;

    /// The bits of the absolute value as an integer: in the order of the values, with infinity above every
    /// finite one and NaN above infinity. So an integer maximum over them finds the largest value *or* a NaN,
    /// in any order of operations.
    #[doc(hidden)]
    type Magnitude: Ord + Copy + Default;

    /// The square root, rounded.
    fn sqrt(self) -> Self;

    /// The nearest number of this type.
    fn from_f64(value: f64) -> Self;

    /// The number without what is behind the point, as far as it fits.
    fn truncated(self) -> usize;

    #[doc(hidden)]
    fn magnitude(self) -> Self::Magnitude;

    #[doc(hidden)]
    fn from_magnitude(bits: Self::Magnitude) -> Self;
}

macro_rules! real {
    ($Float:ident, $Bits:ident, $Signed:ident) => {
        impl Real for $Float {
            const INFINITY: Self = $Float::INFINITY;
            const SIXTH: Self = 1.0 / 6.0;

            // Signed, since AVX2 compares signed integers only; the sign bit is clear, so the order is the
            // same.
            type Magnitude = $Signed;

            #[inline(always)]
            fn sqrt(self) -> Self {
                self.sqrt()
            }

            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as $Float
            }

            #[inline(always)]
            fn truncated(self) -> usize {
                self as usize
            }

            #[inline(always)]
            fn magnitude(self) -> $Signed {
                self.abs().to_bits() as $Signed
            }

            #[inline(always)]
            fn from_magnitude(bits: $Signed) -> Self {
                $Float::from_bits(bits as $Bits)
            }
        }
    };
}
real!(f32, u32, i32);
real!(f64, u64, i64);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn magnitudes_are_ordered_with_nan_on_top() {
        let ordered = [0.0f64, 1e-320, 1e-10, 1.0, 1e300, f64::INFINITY, f64::NAN];
        for pair in ordered.windows(2) {
            assert!(
                pair[0].magnitude() < pair[1].magnitude() && (-pair[0]).magnitude() < pair[1].magnitude()
            );
        }
        assert_eq!(f32::from_magnitude((-2.5f32).magnitude()), 2.5);
        assert!(f64::from_magnitude((-f64::NAN).magnitude()).is_nan());
    }
}
