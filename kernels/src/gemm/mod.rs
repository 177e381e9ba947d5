//! Products of dense matrices: `c = alpha a b + beta c`.
//!
//! `dims = [m, n, k]`: `a` has `m` rows of `k` elements, `b` has `k` rows of `n`, and `c` has `m` rows of `n`; rows are contiguous. If `beta` is
//! zero, what was in `c` does not matter, NaN included. Buffers of the wrong size are a device fault that says so where the Rust source
//! runs.
//!
//! The grid of a launch is `[m, n]`, one thread an element of `c`. A block of 16 x 16 threads goes along `k` in tiles that it keeps in shared memory, so that each
//! element of `a` and `b` is loaded once for 16 elements of `c`. Sums go along `k` in its order; devices may fuse multiplications and
//! additions. Written in Rust and CUDA C; for `f32` in WGSL too.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::gemm::GEMM_F64;
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("matrices");
//! let a = account.upload(vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])?;
//! let b = account.upload(vec![1.0, 0.0, 0.0, 1.0, 1.0, 1.0])?;
//! let mut c = account.alloc::<f64>([2, 2])?;
//! account.launch(&GEMM_F64, [2, 2], (&a, &b, &mut c, [2, 2, 3], 1.0, 0.0))?;
//! assert_eq!(account.download(&c)?.wait()?, [4.0, 5.0, 10.0, 11.0]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

use chare_device::parity::Case;
use chare_device::{In, InOut, Kernel, Launch, kernel};

use crate::{Real, Views};

/// The parameters: `a`, `b`, `c`, `[m, n, k]`, `alpha`, `beta`.
pub type GemmParams<T> = (In<T>, In<T>, InOut<T>, [u32; 3], T, T);

/// The kernel of this module for one floating-point type.
pub trait Gemm: Real {
    /// `c = alpha a b + beta c`; see [`gemm`].
    const GEMM: Kernel<GemmParams<Self>>;
}

macro_rules! kernels {
    ($T:ident: $GEMM:ident $gemm:ident $(; $wgsl:expr)?) => {
        kernel! {
            #[doc = concat!("[`Gemm::GEMM`] for `", stringify!($T), "`.")]
            pub const $GEMM: fn $gemm(a: In<$T>, b: In<$T>, c: InOut<$T>, dims: [u32; 3], alpha: $T, beta: $T) {
                block: [16, 16, 1],
                rust: source::<$T>,
                cuda: include_str!("gemm.cu")
                $(, wgsl: $wgsl)?
            }
        }

        impl Gemm for $T {
            const GEMM: Kernel<GemmParams<$T>> = $GEMM;
        }
    };
}
kernels!(f32: GEMM_F32 gemm_f32; include_str!("gemm.wgsl"));
kernels!(f64: GEMM_F64 gemm_f64);

fn source<T: Real>(_: &Launch, (a, b, c, dims, alpha, beta): Views<'_, GemmParams<T>>) {
    gemm(a, b, c, dims, alpha, beta);
}

/// Rows of `b` that are gone over for all rows of `c` before the next ones: they stay in a cache meanwhile.
const PANEL: usize = 64;

/// `c = alpha a b + beta c`. The innermost loop goes along rows of `b` and `c`, which vector registers like.
///
/// # Panics
///
/// If a matrix has not as many elements as `dims = [m, n, k]` says.
pub fn gemm<T: Real>(a: &[T], b: &[T], c: &mut [T], dims: [u32; 3], alpha: T, beta: T) {
    let [m, n, k] = dims.map(|extent| extent as usize);
    assert_eq!(a.len(), m * k, "a: a matrix of {m} x {k}");
    assert_eq!(b.len(), k * n, "b: a matrix of {k} x {n}");
    assert_eq!(c.len(), m * n, "c: a matrix of {m} x {n}");
    let zero = T::default();
    c.iter_mut().for_each(|c| *c = if beta == zero { zero } else { beta * *c });
    if c.is_empty() || k == 0 {
        return;
    }
    for (panel, b) in b.chunks(PANEL * n).enumerate() {
        for (a, c) in a.chunks(k).zip(c.chunks_mut(n)) {
            for (a, b) in a[panel * PANEL..].iter().zip(b.chunks(n)) {
                let factor = alpha * *a;
                c.iter_mut().zip(b).for_each(|(c, b)| *c += factor * *b);
            }
        }
    }
}

/// The kernel for both types, on matrices that are no multiples of a tile.
pub(crate) fn cases() -> Vec<Case> {
    fn of_type<T: Gemm>(tolerance: f64) -> Case {
        let case = Case::of(&T::GEMM, |random| {
            let dims @ [m, n, k] = [60, 60, 150].map(|limit| random.below(limit));
            let beta = if random.below(2) == 0 { T::default() } else { random.value() };
            let lens = [m * k, k * n, m * n].map(|len| len as usize);
            ([m, n].into(), (lens[0], lens[1], lens[2], dims, random.value::<T>(), beta))
        });
        case.within_absolute(tolerance)
    }
    vec![of_type::<f32>(1e-4), of_type::<f64>(1e-13)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn products_are_rows_by_columns(m in 0usize..9, n in 0usize..9, k in 0usize..150, beta in -1..2) {
            let number = |seed: usize| move |i: usize| ((i * 7919 + seed) % 17) as f64 - 8.0;
            let a: Vec<f64> = (0..m * k).map(number(1)).collect();
            let b: Vec<f64> = (0..k * n).map(number(2)).collect();
            let before: Vec<f64> = (0..m * n).map(number(3)).collect();
            let beta = f64::from(beta);
            let mut c = before.clone();
            if beta == 0.0 {
                c.fill(f64::NAN);
            }
            gemm(&a, &b, &mut c, [m, n, k].map(|extent| extent as u32), 2.0, beta);
            for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
                let sum: f64 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                // Of small integers all is exact.
                prop_assert_eq!(c[i * n + j], 2.0 * sum + beta * before[i * n + j]);
            }
        }
    }

    #[test]
    #[should_panic(expected = "b: a matrix of 3 x 2")]
    fn a_wrong_size_is_refused() {
        gemm(&[0.0f32; 6], &[0.0; 5], &mut [0.0; 4], [2, 2, 3], 1.0, 0.0);
    }
}
