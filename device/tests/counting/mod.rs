//! A global allocator that counts, for the whole test binary.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The system's allocator, counting.
struct Counting;

/// Allocations of all threads, and bytes that are allocated, now and at most.
static BY_ALL: AtomicU64 = AtomicU64::new(0);
static LIVE_BYTES: AtomicUsize = AtomicUsize::new(0);
static MOST_BYTES: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Those of this thread.
    static BY_THIS: Cell<u64> = const { Cell::new(0) };
}

#[allow(dead_code, reason = "each test counts what it needs")]
pub(crate) fn allocations_of_all_threads() -> u64 {
    BY_ALL.load(Ordering::Relaxed)
}

#[allow(dead_code, reason = "each test counts what it needs")]
pub(crate) fn allocations_of_this_thread() -> u64 {
    BY_THIS.with(Cell::get)
}

/// The most bytes that were allocated at once while `body` ran, beyond those before it.
#[allow(dead_code, reason = "each test counts what it needs")]
pub(crate) fn most_bytes_during(body: impl FnOnce()) -> usize {
    let before = LIVE_BYTES.load(Ordering::Relaxed);
    MOST_BYTES.store(before, Ordering::Relaxed);
    body();
    MOST_BYTES.load(Ordering::Relaxed) - before
}

fn count(bytes: usize) {
    let live = LIVE_BYTES.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST_BYTES.fetch_max(live, Ordering::Relaxed);
    BY_ALL.fetch_add(1, Ordering::Relaxed);
    // A thread that is ending has no counter any more.
    let _ = BY_THIS.try_with(|count| count.set(count.get() + 1));
}

// SAFETY: it is the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, address: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes);
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.realloc(address, layout, bytes) }
    }

    unsafe fn dealloc(&self, address: *mut u8, layout: Layout) {
        LIVE_BYTES.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: promised by the caller.
        unsafe { System.dealloc(address, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
