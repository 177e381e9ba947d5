//! The six faces of a block, numbered as every halo exchange here numbers them: by axis, low side before high
//! side.

use chare_device::{NoUninit, Scalar};

/// One of the six faces of a block. As a number: twice the axis, plus one on the high side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, NoUninit)]
#[repr(u32)]
pub enum Face {
    /// Towards smaller x.
    XLow = 0,
    /// Towards larger x.
    XHigh = 1,
    /// Towards smaller y.
    YLow = 2,
    /// Towards larger y.
    YHigh = 3,
    /// Towards smaller z.
    ZLow = 4,
    /// Towards larger z.
    ZHigh = 5,
}

impl Scalar for Face {}

impl Face {
    /// All faces, by number.
    pub const ALL: [Face; 6] = [Face::XLow, Face::XHigh, Face::YLow, Face::YHigh, Face::ZLow, Face::ZHigh];

    /// Its number: its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The face with this number, if there is one.
    pub const fn from_index(index: usize) -> Option<Face> {
        if index < Self::ALL.len() { Some(Self::ALL[index]) } else { None }
    }

    /// The face of the neighbour that touches this one.
    pub const fn opposite(self) -> Face {
        Self::ALL[self as usize ^ 1]
    }

    /// The axis it is normal to: 0 for x, 1 for y, 2 for z.
    pub const fn axis(self) -> usize {
        self as usize / 2
    }

    /// Whether it is on the side of larger coordinates.
    pub const fn is_high(self) -> bool {
        self as usize % 2 == 1
    }

    /// The step from a block to its neighbour across this face.
    pub const fn offset(self) -> [i32; 3] {
        let mut offset = [0; 3];
        offset[self.axis()] = if self.is_high() { 1 } else { -1 };
        offset
    }

    /// The extents of this face of a block of `dims` cells: the two other axes, slower one first.
    pub const fn extents(self, dims: [u32; 3]) -> [u32; 2] {
        match self.axis() {
            0 => [dims[1], dims[2]],
            1 => [dims[0], dims[2]],
            _ => [dims[0], dims[1]],
        }
    }

    /// The number of cells of this face of a block of `dims` cells.
    pub const fn len(self, dims: [u32; 3]) -> usize {
        let [slow, fast] = self.extents(dims);
        slow as usize * fast as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faces_come_in_opposite_pairs() {
        for (index, face) in Face::ALL.into_iter().enumerate() {
            assert_eq!((face.index(), Face::from_index(index)), (index, Some(face)));
            assert_eq!(face.opposite().opposite(), face);
            assert_eq!(face.opposite().axis(), face.axis());
            assert_eq!(face.offset().map(|step| -step), face.opposite().offset());
            assert_eq!(face.len([2, 3, 5]), 30 / [2, 3, 5][face.axis()]);
        }
        assert_eq!(Face::YHigh.extents([2, 3, 5]), [2, 5]);
        assert_eq!((Face::ZLow.offset(), Face::from_index(6)), ([0, 0, -1], None));
    }
}
