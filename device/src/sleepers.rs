//! Threads that sleep while devices work, and what wakes them: a device that must be looked at, or the end of the last operation.
//!
//! Two lists, each with its own rule. `device/README.md` has the argument that no wake-up is lost.
//!
//! * [`Sleepers`]: threads that want to look when something may have ended. A notification wakes one of them; that one
//!   looks, and whoever has looked sees to the others.
//! * [`Pending`]: the count of operations, and the thread that wants to know when it is zero.
//!
//! Waking is all that happens here: no code of users runs, and no driver is called, so a driver's own thread may do it.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread::{Thread, ThreadId};
use std::time::Duration;

/// How long a thread may sleep while operations are pending; see [`Devices::before_park`](crate::Devices::before_park).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Rest {
    /// Not at all: something may have ended, and [`Devices::poll`](crate::Devices::poll) is to be called first.
    LookFirst,
    /// At most so long, then it is to ask again. It is unparked before, if the device can tell.
    AtMost(Duration),
    /// As long as it likes: who waits is woken.
    Unlimited,
}

impl Rest {
    /// For somebody who looks on behalf of others, or where the device cannot tell.
    pub(crate) const SHORT: Rest = Rest::AtMost(Duration::from_micros(500));
    /// Where the device tells, unless it is lost.
    #[cfg(feature = "cuda")]
    pub(crate) const LONG: Rest = Rest::AtMost(Duration::from_millis(10));
}

/// Threads that sleep until a device is to be looked at.
#[derive(Default)]
pub(crate) struct Sleepers {
    threads: Mutex<Vec<Thread>>,
}

impl Sleepers {
    fn threads(&self) -> MutexGuard<'_, Vec<Thread>> {
        self.threads.lock().expect("nothing panics under this lock")
    }

    pub(crate) fn add(&self, thread: &Thread) {
        self.threads().push(thread.clone());
    }

    /// Takes a thread out that is awake; it may have been taken out.
    pub(crate) fn remove(&self, id: ThreadId) {
        let mut threads = self.threads();
        if let Some(place) = threads.iter().position(|thread| thread.id() == id) {
            threads.swap_remove(place);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.threads().is_empty()
    }

    /// Wakes one.
    pub(crate) fn wake_one(&self) {
        let thread = self.threads().pop();
        if let Some(thread) = thread {
            thread.unpark();
        }
    }
}

/// The operations of a set of devices that have not ended.
#[derive(Default)]
pub(crate) struct Pending {
    count: AtomicUsize,
    has_sleeper: AtomicBool,
    /// Who sleeps until the count is zero: one thread, the one that judges whether all is over.
    sleeper: Mutex<Option<Thread>>,
}

impl Pending {
    pub(crate) fn begin(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// One has ended, and its waiter has been woken.
    pub(crate) fn end(&self) {
        // Pairs with the load in `count`. And in one order with `ask_at_zero`: either it sees zero, or this sees the sleeper.
        let is_last = self.count.fetch_sub(1, Ordering::SeqCst) == 1;
        if is_last && self.has_sleeper.load(Ordering::SeqCst) {
            self.wake();
        }
    }

    /// How many have not ended. At zero, what their wakers did is visible.
    pub(crate) fn count(&self) -> usize {
        // Pairs with the release in `end`.
        self.count.load(Ordering::SeqCst)
    }

    /// Has a thread unparked at zero. False if it is zero already.
    pub(crate) fn ask_at_zero(&self, thread: &Thread) -> bool {
        *self.sleeper() = Some(thread.clone());
        self.has_sleeper.store(true, Ordering::SeqCst);
        self.count() > 0
    }

    #[cold]
    fn wake(&self) {
        self.has_sleeper.store(false, Ordering::SeqCst);
        let sleeper = self.sleeper().take();
        if let Some(thread) = sleeper {
            thread.unpark();
        }
    }

    fn sleeper(&self) -> MutexGuard<'_, Option<Thread>> {
        self.sleeper.lock().expect("nothing panics under this lock")
    }
}
