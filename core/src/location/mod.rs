//! Where chares are, and how messages find them. The protocol and its argument are in `README.md` beside this file.
//!
//! Every PE can compute the *home* of a chare from its id. A PE sends to where it believes the chare to be: here, where a
//! record says, or at its home. Whoever gets a message for a chare that has left forwards it by its own record, and tells
//! the sender.
//!
//! Invariant: a message is only ever forwarded along moves of its chare that come later than those it has followed.

mod endings;
#[cfg(all(test, not(loom)))]
mod tests;
#[cfg(all(test, not(loom)))]
pub(crate) use tests::Trail;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use rustc_hash::FxHashMap;

use serde::{Deserialize, Serialize};

use crate::cell::State;
use crate::error::{CallError, NoElement};
use crate::ids::{ChareId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::priority::{Rank, Ranked};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::wire::{self, Arrives, Decoder, Encoder, Kind, Leaves, Unsent, WireError};
use endings::Endings;
pub(crate) use endings::{Forget, Tell};

/// Where a chare was after so many moves. The epochs of elements that have one index, one after the other, grow as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) pe: PeId,
    pub(crate) epoch: u64,
}

/// What a PE knows of a chare that does not live on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Record {
    place: Place,
    /// The chare has arrived there. Until then only the PE that has sent it there knows of it.
    is_confirmed: bool,
}

/// The records of one PE: of chares that have left it, of chares that it is the home of, and of others that it sends to.
#[derive(Default)]
pub(crate) struct Locations {
    records: RefCell<FxHashMap<ChareId, Record>>,
    count: Cell<usize>,
    endings: Endings,
    /// Messages that have been sent on from here.
    #[cfg(all(test, not(loom)))]
    forwards: Cell<u64>,
}

impl Locations {
    #[inline]
    fn find(&self, id: ChareId) -> Option<Record> {
        if self.count.get() == 0 { None } else { self.records.borrow().get(&id).copied() }
    }

    fn change(&self, change: impl FnOnce(&mut FxHashMap<ChareId, Record>)) {
        let mut records = self.records.borrow_mut();
        change(&mut records);
        self.count.set(records.len());
    }

    /// Notes that a chare leaves for another PE.
    pub(crate) fn departed(&self, id: ChareId, place: Place) {
        self.change(|records| {
            records.insert(id, Record { place, is_confirmed: false });
        });
    }

    /// Notes where a chare has arrived, unless a newer place is known.
    pub(crate) fn learn(&self, id: ChareId, place: Place) {
        self.change(|records| {
            let record = records.entry(id).or_insert(Record { place, is_confirmed: true });
            if record.place.epoch <= place.epoch {
                *record = Record { place, is_confirmed: true };
            }
        });
    }

    /// Whether there is a record of a chare.
    pub(crate) fn knows(&self, id: ChareId) -> bool {
        self.find(id).is_some()
    }

    /// Where a chare has arrived, as far as is known here.
    fn confirmed(&self, id: ChareId) -> Option<Place> {
        self.find(id).filter(|record| record.is_confirmed).map(|record| record.place)
    }

    /// Forgets where a chare was: it lives here now, or nowhere.
    pub(crate) fn forget(&self, id: ChareId) {
        if self.count.get() > 0 {
            self.change(|records| {
                records.remove(&id);
            });
        }
    }

    /// Forgets where a chare was that has ended after so many moves, and not another one of the same index.
    fn forget_until(&self, id: ChareId, epoch: u64) {
        if self.find(id).is_some_and(|record| record.place.epoch <= epoch) {
            self.forget(id);
        }
    }

    /// How many records there are.
    #[cfg(all(test, not(loom)))]
    fn kept_count(&self) -> usize {
        self.count.get()
    }
}

/// Where a message goes from here.
pub(crate) enum Route {
    /// Its chare lives here, or will, once it is constructed.
    Here,
    /// To a PE where its chare is or was, or that knows more.
    To(PeId),
    /// There is no such chare.
    Nowhere,
    /// Its collection is not known here yet.
    Unknown,
}

impl Pe {
    #[inline(always)]
    pub(crate) fn route(&self, to: ChareId) -> Route {
        let home = match to.collection.single_home() {
            Some(_) if self.has_single(to.element) => return Route::Here,
            Some(home) => home,
            None => match self.collection(to.collection) {
                None => return Route::Unknown,
                Some(collection) if collection.expects(to.element) => return Route::Here,
                Some(collection) if !collection.info.has(to.element) => return Route::Nowhere,
                Some(collection) => collection.info.home(to.element),
            },
        };
        match self.locations.find(to) {
            Some(record) => Route::To(record.place.pe),
            None if home != self.id() => Route::To(home),
            None if self.is_gone(to) => Route::Nowhere,
            None => Route::Here,
        }
    }

    /// Sends a message to its chare.
    #[inline(always)]
    pub(crate) fn send(&self, msg: Msg) {
        let to = msg.head().to;
        let is_here = match to.collection.single_home() {
            None => self.collection(to.collection).is_some_and(|collection| collection.is_direct(to.element)),
            Some(home) => home == self.id(),
        };
        if is_here { self.enqueue(Work::Msg(msg)) } else { self.send_away(msg) }
    }

    #[inline(never)]
    fn send_away(&self, mut msg: Msg) {
        let to = msg.head().to;
        match self.route(to) {
            Route::Here => self.enqueue(Work::Msg(msg)),
            Route::To(pe) => {
                self.note_way(&mut msg);
                self.post(pe, msg);
            }
            Route::Nowhere => self.doubt(msg),
            Route::Unknown => self.hold_for_collection(to.collection, msg),
        }
    }

    /// Sends a message to its chare, with a rank among those that wait there; or on to it, if it has come from elsewhere.
    pub(crate) fn send_ranked(&self, rank: Rank, mut msg: Msg) {
        match self.route(msg.head().to) {
            Route::Here => self.enqueue_ranked(rank, Work::Msg(msg)),
            Route::To(pe) => {
                self.tell_sender(pe, &msg);
                self.note_way(&mut msg);
                self.post(pe, Ranked::routed(rank, msg.unpinned(self)));
            }
            Route::Nowhere | Route::Unknown => self.send_away(msg),
        }
    }

    /// What becomes of a message whose chare cannot take it now: held, refused, or sent where the chare is.
    #[cold]
    pub(crate) fn undeliverable(&self, msg: Msg) {
        let to = msg.head().to;
        match self.find(to) {
            Some(chare) if chare.state.get() == State::Poisoned => return msg.lose(self, chare.poisoned()),
            Some(chare) => return self.hold_for_owned(chare, msg),
            None => {}
        }
        if let Some(error) = self.stillborn(to) {
            return self.lose_stillborn(msg, error);
        }
        match self.route(to) {
            Route::Here => self.hold_for_chare(msg),
            Route::To(pe) => self.forward(pe, msg),
            Route::Nowhere => self.doubt(msg),
            Route::Unknown => self.hold_for_collection(to.collection, msg),
        }
    }

    /// Sends a message on that has come too late, or to the wrong PE.
    fn forward(&self, to: PeId, mut msg: Msg) {
        self.tell_sender(to, &msg);
        self.note_way(&mut msg);
        self.post(to, msg);
    }

    /// Lets the sender of a message which goes on from here be told where the chare is.
    fn tell_sender(&self, to: PeId, msg: &Msg) {
        let id = msg.head().to;
        let sender = msg.head().reply.sender().filter(|&sender| sender != self.id() && sender != to);
        if let (Some(sender), Some(place)) = (sender, self.locations.confirmed(id)) {
            let home = self.home_of(id);
            if [self.id(), sender].contains(&home) {
                self.send_news(sender, id, place);
            } else {
                self.post(home, Msg::for_pe(Tell(id, sender)));
            }
        }
    }

    /// Notes that a message leaves this PE for its chare.
    #[inline]
    fn note_way(&self, msg: &mut Msg) {
        msg.sent_by(self.id());
        #[cfg(all(test, not(loom)))]
        self.note_trail(msg);
    }

    /// Gives a message up whose chare does not exist here at its home. Its sender may have inserted it before, and the
    /// insertion be on its way by the root: it asks there first, on the same way.
    #[cold]
    fn doubt(&self, msg: Msg) {
        let to = msg.head().to;
        match self.collection(to.collection) {
            Some(collection) if collection.info.is_sparse() => {
                let sender = msg.head().reply.sender().filter(|&sender| sender != self.id());
                let doubt = Msg::for_pe(Doubt(msg.unpinned(self)));
                self.post(sender.unwrap_or(to.collection.root()), doubt);
            }
            _ => self.lose(msg),
        }
    }

    /// Whether a chare that this PE is the home of, and that is not known to be anywhere, does not exist.
    fn is_gone(&self, id: ChareId) -> bool {
        match self.collection(id.collection) {
            Some(collection) => collection.is_gone(id.element),
            None => self.is_single_gone(id),
        }
    }

    /// Gives a message up whose chare does not exist.
    #[cold]
    pub(crate) fn lose(&self, msg: Msg) {
        let chare = match msg.name() {
            Name::Entry(entry) => entry.chare,
            Name::Runtime(name) => name,
        };
        let error = self.no_element(msg.head().to, chare);
        msg.lose(self, error);
    }

    /// Why a chare does not exist, or not any more; `chare` is its type, or what names it best.
    #[cold]
    pub(crate) fn no_element(&self, id: ChareId, chare: &'static str) -> CallError {
        let collection = self.collection(id.collection);
        let destroyed = || "it has been destroyed".to_owned();
        CallError::NoElement(Arc::new(NoElement {
            chare: collection.map_or(chare, |collection| collection.info.chare.name),
            element: self.element_name(id),
            bounds: match collection {
                Some(collection) if !collection.info.has(id.element) => collection.info.bounds(),
                Some(collection) if collection.info.is_sparse() => collection.info.bounds(),
                _ => destroyed(),
            },
        }))
    }

    /// Notes where a chare has arrived, unless it is here, or something newer is known. Its home, too, which has a record of
    /// each that lives elsewhere: news of another are of one that has ended.
    pub(crate) fn learn_place(&self, id: ChareId, place: Place) {
        let collection = self.collection(id.collection);
        let is_here = match collection {
            Some(collection) => collection.expects(id.element),
            None => self.has_single(id.element),
        };
        let is_ended = || match collection {
            // The home of a bound element may not have heard where it began.
            Some(collection) if !collection.info.is_sparse() => {
                collection.is_gone(id.element) || self.stillborn(id).is_some()
            }
            _ => !self.locations.knows(id),
        };
        if !is_here && (self.home_of(id) != self.id() || !is_ended()) {
            self.locations.learn(id, place);
        }
    }

    /// Notes that a chare which has left this PE has arrived, unless it has ended since, or something newer is known.
    pub(crate) fn confirm_place(&self, id: ChareId, place: Place) {
        if self.locations.knows(id) {
            self.learn_place(id, place);
        }
    }

    fn send_news(&self, to: PeId, id: ChareId, place: Place) {
        self.post(to, Msg::for_pe(News { id, place }));
    }

    /// Tells a PE where a chare that has arrived here is.
    pub(crate) fn tell_place(&self, to: PeId, id: ChareId, epoch: u64) {
        if to != self.id() {
            self.send_news(to, id, Place { pe: self.id(), epoch });
        }
    }

    /// The PE that knows where a chare is, wherever it moves; its collection is known here.
    pub(crate) fn home_of(&self, id: ChareId) -> PeId {
        id.collection.single_home().unwrap_or_else(|| {
            let collection = self.collection(id.collection).expect("the caller's promise");
            collection.info.home(id.element)
        })
    }
}

/// A message for an element that is not at its home, on its way to the root by its sender, and back behind the insertions
/// that came to the root before it.
pub(crate) struct Doubt(Msg);

impl Doubt {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        self.0.leave(to)
    }
}

impl Arrives for Doubt {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        wire::decode_message(from).map(Doubt)
    }
}

impl Payload for Doubt {
    const NAME: Name = Name::Runtime("a call of an absent element");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Doubt, Self::leave);
    fn run(self, _: ChareId, reply: Reply, pe: &Pe) {
        let to = self.0.head().to;
        if pe.id() == to.collection.root() {
            if pe.named_collection(to.collection, &reply).is_none() {
                return;
            }
            pe.post(pe.home_of(to), Msg::for_pe(Asked(self.0)));
        } else {
            pe.post(to.collection.root(), Msg::for_pe(self));
        }
    }
}

pub(crate) struct Asked(Msg);

impl Asked {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        self.0.leave(to)
    }
}

impl Arrives for Asked {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        wire::decode_message(from).map(Asked)
    }
}

impl Payload for Asked {
    const NAME: Name = Name::Runtime("a call of an absent element");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Asked, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        match pe.route(self.0.head().to) {
            Route::Nowhere => pe.lose(self.0),
            _ => pe.send(self.0),
        }
    }
}

/// News of where a chare is.
#[derive(Serialize, Deserialize)]
pub(crate) struct News {
    pub(crate) id: ChareId,
    pub(crate) place: Place,
}

impl News {
    /// Notes it, now or when the collection is known here.
    pub(crate) fn heed(self, pe: &Pe) {
        let collection = self.id.collection;
        if collection.single_home().is_none() && pe.collection(collection).is_none() {
            return pe.hold_for_collection(collection, Msg::for_pe(self));
        }
        pe.learn_place(self.id, self.place);
    }
}

impl Payload for News {
    const NAME: Name = Name::Runtime("news of where a chare is");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::News);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        self.heed(pe);
    }
}
