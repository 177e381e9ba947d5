//! Chares as user code sees them: the trait that `#[chare]` implements, and the two contexts, [`Cx`] and [`This`].
//!
//! A context is ids, never a pointer: it may be kept, sent and dropped anywhere, and finds its chare through the PE it
//! is used on.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::panic::Location;

use crate::callback::Callback;
use crate::cell::ChareRef;
use crate::channel::Channel;
use crate::condition::WaitUntil;
use crate::current;
use crate::entry::{Entry, EntryPoint};
use crate::ids::ChareId;
use crate::index::{DenseIndex, Index};
use crate::message::Msg;
use crate::proxy::{Array, Element, FromCallback, Group, SparseArray};
use crate::reduction::{self, AllReduce, Nop, Reducer};
use crate::runtime::Runtime;
use crate::table::CodeId;
use crate::wire::{Codec, Decoder, Encoder, Kind, Stays, Wire, WireError};

/// Where a type of chare stands in the user's source.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ChareInfo {
    /// The type.
    pub name: &'static str,
    /// The source file of its `#[chare]` block.
    pub file: &'static str,
    /// The line of that block.
    pub line: u32,
}

/// A type whose objects are chares. Implemented by `#[chare]`.
pub trait Chare: Sized + Send + 'static {
    /// The index of its elements: that of the array, or the PE's number in a group (`usize`).
    type Index: Index;
    /// The arguments of `new`: `()`, the one argument, or a tuple of them.
    type Init: Send + 'static;
    /// Its name and place.
    const INFO: &'static ChareInfo;
    /// Whether later calls still run after a panic in one.
    const KEEP_AFTER_PANIC: bool;
    /// What runs when an object has moved to another PE.
    #[doc(hidden)]
    const MIGRATED: Option<fn(&mut Self, &Cx<Self>)> = None;
    #[doc(hidden)]
    fn construct(start: crate::collection::Construct<'_, Self>);

    /// Its number in the table of the program, by which other processes know it.
    #[doc(hidden)]
    fn code() -> Option<CodeId>;
    #[doc(hidden)]
    fn encode_init(init: Self::Init, to: &mut Encoder) -> std::result::Result<(), Stays>;
    #[doc(hidden)]
    fn decode_init(from: &mut Decoder<'_>) -> std::result::Result<Self::Init, WireError>;
    /// How its indexes leave their process.
    #[doc(hidden)]
    fn index_codec() -> &'static Codec<Self::Index>;
    /// Its state, for its way to another process.
    #[doc(hidden)]
    fn encode_state(&self, to: &mut Encoder) -> std::result::Result<(), Stays>;
    #[doc(hidden)]
    fn decode_state(from: &mut Decoder<'_>) -> std::result::Result<Self, WireError>;
    /// A message of this kind.
    #[doc(hidden)]
    fn decode(kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> std::result::Result<Msg, WireError>;
}

/// Chares declared with an index: elements of arrays.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an array element",
    note = "give it an index: #[chare(index = usize)] or #[chare(index = (usize, usize, usize))]"
)]
pub trait ArrayElement: Chare {}

/// Chares declared without an index: singletons and members of groups.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is an array element, so it cannot be a singleton or a group member",
    note = "create it with `rt.array::<{Self}>(..)`, or leave `index` out of its #[chare]"
)]
pub trait Standalone: Chare<Index = usize> {}

/// The context of a running method: who it is, where it runs, and (through [`Runtime`], which it derefs to) what any
/// code on a PE can do.
pub struct Cx<C> {
    id: ChareId,
    runtime: Runtime,
    chare: PhantomData<fn() -> C>,
}

impl<C: Chare> Cx<C> {
    pub(crate) fn new(id: ChareId) -> Self {
        Cx { id, runtime: Runtime::here(), chare: PhantomData }
    }

    pub(crate) fn id(&self) -> ChareId {
        self.id
    }

    /// This chare's index: in its array, or its PE's number in a group; 0 for a singleton.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn index(&self) -> C::Index {
        current::on_pe("Cx::index", |pe| pe.index_of::<C>(self.id))
    }

    /// A proxy of this chare.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn this(&self) -> Element<C> {
        current::on_pe("Cx::this", |pe| Element::new(pe.run(), self.id, pe.index_of::<C>(self.id)))
    }

    /// Another element of this chare's dense array; `None` outside of it.
    ///
    /// # Panics
    /// As [`Cx::array`].
    #[track_caller]
    pub fn element(&self, index: C::Index) -> Option<Element<C>>
    where
        C: ArrayElement<Index: DenseIndex>,
    {
        self.array().try_at(index)
    }

    /// The dense array that this chare is an element of.
    ///
    /// # Panics
    /// On a thread that is not a PE, and in an element of a sparse array: that has [`Cx::sparse_array`].
    #[track_caller]
    pub fn array(&self) -> Array<C>
    where
        C: ArrayElement<Index: DenseIndex>,
    {
        let id = self.id.collection;
        let array = current::on_pe("Cx::array", |pe| {
            pe.extents_of::<C>(id).map(|extents| Array::new(pe.run(), id, extents))
        });
        array.expect("this element's array is sparse: use `cx.sparse_array()`")
    }

    /// The sparse array that this chare is an element of.
    ///
    /// # Panics
    /// On a thread that is not a PE, and in an element of a dense array: that has [`Cx::array`].
    #[track_caller]
    pub fn sparse_array(&self) -> SparseArray<C>
    where
        C: ArrayElement,
    {
        let id = self.id.collection;
        let array = current::on_pe("Cx::sparse_array", |pe| {
            pe.extents_of::<C>(id).is_none().then(|| SparseArray::new(pe.run(), id))
        });
        array.expect("this element's array is dense: use `cx.array()`")
    }

    /// The group that this chare is a member of; `None` for a singleton.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn group(&self) -> Option<Group<C>>
    where
        C: Standalone,
    {
        let id = self.id.collection;
        current::on_pe("Cx::group", |pe| id.single_home().is_none().then(|| Group::new(pe.run(), id)))
    }

    /// A callback to an entry of this chare that takes the value as its one argument, or the parts of a tuple as two to
    /// six (none, for `()`).
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn callback<E, T>(&self, entry: EntryPoint<E>) -> Callback<T>
    where
        E: Entry<Chare = C>,
        E::Args: FromCallback<T>,
        T: Send + 'static,
    {
        self.this().callback(entry)
    }

    /// The channel to `peer` with this tag: values of type `T`, in order, both ways. Opening it again is the same
    /// channel. The peer opens its end with this chare and the same tag; either end may be first.
    ///
    /// If `peer` is outside of its array, receiving brings [`crate::ChannelError::Peer`], and sending ends the job with a
    /// report, as a call does that nobody awaits.
    ///
    /// If `peer` is destroyed, or its constructor fails, what it has sent can still be received, in order; then receiving
    /// brings [`crate::ChannelError::Peer`]. An element of a sparse array that is inserted again is another chare: its channels
    /// are fresh, and what waited in its old ones is lost. A chare that stays goes on with it in the same channel: first it
    /// receives what it has not yet received from the earlier element, then what the later one sends, whether or not it was told
    /// of the end between. Who has received all and opens the channel again waits for the later one. What is sent before news
    /// of the end has come may be an error that nobody awaits, as a call would be; after quiescence it has come.
    ///
    /// # Panics
    /// Outside of this chare's own methods and constructor, and if this end is open already for another type of value.
    #[track_caller]
    pub fn channel<T: Wire, D: Chare>(&self, peer: &Element<D>, tag: u64) -> Channel<T> {
        Channel::open(self.id, peer, tag)
    }

    /// Contributes to the next reduction of this chare's collection: the `k`-th contribution of each element belongs to
    /// the `k`-th reduction. The reduced value goes to `target` once, after all elements have contributed. Returns at
    /// once. [`reduction`](crate::reduction) lists the reducers.
    ///
    /// Elements usually give the same target. If they do not, that of the element with the lowest index (in row-major
    /// order; in a group, the lowest PE) gets the result, whoever contributes first. The others are dropped: promises
    /// among them break ([`crate::CallError::BrokenPromise`]), entries are not called.
    ///
    /// # Panics
    /// In a singleton, which has no collection to reduce over, and outside of this chare's own methods and constructor.
    #[track_caller]
    pub fn contribute<T, R>(&self, value: T, reducer: R, target: impl Into<Callback<R::Output>>)
    where
        T: Send + 'static,
        R: Reducer<T>,
    {
        reduction::contribute(self.id, value, reducer, target.into());
    }

    /// Contributes like [`Cx::contribute`]; every element gets the reduced value.
    ///
    /// # Panics
    /// As [`Cx::contribute`].
    #[track_caller]
    pub fn allreduce<T, R>(&self, value: T, reducer: R) -> AllReduce<R::Output>
    where
        T: Send + 'static,
        R: Reducer<T>,
        R::Output: Clone,
    {
        reduction::allreduce(self.id, value, reducer, Location::caller())
    }

    /// Waits until every element of this chare's collection has come to its barrier.
    ///
    /// # Panics
    /// As [`Cx::contribute`].
    #[track_caller]
    pub fn barrier(&self) -> AllReduce<()> {
        self.allreduce((), Nop)
    }

    /// The chare itself.
    ///
    /// # Panics
    /// Outside of its own methods.
    #[track_caller]
    pub(crate) fn chare(&self, what: &str) -> ChareRef {
        let running =
            current::on_pe(what, |pe| pe.running().filter(|running| pe.find(self.id) == Some(*running)));
        let Some(chare) = running else {
            panic!("this works in the chare's own methods only, and {} is not running here", C::INFO.name)
        };
        chare
    }
}

impl<C> Clone for Cx<C> {
    fn clone(&self) -> Self {
        Cx { id: self.id, runtime: self.runtime.clone(), chare: PhantomData }
    }
}

impl<C> Deref for Cx<C> {
    type Target = Runtime;
    fn deref(&self) -> &Runtime {
        &self.runtime
    }
}

impl<C: Chare> fmt::Debug for Cx<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cx<{}>({:?})", C::INFO.name, self.id.element)
    }
}

/// The context of an interleaving coroutine. The chare's state is touched inside [`This::with`] only, so no borrow of it
/// lives across an `.await`, and other methods run while the coroutine waits. Derefs to [`Cx`].
pub struct This<C>(Cx<C>);

impl<C: Chare> This<C> {
    pub(crate) fn new(id: ChareId) -> Self {
        This(Cx::new(id))
    }

    /// Calls `f` with the chare's state.
    ///
    /// # Panics
    /// If called inside another `with` of the same chare, while an exclusive coroutine owns the chare, after a panic has
    /// poisoned the chare, or outside of this chare's own methods.
    #[track_caller]
    pub fn with<R>(&self, f: impl FnOnce(&mut C) -> R) -> R {
        self.chare("This::with").with(f)
    }

    /// As `with`, for looking only: does not make conditions be checked again.
    pub(crate) fn look<R>(&self, f: impl FnOnce(&C) -> R) -> R {
        self.chare("This::wait_until").look(|state: &mut C| f(state))
    }

    /// Waits until `condition` holds. It is looked at now, and again after every step that may have changed the state;
    /// those who began to wait earlier look first.
    #[track_caller]
    pub fn wait_until<F: Fn(&C) -> bool + Unpin>(&self, condition: F) -> WaitUntil<'_, C, F> {
        WaitUntil::new(self, condition, Location::caller())
    }
}

impl<C> Clone for This<C> {
    fn clone(&self) -> Self {
        This(self.0.clone())
    }
}

impl<C> Deref for This<C> {
    type Target = Cx<C>;
    fn deref(&self) -> &Cx<C> {
        &self.0
    }
}

impl<C: Chare> fmt::Debug for This<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "This<{}>({:?})", C::INFO.name, self.0.id.element)
    }
}
