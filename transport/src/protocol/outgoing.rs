//! What a process sends to one peer: batches in order, within the credit that the peer has given.

use std::collections::VecDeque;

use crate::batch::Batch;
use crate::limits::Limits;
use crate::network::FreeBatches;
use crate::wire::{self, Header, Single, WireError};

use super::acknowledged;
use super::incoming::Incoming;

/// The sending half of a link.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) queue: VecDeque<Batch>,
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

    /// As `acknowledge`; false, and nothing is taken, if the peer tells what cannot be.
    #[inline]
    pub(super) fn accepts(&mut self, single: &Single<'_>) -> bool {
        let accepts = (self.eager_taken..=self.eager_sent).contains(&single.eager_taken)
            && single.bulk_taken == self.bulk_taken;
        if accepts {
            self.eager_taken = single.eager_taken;
        }
        accepts
    }

    /// The batch that goes next, if one may, and its flags: with frames, or only with those and what was taken.
    pub(super) fn next(
        &mut self,
        incoming: &Incoming,
        limits: &Limits,
        free: &mut FreeBatches,
    ) -> Option<(Batch, u8)> {
        if self.last_sent {
            return None;
        }
        let mut flags = 0;
        let outgoing = match self.queue.front() {
            Some(first) if self.has_credit(first, limits) => self.queue.pop_front(),
            Some(first) => {
                if !self.has_asked
                    && first.cargo().bulk_cost > limits.bulk_window_bytes - limits.bulk_window_bytes / 4
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
            Some(batch) => {
                self.eager_sent += batch.bytes().len() as u64;
                self.bulk_sent += batch.cargo().bulk_cost;
                Some((batch, flags))
            }
            None if flags != 0 || incoming.must_tell(limits) => Some((free.take(), flags)),
            None => None,
        }
    }

    /// Whether a batch that announces nothing may go at once, before which nothing waits and with which nothing else is to be told. Then it
    /// counts as sent.
    pub(super) fn passes(&mut self, batch: &Batch, limits: &Limits) -> bool {
        let passes = self.goes_straight() && self.has_credit(batch, limits);
        if passes {
            self.eager_sent += batch.bytes().len() as u64;
        }
        passes
    }

    /// Whether what is queued now would be the next to go.
    pub(super) fn goes_straight(&self) -> bool {
        self.queue.is_empty() && !self.is_closing && !self.last_sent
    }

    fn has_credit(&self, batch: &Batch, limits: &Limits) -> bool {
        let eager = self.eager_sent - self.eager_taken + batch.bytes().len() as u64;
        let (bulk, cost) = (self.bulk_sent - self.bulk_taken, batch.cargo().bulk_cost);
        eager <= limits.eager_window_bytes
            && (bulk == 0 || cost == 0 || bulk + cost <= limits.bulk_window_bytes)
    }
}
