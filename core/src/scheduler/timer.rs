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

    /// Takes the first timer whose deadline has come: the cell that it answers.
    fn pop_due(&self, now_ns: u64) -> Option<u64> {
        let pending = &mut self.0.borrow_mut().pending;
        let first = pending.first_entry().filter(|first| first.key().deadline_ns <= now_ns)?;
        Some(first.remove())
    }

    /// Answers all whose deadline has come.
    pub(crate) fn fire(&self, pe: &Pe, now_ns: u64) {
        while let Some(cell) = self.pop_due(now_ns) {
            pe.cells.deposit(pe, cell, 0, Ok(()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Set {
            deadline_ns: u64,
        },
        /// Cancels one that was ever set, pending or not.
        Cancel(prop::sample::Index),
        FireOne {
            now_ns: u64,
        },
        FireAll {
            now_ns: u64,
        },
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Few moments, so that deadlines are often equal to each other and to the time.
        let moment = 0..12_u64;
        let step = prop_oneof![
            4 => moment.clone().prop_map(|deadline_ns| Step::Set { deadline_ns }),
            2 => any::<prop::sample::Index>().prop_map(Step::Cancel),
            2 => moment.clone().prop_map(|now_ns| Step::FireOne { now_ns }),
            1 => moment.prop_map(|now_ns| Step::FireAll { now_ns }),
        ];
        prop::collection::vec(step, 0..150)
    }

    /// Deadlines and cells, in order of setting.
    #[derive(Default)]
    struct Model(Vec<(u64, u64)>);

    impl Model {
        fn pop_due(&mut self, now_ns: u64) -> Option<u64> {
            let due = self.0.iter().filter(|(deadline_ns, _)| *deadline_ns <= now_ns);
            // Of several minima this is the first, thus the one set first.
            let first = due.min_by_key(|(deadline_ns, _)| *deadline_ns)?.1;
            self.0.retain(|(_, cell)| *cell != first);
            Some(first)
        }
    }

    proptest! {
        #[test]
        fn timers_fire_by_deadline_then_in_order_of_setting(steps in steps()) {
            let (timers, mut model) = (Timers::default(), Model::default());
            let mut keys = Vec::new();
            for step in steps {
                match step {
                    Step::Set { deadline_ns } => {
                        let cell = keys.len() as u64;
                        keys.push(timers.set(deadline_ns, cell));
                        model.0.push((deadline_ns, cell));
                    }
                    Step::Cancel(_) if keys.is_empty() => {}
                    Step::Cancel(which) => {
                        let cell = which.index(keys.len());
                        timers.cancel(keys[cell]);
                        model.0.retain(|(_, other)| *other != cell as u64);
                    }
                    Step::FireOne { now_ns } => prop_assert_eq!(timers.pop_due(now_ns), model.pop_due(now_ns)),
                    Step::FireAll { now_ns } => {
                        let fired: Vec<_> = std::iter::from_fn(|| timers.pop_due(now_ns)).collect();
                        let expected: Vec<_> = std::iter::from_fn(|| model.pop_due(now_ns)).collect();
                        prop_assert_eq!(fired, expected);
                    }
                }
                prop_assert_eq!(timers.pending_count(), model.0.len());
                prop_assert_eq!(timers.next_deadline_ns(), model.0.iter().map(|(deadline_ns, _)| *deadline_ns).min());
            }
        }
    }
}
