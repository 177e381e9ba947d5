//! When launches begin and end, as the device notes it, where it can: two queries for each operation that is timed.
//!
//! A batch borrows a set of queries. Its passes write them; one command buffer more, behind the others, copies them to where
//! the batch's downloads are, so nobody waits for them beside the batch. What was not written is not copied: a driver may wait for it
//! for ever.

use std::time::Duration;

use wgpu::{
    BufferUsages, CommandEncoder, ComputePassTimestampWrites, QuerySet, QuerySetDescriptor, QueryType,
};

use super::driver::JOBS_PER_BATCH;
use super::errors::scoped;
use super::inbox::Shared;
use super::staging::{Chunk, Piece};

/// Two for each job.
const QUERIES: u32 = 2 * JOBS_PER_BATCH as u32;

/// The queries of one batch.
pub(super) struct Stamps {
    queries: QuerySet,
    resolved: wgpu::Buffer,
    /// Operations that have two of them, in the order in which they were recorded.
    count: u32,
    /// Where they will be when the batch is done.
    piece: Option<Piece>,
}

/// What a pass notes.
#[derive(Clone, Copy, Default)]
pub(super) struct Notes {
    /// The query that its beginning is noted in.
    begin: Option<u32>,
    /// The query that its end is noted in.
    end: Option<u32>,
}

impl Stamps {
    /// Makes some; `None` if there can be none.
    pub(super) fn new(shared: &Shared) -> Option<Stamps> {
        shared.tick_ns?;
        let descriptor = QuerySetDescriptor { label: None, ty: QueryType::Timestamp, count: QUERIES };
        let queries = scoped(&shared.device, || shared.device.create_query_set(&descriptor)).ok()?;
        let bytes = u64::from(QUERIES) * u64::from(wgpu::QUERY_SIZE);
        let usage = BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC;
        let resolved = shared.make_buffer(bytes, usage, false).ok()?;
        Some(Stamps { queries, resolved, count: 0, piece: None })
    }

    /// How many operations have some.
    pub(super) fn count(&self) -> u32 {
        self.count
    }

    /// Takes the next two, for one operation more; `None` if there are no more.
    pub(super) fn take(&mut self) -> Option<Notes> {
        let first = 2 * self.count;
        self.count += u32::from(first < QUERIES);
        (first < QUERIES).then_some(Notes { begin: Some(first), end: Some(first + 1) })
    }

    /// Takes back those of operations beyond so many: their commands are not in the batch.
    pub(super) fn truncate(&mut self, count: u32) {
        self.count = self.count.min(count);
    }

    /// What a pass writes.
    pub(super) fn writes(&self, notes: Notes) -> Option<ComputePassTimestampWrites<'_>> {
        (notes.begin.is_some() || notes.end.is_some()).then_some(ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: notes.begin,
            end_of_pass_write_index: notes.end,
        })
    }

    /// The bytes of those that are written.
    pub(super) fn bytes(&self) -> u64 {
        2 * u64::from(self.count) * u64::from(wgpu::QUERY_SIZE)
    }

    /// Adds the copy of those that are written.
    pub(super) fn resolve(&self, encoder: &mut CommandEncoder, to: &Chunk, piece: Piece) {
        encoder.resolve_query_set(&self.queries, 0..2 * self.count, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &to.buffer, piece.offset, piece.bytes);
    }

    /// They will be there.
    pub(super) fn come_to(&mut self, piece: Piece) {
        self.piece = Some(piece);
    }

    /// Where they are, if they were copied.
    pub(super) fn piece(&self) -> Option<Piece> {
        self.piece
    }

    /// Nothing is noted any more.
    pub(super) fn clear(&mut self) {
        self.count = 0;
        self.piece = None;
    }
}

impl Notes {
    /// Those of one launch of several: the first one notes the beginning, and the last one the end.
    pub(super) fn of_step(self, is_first: bool, is_last: bool) -> Notes {
        Notes { begin: self.begin.filter(|_| is_first), end: self.end.filter(|_| is_last) }
    }
}

/// How long each operation took, from its two stamps; `None` where they say nothing, since clocks of devices may jump, and may be
/// coarser than a launch.
pub(super) fn times(stamps: &[u8], tick_ns: f64) -> Vec<Option<Duration>> {
    let stamps =
        stamps.chunks_exact(8).map(|bytes| u64::from_ne_bytes(bytes.try_into().expect("eight bytes")));
    let stamps: Vec<u64> = stamps.collect();
    let time = |pair: &[u64]| {
        let ticks = pair[1].checked_sub(pair[0]).filter(|&ticks| ticks > 0)?;
        Some(Duration::from_nanos((ticks as f64 * tick_ns) as u64))
    };
    stamps.chunks_exact(2).map(time).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamps_that_say_nothing_are_no_times() {
        let stamps: Vec<u8> = [100_u64, 140, 7, 7, 9, 8].into_iter().flat_map(u64::to_ne_bytes).collect();
        assert_eq!(times(&stamps, 2.5), [Some(Duration::from_nanos(100)), None, None]);
        assert_eq!(times(&[], 1.0), []);
    }

    #[test]
    fn a_step_notes_what_is_its_own() {
        let notes = Notes { begin: Some(4), end: Some(5) };
        let noted = |first, last| {
            let Notes { begin, end } = notes.of_step(first, last);
            (begin, end)
        };
        assert_eq!((noted(true, true), noted(false, true)), ((Some(4), Some(5)), (None, Some(5))));
        assert_eq!((noted(true, false), noted(false, false)), ((Some(4), None), (None, None)));
    }
}
