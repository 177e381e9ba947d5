//! Promises that have left their process.
//!
//! A promise that was made in this process and that others hold stands in [`Exports`], with the number of processes' ends out there. So it is
//! not broken while any of these may still fulfil it. An end elsewhere sends what it is given to the home of its cell, where the
//! promise counts it as if it had been given there. What comes when the promise has all that it takes is dropped: an end elsewhere knows only of
//! what it has sent itself, so nobody is to blame. But what a callback brings, which nobody sends, ends the job, as it does in one process.
//!
//! *Why none is forgotten, and none kept.* An end elsewhere counts for the process that it was copied by. Before an end is copied on to a third
//! process, a [`Retain`] goes home, which counts for the process that copies; when the last of an end is dropped in its process, a [`Release`],
//! which says whose copy it was. The two take different ways, so a count may be below zero for a while; then it is not zero, and the
//! promise stays. A process sends its retains before the release of its own end, and both by one way: so while a retain of it is under
//! way, its own end is counted. By one way goes what one PE sends; several PEs may hold an end between them, and what one of them has sent may
//! still lie there, waiting for device memory, when another one drops the last. So values, errors and retains keep an [`End`] until they are on their way.
//! All counts are zero only when nobody elsewhere has an end. What is encoded once for many PEs counts for each
//! of them, before it is sent; what is encoded and then not sent, for none.
//!
//! *What is dropped unread.* An end on its way counts, so it must be read, or given back. What is decoded where its type is known may find
//! that nobody there knows it any more: an outcome whose future is gone, a value for a chare that has ended. So such parts of messages say which ends are
//! in them ([`Unread`]), unless there are none, and dropping a part that was not read releases these. A part that a chare takes along unread moves as it
//! lies, and its ends count as they did: until the chare has left, what is here has them; from then on what is under way has.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::kind::{Arrives, Kind, Leaves, Unsent};
use super::{Codec, Decoder, Encode, Encoder, Rest, Stays, Wire, WireError};
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::promise::Promise;
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::wire;

/// The promises of one process that others hold.
#[derive(Default)]
pub(crate) struct Exports(Mutex<FxHashMap<(PeId, u64), Export>>);

struct Export {
    /// Ends in other processes, by the ranks that have copied them there; none that is zero.
    counts: FxHashMap<u32, i64>,
    promise: Box<dyn Exported>,
}

impl Export {
    fn count(&mut self, by: u32, more: i64) {
        let count = self.counts.entry(by).or_default();
        *count += more;
        if *count == 0 {
            self.counts.remove(&by);
        }
    }
}

/// An end of a promise of whatever type, so that there is one.
pub(crate) type End = Arc<dyn Any + Send + Sync>;

/// A promise of which an end was encoded.
pub(crate) struct Copied {
    cell: CellRef,
    /// The rank that it counts for.
    by: u32,
    /// The one that was copied, if the promise is of another process.
    end: Option<End>,
}

/// The ends of promises in what was encoded and is not read yet. If that is dropped, they are given back.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Unread(Option<Box<[Counted]>>);

/// The promise of an end, and the rank that the end counts for.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Counted {
    cell: CellRef,
    by: u32,
}

impl Unread {
    #[inline]
    fn of(promises: &[Copied]) -> Self {
        let count = |&Copied { cell, by, .. }: &Copied| Counted { cell, by };
        Unread((!promises.is_empty()).then(|| promises.iter().map(count).collect()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// They belong to whoever reads what they are in, or sends it on.
    #[inline]
    pub(super) fn go_on(mut self) {
        self.0 = None;
    }
}

impl Drop for Unread {
    #[inline]
    fn drop(&mut self) {
        for Counted { cell, by } in self.0.take().into_iter().flatten() {
            cell.post(Msg::for_pe(Release { key: cell.key, by }));
        }
    }
}

/// What an end elsewhere knows.
pub(crate) struct Away<T> {
    /// How its values leave the process.
    pub(crate) encode: Encode<T>,
    /// The rank that has copied it.
    pub(crate) by: u32,
}

/// A promise whose type is known where its values arrive.
trait Exported: Send {
    fn fulfil(&self, is_brought: bool, from: &mut Decoder<'_>) -> Result<(), WireError>;
    fn fail(&self, error: CallError);
    fn share(&self) -> Box<dyn Exported>;
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
}

struct ExportedBy<T: 'static>(Promise<T>, &'static Codec<T>);

impl<T: Send + 'static> Exported for ExportedBy<T> {
    fn fulfil(&self, is_brought: bool, from: &mut Decoder<'_>) -> Result<(), WireError> {
        let value = (self.1.decode)(from)?;
        if is_brought {
            self.0.bring(value);
        } else {
            // Its sender has gone on long ago, and may not have cared whether another one was first.
            drop(self.0.send(value));
        }
        Ok(())
    }

    fn fail(&self, error: CallError) {
        self.0.fail(error);
    }

    fn share(&self) -> Box<dyn Exported> {
        Box::new(ExportedBy(self.0.clone(), self.1))
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.0)
    }
}

impl Exports {
    fn lock(&self) -> MutexGuard<'_, FxHashMap<(PeId, u64), Export>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one end more in other processes.
    fn retain(&self, cell: CellRef, by: u32, promise: impl FnOnce() -> Box<dyn Exported>) {
        let mut exports = self.lock();
        let export = exports.entry((cell.pe, cell.key));
        export.or_insert_with(|| Export { counts: FxHashMap::default(), promise: promise() }).count(by, 1);
    }

    /// Counts more ends of a promise that is out.
    fn retain_known(&self, pe: PeId, key: u64, by: u32, ends: u32) {
        self.lock().entry((pe, key)).and_modify(|export| export.count(by, ends.into()));
    }

    /// The promise, if it is out.
    fn find(&self, pe: PeId, key: u64) -> Option<Box<dyn Exported>> {
        self.lock().get(&(pe, key)).map(|export| export.promise.share())
    }

    /// Counts one end less; the caller drops what comes back without a lock.
    fn release(&self, pe: PeId, key: u64, by: u32) -> Option<Export> {
        let mut exports = self.lock();
        let export = exports.get_mut(&(pe, key))?;
        export.count(by, -1);
        if export.counts.is_empty() { exports.remove(&(pe, key)) } else { None }
    }
}

impl Pe {
    /// Lets `encode` encode what so many PEs will decode, and brings the promises of which there are ends in it. These count for each
    /// of the PEs, and for none if it fails.
    pub(crate) fn encode_for<E>(
        &self,
        pes: usize,
        encode: impl FnOnce() -> Result<(), E>,
    ) -> Result<Vec<Copied>, E> {
        let (encoded, promises) = self.crossing.noting_promises(encode);
        match encoded {
            Ok(()) if pes > 1 => self.copy_promises(&promises, pes as u32 - 1),
            Ok(()) => {}
            Err(_) => self.take_back_promises(&promises),
        }
        encoded.map(|()| promises)
    }

    /// As `encode_for` one PE, where nobody asks for the promises.
    #[inline]
    pub(crate) fn encode<E>(&self, encode: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        let first = self.crossing.noted_promises();
        let encoded = encode();
        if self.crossing.noted_promises() > first {
            self.end_encoding(first, encoded.is_ok());
        }
        encoded
    }

    #[cold]
    fn end_encoding(&self, first: usize, is_ok: bool) {
        let promises = self.crossing.take_promises(first);
        if !is_ok {
            self.take_back_promises(&promises);
        }
    }

    /// Lets `encode` encode a part of a message, and brings the ends of promises in it. They are also in the message.
    #[inline]
    pub(super) fn encode_part<E>(&self, encode: impl FnOnce() -> Result<(), E>) -> Result<Unread, E> {
        let promises = self.encode_for(1, encode)?;
        let ends = Unread::of(&promises);
        self.crossing.note_promises(promises);
        Ok(ends)
    }

    /// Ends of these promises were encoded once, and will be decoded so many times more.
    fn copy_promises(&self, copied: &[Copied], ends: u32) {
        for Copied { cell, by, end } in copied {
            self.retain(*cell, *by, ends, end.clone());
        }
    }

    /// Counts more ends of a promise that is out, which were copied from `end` if that is of another process.
    fn retain(&self, CellRef { pe, key, .. }: CellRef, by: u32, ends: u32, end: Option<End>) {
        if self.is_near(pe) {
            self.dealings().exports.retain_known(pe, key, by, ends);
        } else {
            self.post(pe, Msg::for_pe(Retain { key, by, ends, end }));
        }
    }

    /// Ends of these promises were encoded, but are not sent.
    pub(super) fn take_back_promises(&self, copied: &[Copied]) {
        for &Copied { cell: CellRef { pe, key, .. }, by, .. } in copied {
            if self.is_near(pe) {
                drop(self.dealings().exports.release(pe, key, by));
            } else {
                self.post(pe, Msg::for_pe(Release { key, by }));
            }
        }
    }
}

/// A promise in transit.
#[derive(Serialize, Deserialize)]
struct Form {
    cell: CellRef,
    expected: usize,
    /// The rank that has copied it.
    by: u32,
}

impl<T: Send + 'static> Promise<T> {
    /// Lets an end leave the process; its values come back by the codec of promises that goes with `codec`.
    fn form(&self, codec: &'static Codec<T>) -> Result<Form, Stays> {
        let inner = &*self.0;
        let (cell, expected) = (inner.cell, inner.expected);
        current::on_pe("sending a promise to another process", |pe| {
            if cell.run != pe.run() {
                return Err(Stays::new(
                    "the promise was made in another run; use promises in the run that made them",
                ));
            }
            let by = pe.rank.0;
            let end = inner.away.is_some().then(|| self.0.clone() as End);
            if end.is_some() {
                pe.retain(cell, by, 1, end.clone());
            } else {
                let promise = || Box::new(ExportedBy(self.clone(), codec.of_promises())) as Box<dyn Exported>;
                pe.dealings().exports.retain(cell, by, promise);
            }
            pe.crossing.note_promises([Copied { cell, by, end }]);
            Ok(Form { cell, expected, by })
        })
    }

    /// An end that came from another process.
    fn of_form(Form { cell, expected, by }: Form, codec: &Codec<T>) -> Self {
        let known = current::pe(|pe| {
            let exports = &pe?.dealings().exports;
            let known = exports.find(cell.pe, cell.key)?;
            drop(exports.release(cell.pe, cell.key, by));
            known.into_any().downcast::<Promise<T>>().ok()
        });
        known.map_or_else(
            || Promise::made(cell, expected, Some(Away { encode: codec.of_promises().encode, by })),
            |promise| *promise,
        )
    }

    pub(crate) fn encode(&self, to: &mut Encoder, codec: &'static Codec<T>) -> Result<(), Stays> {
        to.put_own(&self.form(codec)?);
        Ok(())
    }

    pub(crate) fn decode(from: &mut Decoder<'_>, codec: &Codec<T>) -> Result<Self, WireError> {
        from.take().map(|form| Promise::of_form(form, codec))
    }
}

impl<T: Wire> Serialize for Promise<T> {
    /// # Errors
    /// Anywhere but in a message of its run.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        wire::serialize_own(serializer, |to| self.encode(to, Codec::by_serde()))
    }
}

impl<'de, T: Wire> Deserialize<'de> for Promise<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        wire::deserialize_own(deserializer, |from| Promise::decode(from, Codec::by_serde()))
    }
}

/// A value on its way from an end elsewhere to its promise.
pub(crate) struct Value<T> {
    pub(crate) end: Promise<T>,
    pub(crate) value: T,
    /// By a callback: nobody could be told if it is one too many.
    pub(crate) is_brought: bool,
    pub(crate) encode: Encode<T>,
}

impl<T: Send + 'static> Value<T> {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Value { end: Promise(end), value, is_brought, encode } = self;
        to.put_own(&(end.cell.key, is_brought));
        to.ends.push(end);
        Ok(encode(value, to)?)
    }
}

impl<T: Send + 'static> Payload for Value<T> {
    const NAME: Name = Name::Runtime("the value of a promise");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Fulfil, Self::leave);
    fn run(self, _: ChareId, _: Reply, _: &Pe) {
        unreachable!("it is for a PE of another process")
    }
}

/// The value as it arrives.
pub(crate) struct Fulfil {
    key: u64,
    is_brought: bool,
    rest: Rest,
}

impl Arrives for Fulfil {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (key, is_brought) = from.take()?;
        Ok(Fulfil { key, is_brought, rest: from.take_rest() })
    }
}

impl Payload for Fulfil {
    const NAME: Name = Name::Runtime("the value of a promise");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let Fulfil { key, is_brought, rest } = self;
        let Some(promise) = pe.dealings().exports.find(pe.id(), key) else { return };
        if let Err(error) = rest.decode(|rest| promise.fulfil(is_brought, rest)) {
            pe.received_nonsense(&error);
        }
    }
}

/// An error for a promise, from an end elsewhere.
pub(crate) struct Fail {
    pub(crate) key: u64,
    pub(crate) error: CallError,
    /// Where it comes from.
    pub(crate) end: Option<End>,
}

impl Fail {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_own(&self.key);
        to.put_error(&self.error);
        to.ends.extend(self.end);
        Ok(())
    }
}

impl Arrives for Fail {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Fail { key: from.take()?, error: from.take_error()?, end: None })
    }
}

impl Payload for Fail {
    const NAME: Name = Name::Runtime("the error of a promise");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Fail, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        if let Some(promise) = pe.dealings().exports.find(pe.id(), self.key) {
            promise.fail(self.error);
        }
    }
}

/// An end elsewhere was copied to third processes.
#[derive(Serialize, Deserialize)]
pub(crate) struct Retain {
    key: u64,
    by: u32,
    ends: u32,
    /// The one that was copied, where it comes from.
    #[serde(skip)]
    end: Option<End>,
}

impl Retain {
    fn leave(mut self, to: &mut Encoder) -> Result<(), Unsent> {
        to.ends.extend(self.end.take());
        to.put_own(&self);
        Ok(())
    }
}

impl Payload for Retain {
    const NAME: Name = Name::Runtime("an end of a promise");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Retain, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.dealings().exports.retain_known(pe.id(), self.key, self.by, self.ends);
    }
}

/// All ends of a promise are gone in another process.
#[derive(Serialize, Deserialize)]
pub(crate) struct Release {
    pub(crate) key: u64,
    pub(crate) by: u32,
}

impl Payload for Release {
    const NAME: Name = Name::Runtime("the end of an end of a promise");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Release);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        drop(pe.dealings().exports.release(pe.id(), self.key, self.by));
    }
}
