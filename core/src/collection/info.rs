//! What every PE knows of a collection: its type, its shape, and where its elements are placed when they are made.
//!
//! The *home* of an element is the PE that it is placed on, unless its insertion says otherwise. The home knows where the
//! element is, wherever it moves ([`crate::location`]).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::chares::{Chare, ChareInfo};
use crate::collection::indexes::{AnyIndexes, Indexes};
use crate::collection::initial::{Initial, OfRange};
use crate::current;
use crate::ids::{CollectionId, PeId};
use crate::index::{DenseIndex, Index};
use crate::known::Known;
use crate::placement::Placement;
use crate::scheduler::pe::Pe;
use crate::table::CodeId;
use crate::wire::{Decoder, Encoder, Stays, WireError};

/// What all PEs know of a collection.
pub(crate) struct CollectionInfo {
    pub(crate) id: CollectionId,
    pub(crate) chare: &'static ChareInfo,
    code: fn() -> Option<CodeId>,
    leave: fn(&CollectionInfo, &mut Encoder) -> Result<(), Stays>,
    pub(crate) kind: Kind,
    /// The array that it is bound to.
    leader: Option<CollectionId>,
    pe_count: u64,
    /// A `Shape` of the chare's index type, or an `Open` of a sparse array.
    shape: Box<dyn Known + Send + Sync>,
    /// Makes the table of indexes of a sparse array on a PE.
    new_indexes: Option<fn() -> Box<dyn AnyIndexes>>,
    element_name: fn(&CollectionInfo, u64) -> String,
}

/// Which elements there are, and where they are placed.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// So many, in blocks: PE `p` of `P` gets the numbers `p*N/P .. (p+1)*N/P`.
    Dense { element_count: u64 },
    /// The PE of each element by its number.
    Mapped { pes: Arc<[PeId]> },
    /// One on each of these PEs, in order; elements have the numbers of their PEs and stay there.
    Group { pes: Arc<[PeId]> },
    /// Elements that are inserted one by one, known by the keys of their indexes; the first so many at once, if they are
    /// given at the creation.
    Sparse { initial_count: Option<u64> },
}

impl Kind {
    /// Whether it is one of these extents.
    fn has_shape<I: DenseIndex>(&self, extents: I, pe_count: usize) -> bool {
        let count = extents.element_count();
        match self {
            Kind::Dense { element_count } => *element_count > 0 && count == Some(*element_count),
            Kind::Mapped { pes } => !pes.is_empty() && count == Some(pes.len() as u64),
            Kind::Group { pes } => {
                count == Some(pe_count as u64) && !pes.is_empty() && pes.is_sorted_by(|one, next| one < next)
            }
            Kind::Sparse { .. } => false,
        }
    }
}

/// The extents of a dense array, and how they number the elements.
struct Shape<I> {
    extents: I,
    of_number: fn(u64, I) -> I,
    to_array: fn(I) -> [usize; 6],
}

/// What is known of a sparse array.
struct Open<I> {
    /// It stays in its process, and is asked by the root.
    map: Option<Box<dyn Placement<I>>>,
    initial: Option<Initial<I>>,
}

impl CollectionInfo {
    /// A dense array or a group.
    pub(crate) fn new<C: Chare<Index: DenseIndex>>(
        id: CollectionId,
        extents: C::Index,
        kind: Kind,
        pe_count: usize,
    ) -> Self {
        CollectionInfo {
            id,
            chare: C::INFO,
            code: C::code,
            leave: CollectionInfo::leave::<C::Index>,
            kind,
            leader: None,
            pe_count: pe_count as u64,
            shape: Box::new(Shape { extents, of_number: C::Index::of_number, to_array: C::Index::to_array }),
            new_indexes: None,
            element_name: |info, element| match info.index_of::<C::Index>(element) {
                Some(index) => format!("[{index:?}]"),
                None => format!("[number {element}]"),
            },
        }
    }

    pub(crate) fn new_sparse<C: Chare>(
        id: CollectionId,
        map: Option<Box<dyn Placement<C::Index>>>,
        initial: Option<Initial<C::Index>>,
        pe_count: usize,
    ) -> Self {
        CollectionInfo {
            id,
            chare: C::INFO,
            code: C::code,
            leave: CollectionInfo::leave::<C::Index>,
            kind: Kind::Sparse { initial_count: initial.as_ref().map(Initial::count) },
            leader: None,
            pe_count: pe_count as u64,
            shape: Box::new(Open { map, initial }),
            new_indexes: Some(|| Box::new(Indexes::<C::Index>::default())),
            element_name: |_, element| match C::Index::of_key(element) {
                Some(index) => format!("[{index:?}]"),
                None => format!("[key {element}]"),
            },
        }
    }

    /// Encodes it for a PE of another process.
    pub(super) fn leave<I: Index>(&self, to: &mut Encoder) -> Result<(), Stays> {
        to.put_own(&(self.id, self.leader, &self.kind));
        if let Some(shape) = self.shape().known_ref::<Shape<I>>() {
            to.put_own(&(shape.to_array)(shape.extents));
            return Ok(());
        }
        self.initial::<I>().map_or(Ok(()), |initial| initial.leave(to))
    }

    /// Encodes it behind the number of its type of chare.
    pub(super) fn leave_by_itself(&self, to: &mut Encoder) -> Result<(), Stays> {
        to.put_code((self.code)(), self.chare.name)?;
        (self.leave)(self, to)
    }

    /// That of a dense array, a group or a sparse array.
    pub(super) fn decode<C: Chare<Index: DenseIndex>>(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (id, leader, kind) = from.take()?;
        let pe_count = current::on_pe("creating a collection", Pe::pe_count);
        let info = match kind {
            Kind::Sparse { initial_count } => {
                CollectionInfo::decode_open::<C>(id, initial_count, Initial::of_range, pe_count, from)?
            }
            kind => {
                let extents = C::Index::from_array(from.take()?);
                if !kind.has_shape(extents, pe_count) {
                    return Err(WireError::new(format!("a collection of {} of a wrong shape", C::INFO.name)));
                }
                CollectionInfo::new::<C>(id, extents, kind, pe_count)
            }
        };
        Ok(info.bound_to(leader))
    }

    /// That of a sparse array.
    pub(super) fn decode_sparse<C: Chare>(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (id, leader, kind) = from.take::<(_, Option<CollectionId>, _)>()?;
        match (leader, kind) {
            (None, Kind::Sparse { initial_count }) => {
                let pe_count = current::on_pe("creating an array", Pe::pe_count);
                CollectionInfo::decode_open::<C>(id, initial_count, |_| None, pe_count, from)
            }
            _ => Err(WireError::new(format!("{} has sparse arrays only", C::INFO.name))),
        }
    }

    /// What is left of a sparse array.
    fn decode_open<C: Chare>(
        id: CollectionId,
        initial_count: Option<u64>,
        of_range: OfRange<C::Index>,
        pe_count: usize,
        from: &mut Decoder<'_>,
    ) -> Result<Self, WireError> {
        let decode = |count| Initial::decode(count, C::index_codec(), of_range, from);
        let initial = initial_count.map(decode).transpose()?;
        Ok(CollectionInfo::new_sparse::<C>(id, None, initial, pe_count))
    }

    /// Binds an array that is to be created to another.
    pub(crate) fn bound_to(mut self, leader: Option<CollectionId>) -> Self {
        self.leader = leader;
        self
    }

    /// The array that it is bound to.
    #[inline]
    pub(crate) fn leader(&self) -> Option<CollectionId> {
        self.leader
    }

    /// Whether a broadcast may have to wait at the root until elements have a place.
    pub(crate) fn has_late_places(&self) -> bool {
        self.is_sparse() || self.leader.is_some()
    }

    fn shape(&self) -> &dyn Known {
        &*self.shape
    }

    pub(super) fn new_indexes(&self) -> Option<Box<dyn AnyIndexes>> {
        self.new_indexes.map(|new_indexes| new_indexes())
    }

    /// Where the map of a sparse array places an element; `None` if it has no map. To be asked by the root.
    pub(crate) fn mapped<I: Index>(&self, index: &I) -> Option<usize> {
        let Open { map, .. } = self.shape().known_ref::<Open<I>>()?;
        map.as_ref().map(|map| map.pe(index, self.pe_count as usize))
    }

    /// The elements that a sparse array has from its creation.
    pub(super) fn initial<I: Index>(&self) -> Option<&Initial<I>> {
        self.shape().known_ref::<Open<I>>()?.initial.as_ref()
    }

    /// Whether its elements are all known at the creation: an absent one does not exist, reductions can end.
    pub(super) fn is_complete(&self) -> bool {
        !matches!(self.kind, Kind::Sparse { initial_count: None })
    }

    /// The extents; none of a sparse array.
    pub(crate) fn extents<I: Index>(&self) -> Option<I> {
        self.shape().known_ref::<Shape<I>>().map(|shape| shape.extents)
    }

    /// The index of an element; none in a sparse array.
    pub(crate) fn index_of<I: Index>(&self, element: u64) -> Option<I> {
        self.shape().known_ref::<Shape<I>>().map(|shape| (shape.of_number)(element, shape.extents))
    }

    /// The element's index as users write it.
    pub(crate) fn name_of(&self, element: u64) -> String {
        (self.element_name)(self, element)
    }

    pub(crate) fn is_group(&self) -> bool {
        matches!(self.kind, Kind::Group { .. })
    }

    pub(crate) fn is_sparse(&self) -> bool {
        matches!(self.kind, Kind::Sparse { .. })
    }

    /// The number of elements at the creation.
    pub(crate) fn initial_count(&self) -> u64 {
        match &self.kind {
            Kind::Dense { element_count } => *element_count,
            Kind::Mapped { pes } | Kind::Group { pes } => pes.len() as u64,
            Kind::Sparse { initial_count } => initial_count.unwrap_or(0),
        }
    }

    /// What there is, for the report of an index outside of it.
    pub(crate) fn bounds(&self) -> String {
        match &self.kind {
            Kind::Dense { .. } | Kind::Mapped { .. } => {
                let count = self.initial_count();
                format!("it has {count} elements, up to {}", self.name_of(count.saturating_sub(1)))
            }
            Kind::Group { pes } if pes.len() as u64 == self.pe_count => {
                format!("it has a member on each of {} PEs", self.pe_count)
            }
            Kind::Group { pes } => {
                let pes: Vec<_> = pes.iter().map(PeId::to_string).collect();
                format!("it has members on these PEs only: {}", pes.join(", "))
            }
            Kind::Sparse { .. } => "it was never inserted, or has been destroyed".to_owned(),
        }
    }

    /// Whether there is an element with this number at the creation, or may be later.
    #[inline]
    pub(crate) fn has(&self, element: u64) -> bool {
        match &self.kind {
            Kind::Dense { element_count } => element < *element_count,
            Kind::Mapped { pes } => element < pes.len() as u64,
            Kind::Group { pes } => pes.binary_search_by_key(&element, |pe| pe.index() as u64).is_ok(),
            Kind::Sparse { .. } => true,
        }
    }

    /// The PE that an element is placed on, and that knows where it is; `element` is inside of the collection.
    pub(crate) fn home(&self, element: u64) -> PeId {
        match &self.kind {
            Kind::Dense { element_count } => {
                let numerator = (u128::from(element) + 1) * u128::from(self.pe_count) - 1;
                PeId::new((numerator / u128::from(*element_count)) as usize)
            }
            Kind::Mapped { pes } => pes[element as usize],
            Kind::Group { .. } => PeId::new(element as usize),
            Kind::Sparse { .. } => {
                // Twice, so that keys at regular distances are spread, too.
                let mix = |key: u64| (key ^ (key >> 32)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
                let mixed = mix(mix(element));
                PeId::new(((u128::from(mixed) * u128::from(self.pe_count)) >> 64) as usize)
            }
        }
    }

    /// The elements that a PE finds without looking: the first, and how many follow one another.
    pub(super) fn block_of(&self, pe: PeId) -> (u64, u64) {
        match &self.kind {
            Kind::Dense { element_count } => {
                let first_on = |pe: u64| {
                    (u128::from(pe) * u128::from(*element_count) / u128::from(self.pe_count)) as u64
                };
                let first = first_on(pe.index() as u64);
                (first, first_on(pe.index() as u64 + 1) - first)
            }
            Kind::Group { .. } => {
                let element = pe.index() as u64;
                (element, u64::from(self.has(element)))
            }
            Kind::Mapped { .. } | Kind::Sparse { .. } => (0, 0),
        }
    }

    /// The elements that are placed on a PE at the creation and are not in its block.
    pub(super) fn scattered_on(&self, pe: PeId) -> impl Iterator<Item = u64> {
        let pes = match &self.kind {
            Kind::Mapped { pes } => &pes[..],
            _ => &[],
        };
        (0..).zip(pes).filter(move |(_, home)| **home == pe).map(|(element, _)| element)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(kind: Kind, pe_count: u64) -> CollectionInfo {
        static CHARE: ChareInfo = ChareInfo { name: "Test", file: "", line: 0 };
        CollectionInfo {
            id: CollectionId::new(PeId::new(0), 0),
            chare: &CHARE,
            code: || None,
            leave: |_, _| Ok(()),
            kind,
            leader: None,
            pe_count,
            shape: Box::new(()),
            new_indexes: None,
            element_name: |_, _| String::new(),
        }
    }

    proptest! {
        #[test]
        fn every_element_is_placed_where_home_says(element_count in 1_u64..5000, pes in 1_u64..70) {
            let info = info(Kind::Dense { element_count }, pes);
            let mut next = 0;
            for pe in (0..pes as usize).map(PeId::new) {
                let (first, count) = info.block_of(pe);
                prop_assert_eq!(first, next);
                for element in first..first + count {
                    prop_assert_eq!(info.home(element), pe);
                }
                next += count;
            }
            prop_assert_eq!(next, element_count);
            prop_assert!(!info.has(element_count) && info.has(element_count - 1));
        }

        #[test]
        fn mapped_elements_and_members_are_where_they_are_listed(pes in prop::collection::vec(0_usize..9, 1..50)) {
            let mapped = info(Kind::Mapped { pes: pes.iter().copied().map(PeId::new).collect() }, 9);
            let mut placed = 0;
            for pe in 0..9 {
                for element in mapped.scattered_on(PeId::new(pe)) {
                    prop_assert_eq!((pes[element as usize], mapped.home(element)), (pe, PeId::new(pe)));
                    placed += 1;
                }
            }
            prop_assert_eq!(placed, pes.len());
            let members: std::collections::BTreeSet<_> = pes.into_iter().map(PeId::new).collect();
            let group = info(Kind::Group { pes: members.iter().copied().collect() }, 9);
            for pe in (0..9).map(PeId::new) {
                let is_member = members.contains(&pe);
                prop_assert_eq!(group.has(pe.index() as u64), is_member);
                prop_assert_eq!(group.block_of(pe), (pe.index() as u64, u64::from(is_member)));
            }
        }

        #[test]
        fn homes_of_sparse_elements_are_spread(pes in 1_u64..40, step in 1_u64..1 << 40) {
            let info = info(Kind::Sparse { initial_count: None }, pes);
            let mut counts = vec![0; pes as usize];
            (0..100 * pes).for_each(|number| counts[info.home(number * step).index()] += 1);
            prop_assert!(counts.iter().all(|count| (50..200).contains(count)), "{counts:?}");
        }
    }
}
