//! Cutting the interior of a field into blocks.
//!
//! The outer layer of a field is boundary and belongs to no block. The blocks cover the interior without overlap;
//! along an axis their lengths differ by one cell at most, and none is empty.

use std::ops::Range;

use ndarray::{Array3, ArrayView3, ArrayViewMut3, s};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::field::Extents;

/// How many blocks a PE gets when the user does not say: enough that communication of one overlaps with another's work.
pub const BLOCKS_PER_PE: usize = 4;

/// A grid of blocks over the interior of a field.
///
/// ```
/// use chare_examples::decomposition::Decomposition;
///
/// let blocks = Decomposition::new([12, 5, 5], [3, 1, 1])?;
/// assert_eq!(blocks.cells([0, 0, 0]), [1..4, 1..4, 1..4]);
/// assert_eq!(blocks.cells([2, 0, 0]), [7..11, 1..4, 1..4]);
/// # Ok::<(), chare_examples::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decomposition {
    interior: Extents,
    blocks: [usize; 3],
}

impl Decomposition {
    /// Cuts the interior of a field with these extents into so many blocks along each axis.
    ///
    /// # Errors
    /// [`Error::NoInterior`] if an extent is less than 3; [`Error::Blocks`] if an axis has more blocks than interior
    /// cells, or none.
    pub fn new(extents: Extents, blocks: [usize; 3]) -> Result<Decomposition, Error> {
        if extents.iter().any(|&extent| extent < 3) {
            return Err(Error::NoInterior { field: "the field".into(), extents });
        }
        let interior = extents.map(|extent| extent - 2);
        for axis in 0..3 {
            let (wanted, cells) = (blocks[axis], interior[axis]);
            if !(1..=cells).contains(&wanted) {
                return Err(Error::Blocks { axis, wanted, cells });
            }
        }
        Ok(Decomposition { interior, blocks })
    }

    /// Cuts the interior into [`BLOCKS_PER_PE`] blocks for each PE, with the smallest surface between them; into fewer
    /// if the interior is too small for that.
    ///
    /// # Errors
    /// [`Error::NoInterior`] if an extent is less than 3.
    pub fn automatic(extents: Extents, pe_count: usize) -> Result<Decomposition, Error> {
        let whole = Decomposition::new(extents, [1; 3])?;
        let cells = whole.interior.iter().fold(1_usize, |product, &cells| product.saturating_mul(cells));
        let wanted = pe_count.saturating_mul(BLOCKS_PER_PE).clamp(1, cells);
        let fitting = (1..=wanted).rev().find_map(|count| {
            let cuts = factorizations(count).filter(|&blocks| whole.holds(blocks));
            cuts.min_by_key(|&blocks| (whole.cut_surface(blocks), std::cmp::Reverse(blocks)))
        });
        // One block always fits, so there is an answer.
        Ok(Decomposition { blocks: fitting.unwrap_or(whole.blocks), ..whole })
    }

    /// The number of blocks along each axis.
    pub fn blocks(&self) -> [usize; 3] {
        self.blocks
    }

    /// The number of blocks altogether.
    pub fn block_count(&self) -> usize {
        self.blocks.iter().product()
    }

    /// The number of cells that a step computes.
    pub fn interior_cell_count(&self) -> usize {
        self.interior.iter().product()
    }

    /// The index of every block, the last axis running fastest.
    pub fn indices(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [nx, ny, nz] = self.blocks;
        (0..nx).flat_map(move |x| (0..ny).flat_map(move |y| (0..nz).map(move |z| [x, y, z])))
    }

    /// The cells of a block, as indices into the field.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn cells(&self, block: [usize; 3]) -> [Range<usize>; 3] {
        std::array::from_fn(|axis| {
            let (index, blocks, cells) = (block[axis], self.blocks[axis], self.interior[axis]);
            assert!(index < blocks, "there is no block {block:?} in a grid of {:?}", self.blocks);
            let bound = |index: usize| 1 + (index as u128 * cells as u128 / blocks as u128) as usize;
            bound(index)..bound(index + 1)
        })
    }

    /// A copy of a block's cells with the layer of cells around them.
    ///
    /// # Panics
    /// If there is no such block, or `field` has other extents than those that were cut.
    pub fn block_with_halo<T: Clone>(&self, field: ArrayView3<'_, T>, block: [usize; 3]) -> Array3<T> {
        self.require_extents(field.dim().into());
        let [x, y, z] = self.cells(block);
        field.slice(s![x.start - 1..x.end + 1, y.start - 1..y.end + 1, z.start - 1..z.end + 1]).to_owned()
    }

    /// Puts a block's cells (without a halo) in their place in the field.
    ///
    /// # Panics
    /// If there is no such block, its extents differ, or `field` has other extents than those that were cut.
    pub fn place<T: Clone>(
        &self,
        mut field: ArrayViewMut3<'_, T>,
        block: [usize; 3],
        cells: ArrayView3<'_, T>,
    ) {
        self.require_extents(field.dim().into());
        let [x, y, z] = self.cells(block);
        assert_eq!(Extents::from(cells.dim()), [x.len(), y.len(), z.len()], "the extents of block {block:?}");
        field.slice_mut(s![x, y, z]).assign(&cells);
    }

    fn require_extents(&self, extents: Extents) {
        assert_eq!(extents, self.interior.map(|cells| cells + 2), "the extents that were cut");
    }

    fn holds(&self, blocks: [usize; 3]) -> bool {
        (0..3).all(|axis| blocks[axis] <= self.interior[axis])
    }

    /// The number of cell faces between blocks: what a step communicates.
    fn cut_surface(&self, blocks: [usize; 3]) -> u128 {
        let [nx, ny, nz] = self.interior.map(|cells| cells as u128);
        let [bx, by, bz] = blocks.map(|count| count as u128);
        (bx - 1) * ny * nz + (by - 1) * nx * nz + (bz - 1) * nx * ny
    }
}

/// Every way to write `count` as an ordered product of three.
fn factorizations(count: usize) -> impl Iterator<Item = [usize; 3]> {
    let divisors = move |of: usize| (1..=of).filter(move |&candidate| of.is_multiple_of(candidate));
    divisors(count).flat_map(move |x| {
        let rest = count / x;
        divisors(rest).map(move |y| [x, y, rest / y])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn automatic(extents: Extents, pe_count: usize) -> [usize; 3] {
        Decomposition::automatic(extents, pe_count).expect("there is an interior").blocks()
    }

    #[test]
    fn blocks_are_as_cubic_as_the_count_allows() {
        assert_eq!(automatic([128; 3], 2), [2, 2, 2]);
        assert_eq!(automatic([128; 3], 1), [2, 2, 1]);
        assert_eq!(automatic([128; 3], 16), [4, 4, 4]);
        assert_eq!(automatic([128; 3], 3), [3, 2, 2]);
        assert_eq!(automatic([1026, 10, 10], 2), [8, 1, 1]);
        assert_eq!(automatic([10, 10, 1026], 2), [1, 1, 8]);
        assert_eq!(automatic([10, 514, 514], 4), [1, 4, 4]);
    }

    #[test]
    fn a_small_interior_gets_as_many_blocks_as_fit() {
        assert_eq!(automatic([3, 3, 3], 8), [1, 1, 1]);
        assert_eq!(automatic([3, 3, 5], 8), [1, 1, 3]);
        assert_eq!(automatic([4, 4, 4], 2), [2, 2, 2]);
        // Of at most 12 blocks in 2 x 2 x 2 cells, 8 fit; in 3 x 1 x 3 of at most 8 only 6, as 7 and 8 have no such cut.
        assert_eq!(automatic([4, 4, 4], 3), [2, 2, 2]);
        assert_eq!(Decomposition::automatic([5, 3, 5], 2).map(|cut| cut.block_count()).ok(), Some(6));
        assert_eq!(automatic([5, 5, 5], 0), [1, 1, 1]);
    }

    #[test]
    fn every_interior_cell_is_in_exactly_one_block() {
        for extents in [[37, 24, 41], [3, 4, 5], [9, 9, 9], [20, 3, 7]] {
            for blocks in [[1, 1, 1], [2, 1, 3], [1, 2, 2], [7, 1, 5], [5, 2, 1]] {
                let Ok(cut) = Decomposition::new(extents, blocks) else {
                    continue;
                };
                let (mut owners, mut shortest, mut longest) =
                    (Array3::<u32>::zeros(extents), [usize::MAX; 3], [0; 3]);
                for block in cut.indices() {
                    let cells = cut.cells(block);
                    for axis in 0..3 {
                        shortest[axis] = shortest[axis].min(cells[axis].len());
                        longest[axis] = longest[axis].max(cells[axis].len());
                    }
                    let [x, y, z] = cells;
                    owners.slice_mut(s![x, y, z]).mapv_inplace(|owner| owner + 1);
                }
                assert_eq!(cut.indices().count(), cut.block_count());
                assert!((0..3).all(|axis| shortest[axis] >= 1 && longest[axis] - shortest[axis] <= 1));
                for ((i, j, k), &owner) in owners.indexed_iter() {
                    let at_edge = |index: usize, extent: usize| index == 0 || index == extent - 1;
                    let boundary = at_edge(i, extents[0]) || at_edge(j, extents[1]) || at_edge(k, extents[2]);
                    assert_eq!(
                        owner,
                        u32::from(!boundary),
                        "cell [{i}, {j}, {k}] of {extents:?} in {blocks:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn cutting_and_placing_gives_the_field_back() {
        let field = Array3::from_shape_fn((7, 6, 8), |(i, j, k)| (i * 100 + j * 10 + k) as f64);
        let cut = Decomposition::new([7, 6, 8], [2, 3, 1]).expect("they fit");
        let mut again = field.clone();
        again.slice_mut(s![1..6, 1..5, 1..7]).fill(-1.0);
        for block in cut.indices() {
            let with_halo = cut.block_with_halo(field.view(), block);
            let [x, y, z] = cut.cells(block);
            assert_eq!(with_halo[[0, 0, 0]], field[[x.start - 1, y.start - 1, z.start - 1]]);
            let cells = with_halo.slice(s![1..=x.len(), 1..=y.len(), 1..=z.len()]);
            cut.place(again.view_mut(), block, cells);
        }
        assert_eq!(again, field);
    }

    #[test]
    fn a_cut_that_leaves_empty_blocks_is_refused() {
        let refusal = Decomposition::new([12, 5, 12], [1, 4, 1]).expect_err("3 cells, 4 blocks").to_string();
        assert_eq!(
            refusal,
            "--blocks asks for 4 blocks along axis 1, where the interior has 3 cell(s); ask for at most 3"
        );
        assert!(matches!(
            Decomposition::new([9; 3], [1, 0, 1]),
            Err(Error::Blocks { axis: 1, wanted: 0, .. })
        ));
        assert!(matches!(Decomposition::new([9, 2, 9], [1; 3]), Err(Error::NoInterior { .. })));
    }

    #[test]
    #[should_panic(expected = "there is no block [0, 2, 0]")]
    fn a_block_outside_the_grid_panics() {
        let _ = Decomposition::new([9; 3], [2; 3]).expect("they fit").cells([0, 2, 0]);
    }
}
