//! Wakers of coroutines: one word, no reference count, no pointer.
//!
//! The word is `runtime (8 bits) | PE (12) | generation (20) | slot (24)`: the PE whose table holds the coroutine, and
//! its place there. Waking on that PE marks the coroutine and queues it; waking anywhere else sends a message. A stale
//! generation is ignored; should 2^20 reuses of one slot meet an old waker, the wake is spurious, which every future
//! tolerates. The runtime's number is needed by threads that have entered no runtime; they look it up in [`REGISTRY`],
//! the one static of the crate.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::task::{RawWaker, RawWakerVTable, Waker};

use crate::current;
use crate::ids::{ChareId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::runtime::Shared;
use crate::scheduler::pe::Pe;
use crate::scheduler::task::TaskKey;

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 20;
const PE_BITS: u32 = 12;

/// Runtimes that may run in one process at a time.
const MAX_RUNTIMES: usize = 256;
/// PEs of one process.
pub(crate) const MAX_PES: usize = 1 << PE_BITS;
/// Coroutines that may live on one PE at a time.
pub(crate) const MAX_TASKS: usize = 1 << SLOT_BITS;
/// Generations of a slot.
pub(crate) const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;

static REGISTRY: Mutex<[Option<Weak<Shared>>; MAX_RUNTIMES]> = Mutex::new([const { None }; MAX_RUNTIMES]);

fn registry() -> MutexGuard<'static, [Option<Weak<Shared>>; MAX_RUNTIMES]> {
    REGISTRY.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Takes a number for a runtime; `None` if too many run already.
pub(crate) fn reserve_number() -> Option<u8> {
    let mut registry = registry();
    let free = registry.iter().position(|entry| entry.is_none())?;
    registry[free] = Some(Weak::new());
    u8::try_from(free).ok()
}

/// Makes the runtime known under its number.
pub(crate) fn enrol(number: u8, shared: &Arc<Shared>) {
    registry()[usize::from(number)] = Some(Arc::downgrade(shared));
}

/// Gives the number back.
pub(crate) fn release_number(number: u8) {
    registry()[usize::from(number)] = None;
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, drop_nothing);

/// The waker of a coroutine in the table of `pe`.
#[inline]
pub(crate) fn waker(runtime: u8, pe: PeId, task: TaskKey) -> Waker {
    let word = u64::from(runtime) << (PE_BITS + GENERATION_BITS + SLOT_BITS)
        | (pe.index() as u64) << (GENERATION_BITS + SLOT_BITS)
        | u64::from(task.generation) << SLOT_BITS
        | u64::from(task.slot);
    // SAFETY: the table's functions treat the word as an integer; they are safe on any thread and for any value.
    unsafe { Waker::from_raw(raw(word)) }
}

fn raw(word: u64) -> RawWaker {
    const { assert!(usize::BITS == 64, "a waker is one 64-bit word") };
    RawWaker::new(std::ptr::without_provenance(word as usize), &VTABLE)
}

unsafe fn clone(word: *const ()) -> RawWaker {
    raw(word.addr() as u64)
}

unsafe fn drop_nothing(_: *const ()) {}

unsafe fn wake(word: *const ()) {
    let word = word.addr() as u64;
    let runtime = (word >> (PE_BITS + GENERATION_BITS + SLOT_BITS)) as u8;
    let home = PeId::new((word >> (GENERATION_BITS + SLOT_BITS)) as usize & (MAX_PES - 1));
    let task = TaskKey {
        slot: word as u32 & (MAX_TASKS as u32 - 1),
        generation: (word >> SLOT_BITS) as u32 & GENERATION_MASK,
    };
    current::pe(|pe| match pe {
        Some(pe) if pe.shared().number() == runtime => {
            if pe.id() == home {
                pe.wake(task);
            } else {
                pe.post(home, Msg::for_pe(Wake(task)));
            }
        }
        _ => wake_from_outside(runtime, home, task),
    });
}

#[cold]
fn wake_from_outside(runtime: u8, home: PeId, task: TaskKey) {
    let shared = registry()[usize::from(runtime)].as_ref().and_then(Weak::upgrade);
    if let Some(shared) = shared {
        shared.post_foreign(home, Msg::for_pe(Wake(task)));
    }
}

/// A wake-up on its way to the coroutine's PE.
struct Wake(TaskKey);

impl Payload for Wake {
    const NAME: Name = Name::Runtime("a wake-up");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.wake(self.0);
    }
}
