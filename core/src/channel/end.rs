//! One end of a channel: sequence numbers, credit, unread and waiting values.
//!
//! Invariants: values are handed out in the order of their numbers; `credit` plus what the peer has not read (or is on its
//! way to it) is [`WINDOW`]; an end without backlog and waiters, with at most two values unread, touches its first words
//! only. This holds for each stream ([`StreamId`]) by itself: an end takes one at a time, and turns to later ones only.

pub(super) mod moved;

use std::any::{Any, type_name};
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::error::CallError;
use crate::ids::ChareId;
use crate::message::Msg;
use crate::scheduler::pe::Pe;
use crate::waiting::Waiter;
use crate::wire::{Encoder, Stays, Wire};

use super::carry::Carry;
use super::table::{EndKey, Life};

/// Values that may be unread at the receiving end.
pub(super) const WINDOW: u32 = if cfg!(test) { 16 } else { 1024 };
/// Values that may wait for credit at the sending end.
pub(super) const BACKLOG_LIMIT: usize = 1 << 16;

/// One end of a channel, both directions. What a value touches on its usual way, sent with credit and received in
/// order, fits in one cache line if the value is a pointer: an application with many chares has none of it in a near
/// cache.
#[repr(C, align(64))]
pub(super) struct End<T> {
    /// The number of the next value to be received.
    pub(super) next_in: u64,
    /// The number of the next value to be sent.
    pub(super) next_out: u64,
    /// Where the peer's end was found on this PE, if it was.
    pub(super) peer_end: Option<EndKey>,
    pub(super) credit: u32,
    /// Values read since credit was given back.
    pub(super) read: u16,
    /// Opened by the chare itself, not only by an incoming value.
    pub(super) opened: bool,
    /// `slow` has receivers, early values, unread ones of an earlier stream, or the end of the peer.
    pub(super) in_is_slow: bool,
    /// `slow` has senders or a backlog, or there is no peer to send to.
    pub(super) out_is_slow: bool,
    /// `slow` has unread values.
    more_unread: bool,
    /// `slow` says which streams these are; else they are the first of chares that never had others before them.
    has_streams: bool,
    /// That of its key; none in a place of the table that is not used any more.
    pub(super) life: Option<Life>,
    /// The oldest unread value; if there is none, nothing is unread.
    pub(super) first: Option<T>,
    /// The one behind it; if there is none, nothing more is unread. Neighbours that run in step are one value ahead.
    second: Option<T>,
    pub(super) slow: Option<Box<Slow<T>>>,
}

/// The rest of an end, made when first needed.
pub(super) struct Slow<T> {
    /// Unread values behind `second`.
    unread: VecDeque<T>,
    /// Values that came before earlier ones.
    pub(super) early: BTreeMap<u64, T>,
    /// Values that wait for credit.
    pub(super) backlog: VecDeque<T>,
    pub(super) receivers: Waiters,
    pub(super) senders: Waiters,
    pub(super) defect: Option<Defect>,
    streams: Streams,
}

/// Values of a chare that are numbered together. An element that is inserted again is another chare with the same id, to
/// its peers as well as for itself: so what travels says which stream it belongs to, and later streams are greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
pub(super) struct StreamId {
    /// The epoch that the sending chare began in. Those of one index grow ([`crate::location`]).
    pub(super) birth: u64,
    /// Counts the streams of that chare which others of the same name have followed: their receivers had ended.
    pub(super) restarts: u64,
}

/// Which streams an end has to do with.
#[derive(Default)]
struct Streams {
    going: StreamId,
    coming: StreamId,
    /// Unread values of streams before `coming`: nobody wants credit for them.
    earlier_unread: usize,
}

/// Why nothing comes from the peer.
#[derive(Clone, Debug)]
pub(super) enum Defect {
    /// It sends values of another type, this one.
    WrongType(&'static str),
    /// There is none, or it is poisoned.
    Peer(CallError),
    /// It has ended, and another one may come under its id: that one gets what is sent from here on.
    Ended(CallError),
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
    fn next(&mut self) -> Option<Waiter> {
        self.queue.iter_mut().find_map(|(_, waiter)| waiter.take())
    }

    /// Removes a wait from the queue.
    fn remove(&mut self, ticket: u64) -> Removed {
        let Some(place) = self.queue.iter().position(|(other, _)| *other == ticket) else {
            return Removed::Absent;
        };
        match self.queue.remove(place) {
            Some((_, Some(waiter))) => Removed::Waiting(waiter),
            _ => Removed::Woken,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.queue.iter().filter_map(|(_, waiter)| waiter.as_ref())
    }
}

/// What a wait was that is removed from its queue.
enum Removed {
    Absent,
    /// It had been woken: if there is still something for it, the next one must be.
    Woken,
    Waiting(Waiter),
}

/// Who leaves an end without having used what it waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaver {
    /// The receiver with this ticket.
    Receiver(u64),
    /// Who waits for credit, with this ticket.
    Sender(u64),
    /// Who has credit for one value.
    Permit,
}

/// What follows from a change of an end, to be done where nothing is borrowed.
#[must_use]
#[derive(Default)]
pub(super) struct Effects {
    /// Waits that are over for other reasons than a wake-up.
    pub(super) cancelled: Option<Waiter>,
    pub(super) woken: Vec<Waiter>,
    pub(super) messages: Vec<Msg>,
    /// Why values are lost that were sent.
    pub(super) unawaited: Option<CallError>,
    /// An end that has those values.
    pub(super) lost: Option<Box<dyn AnyEnd>>,
}

impl Effects {
    #[inline]
    pub(super) fn settle(self, pe: &Pe) {
        if let Some(error) = self.unawaited {
            pe.unawaited(error);
        }
        for msg in self.messages {
            pe.send(msg);
        }
        if let Some(waiter) = self.cancelled {
            waiter.cancel(pe);
        }
        for waiter in self.woken {
            waiter.wake(pe);
        }
        if let Some(lost) = self.lost {
            lost.give_up(pe);
        }
    }
}

/// The names of an end's two chares and its tag.
#[derive(Clone, Copy)]
pub(super) struct Name {
    pub(super) own: ChareId,
    pub(super) peer: ChareId,
    pub(super) tag: u64,
}

/// An end whose type of value is not known.
pub(super) trait AnyEnd {
    fn is_opened(&self) -> bool;
    fn type_name(&self) -> &'static str;
    /// Notes why nothing comes from the peer any more; wakes all receivers, and all who wait for credit.
    fn fail(&mut self, defect: Defect) -> Effects;
    /// Wakes whoever waits; all look again.
    fn wake_all(&mut self) -> Effects;
    /// Puts it into the table of its type.
    fn plant(self: Box<Self>, pe: &Pe) -> EndKey;
    /// Encodes it with its values, for its way to another process. Runs code of the user's.
    fn encode(&self, to: &mut Encoder) -> Result<(), Stays>;
    /// Notes that it has left, as it was encoded: values that came as bytes and were not read are there now.
    fn has_left(&mut self);
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    /// Values that have come and were not read, and values that wait for credit.
    fn queued(&self) -> (usize, usize);
    fn for_each_waiter(&self, f: &mut dyn FnMut(&Waiter));
    /// Takes credit, from the peer or from who has not used it: values of the backlog go, then who waits for it is woken.
    fn add_credit(&mut self, count: u32, name: Name) -> Effects;
    /// Drops the end and its values, one by one: each may panic.
    fn give_up(self: Box<Self>, pe: &Pe);
    /// The stream of what is sent from here.
    fn going(&self) -> StreamId;
    /// The stream of what comes, as far as is known.
    fn coming(&self) -> StreamId;
    /// That stream, if something of it has come.
    fn taken(&self) -> Option<StreamId>;
    /// Whether anything was sent in the stream that goes from here.
    fn has_sent(&self) -> bool;
    /// Whether something has come from another chare under the peer's id than one that began in this epoch.
    fn knows_another(&self, birth: u64) -> bool;
    /// Takes values of a later stream from now on. What has come of the earlier one stays, in order; what is missing between
    /// went to an earlier chare of this end's.
    fn turn_to(&mut self, coming: StreamId) -> Effects;
    /// Begins to send in another stream. What waits for credit is lost, for the reason given.
    fn restart(&mut self, going: StreamId, error: &CallError) -> Effects;
    /// Whether the peer has ended, and nothing is left to be read or waited for here.
    fn is_spent(&self) -> bool;
}

impl<T: Wire> End<T> {
    /// An end that nothing has come to or gone from, in a life of its place in the table.
    pub(super) fn new(life: Option<Life>) -> Self {
        End {
            next_in: 0,
            next_out: 0,
            peer_end: None,
            credit: WINDOW,
            read: 0,
            opened: false,
            in_is_slow: false,
            out_is_slow: false,
            more_unread: false,
            has_streams: false,
            life,
            first: None,
            second: None,
            slow: None,
        }
    }

    /// As `new`, of a chare that sends in this stream.
    pub(super) fn begin(&mut self, going: StreamId) {
        if going != StreamId::default() {
            self.streams().going = going;
        }
    }

    /// The streams, to be changed.
    fn streams(&mut self) -> &mut Streams {
        self.has_streams = true;
        &mut self.slow().streams
    }

    /// The stream of what is sent from here.
    #[inline(always)]
    pub(super) fn going(&self) -> StreamId {
        if self.has_streams { AnyEnd::going(self) } else { StreamId::default() }
    }

    /// The stream of what comes, as far as is known.
    #[inline(always)]
    pub(super) fn coming(&self) -> StreamId {
        if self.has_streams { AnyEnd::coming(self) } else { StreamId::default() }
    }

    pub(super) fn slow(&mut self) -> &mut Slow<T> {
        self.slow.get_or_insert_with(|| {
            Box::new(Slow {
                unread: VecDeque::new(),
                early: BTreeMap::new(),
                backlog: VecDeque::new(),
                receivers: Waiters::default(),
                senders: Waiters::default(),
                defect: None,
                streams: Streams::default(),
            })
        })
    }

    /// Says again which directions need `slow`, after it was changed.
    pub(super) fn note_slow(&mut self) {
        if let Some(slow) = &self.slow {
            let is_old = slow.streams.earlier_unread > 0 || matches!(slow.defect, Some(Defect::Ended(_)));
            self.in_is_slow = is_old || !slow.early.is_empty() || !slow.receivers.queue.is_empty();
            let has_no_peer = matches!(slow.defect, Some(Defect::Peer(_)));
            self.out_is_slow = !slow.backlog.is_empty() || !slow.senders.queue.is_empty() || has_no_peer;
        }
    }

    /// Why there is no peer to send to, if there is none.
    #[inline]
    pub(super) fn no_peer(&self) -> Option<CallError> {
        if !self.out_is_slow {
            return None;
        }
        match self.defect() {
            Some(Defect::Peer(error)) => Some(error),
            _ => None,
        }
    }

    pub(super) fn defect(&self) -> Option<Defect> {
        self.slow.as_ref().and_then(|slow| slow.defect.clone())
    }

    /// Ends the wait of a receiver that has got its value, and wakes the next if there is another value: several may
    /// have become readable by one wake-up. A value of an earlier stream is not counted as read.
    pub(super) fn received(&mut self, ticket: Option<u64>) -> Effects {
        if !self.in_is_slow {
            return Effects::default();
        }
        let is_more = self.first.is_some();
        let earlier_unread = &mut self.slow().streams.earlier_unread;
        if *earlier_unread > 0 {
            *earlier_unread -= 1;
            self.read -= 1;
        }
        let receivers = &mut self.slow().receivers;
        let cancelled = match ticket.map(|ticket| receivers.remove(ticket)) {
            Some(Removed::Waiting(waiter)) => Some(waiter),
            _ => None,
        };
        let woken = if is_more { receivers.next() } else { None };
        self.note_slow();
        Effects { cancelled, woken: woken.into_iter().collect(), ..Effects::default() }
    }

    /// Takes credit for one value, if there is some and nothing waits for it in the backlog.
    pub(super) fn take_credit(&mut self, ticket: &mut Option<u64>) -> Option<Effects> {
        if self.credit == 0 || self.backlog_count() > 0 {
            return None;
        }
        self.credit -= 1;
        let mut effects = Effects::default();
        if let Some(ticket) = ticket.take()
            && let Removed::Waiting(waiter) = self.slow().senders.remove(ticket)
        {
            effects.cancelled = Some(waiter);
        }
        self.note_slow();
        Some(effects)
    }

    /// Lets somebody leave; what it was woken for, or had, goes to the next.
    pub(super) fn leave(&mut self, leaver: Leaver, name: Name) -> Effects {
        let (is_more, has_credit) = (self.first.is_some(), self.credit > 0);
        let (queue, ticket, follows) = match leaver {
            Leaver::Permit => return self.add_credit(1, name),
            Leaver::Receiver(ticket) => (&mut self.slow().receivers, ticket, is_more),
            Leaver::Sender(ticket) => (&mut self.slow().senders, ticket, has_credit),
        };
        let mut effects = Effects::default();
        match queue.remove(ticket) {
            Removed::Waiting(waiter) => effects.cancelled = Some(waiter),
            Removed::Woken if follows => effects.woken.extend(queue.next()),
            Removed::Woken | Removed::Absent => {}
        }
        self.note_slow();
        effects
    }

    pub(super) fn backlog_count(&self) -> usize {
        if !self.out_is_slow {
            return 0;
        }
        self.slow.as_ref().map_or(0, |slow| slow.backlog.len())
    }

    #[inline(always)]
    fn push(&mut self, value: T) {
        if self.first.is_none() {
            self.first = Some(value);
        } else if self.second.is_none() {
            self.second = Some(value);
        } else {
            self.push_behind(value);
        }
    }

    #[cold]
    fn push_behind(&mut self, value: T) {
        self.slow().unread.push_back(value);
        self.more_unread = true;
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<T> {
        let value = self.first.take()?;
        self.first = self.second.take();
        if self.more_unread {
            let unread = &mut self.slow().unread;
            let (next, more) = (unread.pop_front(), !unread.is_empty());
            (self.second, self.more_unread) = (next, more);
        }
        Some(value)
    }

    /// Takes in a value; returns who is to be woken.
    #[inline(always)]
    pub(super) fn accept(&mut self, number: u64, value: T) -> Option<Waiter> {
        if number != self.next_in {
            self.keep_early(number, value);
            return None;
        }
        self.next_in += 1;
        self.push(value);
        if self.in_is_slow { self.after_accept() } else { None }
    }

    #[cold]
    fn keep_early(&mut self, number: u64, value: T) {
        let replaced = self.slow().early.insert(number, value);
        assert!(replaced.is_none(), "the values of a stream have different numbers");
        self.in_is_slow = true;
    }

    #[inline(never)]
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

impl<T: Wire> AnyEnd for End<T> {
    fn give_up(mut self: Box<Self>, pe: &Pe) {
        pe.drop_each(std::iter::from_fn(|| self.pop()));
        if let Some(slow) = &mut self.slow {
            pe.drop_each(std::mem::take(&mut slow.backlog));
            pe.drop_each(std::mem::take(&mut slow.early).into_values());
        }
        pe.guard(|| drop(self));
    }

    fn going(&self) -> StreamId {
        self.slow.as_ref().map_or(StreamId::default(), |slow| slow.streams.going)
    }

    fn coming(&self) -> StreamId {
        self.slow.as_ref().map_or(StreamId::default(), |slow| slow.streams.coming)
    }

    fn taken(&self) -> Option<StreamId> {
        let has_early = self.slow.as_ref().is_some_and(|slow| !slow.early.is_empty());
        (self.next_in > 0 || has_early).then(|| AnyEnd::coming(self))
    }

    fn has_sent(&self) -> bool {
        self.next_out > 0 || self.backlog_count() > 0
    }

    fn knows_another(&self, birth: u64) -> bool {
        let known = AnyEnd::coming(self).birth;
        known != birth && (known > 0 || self.next_in > 0 || self.defect().is_some())
    }

    fn turn_to(&mut self, coming: StreamId) -> Effects {
        (self.next_in, self.read) = (0, 0);
        for value in std::mem::take(&mut self.slow().early).into_values() {
            self.push(value);
        }
        let (unread, _) = self.queued();
        let streams = self.streams();
        let is_other_peer = streams.coming.birth != coming.birth;
        (streams.coming, streams.earlier_unread) = (coming, unread);
        let slow = self.slow();
        if is_other_peer {
            slow.defect = None;
        }
        let woken = if unread > 0 { slow.receivers.next() } else { None };
        self.note_slow();
        Effects { woken: woken.into_iter().collect(), ..Effects::default() }
    }

    fn restart(&mut self, going: StreamId, error: &CallError) -> Effects {
        (self.next_out, self.credit, self.peer_end) = (0, WINDOW, None);
        self.streams().going = going;
        let slow = self.slow();
        let backlog = std::mem::take(&mut slow.backlog);
        let woken = std::iter::from_fn(|| slow.senders.next()).collect();
        self.note_slow();
        if backlog.is_empty() {
            return Effects { woken, ..Effects::default() };
        }
        let mut lost = Box::new(End::new(None));
        lost.slow().backlog = backlog;
        Effects { woken, unawaited: Some(error.clone()), lost: Some(lost), ..Effects::default() }
    }

    fn is_spent(&self) -> bool {
        let Some(slow) = &self.slow else { return false };
        let is_waited_at = !slow.receivers.queue.is_empty() || !slow.senders.queue.is_empty();
        matches!(slow.defect, Some(Defect::Ended(_)))
            && !is_waited_at
            && self.first.is_none()
            && slow.early.is_empty()
            && slow.backlog.is_empty()
    }

    fn is_opened(&self) -> bool {
        self.opened
    }

    fn type_name(&self) -> &'static str {
        type_name::<T>()
    }

    fn fail(&mut self, defect: Defect) -> Effects {
        let slow = self.slow();
        slow.defect = Some(defect);
        let mut effects = Effects::default();
        while let Some(waiter) = slow.receivers.next() {
            effects.woken.push(waiter);
        }
        if let Some(Defect::Peer(error)) = &slow.defect {
            effects.unawaited = (!slow.backlog.is_empty()).then(|| error.clone());
            while let Some(waiter) = slow.senders.next() {
                effects.woken.push(waiter);
            }
        }
        self.note_slow();
        effects
    }

    fn wake_all(&mut self) -> Effects {
        let mut effects = Effects::default();
        if let Some(slow) = &mut self.slow {
            effects.woken.extend(std::iter::from_fn(|| slow.receivers.next()));
            effects.woken.extend(std::iter::from_fn(|| slow.senders.next()));
        }
        effects
    }

    fn plant(self: Box<Self>, pe: &Pe) -> EndKey {
        pe.ends.of::<T>().plant(*self)
    }

    fn encode(&self, to: &mut Encoder) -> Result<(), Stays> {
        self.put(to)
    }

    fn has_left(&mut self) {
        if let Some(end) = (self as &mut dyn Any).downcast_mut::<End<moved::Encoded>>() {
            end.let_go_on();
        }
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }

    fn queued(&self) -> (usize, usize) {
        let behind = self.slow.as_ref().map_or(0, |slow| slow.unread.len());
        let near = usize::from(self.first.is_some()) + usize::from(self.second.is_some());
        (near + behind, self.backlog_count())
    }

    fn for_each_waiter(&self, f: &mut dyn FnMut(&Waiter)) {
        if let Some(slow) = &self.slow {
            slow.receivers.iter().chain(slow.senders.iter()).for_each(f);
        }
    }

    fn add_credit(&mut self, count: u32, name: Name) -> Effects {
        // What was given for an earlier stream and not used may come back after a restart.
        self.credit = WINDOW.min(self.credit + count);
        if !self.out_is_slow {
            return Effects::default();
        }
        let (first_number, credit, stream) = (self.next_out, self.credit, self.going());
        let slow = self.slow();
        let sent = slow.backlog.len().min(credit as usize);
        let Name { own: from, peer, tag } = name;
        let carry = |(value, number)| Carry { from, tag, stream, number, value }.into_msg(peer);
        let messages = slow.backlog.drain(..sent).zip(first_number..).map(carry).collect();
        let woken = (0..credit as usize - sent).map_while(|_| slow.senders.next()).collect();
        self.next_out += sent as u64;
        self.credit -= sent as u32;
        self.note_slow();
        Effects { woken, messages, ..Effects::default() }
    }
}
