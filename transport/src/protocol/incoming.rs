//! What a process receives from one peer: frames in order, each when all of it is here.

use std::cell::Cell;
use std::collections::VecDeque;
use std::ops::Range;

use crate::batch::Batch;
use crate::buffer::{Buffer, HostBuf};
use crate::frame::{Frame, Rank};
use crate::limits::Limits;
use crate::network::FreeBatches;
use crate::wire::{self, Header, Part, Record, Single, WireError};

use super::Sink;

/// Has a part received under a name, into memory for it. The header of its frame, if that came with it, may say where.
pub(super) type Receive<'r> = dyn FnMut(u64, &Part, &[u8]) -> Result<(), WireError> + 'r;

/// The receiving half of a link.
#[derive(Default)]
pub(super) struct Incoming {
    expected: u32,
    eager_came: u64,
    eager_taken: u64,
    bulk_came: u64,
    bulk_taken: u64,
    /// What the peer knows of the two that were taken.
    told: Cell<(u64, u64)>,
    /// The peer wants to be told.
    is_asked: Cell<bool>,
    /// The name of the next buffer.
    next_id: u64,
    /// Frames that are not complete, or come after one that is not; their batches, oldest first.
    held: VecDeque<Held>,
    batches: VecDeque<HeldBatch>,
    has_fin: bool,
    has_last: bool,
}

struct HeldBatch {
    batch: Batch,
    frames_left: usize,
}

/// A frame that waits.
struct Held {
    /// Of the oldest batch when its turn comes; none if the header is the first slot.
    header: Option<Range<usize>>,
    slots: Vec<Slot>,
    missing: usize,
    /// The names of its bulk parts begin here.
    first_id: u64,
    /// And end before this.
    end_id: u64,
    bulk_cost: u64,
    /// Whether its bulk carries checksums.
    checksums: bool,
}

enum Slot {
    Here(Buffer),
    Coming { id: u64, len: usize, checksum: Option<u32> },
}

impl Incoming {
    /// Checks that a batch is the next one.
    pub(super) fn expect(&mut self, header: &Header) -> Result<(), WireError> {
        if self.has_last {
            return Err(WireError::AfterEnd);
        }
        if header.sequence != self.expected {
            return Err(WireError::Sequence { expected: self.expected, came: header.sequence });
        }
        self.expected = self.expected.wrapping_add(1);
        Ok(())
    }

    /// Whether a batch is the next one, its frame may be given to the sink at once, and nothing has ended. Then it counts as come.
    #[inline]
    pub(super) fn takes(&mut self, single: &Single<'_>, limits: &Limits) -> bool {
        let takes = single.sequence == self.expected
            && !self.has_fin
            && self.held.is_empty()
            && single.header.len() as u64 <= limits.frame_bytes
            && single.batch_bytes() <= limits.eager_window_bytes;
        if takes {
            self.expected = self.expected.wrapping_add(1);
        }
        takes
    }

    /// A batch of so many bytes has come and been taken.
    #[inline]
    pub(super) fn note_taken(&mut self, bytes: usize) {
        self.eager_came += bytes as u64;
        self.eager_taken += bytes as u64;
    }

    /// The header of a batch to the peer, which tells it all that was taken so far.
    pub(super) fn header(&self, sequence: u32, flags: u8, checksums: bool) -> Header {
        self.told.set((self.eager_taken, self.bulk_taken));
        if self.held.is_empty() {
            self.is_asked.set(false);
        }
        let flags = flags | if checksums { wire::CHECKSUM } else { 0 };
        Header { flags, sequence, eager_taken: self.eager_taken, bulk_taken: self.bulk_taken }
    }

    /// Whether the peer must be told what was taken although nothing else is to be said.
    pub(super) fn must_tell(&self, limits: &Limits) -> bool {
        let (eager_told, bulk_told) = self.told.get();
        let (eager, bulk) = (self.eager_taken - eager_told, self.bulk_taken - bulk_told);
        !self.has_fin
            && (eager >= limits.eager_window_bytes / 4
                || bulk >= limits.bulk_window_bytes / 4
                || self.is_asked.get() && self.held.is_empty())
    }

    /// Whether all frames of the peer have been taken, and no more will come.
    pub(super) fn has_ended(&self) -> bool {
        self.has_fin && self.held.is_empty()
    }

    /// Whether nothing comes any more.
    pub(super) fn is_over(&self) -> bool {
        self.has_last
    }

    /// Takes a batch that was expected.
    #[expect(
        clippy::too_many_arguments,
        reason = "the parts of the engine that it uses, borrowed one by one"
    )]
    pub(super) fn take_batch(
        &mut self,
        from: Rank,
        header: &Header,
        batch: Batch,
        limits: &Limits,
        free: &mut FreeBatches,
        receive: &mut Receive<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), WireError> {
        let ends_now = header.flags & (wire::FIN | wire::LAST) != 0;
        if self.has_fin && (batch.has_records() || header.flags & wire::FIN != 0) {
            return Err(WireError::AfterEnd);
        }
        if header.flags & wire::WANTS != 0 {
            self.is_asked.set(true);
        }
        if batch.has_records() {
            self.eager_came += batch.bytes().len() as u64;
            let outstanding = self.eager_came - self.eager_taken;
            wire::check("the length of batches in flight", outstanding, limits.eager_window_bytes)?;
            let checksums = header.flags & wire::CHECKSUM != 0;
            self.take_records(from, checksums, batch, limits, free, receive, sink)?;
        } else {
            free.put(batch);
        }
        if ends_now {
            self.has_fin = true;
            self.has_last = header.flags & wire::LAST != 0;
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "as `take_batch`")]
    fn take_records(
        &mut self,
        from: Rank,
        checksums: bool,
        batch: Batch,
        limits: &Limits,
        free: &mut FreeBatches,
        receive: &mut Receive<'_>,
        sink: &mut Sink<'_>,
    ) -> Result<(), WireError> {
        let bytes = batch.bytes();
        let mut at = wire::HEADER_BYTES;
        let mut next = None;
        while at < bytes.len() {
            let record = Record::read(bytes, at, limits)?;
            if record.bulk_cost > 0 || !self.held.is_empty() {
                next = Some(record);
                break;
            }
            at = record.end;
            let mut buffers = Vec::new();
            if record.count > 0 {
                buffers.extend(record.parts(bytes).map(|part| inline(bytes, &part)));
            }
            sink(from, Frame { header: &bytes[record.header], buffers });
        }
        let mut frames_left = 0;
        while let Some(record) = next {
            self.hold(&record, bytes, checksums, limits, receive)?;
            frames_left += 1;
            next =
                if record.end < bytes.len() { Some(Record::read(bytes, record.end, limits)?) } else { None };
        }
        if frames_left == 0 {
            self.eager_taken += bytes.len() as u64;
            free.put(batch);
        } else {
            self.batches.push_back(HeldBatch { batch, frames_left });
        }
        Ok(())
    }

    fn hold(
        &mut self,
        record: &Record,
        bytes: &[u8],
        checksums: bool,
        limits: &Limits,
        receive: &mut Receive<'_>,
    ) -> Result<(), WireError> {
        let outstanding = self.bulk_came - self.bulk_taken;
        if record.bulk_cost > 0 && outstanding > 0 {
            let limit = limits.bulk_window_bytes;
            wire::check("the length of buffers in flight", outstanding + record.bulk_cost, limit)?;
        }
        let first_id = self.next_id;
        let mut slots = Vec::with_capacity(record.count);
        for part in record.parts(bytes) {
            slots.push(if part.inline.is_some() {
                Slot::Here(inline(bytes, &part))
            } else {
                let Part { len, checksum, .. } = part;
                let id = self.next_id;
                self.next_id += 1;
                receive(id, &part, &bytes[record.header.clone()])?;
                Slot::Coming { id, len, checksum }
            });
        }
        self.bulk_came += record.bulk_cost;
        self.held.push_back(Held {
            header: (!record.header_is_bulk).then(|| record.header.clone()),
            slots,
            missing: (self.next_id - first_id) as usize,
            first_id,
            end_id: self.next_id,
            bulk_cost: record.bulk_cost,
            checksums,
        });
        Ok(())
    }

    /// Takes a buffer that has come, and gives the sink what is complete now.
    pub(super) fn take_bulk(
        &mut self,
        from: Rank,
        id: u64,
        buffer: Buffer,
        free: &mut FreeBatches,
        sink: &mut Sink<'_>,
    ) -> Result<(), WireError> {
        let index = self.held.partition_point(|held| held.end_id <= id);
        let held = self.held.get_mut(index).filter(|held| held.first_id <= id);
        let held = held.ok_or(WireError::Unannounced)?;
        let waits = |slot: &&mut Slot| matches!(slot, Slot::Coming { id: waited, .. } if *waited == id);
        let slot = held.slots.iter_mut().find(waits).ok_or(WireError::Unannounced)?;
        if let Slot::Coming { len, checksum, .. } = *slot {
            if buffer.len() != len {
                return Err(WireError::BufferLength { announced: len as u64, came: buffer.len() as u64 });
            }
            if held.checksums
                && let (Buffer::Host(memory), Some(checksum)) = (&buffer, checksum)
                && crc32fast::hash(memory.as_bytes()) != checksum
            {
                return Err(WireError::Checksum);
            }
        }
        *slot = Slot::Here(buffer);
        held.missing -= 1;
        self.give_complete(from, free, sink);
        Ok(())
    }

    fn give_complete(&mut self, from: Rank, free: &mut FreeBatches, sink: &mut Sink<'_>) {
        while let Some(held) = self.held.pop_front_if(|held| held.missing == 0) {
            let mut buffers: Vec<Buffer> = held
                .slots
                .into_iter()
                .map(|slot| match slot {
                    Slot::Here(buffer) => buffer,
                    Slot::Coming { .. } => unreachable!("nothing is missing"),
                })
                .collect();
            let oldest = self.batches.front_mut().expect("a held frame has its batch");
            match held.header {
                Some(header) => sink(from, Frame { header: &oldest.batch.bytes()[header], buffers }),
                None => {
                    let Buffer::Host(header) = buffers.remove(0) else {
                        unreachable!("no header is a device's")
                    };
                    sink(from, Frame { header: header.as_bytes(), buffers });
                }
            }
            self.bulk_taken += held.bulk_cost;
            oldest.frames_left -= 1;
            if oldest.frames_left == 0 {
                let HeldBatch { batch, .. } = self.batches.pop_front().expect("it is the oldest");
                self.eager_taken += batch.bytes().len() as u64;
                free.put(batch);
            }
        }
    }
}

fn inline(bytes: &[u8], part: &Part) -> Buffer {
    let place = part.inline.clone().expect("an inline part has a place");
    Buffer::Host(HostBuf::copied(&bytes[place], part.align))
}
