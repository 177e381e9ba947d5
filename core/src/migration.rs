//! Migration: inside of its process a chare moves to another PE by pointer, with its coroutines, the ends of its channels and
//! whatever is held for it; to another process as bytes ([`across`]).
//!
//! Elements of bound arrays move with their companions, in one message ([`crate::bound`]).
//!
//! It leaves between two steps, by a message like any other, also while an exclusive coroutine of it waits: nothing of it
//! moves in memory. On the PE that it leaves, the reductions and broadcasts that it has a part in go on without it
//! ([`crate::broadcast::Coverage`], [`crate::reduction`]), and messages follow it ([`crate::location`]). Where it arrives it may have
//! another device ([`crate::binding`]), to which its buffers follow.
//!
//! Invariant: a chare is in the tables of one PE, or in one message between two.

pub(crate) mod across;
mod tidings;

use std::any::Any;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use serde::{Deserialize, Serialize};

use crate::asking::{self, Ask, Asking};
use crate::bound;
use crate::broadcast::{self, Departure};
use crate::cell::{ChareRef, Parcel, State};
use crate::channel;
use crate::chares::{Chare, Cx};
use crate::current;
use crate::entry::{self, EntryOf};
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, IntoPe, PeId};
use crate::insertion::Behind;
use crate::location;
use crate::message::{Msg, Name, Payload};
use crate::pending::{Pending, pending_future};
use crate::proxy::Element;
use crate::reduction;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::task;
use crate::waiting::What;
use crate::wire::{Kind, Leaves};
use tidings::Arrival;
pub(crate) use tidings::{Arrived, Tidings};

/// The move of a chare to another PE, not yet asked for; made by [`Element::migrate`].
#[must_use = "a migration does nothing until it is sent: `.send()`, `.await` or `.future()`"]
pub struct Migration<C: Chare>(Asking<Move<C>>);

/// What is asked for.
struct Move<C: Chare> {
    chare: Element<C>,
    to: usize,
}

impl<C: Chare> Ask for Move<C> {
    const WAITING: &'static str = "awaiting a migration";

    fn what(&self) -> What {
        What::Call { entry: EntryOf::<C>::MIGRATE, to: self.chare.id() }
    }

    fn send(self, reply: Reply) -> Result<(), String> {
        if !reply.is_to_nobody() && current::pe(|pe| pe.is_some_and(|pe| self.is_in_vain(pe))) {
            let text = "a chare goes to another process without coroutines, and one of its own, or of one that is bound to \
                        it, awaits that: `send` the request instead, and let the coroutine end";
            current::on_pe("a migration", |pe| {
                reply.answer(pe, self.chare.id(), Err(CallError::Refused(text.into())));
            });
            return Ok(());
        }
        asking::send_to(&self.chare, Msg::new(self.chare.id(), reply, Migrate { to: self.to }));
        Ok(())
    }
}

impl<C: Chare> Move<C> {
    /// Whether it is awaited by a coroutine that it has to wait for.
    fn is_in_vain(&self, pe: &Pe) -> bool {
        let is_far = self.to < pe.pe_count() && !pe.is_near(PeId::new(self.to));
        if !is_far || pe.running_task().is_none() {
            return false;
        }
        let goes_along = |running: ChareRef| {
            running.id == self.chare.id() || bound::are_companions(pe, self.chare.id(), running.id)
        };
        pe.running.get().is_some_and(goes_along)
    }
}

impl<C: Chare> Element<C> {
    /// The move of this chare to another PE: with its state, its coroutines, its channels and its device buffers, and
    /// whatever is on its way to it follows. It moves when the message's turn has come, between two of its steps; while a
    /// coroutine of it waits, too. Then its `migrated` method runs, if it has one, before anything else.
    ///
    /// To a PE of another process it goes as serde sees it, when none of its coroutines is alive, or all are those of `#[entry(restart)]` and
    /// have come to their sync points ([`Cx::sync_point`]). Until then the request waits. The object that is left is dropped. Its type derives `serde::Serialize` and `serde::Deserialize`. A field that is large and plain is best a [`Bulk`](crate::Bulk). What is
    /// not in its state, or is skipped there, does not come along, and its device is one of the other PE's.
    ///
    /// Awaiting it waits until that has run; while an exclusive coroutine owns the chare, until the chare has arrived, and
    /// `migrated` runs when that ends. To the PE where the chare is already it does nothing.
    ///
    /// If the other PE has other devices ([`DeviceMap`](crate::DeviceMap)), the chare has one of those from then on, and its buffers come over
    /// as it uses them, from device to device; work that is under way ends where it is. A chare that has chosen its device ([`Cx::use_device`])
    /// keeps it, and so does one whose buffers do not fit ([`Warning::Device`](crate::Warning::Device)).
    ///
    /// Elements of bound arrays ([`ArrayBuilder::bound_to`](crate::ArrayBuilder::bound_to)) move with it, once their
    /// constructors have ended. Their `migrated` methods run before its own; nobody awaits what goes wrong in them.
    ///
    /// # Errors
    /// [`CallError::Refused`] if there is no such PE, for a member of a group, and for a chare that has called
    /// [`Cx::set_migratable`] with `false` or is bound to one that has. To another process also for a chare, or one that is bound to it,
    /// whose type serde does not know or that does not let itself be serialised, and if a coroutine of any of these awaits it. In
    /// each case the chare stays as it was. Otherwise as a call of the chare.
    #[track_caller]
    pub fn migrate(&self, to: impl IntoPe) -> Migration<C> {
        Migration(Asking::new(Move { chare: *self, to: to.into_pe_number() }))
    }
}

impl<C: Chare> Cx<C> {
    /// Says whether this chare may be moved, by [`Element::migrate`] or to balance load; a new one may.
    ///
    /// # Panics
    /// Outside of this chare's own methods and constructor.
    #[track_caller]
    pub fn set_migratable(&self, is_migratable: bool) {
        let set = current::on_pe("Cx::set_migratable", |pe| {
            pe.own_extra(self.id(), |extra| extra.is_pinned = !is_migratable)
        });
        set.expect("a chare says in its own methods and its constructor whether it may be moved");
    }
}

impl<C: Chare> Migration<C> {
    /// Asks for the move; nobody waits for it. An error ends the job with a report.
    pub fn send(self) {
        self.0.send();
    }

    /// Asks for the move now; the future waits until the chare has arrived.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn future(self) -> Migrated {
        Migrated(self.0.start())
    }
}

impl<C: Chare> Unpin for Migration<C> {}

impl<C: Chare> Future for Migration<C> {
    type Output = Result<(), CallError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

/// The end of a migration; made by [`Migration::future`].
#[must_use = "futures do nothing unless polled"]
pub struct Migrated(Pending<()>);

pending_future!(Migrated, Result<(), CallError>);

/// A request to move.
#[derive(Serialize, Deserialize)]
pub(crate) struct Migrate {
    to: usize,
}

impl Payload for Migrate {
    const NAME: Name = Name::Runtime("a migration");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Migrate);

    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        let chare = match pe.find(id) {
            Some(chare) if chare.state.get() != State::Poisoned => chare,
            _ => return pe.undeliverable(Msg::new(id, reply, self)),
        };
        let to = match self.target(pe, chare) {
            Ok(to) => to,
            Err(why) => return refuse(pe, chare, reply, &why),
        };
        let companions = match caught_up(pe, chare) {
            Ok(companions) => companions,
            Err(unborn) => {
                return pe.undeliverable(Msg::new(unborn, reply, Again { chare: id, migrate: self }));
            }
        };
        pe.note_runtime();
        // What has run meanwhile decides too: it came before this.
        if chare.state.get() == State::Poisoned {
            return pe.undeliverable(Msg::new(id, reply, self));
        }
        if let Some(why) = pinned(pe, chare, &companions) {
            return refuse(pe, chare, reply, &why);
        }
        if to == pe.id() {
            return reply.answer(pe, id, Ok(()));
        }
        let all = || [&chare].into_iter().chain(&companions).copied();
        let inserted = |chare: ChareRef| {
            Some((chare.id, chare.extra_if_any(|extra| extra.insertions.first().copied())??))
        };
        if let Some((inserter, insertions)) = all().find_map(inserted) {
            let migration = Msg::new(id, reply, self);
            let behind = Behind { migration, inserter, from: pe.id(), insertions };
            return pe.post(insertions.0, Msg::for_pe(behind));
        }
        if pe.is_near(to) {
            depart(pe, chare, companions, to, reply);
        } else if let Err((reply, why)) = across::depart(pe, chare, &companions, self, reply) {
            refuse(pe, chare, reply, &why);
        }
    }
}

/// A request to move that waits until the constructor of a companion has ended, and then goes to its chare again.
#[derive(Serialize, Deserialize)]
pub(crate) struct Again {
    chare: ChareId,
    migrate: Migrate,
}

impl Payload for Again {
    const NAME: Name = Name::Runtime("a migration");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Again);

    fn run(self, companion: ChareId, reply: Reply, pe: &Pe) {
        if pe.find(companion).is_none() {
            return pe.undeliverable(Msg::new(companion, reply, self));
        }
        let migration = Msg::new(self.chare, reply, self.migrate);
        // At once, before what waits for its end here goes on.
        if pe.find(self.chare).is_some() { migration.run(pe) } else { pe.send(migration) }
    }

    /// There is no companion to wait for.
    fn lost(self, _: ChareId, reply: Reply, pe: &Pe, _: CallError) {
        pe.send(Msg::new(self.chare, reply, self.migrate));
    }
}

impl Migrate {
    /// The PE to move to, if there is one and the chare is of a kind that moves.
    fn target(&self, pe: &Pe, chare: ChareRef) -> Result<PeId, String> {
        let pe_count = pe.pe_count();
        if self.to >= pe_count {
            return Err(format!("there is no PE {}: this run has {pe_count} PEs", self.to));
        }
        if pe.collection(chare.id.collection).is_some_and(|collection| collection.info.is_group()) {
            return Err("members of a group stay on their PEs".to_owned());
        }
        Ok(PeId::new(self.to))
    }
}

fn refuse(pe: &Pe, chare: ChareRef, reply: Reply, why: &str) {
    let text = format!("{} cannot move: {why}", pe.chare_name(chare.id));
    reply.answer(pe, chare.id, Err(CallError::Refused(text.into())));
}

/// Lets broadcasts that have begun here reach a chare and its companions, which it brings; or, as an error, a companion
/// that is being constructed. This may run code of the user's.
fn caught_up(pe: &Pe, chare: ChareRef) -> Result<Vec<ChareRef>, ChareId> {
    let Some(collection) = pe.collection(chare.id.collection) else { return Ok(Vec::new()) };
    let companions = collection.companions(pe, chare.id.element)?;
    for chare in [&chare].into_iter().chain(&companions).copied() {
        if let Some(collection) = pe.collection(chare.id.collection) {
            collection.catch_up(pe, chare);
        }
    }
    // What has run may have created an array that is bound to this one.
    let now = collection.companions(pe, chare.id.element)?;
    if now.len() == companions.len() { Ok(now) } else { caught_up(pe, chare) }
}

/// Moves a chare of this PE, which `drawn` chooses, as if it had been asked to between two of its steps. Which that is, if there
/// is one that may move now; nobody learns why another may not.
pub(crate) fn move_any(pe: &Pe, drawn: usize, to: PeId) -> Option<ChareId> {
    let mut movable = Vec::new();
    for collection in pe.directory.iter().filter(|collection| !collection.info.is_group()) {
        collection.for_each_element(|chare| movable.push(chare));
    }
    let chare = *movable.get(drawn.checked_rem(movable.len())?)?;
    let is_free = |chare: ChareRef| {
        chare.state.get() != State::Poisoned
            && chare.extra_if_any(|extra| extra.insertions.is_empty()) != Some(false)
    };
    let companions = is_free(chare).then(|| caught_up(pe, chare).ok())??;
    let are_free = [&chare].into_iter().chain(&companions).copied().all(is_free);
    if !are_free || pinned(pe, chare, &companions).is_some() {
        return None;
    }
    let id = chare.id;
    if pe.is_near(to) {
        depart(pe, chare, companions, to, Reply::none());
        return Some(id);
    }
    let is_at_rest = |chare: &ChareRef| !task::is_any_alive(*chare);
    let are_at_rest = [&chare].into_iter().chain(&companions).all(is_at_rest);
    let migrate = Migrate { to: to.index() };
    (are_at_rest && across::depart(pe, chare, &companions, migrate, Reply::none()).is_ok()).then_some(id)
}

/// Why a chare is not to move, if it or a companion has said so.
fn pinned(pe: &Pe, chare: ChareRef, companions: &[ChareRef]) -> Option<String> {
    let is_pinned = |chare: &ChareRef| chare.extra_if_any(|extra| extra.is_pinned) == Some(true);
    if is_pinned(&chare) {
        return Some("it has called `set_migratable(false)`".to_owned());
    }
    let companion = companions.iter().find(|companion| is_pinned(companion))?;
    let name = pe.chare_name(companion.id);
    Some(format!("it is bound to {name}, which has called `set_migratable(false)`"))
}

/// Sends a chare away that broadcasts have caught up with, and its companions with it.
fn depart(pe: &Pe, chare: ChareRef, companions: Vec<ChareRef>, to: PeId, reply: Reply) {
    let all = || [&chare].into_iter().chain(&companions).copied();
    all().for_each(|chare| take_out(pe, chare));
    // From here on nothing on this PE finds any of them.
    for chare in all() {
        if let Some(collection) = pe.collection(chare.id.collection) {
            reduction::ship_finished(pe, collection);
        }
    }
    let held: Vec<_> = all().flat_map(|chare| channel::take_held(pe, chare.id)).collect();
    let freight = Freight::pack(pe, chare, to);
    let companions = companions.into_iter().map(|companion| Freight::pack(pe, companion, to)).collect();
    pe.post(to, Msg::new(chare.id, reply, Arrive { freight, companions, from: pe.id() }));
    held.into_iter().for_each(|msg| pe.send(msg));
}

fn take_out(pe: &Pe, chare: ChareRef) {
    match pe.collection(chare.id.collection) {
        Some(collection) => collection.take_out(chare),
        None => pe.remove_single(chare.id.element),
    }
}

/// One chare of those that move in one message.
pub(crate) struct Freight {
    id: ChareId,
    parcel: Parcel,
    /// Its index, if it comes from a sparse array.
    index: Option<Box<dyn Any + Send>>,
    departure: Departure,
}

impl Freight {
    /// Packs a chare that is in no table any more.
    fn pack(pe: &Pe, chare: ChareRef, to: PeId) -> Freight {
        let id = chare.id;
        let epoch = chare.next_epoch();
        let departure = Departure { element: id.element, epoch, to };
        let collection = pe.collection(id.collection);
        if let Some(collection) = collection {
            collection.coverage.departed(departure, chare.covered.get());
        }
        pe.locations.departed(id, location::Place { pe: to, epoch });
        let index = collection.and_then(|collection| collection.index_for_departure(pe, id.element));
        Freight { id, parcel: Parcel::pack(pe, chare), index, departure }
    }

    /// Puts the chare into the tables of the PE where it has arrived, and tells those who have to know.
    fn unpack(self, pe: &Pe, from: PeId) -> ChareRef {
        let Freight { id, parcel, index, departure } = self;
        let chare = parcel.unpack(pe);
        pe.locations.forget(id);
        let started = match pe.collection(id.collection) {
            Some(collection) => {
                if let (Some(indexes), Some(index)) = (collection.indexes(), index) {
                    indexes.bring(id.element, index);
                }
                broadcast::take_over(collection, chare);
                collection.welcome(chare);
                collection.coverage.started()
            }
            None => {
                pe.place_single(chare);
                0
            }
        };
        let (home, epoch) = (pe.home_of(id), departure.epoch);
        pe.tidings.note(from, Arrival { id, epoch, started: Some(started) });
        if home != from && home != pe.id() {
            pe.tidings.note(home, Arrival { id, epoch, started: None });
        }
        chare
    }
}

/// A chare on its way, with its companions.
pub(crate) struct Arrive {
    freight: Freight,
    companions: Vec<Freight>,
    from: PeId,
}

impl Arrive {
    /// A collection of one of them that this PE does not know yet.
    fn unknown_here(&self, pe: &Pe) -> Option<CollectionId> {
        let mut all =
            [&self.freight].into_iter().chain(&self.companions).map(|freight| freight.id.collection);
        all.find(|id| id.single_home().is_none() && pe.collection(*id).is_none())
    }
}

impl Payload for Arrive {
    const NAME: Name = Name::Runtime("a chare that moves");
    const LEAVES: Leaves<Self> = Leaves::Never;

    fn run(self, id: ChareId, reply: Reply, pe: &Pe) {
        if let Some(unknown) = self.unknown_here(pe) {
            return pe.hold_for_collection(unknown, Msg::new(id, reply, self));
        }
        let Arrive { freight, companions, from } = self;
        let chare = freight.unpack(pe, from);
        let companions: Vec<_> = companions.into_iter().map(|freight| freight.unpack(pe, from)).collect();
        companions.iter().chain([&chare]).for_each(|chare| pe.rebind(*chare));
        companions.iter().for_each(|companion| companion.migrated(pe, Reply::none()));
        chare.migrated(pe, reply);
        companions.iter().chain([&chare]).for_each(|chare| across::restart(pe, *chare));
        companions.into_iter().chain([chare]).for_each(|chare| entry::after_step(pe, chare));
    }
}

/// Calls the `migrated` method of a chare that has arrived. The caller lets the chare's conditions be looked at, after all
/// that has to go first.
pub(crate) fn run_hook<C: Chare>(pe: &Pe, chare: ChareRef, hook: fn(&mut C, &Cx<C>), reply: Reply) {
    pe.note_call(EntryOf::<C>::MIGRATED);
    pe.begin_step(chare);
    let outcome =
        catch_unwind(AssertUnwindSafe(|| chare.with(|state: &mut C| hook(state, &Cx::new(chare.id)))));
    pe.end_step();
    let outcome = entry::conclude(pe, chare, EntryOf::<C>::MIGRATED, outcome.map(Ok));
    reply.answer(pe, chare.id, outcome);
}
