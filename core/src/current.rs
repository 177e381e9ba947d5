//! The only thread-local of the runtime: which PE, or which runtime, the running code belongs to.
//!
//! A PE is current from the start of its loop to its end, on its own thread; [`Entered`] makes a runtime current on a
//! foreign thread. Everything that user code holds (proxies, futures, wakers) is ids; it finds the PE here, takes the
//! fast path if it is the right one and goes through an inbox otherwise.

use std::alloc::Layout;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::caught::PanicPayload;
use crate::ids::{PeId, RunId};
use crate::message::{Head, Msg};
use crate::process::Shared;
use crate::runtime::Outsider;
use crate::scheduler::block;
use crate::scheduler::pe::Pe;
use crate::scheduler::waker;

#[derive(Clone, Copy)]
struct Current {
    pe: *const Pe,
    shared: *const Shared,
    /// Whether nothing is printed of a panic: what it says is told otherwise.
    is_silent: bool,
}

const NOBODY: Current = Current { pe: ptr::null(), shared: ptr::null(), is_silent: false };

thread_local! {
    static CURRENT: Cell<Current> = const { Cell::new(NOBODY) };
}

/// Makes a PE current on this thread; the previous one is restored on drop.
pub(crate) struct OnPe<'a> {
    previous: Current,
    _pe: &'a Pe,
}

impl<'a> OnPe<'a> {
    pub(crate) fn enter(pe: &'a Pe) -> Self {
        OnPe { previous: CURRENT.replace(Current { pe, ..NOBODY }), _pe: pe }
    }
}

impl Drop for OnPe<'_> {
    fn drop(&mut self) {
        CURRENT.set(self.previous);
    }
}

/// Makes a runtime current on a thread that is not one of its PEs, so that proxies, promises and futures work there.
/// The previous one is restored on drop; guards are dropped in the reverse order of their making.
#[must_use = "the runtime is current until this is dropped"]
pub struct Entered {
    previous: Current,
    outsider: Option<Outsider>,
    _not_send: std::marker::PhantomData<*const ()>,
}

impl Entered {
    #[track_caller]
    pub(crate) fn enter(outsider: Outsider) -> Self {
        let previous = CURRENT.get();
        assert!(
            previous.pe.is_null(),
            "a PE is in its own run already: `Handle::enter` is for other threads"
        );
        CURRENT.set(Current { shared: Arc::as_ptr(outsider.shared()), ..NOBODY });
        Entered { previous, outsider: Some(outsider), _not_send: std::marker::PhantomData }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(outsider) = self.outsider.take() else { return };
        if ptr::eq(CURRENT.get().shared, Arc::as_ptr(outsider.shared())) && CURRENT.get().pe.is_null() {
            CURRENT.set(self.previous);
        } else {
            // Dropped out of order: a later guard will make this runtime current again, so it must stay in memory.
            std::mem::forget(outsider.shared().clone());
        }
    }
}

/// Where the running code is.
pub(crate) enum Here<'a> {
    /// On a PE.
    Pe(&'a Pe),
    /// On a foreign thread that has entered a runtime.
    Foreign(&'a Shared),
    /// On a thread that no runtime knows.
    Nowhere,
}

/// Calls `f` with the place that the running code is at.
#[inline(always)]
pub(crate) fn here<R>(f: impl FnOnce(Here<'_>) -> R) -> R {
    let current = CURRENT.get();
    // SAFETY: `pe` is set by `OnPe`, which borrows the PE, and `shared` by `Entered`, which keeps it alive; both are
    // reset before what they point to ends, and on this thread, so the references live through the call.
    unsafe {
        if let Some(pe) = current.pe.as_ref() {
            f(Here::Pe(pe))
        } else if let Some(shared) = current.shared.as_ref() {
            f(Here::Foreign(shared))
        } else {
            f(Here::Nowhere)
        }
    }
}

/// Only this word is read: whether the thread still has its [`Current`] would be asked of the others at each call.
#[inline(always)]
fn pe_address() -> *const Pe {
    CURRENT.with(|current| current.get().pe)
}

/// Calls `f` with the current PE, if the running code is on one.
#[inline(always)]
pub(crate) fn pe<R>(f: impl FnOnce(Option<&Pe>) -> R) -> R {
    // SAFETY: as in `here`.
    f(unsafe { pe_address().as_ref() })
}

/// Calls `f` with the current PE.
///
/// # Panics
/// On a thread that is not a PE; `what` says what was attempted.
#[inline(always)]
#[track_caller]
pub(crate) fn on_pe<R>(what: &str, f: impl FnOnce(&Pe) -> R) -> R {
    // SAFETY: as in `here`. Not inside of a closure, so that the panic is at the caller's place.
    match unsafe { pe_address().as_ref() } {
        Some(pe) => f(pe),
        None => off_pe(what),
    }
}

#[cold]
#[track_caller]
fn off_pe(what: &str) -> ! {
    panic!("{what} works on a PE only: this thread belongs to no PE (send a message to a chare instead)")
}

/// Calls `f`, code of the user's, where its panic is the caller's to tell.
pub(crate) fn silently<R>(f: impl FnOnce() -> R) -> Result<R, PanicPayload> {
    let previous = CURRENT.get();
    CURRENT.set(Current { is_silent: true, ..previous });
    let outcome = catch_unwind(AssertUnwindSafe(f));
    CURRENT.set(previous);
    outcome
}

/// Whether a panic is to be told by [`silently`]'s caller alone.
pub(crate) fn is_silent() -> bool {
    CURRENT.get().is_silent
}

/// The run that the running code belongs to.
pub(crate) fn run() -> Option<RunId> {
    here(|here| match here {
        Here::Pe(pe) => Some(pe.run()),
        Here::Foreign(shared) => Some(shared.run()),
        Here::Nowhere => None,
    })
}

/// As `run`; `RunId::NONE` on a thread that no runtime knows.
pub(crate) fn run_or_none() -> RunId {
    run().unwrap_or(RunId::NONE)
}

/// # Panics
/// On a thread that is no PE of this run and has not entered it.
#[track_caller]
pub(crate) fn require(run: RunId) {
    let Some(current) = self::run() else { crate::call::nowhere() };
    assert!(
        current == run,
        "this belongs to another run of the runtime: only threads that have entered that one use it"
    );
}

/// Sends a message to a PE of a run from any thread, whatever it has entered. Dropped if the run has ended.
pub(crate) fn post_to_run(run: RunId, to: PeId, msg: Msg) {
    here(|here| match here {
        Here::Pe(pe) if pe.run() == run => pe.post(to, msg),
        Here::Foreign(shared) if shared.run() == run => shared.post_foreign(to, msg),
        _ => match waker::find_run(run) {
            Some(shared) => shared.post_foreign(to, msg),
            None => drop(msg),
        },
    })
}

/// A block of the current PE's free lists, or of the allocator on other threads.
#[inline(always)]
pub(crate) fn allocate(layout: Layout) -> NonNull<u8> {
    pe(|pe| match pe {
        Some(pe) => pe.allocate(layout),
        None => block::allocate_global(layout),
    })
}

/// Gives a block back.
///
/// # Safety
/// `block` came from [`allocate`] (on any thread) with the same `layout` and is not used afterwards.
#[inline]
pub(crate) unsafe fn free(block: NonNull<u8>, layout: Layout) {
    pe(|pe| match pe {
        // SAFETY: the caller's promise.
        Some(pe) => unsafe { pe.free(block, layout) },
        // SAFETY: the caller's promise.
        None => unsafe { block::free_global(block, layout) },
    })
}

/// Gives back the block of a message whose contents are gone.
///
/// # Safety
/// As [`free`]; the block may still be the anchor of the current PE's inbox.
pub(crate) unsafe fn free_message(head: NonNull<Head>, layout: Layout) {
    pe(|pe| match pe {
        // SAFETY: the caller's promise.
        Some(pe) => unsafe { pe.release_block(head, layout) },
        // SAFETY: off a PE a message was never popped from an inbox here, so nothing pins it.
        None => unsafe { block::free_global(head.cast(), layout) },
    })
}
