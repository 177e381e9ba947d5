//! Jacobi's method for Laplace's equation in two dimensions, on blocks with ghost layers.
//!
//! A block of `dims = [nx, ny]` cells is a row-major array of `(nx+2)(ny+2)` elements, y fastest: one ghost layer on each side. A step
//! replaces each owned cell by the mean of its four neighbours, from `u` into `unew`; ghosts of `unew` are left alone. So a program sets the
//! fixed boundary in *both* arrays at the start, and each step unpacks the received ghosts into `u`, runs the kernel and swaps the two; corners
//! of the ghost layer are never read.
//!
//! Edges are packed into, and unpacked from, dense arrays, all that are given in one launch. Buffers of the wrong size are a device fault that says so where the Rust
//! source runs. The grid of a step is `dims`, that of packing and unpacking [`edges_len`].
//!
//! Written in Rust and CUDA C; for `f32` in WGSL too.
//!
//! ```
//! use chare_device::{DeviceSpec, Devices, HostMode};
//! use chare_kernels::jacobi2d::{JACOBI2D_F64, padded_shape};
//!
//! let devices = Devices::open(&DeviceSpec::default(), HostMode::Inline)?;
//! let account = devices.get(0).account("block");
//! let dims = [8, 8];
//! let u = account.upload(vec![1.0; padded_shape(dims).into_iter().product()])?;
//! let mut unew = account.alloc::<f64>(padded_shape(dims))?;
//! let mut residual = account.alloc::<f64>(1)?;
//! account.launch(&JACOBI2D_F64, dims, (&u, &mut unew, &mut residual, dims))?;
//! assert_eq!(account.download(&residual)?.wait()?, [0.0]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

mod edges;
mod step;

use chare_device::parity::{Case, Random};
use chare_device::{Each, Grid, In, InOut, Kernel, Launch, Maybe, Out, Zeroed, kernel};

use crate::{Real, Views};

pub use edges::{Edge, edges_len, pack_edge, unpack_edge};
pub use step::jacobi2d_step;

/// The parameters of a step: `u`, `unew` (interior overwritten, ghosts kept), the residual (one element), `dims`.
pub type StepParams<T> = (In<T>, InOut<T>, Zeroed<T>, [u32; 2]);

/// The parameters of packing: `u`, one buffer per edge (by [`Edge`] number, `None` where there is no neighbour), `dims`.
pub type PackParams<T> = (In<T>, Each<Maybe<Out<T>>, 4>, [u32; 2]);

/// The parameters of unpacking: the received cells by edge, `u`, `dims`.
pub type UnpackParams<T> = (Each<Maybe<In<T>>, 4>, InOut<T>, [u32; 2]);

/// The kernels of this module for one floating-point type.
pub trait Jacobi2d: Real {
    /// One step; see [`jacobi2d_step`]. The residual is the largest change of a cell, or NaN.
    const STEP: Kernel<StepParams<Self>>;
    /// Copies the outermost owned cells at each edge that is given into a dense array; see [`pack_edge`].
    const PACK_EDGES: Kernel<PackParams<Self>>;
    /// Copies dense arrays into the ghosts at each edge that is given; see [`unpack_edge`].
    const UNPACK_EDGES: Kernel<UnpackParams<Self>>;
}

macro_rules! kernels {
    (
        $T:ident: $STEP:ident $step:ident, $PACK:ident $pack:ident, $UNPACK:ident $unpack:ident
        $(; $step_wgsl:expr, $pack_wgsl:expr, $unpack_wgsl:expr)?
    ) => {
        kernel! {
            #[doc = concat!("[`Jacobi2d::STEP`] for `", stringify!($T), "`.")]
            pub const $STEP: fn $step(u: In<$T>, unew: InOut<$T>, residual: Zeroed<$T>, dims: [u32; 2]) {
                rust: step::<$T>,
                cuda: include_str!("step.cu")
                $(, wgsl: $step_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Jacobi2d::PACK_EDGES`] for `", stringify!($T), "`.")]
            pub const $PACK: fn $pack(u: In<$T>, edges: Each<Maybe<Out<$T>>, 4>, dims: [u32; 2]) {
                rust: pack::<$T>,
                cuda: include_str!("edges.cu")
                $(, wgsl: $pack_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Jacobi2d::UNPACK_EDGES`] for `", stringify!($T), "`.")]
            pub const $UNPACK: fn $unpack(edges: Each<Maybe<In<$T>>, 4>, u: InOut<$T>, dims: [u32; 2]) {
                rust: unpack::<$T>,
                cuda: include_str!("edges.cu")
                $(, wgsl: $unpack_wgsl)?
            }
        }

        impl Jacobi2d for $T {
            const STEP: Kernel<StepParams<$T>> = $STEP;
            const PACK_EDGES: Kernel<PackParams<$T>> = $PACK;
            const UNPACK_EDGES: Kernel<UnpackParams<$T>> = $UNPACK;
        }
    };
}
kernels!(
    f32: JACOBI2D_F32 jacobi2d_f32, PACK_EDGES_F32 pack_edges_f32, UNPACK_EDGES_F32 unpack_edges_f32;
    include_str!("step.wgsl"), concat!(include_str!("pack.wgsl"), include_str!("edges.wgsl")),
    concat!(include_str!("unpack.wgsl"), include_str!("edges.wgsl"))
);
kernels!(f64: JACOBI2D_F64 jacobi2d_f64, PACK_EDGES_F64 pack_edges_f64, UNPACK_EDGES_F64 unpack_edges_f64);

/// The shape of the padded array of a block of `dims` cells.
pub const fn padded_shape(dims: [u32; 2]) -> [usize; 2] {
    [dims[0] as usize + 2, dims[1] as usize + 2]
}

/// The number of elements of the padded array of a block of `dims` cells.
pub const fn padded_len(dims: [u32; 2]) -> usize {
    let [x, y] = padded_shape(dims);
    x * y
}

fn step<T: Real>(_: &Launch, (u, unew, residual, dims): Views<'_, StepParams<T>>) {
    residual[0] = jacobi2d_step(u, unew, dims);
}

fn pack<T: Real>(_: &Launch, (u, edges, dims): Views<'_, PackParams<T>>) {
    for (edge, cells) in Edge::ALL.into_iter().zip(edges) {
        if let Some(cells) = cells {
            pack_edge(u, cells, dims, edge);
        }
    }
}

fn unpack<T: Real>(_: &Launch, (edges, u, dims): Views<'_, UnpackParams<T>>) {
    for (edge, cells) in Edge::ALL.into_iter().zip(edges) {
        if let Some(cells) = cells {
            unpack_edge(cells, u, dims, edge);
        }
    }
}

/// The kernels for both types.
pub(crate) fn cases() -> Vec<Case> {
    fn dims(random: &mut Random) -> [u32; 2] {
        let limits = if random.below(4) == 0 { [60, 200] } else { [5, 40] };
        limits.map(|limit| 1 + random.below(limit))
    }
    fn dims_and_edges(random: &mut Random) -> ([u32; 2], [Option<usize>; 4]) {
        let (dims, present) = (dims(random), random.below(16));
        (dims, Edge::ALL.map(|edge| (present >> edge.index() & 1 == 1).then(|| edge.len(dims))))
    }
    fn of_type<T: Jacobi2d>() -> [Case; 3] {
        [
            Case::of(&T::STEP, |random| {
                let dims = dims(random);
                (dims.into(), (padded_len(dims), padded_len(dims), 1, dims))
            }),
            Case::of(&T::PACK_EDGES, |random| {
                let (dims, edges) = dims_and_edges(random);
                (Grid::from(edges_len(dims)), (padded_len(dims), edges, dims))
            }),
            Case::of(&T::UNPACK_EDGES, |random| {
                let (dims, edges) = dims_and_edges(random);
                (Grid::from(edges_len(dims)), (edges, padded_len(dims), dims))
            }),
        ]
    }
    [of_type::<f32>(), of_type::<f64>()].into_iter().flatten().collect()
}
