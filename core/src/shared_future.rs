//! A promise with many readers: each clone of a [`SharedFuture`] brings the value, as often as it is awaited.
//!
//! A coroutine of the runtime awaits the promise in their name. Each reader that comes too early leaves a cell of its own, as
//! long as it waits, so it waits like any coroutine that awaits a promise: whichever PE it is on, its wait is known. The value
//! is cloned by those who read it, under no lock.

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use crate::callback;
use crate::current;
use crate::entry::EntryInfo;
use crate::error::CallError;
use crate::pending::Pending;
use crate::promise::PromiseFuture;
use crate::reply::{self, CellRef};
use crate::waiting::What;

static HUB: EntryInfo =
    EntryInfo { chare: "a shared promise", name: "a shared promise", file: file!(), line: line!() };

/// A reading end that can be cloned, sent and awaited again; made by [`PromiseFuture::shared`].
#[must_use = "futures do nothing unless polled"]
pub struct SharedFuture<T> {
    hub: Arc<Mutex<Hub<T>>>,
    /// What this reader waits for meanwhile.
    news: Option<News>,
    at: &'static Location<'static>,
}

enum Hub<T> {
    Waiting(Readers),
    Ended(Arc<Result<T, CallError>>),
}

/// Those who wait, in the order in which they began to.
#[derive(Default)]
struct Readers {
    cells: BTreeMap<u64, CellRef>,
    began: u64,
}

/// The news that the outcome has come, for one reader.
struct News {
    pending: Pending<()>,
    /// That of the reader.
    number: u64,
}

fn lock<T>(hub: &Mutex<Hub<T>>) -> MutexGuard<'_, Hub<T>> {
    hub.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl<T: Clone + Send + Sync + 'static> PromiseFuture<T> {
    /// A reading end for many: each clone brings a clone of the value, or the error, as often as it is awaited, in any
    /// coroutine of any chare.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn shared(self) -> SharedFuture<T> {
        let hub = Arc::new(Mutex::new(Hub::Waiting(Readers::default())));
        let at = Location::caller();
        let of_all = hub.clone();
        let pump = async move {
            let outcome = Arc::new(self.await);
            let before = std::mem::replace(&mut *lock(&of_all), Hub::Ended(outcome));
            if let Hub::Waiting(readers) = before {
                // One that goes meanwhile needs no news.
                readers.cells.into_values().for_each(|cell| reply::send_answer_from_anywhere(cell, Ok(())));
            }
        };
        callback::start_forwarding(&HUB, pump);
        SharedFuture { hub, news: None, at }
    }
}

impl<T> SharedFuture<T> {
    /// Begins to wait, unless the outcome has come.
    fn register(&self) -> Option<News> {
        let cell = current::on_pe("awaiting a promise", |pe| CellRef::new(pe, pe.cells.open_here()));
        let pending = Pending::new(cell, What::Promise, self.at);
        match &mut *lock(&self.hub) {
            Hub::Waiting(Readers { cells, began }) => {
                *began += 1;
                cells.insert(*began, cell);
                Some(News { pending, number: *began })
            }
            Hub::Ended(_) => None,
        }
    }

    /// Waits no longer.
    fn leave(&mut self) {
        let Some(News { pending, number }) = self.news.take() else { return };
        if let Hub::Waiting(readers) = &mut *lock(&self.hub) {
            readers.cells.remove(&number);
        }
        // Not before: whoever waited may have a waker of the user's.
        drop(pending);
    }
}

impl<T> Drop for SharedFuture<T> {
    fn drop(&mut self) {
        self.leave();
    }
}

impl<T: Clone> SharedFuture<T> {
    /// The outcome, if it has come.
    fn outcome(&self) -> Option<Result<T, CallError>> {
        let outcome = match &*lock(&self.hub) {
            Hub::Waiting(_) => None,
            Hub::Ended(outcome) => Some(outcome.clone()),
        };
        outcome.map(|outcome| (*outcome).clone())
    }

    /// Whether the outcome has come. Never waits.
    pub fn is_ready(&self) -> bool {
        matches!(&*lock(&self.hub), Hub::Ended(_))
    }
}

impl<T: Clone> Future for SharedFuture<T> {
    type Output = Result<T, CallError>;

    /// # Panics
    /// On a thread that is not a PE.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.news.is_none() && !self.is_ready() {
            self.news = self.register();
        }
        if let Some(News { pending, .. }) = &mut self.news {
            let Poll::Ready(news) = pending.poll(context) else { return Poll::Pending };
            self.leave();
            if let Err(error) = news {
                return Poll::Ready(Err(error));
            }
        }
        Poll::Ready(self.outcome().expect("the news is that it has come"))
    }
}

impl<T> Clone for SharedFuture<T> {
    fn clone(&self) -> Self {
        SharedFuture { hub: self.hub.clone(), news: None, at: self.at }
    }
}

impl<T> std::fmt::Debug for SharedFuture<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &*lock(&self.hub) {
            Hub::Waiting(_) => "SharedFuture(waiting)",
            Hub::Ended(_) => "SharedFuture(ended)",
        })
    }
}
