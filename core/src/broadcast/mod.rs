//! Broadcasts: numbered by the root of their collection, applied on every PE in number order, each with a completion
//! tree of its own.
//!
//! The sender's message goes to the root PE, which gives the next number and sends one message to every PE. A PE
//! applies number `n` after all of `n - 1` has been delivered to its elements, in steps of at most [`BATCH`] elements,
//! so a large collection does not starve the PE. What becomes of elements that move meanwhile is in `coverage`. An awaited broadcast has a tracker cell on every PE, which counts its
//! elements and then reports to one cell of the caller; user reductions are not involved.
//!
//! A rank orders the messages of a broadcast among others, before the root and after it, and its job among what waits on
//! its PE. It does not change the order of jobs: a job that waits for an earlier one has no place in the run queue yet.

mod coverage;

use std::fmt;
use std::marker::PhantomData;
use std::panic::Location;

use coverage::Owed;
pub(crate) use coverage::{Coverage, Departure, Gap, begin_with_held, take_over};
pub(crate) use coverage::{Late, Turn};

use serde::{Deserialize, Serialize};

use crate::answer::{After, Sink};
use crate::call;
use crate::cell::{ChareRef, State};
use crate::collection::{Collection, Job, Place, Progress};
use crate::current::{self, Here};
use crate::entry::{self, Delivery, Entry, OutputOf};
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::pending::Pending;
use crate::priority::{Rank, Ranked};
use crate::reply::{CellRef, Reply, UNKNOWN, send_answer};
use crate::scheduler::pe::Pe;
use crate::waiting::What;
use crate::wire::{Codec, Decoder, Encoder, Kind, Leaves, Stays, Unsent, WireError};

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
    let Audience { run, collection, pes } = to;
    let number = Number::<E> { collection, pes, args, rank: rank.clone(), awaited };
    current::pe(|pe| pe.into_iter().for_each(Pe::note_broadcast));
    current::here(|here| match here {
        Here::Pe(pe) if pe.run() != run => {
            let error = call::no_element(pe, run, collection, E::INFO.chare, "[..]".to_owned());
            let reply = awaited.map_or(Reply::none(), |awaited| Reply::to(awaited.cell));
            reply.refuse(pe, ChareId { collection, element: UNKNOWN }, error);
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

/// Outcomes by element number, as a gathering broadcast collects them.
pub(crate) type Outcomes<R> = Vec<(u64, Result<R, CallError>)>;

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
        let cell = open_root::<E::Output, OutputOf<E>, V>(pe, finish);
        send::<E>(to, args, rank, Some(Awaited { cell, gather }));
        Pending::new(cell, What::Broadcast { entry: E::INFO }, at)
    })
}

/// Opens the cell that the trackers of all PEs report to.
pub(crate) fn open_root<R: Send + 'static, K: Codec<R>, V: Send + 'static>(
    pe: &Pe,
    finish: impl FnOnce(Outcomes<R>, Option<CallError>) -> Result<V, CallError> + 'static,
) -> CellRef {
    let root = Root { missing_pes: pe.pe_count(), total: Report::default(), finish: Some(Box::new(finish)) };
    CellRef::new(pe, pe.cells.open_sink::<Report<R>, ReportBy<K>>(root))
}

/// Opens the cell that counts `count` outcomes on this PE; `None` if there are none to wait for, which is reported now.
pub(crate) fn open_tracker<R: Send + 'static, K: Codec<R>>(
    pe: &Pe,
    count: u64,
    root: CellRef,
    gather: bool,
) -> Option<CellRef> {
    let tracker =
        Tracker::<R, K> { missing: count, report: Report::default(), root, gather, codec: PhantomData };
    if count == 0 {
        send_answer::<_, ReportBy<K>>(pe, root, 0, Ok(Report::<R>::default()));
        return None;
    }
    Some(CellRef::new(pe, pe.cells.open_sink::<R, K>(tracker)))
}

/// What one PE reports of its elements. One that nobody takes ends the run if it has an error: so does the error of any
/// call that nobody awaits any more.
struct Report<R> {
    outcomes: Outcomes<R>,
    error: Option<CallError>,
}

impl<R> Report<R> {
    fn first_error(&self) -> Option<CallError> {
        self.error
            .clone()
            .or_else(|| self.outcomes.iter().find_map(|(_, outcome)| outcome.as_ref().err().cloned()))
    }
}

impl<R> Default for Report<R> {
    fn default() -> Self {
        Report { outcomes: Vec::new(), error: None }
    }
}

impl<R> Drop for Report<R> {
    fn drop(&mut self) {
        if let Some(error) = self.first_error() {
            current::pe(|pe| pe.into_iter().for_each(|pe| pe.unawaited(error.clone())));
        }
    }
}

/// How reports leave their process, whose values leave it by `K`.
struct ReportBy<K>(PhantomData<fn() -> K>);

impl<R: Send + 'static, K: Codec<R>> Codec<Report<R>> for ReportBy<K> {
    fn encode(mut report: Report<R>, to: &mut Encoder) -> Result<(), Stays> {
        to.put_own(&report.outcomes.len());
        for (element, outcome) in std::mem::take(&mut report.outcomes) {
            to.put_own(&element);
            to.put_outcome::<R, K>(outcome);
        }
        to.put_own(&report.error.is_some());
        report.error.take().iter().for_each(|error| to.put_error(error));
        Ok(())
    }

    fn decode(from: &mut Decoder<'_>) -> Result<Report<R>, WireError> {
        let mut report = Report::default();
        for _ in 0..from.take::<usize>()? {
            let element = from.take()?;
            report.outcomes.push((element, from.take_outcome::<R, K>()?));
        }
        if from.take()? {
            report.error = Some(from.take_error()?);
        }
        Ok(report)
    }
}

struct Tracker<R, K> {
    missing: u64,
    report: Report<R>,
    root: CellRef,
    gather: bool,
    codec: PhantomData<fn() -> K>,
}

impl<R: Send + 'static, K: Codec<R>> Sink<R> for Tracker<R, K> {
    fn take(&mut self, pe: &Pe, from: u64, outcome: Result<R, CallError>) -> After {
        if self.gather {
            self.report.outcomes.push((from, outcome));
        } else if let Err(error) = outcome {
            self.report.error.get_or_insert(error);
        }
        self.settle(pe, 1)
    }

    fn refuse(&mut self, pe: &Pe, from: u64, error: CallError) -> After {
        self.take(pe, from, Err(error))
    }

    fn settle(&mut self, pe: &Pe, count: u64) -> After {
        self.missing -= count;
        if self.missing > 0 {
            return After::Open;
        }
        send_answer::<_, ReportBy<K>>(pe, self.root, 0, Ok(std::mem::take(&mut self.report)));
        After::Closed
    }
}

type Finish<R, V> = Box<dyn FnOnce(Outcomes<R>, Option<CallError>) -> Result<V, CallError>>;

struct Root<R, V> {
    missing_pes: usize,
    total: Report<R>,
    finish: Option<Finish<R, V>>,
}

impl<R: Send + 'static, V: Send + 'static> Sink<Report<R>> for Root<R, V> {
    fn take(&mut self, pe: &Pe, _: u64, report: Result<Report<R>, CallError>) -> After {
        match report {
            Ok(mut report) => {
                self.total.outcomes.append(&mut report.outcomes);
                self.total.error = self.total.error.take().or(report.error.take());
            }
            Err(error) => return self.refuse(pe, UNKNOWN, error),
        }
        self.missing_pes -= 1;
        if self.missing_pes > 0 {
            return After::Open;
        }
        self.total.outcomes.sort_unstable_by_key(|(element, _)| *element);
        let owed = self.total.first_error();
        let outcomes = std::mem::take(&mut self.total.outcomes);
        let finish = self.finish.take().expect("the last PE reports once");
        match finish(outcomes, self.total.error.take()) {
            Ok(value) => After::ready(value, owed),
            Err(error) => After::Refused(error, true),
        }
    }

    fn refuse(&mut self, _: &Pe, _: u64, error: CallError) -> After {
        After::Refused(error, true)
    }

    fn settle(&mut self, _: &Pe, _: u64) -> After {
        unreachable!("a PE reports once, with its outcomes")
    }
}

/// A broadcast on its way to the root, which numbers it.
pub(crate) struct Number<E: Entry> {
    collection: CollectionId,
    pes: Pes,
    args: E::Args,
    rank: Rank,
    awaited: Option<Awaited>,
}

impl<E: Entry> Number<E>
where
    E::Args: Clone,
{
    /// Numbers the broadcast and sends it to all PEs.
    fn at_root(self, pe: &Pe) {
        if pe.shared().is_stopping() {
            // Its collection may not exist, or not any more, and nothing that is sent now arrives.
            return;
        }
        let clones = self.clones(pe);
        self.send(pe, clones);
    }

    /// Sends it as soon as insertions that came before it have their places.
    fn send(self, pe: &Pe, clones: Vec<E::Args>) {
        let at_root = pe.collection(self.collection).expect("its root has created the collection");
        if !at_root.info.has_late_places() {
            return self.send_now(pe, clones);
        }
        let later = Box::new(move |pe: &Pe| self.send_now(pe, clones));
        let ready = at_root.membership.borrow_mut().after_insertions(true, later);
        if let Some(send) = ready {
            send(pe);
        }
    }

    /// One for each other PE, and one for all of other processes. They come before the number: if one panics, the numbering has no hole.
    fn clones(&self, pe: &Pe) -> Vec<E::Args> {
        (0..pe.other_copies()).map(|_| self.args.clone()).collect()
    }

    fn send_now(self, pe: &Pe, clones: Vec<E::Args>) {
        let Number { collection, pes, args, rank, awaited } = self;
        let at_root = pe.collection(collection).expect("its root has created the collection");
        let number = at_root.next_broadcast();
        let mut clones = clones.into_iter();
        pe.post_to_others(|| {
            let args = clones.next().expect("as many were made as are asked for");
            let apply = Apply::<E> { collection, pes, number, args, rank: rank.clone(), awaited };
            Ranked::wrapped(rank.clone(), Msg::for_pe(apply))
        });
        Apply::<E> { collection, pes, number, args, rank, awaited }.accept(pe);
    }
}

impl<E: Entry> Number<E> {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Number { collection, pes, args, rank, awaited } = self;
        to.put_code(E::code(), E::INFO.name)?;
        to.put_own(&(collection, pes, rank, awaited));
        Ok(E::encode_args(args, to)?)
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (collection, pes, rank, awaited) = from.take()?;
        Ok(Number { collection, pes, args: E::decode_args(from)?, rank, awaited })
    }
}

impl<E: Entry> Payload for Number<E>
where
    E::Args: Clone,
{
    const NAME: Name = Name::Entry(E::INFO);
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Number, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        // The sender's method is not running here: a clone that panics is an error of the call.
        match entry::guarded_in_all(pe, E::INFO, || self.clones(pe)) {
            Ok(clones) => self.send(pe, clones),
            Err(error) => {
                let reply = self.awaited.map_or(Reply::none(), |awaited| Reply::to(awaited.cell));
                reply.refuse(pe, ChareId { collection: self.collection, element: UNKNOWN }, error);
            }
        }
    }
}

/// A numbered broadcast on its way to a PE.
pub(crate) struct Apply<E: Entry> {
    collection: CollectionId,
    pes: Pes,
    number: u64,
    args: E::Args,
    rank: Rank,
    awaited: Option<Awaited>,
}

impl<E: Entry> Apply<E>
where
    E::Args: Clone,
{
    fn accept(self, pe: &Pe) {
        let Some(collection) = pe.collection(self.collection) else {
            return pe.hold_for_collection(self.collection, Msg::for_pe(self));
        };
        let Apply { pes, number, args, rank, awaited, .. } = self;
        let job: Box<dyn Job> = if pes.has(pe.id()) {
            let args = Some(args);
            Box::new(Deliver::<E> { number, args, rank, awaited, tracker: None, delivered: 0, next: None })
        } else {
            pe.guard(|| drop(args));
            Box::new(PassOver::<E> { number, rank, awaited, entry: PhantomData })
        };
        collection.accept_broadcast(pe, number, job);
    }
}

impl<E: Entry> Apply<E> {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Apply { collection, pes, number, args, rank, awaited } = self;
        to.put_code(E::code(), E::INFO.name)?;
        to.put_own(&(collection, pes, number, rank, awaited));
        Ok(E::encode_args(args, to)?)
    }

    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (collection, pes, number, rank, awaited) = from.take()?;
        Ok(Apply { collection, pes, number, args: E::decode_args(from)?, rank, awaited })
    }
}

impl<E: Entry> Payload for Apply<E>
where
    E::Args: Clone,
{
    const NAME: Name = Name::Entry(E::INFO);
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Apply, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        self.accept(pe);
    }
}

/// A broadcast that is not for the member of a group on this PE, whose turn comes among the others all the same.
struct PassOver<E> {
    number: u64,
    rank: Rank,
    awaited: Option<Awaited>,
    entry: PhantomData<fn() -> E>,
}

impl<E: Entry> Job for PassOver<E> {
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
            open_tracker::<E::Output, OutputOf<E>>(pe, 0, cell, gather);
        }
        Progress::Done
    }

    fn hurry(&mut self, _: &Pe, chare: ChareRef) {
        chare.covered.set(chare.covered.get().max(self.number + 1));
    }
}

/// A broadcast that is being delivered to the elements of one PE.
struct Deliver<E: Entry> {
    number: u64,
    /// None once the last element has taken them.
    args: Option<E::Args>,
    rank: Rank,
    awaited: Option<Awaited>,
    tracker: Option<CellRef>,
    /// Outcomes that the tracker has to wait for.
    delivered: u64,
    next: Option<usize>,
}

impl<E: Entry> Deliver<E>
where
    E::Args: Clone,
{
    fn begin(&mut self, pe: &Pe, collection: &Collection) {
        let owed = collection.coverage.begin(self.number);
        self.tracker = self.awaited.and_then(|Awaited { cell, gather }| {
            open_tracker::<E::Output, OutputOf<E>>(pe, OPEN, cell, gather)
        });
        for owed in owed {
            let element = match owed {
                Owed::Perhaps(Departure { element, .. }, _) | Owed::Surely(element) => element,
            };
            let id = ChareId { collection: collection.id(), element };
            let Some((args, reply)) = self.copy(pe, id, false) else { continue };
            let msg = coverage::late::<E>(id, reply, self.number, args);
            match owed {
                Owed::Perhaps(departure, place) => {
                    collection.coverage.put_aside(departure, place, self.number, msg);
                }
                Owed::Surely(_) => pe.send(msg),
            }
        }
    }

    /// The arguments for one element, and where its outcome goes; refused already if they cannot be cloned.
    #[inline(always)]
    fn copy(&mut self, pe: &Pe, id: ChareId, is_last: bool) -> Option<(E::Args, Reply)> {
        self.delivered += 1;
        let reply = Reply::of_broadcast(self.tracker);
        let args = if is_last {
            Ok(self.args.take())
        } else {
            entry::guarded(pe, id, E::INFO, || self.args.clone())
        };
        match args {
            Ok(args) => Some((args.expect("taken by the last element only"), reply)),
            Err(error) => {
                reply.refuse(pe, id, error);
                None
            }
        }
    }

    /// Delivers to an element that lives here, unless it has got this one elsewhere.
    fn deliver(&mut self, pe: &Pe, chare: ChareRef, is_last: bool) {
        if chare.covered.get() > self.number {
            return;
        }
        chare.covered.set(self.number + 1);
        let Some((args, reply)) = self.copy(pe, chare.id, is_last) else { return };
        let number = self.number;
        if chare.has_gap.get() {
            return coverage::hold_early(
                chare,
                number,
                Msg::new(chare.id, reply, Turn::<E> { number, args }),
            );
        }
        match chare.state.get() {
            State::Idle => {
                pe.note_call(E::INFO);
                Delivery::<E>::new(pe, chare, args, reply).arrive();
            }
            State::Exclusive => {
                pe.hold_for_owned(chare, Msg::new(chare.id, reply, Turn::<E> { number, args }));
            }
            State::Poisoned => reply.refuse(pe, chare.id, chare.poisoned()),
        }
    }
}

impl<E: Entry> Job for Deliver<E>
where
    E::Args: Clone,
{
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
                        && let Some((args, reply)) = self.copy(pe, id, is_last)
                    {
                        pe.undeliverable(coverage::late::<E>(id, reply, self.number, args));
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
