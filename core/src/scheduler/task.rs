//! Coroutines: started methods that have not ended, each in one block, known by (slot, generation).
//!
//! Phases of a slot: *vacant*; *running* (inside `poll`); *woken* (running, and a wake-up has come already); *parked* (the
//! future waits for a wake-up); *queued* (a wake-up has come, `Resume` is in the run queue or held at the chare). A
//! wake-up of a woken or queued coroutine does nothing. Only the PE's own thread changes a slot.
//!
//! A parked coroutine that something outside of the runtime may wake is *external* (`interest`).

use std::alloc::Layout;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use rustc_hash::FxHashMap;

use crate::caught::{self, Caught, PanicPayload};
use crate::cell::{ChareRef, State};
use crate::entry::{EntryInfo, after_step};
use crate::report::Reason;
use crate::scheduler::interest::{Interest, Judgement};
use crate::scheduler::pe::Pe;
use crate::scheduler::prefetch::prefetch;
use crate::scheduler::queue::Work;
use crate::scheduler::waker::{self, MAX_TASKS, PollKey, Wakeup};

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
    drop: unsafe fn(NonNull<TaskHead>, &Pe),
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
        let dropped = drop_part(&raw mut (*body).future);
        let done = ManuallyDrop::take(&mut (*body).done);
        pe.free(head.cast(), Layout::new::<TaskBody<F, D>>());
        pe.tasks.close(key);
        match dropped {
            Ok(()) => done(pe, outcome),
            Err(late) => done(pe, panicked_late(pe, outcome, late)),
        }
    }
    Poll::Ready(())
}

/// Drops a part of a coroutine in place, and catches its panic.
///
/// # Safety
/// The part is alive, and is not used afterwards.
unsafe fn drop_part<P>(part: *mut ManuallyDrop<P>) -> Result<(), PanicPayload> {
    // SAFETY: the caller's promise.
    catch_unwind(AssertUnwindSafe(|| unsafe { ManuallyDrop::drop(&mut *part) }))
}

/// A coroutine that panics when it is dropped at its end has panicked, unless it had before.
#[cold]
fn panicked_late<R>(
    pe: &Pe,
    outcome: Result<R, PanicPayload>,
    late: PanicPayload,
) -> Result<R, PanicPayload> {
    match outcome {
        Ok(value) => {
            pe.guard(|| drop(value));
            Err(late)
        }
        Err(first) => {
            caught::dispose(late);
            Err(first)
        }
    }
}

/// # Safety
/// `head` is the live body of a parked coroutine of this type; it is not used afterwards.
unsafe fn drop_body<F: Future, D>(head: NonNull<TaskHead>, pe: &Pe) {
    let body = head.cast::<TaskBody<F, D>>().as_ptr();
    let tell = |dropped: Result<(), PanicPayload>| {
        if let Err(panic) = dropped {
            pe.tell(&Caught::new(pe, panic));
        }
    };
    // SAFETY: both parts are alive and dropped once.
    unsafe {
        tell(drop_part(&raw mut (*body).future));
        tell(drop_part(&raw mut (*body).done));
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
    match pe.tasks.open(head, Phase::Running) {
        Some((key, poll_key)) => poll(pe, key, poll_key, head),
        None => refuse(pe, head),
    }
}

/// Starts a coroutine of the runtime itself, from inside of another's step: it is polled in its turn. At the end of a run
/// it is dropped instead, since nothing has its turn any more.
pub(crate) fn start_later<F, D>(pe: &Pe, info: &'static EntryInfo, future: F, done: D)
where
    F: Future + Send + 'static,
    D: FnOnce(&Pe, Result<F::Output, PanicPayload>) + 'static,
{
    if pe.shared().is_stopping() {
        return;
    }
    let head = make(pe, None, info, Mode::Interleaving, future, done);
    match pe.tasks.open(head, Phase::Queued) {
        Some((key, _)) => pe.enqueue(Work::Resume(key)),
        None => refuse(pe, head),
    }
}

/// There is no place for a coroutine that was just made: the run ends.
#[cold]
fn refuse(pe: &Pe, head: NonNull<TaskHead>) {
    let text = format!(
        "PE {} has {MAX_TASKS} coroutines that have not ended, and there can be no more: await some before starting others",
        pe.id()
    );
    pe.shared().stop(Reason::Aborted(text));
    // SAFETY: the coroutine was just made, and nobody knows it.
    unsafe { discard(pe, head) }
}

/// Drops a coroutine that has not ended.
///
/// # Safety
/// It is alive, not being polled, and not used afterwards.
unsafe fn discard(pe: &Pe, head: NonNull<TaskHead>) {
    // SAFETY: the caller's promise; the table is that of the body.
    unsafe {
        let table = head.as_ref().table;
        (table.drop)(head, pe);
        pe.free(head.cast(), table.layout);
    }
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
    is_external: bool,
    /// In `doubtful`.
    is_listed: bool,
    /// Polls so far.
    poll: u32,
    interest: Interest,
}

/// The coroutines of one PE.
pub(crate) struct Tasks {
    slab: RefCell<Slab>,
    /// Parked coroutines that wait on something the runtime does not know.
    external_count: Cell<usize>,
    /// Parked coroutines of which it is in doubt whether they are; some have been woken since, or have ended.
    doubtful: RefCell<Vec<TaskKey>>,
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
            doubtful: RefCell::default(),
        }
    }

    /// Takes a slot for a coroutine: `Running` if it is polled next, or `Queued`. `None` if there are too many.
    fn open(&self, head: NonNull<TaskHead>, phase: Phase) -> Option<(TaskKey, PollKey)> {
        let mut slab = self.slab.borrow_mut();
        let mut slot = Slot {
            generation: 0,
            next_free: NONE,
            head: Some(head),
            phase,
            is_external: false,
            is_listed: false,
            poll: 0,
            interest: Interest::default(),
        };
        let mut index = slab.free;
        if let Some(place) = slab.slots.get_mut(index as usize) {
            slot.generation = place.generation;
            let next_free = place.next_free;
            *place = slot;
            slab.free = next_free;
        } else {
            if slab.slots.len() >= MAX_TASKS {
                return None;
            }
            index = slab.slots.len() as u32;
            slab.slots.push(slot);
        }
        let generation = slab.slots[index as usize].generation;
        Some((TaskKey { slot: index, generation }, PollKey::new(index, generation, 0)))
    }

    fn close(&self, key: TaskKey) {
        let mut slab = self.slab.borrow_mut();
        let free = slab.free;
        let Some(slot) = slab.get(key) else { return };
        slot.head = None;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next_free = free;
        let interest = std::mem::take(&mut slot.interest);
        if slot.is_external {
            self.external_count.set(self.external_count.get() - 1);
        }
        slab.free = key.slot;
        drop(slab);
        drop(interest);
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
        slot.interest.begin_poll();
        Some(PollKey::new(key.slot, key.generation, slot.poll))
    }

    /// Notes that a coroutine has returned `Pending`.
    fn end_poll(&self, key: TaskKey) {
        self.with(key, |slot| {
            slot.phase = if slot.phase == Phase::Woken { Phase::Queued } else { Phase::Parked };
        });
    }

    /// Changes what is known of a coroutine, if it lives, and says again whether it is external.
    #[inline]
    fn with<R>(&self, key: TaskKey, change: impl FnOnce(&mut Slot) -> R) -> Option<R> {
        let mut slab = self.slab.borrow_mut();
        let slot_count = slab.slots.len();
        let slot = slab.get(key)?;
        let changed = change(slot);
        self.judge(key, slot, slot_count);
        Some(changed)
    }

    #[inline]
    fn judge(&self, key: TaskKey, slot: &mut Slot, slot_count: usize) {
        let judgement = if slot.phase == Phase::Parked { slot.interest.judge() } else { Judgement::Known };
        let is_external = judgement != Judgement::Known;
        if is_external != slot.is_external {
            slot.is_external = is_external;
            let count = self.external_count.get();
            self.external_count.set(if is_external { count + 1 } else { count - 1 });
        }
        if is_external && judgement != Judgement::External && !slot.is_listed {
            slot.is_listed = true;
            self.list(key, slot_count);
        }
    }

    /// Lists a coroutine as doubtful. Each life of a slot is listed once, so most of a list that has grown longer than
    /// the table is of coroutines that have ended.
    #[cold]
    fn list(&self, key: TaskKey, slot_count: usize) {
        let mut doubtful = self.doubtful.borrow_mut();
        doubtful.push(key);
        if doubtful.len() > 2 * slot_count {
            let last = FxHashMap::from_iter(doubtful.drain(..).map(|key| (key.slot, key)));
            doubtful.extend(last.into_values());
        }
    }

    /// Does what is needed to know whether the doubtful coroutines are external. Called before the PE calls itself idle;
    /// true if that has given it something to do.
    pub(crate) fn settle_doubts(&self, pe: &Pe) -> bool {
        let mut is_busy = false;
        for key in self.doubtful.take() {
            let judgement = self.with(key, |slot| {
                slot.is_listed = false;
                if slot.phase == Phase::Parked { slot.interest.judge() } else { Judgement::Known }
            });
            match judgement {
                Some(Judgement::Poll) => {
                    let _ = self.with(key, |slot| {
                        slot.phase = Phase::Queued;
                        slot.interest.begin_check();
                    });
                    pe.enqueue(Work::Resume(key));
                }
                Some(Judgement::Probe) => {
                    let wrappers = self.with(key, |slot| slot.interest.begin_probe());
                    for wrapper in wrappers.into_iter().flatten() {
                        wrapper.wake_by_ref();
                    }
                    let _ = self.with(key, |slot| slot.interest.end_probe());
                }
                _ => continue,
            }
            is_busy = true;
        }
        is_busy
    }

    /// A wait that the runtime knows is registered.
    #[inline]
    pub(crate) fn begin_wait(&self, key: TaskKey, wakeup: &Wakeup) {
        let _ = self.with(key, |slot| slot.interest.begin_wait(wakeup));
    }

    /// A wait that was registered has ended.
    #[inline]
    pub(crate) fn end_wait(&self, key: TaskKey, wakeup: &Wakeup) {
        let wrapper = self.with(key, |slot| slot.interest.end_wait(wakeup));
        drop(wrapper);
    }

    /// A wait that the user has marked as external begins.
    pub(crate) fn mark(&self, key: TaskKey) {
        let _ = self.with(key, |slot| slot.interest.mark());
    }

    /// A marked wait has ended.
    pub(crate) fn unmark(&self, key: TaskKey) {
        let _ = self.with(key, |slot| slot.interest.unmark());
    }

    /// Others hold a waker more.
    pub(crate) fn waker_cloned(&self, key: PollKey) {
        if let Some(task) = self.task_of(key) {
            let _ = self.with(task, |slot| slot.interest.waker_cloned(key.is_of_poll(slot.poll)));
        }
    }

    /// Others hold a waker less.
    pub(crate) fn waker_dropped(&self, key: PollKey) {
        if let Some(task) = self.task_of(key) {
            let _ = self.with(task, |slot| {
                slot.interest.waker_dropped(key.is_of_poll(slot.poll), slot.phase == Phase::Parked);
            });
        }
    }

    fn task_of(&self, key: PollKey) -> Option<TaskKey> {
        let generation = self.slab.borrow_mut().get_by_waker(key)?.generation;
        Some(TaskKey { slot: key.slot, generation })
    }

    /// Wakes a coroutine: queues it unless it is queued already or has ended. `is_kept`: the waker is still held.
    #[inline]
    pub(crate) fn wake(&self, pe: &Pe, key: PollKey, is_kept: bool) {
        let mut slab = self.slab.borrow_mut();
        let slot_count = slab.slots.len();
        let Some(slot) = slab.get_by_waker(key) else { return };
        slot.interest.woken(is_kept && key.is_of_poll(slot.poll), slot.phase == Phase::Running);
        slot.phase = match slot.phase {
            Phase::Running => Phase::Woken,
            Phase::Parked => Phase::Queued,
            Phase::Woken | Phase::Queued => return,
        };
        let task = TaskKey { slot: key.slot, generation: slot.generation };
        self.judge(task, slot, slot_count);
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
        // What the destructors send is not run, and `start_later` starts nothing: one pass meets all.
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
                pe.begin_task(head.as_ref().chare, key);
                discard(pe, head);
                pe.end_step();
            }
        }
    }
}
