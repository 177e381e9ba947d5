//! Callbacks: places that a value can be delivered to. Small, cloneable, sent like any value.

use std::future::Future;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::broadcast::{self, Audience};
use crate::call;
use crate::caught::{Caught, PanicPayload};
use crate::current::{self, Here};
use crate::entry::{Entry, EntryInfo};
use crate::error::{CallError, Fulfilled};
use crate::ids::{ChareId, CollectionId, PeId, RunId};
use crate::message::Msg;
use crate::priority::Rank;
use crate::promise::Promise;
use crate::proxy::{Element, FromCallback, OUTSIDE};
use crate::reply::Reply;
use crate::runtime::Runtime;
use crate::scheduler::pe::Pe;
use crate::scheduler::task;
use crate::table::{CodeId, Row};
use crate::wire::{self, Codec, Decoder, Encode, Encoder, Kind, Rest, Stays, Wire, WireError};

/// A place for a value of type `T`: a promise, an entry method of one chare or of a whole collection, the end of the
/// program, or nowhere.
pub struct Callback<T>(To<T>);

enum To<T> {
    Promise(Promise<T>),
    /// The index, as users write it, is there if it is outside of its array.
    Element(RunId, ChareId, Option<Arc<str>>, ToElement<T>),
    Collection(RunId, CollectionId, ToCollection<T>),
    /// An entry that is known by its number, as another process has told.
    Coded(RunId, Place, &'static Row, Encode<T>),
    /// Of the run that it was made in; of the one that delivers it, if it was made in none.
    Exit(Option<RunId>),
    Ignore,
}

/// An entry of an element. A callback is cloned for each element of a broadcast: one function does all, in one word.
type ToElement<T> = fn(Ask<(RunId, ChareId, Option<&Arc<str>>), T>) -> Option<CodeId>;
/// An entry of all elements of a collection.
type ToCollection<T> = fn(Ask<(RunId, CollectionId), T>) -> Option<CodeId>;

/// What the function of an entry is asked for.
enum Ask<A, T> {
    /// To send a value.
    Send(A, T),
    /// The number of the entry.
    Code,
}

/// A chare, or all of a collection.
#[derive(Clone, Copy, Serialize, Deserialize)]
enum Place {
    Element(ChareId),
    Collection(CollectionId),
}

/// A callback in transit.
#[derive(Serialize, Deserialize)]
enum Form {
    /// What follows is the promise.
    Promise,
    Entry(Place, CodeId),
    Exit,
    Ignore,
}

const _: () = assert!(size_of::<Callback<u64>>() <= 48, "callbacks are moved with each contribution");

/// Whether what was encoded is the end of a promise, which counts for its home until it is read.
pub(crate) fn is_end_of_promise(encoded: &Rest) -> bool {
    encoded.peek(|from| matches!(from.take(), Ok(Form::Promise)))
}

impl<T: Send + 'static> Callback<T> {
    /// Lets it leave the process; its values come back by `codec`.
    pub(crate) fn encode(&self, to: &mut Encoder, codec: &'static Codec<T>) -> Result<(), Stays> {
        if let To::Element(run, ..) | To::Collection(run, ..) | To::Coded(run, ..) | To::Exit(Some(run)) =
            &self.0
            && *run != current::run_or_none()
        {
            return Err(Stays::new(
                "the callback was made in another run; use callbacks in the run that made them",
            ));
        }
        let form = match &self.0 {
            To::Promise(promise) => {
                to.put_own(&Form::Promise);
                return promise.encode(to, codec);
            }
            To::Element(_, _, Some(outside), _) => {
                return Err(Stays::new(format!(
                    "the callback is to an element that does not exist, {outside}"
                )));
            }
            To::Element(_, id, None, entry) => Form::Entry(Place::Element(*id), named(entry(Ask::Code))?),
            To::Collection(_, id, entry) => Form::Entry(Place::Collection(*id), named(entry(Ask::Code))?),
            To::Coded(_, place, row, _) => Form::Entry(*place, row.id()),
            To::Exit(_) => Form::Exit,
            To::Ignore => Form::Ignore,
        };
        to.put_own(&form);
        Ok(())
    }

    /// One that came from another process.
    pub(crate) fn decode(from: &mut Decoder<'_>, codec: &Codec<T>) -> Result<Self, WireError> {
        let run = current::run_or_none();
        Ok(Callback(match from.take()? {
            Form::Promise => To::Promise(Promise::decode(from, codec)?),
            Form::Entry(place, code) => To::Coded(run, place, Row::find(code)?, codec.encode),
            Form::Exit => To::Exit(Some(run)),
            Form::Ignore => To::Ignore,
        }))
    }

    pub(crate) fn to_element<E>(element: Element<E::Chare>) -> Self
    where
        E: Entry,
        E::Args: FromCallback<T>,
    {
        let outside = (element.id().element == OUTSIDE).then(|| format!("[{:?}]", element.index()).into());
        let entry: ToElement<T> = |ask| {
            let Ask::Send((run, id, outside), value) = ask else { return E::code() };
            let index = || outside.map_or("[..]", |index| &**index).to_owned();
            let args = E::Args::from_callback(value);
            call::dispatch_to_id::<E>(run, id, args, Reply::none(), E::RANK, index);
            None
        };
        Callback(To::Element(element.run(), element.id(), outside, entry))
    }

    pub(crate) fn to_collection<E>(run: RunId, collection: CollectionId) -> Self
    where
        E: Entry,
        E::Args: FromCallback<T> + Clone,
    {
        let entry: ToCollection<T> = |ask| {
            let Ask::Send((run, id), value) = ask else { return E::code() };
            broadcast::send::<E>(Audience::all(run, id), E::Args::from_callback(value), E::RANK, None);
            None
        };
        Callback(To::Collection(run, collection, entry))
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
            To::Element(run, id, outside, entry) => {
                entry(Ask::Send((*run, *id, outside.as_ref()), value));
            }
            To::Collection(run, id, entry) => {
                entry(Ask::Send((*run, *id), value));
            }
            To::Coded(run, place, row, encode) => send_coded(*run, *place, row, *encode, value),
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
        match &self.0 {
            To::Promise(promise) => promise.bring(value),
            // Only promises take no more than so many.
            _ => drop(self.deliver(value)),
        }
    }

    /// Reports that there will be no value: a promise breaks with the error; elsewhere the job ends with a report.
    pub(crate) fn fail(self, error: CallError) {
        match self.0 {
            To::Promise(promise) => promise.fail(error),
            To::Ignore => {}
            To::Element(..) | To::Collection(..) | To::Coded(..) | To::Exit(_) => {
                current::on_pe("a callback", |pe| pe.unawaited(error));
            }
        }
    }
}

fn named(code: Option<CodeId>) -> Result<CodeId, Stays> {
    code.ok_or_else(|| {
        Stays::new(
            "the callback is to an entry of a generic chare, which has no number in the table of the program: list its types, \
             `#[chare(types = [..])]`",
        )
    })
}

/// Sends a value to an entry that is known by its number: the arguments are made of the value's bytes.
fn send_coded<T: 'static>(run: RunId, place: Place, row: &'static Row, encode: Encode<T>, value: T) {
    current::require(run);
    let msg = coded(place, row, encode, value);
    current::here(|here| match (here, msg) {
        (Here::Pe(pe), Err(why)) => pe.unawaited(CallError::Refused(why.to_string().into())),
        (Here::Foreign(shared), Err(why)) => {
            shared.unawaited_at(shared.first_pe(), CallError::Refused(why.to_string().into()));
        }
        (Here::Pe(pe), Ok((msg, None))) => pe.send_ranked(Rank::Normal, msg),
        (Here::Pe(pe), Ok((msg, Some(root)))) => pe.post(root, msg),
        (Here::Foreign(shared), Ok((msg, None))) => shared.send_foreign(Rank::Normal, msg),
        (Here::Foreign(shared), Ok((msg, Some(root)))) => shared.post_foreign(root, msg),
        (Here::Nowhere, _) => call::nowhere(),
    });
}

/// The message, and the PE that it is for if it is for a collection.
fn coded<T: 'static>(
    place: Place,
    row: &'static Row,
    encode: Encode<T>,
    value: T,
) -> Result<(Msg, Option<PeId>), Stays> {
    let mut encoder = Encoder::default();
    let nonsense =
        |error: WireError| Stays::new(format!("a callback's value does not fit its entry: {error}"));
    // It is read here: what is counted for promises in it is taken back then.
    current::pe(|pe| match pe {
        Some(pe) => pe.encode(|| encode(value, &mut encoder)),
        None => encode(value, &mut encoder),
    })?;
    match place {
        Place::Element(id) => {
            Reply::none().leave(&mut encoder);
            Ok((encoder.reread(|from| row.decode(Kind::Call, id, from)).map_err(nonsense)?, None))
        }
        Place::Collection(id) => {
            let args = encoder.reread(|from| broadcast::Args::decode_of(row, from)).map_err(nonsense)?;
            Ok((broadcast::to_number(id, args), Some(id.root())))
        }
    }
}

impl<T: Wire> Serialize for Callback<T> {
    /// # Errors
    /// Anywhere but in a message of its run.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        wire::serialize_own(serializer, |to| self.encode(to, Codec::by_serde()))
    }
}

impl<'de, T: Wire> Deserialize<'de> for Callback<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        wire::deserialize_own(deserializer, |from| Callback::decode(from, Codec::by_serde()))
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
            To::Element(run, id, outside, entry) => To::Element(*run, *id, outside.clone(), *entry),
            To::Collection(run, id, entry) => To::Collection(*run, *id, *entry),
            To::Coded(run, place, row, encode) => To::Coded(*run, *place, row, *encode),
            To::Exit(run) => To::Exit(*run),
            To::Ignore => To::Ignore,
        })
    }
}

impl<T> std::fmt::Debug for Callback<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match &self.0 {
            To::Promise(_) => "Callback to a promise",
            To::Element(..) | To::Coded(_, Place::Element(_), ..) => "Callback to an entry",
            To::Collection(..) | To::Coded(_, Place::Collection(_), ..) => "Callback to a collection",
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
