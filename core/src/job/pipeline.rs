//! Device memory that goes to another process in pieces, by pinned memory of both: while one piece is copied from its device, the one before is on the
//! wire, and the one before that is copied to a device. This is the sender's half; the receiver's is in [`coming`](super::coming).
//!
//! *What.* A share that has to be staged, for one process, and is longer than a piece. All else that is staged goes whole: what is in the host's memory
//! already, what is for all processes (it goes over a tree, encoded once), and what fits into one piece, of which nothing could overlap. Processes that are simulated have
//! no network that could be overlapped with anything.
//!
//! *Order.* The message of the share is held in its lane (`staged`), as if the share went whole, until the last of its pieces has been given to the network; then it
//! goes, and says under which number the pieces went. Frames of a pair of processes come in the order in which they were sent, so when the message comes all of its
//! pieces have, and what was sent after it comes after it. Pieces do not wait for the messages that are held before theirs, so they may come long before it, and
//! are kept until then as what has come is. Those of one lane go in the order of their shares, and those of other lanes in between; a number tells
//! whose they are. Where the message comes, all pieces have been given to the device, in order: so nobody has to wait for what may not come, and what uses the
//! memory waits on its device, by event.
//!
//! *Credit.* A lane has at most [`WINDOW`] pieces out: from the moment when the copy of one is enqueued here until the receiver has told that it is in its place there, and its
//! pinned memory free. So both processes need pinned memory for that many, for each pair of a PE and a process that send each other such shares, however long
//! these are. It comes from the pool of the devices, and goes back to it. Memory of the receiver's device is taken for the whole share with its first piece, also if
//! its message is held up by one before it; a device that has little left has it put together in the host's memory.
//!
//! *No deadlock.* Only senders wait for credit. A piece that is out comes to its end: its copy waits for kernels that were enqueued before it, the network takes what is
//! queued, and the receiver refuses none and waits for nobody, but for its device; then it tells. So two processes that send each other more than all credit at once
//! both go on.
//!
//! *Who goes on.* The copy of the oldest piece that is out and here has the lane's waker, and what the receiver tells is brought to the lane by a message,
//! [`Taken`]. So no PE waits for any of this, and there is no thread for it.
//!
//! *Quiescence.* The message counts as sent from its beginning, so there is none while a piece of it is on its way. When it has been taken all pieces have come, and what is
//! still copied to a device there is device work. What the receiver tells is a note, which does not count; once the message is gone nothing waits for it.
//!
//! *What goes wrong.* If a piece cannot be copied no further one is begun, and the message goes and says so: the receiver forgets the pieces that have come, and
//! the memory is spoiled there, for the same reason as if it had gone whole. If it cannot be put where it comes, the share is spoiled there. Nothing else is affected: those
//! pieces give back their credit as others do.
//!
//! *The end of the run* drops the lanes, with what has been copied and not sent. The receiver drops what has come of shares without their message when all processes
//! have closed. Credit is of no use then.
//!
//! On GPUs none of this is measured.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use chare_device::{__Leaving as Leaving, Completion, DeviceError, HostVec};
use chare_transport::Rank;
use serde::{Deserialize, Serialize};

use crate::ids::ChareId;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Leaves, Spoiled};

/// The length of a piece. To copy one takes a GPU some 20 us, which is several times what it takes to enqueue and send it, and the first and the last one, which
/// overlap with less, are a small part of what is much longer. MPI libraries cut what they stage into pieces of 128 to 512 KiB.
pub(super) const PIECE_BYTES: usize = 512 << 10;
/// The most pieces of a lane that are out: one on either device, one on the wire, and as many again, so that each of these has the next one ready while what the
/// receiver tells is on its way, and a look at the devices is late.
pub(super) const WINDOW: usize = 8;

/// Whether memory that has to be staged goes in pieces.
pub(super) fn is_for(leaving: &Leaving) -> bool {
    leaving.is_staged() && leaving.len_bytes() > PIECE_BYTES
}

/// What is said of a piece, before its bytes.
#[derive(Serialize, Deserialize)]
pub(super) struct Piece {
    /// The PE that sends it, and the one that the message is for, by their numbers in their processes.
    pub(super) from: u32,
    pub(super) to: u32,
    /// Whose piece it is.
    pub(super) share: u64,
    pub(super) len_bytes: u64,
    /// The elements of the share, for who makes room.
    pub(super) extents: Vec<usize>,
    pub(super) at_bytes: u64,
}

/// A share that goes in pieces.
pub(super) struct Cut {
    share: Leaving,
    id: u64,
    to: u32,
    /// Of it, the bytes whose copies have been enqueued, and those that have gone since, or will not go.
    begun: usize,
    gone: usize,
    has_left: bool,
    spoiled: Option<Spoiled>,
}

/// A share all pieces of which have gone, or will not go.
pub(super) struct Gone {
    /// Its number, if the receiver has got any of it.
    pub(super) id: Option<u64>,
    pub(super) spoiled: Option<Spoiled>,
}

impl Cut {
    pub(super) fn new(share: Leaving, id: u64, to: u32) -> Self {
        Cut { share, id, to, begun: 0, gone: 0, has_left: false, spoiled: None }
    }

    fn next_len(&self, at: usize) -> usize {
        PIECE_BYTES.min(self.share.len_bytes() - at)
    }

    fn has_more(&self) -> bool {
        self.spoiled.is_none() && self.begun < self.share.len_bytes()
    }
}

/// The pieces of the shares of one lane.
#[derive(Default)]
pub(super) struct Pipeline {
    /// In the order of their messages, until these go.
    shares: VecDeque<Cut>,
    /// Of pieces that have been begun and have not gone: in their order.
    copies: VecDeque<Completion<HostVec<u8>>>,
    out: usize,
    /// A copy is being enqueued, which may end other operations, and so come here again.
    is_beginning: bool,
}

/// What is to be done next.
pub(super) enum Step {
    Begin { share: Leaving, at: usize, len: usize },
    Send(Piece, HostVec<u8>),
    Wait,
}

impl Pipeline {
    pub(super) fn push(&mut self, cut: Cut) {
        self.shares.push_back(cut);
    }

    pub(super) fn step(&mut self, from: u32, waker: &Waker) -> Step {
        if self.is_beginning {
            return Step::Wait;
        }
        loop {
            // Also after a copy that has failed: its credit is back, and nobody will tell so.
            if self.out < WINDOW
                && let Some(cut) = self.shares.iter().find(|cut| cut.has_more())
            {
                self.is_beginning = true;
                return Step::Begin { share: cut.share.clone(), at: cut.begun, len: cut.next_len(cut.begun) };
            }
            let Some(copy) = self.copies.front_mut() else { return Step::Wait };
            let Poll::Ready(outcome) = copy.poll_unreported(&mut Context::from_waker(waker)) else {
                return Step::Wait;
            };
            self.copies.pop_front();
            let cut = self.shares.iter_mut().find(|cut| cut.gone < cut.begun);
            let cut = cut.expect("a copy is of a share whose message is held");
            let at = cut.gone;
            cut.gone += cut.next_len(at);
            match outcome {
                Ok(bytes) if cut.spoiled.is_none() => {
                    cut.has_left = true;
                    let piece = Piece {
                        from,
                        to: cut.to,
                        share: cut.id,
                        len_bytes: cut.share.len_bytes() as u64,
                        extents: cut.share.extents(),
                        at_bytes: at as u64,
                    };
                    return Step::Send(piece, bytes);
                }
                Ok(_) => {}
                Err(why) => {
                    cut.spoiled.get_or_insert(Spoiled { why, is_told: true });
                }
            }
            self.out -= 1;
        }
    }

    /// What has come of the last [`Step::Begin`].
    pub(super) fn has_begun(&mut self, copy: Result<Completion<HostVec<u8>>, DeviceError>) {
        self.is_beginning = false;
        let cut = self.shares.iter_mut().find(|cut| cut.has_more()).expect("it is as it was");
        match copy {
            Ok(copy) => {
                cut.begun += cut.next_len(cut.begun);
                self.copies.push_back(copy);
                self.out += 1;
            }
            Err(error) => cut.spoiled = Some(Spoiled { why: error.to_string(), is_told: false }),
        }
    }

    /// What has come of the first share, when all of it has gone that will.
    pub(super) fn poll_first(&mut self) -> Poll<Gone> {
        let is_over = |cut: &mut Cut| !cut.has_more() && cut.gone == cut.begun;
        let Some(cut) = self.shares.pop_front_if(is_over) else { return Poll::Pending };
        Poll::Ready(Gone { id: Some(cut.id).filter(|_| cut.has_left), spoiled: cut.spoiled })
    }

    fn take_back(&mut self) {
        // Who tells of more than there was has no more credit for that.
        self.out = self.out.saturating_sub(1);
    }
}

/// A process has told that a piece of a PE's is in its place.
pub(super) struct Taken {
    pub(super) rank: Rank,
}

impl Payload for Taken {
    const NAME: Name = Name::Runtime("the credit of a piece of device memory");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.with_pipeline(self.rank, |pipeline, _| pipeline.take_back());
        pe.advance_staged(self.rank);
    }
}

/// Has a PE told that it has credit again. It is one of this process, by its number.
pub(super) fn tell_taken(pe: &Pe, rank: Rank, number: u32) {
    if let Some(to) = pe.near_pes().nth(number as usize) {
        pe.post(to, Msg::for_pe(Taken { rank }));
    }
}
