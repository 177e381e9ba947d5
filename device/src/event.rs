//! Events: the name of one submitted operation, by which later operations wait for it.
//!
//! A stream and every buffer remember the events that the next operation must come after. An event is a
//! number, never a pointer: remembering one keeps nothing alive, and one that its backend no longer knows has
//! finished.

use std::sync::Mutex;

/// One submitted operation. Events of one set of devices are numbered in the order of submission; those of two sets
/// have the same numbers, so no operation uses a buffer of another set (`Account::submit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Event(pub(crate) u64);

/// The operations that the next user of a buffer must come after.
#[derive(Debug, Default)]
pub(crate) struct BufferEvents {
    /// The last operation that writes the buffer.
    pub(crate) last_write: Option<Event>,
    /// Operations that read it since then.
    pub(crate) reads: Vec<Event>,
}

/// Operations that run one after the other, in the order of submission.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// The operation submitted last.
    pub(crate) last: Mutex<Option<Event>>,
}
