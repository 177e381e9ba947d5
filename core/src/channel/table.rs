//! Where the ends of channels are kept: in tables of their PE, one for each type of value, so that an end is a line of its
//! own and a value goes from the sender's end to the receiver's without a look at either chare. Each chare knows the
//! names of its ends.
//!
//! Invariant: an [`EndKey`] names one end for ever. It may be kept anywhere; once the end is gone, or has moved to another
//! PE, the key leads nowhere, and the end is found again by its name.

use std::any::TypeId;
use std::cell::{RefCell, RefMut};
use std::num::NonZeroU32;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::ids::{ChareId, PeId};
use crate::known::Known;
use crate::scheduler::pe::Pe;
use crate::scheduler::prefetch::prefetch;
use crate::scheduler::waker::MAX_PES;
use crate::waiting::Waiter;
use crate::wire::Wire;

use super::end::{AnyEnd, End, StreamId};

/// With more channels than this a chare finds them by hash.
const SCAN_LIMIT: usize = 8;
/// Ends that may have a place one after the other.
const MAX_LIVES: u32 = u32::MAX / MAX_PES as u32;

/// Which end of all there ever are of its type: its place in the table of its PE, and its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct EndKey {
    place: u32,
    life: Life,
}

impl EndKey {
    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(self.place) << 32 | u64::from(self.life.0.get())
    }

    #[inline(always)]
    fn of_bits(bits: u64) -> Self {
        let life = NonZeroU32::new(bits as u32).expect("made of a key");
        EndKey { place: (bits >> 32) as u32, life: Life(life) }
    }

    /// The PE that the end is on while it lives.
    pub(super) fn pe(self) -> PeId {
        PeId::new((self.life.0.get() / MAX_LIVES) as usize)
    }
}

/// Where the own end of a channel was found last. It is looked for by name when it is not there any more, since its chare
/// has moved; threads that share it agree on nothing else.
pub(super) struct Found(AtomicU64);

impl Found {
    pub(super) fn new(key: EndKey) -> Self {
        Found(AtomicU64::new(key.to_bits()))
    }

    #[inline(always)]
    pub(super) fn get(&self) -> EndKey {
        EndKey::of_bits(self.0.load(Ordering::Relaxed))
    }

    pub(super) fn set(&self, key: EndKey) {
        self.0.store(key.to_bits(), Ordering::Relaxed);
    }
}

/// One of the ends that have a place one after the other: `PE * MAX_LIVES + count`, and the count begins at 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Life(NonZeroU32);

impl Life {
    fn first_on(pe: PeId) -> Life {
        let before = u32::try_from(pe.index()).ok().and_then(|pe| pe.checked_mul(MAX_LIVES));
        Life(
            before
                .and_then(|before| NonZeroU32::MIN.checked_add(before))
                .expect("there are fewer than MAX_PES"),
        )
    }

    fn next(self) -> Option<Life> {
        if self.0.get() % MAX_LIVES == MAX_LIVES - 1 { None } else { self.0.checked_add(1).map(Life) }
    }
}

/// The ends of one type on one PE.
pub(super) struct Table<T> {
    ends: Vec<End<T>>,
    vacant: Vec<u32>,
    pe: PeId,
}

impl<T: Wire> Table<T> {
    /// The end, unless it is gone.
    #[inline(always)]
    pub(super) fn get(&mut self, key: EndKey) -> Option<&mut End<T>> {
        self.ends.get_mut(key.place as usize).filter(|end| end.life == Some(key.life))
    }

    /// Asks for the memory of an end.
    #[inline(always)]
    pub(super) fn prefetch(&self, key: EndKey) {
        if let Some(end) = self.ends.get(key.place as usize) {
            prefetch(NonNull::from(end), 1);
        }
    }

    fn insert(&mut self) -> EndKey {
        let place = self.vacant.pop().unwrap_or_else(|| {
            self.ends.push(End::new(Some(Life::first_on(self.pe))));
            u32::try_from(self.ends.len() - 1).expect("fewer than 2^32 ends on a PE")
        });
        let life = self.ends[place as usize].life.expect("a place is vacant while it has a life to give");
        EndKey { place, life }
    }

    /// Puts an end that was on another PE here.
    pub(super) fn plant(&mut self, mut end: End<T>) -> EndKey {
        let key = self.insert();
        end.life = Some(key.life);
        self.ends[key.place as usize] = end;
        key
    }

    fn remove(&mut self, key: EndKey) -> Option<End<T>> {
        let end = self.get(key)?;
        let life = key.life.next();
        let gone = std::mem::replace(end, End::new(life));
        if life.is_some() {
            self.vacant.push(key.place);
        }
        Some(gone)
    }
}

/// A table whose type of value is not known.
trait AnyTable: Known {
    fn end(&mut self, key: EndKey) -> Option<&mut dyn AnyEnd>;
    fn remove(&mut self, key: EndKey) -> Option<Box<dyn AnyEnd>>;
}

impl<T: Wire> AnyTable for Table<T> {
    fn end(&mut self, key: EndKey) -> Option<&mut dyn AnyEnd> {
        self.get(key).map(|end| end as &mut dyn AnyEnd)
    }

    fn remove(&mut self, key: EndKey) -> Option<Box<dyn AnyEnd>> {
        self.remove(key).map(|end| Box::new(end) as Box<dyn AnyEnd>)
    }
}

/// All ends on one PE.
pub(crate) struct Ends {
    /// Few: by type of value.
    tables: RefCell<Vec<(TypeId, Box<dyn AnyTable>)>>,
    pe: PeId,
}

impl Ends {
    pub(crate) fn new(pe: PeId) -> Self {
        Ends { tables: RefCell::default(), pe }
    }

    /// The ends for values of type `T`. No user code runs while they are borrowed.
    #[inline(always)]
    pub(super) fn of<T: Wire>(&self) -> RefMut<'_, Table<T>> {
        RefMut::map(self.tables.borrow_mut(), |tables| {
            let place = tables.iter().position(|(value, _)| *value == TypeId::of::<T>());
            let place = place.unwrap_or_else(|| self.make::<T>(tables));
            let table: &mut dyn Known = &mut *tables[place].1;
            table.known_mut().expect("a table stands under its type")
        })
    }

    #[cold]
    fn make<T: Wire>(&self, tables: &mut Vec<(TypeId, Box<dyn AnyTable>)>) -> usize {
        let table = Table::<T> { ends: Vec::new(), vacant: Vec::new(), pe: self.pe };
        tables.push((TypeId::of::<T>(), Box::new(table)));
        tables.len() - 1
    }

    fn table_of<R>(&self, entry: &Entry, f: impl FnOnce(&mut dyn AnyTable) -> Option<R>) -> Option<R> {
        let mut tables = self.tables.borrow_mut();
        let (_, table) = tables.iter_mut().find(|(value, _)| *value == entry.value)?;
        f(&mut **table)
    }

    /// Calls `f` with the end, unless it is gone.
    pub(super) fn with<R>(&self, entry: &Entry, f: impl FnOnce(&mut dyn AnyEnd) -> R) -> Option<R> {
        self.table_of(entry, |table| table.end(entry.key).map(f))
    }

    /// Takes the end away; the caller drops what is in it, without a borrow.
    pub(super) fn remove(&self, entry: &Entry) -> Option<Box<dyn AnyEnd>> {
        self.table_of(entry, |table| table.remove(entry.key))
    }
}

/// An end under its name.
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub(crate) peer: ChareId,
    pub(crate) tag: u64,
    /// The type of its values.
    value: TypeId,
    pub(super) key: EndKey,
}

impl Entry {
    /// Of an end that is in no table yet.
    pub(super) fn to_be_planted(peer: ChareId, tag: u64, value: TypeId) -> Self {
        let key = EndKey { place: u32::MAX, life: Life(NonZeroU32::MIN) };
        Entry { peer, tag, value, key }
    }

    pub(super) fn holds<T: 'static>(&self) -> bool {
        self.value == TypeId::of::<T>()
    }

    /// Opened by the chare itself, not only by an incoming value.
    pub(crate) fn is_opened(&self, pe: &Pe) -> bool {
        pe.ends.with(self, |end| end.is_opened()).unwrap_or(false)
    }

    /// Values that have come and were not read, and values that wait for credit.
    pub(crate) fn queued(&self, pe: &Pe) -> (usize, usize) {
        pe.ends.with(self, |end| end.queued()).unwrap_or_default()
    }

    pub(crate) fn for_each_waiter(&self, pe: &Pe, f: &mut dyn FnMut(&Waiter)) {
        pe.ends.with(self, |end| end.for_each_waiter(f));
    }
}

/// Ends that no key leads to any more. Dropping them drops values of the user's.
pub(crate) struct Closed(pub(super) Vec<Box<dyn AnyEnd>>);

impl Closed {
    /// Drops them, each value by itself.
    pub(crate) fn give_up(self, pe: &Pe) {
        self.0.into_iter().for_each(|end| end.give_up(pe));
    }
}

/// Ends between two PEs, in the order of their chare's names.
#[derive(Default)]
pub(crate) struct Uprooted(Vec<Box<dyn AnyEnd>>);

impl Uprooted {
    pub(super) fn new(ends: Vec<Box<dyn AnyEnd>>) -> Self {
        Uprooted(ends)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &dyn AnyEnd> {
        self.0.iter().map(|end| &**end)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Box<dyn AnyEnd>> {
        self.0.iter_mut()
    }

    /// Drops them, each value by itself.
    pub(crate) fn give_up(self, pe: &Pe) {
        Closed(self.0).give_up(pe);
    }

    /// As `give_up`, where they have left as they were encoded.
    pub(crate) fn have_left(mut self, pe: &Pe) {
        self.0.iter_mut().for_each(|end| end.has_left());
        self.give_up(pe);
    }
}

/// An end that is closed, whose peer is told so.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(super) struct Told {
    pub(super) peer: ChareId,
    pub(super) tag: u64,
    /// The stream that values have come of.
    pub(super) taken: Option<StreamId>,
}

/// The ends that a chare has, by name.
#[derive(Default)]
pub(crate) struct Channels {
    entries: Vec<Entry>,
    /// Places in `entries`, once there are many.
    by_name: Option<Box<FxHashMap<(ChareId, u64), usize>>>,
    /// The chare's streams that others of the same name may follow.
    restarts: u64,
    /// Ends have been forgotten since they were spent. Not so in a chare whose destructors run, and which has lost all.
    has_retired: bool,
    /// Peers, by name, that have heard that the chare is poisoned, and not that it has ended.
    pub(super) told: Vec<Told>,
}

impl Channels {
    pub(super) fn find(&self, peer: ChareId, tag: u64) -> Option<&Entry> {
        self.place(peer, tag).map(|place| &self.entries[place])
    }

    fn place(&self, peer: ChareId, tag: u64) -> Option<usize> {
        match &self.by_name {
            None => self.entries.iter().position(|entry| entry.peer == peer && entry.tag == tag),
            Some(by_name) => by_name.get(&(peer, tag)).copied(),
        }
    }

    /// The stream of what goes from a new end of the chare, which began in this epoch.
    fn stream(&self, birth: u64) -> StreamId {
        StreamId { birth, restarts: self.restarts }
    }

    /// A stream that comes after all others of the chare.
    pub(super) fn next_stream(&mut self, birth: u64) -> StreamId {
        self.restarts += 1;
        self.stream(birth)
    }

    fn insert<T: Wire>(&self, pe: &Pe, birth: u64) -> EndKey {
        let mut table = pe.ends.of::<T>();
        let key = table.insert();
        table.get(key).expect("it was just made").begin(self.stream(birth));
        key
    }

    /// The end with this name, made for values of type `T` if there is none; it may be there for values of another type.
    /// The chare began in the epoch `birth`.
    pub(super) fn entry<T: Wire>(&mut self, pe: &Pe, birth: u64, peer: ChareId, tag: u64) -> Entry {
        if let Some(entry) = self.find(peer, tag) {
            return *entry;
        }
        let place = self.entries.len();
        let key = self.insert::<T>(pe, birth);
        let entry = Entry { peer, tag, value: TypeId::of::<T>(), key };
        self.entries.push(entry);
        if place == SCAN_LIMIT {
            self.index();
        } else if let Some(by_name) = &mut self.by_name {
            by_name.insert((peer, tag), place);
        }
        entry
    }

    /// Makes the end with this name anew for values of type `T`. The caller drops the other one, without a borrow.
    pub(super) fn replace<T: Wire>(
        &mut self,
        pe: &Pe,
        birth: u64,
        old: &Entry,
    ) -> (Entry, Option<Box<dyn AnyEnd>>) {
        let gone = pe.ends.remove(old);
        let entry = Entry { value: TypeId::of::<T>(), key: self.insert::<T>(pe, birth), ..*old };
        if let Some(place) = self.place(old.peer, old.tag) {
            self.entries[place] = entry;
        }
        (entry, gone)
    }

    /// Whether an end that was opened under this name is not there any more since it was spent.
    pub(super) fn has_spent(&self, peer: ChareId, tag: u64) -> bool {
        self.has_retired && self.find(peer, tag).is_none()
    }

    /// Takes the end with this name away if it is spent, and forgets its name. The caller drops it, without a borrow.
    pub(super) fn retire(&mut self, pe: &Pe, peer: ChareId, tag: u64) -> Option<Box<dyn AnyEnd>> {
        let place = self.place(peer, tag)?;
        if !pe.ends.with(&self.entries[place], |end| end.is_spent())? {
            return None;
        }
        let gone = pe.ends.remove(&self.entries.swap_remove(place));
        if let Some(by_name) = &mut self.by_name {
            by_name.remove(&(peer, tag));
            if let Some(moved) = self.entries.get(place) {
                by_name.insert((moved.peer, moved.tag), place);
            }
        }
        self.has_retired = true;
        // What another end of this name sends must not be taken for what this one has sent.
        self.restarts += u64::from(gone.as_ref().is_some_and(|end| end.has_sent()));
        gone
    }

    /// Whether nothing was ever done with them.
    pub(super) fn is_new(&self) -> bool {
        self.entries.is_empty() && (self.restarts, self.has_retired, self.told.len()) == (0, false, 0)
    }

    /// Streams that others have followed, and whether ends were forgotten.
    pub(super) fn history(&self) -> (u64, bool) {
        (self.restarts, self.has_retired)
    }

    /// Those of a chare that has come from another process.
    pub(super) fn restore(&mut self, entries: Vec<Entry>, restarts: u64, has_retired: bool, told: Vec<Told>) {
        (self.restarts, self.has_retired, self.told) = (restarts, has_retired, told);
        self.entries = entries;
        if self.entries.len() > SCAN_LIMIT {
            self.index();
        }
    }

    /// From here on names are found by hash.
    fn index(&mut self) {
        let names = self.entries.iter().enumerate().map(|(place, entry)| ((entry.peer, entry.tag), place));
        self.by_name = Some(Box::new(names.collect()));
    }

    /// Notes that an end has become one for values of type `T`, under this key.
    pub(super) fn retype<T: Wire>(&mut self, entry: &Entry, key: EndKey) {
        if let Some(place) = self.place(entry.peer, entry.tag) {
            self.entries[place] = Entry { value: TypeId::of::<T>(), key, ..*entry };
        }
    }

    /// Takes all ends out of the tables of this PE, and keeps their names.
    pub(super) fn uproot(&mut self, pe: &Pe) -> Uprooted {
        let remove = |entry| pe.ends.remove(entry).expect("an end is there as long as its name");
        Uprooted(self.entries.iter().map(remove).collect())
    }

    /// Puts the ends into the tables of this PE.
    pub(super) fn plant(&mut self, pe: &Pe, ends: Uprooted) {
        for (entry, end) in self.entries.iter_mut().zip(ends.0) {
            entry.key = end.plant(pe);
        }
    }

    /// Takes all ends away; the caller drops what is in them, without a borrow.
    pub(crate) fn close(&mut self, pe: &Pe) -> Closed {
        self.by_name = None;
        self.restarts += 1;
        Closed(self.entries.drain(..).filter_map(|entry| pe.ends.remove(&entry)).collect())
    }

    /// Whom to tell that the ends are closed, or will be.
    pub(super) fn to_be_told(&self, pe: &Pe) -> Vec<Told> {
        let told = |entry: &Entry| {
            let taken = pe.ends.with(entry, |end| end.taken()).flatten();
            Told { peer: entry.peer, tag: entry.tag, taken }
        };
        self.entries.iter().map(told).chain(self.told.iter().copied()).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(pe: usize) -> Table<u8> {
        Table { ends: Vec::new(), vacant: Vec::new(), pe: PeId::new(pe) }
    }

    #[test]
    fn a_key_leads_to_its_own_end_or_nowhere() {
        let mut table = table(3);
        let keys = [table.insert(), table.insert()];
        table.get(keys[1]).unwrap().credit = 7;
        assert!(table.remove(keys[0]).is_some() && table.remove(keys[0]).is_none());
        let next = table.insert();
        assert!(next.place == keys[0].place && next != keys[0]);
        assert!(table.get(keys[0]).is_none() && table.get(next).is_some());
        assert_eq!(table.get(keys[1]).unwrap().credit, 7);
    }

    #[test]
    fn pes_have_no_key_in_common() {
        for pe in [0, 1, MAX_PES - 2] {
            let mut last = Life::first_on(PeId::new(pe));
            last = Life(NonZeroU32::new(last.0.get() + MAX_LIVES - 2).unwrap());
            assert_eq!(last.next(), None);
            assert!(last.0 < Life::first_on(PeId::new(pe + 1)).0);
        }
    }

    #[test]
    fn a_place_whose_lives_are_used_up_is_not_used_again() {
        let mut table = table(2);
        let first = table.insert();
        let last = Life(NonZeroU32::new(first.life.0.get() + MAX_LIVES - 2).unwrap());
        table.get(first).unwrap().life = Some(last);
        let last = EndKey { life: last, ..first };
        assert!(table.remove(last).is_some() && table.get(first).is_none() && table.get(last).is_none());
        assert_ne!(table.insert().place, first.place);
    }

    #[test]
    fn an_end_of_pointers_is_one_line() {
        assert_eq!((size_of::<End<Box<u8>>>(), align_of::<End<Box<u8>>>()), (64, 64));
    }
}
