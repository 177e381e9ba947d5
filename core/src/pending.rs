//! The reading end of a cell: the one future behind calls, promises, reductions, timers and quiescence.
//!
//! On the PE that owns the cell a poll looks into the slab. Polled anywhere else (another PE, a foreign thread), the
//! future asks the owner by message: the owner polls in its name with a waker that asks again, and the value comes
//! through a [`Relay`]. Dropping the future loses nothing but its own interest.

use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use crate::current::{self, Here};
use crate::error::CallError;
use crate::ids::{ChareId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::waiting::What;

/// The value that a cell will bring.
#[must_use = "futures do nothing unless polled"]
pub(crate) struct Pending<R: Send + 'static> {
    cell: CellRef,
    what: What,
    at: &'static Location<'static>,
    relay: Option<Arc<Relay<R>>>,
    done: bool,
    value: PhantomData<fn() -> R>,
}

impl<R: Send + 'static> Pending<R> {
    pub(crate) fn new(cell: CellRef, what: What, at: &'static Location<'static>) -> Self {
        Pending { cell, what, at, relay: None, done: false, value: PhantomData }
    }

    /// # Panics
    /// On a foreign thread that has entered no runtime.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<R, CallError>> {
        assert!(!self.done, "polled after it was ready");
        let outcome = current::pe(|pe| match pe {
            Some(pe) if pe.id() == self.cell.pe && self.relay.is_none() => {
                pe.cells.poll::<R>(pe, self.cell.key, context, self.what, self.at)
            }
            _ => self.poll_away(context),
        });
        self.done = outcome.is_ready();
        outcome
    }

    fn poll_away(&mut self, context: &Context<'_>) -> Poll<Result<R, CallError>> {
        let (key, what, at) = (self.cell.key, self.what, self.at);
        let home = self.cell.pe;
        let relay = self.relay.get_or_insert_with(|| {
            let relay = Arc::new(Relay { home, key, what, at, state: Mutex::default() });
            current::post(home, Msg::for_pe(Ask(relay.clone())));
            relay
        });
        let mut state = relay.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(outcome),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<R: Send + 'static> Drop for Pending<R> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        let cell = self.cell;
        current::here(|here| match here {
            Here::Pe(pe) if pe.id() == cell.pe => pe.cells.abandon(pe, cell.key),
            _ => current::post(cell.pe, Msg::for_pe(Abandon { key: cell.key })),
        });
    }
}

/// Carries one outcome from the PE of a cell to a future that is polled elsewhere. As a waker, registered at the cell
/// by its owner, it asks the owner to look again.
struct Relay<R> {
    home: PeId,
    key: u64,
    what: What,
    at: &'static Location<'static>,
    state: Mutex<RelayState<R>>,
}

struct RelayState<R> {
    outcome: Option<Result<R, CallError>>,
    waker: Option<Waker>,
}

impl<R> Default for RelayState<R> {
    fn default() -> Self {
        RelayState { outcome: None, waker: None }
    }
}

impl<R> Relay<R> {
    fn lock(&self) -> MutexGuard<'_, RelayState<R>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<R: Send + 'static> Wake for Relay<R> {
    fn wake(self: Arc<Self>) {
        let home = self.home;
        current::post(home, Msg::for_pe(Ask(self)));
    }
}

struct Ask<R>(Arc<Relay<R>>);

impl<R: Send + 'static> Payload for Ask<R> {
    const NAME: Name = Name::Runtime("a poll from another thread");

    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let relay = self.0;
        let waker = Waker::from(relay.clone());
        let polled = pe.cells.poll::<R>(pe, relay.key, &Context::from_waker(&waker), relay.what, relay.at);
        if let Poll::Ready(outcome) = polled {
            let waker = {
                let mut state = relay.lock();
                state.outcome = Some(outcome);
                state.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

struct Abandon {
    key: u64,
}

impl Payload for Abandon {
    const NAME: Name = Name::Runtime("a wait given up");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.cells.abandon(pe, self.key);
    }
}

/// Makes the public futures that are nothing but a [`Pending`].
macro_rules! pending_future {
    ($name:ident<$value:ident>, $output:ty, $map:expr) => {
        impl<$value: Send + 'static> Future for $name<$value> {
            type Output = $output;
            fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
                self.0.poll(context).map($map)
            }
        }
    };
}
pub(crate) use pending_future;
