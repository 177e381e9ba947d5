//! Size classes, and the free memory of one device, or of the host for a set of devices, kept by class.
//!
//! Invariant: every block of a class has exactly the class's size, so a block returned can serve any later
//! request of its class. `live_bytes` counts what is handed out, `cached_bytes` what waits here; their sum
//! never passes the capacity.

use crate::backend::{Backend, Block, Fresh};

/// The smallest class, and the granularity of the small ones.
const MIN_BLOCK_BYTES: usize = 256;

/// Classes per doubling: at most a fifth of a block is waste.
const STEPS: usize = 4;

/// The size of the class that serves `bytes`, or `None` if there is no such class.
pub(crate) fn class_bytes(bytes: usize) -> Option<usize> {
    if bytes <= MIN_BLOCK_BYTES * STEPS {
        return Some(bytes.max(1).next_multiple_of(MIN_BLOCK_BYTES));
    }
    bytes.checked_next_multiple_of(1 << (bytes.ilog2() - STEPS.ilog2()))
}

/// Where a pool gets its blocks from.
pub(crate) trait Source {
    /// New memory of `bytes` (a multiple of 256) bytes; `None` if there is none.
    fn allocate(&self, bytes: usize) -> Option<Fresh>;

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `block` came from [`allocate`](Self::allocate) with the same `bytes`, and nobody uses it.
    unsafe fn release(&self, block: Block, bytes: usize);
}

/// The memory of a device: its backend, and its ordinal there.
pub(crate) struct DeviceMemory<'a>(pub(crate) &'a dyn Backend, pub(crate) usize);

impl Source for DeviceMemory<'_> {
    fn allocate(&self, bytes: usize) -> Option<Fresh> {
        self.0.allocate(self.1, bytes)
    }

    unsafe fn release(&self, block: Block, bytes: usize) {
        // SAFETY: the caller promises what this asks.
        unsafe { self.0.release(self.1, block, bytes) };
    }
}

/// The free blocks of one source, and how much of it is in use.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// Free blocks by class size. Few classes are in use at once, so a sorted vector is searched.
    classes: Vec<(usize, Vec<Block>)>,
    live_bytes: usize,
    cached_bytes: usize,
}

impl Pool {
    /// Bytes handed out.
    pub(crate) fn live_bytes(&self) -> usize {
        self.live_bytes
    }

    /// Takes a block of class size `bytes`. `None` if the capacity or the source does not allow it.
    pub(crate) fn take(
        &mut self,
        bytes: usize,
        capacity_bytes: u64,
        source: &(impl Source + ?Sized),
    ) -> Option<Fresh> {
        if let Ok(index) = self.classes.binary_search_by_key(&bytes, |class| class.0)
            && let Some(block) = self.classes[index].1.pop()
        {
            self.cached_bytes -= bytes;
            self.live_bytes += bytes;
            return Some(Fresh { block, is_zeroed: false });
        }
        let wanted = |held: usize| held as u64 + bytes as u64;
        if wanted(self.live_bytes + self.cached_bytes) > capacity_bytes {
            self.trim(source);
        }
        if wanted(self.live_bytes) > capacity_bytes {
            return None;
        }
        let fresh = source.allocate(bytes).or_else(|| {
            self.trim(source);
            source.allocate(bytes)
        })?;
        self.live_bytes += bytes;
        Some(fresh)
    }

    /// Takes back a block of class size `bytes` that [`take`](Self::take) handed out and nobody uses any
    /// more.
    pub(crate) fn give(&mut self, block: Block, bytes: usize) {
        self.live_bytes -= bytes;
        self.cached_bytes += bytes;
        match self.classes.binary_search_by_key(&bytes, |class| class.0) {
            Ok(index) => self.classes[index].1.push(block),
            Err(index) => self.classes.insert(index, (bytes, vec![block])),
        }
    }

    /// Gives all free blocks back.
    pub(crate) fn trim(&mut self, source: &(impl Source + ?Sized)) {
        for (bytes, blocks) in self.classes.drain(..) {
            for block in blocks {
                // SAFETY: the block came from `allocate` of this source with this size, and nobody uses it.
                unsafe { source.release(block, bytes) };
            }
        }
        self.cached_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_close_and_ordered() {
        let mut last = 0;
        for bytes in 0..100_000 {
            let class = class_bytes(bytes).unwrap();
            assert!(
                class >= bytes && class >= last && class.is_multiple_of(MIN_BLOCK_BYTES),
                "{bytes} -> {class}"
            );
            assert!(class <= (bytes + bytes / STEPS).max(bytes + MIN_BLOCK_BYTES), "{bytes} -> {class}");
            assert_eq!(class_bytes(class), Some(class));
            last = class;
        }
        assert_eq!(class_bytes(1 << 20), Some(1 << 20));
        assert_eq!(class_bytes(usize::MAX), None);
    }
}
