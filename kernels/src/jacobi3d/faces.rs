//! Copying faces of a block into dense arrays, and dense arrays into its ghost layer.
//!
//! The cells of a face stand in the dense array row by row, by the two other axes, the faster one fastest. So
//! the array that one block packs at a face is what its neighbour across that face unpacks at the opposite
//! one.

use super::{padded_len, padded_shape};
use crate::{Face, Real};

/// Where the cells of a face layer stand in the padded array.
struct Layer {
    start: usize,
    /// The length of the dense array's rows, and how far apart rows and cells stand in the padded array.
    row_len: usize,
    row_step: usize,
    cell_step: usize,
}

impl Layer {
    /// The layer at `face` that is the block's own (`ghost == false`) or belongs to the neighbour.
    fn new(dims: [u32; 3], face: Face, ghost: bool) -> Self {
        let [_, y, z] = padded_shape(dims);
        let steps = [y * z, z, 1];
        let (slow, fast) = [(1, 2), (0, 2), (0, 1)][face.axis()];
        let depth = match (face.is_high(), ghost) {
            (false, true) => 0,
            (false, false) => 1,
            (true, false) => dims[face.axis()] as usize,
            (true, true) => dims[face.axis()] as usize + 1,
        };
        let [_, row_len] = face.extents(dims).map(|extent| extent as usize);
        let start = depth * steps[face.axis()] + steps[slow] + steps[fast];
        Layer { start, row_len, row_step: steps[slow], cell_step: steps[fast] }
    }

    /// Where row `row` starts, and the range it covers.
    fn row(&self, row: usize) -> std::ops::Range<usize> {
        let start = self.start + row * self.row_step;
        start..start + (self.row_len - 1) * self.cell_step + 1
    }
}

fn check<T>(u: &[T], cells: &[T], dims: [u32; 3], face: Face) {
    assert_eq!(u.len(), padded_len(dims), "a block of {dims:?} cells with its ghosts");
    assert_eq!(cells.len(), face.len(dims), "the cells of face {face:?} of a block of {dims:?}");
}

/// Copies the outermost owned cells of the block `u` at `face` into `cells`.
///
/// # Panics
///
/// If `u` has not [`padded_len`] elements or `cells` not [`Face::len`].
pub fn pack_face<T: Real>(u: &[T], cells: &mut [T], dims: [u32; 3], face: Face) {
    check(u, cells, dims, face);
    let layer = Layer::new(dims, face, false);
    if cells.is_empty() {
        return;
    }
    for (row, cells) in cells.chunks_exact_mut(layer.row_len).enumerate() {
        let from = &u[layer.row(row)];
        if layer.cell_step == 1 {
            cells.copy_from_slice(from);
        } else {
            for (cell, value) in cells.iter_mut().zip(from.iter().step_by(layer.cell_step)) {
                *cell = *value;
            }
        }
    }
}

/// Copies `cells` into the ghosts of the block `u` at `face`.
///
/// # Panics
///
/// If `u` has not [`padded_len`] elements or `cells` not [`Face::len`].
pub fn unpack_face<T: Real>(cells: &[T], u: &mut [T], dims: [u32; 3], face: Face) {
    check(u, cells, dims, face);
    let layer = Layer::new(dims, face, true);
    if cells.is_empty() {
        return;
    }
    for (row, cells) in cells.chunks_exact(layer.row_len).enumerate() {
        let to = &mut u[layer.row(row)];
        if layer.cell_step == 1 {
            to.copy_from_slice(cells);
        } else {
            for (value, cell) in to.iter_mut().step_by(layer.cell_step).zip(cells) {
                *value = *cell;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The position of the cell (i, j) of a face layer, written out by hand.
    fn position(dims: [u32; 3], face: Face, ghost: bool, i: usize, j: usize) -> usize {
        let [nx, ny, nz] = dims.map(|n| n as usize);
        let side = |n: usize| match (face.is_high(), ghost) {
            (false, true) => 0,
            (false, false) => 1,
            (true, false) => n,
            (true, true) => n + 1,
        };
        let (x, y, z) = match face.axis() {
            0 => (side(nx), i + 1, j + 1),
            1 => (i + 1, side(ny), j + 1),
            _ => (i + 1, j + 1, side(nz)),
        };
        (x * (ny + 2) + y) * (nz + 2) + z
    }

    proptest! {
        #[test]
        fn faces_go_where_they_belong(nx in 1u32..7, ny in 1u32..7, nz in 1u32..7, number in 0usize..6) {
            let (dims, face) = ([nx, ny, nz], Face::ALL[number]);
            let u: Vec<f64> = (0..padded_len(dims)).map(|n| n as f64).collect();
            let mut cells = vec![-1.0; face.len(dims)];
            pack_face(&u, &mut cells, dims, face);
            let [rows, row_len] = face.extents(dims).map(|n| n as usize);
            for (i, j) in (0..rows).flat_map(|i| (0..row_len).map(move |j| (i, j))) {
                prop_assert_eq!(cells[i * row_len + j], u[position(dims, face, false, i, j)]);
            }
            let mut after = u.clone();
            unpack_face(&cells, &mut after, dims, face);
            let mut expected = u.clone();
            for (i, j) in (0..rows).flat_map(|i| (0..row_len).map(move |j| (i, j))) {
                expected[position(dims, face, true, i, j)] = cells[i * row_len + j];
            }
            prop_assert_eq!(after, expected);
        }
    }
}
