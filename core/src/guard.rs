//! Guards: code that the caller sends along with a call, which decides at the last moment what becomes of it
//! (`call.when(remote!(..))`).
//!
//! A call with a guard is a call of another entry, [`Guarded`], whose condition is the guard, after that of the entry
//! itself. So it is kept, refused and reported like any call that waits for a condition, and other calls cost nothing.

use std::marker::PhantomData;

use crate::chares::{Chare, Cx};
use crate::condition::line::OnGuard;
use crate::condition::when::When;
use crate::current;
use crate::entry::{Delivery, Entry, EntryInfo, Failure};
use crate::remote::Function;

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

/// The code that decides, and its name in reports.
pub struct Guard<C: Chare> {
    function: Function<C, (), Decision>,
    pub(crate) name: &'static str,
}

impl<C: Chare> Guard<C> {
    pub(crate) fn new(function: Function<C, (), Decision>, name: &'static str) -> Self {
        Guard { function, name }
    }

    /// Asks it, in the name of the chare that is running.
    pub(crate) fn decide(&self, state: &mut C) -> Result<Decision, Failure> {
        let chare =
            current::on_pe("a guard", |pe| pe.running()).expect("a guard is asked in its chare's name");
        (self.function)(state, &Cx::new(chare.id), ())
    }
}

/// The entry that a call of `E` with a guard calls.
pub struct Guarded<E>(PhantomData<fn() -> E>);

#[diagnostic::do_not_recommend]
impl<E: ByMessage> ByMessage for Guarded<E> {}

impl<E: Entry> Entry for Guarded<E> {
    type Chare = E::Chare;
    type Args = (Guard<E::Chare>, E::Args);
    type Output = E::Output;
    const INFO: &'static EntryInfo = E::INFO;

    fn when() -> impl When<Self> {
        OnGuard
    }

    fn deliver(delivery: Delivery<'_, Self>) {
        let Delivery { pe, chare, args: (_, args), reply } = delivery;
        E::deliver(Delivery { pe, chare, args, reply });
    }
}
