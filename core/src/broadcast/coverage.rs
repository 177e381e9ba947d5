//! Every broadcast reaches every element once, also while elements move.
//!
//! A PE begins broadcasts in the order of their numbers; how many it has begun is `started`. An element's `covered` says
//! from which number on the PE where it lives has to deliver to it; what is below has been delivered or is owed by
//! another PE. When an element moves from A to B:
//!
//! 1. A has delivered all that it has begun (the job under way goes to it first), so `covered` is A's `started`, or more
//!    if the element came here from a PE that was ahead.
//! 2. While it is in transit, A puts aside a copy of each broadcast that it begins, from `covered` on.
//! 3. B takes it in, answers with its own `started`, and from then on delivers what it begins. If B was ahead, what lies
//!    between is a *gap*: the element then takes broadcasts by number, and holds early ones back.
//! 4. A learns B's `started`: what it has put aside below it goes to the element as messages, the rest is dropped. What A
//!    has not begun yet, but B had, is a *debt*: A sends it when it begins it.
//!
//! So each number is delivered by exactly one PE: below B's `started` by A, from there on by B. The completion tree of an
//! awaited broadcast waits at A for what A has put aside, so it ends neither early nor never.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use rustc_hash::FxHashMap;

use crate::cell::{ChareRef, State};
use crate::collection::Collection;
use crate::current;
use crate::ids::{ChareId, PeId};
use crate::message::{Inner, Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{self, Arrives, Decoder, Encoder, Kind, Leaves, Unsent, WireError};

/// One departure of an element: which one, the how manieth of its moves, and where to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Departure {
    pub(crate) element: u64,
    pub(crate) epoch: u64,
    pub(crate) to: PeId,
}

/// What one PE has begun, and owes to elements that have left.
#[derive(Default)]
pub(crate) struct Coverage {
    started: Cell<u64>,
    /// Elements that have left and, as far as is known here, not arrived yet: by PE, in the order in which they left, which
    /// is the order in which they arrive as long as messages between two PEs keep theirs.
    in_transit: RefCell<Vec<VecDeque<InTransit>>>,
    in_transit_count: Cell<usize>,
    /// Elements that have arrived where these broadcasts had been begun already; this PE has not begun all of them.
    debts: RefCell<FxHashMap<Departure, Range<u64>>>,
}

struct InTransit {
    departure: Departure,
    covered: u64,
    /// Broadcasts that were begun since, by number.
    aside: Vec<(u64, Msg)>,
}

impl Coverage {
    /// Broadcasts that have begun here.
    pub(crate) fn started(&self) -> u64 {
        self.started.get()
    }

    /// Begins the next broadcast; returns the departed elements that may need it.
    pub(super) fn begin(&self, number: u64) -> Vec<Owed> {
        debug_assert_eq!(number, self.started.get(), "broadcasts begin in the order of their numbers");
        self.started.set(number + 1);
        if self.in_transit_count.get() == 0 && self.debts.borrow().is_empty() {
            return Vec::new();
        }
        let mut owed = Vec::new();
        for there in self.in_transit.borrow().iter() {
            let needs = there.iter().enumerate().filter(|(_, element)| element.covered <= number);
            owed.extend(needs.map(|(place, element)| Owed::Perhaps(element.departure, place)));
        }
        self.debts.borrow_mut().retain(|departure, numbers| {
            if numbers.contains(&number) {
                owed.push(Owed::Surely(departure.element));
            }
            numbers.end > number + 1
        });
        owed
    }

    /// Puts a broadcast aside for a departed element, at the place that `begin` has said just now.
    pub(super) fn put_aside(&self, departure: Departure, place: usize, number: u64, msg: Msg) {
        let element = &mut self.in_transit.borrow_mut()[departure.to.index()][place];
        assert_eq!(element.departure, departure, "nothing arrives while a broadcast begins");
        element.aside.push((number, msg));
    }

    /// Notes that an element has left, which other PEs have to deliver to from number `covered` on.
    pub(crate) fn departed(&self, departure: Departure, covered: u64) {
        let mut in_transit = self.in_transit.borrow_mut();
        let to = departure.to.index();
        if in_transit.len() <= to {
            in_transit.resize_with(to + 1, VecDeque::new);
        }
        in_transit[to].push_back(InTransit { departure, covered, aside: Vec::new() });
        self.in_transit_count.set(self.in_transit_count.get() + 1);
    }

    /// Notes that it has arrived where `started` broadcasts had begun: sends what it is owed.
    pub(crate) fn arrived(&self, pe: &Pe, departure: Departure, started: u64) {
        let Some(InTransit { covered, aside, .. }) = self.take(departure) else { return };
        for (number, mut msg) in aside {
            if number < started {
                pe.send(msg);
            } else {
                msg.take_reply().waive(pe);
                pe.guard(|| drop(msg));
            }
        }
        if started > self.started.get().max(covered) {
            self.debts.borrow_mut().insert(departure, covered..started);
        }
    }

    fn take(&self, departure: Departure) -> Option<InTransit> {
        let mut in_transit = self.in_transit.borrow_mut();
        let there = in_transit.get_mut(departure.to.index())?;
        let place = there.iter().position(|element| element.departure == departure)?;
        self.in_transit_count.set(self.in_transit_count.get() - 1);
        there.remove(place)
    }

    /// Drops what is put aside, at the end of the PE.
    pub(crate) fn give_up(&self, pe: &Pe) {
        let aside = self.in_transit.take().into_iter().flatten().flat_map(|element| element.aside);
        pe.drop_each(aside.map(|(_, msg)| msg));
    }
}

/// An element elsewhere that a broadcast may have to be sent to.
pub(super) enum Owed {
    /// It is in transit, at this place among those in transit to its PE.
    Perhaps(Departure, usize),
    /// It has arrived where the broadcast had begun before.
    Surely(u64),
}

/// What an element has to take by number, since it moved ahead of broadcasts that it had not got, or they were held for it
/// until it was constructed.
pub(crate) struct Gap {
    /// The number of the next one.
    next: u64,
    /// What came before its turn.
    early: BTreeMap<u64, Msg>,
}

impl Gap {
    /// Encodes it with what is held back; an error if that cannot leave the process.
    pub(crate) fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_own(&(self.next, self.early.len()));
        self.early.into_iter().try_for_each(|(number, msg)| {
            to.put_own(&number);
            msg.leave(to)
        })
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (next, count): (u64, usize) = from.take()?;
        let mut early = BTreeMap::new();
        for _ in 0..count {
            let number = from.take()?;
            early.insert(number, wire::decode_message(from)?);
        }
        Ok(Gap { next, early })
    }

    pub(crate) fn give_up(self, pe: &Pe) {
        for (_, mut msg) in self.early {
            msg.take_reply().waive(pe);
            pe.guard(|| drop(msg));
        }
    }
}

/// Takes over the delivery to an element that has moved here: it has a gap if more has begun here than reached it.
pub(crate) fn take_over(collection: &Collection, chare: ChareRef) {
    let (covered, started) = (chare.covered.get(), collection.coverage.started());
    if covered < started {
        chare.covered.set(started);
        open_gap(chare, covered);
    }
}

/// Lets an element that has been constructed begin: what it was sent before is queued among its messages, one of which may
/// move it.
pub(crate) fn begin_with_held(chare: ChareRef) {
    let first = chare.extra(|extra| extra.first_broadcast);
    if first < chare.covered.get() {
        open_gap(chare, first);
    }
}

fn open_gap(chare: ChareRef, next: u64) {
    chare.has_gap.set(true);
    chare.extra(|extra| {
        extra.gap.get_or_insert_with(|| Box::new(Gap { next, early: BTreeMap::new() }));
    });
}

/// Holds a broadcast back until the element has got those below it.
pub(super) fn hold_early(chare: ChareRef, number: u64, msg: Msg) {
    chare.extra(|extra| extra.gap.as_mut().map(|gap| gap.early.insert(number, msg)));
}

/// A broadcast for one element, which could not take it when its turn had come: it is queued among the element's messages.
pub(crate) struct Turn {
    pub(super) number: u64,
    /// The call, for no chare yet.
    pub(super) call: Msg,
}

impl Turn {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_own(&self.number);
        self.call.leave(to)
    }
}

impl Arrives for Turn {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Turn { number: from.take()?, call: wire::decode_call(from)? })
    }
}

impl Payload for Turn {
    const NAME: Name = Name::Runtime("a broadcast");
    const INNER: Option<fn(&Self) -> Inner<'_>> = Some(|this| Inner::Message(&this.call));
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Turn, Self::leave);
    const IS_CALL: bool = true;

    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(chare) if is_older(chare, self.number) => over(self, reply, pe),
            Some(chare) if chare.state.get() == State::Idle => {
                self.call.addressed(to, reply).run(pe);
            }
            _ => pe.undeliverable(Msg::new(to, reply, self)),
        }
    }
}

/// A broadcast as a message for one element, from the PE that owes it.
pub(crate) struct Late {
    pub(super) number: u64,
    /// The call, for no chare yet.
    pub(super) call: Msg,
}

impl Late {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_own(&self.number);
        self.call.leave(to)
    }
}

impl Arrives for Late {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Ok(Late { number: from.take()?, call: wire::decode_call(from)? })
    }
}

impl Payload for Late {
    const NAME: Name = Name::Runtime("a broadcast");
    const INNER: Option<fn(&Self) -> Inner<'_>> = Some(|this| Inner::Message(&this.call));
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Late, Self::leave);

    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        let Some(chare) = pe.find(to) else { return pe.undeliverable(Msg::new(to, reply, self)) };
        let due = chare.extra_if_any(|extra| extra.gap.as_ref().map(|gap| gap.next)).flatten();
        let Some(due) = due.filter(|due| *due <= self.number) else {
            // Another element of the same index, inserted after the end of the one that is owed it.
            return over(self, reply, pe);
        };
        let Late { number, call } = self;
        let mut next = Some(Msg::new(to, reply, Turn { number, call }));
        if due < number {
            return next.into_iter().for_each(|msg| hold_early(chare, number, msg));
        }
        while let Some(msg) = next {
            pe.note_msg(&msg);
            msg.run(pe);
            next = after_one(chare);
        }
    }
}

/// Whether a broadcast was for an element of the same index that has been destroyed: it had begun before this one was
/// inserted, since those that come after an insertion wait for its place.
fn is_older(chare: ChareRef, number: u64) -> bool {
    chare.extra_if_any(|extra| number < extra.first_broadcast) == Some(true)
}

/// The broadcast is over for an element that is gone.
fn over<B>(broadcast: B, reply: Reply, pe: &Pe) {
    reply.waive(pe);
    pe.guard(|| drop(broadcast));
}

/// Closes the gap by one; returns what was held back for that.
fn after_one(chare: ChareRef) -> Option<Msg> {
    chare.extra(|extra| {
        let gap = extra.gap.as_mut()?;
        gap.next += 1;
        if gap.next < chare.covered.get() {
            return gap.early.remove(&gap.next);
        }
        chare.has_gap.set(false);
        debug_assert!(gap.early.is_empty(), "what is held back is covered");
        extra.gap = None;
        None
    })
}

/// The call of an element elsewhere.
pub(super) fn late(to: ChareId, reply: Reply, number: u64, call: Msg) -> Msg {
    debug_assert!(current::pe(|pe| pe.is_some()), "on the PE that owes it");
    Msg::new(to, reply, Late { number, call })
}
