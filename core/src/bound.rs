//! Bound arrays: elements of equal index live on one PE, whichever it is, and move together.
//!
//! An array that is bound to another is its *follower*. Followers of followers, and several of one array, make a *class*;
//! the elements of one index in the arrays of a class are *companions*. All arrays of a class have the same shape and the
//! same homes.
//!
//! # Why companions are never apart
//!
//! **A companion begins where its leader is.** The home of a follower's element constructs it if it finds the leader's element
//! here, constructed or to be constructed: one that is not constructed yet does not leave. If the leader's element has left,
//! the home sends what the construction needs to *it*, as a message, which reaches it once, wherever it has moved
//! ([`crate::location`]). The PE that takes the message from its queue and has the leader's element constructs the
//! companion, in that same step. So it does not matter in which order PEs hear of the follower: an element of the leader that
//! leaves before its companion has been constructed is followed by that message, and takes along whatever companion it has.
//!
//! **Then they leave and arrive in one step.** A request to move one of them takes all companions that are on the PE out of its
//! tables, before any code of the user's can look, and posts them in one message; where that arrives, all of them are
//! in the tables before the first `migrated` method runs. While the constructor of a companion is running, as a coroutine, the
//! request waits for its end.
//!
//! **Whoever creates a follower** need not have heard of its leader: who has got a proxy of that may be told by another way than of the
//! creation, which takes the tree of the processes. Only where the leader is known can be said where the follower's elements have their homes, so the
//! creation waits on that PE, with what comes for the follower, broadcasts included, until the leader's has come, or the news that there is
//! none. No other PE hears of the follower before. The waiting creation is released in the step that makes the leader known, so nothing is quiescent
//! between the two.
//!
//! **A PE that does not know an array** holds what comes for it, the message with companions included. It knows no follower before
//! it knows the leader, so that what it takes for the class of an array is the class of those that it knows, and
//! an element of an array that it does not know is not on it.
//!
//! **Messages** for a companion that its home has sent off wait at the home until it hears of its place. Broadcasts wait at the
//! root of the follower until all homes have heard that all have one; so none begins anywhere before, and nothing is owed to
//! an element without a place. Reductions count contributions at the root, wherever they come from.
//!
//! Invariant: as long as two companions exist, they are in the tables of one PE, or in one message.

use std::cell::{Cell, RefCell};

use serde::{Deserialize, Serialize};

use crate::cell::ChareRef;
use crate::chares::Chare;
use crate::collection::{Collection, CollectionInfo, Construct};
use crate::create::Everywhere;
use crate::destruction;
use crate::entry::EntryOf;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId, RunId};
use crate::index::DenseIndex;
use crate::location::Place;
use crate::message::{Msg, Name, Payload};
use crate::proxy::Array;
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::{Pe, Unborn};
use crate::wire::{Arrives, Decoder, Encoder, Kind as Message, Leaves, Unsent, WireError};

/// The array that another one is to be bound to.
pub(crate) struct Leader<I> {
    run: RunId,
    pub(crate) id: CollectionId,
    pub(crate) shape: I,
}

impl<I: Copy> Leader<I> {
    pub(crate) fn new<C: Chare<Index = I>>(array: &Array<C>) -> Self {
        let (run, id, shape) = array.parts();
        Leader { run, id, shape }
    }
}

/// Creates an array that is bound to another, now, or when this PE hears of that. Fails, and says why, if it does not fit in memory.
pub(crate) fn create<C: Chare<Index: DenseIndex>>(
    pe: &Pe,
    leader: &Leader<C::Index>,
    init: C::Init,
    awaited: bool,
) -> Result<(CollectionId, Option<CellRef>), String>
where
    C::Init: Clone,
{
    if leader.run != pe.run() {
        return Err("an array cannot be bound to one of another run".to_owned());
    }
    let array = Everywhere::<C>::new(pe, init, awaited);
    let begun = array.begun();
    let later = CreateLater { leader: leader.id, shape: leader.shape, array };
    match later.info(pe) {
        Some(info) => later.array.create(pe, info)?,
        None => {
            pe.expect_collection(begun.0);
            pe.hold_for_collection(leader.id, Msg::for_pe(later));
        }
    }
    Ok(begun)
}

/// The creation of a follower that waits on the PE which creates it, until that has heard of the leader.
struct CreateLater<C: Chare> {
    leader: CollectionId,
    shape: C::Index,
    array: Everywhere<C>,
}

impl<C: Chare<Index: DenseIndex>> CreateLater<C> {
    /// What the array will be, where its leader is known: it has the homes of that.
    fn info(&self, pe: &Pe) -> Option<CollectionInfo> {
        let kind = pe.collection(self.leader)?.info.kind.clone();
        let info = CollectionInfo::new::<C>(self.array.begun().0, self.shape, kind, pe.pe_count());
        Some(info.bound_to(Some(self.leader)))
    }
}

impl<C: Chare<Index: DenseIndex>> Payload for CreateLater<C>
where
    C::Init: Clone,
{
    const NAME: Name = Name::Runtime("the creation of a bound array");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let info = self.info(pe).expect("it was held until its leader was known");
        self.array.create_later(pe, info);
    }

    /// There is no leader.
    fn lost(self, _: ChareId, _: Reply, pe: &Pe, error: CallError) {
        self.array.give_up(pe, nothing_to_be_bound_to::<C>(&error));
    }
}

/// The error of a companion, or of all, that has no leader, for this reason.
fn nothing_to_be_bound_to<C: Chare>(why: &CallError) -> CallError {
    let text = format!("{} is not created, since it has nothing to be bound to: {why}", C::INFO.name);
    CallError::Refused(text.into())
}

/// What a PE knows of the class of an array.
#[derive(Default)]
pub(crate) struct Bonds {
    /// The other arrays of the class.
    partners: RefCell<Vec<CollectionId>>,
    /// Elements whose home this is and of whose place it has not heard; and one as long as the creation has not gone through
    /// all of them.
    unplaced: Cell<u64>,
}

/// Binds an array that has just come to be on this PE to the class of its leader, if it has one.
pub(crate) fn tie(pe: &Pe, follower: &Collection) {
    let Some(leader) = follower.info.leader() else { return };
    let leader = pe.collection(leader).expect("the creation of a follower waits for its leader");
    let mut class = leader.bonds.partners.borrow().clone();
    class.push(leader.id());
    for partner in &class {
        let partner = pe.collection(*partner).expect("it was bound on this PE");
        partner.bonds.partners.borrow_mut().push(follower.id());
    }
    *follower.bonds.partners.borrow_mut() = class;
    follower.bonds.unplaced.set(1);
    if follower.id().root() == pe.id() {
        follower.membership.borrow_mut().await_places(pe.pe_count());
    }
}

impl Collection {
    /// The leader's element of this number, unless it is on this PE, constructed or not.
    pub(crate) fn leader_elsewhere(&self, pe: &Pe, element: u64) -> Option<ChareId> {
        let leader =
            pe.collection(self.info.leader()?).expect("the creation of a follower waits for its leader");
        (!leader.expects(element)).then_some(ChareId { collection: leader.id(), element })
    }

    /// Notes that the creation has gone through all elements here.
    pub(crate) fn end_of_creation(&self, pe: &Pe) {
        if self.info.leader().is_some() {
            self.settle_place(pe);
        }
    }

    /// Notes that one more has a place, or is not constructed.
    fn settle_place(&self, pe: &Pe) {
        let unplaced = self.bonds.unplaced.get() - 1;
        self.bonds.unplaced.set(unplaced);
        if unplaced == 0 {
            pe.post(self.id().root(), Msg::for_pe(AllPlaced { array: self.id(), home: pe.id() }));
        }
    }

    /// The companions of an element that are on this PE; or, as an error, one that is being constructed.
    pub(crate) fn companions(&self, pe: &Pe, element: u64) -> Result<Vec<ChareRef>, ChareId> {
        let mut companions = Vec::new();
        for &partner in self.bonds.partners.borrow().iter() {
            let array = pe.collection(partner).expect("it was bound on this PE");
            let id = ChareId { collection: partner, element };
            match array.find(element) {
                Some(companion) => companions.push(companion),
                None if array.expects(element) => return Err(id),
                None => {}
            }
        }
        Ok(companions)
    }
}

/// Whether two chares move together, as far as is known on this PE.
pub(crate) fn are_companions(pe: &Pe, one: ChareId, other: ChareId) -> bool {
    let binds = |array: &Collection| array.bonds.partners.borrow().contains(&other.collection);
    one.element == other.element && pe.collection(one.collection).is_some_and(binds)
}

/// Gives up the place of an element that is to be constructed, and sends after its leader's element what that needs.
pub(crate) fn send_after<C: Chare>(
    pe: &Pe,
    array: &Collection,
    leader: ChareId,
    init: C::Init,
    reply: Reply,
) {
    array.relinquish(pe, leader.element, 0);
    array.bonds.unplaced.set(array.bonds.unplaced.get() + 1);
    pe.send(Msg::new(leader, reply, Follow::<C> { array: array.id(), init, home: pe.id() }));
}

/// The construction of a companion, on its way to its leader's element.
pub(crate) struct Follow<C: Chare> {
    array: CollectionId,
    init: C::Init,
    home: PeId,
}

impl<C: Chare> Follow<C> {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Follow { array, init, home } = self;
        to.put_code(C::code(), C::INFO.name)?;
        to.put_own(&(array, home));
        Ok(C::encode_init(init, to)?)
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (array, home) = from.take()?;
        Ok(Follow { array, init: C::decode_init(from)?, home })
    }
}

impl<C: Chare> Payload for Follow<C> {
    const NAME: Name = Name::Runtime("the creation of a bound element");
    const LEAVES: Leaves<Self> = Leaves::As(Message::Follow, Self::leave);

    fn run(self, leader: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.collection(self.array) else {
            return pe.hold_for_collection(self.array, Msg::new(leader, reply, self));
        };
        if array.leader_elsewhere(pe, leader.element).is_some() {
            return pe.undeliverable(Msg::new(leader, reply, self));
        }
        let Follow { init, home, .. } = self;
        let id = ChareId { collection: array.id(), element: leader.element };
        let place = Place { pe: pe.id(), epoch: 1 };
        let mut unborn = Unborn::default();
        unborn.extra.first_epoch = place.epoch;
        pe.expect_unborn(id, unborn);
        array.reserve(pe, id.element, 0);
        pe.post(home, Msg::new(id, Reply::none(), Placed(place)));
        pe.note_call(EntryOf::<C>::NEW);
        C::construct(Construct::new(id, init, reply));
    }

    /// The leader's element does not exist.
    fn lost(self, leader: ChareId, reply: Reply, pe: &Pe, error: CallError) {
        let Follow { array, init, home } = self;
        pe.guard(|| drop(init));
        let id = ChareId { collection: array, element: leader.element };
        let error = nothing_to_be_bound_to::<C>(&error);
        pe.post(home, Msg::new(id, Reply::none(), Orphaned(error.clone())));
        reply.refuse(pe, id, error);
    }
}

/// News for the home: a companion has a place.
#[derive(Serialize, Deserialize)]
pub(crate) struct Placed(Place);

impl Payload for Placed {
    const NAME: Name = Name::Runtime("the place of a bound element");
    const LEAVES: Leaves<Self> = Leaves::plainly(Message::Placed);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.named_collection(id.collection, &reply) else { return };
        if !array.expects(id.element) {
            pe.learn_place(id, self.0);
        }
        // It may have come here since, with its companions.
        array.take_unborn(id.element).into_iter().flatten().for_each(|msg| pe.send(msg));
        array.settle_place(pe);
    }
}

/// News for the home: a companion is not constructed.
pub(crate) struct Orphaned(CallError);

impl Orphaned {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_error(&self.0);
        Ok(())
    }
}

impl Arrives for Orphaned {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        from.take_error().map(Orphaned)
    }
}

impl Payload for Orphaned {
    const NAME: Name = Name::Runtime("the place of a bound element");
    const LEAVES: Leaves<Self> = Leaves::As(Message::Orphaned, Self::leave);
    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.named_collection(id.collection, &reply) else { return };
        pe.give_up(id, self.0);
        destruction::leave(pe, id, 0);
        array.settle_place(pe);
    }
}

/// News for the root: all elements have a place that one PE is the home of.
#[derive(Serialize, Deserialize)]
pub(crate) struct AllPlaced {
    array: CollectionId,
    home: PeId,
}

impl Payload for AllPlaced {
    const NAME: Name = Name::Runtime("the places of bound elements");
    const LEAVES: Leaves<Self> = Leaves::plainly(Message::AllPlaced);
    fn run(self, _: ChareId, reply: Reply, pe: &Pe) {
        let Some(array) = pe.named_collection(self.array, &reply) else { return };
        array.membership.borrow_mut().settle_places(self.home);
        array.after_settling(pe);
    }
}
