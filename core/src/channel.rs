//! Channels: ordered streams of values between two chares, with a window of credit.
//!
//! A channel is named by (peer, tag); each chare keeps its end, made when it opens the channel or when the first value
//! comes, whichever is first. Values carry sequence numbers, so the order holds however they travel. Delivery runs no
//! user code: on the same PE a send puts the value straight into the peer's end and wakes its receiver.
//!
//! Credit: an end may have [`WINDOW`] values unread at its peer; the peer gives credit back as it reads. Beyond that,
//! values wait in the sender's backlog, up to [`BACKLOG_LIMIT`].

use std::any::{Any, type_name};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use rustc_hash::FxHashMap;

use crate::cell::ChareRef;
use crate::current;
use crate::error::{ChannelError, Full};
use crate::ids::ChareId;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::waiting::{Waiter, What};

/// Values that may be unread at the receiving end.
pub(crate) const WINDOW: u32 = 1024;
/// Values that may wait for credit at the sending end.
pub(crate) const BACKLOG_LIMIT: usize = 1 << 16;
/// With more channels than this a chare finds them by hash.
const SCAN_LIMIT: usize = 8;

/// The ends that a chare has.
#[derive(Default)]
pub(crate) struct Channels {
    ends: Vec<Entry>,
    /// Places in `ends`, once there are many.
    by_name: Option<Box<FxHashMap<(ChareId, u64), usize>>>,
}

/// An end under its name.
pub(crate) struct Entry {
    pub(crate) peer: ChareId,
    pub(crate) tag: u64,
    end: Box<dyn AnyEnd>,
}

/// One end of a channel, both directions. What a value touches on its usual way, sent with credit and received in
/// order before the next one comes, is in the first words: an application with many chares has them in no near cache.
#[repr(C)]
struct End<T> {
    /// The number of the next value to be received.
    next_in: u64,
    /// The number of the next value to be sent.
    next_out: u64,
    credit: u32,
    /// Values read since credit was given back.
    read: u32,
    /// Opened by the chare itself, not only by an incoming value.
    opened: bool,
    /// `slow` has receivers or early values.
    in_is_slow: bool,
    /// `slow` has senders or a backlog.
    out_is_slow: bool,
    /// The oldest unread value; if there is none, nothing is unread.
    first: Option<T>,
    slow: Option<Box<Slow<T>>>,
}

/// The rest of an end, made when first needed.
struct Slow<T> {
    /// Unread values behind `first`.
    unread: VecDeque<T>,
    /// Values that came before earlier ones.
    early: BTreeMap<u64, T>,
    /// Values that wait for credit.
    backlog: VecDeque<T>,
    receivers: Waiters,
    senders: Waiters,
    /// The type that the peer sends, if it is not ours.
    wrong: Option<&'static str>,
}

/// Waits at an end, in order; each is known by a ticket.
#[derive(Default)]
struct Waiters {
    queue: VecDeque<(u64, Option<Waiter>)>,
    next_ticket: u64,
}

impl Waiters {
    fn register(
        &mut self,
        ticket: &mut Option<u64>,
        pe: &Pe,
        context: &Context<'_>,
        what: What,
        at: &'static Location<'static>,
    ) {
        let place = ticket.and_then(|ticket| self.queue.iter_mut().find(|(other, _)| *other == ticket));
        match place {
            Some((_, waiter)) => Waiter::register(waiter, pe, context, what, at),
            None => {
                let mut waiter = None;
                Waiter::register(&mut waiter, pe, context, what, at);
                *ticket = Some(self.next_ticket);
                self.queue.push_back((self.next_ticket, waiter));
                self.next_ticket += 1;
            }
        }
    }

    /// Takes the first who is not woken yet.
    fn next(&mut self) -> Option<Waiter> {
        self.queue.iter_mut().find_map(|(_, waiter)| waiter.take())
    }

    /// The wait is over or given up. True if it had been woken, so that its wake-up must be passed on.
    fn leave(&mut self, pe: &Pe, ticket: u64) -> bool {
        let Some(place) = self.queue.iter().position(|(other, _)| *other == ticket) else { return false };
        match self.queue.remove(place) {
            Some((_, Some(waiter))) => {
                waiter.cancel(pe);
                false
            }
            _ => true,
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.queue.iter().filter_map(|(_, waiter)| waiter.as_ref())
    }
}

/// An end whose type of value is not known.
trait AnyEnd: Any + Send {
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
    fn new() -> Self {
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

    fn slow(&mut self) -> &mut Slow<T> {
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
    fn note_slow(&mut self) {
        if let Some(slow) = &self.slow {
            self.in_is_slow = !slow.early.is_empty() || !slow.receivers.queue.is_empty();
            self.out_is_slow = !slow.backlog.is_empty() || !slow.senders.queue.is_empty();
        }
    }

    fn backlog_count(&self) -> usize {
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
    fn pop(&mut self) -> Option<T> {
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
    fn end<T: Send + 'static>(&mut self) -> Option<&mut End<T>> {
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
    fn place_of<T: Send + 'static>(&mut self, peer: ChareId, tag: u64) -> usize {
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

/// One end of a channel, in the chare that opened it.
pub struct Channel<T> {
    chare: ChareId,
    peer: ChareId,
    tag: u64,
    end: usize,
    value: PhantomData<fn(T) -> T>,
}

impl<T: Send + 'static> Channel<T> {
    pub(crate) fn open(chare: ChareId, peer: ChareId, tag: u64) -> Self {
        current::on_pe("opening a channel", |pe| {
            let own = pe.running_as(chare).expect("a chare opens channels in its own methods");
            let end = own.extra(|extra| {
                let place = extra.channels.place_of::<T>(peer, tag);
                let entry = &mut extra.channels.ends[place];
                if entry.end::<T>().is_none() {
                    let there = entry.end.type_name();
                    assert!(
                        !entry.is_opened(),
                        "channel {tag} is open already for values of `{there}`, not `{}`",
                        type_name::<T>()
                    );
                    let mut end = End::<T>::new();
                    end.slow().wrong = Some(there);
                    entry.end = Box::new(end);
                }
                if let Some(end) = entry.end::<T>() {
                    end.opened = true;
                }
                place
            });
            Channel { chare, peer, tag, end, value: PhantomData }
        })
    }

    /// The tag that names the channel between its two chares.
    pub fn tag(&self) -> u64 {
        self.tag
    }

    /// Sends a value. Never waits: while the peer has not given credit the value is queued here, in order.
    ///
    /// # Errors
    /// [`Full`] with the value, if too many values wait for credit already.
    ///
    /// # Panics
    /// Outside of the methods of the chare that opened the channel.
    #[inline]
    pub fn send(&self, value: T) -> Result<(), Full<T>> {
        let sent = self.with_end("Channel::send", |_, end| {
            let backlog_count = end.backlog_count();
            if end.credit > 0 && backlog_count == 0 {
                end.credit -= 1;
                end.next_out += 1;
                return Ok(Some((end.next_out - 1, value)));
            }
            if backlog_count >= BACKLOG_LIMIT {
                return Err(Full { queued: backlog_count, value });
            }
            end.slow().backlog.push_back(value);
            end.out_is_slow = true;
            Ok(None)
        })?;
        if let Some((number, value)) = sent {
            self.transmit(number, value);
        }
        Ok(())
    }

    /// Waits until a value can be sent at once, and keeps that right.
    #[track_caller]
    pub fn reserve(&self) -> Reserve<'_, T> {
        Reserve { channel: self, ticket: None, at: Location::caller() }
    }

    /// Receives the next value. Dropping the future loses nothing.
    #[track_caller]
    pub fn recv(&self) -> Recv<'_, T> {
        Recv { channel: self, ticket: None, at: Location::caller() }
    }

    /// The next value if it is there.
    ///
    /// # Errors
    /// As awaiting [`Channel::recv`].
    ///
    /// # Panics
    /// Outside of the methods of the chare that opened the channel.
    pub fn try_recv(&self) -> Result<Option<T>, ChannelError> {
        current::on_pe("Channel::try_recv", |pe| {
            let own = pe.running_as(self.chare).ok_or(ChannelError::NotHere)?;
            self.take(pe, own)
        })
    }

    #[inline]
    fn with_end<R>(&self, what: &str, f: impl FnOnce(&Pe, &mut End<T>) -> R) -> R {
        current::on_pe(what, |pe| match pe.running_as(self.chare) {
            Some(own) => own.extra(|extra| f(pe, self.end_in(&mut extra.channels))),
            None => panic!("{what}: a channel end works in the methods of its own chare only"),
        })
    }

    #[inline]
    fn end_in<'c>(&self, channels: &'c mut Channels) -> &'c mut End<T> {
        channels.ends[self.end].end::<T>().expect("an open channel keeps its type")
    }

    /// Lets a future leave its end, if the chare is still there, and wakes whoever follows.
    fn leave(&self, f: impl FnOnce(&Pe, &mut End<T>) -> Option<Waiter>) {
        current::pe(|pe| {
            let Some(pe) = pe else { return };
            let Some(own) = pe.find(self.chare) else { return };
            let next = own.extra_if_any(|extra| f(pe, self.end_in(&mut extra.channels)));
            if let Some(waiter) = next.flatten() {
                waiter.wake(pe);
            }
        });
    }

    /// Brings a value to the peer's end: at once if it is on this PE.
    #[inline]
    fn transmit(&self, number: u64, value: T) {
        current::on_pe("Channel::send", |pe| {
            let carry = Carry { from: self.chare, tag: self.tag, number, value };
            match pe.find(self.peer) {
                Some(peer) => carry.arrive(pe, peer),
                None => pe.send(Msg::new(self.peer, Reply::none(), carry)),
            }
        });
    }

    /// Takes the next value and gives credit back.
    fn take(&self, pe: &Pe, own: ChareRef) -> Result<Option<T>, ChannelError> {
        let (value, credit) = own.extra(|extra| {
            let end = self.end_in(&mut extra.channels);
            let Some(value) = end.pop() else {
                let wrong = end.slow.as_ref().and_then(|slow| slow.wrong);
                return wrong.map_or(Ok((None, None)), |sent| {
                    let peer = pe.chare_name(self.peer);
                    Err(ChannelError::WrongType { peer, tag: self.tag, sent, expected: type_name::<T>() })
                });
            };
            end.read += 1;
            let credit = (end.read >= WINDOW / 2).then(|| std::mem::take(&mut end.read));
            Ok((Some(value), credit))
        })?;
        if let Some(count) = credit {
            let credit = Credit { from: self.chare, tag: self.tag, count };
            match pe.find(self.peer) {
                Some(peer) => credit.arrive(pe, peer),
                None => pe.send(Msg::new(self.peer, Reply::none(), credit)),
            }
        }
        Ok(value)
    }
}

impl<T> std::fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel<{}>({})", type_name::<T>(), self.tag)
    }
}

/// Receives one value; made by [`Channel::recv`].
#[must_use = "futures do nothing unless polled"]
pub struct Recv<'a, T: Send + 'static> {
    channel: &'a Channel<T>,
    ticket: Option<u64>,
    at: &'static Location<'static>,
}

impl<T: Send + 'static> Future for Recv<'_, T> {
    type Output = Result<T, ChannelError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let channel = self.channel;
        current::on_pe("Channel::recv", |pe| {
            let Some(own) = pe.running_as(channel.chare) else {
                return Poll::Ready(Err(ChannelError::NotHere));
            };
            let outcome = channel.take(pe, own).transpose();
            if outcome.is_some() && self.ticket.is_none() {
                return outcome.map_or(Poll::Pending, Poll::Ready);
            }
            own.extra(|extra| {
                let end = channel.end_in(&mut extra.channels);
                let polled = match outcome {
                    Some(outcome) => {
                        if let Some(ticket) = self.ticket.take() {
                            end.slow().receivers.leave(pe, ticket);
                        }
                        Poll::Ready(outcome)
                    }
                    None => {
                        let (at, what) = (self.at, What::Receive { peer: channel.peer, tag: channel.tag });
                        end.slow().receivers.register(&mut self.ticket, pe, context, what, at);
                        Poll::Pending
                    }
                };
                end.note_slow();
                polled
            })
        })
    }
}

impl<T: Send + 'static> Drop for Recv<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        self.channel.leave(|pe, end| {
            let woken = end.slow().receivers.leave(pe, ticket);
            let next = if woken && end.first.is_some() { end.slow().receivers.next() } else { None };
            end.note_slow();
            next
        });
    }
}

/// Waits for credit; made by [`Channel::reserve`].
#[must_use = "futures do nothing unless polled"]
pub struct Reserve<'a, T: Send + 'static> {
    channel: &'a Channel<T>,
    ticket: Option<u64>,
    at: &'static Location<'static>,
}

impl<'a, T: Send + 'static> Future for Reserve<'a, T> {
    type Output = Permit<'a, T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let channel = self.channel;
        let at = self.at;
        channel.with_end("Channel::reserve", |pe, end| {
            let polled = if end.credit > 0 && end.backlog_count() == 0 {
                end.credit -= 1;
                if let Some(ticket) = self.ticket.take() {
                    end.slow().senders.leave(pe, ticket);
                }
                Poll::Ready(Permit { channel, used: false })
            } else {
                let what = What::Credit { peer: channel.peer, tag: channel.tag };
                end.slow().senders.register(&mut self.ticket, pe, context, what, at);
                Poll::Pending
            };
            end.note_slow();
            polled
        })
    }
}

impl<T: Send + 'static> Drop for Reserve<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        self.channel.leave(|pe, end| {
            let woken = end.slow().senders.leave(pe, ticket);
            let next = if woken && end.credit > 0 { end.slow().senders.next() } else { None };
            end.note_slow();
            next
        });
    }
}

/// The right to send one value; given back when dropped unused.
#[must_use = "the right is given back when this is dropped"]
pub struct Permit<'a, T: Send + 'static> {
    channel: &'a Channel<T>,
    used: bool,
}

impl<T: Send + 'static> Permit<'_, T> {
    /// Sends a value; cannot fail.
    ///
    /// # Panics
    /// Outside of the methods of the chare that opened the channel.
    pub fn send(mut self, value: T) {
        self.used = true;
        let number = self.channel.with_end("Permit::send", |_, end| {
            end.next_out += 1;
            end.next_out - 1
        });
        self.channel.transmit(number, value);
    }
}

impl<T: Send + 'static> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if !self.used {
            self.channel.leave(|_, end| {
                end.credit += 1;
                if end.out_is_slow { end.slow().senders.next() } else { None }
            });
        }
    }
}

/// A value on its way.
struct Carry<T> {
    from: ChareId,
    tag: u64,
    number: u64,
    value: T,
}

impl<T: Send + 'static> Carry<T> {
    fn arrive(self, pe: &Pe, peer: ChareRef) {
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
struct Credit {
    from: ChareId,
    tag: u64,
    count: u32,
}

impl Credit {
    fn arrive(self, pe: &Pe, peer: ChareRef) {
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
