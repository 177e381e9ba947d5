//! The reading end of a cell: the one future behind calls, promises, reductions, timers and quiescence.
//!
//! On the PE that owns the cell a poll looks into the slab. Polled anywhere else (another PE, a foreign thread), the
//! future asks the owner by message: the owner polls in its name with a waker that asks again, and the value comes
//! through a [`Relay`]. The PE that polls notes the wait in its [`WaitsAway`], so it is as known as one at home. Dropping
//! the future loses nothing but its own interest.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};

use rustc_hash::FxHashMap;

use crate::current::{self, Here};
use crate::error::CallError;
use crate::ids::{ChareId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::waiting::{Waiter, What};

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
        if is_stopping() {
            return Poll::Ready(Err(CallError::Ended));
        }
        let (key, what, at) = (self.cell.key, self.what, self.at);
        let home = self.cell.pe;
        let relay = self.relay.get_or_insert_with(|| {
            let state = RelayState { waker: Some(context.waker().clone()), ..RelayState::default() };
            let relay = Arc::new(Relay { home, key, what, at, state: Mutex::new(state) });
            current::post(home, Msg::for_pe(Ask(Some(relay.clone()))));
            relay
        });
        let mut state = relay.lock();
        let wait = state.wait.take();
        match state.outcome.take() {
            Some(outcome) => {
                drop(state);
                end_wait_away(wait);
                Poll::Ready(outcome)
            }
            None => {
                state.waker = Some(context.waker().clone());
                state.wait =
                    current::pe(|pe| pe.map(|pe| pe.waits_away.register(pe, wait, context, what, at)));
                drop(state);
                // The end of the run wakes the wakers that it finds; this one may have come too late.
                if is_stopping() { Poll::Ready(Err(CallError::Ended)) } else { Poll::Pending }
            }
        }
    }
}

/// # Panics
/// On a thread that has entered no runtime.
fn is_stopping() -> bool {
    current::here(|here| match here {
        Here::Pe(pe) => pe.shared().is_stopping(),
        Here::Foreign(shared) => shared.is_stopping(),
        Here::Nowhere => crate::call::nowhere(),
    })
}

/// The waits of one PE's coroutines for cells of other PEs.
#[derive(Default)]
pub(crate) struct WaitsAway {
    waits: RefCell<FxHashMap<u64, Option<Waiter>>>,
    made: Cell<u64>,
}

impl WaitsAway {
    /// Notes a wait, under the number that it has here already or under a new one.
    fn register(
        &self,
        pe: &Pe,
        wait: Option<(PeId, u64)>,
        context: &Context<'_>,
        what: What,
        at: &'static Location<'static>,
    ) -> (PeId, u64) {
        let number = match wait {
            Some((home, number)) if home == pe.id() => number,
            _ => self.made.replace(self.made.get() + 1),
        };
        Waiter::register(self.waits.borrow_mut().entry(number).or_default(), pe, context, what, at);
        (pe.id(), number)
    }

    fn end(&self, pe: &Pe, number: u64) {
        let waiter = self.waits.borrow_mut().remove(&number).flatten();
        if let Some(waiter) = waiter {
            waiter.cancel(pe);
        }
    }

    pub(crate) fn for_each_waiter(&self, f: impl FnMut(&Waiter)) {
        self.waits.borrow().values().flatten().for_each(f);
    }
}

/// Ends a wait that was noted, if the running code is on the PE that did. One that moved on meanwhile leaves its note.
fn end_wait_away(wait: Option<(PeId, u64)>) {
    let Some((home, number)) = wait else { return };
    current::pe(|pe| {
        if let Some(pe) = pe
            && pe.id() == home
        {
            pe.waits_away.end(pe, number);
        }
    });
}

impl<R: Send + 'static> Drop for Pending<R> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(relay) = &self.relay {
            let wait = relay.lock().wait.take();
            end_wait_away(wait);
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
    /// The PE that polls, and the number of the wait there.
    wait: Option<(PeId, u64)>,
}

impl<R> Default for RelayState<R> {
    fn default() -> Self {
        RelayState { outcome: None, waker: None, wait: None }
    }
}

impl<R> Relay<R> {
    fn lock(&self) -> MutexGuard<'_, RelayState<R>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl<R> Relay<R> {
    /// Lets the future be polled again.
    fn wake_poller(&self) {
        let waker = self.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<R: Send + 'static> Wake for Relay<R> {
    fn wake(self: Arc<Self>) {
        let home = self.home;
        current::post(home, Msg::for_pe(Ask(Some(self))));
    }
}

/// A request to look into the cell. Dropped unanswered, at the end of the run, it lets the future see that.
struct Ask<R>(Option<Arc<Relay<R>>>);

impl<R> Drop for Ask<R> {
    fn drop(&mut self) {
        if let Some(relay) = self.0.take() {
            relay.wake_poller();
        }
    }
}

impl<R: Send + 'static> Payload for Ask<R> {
    const NAME: Name = Name::Runtime("a poll from another thread");

    fn run(mut self, _: ChareId, _: Reply, pe: &Pe) {
        let Some(relay) = self.0.take() else { return };
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
