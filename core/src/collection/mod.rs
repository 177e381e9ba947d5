//! Arrays and groups on one PE: the elements that live here, what waits for elements that do not exist yet, and the
//! jobs (creation, broadcasts) that visit all of them in turn.
//!
//! Jobs of one collection run one after another, so a broadcast finds every element constructed (or held for, if its
//! constructor is a coroutine that has not ended).

mod construct;
mod directory;
mod indexes;
mod info;
mod initial;
mod membership;
mod places;

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHashSet};

pub use construct::Construct;
pub(crate) use construct::{Create, CreateSingle, Start};
pub(crate) use directory::Directory;
pub(crate) use indexes::AnyIndexes;
pub(crate) use info::{CollectionInfo, Kind};
pub(crate) use initial::Initial;
pub(crate) use membership::{Membership, Ticket};
pub(crate) use places::Place;

use crate::bound::Bonds;
use crate::broadcast::{self, Coverage};
use crate::caught;
use crate::cell::ChareRef;
use crate::ids::{CollectionId, PeId};
use crate::index::Index;
use crate::known::Known;
use crate::message::Msg;
use crate::priority::Rank;
use crate::reduction::Reductions;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use indexes::Indexes;
use places::Places;

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
    /// When its turn comes among what waits on the PE, once it is the first of its collection.
    fn rank(&self) -> Rank {
        Rank::Normal
    }
    fn step(&mut self, pe: &Pe, collection: &Collection) -> Progress;
    /// Does for one element what a later step would, since it leaves.
    fn hurry(&mut self, pe: &Pe, chare: ChareRef);
}

/// A collection on one PE.
pub(crate) struct Collection {
    pub(crate) info: Arc<CollectionInfo>,
    places: Places,
    /// Of a sparse array.
    indexes: Option<Box<dyn AnyIndexes>>,
    /// Elements that this PE is the home of and that do not exist any more; none if that goes for all that are absent.
    destroyed: RefCell<FxHashSet<u64>>,
    /// An epoch that elements of a sparse array begin in whose home this is: later than any of those that have ended.
    next_epoch: Cell<u64>,
    /// All elements of a sparse array have been inserted: an absent one does not exist.
    is_sealed: Cell<bool>,
    unborn: RefCell<FxHashMap<u64, Vec<Msg>>>,
    /// At most one `Work::Job` is in the run queue, and only while there are jobs here.
    jobs: RefCell<VecDeque<Box<dyn Job>>>,
    is_stepping: Cell<bool>,
    early: RefCell<BTreeMap<u64, Box<dyn Job>>>,
    accepted_broadcasts: Cell<u64>,
    numbered_broadcasts: Cell<u64>,
    pub(crate) coverage: Coverage,
    pub(crate) bonds: Bonds,
    /// At the root.
    pub(crate) membership: RefCell<Membership>,
    pub(crate) reductions: RefCell<Reductions>,
}

impl Collection {
    /// Fails, and says why, if its slots do not fit in memory.
    fn new(info: Arc<CollectionInfo>, pe: PeId) -> Result<Self, String> {
        let (first, count) = info.block_of(pe);
        let places = Places::new(first, count).ok_or_else(|| {
            let all = info.initial_count();
            format!("an array of {all} elements does not fit in memory: PE {pe} would hold {count}")
        })?;
        info.scattered_on(pe).for_each(|element| {
            places.reserve(element);
        });
        let initial_count = places.count() as u64;
        let collection = Collection {
            indexes: info.new_indexes(),
            destroyed: RefCell::default(),
            next_epoch: Cell::new(0),
            is_sealed: Cell::new(info.is_sparse() && info.is_complete()),
            membership: RefCell::new(Membership::new(info.initial_count(), info.is_complete())),
            info,
            places,
            unborn: RefCell::default(),
            jobs: RefCell::default(),
            is_stepping: Cell::new(false),
            early: RefCell::default(),
            accepted_broadcasts: Cell::new(0),
            numbered_broadcasts: Cell::new(0),
            coverage: Coverage::default(),
            bonds: Bonds::default(),
            reductions: RefCell::default(),
        };
        collection.reductions.borrow_mut().join(0, initial_count);
        Ok(collection)
    }

    pub(crate) fn id(&self) -> CollectionId {
        self.info.id
    }

    /// Places of elements on this PE, vacant ones included.
    pub(crate) fn place_count(&self) -> usize {
        self.places.count()
    }

    #[inline]
    pub(crate) fn at(&self, place: usize) -> Place {
        self.places.at(place)
    }

    /// The element, if it lives here.
    #[inline(always)]
    pub(crate) fn find(&self, element: u64) -> Option<ChareRef> {
        self.places.find(element)
    }

    /// Whether the element lives here, constructed or not, as far as that can be said without looking.
    #[inline(always)]
    pub(crate) fn is_direct(&self, element: u64) -> bool {
        self.places.is_direct(element)
    }

    /// Whether the element lives here, constructed or not.
    pub(crate) fn expects(&self, element: u64) -> bool {
        self.places.expects(element)
    }

    /// Puts a constructed element in its place and releases what waited for it.
    fn place(&self, pe: &Pe, chare: ChareRef) {
        if chare.covered.get() > 0 {
            broadcast::begin_with_held(chare);
        }
        self.places.put(chare);
        if self.unborn.borrow().is_empty() {
            return;
        }
        let waiting = self.take_unborn(chare.id.element);
        // First, since broadcasts that are queued already have higher numbers.
        pe.enqueue_first(waiting.into_iter().flatten().map(Work::Msg).collect());
    }

    /// Takes in an element that has moved here.
    pub(crate) fn welcome(&self, chare: ChareRef) {
        self.places.put(chare);
        self.reductions.borrow_mut().join(chare.contributed.get(), 1);
    }

    /// Lets broadcasts that have begun here reach an element that is about to leave.
    pub(crate) fn catch_up(&self, pe: &Pe, chare: ChareRef) {
        if chare.covered.get() < self.coverage.started() {
            self.hurry(pe, chare);
        }
    }

    /// Takes an element out that has lived here. `reduction::ship_finished` has to follow.
    pub(crate) fn take_out(&self, chare: ChareRef) {
        self.places.remove(chare.id.element);
        self.reductions.borrow_mut().leave(chare.contributed.get());
    }

    /// Lets an element go that lives here.
    pub(crate) fn dismiss(&self, pe: &Pe, chare: ChareRef) {
        self.catch_up(pe, chare);
        self.take_out(chare);
        crate::reduction::ship_finished(pe, self);
    }

    /// Gives the place of an element up that was to be constructed here, and has contributed to so many reductions.
    pub(crate) fn relinquish(&self, pe: &Pe, element: u64, contributed: u64) {
        self.places.remove(element);
        self.reductions.borrow_mut().leave(contributed);
        crate::reduction::ship_finished(pe, self);
    }

    /// Lets the job that is under way, if there is one, go to an element at once.
    fn hurry(&self, pe: &Pe, chare: ChareRef) {
        let Some(mut job) = self.jobs.borrow_mut().pop_front() else { return };
        self.is_stepping.set(true);
        job.hurry(pe, chare);
        self.jobs.borrow_mut().push_front(job);
        self.is_stepping.set(false);
    }

    /// Makes a place for an element that is to be constructed here.
    pub(crate) fn reserve(&self, pe: &Pe, element: u64, first_reduction: u64) {
        self.places.reserve(element);
        self.reductions.borrow_mut().join(first_reduction, 1);
        crate::reduction::tell_standing(pe, self);
    }

    /// Notes the index of an element of a sparse array.
    pub(crate) fn note_index<I: Index>(&self, element: u64, index: I) {
        if let Some(indexes) = self.indexes_of::<I>() {
            indexes.insert(element, index);
        }
    }

    /// A copy of the index of an element of a sparse array that leaves.
    pub(crate) fn index_for_departure(&self, pe: &Pe, element: u64) -> Option<Box<dyn Any + Send>> {
        let index = self.indexes.as_deref()?.copy(element);
        self.forget_index(pe, element);
        index
    }

    /// Forgets the index of an element that does not live here any more, unless this is its home.
    pub(crate) fn forget_index(&self, pe: &Pe, element: u64) {
        if let Some(indexes) = self.indexes().filter(|_| self.info.home(element) != pe.id()) {
            indexes.remove(element);
        }
    }

    fn indexes_of<I: Index>(&self) -> Option<&Indexes<I>> {
        let indexes: &dyn Known = self.indexes.as_deref()?;
        indexes.known_ref()
    }

    pub(crate) fn indexes(&self) -> Option<&dyn AnyIndexes> {
        self.indexes.as_deref()
    }

    /// The index of an element; of a sparse array, only where the element lives and at its home.
    pub(crate) fn index_of<I: Index>(&self, element: u64) -> Option<I> {
        self.info.index_of(element).or_else(|| self.indexes_of::<I>()?.get(element))
    }

    /// The element's index as users write it. Runs code of the user's; a panic in it leaves the key.
    pub(crate) fn name_of(&self, pe: &Pe, element: u64) -> String {
        let name = self.indexes().map(|indexes| caught::catch(pe, || indexes.name(element)));
        name.and_then(Result::ok).flatten().unwrap_or_else(|| self.info.name_of(element))
    }

    /// Whether an element that this PE is the home of, and that is not known to be anywhere, does not exist.
    pub(crate) fn is_gone(&self, element: u64) -> bool {
        self.is_sealed.get() || self.destroyed.borrow().contains(&element)
    }

    /// Notes, at its home, that an element does not exist any more after so many moves; what waits for it is lost.
    pub(crate) fn note_destroyed(&self, pe: &Pe, element: u64, epoch: u64) {
        if let Some(indexes) = self.indexes() {
            indexes.remove(element);
            self.next_epoch.set(self.next_epoch.get().max(epoch + 1));
        }
        if !self.is_sealed.get() {
            self.destroyed.borrow_mut().insert(element);
        }
        self.take_unborn(element).into_iter().flatten().for_each(|msg| pe.undeliverable(msg));
    }

    /// Notes, at its home, that an element is to exist, and brings the epoch that it begins in.
    pub(crate) fn begin_epoch(&self, element: u64) -> u64 {
        self.destroyed.borrow_mut().remove(&element);
        self.next_epoch.get()
    }

    /// Notes that all elements have been inserted; what waits for others is lost, unless their insertions are on their way.
    pub(crate) fn seal(&self, pe: &Pe) {
        self.is_sealed.set(true);
        self.destroyed.take();
        let is_waited_for = |element: &u64, _: &mut Vec<Msg>| !self.expects(*element);
        let lost: Vec<_> = self.unborn.borrow_mut().extract_if(is_waited_for).collect();
        lost.into_iter().flat_map(|(_, msgs)| msgs).for_each(|msg| pe.undeliverable(msg));
    }

    /// Does, at the root, what has waited for insertions that have a place now.
    pub(crate) fn after_settling(&self, pe: &Pe) {
        loop {
            let ready = self.membership.borrow_mut().next_ready();
            let Some(later) = ready else { return };
            later(pe);
        }
    }

    /// Keeps a message until its element is constructed, and says how many wait for that.
    pub(crate) fn hold_for_element(&self, msg: Msg) -> usize {
        let mut unborn = self.unborn.borrow_mut();
        let held = unborn.entry(msg.head().to.element).or_default();
        held.push(msg);
        held.len()
    }

    /// Takes the messages that wait for an element.
    pub(crate) fn take_unborn(&self, element: u64) -> Option<Vec<Msg>> {
        self.unborn.borrow_mut().remove(&element)
    }

    /// The next number, at the root.
    pub(crate) fn next_broadcast(&self) -> u64 {
        self.numbered_broadcasts.replace(self.numbered_broadcasts.get() + 1)
    }

    pub(crate) fn numbered_broadcasts(&self) -> u64 {
        self.numbered_broadcasts.get()
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
            self.enqueue_first_job(pe, &jobs);
        }
    }

    fn enqueue_first_job(&self, pe: &Pe, jobs: &VecDeque<Box<dyn Job>>) {
        if let Some(job) = jobs.front() {
            pe.enqueue_ranked(job.rank(), Work::Job(self.id()));
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
        self.enqueue_first_job(pe, &self.jobs.borrow());
    }

    /// Messages that wait for elements which do not exist yet, with the elements' numbers.
    pub(crate) fn for_each_unborn(&self, mut f: impl FnMut(u64, &Msg)) {
        for (element, waiting) in self.unborn.borrow().iter() {
            waiting.iter().for_each(|msg| f(*element, msg));
        }
    }

    pub(crate) fn for_each_element(&self, mut f: impl FnMut(ChareRef)) {
        self.places.for_each(&mut f);
    }

    /// How much is kept of elements by their numbers: of those that are gone, and indexes.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn kept_counts(&self) -> [usize; 2] {
        [self.destroyed.borrow().len(), self.indexes().map_or(0, AnyIndexes::count)]
    }

    /// Gives up everything, at the end of the PE. The caller frees the chares.
    pub(crate) fn dismantle(&self, pe: &Pe) -> Vec<ChareRef> {
        pe.drop_each(self.jobs.take());
        let waiting = self.membership.borrow_mut().give_up();
        pe.drop_each(waiting);
        pe.drop_each(self.early.take().into_values());
        pe.drop_each(self.unborn.take().into_values().flatten());
        self.reductions.take().give_up(pe);
        self.coverage.give_up(pe);
        self.places.take_all()
    }
}
