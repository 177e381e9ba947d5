//! How messages leave their process: values as bytes, and large memory beside them.
//!
//! Inside of a process nothing here is used: a call moves its arguments by pointer. What goes to a PE of another process
//! is encoded by [`Encoder`] into a header, and buffers that travel from the memory in which they lie. `README.md` beside this file says
//! what a message looks like and how its types are found again.
//!
//! Invariants: what is encoded is consumed, so nothing is in two processes; what is decoded was checked, so a frame that is
//! truncated or flipped is a [`WireError`], never a wrong memory access.

#[cfg(feature = "ndarray")]
mod arrays;
mod beside;
mod codec;
mod count;
mod errors;
mod exports;
mod fixed;
mod ids;
mod kind;
mod known;
mod label;
mod local;
mod owned;
mod parcel;
mod plain;
mod probe;
mod proxies;
mod side;

use std::any::type_name;
use std::fmt;

use chare_transport::Rank;
use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::collection::Collection;
use crate::current;
use crate::guard::MOST_GUARDS;
use crate::ids::CollectionId;
use crate::reply::Reply;
use crate::report::Reason;
use crate::scheduler::pe::Pe;

pub(crate) use beside::{Beside, Pledge, Spoiled};
pub use codec::Codec;
pub(crate) use codec::{Encode, Way};
pub(crate) use count::count_buffers;
pub(crate) use errors::kept_entry;
pub(crate) use exports::{Away, End, Exports, Fail, Release, Unread, Value};
pub use kind::Kind;
pub(crate) use kind::{
    Arrives, Leaves, Unsent, decode_by_code, decode_call, decode_call_of, decode_message, misplaced,
    reply_of_call, take_row,
};
pub(crate) use label::Label;
pub use local::Local;
use owned::Owned;
pub(crate) use parcel::{Packed, Parcel};
pub use plain::{Bulk, Contiguous, bulk};
pub use probe::{Alone, CallsOf, Elements, Of, ways};
pub(crate) use side::Crossing;

/// Values that can be sent to another process: those with serde's `Serialize` and `Deserialize`.
///
/// Implemented for all of these. Arguments of entry methods need not have it, as long as they stay in their process; what goes
/// through channels and reductions does.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be sent to another process",
    note = "derive it: `#[derive(serde::Serialize, serde::Deserialize)]`; a value that always stays in its process goes in a \
            `chare::Local`"
)]
pub trait Wire: Serialize + Deserialize<'static> + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + Deserialize<'static> + Send + 'static> Wire for T {}

/// Why a value cannot leave its process.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Stays(Box<Text>);

/// What is wrong, behind one pointer: results of all that is encoded and decoded hold one, and are small for that.
#[derive(Clone, Debug)]
struct Text(String);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Stays {
    #[cold]
    pub(crate) fn new(why: impl Into<String>) -> Self {
        Stays(Box::new(Text(why.into())))
    }

    /// Of a type of chares that says nothing of how they travel.
    pub(crate) fn of_chare<C>() -> Self {
        Stays::new(format!(
            "serde does not know `{}`: derive `serde::Serialize` and `serde::Deserialize` for it",
            type_name::<C>()
        ))
    }

    /// Of a type that says nothing of how it travels.
    pub(crate) fn of<T>() -> Self {
        Stays::new(format!(
            "a value of type `{}` cannot be sent to another process: derive `serde::Serialize` and `serde::Deserialize` for it",
            type_name::<T>()
        ))
    }
}

/// What is wrong with bytes that came from another process.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct WireError(Box<Text>);

impl WireError {
    #[cold]
    pub(crate) fn new(what: impl Into<String>) -> Self {
        WireError(Box::new(Text(what.into())))
    }

    /// Of code whose messages stay in their process.
    pub(crate) fn stays(name: &str) -> Self {
        WireError::new(format!("{name} is not sent between processes"))
    }

    #[cold]
    fn of<T>(error: impl fmt::Display) -> Self {
        WireError::new(format!("what should be `{}` cannot be read: {error}", type_name::<T>()))
    }
}

/// Vectors up to this many bytes travel in the header: a buffer of its own costs more than the copy.
const INLINE_BYTES: usize = 256;
/// A frame has no more buffers than that. Of more, the host's memory goes in the header, and that of devices is packed (`job/packed`).
pub(crate) const MOST_BUFFERS: usize = 1000;
/// Messages inside of one another, for the sake of the stack where they are read. One with a rank may hold one that asks where its chare is, that a call
/// which waits for its turn, that its guards, and a chare that moves brings such calls; of all but guards that is far from so many.
const MOST_DEPTH: u32 = 16 + MOST_GUARDS;

/// Takes a message apart, for its way to another process.
#[derive(Default)]
pub struct Encoder {
    pub(crate) bytes: Vec<u8>,
    pub(crate) buffers: Vec<Beside>,
    /// What must not be gone before this is on its way.
    pub(crate) ends: Vec<End>,
    /// A value has gone in as it lies, and not as serde sees it.
    has_plain: bool,
}

impl Encoder {
    /// One that has memory for so many bytes.
    pub(crate) fn with_room(bytes: usize) -> Self {
        Encoder { bytes: Vec::with_capacity(bytes), ..Encoder::default() }
    }

    /// Forgets what it holds, and keeps its memory.
    #[inline(always)]
    fn clear(&mut self) {
        let Encoder { bytes, buffers, ends, has_plain } = self;
        bytes.clear();
        *has_plain = false;
        // Most have none.
        if !buffers.is_empty() {
            buffers.clear();
        }
        if !ends.is_empty() {
            ends.clear();
        }
    }

    /// Where it is now.
    pub(crate) fn mark(&self) -> Mark {
        Mark { bytes: self.bytes.len(), buffers: self.buffers.len() }
    }

    /// Takes back what was added since.
    pub(crate) fn rewind(&mut self, to: Mark) {
        self.bytes.truncate(to.bytes);
        self.buffers.truncate(to.buffers);
    }

    /// Adds a value as serde sees it, so that it can be taken as it is and read later.
    pub(crate) fn put_as_rest<T: Serialize + 'static>(&mut self, value: &T) -> Result<(), Stays> {
        let value = Rest::encoded(|inner| inner.put(value))?;
        self.put_rest(value);
        Ok(())
    }

    /// Adds what another one has encoded.
    pub(crate) fn append(&mut self, other: Encoder) {
        self.bytes.extend_from_slice(&other.bytes);
        self.buffers.extend(other.buffers);
        self.ends.extend(other.ends);
    }

    /// Adds what came from another process and was not read.
    pub(crate) fn put_rest(&mut self, rest: Rest) {
        self.announce(&rest);
        self.put_end(rest);
    }

    /// As `put_rest`, and leaves it here: it has the ends of promises in it until it [goes on](Rest::go_on), when the bytes have left.
    pub(crate) fn put_rest_to_move(&mut self, rest: &Rest) {
        self.announce(rest);
        self.bytes.extend_from_slice(&rest.bytes);
        self.buffers.extend(rest.buffers.iter().map(Beside::copied));
    }

    fn announce(&mut self, Rest { bytes, buffers, ends }: &Rest) {
        // Most have no ends, and do not pay for saying so.
        let has_ends = usize::from(!ends.is_empty());
        self.put_own(&(bytes.len(), buffers.len() * 2 + has_ends));
        if has_ends == 1 {
            self.put_own(ends);
        }
    }

    /// Adds what came from another process and was not read, as the end of the message: its length is what is left. Which ends of
    /// promises are in it is not said.
    pub(crate) fn put_end(&mut self, rest: Rest) {
        let Rest { bytes, buffers, ends } = rest;
        self.bytes.extend_from_slice(&bytes);
        self.buffers.extend(buffers);
        ends.go_on();
    }

    /// Reads what was encoded. Of arguments all were put by serde, or one that is plain memory.
    pub(crate) fn reread<T>(
        self,
        f: impl FnOnce(&mut Decoder<'_>) -> Result<T, WireError>,
    ) -> Result<T, WireError> {
        let mut decoder = Decoder::new(&self.bytes, self.buffers);
        decoder.is_by_serde = !self.has_plain;
        let value = f(&mut decoder)?;
        decoder.end()?;
        Ok(value)
    }

    /// Adds a value: as it lies, if its type is known to be plain memory, and else as serde sees it.
    pub(crate) fn put<T: Serialize + 'static>(&mut self, value: &T) -> Result<(), Stays> {
        if self.put_if_known(value) {
            self.has_plain = true;
            return Ok(());
        }
        let Encoder { bytes, buffers, .. } = self;
        side::with_outgoing(buffers, || {
            postcard::serialize_with_flavor(value, Header(bytes)).map_err(refused::<T>)
        })
    }

    /// As `put`, a value beside which nothing stands.
    #[inline]
    fn put_alone<T: Serialize>(&mut self, value: &T) -> Result<(), Stays> {
        postcard::serialize_with_flavor(value, Header(&mut self.bytes)).map_err(refused::<T>)
    }

    /// Adds one of our own values, which serde cannot refuse.
    pub(crate) fn put_own<T: Serialize>(&mut self, value: &T) {
        postcard::serialize_with_flavor(value, Header(&mut self.bytes))
            .expect("ids and numbers can be encoded");
    }
}

#[cold]
fn refused<T>(error: postcard::Error) -> Stays {
    let why = side::take_refusal().map_or_else(|| error.to_string(), |why| why.to_string());
    Stays::new(format!("a value of type `{}` cannot be encoded: {why}", type_name::<T>()))
}

/// A place in what is encoded.
pub(crate) struct Mark {
    bytes: usize,
    buffers: usize,
}

/// postcard writes here.
struct Header<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Header<'_> {
    type Output = ();

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Puts a message together again that came from another process.
pub struct Decoder<'a> {
    bytes: &'a [u8],
    buffers: std::vec::IntoIter<Beside>,
    /// Arguments that are plain memory were put by serde all the same: as parts of one value, to which a callback was given.
    is_by_serde: bool,
    /// How many messages it is inside of.
    depth: u32,
    /// Where it comes from.
    pub(crate) rank: Option<Rank>,
}

impl<'a> Decoder<'a> {
    pub(crate) fn new(bytes: &'a [u8], buffers: Vec<Beside>) -> Self {
        Decoder { bytes, buffers: buffers.into_iter(), is_by_serde: false, depth: 0, rank: None }
    }

    /// Takes one of our own values. PEs that it names are PEs of this run.
    pub(crate) fn take<T: Deserialize<'static>>(&mut self) -> Result<T, WireError> {
        self.take_by_serde(true)
    }

    /// Takes a value of the user's that [`Encoder::put`] has put. The number of a PE is a number like any other there.
    pub(crate) fn take_value<T: Deserialize<'static> + 'static>(&mut self) -> Result<T, WireError> {
        if !self.is_by_serde
            && let Some(taken) = self.take_if_known()
        {
            return taken;
        }
        self.take_by_serde(false)
    }

    fn take_by_serde<T: Deserialize<'static>>(&mut self, is_ours: bool) -> Result<T, WireError> {
        let (mut reader, left) = (postcard::Deserializer::from_bytes(self.bytes), self.bytes.len());
        let taken =
            side::with_incoming(&mut self.buffers, is_ours, || T::deserialize(Owned::new(&mut reader, left)));
        let value = taken.map_err(WireError::of::<T>)?;
        self.bytes = reader.finalize().map_err(WireError::of::<T>)?;
        Ok(value)
    }

    /// As `take_value`, a value beside which nothing stands.
    #[inline]
    fn take_alone<T: Deserialize<'static>>(&mut self) -> Result<T, WireError> {
        let mut reader = postcard::Deserializer::from_bytes(self.bytes);
        let value = T::deserialize(Owned::new(&mut reader, self.bytes.len())).map_err(WireError::of::<T>)?;
        self.bytes = reader.finalize().map_err(WireError::of::<T>)?;
        Ok(value)
    }

    fn take_bytes(&mut self, count: usize) -> Result<&'a [u8], WireError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(WireError::new(format!(
                "{count} bytes are announced, {} are there",
                self.bytes.len()
            )));
        };
        self.bytes = rest;
        Ok(taken)
    }

    /// Puts what device memory has come as into the place where it has no bytes.
    pub(crate) fn put_instead(&mut self, place: usize, instead: Beside) -> Result<(), WireError> {
        let buffer = self.buffers.as_mut_slice().get_mut(place);
        *buffer.ok_or_else(|| WireError::new("it says what a buffer is that did not come"))? = instead;
        Ok(())
    }

    /// The next thing that has come beside the bytes.
    pub(crate) fn take_buffer(&mut self) -> Result<Beside, WireError> {
        self.buffers.next().ok_or_else(|| WireError::new("it announces a buffer that did not come"))
    }

    /// The last thing that has come beside the bytes.
    pub(crate) fn take_last_buffer(&mut self) -> Option<Beside> {
        self.buffers.next_back()
    }

    /// Adds something behind all that has come beside the bytes.
    pub(crate) fn add_buffers(&mut self, more: impl IntoIterator<Item = Beside>) {
        let come = std::mem::take(&mut self.buffers);
        self.buffers = come.chain(more).collect::<Vec<_>>().into_iter();
    }

    pub(crate) fn bytes_left(&self) -> usize {
        self.bytes.len()
    }

    /// Takes all that is left, to be decoded where its type is known.
    pub(crate) fn take_rest(&mut self) -> Rest {
        let (bytes, buffers) = (std::mem::take(&mut self.bytes).into(), self.buffers.by_ref().collect());
        Rest { bytes, buffers, ends: Unread::default() }
    }

    /// Takes what [`Encoder::put_rest`] has put.
    pub(crate) fn take_whole_rest(&mut self) -> Result<Rest, WireError> {
        let (bytes, buffers): (usize, usize) = self.take()?;
        let ends = if buffers % 2 == 1 { self.take()? } else { Unread::default() };
        let bytes = self.take_bytes(bytes)?.into();
        let buffers = (0..buffers / 2).map(|_| self.take_buffer()).collect::<Result<_, _>>()?;
        Ok(Rest { bytes, buffers, ends })
    }

    /// Fails unless everything has been taken.
    #[inline]
    pub(crate) fn end(&self) -> Result<(), WireError> {
        match (self.bytes.len(), self.buffers.len()) {
            (0, 0) => Ok(()),
            (bytes, buffers) => Err(left_over(bytes, buffers)),
        }
    }
}

#[cold]
fn left_over(bytes: usize, buffers: usize) -> WireError {
    WireError::new(format!("{bytes} bytes and {buffers} buffers are left over at its end"))
}

/// What is left of a message. If it is dropped unread, the ends of promises that it says to have are given back.
pub(crate) struct Rest {
    bytes: Box<[u8]>,
    buffers: Vec<Beside>,
    ends: Unread,
}

impl From<Encoder> for Rest {
    fn from(Encoder { bytes, buffers, .. }: Encoder) -> Self {
        Rest { bytes: bytes.into(), buffers, ends: Unread::default() }
    }
}

impl Rest {
    /// What `encode` encodes, a part of a message, with the ends of promises in it.
    pub(crate) fn encoded<E>(encode: impl FnOnce(&mut Encoder) -> Result<(), E>) -> Result<Rest, E> {
        let mut encoder = Encoder::default();
        let ends = current::on_pe("encoding a value", |pe| pe.encode_part(|| encode(&mut encoder)))?;
        Ok(Rest { ends, ..encoder.into() })
    }

    pub(crate) fn buffers(&self) -> &[Beside] {
        &self.buffers
    }

    /// Lets `f` read its beginning.
    pub(crate) fn peek<T>(&self, f: impl FnOnce(&mut Decoder<'_>) -> T) -> T {
        f(&mut Decoder::new(&self.bytes, Vec::new()))
    }

    /// The same in memory of its own. It does not say which ends of promises are in it.
    pub(crate) fn copied(&self) -> Rest {
        let buffers = self.buffers.iter().map(Beside::copied).collect();
        Rest { bytes: self.bytes.clone(), buffers, ends: Unread::default() }
    }

    /// Drops it where its bytes have left: ends of promises in it belong to whoever reads those.
    pub(crate) fn go_on(self) {
        self.ends.go_on();
    }

    /// Lets `f` decode it to its end.
    pub(crate) fn decode<T>(
        self,
        f: impl FnOnce(&mut Decoder<'_>) -> Result<T, WireError>,
    ) -> Result<T, WireError> {
        let Rest { bytes, buffers, ends } = self;
        ends.go_on();
        let mut decoder = Decoder::new(&bytes, buffers);
        let value = f(&mut decoder)?;
        decoder.end()?;
        Ok(value)
    }
}

/// Why the run ends when this rank has sent what cannot be read.
pub(crate) fn nonsense_of(rank: Rank, what: &impl fmt::Display) -> Reason {
    Reason::Processes(format!("{rank} has sent what cannot be read: {what}"))
}

impl Pe {
    /// Another process has sent what cannot be read: the run cannot go on without it.
    #[cold]
    pub(crate) fn received_nonsense(&self, error: &WireError) {
        self.shared()
            .stop(Reason::Internal(format!("what came from another process cannot be read: {error}")));
    }

    /// A collection that is known here to whoever sends a message of its kind, with this reply. If it is not, what has come names none, and
    /// the run ends.
    pub(crate) fn named_collection(&self, id: CollectionId, reply: &Reply) -> Option<&Collection> {
        let collection = self.collection(id);
        if collection.is_none() {
            let error = WireError::new(format!("it names {id}, which {:?} does not know", self.id()));
            match reply.rank(self) {
                Some(rank) => self.shared().stop(nonsense_of(rank, &error)),
                None => self.received_nonsense(&error),
            }
        }
        collection
    }
}

/// Serialises one of our own types that travels in messages of the runtime only: as bytes inside of the user's value.
pub(crate) fn serialize_own<S: Serializer>(
    serializer: S,
    encode: impl FnOnce(&mut Encoder) -> Result<(), Stays>,
) -> Result<S::Ok, S::Error> {
    use serde::ser::Error;
    if !side::is_encoding() {
        return Err(S::Error::custom(
            "promises and callbacks are serialised in messages of the runtime only",
        ));
    }
    let mut encoder = Encoder::default();
    if !side::is_counting() {
        encode(&mut encoder).map_err(side::refuse)?;
    }
    serializer.serialize_bytes(&encoder.bytes)
}

/// What [`serialize_own`] has serialised.
pub(crate) fn deserialize_own<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    decode: impl FnOnce(&mut Decoder<'_>) -> Result<T, WireError>,
) -> Result<T, D::Error> {
    use serde::de::Error;
    if !side::is_decoding() {
        let text = "promises and callbacks are deserialised from messages of the runtime only";
        return Err(D::Error::custom(text));
    }
    let bytes = deserializer.deserialize_byte_buf(Bytes)?;
    let mut decoder = Decoder::new(&bytes, Vec::new());
    let value = decode(&mut decoder).map_err(D::Error::custom)?;
    decoder.end().map_err(D::Error::custom)?;
    Ok(value)
}

/// Copies bytes.
struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }
}
