//! Coroutines: started methods that have not ended, each in one block, known by (slot, generation).
//!
//! Phases of a slot: *vacant*; *running* (inside `poll`); *woken* (running, and a wake-up has come already); *parked* (the
//! future waits for a wake-up); *queued* (a wake-up has come, `Resume` is in the run queue or held at the chare). A
//! wake-up of a woken or queued coroutine does nothing. Only the PE's own thread changes a slot.
//!
//! A parked coroutine is *external* if something that the runtime does not know may wake it: then the program neither
//! hangs nor is quiescent. The slot counts the waits that the runtime knows, and the wakers that others hold:
//!
//! * without a known wait, any waker that somebody holds makes it external; if nobody does, nothing can ever wake it;
//! * with a known wait, only wakers of the last poll do: others are left from waits that are over. One may be left from
//!   the last poll itself (the loser of a `select!` may keep it). So before the PE calls itself idle such a coroutine is
//!   polled once more for nothing: what it still waits for registers again, what it does not keeps its old waker;
//! * if a known wait was registered by a combinator's own waker, the wakers of the last poll are the combinator's, and
//!   tell nothing: then only a wait that the user has marked (`Runtime::external`) makes it external.

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use crate::cell::{ChareRef, State};
use crate::entry::{EntryInfo, after_step};
use crate::scheduler::pe::Pe;
use crate::scheduler::prefetch::prefetch;
use crate::scheduler::queue::Work;
use crate::scheduler::waker::{self, MAX_TASKS, PollKey};

/// What a caught panic carries.
pub(crate) type PanicPayload = Box<dyn std::any::Any + Send>;

/// Cache lines of a coroutine that are asked for ahead of its turn: as many as one of a few hundred bytes has.
const PREFETCHED_LINES: usize = 6;

/// A coroutine of a PE.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub(crate) struct TaskKey {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

/// How a coroutine shares its chare.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// It owns the chare until it ends.
    Exclusive,
    /// Others run while it waits.
    Interleaving,
}

struct TaskHead {
    table: &'static TaskTable,
    chare: Option<ChareRef>,
    info: &'static EntryInfo,
    mode: Mode,
}

struct TaskTable {
    layout: Layout,
    /// Polls; when ready, drops the future, frees the block and hands the outcome on.
    poll: unsafe fn(NonNull<TaskHead>, &Pe, TaskKey, &mut Context<'_>) -> Poll<()>,
    drop: unsafe fn(NonNull<TaskHead>),
}

#[repr(C)]
struct TaskBody<F: Future, D> {
    head: TaskHead,
    future: ManuallyDrop<F>,
    done: ManuallyDrop<D>,
}

struct TableOf<F, D>(std::marker::PhantomData<(F, D)>);

impl<F, D> TableOf<F, D>
where
    F: Future + 'static,
    D: FnOnce(&Pe, Result<F::Output, PanicPayload>) + 'static,
{
    const TABLE: TaskTable = TaskTable {
        layout: Layout::new::<TaskBody<F, D>>(),
        poll: poll_body::<F, D>,
        drop: drop_body::<F, D>,
    };
}

/// # Safety
/// `head` is the live body of a parked coroutine of this type, on its PE.
unsafe fn poll_body<F, D>(
    head: NonNull<TaskHead>,
    pe: &Pe,
    key: TaskKey,
    context: &mut Context<'_>,
) -> Poll<()>
where
    F: Future + 'static,
    D: FnOnce(&Pe, Result<F::Output, PanicPayload>) + 'static,
{
    let body = head.cast::<TaskBody<F, D>>().as_ptr();
    // SAFETY: the future stays in its block from its first poll until it is dropped there.
    let future = unsafe { Pin::new_unchecked(&mut *(*body).future) };
    let outcome = match catch_unwind(AssertUnwindSafe(|| future.poll(context))) {
        Ok(Poll::Pending) => return Poll::Pending,
        Ok(Poll::Ready(outcome)) => Ok(outcome),
        Err(panic) => Err(panic),
    };
    // SAFETY: the coroutine has ended: its future is dropped once, in place and while its chare is current; its
    // continuation is moved out; then nothing in the block is alive.
    unsafe {
        drop_future(&raw mut (*body).future);
        let done = ManuallyDrop::take(&mut (*body).done);
        pe.free(head.cast(), Layout::new::<TaskBody<F, D>>());
        pe.tasks.close(key);
        done(pe, outcome);
    }
    Poll::Ready(())
}

/// Drops a future in place. A panic in its drop is caught and swallowed: the outcome is known already.
///
/// # Safety
/// The future is alive, and is not used afterwards.
unsafe fn drop_future<F>(future: *mut ManuallyDrop<F>) {
    // SAFETY: the caller's promise.
    drop(catch_unwind(AssertUnwindSafe(|| unsafe { ManuallyDrop::drop(&mut *future) })));
}

/// # Safety
/// `head` is the live body of a parked coroutine of this type; it is not used afterwards.
unsafe fn drop_body<F: Future, D>(head: NonNull<TaskHead>) {
    let body = head.cast::<TaskBody<F, D>>().as_ptr();
    // SAFETY: both parts are alive and dropped once.
    unsafe {
        drop_future(&raw mut (*body).future);
        drop_future(&raw mut (*body).done);
    }
}

/// Starts a coroutine and polls it for the first time. `done` gets its outcome, after the future has been dropped.
pub(crate) fn start<F, D>(
    pe: &Pe,
    chare: Option<ChareRef>,
    info: &'static EntryInfo,
    mode: Mode,
    future: F,
    done: D,
) where
    F: Future + Send + 'static,
    D: FnOnce(&Pe, Result<F::Output, PanicPayload>) + 'static,
{
    let head = make(pe, chare, info, mode, future, done);
    let (key, poll_key) = pe.tasks.open(head, Phase::Running);
    poll(pe, key, poll_key, head);
}

/// Starts a coroutine of the runtime itself, from inside of another's step: it is polled in its turn.
pub(crate) fn start_later<F, D>(pe: &Pe, info: &'static EntryInfo, future: F, done: D)
where
    F: Future + Send + 'static,
    D: FnOnce(&Pe, Result<F::Output, PanicPayload>) + 'static,
{
    let head = make(pe, None, info, Mode::Interleaving, future, done);
    let (key, _) = pe.tasks.open(head, Phase::Queued);
    pe.enqueue(Work::Resume(key));
}

fn make<F, D>(
    pe: &Pe,
    chare: Option<ChareRef>,
    info: &'static EntryInfo,
    mode: Mode,
    future: F,
    done: D,
) -> NonNull<TaskHead>
where
    F: Future + Send + 'static,
    D: FnOnce(&Pe, Result<F::Output, PanicPayload>) + 'static,
{
    let table = &TableOf::<F, D>::TABLE;
    let head = TaskHead { table, chare, info, mode };
    let block = pe.allocate(table.layout).cast::<TaskBody<F, D>>();
    // SAFETY: the block is fresh and has this layout.
    unsafe {
        block.write(TaskBody { head, future: ManuallyDrop::new(future), done: ManuallyDrop::new(done) })
    };
    block.cast()
}

/// Resumes a coroutine whose turn has come; one that has ended is ignored.
pub(crate) fn resume(pe: &Pe, key: TaskKey) {
    let Some(head) = pe.tasks.head(key) else { return };
    // SAFETY: the coroutine is alive: its slot has the generation.
    let (chare, mode) = unsafe { (head.as_ref().chare, head.as_ref().mode) };
    if let Some(chare) = chare
        && mode == Mode::Interleaving
        && chare.state.get() == State::Exclusive
    {
        chare.extra(|extra| extra.held.push_back(Work::Resume(key)));
        return;
    }
    if let Some(poll_key) = pe.tasks.begin_poll(key) {
        poll(pe, key, poll_key, head);
    }
}

fn poll(pe: &Pe, key: TaskKey, poll_key: PollKey, head: NonNull<TaskHead>) {
    // SAFETY: the coroutine is alive.
    let (table, chare, mode) = unsafe { (head.as_ref().table, head.as_ref().chare, head.as_ref().mode) };
    pe.begin_task(chare, key);
    // SAFETY: the table is that of the body, and the coroutine is not being polled: only its turn leads here.
    let polled = waker::with_context(pe, poll_key, |context| unsafe { (table.poll)(head, pe, key, context) });
    pe.end_step();
    match polled {
        Poll::Pending => pe.tasks.end_poll(key),
        Poll::Ready(()) => {
            if let Some(chare) = chare
                && mode == Mode::Exclusive
            {
                released(pe, chare);
            }
        }
    }
    if let Some(chare) = chare {
        after_step(pe, chare);
    }
}

/// An exclusive coroutine has ended: what was held goes on, in order of arrival.
fn released(pe: &Pe, chare: ChareRef) {
    if chare.state.get() == State::Exclusive {
        chare.state.set(State::Idle);
    }
    chare.dirty.set(true);
    if let Some(held) = chare.extra_if_any(|extra| std::mem::take(&mut extra.held)) {
        pe.enqueue_first(held);
    }
}

/// Where a coroutine is between its polls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Phase {
    /// Inside `poll`.
    Running,
    /// Inside `poll`, and queued for another.
    Woken,
    /// Waits for a wake-up.
    Parked,
    /// Queued for a poll.
    Queued,
}

struct Slot {
    generation: u32,
    next_free: u32,
    head: Option<NonNull<TaskHead>>,
    phase: Phase,
    /// Counted in `external_count`.
    external: bool,
    /// Its last poll was for nothing, to see which waits are left.
    checked: bool,
    /// Polls so far.
    poll: u32,
    /// Waits that the runtime knows and that were registered by our own waker.
    direct_waits: u32,
    /// Those registered by a waker that somebody put around ours.
    wrapped_waits: u32,
    /// Waits that the user has marked as external.
    marked_waits: u32,
    /// Wakers that others hold, of any poll.
    wakers: u32,
    /// Those of the last poll.
    fresh_wakers: u32,
}

impl Slot {
    /// Whether another poll may show that nothing of the outside is awaited any more.
    fn is_unsure(&self) -> bool {
        self.external && !self.checked && self.marked_waits == 0 && self.direct_waits > 0
    }

    fn may_be_woken_from_outside(&self) -> bool {
        if self.marked_waits > 0 {
            return true;
        }
        match (self.direct_waits, self.wrapped_waits) {
            (0, 0) => self.wakers > 0,
            (_, 0) => self.fresh_wakers > 0,
            _ => false,
        }
    }
}

/// The coroutines of one PE.
pub(crate) struct Tasks {
    slab: RefCell<Slab>,
    /// Parked coroutines that wait on something the runtime does not know.
    external_count: Cell<usize>,
    /// Coroutines that were external and unsure when they were last polled.
    unsure: RefCell<Vec<TaskKey>>,
}

struct Slab {
    slots: Vec<Slot>,
    free: u32,
}

const NONE: u32 = u32::MAX;

impl Slab {
    fn get(&mut self, key: TaskKey) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (slot.generation == key.generation && slot.head.is_some()).then_some(slot)
    }

    fn get_by_waker(&mut self, key: PollKey) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        (key.is_of_generation(slot.generation) && slot.head.is_some()).then_some(slot)
    }
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Tasks {
            slab: RefCell::new(Slab { slots: Vec::new(), free: NONE }),
            external_count: Cell::new(0),
            unsure: RefCell::default(),
        }
    }

    /// Takes a slot for a coroutine: `Running` if it is polled next, or `Queued`.
    fn open(&self, head: NonNull<TaskHead>, phase: Phase) -> (TaskKey, PollKey) {
        let mut slab = self.slab.borrow_mut();
        let mut slot = Slot {
            generation: 0,
            next_free: NONE,
            head: Some(head),
            phase,
            external: false,
            checked: false,
            poll: 0,
            direct_waits: 0,
            wrapped_waits: 0,
            marked_waits: 0,
            wakers: 0,
            fresh_wakers: 0,
        };
        let mut index = slab.free;
        if let Some(place) = slab.slots.get_mut(index as usize) {
            slot.generation = place.generation;
            let next_free = place.next_free;
            *place = slot;
            slab.free = next_free;
        } else {
            assert!(slab.slots.len() < MAX_TASKS, "a PE has at most 2^24 coroutines at a time");
            index = slab.slots.len() as u32;
            slab.slots.push(slot);
        }
        let generation = slab.slots[index as usize].generation;
        (TaskKey { slot: index, generation }, PollKey::new(index, generation, 0))
    }

    fn close(&self, key: TaskKey) {
        let mut slab = self.slab.borrow_mut();
        let free = slab.free;
        let Some(slot) = slab.get(key) else { return };
        slot.head = None;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next_free = free;
        if slot.external {
            self.external_count.set(self.external_count.get() - 1);
        }
        slab.free = key.slot;
    }

    fn head(&self, key: TaskKey) -> Option<NonNull<TaskHead>> {
        self.slab.borrow_mut().get(key)?.head
    }

    /// Asks for the memory of the coroutines whose turns come next: of the first one's chare, whose address is in the
    /// block that was asked for a turn ago, and of the second one's block.
    #[inline(always)]
    pub(crate) fn prefetch(&self, [first, second]: [Option<TaskKey>; 2]) {
        let mut slab = self.slab.borrow_mut();
        let mut head_of = |key: Option<TaskKey>| slab.get(key?)?.head;
        if let Some(head) = head_of(first) {
            // SAFETY: the coroutine is alive: its slot has the generation.
            if let Some(chare) = unsafe { head.as_ref().chare } {
                chare.prefetch();
            }
        }
        if let Some(head) = head_of(second) {
            prefetch(head, PREFETCHED_LINES);
        }
    }

    /// A queued coroutine is about to be polled. `None` if it is not queued.
    fn begin_poll(&self, key: TaskKey) -> Option<PollKey> {
        let mut slab = self.slab.borrow_mut();
        let slot = slab.get(key).filter(|slot| slot.phase == Phase::Queued)?;
        slot.phase = Phase::Running;
        slot.poll = slot.poll.wrapping_add(1);
        slot.fresh_wakers = 0;
        Some(PollKey::new(key.slot, key.generation, slot.poll))
    }

    /// Notes that a coroutine has returned `Pending`.
    fn end_poll(&self, key: TaskKey) {
        let mut slab = self.slab.borrow_mut();
        let Some(slot) = slab.get(key) else { return };
        slot.phase = if slot.phase == Phase::Woken { Phase::Queued } else { Phase::Parked };
        self.judge(slot);
        if slot.is_unsure() {
            self.unsure.borrow_mut().push(key);
        }
    }

    /// Queues the coroutines that another poll may show not to be external. False if there is none.
    pub(crate) fn check_unsure(&self, pe: &Pe) -> bool {
        let mut queued = false;
        for key in self.unsure.take() {
            let mut slab = self.slab.borrow_mut();
            let Some(slot) = slab.get(key).filter(|slot| slot.is_unsure()) else { continue };
            slot.phase = Phase::Queued;
            slot.checked = true;
            self.judge(slot);
            drop(slab);
            pe.enqueue(Work::Resume(key));
            queued = true;
        }
        queued
    }

    /// Says again whether the coroutine is external, after what decides that has changed.
    #[inline]
    fn judge(&self, slot: &mut Slot) {
        let external = slot.phase == Phase::Parked && slot.may_be_woken_from_outside();
        if external != slot.external {
            slot.external = external;
            let count = self.external_count.get();
            self.external_count.set(if external { count + 1 } else { count - 1 });
        }
    }

    /// A wait that the runtime knows is registered: directly, or by a waker around ours.
    #[inline]
    pub(crate) fn count_wait(&self, key: TaskKey, direct: bool) {
        if let Some(slot) = self.slab.borrow_mut().get(key) {
            let waits = if direct { &mut slot.direct_waits } else { &mut slot.wrapped_waits };
            *waits += 1;
            self.judge(slot);
        }
    }

    /// A wait that was counted has ended.
    #[inline]
    pub(crate) fn end_wait(&self, key: TaskKey, direct: bool) {
        if let Some(slot) = self.slab.borrow_mut().get(key) {
            let waits = if direct { &mut slot.direct_waits } else { &mut slot.wrapped_waits };
            *waits -= 1;
            self.judge(slot);
        }
    }

    /// A wait that the user has marked as external begins.
    pub(crate) fn mark(&self, key: TaskKey) {
        if let Some(slot) = self.slab.borrow_mut().get(key) {
            slot.marked_waits += 1;
            self.judge(slot);
        }
    }

    /// A marked wait has ended.
    pub(crate) fn unmark(&self, key: TaskKey) {
        if let Some(slot) = self.slab.borrow_mut().get(key) {
            slot.marked_waits -= 1;
            self.judge(slot);
        }
    }

    /// Others hold a waker more or less. Saturating: a waker of an older coroutine whose generation looks the same may
    /// count here.
    pub(crate) fn count_outside(&self, key: PollKey, change: i32) {
        if let Some(slot) = self.slab.borrow_mut().get_by_waker(key) {
            slot.wakers = slot.wakers.saturating_add_signed(change);
            if key.is_of_poll(slot.poll) {
                slot.fresh_wakers = slot.fresh_wakers.saturating_add_signed(change);
            }
            self.judge(slot);
        }
    }

    /// Wakes a coroutine: queues it unless it is queued already or has ended.
    #[inline]
    pub(crate) fn wake(&self, pe: &Pe, key: PollKey) {
        let mut slab = self.slab.borrow_mut();
        let Some(slot) = slab.get_by_waker(key) else { return };
        slot.checked = false;
        slot.phase = match slot.phase {
            Phase::Running => Phase::Woken,
            Phase::Parked => Phase::Queued,
            Phase::Woken | Phase::Queued => return,
        };
        self.judge(slot);
        let task = TaskKey { slot: key.slot, generation: slot.generation };
        drop(slab);
        pe.enqueue(Work::Resume(task));
    }

    pub(crate) fn external_count(&self) -> usize {
        self.external_count.get()
    }

    /// Every live coroutine: its key, its phase, its method, its chare.
    pub(crate) fn for_each(&self, mut f: impl FnMut(TaskKey, Phase, &'static EntryInfo, Option<ChareRef>)) {
        for (index, slot) in self.slab.borrow().slots.iter().enumerate() {
            if let Some(head) = slot.head {
                let key = TaskKey { slot: index as u32, generation: slot.generation };
                // SAFETY: the slot holds a live coroutine.
                let (info, chare) = unsafe { (head.as_ref().info, head.as_ref().chare) };
                f(key, slot.phase, info, chare);
            }
        }
    }

    /// Drops all coroutines, at the end of the PE, before their chares.
    pub(crate) fn clear(&self, pe: &Pe) {
        // What the destructors send is not run, so no coroutine begins meanwhile: one pass meets all.
        for index in 0.. {
            let next = {
                let slab = self.slab.borrow();
                let Some(slot) = slab.slots.get(index) else { return };
                slot.head.map(|head| (TaskKey { slot: index as u32, generation: slot.generation }, head))
            };
            let Some((key, head)) = next else { continue };
            self.close(key);
            // SAFETY: the coroutine was alive; its slot is closed, so nobody finds it any more.
            unsafe {
                let (table, chare) = (head.as_ref().table, head.as_ref().chare);
                pe.begin_task(chare, key);
                (table.drop)(head);
                pe.end_step();
                pe.free(head.cast(), table.layout);
            }
        }
    }
}
