//! The elements that a sparse array has from its creation: which ones, and how each PE finds those that are placed on it.
//!
//! Every PE goes through all of them by itself, so no message names any. It makes places for its own, and notes where
//! those are that it is only the home of: as if each had been inserted, at once.

use crate::caught;
use crate::chares::Chare;
use crate::collection::{Collection, CollectionInfo};
use crate::ids::{ChareId, PeId};
use crate::index::Index;
use crate::location::Place;
use crate::scheduler::pe::Pe;

/// The indexes of the elements that there are from the beginning.
pub(crate) struct Initial<I> {
    count: u64,
    /// By number.
    at: Box<dyn Fn(u64) -> I + Send + Sync>,
}

impl<I: Index> Initial<I> {
    pub(crate) fn new(count: u64, at: impl Fn(u64) -> I + Send + Sync + 'static) -> Self {
        Initial { count, at: Box::new(at) }
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn indexes(&self) -> impl Iterator<Item = I> + '_ {
        (0..self.count).map(&self.at)
    }

    /// Fails, and says why, unless every index has a key of its own and so many elements may fit in memory.
    pub(crate) fn check(&self, pe_count: usize) -> Result<(), String> {
        let share = usize::try_from(self.count.div_ceil(pe_count as u64)).unwrap_or(usize::MAX);
        if Vec::<u64>::new().try_reserve_exact(share).is_err() {
            return Err(format!("an array of {} elements does not fit in memory", self.count));
        }
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
    /// says why, if its map says nonsense.
    pub(super) fn populate<C: Chare>(&self, pe: &Pe) -> Result<(), String> {
        let Some(initial) = self.info.initial::<C::Index>() else { return Ok(()) };
        let mut elsewhere = Vec::new();
        for index in initial.indexes() {
            let (element, place) = placed::<C>(pe, &self.info, index)?;
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

/// The key of an element, and where the map places it, if there is one.
fn placed<C: Chare>(pe: &Pe, info: &CollectionInfo, index: C::Index) -> Result<(u64, Option<PeId>), String> {
    let array = C::INFO.name;
    let name = || {
        let name = caught::catch(pe, || format!("{array}[{index:?}]"));
        name.unwrap_or_else(|_| format!("{array}[..]"))
    };
    let element =
        caught::catch(pe, || index.key()).map_err(|panic| format!("the key of {}: {panic}", name()))?;
    match caught::catch(pe, || info.mapped(&index)) {
        Ok(None) => Ok((element, None)),
        Ok(Some(mapped)) if mapped < pe.pe_count() => Ok((element, Some(PeId::new(mapped)))),
        Ok(Some(mapped)) => {
            Err(format!("{} is mapped to PE {mapped}, and this run has {} PEs", name(), pe.pe_count()))
        }
        Err(panic) => Err(format!("the map of {}: {panic}", name())),
    }
}
