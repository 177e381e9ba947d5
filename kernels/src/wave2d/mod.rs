//! The wave equation in two dimensions, by leapfrog steps on blocks with ghost layers.
//!
//! Blocks are those of [`jacobi2d`](crate::jacobi2d): `dims = [nx, ny]` cells in a row-major array of `(nx+2)(ny+2)` elements, y fastest,
//! with the same edges to exchange. A step makes the next state from this one and the one before, *in the place of the one before*:
//!
//! ```text
//! next = 2 u - before + courant_squared (xm + xp + ym + yp - 4 u)
//! ```
//!
//! with `courant_squared = (c dt / h)^2` of the speed of waves, the time of a step and the width of a cell; it is stable up to one half. Ghosts are left alone; a
//! program keeps the boundary there, or unpacks what neighbours have sent, and swaps the two arrays after each step.
//!
//! The grid of a launch is `dims`. Buffers of the wrong size are a device fault that says so where the Rust source runs. Written in Rust and
//! CUDA C; for `f32` in WGSL too. Devices may fuse multiplications and additions.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::jacobi2d::padded_shape;
//! use chare_kernels::wave2d::WAVE2D_F64;
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("block");
//! let dims = [1, 3];
//! let mut u = account.upload(vec![0., 0., 0., 0., 0., 0., 0., 1., 0., 0., 0., 0., 0., 0., 0.])?;
//! let mut before = account.copy(&u)?;
//! account.launch(&WAVE2D_F64, dims, (&u, &mut before, dims, 0.25))?;
//! std::mem::swap(&mut u, &mut before);
//! let row = account.download(&u)?.wait()?[5..10].to_vec();
//! assert_eq!(row, [0.0, 0.25, 0.0, 0.25, 0.0]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

use chare_device::parity::Case;
use chare_device::{In, InOut, Kernel, Launch, kernel};

use crate::jacobi2d::{padded_len, padded_shape};
use crate::{Real, Views};

/// The parameters: this state, the one before and then the next, `dims`, `(c dt / h)^2`.
pub type WaveParams<T> = (In<T>, InOut<T>, [u32; 2], T);

/// The kernel of this module for one floating-point type.
pub trait Wave2d: Real {
    /// One step; see [`wave2d_step`].
    const STEP: Kernel<WaveParams<Self>>;
}

macro_rules! kernels {
    ($T:ident: $STEP:ident $step:ident $(; $wgsl:expr)?) => {
        kernel! {
            #[doc = concat!("[`Wave2d::STEP`] for `", stringify!($T), "`.")]
            pub const $STEP: fn $step(u: In<$T>, next: InOut<$T>, dims: [u32; 2], courant_squared: $T) {
                rust: source::<$T>,
                cuda: include_str!("wave2d.cu")
                $(, wgsl: $wgsl)?
            }
        }

        impl Wave2d for $T {
            const STEP: Kernel<WaveParams<$T>> = $STEP;
        }
    };
}
kernels!(f32: WAVE2D_F32 wave2d_f32; include_str!("wave2d.wgsl"));
kernels!(f64: WAVE2D_F64 wave2d_f64);

fn source<T: Real>(_: &Launch, (u, next, dims, courant_squared): Views<'_, WaveParams<T>>) {
    wave2d_step(u, next, dims, courant_squared);
}

/// One step: each owned cell of `next`, which holds the state before `u`, becomes that of the state after it.
///
/// # Panics
///
/// If `u` or `next` has not [`padded_len`] elements.
pub fn wave2d_step<T: Real>(u: &[T], next: &mut [T], dims: [u32; 2], courant_squared: T) {
    assert_eq!(u.len(), padded_len(dims), "u: a block of {dims:?} cells with its ghosts");
    assert_eq!(next.len(), padded_len(dims), "next: a block of {dims:?} cells with its ghosts");
    let [rows, row_len] = padded_shape(dims);
    let (ny, two, four) = (row_len - 2, T::from_f64(2.0), T::from_f64(4.0));
    let row = |x: usize| u[x * row_len..].chunks_exact(row_len);
    let next_rows = next[row_len..].chunks_exact_mut(row_len).take(rows - 2);
    for (((xm, here), xp), next) in row(0).zip(row(1)).zip(row(2)).zip(next_rows) {
        let (xm, xp, next) = (&xm[1..=ny], &xp[1..=ny], &mut next[1..=ny]);
        let (ym, here, yp) = (&here[..ny], &here[1..=ny], &here[2..]);
        for y in 0..ny {
            let curvature = xm[y] + xp[y] + ym[y] + yp[y] - four * here[y];
            next[y] = two * here[y] - next[y] + courant_squared * curvature;
        }
    }
}

/// The kernel for both types.
pub(crate) fn cases() -> Vec<Case> {
    fn of_type<T: Wave2d>(tolerance: f64) -> Case {
        let case = Case::of(&T::STEP, |random| {
            let limits = if random.below(4) == 0 { [60, 200] } else { [5, 40] };
            let dims = limits.map(|limit| 1 + random.below(limit));
            (dims.into(), (padded_len(dims), padded_len(dims), dims, T::from_f64(0.3)))
        });
        case.within_absolute(tolerance)
    }
    vec![of_type::<f32>(2e-6), of_type::<f64>(4e-15)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_standing_wave_swings_as_it_should() {
        // The lowest mode of a square with fixed boundary keeps its shape, and its amplitude is a cosine of the frequency that the
        // scheme gives it: sin^2(w / 2) = courant_squared (sin^2(kx / 2) + sin^2(ky / 2)).
        let (n, courant_squared) = (15u32, 0.4f64);
        let (dims, row_len) = ([n, n], n as usize + 2);
        let k = std::f64::consts::PI / f64::from(n + 1);
        let mode: Vec<f64> = (0..padded_len(dims))
            .map(|at| (k * (at / row_len) as f64).sin() * (k * (at % row_len) as f64).sin())
            .collect();
        let frequency = 2.0 * ((2.0 * courant_squared).sqrt() * (k / 2.0).sin()).asin();
        let scaled = |amplitude: f64| mode.iter().map(move |shape| amplitude * shape);
        let (mut before, mut u): (Vec<f64>, Vec<f64>) =
            (scaled(1.0).collect(), scaled(frequency.cos()).collect());
        for step in 2..100 {
            wave2d_step(&u, &mut before, dims, courant_squared);
            std::mem::swap(&mut u, &mut before);
            let expected = scaled((f64::from(step) * frequency).cos());
            for (at, (found, expected)) in u.iter().zip(expected).enumerate() {
                assert!((found - expected).abs() < 1e-12, "step {step}, cell {at}: {found}, {expected}");
            }
        }
    }

    #[test]
    fn ghosts_are_left_alone() {
        let (u, mut next) = (vec![3.0f32; 20], vec![7.0f32; 20]);
        wave2d_step(&u, &mut next, [2, 3], 0.5);
        let owned = |at: &usize| (1..3).contains(&(at / 5)) && (1..4).contains(&(at % 5));
        assert!((0..20).all(|at| next[at] == if owned(&at) { -1.0 } else { 7.0 }), "{next:?}");
    }

    #[test]
    #[should_panic(expected = "next: a block of [2, 3] cells")]
    fn a_wrong_size_is_refused() {
        wave2d_step(&[0.0f32; 20], &mut [0.0; 6], [2, 3], 0.5);
    }
}
