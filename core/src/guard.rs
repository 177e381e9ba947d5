//! Guards: code that the caller sends along with a call, which decides at the last moment what becomes of it
//! (`call.when(remote!(..))`).
//!
//! A call with a guard is a message around that of the call, [`UnderGuard`], which knows neither the entry nor the type of the chare: so there
//! is nothing to compile for an entry because its calls may have guards, but the look at its condition ([`Msg::look`]). The condition of the entry is
//! looked at first, then the guard is asked, and the call is kept, refused and reported like any call that waits for a condition. When
//! it may run it is taken out, and runs as it would have by itself: its condition is looked at once more.
//!
//! *To another process* the message goes by the number of the guard, whose row brings the guard there, and the call inside of it as it would have
//! gone by itself. The reply belongs to the call, as does the error if it cannot go there.

use std::any::Any;
use std::marker::PhantomData;

use crate::cell::{ChareRef, State};
use crate::chares::{Chare, Cx};
use crate::condition::when::{self, GivenUp, Ruling};
use crate::entry::{Delivery, Entry, EntryInfo, Failure};
use crate::error::CallError;
use crate::ids::ChareId;
use crate::message::{Inner, Msg, Name, Payload};
use crate::remote::{Function, Remote, Site};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::table::CodeId;
use crate::wire::{self, Codec, Decoder, Encoder, Kind, Leaves, Unsent, WireError};

/// A call has no more guards than that, wherever it goes: each is one message more around it, and how deep these are is limited
/// where they come from other processes. The compiler counts them.
///
/// ```no_run
/// # use chare::prelude::*;
/// # use chare::Decision::Run;
/// # struct One;
/// # #[chare]
/// # impl One {
/// #     fn new() -> Self { One }
/// #     #[entry]
/// #     fn poke(&self) {}
/// # }
/// # macro_rules! four { ($call:expr, $g:ident) => { $call.when($g).when($g).when($g).when($g) } }
/// # macro_rules! sixteen { ($call:expr, $g:ident) => { four!(four!(four!(four!($call, $g), $g), $g), $g) } }
/// # async fn ask(one: Element<One>) {
/// let guard = remote!(|_: &One| Run);
/// let call = sixteen!(sixteen!(sixteen!(sixteen!(one.poke(), guard), guard), guard), guard);
/// call.send();
/// # }
/// # #[chare::main]
/// # async fn main(rt: Runtime) -> Result<()> { Ok(ask(rt.single::<One>().create(()).await?).await) }
/// ```
///
/// One more is too many.
///
/// ```compile_fail,E0080
/// # use chare::prelude::*;
/// # use chare::Decision::Run;
/// # struct One;
/// # #[chare]
/// # impl One {
/// #     fn new() -> Self { One }
/// #     #[entry]
/// #     fn poke(&self) {}
/// # }
/// # macro_rules! four { ($call:expr, $g:ident) => { $call.when($g).when($g).when($g).when($g) } }
/// # macro_rules! sixteen { ($call:expr, $g:ident) => { four!(four!(four!(four!($call, $g), $g), $g), $g) } }
/// # async fn ask(one: Element<One>) {
/// let guard = remote!(|_: &One| Run);
/// let call = sixteen!(sixteen!(sixteen!(sixteen!(one.poke(), guard), guard), guard), guard);
/// call.when(guard).send();
/// # }
/// # #[chare::main]
/// # async fn main(rt: Runtime) -> Result<()> { Ok(ask(rt.single::<One>().create(()).await?).await) }
/// ```
pub(crate) const MOST_GUARDS: u32 = 64;

/// What a guard decides about its call; see [`Call::when`](crate::Call::when).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Decision {
    /// The call runs now.
    Run,
    /// The call is kept, and the guard asked again after every step that may have changed the chare's state.
    Defer,
    /// The call never runs. Whoever awaits it gets [`CallError::Dropped`](crate::CallError::Dropped).
    Drop,
}

/// Entries whose calls come by message, so that they can be kept: those without `#[entry(inline)]` or `#[entry(local)]`.
#[diagnostic::on_unimplemented(
    message = "calls of this entry run on the stack of their caller, which cannot wait for a guard",
    note = "guards are for calls that come by message: remove `inline` or `local` from the entry, or let its method decide"
)]
pub trait ByMessage: Entry {}

/// The code that decides, its number, and its name in reports.
pub struct Guard {
    decides: Box<dyn Decides>,
    code: CodeId,
    name: &'static str,
}

/// A guard of some type of chare.
trait Decides: Send {
    /// Asks it, in the name of the chare that is running.
    fn decide(&self, chare: ChareRef) -> Result<Decision, Failure>;
    fn chare(&self) -> &'static str;
}

impl<C: Chare> Decides for Function<C, (), Decision> {
    fn decide(&self, chare: ChareRef) -> Result<Decision, Failure> {
        chare.look(|state: &mut C| self(state, &Cx::new(chare.id), ()))
    }

    fn chare(&self) -> &'static str {
        C::INFO.name
    }
}

impl Guard {
    pub(crate) fn new<P: Site, C: Chare>(function: Function<C, (), Decision>) -> Self {
        Guard { decides: Box::new(function), code: P::code(), name: P::ROW.name }
    }

    /// A remote function as a guard, if it is one.
    pub(crate) fn of_remote<P: Site, R: 'static>(remote: Remote<P, P::Chare, P::Args, R>) -> Option<Self> {
        let function: &dyn Any = &remote.function();
        let function = function.downcast_ref::<Function<P::Chare, (), Decision>>()?;
        Some(Guard::new::<P, P::Chare>(*function))
    }
}

/// A call with a guard.
pub(crate) struct UnderGuard {
    guard: Guard,
    call: Msg,
}

impl UnderGuard {
    /// What the guard and the condition of the entry make of the call. Runs user code.
    pub(crate) fn look(&self, chare: ChareRef) -> Ruling {
        match self.call.look(chare) {
            Ruling::Run => match self.guard.decides.decide(chare) {
                Ok(Decision::Run) => Ruling::Run,
                Ok(Decision::Defer) => Ruling::Keep,
                Ok(Decision::Drop) => Ruling::GiveUp(GivenUp::Dropped),
                Err(failure) => Ruling::GiveUp(GivenUp::Failed(failure)),
            },
            other => other,
        }
    }

    /// The entry that is called.
    pub(crate) fn entry(&self) -> &'static EntryInfo {
        match self.call.name() {
            Name::Entry(entry) => entry,
            Name::Runtime(name) => unreachable!("{name} is no call"),
        }
    }

    /// How reports name the guard.
    pub(crate) fn guard_name(&self) -> &'static str {
        self.guard.name
    }

    /// The call, without any guard.
    pub(crate) fn into_call(self, pe: &Pe) -> Msg {
        UnderGuard::unguarded(self.call, pe)
    }

    /// A call without the guards that it has.
    pub(crate) fn unguarded(mut call: Msg, pe: &Pe) -> Msg {
        while call.payload::<UnderGuard>().is_some() {
            call = call.into_payload::<UnderGuard>(pe).expect("looked at above").call;
        }
        call
    }

    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_code_id(self.guard.code);
        self.call.leave(to)
    }

    /// What is left of a call for this chare, under a guard that its row has brought.
    pub(crate) fn decode(guard: Guard, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
        let call = wire::decode_message(from)?;
        let entry = match call.name() {
            Name::Entry(entry) if call.can_be_guarded() && call.head().to == to => entry,
            name => return Err(WireError::new(format!("there are no guards of {name}"))),
        };
        let chare = guard.decides.chare();
        if entry.chare != chare {
            return Err(WireError::new(format!("a guard of {chare} for a call of {}", entry.chare)));
        }
        Ok(Msg::new(to, Reply::decode(from)?, UnderGuard { guard, call }))
    }
}

impl Payload for UnderGuard {
    const NAME: Name = Name::Runtime("a call with a guard");
    const INNER: Option<fn(&Self) -> Inner<'_>> = Some(|guarded| Inner::Message(&guarded.call));
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Guarded, Self::leave);
    const IS_CALL: bool = true;
    const LOOK: Option<fn(&Self, ChareRef) -> Ruling> = Some(Self::look);

    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(chare) if chare.state.get() == State::Idle => when::deliver_guarded(pe, chare, self),
            _ => pe.undeliverable(Msg::new(to, reply, self)),
        }
    }

    fn lost(self, _: ChareId, _: Reply, pe: &Pe, error: CallError) {
        self.call.lose(pe, error);
    }
}

/// The entry that a call of `E` with a guard calls.
pub struct Guarded<E>(PhantomData<fn() -> E>);

#[diagnostic::do_not_recommend]
impl<E: ByMessage> ByMessage for Guarded<E> {}

impl<E: Entry> Entry for Guarded<E> {
    type Chare = E::Chare;
    type Args = (Guard, E::Args);
    type Output = E::Output;
    const INFO: &'static EntryInfo = E::INFO;
    const GUARDS: u32 = E::GUARDS + 1;

    fn message(to: ChareId, reply: Reply, (guard, args): Self::Args) -> Msg {
        Msg::new(to, Reply::none(), UnderGuard { guard, call: E::message(to, reply, args) })
    }

    fn deliver(delivery: Delivery<'_, Self>) {
        let Delivery { pe, chare, args: (_, args), reply } = delivery;
        E::deliver(Delivery { pe, chare, args, reply });
    }

    fn output() -> &'static Codec<E::Output> {
        E::output()
    }
}
