//! Values of channels from other processes.
//!
//! The bytes of a value say which type it is by the hash of its name; who has opened a channel of that type in this process can read
//! them. Until somebody has, they are held: so is a value of the same process whose channel is not open yet.

use std::any::{Any, type_name};
use std::cell::RefCell;
use std::hash::Hasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustc_hash::{FxHashMap, FxHasher};

use super::carry::{Carry, Credit, Loss};
use super::end::moved::{self, Encoded, Rouse};
use super::end::{Defect, StreamId};
use crate::cell::State;
use crate::error::CallError;
use crate::ids::{ChareId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Arrives, Decoder, Encoder, Kind, Leaves, Rest, Unsent, Wire, WireError};

/// Makes a value's message of its bytes.
type Read = fn(ChareId, EncodedCarry) -> Result<Msg, WireError>;

/// What is known of a type of values.
#[derive(Clone, Copy)]
struct Reader {
    read: Read,
    rouse: Rouse,
}

/// The types of values that channels in one process carry.
#[derive(Default)]
pub(crate) struct ValueTypes {
    known: Mutex<Known>,
    /// How many values are held: mostly none, and then who leaves or ends need not look for its own. It changes under the lock. A PE
    /// that reads it without finds those that it has put there itself, and no other one has any for its chares.
    held_count: AtomicUsize,
}

#[derive(Default)]
struct Known {
    readers: FxHashMap<u64, Reader>,
    /// Values of types that no channel here carries, and the PEs that have them.
    held: FxHashMap<u64, Vec<(PeId, Msg)>>,
}

/// Those that one PE has met.
#[derive(Default)]
pub(crate) struct TypesMet(RefCell<FxHashMap<u64, Reader>>);

pub(super) fn name_of<T>() -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(type_name::<T>().as_bytes());
    hasher.finish()
}

impl ValueTypes {
    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes, under the lock, that so many are held no longer.
    fn note_taken(&self, count: usize) {
        self.held_count.fetch_sub(count, Ordering::Relaxed);
    }
}

/// Notes that a channel of values of type `T` is open on this PE, for values from other processes.
pub(super) fn note_type<T: Wire>(pe: &Pe) {
    if !pe.has_far_pes() {
        return;
    }
    let name = name_of::<T>();
    if pe.value_types_met.0.borrow().contains_key(&name) {
        return;
    }
    let read: Read = |to, encoded| {
        let EncodedCarry { from, tag, stream, number, rest, .. } = encoded;
        let value = rest.decode(|rest| rest.take_value::<T>())?;
        Ok(Msg::new(to, Reply::none(), Carry { from, tag, stream, number, value }))
    };
    let reader = Reader { read, rouse: moved::rouse_as::<T> };
    pe.value_types_met.0.borrow_mut().insert(name, reader);
    let held = {
        let types = &pe.dealings().value_types;
        let mut known = types.lock();
        known.readers.insert(name, reader);
        let held = known.held.remove(&name).unwrap_or_default();
        types.note_taken(held.len());
        held
    };
    for (at, msg) in held {
        pe.post(at, msg);
    }
}

/// What is known of a type of values in this process.
fn reader_of(pe: &Pe, name: u64) -> Option<Reader> {
    let met = pe.value_types_met.0.borrow().get(&name).copied();
    met.or_else(|| pe.dealings().value_types.lock().readers.get(&name).copied())
}

/// How ends that come from other processes take values of this type, if that is known here.
pub(super) fn rouse_of(pe: &Pe, name: u64) -> Option<Rouse> {
    reader_of(pe, name).map(|reader| reader.rouse)
}

/// Takes out what is held on this PE for a chare. If it leaves, that is sent after it: where it is, it may open the channel.
pub(crate) fn take_held(pe: &Pe, chare: ChareId) -> Vec<Msg> {
    let types = &pe.dealings().value_types;
    if types.held_count.load(Ordering::Relaxed) == 0 {
        return Vec::new();
    }
    let mut known = types.lock();
    let is_its = |held: &mut (PeId, Msg)| held.0 == pe.id() && held.1.head().to == chare;
    let all = known.held.values_mut().flat_map(|held| held.extract_if(.., is_its));
    let taken: Vec<_> = all.map(|(_, msg)| msg).collect();
    types.note_taken(taken.len());
    taken
}

/// How many values are held on this PE for each end that was not opened: of which chare, from which, by which tag.
pub(crate) fn count_held(pe: &Pe) -> FxHashMap<(ChareId, ChareId, u64), usize> {
    let mut counts = FxHashMap::default();
    for (_, msg) in pe.dealings().value_types.lock().held.values().flatten().filter(|(at, _)| *at == pe.id())
    {
        if let Some(EncodedCarry { from, tag, .. }) = msg.payload() {
            *counts.entry((msg.head().to, *from, *tag)).or_default() += 1;
        }
    }
    counts
}

/// Drops what is held on this PE for a chare that ends or is poisoned: nobody takes it any more.
pub(super) fn drop_held(pe: &Pe, chare: ChareId) {
    pe.drop_each(take_held(pe, chare));
}

impl<T: Wire> Carry<T> {
    /// The message that brings it to the peer.
    pub(super) fn into_msg(self, peer: ChareId) -> Msg {
        let Carry { from, tag, stream, number, value } = self;
        let mut value = Some(value);
        let encoded = (&mut value as &mut dyn Any).downcast_mut::<Option<Encoded>>();
        if let Some(Encoded { name, rest }) = encoded.and_then(Option::take) {
            return Msg::new(peer, Reply::none(), EncodedCarry { name, from, tag, stream, number, rest });
        }
        let value = value.expect("it is not encoded");
        Msg::new(peer, Reply::none(), Carry { from, tag, stream, number, value })
    }

    pub(super) fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Carry { from, tag, stream, number, value } = self;
        to.put_own(&(name_of::<T>(), from, tag, stream, number));
        Ok(to.put_as_rest(&value)?)
    }
}

/// A value from another process.
pub(crate) struct EncodedCarry {
    name: u64,
    from: ChareId,
    tag: u64,
    stream: StreamId,
    number: u64,
    rest: Rest,
}

impl EncodedCarry {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let EncodedCarry { name, from, tag, stream, number, rest } = self;
        to.put_own(&(name, from, tag, stream, number));
        to.put_rest(rest);
        Ok(())
    }
}

impl Arrives for EncodedCarry {
    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (name, from, tag, stream, number) = bytes.take()?;
        Ok(EncodedCarry { name, from, tag, stream, number, rest: bytes.take_whole_rest()? })
    }
}

impl Payload for EncodedCarry {
    const NAME: Name = Name::Runtime("a value of a channel");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Value, Self::leave);

    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        if let Some(Reader { read, .. }) = reader_of(pe, self.name) {
            match read(to, self) {
                Ok(msg) => msg.run(pe),
                Err(error) => pe.received_nonsense(&error),
            }
            return;
        }
        let Some(peer) = pe.find(to).filter(|peer| peer.state.get() != State::Poisoned) else {
            return pe.undeliverable(Msg::new(to, reply, self));
        };
        let entry = peer.extra_if_any(|extra| extra.channels.find(self.from, self.tag).copied()).flatten();
        if entry.is_some_and(|entry| entry.holds::<Encoded>()) {
            let EncodedCarry { name, from, tag, stream, number, rest } = self;
            Carry { from, tag, stream, number, value: Encoded { name, rest } }.arrive(pe, peer);
            return;
        }
        if let Some(entry) = entry.filter(|entry| entry.is_opened(pe)) {
            // It is open, for values of another type.
            let defect = Defect::WrongType("a type that no channel of this process carries");
            return pe.ends.with(&entry, |end| end.fail(defect)).unwrap_or_default().settle(pe);
        }
        let (name, msg) = (self.name, Msg::new(to, reply, self));
        let types = &pe.dealings().value_types;
        let mut known = types.lock();
        if known.readers.contains_key(&name) {
            // Since it was looked for.
            drop(known);
            return pe.post(pe.id(), msg);
        }
        known.held.entry(name).or_default().push((pe.id(), msg));
        types.held_count.fetch_add(1, Ordering::Relaxed);
    }

    /// As that of a value in its process: what a chare has sent to itself goes with it.
    fn lost(self, to: ChareId, reply: Reply, pe: &Pe, error: CallError) {
        let is_own = self.from == to;
        pe.guard(|| drop(self));
        if !is_own {
            reply.refuse(pe, to, error);
        }
    }
}

impl Credit {
    pub(super) fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Credit { from, tag, count, stream } = self;
        to.put_own(&(from, tag, count, stream));
        Ok(())
    }
}

impl Arrives for Credit {
    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (from, tag, count, stream) = bytes.take()?;
        Ok(Credit { from, tag, count, stream })
    }
}

impl Loss {
    pub(super) fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Loss { from, tag, birth, has_ended, taken, error } = self;
        to.put_own(&(from, tag, birth, has_ended, taken));
        to.put_error(&error);
        Ok(())
    }
}

impl Arrives for Loss {
    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (from, tag, birth, has_ended, taken) = bytes.take()?;
        Ok(Loss { from, tag, birth, has_ended, taken, error: bytes.take_error()? })
    }
}
