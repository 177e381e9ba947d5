//! Promises: the writing end is sent anywhere and cloned at will, the reading end is a future where it was made.
//!
//! The clones in a process share one count of values to come and one reference count; the last clone that goes while
//! values are missing breaks the promise.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use crate::answer::{After, Sink};
use crate::current;
use crate::error::{CallError, Fulfilled};
use crate::message::Msg;
use crate::pending::{Pending, pending_future};
use crate::reply::{self, CellRef, UNKNOWN};
use crate::scheduler::pe::Pe;
use crate::wire::{Away, Fail, Release, Value};

/// The writing end of a value, or of several, to come.
pub struct Promise<T>(pub(crate) Arc<Inner<T>>);

pub(crate) struct Inner<T> {
    pub(crate) cell: CellRef,
    pub(crate) expected: usize,
    missing: AtomicUsize,
    /// If the promise was made in another process.
    pub(crate) away: Option<Away<T>>,
}

impl<T: Send + 'static> Promise<T> {
    pub(crate) fn new(cell: CellRef, expected: usize) -> Self {
        Promise::made(cell, expected, None)
    }

    /// A promise that was made here, or in another process to which its values go like this.
    pub(crate) fn made(cell: CellRef, expected: usize, away: Option<Away<T>>) -> Self {
        let missing = AtomicUsize::new(expected);
        Promise(Arc::new(Inner { cell, expected, missing, away }))
    }

    /// Fulfils the promise, or brings one of its values. Returns at once; works on the PEs of its run and on any thread
    /// that has entered it.
    ///
    /// # Errors
    /// [`Fulfilled`] with the value if it is known to have all its values (or to have failed). That is known in the process where it was made. An
    /// end in another process knows of what was given to it and its clones there: a value that comes too late from it is dropped.
    ///
    /// # Panics
    /// On a thread that has not entered the promise's run: a program that waits for such a thread would count as hanging.
    #[track_caller]
    pub fn send(&self, value: T) -> Result<(), Fulfilled<T>> {
        self.take(value, false)
    }

    /// As [`Promise::send`], in the name of nobody who could be told: one that comes too late ends the job, wherever that is found out.
    #[track_caller]
    pub(crate) fn bring(&self, value: T) {
        if let Err(Fulfilled { expected, .. }) = self.take(value, true) {
            current::on_pe("a callback", |pe| pe.unawaited(CallError::Fulfilled { expected }));
        }
    }

    #[track_caller]
    fn take(&self, value: T, is_brought: bool) -> Result<(), Fulfilled<T>> {
        current::require(self.0.cell.run);
        let inner = &*self.0;
        if !self.has_room() {
            return Err(Fulfilled::new(inner.expected, value));
        }
        match &inner.away {
            None => reply::send_answer_from_anywhere(inner.cell, Ok(value)),
            Some(Away { encode, .. }) => {
                inner.cell.post(Msg::for_pe(Value { end: self.clone(), value, is_brought, encode: *encode }));
            }
        }
        Ok(())
    }

    /// Counts one value more; false if there are enough.
    fn has_room(&self) -> bool {
        // Relaxed: the count only decides who may send; the values travel by message.
        let missing = &self.0.missing;
        missing.try_update(Ordering::Relaxed, Ordering::Relaxed, |missing| missing.checked_sub(1)).is_ok()
    }

    /// Breaks the promise: the reader gets `error`. Does nothing if all values have been sent, also if that is found out only where
    /// it was made, in another process.
    ///
    /// # Panics
    /// On a thread that has not entered the promise's run.
    #[track_caller]
    pub fn fail(&self, error: CallError) {
        current::require(self.0.cell.run);
        let Inner { cell, missing, away, .. } = &*self.0;
        if missing.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        match away {
            None => reply::refuse_from_anywhere(*cell, error),
            Some(_) => cell.post(Msg::for_pe(Fail { key: cell.key, error, end: Some(self.0.clone()) })),
        }
    }
}

impl<T> Drop for Inner<T> {
    fn drop(&mut self) {
        if let Some(Away { by, .. }) = self.away {
            self.cell.post(Msg::for_pe(Release { key: self.cell.key, by }));
        } else if *self.missing.get_mut() > 0 {
            reply::refuse_from_anywhere(self.cell, CallError::BrokenPromise);
        }
    }
}

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Promise(self.0.clone())
    }
}

impl<T> PartialEq for Promise<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0.cell == other.0.cell
    }
}

impl<T> Eq for Promise<T> {}

impl<T> std::fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let missing = self.0.missing.load(Ordering::Relaxed);
        write!(f, "Promise({missing} of {} values missing)", self.0.expected)
    }
}

/// The reading end of a promise of one value.
#[must_use = "futures do nothing unless polled"]
pub struct PromiseFuture<T: Send + 'static>(pub(crate) Pending<T>);

pending_future!(PromiseFuture<T>, Result<T, CallError>);

/// The reading end of a promise of several values: all of them, in order of arrival.
#[must_use = "futures do nothing unless polled"]
pub struct PromisesFuture<T: Send + 'static>(pub(crate) Pending<Vec<T>>);

pending_future!(PromisesFuture<T>, Result<Vec<T>, CallError>);

/// Collects the values of a promise of several; the first error ends it.
pub(crate) struct Several<T> {
    pub(crate) missing: usize,
    pub(crate) values: Vec<T>,
}

impl<T: Send + 'static> Sink<T> for Several<T> {
    fn take(&mut self, pe: &Pe, _: u64, outcome: Result<T, CallError>) -> After {
        match outcome {
            Ok(value) => self.values.push(value),
            Err(error) => return self.refuse(pe, UNKNOWN, error),
        }
        self.missing -= 1;
        if self.missing > 0 { After::Open } else { After::ready(std::mem::take(&mut self.values), None) }
    }

    fn refuse(&mut self, _: &Pe, _: u64, error: CallError) -> After {
        After::Refused(error, false)
    }

    fn settle(&mut self, _: &Pe, _: u64) -> After {
        unreachable!("every value of a promise matters")
    }
}
