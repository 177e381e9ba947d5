//! How the values of a type leave their process and come into one, as a value.
//!
//! Outcomes are handled by code that knows their type, and not which entry brings them: so it is compiled once for each type of outcome,
//! however many entries have it.

use std::any::{TypeId, type_name};

use serde::{Deserialize, Serialize};

use super::{Contiguous, Decoder, Encoder, Stays, Wire, WireError};
use crate::answer::{Deposit, deposit_encoded};
use crate::scheduler::pe::Pe;

/// Takes a value apart for its way to another process.
pub(crate) type Encode<T> = fn(T, &mut Encoder) -> Result<(), Stays>;

/// How values of a type leave a process and come into one.
pub struct Codec<T: 'static> {
    pub(crate) encode: Encode<T>,
    pub(crate) decode: fn(&mut Decoder<'_>) -> Result<T, WireError>,
    /// Brings an encoded value to the cell that waits for it.
    pub(crate) deposit: Deposit,
    of_promises: fn() -> &'static Codec<T>,
}

/// A way of doing it.
pub trait Way<T>: 'static {
    /// That of values of promises: there is one for each type, since ends of one promise leave in arguments, where serde calls, and as what a call
    /// answers to, where it does not.
    type OfPromises: Way<T>;
    fn encode(value: T, to: &mut Encoder) -> Result<(), Stays>;
    fn decode(from: &mut Decoder<'_>) -> Result<T, WireError>;
}

impl<T: Send + 'static> Codec<T> {
    pub(crate) const fn by<W: Way<T>>() -> &'static Codec<T> {
        const {
            &Codec {
                encode: W::encode,
                decode: W::decode,
                deposit: deposit_encoded::<T, W>,
                of_promises: Codec::<T>::by::<W::OfPromises>,
            }
        }
    }

    /// As serde says.
    pub(crate) const fn by_serde() -> &'static Codec<T>
    where
        T: Wire,
    {
        Self::by::<BySerde>()
    }
}

impl<T: 'static> Codec<T> {
    /// Of values of promises of this type.
    pub(crate) fn of_promises(&self) -> &'static Codec<T> {
        (self.of_promises)()
    }

    /// Not at all.
    pub(crate) const fn nowhere() -> &'static Codec<T> {
        const {
            &Codec {
                encode: Nowhere::encode,
                decode: Nowhere::decode,
                deposit: deposit_nowhere::<T>,
                of_promises: Codec::<T>::nowhere,
            }
        }
    }
}

fn deposit_nowhere<T>(_: &Pe, _: u64, _: u64, from: &mut Decoder<'_>) -> Result<(), WireError> {
    Nowhere::decode(from).map(drop::<T>)
}

/// As serde says.
pub struct BySerde;

impl<T: Serialize + Deserialize<'static> + 'static> Way<T> for BySerde {
    type OfPromises = BySerde;

    #[inline]
    fn encode(value: T, to: &mut Encoder) -> Result<(), Stays> {
        if is_number::<T>() { to.put_alone(&value) } else { to.put(&value) }
    }

    #[inline]
    fn decode(from: &mut Decoder<'_>) -> Result<T, WireError> {
        if is_number::<T>() { from.take_alone() } else { from.take_value() }
    }
}

/// Whether values of a type are numbers of the language's, beside which nothing stands. Known when the program is compiled.
#[inline(always)]
fn is_number<T: 'static>() -> bool {
    macro_rules! is_one_of {
        ($($number:ty)*) => { $(TypeId::of::<T>() == TypeId::of::<$number>())||* };
    }
    is_one_of!(u8 u16 u32 u64 usize i8 i16 i32 i64 isize f32 f64 bool char)
}

/// As plain memory lies.
pub struct AsItLies;

impl<T: Contiguous> Way<T> for AsItLies {
    type OfPromises = AsItLies;

    fn encode(value: T, to: &mut Encoder) -> Result<(), Stays> {
        to.has_plain = true;
        to.put_plain(value)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<T, WireError> {
        from.take_plain()
    }
}

/// As plain memory lies, unless it was a part of something larger.
pub struct Either;

impl<T: Contiguous + Serialize + Deserialize<'static>> Way<T> for Either {
    type OfPromises = BySerde;

    fn encode(value: T, to: &mut Encoder) -> Result<(), Stays> {
        AsItLies::encode(value, to)
    }

    fn decode(from: &mut Decoder<'_>) -> Result<T, WireError> {
        if from.is_by_serde { from.take_value() } else { from.take_plain() }
    }
}

/// Not at all: the value stays in its process.
pub struct Nowhere;

impl<T> Way<T> for Nowhere {
    type OfPromises = Nowhere;

    fn encode(value: T, _: &mut Encoder) -> Result<(), Stays> {
        drop(value);
        Err(Stays::of::<T>())
    }

    fn decode(_: &mut Decoder<'_>) -> Result<T, WireError> {
        Err(WireError::stays(&format!("`{}`", type_name::<T>())))
    }
}
