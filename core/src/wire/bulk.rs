//! Plain memory in messages: never element by element.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytemuck::Pod;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Beside, Decoder, Encoder, INLINE_BYTES, MOST_BUFFERS, Stays, WireError, side};

impl Encoder {
    /// Adds plain memory: short ones to the header, the others as they lie.
    pub(crate) fn put_plain<T: Pod>(&mut self, values: Vec<T>) -> Result<(), Stays> {
        if size_of::<T>() == 0 {
            return Err(Stays::new("values without a size are no plain memory"));
        }
        let is_beside = size_of_val(values.as_slice()) > INLINE_BYTES && self.buffers.len() < MOST_BUFFERS;
        self.put_own(&(values.len() as u64, is_beside));
        if is_beside {
            self.buffers.push(values.into());
        } else {
            self.bytes.extend_from_slice(bytemuck::cast_slice(&values));
        }
        Ok(())
    }
}

impl Decoder<'_> {
    /// Takes plain memory.
    pub(crate) fn take_plain<T: Pod>(&mut self) -> Result<Vec<T>, WireError> {
        let (count, is_beside): (u64, bool) = self.take()?;
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(size_of::<T>()));
        let bytes = bytes.ok_or_else(|| WireError::new(format!("{count} values fit in no memory")))?;
        if !is_beside {
            let taken = self.take_bytes(bytes)?;
            if size_of::<T>() == 0 && count > 0 {
                return Err(WireError::new("values without a size are no plain memory"));
            }
            let mut values = vec![T::zeroed(); count as usize];
            bytemuck::cast_slice_mut(&mut values).copy_from_slice(taken);
            return Ok(values);
        }
        into_values(self.take_buffer()?, count)
    }
}

/// A buffer as so many values.
fn into_values<T: Pod>(beside: Beside, count: u64) -> Result<Vec<T>, WireError> {
    let buffer = beside.into_host().ok_or_else(|| WireError::new("device memory stands for plain memory"))?;
    let len = buffer.len();
    let misfit = || WireError::new(format!("{count} values are announced, and {len} bytes came"));
    let memory = buffer.into_host().map_err(|_| misfit())?;
    let values = memory.into_vec::<T>().map_err(|_| misfit())?;
    if values.len() as u64 == count { Ok(values) } else { Err(misfit()) }
}

/// A vector of plain values that travels beside the message, from the memory in which it lies, and not element by element. For
/// large fields of types that are sent; arguments of entry methods that are a `Vec` of plain values need it not.
///
/// ```
/// use chare::Bulk;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Patch {
///     level: u32,
///     cells: Bulk<f64>,
/// }
///
/// let mut patch = Patch { level: 3, cells: vec![0.0; 1_000_000].into() };
/// patch.cells[7] = 1.5;
/// ```
///
/// Serialised by anything else than the runtime, to a file for instance, it is a sequence of bytes.
#[derive(Clone, Default, PartialEq)]
pub struct Bulk<T>(Vec<T>);

impl<T> Bulk<T> {
    /// The vector itself.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T> From<Vec<T>> for Bulk<T> {
    fn from(values: Vec<T>) -> Self {
        Bulk(values)
    }
}

impl<T> Deref for Bulk<T> {
    type Target = Vec<T>;
    fn deref(&self) -> &Vec<T> {
        &self.0
    }
}

impl<T> DerefMut for Bulk<T> {
    fn deref_mut(&mut self) -> &mut Vec<T> {
        &mut self.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Bulk<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What stands in the place of the values.
#[derive(Serialize, Deserialize)]
enum Place {
    /// The bytes themselves.
    Here(Vec<u8>),
    /// The next buffer, of so many values.
    Beside(u64),
}

impl<T: Pod> Serialize for Bulk<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: &[u8] = bytemuck::cast_slice(&self.0);
        // A copy, as serde lends the value only.
        let is_beside =
            bytes.len() > INLINE_BYTES && side::add_buffer(MOST_BUFFERS, || self.0.clone().into());
        let place = if is_beside { Place::Beside(self.0.len() as u64) } else { Place::Here(bytes.to_vec()) };
        place.serialize(serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Bulk<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        match Place::deserialize(deserializer)? {
            Place::Here(bytes) => match bytes.len().checked_rem(size_of::<T>()) {
                Some(0) => {
                    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
                    bytemuck::cast_slice_mut(&mut values).copy_from_slice(&bytes);
                    Ok(Bulk(values))
                }
                _ => Err(D::Error::custom(format!("{} bytes are no whole number of values", bytes.len()))),
            },
            Place::Beside(count) => {
                let buffer =
                    side::take_buffer().ok_or_else(|| D::Error::custom("its buffer did not come"))?;
                into_values(buffer, count).map(Bulk).map_err(D::Error::custom)
            }
        }
    }
}
