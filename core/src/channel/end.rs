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

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;
    use crate::current;
    use crate::ids::PeId;
    use crate::options::Options;
    use crate::runtime::Runtime;

    /// Runs a case in the main coroutine of a run, for what needs a PE.
    fn on_a_pe(
        case: impl FnOnce(&Pe) -> Result<(), TestCaseError> + Send + 'static,
    ) -> Result<(), TestCaseError> {
        let (result, outcome) = mpsc::channel();
        let report = Runtime::run(Options::default().with_pes(1), |_| async move {
            let _ = result.send(current::on_pe("a test", case));
        });
        outcome.recv().unwrap_or_else(|_| panic!("{report:?}"))
    }

    proptest! {
        /// Of the values that have not come, one of the first ones comes, so that gaps open and close often.
        #[test]
        fn values_are_handed_out_in_order(turns in prop::collection::vec((0..5_usize, 0..3_usize), 0..80)) {
            let mut end = End::new();
            let mut to_come: Vec<u64> = (0..turns.len() as u64).collect();
            let (mut come, mut next) = (Vec::new(), 0);
            for (early_by, reads) in turns {
                let number = to_come.remove(early_by.min(to_come.len() - 1));
                prop_assert!(end.accept(number, number).is_none(), "nobody waits");
                come.push(number);
                for _ in 0..reads {
                    let expected = come.contains(&next).then_some(next);
                    prop_assert_eq!(end.pop(), expected);
                    next += u64::from(expected.is_some());
                }
                let first_missing = (next..).find(|number| !come.contains(number)).expect("numbers are endless");
                prop_assert_eq!(end.queued(), ((first_missing - next) as usize, 0));
                prop_assert_eq!(end.in_is_slow, come.iter().any(|number| *number > first_missing));
            }
            let rest: Vec<_> = std::iter::from_fn(|| end.pop()).collect();
            prop_assert_eq!(rest, (next..come.len() as u64).collect::<Vec<_>>());
        }

        #[test]
        fn credit_is_neither_lost_nor_made(steps in steps()) {
            on_a_pe(move |pe| {
                let mut stream = Stream::new();
                for step in steps {
                    stream.run(pe, step)?;
                    stream.check()?;
                }
                stream.finish(pe)
            })?;
        }
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Send(usize),
        /// One of the values on their way arrives before the others.
        ArriveEarly(Index),
        Arrive(usize),
        Read(usize),
        ReturnCredit(Index),
    }

    /// Many at a time, since a window holds many.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let many = 1..2 * WINDOW as usize;
        let step = prop_oneof![
            3 => many.clone().prop_map(Step::Send),
            2 => any::<Index>().prop_map(Step::ArriveEarly),
            3 => many.clone().prop_map(Step::Arrive),
            3 => many.prop_map(Step::Read),
            3 => any::<Index>().prop_map(Step::ReturnCredit),
        ];
        prop::collection::vec(step, 0..40)
    }

    /// Both ends of one direction of a channel and what travels between them. Every value is its number.
    struct Stream {
        sender: End<u64>,
        receiver: End<u64>,
        values: VecDeque<(u64, u64)>,
        credits: Vec<u32>,
        /// Values that the sender has given away, at once or to its backlog.
        sent: u64,
        read: u64,
    }

    impl Stream {
        fn new() -> Self {
            Stream {
                sender: End::new(),
                receiver: End::new(),
                values: VecDeque::new(),
                credits: Vec::new(),
                sent: 0,
                read: 0,
            }
        }

        fn run(&mut self, pe: &Pe, step: Step) -> Result<(), TestCaseError> {
            match step {
                Step::Send(count) => (0..count).for_each(|_| self.send()),
                Step::ArriveEarly(which) if !self.values.is_empty() => {
                    self.arrive(which.index(self.values.len()))?;
                }
                Step::Arrive(count) => {
                    for _ in 0..count.min(self.values.len()) {
                        self.arrive(0)?;
                    }
                }
                Step::Read(count) => {
                    for _ in 0..count {
                        self.read()?;
                    }
                }
                Step::ReturnCredit(which) if !self.credits.is_empty() => {
                    let count = self.credits.swap_remove(which.index(self.credits.len()));
                    self.return_credit(pe, count)?;
                }
                Step::ArriveEarly(_) | Step::ReturnCredit(_) => {}
            }
            Ok(())
        }

        /// As `Channel::send`.
        fn send(&mut self) {
            if self.sender.credit > 0 && self.sender.backlog_count() == 0 {
                self.sender.credit -= 1;
                self.values.push_back((self.sender.next_out, self.sent));
                self.sender.next_out += 1;
            } else {
                self.sender.slow().backlog.push_back(self.sent);
                self.sender.out_is_slow = true;
            }
            self.sent += 1;
        }

        fn arrive(&mut self, place: usize) -> Result<(), TestCaseError> {
            let (number, value) = self.values.remove(place).expect("a value on its way");
            prop_assert!(self.receiver.accept(number, value).is_none(), "nobody waits");
            Ok(())
        }

        /// As `Channel::try_recv`.
        fn read(&mut self) -> Result<(), TestCaseError> {
            let expected = (self.read < self.receiver.next_in).then_some(self.read);
            prop_assert_eq!(self.receiver.pop(), expected);
            if expected.is_some() {
                self.read += 1;
                self.receiver.read += 1;
                if self.receiver.read >= WINDOW / 2 {
                    self.credits.push(std::mem::take(&mut self.receiver.read));
                }
            }
            Ok(())
        }

        /// As `Credit::arrive`.
        fn return_credit(&mut self, pe: &Pe, count: u32) -> Result<(), TestCaseError> {
            let (messages, waiters) = self.sender.add_credit(count, chare(0), chare(1), TAG);
            prop_assert!(waiters.is_empty(), "nobody waits");
            for msg in messages {
                prop_assert_eq!(msg.head().to, chare(1));
                let carry = msg.into_payload::<Carry<u64>>(pe).expect("credit sends values only");
                prop_assert_eq!((carry.from, carry.tag), (chare(0), TAG));
                self.values.push_back((carry.number, carry.value));
            }
            Ok(())
        }

        fn check(&self) -> Result<(), TestCaseError> {
            let early = self.receiver.slow.as_ref().map_or(0, |slow| slow.early.len());
            let unread = self.receiver.queued().0;
            let under_way = self.values.len() + early + unread;
            let returning = self.credits.iter().sum::<u32>() + self.receiver.read;
            prop_assert_eq!(self.sender.credit as usize + under_way + returning as usize, WINDOW as usize);
            prop_assert!(
                self.values.iter().all(|(number, value)| number == value),
                "numbered in order of sending"
            );

            let backlog_count = self.sender.queued().1;
            prop_assert_eq!(backlog_count as u64, self.sent - self.sender.next_out);
            prop_assert!(backlog_count == 0 || self.sender.credit == 0, "values wait in spite of credit");
            prop_assert_eq!(self.sender.out_is_slow, backlog_count > 0);
            prop_assert_eq!(self.receiver.in_is_slow, early > 0);
            prop_assert_eq!(unread as u64, self.receiver.next_in - self.read);
            Ok(())
        }

        /// Lets everything arrive until nothing is left, which must be soon.
        fn finish(&mut self, pe: &Pe) -> Result<(), TestCaseError> {
            while self.read < self.sent {
                let before = (self.read, self.sender.next_out);
                while !self.values.is_empty() {
                    self.arrive(0)?;
                }
                while self.receiver.first.is_some() {
                    self.read()?;
                }
                while let Some(count) = self.credits.pop() {
                    self.return_credit(pe, count)?;
                }
                self.check()?;
                prop_assert!((self.read, self.sender.next_out) > before, "the stream is stuck");
            }
            Ok(())
        }
    }

    const TAG: u64 = 5;

    fn chare(number: u64) -> ChareId {
        ChareId::single(PeId::new(0), PeId::new(0), number)
    }
}
