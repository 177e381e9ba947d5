//! What travels between the two ends of a channel: values, and credit on its way back; and to an end from a future that was
//! carried away from it.
//!
//! Values and credit find the end by its name in the chare that they reach: at once if that is on this PE, else by message.

use std::any::type_name;
use std::marker::PhantomData;

use crate::cell::ChareRef;
use crate::ids::ChareId;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;

use super::end::{self, Leaver};
use super::table::EndKey;

/// A value on its way.
pub(super) struct Carry<T> {
    pub(super) from: ChareId,
    pub(super) tag: u64,
    pub(super) number: u64,
    pub(super) value: T,
}

impl<T: Send + 'static> Carry<T> {
    /// Puts the value in its end. Returns which that is, unless it is one for values of another type.
    pub(super) fn arrive(self, pe: &Pe, peer: ChareRef) -> Option<EndKey> {
        let Carry { from, tag, number, value } = self;
        let entry = peer.extra(|extra| extra.channels.entry::<T>(pe, from, tag));
        let (waiter, key) = if entry.holds::<T>() {
            (pe.ends.of::<T>().get(entry.key).and_then(|end| end.accept(number, value)), Some(entry.key))
        } else {
            // The value is dropped here, where nothing is borrowed: its destructor is user code.
            drop(value);
            (pe.ends.with(&entry, |end| end.mark_wrong(type_name::<T>())).flatten(), None)
        };
        if let Some(waiter) = waiter {
            waiter.wake(pe);
        }
        key
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
}

impl<T: Send + 'static> Payload for Left<T> {
    const NAME: Name = Name::Runtime("the end of a wait at a channel");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        // If the end has gone with its chare, nobody waits there any more.
        let _ = self.arrive(pe);
    }
}
