//! Large read-only arguments: one allocation per process, however many chares get it.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A value that many chares may read and none may change; cloning it copies a pointer. For broadcasts of large
/// arguments, and for arrays: a value given by value passes through the stacks of its PEs, several copies of it where the
/// compiler does not optimise, so what is larger than some 100 KiB goes in a `Shared`, a `Vec` or a `Box`.
///
/// ```
/// use chare::Shared;
/// let table = Shared::new(vec![1.0; 1_000_000]);
/// let same = table.clone();
/// assert_eq!(same.len(), 1_000_000);
/// ```
pub struct Shared<T: ?Sized>(Arc<T>);

impl<T> Shared<T> {
    /// Shares a value.
    pub fn new(value: T) -> Self {
        Shared(Arc::new(value))
    }

    /// The value itself, if nobody else shares it.
    ///
    /// # Errors
    /// The shared value, if somebody does.
    pub fn try_unwrap(self) -> Result<T, Shared<T>> {
        Arc::try_unwrap(self.0).map_err(Shared)
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared(self.0.clone())
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Shared::new(value)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Serialize> Serialize for Shared<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Shared<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Shared::new)
    }
}
