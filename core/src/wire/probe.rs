//! How the macros find out what a type can do: the arguments of entry methods need not be serialisable, so nothing is asked of
//! them by a bound.
//!
//! `(&&&&Of::<T>::new()).put(..)` is a method call, for which the compiler looks at fewer and fewer references: with most of them
//! [`AsEither`] is found, if it applies to `T`, then [`AsBulk`], [`AsSerde`], then [`AsNothing`], which applies to all. It is decided where the macro's
//! tokens stand, so a generic chare's own parameters count with the bounds that its `impl` block states.

// Users see none of this; each item says at its head what it is for.
#![allow(missing_docs, clippy::missing_errors_doc)]

use std::marker::PhantomData;

use bytemuck::Pod;
use serde::{Deserialize, Serialize};

use super::{Decoder, Encoder, Kind, Stays, WireError, kind};
use crate::chares::Chare;
use crate::entry::Entry;
use crate::ids::ChareId;
use crate::index::DenseIndex;
use crate::message::Msg;

/// Stands for a type.
pub struct Of<T>(PhantomData<fn() -> T>);

impl<T> Of<T> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Of(PhantomData)
    }
}

/// Vectors of plain memory that serde knows, too: they travel as they lie, unless they were a part of something larger.
pub trait AsEither {
    type Value;
    fn put(&self, value: Self::Value, to: &mut Encoder) -> Result<(), Stays>;
    fn take(&self, from: &mut Decoder<'_>) -> Result<Self::Value, WireError>;
}

impl<T: Pod + Serialize + Deserialize<'static>> AsEither for &&&Of<Vec<T>> {
    type Value = Vec<T>;
    fn put(&self, value: Vec<T>, to: &mut Encoder) -> Result<(), Stays> {
        to.has_plain = true;
        to.put_plain(value)
    }
    fn take(&self, from: &mut Decoder<'_>) -> Result<Vec<T>, WireError> {
        if from.is_by_serde { from.take() } else { from.take_plain() }
    }
}

/// Vectors of plain memory: they travel as they lie.
pub trait AsBulk {
    type Value;
    fn put(&self, value: Self::Value, to: &mut Encoder) -> Result<(), Stays>;
    fn take(&self, from: &mut Decoder<'_>) -> Result<Self::Value, WireError>;
}

impl<T: Pod> AsBulk for &&Of<Vec<T>> {
    type Value = Vec<T>;
    fn put(&self, value: Vec<T>, to: &mut Encoder) -> Result<(), Stays> {
        to.has_plain = true;
        to.put_plain(value)
    }
    fn take(&self, from: &mut Decoder<'_>) -> Result<Vec<T>, WireError> {
        from.take_plain()
    }
}

/// What serde can take apart.
pub trait AsSerde {
    type Value;
    fn put(&self, value: Self::Value, to: &mut Encoder) -> Result<(), Stays>;
    fn take(&self, from: &mut Decoder<'_>) -> Result<Self::Value, WireError>;
}

impl<T: Serialize + Deserialize<'static>> AsSerde for &Of<T> {
    type Value = T;
    #[inline]
    fn put(&self, value: T, to: &mut Encoder) -> Result<(), Stays> {
        to.put(&value)
    }
    #[inline]
    fn take(&self, from: &mut Decoder<'_>) -> Result<T, WireError> {
        from.take()
    }
}

/// All else, which stays in its process.
pub trait AsNothing {
    type Value;
    fn put(&self, value: Self::Value, to: &mut Encoder) -> Result<(), Stays>;
    fn take(&self, from: &mut Decoder<'_>) -> Result<Self::Value, WireError>;
}

impl<T> AsNothing for Of<T> {
    type Value = T;
    fn put(&self, value: T, _: &mut Encoder) -> Result<(), Stays> {
        drop(value);
        Err(Stays::of::<T>())
    }
    fn take(&self, _: &mut Decoder<'_>) -> Result<T, WireError> {
        Err(WireError::new(format!("`{}` is not sent between processes", std::any::type_name::<T>())))
    }
}

/// Chares whose type serde knows: they can move to another process.
pub trait StateBySerde {
    type Chare;
    fn put_state(&self, state: &Self::Chare, to: &mut Encoder) -> Result<(), Stays>;
    fn take_state(&self, from: &mut Decoder<'_>) -> Result<Self::Chare, WireError>;
}

impl<C: Serialize + Deserialize<'static>> StateBySerde for &Of<C> {
    type Chare = C;
    fn put_state(&self, state: &C, to: &mut Encoder) -> Result<(), Stays> {
        to.put(state)
    }
    fn take_state(&self, from: &mut Decoder<'_>) -> Result<C, WireError> {
        from.take()
    }
}

/// All others.
pub trait StateStays {
    type Chare;
    fn put_state(&self, state: &Self::Chare, to: &mut Encoder) -> Result<(), Stays>;
    fn take_state(&self, from: &mut Decoder<'_>) -> Result<Self::Chare, WireError>;
}

impl<C> StateStays for Of<C> {
    type Chare = C;
    fn put_state(&self, _: &C, _: &mut Encoder) -> Result<(), Stays> {
        Err(Stays::of_chare::<C>())
    }
    fn take_state(&self, _: &mut Decoder<'_>) -> Result<C, WireError> {
        Err(WireError::new(format!("`{}` does not move between processes", std::any::type_name::<C>())))
    }
}

/// Stands for an entry whose messages are to be decoded.
pub struct Decoders<E>(PhantomData<fn() -> E>);

impl<E> Decoders<E> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Decoders(PhantomData)
    }
}

/// Entries whose arguments can be cloned: there are broadcasts of them, too.
pub trait Broadcasts {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<E: Entry<Args: Clone>> Broadcasts for &Decoders<E> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_any::<E>(kind, to, from)
    }
}

/// All others.
pub trait CallsOnly {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<E: Entry> CallsOnly for Decoders<E> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_call::<E>(kind, to, from)
    }
}

/// Stands for a type of chare whose creations are to be decoded.
pub struct Makers<C>(PhantomData<fn() -> C>);

impl<C> Makers<C> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Makers(PhantomData)
    }
}

/// Chares of which there are dense arrays, or groups.
pub trait DenseArrays {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<C: Chare<Init: Clone, Index: DenseIndex>> DenseArrays for &&Makers<C> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_dense::<C>(kind, to, from)
    }
}

/// Chares of which there are sparse arrays only.
pub trait SparseArrays {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<C: Chare<Init: Clone>> SparseArrays for &Makers<C> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_many::<C>(kind, to, from)
    }
}

/// All others: each is made with arguments of its own.
pub trait SinglesOnly {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<C: Chare> SinglesOnly for Makers<C> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_single::<C>(kind, to, from)
    }
}
