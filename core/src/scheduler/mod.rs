//! The scheduler: one loop per PE over its own run queue, fed by an inbox. `README.md` here argues why the inbox and
//! the sleeping are right.

pub(crate) mod block;
pub(crate) mod inbox;
pub(crate) mod interest;
pub(crate) mod pe;
pub(crate) mod prefetch;
pub(crate) mod queue;
pub(crate) mod slots;
pub(crate) mod sync;
pub(crate) mod task;
pub(crate) mod thread;
pub(crate) mod timer;
pub(crate) mod waker;

#[cfg(all(test, loom))]
mod loom_tests;
#[cfg(all(test, not(loom)))]
pub(crate) mod model;
