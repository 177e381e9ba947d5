//! The names of things: PEs, collections, chares. All ids are 64-bit or wider than any count they name, so none is
//! ever reused within a run.

use std::fmt;

use serde::Serialize;

/// A processing element: one scheduling loop on one thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct PeId(u32);

impl PeId {
    /// The PE with this number; PEs are numbered from 0 over the whole job.
    ///
    /// # Panics
    /// If the number does not fit in 32 bits.
    #[track_caller]
    pub const fn new(number: usize) -> Self {
        assert!(number <= u32::MAX as usize, "a PE's number fits in 32 bits");
        PeId(number as u32)
    }

    /// The PE's number.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for PeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PE {}", self.0)
    }
}

impl fmt::Display for PeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl From<PeId> for usize {
    fn from(pe: PeId) -> usize {
        pe.index()
    }
}

mod sealed {
    pub trait Sealed {}
}

/// What names a PE: its [`PeId`], or its number as a `usize`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not name a PE",
    note = "give a `PeId`, or the PE's number as a `usize`"
)]
// No `Into<usize>`: that leaves a literal without a type, so that `on(0)` would not compile.
pub trait IntoPe: sealed::Sealed {
    /// The PE's number.
    fn into_pe_number(self) -> usize;
}

impl sealed::Sealed for PeId {}
impl sealed::Sealed for usize {}

impl IntoPe for PeId {
    fn into_pe_number(self) -> usize {
        self.index()
    }
}

impl IntoPe for usize {
    fn into_pe_number(self) -> usize {
        self
    }
}

/// One run of a runtime in this process; no two have the same. What users may carry out of a run names it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct RunId(pub(crate) u32);

impl RunId {
    /// None that a proxy is of.
    pub(crate) const NONE: RunId = RunId(u32::MAX);
}

const COUNTER_BITS: u32 = 40;
const SINGLE_BIT: u64 = 1 << 63;

/// A collection (array or group), or the set of singletons whose home is one PE.
///
/// An array or group is `creator << 40 | counter`: the creator is its *root*, the PE that numbers its broadcasts and
/// completes its reductions. The singletons of PE `p` are the collection `1 << 63 | p`, which always exists.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub(crate) struct CollectionId(pub(crate) u64);

impl CollectionId {
    pub(crate) fn new(creator: PeId, counter: u64) -> Self {
        assert!(counter < 1 << COUNTER_BITS, "a PE creates at most 2^40 collections");
        CollectionId((creator.index() as u64) << COUNTER_BITS | counter)
    }

    pub(crate) const fn singles_of(home: PeId) -> Self {
        CollectionId(SINGLE_BIT | home.index() as u64)
    }

    /// The home PE, if this is a set of singletons.
    pub(crate) fn single_home(self) -> Option<PeId> {
        (self.0 & SINGLE_BIT != 0).then(|| PeId::new((self.0 & !SINGLE_BIT) as usize))
    }

    pub(crate) const fn is_of_singles(self) -> bool {
        self.0 & SINGLE_BIT != 0
    }

    /// The number of the PE that it names: its root, or the home of its singletons.
    pub(crate) const fn pe_number(self) -> u64 {
        if self.is_of_singles() { self.0 & !SINGLE_BIT } else { self.0 >> COUNTER_BITS }
    }

    pub(crate) fn root(self) -> PeId {
        PeId::new((self.0 >> COUNTER_BITS) as usize)
    }

    pub(crate) fn counter(self) -> usize {
        (self.0 & ((1 << COUNTER_BITS) - 1)) as usize
    }
}

impl fmt::Display for CollectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.single_home() {
            Some(home) => write!(f, "the singletons of {home:?}"),
            None => write!(f, "collection {} of {:?}", self.counter(), self.root()),
        }
    }
}

/// One chare: its collection, and which element of it. Arrays count elements in row-major order, groups by PE,
/// singletons by `creator << 40 | counter`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize)]
pub struct ChareId {
    pub(crate) collection: CollectionId,
    pub(crate) element: u64,
}

impl ChareId {
    pub(crate) fn single(home: PeId, creator: PeId, counter: u64) -> Self {
        ChareId { collection: CollectionId::singles_of(home), element: CollectionId::new(creator, counter).0 }
    }

    /// The PE that has created a singleton, and its counter.
    pub(crate) fn maker(self) -> (PeId, u64) {
        let id = CollectionId(self.element);
        (id.root(), id.counter() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_keep_their_parts() {
        let id = CollectionId::new(PeId::new(77), 123_456_789);
        assert_eq!((id.root(), id.counter(), id.single_home()), (PeId::new(77), 123_456_789, None));
        let single = ChareId::single(PeId::new(5), PeId::new(9), 1);
        assert_eq!(single.collection.single_home(), Some(PeId::new(5)));
        assert_eq!(single.maker(), (PeId::new(9), 1));
        assert_ne!(single, ChareId::single(PeId::new(5), PeId::new(8), 1));
    }
}
