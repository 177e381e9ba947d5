//! One Jacobi step over a block, as fast as the caches deliver it.
//!
//! On x86-64 the best code that the machine can run is chosen at run time, so that a default build is fast;
//! elsewhere, and on old machines, a plain loop runs. Both do the same operations on each cell in the same
//! order without fused multiply-adds: their results are equal bit for bit.
//!
//! The residual is a maximum over integer images of the changes ([`Real::magnitude`]): it can be taken in any
//! order, so each lane of a register keeps its own, and a NaN comes out on top instead of getting lost in
//! comparisons.

#[cfg(target_arch = "x86_64")]
use super::avx2;
use super::padded_len;
use crate::Real;

/// One step: each owned cell of `unew` becomes the mean of the six neighbours of that cell in `u`. Returns
/// the largest absolute change of a cell.
///
/// The mean is `(xm + xp + ym + yp + zm + zp) * (1/6)`, added from left to right. The ghosts of `unew` are
/// not touched. If any new value or change is NaN (which includes the change from an infinity to itself), NaN
/// is returned.
///
/// # Panics
///
/// If `u` or `unew` has not [`padded_len`] elements.
pub fn jacobi3d_step<T: Real>(u: &[T], unew: &mut [T], dims: [u32; 3]) -> T {
    check(u, unew, dims);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        use bytemuck::{cast, cast_slice, cast_slice_mut};
        // `Real` is `f64` or `f32`, so the casts change nothing.
        return if size_of::<T>() == size_of::<f64>() {
            // SAFETY: the machine has AVX2.
            cast::<f64, T>(unsafe { avx2::sweep_f64(cast_slice(u), cast_slice_mut(unew), dims) })
        } else {
            // SAFETY: the machine has AVX2.
            cast::<f32, T>(unsafe { avx2::sweep_f32(cast_slice(u), cast_slice_mut(unew), dims) })
        };
    }
    sweep(u, unew, dims)
}

/// [`jacobi3d_step`] with the instructions that every machine of this architecture has. The same result, bit
/// for bit.
///
/// # Panics
///
/// As for [`jacobi3d_step`].
pub fn jacobi3d_step_portable<T: Real>(u: &[T], unew: &mut [T], dims: [u32; 3]) -> T {
    check(u, unew, dims);
    sweep(u, unew, dims)
}

fn check<T: Real>(u: &[T], unew: &[T], dims: [u32; 3]) {
    assert_eq!(u.len(), padded_len(dims), "u: a block of {dims:?} cells with its ghosts");
    assert_eq!(unew.len(), padded_len(dims), "unew: a block of {dims:?} cells with its ghosts");
}

fn sweep<T: Real>(u: &[T], unew: &mut [T], dims: [u32; 3]) -> T {
    let [nx, ny, nz] = dims.map(|extent| extent as usize);
    let (step_x, step_y) = ((ny + 2) * (nz + 2), nz + 2);
    let mut worst = T::Magnitude::default();
    for x in 1..=nx {
        // Iterators, not indices: no bounds are checked per row.
        let rows =
            |x: usize, first: usize| u[x * step_x..(x + 1) * step_x][first * step_y..].chunks_exact(step_y);
        let beside_x = rows(x - 1, 1).zip(rows(x + 1, 1));
        let beside_y = rows(x, 0).zip(rows(x, 2));
        let new = unew[x * step_x + step_y..(x + 1) * step_x].chunks_exact_mut(step_y);
        for ((((xm, xp), (ym, yp)), row), new) in beside_x.zip(beside_y).zip(rows(x, 1)).zip(new) {
            worst = worst.max(step_row([xm, xp, ym, yp], row, new, nz));
        }
    }
    T::from_magnitude(worst)
}

/// The owned cells of one row, from itself and the rows beside it. Returns the largest change.
#[inline(always)]
fn step_row<T: Real>(beside: [&[T]; 4], row: &[T], new: &mut [T], nz: usize) -> T::Magnitude {
    let [xm, xp, ym, yp] = beside.map(|row| &row[1..nz + 1]);
    let (zm, old, zp) = (&row[..nz], &row[1..nz + 1], &row[2..nz + 2]);
    let new = &mut new[1..nz + 1];
    let mut worst = T::Magnitude::default();
    for z in 0..nz {
        let mean = (xm[z] + xp[z] + ym[z] + yp[z] + zm[z] + zp[z]) * T::SIXTH;
        new[z] = mean;
        worst = worst.max((mean - old[z]).magnitude());
    }
    worst
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The definition, cell by cell. NaN if there is one anywhere.
    fn oracle(u: &[f64], dims: [u32; 3]) -> (Vec<f64>, f64) {
        let [nx, ny, nz] = dims.map(|n| n as usize);
        let at = |x: usize, y: usize, z: usize| (x * (ny + 2) + y) * (nz + 2) + z;
        let (mut new, mut residual) = (vec![-7.0; u.len()], 0.0f64);
        for (x, y, z) in (1..=nx).flat_map(|x| (1..=ny).flat_map(move |y| (1..=nz).map(move |z| (x, y, z)))) {
            let sum = u[at(x - 1, y, z)] + u[at(x + 1, y, z)] + u[at(x, y - 1, z)] + u[at(x, y + 1, z)];
            let mean = (sum + u[at(x, y, z - 1)] + u[at(x, y, z + 1)]) / 6.0;
            let change = (mean - u[at(x, y, z)]).abs();
            new[at(x, y, z)] = mean;
            residual = if residual.is_nan() || change.is_nan() { f64::NAN } else { residual.max(change) };
        }
        (new, residual)
    }

    fn blocks() -> impl Strategy<Value = ([u32; 3], Vec<f64>)> {
        (1u32..6, 1u32..6, 1u32..40).prop_flat_map(|(nx, ny, nz)| {
            let dims = [nx, ny, nz];
            (Just(dims), prop::collection::vec(-1e3..1e3f64, padded_len(dims)))
        })
    }

    fn close(a: f64, b: f64, tolerance: f64) -> bool {
        (a - b).abs() <= tolerance * 1e3
    }

    proptest! {
        #[test]
        fn a_step_is_the_mean_of_six((dims, u) in blocks()) {
            let (expected, residual) = oracle(&u, dims);
            let mut new = vec![-7.0; u.len()];
            let found = jacobi3d_step(&u, &mut new, dims);
            prop_assert!(close(found, residual, 1e-14));
            prop_assert!(new.iter().zip(&expected).all(|(a, b)| close(*a, *b, 1e-14)));
            let u_f32: Vec<f32> = u.iter().map(|&x| x as f32).collect();
            let mut new_f32 = vec![-7.0f32; u.len()];
            let found = jacobi3d_step(&u_f32, &mut new_f32, dims);
            prop_assert!(close(f64::from(found), residual, 1e-5));
            prop_assert!(new_f32.iter().zip(&expected).all(|(a, b)| close(f64::from(*a), *b, 1e-5)));
        }

        #[test]
        fn the_portable_step_is_the_same_bit_for_bit((dims, u) in blocks()) {
            let (mut one, mut two) = (u.clone(), u.clone());
            prop_assert_eq!(jacobi3d_step(&u, &mut one, dims), jacobi3d_step_portable(&u, &mut two, dims));
            prop_assert_eq!(one, two);
            let u: Vec<f32> = u.iter().map(|&x| x as f32).collect();
            let (mut one, mut two) = (u.clone(), u.clone());
            prop_assert_eq!(jacobi3d_step(&u, &mut one, dims), jacobi3d_step_portable(&u, &mut two, dims));
            prop_assert_eq!(one, two);
        }

        #[test]
        fn nan_is_never_lost((dims, mut u) in blocks(), pick in any::<prop::sample::Index>(), infinite: bool) {
            u[pick.index(padded_len(dims))] = if infinite { f64::INFINITY } else { f64::NAN };
            let (expected, residual) = oracle(&u, dims);
            for step in [jacobi3d_step, jacobi3d_step_portable] {
                let mut new = vec![-7.0; u.len()];
                let found = step(&u, &mut new, dims);
                prop_assert_eq!(found.is_nan(), residual.is_nan());
                prop_assert!(found.is_nan() || found == residual || close(found, residual, 1e-14));
                prop_assert!(new.iter().zip(&expected).all(|(a, b)| a.is_nan() == b.is_nan()));
            }
        }
    }

    #[test]
    #[should_panic(expected = "unew: a block of [2, 2, 2] cells")]
    fn a_wrong_size_is_refused() {
        jacobi3d_step(&[0.0; 64], &mut [0.0; 63], [2, 2, 2]);
    }
}
