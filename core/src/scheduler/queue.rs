//! The run queue of a PE: what is to be done, in order of arrival. Touched by its own thread only.

use std::cell::RefCell;
use std::collections::VecDeque;

use crate::ids::CollectionId;
use crate::message::Msg;
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

/// First in, first out.
pub(crate) struct RunQueue(RefCell<VecDeque<Work>>);

impl RunQueue {
    pub(crate) fn new() -> Self {
        RunQueue(RefCell::new(VecDeque::with_capacity(1024)))
    }

    #[inline(always)]
    pub(crate) fn push(&self, work: Work) {
        self.0.borrow_mut().push_back(work);
    }

    /// Puts what was held back before everything that arrived later, keeping its own order.
    pub(crate) fn push_first(&self, held: VecDeque<Work>) {
        let mut queue = self.0.borrow_mut();
        held.into_iter().rev().for_each(|work| queue.push_front(work));
    }

    #[inline(always)]
    pub(crate) fn pop(&self) -> Option<Work> {
        self.0.borrow_mut().pop_front()
    }

    /// What is next, and what comes after that, where it is a coroutine.
    #[inline(always)]
    pub(crate) fn coroutines_ahead(&self) -> [Option<TaskKey>; 2] {
        let queue = self.0.borrow();
        [0, 1].map(|place| match queue.get(place) {
            Some(Work::Resume(task)) => Some(*task),
            _ => None,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Empties the queue; the caller drops what was in it, without a borrow.
    pub(crate) fn take_all(&self) -> VecDeque<Work> {
        self.0.take()
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
        /// Hands back this many things at once.
        PushFirst(usize),
        Pop,
        TakeAll,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            6 => Just(Step::Push),
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

    proptest! {
        #[test]
        fn the_queue_is_a_list_with_two_ends(steps in steps()) {
            let (queue, mut model) = (RunQueue::new(), Vec::new());
            let mut numbers = 0_u32..;
            for step in steps {
                match step {
                    Step::Push => {
                        let next = numbers.next().unwrap();
                        queue.push(work(next));
                        model.push(next);
                    }
                    Step::PushFirst(count) => {
                        let held: Vec<_> = numbers.by_ref().take(count).collect();
                        queue.push_first(held.iter().copied().map(work).collect());
                        model.splice(0..0, held);
                    }
                    Step::Pop => {
                        let expected = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(queue.pop().map(number), expected);
                    }
                    Step::TakeAll => {
                        let taken: Vec<_> = queue.take_all().into_iter().map(number).collect();
                        prop_assert_eq!(taken, std::mem::take(&mut model));
                    }
                }
                prop_assert_eq!(queue.is_empty(), model.is_empty());
            }
            let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).map(number).collect();
            prop_assert_eq!(rest, model);
        }
    }
}
