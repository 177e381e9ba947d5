//! One Jacobi step over a block.
//!
//! The residual is a maximum over integer images of the changes ([`Real::magnitude`]): it can be taken in any order, so the loop over a row
//! is one of vectors, and a NaN comes out on top.

use super::{padded_len, padded_shape};
use crate::Real;

/// One step: each owned cell of `unew` becomes the mean of the four neighbours of that cell in `u`. Returns the largest absolute
/// change of a cell.
///
/// The mean is `(xm + xp + ym + yp) / 4`, added from left to right. The ghosts of `unew` are not touched. If any new value or change is
/// NaN, NaN is returned.
///
/// # Panics
///
/// If `u` or `unew` has not [`padded_len`] elements.
pub fn jacobi2d_step<T: Real>(u: &[T], unew: &mut [T], dims: [u32; 2]) -> T {
    assert_eq!(u.len(), padded_len(dims), "u: a block of {dims:?} cells with its ghosts");
    assert_eq!(unew.len(), padded_len(dims), "unew: a block of {dims:?} cells with its ghosts");
    let [rows, row_len] = padded_shape(dims);
    let (ny, quarter) = (row_len - 2, T::from_f64(0.25));
    let row = |x: usize| u[x * row_len..].chunks_exact(row_len);
    let new_rows = unew[row_len..].chunks_exact_mut(row_len).take(rows - 2);
    let mut worst = T::Magnitude::default();
    for (((xm, old), xp), new) in row(0).zip(row(1)).zip(row(2)).zip(new_rows) {
        let (xm, xp, new) = (&xm[1..=ny], &xp[1..=ny], &mut new[1..=ny]);
        let (ym, old, yp) = (&old[..ny], &old[1..=ny], &old[2..]);
        for y in 0..ny {
            let mean = (xm[y] + xp[y] + ym[y] + yp[y]) * quarter;
            new[y] = mean;
            worst = worst.max((mean - old[y]).magnitude());
        }
    }
    T::from_magnitude(worst)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blocks() -> impl Strategy<Value = ([u32; 2], Vec<f64>)> {
        (1u32..8, 1u32..40).prop_flat_map(|(nx, ny)| {
            let dims = [nx, ny];
            (Just(dims), prop::collection::vec(-1e3..1e3f64, padded_len(dims)))
        })
    }

    proptest! {
        #[test]
        fn a_step_is_the_mean_of_four((dims, u) in blocks()) {
            let [rows, row_len] = padded_shape(dims);
            let mut new = vec![-7.0; u.len()];
            let found = jacobi2d_step(&u, &mut new, dims);
            let mut residual = 0.0f64;
            for (x, y) in (0..rows).flat_map(|x| (0..row_len).map(move |y| (x, y))) {
                let at = x * row_len + y;
                if x == 0 || y == 0 || x == rows - 1 || y == row_len - 1 {
                    prop_assert_eq!(new[at], -7.0);
                } else {
                    let mean = (u[at - row_len] + u[at + row_len] + u[at - 1] + u[at + 1]) / 4.0;
                    prop_assert_eq!(new[at], mean);
                    residual = residual.max((mean - u[at]).abs());
                }
            }
            prop_assert_eq!(found, residual);
        }

        #[test]
        fn nan_is_never_lost((dims, mut u) in blocks(), x in 0u32..8, y in 0u32..40) {
            let [_, row_len] = padded_shape(dims);
            u[(x % dims[0] + 1) as usize * row_len + (y % dims[1] + 1) as usize] = f64::NAN;
            let mut new = u.clone();
            prop_assert!(jacobi2d_step(&u, &mut new, dims).is_nan());
        }
    }
}
