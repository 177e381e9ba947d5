//! Messages for all PEs: one frame to each other process, over a tree of the processes, and one message to each PE there.
//!
//! A PE that has something for all PEs gives each one of its own process a message, and encodes one for all the others together. Its
//! process is the root of a tree in which each has up to [`FAN_OUT`] children. A process that gets the frame passes the same bytes on, and
//! then decodes them once for each of its PEs. Whoever drives does that, so a PE that is busy holds up nobody.
//!
//! Invariant: each process gets the frame once. Its messages count as sent where the frame comes from, one for each PE, and as taken
//! where they are taken, so nothing is quiescent while the frame is on its way.
//!
//! What one process spreads takes one way to another, so it keeps its order. But it may overtake, and be overtaken by, what is
//! sent there straight: so only what is numbered is spread, broadcasts and results of reductions; and the news that a collection is
//! created, or is not, which what comes before it waits for (`mailbox.rs`), whoever sends it.

use chare_transport::{Frame, Rank};

use super::{SPREAD, packed};
use crate::ids::PeId;
use crate::message::Msg;
use crate::scheduler::pe::Pe;
use crate::wire::{self, Beside, Decoder, MOST_BUFFERS, WireError};

/// How many processes one passes a frame on to.
const FAN_OUT: usize = 4;

/// The place of `own` in the tree of `root`, of so many.
fn place(root: Rank, own: Rank, size: usize) -> usize {
    (own.index() + size - root.index()) % size
}

/// The process that passes a frame on to `own` which comes from `root`, another one.
pub(crate) fn parent(root: Rank, own: Rank, size: usize) -> Rank {
    let before = (place(root, own, size) - 1) / FAN_OUT;
    Rank(((before + root.index()) % size) as u32)
}

/// The processes that `own` passes a frame on to which comes from `root`, of so many.
pub(crate) fn children(root: Rank, own: Rank, size: usize) -> impl Iterator<Item = Rank> {
    let place = place(root, own, size);
    let first = place * FAN_OUT + 1;
    (first..size.min(first + FAN_OUT)).map(move |child| Rank(((child + root.index()) % size) as u32))
}

/// Whom one message is for that all other PEs get.
pub(crate) enum Others {
    /// A PE of this process.
    Near(PeId),
    /// All PEs of other processes, so many.
    Far(usize),
}

impl Pe {
    /// Passes a frame from `root` on to the processes behind this one.
    fn pass_on(&self, root: Rank, header: &[u8], beside: &[Beside]) {
        let shared = self.shared();
        for child in children(root, self.rank, shared.process_count()) {
            // In the place of what is spoiled are no bytes.
            let nothing = || Vec::<u8>::new().into();
            let buffer = |beside: &Beside| beside.copied().into_host().unwrap_or_else(nothing);
            let mut frame = Frame { header, buffers: beside.iter().map(buffer).collect() };
            let packed = packed::pack(&mut frame, MOST_BUFFERS);
            frame.header = packed.as_deref().unwrap_or(header);
            let Some(job) = shared.job() else {
                self.send_simulated(child, frame);
                continue;
            };
            // Where nothing is sent any more nobody needs it.
            job.queue(self, child, frame);
        }
    }

    /// Passes on a frame that was spread, of which `decoder` has read the beginning; returns a message for each PE of this process.
    pub(super) fn take_spread(&self, header: &[u8], mut decoder: Decoder<'_>) -> Result<Vec<Msg>, WireError> {
        let root = decoder.take_u32()?;
        if root as usize >= self.shared().process_count() || root == self.rank.0 {
            return Err(WireError::new(format!("it says that rank {root} has spread it")));
        }
        let rest = decoder.take_rest();
        self.pass_on(Rank(root), header, rest.buffers());
        let decode = |decoder: &mut Decoder<'_>| wire::decode_message(decoder);
        let copies = (1..self.near_pes().len()).map(|_| rest.copied().decode(decode));
        let mut messages = copies.collect::<Result<Vec<_>, _>>()?;
        messages.push(rest.decode(decode)?);
        Ok(messages)
    }

    /// Whom [`Pe::post_to_others`] asks for a message for, in that order.
    pub(crate) fn others(&self) -> impl Iterator<Item = Others> + use<> {
        let (near, own, far) = (self.near_pes(), self.id(), self.far_pe_count());
        let of_process = near.filter(move |&pe| pe != own).map(Others::Near);
        of_process.chain((far > 0).then_some(Others::Far(far)))
    }

    /// Sends messages that are for a PE, and all the same, to all other PEs: one for each of this process, and one for all of the others.
    pub(crate) fn post_to_others(&self, mut make: impl FnMut() -> Msg) {
        self.others().for_each(|others| match others {
            Others::Near(pe) => self.post(pe, make()),
            Others::Far(pes) => self.spread(make(), pes),
        });
    }

    /// Sends a message to each PE of all other processes, so many.
    fn spread(&self, msg: Msg, pes: usize) {
        if self.shared().is_stopping() {
            return drop(msg);
        }
        let mut encoder = self.crossing.take_encoder();
        encoder.put_u32(SPREAD);
        encoder.put_u32(self.rank.0);
        // If it cannot be encoded, whoever waits for it has been told.
        if self.encode_for(pes, || msg.leave(&mut encoder)).is_ok() {
            self.traffic.posted.set(self.traffic.posted.get() + pes as u64);
            if self.crossing.staged.lets_pass(self.rank, &encoder) {
                self.spread_frame(&encoder.bytes, &encoder.buffers);
            } else {
                self.stage(self.rank, None, &mut encoder);
            }
        }
        self.crossing.put_encoder(encoder);
    }

    /// Sends what was encoded for all other processes, beside which there is no device memory.
    pub(super) fn spread_frame(&self, header: &[u8], beside: &[Beside]) {
        self.crossing.has_sent.set(self.shared().job().is_some());
        self.pass_on(self.rank, header, beside);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn each_process_is_reached_once_and_by_few_steps() {
        for size in 1..100 {
            for root in [0, size / 2, size - 1] {
                let mut depths = vec![None; size];
                let mut next = vec![(Rank(root as u32), 0)];
                while let Some((rank, depth)) = next.pop() {
                    assert_eq!(depths[rank.index()].replace(depth), None, "{rank} of {size} from {root}");
                    for child in children(Rank(root as u32), rank, size) {
                        assert_eq!(parent(Rank(root as u32), child, size), rank);
                        next.push((child, depth + 1));
                    }
                }
                // 1 + 4 + 16 + 64 + 256 processes are within four steps.
                assert!(
                    depths.iter().all(|depth| depth.is_some_and(|depth| depth <= 4)),
                    "{size}: {depths:?}"
                );
            }
        }
    }
}
