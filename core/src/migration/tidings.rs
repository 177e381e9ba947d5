//! News of chares that have arrived, told together to the PEs that they have left and to their homes.
//!
//! Chares often move many at a time, and each arrival is news for one or two PEs. A PE notes it, and tells what it has noted when a round
//! of work ends, before it looks at its inbox and the network. So nobody waits for it for longer than that round, and no PE is idle that has
//! something to tell. Such news may come late: it says what was so after so many moves, and needs no order (`location/README.md`).

use std::cell::{Cell, RefCell};

use crate::broadcast::Departure;
use crate::ids::{ChareId, PeId};
use crate::location::{News, Place};
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Arrives, Decoder, Encoder, Kind, Leaves, Unsent, WireError};

/// What one PE has to tell.
#[derive(Default)]
pub(crate) struct Tidings {
    is_any: Cell<bool>,
    /// By the PE that it is for.
    noted: RefCell<Vec<(PeId, Vec<Arrival>)>>,
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
    pub(super) fn note(&self, to: PeId, arrival: Arrival) {
        self.is_any.set(true);
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
        if self.tidings.is_any.get() {
            self.tell_all_tidings();
        }
    }

    #[inline(never)]
    fn tell_all_tidings(&self) {
        self.tidings.is_any.set(false);
        for (to, arrivals) in self.tidings.noted.take() {
            self.post(to, Msg::for_pe(Arrived { at: self.id(), arrivals }));
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
    use crate::ids::CollectionId;

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
