//! Who waits for what: one [`Waiter`] per wait that the runtime knows, the source of wake-ups and of the hang report.
//!
//! Invariant: a coroutine's count of known waits is the number of live `Waiter`s that it registered. A parked coroutine
//! with none waits on something outside the runtime (it is *external*) and is never reported as hanging.

use std::panic::Location;
use std::task::{Context, Waker};

use crate::chare::ChareInfo;
use crate::entry::EntryInfo;
use crate::ids::{ChareId, CollectionId};
use crate::scheduler::pe::Pe;
use crate::scheduler::task::TaskKey;

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

/// One registered wait. It must be ended by [`Waiter::wake`] or [`Waiter::cancel`].
#[must_use]
pub(crate) struct Waiter {
    waker: Waker,
    task: Option<TaskKey>,
    pub(crate) what: What,
    pub(crate) at: &'static Location<'static>,
}

impl Waiter {
    /// Registers the waker of `context` in `place`, in the name of the running coroutine; called at every poll.
    pub(crate) fn register(
        place: &mut Option<Waiter>,
        pe: &Pe,
        context: &Context<'_>,
        what: What,
        at: &'static Location<'static>,
    ) {
        let task = pe.running_task();
        if let Some(waiter) = place {
            if waiter.task == task && waiter.waker.will_wake(context.waker()) {
                waiter.what = what;
                return;
            }
            if let Some(old) = place.take() {
                old.cancel(pe);
            }
        }
        if let Some(task) = task {
            pe.tasks.count_wait(task);
        }
        *place = Some(Waiter { waker: context.waker().clone(), task, what, at });
    }

    /// Ends the wait and wakes whoever waits.
    pub(crate) fn wake(self, pe: &Pe) {
        if let Some(task) = self.task {
            pe.tasks.end_wait(task);
        }
        self.waker.wake();
    }

    /// Ends the wait: its future is gone, or registers anew.
    pub(crate) fn cancel(self, pe: &Pe) {
        if let Some(task) = self.task {
            pe.tasks.end_wait(task);
        }
    }

    /// The coroutine that waits, if one of this PE does.
    pub(crate) fn task(&self) -> Option<TaskKey> {
        self.task
    }
}
