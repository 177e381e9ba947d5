//! What a process sends to one peer: batches in order, within the credit that the peer has given.

use std::collections::VecDeque;

use crate::buffer::Buffer;
use crate::limits::Limits;
use crate::network::FreeBatches;
use crate::wire::{self, Batch, Header, WireError};

use super::acknowledged;
use super::incoming::Incoming;

/// A batch that waits to be sent, and what its records announce.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) batch: Batch,
    pub(crate) bulk: Vec<Buffer>,
    /// What that takes of the bulk window.
    pub(crate) bulk_cost: u64,
    /// What it counts for in its lane.
    pub(crate) queued_bytes: u64,
}

/// A batch that goes now.
pub(super) struct Pushed {
    pub(super) batch: Batch,
    pub(super) bulk: Vec<Buffer>,
    pub(super) queued_bytes: u64,
    pub(super) flags: u8,
}

/// The sending half of a link.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) queue: VecDeque<Outgoing>,
    /// Nothing will be queued any more.
    pub(super) is_closing: bool,
    sequence: u32,
    eager_sent: u64,
    eager_taken: u64,
    bulk_sent: u64,
    bulk_taken: u64,
    /// The peer was asked to tell all, for the batch that is first now.
    has_asked: bool,
    fin_sent: bool,
    last_sent: bool,
}

impl Pending {
    /// The number of the batch that goes now.
    pub(super) fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = sequence.wrapping_add(1);
        sequence
    }

    /// Whether nothing goes any more.
    pub(super) fn is_over(&self) -> bool {
        self.last_sent
    }

    /// Nothing goes any more.
    pub(super) fn end(&mut self) {
        self.queue.clear();
        self.last_sent = true;
    }

    /// Takes what the peer tells that it has taken.
    pub(super) fn acknowledge(&mut self, header: &Header) -> Result<(), WireError> {
        self.eager_taken = acknowledged(self.eager_taken, header.eager_taken, self.eager_sent)?;
        self.bulk_taken = acknowledged(self.bulk_taken, header.bulk_taken, self.bulk_sent)?;
        Ok(())
    }

    /// The batch that goes next, if one may: with frames, or only with flags and what was taken.
    pub(super) fn next(
        &mut self,
        incoming: &Incoming,
        limits: &Limits,
        free: &mut FreeBatches,
    ) -> Option<Pushed> {
        if self.last_sent {
            return None;
        }
        let mut flags = 0;
        let outgoing = match self.queue.front() {
            Some(first) if self.has_credit(first, limits) => self.queue.pop_front(),
            Some(first) => {
                if !self.has_asked
                    && first.bulk_cost > limits.bulk_window_bytes - limits.bulk_window_bytes / 4
                {
                    (self.has_asked, flags) = (true, wire::WANTS);
                }
                None
            }
            None => None,
        };
        if outgoing.is_some() {
            self.has_asked = false;
        }
        if self.is_closing && !self.fin_sent && self.queue.is_empty() {
            (self.fin_sent, flags) = (true, flags | wire::FIN);
        }
        if self.fin_sent && incoming.has_ended() {
            (self.last_sent, flags) = (true, flags | wire::LAST);
        }
        match outgoing {
            Some(Outgoing { batch, bulk, bulk_cost, queued_bytes }) => {
                self.eager_sent += batch.bytes().len() as u64;
                self.bulk_sent += bulk_cost;
                Some(Pushed { batch, bulk, queued_bytes, flags })
            }
            None if flags != 0 || incoming.must_tell(limits) => {
                Some(Pushed { batch: free.take(), bulk: Vec::new(), queued_bytes: 0, flags })
            }
            None => None,
        }
    }

    fn has_credit(&self, outgoing: &Outgoing, limits: &Limits) -> bool {
        let eager = self.eager_sent - self.eager_taken + outgoing.batch.bytes().len() as u64;
        let bulk = self.bulk_sent - self.bulk_taken;
        eager <= limits.eager_window_bytes
            && (bulk == 0 || outgoing.bulk_cost == 0 || bulk + outgoing.bulk_cost <= limits.bulk_window_bytes)
    }
}
