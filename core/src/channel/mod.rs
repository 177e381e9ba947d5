//! Channels: ordered streams of values between two chares, with a window of credit.
//!
//! A channel is named by (peer, tag); each chare keeps its end, made when it opens the channel or when the first value
//! comes, whichever is first. Values carry sequence numbers, so the order holds however they travel. Delivery runs no
//! user code: on the same PE a send puts the value straight into the peer's end and wakes its receiver.
//!
//! Credit: an end may have [`WINDOW`] values unread at its peer; the peer gives credit back as it reads. Beyond that,
//! values wait in the sender's backlog, up to [`BACKLOG_LIMIT`].
//!
//! An element that is inserted again has the id of an earlier one, so ids do not tell whom a value is from or for. Each value
//! belongs to a stream ([`end::StreamId`]): of a chare that began in this epoch, and the one that it has begun, after so many
//! others, since their receivers had ended. An end turns to later streams and refuses earlier ones; a chare whose peer
//! has ended begins another. Only what goes by name is looked at: the place of an end belongs to one chare.
//!
//! An end whose peer has ended for good is forgotten when nothing is left in it and nobody waits there. A [`Channel`] whose end
//! is in no place, and has no name either, is closed.

mod across;
mod carry;
mod end;
mod table;
#[cfg(all(test, not(loom)))]
mod tests;

use std::any::type_name;
use std::cell::RefMut;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

pub(crate) use across::{EncodedCarry, TypesMet, ValueTypes, count_held, take_held};
pub(crate) use carry::{Credit, Loss};
pub(crate) use end::moved::{decode, encode};
pub(crate) use table::{Channels, Ends, Uprooted};

use crate::call;
use crate::caught::blame_caller;
use crate::cell::{self, ChareRef, Extra, State};
use crate::chares::Chare;
use crate::current::{self, Here};
use crate::error::{CallError, ChannelError, Full};
use crate::ids::{ChareId, RunId};
use crate::message::Msg;
use crate::proxy::Element;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::waker::Wakeup;
use crate::waiting::{Waiter, What, cancel_replaced};
use crate::wire::Wire;
use carry::{Carry, Left};
use end::moved::{self, Encoded};
use end::{AnyEnd, BACKLOG_LIMIT, Defect, End, Leaver, WINDOW};
use table::{Closed, EndKey, Found, Table, Told};

/// One end of a channel, in the chare that opened it.
pub struct Channel<T> {
    run: RunId,
    chare: ChareId,
    peer: ChareId,
    tag: u64,
    end: Found,
    value: PhantomData<fn(T) -> T>,
}

impl<T: Wire> Channel<T> {
    #[track_caller]
    pub(crate) fn open<D: Chare>(chare: ChareId, peer: &Element<D>, tag: u64) -> Self {
        let opened: Result<_, String> = current::on_pe("opening a channel", |pe| {
            across::note_type::<T>(pe);
            let end = Self::open_end(pe, chare, peer.id(), tag)?;
            if let Some(error) = call::missing(pe, peer)
                && let Some(end) = pe.ends.of::<T>().get(end)
            {
                end.slow().defect = Some(Defect::Peer(error));
                end.note_slow();
            }
            let end = Found::new(end);
            Ok(Channel { run: pe.run(), chare, peer: peer.id(), tag, end, value: PhantomData })
        });
        blame_caller(opened)
    }

    /// The error is a mistake of the caller's.
    fn open_end(pe: &Pe, chare: ChareId, peer: ChareId, tag: u64) -> Result<EndKey, String> {
        let entry = pe.own_extra(chare, |extra| extra.channels.entry::<T>(pe, extra.first_epoch, peer, tag));
        let mut entry = entry.ok_or("a chare opens channels in its own methods and its constructor")?;
        let (mut defect, mut refused) = (None, None);
        if entry.holds::<Encoded>()
            && let Some(own) = pe.running_as(chare)
        {
            moved::rouse::<T>(pe, own, &entry);
            return Self::open_end(pe, chare, peer, tag);
        }
        if !entry.holds::<T>() {
            let there = pe.ends.with(&entry, |end| end.type_name()).unwrap_or_default();
            if entry.is_opened(pe) {
                let wanted = type_name::<T>();
                return Err(format!("channel {tag} is open already for values of `{there}`, not `{wanted}`"));
            }
            let replace = |extra: &mut Extra| extra.channels.replace::<T>(pe, extra.first_epoch, &entry);
            (entry, refused) = pe.own_extra(chare, replace).expect("looked at above");
            defect = Some(Defect::WrongType(there));
        }
        if let Some(end) = pe.ends.of::<T>().get(entry.key) {
            end.opened = true;
            if defect.is_some() {
                end.slow().defect = defect;
            }
        }
        if let Some(refused) = refused {
            // What has come is dropped where nothing is borrowed: its destructor is user code.
            refused.give_up(pe);
        }
        Ok(entry.key)
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
    /// Outside of the methods of the chare that opened the channel, and in a coroutine of it that goes on after another
    /// method has panicked.
    #[inline]
    #[track_caller]
    pub fn send(&self, value: T) -> Result<(), Full<T>> {
        let at = Location::caller();
        current::on_pe("Channel::send", |pe| {
            let (mut table, key) = self.own_table(pe, "Channel::send");
            let end = own_end(&mut table, key);
            if let Some(error) = end.no_peer() {
                drop(table);
                self.sent_to_nobody(pe, error, at);
                return Ok(());
            }
            let backlog_count = end.backlog_count();
            if end.credit > 0 && backlog_count == 0 {
                end.credit -= 1;
                self.transmit(pe, table, key, value, at);
                return Ok(());
            }
            if backlog_count >= BACKLOG_LIMIT {
                return Err(Full::new(backlog_count, value));
            }
            end.slow().backlog.push_back(value);
            end.out_is_slow = true;
            pe.note_value_sent::<T>();
            Ok(())
        })
    }

    /// Waits until a value can be sent at once, and keeps that right. Awaiting it panics in a coroutine of a chare that a
    /// panic of another method has poisoned meanwhile, as the use of the chare's state does.
    #[track_caller]
    pub fn reserve(&self) -> Reserve<'_, T> {
        Reserve { channel: self, ticket: None, at: Location::caller() }
    }

    /// Receives the next value. Dropping the future loses nothing.
    ///
    /// Device memory comes as it was sent, and is used where it is wanted: kernels take it from any device, and
    /// `dev.copy_into(&channel.recv().await?, &mut buffer)?` puts it into a buffer that is there.
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
    #[track_caller]
    pub fn try_recv(&self) -> Result<Option<T>, ChannelError> {
        current::on_pe("Channel::try_recv", |pe| {
            if !self.is_here(pe) {
                return Err(ChannelError::NotHere);
            }
            self.take(pe, &mut None)
        })
    }

    /// Whether a method or the constructor of the channel's chare is running.
    #[inline(always)]
    fn is_here(&self, pe: &Pe) -> bool {
        pe.run() == self.run && pe.is_own(self.chare)
    }

    /// The table with the chare's own end, and its key.
    #[inline(always)]
    fn own_table<'p>(&self, pe: &'p Pe, what: &str) -> (RefMut<'p, Table<T>>, EndKey) {
        assert!(self.is_here(pe), "{what}: a channel end works in the methods of its own chare only");
        self.table_here(pe).unwrap_or_else(|| self.table_of_new(pe))
    }

    /// As `own_table`; none if the end has gone since the peer has ended and nothing was left to be read.
    #[inline(always)]
    fn table_here<'p>(&self, pe: &'p Pe) -> Option<(RefMut<'p, Table<T>>, EndKey)> {
        let mut table = pe.ends.of::<T>();
        let key = self.end.get();
        if table.get(key).is_some() {
            return Some((table, key));
        }
        drop(table);
        self.table_of_another(pe)
    }

    /// The end is not where it was when it was opened: the chare is about to go or is poisoned, and has lost its ends, or
    /// has moved; or the end is not needed any more.
    #[cold]
    fn table_of_another<'p>(&self, pe: &'p Pe) -> Option<(RefMut<'p, Table<T>>, EndKey)> {
        let has_lost_all = |own: ChareRef| own.state.get() == State::Poisoned || own.has_ended();
        let is_spent = |extra: &mut Extra| extra.channels.has_spent(self.peer, self.tag);
        let is_closed = !pe.running_as(self.chare).is_some_and(has_lost_all)
            && pe.own_extra(self.chare, is_spent).unwrap_or(false);
        (!is_closed).then(|| self.table_of_new(pe))
    }

    /// The table with the end that has the name now, made if there is none.
    #[cold]
    fn table_of_new<'p>(&self, pe: &'p Pe) -> (RefMut<'p, Table<T>>, EndKey) {
        let key = blame_caller(Self::open_end(pe, self.chare, self.peer, self.tag));
        let poisoned = pe.running_as(self.chare).filter(|own| own.state.get() == State::Poisoned);
        if let (Some(own), Some(end)) = (poisoned, pe.ends.of::<T>().get(key)) {
            // Nobody waits at an end that was just made.
            let _ = end.fail(Defect::Peer(own.poisoned()));
        }
        self.end.set(key);
        (pe.ends.of::<T>(), key)
    }

    fn name(&self) -> end::Name {
        end::Name { own: self.chare, peer: self.peer, tag: self.tag }
    }

    /// Lets a future leave its end, wherever it was carried meanwhile, and wakes whoever follows.
    fn leave(&self, leaver: Leaver) {
        let (own, end) = (self.chare, self.end.get());
        let left = Left::<T> { leaver, end, name: self.name(), value: PhantomData };
        current::here(|here| match here {
            Here::Pe(pe) if pe.run() != self.run => {}
            Here::Pe(pe) if left.arrive(pe) => {}
            Here::Pe(pe) if end.pe() == pe.id() => pe.send(Msg::new(own, Reply::none(), left)),
            Here::Pe(pe) => pe.post(end.pe(), Msg::new(own, Reply::none(), left)),
            Here::Foreign(_) | Here::Nowhere => {
                current::post_to_run(self.run, end.pe(), Msg::new(own, Reply::none(), left))
            }
        });
    }

    /// Brings a value, for which credit has been taken, to the peer's end: at once if it is on this PE.
    #[inline(always)]
    fn transmit(&self, pe: &Pe, mut table: RefMut<'_, Table<T>>, key: EndKey, value: T, at: &Location<'_>) {
        let end = own_end(&mut table, key);
        if let Some(error) = end.no_peer() {
            drop(table);
            return self.sent_to_nobody(pe, error, at);
        }
        pe.note_value_sent::<T>();
        let number = end.next_out;
        end.next_out += 1;
        let peer_end = end.peer_end;
        match peer_end.and_then(|peer_end| table.get(peer_end)) {
            Some(peer_end) => {
                let waiter = peer_end.accept(number, value);
                drop(table);
                if let Some(waiter) = waiter {
                    waiter.wake(pe);
                }
            }
            None => {
                let stream = own_end(&mut table, key).going();
                drop(table);
                let carry = Carry { from: self.chare, tag: self.tag, stream, number, value };
                self.transmit_by_name(pe, key, carry);
            }
        }
    }

    /// What is sent while there is no peer to send to is lost, as a call of one would be. It may be the own chare that is
    /// missing, by a panic that somebody has heard of: then this is a panic of the coroutine that goes on.
    #[cold]
    fn sent_to_nobody(&self, pe: &Pe, error: CallError, at: &Location<'_>) {
        match pe.running_as(self.chare).filter(|own| own.state.get() == State::Poisoned) {
            Some(own) => pe.panic_at(at, cell::cannot_go_on(own)),
            None => pe.unawaited(error),
        }
    }

    /// As `transmit`, where the peer's end is not known; notes it for the next time if it is on this PE. What a chare sends
    /// to itself goes by message: who does so in a loop lets others run in between.
    #[inline(never)]
    fn transmit_by_name(&self, pe: &Pe, key: EndKey, carry: Carry<T>) {
        match pe.find(self.peer).filter(|peer| peer.id != self.chare) {
            Some(peer) => {
                let peer_end = carry.arrive(pe, peer);
                if let Some(end) = pe.ends.of::<T>().get(key) {
                    end.peer_end = peer_end;
                }
            }
            None => pe.send(Msg::new(self.peer, Reply::none(), carry)),
        }
    }

    /// Takes the next value, for the receiver with this ticket if there is one, and gives credit back.
    #[inline]
    fn take(&self, pe: &Pe, ticket: &mut Option<u64>) -> Result<Option<T>, ChannelError> {
        let Some((mut table, key)) = self.table_here(pe) else {
            return Err(ChannelError::Peer(pe.no_element(self.peer, "the peer")));
        };
        let end = own_end(&mut table, key);
        let Some(value) = end.pop() else {
            let defect = end.defect();
            drop(table);
            return defect.map_or(Ok(None), |defect| Err(self.error(pe, defect)));
        };
        end.read += 1;
        let effects = end.in_is_slow.then(|| (end.received(ticket.take()), end.is_spent()));
        let credit =
            (u32::from(end.read) >= WINDOW / 2).then(|| (std::mem::take(&mut end.read), end.coming()));
        if let Some(peer_end) = end.peer_end {
            // Neighbours exchange: who has received from one sends to it next.
            table.prefetch(peer_end);
        }
        drop(table);
        pe.note_value_received::<T>();
        if let Some((effects, is_spent)) = effects {
            effects.settle(pe);
            if is_spent {
                carry::retire(pe, self.name());
            }
        }
        if let Some((count, stream)) = credit {
            let credit = Credit { from: self.chare, tag: self.tag, count: count.into(), stream };
            match pe.find(self.peer) {
                Some(peer) => credit.arrive(pe, peer),
                None => pe.send(Msg::new(self.peer, Reply::none(), credit)),
            }
        }
        Ok(Some(value))
    }

    #[cold]
    fn error(&self, pe: &Pe, defect: Defect) -> ChannelError {
        match defect {
            Defect::WrongType(sent) => ChannelError::WrongType {
                peer: pe.chare_name(self.peer),
                tag: self.tag,
                sent,
                expected: type_name::<T>(),
            },
            Defect::Peer(error) | Defect::Ended(error) => ChannelError::Peer(error),
        }
    }
}

/// Closes the ends of a chare that is poisoned, and tells its peers.
#[cold]
pub(crate) fn poison(pe: &Pe, chare: ChareRef, error: &CallError) {
    let (loss, ends) = chare.extra(|extra| {
        let loss = Lost::of(pe, extra);
        extra.channels.told.clone_from(&loss.peers);
        (loss, extra.channels.close(pe))
    });
    loss.tell(pe, chare.id, false, error);
    fail(pe, ends, error);
    across::drop_held(pe, chare.id);
}

/// Closes the ends of a chare that is destroyed, and tells its peers.
pub(crate) fn end(pe: &Pe, chare: ChareRef, error: &CallError) {
    let closed = chare.extra_if_any(|extra| (Lost::of(pe, extra), extra.channels.close(pe)));
    if let Some((loss, ends)) = closed {
        loss.tell(pe, chare.id, true, error);
        fail(pe, ends, error);
    }
    across::drop_held(pe, chare.id);
}

/// What a chare leaves behind with its peers.
pub(crate) struct Lost {
    birth: u64,
    peers: Vec<Told>,
}

impl Lost {
    /// Of a chare, or of one whose constructor has failed.
    pub(crate) fn of(pe: &Pe, extra: &Extra) -> Self {
        Lost { birth: extra.first_epoch, peers: extra.channels.to_be_told(pe) }
    }

    /// Tells the peers that nothing comes from the chare any more.
    pub(crate) fn tell(self, pe: &Pe, id: ChareId, has_ended: bool, error: &CallError) {
        let is_sparse = || pe.collection(id.collection).is_some_and(|collection| collection.info.is_sparse());
        let (birth, has_ended) = (self.birth, has_ended && is_sparse());
        for Told { peer, tag, taken } in self.peers.into_iter().filter(|told| told.peer != id) {
            let loss = Loss { from: id, tag, birth, has_ended, taken, error: error.clone() };
            pe.send(Msg::new(peer, Reply::none(), loss));
        }
    }
}

fn fail(pe: &Pe, Closed(ends): Closed, error: &CallError) {
    for mut end in ends {
        end.fail(Defect::Peer(error.clone())).settle(pe);
        end.give_up(pe);
    }
}

/// Takes the ends of a chare that leaves out of the tables of this PE. Whoever waits at them is woken, and registers anew
/// where the chare arrives.
pub(crate) fn uproot(pe: &Pe, chare: ChareRef) -> Uprooted {
    let mut ends = chare.extra_if_any(|extra| extra.channels.uproot(pe)).unwrap_or_default();
    for end in ends.iter_mut() {
        end.wake_all().settle(pe);
    }
    ends
}

/// Puts the ends of a chare that has arrived into the tables of this PE.
pub(crate) fn plant(pe: &Pe, chare: ChareRef, ends: Uprooted) {
    if !ends.is_empty() {
        chare.extra(|extra| extra.channels.plant(pe, ends));
    }
}

/// An end that was found in the table under the same borrow.
#[inline(always)]
fn own_end<T: Wire>(table: &mut Table<T>, key: EndKey) -> &mut End<T> {
    table.get(key).expect("the end is in the table")
}

impl<T> std::fmt::Debug for Channel<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel<{}>({})", type_name::<T>(), self.tag)
    }
}

/// Receives one value; made by [`Channel::recv`].
#[must_use = "futures do nothing unless polled"]
pub struct Recv<'a, T: Wire> {
    channel: &'a Channel<T>,
    ticket: Option<u64>,
    at: &'static Location<'static>,
}

impl<T: Wire> Future for Recv<'_, T> {
    type Output = Result<T, ChannelError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let channel = self.channel;
        current::on_pe("Channel::recv", |pe| {
            if !channel.is_here(pe) {
                return Poll::Ready(Err(ChannelError::NotHere));
            }
            if let Some(outcome) = channel.take(pe, &mut self.ticket).transpose() {
                return Poll::Ready(outcome);
            }
            let what = What::Receive { peer: channel.peer, tag: channel.tag };
            let waiter = Waiter::new(pe, Wakeup::of(context), what, self.at);
            let (mut table, key) = channel.table_here(pe).expect("there was nothing in it just now");
            let end = own_end(&mut table, key);
            let replaced = end.slow().receivers.register(&mut self.ticket, waiter);
            end.in_is_slow = true;
            drop(table);
            cancel_replaced(replaced, pe);
            Poll::Pending
        })
    }
}

impl<T: Wire> Drop for Recv<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.channel.leave(Leaver::Receiver(ticket));
        }
    }
}

/// Waits for credit; made by [`Channel::reserve`].
#[must_use = "futures do nothing unless polled"]
pub struct Reserve<'a, T: Wire> {
    channel: &'a Channel<T>,
    ticket: Option<u64>,
    at: &'static Location<'static>,
}

impl<'a, T: Wire> Future for Reserve<'a, T> {
    type Output = Permit<'a, T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let channel = self.channel;
        let wakeup = Wakeup::of(context);
        current::on_pe("Channel::reserve", |pe| {
            let (mut table, key) = channel.own_table(pe, "Channel::reserve");
            let end = own_end(&mut table, key);
            if let Some(error) = end.no_peer() {
                drop(table);
                channel.sent_to_nobody(pe, error, self.at);
                return Poll::Pending;
            }
            if let Some(effects) = end.take_credit(&mut self.ticket) {
                drop(table);
                effects.settle(pe);
                return Poll::Ready(Permit { channel, used: false });
            }
            let what = What::Credit { peer: channel.peer, tag: channel.tag };
            let waiter = Waiter::new(pe, wakeup, what, self.at);
            let replaced = end.slow().senders.register(&mut self.ticket, waiter);
            end.out_is_slow = true;
            drop(table);
            cancel_replaced(replaced, pe);
            Poll::Pending
        })
    }
}

impl<T: Wire> Drop for Reserve<'_, T> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.channel.leave(Leaver::Sender(ticket));
        }
    }
}

/// The right to send one value; given back when dropped unused.
#[must_use = "the right is given back when this is dropped"]
pub struct Permit<'a, T: Wire> {
    channel: &'a Channel<T>,
    used: bool,
}

impl<T: Wire> Permit<'_, T> {
    /// Sends a value; cannot fail.
    ///
    /// # Panics
    /// As [`Channel::send`].
    #[track_caller]
    pub fn send(mut self, value: T) {
        self.used = true;
        let at = Location::caller();
        current::on_pe("Permit::send", |pe| {
            let (mut table, key) = self.channel.own_table(pe, "Permit::send");
            let end = own_end(&mut table, key);
            if end.backlog_count() == 0 {
                return self.channel.transmit(pe, table, key, value, at);
            }
            // Values that were sent before it go first, one of them with its credit.
            end.slow().backlog.push_back(value);
            let effects = end.leave(Leaver::Permit, self.channel.name());
            drop(table);
            pe.note_value_sent::<T>();
            effects.settle(pe);
        });
    }
}

impl<T: Wire> Drop for Permit<'_, T> {
    fn drop(&mut self) {
        if !self.used {
            self.channel.leave(Leaver::Permit);
        }
    }
}
