//! A look at a chare on the same PE, without a message.

use crate::cell::State;
use crate::chares::Chare;
use crate::condition;
use crate::current;
use crate::proxy::Element;

/// Why a chare's state cannot be touched here and now. A call reaches it all the same.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotLocal {
    /// It lives on another PE, is not constructed yet, or does not exist.
    #[error("the chare does not live on this PE")]
    Elsewhere,
    /// A method of it is running, or an exclusive coroutine owns it.
    #[error("a method of the chare is running, or an exclusive coroutine owns it")]
    Busy,
    /// It panicked earlier.
    #[error("the chare is poisoned by an earlier panic")]
    Poisoned,
}

impl<C: Chare> Element<C> {
    /// Calls `f` with the chare's state at once, if it lives on this PE. Conditions of the chare are looked at again
    /// afterwards, as after a method.
    ///
    /// # Errors
    /// [`NotLocal`], without having called `f`: the chare is elsewhere (always so on a thread that is not a PE), busy or
    /// poisoned.
    pub fn local<R>(&self, f: impl FnOnce(&mut C) -> R) -> Result<R, NotLocal> {
        current::pe(|pe| {
            let pe = pe.filter(|pe| pe.run() == self.run()).ok_or(NotLocal::Elsewhere)?;
            let chare = pe.find(self.id()).ok_or(NotLocal::Elsewhere)?;
            if chare.state.get() == State::Poisoned {
                return Err(NotLocal::Poisoned);
            }
            let value = chare.try_with(f).ok_or(NotLocal::Busy)?;
            if chare.has_extra() {
                condition::recheck_later(pe, chare);
            }
            Ok(value)
        })
    }
}
