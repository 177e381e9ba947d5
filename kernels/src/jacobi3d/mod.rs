//! Jacobi's method for Laplace's equation in three dimensions, on blocks with ghost layers.
//!
//! A block of `dims = [nx, ny, nz]` cells is a row-major array of `(nx+2)(ny+2)(nz+2)` elements, z fastest:
//! one ghost layer on each side. A step replaces each owned cell by the mean of its six neighbours, from `u`
//! into `unew`; ghosts of `unew` are left alone. So a program sets the fixed boundary in *both* arrays at the
//! start, and each step unpacks the received ghosts into `u`, runs the kernel and swaps the two; corners and
//! edges of the ghost layer are never read.
//!
//! The kernels exist for `f32` and `f64`: as constants (`JACOBI3D_F64`), and as constants of the type
//! ([`Jacobi3d`], as in `T::STEP`) for generic programs. Buffers of the wrong size are a device fault that
//! says so. The grid of a launch is `dims`, the extents of the face, or for all faces [`faces_len`].
//!
//! They are written in Rust and CUDA C; for `f32` in WGSL too.

#[cfg(target_arch = "x86_64")]
mod avx2;
mod cases;
mod faces;
mod sweep;

use chare_device::{Each, In, InOut, Kernel, Launch, Maybe, Out, Zeroed, kernel};

use crate::{Face, Real, Views};

pub(crate) use cases::cases;
pub use faces::{pack_face, unpack_face};
pub use sweep::{jacobi3d_step, jacobi3d_step_portable};

/// The parameters of a step: `u`, `unew` (interior overwritten, ghosts kept), the residual (one element),
/// `dims`.
pub type StepParams<T> = (In<T>, InOut<T>, Zeroed<T>, [u32; 3]);

/// The parameters of packing one face: `u`, the face's cells, `dims`, which face.
pub type PackParams<T> = (In<T>, Out<T>, [u32; 3], Face);

/// The parameters of unpacking one face: the received cells, `u`, `dims`, at which face they are ghosts.
pub type UnpackParams<T> = (In<T>, InOut<T>, [u32; 3], Face);

/// The parameters of packing all faces that have neighbours, in one launch: `u`, one buffer per face (by
/// [`Face`] number, `None` where there is no neighbour), `dims`.
pub type PackFacesParams<T> = (In<T>, Each<Maybe<Out<T>>, 6>, [u32; 3]);

/// The parameters of unpacking all faces, in one launch: the received cells by face, `u`, `dims`.
pub type UnpackFacesParams<T> = (Each<Maybe<In<T>>, 6>, InOut<T>, [u32; 3]);

/// The kernels of this module for one floating-point type.
pub trait Jacobi3d: Real {
    /// One step; see [`jacobi3d_step`]. The residual is the largest change of a cell, or NaN.
    const STEP: Kernel<StepParams<Self>>;
    /// Copies the outermost owned cells at a face into a dense array; see [`pack_face`].
    const PACK_FACE: Kernel<PackParams<Self>>;
    /// Copies a dense array into the ghosts at a face; see [`unpack_face`].
    const UNPACK_FACE: Kernel<UnpackParams<Self>>;
    /// Packs all faces that are given.
    const PACK_FACES: Kernel<PackFacesParams<Self>>;
    /// Unpacks all faces that are given.
    const UNPACK_FACES: Kernel<UnpackFacesParams<Self>>;
}

macro_rules! kernels {
    (
        $T:ident: $STEP:ident $step:ident, $PACK:ident $pack:ident, $UNPACK:ident $unpack:ident,
        $PACK_ALL:ident $pack_all:ident, $UNPACK_ALL:ident $unpack_all:ident
        $(; $step_wgsl:expr, $faces_wgsl:expr, $pack_all_wgsl:expr, $unpack_all_wgsl:expr)?
    ) => {
        kernel! {
            #[doc = concat!("[`Jacobi3d::STEP`] for `", stringify!($T), "`.")]
            pub const $STEP: fn $step(u: In<$T>, unew: InOut<$T>, residual: Zeroed<$T>, dims: [u32; 3]) {
                rust: step::<$T>,
                cuda: include_str!("sweep.cu")
                $(, wgsl: $step_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Jacobi3d::PACK_FACE`] for `", stringify!($T), "`.")]
            pub const $PACK: fn $pack(u: In<$T>, cells: Out<$T>, dims: [u32; 3], face: Face) {
                rust: pack::<$T>,
                cuda: include_str!("faces.cu")
                $(, wgsl: $faces_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Jacobi3d::UNPACK_FACE`] for `", stringify!($T), "`.")]
            pub const $UNPACK: fn $unpack(cells: In<$T>, u: InOut<$T>, dims: [u32; 3], face: Face) {
                rust: unpack::<$T>,
                cuda: include_str!("faces.cu")
                $(, wgsl: $faces_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Jacobi3d::PACK_FACES`] for `", stringify!($T), "`.")]
            pub const $PACK_ALL: fn $pack_all(u: In<$T>, faces: Each<Maybe<Out<$T>>, 6>, dims: [u32; 3]) {
                rust: pack_all::<$T>,
                cuda: include_str!("faces.cu")
                $(, wgsl: $pack_all_wgsl)?
            }
        }
        kernel! {
            #[doc = concat!("[`Jacobi3d::UNPACK_FACES`] for `", stringify!($T), "`.")]
            pub const $UNPACK_ALL: fn $unpack_all(faces: Each<Maybe<In<$T>>, 6>, u: InOut<$T>, dims: [u32; 3]) {
                rust: unpack_all::<$T>,
                cuda: include_str!("faces.cu")
                $(, wgsl: $unpack_all_wgsl)?
            }
        }

        impl Jacobi3d for $T {
            const STEP: Kernel<StepParams<$T>> = $STEP;
            const PACK_FACE: Kernel<PackParams<$T>> = $PACK;
            const UNPACK_FACE: Kernel<UnpackParams<$T>> = $UNPACK;
            const PACK_FACES: Kernel<PackFacesParams<$T>> = $PACK_ALL;
            const UNPACK_FACES: Kernel<UnpackFacesParams<$T>> = $UNPACK_ALL;
        }
    };
}
kernels!(
    f32: JACOBI3D_F32 jacobi3d_f32, PACK_FACE_F32 pack_face_f32, UNPACK_FACE_F32 unpack_face_f32,
    PACK_FACES_F32 pack_faces_f32, UNPACK_FACES_F32 unpack_faces_f32;
    include_str!("sweep.wgsl"), include_str!("faces.wgsl"), include_str!("pack_faces.wgsl"),
    include_str!("unpack_faces.wgsl")
);
kernels!(
    f64: JACOBI3D_F64 jacobi3d_f64, PACK_FACE_F64 pack_face_f64, UNPACK_FACE_F64 unpack_face_f64,
    PACK_FACES_F64 pack_faces_f64, UNPACK_FACES_F64 unpack_faces_f64
);

/// The shape of the padded array of a block of `dims` cells.
pub const fn padded_shape(dims: [u32; 3]) -> [usize; 3] {
    [dims[0] as usize + 2, dims[1] as usize + 2, dims[2] as usize + 2]
}

/// The number of elements of the padded array of a block of `dims` cells.
pub const fn padded_len(dims: [u32; 3]) -> usize {
    let [x, y, z] = padded_shape(dims);
    x * y * z
}

/// The number of cells of all faces of a block of `dims` cells.
///
/// # Panics
///
/// If there are more than fit.
pub const fn faces_len(dims: [u32; 3]) -> u32 {
    let len = 2 * (Face::XLow.len(dims) + Face::YLow.len(dims) + Face::ZLow.len(dims));
    assert!(len <= u32::MAX as usize, "the faces of a block that fits have fewer cells");
    len as u32
}

fn step<T: Real>(_: &Launch, (u, unew, residual, dims): Views<'_, StepParams<T>>) {
    residual[0] = jacobi3d_step(u, unew, dims);
}

fn pack<T: Real>(_: &Launch, (u, cells, dims, face): Views<'_, PackParams<T>>) {
    pack_face(u, cells, dims, face);
}

fn unpack<T: Real>(_: &Launch, (cells, u, dims, face): Views<'_, UnpackParams<T>>) {
    unpack_face(cells, u, dims, face);
}

fn pack_all<T: Real>(_: &Launch, (u, faces, dims): Views<'_, PackFacesParams<T>>) {
    for (face, cells) in Face::ALL.into_iter().zip(faces) {
        if let Some(cells) = cells {
            pack_face(u, cells, dims, face);
        }
    }
}

fn unpack_all<T: Real>(_: &Launch, (faces, u, dims): Views<'_, UnpackFacesParams<T>>) {
    for (face, cells) in Face::ALL.into_iter().zip(faces) {
        if let Some(cells) = cells {
            unpack_face(cells, u, dims, face);
        }
    }
}
