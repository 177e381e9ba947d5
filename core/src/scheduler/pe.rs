//! A PE: its queue, tables and counters, and the step that advances it.
//!
//! Everything here belongs to one thread; other threads reach a PE by its inbox only. A step takes its inputs from
//! [`Mail`] and [`Clock`] and never blocks, so whoever drives the PE (a thread here, a simulator elsewhere) decides
//! what it sees and when. No borrow of a table is held while user code runs or user values are dropped.

use std::alloc::Layout;
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use chare_transport::{Frame, Rank as ProcessRank, SendError};
use rustc_hash::FxHashMap;

use crate::answer::Cells;
use crate::broadcast::Relays;
use crate::cell::{ChareRef, Extra};
use crate::channel::{Ends, TypesMet};
use crate::chares::Chare;
use crate::collection::{Collection, Directory};
use crate::direct::Chain;
use crate::ids::{ChareId, CollectionId, PeId, RunId};
use crate::job;
use crate::location::Locations;
use crate::mailbox::Mailbox;
use crate::message::{Head, Msg};
use crate::migration::Tidings;
use crate::pending::WaitsAway;
use crate::priority::{Rank, Ranked};
use crate::process::Shared;
use crate::profile::Recorder;
use crate::quiescence;
use crate::reduction::Readers;
use crate::report::Reason;
use crate::restart::Restarts;
use crate::scheduler::block::BlockCache;
use crate::scheduler::queue::{RunQueue, Work};
use crate::scheduler::slots::Tasks;
use crate::scheduler::task::{self, TaskKey};
use crate::scheduler::timer::Timers;
use crate::singles::SinglesMade;
use crate::stillborn::Stillborn;
use crate::wire::Crossing;

/// Things done between two looks at the inbox.
const WORK_PER_POLL: usize = 32;
/// Messages taken from the inbox at a time.
const MAIL_PER_POLL: usize = 256;
/// How often the end of a PE looks for what destructors have sent meanwhile: they may send on and on.
const MAX_SWEEPS: usize = 1000;

/// Where a PE's messages come from and go to.
pub(crate) trait Mail {
    /// The oldest message that has come, if any. Its block stays pinned until the next call (see the inbox).
    fn receive(&self) -> Option<Msg>;
    /// Whether no message is there or on its way: false means that the PE must not sleep.
    fn is_empty(&self) -> bool;
    /// Sends to another PE.
    fn send(&self, to: PeId, msg: Msg);
    /// Sends to another process, where these are simulated, what a transport would take. Others are joined by one.
    fn send_frame<'a>(&self, to: ProcessRank, _: Frame<'a>) -> Result<(), SendError<'a>> {
        unreachable!("{to} is reached by a transport")
    }
    /// Takes back the pinned block, whose contents are gone.
    fn release_pinned(&self, block: NonNull<Head>);
}

/// What time it is.
pub(crate) trait Clock {
    /// Nanoseconds since the runtime began; never goes back.
    fn now_ns(&self) -> u64;
    /// What runs says that it takes so long. A clock that goes on by itself knows better.
    fn charge(&self, _ns: u64) {}
}

/// Counters that quiescence detection compares: messages between PEs.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) posted: Cell<u64>,
    pub(crate) taken: Cell<u64>,
}

/// What a chare has before it is in its place.
#[derive(Default)]
pub(crate) struct Unborn {
    pub(crate) extra: Box<Extra>,
    /// The reduction that it contributes to next.
    pub(crate) contributed: u64,
    /// The number from which on broadcasts reach it that are not held for it already.
    pub(crate) covered: u64,
}

/// One PE.
pub(crate) struct Pe {
    id: PeId,
    run: RunId,
    plain_run: RunId,
    pe_count: usize,
    /// The process that it is in.
    pub(crate) rank: ProcessRank,
    /// The first PE of this process, and how many it has.
    pub(crate) near: (usize, usize),
    shared: Arc<Shared>,
    mail: Box<dyn Mail>,
    clock: Box<dyn Clock>,
    pub(crate) queue: RunQueue,
    blocks: BlockCache,
    pinned: Cell<*const Head>,
    pub(crate) running: Cell<Option<ChareRef>>,
    pub(crate) running_task: Cell<Option<TaskKey>>,
    pub(crate) direct: Chain,
    panic_location: RefCell<String>,
    singles: RefCell<FxHashMap<u64, ChareRef>>,
    pub(crate) unborn_singles: RefCell<FxHashMap<u64, Vec<Msg>>>,
    pub(crate) singles_made: SinglesMade,
    pub(crate) unborn_collections: RefCell<FxHashMap<CollectionId, Vec<Msg>>>,
    pub(crate) stillborn: Stillborn,
    /// The chare whose constructor is running.
    pub(crate) constructing: Cell<Option<ChareId>>,
    /// What constructors have made of their chares' extra parts, until the chares are in place.
    unborn: RefCell<FxHashMap<ChareId, Unborn>>,
    created: Cell<u64>,
    pub(crate) directory: Directory,
    pub(crate) locations: Locations,
    pub(crate) tidings: Tidings,
    pub(crate) ends: Ends,
    pub(crate) cells: Cells,
    pub(crate) tasks: Tasks,
    pub(crate) timers: Timers,
    pub(crate) traffic: Traffic,
    pub(crate) quiescence_waiters: RefCell<quiescence::Waiters>,
    pub(crate) waits_away: WaitsAway,
    pub(crate) mailbox: Mailbox,
    pub(crate) restarts: Restarts,
    pub(crate) relays: Relays,
    pub(crate) crossing: Crossing,
    pub(crate) readers: Readers,
    pub(crate) value_types_met: TypesMet,
    /// If the run is profiled.
    pub(crate) recorder: Option<Box<Recorder>>,
}

impl Unborn {
    /// The constructor has failed, or will never end.
    pub(crate) fn give_up(self, pe: &Pe) {
        self.extra.give_up(pe);
    }
}

impl Pe {
    pub(crate) fn new(id: PeId, shared: Arc<Shared>, mail: Box<dyn Mail>, clock: Box<dyn Clock>) -> Self {
        let pe_count = shared.pe_count();
        let rank = ProcessRank(shared.process_of(id) as u32);
        let near = shared.pes_of_process(rank);
        let restarts = Restarts::new(shared.options().restarts(), id);
        let recorder = shared.options().is_profiled().then(|| Box::new(Recorder::new(clock.now_ns())));
        let mailbox = Mailbox::new(shared.options().mailbox_budget());
        Pe {
            id,
            run: shared.run(),
            plain_run: if recorder.is_some() { RunId::NONE } else { shared.run() },
            pe_count,
            rank,
            near: (near.start, near.len()),
            shared,
            mail,
            clock,
            queue: RunQueue::new(),
            blocks: BlockCache::new(),
            pinned: Cell::new(ptr::null()),
            running: Cell::new(None),
            running_task: Cell::new(None),
            direct: Chain::default(),
            panic_location: RefCell::default(),
            singles: RefCell::default(),
            unborn_singles: RefCell::default(),
            singles_made: SinglesMade::new(pe_count),
            unborn_collections: RefCell::default(),
            stillborn: Stillborn::default(),
            constructing: Cell::new(None),
            unborn: RefCell::default(),
            created: Cell::new(0),
            directory: Directory::new(pe_count),
            locations: Locations::default(),
            tidings: Tidings::default(),
            ends: Ends::new(id),
            cells: Cells::new(),
            tasks: Tasks::new(),
            timers: Timers::default(),
            traffic: Traffic::default(),
            quiescence_waiters: RefCell::default(),
            waits_away: WaitsAway::default(),
            mailbox,
            restarts,
            relays: Relays::default(),
            crossing: Crossing::default(),
            readers: Readers::default(),
            value_types_met: TypesMet::default(),
            recorder,
        }
    }

    #[inline]
    pub(crate) fn id(&self) -> PeId {
        self.id
    }

    /// The run that this PE is one of.
    #[inline]
    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// The run, if sends are not counted: then they cost nothing more than without a profile.
    #[inline(always)]
    pub(crate) fn plain_run(&self) -> RunId {
        self.plain_run
    }

    pub(crate) fn pe_count(&self) -> usize {
        self.pe_count
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    pub(crate) fn charge(&self, ns: u64) {
        self.clock.charge(ns);
    }

    /// A number for something that this PE creates.
    pub(crate) fn next_creation(&self) -> u64 {
        self.created.replace(self.created.get() + 1)
    }

    // Memory.

    #[inline]
    pub(crate) fn allocate(&self, layout: Layout) -> NonNull<u8> {
        self.blocks.allocate(layout, self.shared.depot())
    }

    /// # Safety
    /// `block` came from an `allocate` of this module with the same `layout` and is not used afterwards.
    #[inline(always)]
    pub(crate) unsafe fn free(&self, block: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { self.blocks.free(block, layout, self.shared.depot()) }
    }

    /// Whether the inbox still needs the memory of this message.
    #[inline(always)]
    pub(crate) fn pins(&self, head: NonNull<Head>) -> bool {
        ptr::eq(self.pinned.get(), head.as_ptr())
    }

    /// Frees the block of a message whose contents are gone, now or when the inbox lets go of it.
    ///
    /// # Safety
    /// The caller owns the block, which has this layout, and does not use it afterwards.
    #[inline(always)]
    pub(crate) unsafe fn release_block(&self, head: NonNull<Head>, layout: Layout) {
        if self.pins(head) {
            self.mail.release_pinned(head);
        } else {
            // SAFETY: the caller's promise.
            unsafe { self.free(head.cast(), layout) };
        }
    }

    // Sending.

    /// Puts something at the end of the run queue.
    #[inline(always)]
    pub(crate) fn enqueue(&self, work: Work) {
        self.queue.push(work);
    }

    pub(crate) fn enqueue_first(&self, held: VecDeque<Work>) {
        self.queue.push_first(held);
    }

    /// Whether a PE is of this process.
    #[inline]
    pub(crate) fn is_near(&self, pe: PeId) -> bool {
        pe.index().wrapping_sub(self.near.0) < self.near.1
    }

    /// Gives a frame to the network that is simulated; false if it was refused, which ends the run as anywhere.
    pub(crate) fn send_simulated(&self, to: ProcessRank, frame: Frame<'_>) -> bool {
        self.mail.send_frame(to, frame).inspect_err(|error| job::end_by_refusal(self, error)).is_ok()
    }

    /// Sends a message to another PE that shares its memory with this one.
    pub(crate) fn send_by_pointer(&self, to: PeId, msg: Msg) {
        self.mail.send(to, msg.unpinned(self));
    }

    /// Sends a message to a PE, which may be this one.
    #[inline(always)]
    pub(crate) fn post(&self, to: PeId, msg: Msg) {
        if to == self.id {
            return self.enqueue(Work::Msg(msg));
        }
        if self.shared.is_stopping() {
            return drop(msg);
        }
        if !self.is_near(to) {
            // Counted before it is queued: whoever takes it may count that before it is back here.
            self.traffic.posted.set(self.traffic.posted.get() + 1);
            if !self.send_across(to, msg) {
                self.traffic.posted.set(self.traffic.posted.get() - 1);
            }
            return;
        }
        self.traffic.posted.set(self.traffic.posted.get() + 1);
        self.send_by_pointer(to, msg);
    }

    /// Puts something in the run queue behind all that is not of a higher rank.
    pub(crate) fn enqueue_ranked(&self, rank: Rank, work: Work) {
        self.queue.push_ranked(rank, work);
    }

    /// Before what has come later: an element that moves here is found by what follows it.
    pub(crate) fn release_for_collection(&self, id: CollectionId) {
        let held = self.unborn_collections.borrow_mut().remove(&id);
        self.queue.push_first(held.into_iter().flatten().map(Work::Msg).collect());
    }

    // Chares.

    #[inline]
    pub(crate) fn collection(&self, id: CollectionId) -> Option<&Collection> {
        self.directory.get(id)
    }

    /// The chare, if it lives here.
    #[inline(always)]
    pub(crate) fn find(&self, id: ChareId) -> Option<ChareRef> {
        match id.collection.single_home() {
            None => self.directory.get(id.collection)?.find(id.element),
            Some(_) => self.singles.borrow().get(&id.element).copied(),
        }
    }

    pub(crate) fn has_single(&self, element: u64) -> bool {
        self.singles.borrow().contains_key(&element)
    }

    /// Takes a singleton out of the table: it leaves.
    pub(crate) fn remove_single(&self, element: u64) {
        self.singles.borrow_mut().remove(&element);
    }

    pub(crate) fn place_single(&self, chare: ChareRef) {
        let element = chare.id.element;
        self.singles.borrow_mut().insert(element, chare);
        let held = self.unborn_singles.borrow_mut().remove(&element);
        self.enqueue_first(held.into_iter().flatten().map(Work::Msg).collect());
    }

    /// The chare whose method is running.
    #[inline]
    pub(crate) fn running(&self) -> Option<ChareRef> {
        self.running.get()
    }

    /// The chare with this id, if it is the one whose method is running.
    #[inline(always)]
    pub(crate) fn running_as(&self, id: ChareId) -> Option<ChareRef> {
        self.running.get().filter(|chare| chare.id == id)
    }

    #[inline]
    pub(crate) fn running_task(&self) -> Option<TaskKey> {
        self.running_task.get()
    }

    #[inline(always)]
    pub(crate) fn begin_step(&self, chare: ChareRef) {
        self.running.set(Some(chare));
    }

    pub(crate) fn begin_task(&self, chare: Option<ChareRef>, task: TaskKey) {
        self.running.set(chare);
        self.running_task.set(Some(task));
    }

    #[inline(always)]
    pub(crate) fn end_step(&self) {
        self.running.set(None);
        self.running_task.set(None);
    }

    pub(crate) fn index_of<C: Chare>(&self, id: ChareId) -> C::Index {
        let index = match self.directory.get(id.collection) {
            Some(collection) => collection.index_of(id.element),
            None => (&0_usize as &dyn Any).downcast_ref().copied(),
        };
        index.expect("an element's index is known where it lives, and singletons have the index 0")
    }

    /// The extents of a dense array; `None` of a sparse one.
    pub(crate) fn extents_of<C: Chare>(&self, id: CollectionId) -> Option<C::Index> {
        self.directory.get(id).expect("a chare's collection is known where it lives").info.extents()
    }

    /// Runs the constructor of a chare, or a part of it.
    #[inline]
    pub(crate) fn construct<R>(&self, id: ChareId, constructor: impl FnOnce() -> R) -> R {
        struct Constructing<'a>(&'a Pe);
        impl Drop for Constructing<'_> {
            fn drop(&mut self) {
                self.0.constructing.set(None);
            }
        }
        self.constructing.set(Some(id));
        let _constructing = Constructing(self);
        constructor()
    }

    /// The chare whose method or constructor is running.
    pub(crate) fn own(&self) -> Option<ChareId> {
        self.running.get().map(|chare| chare.id).or(self.constructing.get())
    }

    /// Whether a method or the constructor of this chare is running.
    #[inline(always)]
    pub(crate) fn is_own(&self, id: ChareId) -> bool {
        self.running_as(id).is_some() || self.constructing.get() == Some(id)
    }

    /// Calls `f` with the extra parts of a chare whose method or constructor is running; `None` if neither is.
    pub(crate) fn own_extra<R>(&self, id: ChareId, f: impl FnOnce(&mut Extra) -> R) -> Option<R> {
        match self.running_as(id) {
            Some(chare) => Some(chare.extra(f)),
            None => (self.constructing.get() == Some(id))
                .then(|| f(&mut self.unborn.borrow_mut().entry(id).or_default().extra)),
        }
    }

    /// The number of the next reduction that the running chare contributes to, if it is of this collection.
    pub(crate) fn next_contribution_to(&self, collection: CollectionId) -> Option<u64> {
        if let Some(chare) = self.running.get() {
            let has_part = chare.id.collection == collection && !chare.has_ended();
            return has_part.then(|| chare.contributed.get());
        }
        let id = self.constructing.get().filter(|id| id.collection == collection)?;
        Some(self.unborn_contributions(id))
    }

    /// The number of the next reduction that a chare contributes to, if its method or constructor is running.
    pub(crate) fn next_contribution(&self, id: ChareId) -> Option<u64> {
        if let Some(chare) = self.running_as(id) {
            let next = chare.contributed.get();
            return (!chare.has_ended()).then(|| chare.contributed.replace(next + 1));
        }
        (self.constructing.get() == Some(id)).then(|| {
            let mut unborn = self.unborn.borrow_mut();
            let contributed = &mut unborn.entry(id).or_default().contributed;
            *contributed += 1;
            *contributed - 1
        })
    }

    /// Reductions that the constructor of a chare has contributed to, if it has not ended.
    pub(crate) fn unborn_contributions(&self, id: ChareId) -> u64 {
        self.unborn.borrow().get(&id).map_or(0, |unborn| unborn.contributed)
    }

    /// Notes what a chare begins with whose constructor runs next, if that is something.
    pub(crate) fn expect_unborn(&self, id: ChareId, unborn: Unborn) {
        if (unborn.contributed, unborn.covered, unborn.extra.first_epoch) != (0, 0, 0) {
            self.unborn.borrow_mut().insert(id, unborn);
        }
    }

    /// Notes that a broadcast is held for a chare whose constructor has not ended; false if it gets only later ones.
    pub(crate) fn cover_unborn(&self, id: ChareId, number: u64) -> bool {
        let mut unborn = self.unborn.borrow_mut();
        let covered = &mut unborn.entry(id).or_default().covered;
        let is_its = *covered <= number;
        *covered = (*covered).max(number + 1);
        is_its
    }

    pub(crate) fn for_each_unborn_chare(&self, f: impl FnMut(&Unborn)) {
        self.unborn.borrow().values().for_each(f);
    }

    /// Takes what a constructor has made, for its chare or to be given up.
    #[inline]
    pub(crate) fn take_unborn(&self, id: ChareId) -> Option<Unborn> {
        if self.unborn.borrow().is_empty() {
            return None;
        }
        self.unborn.borrow_mut().remove(&id)
    }

    // Names, for reports.

    pub(crate) fn element_name(&self, id: ChareId) -> String {
        match self.directory.get(id.collection) {
            Some(collection) => collection.name_of(self, id.element),
            None => String::new(),
        }
    }

    pub(crate) fn bounds_of(&self, id: CollectionId) -> String {
        self.directory
            .get(id)
            .map_or_else(|| "it is not known here".to_owned(), |collection| collection.info.bounds())
    }

    pub(crate) fn chare_name(&self, id: ChareId) -> String {
        let chare = match self.directory.get(id.collection) {
            Some(collection) => Some(collection.info.chare),
            None => self.find(id).map(ChareRef::info),
        };
        format!("{}{}", chare.map_or("a singleton of another PE", |info| info.name), self.element_name(id))
    }

    // Ends.

    pub(crate) fn note_panic(&self, location: String) {
        *self.panic_location.borrow_mut() = location;
    }

    pub(crate) fn take_panic_location(&self) -> String {
        self.panic_location.take()
    }

    // Stepping.

    /// Does a bounded amount of work, and looks at what has come. False if there was none.
    pub(crate) fn step(&self) -> bool {
        if self.is_profiled() { self.profiled_step() } else { self.any_step::<false>() }
    }

    // Apart, so that it takes no register from the other.
    #[inline(never)]
    fn profiled_step(&self) -> bool {
        self.any_step::<true>()
    }

    #[inline(always)]
    fn any_step<const NOTES: bool>(&self) -> bool {
        let worked = self.work::<NOTES>(WORK_PER_POLL);
        if self.shared.is_stopping() {
            return true;
        }
        if NOTES {
            self.note_runtime();
        }
        let received = self.receive();
        self.check_queue();
        if self.timers.pending_count() > 0 {
            self.timers.fire(self, self.now_ns());
        }
        worked || received || !self.queue.is_empty()
    }

    /// Does so much of what is in the run queue. False if there was nothing.
    #[inline(always)]
    pub(crate) fn work<const NOTES: bool>(&self, limit: usize) -> bool {
        let mut worked = false;
        for _ in 0..limit {
            let Some(work) = self.queue.pop() else { break };
            worked = true;
            if NOTES {
                self.note_work(&work);
            }
            let untold = self.tidings.count();
            match work {
                Work::Msg(msg) => msg.run(self),
                Work::Resume(task) => {
                    self.tasks.prefetch(self.queue.coroutines_ahead());
                    task::resume(self, task);
                }
                Work::Job(collection) => {
                    if let Some(collection) = self.directory.get(collection) {
                        collection.step_job(self);
                    }
                }
            }
            if untold > 0 && untold == self.tidings.count() {
                self.tell_tidings();
            }
            if self.shared.is_stopping() || self.crossing.has_sent.get() && self.is_to_flush() {
                break;
            }
        }
        self.tell_tidings();
        worked
    }

    /// Moves what has come to the run queue. False if nothing has.
    pub(crate) fn receive(&self) -> bool {
        for count in 0..MAIL_PER_POLL {
            let Some(msg) = self.mail.receive() else { return count > 0 };
            let head = msg.into_raw();
            self.pinned.set(head.as_ptr());
            self.traffic.taken.set(self.traffic.taken.get() + 1);
            // SAFETY: just taken apart.
            self.sort_in(unsafe { Msg::from_raw(head) });
        }
        true
    }

    /// Puts a message that has come from another PE into the run queue.
    #[inline(always)]
    pub(crate) fn sort_in(&self, msg: Msg) {
        if msg.is_ranked() { Ranked::arrive(msg, self) } else { self.enqueue(Work::Msg(msg)) }
    }

    pub(crate) fn mail_is_empty(&self) -> bool {
        self.mail.is_empty()
    }

    pub(crate) fn for_each_single(&self, mut f: impl FnMut(ChareRef)) {
        self.singles.borrow().values().for_each(|chare| f(*chare));
    }

    /// Messages that wait for a singleton whose constructor has not ended.
    pub(crate) fn for_each_unborn_of_a_single(&self, f: impl FnMut(&Msg)) {
        self.unborn_singles.borrow().values().flatten().for_each(f);
    }

    /// Messages that wait for a collection that is not known here.
    pub(crate) fn for_each_unborn_of_a_collection(&self, f: impl FnMut(&Msg)) {
        self.unborn_collections.borrow().values().flatten().for_each(f);
    }

    /// Ends the PE, after every PE of the process has stopped stepping: coroutines first, then chares, then messages
    /// and values. What their destructors send is dropped.
    pub(crate) fn dismantle(&self) {
        self.tasks.clear(self);
        let mut chares: Vec<ChareRef> = self.singles.take().into_values().collect();
        // Destructors of messages create nothing any more (`Create::begin`), so the directory stays as it is.
        for collection in self.directory.iter() {
            chares.extend(collection.dismantle(self));
        }
        for chare in chares {
            self.begin_step(chare);
            // SAFETY: no step is running, the coroutines are gone, the tables have been emptied.
            unsafe { chare.free(self) };
            self.end_step();
        }
        self.sweep();
    }

    /// Drops messages and values, and what their destructors send meanwhile.
    fn sweep(&self) {
        for _ in 0..MAX_SWEEPS {
            let work = self.queue.take_all();
            let (singles, collections) = (self.unborn_singles.take(), self.unborn_collections.take());
            let unborn = self.unborn.take();
            let is_clean = work.is_empty()
                && singles.is_empty()
                && collections.is_empty()
                && unborn.is_empty()
                && self.cells.is_clear();
            self.drop_each(work);
            self.drop_each(singles.into_values().chain(collections.into_values()).flatten());
            unborn.into_values().for_each(|unborn| unborn.give_up(self));
            self.cells.clear(self);
            if is_clean {
                return;
            }
        }
        let text =
            "destructors at the end of the run send messages, whose destructors send messages, on and on";
        self.shared.spoil(Reason::Aborted(text.to_owned()));
        // Dropping these would go on.
        std::mem::forget((self.queue.take_all(), self.unborn_singles.take(), self.unborn_collections.take()));
    }

    /// Drops what other PEs have sent since, after all of them have been dismantled.
    pub(crate) fn drain(&self) {
        while let Some(msg) = self.mail.receive() {
            let head = msg.into_raw();
            self.pinned.set(head.as_ptr());
            // SAFETY: just taken apart.
            let msg = unsafe { Msg::from_raw(head) };
            self.guard(|| drop(msg));
        }
        self.sweep();
    }
}
