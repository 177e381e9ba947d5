//! Broadcasts: numbered by the root of their collection, applied on every PE in number order, each with a completion
//! tree of its own.
//!
//! The sender's message goes to the root PE, which gives the next number and sends one message to every PE. A PE
//! applies number `n` after all of `n - 1` has been delivered to its elements, in steps of at most [`BATCH`] elements,
//! so a large collection does not starve the PE. What becomes of elements that move meanwhile is in `coverage`. An awaited broadcast has a tracker cell on every PE, which counts its
//! elements and then reports, by way of others (`completion`), to one cell of the caller; user reductions are not involved.
//!
//! A rank orders the messages of a broadcast among others, before the root and after it, and its job among what waits on
//! its PE. It does not change the order of jobs: a job that waits for an earlier one has no place in the run queue yet.

mod args;
mod completion;
mod coverage;

use std::fmt;
use std::panic::Location;

pub(crate) use args::Args;
pub use args::Copies;
pub(crate) use completion::{Outcomes, Relayed, Relays, open_root, open_tracker};
use coverage::Owed;
pub(crate) use coverage::{Coverage, Departure, Gap, begin_with_held, take_over};
pub(crate) use coverage::{Late, Turn};

use serde::{Deserialize, Serialize};

use crate::call;
use crate::caught;
use crate::cell::{ChareRef, State};
use crate::collection::{Collection, Job, Place, Progress};
use crate::current::{self, Here};
use crate::entry::{self, Entry, EntryInfo};
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId, RunId};
use crate::job::Others;
use crate::message::{Inner, Msg, Name, Payload};
use crate::pending::Pending;
use crate::priority::{Rank, Ranked};
use crate::reply::{CellRef, Reply, UNKNOWN};
use crate::scheduler::pe::Pe;
use crate::waiting::What;
use crate::wire::{Arrives, Decoder, Encoder, Kind, Leaves, Parcel, Stays, Unsent, WireError};

/// Elements that one step delivers to; so few in tests that elements come and go between steps.
const BATCH: usize = if cfg!(test) { 2 } else { 256 };
/// What a tracker waits for beyond outcomes until it is known how many elements there are: more than there can be.
const OPEN: u64 = 1 << 62;

/// The PEs whose elements get a broadcast, at distances of `step` from `start`; on the others it only counts as applied.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Pes {
    pub(crate) start: usize,
    /// Not among them.
    pub(crate) end: usize,
    /// Not 0.
    pub(crate) step: usize,
}

impl Pes {
    pub(crate) const ALL: Pes = Pes { start: 0, end: usize::MAX, step: 1 };

    fn has(self, pe: PeId) -> bool {
        let at = pe.index();
        (self.start..self.end).contains(&at) && (at - self.start).is_multiple_of(self.step)
    }
}

impl fmt::Display for Pes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Pes { start, end, step } = self;
        match *end {
            usize::MAX => write!(f, "PEs {start}..")?,
            end => write!(f, "PEs {start}..{end}")?,
        }
        if *step == 1 { Ok(()) } else { write!(f, " by {step}") }
    }
}

/// Whom a broadcast is for.
#[derive(Clone, Copy)]
pub(crate) struct Audience {
    pub(crate) run: RunId,
    pub(crate) collection: CollectionId,
    /// All, but of a slice of a group: elements of other collections move.
    pub(crate) pes: Pes,
}

impl Audience {
    /// The whole collection.
    pub(crate) fn all(run: RunId, collection: CollectionId) -> Self {
        Audience { run, collection, pes: Pes::ALL }
    }
}

/// Who waits for a broadcast, and whether for values.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Awaited {
    cell: CellRef,
    gather: bool,
}

/// Sends a broadcast from wherever the running code is. One by a proxy of another run is refused.
pub(crate) fn send<E: Entry>(to: Audience, args: E::Args, rank: Rank, awaited: Option<Awaited>)
where
    E::Args: Clone,
{
    send_args(to, Args::new::<E>(args), rank, awaited);
}

fn send_args(to: Audience, args: Args, rank: Rank, awaited: Option<Awaited>) {
    let Audience { run, collection, pes } = to;
    let number = Number { collection, pes, args, rank: rank.clone(), awaited };
    current::pe(|pe| pe.into_iter().for_each(Pe::note_broadcast));
    current::here(|here| match here {
        Here::Pe(pe) if pe.run() != run => {
            let chare = number.args.entry().chare;
            let error = call::no_element(pe, run, collection, chare, "[..]".to_owned());
            number.refuse(pe, error);
        }
        Here::Pe(pe) if pe.id() == collection.root() => number.at_root(pe),
        Here::Pe(pe) => pe.post(collection.root(), Ranked::wrapped(rank, Msg::for_pe(number))),
        Here::Foreign(shared) => {
            current::require(run);
            shared.post_foreign(collection.root(), Ranked::wrapped(rank, Msg::for_pe(number)));
        }
        Here::Nowhere => call::nowhere(),
    });
}

/// The broadcast to a whole collection, for its root.
pub(crate) fn to_number(collection: CollectionId, args: Args) -> Msg {
    Msg::for_pe(Number { collection, pes: Pes::ALL, args, rank: Rank::Normal, awaited: None })
}

/// Sends a broadcast that is waited for. `finish` makes the value from the sorted outcomes (none unless `gather`) and
/// the first error.
pub(crate) fn start<E: Entry, V: Send + 'static>(
    to: Audience,
    args: E::Args,
    rank: Rank,
    gather: bool,
    finish: impl FnOnce(Outcomes<E::Output>, Option<CallError>) -> Result<V, CallError> + 'static,
    at: &'static Location<'static>,
) -> Pending<V>
where
    E::Args: Clone,
{
    current::on_pe("awaiting a broadcast", |pe| {
        let cell = open_root::<E::Output, V>(pe, E::output, finish);
        send::<E>(to, args, rank, Some(Awaited { cell, gather }));
        Pending::new(cell, What::Broadcast { entry: E::INFO }, at)
    })
}

/// A broadcast on its way to the root, which numbers it.
pub(crate) struct Number {
    collection: CollectionId,
    pes: Pes,
    args: Args,
    rank: Rank,
    awaited: Option<Awaited>,
}

impl Number {
    /// Numbers the broadcast and sends it to all PEs.
    fn at_root(self, pe: &Pe) {
        if pe.shared().is_stopping() {
            // Its collection may not exist, or not any more, and nothing that is sent now arrives.
            return;
        }
        if self.is_early(pe) {
            return pe.hold_for_collection(self.collection, Msg::for_pe(self));
        }
        let parcels = self.parcels(pe);
        self.send(pe, parcels);
    }

    /// Whether the root is to create its collection, and has not done so yet.
    fn is_early(&self, pe: &Pe) -> bool {
        pe.collection(self.collection).is_none() && pe.expects_collection(self.collection)
    }

    /// Sends it as soon as insertions that came before it have their places.
    fn send(self, pe: &Pe, parcels: Result<Parcels, Stays>) {
        let parcels = match parcels {
            Ok(parcels) => parcels,
            Err(why) => {
                let error = not_sent(self.args.entry(), &why);
                return self.refuse(pe, error);
            }
        };
        let Some(at_root) = pe.collection(self.collection) else {
            if let Some(error) = pe.uncreated(self.collection) {
                return self.refuse(pe, error);
            }
            return pe.received_nonsense(&WireError::new(
                "a broadcast to a collection that its root does not know",
            ));
        };
        if !at_root.info.has_late_places() {
            return self.send_now(pe, parcels);
        }
        let later = Box::new(move |pe: &Pe| self.send_now(pe, parcels));
        let ready = at_root.membership.borrow_mut().after_insertions(true, later);
        if let Some(send) = ready {
            send(pe);
        }
    }

    /// For the other PEs of this process one each, and one for all of other processes. They come before the number: if one cannot be
    /// cloned, or not be encoded, the numbering has no hole.
    fn parcels(&self, pe: &Pe) -> Result<Parcels, Stays> {
        let parcel = |others| match others {
            Others::Near(_) => Ok(Parcel::Here(self.args.copy())),
            Others::Far(pes) => Parcel::encoded(pe, pes, self.args.copy(), |args, to| args.encode(pe, to)),
        };
        pe.others().map(parcel).collect()
    }

    fn send_now(self, pe: &Pe, parcels: Parcels) {
        let Number { collection, pes, args, rank, awaited } = self;
        let Some(at_root) = pe.named_collection(collection, &Reply::none()) else { return };
        let (number, entry) = (at_root.next_broadcast(), args.entry());
        let mut parcels = parcels.into_iter();
        pe.post_to_others(|| {
            let args = parcels.next().expect("as many were made as are asked for");
            let apply = Apply { collection, pes, number, args, rank: rank.clone(), awaited, entry };
            Ranked::wrapped(rank.clone(), Msg::for_pe(apply))
        });
        Apply { collection, pes, number, args: Parcel::Here(args), rank, awaited, entry }.accept(pe);
    }

    /// There will be no such broadcast: whoever waits for it gets the error.
    fn refuse(self, pe: &Pe, error: CallError) {
        let Number { collection, args, awaited, .. } = self;
        pe.guard(|| drop(args));
        refuse(pe, collection, awaited, error);
    }

    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Number { collection, pes, args, rank, awaited } = self;
        let entry = args.entry();
        to.put_own(&(collection, pes, rank, awaited));
        current::on_pe("sending to another process", |pe| {
            // Serialisation is code of the user's.
            let encoded = caught::catch(pe, || args.encode(pe, to));
            encoded.unwrap_or_else(|panic| Err(Stays::new(panic.to_string()))).map_err(|why| {
                refuse(pe, collection, awaited, not_sent(entry, &why));
                Unsent::Told
            })
        })
    }
}

/// The error of a broadcast that cannot go to another process.
fn not_sent(entry: &'static EntryInfo, why: &Stays) -> CallError {
    CallError::Refused(format!("{} was not sent to another process: {why}", Name::Entry(entry)).into())
}

/// Tells whoever waits for a broadcast that there is none.
fn refuse(pe: &Pe, collection: CollectionId, awaited: Option<Awaited>, error: CallError) {
    let reply = awaited.map_or(Reply::none(), |awaited| Reply::to(awaited.cell));
    reply.refuse(pe, ChareId { collection, element: UNKNOWN }, error);
}

impl Arrives for Number {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (collection, pes, rank, awaited) = from.take()?;
        Ok(Number { collection, pes, args: Args::decode(from)?, rank, awaited })
    }
}

/// What each of [`Pe::others`] gets.
type Parcels = Vec<Parcel<Args>>;

impl Payload for Number {
    const NAME: Name = Name::Runtime("a broadcast");
    const INNER: Option<fn(&Self) -> Inner<'_>> = Some(|number| Inner::Message(number.args.message()));
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Number, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        if self.is_early(pe) {
            return pe.hold_for_collection(self.collection, Msg::for_pe(self));
        }
        // The sender's method is not running here: a clone that panics is an error of the call.
        match entry::guarded_in_all(pe, self.args.entry(), || self.parcels(pe)) {
            Ok(parcels) => self.send(pe, parcels),
            Err(error) => self.refuse(pe, error),
        }
    }

    /// Its collection is not created.
    fn lost(self, _: ChareId, _: Reply, pe: &Pe, error: CallError) {
        self.refuse(pe, error);
    }
}

/// A numbered broadcast on its way to a PE.
pub(crate) struct Apply {
    collection: CollectionId,
    pes: Pes,
    number: u64,
    args: Parcel<Args>,
    rank: Rank,
    awaited: Option<Awaited>,
    entry: &'static EntryInfo,
}

impl Apply {
    fn accept(self, pe: &Pe) {
        let Some(collection) = pe.collection(self.collection) else {
            return pe.hold_for_collection(self.collection, Msg::for_pe(self));
        };
        let Apply { pes, number, args, rank, awaited, .. } = self;
        let args = args.into_contents();
        let job: Box<dyn Job> = if pes.has(pe.id()) {
            let args = Some(args);
            Box::new(Deliver { number, args, rank, awaited, tracker: None, delivered: 0, next: None })
        } else {
            let copies = args.copies;
            pe.guard(|| drop(args));
            Box::new(PassOver { number, rank, awaited, copies })
        };
        collection.accept_broadcast(pe, number, job);
    }

    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Apply { collection, pes, number, args, rank, awaited, .. } = self;
        to.put_own(&(collection, pes, number, rank, awaited));
        args.leave(to);
        Ok(())
    }
}

impl Arrives for Apply {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (collection, pes, number, rank, awaited) = from.take()?;
        let args = Args::decode(from)?;
        let entry = args.entry();
        Ok(Apply { collection, pes, number, args: Parcel::Here(args), rank, awaited, entry })
    }
}

impl Payload for Apply {
    const NAME: Name = Name::Runtime("a broadcast");
    const INNER: Option<fn(&Self) -> Inner<'_>> = Some(|apply| match &apply.args {
        Parcel::Here(args) => Inner::Message(args.message()),
        Parcel::Encoded(_) => Inner::Entry(apply.entry),
    });
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Apply, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        self.accept(pe);
    }
}

/// A broadcast that is not for the member of a group on this PE, whose turn comes among the others all the same.
struct PassOver {
    number: u64,
    rank: Rank,
    awaited: Option<Awaited>,
    copies: &'static Copies,
}

impl Job for PassOver {
    fn rank(&self) -> Rank {
        self.rank.clone()
    }

    fn step(&mut self, pe: &Pe, collection: &Collection) -> Progress {
        let owed = collection.coverage.begin(self.number);
        debug_assert!(owed.is_empty(), "members of groups do not move");
        for place in 0..collection.place_count() {
            match collection.at(place) {
                Place::Here(chare) => self.hurry(pe, chare),
                Place::Unborn(element) => {
                    pe.cover_unborn(ChareId { collection: collection.id(), element }, self.number);
                }
                Place::Vacant => {}
            }
        }
        if let Some(Awaited { cell, gather }) = self.awaited {
            self.copies.open_tracker(pe, 0, cell, gather);
        }
        Progress::Done
    }

    fn hurry(&mut self, _: &Pe, chare: ChareRef) {
        chare.covered.set(chare.covered.get().max(self.number + 1));
    }
}

/// A broadcast that is being delivered to the elements of one PE.
struct Deliver {
    number: u64,
    /// None once the last element has taken them.
    args: Option<Args>,
    rank: Rank,
    awaited: Option<Awaited>,
    tracker: Option<CellRef>,
    /// Outcomes that the tracker has to wait for.
    delivered: u64,
    next: Option<usize>,
}

impl Deliver {
    fn begin(&mut self, pe: &Pe, collection: &Collection) {
        let owed = collection.coverage.begin(self.number);
        let copies = self.args().copies;
        self.tracker =
            self.awaited.and_then(|Awaited { cell, gather }| copies.open_tracker(pe, OPEN, cell, gather));
        for owed in owed {
            let element = match owed {
                Owed::Perhaps(Departure { element, .. }, _) | Owed::Surely(element) => element,
            };
            let id = ChareId { collection: collection.id(), element };
            let Some((call, reply)) = self.copy(pe, id, false) else { continue };
            let msg = coverage::late(id, reply, self.number, call);
            match owed {
                Owed::Perhaps(departure, place) => {
                    collection.coverage.put_aside(departure, place, self.number, msg);
                }
                Owed::Surely(_) => pe.send(msg),
            }
        }
    }

    fn args(&self) -> &Args {
        self.args.as_ref().expect("taken by the last element only")
    }

    /// Where the outcome of one more element goes.
    fn reply(&mut self) -> Reply {
        self.delivered += 1;
        Reply::of_broadcast(self.tracker)
    }

    /// The call for one element, and where its outcome goes; refused already if the arguments cannot be cloned.
    fn copy(&mut self, pe: &Pe, id: ChareId, is_last: bool) -> Option<(Msg, Reply)> {
        let reply = self.reply();
        if is_last {
            let args = self.args.take().expect("taken by the last element only");
            return Some((args.into_call(), reply));
        }
        self.args().copy_for(pe, id, reply)
    }

    /// Delivers to an element that lives here, unless it has got this one elsewhere.
    fn deliver(&mut self, pe: &Pe, chare: ChareRef, is_last: bool) {
        if chare.covered.get() > self.number {
            return;
        }
        chare.covered.set(self.number + 1);
        let is_idle = matches!(chare.state.get(), State::Idle) && !chare.has_gap.get();
        if is_idle && !is_last {
            let reply = self.reply();
            return self.args().deliver_to(pe, chare, reply);
        }
        let Some((call, reply)) = self.copy(pe, chare.id, is_last) else { return };
        let number = self.number;
        if chare.has_gap.get() {
            let msg = Msg::new(chare.id, reply, Turn { number, call });
            return coverage::hold_early(chare, number, msg);
        }
        match chare.state.get() {
            State::Idle => {
                if let Name::Entry(entry) = call.name() {
                    pe.note_call(entry);
                }
                call.addressed(chare.id, reply).run(pe);
            }
            State::Exclusive => {
                pe.hold_for_owned(chare, Msg::new(chare.id, reply, Turn { number, call }));
            }
            State::Poisoned => reply.refuse(pe, chare.id, chare.poisoned()),
        }
    }
}

impl Job for Deliver {
    fn rank(&self) -> Rank {
        self.rank.clone()
    }

    fn step(&mut self, pe: &Pe, collection: &Collection) -> Progress {
        if self.next.is_none() {
            self.begin(pe, collection);
        }
        let start = self.next.unwrap_or(0);
        let places = collection.place_count();
        let end = places.min(start + BATCH);
        for place in start..end {
            let is_last = place + 1 == places;
            match collection.at(place) {
                Place::Here(chare) => self.deliver(pe, chare, is_last),
                Place::Unborn(element) => {
                    let id = ChareId { collection: collection.id(), element };
                    if pe.cover_unborn(id, self.number)
                        && let Some((call, reply)) = self.copy(pe, id, is_last)
                    {
                        pe.undeliverable(coverage::late(id, reply, self.number, call));
                    }
                }
                Place::Vacant => {}
            }
        }
        pe.note_runtime();
        self.next = Some(end);
        // User code that has run above may have brought places behind the last one.
        if end < places {
            return Progress::More;
        }
        pe.guard(|| drop(self.args.take()));
        if let Some(tracker) = self.tracker {
            pe.cells.settle(pe, tracker.key, OPEN - self.delivered);
        }
        Progress::Done
    }

    fn hurry(&mut self, pe: &Pe, chare: ChareRef) {
        self.deliver(pe, chare, false);
    }
}
