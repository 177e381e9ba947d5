//! The sweep of [`super::sweep`] written with AVX2 registers.
//!
//! What the compiler makes of the plain loop ends each row with a reduction, and slices cost bounds checks
//! per row; here the running maximum stays in a register over the whole block and rows are addresses, which
//! is worth half again or more at 16 cells a row. The one precondition, that both arrays have the padded
//! length, is asserted first.

use std::arch::x86_64::*;

use super::padded_len;
use crate::Real;

/// The larger of each pair of magnitudes.
#[inline]
#[target_feature(enable = "avx2")]
fn max_i64(a: __m256i, b: __m256i) -> __m256i {
    _mm256_blendv_epi8(a, b, _mm256_cmpgt_epi64(b, a))
}

macro_rules! sweep {
    (
        $sweep:ident, $Float:ident, $Signed:ident, $N:literal,
        $load:ident, $store:ident, $set1:ident, $add:ident, $sub:ident, $mul:ident, $bits:ident, $set1_bits:ident, $max:ident
    ) => {
        /// One step over a block. Returns the largest change.
        #[target_feature(enable = "avx2")]
        pub(super) fn $sweep(u: &[$Float], unew: &mut [$Float], dims: [u32; 3]) -> $Float {
            assert!(u.len() == padded_len(dims) && unew.len() == padded_len(dims));
            let [nx, ny, nz] = dims.map(|extent| extent as usize);
            let (step_x, step_y) = ((ny + 2) * (nz + 2), nz + 2);
            let (sixth, not_sign) = ($set1($Float::SIXTH), $set1_bits($Signed::MAX));
            let (mut worst_group, mut worst) = ($set1_bits(0), 0);
            for x in 1..=nx {
                for y in 1..=ny {
                    let start = x * step_x + y * step_y + 1;
                    let mut z = 0;
                    while z + $N <= nz {
                        // SAFETY: the cells from `start + z` are `N` owned cells of one row, so they and
                        // their neighbours on all sides, one cell or row or plane away, are in the padded
                        // array.
                        unsafe {
                            let (u, new) = (u.as_ptr().add(start + z), unew.as_mut_ptr().add(start + z));
                            let sum = $add($load(u.sub(step_x)), $load(u.add(step_x)));
                            let sum = $add($add(sum, $load(u.sub(step_y))), $load(u.add(step_y)));
                            let sum = $add($add(sum, $load(u.sub(1))), $load(u.add(1)));
                            let mean = $mul(sum, sixth);
                            let change = _mm256_and_si256($bits($sub(mean, $load(u))), not_sign);
                            worst_group = $max(worst_group, change);
                            $store(new, mean);
                        }
                        z += $N;
                    }
                    for at in start + z..start + nz {
                        let sum = u[at - step_x]
                            + u[at + step_x]
                            + u[at - step_y]
                            + u[at + step_y]
                            + u[at - 1]
                            + u[at + 1];
                        let mean = sum * $Float::SIXTH;
                        worst = worst.max((mean - u[at]).magnitude());
                        unew[at] = mean;
                    }
                }
            }
            let mut lanes = [0 as $Signed; $N];
            // SAFETY: the array has the size of the register.
            unsafe { _mm256_storeu_si256(lanes.as_mut_ptr().cast(), worst_group) };
            $Float::from_magnitude(lanes.into_iter().fold(worst, $Signed::max))
        }
    };
}

sweep!(
    sweep_f64,
    f64,
    i64,
    4,
    _mm256_loadu_pd,
    _mm256_storeu_pd,
    _mm256_set1_pd,
    _mm256_add_pd,
    _mm256_sub_pd,
    _mm256_mul_pd,
    _mm256_castpd_si256,
    _mm256_set1_epi64x,
    max_i64
);
sweep!(
    sweep_f32,
    f32,
    i32,
    8,
    _mm256_loadu_ps,
    _mm256_storeu_ps,
    _mm256_set1_ps,
    _mm256_add_ps,
    _mm256_sub_ps,
    _mm256_mul_ps,
    _mm256_castps_si256,
    _mm256_set1_epi32,
    _mm256_max_epi32
);
