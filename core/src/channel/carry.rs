//! What travels between the two ends of a channel: values, credit on its way back, and news of a chare that is poisoned; and
//! to an end from a future that was carried away from it.
//!
//! All but the last find the end by its name in the chare that they reach: at once if that is on this PE, else by message.

use std::any::type_name;
use std::marker::PhantomData;

use crate::cell::{ChareRef, State};
use crate::error::CallError;
use crate::ids::ChareId;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;

use super::end::{self, Defect, Leaver};
use super::table::{EndKey, Entry};

/// A value on its way.
pub(super) struct Carry<T> {
    pub(super) from: ChareId,
    pub(super) tag: u64,
    pub(super) number: u64,
    pub(super) value: T,
}

impl<T: Send + 'static> Carry<T> {
    /// Puts the value in its end. Returns which that is, unless it is one for values of another type. To a poisoned chare
    /// it is an error that nobody awaits, as is a call of one; but what a chare has sent to itself goes with it.
    pub(super) fn arrive(self, pe: &Pe, peer: ChareRef) -> Option<EndKey> {
        let Carry { from, tag, number, value } = self;
        if peer.state.get() == State::Poisoned {
            pe.guard(|| drop(value));
            if from != peer.id {
                pe.unawaited(peer.poisoned());
            }
            return None;
        }
        let entry = peer.extra(|extra| extra.channels.entry::<T>(pe, from, tag));
        if !entry.holds::<T>() {
            // The value is dropped here, where nothing is borrowed: its destructor is user code.
            drop(value);
            let effects = pe.ends.with(&entry, |end| end.fail(Defect::WrongType(type_name::<T>())));
            effects.unwrap_or_default().settle(pe);
            return None;
        }
        let waiter = pe.ends.of::<T>().get(entry.key).and_then(|end| end.accept(number, value));
        if let Some(waiter) = waiter {
            waiter.wake(pe);
        }
        Some(entry.key)
    }
}

impl<T: Send + 'static> Payload for Carry<T> {
    const NAME: Name = Name::Runtime("a value of a channel");
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
pub(super) struct Credit {
    pub(super) from: ChareId,
    pub(super) tag: u64,
    pub(super) count: u32,
}

impl Credit {
    pub(super) fn arrive(self, pe: &Pe, peer: ChareRef) {
        let Credit { from, tag, count } = self;
        let entry = peer.extra_if_any(|extra| extra.channels.find(from, tag).copied()).flatten();
        let name = end::Name { own: peer.id, peer: from, tag };
        let effects = entry
            .and_then(|entry| pe.ends.with(&entry, |end| end.add_credit(count, name)))
            .unwrap_or_default();
        effects.settle(pe);
    }
}

impl Payload for Credit {
    const NAME: Name = Name::Runtime("credit of a channel");
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(peer) => self.arrive(pe, peer),
            None => pe.undeliverable(Msg::new(to, reply, self)),
        }
    }

    /// Nobody waits for it any more.
    fn lost(self, _: ChareId, _: Reply, _: &Pe, _: CallError) {}
}

/// News that the peer of an end is poisoned.
pub(super) struct Loss {
    pub(super) from: ChareId,
    pub(super) tag: u64,
    pub(super) error: CallError,
}

impl Payload for Loss {
    const NAME: Name = Name::Runtime("news of a poisoned peer");
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        let Some(peer) = pe.find(to) else { return pe.undeliverable(Msg::new(to, reply, self)) };
        let Loss { from, tag, error } = self;
        let entry = peer.extra_if_any(|extra| extra.channels.find(from, tag).copied()).flatten();
        let effects = entry.and_then(|entry| pe.ends.with(&entry, |end| end.fail(Defect::Peer(error))));
        effects.unwrap_or_default().settle(pe);
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

impl<T: Send + 'static> Left<T> {
    /// False if the end is not on this PE, or is gone.
    pub(super) fn arrive(&self, pe: &Pe) -> bool {
        let effects = pe.ends.of::<T>().get(self.end).map(|end| end.leave(self.leaver, self.name));
        effects.map(|effects| effects.settle(pe)).is_some()
    }

    /// As `arrive`, where the end has another place since its chare has moved.
    fn arrive_by_name(&self, pe: &Pe, own: ChareRef) {
        let end::Name { peer, tag, .. } = self.name;
        let entry = own.extra_if_any(|extra| extra.channels.find(peer, tag).copied()).flatten();
        if let Some(entry) = entry.filter(Entry::holds::<T>) {
            let effects = pe.ends.of::<T>().get(entry.key).map(|end| end.leave(self.leaver, self.name));
            effects.unwrap_or_default().settle(pe);
        }
    }
}

impl<T: Send + 'static> Payload for Left<T> {
    const NAME: Name = Name::Runtime("the end of a wait at a channel");
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
