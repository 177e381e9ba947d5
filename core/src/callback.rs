//! Callbacks: places that a value can be delivered to. Small, cloneable, sent like any value.

use std::any::Any;
use std::future::Future;
use std::sync::Arc;

use crate::broadcast::{self, Audience};
use crate::call;
use crate::caught::{Caught, PanicPayload};
use crate::current;
use crate::entry::{Entry, EntryInfo};
use crate::error::{CallError, Fulfilled};
use crate::ids::{ChareId, CollectionId, RunId};
use crate::promise::Promise;
use crate::proxy::{Element, FromCallback, OUTSIDE};
use crate::reply::{AnyCallback, Reply};
use crate::runtime::Runtime;
use crate::scheduler::pe::Pe;
use crate::scheduler::task;

/// A place for a value of type `T`: a promise, an entry method of one chare or of a whole collection, the end of the
/// program, or nowhere.
pub struct Callback<T>(To<T>);

enum To<T> {
    Promise(Promise<T>),
    /// The function knows the entry; the index, as users write it, is there if it is outside of its array.
    Element(RunId, ChareId, Option<Arc<str>>, fn(RunId, ChareId, Option<&Arc<str>>, T)),
    /// The function knows the entry.
    Collection(RunId, CollectionId, fn(RunId, CollectionId, T)),
    /// Of the run that it was made in; of the one that delivers it, if it was made in none.
    Exit(Option<RunId>),
    Ignore,
}

impl<T: Send + 'static> Callback<T> {
    pub(crate) fn to_element<E>(element: Element<E::Chare>) -> Self
    where
        E: Entry,
        E::Args: FromCallback<T>,
    {
        let outside = (element.id().element == OUTSIDE).then(|| format!("[{:?}]", element.index()).into());
        Callback(To::Element(element.run(), element.id(), outside, |run, id, outside, value| {
            let index = || outside.map_or("[..]", |index| &**index).to_owned();
            let args = E::Args::from_callback(value);
            call::dispatch_to_id::<E>(run, id, args, Reply::none(), E::RANK, index);
        }))
    }

    pub(crate) fn to_collection<E>(run: RunId, collection: CollectionId) -> Self
    where
        E: Entry,
        E::Args: FromCallback<T> + Clone,
    {
        Callback(To::Collection(run, collection, |run, id, value| {
            broadcast::send::<E>(Audience::all(run, id), E::Args::from_callback(value), E::RANK, None);
        }))
    }

    /// Delivery ends the run that this is made in with exit code 0. Made on a thread that has entered no run, it ends the
    /// run that it is delivered in.
    pub fn exit() -> Self {
        Callback(To::Exit(current::run()))
    }

    /// The value is dropped, and so is the error that came instead of one.
    pub fn ignore() -> Self {
        Callback(To::Ignore)
    }

    /// Delivers a value. Returns at once.
    ///
    /// # Errors
    /// [`Fulfilled`] with the value, if it is for a promise that has all its values.
    ///
    /// # Panics
    /// On a thread that has not entered the run.
    #[track_caller]
    pub fn deliver(&self, value: T) -> Result<(), Fulfilled<T>> {
        match &self.0 {
            To::Promise(promise) => promise.send(value)?,
            To::Element(run, id, outside, send) => send(*run, *id, outside.as_ref(), value),
            To::Collection(run, id, send) => send(*run, *id, value),
            To::Exit(run) => {
                run.iter().for_each(|run| current::require(*run));
                Runtime::here().exit(0);
            }
            To::Ignore => {}
        }
        Ok(())
    }

    /// Delivers a value in the name of nobody who could be told that it is one too many: that ends the job.
    pub(crate) fn bring(&self, value: T) {
        if let Err(Fulfilled { expected, .. }) = self.deliver(value) {
            current::on_pe("a callback", |pe| pe.unawaited(CallError::Fulfilled { expected }));
        }
    }

    /// Reports that there will be no value: a promise breaks with the error; elsewhere the job ends with a report.
    pub(crate) fn fail(self, error: CallError) {
        match self.0 {
            To::Promise(promise) => promise.fail(error),
            To::Ignore => {}
            To::Element(..) | To::Collection(..) | To::Exit(_) => {
                current::on_pe("a callback", |pe| pe.unawaited(error));
            }
        }
    }
}

impl<T: Send + 'static> AnyCallback for Callback<T> {
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
    fn fail(self: Box<Self>, error: CallError) {
        Callback::fail(*self, error);
    }
}

impl<T: Send + 'static> From<Promise<T>> for Callback<T> {
    fn from(promise: Promise<T>) -> Self {
        Callback(To::Promise(promise))
    }
}

impl<T: Send + 'static> From<&Promise<T>> for Callback<T> {
    fn from(promise: &Promise<T>) -> Self {
        Callback(To::Promise(promise.clone()))
    }
}

impl<T> Clone for Callback<T> {
    fn clone(&self) -> Self {
        Callback(match &self.0 {
            To::Promise(promise) => To::Promise(promise.clone()),
            To::Element(run, id, outside, send) => To::Element(*run, *id, outside.clone(), *send),
            To::Collection(run, id, send) => To::Collection(*run, *id, *send),
            To::Exit(run) => To::Exit(*run),
            To::Ignore => To::Ignore,
        })
    }
}

impl<T> std::fmt::Debug for Callback<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            To::Promise(_) => "Callback to a promise",
            To::Element(..) => "Callback to an entry",
            To::Collection(..) => "Callback to a collection",
            To::Exit(_) => "Callback to the end of the program",
            To::Ignore => "Callback to nowhere",
        })
    }
}

static FORWARD: EntryInfo =
    EntryInfo { chare: "a callback", name: "a callback", file: "made by `.to(..)`", line: 0 };

/// Brings the outcome of a future to a callback, when it is there.
///
/// # Panics
/// On a thread that is not a PE.
pub(crate) fn deliver_later<T: Send + 'static>(
    future: impl Future<Output = Result<T, CallError>> + Send + 'static,
    callback: Callback<T>,
) {
    let forward = async move {
        match future.await {
            Ok(value) => callback.bring(value),
            Err(error) => callback.fail(error),
        }
    };
    start_forwarding(&FORWARD, forward);
}

/// Starts a coroutine of the runtime that brings something to where it belongs.
///
/// # Panics
/// On a thread that is not a PE.
#[track_caller]
pub(crate) fn start_forwarding(info: &'static EntryInfo, forward: impl Future<Output = ()> + Send + 'static) {
    current::on_pe("a callback", |pe| {
        let ended = |pe: &Pe, outcome: Result<(), PanicPayload>| {
            // A destructor of the value, or what the place does with it: there is nobody else to tell.
            if let Err(panic) = outcome {
                pe.tell(&Caught::new(pe, panic));
            }
        };
        task::start_later(pe, info, forward, ended);
    });
}
