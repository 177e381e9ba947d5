//! What is computed: a cube of cells in equal cubic blocks, what each cell holds at the start, and who is whose neighbour.

use chare_kernels::Face;
use chare_kernels::jacobi3d::padded_shape;
use serde::{Deserialize, Serialize};

/// A cube of cells, cut into blocks. The layer around it is fixed.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Problem {
    cells: u32,
    block: u32,
}

impl Problem {
    /// `cells` along an edge, `block` of them in each block.
    pub(crate) fn new(cells: u32, block: u32) -> Self {
        assert!(cells.is_multiple_of(block), "all blocks are equal");
        Problem { cells, block }
    }

    pub(crate) fn cell_count(self) -> u64 {
        u64::from(self.cells).pow(3)
    }

    /// The cells of a block.
    pub(crate) fn dims(self) -> [u32; 3] {
        [self.block; 3]
    }

    /// The blocks along each axis.
    pub(crate) fn blocks(self) -> (usize, usize, usize) {
        let along = (self.cells / self.block) as usize;
        (along, along, along)
    }

    /// The block at a face of another one; none at the boundary.
    pub(crate) fn neighbour(
        self,
        (x, y, z): (usize, usize, usize),
        face: Face,
    ) -> Option<(usize, usize, usize)> {
        let (nx, ny, nz) = self.blocks();
        let [dx, dy, dz] = face.offset().map(|step| step as isize);
        let place = (x.checked_add_signed(dx)?, y.checked_add_signed(dy)?, z.checked_add_signed(dz)?);
        (place.0 < nx && place.1 < ny && place.2 < nz).then_some(place)
    }

    /// What a block and the layer around it hold at the start: noise, so that every iteration changes every cell.
    pub(crate) fn start_values<T: From<f32>>(self, (x, y, z): (usize, usize, usize)) -> Vec<T> {
        let [px, py, pz] = padded_shape(self.dims());
        let [x, y, z] = [x, y, z].map(|block| block * self.block as usize);
        let rows = (0..px).flat_map(|i| (0..py).map(move |j| (x + i, y + j)));
        rows.flat_map(|(x, y)| (0..pz).map(move |k| T::from(noise(x, y, z + k)))).collect()
    }
}

/// A value in `0..1` for each cell, the same in every type of numbers.
fn noise(x: usize, y: usize, z: usize) -> f32 {
    let mixed = (x * 73_856_093) ^ (y * 19_349_663) ^ (z * 83_492_791);
    (mixed % 65_536) as f32 / 65_536.0
}
