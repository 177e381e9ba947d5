//! Channels: ordered streams of values between two chares, with a window of credit.
//!
//! A channel is named by (peer, tag); each chare keeps its end, made when it opens the channel or when the first value
//! comes, whichever is first. Values carry sequence numbers, so the order holds however they travel. Delivery runs no
//! user code: on the same PE a send puts the value straight into the peer's end and wakes its receiver.
//!
//! Credit: an end may have [`WINDOW`] values unread at its peer; the peer gives credit back as it reads. Beyond that,
//! values wait in the sender's backlog, up to [`BACKLOG_LIMIT`].

mod end;

use std::any::type_name;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) use end::Channels;

use crate::cell::ChareRef;
use crate::current;
use crate::error::{ChannelError, Full};
use crate::ids::ChareId;
use crate::message::Msg;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::waker::Wakeup;
use crate::waiting::{Waiter, What, cancel_replaced};
use end::{BACKLOG_LIMIT, Carry, Credit, End, Left, WINDOW};

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
            // An end made for values of another type goes with them after the borrow: their destructors are user code.
            let (end, _wrong) = own.extra(|extra| {
                let mut wrong = None;
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
                    wrong = Some(std::mem::replace(&mut entry.end, Box::new(end)));
                }
                if let Some(end) = entry.end::<T>() {
                    end.opened = true;
                }
                (place, wrong)
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
            self.take(pe, own, &mut None)
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
    fn leave(&self, f: impl FnOnce(&mut End<T>) -> Left) {
        current::pe(|pe| {
            let Some(pe) = pe else { return };
            let Some(own) = pe.find(self.chare) else { return };
            if let Some(left) = own.extra_if_any(|extra| f(self.end_in(&mut extra.channels))) {
                left.settle(pe);
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

    /// Takes the next value, for the receiver with this ticket if there is one, and gives credit back.
    fn take(&self, pe: &Pe, own: ChareRef, ticket: &mut Option<u64>) -> Result<Option<T>, ChannelError> {
        let (value, credit, left, next) = own.extra(|extra| {
            let end = self.end_in(&mut extra.channels);
            let Some(value) = end.pop() else {
                let wrong = end.slow.as_ref().and_then(|slow| slow.wrong);
                return wrong.map_or(Ok((None, None, Left::Nobody, None)), |sent| {
                    let peer = pe.chare_name(self.peer);
                    Err(ChannelError::WrongType { peer, tag: self.tag, sent, expected: type_name::<T>() })
                });
            };
            end.read += 1;
            let credit = (end.read >= WINDOW / 2).then(|| std::mem::take(&mut end.read));
            if !end.in_is_slow {
                return Ok((Some(value), credit, Left::Nobody, None));
            }
            let left = ticket.take().map_or(Left::Nobody, |ticket| end.slow().receivers.leave(ticket, false));
            // Several values may have become readable by one wake-up: it goes on to the next who waits.
            let next = if end.first.is_some() { end.slow().receivers.next() } else { None };
            end.note_slow();
            Ok((Some(value), credit, left, next))
        })?;
        left.settle(pe);
        if let Some(waiter) = next {
            waiter.wake(pe);
        }
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
            if let Some(outcome) = channel.take(pe, own, &mut self.ticket).transpose() {
                return Poll::Ready(outcome);
            }
            let what = What::Receive { peer: channel.peer, tag: channel.tag };
            let waiter = Waiter::new(pe, Wakeup::of(context), what, self.at);
            let replaced = own.extra(|extra| {
                let end = channel.end_in(&mut extra.channels);
                let replaced = end.slow().receivers.register(&mut self.ticket, waiter);
                end.in_is_slow = true;
                replaced
            });
            cancel_replaced(replaced, pe);
            Poll::Pending
        })
    }
}

impl<T: Send + 'static> Drop for Recv<'_, T> {
    #[inline]
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        self.channel.leave(|end| {
            let follows = end.first.is_some();
            let left = end.slow().receivers.leave(ticket, follows);
            end.note_slow();
            left
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
        let mut wakeup = Some(Wakeup::of(context));
        let what = What::Credit { peer: channel.peer, tag: channel.tag };
        let (at, ticket) = (self.at, &mut self.ticket);
        let (polled, left, replaced) = channel.with_end("Channel::reserve", |pe, end| {
            if end.credit > 0 && end.backlog_count() == 0 {
                end.credit -= 1;
                let left =
                    ticket.take().map_or(Left::Nobody, |ticket| end.slow().senders.leave(ticket, false));
                end.note_slow();
                return (Poll::Ready(Permit { channel, used: false }), left, None);
            }
            let wakeup = wakeup.take().expect("taken once");
            let replaced = end.slow().senders.register(ticket, Waiter::new(pe, wakeup, what, at));
            end.out_is_slow = true;
            (Poll::Pending, Left::Nobody, replaced)
        });
        current::pe(|pe| {
            if let Some(pe) = pe {
                left.settle(pe);
                cancel_replaced(replaced, pe);
            }
        });
        polled
    }
}

impl<T: Send + 'static> Drop for Reserve<'_, T> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        self.channel.leave(|end| {
            let follows = end.credit > 0;
            let left = end.slow().senders.leave(ticket, follows);
            end.note_slow();
            left
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
            self.channel.leave(|end| {
                end.credit += 1;
                let next = if end.out_is_slow { end.slow().senders.next() } else { None };
                next.map_or(Left::Nobody, Left::Woken)
            });
        }
    }
}
