//! What every PE knows of a collection: its type, its shape, and where its elements are placed when they are made.
//!
//! Elements are placed in blocks: PE `p` of `P` is the *home* of the numbers `p*N/P .. (p+1)*N/P`. A group is the case
//! `N = P`. The home knows where its elements are, wherever they move ([`crate::location`]).

use std::any::Any;

use crate::chare::{Chare, ChareInfo};
use crate::ids::{CollectionId, PeId};
use crate::index::Index;

/// What all PEs know of a collection.
pub(crate) struct CollectionInfo {
    pub(crate) id: CollectionId,
    pub(crate) chare: &'static ChareInfo,
    pub(crate) element_count: u64,
    /// One element on each PE, which stays there.
    pub(crate) is_group: bool,
    pe_count: u64,
    shape: Box<dyn Any + Send + Sync>,
    element_name: fn(&CollectionInfo, u64) -> String,
}

impl CollectionInfo {
    /// `shape` must have a countable number of elements.
    pub(crate) fn new<C: Chare>(id: CollectionId, shape: C::Index, is_group: bool, pe_count: usize) -> Self {
        CollectionInfo {
            is_group,
            id,
            chare: C::INFO,
            element_count: shape.element_count().expect("checked before the creation"),
            pe_count: pe_count as u64,
            shape: Box::new(shape),
            element_name: |info, element| format!("[{:?}]", C::Index::of_number(element, info.shape::<C>())),
        }
    }

    pub(crate) fn shape<C: Chare>(&self) -> C::Index {
        *self.shape.downcast_ref::<C::Index>().expect("a collection is used by chares of its own type")
    }

    /// The element's index as users write it.
    pub(crate) fn name_of(&self, element: u64) -> String {
        (self.element_name)(self, element)
    }

    /// What there is, for the report of an index outside of it.
    pub(crate) fn bounds(&self) -> String {
        format!(
            "it has {} elements, up to {}",
            self.element_count,
            self.name_of(self.element_count.saturating_sub(1))
        )
    }

    /// Whether there is an element with this number, or will be.
    #[inline]
    pub(crate) fn has(&self, element: u64) -> bool {
        element < self.element_count
    }

    /// The PE that an element is placed on, and that knows where it is; `element` is inside of the collection.
    pub(crate) fn home(&self, element: u64) -> PeId {
        let numerator = (u128::from(element) + 1) * u128::from(self.pe_count) - 1;
        PeId::new((numerator / u128::from(self.element_count)) as usize)
    }

    /// The first of the elements that are placed on a PE, and how many there are.
    pub(crate) fn block_of(&self, pe: PeId) -> (u64, u64) {
        let first = self.first_on(pe.index());
        (first, self.first_on(pe.index() + 1) - first)
    }

    fn first_on(&self, pe: usize) -> u64 {
        (pe as u128 * u128::from(self.element_count) / u128::from(self.pe_count)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(element_count: u64, pe_count: u64) -> CollectionInfo {
        static CHARE: ChareInfo = ChareInfo { name: "Test", file: "", line: 0 };
        CollectionInfo {
            id: CollectionId::new(PeId::new(0), 0),
            chare: &CHARE,
            element_count,
            is_group: false,
            pe_count,
            shape: Box::new(element_count as usize),
            element_name: |_, _| String::new(),
        }
    }

    proptest! {
        #[test]
        fn every_element_is_placed_where_home_says(elements in 1_u64..5000, pes in 1_u64..70) {
            let info = info(elements, pes);
            let mut next = 0;
            for pe in 0..pes as usize {
                prop_assert_eq!(info.first_on(pe), next);
                while next < info.first_on(pe + 1) {
                    prop_assert_eq!(info.home(next), PeId::new(pe));
                    next += 1;
                }
            }
            prop_assert_eq!(next, elements);
        }
    }
}
