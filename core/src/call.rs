//! Calls that have not been sent yet, and the futures of their outcomes.
//!
//! A call is sent by `.send()` (nobody waits), `.future()` (now, awaited later), `.to(callback)` or its first poll. A call
//! that is never polled was never sent. Dropping the future of a call that was sent does not stop the method; an error
//! that comes later then counts as unawaited and ends the job.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::broadcast;
use crate::callback::Callback;
use crate::current::{self, Here};
use crate::entry::{Entry, Invoke};
use crate::error::{CallError, NoElement};
use crate::ids::{ChareId, CollectionId};
use crate::message::Msg;
use crate::pending::{Pending, pending_future};
use crate::proxy::{Element, OUTSIDE};
use crate::reply::{CellRef, Reply};
use crate::report::Reason;
use crate::scheduler::pe::Pe;
use crate::waiting::What;

/// A call of one entry method of one chare.
#[must_use = "a call does nothing until it is sent: `.send()`, `.await`, `.future()` or `.to(callback)`"]
pub struct Call<E: Entry> {
    to: Element<E::Chare>,
    state: CallState<E>,
    at: &'static Location<'static>,
}

enum CallState<E: Entry> {
    Unsent(E::Args),
    Sent(Pending<E::Output>),
    Ended,
}

impl<E: Entry> Unpin for Call<E> {}

impl<E: Entry> Call<E> {
    #[inline]
    pub(crate) fn new(to: Element<E::Chare>, args: E::Args, at: &'static Location<'static>) -> Self {
        Call { to, state: CallState::Unsent(args), at }
    }

    /// Sends the call; nobody waits for it. An error in the method ends the job with a report.
    #[inline]
    pub fn send(self) {
        if let CallState::Unsent(args) = self.state {
            dispatch::<E>(self.to, args, Reply::none());
        }
    }

    /// Sends the call now; the future brings its outcome.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    pub fn future(self) -> CallFuture<E::Output> {
        match self.state {
            CallState::Unsent(args) => CallFuture(start::<E>(self.to, args, self.at)),
            CallState::Sent(pending) => CallFuture(pending),
            CallState::Ended => panic!("the call has brought its outcome already"),
        }
    }

    /// Sends the call; its value goes to `callback`.
    pub fn to(self, callback: impl Into<Callback<E::Output>>) {
        if let CallState::Unsent(args) = self.state {
            dispatch::<E>(self.to, args, Reply::to_callback(callback.into()));
        }
    }
}

impl<E: Entry> Future for Call<E> {
    type Output = Result<E::Output, CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let CallState::Unsent(_) = self.state {
            let CallState::Unsent(args) = std::mem::replace(&mut self.state, CallState::Ended) else {
                unreachable!()
            };
            self.state = CallState::Sent(start::<E>(self.to, args, self.at));
        }
        match &mut self.state {
            CallState::Sent(pending) => pending.poll(context),
            _ => panic!("a call was polled after it was ready"),
        }
    }
}

fn start<E: Entry>(
    to: Element<E::Chare>,
    args: E::Args,
    at: &'static Location<'static>,
) -> Pending<E::Output> {
    let cell = current::on_pe("awaiting a call", |pe| CellRef::new(pe, pe.cells.open()));
    dispatch::<E>(to, args, Reply::to(cell));
    Pending::new(cell, What::Call { entry: E::INFO, to: to.id() }, at)
}

/// Sends a call from wherever the running code is.
#[inline]
pub(crate) fn dispatch<E: Entry>(to: Element<E::Chare>, args: E::Args, reply: Reply) {
    if to.id().element == OUTSIDE {
        return outside(to, reply);
    }
    dispatch_to_id::<E>(to.id(), args, reply);
}

/// Sends a call to a chare whose index is known to be inside of its collection.
#[inline]
pub(crate) fn dispatch_to_id<E: Entry>(id: ChareId, args: E::Args, reply: Reply) {
    current::here(|here| match here {
        Here::Pe(pe) => pe.send(Msg::new(id, reply, Invoke::<E>(args))),
        Here::Foreign(shared) => shared.send_foreign(Msg::new(id, reply, Invoke::<E>(args))),
        Here::Nowhere => nowhere(),
    });
}

#[cold]
fn outside<C: crate::Chare>(to: Element<C>, reply: Reply) {
    let refuse = |pe: &Pe, bounds: String| {
        let error = NoElement { chare: C::INFO.name, element: format!("[{:?}]", to.index()), bounds };
        reply.refuse(pe, to.id(), CallError::NoElement(Arc::new(error)));
    };
    current::here(|here| match here {
        Here::Pe(pe) => refuse(pe, pe.bounds_of(to.id().collection)),
        // Nobody can be told there, so this is an error that nobody awaits.
        Here::Foreign(shared) => {
            let error = NoElement {
                chare: C::INFO.name,
                element: format!("[{:?}]", to.index()),
                bounds: "its array is smaller".to_owned(),
            };
            shared.stop(Reason::Unawaited(CallError::NoElement(Arc::new(error))));
        }
        Here::Nowhere => nowhere(),
    });
}

#[cold]
pub(crate) fn nowhere() -> ! {
    panic!(
        "this thread has entered no runtime, so nothing can be sent from it: hold `Handle::enter()` meanwhile"
    )
}

/// The outcome of a call that has been sent.
#[must_use = "futures do nothing unless polled; use `.send()` if nobody waits"]
pub struct CallFuture<R: Send + 'static>(Pending<R>);

pending_future!(CallFuture<R>, Result<R, CallError>, |outcome| outcome);

/// A call of one entry method of every element of a collection. Its arguments are cloned for each element; give large
/// ones as [`crate::Shared`].
#[must_use = "a broadcast does nothing until it is sent: `.send()`, `.await`, `.future()` or `.gather()`"]
pub struct Broadcast<E: Entry> {
    collection: CollectionId,
    args: Option<E::Args>,
    pending: Option<Pending<()>>,
    at: &'static Location<'static>,
}

impl<E: Entry> Unpin for Broadcast<E> {}

impl<E: Entry> Broadcast<E> {
    pub(crate) fn new(collection: CollectionId, args: E::Args, at: &'static Location<'static>) -> Self {
        Broadcast { collection, args: Some(args), pending: None, at }
    }
}

impl<E: Entry> Broadcast<E>
where
    E::Args: Clone,
{
    /// Sends the broadcast; nobody waits for it.
    pub fn send(self) {
        if let Some(args) = self.args {
            broadcast::send::<E>(self.collection, args, None);
        }
    }

    /// Sends the broadcast now; the future waits until the method has finished on every element.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    pub fn future(mut self) -> CallFuture<()> {
        CallFuture(self.start())
    }

    /// Sends the broadcast now and gathers the values, sorted by index. The first error by index is the outcome if
    /// there is one.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    pub fn gather(self) -> CallFuture<Vec<E::Output>> {
        let args = self.args.expect("a broadcast that was polled cannot be gathered");
        let finish = |values: Vec<(u64, Result<E::Output, CallError>)>, _| {
            values.into_iter().map(|(_, value)| value).collect::<Result<Vec<_>, _>>()
        };
        CallFuture(broadcast::start::<E, _>(self.collection, args, true, finish, self.at))
    }

    /// Sends the broadcast now and gathers the outcomes, sorted by index, errors in their places.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    pub fn gather_results(self) -> CallFuture<Vec<Result<E::Output, CallError>>> {
        let args = self.args.expect("a broadcast that was polled cannot be gathered");
        let finish = |values: Vec<(u64, Result<E::Output, CallError>)>, _| {
            Ok(values.into_iter().map(|(_, value)| value).collect())
        };
        CallFuture(broadcast::start::<E, _>(self.collection, args, true, finish, self.at))
    }

    fn start(&mut self) -> Pending<()> {
        let args = self.args.take().expect("a broadcast is started once");
        let finish = |_, error: Option<CallError>| error.map_or(Ok(()), Err);
        broadcast::start::<E, _>(self.collection, args, false, finish, self.at)
    }
}

impl<E: Entry> Future for Broadcast<E>
where
    E::Args: Clone,
{
    type Output = Result<(), CallError>;

    /// Ready once the method has finished (coroutines included) on every element; with the first error, if any.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.pending.is_none() {
            self.pending = Some(self.start());
        }
        let pending = self.pending.as_mut().expect("set above");
        pending.poll(context)
    }
}
