//! Forces between the particles of two cells, by a Lennard-Jones potential that is cut off and shifted.
//!
//! A particle is `[x, y, z, _]`, a force `[x, y, z, energy]`. A launch adds to the force on each target what the sources nearer than the
//! cutoff do to it:
//!
//! ```text
//! V(r) = 4 epsilon ((sigma/r)^12 - (sigma/r)^6) - V_0, with V_0 such that V(cutoff) = 0
//! force += -V'(r) (target - source) / r,    energy += V(r) / 2
//! ```
//!
//! Half of a pair's energy goes to each of the two, so the energies of all particles sum up to that of the system.
//!
//! A program with cells at least as wide as the cutoff launches for each cell once with itself (`same = 1`: no particle acts on itself), and
//! once with each neighbour's particles as sources. `shift` is added to the sources: the period of the box, for a neighbour on its other side. Each pair is computed twice, once for
//! each end, which needs no atomics and no forces in messages. No two particles may be at one place.
//!
//! The grid of a launch is the number of targets. Blocks of 64 threads go over the sources in tiles that they keep in shared memory. Sources are added in their order; devices may fuse
//! multiplications and additions. Written in Rust and CUDA C; for `f32` in WGSL too.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::lennard_jones::{FORCES_F64, potential};
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("cell");
//! // At the bottom of the well there is no force.
//! let bottom = 2.0_f64.powf(1.0 / 6.0);
//! let cell = account.upload(vec![[0.0, 0.0, 0.0, 0.0], [bottom, 0.0, 0.0, 0.0]])?;
//! let mut forces = account.alloc::<[f64; 4]>(2)?;
//! let potential = potential(1.0, 1.0, 2.5);
//! account.launch(&FORCES_F64, 2, (&cell, &cell, &mut forces, [0.0; 3], potential, 1))?;
//! let [[force, _, _, energy], _] = account.download(&forces)?.wait()?[..] else { panic!() };
//! assert!(force.abs() < 1e-12 && (2.0 * energy + 1.0 - 0.0163).abs() < 1e-4);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

use chare_device::parity::{Case, Random};
use chare_device::{Grid, In, InOut, Launch, kernel};

use crate::{Real, Views};

/// The parameters: targets, sources, the forces on the targets, what is added to the sources, the [`potential`], and whether sources and
/// targets are the same particles (1) or not (0).
pub type ForcesParams<T> = (In<[T; 4]>, In<[T; 4]>, InOut<[T; 4]>, [T; 3], [T; 4], u32);

macro_rules! kernels {
    ($T:ident: $FORCES:ident $forces:ident $(; $wgsl:expr)?) => {
        kernel! {
            #[doc = concat!("Adds to the forces on the targets, for `", stringify!($T), "`; see [`add_forces`].")]
            pub const $FORCES: fn $forces(
                targets: In<[$T; 4]>,
                sources: In<[$T; 4]>,
                forces: InOut<[$T; 4]>,
                shift: [$T; 3],
                potential: [$T; 4],
                same: u32,
            ) {
                block: [64, 1, 1],
                rust: |_: &Launch, (targets, sources, forces, shift, potential, same): Views<'_, ForcesParams<$T>>| {
                    add_forces(targets, sources, forces, shift, potential, same != 0);
                },
                cuda: include_str!("lennard_jones.cu")
                $(, wgsl: $wgsl)?
            }
        }
    };
}
kernels!(f32: FORCES_F32 lennard_jones_f32; include_str!("lennard_jones.wgsl"));
kernels!(f64: FORCES_F64 lennard_jones_f64);

/// What the kernels take of a potential with the depth `epsilon`, the diameter `sigma`, and a cutoff: `[epsilon, sigma^2, cutoff^2, V_0]`.
pub fn potential<T: Real>(epsilon: T, sigma: T, cutoff: T) -> [T; 4] {
    let near = sigma * sigma / (cutoff * cutoff);
    let sixth = near * near * near;
    [epsilon, sigma * sigma, cutoff * cutoff, T::from_f64(4.0) * epsilon * (sixth * sixth - sixth)]
}

/// Targets that are looked at together: as many as fill some vector registers, coordinate by coordinate.
const LANES: usize = 16;

/// Adds to the force on each target what the sources do to it.
///
/// # Panics
///
/// If there is not one force for each target.
pub fn add_forces<T: Real>(
    targets: &[[T; 4]],
    sources: &[[T; 4]],
    forces: &mut [[T; 4]],
    shift: [T; 3],
    [epsilon, sigma_squared, cutoff_squared, at_cutoff]: [T; 4],
    same: bool,
) {
    assert_eq!(forces.len(), targets.len(), "forces: one for each target");
    let (zero, half, two, four, one) =
        (T::default(), T::from_f64(0.5), T::from_f64(2.0), T::from_f64(4.0), T::from_f64(1.0));
    let strength = T::from_f64(24.0) * epsilon;
    for (group, (targets, forces)) in targets.chunks(LANES).zip(forces.chunks_mut(LANES)).enumerate() {
        let (mut at, mut sum) = ([[zero; LANES]; 3], [[zero; LANES]; 4]);
        for (lane, target) in targets.iter().enumerate() {
            (0..3).for_each(|axis| at[axis][lane] = target[axis]);
        }
        for (number, [x, y, z, _]) in sources.iter().enumerate() {
            let (x, y, z) = (*x + shift[0], *y + shift[1], *z + shift[2]);
            for lane in 0..LANES {
                let (dx, dy, dz) = (at[0][lane] - x, at[1][lane] - y, at[2][lane] - z);
                let squared = dx * dx + dy * dy + dz * dz;
                let is_itself = same && group * LANES + lane == number;
                // Computed for all, and taken or not, so that lanes do the same.
                let inverse = one / squared;
                let near = sigma_squared * inverse;
                let sixth = near * near * near;
                let factor = strength * (two * sixth * sixth - sixth) * inverse;
                let energy = half * (four * epsilon * (sixth * sixth - sixth) - at_cutoff);
                let acts = squared < cutoff_squared && !is_itself;
                let (factor, energy) = if acts { (factor, energy) } else { (zero, zero) };
                sum[0][lane] += factor * dx;
                sum[1][lane] += factor * dy;
                sum[2][lane] += factor * dz;
                sum[3][lane] += energy;
            }
        }
        for (lane, force) in forces.iter_mut().enumerate() {
            (0..4).for_each(|part| force[part] += sum[part][lane]);
        }
    }
}

/// Particles of a cubic cell, none too near another. Coordinates are multiples of 1/64: distances are exact, and so is what is inside of the
/// cutoff.
fn particles<T: Real>(random: &mut Random, count: usize) -> Vec<[T; 4]> {
    let coordinate =
        |site: usize, random: &mut Random| (site * 72) as f64 / 64.0 + f64::from(random.below(17)) / 64.0;
    let particle = |site: usize| {
        let place = [site / 16, site / 4 % 4, site % 4].map(|site| T::from_f64(coordinate(site, random)));
        [place[0], place[1], place[2], T::from_f64(9.0)]
    };
    (0..count).map(particle).collect()
}

/// The kernel for both types: a cell with itself, and with one beside it.
pub(crate) fn cases() -> Vec<Case> {
    macro_rules! of_type {
        ($FORCES:ident, $T:ident, $tolerance:literal) => {
            Case::of(&$FORCES, |random| {
                let (count, same) = (random.within(&(0..65)), random.below(2));
                let targets = particles::<$T>(random, count);
                let others = random.within(&(0..65));
                let (sources, shift) = match same {
                    1 => (targets.clone(), [0.0; 3]),
                    _ => (particles(random, others), [4.5, 0.0, -4.5]),
                };
                (Grid::from(count as u32), (targets, sources, count, shift, potential(1.5, 1.0, 2.5), same))
            })
            .within_absolute($tolerance)
        };
    }
    vec![of_type!(FORCES_F32, f32, 2e-3), of_type!(FORCES_F64, f64, 1e-11)]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The energy of a pair at this distance.
    fn energy(distance: f64, cutoff: f64) -> f64 {
        let plain = |r: f64| 4.0 * 1.5 * (r.powi(-12) - r.powi(-6));
        if distance < cutoff { plain(distance) - plain(cutoff) } else { 0.0 }
    }

    fn distance(a: &[f64; 4], b: &[f64; 4]) -> f64 {
        (0..3).map(|axis| (a[axis] - b[axis]).powi(2)).sum::<f64>().sqrt()
    }

    #[test]
    fn forces_are_those_of_the_energy() {
        let cell: Vec<[f64; 4]> = particles(&mut Random::new(1), 30);
        let total = |cell: &[[f64; 4]]| {
            let pairs = (0..cell.len()).flat_map(|i| (0..i).map(move |j| (i, j)));
            pairs.map(|(i, j)| energy(distance(&cell[i], &cell[j]), 2.5)).sum::<f64>()
        };
        let mut forces = vec![[0.0; 4]; 30];
        add_forces(&cell, &cell, &mut forces, [0.0; 3], potential(1.5, 1.0, 2.5), true);
        let sum = |part: usize| forces.iter().map(|force| force[part]).sum::<f64>();
        assert!((sum(3) - total(&cell)).abs() < 1e-9, "{} {}", sum(3), total(&cell));
        assert!((0..3).all(|axis| sum(axis).abs() < 1e-9), "action and reaction");
        // A force is what the energy loses along the way; none here is within a step of the cutoff.
        let step = 1e-6;
        for (number, axis) in [(0, 0), (7, 1), (19, 2), (29, 0)] {
            let moved = |by: f64| {
                let mut cell = cell.clone();
                cell[number][axis] += by;
                total(&cell)
            };
            let expected = (moved(-step) - moved(step)) / (2.0 * step);
            let found = forces[number][axis];
            assert!((found - expected).abs() < 1e-4 * found.abs().max(1.0), "{found} {expected}");
        }
    }

    #[test]
    fn a_cell_beside_is_shifted() {
        let (one, other) = (vec![[0.25, 0.5, 0.0, 0.0]], vec![[0.25, 3.5, 0.0, 0.0], [0.25, 9.0, 0.0, 0.0]]);
        let mut forces = vec![[1.0, 0.0, 0.0, 0.0]];
        add_forces(&one, &other, &mut forces, [0.0, -4.5, 0.0], potential(1.5, 1.0, 2.5), false);
        let [x, y, z, half] = forces[0];
        // The first is at a distance of 1.5 below, and the other beyond the cutoff.
        assert!((half - energy(1.5, 2.5) / 2.0).abs() < 1e-12);
        let slope = 1.5 * 24.0 * (2.0 * 1.5f64.powi(-13) - 1.5f64.powi(-7));
        assert!((y - slope).abs() < 1e-12 && (x, z) == (1.0, 0.0), "{y} {slope}");
    }

    #[test]
    #[should_panic(expected = "forces: one for each target")]
    fn a_wrong_size_is_refused() {
        add_forces(&[[0.0f32; 4]; 2], &[], &mut [[0.0; 4]], [0.0; 3], [1.0; 4], false);
    }
}
