//! Where the elements of an array are placed when they are created: a map of the user's, from indexes to PEs.

use crate::index::Index;

/// Says where elements of an array begin their lives; given to [`ArrayBuilder::map`](crate::ArrayBuilder::map) or
/// [`SparseBuilder::map`](crate::SparseBuilder::map). Without one, the elements of a dense array are placed in blocks of
/// consecutive ones, those of a sparse array by their keys, evenly.
///
/// ```
/// use chare::prelude::*;
///
/// /// Deals elements out like cards.
/// struct RoundRobin;
///
/// impl chare::Placement<usize> for RoundRobin {
///     fn pe(&self, index: &usize, pe_count: usize) -> usize {
///         index % pe_count
///     }
/// }
/// ```
pub trait Placement<I: Index>: Send + Sync + 'static {
    /// The PE of an element, less than `pe_count`. The same index must always get the same PE.
    fn pe(&self, index: &I, pe_count: usize) -> usize;
}
