//! The timers of a PE: deadlines and the cells that they answer, sorted. Their number is not limited.

use std::cell::RefCell;
use std::collections::BTreeMap;

use crate::scheduler::pe::Pe;

/// A timer that was set: its deadline in nanoseconds of the PE's clock, and its number in order of setting.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct TimerKey {
    deadline_ns: u64,
    number: u64,
}

/// The timers that have not fired, each with its cell; those of one deadline in order of setting.
#[derive(Default)]
pub(crate) struct Timers(RefCell<Sorted>);

#[derive(Default)]
struct Sorted {
    pending: BTreeMap<TimerKey, u64>,
    set: u64,
}

impl Timers {
    /// Answers the cell `cell` of this PE at `deadline_ns` or later.
    pub(crate) fn set(&self, deadline_ns: u64, cell: u64) -> TimerKey {
        let mut sorted = self.0.borrow_mut();
        sorted.set += 1;
        let key = TimerKey { deadline_ns, number: sorted.set };
        sorted.pending.insert(key, cell);
        key
    }

    /// Forgets a timer; one that has fired is forgotten already.
    pub(crate) fn cancel(&self, key: TimerKey) {
        self.0.borrow_mut().pending.remove(&key);
    }

    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.0.borrow().pending.first_key_value().map(|(key, _)| key.deadline_ns)
    }

    pub(crate) fn pending_count(&self) -> usize {
        self.0.borrow().pending.len()
    }

    /// Answers all whose deadline has come.
    pub(crate) fn fire(&self, pe: &Pe, now_ns: u64) {
        while self.next_deadline_ns().is_some_and(|deadline_ns| deadline_ns <= now_ns) {
            let Some((_, cell)) = self.0.borrow_mut().pending.pop_first() else { return };
            pe.cells.deposit(pe, cell, 0, Ok(()));
        }
    }
}
