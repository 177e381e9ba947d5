//! The slots of a PE's coroutines: which are alive, and where each is between its polls.
//!
//! Phases of a slot: *vacant*; *running* (inside `poll`); *woken* (running, and a wake-up has come already); *parked* (the
//! future waits for a wake-up); *queued* (a wake-up has come, `Resume` is in the run queue or held at the chare). A
//! wake-up of a woken or queued coroutine does nothing. Only the PE's own thread changes a slot.
//!
//! A parked coroutine that something outside of the runtime may wake is *external* (`interest`).

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::Waker;

use rustc_hash::FxHashMap;

use crate::cell::ChareRef;
use crate::entry::EntryInfo;
use crate::ids::ChareId;
use crate::scheduler::interest::{Interest, Judgement};
use crate::scheduler::pe::Pe;
use crate::scheduler::prefetch::prefetch;
use crate::scheduler::queue::Work;
use crate::scheduler::task::{self, TaskHead, TaskKey};
use crate::scheduler::waker::{MAX_TASKS, PollKey, Wakeup};

/// Cache lines of a coroutine that are asked for ahead of its turn: as many as one of a few hundred bytes has.
const PREFETCHED_LINES: usize = 6;
/// Ends the list of vacant slots.
const NONE: u32 = u32::MAX;
/// That of a slot which is not used again: its next coroutine would have the key of its first one.
const RETIRED: u32 = u32::MAX;

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
    pub(super) fn open(&self, head: NonNull<TaskHead>, phase: Phase) -> Option<(TaskKey, PollKey)> {
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

    pub(super) fn close(&self, key: TaskKey) {
        let mut slab = self.slab.borrow_mut();
        let free = slab.free;
        let Some(slot) = slab.get(key) else { return };
        slot.head = None;
        slot.generation += 1;
        slot.next_free = free;
        let is_retired = slot.generation == RETIRED;
        let interest = std::mem::take(&mut slot.interest);
        if slot.is_external {
            self.external_count.set(self.external_count.get() - 1);
        }
        if !is_retired {
            slab.free = key.slot;
        }
        drop(slab);
        drop(interest);
    }

    /// The wrappers by which combinators wait for a coroutine.
    pub(super) fn wrappers(&self, key: TaskKey) -> Vec<Arc<Waker>> {
        self.slab.borrow_mut().get(key).map(|slot| slot.interest.wrappers()).unwrap_or_default()
    }

    pub(super) fn head(&self, key: TaskKey) -> Option<NonNull<TaskHead>> {
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

    pub(super) fn is_queued(&self, key: TaskKey) -> bool {
        self.slab.borrow_mut().get(key).is_some_and(|slot| slot.phase == Phase::Queued)
    }

    /// A queued coroutine is about to be polled. `None` if it is not queued.
    pub(super) fn begin_poll(&self, key: TaskKey) -> Option<PollKey> {
        let mut slab = self.slab.borrow_mut();
        let slot = slab.get(key).filter(|slot| slot.phase == Phase::Queued)?;
        slot.phase = Phase::Running;
        slot.poll = slot.poll.wrapping_add(1);
        slot.interest.begin_poll();
        Some(PollKey::new(key.slot, key.generation, slot.poll))
    }

    /// Notes that a coroutine has returned `Pending`.
    pub(super) fn end_poll(&self, key: TaskKey) {
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

    /// The coroutines that wait for something that the runtime does not know.
    pub(crate) fn for_each_external(&self, mut f: impl FnMut(&'static EntryInfo, Option<ChareId>)) {
        for slot in self.slab.borrow().slots.iter().filter(|slot| slot.is_external) {
            if let Some(head) = slot.head {
                // SAFETY: the slot holds a live coroutine.
                let (info, chare) = unsafe { (head.as_ref().info, head.as_ref().chare) };
                f(info, chare.map(|chare| chare.id));
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
                task::discard(pe, head);
                pe.end_step();
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_whose_generations_are_used_up_is_not_used_again() {
        let tasks = Tasks::new();
        // Nobody looks at the coroutines.
        let open = || tasks.open(NonNull::dangling(), Phase::Queued).expect("there are few");
        let ((first, _), (other, other_poll)) = (open(), open());
        tasks.close(first);
        tasks.slab.borrow_mut().slots[0].generation = RETIRED - 1;
        let (last, last_poll) = open();
        assert_eq!((last.slot, last.generation), (0, RETIRED - 1));
        tasks.close(last);
        assert_eq!([open(), open()].map(|(key, _)| (key.slot, key.generation)), [(2, 0), (3, 0)]);
        assert!(tasks.head(first).is_none() && tasks.head(last).is_none(), "no key leads to the slot");
        assert!(tasks.task_of(last_poll).is_none(), "nor does a waker");
        assert_eq!(tasks.task_of(other_poll), Some(other));
        tasks.close(other);
        assert_eq!((open().0.slot, open().0.slot), (other.slot, 4), "others are used again");
    }

    #[test]
    fn wakers_of_coroutines_that_share_a_slot_are_told_apart() {
        let tasks = Tasks::new();
        let open = || tasks.open(NonNull::dangling(), Phase::Queued).expect("there are few");
        let (key, poll) = open();
        // The first of those that a waker's few bits of a generation do not tell from this one.
        let period = 1 << crate::scheduler::waker::GENERATION_BITS;
        let mut live = key;
        for _ in 1..period {
            tasks.close(live);
            (live, _) = open();
            assert_eq!(live.slot, key.slot);
            assert!(tasks.task_of(poll).is_none(), "a waker of an earlier coroutine wakes {live:?}");
        }
    }
}
