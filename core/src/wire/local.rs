//! Values that stay in their process.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that never leaves its process, for what wants a [`Wire`](super::Wire) type: channels and reductions of chares that always
/// share a process, in groups of one host or in programs that are never run with several. Sending it to another process is an error of the send; so it is where
/// a PE has not been told yet where an element is, and that one's home, by way of which it goes then, is in another process.
///
/// ```
/// use chare::Local;
///
/// let done = Local(std::sync::mpsc::channel::<u32>().0);
/// assert!(done.send(1).is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Local<T>(pub T);

impl<T> Deref for Local<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> DerefMut for Local<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T> Serialize for Local<T> {
    /// # Errors
    /// Always.
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it is `chare::Local`, which stays in its process"))
    }
}

impl<'de, T> Deserialize<'de> for Local<T> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("a `chare::Local` stays in its process"))
    }
}
