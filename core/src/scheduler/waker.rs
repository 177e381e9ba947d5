//! Wakers of coroutines: one word, no reference count, no pointer.
//!
//! The word is `runtime (6 bits) | PE (12) | generation (12) | poll (10) | slot (24)`: the PE whose table holds the
//! coroutine, its place there, and which of its polls the waker was made for. Waking on that PE marks the coroutine and
//! queues it; waking anywhere else sends a message. Whichever poll a waker is of, it wakes; the number only tells what
//! code outside of the runtime holds *now* from what it forgot to drop. A stale generation is ignored; should 2^12 reuses
//! of one slot meet an old waker, the wake is spurious, which every future tolerates.
//!
//! The runtime's own waits keep a [`Wakeup`], a copy of the word. Every other copy is counted at the coroutine
//! (`interest`): that is how the runtime knows that something outside may wake it, and learns when nothing can any more. A
//! copy is made before the one that it is made from goes, and messages to one PE are taken in the order in which they
//! were sent.
//!
//! The runtime's number is needed by threads that have entered no runtime; they look it up in [`REGISTRY`], the one
//! static of the crate.

use std::ptr;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{Context, RawWaker, RawWakerVTable, Waker};

use crate::current;
use crate::ids::{ChareId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::process::Shared;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::Leaves;

const SLOT_BITS: u32 = 24;
const POLL_BITS: u32 = 10;
pub(super) const GENERATION_BITS: u32 = 12;
const PE_BITS: u32 = 12;

/// Runtimes that may run in one process at a time.
pub(crate) const MAX_RUNTIMES: usize = 64;
/// PEs of one process.
pub(crate) const MAX_PES: usize = 1 << PE_BITS;
/// Coroutines that may live on one PE at a time.
pub(crate) const MAX_TASKS: usize = 1 << SLOT_BITS;

struct Registry {
    running: [Option<(RunId, Weak<Shared>)>; MAX_RUNTIMES],
    runs: u32,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { running: [const { None }; MAX_RUNTIMES], runs: 0 });

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The place of a run in the registry, given back when this is dropped.
pub(crate) struct Enrolment {
    pub(crate) number: u8,
    /// Unlike the number, never used again in this process.
    pub(crate) run: RunId,
}

impl Enrolment {
    /// Takes a number for a run; `None` if too many run already. Numbers are used again, and a thread may keep a waker of a run that
    /// has ended; so simulated runs, which other threads must leave alone, have theirs from the other end.
    pub(crate) fn reserve(is_simulated: bool) -> Option<Self> {
        let mut registry = registry();
        let is_free = |place: &Option<_>| place.is_none();
        let mut places = registry.running.iter();
        let number = if is_simulated { places.rposition(is_free) } else { places.position(is_free) }?;
        let run = RunId(registry.runs);
        registry.runs = registry.runs.wrapping_add(1);
        registry.running[number] = Some((run, Weak::new()));
        Some(Enrolment { number: number as u8, run })
    }

    /// Makes the run known under its number.
    pub(crate) fn complete(&self, shared: &Arc<Shared>) {
        registry().running[usize::from(self.number)] = Some((self.run, Arc::downgrade(shared)));
    }
}

impl Drop for Enrolment {
    fn drop(&mut self) {
        registry().running[usize::from(self.number)] = None;
    }
}

/// A run of this process by its id, if it has not ended.
pub(crate) fn find_run(run: RunId) -> Option<Arc<Shared>> {
    registry().running.iter().flatten().find(|(id, _)| *id == run).and_then(|(_, shared)| shared.upgrade())
}

/// A coroutine in the table of its PE, and one of its polls.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct PollKey {
    pub(crate) slot: u32,
    generation: u32,
    poll: u32,
}

impl PollKey {
    pub(crate) fn new(slot: u32, generation: u32, poll: u32) -> Self {
        PollKey { slot, generation: generation % (1 << GENERATION_BITS), poll: poll % (1 << POLL_BITS) }
    }

    pub(crate) fn is_of_generation(self, generation: u32) -> bool {
        generation % (1 << GENERATION_BITS) == self.generation
    }

    pub(crate) fn is_of_poll(self, poll: u32) -> bool {
        poll % (1 << POLL_BITS) == self.poll
    }
}

/// What a waker of ours says.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(u64);

impl Word {
    fn new(runtime: u8, pe: PeId, key: PollKey) -> Self {
        let mut word = u64::from(runtime);
        word = word << PE_BITS | pe.index() as u64;
        word = word << GENERATION_BITS | u64::from(key.generation);
        word = word << POLL_BITS | u64::from(key.poll);
        Word(word << SLOT_BITS | u64::from(key.slot))
    }

    fn field(self, offset: u32, bits: u32) -> u32 {
        (self.0 >> offset) as u32 & ((1 << bits) - 1)
    }

    fn key(self) -> PollKey {
        PollKey {
            slot: self.field(0, SLOT_BITS),
            poll: self.field(SLOT_BITS, POLL_BITS),
            generation: self.field(SLOT_BITS + POLL_BITS, GENERATION_BITS),
        }
    }

    fn home(self) -> PeId {
        PeId::new(self.field(SLOT_BITS + POLL_BITS + GENERATION_BITS, PE_BITS) as usize)
    }

    fn runtime(self) -> u8 {
        (self.0 >> (SLOT_BITS + POLL_BITS + GENERATION_BITS + PE_BITS)) as u8
    }

    fn raw(self) -> RawWaker {
        const { assert!(usize::BITS == 64, "a waker is one 64-bit word") };
        RawWaker::new(ptr::without_provenance(self.0 as usize), &VTABLE)
    }

    /// Brings a signal to the coroutine, from any thread.
    fn signal(self, signal: Signal) {
        current::pe(|pe| match pe {
            Some(pe) if pe.shared().number() == self.runtime() => self.signal_from(pe, signal),
            _ => self.signal_from_outside(signal),
        });
    }

    #[inline]
    fn signal_from(self, pe: &Pe, signal: Signal) {
        if pe.id() == self.home() {
            signal.run_on(pe, self.key());
        } else if self.is_of(pe.shared()) {
            pe.post(self.home(), Msg::for_pe(Sent { signal, key: self.key() }));
        }
    }

    /// Whether its PE is of this process. One of an earlier run of the same number may not be.
    fn is_of(self, shared: &Shared) -> bool {
        shared.own_number(self.home()) < shared.own_pe_count()
    }

    #[cold]
    fn signal_from_outside(self, signal: Signal) {
        let shared =
            registry().running[usize::from(self.runtime())].as_ref().and_then(|(_, shared)| shared.upgrade());
        if let Some(shared) = shared.filter(|shared| self.is_of(shared)) {
            shared.post_foreign(self.home(), Msg::for_pe(Sent { signal, key: self.key() }));
        }
    }
}

/// What happens to a waker that code outside of the runtime holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Signal {
    /// By a wait of the runtime's own.
    Wake,
    /// Its holder has woken by it, and keeps it.
    WakeByRef,
    /// Its holder has woken by it, and it is gone.
    WakeAndDrop,
    Clone,
    Drop,
}

impl Signal {
    #[inline]
    fn run_on(self, pe: &Pe, key: PollKey) {
        match self {
            Signal::Wake => pe.tasks.wake(pe, key, false),
            Signal::WakeByRef => pe.tasks.wake(pe, key, true),
            Signal::WakeAndDrop => {
                pe.tasks.wake(pe, key, false);
                pe.tasks.waker_dropped(key);
            }
            Signal::Clone => pe.tasks.waker_cloned(key),
            Signal::Drop => pe.tasks.waker_dropped(key),
        }
    }
}

/// A signal on its way to the coroutine's PE.
struct Sent {
    signal: Signal,
    key: PollKey,
}

impl Payload for Sent {
    const NAME: Name = Name::Runtime("a wake-up");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        self.signal.run_on(pe, self.key);
    }
}

/// Whether a message is about a waker.
pub(crate) fn is_signal(msg: &Msg) -> bool {
    msg.payload::<Sent>().is_some()
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_clone);

fn word_of(data: *const ()) -> Word {
    Word(data.addr() as u64)
}

unsafe fn clone(data: *const ()) -> RawWaker {
    word_of(data).signal(Signal::Clone);
    word_of(data).raw()
}

unsafe fn wake(data: *const ()) {
    word_of(data).signal(Signal::WakeAndDrop);
}

unsafe fn wake_by_ref(data: *const ()) {
    word_of(data).signal(Signal::WakeByRef);
}

unsafe fn drop_clone(data: *const ()) {
    word_of(data).signal(Signal::Drop);
}

/// Calls `f` with a context whose waker is that of a coroutine in the table of `pe`.
#[inline]
pub(crate) fn with_context<R>(pe: &Pe, key: PollKey, f: impl FnOnce(&mut Context<'_>) -> R) -> R {
    let word = Word::new(pe.shared().number(), pe.id(), key);
    // SAFETY: the table's functions treat the word as an integer; they are safe on any thread and for any value.
    let waker = std::mem::ManuallyDrop::new(unsafe { Waker::from_raw(word.raw()) });
    f(&mut Context::from_waker(&waker))
}

/// How a wait of the runtime's own wakes its coroutine. Dropping one may run code of the user (the waker may be that of
/// a combinator), so it is dropped where nothing is borrowed.
pub(crate) enum Wakeup {
    /// A coroutine of ours, directly. Not counted: the wait itself is.
    Own(OwnWakeup),
    /// Whatever polls: an executor elsewhere, or a combinator that hands out wakers of its own. Shared with the
    /// coroutine, which wakes it to learn what it belongs to.
    Other(Arc<Waker>),
}

/// A word that stands for a wait, which is why it is not cloned.
pub(crate) struct OwnWakeup(Word);

#[cfg(all(test, not(loom)))]
impl OwnWakeup {
    pub(super) fn for_a_test() -> Self {
        OwnWakeup(Word(0))
    }
}

impl Wakeup {
    /// That of whoever polls.
    #[inline]
    pub(crate) fn of(context: &Context<'_>) -> Self {
        let waker = context.waker();
        if ptr::eq(waker.vtable(), &VTABLE) {
            Wakeup::Own(OwnWakeup(word_of(waker.data())))
        } else {
            Wakeup::Other(Arc::new(waker.clone()))
        }
    }

    #[inline]
    pub(crate) fn wake(self) {
        match self {
            Wakeup::Own(OwnWakeup(word)) => word.signal(Signal::Wake),
            Wakeup::Other(waker) => waker.wake_by_ref(),
        }
    }

    /// As `wake`, on a PE of the run.
    #[inline]
    pub(crate) fn wake_from(self, pe: &Pe) {
        match self {
            Wakeup::Own(OwnWakeup(word)) if word.runtime() == pe.shared().number() => {
                word.signal_from(pe, Signal::Wake)
            }
            other => other.wake(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::thread;

    use super::*;
    use crate::options::Options;
    use crate::prelude::*;
    use crate::runtime::start_main;
    use crate::testing::run_as_processes;

    #[test]
    fn wakers_of_earlier_runs_of_the_same_number_do_no_harm() {
        let program = async |_: Runtime| {
            let number = current::on_pe("a test", |pe| pe.shared().number());
            // On a PE of another process, and on one that there is not.
            for pe in [1, 77] {
                let word = Word::new(number, PeId::new(pe), PollKey::new(0, 0, 0));
                word.signal(Signal::WakeAndDrop);
                let woken = thread::spawn(move || word.signal(Signal::WakeByRef)).join();
                woken.expect("nothing panics");
            }
        };
        let options = Options::default().with_pes(1);
        let report = run_as_processes(2, options, &|pe| start_main(pe, program));
        let report = report.expect("the host device is there");
        assert!(report.is_success(), "{report}");
    }
}
