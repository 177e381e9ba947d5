//! The elements that a sparse array has from its creation: which ones, and how each PE finds those that are placed on it.
//!
//! Every PE goes through all of them by itself, so no message is for one of them. It makes places for its own, and notes where
//! those are that it is only the home of: as if each had been inserted, at once. A map is asked where the array is made, once for each:
//! it may be any code, so it does not travel, but what it has said does.

use std::sync::Arc;

use crate::caught;
use crate::chares::Chare;
use crate::collection::Collection;
use crate::ids::{ChareId, PeId};
use crate::index::{DenseIndex, Index};
use crate::location::Place;
use crate::placement::Placement;
use crate::scheduler::pe::Pe;
use crate::strided::Strided;
use crate::wire::{Codec, Decoder, Encoder, Stays, WireError};

type Leave = dyn Fn(&mut Encoder) -> Result<(), Stays> + Send + Sync;
/// A range as it travels.
type Arrays = [[usize; 6]; 3];
/// Makes a range of what has come, if the index has ranges.
pub(super) type OfRange<I> = fn(Arrays) -> Option<Initial<I>>;

/// The indexes of the elements that there are from the beginning.
pub(crate) struct Initial<I> {
    count: u64,
    /// By number.
    at: Box<dyn Fn(u64) -> I + Send + Sync>,
    /// Encodes them.
    leave: Box<Leave>,
    /// Where each is placed, by number, if a map has said so.
    places: Option<Arc<[PeId]>>,
}

impl<I: DenseIndex> Initial<I> {
    pub(crate) fn strided(range: Strided<I>) -> Self {
        let leave = move |to: &mut Encoder| {
            to.put_own(&Some(range.to_arrays()));
            Ok(())
        };
        Initial {
            count: range.count(),
            at: Box::new(move |number| range.index(number)),
            leave: Box::new(leave),
            places: None,
        }
    }

    /// The elements of a range that has come.
    pub(super) fn of_range(arrays: Arrays) -> Option<Self> {
        Strided::from_arrays(arrays).map(Initial::strided)
    }
}

impl<I: Index> Initial<I> {
    pub(crate) fn listed(indexes: Vec<I>, codec: &'static Codec<I>) -> Self {
        let indexes: Arc<[I]> = indexes.into();
        let own = indexes.clone();
        let leave = move |to: &mut Encoder| {
            to.put_own(&None::<Arrays>);
            own.iter().try_for_each(|index| (codec.encode)(*index, to))
        };
        Initial {
            count: indexes.len() as u64,
            at: Box::new(move |number| indexes[number as usize]),
            leave: Box::new(leave),
            places: None,
        }
    }

    /// Encodes them for a PE of another process, which gets their number besides.
    pub(super) fn leave(&self, to: &mut Encoder) -> Result<(), Stays> {
        (self.leave)(to)?;
        to.put_own(&self.places);
        Ok(())
    }

    /// So many that have come. That their keys differ was seen where the array was made.
    pub(super) fn decode(
        count: u64,
        codec: &'static Codec<I>,
        of_range: OfRange<I>,
        from: &mut Decoder<'_>,
    ) -> Result<Self, WireError> {
        let mut initial = match from.take::<Option<Arrays>>()? {
            Some(arrays) => of_range(arrays).ok_or_else(|| WireError::new("no range of indexes"))?,
            None => {
                // One after another, so that there is no room for more than came; an index without bytes is like all others.
                let most = from.bytes_left().saturating_add(1) as u64;
                let indexes = (0..count.min(most)).map(|_| (codec.decode)(from));
                Initial::listed(indexes.collect::<Result<_, _>>()?, codec)
            }
        };
        initial.places = from.take()?;
        let has_places = initial.places.as_ref().is_none_or(|places| places.len() as u64 == count);
        if initial.count != count || !has_places {
            return Err(WireError::new("first elements of an array of another number"));
        }
        Ok(initial)
    }

    /// Asks a map where each is placed. Fails, and says why, if it says nonsense.
    pub(crate) fn place(&mut self, pe: &Pe, array: &str, map: &dyn Placement<I>) -> Result<(), String> {
        let pe_count = pe.pe_count();
        let place = |index| match caught::catch(pe, || map.pe(&index, pe_count)) {
            Ok(mapped) if mapped < pe_count => Ok(PeId::new(mapped)),
            Ok(mapped) => {
                let name = name(pe, array, &index);
                Err(format!("{name} is mapped to PE {mapped}, and this run has {pe_count} PEs"))
            }
            Err(panic) => Err(format!("the map of {}: {panic}", name(pe, array, &index))),
        };
        self.places = Some(self.indexes().map(place).collect::<Result<_, _>>()?);
        Ok(())
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn indexes(&self) -> impl Iterator<Item = I> + '_ {
        (0..self.count).map(&self.at)
    }

    /// Fails, and says why, unless so many elements may fit in memory.
    fn check_count(&self, pe_count: usize) -> Result<(), String> {
        let share = usize::try_from(self.count.div_ceil(pe_count as u64)).unwrap_or(usize::MAX);
        if Vec::<u64>::new().try_reserve_exact(share).is_err() {
            return Err(format!("an array of {} elements does not fit in memory", self.count));
        }
        Ok(())
    }

    /// Fails, and says why, unless every index has a key of its own and so many elements may fit in memory.
    pub(crate) fn check(&self, pe_count: usize) -> Result<(), String> {
        self.check_count(pe_count)?;
        if let Some(index) = self.indexes().find(|index| index.key() == u64::MAX) {
            return Err(format!("the key of {index:?} is `u64::MAX`, which is no key"));
        }
        if self.indexes().map(|index| index.key()).is_sorted_by(|a, b| a < b) {
            return Ok(());
        }
        let mut by_key: Vec<_> = self.indexes().map(|index| (index.key(), index)).collect();
        by_key.sort_unstable();
        match by_key.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            None => Ok(()),
            Some([(_, index), (_, other)]) if index == other => {
                Err(format!("[{index:?}] is given twice: an array has one element of each index"))
            }
            Some(pair) => Err(format!(
                "[{:?}] and [{:?}] both have the key {}: give them different ones (`Index::key`)",
                pair[0].1, pair[1].1, pair[0].0
            )),
        }
    }
}

impl Collection {
    /// Makes places for the elements that a sparse array has from the beginning and that are placed on this PE. Fails, and
    /// says why, if they do not fit in memory.
    pub(super) fn populate<C: Chare>(&self, pe: &Pe) -> Result<(), String> {
        let Some(initial) = self.info.initial::<C::Index>() else { return Ok(()) };
        initial.check_count(pe.pe_count())?;
        let mut elsewhere = Vec::new();
        for (number, index) in initial.indexes().enumerate() {
            let key = caught::catch(pe, || index.key());
            let element =
                key.map_err(|panic| format!("the key of {}: {panic}", name(pe, C::INFO.name, &index)))?;
            let place = initial.places.as_ref().map(|places| places[number]);
            let home = self.info.home(element);
            if place.unwrap_or(home) == pe.id() {
                self.reserve(pe, element, 0);
            } else if home != pe.id() {
                continue;
            } else if let Some(place) = place {
                elsewhere.push((element, place));
            }
            self.note_index(element, index);
        }
        for (element, place) in elsewhere {
            // Confirmed: that PE holds what comes for the element from the beginning. It may have moved on already.
            let id = ChareId { collection: self.id(), element };
            pe.locations.learn(id, Place { pe: place, epoch: 0 });
        }
        Ok(())
    }
}

/// An element as users write it, who may have a panic in that.
fn name<I: Index>(pe: &Pe, array: &str, index: &I) -> String {
    let name = caught::catch(pe, || format!("{array}[{index:?}]"));
    name.unwrap_or_else(|_| format!("{array}[..]"))
}
