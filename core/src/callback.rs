//! Callbacks: places that a value can be delivered to. Small, cloneable, sent like any value.

use std::any::Any;

use crate::broadcast;
use crate::call;
use crate::current;
use crate::entry::Entry;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId};
use crate::promise::Promise;
use crate::proxy::{Element, FromCallback};
use crate::reply::{AnyCallback, Reply};
use crate::runtime::Runtime;

/// A place for a value of type `T`: a promise, an entry method of one chare or of a whole collection, the end of the
/// program, or nowhere.
pub struct Callback<T>(To<T>);

enum To<T> {
    Promise(Promise<T>),
    /// The index is in the `ChareId`; the function knows the entry.
    Element(ChareId, fn(ChareId, T)),
    Collection(CollectionId, fn(CollectionId, T)),
    Exit,
    Ignore,
}

impl<T: Send + 'static> Callback<T> {
    pub(crate) fn to_element<E>(element: Element<E::Chare>) -> Self
    where
        E: Entry,
        E::Args: FromCallback<T>,
    {
        Callback(To::Element(element.id(), |id, value| {
            call::dispatch_to_id::<E>(id, E::Args::from_callback(value), Reply::none());
        }))
    }

    pub(crate) fn to_collection<E>(collection: CollectionId) -> Self
    where
        E: Entry,
        E::Args: FromCallback<T> + Clone,
    {
        Callback(To::Collection(collection, |id, value| {
            broadcast::send::<E>(id, E::Args::from_callback(value), None);
        }))
    }

    /// Delivery ends the program with exit code 0.
    pub fn exit() -> Self {
        Callback(To::Exit)
    }

    /// The value is dropped, and so is the error that came instead of one.
    pub fn ignore() -> Self {
        Callback(To::Ignore)
    }

    /// Delivers a value. Returns at once. A promise that is fulfilled already drops it.
    pub fn deliver(&self, value: T) {
        match &self.0 {
            // A second value for a promise has nobody to be given back to.
            To::Promise(promise) => drop(promise.send(value)),
            To::Element(id, send) => send(*id, value),
            To::Collection(id, send) => send(*id, value),
            To::Exit => Runtime::here().exit(0),
            To::Ignore => {}
        }
    }

    /// Reports that there will be no value: a promise breaks with the error; elsewhere the job ends with a report.
    pub(crate) fn fail(self, error: CallError) {
        match self.0 {
            To::Promise(promise) => promise.fail(error),
            To::Ignore => {}
            To::Element(..) | To::Collection(..) | To::Exit => {
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
            To::Element(id, send) => To::Element(*id, *send),
            To::Collection(id, send) => To::Collection(*id, *send),
            To::Exit => To::Exit,
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
            To::Exit => "Callback to the end of the program",
            To::Ignore => "Callback to nowhere",
        })
    }
}
