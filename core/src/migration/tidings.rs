//! News of chares that have arrived, told together to the PEs that they have left and to their homes.
//!
//! Chares often move many at a time, and each arrival is news for one or two PEs. A PE notes it, and tells what it has noted when a round
//! of work ends, before it looks at its inbox and the network, and before that when something else has run behind an arrival. So nobody waits for
//! more than one method, however long that is, and no PE is idle that has something to tell. Such news may come late: it
//! says what was so after so many moves, and needs no order (`location/README.md`).
//!
//! So it is with parts of reductions: of chares that arrive behind all others and contribute, each would be the last that its PE waits
//! for, and make the PE send a part of its own. They wait for those that come in the same round.

use std::cell::{Cell, RefCell};

use crate::broadcast::Departure;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::location::{News, Place};
use crate::message::{Msg, Name, Payload};
use crate::reduction;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Arrives, Decoder, Encoder, Kind, Leaves, Unsent, WireError};

/// What one PE has to tell.
#[derive(Default)]
pub(crate) struct Tidings {
    /// How many have been noted and are not told yet.
    count: Cell<usize>,
    /// By the PE that it is for.
    noted: RefCell<Vec<(PeId, Vec<Arrival>)>>,
    /// Collections of which a reduction may be ready to be shipped.
    unshipped: RefCell<Vec<CollectionId>>,
}

/// One chare that has arrived, by its so manieth move.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) id: ChareId,
    pub(super) epoch: u64,
    /// For the PE that it has left: how many broadcasts had begun where it has arrived. None for its home.
    pub(super) started: Option<u64>,
}

impl Tidings {
    /// How many arrivals have been noted and are not told yet.
    #[inline(always)]
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Puts off until arrivals are told what is to be shipped of a collection's reductions; false if there are none to tell.
    pub(crate) fn put_off_shipping(&self, of: CollectionId) -> bool {
        if self.count() == 0 {
            return false;
        }
        let mut unshipped = self.unshipped.borrow_mut();
        if !unshipped.contains(&of) {
            unshipped.push(of);
        }
        true
    }

    pub(super) fn note(&self, to: PeId, arrival: Arrival) {
        self.count.set(self.count() + 1);
        let mut noted = self.noted.borrow_mut();
        match noted.iter_mut().find(|(pe, _)| *pe == to) {
            Some((_, arrivals)) => arrivals.push(arrival),
            None => noted.push((to, vec![arrival])),
        }
    }
}

impl Pe {
    /// Tells what has been noted.
    #[inline]
    pub(crate) fn tell_tidings(&self) {
        if self.tidings.count() > 0 {
            self.tell_all_tidings();
        }
    }

    #[inline(never)]
    fn tell_all_tidings(&self) {
        self.tidings.count.set(0);
        for (to, arrivals) in self.tidings.noted.take() {
            self.post(to, Msg::for_pe(Arrived { at: self.id(), arrivals }));
        }
        for unshipped in self.tidings.unshipped.take() {
            if let Some(collection) = self.collection(unshipped) {
                reduction::ship_finished(self, collection);
            }
        }
    }
}

/// Chares that have arrived on a PE.
pub(crate) struct Arrived {
    at: PeId,
    arrivals: Vec<Arrival>,
}

/// What stands for no number of broadcasts.
const NONE: u64 = u64::MAX;

impl Arrived {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_pe(self.at);
        to.put_u64(self.arrivals.len() as u64);
        for Arrival { id, epoch, started } in self.arrivals {
            to.put_chare(id);
            to.put_u64(epoch);
            to.put_u64(started.unwrap_or(NONE));
        }
        Ok(())
    }
}

impl Arrives for Arrived {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (at, mut arrivals) = (from.take_pe()?, Vec::new());
        for _ in 0..from.take_u64()? {
            let (id, epoch, started) = (from.take_chare()?, from.take_u64()?, from.take_u64()?);
            arrivals.push(Arrival { id, epoch, started: (started != NONE).then_some(started) });
        }
        Ok(Arrived { at, arrivals })
    }
}

impl Payload for Arrived {
    const NAME: Name = Name::Runtime("the arrival of chares");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Arrived, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let at = self.at;
        for Arrival { id, epoch, started } in self.arrivals {
            let place = Place { pe: at, epoch };
            let Some(started) = started else {
                News { id, place }.heed(pe);
                continue;
            };
            if let Some(collection) = pe.collection(id.collection) {
                let departure = Departure { element: id.element, epoch, to: at };
                collection.coverage.arrived(pe, departure, started);
            }
            pe.confirm_place(id, place);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    #[test]
    fn each_pe_is_told_of_all_arrivals_at_once() {
        let tidings = Tidings::default();
        let collection = CollectionId::new(PeId::new(0), 3);
        for element in 0..6 {
            let id = ChareId { collection, element };
            tidings.note(PeId::new(element as usize % 2), Arrival { id, epoch: element, started: None });
        }
        let noted = tidings.noted.take();
        let epochs = |(to, arrivals): &(PeId, Vec<Arrival>)| {
            (to.index(), arrivals.iter().map(|arrival| arrival.epoch).collect::<Vec<_>>())
        };
        assert_eq!(noted.iter().map(epochs).collect::<Vec<_>>(), [(0, vec![0, 2, 4]), (1, vec![1, 3, 5])]);
    }
}
