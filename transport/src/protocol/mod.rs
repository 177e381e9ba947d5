//! The protocol of a process with all its peers, without input or output: what happens goes in, actions come out.
//!
//! The argument for order, credit and end is in `README.md` of the crate. The invariant kept here: a batch that leaves in
//! an action is within the credit of its link, and a frame that the sink gets is the next of its peer.

mod incoming;
mod outgoing;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use crate::batch::Batch;
use crate::buffer::{Buffer, DeviceBuf, Landing};
use crate::error::Error;
use crate::frame::{Frame, Rank};
use crate::limits::Limits;
use crate::network::{Event, FreeBatches};
use crate::outbox::Shared;
use crate::wire::{self, Header, Part, Single, WireError};

use incoming::Incoming;

/// Takes frames.
pub(crate) type Sink<'s> = dyn FnMut(Rank, Frame<'_>) + 's;

/// What the network is to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Send a batch.
    Batch { to: Rank, batch: Batch },
    /// Send a buffer.
    Bulk { to: Rank, buffer: Buffer },
    /// Receive the next buffer from a rank into this memory.
    Receive { from: Rank, id: u64, landing: Landing },
}

/// One pair of processes, seen from one of them.
struct Link {
    out: outgoing::Pending,
    incoming: Incoming,
    /// Stands in the list of those to be looked at.
    is_touched: bool,
    /// Nothing comes and nothing goes any more.
    is_over: bool,
}

/// All links of a process.
pub(crate) struct Engine {
    limits: Limits,
    links: Vec<Link>,
    touched: Vec<Rank>,
    open_links: usize,
    pub(crate) actions: VecDeque<Action>,
    pub(crate) free: FreeBatches,
    left: Option<Rank>,
    /// Makes memory for what comes from memory of devices.
    pub(crate) device_memory: Option<Box<DeviceMemory>>,
}

/// Makes memory for so many bytes from a rank, beside a frame with this header; none if it cannot.
pub(crate) type DeviceMemory = dyn FnMut(Rank, &[u8], usize) -> Option<DeviceBuf> + Send;

/// The longest reason of an abort.
const MOST_REASON_BYTES: usize = 4096;

impl Engine {
    /// The last process that has ended its part before its time, and has said so.
    pub(crate) fn left(&self) -> Option<Rank> {
        self.left
    }

    pub(crate) fn new(ranks: usize, limits: Limits) -> Engine {
        let link = || Link {
            out: outgoing::Pending::default(),
            incoming: Incoming::default(),
            is_touched: false,
            is_over: false,
        };
        Engine {
            links: (0..ranks).map(|_| link()).collect(),
            touched: Vec::with_capacity(ranks),
            open_links: ranks,
            actions: VecDeque::new(),
            free: FreeBatches::new(limits.batch_bytes),
            left: None,
            device_memory: None,
            limits,
        }
    }

    /// Takes the frames that are queued for a rank, but for those of a batch that is not full if it `may_wait`. What comes back is to be sent at once,
    /// the rest by the actions that [`Engine::pump`] decides.
    pub(crate) fn take(&mut self, shared: &Shared, to: Rank, may_wait: bool) -> Option<Batch> {
        if !may_wait && let Some(batch) = self.take_straight(shared, to) {
            return Some(batch);
        }
        self.take_queued(shared, to, may_wait);
        None
    }

    /// Takes the batch that is queued for a rank if it may go at once, ready to be sent: most are alone, and within their credit.
    fn take_straight(&mut self, shared: &Shared, to: Rank) -> Option<Batch> {
        let link = &mut self.links[to.index()];
        if !self.actions.is_empty() || link.is_touched || !link.out.goes_straight() {
            return None;
        }
        let mut batch = shared.take_only(to, &mut self.free)?;
        if link.out.passes(&batch, &self.limits) {
            batch.seal(&link.incoming.header(link.out.next_sequence(), 0, self.limits.checksums));
            return Some(batch);
        }
        link.out.queue.push_back(batch);
        self.touch(to);
        None
    }

    /// Takes the frames that are queued for a rank, but for those of a batch that is not full if it `may_wait`.
    pub(crate) fn take_queued(&mut self, shared: &Shared, to: Rank, may_wait: bool) {
        shared.drain(to, may_wait, &mut self.free, &mut self.links[to.index()].out.queue);
        self.touch(to);
    }

    /// No frames will be submitted any more.
    pub(crate) fn close(&mut self) {
        for index in 0..self.links.len() {
            self.links[index].out.is_closing = true;
            self.touch(Rank(index as u32));
        }
    }

    /// Whether all links are over.
    pub(crate) fn is_closed(&self) -> bool {
        self.open_links == 0
    }

    /// Takes what has happened on the network, and gives the sink the frames that are complete by it.
    pub(crate) fn handle(&mut self, event: Event, sink: &mut Sink<'_>) -> Result<(), Error> {
        match event {
            Event::BatchSent(batch) => {
                self.free.put(batch);
                Ok(())
            }
            Event::Batch { from, batch } => self.take_arrival(from, batch, sink),
            Event::Bulk { from, id, buffer } => {
                let incoming = &mut self.links[from.index()].incoming;
                let taken = incoming.take_bulk(from, id, buffer, &mut self.free, sink);
                taken.map_err(|what| Error::Corrupt { rank: from, what })?;
                self.touch_if_due(from);
                Ok(())
            }
        }
    }

    /// Takes a batch that has come.
    #[inline(always)]
    pub(crate) fn take_arrival(
        &mut self,
        from: Rank,
        batch: Batch,
        sink: &mut Sink<'_>,
    ) -> Result<(), Error> {
        if let Some(batch) = self.take_single(from, batch, sink) {
            self.take_batch(from, batch, sink)?;
        }
        self.touch_if_due(from);
        Ok(())
    }

    /// Takes a batch that brings one short frame, is the next one and finds nothing that waits before it. Another one comes back as it was, with
    /// whatever is wrong with it.
    #[inline(always)]
    fn take_single(&mut self, from: Rank, batch: Batch, sink: &mut Sink<'_>) -> Option<Batch> {
        let link = &mut self.links[from.index()];
        let taken = match Single::read(batch.bytes()) {
            Some(single) if link.out.accepts(&single) && link.incoming.takes(&single, &self.limits) => {
                sink(from, Frame::new(single.header));
                batch.bytes().len()
            }
            _ => return Some(batch),
        };
        link.incoming.note_taken(taken);
        self.free.put(batch);
        None
    }

    /// Has a link looked at after an event, if that can have changed what may be sent: mostly nothing waits, and what was taken
    /// need not be told yet.
    #[inline]
    fn touch_if_due(&mut self, rank: Rank) {
        let link = &self.links[rank.index()];
        if !link.out.queue.is_empty() || link.out.is_closing || link.incoming.must_tell(&self.limits) {
            self.touch(rank);
        }
    }

    #[inline(never)]
    fn take_batch(&mut self, from: Rank, batch: Batch, sink: &mut Sink<'_>) -> Result<(), Error> {
        let corrupt = |what| Error::Corrupt { rank: from, what };
        let link = &mut self.links[from.index()];
        let header = Header::read(batch.bytes()).map_err(corrupt)?;
        link.incoming.expect(&header).map_err(corrupt)?;
        if header.flags & wire::ABORT != 0 {
            let said = &batch.bytes()[wire::HEADER_BYTES..];
            let said = String::from_utf8_lossy(&said[..said.len().min(MOST_REASON_BYTES)]);
            let (said, left) = (said.into_owned(), header.flags & wire::LAST != 0);
            self.left = left.then_some(from);
            return Err(if left {
                Error::Lost { rank: from, why: said }
            } else {
                Error::Aborted { by: from, reason: said }
            });
        }
        link.out.acknowledge(&header).map_err(corrupt)?;
        let (actions, device_memory) = (&mut self.actions, &mut self.device_memory);
        let to_be_received = &mut |id, part: &Part, header: &[u8]| {
            let (len, is_of_device) = (part.len, part.checksum.is_none());
            let made =
                device_memory.as_mut().filter(|_| is_of_device).and_then(|make| make(from, header, len));
            // What is made for it may be longer, and none may be there: then it comes to the host's.
            let at_device = made.filter(|memory| memory.len() == len).map(Landing::at);
            let landing = at_device.or_else(|| Landing::new(len, part.align));
            let landing = landing.ok_or(WireError::Memory(len as u64))?;
            actions.push_back(Action::Receive { from, id, landing });
            Ok(())
        };
        let taken = link.incoming.take_batch(
            from,
            &header,
            batch,
            &self.limits,
            &mut self.free,
            to_be_received,
            sink,
        );
        taken.map_err(corrupt)
    }

    /// Whether [`Engine::pump`] has something to look at, or has left actions.
    pub(crate) fn has_work(&self) -> bool {
        !self.touched.is_empty() || !self.actions.is_empty()
    }

    /// Decides what may go now. To be called after each round of [`Engine::take_queued`] and [`Engine::handle`].
    pub(crate) fn pump(&mut self) {
        while let Some(rank) = self.touched.pop() {
            self.links[rank.index()].is_touched = false;
            self.pump_link(rank);
        }
    }

    fn pump_link(&mut self, to: Rank) {
        loop {
            let link = &mut self.links[to.index()];
            let Some((mut batch, flags)) = link.out.next(&link.incoming, &self.limits, &mut self.free) else {
                break;
            };
            let header = link.incoming.header(link.out.next_sequence(), flags, self.limits.checksums);
            batch.seal(&header);
            let bulk = batch.take_bulk();
            self.actions.push_back(Action::Batch { to, batch });
            self.actions.extend(bulk.into_iter().map(|buffer| Action::Bulk { to, buffer }));
        }
        let link = &mut self.links[to.index()];
        if !link.is_over && link.out.is_over() && link.incoming.is_over() {
            link.is_over = true;
            self.open_links -= 1;
        }
    }

    /// Tells all peers that still listen that this process ends the job, and why. Nothing else is sent afterwards.
    pub(crate) fn abort(&mut self, myself: Rank, reason: &str) {
        self.end_links(myself, wire::ABORT, reason);
    }

    /// Tells all peers that still listen that this process is no longer there. Nothing else is sent afterwards.
    pub(crate) fn leave(&mut self, myself: Rank) {
        self.end_links(myself, wire::ABORT | wire::LAST, "it has ended without closing");
    }

    fn end_links(&mut self, myself: Rank, flags: u8, reason: &str) {
        for index in 0..self.links.len() {
            let (link, to) = (&mut self.links[index], Rank(index as u32));
            if to == myself || link.out.is_over() && flags & wire::LAST == 0 || link.is_over {
                continue;
            }
            let mut batch = self.free.take();
            let room = (batch.capacity() - wire::HEADER_BYTES).min(MOST_REASON_BYTES);
            batch.push(&reason.as_bytes()[..reason.len().min(room)]);
            batch.seal(&link.incoming.header(link.out.next_sequence(), flags, self.limits.checksums));
            link.out.end();
            self.actions.push_back(Action::Batch { to, batch });
        }
    }

    /// Of a batch that came after an abort of ours: whether its sender says that it has gone.
    pub(crate) fn says_farewell(batch: &Batch) -> bool {
        Header::read(batch.bytes()).is_ok_and(|header| header.flags & wire::LAST != 0)
    }

    fn touch(&mut self, rank: Rank) {
        let link = &mut self.links[rank.index()];
        if !link.is_touched {
            link.is_touched = true;
            self.touched.push(rank);
        }
    }
}

/// What a number told by a peer must be: no less than before, and no more than was sent.
fn acknowledged(before: u64, told: u64, sent: u64) -> Result<u64, WireError> {
    if (before..=sent).contains(&told) { Ok(told) } else { Err(WireError::Credit) }
}
