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

use crate::answer::Untaken;
use crate::current::{self, Here};
use crate::error::CallError;
use crate::ids::{ChareId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::scheduler::waker::{self, Wakeup};
use crate::waiting::{Waiter, What, cancel_replaced};
use crate::wire::Leaves;

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
    /// On a thread that has not entered the run of the cell, while that lasts.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<R, CallError>> {
        assert!(!self.done, "polled after it was ready");
        let outcome = current::pe(|pe| match pe {
            Some(pe) if self.cell.is_of(pe) && self.relay.is_none() => {
                pe.cells.poll::<R>(pe, self.cell.key, context, self.what, self.at)
            }
            // It was polled elsewhere before.
            Some(pe) if self.cell.is_of(pe) => {
                self.try_take().map_or_else(|| self.poll_away(context), Poll::Ready)
            }
            _ => self.poll_away(context),
        });
        self.done = outcome.is_ready();
        outcome
    }

    /// Whether the outcome has come and was not taken.
    pub(crate) fn is_ready(&self) -> bool {
        if self.done {
            return false;
        }
        let has_come = self.relay.as_ref().is_some_and(|relay| relay.lock().untaken.is_some());
        has_come
            || current::pe(|pe| match pe {
                Some(pe) if self.cell.is_of(pe) => pe.cells.is_ready(self.cell.key),
                _ => has_ended(self.cell),
            })
    }

    /// Takes the outcome if it has come. Whoever is registered as waiting stays so.
    pub(crate) fn try_take(&mut self) -> Option<Result<R, CallError>> {
        if self.done {
            return None;
        }
        let untaken = self.relay.as_ref().and_then(|relay| relay.lock().untaken.take());
        let outcome = match untaken {
            Some(untaken) => Some(untaken.outcome),
            None => current::pe(|pe| match pe {
                Some(pe) if self.cell.is_of(pe) => pe.cells.try_take(pe, self.cell.key),
                _ if has_ended(self.cell) => Some(Err(CallError::Ended)),
                _ => {
                    self.ask_for_later();
                    None
                }
            }),
        };
        self.done = outcome.is_some();
        if let (true, Some(relay)) = (self.done, &self.relay) {
            let wait = relay.lock().wait.take();
            end_wait_away(self.cell.run, wait);
        }
        outcome
    }

    /// Asks the owner to send the outcome when it comes, unless that was asked already.
    fn ask_for_later(&mut self) {
        if self.relay.is_none() {
            let relay = self.new_relay();
            self.relay = Some(relay.clone());
            self.cell.post(Msg::for_pe(Ask(Some(relay))));
        }
    }

    fn new_relay(&self) -> Arc<Relay<R>> {
        let Pending { cell, what, at, .. } = *self;
        Arc::new(Relay { cell, what, at, state: Mutex::default() })
    }

    fn poll_away(&mut self, context: &Context<'_>) -> Poll<Result<R, CallError>> {
        if has_ended(self.cell) {
            return Poll::Ready(Err(CallError::Ended));
        }
        let wakeup = Wakeup::of(context);
        let (cell, what, at) = (self.cell, self.what, self.at);
        let relay = match &self.relay {
            Some(relay) => relay.clone(),
            None => {
                let relay = self.new_relay();
                self.relay = Some(relay.clone());
                // Registered before it asks, so that the answer finds whom to wake.
                relay.lock().wakeup = Some(wakeup);
                let wait = current::pe(|pe| pe.map(|pe| pe.waits_away.register(pe, None, context, what, at)));
                relay.lock().wait = wait;
                cell.post(Msg::for_pe(Ask(Some(relay))));
                return self.unless_ended();
            }
        };
        let wait = relay.lock().wait.take();
        let untaken = relay.lock().untaken.take();
        if let Some(untaken) = untaken {
            end_wait_away(cell.run, wait);
            return Poll::Ready(untaken.outcome);
        }
        let wait = current::pe(|pe| pe.map(|pe| pe.waits_away.register(pe, wait, context, what, at)));
        let (untaken, replaced) = {
            let mut state = relay.lock();
            state.wait = wait;
            // What has come since finds no waker any more.
            (state.untaken.take(), state.wakeup.replace(wakeup))
        };
        drop(replaced);
        match untaken {
            Some(untaken) => {
                let wait = relay.lock().wait.take();
                end_wait_away(cell.run, wait);
                Poll::Ready(untaken.outcome)
            }
            None => self.unless_ended(),
        }
    }

    /// The end of the run wakes the wakers that it finds; one may have come too late.
    fn unless_ended(&self) -> Poll<Result<R, CallError>> {
        if has_ended(self.cell) { Poll::Ready(Err(CallError::Ended)) } else { Poll::Pending }
    }
}

/// Whether the run of the cell is over, or about to be.
///
/// # Panics
/// On a thread that has not entered the run, while that lasts.
fn has_ended(cell: CellRef) -> bool {
    current::here(|here| match here {
        Here::Pe(pe) if pe.run() == cell.run => pe.shared().is_stopping(),
        Here::Foreign(shared) if shared.run() == cell.run => shared.is_stopping(),
        _ => match waker::find_run(cell.run) {
            None => true,
            Some(_) => {
                current::require(cell.run);
                false
            }
        },
    })
}

/// The waits of one PE's coroutines for cells of other PEs.
#[derive(Default)]
pub(crate) struct WaitsAway {
    waits: RefCell<FxHashMap<u64, Waiter>>,
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
            moved => {
                end_wait_away(pe.run(), moved);
                self.made.replace(self.made.get() + 1)
            }
        };
        let waiter = Waiter::new(pe, Wakeup::of(context), what, at);
        let replaced = self.waits.borrow_mut().insert(number, waiter);
        cancel_replaced(replaced, pe);
        (pe.id(), number)
    }

    fn end(&self, pe: &Pe, number: u64) {
        let waiter = self.waits.borrow_mut().remove(&number);
        cancel_replaced(waiter, pe);
    }

    pub(crate) fn for_each_waiter(&self, f: impl FnMut(&Waiter)) {
        self.waits.borrow().values().for_each(f);
    }
}

/// Ends a wait that was noted, on whichever PE that was.
fn end_wait_away(run: RunId, wait: Option<(PeId, u64)>) {
    let Some((home, number)) = wait else { return };
    current::pe(|pe| match pe {
        Some(pe) if pe.run() == run && pe.id() == home => pe.waits_away.end(pe, number),
        _ => current::post_to_run(run, home, Msg::for_pe(EndWaitAway(number))),
    });
}

/// The end of a wait whose future has moved on.
struct EndWaitAway(u64);

impl Payload for EndWaitAway {
    const NAME: Name = Name::Runtime("the end of a wait");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.waits_away.end(pe, self.0);
    }
}

impl<R: Send + 'static> Drop for Pending<R> {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(relay) = &self.relay {
            let wait = relay.lock().wait.take();
            end_wait_away(self.cell.run, wait);
        }
        let cell = self.cell;
        current::pe(|pe| match pe {
            Some(pe) if self.cell.is_of(pe) => pe.cells.abandon(pe, cell.key),
            _ => cell.post(Msg::for_pe(Abandon { key: cell.key })),
        });
    }
}

/// Carries one outcome from the PE of a cell to a future that is polled elsewhere. As a waker, registered at the cell
/// by its owner, it asks the owner to look again.
struct Relay<R> {
    cell: CellRef,
    what: What,
    at: &'static Location<'static>,
    state: Mutex<RelayState<R>>,
}

struct RelayState<R> {
    untaken: Option<Untaken<R>>,
    wakeup: Option<Wakeup>,
    /// The PE that polls, and the number of the wait there.
    wait: Option<(PeId, u64)>,
}

impl<R> Default for RelayState<R> {
    fn default() -> Self {
        RelayState { untaken: None, wakeup: None, wait: None }
    }
}

impl<R> Relay<R> {
    /// No user code runs while this is held.
    fn lock(&self) -> MutexGuard<'_, RelayState<R>> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Lets the future be polled again.
    fn wake_poller(&self) {
        let wakeup = self.lock().wakeup.take();
        if let Some(wakeup) = wakeup {
            wakeup.wake();
        }
    }
}

impl<R> Drop for Relay<R> {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        // The future went before the outcome reached it.
        if let Some(Untaken { owed: Some(error), .. }) = state.untaken.take() {
            self.cell.unawaited(error);
        }
    }
}

impl<R: Send + 'static> Wake for Relay<R> {
    fn wake(self: Arc<Self>) {
        self.cell.post(Msg::for_pe(Ask(Some(self.clone()))));
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
    const LEAVES: Leaves<Self> = Leaves::Never;

    fn run(mut self, _: ChareId, _: Reply, pe: &Pe) {
        let Some(relay) = self.0.take() else { return };
        let waker = Waker::from(relay.clone());
        let context = Context::from_waker(&waker);
        let polled = pe.cells.poll_for_another::<R>(pe, relay.cell.key, &context, relay.what, relay.at);
        if let Poll::Ready(untaken) = polled {
            relay.lock().untaken = Some(untaken);
            relay.wake_poller();
        }
    }
}

struct Abandon {
    key: u64,
}

impl Payload for Abandon {
    const NAME: Name = Name::Runtime("a wait given up");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.cells.abandon(pe, self.key);
    }
}

/// Makes the public futures that are nothing but a [`Pending`].
macro_rules! pending_future {
    ($name:ident$(<$value:ident>)?, $output:ty) => {
        impl$(<$value: Send + 'static>)? Future for $name$(<$value>)? {
            type Output = $output;
            fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
                self.0.poll(context)
            }
        }

        impl$(<$value: Send + 'static>)? $name$(<$value>)? {
            /// Whether the outcome has come, so that the next poll brings it; false when it has been taken. Never waits.
            ///
            /// Exact on the PE where the future was made. Elsewhere the outcome comes by message, after the first poll
            /// or [`Self::try_take`] there has asked for it.
            ///
            /// # Panics
            /// On a thread that has not entered the run of the future, while that lasts.
            pub fn is_ready(&self) -> bool {
                self.0.is_ready()
            }

            /// The outcome if it has come, as [`Self::is_ready`] says. Never waits; a combinator that waits for this
            /// future meanwhile goes on doing so. Awaiting it after its outcome was taken panics.
            ///
            /// # Panics
            /// On a thread that has not entered the run of the future, while that lasts.
            pub fn try_take(&mut self) -> Option<$output> {
                self.0.try_take()
            }
        }
    };
}
pub(crate) use pending_future;
