//! Asking for memory before it is needed, so that the caches bring it while other work runs. It changes no result.

use std::ptr::NonNull;

const LINE_BYTES: usize = 64;

/// Asks for the first `line_count` cache lines from `start`, wherever they are; they need not exist.
#[inline(always)]
pub(crate) fn prefetch<T>(start: NonNull<T>, line_count: usize) {
    let start = start.as_ptr().cast::<i8>().cast_const();
    for line in 0..line_count {
        fetch_line(start.wrapping_add(line * LINE_BYTES));
    }
}

#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn fetch_line(address: *const i8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which does nothing at addresses that cannot be read; every x86-64 has it.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(address) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline(always)]
fn fetch_line(_: *const i8) {}
