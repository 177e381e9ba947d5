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
    use proptest::prelude::*;
    use std::collections::HashSet;

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
        let mut seen = HashSet::new();
        let bound = kept_count(class_of(layout).unwrap()) + 2 * MAGAZINE;
        for _ in 0..4 * bound {
            let block = sender.allocate(layout, &depot);
            seen.insert(block);
            // SAFETY: allocated above with the same layout.
            unsafe { receiver.free(block, layout, &depot) };
        }
        assert!(seen.len() <= bound, "{} distinct blocks: the depot does not recycle", seen.len());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Allocate {
            cache: usize,
            size: usize,
            count: usize,
        },
        /// Frees this many blocks on a cache, those next to a place in the list of live ones.
        Free {
            cache: usize,
            place: prop::sample::Index,
            count: usize,
        },
    }

    const CACHES: usize = 3;

    /// Many blocks at a time, of the classes of which a cache keeps least, so that magazines travel.
    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let size = prop_oneof![8 => 945..=1008_usize, 2 => 881..=944_usize, 1 => 1009..1100_usize];
        let allocate = (0..CACHES, size, 1..900_usize);
        let free = (0..CACHES, any::<prop::sample::Index>(), 1..1200_usize);
        let step = prop_oneof![
            allocate.prop_map(|(cache, size, count)| Step::Allocate { cache, size, count }),
            free.prop_map(|(cache, place, count)| Step::Free { cache, place, count }),
        ];
        // Too few to fill the depot, which would give blocks back to the allocator.
        prop::collection::vec(step, 0..18)
    }

    struct Live {
        block: NonNull<u8>,
        layout: Layout,
        mark: u8,
    }

    impl Live {
        /// Marks a fresh block from end to end.
        fn new(block: NonNull<u8>, layout: Layout, mark: u8) -> Self {
            // SAFETY: the block has the layout and belongs to us.
            unsafe { block.write_bytes(mark, layout.size()) };
            Live { block, layout, mark }
        }

        fn is_intact(&self) -> bool {
            // SAFETY: the block was filled by `new`.
            let bytes = unsafe { std::slice::from_raw_parts(self.block.as_ptr(), self.layout.size()) };
            bytes.iter().all(|byte| *byte == self.mark)
        }
    }

    fn chain(mut block: *mut FreeBlock) -> Vec<NonNull<u8>> {
        let links = std::iter::from_fn(|| {
            let here = NonNull::new(block)?;
            // SAFETY: a free block holds its link.
            block = unsafe { here.as_ref().next };
            Some(here.cast())
        });
        links.collect()
    }

    /// All blocks that the caches and the depot keep; their counts must be right.
    fn kept(caches: &[BlockCache], depot: &Depot) -> Vec<NonNull<u8>> {
        let mut kept = Vec::new();
        for class in 0..CLASS_COUNT {
            for cache in caches {
                let blocks = chain(cache.lists[class].top.get());
                assert_eq!(blocks.len(), cache.lists[class].count.get());
                assert!(blocks.len() <= kept_count(class), "a cache keeps {} blocks", blocks.len());
                kept.extend(blocks);
            }
            for magazine in depot.lock(class).iter() {
                let blocks = chain(magazine.0);
                assert_eq!(blocks.len(), MAGAZINE);
                kept.extend(blocks);
            }
        }
        kept
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_block_is_handed_out_twice_or_lost(steps in steps()) {
            let depot = Depot::new();
            let caches: [BlockCache; CACHES] = std::array::from_fn(|_| BlockCache::new());
            let mut live: Vec<Live> = Vec::new();
            let mut addresses = HashSet::new();
            // Blocks of a class that have been freed and not handed out since.
            let mut free = HashSet::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Allocate { cache, size, count } => {
                        let layout = Layout::from_size_align(size, 8).unwrap();
                        for _ in 0..count {
                            let block = caches[cache].allocate(layout, &depot);
                            prop_assert!(addresses.insert(block), "a live block is handed out again");
                            free.remove(&block);
                            live.push(Live::new(block, layout, number as u8));
                        }
                    }
                    Step::Free { .. } if live.is_empty() => {}
                    Step::Free { cache, place, count } => {
                        let begin = place.index(live.len());
                        for old in live.drain(begin..live.len().min(begin + count)) {
                            prop_assert!(old.is_intact(), "somebody wrote to a live block");
                            addresses.remove(&old.block);
                            if class_of(old.layout).is_some() {
                                free.insert(old.block);
                            }
                            // SAFETY: allocated above with the same layout.
                            unsafe { caches[cache].free(old.block, old.layout, &depot) };
                        }
                    }
                }
                let kept = kept(&caches, &depot);
                let distinct: HashSet<_> = kept.iter().copied().collect();
                prop_assert_eq!(distinct.len(), kept.len(), "a free block is kept twice");
                prop_assert!(distinct == free, "a free block is lost");
            }
            for old in live {
                prop_assert!(old.is_intact(), "somebody wrote to a live block");
                // SAFETY: allocated above with the same layout.
                unsafe { caches[0].free(old.block, old.layout, &depot) };
            }
        }
    }

    #[test]
    fn a_full_depot_refuses() {
        let (depot, cache) = (Depot::new(), BlockCache::new());
        let layout = Layout::from_size_align(1000, 8).unwrap();
        let class = class_of(layout).unwrap();
        let shelf = DEPOT_BYTES / class_layout(class).size().next_multiple_of(STEP_BYTES) / MAGAZINE;
        let count = kept_count(class) + (shelf + 3) * MAGAZINE;
        let blocks: Vec<_> = (0..count).map(|_| cache.allocate(layout, &depot)).collect();
        for block in blocks {
            // SAFETY: allocated above with the same layout.
            unsafe { cache.free(block, layout, &depot) };
        }
        assert_eq!(depot.lock(class).len(), shelf);
        assert_eq!(kept(std::slice::from_ref(&cache), &depot).len(), count - 3 * MAGAZINE);
    }
}
