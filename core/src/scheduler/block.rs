//! Memory of the hot path: messages, coroutine frames and one-shot values come from size-class free lists that each
//! PE keeps for itself.
//!
//! A block is an ordinary allocation of its class's layout, so any thread may free it to the global allocator; the
//! lists only save the trip. Cost of an allocation or a free on a PE: one list head, no atomic. A PE that frees more
//! than it allocates (the receiving end of a stream) hands full magazines to the [`Depot`], where the sending end
//! finds them: one lock per [`MAGAZINE`] blocks.

use std::alloc::{self, Layout};
use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::Mutex;

use crossbeam_utils::CachePadded;

/// Classes are 64 bytes apart, less the 16 that a general allocator keeps in front of a block.
const STEP_BYTES: usize = 64;
const HEADROOM_BYTES: usize = 16;
const CLASS_COUNT: usize = 16;
const ALIGN: usize = 16;
/// Blocks that travel between a PE and the depot at a time.
const MAGAZINE: usize = 64;
/// Bytes of free blocks of one class that a PE keeps before it hands magazines to the depot.
const KEPT_BYTES: usize = 1 << 20;
/// Bytes of free blocks of one class that the depot keeps; more go back to the allocator.
const DEPOT_BYTES: usize = 8 << 20;

/// The size class that serves `layout`; none for large or over-aligned blocks, which go to the allocator.
#[inline(always)]
const fn class_of(layout: Layout) -> Option<usize> {
    let class = (layout.size() + HEADROOM_BYTES).div_ceil(STEP_BYTES);
    if class > CLASS_COUNT || layout.align() > ALIGN { None } else { Some(class.saturating_sub(1)) }
}

fn class_layout(class: usize) -> Layout {
    Layout::from_size_align((class + 1) * STEP_BYTES - HEADROOM_BYTES, ALIGN).expect("class sizes are small")
}

const fn kept_count(class: usize) -> usize {
    KEPT_BYTES / ((class + 1) * STEP_BYTES)
}

fn allocate_raw(layout: Layout) -> NonNull<u8> {
    assert!(layout.size() > 0, "a block is never empty");
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc::alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| alloc::handle_alloc_error(layout))
}

/// Allocates a block outside of any PE; [`free_global`] or a PE's [`BlockCache`] may free it.
pub(crate) fn allocate_global(layout: Layout) -> NonNull<u8> {
    allocate_raw(class_of(layout).map_or(layout, class_layout))
}

/// Frees a block outside of any PE.
///
/// # Safety
/// `block` was allocated here (by whichever thread) with the same `layout` and is not used afterwards.
pub(crate) unsafe fn free_global(block: NonNull<u8>, layout: Layout) {
    // SAFETY: blocks are ordinary allocations of their class's layout.
    unsafe { alloc::dealloc(block.as_ptr(), class_of(layout).map_or(layout, class_layout)) }
}

struct FreeBlock {
    next: *mut FreeBlock,
}

/// A chain of exactly [`MAGAZINE`] free blocks.
struct Magazine(*mut FreeBlock);

// SAFETY: the blocks of a magazine are free memory that nobody else refers to.
unsafe impl Send for Magazine {}

/// Full magazines of all classes, shared by the PEs of a process.
pub(crate) struct Depot {
    classes: [CachePadded<Mutex<Vec<Magazine>>>; CLASS_COUNT],
}

impl Depot {
    pub(crate) fn new() -> Self {
        Depot { classes: std::array::from_fn(|_| CachePadded::new(Mutex::new(Vec::new()))) }
    }

    fn take(&self, class: usize) -> Option<Magazine> {
        self.lock(class).pop()
    }

    /// Keeps the magazine, or gives it back if the depot is full.
    fn put(&self, class: usize, magazine: Magazine) -> Option<Magazine> {
        let mut shelf = self.lock(class);
        if shelf.len() < DEPOT_BYTES / ((class + 1) * STEP_BYTES * MAGAZINE) {
            shelf.push(magazine);
            None
        } else {
            Some(magazine)
        }
    }

    fn lock(&self, class: usize) -> std::sync::MutexGuard<'_, Vec<Magazine>> {
        self.classes[class].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Drop for Depot {
    fn drop(&mut self) {
        for class in 0..CLASS_COUNT {
            while let Some(Magazine(chain)) = self.take(class) {
                // SAFETY: the magazine owned its chain.
                unsafe { free_chain(chain, class) };
            }
        }
    }
}

/// # Safety
/// `chain` links free blocks of `class` that nobody else refers to.
unsafe fn free_chain(mut chain: *mut FreeBlock, class: usize) {
    while let Some(block) = NonNull::new(chain) {
        // SAFETY: a free block holds its link.
        chain = unsafe { block.as_ref().next };
        // SAFETY: blocks are ordinary allocations of their class's layout.
        unsafe { alloc::dealloc(block.as_ptr().cast(), class_layout(class)) };
    }
}

/// One stack of free blocks.
struct List {
    top: Cell<*mut FreeBlock>,
    count: Cell<usize>,
}

/// The free lists of one PE. Not `Sync`: only its own thread uses it.
pub(crate) struct BlockCache {
    lists: [List; CLASS_COUNT],
}

impl BlockCache {
    pub(crate) fn new() -> Self {
        let list = |_| List { top: Cell::new(ptr::null_mut()), count: Cell::new(0) };
        BlockCache { lists: std::array::from_fn(list) }
    }

    /// A block for `layout`, uninitialised.
    #[inline(always)]
    pub(crate) fn allocate(&self, layout: Layout, depot: &Depot) -> NonNull<u8> {
        let Some(class) = class_of(layout) else { return allocate_raw(layout) };
        let list = &self.lists[class];
        match NonNull::new(list.top.get()) {
            Some(block) => {
                // SAFETY: a free block holds its link.
                list.top.set(unsafe { block.as_ref().next });
                list.count.set(list.count.get() - 1);
                block.cast()
            }
            None => Self::refill(list, class, depot),
        }
    }

    #[cold]
    fn refill(list: &List, class: usize, depot: &Depot) -> NonNull<u8> {
        match depot.take(class).and_then(|magazine| NonNull::new(magazine.0)) {
            Some(block) => {
                // SAFETY: a free block holds its link.
                list.top.set(unsafe { block.as_ref().next });
                list.count.set(MAGAZINE - 1);
                block.cast()
            }
            None => allocate_raw(class_layout(class)),
        }
    }

    /// Takes back a block.
    ///
    /// # Safety
    /// `block` was allocated in this module with the same `layout` and is not used afterwards.
    #[inline(always)]
    pub(crate) unsafe fn free(&self, block: NonNull<u8>, layout: Layout, depot: &Depot) {
        let Some(class) = class_of(layout) else {
            // SAFETY: large blocks are allocated with their own layout.
            return unsafe { alloc::dealloc(block.as_ptr(), layout) };
        };
        let list = &self.lists[class];
        let free = block.cast::<FreeBlock>();
        // SAFETY: the block is large enough for a link, aligned, and ours.
        unsafe { free.write(FreeBlock { next: list.top.get() }) };
        list.top.set(free.as_ptr());
        list.count.set(list.count.get() + 1);
        if list.count.get() > kept_count(class) {
            Self::spill(list, class, depot);
        }
    }

    /// Hands the topmost magazine to the depot, or back to the allocator if that is full.
    #[cold]
    fn spill(list: &List, class: usize, depot: &Depot) {
        let first = list.top.get();
        let mut last = first;
        for _ in 1..MAGAZINE {
            // SAFETY: the list is longer than a magazine, and a free block holds its link.
            last = unsafe { (*last).next };
        }
        // SAFETY: as above; the chain is cut behind its last block.
        list.top.set(unsafe { std::mem::replace(&mut (*last).next, ptr::null_mut()) });
        list.count.set(list.count.get() - MAGAZINE);
        if let Some(Magazine(chain)) = depot.put(class, Magazine(first)) {
            // SAFETY: the depot gave the magazine back, so it is ours alone.
            unsafe { free_chain(chain, class) };
        }
    }
}

impl Drop for BlockCache {
    fn drop(&mut self) {
        for (class, list) in self.lists.iter().enumerate() {
            // SAFETY: the lists own their blocks.
            unsafe { free_chain(list.top.get(), class) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_layouts() {
        for size in 1..2000 {
            let layout = Layout::from_size_align(size, 8).unwrap();
            match class_of(layout) {
                Some(class) => {
                    assert!(class_layout(class).size() >= size);
                    assert!(class == 0 || class_layout(class - 1).size() < size);
                }
                None => assert!(size > CLASS_COUNT * STEP_BYTES - HEADROOM_BYTES),
            }
        }
    }

    #[test]
    fn blocks_of_a_stream_come_back_through_the_depot() {
        let depot = Depot::new();
        let (sender, receiver) = (BlockCache::new(), BlockCache::new());
        let layout = Layout::from_size_align(100, 8).unwrap();
        let mut seen = std::collections::HashSet::new();
        let bound = kept_count(class_of(layout).unwrap()) + 2 * MAGAZINE;
        for _ in 0..4 * bound {
            let block = sender.allocate(layout, &depot);
            seen.insert(block);
            // SAFETY: allocated above with the same layout.
            unsafe { receiver.free(block, layout, &depot) };
        }
        assert!(seen.len() <= bound, "{} distinct blocks: the depot does not recycle", seen.len());
    }
}
