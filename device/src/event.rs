//! Events: the name of one submitted operation, by which later operations wait for it.
//!
//! A stream and every buffer remember the events that the next operation must come after. An event is a
//! number, never a pointer: remembering one keeps nothing alive, and one that its backend no longer knows has
//! finished.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex};

use crate::backend::Backend;

/// One submitted operation. Events of one set of devices are numbered in the order of submission; those of two sets
/// have the same numbers, so no operation uses a buffer of another set (`Account::submit`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Event(pub(crate) u64);

/// Operations that have not ended, by event. Allocates nothing while their number stays below what it has been.
pub(crate) type LiveMap<T> = HashMap<Event, T, BuildHasherDefault<EventHasher>>;

/// Spreads consecutive numbers.
#[derive(Default)]
pub(crate) struct EventHasher(u64);

impl Hasher for EventHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(u64::from(byte)));
    }

    fn write_u64(&mut self, number: u64) {
        // The golden ratio's bits. The high half of the product depends on all of the number, and goes where the place is read.
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(32);
    }
}

/// The operations that the next user of a buffer must come after.
#[derive(Debug, Default)]
pub(crate) struct BufferEvents {
    /// The last operation that writes the buffer.
    pub(crate) last_write: Option<Event>,
    /// Operations that read it since then.
    pub(crate) reads: Vec<Event>,
}

/// Names a stream of a device. What the word means is its backend's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StreamKey(pub(crate) u64);

/// Operations that run one after the other, in the order of submission.
pub(crate) struct Stream {
    backend: Arc<dyn Backend>,
    key: StreamKey,
    /// The operation submitted last.
    pub(crate) last: Mutex<Option<Event>>,
}

impl Stream {
    /// A new one on a device of this backend. What is ready on an urgent one goes before what is ready on others.
    pub(crate) fn open(backend: &Arc<dyn Backend>, device: usize, is_urgent: bool) -> Arc<Self> {
        let key = backend.open_stream(device, is_urgent);
        Arc::new(Stream { backend: backend.clone(), key, last: Mutex::default() })
    }

    pub(crate) fn key(&self) -> StreamKey {
        self.key
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.backend.close_stream(self.key);
    }
}
