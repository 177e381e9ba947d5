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
    ends: Vec<End>,
    by_name: FxHashMap<(ChareId, u64), usize>,
}

/// One end of a channel: both directions.
pub(crate) struct End {
    pub(crate) peer: ChareId,
    pub(crate) tag: u64,
    /// Opened by the chare itself, not only by an incoming value.
    pub(crate) opened: bool,
    values: Box<dyn AnyValues>,
    /// The type that the peer sends, if it is not ours.
    wrong: Option<&'static str>,
    receivers: Waiters,
    /// The number of the next value to be received.
    next_in: u64,
    /// Values read since credit was given back.
    read: u32,
    /// The number of the next value to be sent.
    next_out: u64,
    credit: u32,
    senders: Waiters,
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

struct Values<T> {
    incoming: VecDeque<T>,
    /// Values that came before earlier ones.
    early: BTreeMap<u64, T>,
    backlog: VecDeque<T>,
}

trait AnyValues: Any + Send {
    fn type_name(&self) -> &'static str;
    fn incoming_count(&self) -> usize;
    fn backlog_count(&self) -> usize;
    /// Sends what the credit allows from the backlog.
    fn drain_backlog(
        &mut self,
        count: usize,
        first_number: u64,
        from: ChareId,
        end: (ChareId, u64),
    ) -> Vec<Msg>;
}

impl<T: Send + 'static> AnyValues for Values<T> {
    fn type_name(&self) -> &'static str {
        type_name::<T>()
    }
    fn incoming_count(&self) -> usize {
        self.incoming.len()
    }
    fn backlog_count(&self) -> usize {
        self.backlog.len()
    }
    fn drain_backlog(
        &mut self,
        count: usize,
        first_number: u64,
        from: ChareId,
        end: (ChareId, u64),
    ) -> Vec<Msg> {
        let (peer, tag) = end;
        let values = self.backlog.drain(..count).zip(first_number..);
        values
            .map(|(value, number)| Msg::new(peer, Reply::none(), Carry { from, tag, number, value }))
            .collect()
    }
}

impl End {
    fn new<T: Send + 'static>(peer: ChareId, tag: u64) -> End {
        End {
            peer,
            tag,
            opened: false,
            values: new_values::<T>(),
            wrong: None,
            receivers: Waiters::default(),
            next_in: 0,
            read: 0,
            next_out: 0,
            credit: WINDOW,
            senders: Waiters::default(),
        }
    }

    #[inline]
    fn values<T: Send + 'static>(&mut self) -> Option<&mut Values<T>> {
        let values: &mut dyn Any = &mut *self.values;
        values.downcast_mut()
    }

    /// Values that have come and were not read, and values that wait for credit.
    pub(crate) fn queued(&self) -> (usize, usize) {
        (self.values.incoming_count(), self.values.backlog_count())
    }

    pub(crate) fn waiters(&self) -> impl Iterator<Item = &Waiter> {
        self.receivers.iter().chain(self.senders.iter())
    }

    /// Takes in a value; returns who is to be woken.
    fn accept<T: Send + 'static>(&mut self, number: u64, value: T) -> Option<Waiter> {
        let next_in = self.next_in;
        let Some(values) = self.values::<T>() else {
            self.wrong = Some(type_name::<T>());
            return self.receivers.next();
        };
        if number != next_in {
            values.early.insert(number, value);
            return None;
        }
        values.incoming.push_back(value);
        let mut next_in = next_in + 1;
        while let Some(value) = values.early.remove(&next_in) {
            values.incoming.push_back(value);
            next_in += 1;
        }
        self.next_in = next_in;
        self.receivers.next()
    }
}

fn new_values<T: Send + 'static>() -> Box<dyn AnyValues> {
    Box::new(Values::<T> { incoming: VecDeque::new(), early: BTreeMap::new(), backlog: VecDeque::new() })
}

impl Channels {
    #[inline]
    fn find(&self, peer: ChareId, tag: u64) -> Option<usize> {
        if self.ends.len() <= SCAN_LIMIT {
            return self.ends.iter().position(|end| end.peer == peer && end.tag == tag);
        }
        self.by_name.get(&(peer, tag)).copied()
    }

    fn find_or_make<T: Send + 'static>(&mut self, peer: ChareId, tag: u64) -> usize {
        self.find(peer, tag).unwrap_or_else(|| {
            self.ends.push(End::new::<T>(peer, tag));
            self.by_name.insert((peer, tag), self.ends.len() - 1);
            self.ends.len() - 1
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &End> {
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
                let place = extra.channels.find_or_make::<T>(peer, tag);
                let end = &mut extra.channels.ends[place];
                if end.values::<T>().is_none() {
                    let there = end.values.type_name();
                    assert!(
                        !end.opened,
                        "channel {tag} is open already for values of `{there}`, not `{}`",
                        type_name::<T>()
                    );
                    end.wrong = Some(there);
                    end.values = new_values::<T>();
                }
                end.opened = true;
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
        self.with_end("Channel::send", |_, _, end| {
            let backlog_count = end.values.backlog_count();
            if end.credit > 0 && backlog_count == 0 {
                end.credit -= 1;
                end.next_out += 1;
                return Ok(Some((end.next_out - 1, value)));
            }
            if backlog_count >= BACKLOG_LIMIT {
                return Err(Full { queued: backlog_count, value });
            }
            end.values::<T>().expect("open channels have their own type").backlog.push_back(value);
            Ok(None)
        })
        .map(|sent| {
            if let Some((number, value)) = sent {
                self.transmit(number, value);
            }
        })
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

    fn with_end<R>(&self, what: &str, f: impl FnOnce(&Pe, ChareRef, &mut End) -> R) -> R {
        current::on_pe(what, |pe| match pe.running_as(self.chare) {
            Some(own) => own.extra(|extra| f(pe, own, &mut extra.channels.ends[self.end])),
            None => panic!("{what}: a channel end works in the methods of its own chare only"),
        })
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
            let end = &mut extra.channels.ends[self.end];
            if let Some(sent) = end.wrong {
                let peer = pe.chare_name(self.peer);
                return Err(ChannelError::WrongType {
                    peer,
                    tag: self.tag,
                    sent,
                    expected: type_name::<T>(),
                });
            }
            let value = end.values::<T>().expect("open channels have their own type").incoming.pop_front();
            if value.is_none() {
                return Ok((None, None));
            }
            end.read += 1;
            let credit = (end.read >= WINDOW / 2).then(|| std::mem::take(&mut end.read));
            Ok((value, credit))
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
            own.extra(|extra| {
                let end = &mut extra.channels.ends[channel.end];
                match outcome {
                    Some(outcome) => {
                        if let Some(ticket) = self.ticket.take() {
                            end.receivers.leave(pe, ticket);
                        }
                        Poll::Ready(outcome)
                    }
                    None => {
                        let (at, what) = (self.at, What::Receive { peer: channel.peer, tag: channel.tag });
                        end.receivers.register(&mut self.ticket, pe, context, what, at);
                        Poll::Pending
                    }
                }
            })
        })
    }
}

impl<T: Send + 'static> Drop for Recv<'_, T> {
    fn drop(&mut self) {
        let (channel, Some(ticket)) = (self.channel, self.ticket.take()) else { return };
        leave(channel.chare, channel.end, |pe, end| {
            let pass_on = end.receivers.leave(pe, ticket) && end.values.incoming_count() > 0;
            if pass_on { end.receivers.next() } else { None }
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
        channel.with_end("Channel::reserve", |pe, _, end| {
            if end.credit > 0 && end.values.backlog_count() == 0 {
                end.credit -= 1;
                if let Some(ticket) = self.ticket.take() {
                    end.senders.leave(pe, ticket);
                }
                return Poll::Ready(Permit { channel, used: false });
            }
            let what = What::Credit { peer: channel.peer, tag: channel.tag };
            end.senders.register(&mut self.ticket, pe, context, what, at);
            Poll::Pending
        })
    }
}

impl<T: Send + 'static> Drop for Reserve<'_, T> {
    fn drop(&mut self) {
        let (channel, Some(ticket)) = (self.channel, self.ticket.take()) else { return };
        leave(channel.chare, channel.end, |pe, end| {
            let pass_on = end.senders.leave(pe, ticket) && end.credit > 0;
            if pass_on { end.senders.next() } else { None }
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
        let number = self.channel.with_end("Permit::send", |_, _, end| {
            end.next_out += 1;
            end.next_out - 1
        });
        self.channel.transmit(number, value);
    }
}

impl<T: Send + 'static> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if !self.used {
            leave(self.channel.chare, self.channel.end, |_, end| {
                end.credit += 1;
                end.senders.next()
            });
        }
    }
}

/// Lets a future leave its end, if the chare is still there, and wakes whoever follows.
fn leave(chare: ChareId, end: usize, f: impl FnOnce(&Pe, &mut End) -> Option<Waiter>) {
    current::pe(|pe| {
        let Some(pe) = pe else { return };
        let Some(own) = pe.find(chare) else { return };
        let next = own.extra_if_any(|extra| extra.channels.ends.get_mut(end).and_then(|end| f(pe, end)));
        if let Some(waiter) = next.flatten() {
            waiter.wake(pe);
        }
    });
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
        let waiter = peer.extra(|extra| {
            let place = extra.channels.find_or_make::<T>(self.from, self.tag);
            extra.channels.ends[place].accept(self.number, self.value)
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
        let (messages, waiters) = peer.extra(|extra| {
            let Some(place) = extra.channels.find(self.from, self.tag) else {
                return (Vec::new(), Vec::new());
            };
            let end = &mut extra.channels.ends[place];
            end.credit += self.count;
            let count = end.values.backlog_count().min(end.credit as usize);
            let messages = end.values.drain_backlog(count, end.next_out, peer.id, (end.peer, end.tag));
            end.next_out += count as u64;
            end.credit -= count as u32;
            let waiters: Vec<Waiter> = (0..end.credit).map_while(|_| end.senders.next()).collect();
            (messages, waiters)
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
