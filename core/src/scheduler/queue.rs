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

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }

    /// Empties the queue; the caller drops what was in it, without a borrow.
    pub(crate) fn take_all(&self) -> VecDeque<Work> {
        self.0.take()
    }
}
