//! How the macros find out what a type can do: the arguments of entry methods need not be serialisable, so nothing is asked of
//! them by a bound.
//!
//! `(&&&&Of::<T>::new()).put(..)` is a method call, for which the compiler looks at fewer and fewer references: with most of them
//! [`AsEither`] is found, if it applies to `T`, then [`AsBulk`], [`AsSerde`], then [`AsNothing`], which applies to all. It is decided where the macro's
//! tokens stand, so a generic chare's own parameters count with the bounds that its `impl` block states.

// Users see none of this; each item says at its head what it is for.
#![allow(missing_docs, clippy::missing_errors_doc)]

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};

use super::codec::{AsItLies, BySerde, Either, Nowhere};
use super::{Codec, Contiguous, Decoder, Encoder, Kind, Stays, Way, WireError, kind};
use crate::broadcast::Copies;
use crate::chares::{ArrayElement, Chare, Standalone};
use crate::entry::Entry;
use crate::ids::ChareId;
use crate::index::DenseIndex;
use crate::message::Msg;
use crate::remote::{Apply, Function, Remote, Site};

/// Stands for a type.
pub struct Of<T>(PhantomData<fn() -> T>);

impl<T> Of<T> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Of(PhantomData)
    }

    /// For what a remote function returns.
    pub const fn returned<C: Chare, A>(_: &Function<C, A, T>) -> Self {
        Of(PhantomData)
    }
}

/// Plain memory that serde knows, too: it travels as it lies, unless it was a part of something larger.
pub trait AsEither {
    type Value: Send + 'static;
    fn way(&self) -> Either {
        Either
    }
    fn codec(&self) -> &'static Codec<Self::Value>;
    fn put(&self, value: Self::Value, to: &mut Encoder) -> Result<(), Stays>;
    fn take(&self, from: &mut Decoder<'_>) -> Result<Self::Value, WireError>;
}

impl<T: Contiguous + Send + Serialize + Deserialize<'static>> AsEither for &&&Of<T> {
    type Value = T;
    fn codec(&self) -> &'static Codec<T> {
        Codec::by::<Either>()
    }
    fn put(&self, value: T, to: &mut Encoder) -> Result<(), Stays> {
        Either::encode(value, to)
    }
    fn take(&self, from: &mut Decoder<'_>) -> Result<T, WireError> {
        Either::decode(from)
    }
}

/// Plain memory: it travels as it lies.
pub trait AsBulk {
    type Value: Send + 'static;
    fn way(&self) -> AsItLies {
        AsItLies
    }
    fn codec(&self) -> &'static Codec<Self::Value>;
    fn put(&self, value: Self::Value, to: &mut Encoder) -> Result<(), Stays>;
    fn take(&self, from: &mut Decoder<'_>) -> Result<Self::Value, WireError>;
}

impl<T: Contiguous + Send> AsBulk for &&Of<T> {
    type Value = T;
    fn codec(&self) -> &'static Codec<T> {
        Codec::by::<AsItLies>()
    }
    fn put(&self, value: T, to: &mut Encoder) -> Result<(), Stays> {
        AsItLies::encode(value, to)
    }
    fn take(&self, from: &mut Decoder<'_>) -> Result<T, WireError> {
        AsItLies::decode(from)
    }
}

/// What serde can take apart.
pub trait AsSerde {
    type Value: Send + 'static;
    fn way(&self) -> BySerde {
        BySerde
    }
    fn codec(&self) -> &'static Codec<Self::Value>;
    fn put(&self, value: Self::Value, to: &mut Encoder) -> Result<(), Stays>;
    fn take(&self, from: &mut Decoder<'_>) -> Result<Self::Value, WireError>;
}

impl<T: Send + Serialize + Deserialize<'static> + 'static> AsSerde for &Of<T> {
    type Value = T;
    fn codec(&self) -> &'static Codec<T> {
        Codec::by::<BySerde>()
    }
    fn put(&self, value: T, to: &mut Encoder) -> Result<(), Stays> {
        BySerde::encode(value, to)
    }
    fn take(&self, from: &mut Decoder<'_>) -> Result<T, WireError> {
        BySerde::decode(from)
    }
}

/// All else, which stays in its process.
pub trait AsNothing {
    type Value;
    fn way(&self) -> Nowhere {
        Nowhere
    }
    fn codec(&self) -> &'static Codec<Self::Value>
    where
        Self::Value: 'static;
    fn put(&self, value: Self::Value, to: &mut Encoder) -> Result<(), Stays>;
    fn take(&self, from: &mut Decoder<'_>) -> Result<Self::Value, WireError>;
}

impl<T> AsNothing for Of<T> {
    type Value = T;
    fn codec(&self) -> &'static Codec<T>
    where
        T: 'static,
    {
        Codec::nowhere()
    }
    fn put(&self, value: T, to: &mut Encoder) -> Result<(), Stays> {
        Nowhere::encode(value, to)
    }
    fn take(&self, from: &mut Decoder<'_>) -> Result<T, WireError> {
        Nowhere::decode(from)
    }
}

/// Chares whose type serde knows: they can move to another process.
pub trait StateBySerde {
    type Chare;
    fn put_state(&self, state: &Self::Chare, to: &mut Encoder) -> Result<(), Stays>;
    fn take_state(&self, from: &mut Decoder<'_>) -> Result<Self::Chare, WireError>;
}

impl<C: Serialize + Deserialize<'static> + 'static> StateBySerde for &Of<C> {
    type Chare = C;
    fn put_state(&self, state: &C, to: &mut Encoder) -> Result<(), Stays> {
        to.put(state)
    }
    fn take_state(&self, from: &mut Decoder<'_>) -> Result<C, WireError> {
        from.take_value()
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

/// Stands for an entry, of which there may be broadcasts.
pub struct CallsOf<E>(PhantomData<fn() -> E>);

impl<E> CallsOf<E> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        CallsOf(PhantomData)
    }
}

impl<P: Site, C: Chare, A, R> CallsOf<Apply<P, C, A, R>> {
    /// For calls of a remote function.
    pub const fn remote(_: &Remote<P, C, A, R>) -> Self {
        CallsOf(PhantomData)
    }
}

/// Entries whose arguments can be cloned: there are broadcasts of them, too.
pub trait Broadcasts {
    fn copies(&self) -> Option<&'static Copies>;
}

impl<E: Entry<Args: Clone>> Broadcasts for &CallsOf<E> {
    fn copies(&self) -> Option<&'static Copies> {
        Some(Copies::of::<E>())
    }
}

/// All others.
pub trait CallsOnly {
    fn copies(&self) -> Option<&'static Copies>;
}

impl<E: Entry> CallsOnly for CallsOf<E> {
    fn copies(&self) -> Option<&'static Copies> {
        None
    }
}

/// Stands for a type of chare without an index whose creations are to be decoded.
pub struct Alone<C>(PhantomData<fn() -> C>);

impl<C> Alone<C> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Alone(PhantomData)
    }
}

/// Chares of which there are groups.
pub trait Groups {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<C: Standalone<Init: Clone>> Groups for &Alone<C> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_group::<C>(kind, to, from)
    }
}

/// All others: each is made with arguments of its own.
pub trait SinglesOnly {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<C: Standalone> SinglesOnly for Alone<C> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_single::<C>(kind, to, from)
    }
}

/// Stands for a type of chare with an index whose creations are to be decoded.
pub struct Elements<C>(PhantomData<fn() -> C>);

impl<C> Elements<C> {
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        Elements(PhantomData)
    }
}

/// Chares of which there are dense arrays.
pub trait DenseArrays {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<C: ArrayElement<Init: Clone, Index: DenseIndex>> DenseArrays for &&Elements<C> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_dense::<C>(kind, to, from)
    }
}

/// Chares of which there are sparse arrays only.
pub trait SparseArrays {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<C: ArrayElement<Init: Clone>> SparseArrays for &Elements<C> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_sparse::<C>(kind, to, from)
    }
}

/// All others: each is inserted with arguments of its own.
pub trait InsertedOnly {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError>;
}

impl<C: ArrayElement> InsertedOnly for Elements<C> {
    fn decode(&self, kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        kind::decode_inserted::<C>(kind, to, from)
    }
}

/// All of the traits, for the macros' tokens.
pub mod ways {
    pub use super::{
        AsBulk as _, AsEither as _, AsNothing as _, AsSerde as _, Broadcasts as _, CallsOnly as _,
        DenseArrays as _, Groups as _, InsertedOnly as _, SinglesOnly as _, SparseArrays as _,
        StateBySerde as _, StateStays as _,
    };
}
