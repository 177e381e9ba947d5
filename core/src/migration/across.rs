//! Chares that move to another process: as bytes, and as serde sees their state.
//!
//! What cannot fail is done last: the state is encoded while the chare is in all tables, so what does not let itself be encoded stays where
//! it is. Then the chare leaves the tables as it does for a PE of its process, its bytes are sent, and behind them, on the same way, the
//! calls that wait in it. The object that is left is dropped. Where the bytes arrive they are decoded by whichever PE holds the
//! driver, into a chare in memory that goes to its PE by pointer; from there on it is an arrival like any other.
//!
//! Invariant: as for all moves, and what a chare owns is either in its bytes or in the object that is dropped.

use std::any::Any;

use super::{Again, Arrive, Freight, Migrate, take_out};
use crate::broadcast::{Departure, Gap};
use crate::caught;
use crate::cell::{ChareRef, Counts, Extra, Parcel, State};
use crate::channel::{self, Uprooted};
use crate::chares::Chare;
use crate::condition::when;
use crate::current;
use crate::error::CallError;
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

/// Memory for the bytes of a chare from the beginning, so that those of a small one need not move.
const ROOM: usize = 512;

/// Sends a chare away that broadcasts have caught up with, and its companions with it; or says why not, and all stay. While one of
/// them has coroutines, the request waits at it.
pub(super) fn depart(
    pe: &Pe,
    chare: ChareRef,
    companions: &[ChareRef],
    migrate: Migrate,
    reply: Reply,
) -> Result<(), (Reply, String)> {
    let all = || [&chare].into_iter().chain(companions).copied();
    if let Some(busy) = all().find(|chare| task::is_any_alive(*chare)) {
        let request = if busy == chare {
            Msg::new(chare.id, reply, migrate)
        } else {
            Msg::new(busy.id, reply, Again { chare: chare.id, migrate })
        };
        busy.extra(|extra| extra.moves.push(request));
        return Ok(());
    }
    let owned: Vec<_> = all().filter(|chare| chare.state.get() == State::Exclusive).collect();
    owned.iter().for_each(|chare| chare.state.set(State::Idle));
    let to = PeId::new(migrate.to);
    let mut encoded = Encoder::with_room(ROOM);
    let ends: Vec<_> = all().map(|chare| (chare, channel::uproot(pe, chare))).collect();
    let encode = || encode_all(pe, chare, companions, &ends, &mut encoded);
    if let Err(why) = pe.encode(encode) {
        owned.iter().for_each(|chare| chare.state.set(State::Exclusive));
        ends.into_iter().for_each(|(chare, ends)| channel::plant(pe, chare, ends));
        return Err((reply, format!("PE {to} is in another process, and {why}")));
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
        let held = chare.extra_if_any(|extra| std::mem::take(&mut extra.held)).unwrap_or_default();
        let held =
            held.into_iter().filter_map(|work| if let Work::Msg(msg) = work { Some(msg) } else { None });
        when::take_all(pe, chare).into_iter().chain(held).for_each(|msg| pe.send(msg));
        channel::take_held(pe, chare.id).into_iter().for_each(|msg| pe.send(msg));
    }
    // What is left has no part in broadcasts and reductions any more, and its id is that of the chare elsewhere.
    for (chare, ends) in ends {
        chare.extra_if_any(|extra| std::mem::take(&mut extra.channels));
        ends.have_left(pe);
        chare.note_end();
        drop(Parcel::pack(pe, chare));
    }
    Ok(())
}

/// Whether a request to move waits for the coroutines of a chare, and one that has come to its sync point is to wait for the others. One
/// that owns the chare lets nobody else have it, and so goes on if there are others.
pub(crate) fn is_waited_for(chare: ChareRef) -> bool {
    let is_waited_for = chare.extra_if_any(|extra| !extra.moves.is_empty()) == Some(true);
    is_waited_for && (chare.state.get() == State::Idle || task::is_one_alive(chare))
}

/// Keeps the call that starts a coroutine again which has come to its sync point. One that owns the chare keeps it.
pub(crate) fn wait_to_restart(pe: &Pe, id: ChareId, restart: Msg) {
    match pe.find(id) {
        Some(chare) if chare.state.get() == State::Exclusive => chare.extra(|extra| {
            extra.owner_waits = true;
            extra.restarts.insert(0, restart);
        }),
        Some(chare) => chare.extra(|extra| extra.restarts.push(restart)),
        None => pe.undeliverable(restart),
    }
}

/// Lets the requests to move go on that wait at a chare: its coroutines have ended, or it is poisoned. If it stays, its coroutines
/// start again.
pub(crate) fn go_on(pe: &Pe, chare: ChareRef) {
    let moves = chare.extra_if_any(|extra| std::mem::take(&mut extra.moves)).unwrap_or_default();
    if !moves.is_empty() {
        let stay = Msg::new(chare.id, Reply::none(), Stay);
        pe.enqueue_first(moves.into_iter().chain([stay]).map(Work::Msg).collect());
    }
}

/// Takes what waits at a chare for its coroutines, and these if they wait to be started again.
pub(crate) fn take_waiting(chare: ChareRef) -> Vec<Msg> {
    let take = |extra: &mut Extra| {
        std::mem::take(&mut extra.moves).into_iter().chain(std::mem::take(&mut extra.restarts)).collect()
    };
    chare.extra_if_any(take).unwrap_or_default()
}

fn take_restarts(chare: ChareRef) -> Vec<Msg> {
    chare.extra_if_any(|extra| std::mem::take(&mut extra.restarts)).unwrap_or_default()
}

/// Starts the coroutines again of a chare that has come from another process. Elsewhere they wait on.
pub(super) fn restart(pe: &Pe, chare: ChareRef) {
    if chare.extra_if_any(|extra| !extra.restarts.is_empty() && extra.moves.is_empty()) == Some(true) {
        take_restarts(chare).into_iter().for_each(|restart| restart.run(pe));
    }
}

/// The chare has not gone: its coroutines start again.
struct Stay;

impl Payload for Stay {
    const NAME: Name = Name::Runtime("a chare that stays");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(chare) = pe.find(id) else { return pe.undeliverable(Msg::new(id, reply, self)) };
        if chare.extra_if_any(|extra| std::mem::take(&mut extra.owner_waits)) == Some(true) {
            chare.state.set(State::Idle);
        }
        take_restarts(chare).into_iter().for_each(|restart| restart.run(pe));
    }

    /// Its coroutines have gone with it.
    fn lost(self, _: ChareId, _: Reply, _: &Pe, _: CallError) {}
}

/// Encodes the states of a chare and its companions, and the ends of their channels.
fn encode_all(
    pe: &Pe,
    chare: ChareRef,
    companions: &[ChareRef],
    ends: &[(ChareRef, Uprooted)],
    to: &mut Encoder,
) -> Result<(), String> {
    let poisoned = companions.iter().find(|companion| companion.state.get() != State::Idle);
    if let Some(companion) = poisoned {
        return Err(format!(
            "{}, which is bound to it, was poisoned by a panic",
            pe.chare_name(companion.id)
        ));
    }
    let encoded = caught::catch(pe, || {
        chare.encode(pe, to)?;
        to.put_own(&(pe.id(), companions.len()));
        companions.iter().try_for_each(|companion| {
            to.put_own(&companion.id);
            companion.encode(pe, to)
        })?;
        ends.iter().try_for_each(|(chare, ends)| channel::encode(*chare, ends, to))
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
        (C::index_codec().encode)(pe.index_of::<C>(chare.id), to)?;
    }
    chare.look(|state: &mut C| state.encode_state(to))
}

/// Lets a chare go that is in no table any more, and encodes what else belongs to it.
fn encode_departure(pe: &Pe, chare: ChareRef, to: PeId, encoder: &mut Encoder) {
    let id = chare.id;
    let epoch = chare.next_epoch();
    let departure = Departure { element: id.element, epoch, to };
    encoder.put_pe(to);
    encoder.put_u64(epoch);
    chare.counts().put(encoder);
    if let Some(collection) = pe.collection(id.collection) {
        collection.coverage.departed(departure, chare.covered.get());
        collection.forget_index(pe, id.element);
    }
    pe.locations.departed(id, location::Place { pe: to, epoch });
    let mut restarts = Encoder::default();
    // Of one that cannot leave, who waits for it has been told.
    let mut leave = |restart: Msg| {
        let begin = restarts.mark();
        let has_left = pe.encode(|| restart.leave(&mut restarts)).is_ok();
        if !has_left {
            restarts.rewind(begin);
        }
        has_left
    };
    let leaving = take_restarts(chare).into_iter().map(&mut leave).filter(|has_left| *has_left).count();
    encoder.put_own(&leaving);
    encoder.append(restarts);
    let gap = chare.extra_if_any(|extra| extra.gap.take()).flatten();
    encoder.put_own(&gap.is_some());
    if let Some(gap) = gap
        && pe.encode(|| gap.leave(encoder)).is_err()
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
    /// The chares that have come to this process, the first of which `decode_first` decodes.
    pub(crate) fn decode(
        id: ChareId,
        from: &mut Decoder<'_>,
        decode_first: fn(ChareId, &mut Decoder<'_>) -> Result<Freight, WireError>,
    ) -> Result<Self, WireError> {
        let mut freight = decode_first(id, from)?;
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
            let chare = freight.chare();
            let ends = current::on_pe("the arrival of a chare", |pe| channel::decode(pe, chare, from))?;
            freight.parcel.bring_ends(ends);
        }
        for freight in [&mut freight].into_iter().chain(&mut companions) {
            freight.decode_departure(from)?;
        }
        Ok(Arrive { freight, companions, from: left })
    }
}

/// Decodes what [`encode_state`] has encoded, but for the code.
pub(crate) fn decode_state<C: Chare>(id: ChareId, from: &mut Decoder<'_>) -> Result<Freight, WireError> {
    let mut index = None;
    if from.take()? {
        index = Some(Box::new((C::index_codec().decode)(from)?) as Box<dyn Any + Send>);
    }
    let parcel = Parcel::of_arrival(ChareRef::new::<C>(id, C::decode_state(from)?));
    let departure = Departure { element: id.element, epoch: 0, to: PeId::new(0) };
    Ok(Freight { id, parcel, index, departure })
}

impl Freight {
    fn chare(&self) -> ChareRef {
        self.parcel.chare().expect("it is not unpacked")
    }

    /// Decodes what [`encode_departure`] has encoded.
    fn decode_departure(&mut self, from: &mut Decoder<'_>) -> Result<(), WireError> {
        let to = from.take_pe()?;
        self.departure = Departure { element: self.id.element, epoch: from.take_u64()?, to };
        let chare = self.chare();
        chare.resume_counts(&Counts::take(from)?);
        for _ in 0..from.take::<usize>()? {
            let restart = wire::decode_message(from)?;
            chare.extra(|extra| extra.restarts.push(restart));
        }
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
