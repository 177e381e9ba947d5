//! The assignment step of k-means: for each point the nearest of several centroids.
//!
//! `dims = [points, clusters, axes]`. Points are stored axis by axis: coordinate `axis` of point `i` is at `axis * points + i`, so that
//! neighbours in memory are points next to each other. Centroids are stored one after the other: coordinate `axis` of centroid `j` is at `j * axes + axis`. A
//! launch writes the number of the nearest centroid of each point, the first of several, and the square of its distance, whose
//! [sum](crate::reduce::sum) is what k-means makes small.
//!
//! The grid of a launch is that of [`grid_for`] the number of points: threads go on by its size. There is at least one cluster and one axis.
//! Devices may fuse multiplications and additions, which matters where two centroids are as near up to rounding. Written in Rust and CUDA C; for `f32`
//! in WGSL too.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::grid_for;
//! use chare_kernels::kmeans::ASSIGN_F64;
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("points");
//! // Three points of the plane, and two centroids.
//! let points = account.upload(vec![0.0, 3.0, 4.0, 0.0, 3.0, 4.0])?;
//! let centroids = account.upload(vec![1.0, 0.0, 3.0, 5.0])?;
//! let (mut labels, mut distances) = (account.alloc::<u32>(3)?, account.alloc::<f64>(3)?);
//! let arguments = (&points, &centroids, &mut labels, &mut distances, [3, 2, 2]);
//! account.launch(&ASSIGN_F64, grid_for(3), arguments)?;
//! assert_eq!(account.download(&labels)?.wait()?, [0, 1, 1]);
//! assert_eq!(account.download(&distances)?.wait()?, [1.0, 4.0, 2.0]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

use chare_device::parity::{Case, Random};
use chare_device::{In, Kernel, Launch, Out, kernel};

use crate::{Real, Views, grid_for};

/// The parameters: points, centroids, the nearest centroid of each point, the square of its distance, `[points, clusters, axes]`.
pub type AssignParams<T> = (In<T>, In<T>, Out<u32>, Out<T>, [u32; 3]);

/// The kernel of this module for one floating-point type.
pub trait KMeans: Real {
    /// Finds the nearest centroids; see [`assign`].
    const ASSIGN: Kernel<AssignParams<Self>>;
}

macro_rules! kernels {
    ($T:ident: $ASSIGN:ident $assign:ident $(; $wgsl:expr)?) => {
        kernel! {
            #[doc = concat!("[`KMeans::ASSIGN`] for `", stringify!($T), "`.")]
            pub const $ASSIGN: fn $assign(
                points: In<$T>,
                centroids: In<$T>,
                labels: Out<u32>,
                distances: Out<$T>,
                dims: [u32; 3],
            ) {
                rust: source::<$T>,
                cuda: include_str!("kmeans.cu")
                $(, wgsl: $wgsl)?
            }
        }

        impl KMeans for $T {
            const ASSIGN: Kernel<AssignParams<$T>> = $ASSIGN;
        }
    };
}
kernels!(f32: ASSIGN_F32 kmeans_assign_f32; include_str!("kmeans.wgsl"));
kernels!(f64: ASSIGN_F64 kmeans_assign_f64);

fn source<T: Real>(_: &Launch, (points, centroids, labels, distances, dims): Views<'_, AssignParams<T>>) {
    assign(points, centroids, labels, distances, dims);
}

/// Points that are compared with all centroids before the next ones: they stay in a cache meanwhile.
const LANES: usize = 256;

/// Finds for each point the nearest centroid, and the square of its distance.
///
/// # Panics
///
/// If there is no cluster or no axis, or a slice has not as many elements as `dims = [points, clusters, axes]` says.
pub fn assign<T: Real>(
    points: &[T],
    centroids: &[T],
    labels: &mut [u32],
    distances: &mut [T],
    dims: [u32; 3],
) {
    let [count, clusters, axes] = dims.map(|extent| extent as usize);
    assert!(clusters > 0 && axes > 0, "at least one cluster and one axis");
    assert_eq!(points.len(), count * axes, "points: {axes} axes of {count} coordinates");
    assert_eq!(centroids.len(), clusters * axes, "centroids: {clusters} of {axes} coordinates");
    assert_eq!((labels.len(), distances.len()), (count, count), "labels and distances: one for each point");
    for (group, (labels, nearest)) in labels.chunks_mut(LANES).zip(distances.chunks_mut(LANES)).enumerate() {
        nearest.fill(T::INFINITY);
        labels.fill(0);
        for (cluster, centroid) in centroids.chunks_exact(axes).enumerate() {
            let mut squared = [T::default(); LANES];
            for (points, center) in points.chunks_exact(count).zip(centroid) {
                for (squared, point) in squared.iter_mut().zip(&points[group * LANES..]) {
                    let away = *point - *center;
                    *squared += away * away;
                }
            }
            for ((label, nearest), squared) in labels.iter_mut().zip(nearest.iter_mut()).zip(squared) {
                if squared < *nearest {
                    (*label, *nearest) = (cluster as u32, squared);
                }
            }
        }
    }
}

/// The kernel for both types. Coordinates are multiples of 1/16: distances are exact, and equal ones are equal everywhere.
pub(crate) fn cases() -> Vec<Case> {
    fn coordinates<T: Real>(random: &mut Random, len: u32) -> Vec<T> {
        (0..len).map(|_| T::from_f64((f64::from(random.below(129)) - 64.0) / 16.0)).collect()
    }
    fn of_type<T: KMeans>() -> Case {
        Case::of(&T::ASSIGN, |random| {
            let dims @ [count, clusters, axes] =
                [random.below(2000), 1 + random.below(20), 1 + random.below(8)];
            let (points, centroids) =
                (coordinates::<T>(random, count * axes), coordinates::<T>(random, clusters * axes));
            let grid = grid_for((count as usize).div_ceil(1 + random.below(3) as usize));
            (grid, (points, centroids, count as usize, count as usize, dims))
        })
    }
    vec![of_type::<f32>(), of_type::<f64>()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_centroid_is_found() {
        let mut random = Random::new(9);
        let (count, clusters, axes) = (700, 13, 3);
        let (points, centroids): (Vec<f64>, Vec<f64>) =
            (random.values(count * axes), random.values(clusters * axes));
        let (mut labels, mut distances) = (vec![77; count], vec![-1.0; count]);
        let dims = [count, clusters, axes].map(|extent| extent as u32);
        assign(&points, &centroids, &mut labels, &mut distances, dims);
        for point in 0..count {
            let squared = |cluster: usize| {
                let away = |axis: usize| points[axis * count + point] - centroids[cluster * axes + axis];
                (0..axes).map(|axis| away(axis).powi(2)).sum::<f64>()
            };
            let found = squared(labels[point] as usize);
            assert!((found - distances[point]).abs() < 1e-14);
            assert!((0..clusters).all(|cluster| squared(cluster) >= found - 1e-14), "point {point}");
        }
    }

    #[test]
    fn of_equal_distances_the_first_is_taken() {
        let (mut labels, mut distances) = ([7, 7], [0.0, 0.0]);
        assign(&[0.0, 2.0], &[9.0, 1.0, -1.0, 3.0], &mut labels, &mut distances, [2, 4, 1]);
        assert_eq!((labels, distances), ([1, 1], [1.0, 1.0]));
    }

    #[test]
    #[should_panic(expected = "centroids: 2 of 1 coordinates")]
    fn a_wrong_size_is_refused() {
        assign(&[0.0f32], &[1.0], &mut [0], &mut [0.0], [1, 2, 1]);
    }
}
