//! Gravity between bodies, all with all, softened.
//!
//! A body is `[x, y, z, mass]`. A launch adds to the acceleration `[x, y, z, 0]` of each target what the sources do to it:
//!
//! ```text
//! mass (source - target) / (|source - target|^2 + softening_squared)^(3/2)
//! ```
//!
//! in units in which the constant of gravity is one. Sources may be other bodies than the targets or the same, in the same buffer: as long as
//! `softening_squared` is positive, a body does nothing to itself. So a chare with a block of bodies launches once for itself and once for each block that it
//! is sent.
//!
//! The grid of a launch is the number of targets. Blocks of 128 threads go over the sources in tiles that they keep in shared memory. Sources are added in their order; devices may fuse multiplications and
//! additions. Written in Rust and CUDA C; for `f32` in WGSL too.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::nbody::NBODY_F64;
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("bodies");
//! let bodies = account.upload(vec![[0.0, 0.0, 0.0, 3.0], [0.0, 1.0, 0.0, 1.0]])?;
//! let mut accelerations = account.alloc::<[f64; 4]>(2)?;
//! account.launch(&NBODY_F64, 2, (&bodies, &bodies, &mut accelerations, 3.0))?;
//! let found = account.download(&accelerations)?.wait()?;
//! assert_eq!(found, [[0.0, 0.125, 0.0, 0.0], [0.0, -0.375, 0.0, 0.0]]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

use chare_device::parity::Case;
use chare_device::{In, InOut, Kernel, Launch, kernel};

use crate::{Real, Views};

/// The parameters: targets, sources, the targets' accelerations, and the square of the softening length.
pub type NBodyParams<T> = (In<[T; 4]>, In<[T; 4]>, InOut<[T; 4]>, T);

/// The kernel of this module for one floating-point type.
pub trait NBody: Real {
    /// Adds to the accelerations of the targets; see [`accelerate`].
    const ACCELERATE: Kernel<NBodyParams<Self>>;
}

macro_rules! kernels {
    ($T:ident: $NBODY:ident $nbody:ident $(; $wgsl:expr)?) => {
        kernel! {
            #[doc = concat!("[`NBody::ACCELERATE`] for `", stringify!($T), "`.")]
            pub const $NBODY: fn $nbody(
                targets: In<[$T; 4]>,
                sources: In<[$T; 4]>,
                accelerations: InOut<[$T; 4]>,
                softening_squared: $T,
            ) {
                block: [128, 1, 1],
                rust: source::<$T>,
                cuda: include_str!("nbody.cu")
                $(, wgsl: $wgsl)?
            }
        }

        impl NBody for $T {
            const ACCELERATE: Kernel<NBodyParams<$T>> = $NBODY;
        }
    };
}
kernels!(f32: NBODY_F32 nbody_f32; include_str!("nbody.wgsl"));
kernels!(f64: NBODY_F64 nbody_f64);

fn source<T: Real>(_: &Launch, (targets, sources, accelerations, softening): Views<'_, NBodyParams<T>>) {
    accelerate(targets, sources, accelerations, softening);
}

/// Targets that are looked at together: as many as fill some vector registers, coordinate by coordinate.
const LANES: usize = 16;

/// Adds to the acceleration of each target what the sources do to it.
///
/// # Panics
///
/// If there is not one acceleration for each target.
pub fn accelerate<T: Real>(
    targets: &[[T; 4]],
    sources: &[[T; 4]],
    accelerations: &mut [[T; 4]],
    softening_squared: T,
) {
    assert_eq!(accelerations.len(), targets.len(), "accelerations: one for each target");
    let one = T::from_f64(1.0);
    for (targets, accelerations) in targets.chunks(LANES).zip(accelerations.chunks_mut(LANES)) {
        let (mut at, mut sum) = ([[T::default(); LANES]; 3], [[T::default(); LANES]; 3]);
        for (lane, target) in targets.iter().enumerate() {
            (0..3).for_each(|axis| at[axis][lane] = target[axis]);
        }
        for [x, y, z, mass] in sources {
            for lane in 0..LANES {
                let (dx, dy, dz) = (*x - at[0][lane], *y - at[1][lane], *z - at[2][lane]);
                let inverse = one / (dx * dx + dy * dy + dz * dz + softening_squared).sqrt();
                let factor = *mass * inverse * inverse * inverse;
                sum[0][lane] += factor * dx;
                sum[1][lane] += factor * dy;
                sum[2][lane] += factor * dz;
            }
        }
        for (lane, acceleration) in accelerations.iter_mut().enumerate() {
            (0..3).for_each(|axis| acceleration[axis] += sum[axis][lane]);
        }
    }
}

/// The kernel for both types, with sources that are several tiles and no whole ones.
pub(crate) fn cases() -> Vec<Case> {
    fn of_type<T: NBody>(tolerance: f64) -> Case {
        let case = Case::of(&T::ACCELERATE, |random| {
            let (targets, sources) = (random.below(300), random.within(&(0..300)));
            let given = (targets as usize, sources, targets as usize, T::from_f64(0.1));
            (targets.into(), given)
        });
        case.within_absolute(tolerance)
    }
    vec![of_type::<f32>(5e-4), of_type::<f64>(1e-12)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use chare_device::parity::Random;

    #[test]
    fn bodies_pull_each_other() {
        let mut random = Random::new(5);
        let (bodies, others): (Vec<[f64; 4]>, Vec<[f64; 4]>) = (random.values(37), random.values(50));
        let mut found = vec![[1.0, 2.0, 3.0, 4.0]; 37];
        accelerate(&bodies, &bodies, &mut found, 0.25);
        accelerate(&bodies, &others, &mut found, 0.25);
        for (target, found) in bodies.iter().zip(found) {
            let mut expected = [1.0, 2.0, 3.0, 4.0];
            for source in bodies.iter().chain(&others) {
                let away: Vec<f64> = (0..3).map(|axis| source[axis] - target[axis]).collect();
                let distance = (away.iter().map(|d| d * d).sum::<f64>() + 0.25).sqrt();
                (0..3).for_each(|axis| expected[axis] += source[3] * away[axis] / distance.powi(3));
            }
            let differ = expected.iter().zip(found).any(|(a, b)| (a - b).abs() > 1e-11);
            assert!(!differ, "{found:?}, {expected:?}");
        }
    }

    #[test]
    #[should_panic(expected = "accelerations: one for each target")]
    fn a_wrong_size_is_refused() {
        accelerate(&[[0.0f32; 4]; 2], &[], &mut [[0.0; 4]], 1.0);
    }
}
