//! The timers of a PE: deadlines and the cells that they answer, in a heap. Their number is not limited.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::scheduler::pe::Pe;

/// Deadlines in nanoseconds of the PE's clock, ties in order of setting.
pub(crate) struct Timers(RefCell<Heap>);

#[derive(Default)]
struct Heap {
    deadlines: BinaryHeap<Reverse<(u64, u64, u64)>>,
    set: u64,
}

impl Timers {
    pub(crate) fn new() -> Self {
        Timers(RefCell::default())
    }

    /// Answers the cell `key` of this PE at `deadline_ns` or later.
    pub(crate) fn set(&self, deadline_ns: u64, key: u64) {
        let mut heap = self.0.borrow_mut();
        heap.set += 1;
        let order = heap.set;
        heap.deadlines.push(Reverse((deadline_ns, order, key)));
    }

    pub(crate) fn next_deadline_ns(&self) -> Option<u64> {
        self.0.borrow().deadlines.peek().map(|Reverse((deadline, ..))| *deadline)
    }

    pub(crate) fn pending_count(&self) -> usize {
        self.0.borrow().deadlines.len()
    }

    /// Answers all whose deadline has come.
    pub(crate) fn fire(&self, pe: &Pe, now_ns: u64) {
        while let Some(deadline) = self.next_deadline_ns() {
            if deadline > now_ns {
                return;
            }
            let Some(Reverse((_, _, key))) = self.0.borrow_mut().deadlines.pop() else { return };
            pe.cells.deposit(pe, key, 0, Ok(()));
        }
    }
}
