//! What the bytes of a batch mean: its header, its records, and where each part of a frame travels.
//!
//! All numbers are little-endian. A batch is a header and records to its end; a record is
//!
//! | bytes | what |
//! |---|---|
//! | 4 | length of the inline header of the frame |
//! | 2 | number of descriptors |
//! | 2 | 1 if the first descriptor is the frame's header, which then is bulk; else 0 |
//! | 16 each | descriptors: length (8), checksum if it is bulk (4), log2 of the alignment, place (0 inline, 1 bulk), kind (0 host, 1 device, which is bulk), 0 |
//! | | the inline header, then the inline buffers |
//!
//! The invariant: what [`Record::read`] has accepted lies within the batch, and within the limits.

use std::ops::Range;

use crate::batch::Batch;
use crate::buffer::{Buffer, HostBuf, MOST_ALIGN};
use crate::frame::Frame;
use crate::limits::Limits;

/// The version of all that stands here and in `start.rs`.
pub(crate) const VERSION: u32 = 1;

pub(crate) const HEADER_BYTES: usize = 32;
pub(crate) const RECORD_BYTES: usize = 8;
const DESCRIPTOR_BYTES: usize = 16;
const MAGIC: u16 = 0xC4A7;

const HEADER_IS_BULK: u16 = 1;
const INLINE: u8 = 0;
const BULK: u8 = 1;
const KIND_HOST: u8 = 0;
const KIND_DEVICE: u8 = 1;
/// What memory is aligned to that comes from a device and does not go to one.
const DEVICE_ALIGN: usize = 256;

/// The batch carries a checksum, and so do the buffers that it announces.
pub(crate) const CHECKSUM: u8 = 1;
/// No frames come after this batch.
pub(crate) const FIN: u8 = 2;
/// Nothing comes after this batch.
pub(crate) const LAST: u8 = 4;
/// The sender ends the job; what follows the header is the reason.
pub(crate) const ABORT: u8 = 8;
/// The sender is kept back and wants to be told all that was taken.
pub(crate) const WANTS: u8 = 16;
const ALL_FLAGS: u8 = CHECKSUM | FIN | LAST | ABORT | WANTS;

/// What is wrong with what a peer has sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Less than a header, or less than the header says.
    #[error("it is truncated: {came} bytes came, and {wanted} were wanted")]
    Truncated {
        /// Bytes that should be there.
        wanted: u64,
        /// Bytes that are.
        came: u64,
    },
    /// The length in the header is not that of the message.
    #[error("its length is {came} bytes, and its header says {said}")]
    Length {
        /// What the header says.
        said: u64,
        /// What came.
        came: u64,
    },
    /// It does not begin as a batch of this version.
    #[error("it does not begin as a batch of protocol version {VERSION} does")]
    NoBatch,
    /// A field has a value without a meaning.
    #[error("a field has a value without a meaning ({0})")]
    Meaning(&'static str),
    /// The checksum is wrong.
    #[error("its checksum is wrong: bits have changed on the way")]
    Checksum,
    /// A batch is missing, or came twice.
    #[error("it is batch {came} of this peer's, and {expected} was expected")]
    Sequence {
        /// The next one.
        expected: u32,
        /// This one.
        came: u32,
    },
    /// A count or a length is over its limit.
    #[error("{what} is {came}, and the limit is {limit}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// What was said.
        came: u64,
        /// What is allowed.
        limit: u64,
    },
    /// It tells of more than was sent, or of less than before.
    #[error("it acknowledges what was not sent")]
    Credit,
    /// The peer had said that nothing comes any more.
    #[error("it came after the peer's last batch")]
    AfterEnd,
    /// A buffer is not as long as it was announced.
    #[error("a buffer of {came} bytes came, and {announced} were announced")]
    BufferLength {
        /// What was announced.
        announced: u64,
        /// What came.
        came: u64,
    },
    /// A buffer came that nothing has announced.
    #[error("a buffer came that was not announced")]
    Unannounced,
    /// There is no memory for a buffer.
    #[error("there is no memory for a buffer of {0} bytes that it announces")]
    Memory(u64),
}

impl Batch {
    /// Appends the record of a frame that is its header, inline.
    fn push_short(&mut self, header: &[u8]) {
        let place = self.extend(RECORD_BYTES + header.len());
        let (head, rest) = place.split_at_mut(RECORD_BYTES);
        // The lower half is the length, and there are no descriptors.
        head.copy_from_slice(&(header.len() as u64).to_le_bytes());
        rest.copy_from_slice(header);
    }

    /// Writes the header over the first bytes; the last thing before it is sent.
    #[inline(always)]
    pub(crate) fn seal(&mut self, header: &Header) {
        let memory = self.bytes_mut();
        let length = u32::try_from(memory.len()).expect("a batch is at most 1 GiB long");
        let head = memory.first_chunk_mut::<HEADER_BYTES>().expect("a batch has a header");
        head[..2].copy_from_slice(&MAGIC.to_le_bytes());
        head[2] = VERSION as u8;
        head[3] = header.flags;
        head[4..8].copy_from_slice(&header.sequence.to_le_bytes());
        head[8..16].copy_from_slice(&header.eager_taken.to_le_bytes());
        head[16..24].copy_from_slice(&header.bulk_taken.to_le_bytes());
        head[24..28].copy_from_slice(&length.to_le_bytes());
        head[28..].fill(0);
        if header.flags & CHECKSUM != 0 {
            let checksum = crc32fast::hash(memory);
            memory[28..HEADER_BYTES].copy_from_slice(&checksum.to_le_bytes());
        }
    }
}

/// The header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) flags: u8,
    pub(crate) sequence: u32,
    /// Of the receiver's batches, how many bytes the sender has taken so far.
    pub(crate) eager_taken: u64,
    /// Of the bulk that the receiver has announced, likewise.
    pub(crate) bulk_taken: u64,
}

impl Header {
    /// Reads and checks what can be checked without knowing the link.
    pub(crate) fn read(bytes: &[u8]) -> Result<Header, WireError> {
        let Some(head) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(WireError::Truncated { wanted: HEADER_BYTES as u64, came: bytes.len() as u64 });
        };
        if u16_at(head, 0) != MAGIC || u32::from(head[2]) != VERSION {
            return Err(WireError::NoBatch);
        }
        let flags = head[3];
        if flags & !ALL_FLAGS != 0 {
            return Err(WireError::Meaning("flags of a batch"));
        }
        let said = u64::from(u32_at(head, 24));
        if said != bytes.len() as u64 {
            return Err(WireError::Length { said, came: bytes.len() as u64 });
        }
        let checksum = u32_at(head, 28);
        if flags & CHECKSUM != 0 {
            let mut hasher = crc32fast::Hasher::new();
            hasher.update(&bytes[..28]);
            hasher.update(&[0; 4]);
            hasher.update(&bytes[HEADER_BYTES..]);
            if hasher.finalize() != checksum {
                return Err(WireError::Checksum);
            }
        } else if checksum != 0 {
            return Err(WireError::Meaning("a checksum where none is"));
        }
        Ok(Header {
            flags,
            sequence: u32_at(head, 4),
            eager_taken: u64_at(head, 8),
            bulk_taken: u64_at(head, 16),
        })
    }
}

/// What a batch without flags begins with.
const PLAIN: u32 = MAGIC as u32 | VERSION << 16;

/// A batch that brings one frame without buffers, and has no flags, as most have that answer something: told by a few comparisons.
pub(crate) struct Single<'a> {
    pub(crate) sequence: u32,
    pub(crate) eager_taken: u64,
    pub(crate) bulk_taken: u64,
    /// That of the frame.
    pub(crate) header: &'a [u8],
}

impl<'a> Single<'a> {
    /// None if it is another one, or none: [`Header::read`] and [`Record::read`] say more then.
    #[inline]
    pub(crate) fn read(bytes: &'a [u8]) -> Option<Single<'a>> {
        let (head, header) = bytes.split_first_chunk::<{ HEADER_BYTES + RECORD_BYTES }>()?;
        let is_plain = u32_at(head, 0) == PLAIN && u32_at(head, 28) == 0;
        let is_whole = u32_at(head, 24) as usize == bytes.len();
        // No descriptors, and nothing behind it.
        let is_single = u64_at(head, HEADER_BYTES) == header.len() as u64;
        (is_plain && is_whole && is_single).then(|| Single {
            sequence: u32_at(head, 4),
            eager_taken: u64_at(head, 8),
            bulk_taken: u64_at(head, 16),
            header,
        })
    }

    #[inline]
    pub(crate) fn batch_bytes(&self) -> u64 {
        (HEADER_BYTES + RECORD_BYTES + self.header.len()) as u64
    }
}

/// The least capacity of a batch in which a frame of so many buffers can at least announce them all.
pub(crate) fn least_batch_bytes(buffers: usize) -> usize {
    HEADER_BYTES + RECORD_BYTES + DESCRIPTOR_BYTES * (buffers + 1)
}

/// Where the parts of a frame travel, decided part by part: inline as long as it is short and fits a batch.
struct Placing {
    bytes: usize,
    most: usize,
    inline_bytes: usize,
}

impl Placing {
    fn new(frame: &Frame<'_>, limits: &Limits) -> Placing {
        let bytes = RECORD_BYTES + DESCRIPTOR_BYTES * frame.buffers.len();
        // A place is kept for the descriptor of a bulk header.
        let most = limits.batch_bytes - HEADER_BYTES - DESCRIPTOR_BYTES;
        Placing { bytes, most, inline_bytes: limits.inline_bytes }
    }

    fn takes(&mut self, buffer: &Buffer) -> bool {
        matches!(buffer, Buffer::Host(_)) && self.is_inline(buffer.len())
    }

    fn is_inline(&mut self, len: usize) -> bool {
        let is_inline = len == 0 || len <= self.inline_bytes && self.bytes + len <= self.most;
        self.bytes += if is_inline { len } else { 0 };
        is_inline
    }
}

/// The longest header of a frame without buffers that goes inline and may be sent.
pub(crate) fn most_inline(limits: &Limits) -> usize {
    let Placing { bytes, most, inline_bytes } = Placing::new(&Frame::default(), limits);
    let most = inline_bytes.min(most - bytes);
    most.min(usize::try_from(limits.frame_bytes).unwrap_or(usize::MAX))
}

/// What a frame needs of a batch and of the bulk window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) record_bytes: usize,
    pub(crate) bulk_cost: u64,
    is_short: bool,
}

impl Plan {
    /// That of a frame which is no more than a header of at most [`most_inline`].
    #[inline]
    pub(crate) fn short(header: &[u8]) -> Plan {
        Plan { record_bytes: RECORD_BYTES + header.len(), bulk_cost: 0, is_short: true }
    }

    /// That of any other.
    pub(crate) fn of(frame: &Frame<'_>, limits: &Limits) -> Plan {
        let mut placing = Placing::new(frame, limits);
        let mut bulk_cost = 0;
        let mut descriptor = 0;
        if !placing.is_inline(frame.header.len()) {
            descriptor = DESCRIPTOR_BYTES;
            bulk_cost += limits.bulk_cost(frame.header.len() as u64);
        }
        for buffer in &frame.buffers {
            if !placing.takes(buffer) {
                bulk_cost += limits.bulk_cost(buffer.len() as u64);
            }
        }
        Plan { record_bytes: placing.bytes + descriptor, bulk_cost, is_short: false }
    }
}

/// Appends the record of a frame, of which this is the plan, to a batch that has room for it.
#[inline(always)]
pub(crate) fn push_record(batch: &mut Batch, frame: Frame<'_>, plan: Plan, limits: &Limits) {
    if plan.is_short {
        return batch.push_short(frame.header);
    }
    batch.cargo_mut().bulk_cost += plan.bulk_cost;
    let mut placing = Placing::new(&frame, limits);
    let header_is_inline = placing.is_inline(frame.header.len());
    let inline_len = if header_is_inline { frame.header.len() as u32 } else { 0 };
    let count = frame.buffers.len() + usize::from(!header_is_inline);
    let count = u16::try_from(count).expect("the limit of buffers is below that");
    let mut head = [0; RECORD_BYTES];
    head[..4].copy_from_slice(&inline_len.to_le_bytes());
    head[4..6].copy_from_slice(&count.to_le_bytes());
    head[6..].copy_from_slice(&(if header_is_inline { 0 } else { HEADER_IS_BULK }).to_le_bytes());
    batch.push(&head);
    if !header_is_inline {
        let header = HostBuf::copied(frame.header, 1);
        batch.push(&descriptor(header.as_bytes(), 1, BULK, limits.checksums));
        batch.cargo_mut().bulk.push(Buffer::Host(header));
    }
    let mut places = placing;
    let after_header = places.bytes;
    for buffer in &frame.buffers {
        let place = if places.takes(buffer) { INLINE } else { BULK };
        batch.push(&match buffer {
            Buffer::Host(memory) => {
                descriptor(memory.as_bytes(), memory.align().min(MOST_ALIGN), place, limits.checksums)
            }
            Buffer::Device(memory) => device_descriptor(memory.len()),
        });
    }
    batch.push(if header_is_inline { frame.header } else { &[] });
    places.bytes = after_header;
    for buffer in frame.buffers {
        match &buffer {
            Buffer::Host(memory) if places.takes(&buffer) => batch.push(memory.as_bytes()),
            _ => batch.cargo_mut().bulk.push(buffer),
        }
    }
}

fn device_descriptor(len: usize) -> [u8; DESCRIPTOR_BYTES] {
    let mut written = [0; DESCRIPTOR_BYTES];
    written[..8].copy_from_slice(&(len as u64).to_le_bytes());
    written[12] = DEVICE_ALIGN.trailing_zeros() as u8;
    written[13] = BULK;
    written[14] = KIND_DEVICE;
    written
}

fn descriptor(bytes: &[u8], align: usize, place: u8, checksums: bool) -> [u8; DESCRIPTOR_BYTES] {
    let checksum = if checksums && place == BULK { crc32fast::hash(bytes) } else { 0 };
    let mut written = [0; DESCRIPTOR_BYTES];
    written[..8].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    written[8..12].copy_from_slice(&checksum.to_le_bytes());
    written[12] = align.trailing_zeros() as u8;
    written[13] = place;
    written[14] = KIND_HOST;
    written
}

/// A record that has been checked, by its places in the batch.
#[derive(Debug)]
pub(crate) struct Record {
    /// The inline header; empty if it is bulk.
    pub(crate) header: Range<usize>,
    pub(crate) header_is_bulk: bool,
    pub(crate) count: usize,
    descriptors: usize,
    /// Where the next record begins.
    pub(crate) end: usize,
    /// What its bulk takes of the window; 0 if there is none.
    pub(crate) bulk_cost: u64,
}

/// A part of a frame that has a descriptor.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) len: usize,
    pub(crate) align: usize,
    /// Of memory of the host.
    pub(crate) checksum: Option<u32>,
    /// Where it lies in the batch, if it is inline.
    pub(crate) inline: Option<Range<usize>>,
}

impl Record {
    /// Reads the record at `at`, and checks all of it.
    pub(crate) fn read(bytes: &[u8], at: usize, limits: &Limits) -> Result<Record, WireError> {
        let need = |end: usize| {
            let truncated = WireError::Truncated { wanted: end as u64, came: bytes.len() as u64 };
            if end <= bytes.len() { Ok(()) } else { Err(truncated) }
        };
        need(at + RECORD_BYTES)?;
        let descriptors = at + RECORD_BYTES;
        let head = u64_at(bytes, at);
        if let Ok(header_len) = u32::try_from(head) {
            let end = descriptors + header_len as usize;
            check("the length of a frame", header_len.into(), limits.frame_bytes)?;
            need(end)?;
            let header = descriptors..end;
            return Ok(Record { header, header_is_bulk: false, count: 0, descriptors, end, bulk_cost: 0 });
        }
        let header_len = head as u32 as usize;
        let count = usize::from((head >> 32) as u16);
        let header_is_bulk = match (head >> 48) as u16 {
            0 => false,
            HEADER_IS_BULK if header_len == 0 && count > 0 => true,
            _ => return Err(WireError::Meaning("flags of a frame")),
        };
        let buffers = count - usize::from(header_is_bulk);
        check("the number of buffers of a frame", buffers as u64, limits.buffers as u64)?;
        let header = descriptors + DESCRIPTOR_BYTES * count;
        let mut end = header + header_len;
        need(end)?;
        let (mut frame_bytes, mut bulk_cost) = (header_len as u64, 0);
        for index in 0..count {
            let at = descriptors + DESCRIPTOR_BYTES * index;
            let (len, place) = (u64_at(bytes, at), bytes[at + 13]);
            check("the length of a buffer", len, limits.frame_bytes)?;
            if 1_usize.checked_shl(bytes[at + 12].into()).is_none_or(|align| align > MOST_ALIGN) {
                return Err(WireError::Meaning("the alignment of a buffer"));
            }
            let is_kind = match bytes[at + 14] {
                KIND_HOST => place <= BULK,
                KIND_DEVICE => place == BULK && len > 0 && !(index == 0 && header_is_bulk),
                _ => false,
            };
            if !is_kind || bytes[at + 15] != 0 {
                return Err(WireError::Meaning("the kind of a buffer"));
            }
            // No overflow: 65,536 times 64 TiB are fewer than 64 bits.
            frame_bytes += len;
            if place == BULK {
                bulk_cost += limits.bulk_cost(len);
            } else if index == 0 && header_is_bulk {
                return Err(WireError::Meaning("the place of a header"));
            } else {
                check("the length of an inline buffer", len, limits.batch_bytes as u64)?;
                end += len as usize;
            }
        }
        check("the length of a frame", frame_bytes, limits.frame_bytes)?;
        need(end)?;
        Ok(Record { header: header..header + header_len, header_is_bulk, count, descriptors, end, bulk_cost })
    }

    /// Its parts, in order; `bytes` are those that it was read from.
    pub(crate) fn parts<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = Part> + use<'b> {
        let (descriptors, mut inline) = (self.descriptors, self.header.end);
        (0..self.count).map(move |index| {
            let at = descriptors + DESCRIPTOR_BYTES * index;
            let len = u64_at(bytes, at) as usize;
            let here = (bytes[at + 13] == INLINE).then_some(inline..inline + len);
            inline += here.as_ref().map_or(0, Range::len);
            let checksum = (bytes[at + 14] == KIND_HOST).then(|| u32_at(bytes, at + 8));
            Part { len, align: 1 << bytes[at + 12], checksum, inline: here }
        })
    }
}

pub(crate) fn check(what: &'static str, came: u64, limit: u64) -> Result<(), WireError> {
    if came <= limit { Ok(()) } else { Err(WireError::Limit { what, came, limit }) }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}
