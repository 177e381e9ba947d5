//! Memory of batches.
//!
//! The invariant: a block is a [`Head`] and behind it as many bytes as that says, all of which have been written at least once.

use std::alloc::{self, Layout};
use std::fmt;
use std::mem;
use std::ptr::NonNull;
use std::slice;

use crate::buffer::Buffer;
use crate::wire::HEADER_BYTES;

/// Memory of one batch: a fixed capacity, how much of it is used, and what goes with it.
///
/// It is one pointer, since it goes through many queues, and may be moved while a network reads or writes its memory. Behind that all is in one
/// block, so a short batch touches two lines of the cache, next to each other, on one page.
pub struct Batch {
    head: NonNull<Head>,
}

/// What is known of a batch. It fills a line of the cache, and the bytes begin with the next one.
#[repr(C, align(64))]
struct Head {
    capacity: usize,
    len: usize,
    cargo: Cargo,
}

/// What a batch that waits to be sent brings with it.
#[derive(Debug, Default)]
pub(crate) struct Cargo {
    /// What its records announce.
    pub(crate) bulk: Vec<Buffer>,
    /// What that takes of the bulk window.
    pub(crate) bulk_cost: u64,
    /// What the batch counts for in its lane.
    pub(crate) queued_bytes: u64,
}

// SAFETY: a `Batch` owns its block, which is bytes and what may be sent.
unsafe impl Send for Batch {}

impl Batch {
    /// An empty batch: its header, not written yet.
    pub(crate) fn new(capacity: usize) -> Batch {
        let capacity = capacity.max(HEADER_BYTES);
        let layout = layout(capacity);
        // Of so aligned a block allocators write each byte, and here that is wanted: where the system had given no more memory than short batches
        // touch, a message took 25 ns more (366 against 340, in turns).
        // SAFETY: the layout is not empty.
        let block = unsafe { alloc::alloc_zeroed(layout) };
        let Some(head) = NonNull::new(block.cast::<Head>()) else { alloc::handle_alloc_error(layout) };
        // SAFETY: the block begins with room for it.
        unsafe { head.write(Head { capacity, len: HEADER_BYTES, cargo: Cargo::default() }) };
        Batch { head }
    }

    #[inline(always)]
    fn head(&self) -> &Head {
        // SAFETY: written by `new`, and ours.
        unsafe { self.head.as_ref() }
    }

    #[inline(always)]
    fn head_mut(&mut self) -> &mut Head {
        // SAFETY: written by `new`, and ours.
        unsafe { self.head.as_mut() }
    }

    /// The bytes that are used.
    #[inline(always)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: they lie behind the head, have been written, and are no more than there are (`set_len`).
        unsafe { slice::from_raw_parts(self.head.add(1).cast().as_ptr(), self.head().len) }
    }

    /// The bytes that are used, to be written.
    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.head().len;
        &mut self.memory_mut()[..len]
    }

    /// The whole memory, for a network that receives into it.
    #[inline(always)]
    pub fn memory_mut(&mut self) -> &mut [u8] {
        // SAFETY: they lie behind the head, and have been written.
        unsafe { slice::from_raw_parts_mut(self.head.add(1).cast().as_ptr(), self.head().capacity) }
    }

    #[inline(always)]
    pub(crate) fn cargo(&self) -> &Cargo {
        &self.head().cargo
    }

    #[inline(always)]
    pub(crate) fn cargo_mut(&mut self) -> &mut Cargo {
        &mut self.head_mut().cargo
    }

    /// What its records announce, which goes after it.
    pub(crate) fn take_bulk(&mut self) -> Vec<Buffer> {
        mem::take(&mut self.cargo_mut().bulk)
    }

    /// Says how many bytes of the memory are used.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub fn set_len(&mut self, len: usize) {
        let head = self.head_mut();
        assert!(len <= head.capacity, "a batch is no longer than its memory");
        head.len = len;
    }

    pub(crate) fn clear(&mut self) {
        let Head { len, cargo: Cargo { bulk, bulk_cost, queued_bytes }, .. } = self.head_mut();
        if !bulk.is_empty() {
            bulk.clear();
        }
        (*len, *bulk_cost, *queued_bytes) = (HEADER_BYTES, 0, 0);
    }

    pub(crate) fn has_records(&self) -> bool {
        self.head().len > HEADER_BYTES
    }

    pub(crate) fn capacity(&self) -> usize {
        self.head().capacity
    }

    #[inline(always)]
    pub(crate) fn has_room(&self, bytes: usize) -> bool {
        let Head { capacity, len, .. } = self.head();
        capacity - len >= bytes
    }

    /// The next so many bytes of the memory, which are used from now on.
    ///
    /// # Panics
    /// If there are not so many.
    #[inline(always)]
    pub(crate) fn extend(&mut self, count: usize) -> &mut [u8] {
        let begin = self.head().len;
        let end = begin + count;
        self.set_len(end);
        &mut self.memory_mut()[begin..end]
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.extend(bytes.len()).copy_from_slice(bytes);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let layout = layout(self.capacity());
        // SAFETY: `new` has allocated the block with this layout, and written the head; nobody has either any more.
        unsafe {
            self.head.drop_in_place();
            alloc::dealloc(self.head.cast().as_ptr(), layout);
        }
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} of {} bytes, {:?})", self.head().len, self.capacity(), self.cargo())
    }
}

/// That of a block.
fn layout(capacity: usize) -> Layout {
    let bytes = Layout::array::<u8>(capacity).expect("a batch is at most 1 GiB long");
    let (layout, begin) = Layout::new::<Head>().extend(bytes).expect("a batch is at most 1 GiB long");
    debug_assert_eq!(begin, size_of::<Head>(), "the bytes are where they are looked for");
    layout
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::buffer::DeviceBuf;

    #[test]
    fn bytes_are_added_up_to_the_capacity() {
        let mut batch = Batch::new(HEADER_BYTES + 5);
        assert!(!batch.has_records() && batch.has_room(5) && !batch.has_room(6));
        batch.push(&[1, 2]);
        batch.extend(3).copy_from_slice(&[3, 4, 5]);
        assert_eq!(batch.bytes()[HEADER_BYTES..], [1, 2, 3, 4, 5]);
        assert!(batch.has_records() && !batch.has_room(1));
        assert_eq!(batch.bytes().as_ptr().addr() % 64, 0, "they begin on a line");
        batch.clear();
        assert_eq!((batch.bytes().len(), batch.capacity()), (HEADER_BYTES, HEADER_BYTES + 5));
        assert_eq!(batch.memory_mut()[HEADER_BYTES..], [1, 2, 3, 4, 5], "nothing is written in vain");
    }

    #[test]
    fn there_is_room_for_a_header_at_least() {
        assert_eq!(Batch::new(0).capacity(), HEADER_BYTES);
    }

    #[test]
    #[should_panic(expected = "no longer than its memory")]
    fn more_than_there_is_room_for_is_refused() {
        Batch::new(HEADER_BYTES).push(&[1]);
    }

    #[test]
    #[should_panic(expected = "no longer than its memory")]
    fn no_more_can_have_come_than_there_is_room_for() {
        Batch::new(HEADER_BYTES).set_len(HEADER_BYTES + 1);
    }

    #[test]
    fn what_goes_with_it_ends_with_it() {
        let owner = Arc::new(());
        let mut memory = 0_u8;
        let mut buffer = || {
            // SAFETY: nobody reads or writes there.
            unsafe { DeviceBuf::new(NonNull::from(&mut memory), 1, Box::new(owner.clone())) }
        };
        let mut batch = Batch::new(100);
        batch.cargo_mut().bulk.push(buffer().into());
        batch.clear();
        assert_eq!(Arc::strong_count(&owner), 1);
        batch.cargo_mut().bulk.push(buffer().into());
        let moved = batch;
        assert_eq!(Arc::strong_count(&owner), 2);
        drop(moved);
        assert_eq!(Arc::strong_count(&owner), 1);
    }
}
