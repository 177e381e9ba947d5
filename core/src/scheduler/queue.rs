//! The run queue of a PE: what is to be done, expedited work first, then by priority (lower first; unset is the middle),
//! then in order of arrival. Touched by its own thread only.
//!
//! Work without a priority is in a list of its own, which is all that is looked at while there is no other: a priority
//! costs those that have one.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

use crate::ids::CollectionId;
use crate::message::Msg;
use crate::priority::{Priority, Rank};
use crate::scheduler::task::TaskKey;

/// One thing to be done.
pub(crate) enum Work {
    /// Take a message.
    Msg(Msg),
    /// Resume a coroutine that was woken.
    Resume(TaskKey),
    /// Step the first job of a collection.
    Job(CollectionId),
}

/// What is to be done, in order.
pub(crate) struct RunQueue {
    /// Things before `normal`: `expedited` and `urgent` together.
    early_count: Cell<usize>,
    /// Things after `normal`.
    late_count: Cell<usize>,
    normal: RefCell<VecDeque<Work>>,
    ranked: RefCell<Ranked>,
}

/// What is not in the middle.
#[derive(Default)]
struct Ranked {
    expedited: VecDeque<Work>,
    urgent: BTreeMap<Priority, VecDeque<Work>>,
    /// What waits until there is nothing else.
    late: BTreeMap<Priority, VecDeque<Work>>,
}

/// Takes the oldest of the lowest priority.
fn pop_lowest(levels: &mut BTreeMap<Priority, VecDeque<Work>>) -> Option<Work> {
    let mut lowest = levels.first_entry()?;
    let work = lowest.get_mut().pop_front();
    if lowest.get().is_empty() {
        lowest.remove();
    }
    work
}

impl RunQueue {
    pub(crate) fn new() -> Self {
        RunQueue {
            early_count: Cell::new(0),
            late_count: Cell::new(0),
            normal: RefCell::new(VecDeque::with_capacity(1024)),
            ranked: RefCell::default(),
        }
    }

    #[inline(always)]
    pub(crate) fn push(&self, work: Work) {
        self.normal.borrow_mut().push_back(work);
    }

    /// Puts something behind all that is not of a higher rank.
    pub(crate) fn push_ranked(&self, rank: Rank, work: Work) {
        let mut ranked = self.ranked.borrow_mut();
        let level = match rank {
            Rank::Normal => return self.push(work),
            Rank::Expedited => &mut ranked.expedited,
            Rank::At(priority) => match priority.against_the_middle() {
                Ordering::Less => ranked.urgent.entry(priority).or_default(),
                Ordering::Equal => return self.push(work),
                Ordering::Greater => {
                    self.late_count.set(self.late_count.get() + 1);
                    return ranked.late.entry(priority).or_default().push_back(work);
                }
            },
        };
        level.push_back(work);
        self.early_count.set(self.early_count.get() + 1);
    }

    /// Puts what was held back before everything of the middle that arrived later, keeping its own order.
    pub(crate) fn push_first(&self, held: VecDeque<Work>) {
        let mut queue = self.normal.borrow_mut();
        held.into_iter().rev().for_each(|work| queue.push_front(work));
    }

    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<Work> {
        if self.early_count.get() > 0 {
            return self.pop_early();
        }
        let next = self.normal.borrow_mut().pop_front();
        if next.is_some() || self.late_count.get() == 0 { next } else { self.pop_late() }
    }

    #[cold]
    fn pop_early(&self) -> Option<Work> {
        self.early_count.set(self.early_count.get() - 1);
        let ranked = &mut *self.ranked.borrow_mut();
        ranked.expedited.pop_front().or_else(|| pop_lowest(&mut ranked.urgent))
    }

    #[inline(never)]
    fn pop_late(&self) -> Option<Work> {
        let next = pop_lowest(&mut self.ranked.borrow_mut().late)?;
        self.late_count.set(self.late_count.get() - 1);
        Some(next)
    }

    /// What is next, and what comes after that, where it is a coroutine.
    #[inline(always)]
    pub(crate) fn coroutines_ahead(&self) -> [Option<TaskKey>; 2] {
        let queue = self.normal.borrow();
        [0, 1].map(|place| match queue.get(place) {
            Some(Work::Resume(task)) => Some(*task),
            _ => None,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.early_count.get() + self.normal.borrow().len() + self.late_count.get()
    }

    /// Everything, in no order.
    pub(crate) fn for_each(&self, f: impl FnMut(&Work)) {
        let ranked = self.ranked.borrow();
        let levels = ranked.urgent.values().chain(ranked.late.values());
        levels.flatten().chain(&ranked.expedited).chain(&*self.normal.borrow()).for_each(f);
    }

    /// Empties the queue; the caller drops what was in it, without a borrow.
    pub(crate) fn take_all(&self) -> VecDeque<Work> {
        std::iter::from_fn(|| self.pop()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PeId;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push,
        PushRanked(Place),
        /// Hands back this many things at once.
        PushFirst(usize),
        Pop,
        TakeAll,
    }

    /// What orders work before its arrival does: expedited is less than any number, and 0 is the middle.
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
    enum Place {
        Expedited,
        At(i64),
    }

    impl Place {
        fn rank(self) -> Rank {
            match self {
                Place::Expedited => Rank::Expedited,
                Place::At(priority) => Rank::At(priority.into()),
            }
        }
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let place = prop_oneof![1 => Just(Place::Expedited), 4 => (-2..=2_i64).prop_map(Place::At)];
        let step = prop_oneof![
            4 => Just(Step::Push),
            4 => place.prop_map(Step::PushRanked),
            2 => (0..4_usize).prop_map(Step::PushFirst),
            6 => Just(Step::Pop),
            1 => Just(Step::TakeAll),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// The kinds of work take turns, as they share one order.
    fn work(number: u32) -> Work {
        if number.is_multiple_of(2) {
            Work::Resume(TaskKey { slot: number, generation: 0 })
        } else {
            Work::Job(CollectionId::new(PeId::new(0), u64::from(number)))
        }
    }

    fn number(work: Work) -> u32 {
        match work {
            Work::Resume(task) => task.slot,
            Work::Job(collection) => collection.counter() as u32,
            Work::Msg(_) => unreachable!("no message is queued here"),
        }
    }

    /// Everything in order of arrival; what is held back comes before all.
    #[derive(Default)]
    struct Model(Vec<(Place, u32)>);

    impl Model {
        fn pop(&mut self) -> Option<u32> {
            let places = self.0.iter().map(|(place, _)| *place);
            // Of equal ones the first.
            let (next, _) = places.enumerate().min_by_key(|(_, place)| *place)?;
            Some(self.0.remove(next).1)
        }
    }

    proptest! {
        #[test]
        fn the_queue_is_a_list_of_which_the_first_of_the_lowest_is_taken(steps in steps()) {
            const MIDDLE: Place = Place::At(0);
            let (queue, mut model) = (RunQueue::new(), Model::default());
            let mut numbers = 0_u32..;
            for step in steps {
                match step {
                    Step::Push => {
                        let next = numbers.next().unwrap();
                        queue.push(work(next));
                        model.0.push((MIDDLE, next));
                    }
                    Step::PushRanked(place) => {
                        let next = numbers.next().unwrap();
                        queue.push_ranked(place.rank(), work(next));
                        model.0.push((place, next));
                    }
                    Step::PushFirst(count) => {
                        let held: Vec<_> = numbers.by_ref().take(count).collect();
                        queue.push_first(held.iter().copied().map(work).collect());
                        model.0.splice(0..0, held.into_iter().map(|number| (MIDDLE, number)));
                    }
                    Step::Pop => prop_assert_eq!(queue.pop().map(number), model.pop()),
                    Step::TakeAll => {
                        let taken: Vec<_> = queue.take_all().into_iter().map(number).collect();
                        let all: Vec<_> = std::iter::from_fn(|| model.pop()).collect();
                        prop_assert_eq!(taken, all);
                    }
                }
                prop_assert_eq!((queue.is_empty(), queue.len()), (model.0.is_empty(), model.0.len()));
                let mut met = 0;
                queue.for_each(|_| met += 1);
                prop_assert_eq!(met, model.0.len());
            }
            let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).map(number).collect();
            let all: Vec<_> = std::iter::from_fn(|| model.pop()).collect();
            prop_assert_eq!(rest, all);
        }
    }
}
