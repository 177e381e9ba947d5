//! Entry methods: what `#[entry]` generates against, and how one invocation runs on a chare.
//!
//! An entry is a type; its call carries the arguments by value. [`Delivery`] is one invocation whose chare is idle, and
//! its methods are the kinds of entry: a plain method, an exclusive coroutine, an interleaving one, and these two where
//! they can be started again. Each catches panics and answers the [`Reply`] exactly once.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use crate::broadcast::Copies;
use crate::caught::{self, Caught, PanicPayload};
use crate::cell::{ChareRef, Exclusive, State};
use crate::chares::{Chare, Cx, This};
use crate::condition;
use crate::condition::line::Always;
use crate::condition::when::{self, Ruling, When};
use crate::error::{BoxError, CallError, Failed, Panicked};
use crate::ids::ChareId;
use crate::message::{Msg, Name, Payload};
use crate::migration::across;
use crate::priority::Rank;
use crate::process::lock;
use crate::reply::Reply;
use crate::restart::{Restart, Restartable};
use crate::scheduler::pe::Pe;
use crate::scheduler::task::{self, Mode};
use crate::table::CodeId;
use crate::wire::{Codec, Decoder, Encoder, Kind, Leaves, Stays, WireError};

/// Where an entry method stands in the user's source.
#[derive(Debug, PartialEq, Eq, Hash, serde::Serialize)]
pub struct EntryInfo {
    /// The type of the chare.
    pub chare: &'static str,
    /// The method.
    pub name: &'static str,
    /// The source file.
    pub file: &'static str,
    /// The line of the method.
    pub line: u32,
}

/// How reports and profiles name what the runtime does for a chare: as if it were an entry method.
pub(crate) struct EntryOf<C>(PhantomData<C>);

impl<C: Chare> EntryOf<C> {
    pub(crate) const NEW: &'static EntryInfo = &Self::named("new");
    pub(crate) const INDEX: &'static EntryInfo = &Self::named("the index of its array");
    pub(crate) const MAP: &'static EntryInfo = &Self::named("the map of its array");
    pub(crate) const LOCAL: &'static EntryInfo = &Self::named("local");
    pub(crate) const MIGRATE: &'static EntryInfo = &Self::named("migrate");
    pub(crate) const MIGRATED: &'static EntryInfo = &Self::named("migrated");
    pub(crate) const DESTROY: &'static EntryInfo = &Self::named("destroy");
    pub(crate) const DROP: &'static EntryInfo = &Self::named("drop");

    const fn named(name: &'static str) -> EntryInfo {
        EntryInfo { chare: C::INFO.name, name, file: C::INFO.file, line: C::INFO.line }
    }
}

/// One entry method of one type of chare. Implemented by `#[chare]`.
pub trait Entry: Sized + 'static {
    /// The chare that it belongs to.
    type Chare: Chare;
    /// Its arguments, as a tuple.
    type Args: Send + 'static;
    /// What a call brings: the method's value, or that of its `Result`.
    type Output: Send + 'static;
    /// Its name and place.
    const INFO: &'static EntryInfo;
    /// The rank of calls that say nothing of it.
    #[doc(hidden)]
    const RANK: Rank = Rank::Normal;
    /// Where calls run.
    #[doc(hidden)]
    const RUNS: Runs = Runs::ByMessage;
    /// Whether its coroutines can be started again.
    #[doc(hidden)]
    const IS_RESTARTABLE: bool = false;
    /// How many guards a call has.
    #[doc(hidden)]
    const GUARDS: u32 = 0;
    /// What has to hold for a call to run.
    #[doc(hidden)]
    fn when() -> impl When<Self> {
        Always
    }
    #[doc(hidden)]
    fn deliver(delivery: Delivery<'_, Self>);
    /// The message of a call of one chare.
    #[doc(hidden)]
    #[inline(always)]
    fn message(to: ChareId, reply: Reply, args: Self::Args) -> Msg {
        Msg::new(to, reply, Invoke::<Self>(args))
    }

    /// Its number in the table of the program, by which other processes know it.
    #[doc(hidden)]
    fn code() -> Option<CodeId> {
        None
    }
    #[doc(hidden)]
    fn encode_args(args: Self::Args, _: &mut Encoder) -> Result<(), Stays> {
        drop(args);
        Err(Stays::of::<Self::Args>())
    }
    #[doc(hidden)]
    fn decode_args(_: &mut Decoder<'_>) -> Result<Self::Args, WireError> {
        Err(WireError::stays(Self::INFO.name))
    }
    /// How its values leave their process.
    #[doc(hidden)]
    fn output() -> &'static Codec<Self::Output> {
        Codec::nowhere()
    }
    /// What broadcasts of it do, if its arguments can be cloned.
    #[doc(hidden)]
    fn copies() -> Option<&'static Copies> {
        None
    }
}

/// Where a call of an entry runs.
pub enum Runs {
    /// In a step of its own, which a message brings.
    ByMessage,
    /// On the stack of its caller, if it can.
    Inline,
    /// As `Inline`; a call on another PE is an error.
    Local,
}

/// An entry method as a value, to make callbacks from: `Boss::RESULT` for `fn result`.
pub struct EntryPoint<E>(PhantomData<fn() -> E>);

impl<E: Entry> EntryPoint<E> {
    #[doc(hidden)]
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        EntryPoint(PhantomData)
    }
}

impl<E> Clone for EntryPoint<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for EntryPoint<E> {}

/// The error of a method that returned `Err`, on its way to whoever waits.
pub struct Failure(BoxError);

#[diagnostic::on_unimplemented(
    message = "an entry cannot return `{Self}`",
    note = "the error of an entry's `Result` must be an error type, `String` or `&str`: it is sent to whoever awaits the call"
)]
/// Return types of entries that are flattened: a `Result`'s value is the call's value, its error the call's error.
pub trait Flat {
    /// The value inside.
    type Value;
    #[doc(hidden)]
    fn flat(self) -> Result<Self::Value, Failure>;
}

#[diagnostic::do_not_recommend]
impl<T, E: Into<BoxError>> Flat for Result<T, E> {
    type Value = T;
    fn flat(self) -> Result<T, Failure> {
        self.map_err(|error| Failure(error.into()))
    }
}

#[doc(hidden)]
pub fn flat<R: Flat>(result: R) -> Result<R::Value, Failure> {
    result.flat()
}

/// The arguments of a call, as a message carries them.
pub(crate) struct Invoke<E: Entry>(pub(crate) E::Args);

impl<E: Entry> Payload for Invoke<E> {
    const NAME: Name = Name::Entry(E::INFO);
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Call, Self::leave);
    const IS_CALL: bool = true;
    const LOOK: Option<fn(&Self, ChareRef) -> Ruling> =
        Some(|Invoke(args), chare| when::look::<E, _>(chare, args, E::when()));

    #[inline]
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(chare) if chare.state.get() == State::Idle => {
                Delivery::<E> { pe, chare, args: self.0, reply }.arrive();
            }
            _ => pe.undeliverable(Msg::new(to, reply, self)),
        }
    }
}

/// One invocation of `E` on an idle chare.
pub struct Delivery<'a, E: Entry> {
    pub(crate) pe: &'a Pe,
    pub(crate) chare: ChareRef,
    pub(crate) args: E::Args,
    pub(crate) reply: Reply,
}

impl<'a, E: Entry> Delivery<'a, E> {
    /// An invocation by something else than a message of its own, such as a broadcast.
    pub(crate) fn new(pe: &'a Pe, chare: ChareRef, args: E::Args, reply: Reply) -> Self {
        debug_assert_eq!(chare.state.get(), State::Idle);
        Delivery { pe, chare, args, reply }
    }

    /// Runs the invocation, or keeps it until the condition of its entry holds.
    #[inline(always)]
    pub(crate) fn arrive(self) {
        self.arrive_when(E::when());
    }

    #[inline(always)]
    fn arrive_when<W: When<E>>(self, condition: W) {
        if W::IS_ALWAYS { E::deliver(self) } else { when::deliver(self, condition) }
    }

    /// Runs a plain method to its end.
    #[inline(always)]
    pub fn plain(
        self,
        method: impl FnOnce(&mut E::Chare, &Cx<E::Chare>, E::Args) -> Result<E::Output, Failure>,
    ) {
        let Delivery { pe, chare, args, reply } = self;
        pe.begin_step(chare);
        let outcome =
            catch_unwind(AssertUnwindSafe(|| chare.with(|state| method(state, &Cx::new(chare.id), args))));
        pe.end_step();
        let outcome = conclude(pe, chare, E::INFO, outcome);
        reply.answer_by(pe, chare.id, outcome, E::output);
        after_step(pe, chare);
    }

    /// Starts a coroutine that owns the chare until it ends.
    ///
    /// # Safety
    /// The token that `method` gets stays in the future that it returns, and is dropped with it.
    pub unsafe fn exclusive<Fut>(self, method: impl FnOnce(Exclusive<E::Chare>, Cx<E::Chare>, E::Args) -> Fut)
    where
        Fut: Future<Output = Result<E::Output, Failure>> + Send + 'static,
    {
        let Delivery { pe, chare, args, reply } = self;
        // SAFETY: tasks are dropped before chares, and by the caller's promise the token with its task.
        let state = unsafe { chare.claim::<E::Chare>() };
        let future = method(state, Cx::new(chare.id), args);
        start::<E>(pe, chare, Mode::Exclusive, future, reply);
    }

    /// Starts a coroutine that owns the chare until it ends, and that can be started again at its sync points.
    ///
    /// # Safety
    /// The token that `method` gets stays in the future that it returns, and is dropped with it.
    pub unsafe fn exclusive_restartable<Fut>(
        self,
        method: impl Fn(Exclusive<E::Chare>, Cx<E::Chare>, E::Args) -> Fut + Send + 'static,
    ) where
        E::Args: Clone,
        Fut: Future<Output = Result<E::Output, Failure>> + Send + 'static,
    {
        let id = self.chare.id;
        // SAFETY: tasks are dropped before chares, and by the caller's promise the tokens with their task. This one is
        // never used but to make the others.
        let first = unsafe { self.chare.claim::<E::Chare>() };
        // SAFETY: as above; a coroutine is dropped, and its token with it, before the next is made.
        let make = move |args: &E::Args| method(unsafe { first.again() }, Cx::new(id), args.clone());
        self.restartable(Mode::Exclusive, make);
    }

    /// Starts a coroutine that shares the chare with others, and that can be started again at its sync points.
    pub fn interleaving_restartable<Fut>(
        self,
        method: impl Fn(This<E::Chare>, E::Args) -> Fut + Send + 'static,
    ) where
        E::Args: Clone,
        Fut: Future<Output = Result<E::Output, Failure>> + Send + 'static,
    {
        let id = self.chare.id;
        self.restartable(Mode::Interleaving, move |args: &E::Args| method(This::new(id), args.clone()));
    }

    fn restartable<Fut>(self, mode: Mode, make: impl Fn(&E::Args) -> Fut + Send + 'static)
    where
        Fut: Future<Output = Result<E::Output, Failure>> + Send + 'static,
    {
        let Delivery { pe, chare, args, reply } = self;
        let id = chare.id;
        // Who leaves takes it along, and then has no outcome.
        let reply = Arc::new(Mutex::new(Some(reply)));
        let kept = reply.clone();
        let leave = move |pe: &Pe, args| {
            if let Some(reply) = lock(&kept).take() {
                across::wait_to_restart(pe, id, Msg::new(id, reply, Restart::<E>(args)));
            }
            Err(Failure("it goes on elsewhere".into()))
        };
        let done = move |pe: &Pe, outcome: Result<Result<E::Output, Failure>, PanicPayload>| {
            let reply = lock(&reply).take();
            match reply {
                Some(reply) => {
                    let outcome = conclude(pe, chare, E::INFO, outcome);
                    reply.answer_by(pe, chare.id, outcome, E::output);
                }
                None => pe.guard(|| drop(outcome)),
            }
        };
        task::start(pe, Some(chare), E::INFO, mode, Restartable::new(args, make, leave), done);
    }

    /// Starts a coroutine that shares the chare with others.
    pub fn interleaving<Fut>(self, method: impl FnOnce(This<E::Chare>, E::Args) -> Fut)
    where
        Fut: Future<Output = Result<E::Output, Failure>> + Send + 'static,
    {
        let Delivery { pe, chare, args, reply } = self;
        let future = method(This::new(chare.id), args);
        start::<E>(pe, chare, Mode::Interleaving, future, reply);
    }
}

fn start<E: Entry>(
    pe: &Pe,
    chare: ChareRef,
    mode: Mode,
    future: impl Future<Output = Result<E::Output, Failure>> + Send + 'static,
    reply: Reply,
) {
    task::start(pe, Some(chare), E::INFO, mode, future, move |pe: &Pe, outcome| {
        let outcome = conclude(pe, chare, E::INFO, outcome);
        reply.answer_by(pe, chare.id, outcome, E::output);
    });
}

/// What follows every step on a chare: conditions are looked at again.
#[inline]
pub(crate) fn after_step(pe: &Pe, chare: ChareRef) {
    if chare.has_extra() {
        condition::recheck(pe, chare);
    }
}

/// Turns the outcome of a method into what its caller sees; poisons the chare after a panic.
#[inline(always)]
pub(crate) fn conclude<R>(
    pe: &Pe,
    chare: ChareRef,
    entry: &'static EntryInfo,
    outcome: Result<Result<R, Failure>, PanicPayload>,
) -> Result<R, CallError> {
    match outcome {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(failure)) => Err(failed(pe, chare.id, entry, failure)),
        Err(panic) => {
            let panic = panicked(pe, chare.id, entry, panic);
            chare.panicked(pe, &panic);
            Err(CallError::Panicked(panic))
        }
    }
}

/// The error of a method that returned one.
#[cold]
pub(crate) fn failed(pe: &Pe, id: ChareId, entry: &'static EntryInfo, failure: Failure) -> CallError {
    CallError::Failed(Arc::new(Failed { entry, element: pe.element_name(id), error: failure.0 }))
}

/// Runs code of the user's that belongs to no method, for the sake of `entry` on `id`: a clone of its arguments.
pub(crate) fn guarded<R>(
    pe: &Pe,
    id: ChareId,
    entry: &'static EntryInfo,
    f: impl FnOnce() -> R,
) -> Result<R, CallError> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| CallError::Panicked(panicked(pe, id, entry, panic)))
}

/// As `guarded`, for the sake of `entry` on all elements.
pub(crate) fn guarded_in_all<R>(
    pe: &Pe,
    entry: &'static EntryInfo,
    f: impl FnOnce() -> R,
) -> Result<R, CallError> {
    caught::catch(pe, f).map_err(|Caught { message, location }| {
        CallError::Panicked(Arc::new(Panicked { entry, element: "[..]".to_owned(), message, location }))
    })
}

/// A caught panic as the error of its method.
#[cold]
pub(crate) fn panicked(
    pe: &Pe,
    id: ChareId,
    entry: &'static EntryInfo,
    panic: PanicPayload,
) -> Arc<Panicked> {
    let Caught { message, location } = Caught::new(pe, panic);
    Arc::new(Panicked { entry, element: pe.element_name(id), message, location })
}
