//! A look at a chare on the same PE, without a message.
//!
//! It is to a chare's state what a direct call is ([`crate::direct`]): it keeps to the same rules, and a panic in it poisons
//! the chare. But the code is the caller's and runs in its name, so the panic is the caller's as well.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::caught::{Caught, PanicPayload};
use crate::cell::ChareRef;
use crate::chares::Chare;
use crate::condition;
use crate::current;
use crate::direct::{self, Obstacle};
use crate::entry::EntryOf;
use crate::error::{Panicked, WhyNotNow};
use crate::proxy::Element;
use crate::scheduler::pe::Pe;

/// Why a chare's state cannot be touched here and now. A call reaches it all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotLocal {
    /// It lives on another PE, is not constructed yet, or does not exist.
    #[error("the chare does not live on this PE")]
    Elsewhere,
    /// A method of it is running, also as one that has called the one that looks, or an exclusive coroutine owns it.
    #[error("a method of the chare is running, or an exclusive coroutine owns it")]
    Busy,
    /// It panicked earlier.
    #[error("the chare is poisoned by an earlier panic")]
    Poisoned,
    /// The look is made by no method: by a destructor of something that the runtime drops.
    #[error("the look was made outside of any method, as in the destructor of a message")]
    OutsideOfMethods,
}

impl<C: Chare> Element<C> {
    /// Calls `f` with the chare's state at once, if it lives on this PE. Conditions of the chare are looked at again
    /// afterwards, as after a method.
    ///
    /// # Errors
    /// [`NotLocal`], without having called `f`: the chare is elsewhere (always so on a thread that is not a PE), busy or
    /// poisoned, or nothing of the program is running that could look.
    ///
    /// # Panics
    /// If `f` does. The chare is poisoned then, unless it was declared `keep_after_panic`; and the panic is the caller's.
    pub fn local<R>(&self, f: impl FnOnce(&mut C) -> R) -> Result<R, NotLocal> {
        current::pe(|pe| {
            let pe = pe.filter(|pe| pe.run() == self.run()).ok_or(NotLocal::Elsewhere)?;
            let chare = pe.find(self.id()).ok_or(NotLocal::Elsewhere)?;
            match direct::obstacle(pe, chare) {
                None => {}
                Some(Obstacle::Never(_)) => return Err(NotLocal::Poisoned),
                Some(Obstacle::NotNow(WhyNotNow::OutsideOfMethods)) => {
                    return Err(NotLocal::OutsideOfMethods);
                }
                Some(Obstacle::NotNow(_)) => return Err(NotLocal::Busy),
            }
            let outcome = catch_unwind(AssertUnwindSafe(|| chare.with(f)));
            if let Err(panic) = &outcome {
                poison::<C>(pe, chare, panic);
            }
            if chare.has_extra() {
                condition::recheck_later(pe, chare);
            }
            outcome.map_or_else(|panic| resume_unwind(panic), Ok)
        })
    }
}

/// Marks the chare whose state was being touched.
#[cold]
fn poison<C: Chare>(pe: &Pe, chare: ChareRef, panic: &PanicPayload) {
    let Caught { message, location } = Caught::look(pe, panic);
    let entry = EntryOf::<C>::LOCAL;
    let element = pe.element_name(chare.id);
    chare.panicked(pe, &Arc::new(Panicked { entry, element, message, location }));
}
