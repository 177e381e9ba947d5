//! Plain memory in messages: never element by element.

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytemuck::{Pod, Zeroable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Beside, Decoder, Encoder, INLINE_BYTES, MOST_BUFFERS, Stays, WireError, side};

impl Encoder {
    /// Adds plain memory: short one to the header, other as it lies.
    pub(crate) fn put_plain<T: Contiguous>(&mut self, value: T) -> Result<(), Stays> {
        if size_of::<T::Value>() == 0 {
            return Err(Stays::new("values without a size are no plain memory"));
        }
        let (shape, values) = value.into_parts();
        self.put_parts(&shape, values);
        Ok(())
    }

    /// As `put_plain`, a copy of values that have a size.
    pub(super) fn put_copied<T: Contiguous>(&mut self, value: &T) {
        self.put_parts(&value.shape(), value.copied());
    }

    fn put_parts<T: Pod>(&mut self, shape: &impl Serialize, values: Vec<T>) {
        let is_beside = size_of_val(values.as_slice()) > INLINE_BYTES && self.buffers.len() < MOST_BUFFERS;
        self.put_own(&(shape, values.len() as u64, is_beside));
        if is_beside {
            self.buffers.push(values.into());
        } else {
            self.bytes.extend_from_slice(bytemuck::cast_slice(&values));
        }
    }
}

impl Decoder<'_> {
    /// Takes plain memory.
    pub(crate) fn take_plain<T: Contiguous>(&mut self) -> Result<T, WireError> {
        let (shape, count, is_beside): (T::Shape, u64, bool) = self.take()?;
        let size = size_of::<T::Value>();
        let bytes = usize::try_from(count).ok().and_then(|count| count.checked_mul(size));
        let bytes = bytes.ok_or_else(|| WireError::new(format!("{count} values fit in no memory")))?;
        let values = if is_beside {
            into_values(self.take_buffer()?, count)?
        } else {
            let taken = self.take_bytes(bytes)?;
            if size == 0 && count > 0 {
                return Err(WireError::new("values without a size are no plain memory"));
            }
            let mut values = vec![T::Value::zeroed(); count as usize];
            bytemuck::cast_slice_mut(&mut values).copy_from_slice(taken);
            values
        };
        T::from_parts(shape, values).ok_or_else(|| WireError::new(MISSHAPEN))
    }
}

const MISSHAPEN: &str = "its shape is not that of so many values";

/// A buffer as so many values.
fn into_values<T: Pod>(beside: Beside, count: u64) -> Result<Vec<T>, WireError> {
    let buffer = beside.into_host().ok_or_else(|| WireError::new("device memory stands for plain memory"))?;
    let len = buffer.len();
    let misfit = || WireError::new(format!("{count} values are announced, and {len} bytes came"));
    let memory = buffer.into_host().map_err(|_| misfit())?;
    let values = memory.into_vec::<T>().map_err(|_| misfit())?;
    if values.len() as u64 == count { Ok(values) } else { Err(misfit()) }
}

/// What is one piece of plain memory: a vector of plain values and, with the feature `ndarray`, an array of them.
///
/// As an argument or a value of an entry method it travels from the memory in which it lies, beside the message, and not element by element. As a part of
/// something larger it does so with [`bulk`](mod@bulk).
pub trait Contiguous: Sized + 'static + sealed::Sealed {
    /// An element.
    type Value: Pod;
    /// What is to be known besides the values.
    #[doc(hidden)]
    type Shape: Serialize + DeserializeOwned;
    #[doc(hidden)]
    fn shape(&self) -> Self::Shape;
    /// How many values there are.
    #[doc(hidden)]
    fn count(&self) -> usize;
    /// The values, in the order that goes with the shape.
    #[doc(hidden)]
    fn copied(&self) -> Vec<Self::Value>;
    /// The same, moved if they lie in that order.
    #[doc(hidden)]
    fn into_parts(self) -> (Self::Shape, Vec<Self::Value>);
    /// None if that is not the shape of so many values.
    #[doc(hidden)]
    fn from_parts(shape: Self::Shape, values: Vec<Self::Value>) -> Option<Self>;
}

pub(super) mod sealed {
    /// What is contiguous is known to this crate.
    pub trait Sealed {}
}

impl<T: Pod> sealed::Sealed for Vec<T> {}

impl<T: Pod> Contiguous for Vec<T> {
    type Value = T;
    type Shape = ();

    fn shape(&self) {}

    fn count(&self) -> usize {
        self.len()
    }

    fn copied(&self) -> Vec<T> {
        self.clone()
    }

    fn into_parts(self) -> ((), Vec<T>) {
        ((), self)
    }

    fn from_parts((): (), values: Vec<T>) -> Option<Self> {
        Some(values)
    }
}

/// For large fields of types that are sent, or that move with their chares: with `#[serde(with = "chare::bulk")]` a vector of plain values, or an array of
/// them, travels beside the message and not element by element. Arguments and values of entry methods that are nothing else need it not.
///
/// ```
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Patch {
///     level: u32,
///     #[serde(with = "chare::bulk")]
///     cells: Vec<f64>,
/// }
/// ```
///
/// Serialised by anything else than the runtime, to a file for instance, it is a sequence of bytes.
pub mod bulk {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Contiguous, INLINE_BYTES, MISSHAPEN, MOST_BUFFERS, Place, side};

    /// Puts a value in its place; what serde derives calls it.
    ///
    /// # Errors
    /// As the serializer says.
    pub fn serialize<T: Contiguous, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        let count = value.count();
        // A copy, as serde lends the value only.
        let is_beside = count * size_of::<T::Value>() > INLINE_BYTES
            && side::add_buffer(MOST_BUFFERS, || value.copied().into());
        let place = match is_beside {
            true => Place::Beside(count as u64),
            false => Place::Here(bytemuck::cast_slice(&value.copied()).to_vec()),
        };
        (value.shape(), place).serialize(serializer)
    }

    /// Takes a value from its place; what serde derives calls it.
    ///
    /// # Errors
    /// As the deserializer says, and if what has come is no such value.
    pub fn deserialize<'de, T: Contiguous, D: Deserializer<'de>>(deserializer: D) -> Result<T, D::Error> {
        let (shape, place) = <(T::Shape, Place)>::deserialize(deserializer)?;
        let values = place.into_values().map_err(D::Error::custom)?;
        T::from_parts(shape, values).ok_or_else(|| D::Error::custom(MISSHAPEN))
    }
}

/// A vector of plain values that travels beside the message, as with [`bulk`](mod@bulk), wherever it is a part of something.
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

impl Place {
    fn into_values<T: Pod>(self) -> Result<Vec<T>, WireError> {
        match self {
            Place::Here(bytes) => match bytes.len().checked_rem(size_of::<T>()) {
                Some(0) => {
                    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
                    bytemuck::cast_slice_mut(&mut values).copy_from_slice(&bytes);
                    Ok(values)
                }
                _ => Err(WireError::new(format!("{} bytes are no whole number of values", bytes.len()))),
            },
            Place::Beside(count) => {
                let buffer = side::take_buffer().ok_or_else(|| WireError::new("its buffer did not come"))?;
                into_values(buffer, count)
            }
        }
    }
}

impl<T: Pod> Serialize for Bulk<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        bulk::serialize(&self.0, serializer)
    }
}

impl<'de, T: Pod> Deserialize<'de> for Bulk<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        bulk::deserialize(deserializer).map(Bulk)
    }
}
