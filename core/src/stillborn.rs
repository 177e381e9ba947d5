//! Chares whose constructors have failed: they are no members of their collections, and calls of them are told why.
//!
//! Such a chare ends like one that is destroyed, before anybody could see it: reductions and broadcasts go on without it, its
//! home forgets it, and if it was to be an element of a sparse array its index may be inserted again. What was held for it gets the
//! constructor's error; so does what comes later, except in sparse arrays: there it is as absent as any other. Of singletons,
//! whose number has no bound, only the last ones are remembered.
//!
//! So do chares whose constructors cannot run, since their arguments cannot go to another process: singletons, and whole collections, which
//! then no PE knows. All PEs are told of these.

use std::cell::RefCell;
use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use crate::channel;
use crate::destruction;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId};
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::{Pe, Unborn};
use crate::wire::{Arrives, Decoder, Encoder, Kind, Leaves, Unsent, WireError};

/// Singletons whose constructors have failed that a PE remembers; few in tests.
const MAX_SINGLES: usize = if cfg!(test) { 8 } else { 1024 };

/// The errors of constructors, by the chares that they have not made.
#[derive(Default)]
pub(crate) struct Stillborn {
    errors: RefCell<FxHashMap<ChareId, CallError>>,
    /// The singletons among them, in order.
    singles: RefCell<VecDeque<ChareId>>,
    collections: RefCell<FxHashMap<CollectionId, CallError>>,
}

impl Stillborn {
    /// Notes one; returns the error of another that is forgotten.
    #[must_use]
    fn note(&self, id: ChareId, error: CallError) -> [Option<CallError>; 2] {
        let replaced = self.errors.borrow_mut().insert(id, error);
        if id.collection.single_home().is_none() {
            return [replaced, None];
        }
        let mut singles = self.singles.borrow_mut();
        singles.push_back(id);
        let oldest = if singles.len() > MAX_SINGLES { singles.pop_front() } else { None };
        [replaced, oldest.and_then(|oldest| self.errors.borrow_mut().remove(&oldest))]
    }

    /// How many there are.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn kept_count(&self) -> usize {
        self.errors.borrow().len().max(self.singles.borrow().len())
    }
}

impl Pe {
    /// Why a chare was never constructed, if that has been tried here.
    pub(crate) fn stillborn(&self, id: ChareId) -> Option<CallError> {
        self.stillborn.errors.borrow().get(&id).cloned()
    }

    /// Chares whose constructors have failed, and how.
    pub(crate) fn for_each_stillborn(&self, mut f: impl FnMut(ChareId, &CallError)) {
        self.stillborn.errors.borrow().iter().for_each(|(id, error)| f(*id, error));
    }

    /// Notes why a chare does not exist: what waits for it here, and what comes later, is refused.
    #[cold]
    pub(crate) fn give_up(&self, id: ChareId, error: CallError) {
        let forgotten = self.stillborn.note(id, error.clone());
        self.drop_each(forgotten.into_iter().flatten());
        self.refuse_unborn(id, &error);
    }

    /// Refuses what waits here for a chare whose constructor has failed.
    fn refuse_unborn(&self, id: ChareId, error: &CallError) {
        let held = match self.collection(id.collection) {
            Some(collection) => collection.take_unborn(id.element),
            None => self.unborn_singles.borrow_mut().remove(&id.element),
        };
        held.into_iter().flatten().for_each(|msg| self.lose_stillborn(msg, error.clone()));
    }

    /// Gives a message up whose chare could not be constructed. A broadcast goes on without it.
    pub(crate) fn lose_stillborn(&self, msg: Msg, error: CallError) {
        if msg.head().reply.is_of_broadcast() { self.lose(msg) } else { msg.lose(self, error) }
    }

    /// Ends a chare whose constructor has failed here. Who waits for it hears of it from the home, which then takes another
    /// insertion.
    #[cold]
    pub(crate) fn unmake(&self, id: ChareId, unborn: Option<Unborn>, error: CallError, reply: Reply) {
        let begun = |unborn: &Unborn| (unborn.contributed, unborn.extra.first_epoch);
        let (contributed, epoch) = unborn.as_ref().map_or((0, 0), begun);
        if let Some(unborn) = unborn {
            channel::Lost::of(self, &unborn.extra).tell(self, id, true, &error);
            unborn.give_up(self);
        }
        let Some(collection) = self.collection(id.collection) else {
            self.give_up(id, error.clone());
            return reply.refuse(self, id, error);
        };
        collection.relinquish(self, id.element, contributed);
        if collection.info.is_sparse() {
            self.refuse_unborn(id, &error);
        } else {
            self.give_up(id, error.clone());
        }
        destruction::end_unmade(self, id, contributed, epoch + 1, error, reply);
    }
    /// Why a collection was never created, if that has been tried.
    pub(crate) fn uncreated(&self, id: CollectionId) -> Option<CallError> {
        self.stillborn.collections.borrow().get(&id).cloned()
    }
}

/// The news, for the home of a singleton or for all PEs, that it is not created, or that its collection is not.
pub(crate) struct Uncreated(pub(crate) CallError);

impl Uncreated {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_error(&self.0);
        Ok(())
    }
}

impl Arrives for Uncreated {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        from.take_error().map(Uncreated)
    }
}

impl Payload for Uncreated {
    const NAME: Name = Name::Runtime("the end of a creation");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Uncreated, Self::leave);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Uncreated(error) = self;
        if id.collection.is_of_singles() {
            pe.give_up(id, error.clone());
            pe.singles_made.note_come(id);
        } else {
            pe.stillborn.collections.borrow_mut().insert(id.collection, error.clone());
            let held = pe.unborn_collections.borrow_mut().remove(&id.collection);
            held.into_iter().flatten().for_each(|msg| msg.lose(pe, error.clone()));
        }
        // Who has asked for it is told once: the others only learn of it.
        if id.collection.is_of_singles() || id.collection.root() == pe.id() {
            reply.refuse(pe, id, error);
        }
    }
}
