//! Device memory that comes in pieces, for a message that comes after them: the receiver's half of [`pipeline`](super::pipeline), where the argument is.
//!
//! Memory for a piece is made when it is announced: pinned, if the device that the message's PE uses first is one that copies from pinned memory; else the network makes
//! ordinary memory. When the first piece of a share has come, memory for all of it is taken on that device, unless there is little room; from then on each piece is given to the
//! device as it comes. Where there is no room, or devices use the host's memory, the pieces are put together in the host's memory, as what was staged whole comes: who uses it first has it
//! copied then.
//!
//! The sender is told that a piece is in its place by a token that is dropped with the pinned memory, so in any case once.
//!
//! Invariant: nothing is made for a share before its first piece has come, and what is made in the host's memory is not longer than what has come.

use std::sync::{Arc, Mutex, Weak};

use chare_device::{__Filling as Filling, HostVec};
use chare_transport::{Buffer, DeviceBuf, HostBuf, Rank};
use rustc_hash::FxHashMap;

use super::note::Note;
use super::pipeline::{PIECE_BYTES, Piece};
use super::{PIECE, straight};
use crate::process::{Shared, lock};
use crate::scheduler::pe::Pe;
use crate::wire::{Beside, Decoder, Spoiled, WireError};

/// The shares whose message has not come.
#[derive(Default)]
pub(super) struct Coming(Mutex<FxHashMap<(Rank, u64), Share>>);

struct Share {
    len_bytes: u64,
    came_bytes: u64,
    place: Place,
}

/// Where the pieces go.
enum Place {
    Device(Filling),
    Host(Vec<u8>),
    /// Nowhere any more, for this reason.
    Nowhere(String),
}

/// Tells the sender, when it is dropped, that a piece is in its place.
struct Token {
    shared: Weak<Shared>,
    sender: Rank,
    pe: u32,
}

impl Drop for Token {
    fn drop(&mut self) {
        let shared = self.shared.upgrade();
        if let Some(job) = shared.as_ref().and_then(|shared| shared.job()) {
            job.tell(self.sender, &Note::Taken(self.pe));
        }
    }
}

/// Whether a frame with this header brings a piece.
pub(super) fn is_piece(header: &[u8]) -> bool {
    header.first_chunk() == Some(&PIECE.to_le_bytes())
}

/// The first device of the PE of this process that has this number; of another number, that of the first PE.
pub(super) fn device_of(shared: &Shared, number: u32) -> Option<usize> {
    let number = if (number as usize) < shared.own_pe_count() { number as usize } else { 0 };
    shared.devices().of_pe(number).first().copied()
}

/// Memory for a piece that is announced; none if it may come anywhere.
pub(super) fn make_room(shared: &Shared, len: usize) -> Option<DeviceBuf> {
    let devices = shared.devices();
    let is_wanted = (1..=PIECE_BYTES).contains(&len) && !devices.are_host_memory() && !shared.is_stopping();
    is_wanted.then(|| devices.pinned(len)).flatten().map(straight::of_pinned)
}

impl Coming {
    /// Takes a piece that has come.
    pub(super) fn take_in(&self, pe: &Pe, sender: Rank, mut decoder: Decoder<'_>) -> Result<(), WireError> {
        let piece: Piece = decoder.take()?;
        let bytes =
            decoder.take_buffer()?.into_host().ok_or_else(|| WireError::new("a piece is no memory"))?;
        decoder.end()?;
        let key = (sender, piece.share);
        // Nobody has the table while an operation is enqueued: that may end others, and wake somebody.
        let known = lock(&self.0).remove(&key);
        let mut share = match known {
            Some(share) => share,
            None if piece.at_bytes == 0 => Share::begin(pe.shared(), &piece),
            None => return Err(WireError::new("it brings a piece of a share that was not begun")),
        };
        let (len, left) = (bytes.len() as u64, share.len_bytes - share.came_bytes);
        let is_next = piece.at_bytes == share.came_bytes && piece.len_bytes == share.len_bytes;
        if !is_next || len != left.min(PIECE_BYTES as u64) || len == 0 {
            return Err(WireError::new("a piece is not the next one of its share"));
        }
        let token = Token { shared: Arc::downgrade(pe.shared()), sender, pe: piece.from };
        share.came_bytes += len;
        share.place.put(pe.shared(), bytes, token)?;
        lock(&self.0).insert(key, share);
        Ok(())
    }

    /// What has come under this number, for the message that says so; nothing of it is kept if it is spoiled.
    pub(super) fn take(&self, sender: Rank, id: u64, spoiled: Option<Spoiled>) -> Result<Beside, WireError> {
        let share = lock(&self.0).remove(&(sender, id));
        let share = share.ok_or_else(|| WireError::new("it has a share that did not come"))?;
        if let Some(spoiled) = spoiled {
            return Ok(Beside::Spoiled(spoiled));
        }
        if share.came_bytes < share.len_bytes {
            return Err(WireError::new("it has a share of which pieces did not come"));
        }
        Ok(match share.place {
            Place::Device(filling) => Beside::Arrived(filling.arrived()),
            Place::Host(bytes) => bytes.into(),
            Place::Nowhere(why) => Beside::Spoiled(Spoiled { why, is_told: false }),
        })
    }

    /// Forgets all, when nothing comes any more.
    pub(super) fn clear(&self) {
        let shares = std::mem::take(&mut *lock(&self.0));
        drop(shares);
    }
}

impl Share {
    fn begin(shared: &Shared, piece: &Piece) -> Self {
        let devices = shared.devices();
        let filling = || {
            let len_bytes = usize::try_from(piece.len_bytes).ok()?;
            devices.filling(device_of(shared, piece.to)?, &piece.extents, len_bytes)
        };
        let filling = if devices.are_host_memory() { None } else { filling() };
        let place = filling.map_or_else(|| Place::Host(Vec::new()), Place::Device);
        Share { len_bytes: piece.len_bytes, came_bytes: 0, place }
    }
}

impl Place {
    fn put(&mut self, shared: &Shared, bytes: Buffer, token: Token) -> Result<(), WireError> {
        let came = Came::of(bytes)?;
        match self {
            Place::Host(all) => all.extend_from_slice(came.bytes()),
            Place::Device(filling) => {
                let put = match came.into_pinned(shared) {
                    Some(pinned) => filling.put(pinned, Box::new(token)).map_err(|error| error.to_string()),
                    None => Err("there is no pinned memory for it".to_owned()),
                };
                if let Err(why) = put {
                    *self = Place::Nowhere(why);
                }
            }
            Place::Nowhere(_) => {}
        }
        Ok(())
    }
}

/// The bytes of a piece, as they have come.
enum Came {
    Pinned(HostVec<u8>),
    Plain(HostBuf),
}

impl Came {
    fn of(buffer: Buffer) -> Result<Self, WireError> {
        match buffer {
            Buffer::Device(memory) => match memory.into_owner().downcast() {
                Ok(pinned) => Ok(Came::Pinned(*pinned)),
                Err(_) => Err(WireError::new("a piece is in nobody's memory")),
            },
            Buffer::Host(bytes) => Ok(Came::Plain(bytes)),
            _ => Err(WireError::new("a piece is in memory of an unknown kind")),
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Came::Pinned(bytes) => bytes,
            Came::Plain(bytes) => bytes.as_bytes(),
        }
    }

    fn into_pinned(self, shared: &Shared) -> Option<HostVec<u8>> {
        match self {
            Came::Pinned(bytes) => Some(bytes),
            Came::Plain(bytes) => {
                let mut pinned = shared.devices().pinned(bytes.len())?;
                pinned.copy_from_slice(bytes.as_bytes());
                Some(pinned)
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::wire::Encoder;
    use crate::{Options, Runtime, current};

    const LEN: u64 = PIECE_BYTES as u64 + 8;

    /// Gives so many bytes of a share to who takes pieces in: from a place on, of so many.
    fn give(coming: &Coming, share: u64, [at_bytes, count, len_bytes]: [u64; 3]) -> Result<(), WireError> {
        let piece =
            Piece { from: 0, to: 7, share, len_bytes, extents: vec![len_bytes as usize / 8], at_bytes };
        let mut encoder = Encoder::default();
        encoder.put_own(&piece);
        let beside = vec![Beside::from(vec![at_bytes as u8; count as usize])];
        current::on_pe("a test", |pe| coming.take_in(pe, Rank(1), Decoder::new(&encoder.bytes, beside)))
    }

    #[test]
    fn pieces_are_checked_and_none_is_missing() {
        for device in ["host:inline", "host:polled", "host:polled:mem=640KiB"] {
            let options = Options::default().with_device(device.parse().expect("a device"));
            let report = Runtime::run(options, async move |_: Runtime| {
                let coming = Coming::default();
                let first = PIECE_BYTES as u64;
                for wrong in [
                    [8, 8, LEN],
                    [0, first - 8, LEN],
                    [0, first + 8, LEN],
                    [0, 0, LEN],
                    [0, 16, 8],
                    [0, 0, 0],
                ] {
                    assert!(give(&coming, 1, wrong).is_err(), "{wrong:?}");
                }
                for wrong in [[first, 16, LEN], [first, 8, LEN + 8], [first + 8, 8, LEN], [0, first, LEN]] {
                    give(&coming, 2, [0, first, LEN]).expect("it is the first one");
                    assert!(coming.take(Rank(2), 2, None).is_err(), "it is another process's");
                    assert!(give(&coming, 2, wrong).is_err(), "{wrong:?}");
                    assert!(coming.take(Rank(1), 2, None).is_err(), "it was wrong");
                }
                give(&coming, 3, [0, first, LEN]).expect("it is the first one");
                assert!(coming.take(Rank(1), 3, None).is_err(), "one is missing");
                for spoiled in [true, false] {
                    give(&coming, 4, [0, first, LEN]).expect("it is the first one");
                    give(&coming, 4, [first, 8, LEN]).expect("it is the last one");
                    let why = || Spoiled { why: "it has failed".to_owned(), is_told: true };
                    let came = coming.take(Rank(1), 4, spoiled.then(why)).expect("all have come");
                    match came {
                        Beside::Spoiled(_) => assert!(spoiled),
                        Beside::Arrived(_) => assert!(!spoiled && device == "host:polled"),
                        Beside::Host(bytes) => {
                            assert!(!spoiled && device != "host:polled" && bytes.len() as u64 == LEN);
                        }
                        other => panic!("{other:?} is not what has come"),
                    }
                    assert!(coming.take(Rank(1), 4, None).is_err(), "it has been taken");
                }
            });
            let report = report.expect("the host device is always there");
            assert!(report.is_success(), "{report}");
        }
    }

    #[test]
    fn whatever_is_said_of_a_piece_is_no_panic() {
        for device in ["host:inline", "host:polled"] {
            let options = Options::default().with_device(device.parse().expect("a device"));
            let report = Runtime::run(options, async move |_: Runtime| {
                let piece =
                    Piece { from: 0, to: 0, share: 1, len_bytes: 96, extents: vec![3, 4], at_bytes: 0 };
                let mut encoder = Encoder::default();
                encoder.put_own(&piece);
                let said = encoder.bytes;
                let cut = (0..said.len()).map(|len| said[..len].to_vec());
                let flipped = (0..said.len() * 8).map(|bit| {
                    let mut said = said.clone();
                    said[bit / 8] ^= 1 << (bit % 8);
                    said
                });
                // Numbers as large as they can be, where each of them stands.
                let huge = (0..said.len()).map(|place| {
                    let number = [&[0xFF; 9][..], &[1]].concat();
                    [&said[..place], &number, &said[place + 1..]].concat()
                });
                let mut taken = 0;
                for said in [said.clone()].into_iter().chain(cut).chain(flipped).chain(huge) {
                    let coming = Coming::default();
                    let beside = vec![Beside::from(vec![7_u8; 96])];
                    let came = current::on_pe("a test", |pe| {
                        coming.take_in(pe, Rank(1), Decoder::new(&said, beside))
                    });
                    if came.is_ok() {
                        taken += 1;
                        drop(coming.take(Rank(1), 1, None));
                    }
                }
                // It as it was, and what differs in whose it is, who has sent it, who it is for, or in its extents.
                assert!(taken > 1, "{taken}");
            });
            let report = report.expect("the host device is always there");
            assert!(report.is_success(), "{report}");
        }
    }
}
