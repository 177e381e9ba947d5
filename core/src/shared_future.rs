//! A promise with many readers: each clone of a [`SharedFuture`] brings the value, as often as it is awaited.
//!
//! A coroutine of the runtime awaits the promise in their name. Each reader that comes too early leaves a promise of its own,
//! so it waits like any coroutine that awaits one: whichever PE it is on, its wait is known. The value is cloned by
//! those who read it, under no lock.

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
use crate::promise::{Promise, PromiseFuture};
use crate::reply::CellRef;
use crate::waiting::What;

static HUB: EntryInfo =
    EntryInfo { chare: "a shared promise", name: "a shared promise", file: file!(), line: line!() };

/// A reading end that can be cloned, sent and awaited again; made by [`PromiseFuture::shared`].
#[must_use = "futures do nothing unless polled"]
pub struct SharedFuture<T> {
    hub: Arc<Mutex<Hub<T>>>,
    /// What this reader waits for meanwhile.
    news: Option<Pending<()>>,
    at: &'static Location<'static>,
}

enum Hub<T> {
    Waiting(Vec<Promise<()>>),
    Ended(Arc<Result<T, CallError>>),
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
        let hub = Arc::new(Mutex::new(Hub::Waiting(Vec::new())));
        let at = Location::caller();
        let of_all = hub.clone();
        let pump = async move {
            let outcome = Arc::new(self.await);
            let before = std::mem::replace(&mut *lock(&of_all), Hub::Ended(outcome));
            if let Hub::Waiting(readers) = before {
                for reader in readers {
                    // One that has gone meanwhile needs no news.
                    let _ = reader.send(());
                }
            }
        };
        callback::start_forwarding(&HUB, pump);
        SharedFuture { hub, news: None, at }
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
            let (cell, at) =
                (current::on_pe("awaiting a promise", |pe| CellRef::new(pe, pe.cells.open())), self.at);
            let promise = Promise::new(cell, 1);
            self.news = Some(Pending::new(cell, What::Promise, at));
            let is_noted = match &mut *lock(&self.hub) {
                Hub::Waiting(readers) => {
                    readers.push(promise);
                    true
                }
                Hub::Ended(_) => false,
            };
            if !is_noted {
                self.news = None;
            }
        }
        if let Some(news) = &mut self.news {
            match news.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => self.news = None,
                Poll::Ready(Err(error)) => {
                    self.news = None;
                    return Poll::Ready(Err(error));
                }
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
