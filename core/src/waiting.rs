//! Who waits for what: one [`Waiter`] per wait that the runtime knows, the source of wake-ups and of the hang report.
//!
//! Invariant: a coroutine's count of known waits is the number of live `Waiter`s that it registered. What else it waits
//! for is known by the wakers that others hold of it (`scheduler/interest`).
//!
//! A waker may be the user's, and its clone and drop run the user's code. So the [`Wakeup`] is taken before the table that
//! the wait goes into is borrowed, and the wait that it replaces is dropped after.

use std::panic::Location;

use crate::chares::ChareInfo;
use crate::entry::EntryInfo;
use crate::ids::{ChareId, CollectionId};
use crate::scheduler::pe::Pe;
use crate::scheduler::task::TaskKey;
use crate::scheduler::waker::Wakeup;

/// What a coroutine waits for, in the words of the hang report.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    Call { entry: &'static EntryInfo, to: ChareId },
    Broadcast { entry: &'static EntryInfo },
    Creation { chare: &'static ChareInfo },
    Promise,
    Reduction { collection: CollectionId, sequence: u64 },
    Sleep,
    Quiescence,
    Receive { peer: ChareId, tag: u64 },
    Credit { peer: ChareId, tag: u64 },
    Condition,
}

/// One registered wait. It must be ended by [`Waiter::wake`] or [`Waiter::cancel`], where no table is borrowed.
#[must_use]
pub(crate) struct Waiter {
    wakeup: Wakeup,
    task: Option<TaskKey>,
    pub(crate) what: What,
    pub(crate) at: &'static Location<'static>,
}

impl Waiter {
    /// A wait in the name of the running coroutine, made anew at every poll.
    #[inline]
    pub(crate) fn new(pe: &Pe, wakeup: Wakeup, what: What, at: &'static Location<'static>) -> Waiter {
        let task = pe.running_task();
        if let Some(task) = task {
            pe.tasks.begin_wait(task, &wakeup);
        }
        Waiter { wakeup, task, what, at }
    }

    /// Ends the wait and wakes whoever waits.
    #[inline]
    pub(crate) fn wake(self, pe: &Pe) {
        self.end(pe).wake_from(pe);
    }

    /// Ends the wait: its future is gone, or registers anew.
    pub(crate) fn cancel(self, pe: &Pe) {
        drop(self.end(pe));
    }

    #[inline]
    fn end(self, pe: &Pe) -> Wakeup {
        if let Some(task) = self.task {
            pe.tasks.end_wait(task, &self.wakeup);
        }
        self.wakeup
    }

    /// The coroutine that waits, if one of this PE does.
    pub(crate) fn task(&self) -> Option<TaskKey> {
        self.task
    }
}

/// Ends the wait that another has taken the place of, if there was one.
#[inline]
pub(crate) fn cancel_replaced(replaced: Option<Waiter>, pe: &Pe) {
    if let Some(waiter) = replaced {
        waiter.cancel(pe);
    }
}
