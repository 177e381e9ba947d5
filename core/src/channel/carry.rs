//! What travels between the two ends of a channel: values, credit on its way back, and news of a chare that is poisoned; and
//! to an end from a future that was carried away from it.
//!
//! All but the last find the end by its name in the chare that they reach: at once if that is on this PE, else by message.

use std::any::type_name;
use std::marker::PhantomData;

use crate::cell::{ChareRef, Extra, State};
use crate::error::CallError;
use crate::ids::ChareId;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Kind, Leaves, Wire};

use super::end::moved::{self, Encoded};
use super::end::{self, AnyEnd, Defect, End, Leaver, StreamId};
use super::table::{EndKey, Entry};

/// A value on its way.
pub(super) struct Carry<T> {
    pub(super) from: ChareId,
    pub(super) tag: u64,
    pub(super) stream: StreamId,
    pub(super) number: u64,
    pub(super) value: T,
}

impl<T: Wire> Carry<T> {
    /// Puts the value in its end. Returns which that is, unless it is one for values of another type. To a poisoned chare
    /// it is an error that nobody awaits, as is a call of one; but what a chare has sent to itself goes with it.
    pub(super) fn arrive(self, pe: &Pe, peer: ChareRef) -> Option<EndKey> {
        if peer.state.get() == State::Poisoned {
            let is_own = self.from == peer.id;
            pe.guard(|| drop(self));
            if !is_own {
                pe.unawaited(peer.poisoned());
            }
            return None;
        }
        let Carry { from, tag, .. } = self;
        let entry = peer.extra(|extra| extra.channels.entry::<T>(pe, extra.first_epoch, from, tag));
        if !entry.holds::<T>() {
            return self.arrive_at_another_type(pe, peer, entry);
        }
        let mut table = pe.ends.of::<T>();
        let end = table.get(entry.key).expect("its name was just found");
        if end.coming() != self.stream {
            drop(table);
            return self.arrive_in_another_stream(pe, peer, entry);
        }
        let waiter = end.accept(self.number, self.value);
        drop(table);
        if let Some(waiter) = waiter {
            waiter.wake(pe);
        }
        Some(entry.key)
    }

    /// As `arrive`, where the end takes values of another stream: it turns to this one, or the value comes too late.
    #[cold]
    fn arrive_in_another_stream(self, pe: &Pe, peer: ChareRef, entry: Entry) -> Option<EndKey> {
        if !turn(pe, peer, &entry, self.stream) {
            self.arrive_too_late(pe, peer);
            return None;
        }
        let waiter = pe.ends.of::<T>().get(entry.key).expect("it has turned").accept(self.number, self.value);
        if let Some(waiter) = waiter {
            waiter.wake(pe);
        }
        Some(entry.key)
    }

    /// As `arrive`, where the end is for values of another type. If it was made by an earlier peer under the id of this
    /// one, and was not opened, it is made anew.
    #[cold]
    fn arrive_at_another_type(self, pe: &Pe, peer: ChareRef, entry: Entry) -> Option<EndKey> {
        if entry.holds::<Encoded>() {
            moved::rouse::<T>(pe, peer, &entry);
            return self.arrive(pe, peer);
        }
        let coming = pe.ends.with(&entry, |end| end.coming()).unwrap_or_default();
        if self.stream < coming {
            self.arrive_too_late(pe, peer);
            return None;
        }
        if self.stream.birth > coming.birth && !entry.is_opened(pe) {
            let replaced = peer.extra(|extra| extra.channels.replace::<T>(pe, extra.first_epoch, &entry)).1;
            if let Some(replaced) = replaced {
                replaced.give_up(pe);
            }
            return self.arrive(pe, peer);
        }
        if self.stream > coming {
            turn(pe, peer, &entry, self.stream);
        }
        let defect = Defect::WrongType(type_name::<T>());
        pe.ends.with(&entry, |end| end.fail(defect)).unwrap_or_default().settle(pe);
        pe.guard(|| drop(self));
        None
    }

    /// Loses a value of an earlier chare under the id of this one's peer, or that was meant for an earlier one under this id.
    fn arrive_too_late(self, pe: &Pe, peer: ChareRef) {
        let coming = peer.extra_if_any(|extra| extra.channels.find(self.from, self.tag).copied()).flatten();
        let coming = coming.and_then(|entry| pe.ends.with(&entry, |end| end.coming())).unwrap_or_default();
        let gone = if coming.birth == self.stream.birth { peer.id } else { self.from };
        let error = pe.no_element(gone, peer.info().name);
        pe.guard(|| drop(self));
        pe.unawaited(error);
    }
}

/// Lets an end take values of another stream from now on; false if it takes those of a later one already. If these come from
/// another chare than before, what goes there is a stream of its own as well.
fn turn(pe: &Pe, own: ChareRef, entry: &Entry, coming: StreamId) -> bool {
    let before = pe.ends.with(entry, |end| (end.coming(), end.knows_another(coming.birth), end.has_sent()));
    let Some((before, is_another, has_sent)) = before else { return false };
    if coming < before {
        return false;
    }
    if is_another && has_sent {
        restart(pe, own, entry, &pe.no_element(entry.peer, own.info().name));
    }
    pe.ends.with(entry, |end| end.turn_to(coming)).unwrap_or_default().settle(pe);
    true
}

/// Lets an end send in a new stream, since the peer has ended that has taken what was sent so far.
fn restart(pe: &Pe, own: ChareRef, entry: &Entry, error: &CallError) {
    let going = own.extra(|extra| extra.channels.next_stream(extra.first_epoch));
    pe.ends.with(entry, |end| end.restart(going, error)).unwrap_or_default().settle(pe);
}

/// Forgets an end that is not needed any more, since the peer has ended and all that it has sent was read.
#[cold]
pub(super) fn retire(pe: &Pe, name: end::Name) {
    let retire = |extra: &mut Extra| extra.channels.retire(pe, name.peer, name.tag);
    let gone = match pe.find(name.own) {
        Some(chare) => chare.extra_if_any(retire),
        None => pe.own_extra(name.own, retire),
    };
    if let Some(gone) = gone.flatten() {
        gone.give_up(pe);
    }
}

impl<T: Wire> Payload for Carry<T> {
    const NAME: Name = Name::Runtime("a value of a channel");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Value, Self::leave);
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(peer) => {
                self.arrive(pe, peer);
            }
            None => pe.undeliverable(Msg::new(to, reply, self)),
        }
    }

    fn lost(self, to: ChareId, reply: Reply, pe: &Pe, error: CallError) {
        let is_own = self.from == to;
        pe.guard(|| drop(self));
        if !is_own {
            reply.refuse(pe, to, error);
        }
    }
}

/// Credit on its way back to the sender.
pub(crate) struct Credit {
    pub(super) from: ChareId,
    pub(super) tag: u64,
    pub(super) count: u32,
    /// Which values it is for.
    pub(super) stream: StreamId,
}

impl Credit {
    pub(super) fn arrive(self, pe: &Pe, peer: ChareRef) {
        let Credit { from, tag, count, stream } = self;
        let entry = peer.extra_if_any(|extra| extra.channels.find(from, tag).copied()).flatten();
        let name = end::Name { own: peer.id, peer: from, tag };
        let add = |end: &mut dyn AnyEnd| (end.going() == stream).then(|| end.add_credit(count, name));
        let effects = entry.and_then(|entry| pe.ends.with(&entry, add)).flatten();
        effects.unwrap_or_default().settle(pe);
    }
}

impl Payload for Credit {
    const NAME: Name = Name::Runtime("credit of a channel");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Credit, Self::leave);
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(peer) => self.arrive(pe, peer),
            None => pe.undeliverable(Msg::new(to, reply, self)),
        }
    }

    /// Nobody waits for it any more.
    fn lost(self, _: ChareId, _: Reply, _: &Pe, _: CallError) {}
}

/// News that the peer of an end is poisoned, or has ended.
pub(crate) struct Loss {
    pub(super) from: ChareId,
    pub(super) tag: u64,
    /// The epoch that it began in.
    pub(super) birth: u64,
    /// It has ended, and another may come under its id.
    pub(super) has_ended: bool,
    /// The stream that it has taken values of.
    pub(super) taken: Option<StreamId>,
    pub(super) error: CallError,
}

impl Payload for Loss {
    const NAME: Name = Name::Runtime("news of a lost peer");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Loss, Self::leave);
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        let Some(peer) = pe.find(to) else { return pe.undeliverable(Msg::new(to, reply, self)) };
        let Loss { from, tag, birth, has_ended, taken, error } = self;
        let entry = peer.extra_if_any(|extra| extra.channels.find(from, tag).copied()).flatten();
        let Some(entry) = entry else { return };
        let coming = pe.ends.with(&entry, |end| end.coming()).unwrap_or_default();
        if birth > coming.birth {
            turn(pe, peer, &entry, StreamId { birth, restarts: 0 });
        }
        if birth >= coming.birth {
            let defect = if has_ended { Defect::Ended } else { Defect::Peer };
            pe.ends.with(&entry, |end| end.fail(defect(error.clone()))).unwrap_or_default().settle(pe);
        }
        if has_ended && taken.is_some() && taken == pe.ends.with(&entry, |end| end.going()) {
            restart(pe, peer, &entry, &error);
        }
        retire(pe, end::Name { own: to, peer: from, tag });
    }

    /// The peer has gone too.
    fn lost(self, _: ChareId, _: Reply, _: &Pe, _: CallError) {}
}

/// News that somebody has left an end, from another PE or thread.
pub(super) struct Left<T> {
    pub(super) leaver: Leaver,
    pub(super) end: EndKey,
    pub(super) name: end::Name,
    pub(super) value: PhantomData<fn() -> T>,
}

impl<T: Wire> Left<T> {
    /// False if the end is not on this PE, or is gone.
    pub(super) fn arrive(&self, pe: &Pe) -> bool {
        self.leave(pe, self.end)
    }

    fn leave(&self, pe: &Pe, end: EndKey) -> bool {
        let left = |end: &mut End<T>| (end.leave(self.leaver, self.name), end.is_spent());
        let Some((effects, is_spent)) = pe.ends.of::<T>().get(end).map(left) else { return false };
        effects.settle(pe);
        if is_spent {
            retire(pe, self.name);
        }
        true
    }

    /// As `arrive`, where the end has another place since its chare has moved.
    fn arrive_by_name(&self, pe: &Pe, own: ChareRef) {
        let end::Name { peer, tag, .. } = self.name;
        let entry = own.extra_if_any(|extra| extra.channels.find(peer, tag).copied()).flatten();
        if let Some(entry) = entry.filter(Entry::holds::<T>) {
            self.leave(pe, entry.key);
        }
    }
}

impl<T: Wire> Payload for Left<T> {
    const NAME: Name = Name::Runtime("the end of a wait at a channel");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, own: ChareId, reply: Reply, pe: &Pe) {
        if self.arrive(pe) {
            return;
        }
        match pe.find(own) {
            Some(chare) => self.arrive_by_name(pe, chare),
            None => pe.undeliverable(Msg::new(own, reply, self)),
        }
    }

    /// The end has gone with its chare, so nobody waits there any more.
    fn lost(self, _: ChareId, _: Reply, _: &Pe, _: CallError) {}
}
