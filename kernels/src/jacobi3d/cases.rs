//! The kernels of this module on random blocks.

use chare_device::Grid;
use chare_device::parity::{Case, Random};

use super::{Jacobi3d, faces_len, padded_len};
use crate::Face;

/// The kernels for both types.
pub(crate) fn cases() -> Vec<Case> {
    [of_type::<f32>(1e-6), of_type::<f64>(1e-15)].into_iter().flatten().collect()
}

/// Small blocks of all proportions, and larger ones than a workgroup.
fn dims(random: &mut Random) -> [u32; 3] {
    let limits = if random.below(4) == 0 { [20, 20, 80] } else { [5, 5, 9] };
    limits.map(|limit| 1 + random.below(limit))
}

/// A block, and one of its faces.
fn dims_and_face(random: &mut Random) -> ([u32; 3], Face) {
    (dims(random), Face::ALL[random.below(6) as usize])
}

/// A block, and the lengths of some of its faces.
fn dims_and_faces(random: &mut Random) -> ([u32; 3], [Option<usize>; 6]) {
    let (dims, present) = (dims(random), random.below(64));
    (dims, Face::ALL.map(|face| (present >> face.index() & 1 == 1).then(|| face.len(dims))))
}

fn of_type<T: Jacobi3d>(tolerance: f64) -> [Case; 5] {
    [
        Case::of(&T::STEP, |random| {
            let dims = dims(random);
            (dims.into(), (padded_len(dims), padded_len(dims), 1, dims))
        })
        .within(tolerance),
        Case::of(&T::PACK_FACE, |random| {
            let (dims, face) = dims_and_face(random);
            (face.extents(dims).into(), (padded_len(dims), face.len(dims), dims, face))
        }),
        Case::of(&T::UNPACK_FACE, |random| {
            let (dims, face) = dims_and_face(random);
            (face.extents(dims).into(), (face.len(dims), padded_len(dims), dims, face))
        }),
        Case::of(&T::PACK_FACES, |random| {
            let (dims, faces) = dims_and_faces(random);
            (Grid::from(faces_len(dims)), (padded_len(dims), faces, dims))
        }),
        Case::of(&T::UNPACK_FACES, |random| {
            let (dims, faces) = dims_and_faces(random);
            (Grid::from(faces_len(dims)), (faces, padded_len(dims), dims))
        }),
    ]
}
