//! The four edges of a block, and copies of their cells into dense arrays and from there into ghost layers.
//!
//! The array that one block packs at an edge is what its neighbour across that edge unpacks at the opposite one.

use super::{padded_len, padded_shape};
use crate::Real;

/// One of the four edges of a block. As a number: twice the axis, plus one on the high side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Edge {
    /// Towards smaller x.
    XLow = 0,
    /// Towards larger x.
    XHigh = 1,
    /// Towards smaller y.
    YLow = 2,
    /// Towards larger y.
    YHigh = 3,
}

impl Edge {
    /// All edges, by number.
    pub const ALL: [Edge; 4] = [Edge::XLow, Edge::XHigh, Edge::YLow, Edge::YHigh];

    /// Its number: its place in [`ALL`](Self::ALL).
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The edge of the neighbour that touches this one.
    pub const fn opposite(self) -> Edge {
        Self::ALL[self as usize ^ 1]
    }

    /// The axis it is normal to: 0 for x, 1 for y.
    pub const fn axis(self) -> usize {
        self as usize / 2
    }

    /// Whether it is on the side of larger coordinates.
    pub const fn is_high(self) -> bool {
        self as usize % 2 == 1
    }

    /// The number of cells of this edge of a block of `dims` cells.
    pub const fn len(self, dims: [u32; 2]) -> usize {
        dims[1 - self.axis()] as usize
    }
}

/// The number of cells of all edges of a block of `dims` cells.
///
/// # Panics
///
/// If there are more than fit.
pub const fn edges_len(dims: [u32; 2]) -> u32 {
    let len = 2 * (dims[0] as u64 + dims[1] as u64);
    assert!(len <= u32::MAX as u64, "the edges of a block that fits have fewer cells");
    len as u32
}

/// Where the cells at an edge begin in the padded array, and how far apart they are: the block's own, or the ghosts beyond.
fn layer(dims: [u32; 2], edge: Edge, ghost: bool) -> (usize, usize) {
    let [_, row] = padded_shape(dims);
    let (across, along) = [(row, 1), (1, row)][edge.axis()];
    let depth = match (edge.is_high(), ghost) {
        (false, true) => 0,
        (false, false) => 1,
        (true, false) => dims[edge.axis()] as usize,
        (true, true) => dims[edge.axis()] as usize + 1,
    };
    (depth * across + along, along)
}

fn check<T>(u: &[T], cells: &[T], dims: [u32; 2], edge: Edge) {
    assert_eq!(u.len(), padded_len(dims), "a block of {dims:?} cells with its ghosts");
    assert_eq!(cells.len(), edge.len(dims), "the cells of edge {edge:?} of a block of {dims:?}");
}

/// Copies the outermost owned cells of the block `u` at `edge` into `cells`.
///
/// # Panics
///
/// If `u` has not [`padded_len`] elements or `cells` not [`Edge::len`].
pub fn pack_edge<T: Real>(u: &[T], cells: &mut [T], dims: [u32; 2], edge: Edge) {
    check(u, cells, dims, edge);
    let (start, step) = layer(dims, edge, false);
    for (cell, value) in cells.iter_mut().zip(u[start..].iter().step_by(step)) {
        *cell = *value;
    }
}

/// Copies `cells` into the ghosts of the block `u` at `edge`.
///
/// # Panics
///
/// As for [`pack_edge`].
pub fn unpack_edge<T: Real>(cells: &[T], u: &mut [T], dims: [u32; 2], edge: Edge) {
    check(u, cells, dims, edge);
    let (start, step) = layer(dims, edge, true);
    for (value, cell) in u[start..].iter_mut().step_by(step).zip(cells) {
        *value = *cell;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_come_in_opposite_pairs() {
        for (index, edge) in Edge::ALL.into_iter().enumerate() {
            assert_eq!((edge.index(), edge.opposite().opposite()), (index, edge));
            assert_eq!((edge.opposite().axis(), edge.is_high()), (edge.axis(), !edge.opposite().is_high()));
        }
        assert_eq!((Edge::XHigh.len([2, 3]), Edge::YLow.len([2, 3]), edges_len([2, 3])), (3, 2, 10));
    }

    #[test]
    fn edges_go_where_they_belong() {
        // Two rows of three cells. Tens are rows, units columns of the padded array.
        let u: Vec<f64> = (0..4).flat_map(|x| (0..5).map(move |y| f64::from(10 * x + y))).collect();
        for (edge, own, ghosts) in [
            (Edge::XLow, vec![11.0, 12.0, 13.0], vec![1.0, 2.0, 3.0]),
            (Edge::XHigh, vec![21.0, 22.0, 23.0], vec![31.0, 32.0, 33.0]),
            (Edge::YLow, vec![11.0, 21.0], vec![10.0, 20.0]),
            (Edge::YHigh, vec![13.0, 23.0], vec![14.0, 24.0]),
        ] {
            let mut cells = vec![0.0; edge.len([2, 3])];
            pack_edge(&u, &mut cells, [2, 3], edge);
            assert_eq!(cells, own);
            let mut after = u.clone();
            unpack_edge(&vec![-1.0; cells.len()], &mut after, [2, 3], edge);
            let changed = u.iter().zip(&after).filter(|(before, after)| before != after);
            assert_eq!(changed.map(|(before, _)| *before).collect::<Vec<_>>(), ghosts);
        }
    }

    #[test]
    #[should_panic(expected = "the cells of edge YHigh of a block of [2, 3]")]
    fn a_wrong_size_is_refused() {
        pack_edge(&[0.0f32; 20], &mut [0.0; 3], [2, 3], Edge::YHigh);
    }
}
