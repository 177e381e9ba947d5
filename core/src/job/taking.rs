//! What comes from other processes: frames are read, and their messages are given to the PEs that they are for.

use chare_transport::{Frame, Rank};

use super::note::Note;
use super::staged::{self, Instead};
use super::{INSTEAD, NOTE, PACKED, PIECE, SPREAD, packed, pipeline};
use crate::caught;
use crate::ids::PeId;
use crate::message::Msg;
use crate::scheduler::pe::Pe;
use crate::wire::{self, Beside, Decoder, Label, WireError};

/// Takes a frame in that has come.
pub(crate) fn take_in(pe: &Pe, from: Rank, frame: Frame<'_>, to_queue: impl Fn(PeId) -> bool) {
    let shared = pe.shared();
    // What is decoded is the user's code.
    let taken = caught::catch(pe, || {
        if shared.is_stopping() {
            let note = Note::read(frame.header).filter(Note::is_of_the_end);
            note.into_iter().zip(shared.job()).for_each(|(note, job)| job.heed(shared, from, note));
            return Ok(());
        }
        match read(pe, from, frame)? {
            Came::Message(to, msg) => hand_over(pe, to, msg, &to_queue),
            Came::ForAll(messages) => {
                pe.near_pes().zip(messages).for_each(|(to, msg)| hand_over(pe, to, msg, &to_queue));
            }
            Came::Piece => {}
            Came::Note(note) => match (*note, shared.job()) {
                (Note::Taken(number), _) => pipeline::tell_taken(pe, from, number),
                (note, Some(job)) => job.heed(shared, from, note),
                (_, None) => {}
            },
        }
        Ok::<_, WireError>(())
    });
    let outcome = match taken {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        // Who is asked to do what has come may have failed, and not who has sent it.
        Err(panic) if panic.is_ours() => return pe.tell(&panic),
        Err(panic) => panic.to_string(),
    };
    shared.stop(wire::nonsense_of(from, &outcome));
}

/// Gives a message that has come to the PE that it is for.
#[inline(always)]
fn hand_over(pe: &Pe, to: PeId, msg: Msg, to_queue: impl Fn(PeId) -> bool) {
    if to_queue(to) {
        pe.traffic.taken.set(pe.traffic.taken.get() + 1);
        pe.sort_in(msg);
    } else {
        pe.shared().push(to, msg);
    }
}

/// What a frame brings.
pub(super) enum Came {
    Message(PeId, Msg),
    /// One for each PE of this process.
    ForAll(Vec<Msg>),
    /// Apart, since messages are far more and are moved with the room of the largest.
    Note(Box<Note>),
    /// Of device memory, which has been put where it belongs.
    Piece,
}

#[inline(always)]
pub(super) fn read(pe: &Pe, from: Rank, frame: Frame<'_>) -> Result<Came, WireError> {
    let Frame { header, buffers } = frame;
    // Most have none.
    let beside =
        if buffers.is_empty() { Vec::new() } else { buffers.into_iter().map(Beside::come).collect() };
    let mut decoder = Decoder::new(header, beside);
    decoder.rank = Some(from);
    let to = take_number(pe, from, &mut decoder)?;
    let Some(to) = pe.near_pes().nth(to as usize) else {
        return read_for_process(pe, from, to, header, decoder);
    };
    let msg = wire::decode_message(&mut decoder)?;
    decoder.end()?;
    Ok(Came::Message(to, msg))
}

/// What stands before a message, when what is not beside it is in its place.
#[inline(always)]
fn take_number(pe: &Pe, from: Rank, decoder: &mut Decoder<'_>) -> Result<u32, WireError> {
    let number = decoder.take_u32()?;
    if number != INSTEAD {
        return Ok(number);
    }
    staged::put_instead(pe, from, decoder)?;
    decoder.take_u32()
}

/// As `read`, of what is not for one PE.
#[cold]
#[inline(never)]
fn read_for_process(
    pe: &Pe,
    from: Rank,
    to: u32,
    header: &[u8],
    mut decoder: Decoder<'_>,
) -> Result<Came, WireError> {
    match to {
        PIECE => {
            let job = pe.shared().job();
            let job = job.ok_or_else(|| WireError::new("it is a piece, which none but jobs send"))?;
            job.coming.take_in(pe, from, decoder).map(|()| Came::Piece)
        }
        NOTE => {
            let note = Box::new(decoder.take()?);
            decoder.end()?;
            Ok(Came::Note(note))
        }
        SPREAD => pe.take_spread(header, decoder).map(Came::ForAll),
        PACKED => {
            packed::unpack(&mut decoder)?;
            let header = &header[header.len() - decoder.bytes_left()..];
            read_packed(pe, from, header, decoder)
        }
        _ => {
            let count = pe.near_pes().len();
            Err(WireError::new(format!("it is for PE {to} of this process, which has {count}")))
        }
    }
}

/// A message that was packed, with this header, which is for one PE or for all.
fn read_packed(pe: &Pe, from: Rank, header: &[u8], mut decoder: Decoder<'_>) -> Result<Came, WireError> {
    let to = take_number(pe, from, &mut decoder)?;
    if to == SPREAD {
        return pe.take_spread(header, decoder).map(Came::ForAll);
    }
    let to = pe.near_pes().nth(to as usize);
    let to = to.ok_or_else(|| WireError::new("what is packed is a message for one PE, or for all"))?;
    let msg = wire::decode_message(&mut decoder)?;
    decoder.end()?;
    Ok(Came::Message(to, msg))
}

/// The number of the PE in its process that a frame with this header is for, or the word that says what else it is.
pub(super) fn number_of(header: &[u8]) -> Result<u32, WireError> {
    pass_to_number(&mut Decoder::new(header, Vec::new()))
}

/// Passes over what stands before the number, how its buffers come, and takes that.
fn pass_to_number(decoder: &mut Decoder<'_>) -> Result<u32, WireError> {
    let mut number = decoder.take_u32()?;
    if number == PACKED {
        packed::skip(decoder)?;
        number = decoder.take_u32()?;
    }
    if number == INSTEAD {
        let _: Vec<(usize, Instead)> = decoder.take()?;
        number = decoder.take_u32()?;
    }
    Ok(number)
}

/// What a simulated network has to know of a frame.
pub(crate) struct Address {
    /// The number of the PE in its process; none if it is for all.
    pub(crate) to: Option<u32>,
    pub(crate) label: Label,
}

impl Address {
    /// That of a frame with this header, which is no note.
    pub(crate) fn read(header: &[u8]) -> Result<Self, WireError> {
        let mut decoder = Decoder::new(header, Vec::new());
        let to = pass_to_number(&mut decoder)?;
        let to = Some(to).filter(|to| *to != SPREAD);
        if to.is_none() {
            // Whoever has spread it.
            decoder.take_u32()?;
        }
        Ok(Address { to, label: Label::read(&mut decoder)? })
    }
}
