//! Arrays and groups on one PE: the elements that live here, what waits for elements that do not exist yet, and the
//! jobs (creation, broadcasts) that visit all of them in turn.
//!
//! Elements are placed in blocks: PE `p` of `P` holds the numbers `p*N/P .. (p+1)*N/P`. A group is the case `N = P`.
//! Jobs of one collection run one after another, so a broadcast finds every element constructed (or held for, if its
//! constructor is a coroutine that has not ended).

use std::any::Any;
use std::cell::{Cell, RefCell, UnsafeCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::ptr::NonNull;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::broadcast;
use crate::caught::PanicPayload;
use crate::cell::ChareRef;
use crate::chare::{Chare, ChareInfo, Cx};
use crate::entry::{self, EntryInfo, Failure};
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::index::Index;
use crate::message::{Msg, Name, Payload};
use crate::reduction::Reductions;
use crate::reply::{CellRef, Reply};
use crate::report::Reason;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::scheduler::task::{self, Mode};

/// Elements that one step of a creation constructs.
const BATCH: usize = 1024;

/// What all PEs know of a collection.
pub(crate) struct CollectionInfo {
    pub(crate) id: CollectionId,
    pub(crate) chare: &'static ChareInfo,
    pub(crate) element_count: u64,
    pe_count: u64,
    shape: Box<dyn Any + Send + Sync>,
    element_name: fn(&CollectionInfo, u64) -> String,
}

impl CollectionInfo {
    /// `shape` must have a countable number of elements.
    pub(crate) fn new<C: Chare>(id: CollectionId, shape: C::Index, pe_count: usize) -> Self {
        CollectionInfo {
            id,
            chare: C::INFO,
            element_count: shape.element_count().expect("checked before the creation"),
            pe_count: pe_count as u64,
            shape: Box::new(shape),
            element_name: |info, element| format!("[{:?}]", C::Index::of_number(element, info.shape::<C>())),
        }
    }

    pub(crate) fn shape<C: Chare>(&self) -> C::Index {
        *self.shape.downcast_ref::<C::Index>().expect("a collection is used by chares of its own type")
    }

    /// The element's index as users write it.
    pub(crate) fn name_of(&self, element: u64) -> String {
        (self.element_name)(self, element)
    }

    /// What there is, for the report of an index outside of it.
    pub(crate) fn bounds(&self) -> String {
        format!(
            "it has {} elements, up to {}",
            self.element_count,
            self.name_of(self.element_count.saturating_sub(1))
        )
    }

    /// The PE that an element is placed on; `element` is inside of the collection.
    pub(crate) fn home(&self, element: u64) -> PeId {
        let numerator = (u128::from(element) + 1) * u128::from(self.pe_count) - 1;
        PeId::new((numerator / u128::from(self.element_count)) as usize)
    }

    fn first_on(&self, pe: usize) -> u64 {
        (pe as u128 * u128::from(self.element_count) / u128::from(self.pe_count)) as u64
    }
}

/// Whether a job has more to do.
#[must_use]
pub(crate) enum Progress {
    /// It has: step it again later.
    More,
    /// It is finished.
    Done,
}

/// Something that visits all elements of a collection on one PE, in bounded steps.
pub(crate) trait Job {
    fn step(&mut self, pe: &Pe, collection: &Collection) -> Progress;
}

/// A collection on one PE.
pub(crate) struct Collection {
    pub(crate) info: Arc<CollectionInfo>,
    first: u64,
    count: u64,
    slots: RefCell<Vec<Option<ChareRef>>>,
    unborn: RefCell<FxHashMap<u64, Vec<Msg>>>,
    /// At most one `Work::Job` is in the run queue, and only while there are jobs here.
    jobs: RefCell<VecDeque<Box<dyn Job>>>,
    is_stepping: Cell<bool>,
    early: RefCell<BTreeMap<u64, Box<dyn Job>>>,
    accepted_broadcasts: Cell<u64>,
    numbered_broadcasts: Cell<u64>,
    pub(crate) reductions: RefCell<Reductions>,
}

impl Collection {
    /// Fails, and says why, if its slots do not fit in memory.
    fn new(info: Arc<CollectionInfo>, pe: PeId) -> Result<Self, String> {
        let (first, end) = (info.first_on(pe.index()), info.first_on(pe.index() + 1));
        let mut slots = Vec::new();
        let fits = usize::try_from(end - first).is_ok_and(|count| slots.try_reserve_exact(count).is_ok());
        if !fits {
            return Err(format!(
                "an array of {} elements does not fit in memory: PE {pe} would hold {}",
                info.element_count,
                end - first
            ));
        }
        slots.resize((end - first) as usize, None);
        Ok(Collection {
            info,
            first,
            count: end - first,
            slots: RefCell::new(slots),
            unborn: RefCell::default(),
            jobs: RefCell::default(),
            is_stepping: Cell::new(false),
            early: RefCell::default(),
            accepted_broadcasts: Cell::new(0),
            numbered_broadcasts: Cell::new(0),
            reductions: RefCell::default(),
        })
    }

    pub(crate) fn id(&self) -> CollectionId {
        self.info.id
    }

    /// Elements that are placed on this PE.
    pub(crate) fn slot_count(&self) -> usize {
        self.slots.borrow().len()
    }

    pub(crate) fn local_count(&self) -> u64 {
        self.count
    }

    #[inline]
    pub(crate) fn slot(&self, slot: usize) -> Option<ChareRef> {
        self.slots.borrow()[slot]
    }

    pub(crate) fn element_of_slot(&self, slot: usize) -> u64 {
        self.first + slot as u64
    }

    /// The element, if it lives here.
    #[inline(always)]
    pub(crate) fn find(&self, element: u64) -> Option<ChareRef> {
        let slot = element.wrapping_sub(self.first);
        *self.slots.borrow().get(usize::try_from(slot).ok()?)?
    }

    /// Whether the element is placed on this PE, constructed or not.
    #[inline(always)]
    pub(crate) fn places(&self, element: u64) -> bool {
        element.wrapping_sub(self.first) < self.count
    }

    /// Puts a constructed element in its slot and releases what waited for it.
    fn place(&self, pe: &Pe, chare: ChareRef) {
        let element = chare.id.element;
        self.slots.borrow_mut()[(element - self.first) as usize] = Some(chare);
        if self.unborn.borrow().is_empty() {
            return;
        }
        let waiting = self.take_unborn(element);
        // First, since broadcasts that are queued already have higher numbers.
        pe.enqueue_first(waiting.into_iter().flatten().map(Work::Msg).collect());
    }

    /// Keeps a message until its element is constructed.
    pub(crate) fn hold_for_element(&self, msg: Msg) {
        self.unborn.borrow_mut().entry(msg.head().to.element).or_default().push(msg);
    }

    /// Takes the messages that wait for an element.
    pub(crate) fn take_unborn(&self, element: u64) -> Option<Vec<Msg>> {
        self.unborn.borrow_mut().remove(&element)
    }

    /// The next number, at the root.
    pub(crate) fn next_broadcast(&self) -> u64 {
        self.numbered_broadcasts.replace(self.numbered_broadcasts.get() + 1)
    }

    /// Queues a numbered broadcast, once all with lower numbers have been queued.
    pub(crate) fn accept_broadcast(&self, pe: &Pe, number: u64, job: Box<dyn Job>) {
        if number != self.accepted_broadcasts.get() {
            self.early.borrow_mut().insert(number, job);
            return;
        }
        let mut next = Some(job);
        while let Some(job) = next {
            self.add_job(pe, job);
            self.accepted_broadcasts.set(self.accepted_broadcasts.get() + 1);
            next = self.early.borrow_mut().remove(&self.accepted_broadcasts.get());
        }
    }

    fn add_job(&self, pe: &Pe, job: Box<dyn Job>) {
        let mut jobs = self.jobs.borrow_mut();
        jobs.push_back(job);
        // While a job is stepped it is not in the list, and the end of its step queues the next.
        if jobs.len() == 1 && !self.is_stepping.get() {
            pe.enqueue(Work::Job(self.id()));
        }
    }

    /// Steps the first job. The others wait in the queue, which is why the running one keeps its place there.
    pub(crate) fn step_job(&self, pe: &Pe) {
        let Some(mut job) = self.jobs.borrow_mut().pop_front() else { return };
        self.is_stepping.set(true);
        match job.step(pe, self) {
            Progress::More => self.jobs.borrow_mut().push_front(job),
            Progress::Done => drop(job),
        }
        self.is_stepping.set(false);
        if !self.jobs.borrow().is_empty() {
            pe.enqueue(Work::Job(self.id()));
        }
    }

    /// Messages that wait for elements which do not exist yet, with the elements' numbers.
    pub(crate) fn for_each_unborn(&self, mut f: impl FnMut(u64, &Msg)) {
        for (element, waiting) in self.unborn.borrow().iter() {
            waiting.iter().for_each(|msg| f(*element, msg));
        }
    }

    pub(crate) fn for_each_element(&self, mut f: impl FnMut(ChareRef)) {
        self.slots.borrow().iter().flatten().for_each(|chare| f(*chare));
    }

    /// Gives up everything, at the end of the PE. The caller frees the chares.
    pub(crate) fn dismantle(&self, pe: &Pe) -> Vec<ChareRef> {
        pe.drop_each(self.jobs.take());
        pe.drop_each(self.early.take().into_values());
        pe.drop_each(self.unborn.take().into_values().flatten());
        self.reductions.take().give_up(pe);
        self.slots.take().into_iter().flatten().collect()
    }
}

/// The collections that a PE knows: a table by creator and counter that only grows.
pub(crate) struct Directory {
    by_creator: UnsafeCell<Vec<Vec<Option<Box<Collection>>>>>,
    /// The collection that was asked for last: programs send to one for long.
    last: Cell<(CollectionId, Option<NonNull<Collection>>)>,
}

impl Directory {
    pub(crate) fn new(pe_count: usize) -> Self {
        Directory {
            by_creator: UnsafeCell::new((0..pe_count).map(|_| Vec::new()).collect()),
            last: Cell::new((CollectionId::singles_of(PeId::new(0)), None)),
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self, id: CollectionId) -> Option<&Collection> {
        match self.last.get() {
            // SAFETY: the collection is in its box as long as the directory lives.
            (last, Some(collection)) if last == id => Some(unsafe { collection.as_ref() }),
            _ => self.look_up(id),
        }
    }

    #[inline(never)]
    fn look_up(&self, id: CollectionId) -> Option<&Collection> {
        // SAFETY: the directory is not `Sync`, and no reference into the vectors outlives a method of it. A collection's
        // box is never removed or replaced while the directory lives, so `&Collection` may live as long as `&self`.
        let by_creator = unsafe { &*self.by_creator.get() };
        let collection = by_creator.get(id.root().index())?.get(id.counter())?.as_deref()?;
        self.last.set((id, Some(NonNull::from(collection))));
        Some(collection)
    }

    /// Adds a collection that is not there yet.
    fn insert(&self, collection: Collection) -> &Collection {
        let id = collection.id();
        assert!(self.get(id).is_none(), "a collection is created once");
        // SAFETY: as in `get`; growing the vectors moves boxes, not the collections in them.
        let row = unsafe { &mut (&mut *self.by_creator.get())[id.root().index()] };
        if row.len() <= id.counter() {
            row.resize_with(id.counter() + 1, || None);
        }
        row[id.counter()].insert(Box::new(collection))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Collection> {
        // SAFETY: as in `get`; callers do not create collections while they iterate.
        let by_creator = unsafe { &*self.by_creator.get() };
        by_creator.iter().flatten().flatten().map(|collection| &**collection)
    }
}

/// The creation of a collection on one PE.
pub(crate) struct Create<C: Chare> {
    pub(crate) info: Arc<CollectionInfo>,
    pub(crate) init: C::Init,
    /// The cell that waits for all constructors.
    pub(crate) root: Option<CellRef>,
}

impl<C: Chare> Create<C>
where
    C::Init: Clone,
{
    /// Makes the collection known on this PE, and begins to construct its elements. Fails, and says why, if it does not
    /// fit in memory.
    pub(crate) fn begin(self, pe: &Pe) -> Result<(), String> {
        if pe.shared().is_stopping() {
            return Ok(());
        }
        let collection = pe.directory.insert(Collection::new(self.info, pe.id())?);
        collection.add_job(
            pe,
            Box::new(ConstructAll::<C> { init: self.init, root: self.root, tracker: None, next: None }),
        );
        pe.release_for_collection(collection.id());
        Ok(())
    }
}

impl<C: Chare> Payload for Create<C>
where
    C::Init: Clone,
{
    const NAME: Name = Name::Runtime("the creation of a collection");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        if let Err(text) = self.begin(pe) {
            pe.shared().stop(Reason::Aborted(text));
        }
    }
}

struct ConstructAll<C: Chare> {
    init: C::Init,
    root: Option<CellRef>,
    tracker: Option<CellRef>,
    next: Option<usize>,
}

impl<C: Chare> Job for ConstructAll<C>
where
    C::Init: Clone,
{
    fn step(&mut self, pe: &Pe, collection: &Collection) -> Progress {
        let start = match self.next {
            Some(start) => start,
            None => {
                let count = collection.local_count();
                self.tracker =
                    self.root.and_then(|root| broadcast::open_tracker::<()>(pe, count, root, false));
                0
            }
        };
        let slots = collection.slot_count();
        let end = slots.min(start + BATCH);
        let constructed = Cell::new(0);
        for slot in start..end {
            let id = ChareId { collection: collection.id(), element: collection.element_of_slot(slot) };
            let tell = Tell::Tracker(self.tracker, &constructed);
            match entry::guarded(pe, id, NewOf::<C>::INFO, || self.init.clone()) {
                Ok(init) => C::construct(Construct { id, init, tell }),
                Err(error) => {
                    pe.give_up(id, error.clone());
                    tell.into_reply().refuse(pe, id, error);
                }
            }
        }
        if let Some(tracker) = self.tracker
            && constructed.get() > 0
        {
            pe.cells.settle(pe, tracker.key, constructed.get());
        }
        self.next = Some(end);
        if end < slots { Progress::More } else { Progress::Done }
    }
}

/// The creation of a singleton, at its home.
pub(crate) struct CreateSingle<C: Chare>(pub(crate) C::Init);

impl<C: Chare> Payload for CreateSingle<C> {
    const NAME: Name = Name::Runtime("the creation of a singleton");
    fn run(self, to: ChareId, reply: Reply, _: &Pe) {
        C::construct(Construct { id: to, init: self.0, tell: Tell::Reply(reply) });
    }
}

/// One construction, about to run on its PE.
pub struct Construct<'a, C: Chare> {
    id: ChareId,
    init: C::Init,
    tell: Tell<'a>,
}

/// Who is told that a chare has been constructed.
enum Tell<'a> {
    Reply(Reply),
    /// The tracker of a creation, if it is awaited; good constructions that are over at once are only counted.
    Tracker(Option<CellRef>, &'a Cell<u64>),
}

impl Tell<'_> {
    fn into_reply(self) -> Reply {
        match self {
            Tell::Reply(reply) => reply,
            Tell::Tracker(tracker, _) => tracker.map_or(Reply::none(), Reply::to),
        }
    }
}

impl<C: Chare> Construct<'_, C> {
    /// Runs a plain constructor.
    #[inline]
    pub fn plain(self, new: impl FnOnce(&Cx<C>, C::Init) -> Result<C, Failure>) {
        let Construct { id, init, tell } = self;
        crate::current::on_pe("a constructor", |pe| {
            let outcome = catch_unwind(AssertUnwindSafe(|| pe.construct(id, || new(&Cx::new(id), init))));
            match (place(pe, id, outcome), tell) {
                (Ok(()), Tell::Tracker(_, constructed)) => constructed.set(constructed.get() + 1),
                (outcome, tell) => tell.into_reply().answer(pe, id, outcome),
            }
        });
    }

    /// Runs a constructor that is a coroutine; messages for the chare wait until it has ended.
    pub fn coroutine<Fut>(self, new: impl FnOnce(Cx<C>, C::Init) -> Fut)
    where
        Fut: Future<Output = Result<C, Failure>> + Send + 'static,
    {
        let Construct { id, init, tell } = self;
        let reply = tell.into_reply();
        crate::current::on_pe("a constructor", |pe| {
            let future = constructing(id, new(Cx::new(id), init));
            let done = move |pe: &Pe, outcome| reply.answer(pe, id, place::<C>(pe, id, outcome));
            task::start(pe, None, NewOf::<C>::INFO, Mode::Interleaving, future, done);
        });
    }
}

/// Tells the PE at each poll whose constructor is running.
async fn constructing<F: Future>(id: ChareId, constructor: F) -> F::Output {
    let mut constructor = pin!(constructor);
    poll_fn(|context| {
        crate::current::on_pe("a constructor", |pe| pe.construct(id, || constructor.as_mut().poll(context)))
    })
    .await
}

struct NewOf<C>(std::marker::PhantomData<C>);

impl<C: Chare> NewOf<C> {
    const INFO: &'static EntryInfo =
        &EntryInfo { chare: C::INFO.name, name: "new", file: C::INFO.file, line: C::INFO.line };
}

/// Puts a constructed chare in its place, where messages find it.
#[inline]
fn place<C: Chare>(
    pe: &Pe,
    id: ChareId,
    outcome: Result<Result<C, Failure>, PanicPayload>,
) -> Result<(), CallError> {
    let unborn = pe.take_unborn(id);
    let outcome = match outcome {
        Ok(Ok(value)) => {
            let chare = ChareRef::new(id, value);
            if let Some(unborn) = unborn {
                chare.adopt(unborn);
            }
            match pe.collection(id.collection) {
                Some(collection) => collection.place(pe, chare),
                None => pe.place_single(chare),
            }
            Ok(())
        }
        Ok(Err(failure)) => Err((unborn, entry::failed(pe, id, NewOf::<C>::INFO, failure))),
        Err(panic) => Err((unborn, CallError::Panicked(entry::panicked(pe, id, NewOf::<C>::INFO, panic)))),
    };
    outcome.map_err(|(unborn, error)| {
        if let Some(unborn) = unborn {
            unborn.give_up(pe);
        }
        pe.give_up(id, error.clone());
        error
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn info(element_count: u64, pe_count: u64) -> CollectionInfo {
        static CHARE: ChareInfo = ChareInfo { name: "Test", file: "", line: 0 };
        CollectionInfo {
            id: CollectionId::new(PeId::new(0), 0),
            chare: &CHARE,
            element_count,
            pe_count,
            shape: Box::new(element_count as usize),
            element_name: |_, _| String::new(),
        }
    }

    proptest! {
        #[test]
        fn every_element_is_placed_where_home_says(elements in 1_u64..5000, pes in 1_u64..70) {
            let info = info(elements, pes);
            let mut next = 0;
            for pe in 0..pes as usize {
                prop_assert_eq!(info.first_on(pe), next);
                while next < info.first_on(pe + 1) {
                    prop_assert_eq!(info.home(next), PeId::new(pe));
                    next += 1;
                }
            }
            prop_assert_eq!(next, elements);
        }
    }
}
