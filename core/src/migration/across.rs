//! Chares that move to another process: as bytes, and as serde sees their state.
//!
//! What cannot fail is done last: the state is encoded while the chare is in all tables, so what does not let itself be encoded stays where
//! it is. Then the chare leaves the tables as it does for a PE of its process, its bytes are sent, and behind them, on the same way, the
//! calls that wait in it. The object that is left is dropped. Where the bytes arrive they are decoded by whichever PE holds the
//! driver, into a chare in memory that goes to its PE by pointer; from there on it is an arrival like any other.
//!
//! Invariant: as for all moves, and what a chare owns is either in its bytes or in the object that is dropped.

use std::any::Any;

use super::{Again, Arrive, Freight, Migrate, refuse, take_out};
use crate::broadcast::{Departure, Gap};
use crate::caught;
use crate::cell::{ChareRef, Counts, Parcel, State};
use crate::chares::Chare;
use crate::condition::when;
use crate::current;
use crate::ids::{ChareId, PeId};
use crate::location;
use crate::message::{Msg, Name, Payload};
use crate::reduction;
use crate::reply::Reply;
use crate::report::Reason;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::scheduler::task;
use crate::wire::{self, Decoder, Encoder, Kind, Leaves, Stays, WireError};

/// Sends a chare away that broadcasts have caught up with, and its companions with it; or refuses, and all stay. While one of
/// them has coroutines, the request waits at it.
pub(super) fn depart(pe: &Pe, chare: ChareRef, companions: &[ChareRef], migrate: Migrate, reply: Reply) {
    let all = || [&chare].into_iter().chain(companions).copied();
    if let Some(busy) = all().find(|chare| task::is_any_alive(*chare)) {
        let request = if busy == chare {
            Msg::new(chare.id, reply, migrate)
        } else {
            Msg::new(busy.id, reply, Again { chare: chare.id, migrate })
        };
        return busy.extra(|extra| extra.moves.push(request));
    }
    let to = PeId::new(migrate.to);
    let mut encoded = Encoder::default();
    if let Err(why) = encode_all(pe, chare, companions, &mut encoded) {
        let text = format!("PE {to} is in another process, and {why}");
        return refuse(pe, chare, reply, &text);
    }
    all().for_each(|chare| take_out(pe, chare));
    for chare in all() {
        if let Some(collection) = pe.collection(chare.id.collection) {
            reduction::ship_finished(pe, collection);
        }
    }
    for chare in all() {
        encode_departure(pe, chare, to, &mut encoded);
    }
    pe.post(to, Msg::new(chare.id, reply, Emigrate(encoded)));
    for chare in all() {
        for msg in when::take_all(pe, chare) {
            pe.send(msg);
        }
    }
    // What is left has no part in broadcasts and reductions any more, and its id is that of the chare elsewhere.
    for chare in all() {
        chare.note_end();
        drop(Parcel::pack(pe, chare));
    }
}

/// Lets the requests to move go on that wait at a chare: its coroutines have ended, or it is poisoned.
#[cold]
pub(crate) fn go_on(pe: &Pe, chare: ChareRef) {
    let moves = chare.extra_if_any(|extra| std::mem::take(&mut extra.moves)).unwrap_or_default();
    if !moves.is_empty() {
        pe.enqueue_first(moves.into_iter().map(Work::Msg).collect());
    }
}

/// Encodes the states of a chare and its companions.
fn encode_all(pe: &Pe, chare: ChareRef, companions: &[ChareRef], to: &mut Encoder) -> Result<(), String> {
    let all = || [&chare].into_iter().chain(companions).copied();
    if let Some(companion) = all().find(|chare| chare.state.get() != State::Idle) {
        return Err(format!("{} was poisoned by a panic", pe.chare_name(companion.id)));
    }
    if let Some(chare) =
        all().find(|chare| chare.extra_if_any(|extra| !extra.channels.is_empty()) == Some(true))
    {
        return Err(format!("{} has channels", pe.chare_name(chare.id)));
    }
    let encoded = caught::catch(pe, || {
        chare.encode(pe, to)?;
        to.put_own(&(pe.id(), companions.len()));
        companions.iter().try_for_each(|companion| {
            to.put_own(&companion.id);
            companion.encode(pe, to)
        })
    });
    match encoded {
        Ok(encoded) => encoded.map_err(|why| why.to_string()),
        Err(panic) => Err(panic.to_string()),
    }
}

/// Encodes the code of a chare's type, its index in a sparse array, and its state.
pub(crate) fn encode_state<C: Chare>(pe: &Pe, chare: ChareRef, to: &mut Encoder) -> Result<(), Stays> {
    to.put_code(C::code(), C::INFO.name)?;
    let is_sparse = pe.collection(chare.id.collection).is_some_and(|collection| collection.info.is_sparse());
    to.put_own(&is_sparse);
    if is_sparse {
        C::encode_index(pe.index_of::<C>(chare.id), to)?;
    }
    chare.look(|state: &mut C| state.encode_state(to))
}

/// Lets a chare go that is in no table any more, and encodes what else belongs to it.
fn encode_departure(pe: &Pe, chare: ChareRef, to: PeId, encoder: &mut Encoder) {
    let id = chare.id;
    let epoch = chare.next_epoch();
    let departure = Departure { element: id.element, epoch, to };
    encoder.put_own(&(departure, chare.counts()));
    if let Some(collection) = pe.collection(id.collection) {
        collection.coverage.departed(departure, chare.covered.get());
        collection.forget_index(pe, id.element);
    }
    pe.locations.departed(id, location::Place { pe: to, epoch });
    let gap = chare.extra_if_any(|extra| extra.gap.take()).flatten();
    encoder.put_own(&gap.is_some());
    if let Some(gap) = gap
        && gap.leave(encoder).is_err()
    {
        // Its arguments have come to this process, or were to go to all.
        let text = format!("a broadcast to {} cannot go with it to another process", pe.chare_name(id));
        pe.shared().stop(Reason::Aborted(text));
    }
}

/// The chares that leave in one message, as bytes.
struct Emigrate(Encoder);

impl Payload for Emigrate {
    const NAME: Name = Name::Runtime("a chare that moves");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Arrive, |Emigrate(encoded), to| {
        to.append(encoded);
        Ok(())
    });
    fn run(self, _: ChareId, _: Reply, _: &Pe) {
        unreachable!("it is for a PE of another process")
    }
}

impl Arrive {
    /// The chares that have come to this process, the first of which is a `C`.
    pub(crate) fn decode<C: Chare>(id: ChareId, from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let mut freight = decode_state::<C>(id, from)?;
        let (left, count): (PeId, usize) = from.take()?;
        let mut companions = Vec::new();
        for _ in 0..count {
            let id = from.take()?;
            let companion = wire::decode_by_code(Kind::Companion, id, from)?;
            let companion = current::on_pe("the arrival of a chare", |pe| companion.into_payload(pe));
            let Some(Companion(freight)) = companion else {
                return Err(WireError::new("a companion of a chare is no chare"));
            };
            companions.push(freight);
        }
        for freight in [&mut freight].into_iter().chain(&mut companions) {
            freight.decode_departure(from)?;
        }
        Ok(Arrive { freight, companions, from: left })
    }
}

fn decode_state<C: Chare>(id: ChareId, from: &mut Decoder<'_>) -> Result<Freight, WireError> {
    let mut index = None;
    if from.take()? {
        index = Some(Box::new(C::decode_index(from)?) as Box<dyn Any + Send>);
    }
    let parcel = Parcel::of_arrival(ChareRef::new::<C>(id, C::decode_state(from)?));
    let departure = Departure { element: id.element, epoch: 0, to: PeId::new(0) };
    Ok(Freight { id, parcel, index, departure })
}

impl Freight {
    /// Decodes what [`encode_departure`] has encoded.
    fn decode_departure(&mut self, from: &mut Decoder<'_>) -> Result<(), WireError> {
        let counts: Counts;
        (self.departure, counts) = from.take()?;
        let chare = self.parcel.chare().expect("it is not unpacked");
        chare.resume_counts(&counts);
        if from.take()? {
            let gap = Gap::decode(from)?;
            chare.has_gap.set(true);
            chare.extra(|extra| extra.gap = Some(Box::new(gap)));
        }
        Ok(())
    }
}

/// A companion whose state is decoded, on its way to the chare that it comes with.
pub(crate) struct Companion(Freight);

impl Companion {
    pub(crate) fn decode<C: Chare>(id: ChareId, from: &mut Decoder<'_>) -> Result<Self, WireError> {
        decode_state::<C>(id, from).map(Companion)
    }
}

impl Payload for Companion {
    const NAME: Name = Name::Runtime("a chare that moves with another");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.received_nonsense(&WireError::new("a chare comes without the one that it is bound to"));
    }
}
