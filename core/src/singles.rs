//! Which singletons have been made: so that a call of one that is gone is told from a call of one that is still to come.
//!
//! A PE numbers the singletons that it makes for each home. Their home remembers from which number on they have not come yet,
//! and by number only those that have come before an earlier one, which messages that keep their order never do. So what has
//! come and is not there any more is gone, and nothing is kept of it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use rustc_hash::FxHashSet;

use crate::ids::{ChareId, PeId};
use crate::scheduler::pe::Pe;

/// What a PE knows of the singletons that it makes, and of those whose home it is.
pub(crate) struct SinglesMade {
    /// The number of the next one, by home.
    next: Box<[Cell<u64>]>,
    /// Those that have come to this home, by who has made them.
    come: RefCell<Box<[Come]>>,
    /// Those of them whose constructors are coroutines that have not ended.
    begun: RefCell<FxHashSet<u64>>,
}

#[derive(Clone, Default)]
struct Come {
    /// All below this number have.
    below: u64,
    /// Others that have.
    early: BTreeSet<u64>,
}

impl Come {
    fn add(&mut self, number: u64) {
        if number != self.below {
            self.early.insert(number);
            return;
        }
        self.below += 1;
        while self.early.remove(&self.below) {
            self.below += 1;
        }
    }

    fn contains(&self, number: u64) -> bool {
        number < self.below || self.early.contains(&number)
    }
}

impl SinglesMade {
    pub(crate) fn new(pe_count: usize) -> Self {
        SinglesMade {
            next: vec![Cell::new(0); pe_count].into(),
            come: RefCell::new(vec![Come::default(); pe_count].into()),
            begun: RefCell::default(),
        }
    }

    /// Notes that one is under construction, for longer than this step.
    pub(crate) fn begin(&self, id: ChareId) {
        self.begun.borrow_mut().insert(id.element);
    }

    /// Notes that a constructor has ended.
    pub(crate) fn end(&self, id: ChareId) {
        self.begun.borrow_mut().remove(&id.element);
    }

    /// Notes that one has come, after its constructor has begun, and perhaps ended.
    pub(crate) fn note_come(&self, id: ChareId) {
        let (maker, number) = self.origin(id);
        self.come.borrow_mut()[maker.index()].add(number);
    }

    /// How much is kept of single ones.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn kept_count(&self) -> usize {
        let early = self.come.borrow().iter().map(|come| come.early.len()).sum::<usize>();
        early + self.begun.borrow().len()
    }

    /// Who has made a singleton, and its number among those for its home.
    fn origin(&self, id: ChareId) -> (PeId, u64) {
        let (maker, counter) = id.maker();
        (maker, counter / self.next.len() as u64)
    }

    fn is_over(&self, id: ChareId) -> bool {
        let (maker, number) = self.origin(id);
        // What is addressed by nonsense has not come.
        let has_come = self.come.borrow().get(maker.index()).is_some_and(|come| come.contains(number));
        has_come && !self.begun.borrow().contains(&id.element)
    }
}

impl Pe {
    /// An id for a singleton that this PE makes.
    pub(crate) fn next_single(&self, home: PeId) -> ChareId {
        let SinglesMade { next, .. } = &self.singles_made;
        let number = next[home.index()].replace(next[home.index()].get() + 1);
        // Different for each home: singletons of different homes may meet on one PE.
        ChareId::single(home, self.id(), number * next.len() as u64 + home.index() as u64)
    }

    /// Whether a singleton that this PE is the home of, and that is not known to be anywhere, does not exist any more.
    pub(crate) fn is_single_gone(&self, id: ChareId) -> bool {
        // One whose constructor has failed is not there either, but calls of it are told that.
        self.singles_made.is_over(id) && self.stillborn(id).is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_has_come_is_known_in_any_order(order in Just((0..40_u64).collect::<Vec<_>>()).prop_shuffle()) {
            let mut come = Come::default();
            for (count, number) in order.iter().enumerate() {
                prop_assert!(!come.contains(*number));
                come.add(*number);
                for other in 0..40 {
                    prop_assert_eq!(come.contains(other), order[..=count].contains(&other));
                }
            }
            prop_assert_eq!((come.below, come.early.len()), (40, 0));
        }
    }
}
