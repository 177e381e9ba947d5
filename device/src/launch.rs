//! The geometry of one launch: how many elements it covers. Backends cut it into blocks; a Rust source may
//! ignore it.

use serde::{Deserialize, Serialize};

/// The number of elements a launch covers along x (fastest), y and z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Grid {
    /// Elements along the fastest axis.
    pub x: u32,
    /// Elements along the middle axis.
    pub y: u32,
    /// Elements along the slowest axis.
    pub z: u32,
}

impl Grid {
    /// A grid of `x * y * z` elements.
    pub const fn new(x: u32, y: u32, z: u32) -> Self {
        Grid { x, y, z }
    }

    /// The number of elements covered.
    pub const fn len(&self) -> u64 {
        // Three 32-bit factors can pass 64 bits; such a grid is refused by every backend long before.
        (self.x as u64).saturating_mul(self.y as u64).saturating_mul(self.z as u64)
    }

    /// Whether the grid covers nothing.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl From<u32> for Grid {
    fn from(x: u32) -> Self {
        Grid { x, y: 1, z: 1 }
    }
}

impl From<[u32; 1]> for Grid {
    fn from([x]: [u32; 1]) -> Self {
        Grid::from(x)
    }
}

/// Extents as of a [`Shape`](crate::Shape): the fastest axis is the last.
impl From<[u32; 2]> for Grid {
    fn from([y, x]: [u32; 2]) -> Self {
        Grid { x, y, z: 1 }
    }
}

/// Extents as of a [`Shape`](crate::Shape): the fastest axis is the last.
impl From<[u32; 3]> for Grid {
    fn from([z, y, x]: [u32; 3]) -> Self {
        Grid { x, y, z }
    }
}

/// What a kernel's source is told about the launch it runs for.
#[derive(Debug)]
pub struct Launch {
    grid: Grid,
}

impl Launch {
    pub(crate) fn new(grid: Grid) -> Self {
        Launch { grid }
    }

    /// The elements this launch covers.
    pub fn grid(&self) -> Grid {
        self.grid
    }
}
