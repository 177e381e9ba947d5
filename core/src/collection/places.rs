//! Which elements of a collection live on one PE, and at which place each.
//!
//! The elements that are placed here by the collection's own rule have the first places, in order of their numbers;
//! others (*guests*, which have moved here) follow, wherever there is room. Jobs visit places by number, so elements may
//! come and go between two steps of a job: one that was there before keeps its place.

use std::cell::{Cell, RefCell};

use rustc_hash::FxHashMap;

use crate::cell::ChareRef;

/// What is at a place.
pub(crate) enum Place {
    /// A chare.
    Here(ChareRef),
    /// An element, with this number, whose constructor has not ended.
    Unborn(u64),
    /// Nobody: its element has left.
    Vacant,
}

/// The places of one collection on one PE.
pub(super) struct Places {
    first: u64,
    own_count: u64,
    /// Own elements, from `first` on, that need not be looked for: all of them until the first leaves, then none.
    direct_count: Cell<u64>,
    /// The chares at all places; the own ones come first.
    chares: RefCell<Vec<Option<ChareRef>>>,
    /// Own elements that have left.
    absent: RefCell<Absent>,
    guests: RefCell<Guests>,
}

/// A bit for each own element; none before the first leaves.
#[derive(Default)]
struct Absent {
    words: Vec<u64>,
    count: u64,
}

impl Absent {
    fn contains(&self, place: u64) -> bool {
        self.words.get((place / 64) as usize).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    fn insert(&mut self, place: u64, own_count: u64) {
        if self.words.is_empty() {
            self.words.resize(own_count.div_ceil(64) as usize, 0);
        }
        self.count += u64::from(!self.contains(place));
        self.words[(place / 64) as usize] |= 1 << (place % 64);
    }

    /// Whether it was there.
    fn remove(&mut self, place: u64) -> bool {
        let was_there = self.contains(place);
        if was_there {
            self.count -= 1;
            self.words[(place / 64) as usize] &= !(1 << (place % 64));
        }
        was_there
    }
}

#[derive(Default)]
struct Guests {
    places: FxHashMap<u64, usize>,
    /// By place, behind the own ones; none where nobody is.
    elements: Vec<Option<u64>>,
    vacant: Vec<usize>,
}

impl Places {
    /// Places for the own elements `first..first + own_count`, all of them unborn; `None` if they do not fit in memory.
    pub(super) fn new(first: u64, own_count: u64) -> Option<Self> {
        let mut chares = Vec::new();
        let count = usize::try_from(own_count).ok()?;
        chares.try_reserve_exact(count).ok()?;
        chares.resize(count, None);
        Some(Places {
            first,
            own_count,
            direct_count: Cell::new(own_count),
            chares: RefCell::new(chares),
            absent: RefCell::default(),
            guests: RefCell::default(),
        })
    }

    /// Places that there are, vacant ones included.
    pub(super) fn count(&self) -> usize {
        self.chares.borrow().len()
    }

    /// Whether the element is one of this PE's own and no such element has ever left.
    #[inline(always)]
    pub(super) fn is_direct(&self, element: u64) -> bool {
        element.wrapping_sub(self.first) < self.direct_count.get()
    }

    fn is_own(&self, element: u64) -> bool {
        element.wrapping_sub(self.first) < self.own_count
    }

    /// The element, if it is constructed and lives here.
    #[inline(always)]
    pub(super) fn find(&self, element: u64) -> Option<ChareRef> {
        let place = element.wrapping_sub(self.first);
        if place < self.own_count {
            return self.chares.borrow()[place as usize];
        }
        self.find_guest(element)
    }

    #[inline(never)]
    fn find_guest(&self, element: u64) -> Option<ChareRef> {
        let place = *self.guests.borrow().places.get(&element)?;
        self.chares.borrow()[place]
    }

    /// Whether the element lives here, or is being constructed here.
    #[inline]
    pub(super) fn expects(&self, element: u64) -> bool {
        if self.is_own(element) {
            return self.is_direct(element) || !self.absent.borrow().contains(element - self.first);
        }
        self.guests.borrow().places.contains_key(&element)
    }

    /// What is at a place.
    #[inline]
    pub(super) fn at(&self, place: usize) -> Place {
        if let Some(chare) = self.chares.borrow()[place] {
            return Place::Here(chare);
        }
        let own_count = self.own_count as usize;
        let element = if place < own_count {
            let element = self.first + place as u64;
            self.expects(element).then_some(element)
        } else {
            self.guests.borrow().elements[place - own_count]
        };
        element.map_or(Place::Vacant, Place::Unborn)
    }

    /// Makes a place for an element that is to live here, unless it has one.
    pub(super) fn reserve(&self, element: u64) -> usize {
        if self.is_own(element) {
            let mut absent = self.absent.borrow_mut();
            if absent.remove(element - self.first) && absent.count == 0 {
                self.direct_count.set(self.own_count);
            }
            return (element - self.first) as usize;
        }
        let own_count = self.own_count as usize;
        let guests = &mut *self.guests.borrow_mut();
        *guests.places.entry(element).or_insert_with(|| {
            let place = guests.vacant.pop().unwrap_or_else(|| {
                self.chares.borrow_mut().push(None);
                guests.elements.push(None);
                own_count + guests.elements.len() - 1
            });
            guests.elements[place - own_count] = Some(element);
            place
        })
    }

    /// Puts a chare in the place of its element.
    pub(super) fn put(&self, chare: ChareRef) {
        let place = self.reserve(chare.id.element);
        self.chares.borrow_mut()[place] = Some(chare);
    }

    /// Gives the place of an element up, which lives here or was to be constructed here.
    pub(super) fn remove(&self, element: u64) {
        if self.is_own(element) {
            self.absent.borrow_mut().insert(element - self.first, self.own_count);
            self.direct_count.set(0);
            self.chares.borrow_mut()[(element - self.first) as usize] = None;
            return;
        }
        let guests = &mut *self.guests.borrow_mut();
        if let Some(place) = guests.places.remove(&element) {
            guests.elements[place - self.own_count as usize] = None;
            guests.vacant.push(place);
            self.chares.borrow_mut()[place] = None;
        }
    }

    pub(super) fn for_each(&self, mut f: impl FnMut(ChareRef)) {
        self.chares.borrow().iter().flatten().for_each(|chare| f(*chare));
    }

    /// Takes all chares, at the end of the PE.
    pub(super) fn take_all(&self) -> Vec<ChareRef> {
        *self.guests.borrow_mut() = Guests::default();
        self.direct_count.set(0);
        let mut chares = self.chares.borrow_mut();
        let all = chares.iter_mut().filter_map(Option::take).collect();
        chares.truncate(self.own_count as usize);
        all
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use proptest::prelude::*;

    /// The elements that are expected, with their places.
    fn unborn(places: &Places) -> BTreeMap<u64, usize> {
        let at = |place| match places.at(place) {
            Place::Unborn(element) => Some((element, place)),
            Place::Vacant => None,
            Place::Here(_) => unreachable!("nothing is constructed"),
        };
        let all: Vec<_> = (0..places.count()).filter_map(at).collect();
        let by_element = BTreeMap::from_iter(all.iter().copied());
        assert_eq!(by_element.len(), all.len(), "an element has one place");
        by_element
    }

    proptest! {
        #[test]
        fn elements_come_and_go_and_keep_their_places_meanwhile(
            first in 0_u64..5,
            own_count in 0_u64..5,
            steps in prop::collection::vec((any::<bool>(), 0_u64..12), 0..100),
        ) {
            let places = Places::new(first, own_count).unwrap();
            let mut model = unborn(&places);
            prop_assert_eq!(model.len() as u64, own_count);
            for (comes, element) in steps {
                if comes {
                    let place = places.reserve(element);
                    prop_assert_eq!(*model.entry(element).or_insert(place), place);
                } else if model.remove(&element).is_some() {
                    places.remove(element);
                }
                prop_assert_eq!(unborn(&places), model.clone());
                for element in 0..12 {
                    prop_assert_eq!(places.expects(element), model.contains_key(&element));
                    prop_assert!(!places.is_direct(element) || places.expects(element));
                }
            }
        }
    }
}
