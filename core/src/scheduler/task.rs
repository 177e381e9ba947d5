//! Coroutines: started methods that have not ended, each in one block, known by (slot, generation).
//!
//! States of a slot: *vacant*; *parked* (the future waits for a wake-up); *queued* (a wake-up has come, `Resume` is in the
//! run queue or held at the chare); *running* (inside `poll`). A wake-up of a queued coroutine does nothing; one that
//! comes while it runs queues it again. Only the PE's own thread changes a slot.

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
use crate::scheduler::queue::Work;
use crate::scheduler::waker::{self, GENERATION_MASK, MAX_TASKS};

/// What a caught panic carries.
pub(crate) type PanicPayload = Box<dyn std::any::Any + Send>;

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
    let table = &TableOf::<F, D>::TABLE;
    let head = TaskHead { table, chare, info, mode };
    let block = pe.allocate(table.layout).cast::<TaskBody<F, D>>();
    // SAFETY: the block is fresh and has this layout.
    unsafe {
        block.write(TaskBody { head, future: ManuallyDrop::new(future), done: ManuallyDrop::new(done) })
    };
    let key = pe.tasks.open(block.cast());
    poll(pe, key, block.cast());
}

/// Resumes a coroutine whose turn has come; one that has ended is ignored.
pub(crate) fn resume(pe: &Pe, key: TaskKey) {
    let Some(head) = pe.tasks.take_queued(key) else { return };
    // SAFETY: the coroutine is alive: its slot has the generation.
    let (chare, mode) = unsafe { (head.as_ref().chare, head.as_ref().mode) };
    if let Some(chare) = chare
        && mode == Mode::Interleaving
        && chare.state.get() == State::Exclusive
    {
        let _ = pe.tasks.mark_queued(key);
        chare.extra(|extra| extra.held.push_back(Work::Resume(key)));
        return;
    }
    poll(pe, key, head);
}

fn poll(pe: &Pe, key: TaskKey, head: NonNull<TaskHead>) {
    // SAFETY: the coroutine is alive.
    let (table, chare, mode) = unsafe { (head.as_ref().table, head.as_ref().chare, head.as_ref().mode) };
    let waker = ManuallyDrop::new(waker::waker(pe.shared().number(), pe.id(), key));
    pe.begin_task(chare, key);
    // SAFETY: the table is that of the body, and the coroutine is parked: nobody else polls it.
    let polled = unsafe { (table.poll)(head, pe, key, &mut Context::from_waker(&waker)) };
    pe.end_step();
    match polled {
        Poll::Pending => pe.tasks.parked(key),
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

struct Slot {
    generation: u32,
    head: Option<NonNull<TaskHead>>,
    next_free: u32,
    queued: bool,
    external: bool,
    /// Waits that the runtime knows.
    waits: u32,
}

/// The coroutines of one PE.
pub(crate) struct Tasks {
    slab: RefCell<Slab>,
    /// Parked coroutines that wait on something the runtime does not know.
    external_count: Cell<usize>,
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
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Tasks { slab: RefCell::new(Slab { slots: Vec::new(), free: NONE }), external_count: Cell::new(0) }
    }

    fn open(&self, head: NonNull<TaskHead>) -> TaskKey {
        let mut slab = self.slab.borrow_mut();
        let index = slab.free;
        if let Some(slot) = slab.slots.get_mut(index as usize) {
            slot.head = Some(head);
            let key = TaskKey { slot: index, generation: slot.generation };
            slab.free = slot.next_free;
            return key;
        }
        let index = slab.slots.len();
        assert!(index < MAX_TASKS, "a PE has at most 2^24 coroutines at a time");
        slab.slots.push(Slot {
            generation: 0,
            head: Some(head),
            next_free: NONE,
            queued: false,
            external: false,
            waits: 0,
        });
        TaskKey { slot: index as u32, generation: 0 }
    }

    fn close(&self, key: TaskKey) {
        let mut slab = self.slab.borrow_mut();
        let free = slab.free;
        let Some(slot) = slab.get(key) else { return };
        slot.head = None;
        slot.generation = (slot.generation + 1) & GENERATION_MASK;
        slot.next_free = free;
        slot.queued = false;
        slot.waits = 0;
        if std::mem::take(&mut slot.external) {
            self.external_count.set(self.external_count.get() - 1);
        }
        slab.free = key.slot;
    }

    /// Marks a coroutine as queued. True if it was not, so that the caller must queue it.
    #[must_use]
    fn mark_queued(&self, key: TaskKey) -> bool {
        let mut slab = self.slab.borrow_mut();
        let Some(slot) = slab.get(key) else { return false };
        if std::mem::take(&mut slot.external) {
            self.external_count.set(self.external_count.get() - 1);
        }
        !std::mem::replace(&mut slot.queued, true)
    }

    fn take_queued(&self, key: TaskKey) -> Option<NonNull<TaskHead>> {
        let mut slab = self.slab.borrow_mut();
        let slot = slab.get(key)?;
        slot.queued = false;
        slot.head
    }

    /// Notes that a coroutine has returned `Pending`.
    fn parked(&self, key: TaskKey) {
        let mut slab = self.slab.borrow_mut();
        let Some(slot) = slab.get(key) else { return };
        if slot.waits == 0 && !slot.queued {
            slot.external = true;
            self.external_count.set(self.external_count.get() + 1);
        }
    }

    /// A wait of this coroutine is registered.
    pub(crate) fn count_wait(&self, key: TaskKey) {
        if let Some(slot) = self.slab.borrow_mut().get(key) {
            slot.waits += 1;
        }
    }

    /// A wait of this coroutine has ended.
    pub(crate) fn end_wait(&self, key: TaskKey) {
        if let Some(slot) = self.slab.borrow_mut().get(key) {
            slot.waits = slot.waits.saturating_sub(1);
        }
    }

    /// Wakes a coroutine: queues it unless it is queued already or has ended.
    #[inline]
    pub(crate) fn wake(&self, pe: &Pe, key: TaskKey) {
        if self.mark_queued(key) {
            pe.enqueue(Work::Resume(key));
        }
    }

    pub(crate) fn external_count(&self) -> usize {
        self.external_count.get()
    }

    /// Every live coroutine: its key, its method, its chare.
    pub(crate) fn for_each(&self, mut f: impl FnMut(TaskKey, &'static EntryInfo, Option<ChareRef>)) {
        for (index, slot) in self.slab.borrow().slots.iter().enumerate() {
            if let Some(head) = slot.head {
                let key = TaskKey { slot: index as u32, generation: slot.generation };
                // SAFETY: the slot holds a live coroutine.
                let (info, chare) = unsafe { (head.as_ref().info, head.as_ref().chare) };
                f(key, info, chare);
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
