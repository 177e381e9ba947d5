//! The atomics of the lock-free parts: the standard ones, or loom's when the model checker drives the code.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Stands between two SeqCst accesses of which the total order of SeqCst is needed. Nothing natively: the accesses are
/// in that order already. loom gives SeqCst accesses acquire-release meaning only, so it needs the fence spelled out.
#[inline]
pub(crate) fn in_total_order() {
    #[cfg(loom)]
    loom::sync::atomic::fence(Ordering::SeqCst);
}
