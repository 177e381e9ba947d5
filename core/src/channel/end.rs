//! What a chare keeps of its channels: the ends by name, their sequence numbers, credit, unread and waiting values, and
//! what travels between two ends.
//!
//! Invariants: values are handed out in the order of their numbers; `credit` plus what the peer has not read (or is on its
//! way to it) is [`WINDOW`]; an end without backlog and waiters touches its first words only.

use std::any::{Any, type_name};
use std::collections::{BTreeMap, VecDeque};

use rustc_hash::FxHashMap;

use crate::cell::ChareRef;
use crate::ids::ChareId;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::waiting::Waiter;

/// Values that may be unread at the receiving end.
pub(super) const WINDOW: u32 = 1024;
/// Values that may wait for credit at the sending end.
pub(super) const BACKLOG_LIMIT: usize = 1 << 16;
/// With more channels than this a chare finds them by hash.
const SCAN_LIMIT: usize = 8;

/// The ends that a chare has.
#[derive(Default)]
pub(crate) struct Channels {
    pub(super) ends: Vec<Entry>,
    /// Places in `ends`, once there are many.
    by_name: Option<Box<FxHashMap<(ChareId, u64), usize>>>,
}

/// An end under its name.
pub(crate) struct Entry {
    pub(crate) peer: ChareId,
    pub(crate) tag: u64,
    pub(super) end: Box<dyn AnyEnd>,
}

/// One end of a channel, both directions. What a value touches on its usual way, sent with credit and received in
/// order before the next one comes, is in the first words: an application with many chares has them in no near cache.
#[repr(C)]
pub(super) struct End<T> {
    /// The number of the next value to be received.
    pub(super) next_in: u64,
    /// The number of the next value to be sent.
    pub(super) next_out: u64,
    pub(super) credit: u32,
    /// Values read since credit was given back.
    pub(super) read: u32,
    /// Opened by the chare itself, not only by an incoming value.
    pub(super) opened: bool,
    /// `slow` has receivers or early values.
    pub(super) in_is_slow: bool,
    /// `slow` has senders or a backlog.
    pub(super) out_is_slow: bool,
    /// The oldest unread value; if there is none, nothing is unread.
    pub(super) first: Option<T>,
    pub(super) slow: Option<Box<Slow<T>>>,
}

/// The rest of an end, made when first needed.
pub(super) struct Slow<T> {
    /// Unread values behind `first`.
    unread: VecDeque<T>,
    /// Values that came before earlier ones.
    early: BTreeMap<u64, T>,
    /// Values that wait for credit.
    pub(super) backlog: VecDeque<T>,
    pub(super) receivers: Waiters,
    pub(super) senders: Waiters,
    /// The type that the peer sends, if it is not ours.
    pub(super) wrong: Option<&'static str>,
}

/// Waits at an end, in order; each is known by a ticket.
#[derive(Default)]
pub(super) struct Waiters {
    queue: VecDeque<(u64, Option<Waiter>)>,
    next_ticket: u64,
}

impl Waiters {
    /// Registers a wait in the place of its ticket, or at the end; returns the wait that it replaces.
    #[must_use]
    pub(super) fn register(&mut self, ticket: &mut Option<u64>, waiter: Waiter) -> Option<Waiter> {
        let place = ticket.and_then(|ticket| self.queue.iter_mut().find(|(other, _)| *other == ticket));
        match place {
            Some((_, place)) => place.replace(waiter),
            None => {
                *ticket = Some(self.next_ticket);
                self.queue.push_back((self.next_ticket, Some(waiter)));
                self.next_ticket += 1;
                None
            }
        }
    }

    /// Takes the first who is not woken yet.
    pub(super) fn next(&mut self) -> Option<Waiter> {
        self.queue.iter_mut().find_map(|(_, waiter)| waiter.take())
    }

    /// The wait is over or given up: who must be told of that. `follows` says whether there is something for the next one
    /// in the queue: then a wake-up that the leaver has got is passed on.
    pub(super) fn leave(&mut self, ticket: u64, follows: bool) -> Left {
        let Some(place) = self.queue.iter().position(|(other, _)| *other == ticket) else {
            return Left::Nobody;
        };
        match self.queue.remove(place) {
            Some((_, Some(waiter))) => Left::Cancelled(waiter),
            _ if follows => self.next().map_or(Left::Nobody, Left::Woken),
            _ => Left::Nobody,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.queue.iter().filter_map(|(_, waiter)| waiter.as_ref())
    }
}

/// Whose wait ends when one leaves the queue.
#[must_use = "settle it where nothing is borrowed"]
pub(super) enum Left {
    Nobody,
    /// The leaver's own, which was not woken.
    Cancelled(Waiter),
    /// The next one's.
    Woken(Waiter),
}

impl Left {
    pub(super) fn settle(self, pe: &Pe) {
        match self {
            Left::Nobody => {}
            Left::Cancelled(waiter) => waiter.cancel(pe),
            Left::Woken(waiter) => waiter.wake(pe),
        }
    }
}

/// An end whose type of value is not known.
pub(super) trait AnyEnd: Any + Send {
    fn is_opened(&self) -> bool;
    fn type_name(&self) -> &'static str;
    /// Notes that the peer sends another type; returns who is to be woken.
    fn mark_wrong(&mut self, sent: &'static str) -> Option<Waiter>;
    /// Values that have come and were not read, and values that wait for credit.
    fn queued(&self) -> (usize, usize);
    fn for_each_waiter(&self, f: &mut dyn FnMut(&Waiter));
    /// Takes credit from the peer: what can be sent now, and who is to be woken.
    fn add_credit(&mut self, count: u32, from: ChareId, peer: ChareId, tag: u64) -> (Vec<Msg>, Vec<Waiter>);
}

impl<T: Send + 'static> End<T> {
    pub(super) fn new() -> Self {
        End {
            next_in: 0,
            next_out: 0,
            credit: WINDOW,
            read: 0,
            opened: false,
            in_is_slow: false,
            out_is_slow: false,
            first: None,
            slow: None,
        }
    }

    pub(super) fn slow(&mut self) -> &mut Slow<T> {
        self.slow.get_or_insert_with(|| {
            Box::new(Slow {
                unread: VecDeque::new(),
                early: BTreeMap::new(),
                backlog: VecDeque::new(),
                receivers: Waiters::default(),
                senders: Waiters::default(),
                wrong: None,
            })
        })
    }

    /// Says again which directions need `slow`, after it was changed.
    pub(super) fn note_slow(&mut self) {
        if let Some(slow) = &self.slow {
            self.in_is_slow = !slow.early.is_empty() || !slow.receivers.queue.is_empty();
            self.out_is_slow = !slow.backlog.is_empty() || !slow.senders.queue.is_empty();
        }
    }

    pub(super) fn backlog_count(&self) -> usize {
        if !self.out_is_slow {
            return 0;
        }
        self.slow.as_ref().map_or(0, |slow| slow.backlog.len())
    }

    #[inline]
    fn push(&mut self, value: T) {
        if self.first.is_none() {
            self.first = Some(value);
        } else {
            self.slow().unread.push_back(value);
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        let value = self.first.take()?;
        if let Some(slow) = &mut self.slow {
            self.first = slow.unread.pop_front();
        }
        Some(value)
    }

    /// Takes in a value; returns who is to be woken.
    #[inline]
    fn accept(&mut self, number: u64, value: T) -> Option<Waiter> {
        if number != self.next_in {
            self.slow().early.insert(number, value);
            self.in_is_slow = true;
            return None;
        }
        self.next_in += 1;
        self.push(value);
        if self.in_is_slow { self.after_accept() } else { None }
    }

    fn after_accept(&mut self) -> Option<Waiter> {
        while let Some(value) = self.slow.as_mut().and_then(|slow| slow.early.remove(&self.next_in)) {
            self.next_in += 1;
            self.push(value);
        }
        let woken = self.slow().receivers.next();
        self.note_slow();
        woken
    }
}

impl<T: Send + 'static> AnyEnd for End<T> {
    fn is_opened(&self) -> bool {
        self.opened
    }

    fn type_name(&self) -> &'static str {
        type_name::<T>()
    }

    fn mark_wrong(&mut self, sent: &'static str) -> Option<Waiter> {
        self.slow().wrong = Some(sent);
        self.slow().receivers.next()
    }

    fn queued(&self) -> (usize, usize) {
        let behind = self.slow.as_ref().map_or(0, |slow| slow.unread.len());
        (usize::from(self.first.is_some()) + behind, self.backlog_count())
    }

    fn for_each_waiter(&self, f: &mut dyn FnMut(&Waiter)) {
        if let Some(slow) = &self.slow {
            slow.receivers.iter().chain(slow.senders.iter()).for_each(f);
        }
    }

    fn add_credit(&mut self, count: u32, from: ChareId, peer: ChareId, tag: u64) -> (Vec<Msg>, Vec<Waiter>) {
        self.credit += count;
        if !self.out_is_slow {
            return (Vec::new(), Vec::new());
        }
        let (first_number, credit) = (self.next_out, self.credit);
        let slow = self.slow();
        let sent = slow.backlog.len().min(credit as usize);
        let carry = |(value, number)| Msg::new(peer, Reply::none(), Carry { from, tag, number, value });
        let messages = slow.backlog.drain(..sent).zip(first_number..).map(carry).collect();
        let waiters = (0..credit as usize - sent).map_while(|_| slow.senders.next()).collect();
        self.next_out += sent as u64;
        self.credit -= sent as u32;
        self.note_slow();
        (messages, waiters)
    }
}

impl Entry {
    #[inline]
    pub(super) fn end<T: Send + 'static>(&mut self) -> Option<&mut End<T>> {
        let end: &mut dyn Any = &mut *self.end;
        end.downcast_mut()
    }

    /// Opened by the chare itself, not only by an incoming value.
    pub(crate) fn is_opened(&self) -> bool {
        self.end.is_opened()
    }

    /// Values that have come and were not read, and values that wait for credit.
    pub(crate) fn queued(&self) -> (usize, usize) {
        self.end.queued()
    }

    pub(crate) fn for_each_waiter(&self, f: &mut dyn FnMut(&Waiter)) {
        self.end.for_each_waiter(f);
    }
}

impl Channels {
    #[inline]
    fn find(&self, peer: ChareId, tag: u64) -> Option<usize> {
        match &self.by_name {
            None => self.ends.iter().position(|entry| entry.peer == peer && entry.tag == tag),
            Some(by_name) => by_name.get(&(peer, tag)).copied(),
        }
    }

    #[inline]
    pub(super) fn place_of<T: Send + 'static>(&mut self, peer: ChareId, tag: u64) -> usize {
        match self.find(peer, tag) {
            Some(place) => place,
            None => self.make::<T>(peer, tag),
        }
    }

    #[cold]
    fn make<T: Send + 'static>(&mut self, peer: ChareId, tag: u64) -> usize {
        let place = self.ends.len();
        self.ends.push(Entry { peer, tag, end: Box::new(End::<T>::new()) });
        if place == SCAN_LIMIT {
            let names = self.ends.iter().enumerate().map(|(place, entry)| ((entry.peer, entry.tag), place));
            self.by_name = Some(Box::new(names.collect()));
        } else if let Some(by_name) = &mut self.by_name {
            by_name.insert((peer, tag), place);
        }
        place
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.ends.iter()
    }
}

/// A value on its way.
pub(super) struct Carry<T> {
    pub(super) from: ChareId,
    pub(super) tag: u64,
    pub(super) number: u64,
    pub(super) value: T,
}

impl<T: Send + 'static> Carry<T> {
    pub(super) fn arrive(self, pe: &Pe, peer: ChareRef) {
        let Carry { from, tag, number, value } = self;
        // A value of the wrong type is dropped after the borrow has ended: its destructor is user code.
        let (waiter, _refused) = peer.extra(|extra| {
            let place = extra.channels.place_of::<T>(from, tag);
            let entry = &mut extra.channels.ends[place];
            match entry.end::<T>() {
                Some(end) => (end.accept(number, value), None),
                None => (entry.end.mark_wrong(type_name::<T>()), Some(value)),
            }
        });
        if let Some(waiter) = waiter {
            waiter.wake(pe);
        }
    }
}

impl<T: Send + 'static> Payload for Carry<T> {
    const NAME: Name = Name::Runtime("a value of a channel");
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(peer) => self.arrive(pe, peer),
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
        let (messages, waiters) = peer.extra(|extra| match extra.channels.find(self.from, self.tag) {
            Some(place) => {
                extra.channels.ends[place].end.add_credit(self.count, peer.id, self.from, self.tag)
            }
            None => (Vec::new(), Vec::new()),
        });
        for msg in messages {
            pe.send(msg);
        }
        for waiter in waiters {
            waiter.wake(pe);
        }
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
