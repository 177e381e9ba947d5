//! Coroutines: started methods that have not ended, each in one block, known by (slot, generation).
//!
//! Their slots are in `slots`; here is what is in the blocks, and how it is polled and dropped.

use std::alloc::Layout;
use std::cell::Cell;
use std::future::Future;
use std::mem::ManuallyDrop;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::ptr::NonNull;
use std::task::{Context, Poll};

use crate::caught::{self, Caught, PanicPayload};
use crate::cell::{ChareRef, State};
use crate::entry::{EntryInfo, after_step};
use crate::migration::across;
use crate::report::Reason;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::scheduler::slots::Phase;
use crate::scheduler::waker::{self, MAX_TASKS, PollKey};

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

/// The header of a coroutine's block.
pub(super) struct TaskHead {
    table: &'static TaskTable,
    pub(super) chare: Option<ChareRef>,
    pub(super) info: &'static EntryInfo,
    mode: Mode,
    key: Cell<TaskKey>,
    /// Its neighbours in the list of its chare.
    links: Cell<[Option<NonNull<TaskHead>>; 2]>,
}

/// The coroutines of one chare that have not ended, the latest first. They are linked through their heads, so that the
/// list costs no memory of its own and moves with the chare.
///
/// Invariant: a coroutine is in the list of its chare from [`make`] until its future has been dropped.
#[derive(Default)]
pub(crate) struct TaskList(Cell<Option<NonNull<TaskHead>>>);

impl TaskList {
    #[inline]
    fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    fn add(&self, task: NonNull<TaskHead>) {
        let next = self.0.replace(Some(task));
        // SAFETY: both are alive: the one was just made, the other is in the list.
        unsafe {
            task.as_ref().links.set([None, next]);
            if let Some(next) = next {
                let [_, behind] = next.as_ref().links.get();
                next.as_ref().links.set([Some(task), behind]);
            }
        }
    }

    fn remove(&self, task: NonNull<TaskHead>) {
        // SAFETY: the coroutine and its neighbours are in the list, so they are alive.
        unsafe {
            let [before, next] = task.as_ref().links.get();
            match before {
                Some(before) => {
                    let [first, _] = before.as_ref().links.get();
                    before.as_ref().links.set([first, next]);
                }
                None => self.0.set(next),
            }
            if let Some(next) = next {
                let [_, last] = next.as_ref().links.get();
                next.as_ref().links.set([before, last]);
            }
        }
    }

    /// All of them, the oldest first.
    fn oldest_first(&self) -> Vec<NonNull<TaskHead>> {
        // SAFETY: a coroutine in the list is alive.
        let next = |task: &NonNull<TaskHead>| unsafe { task.as_ref().links.get()[1] };
        let mut all: Vec<_> = std::iter::successors(self.0.get(), next).collect();
        all.reverse();
        all
    }
}

impl TaskHead {
    /// The chare, if it holds the coroutine back until another one has ended.
    #[inline(always)]
    fn held_at(&self) -> Option<ChareRef> {
        self.chare.filter(|chare| self.mode == Mode::Interleaving && chare.state.get() == State::Exclusive)
    }
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
        unlist(head);
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
    match open(pe, head, Phase::Running) {
        Some((key, poll_key)) => poll(pe, key, poll_key, head),
        None => refuse(pe, head),
    }
}

/// Gives a coroutine a slot.
#[inline]
fn open(pe: &Pe, head: NonNull<TaskHead>, phase: Phase) -> Option<(TaskKey, PollKey)> {
    let keys = pe.tasks.open(head, phase);
    if let Some((key, _)) = keys {
        // SAFETY: the coroutine is alive.
        unsafe { head.as_ref().key.set(key) };
    }
    keys
}

/// Takes a coroutine out of the list of its chare.
///
/// # Safety
/// It is alive, and in the list if it has a chare.
#[inline]
unsafe fn unlist(head: NonNull<TaskHead>) {
    // SAFETY: the caller's promise.
    if let Some(chare) = unsafe { head.as_ref().chare } {
        chare.tasks.remove(head);
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
    match open(pe, head, Phase::Queued) {
        Some((key, _)) => pe.enqueue(Work::Resume(key)),
        None => refuse(pe, head),
    }
}

/// Takes the coroutines of a chare that leaves out of the tables of this PE. They stay in the chare's list.
///
/// Wakers of theirs that are out lead nowhere from now on. That loses nothing: on the other PE all of them are polled, and
/// so register anew whatever they wait for. The wrappers of combinators are woken here, so that these poll what is inside
/// of them too.
pub(crate) fn detach(pe: &Pe, chare: ChareRef) {
    if chare.tasks.is_empty() {
        return;
    }
    for head in chare.tasks.oldest_first() {
        // SAFETY: a coroutine in the list is alive.
        let key = unsafe { head.as_ref().key.get() };
        for wrapper in pe.tasks.wrappers(key) {
            pe.guard(|| wrapper.wake_by_ref());
            pe.guard(|| drop(wrapper));
        }
        pe.tasks.close(key);
    }
}

/// Takes the coroutines of a chare that has arrived into the tables of this PE, and queues them.
pub(crate) fn attach(pe: &Pe, chare: ChareRef) {
    if chare.tasks.is_empty() {
        return;
    }
    for head in chare.tasks.oldest_first() {
        match open(pe, head, Phase::Queued) {
            Some((key, _)) => pe.enqueue(Work::Resume(key)),
            None => refuse(pe, head),
        }
    }
}

/// Drops the coroutines of a chare that is in no table: it was on its way when the run ended.
///
/// # Safety
/// The chare has been detached.
pub(crate) unsafe fn discard_all(pe: &Pe, chare: ChareRef) {
    for head in chare.tasks.oldest_first() {
        // SAFETY: a coroutine in the list is alive, and nobody polls it any more.
        unsafe { discard(pe, head) };
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
pub(super) unsafe fn discard(pe: &Pe, head: NonNull<TaskHead>) {
    // SAFETY: the caller's promise; the table is that of the body.
    unsafe {
        let table = head.as_ref().table;
        (table.drop)(head, pe);
        unlist(head);
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
    let key = Cell::new(TaskKey { slot: u32::MAX, generation: 0 });
    let head = TaskHead { table, chare, info, mode, key, links: Cell::default() };
    let block = pe.allocate(table.layout).cast::<TaskBody<F, D>>();
    // SAFETY: the block is fresh and has this layout.
    unsafe {
        block.write(TaskBody { head, future: ManuallyDrop::new(future), done: ManuallyDrop::new(done) })
    };
    if let Some(chare) = chare {
        chare.tasks.add(block.cast());
    }
    block.cast()
}

/// Resumes a coroutine whose turn has come; one that has ended is ignored.
pub(crate) fn resume(pe: &Pe, key: TaskKey) {
    let Some(head) = pe.tasks.head(key) else { return };
    // SAFETY: the coroutine is alive: its slot has the generation.
    if let Some(chare) = unsafe { head.as_ref() }.held_at() {
        chare.extra(|extra| extra.held.push_back(Work::Resume(key)));
        return;
    }
    if let Some(poll_key) = pe.tasks.begin_poll(key) {
        poll(pe, key, poll_key, head);
    }
}

/// The method of a coroutine; `None` if it has ended.
pub(crate) fn entry_of(pe: &Pe, key: TaskKey) -> Option<&'static EntryInfo> {
    // SAFETY: the coroutine is alive: its slot has the generation.
    pe.tasks.head(key).map(|head| unsafe { head.as_ref() }.info)
}

/// Whether a chare has coroutines that have not ended.
pub(crate) fn is_any_alive(chare: ChareRef) -> bool {
    !chare.tasks.is_empty()
}

/// Whether a chare has one coroutine that has not ended, and no other.
pub(crate) fn is_one_alive(chare: ChareRef) -> bool {
    // SAFETY: a coroutine in the list is alive.
    chare.tasks.0.get().is_some_and(|task| unsafe { task.as_ref() }.links.get()[1].is_none())
}

/// The method of a coroutine that `resume` would poll; `None` if it has ended or is held.
pub(crate) fn resumable(pe: &Pe, key: TaskKey) -> Option<&'static EntryInfo> {
    let head = pe.tasks.head(key)?;
    // SAFETY: the coroutine is alive: its slot has the generation.
    let head = unsafe { head.as_ref() };
    (head.held_at().is_none() && pe.tasks.is_queued(key)).then_some(head.info)
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
                && chare.extra_if_any(|extra| extra.owner_waits) != Some(true)
            {
                released(pe, chare);
            }
            if let Some(chare) = chare
                && chare.has_extra()
                && chare.tasks.is_empty()
            {
                across::go_on(pe, chare);
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
        chare.run_owed_hooks(pe);
    }
}
