//! What is forgotten of chares that have ended.
//!
//! Only the home knows of an end, and it is the only one that tells others where a chare is. So what it says of the end comes
//! after all that it has said of the place, and no record of an ended chare is made later. It says so for many at once.

use std::cell::RefCell;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::ChareId;
use crate::location::Place;
use crate::message::{Msg, Name, Payload};
use crate::proxy::all_pes;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Kind, Leaves};

/// Ends that a home gathers before it tells the other PEs; few in tests.
const ENDS_PER_NOTICE: usize = if cfg!(test) { 2 } else { 64 };

/// A chare that has ended, after so many moves.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub(crate) struct End {
    id: ChareId,
    epoch: u64,
}

/// At their home: ends that the other PEs have not been told.
#[derive(Default)]
pub(super) struct Endings(RefCell<Vec<End>>);

impl Endings {
    /// Notes one; returns all of them if it is time to tell.
    fn note(&self, end: End) -> Option<Vec<End>> {
        let mut ends = self.0.borrow_mut();
        ends.push(end);
        (ends.len() == ENDS_PER_NOTICE).then(|| std::mem::take(&mut *ends))
    }
}

impl Pe {
    /// Notes, at its home, that a chare has ended that other PEs may have records of.
    pub(crate) fn note_ending(&self, id: ChareId, epoch: u64) {
        let Some(ends) = self.locations.endings.note(End { id, epoch }) else { return };
        let ends = Arc::<[End]>::from(ends);
        for to in all_pes(self.pe_count()).filter(|&to| to != self.id()) {
            self.post(to, Msg::for_pe(Forget(ends.clone())));
        }
    }
}

/// News for all PEs: these chares have ended.
#[derive(Serialize, Deserialize)]
pub(crate) struct Forget(Arc<[End]>);

impl Payload for Forget {
    const NAME: Name = Name::Runtime("the end of chares");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Forget);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        self.0.iter().for_each(|end| pe.locations.forget_until(end.id, end.epoch));
    }
}

/// Asks the home of a chare to tell a PE where it is.
#[derive(Serialize, Deserialize)]
pub(crate) struct Tell(pub(super) ChareId, pub(super) crate::ids::PeId);

impl Payload for Tell {
    const NAME: Name = Name::Runtime("news of where a chare is");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Tell);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let Tell(id, to) = self;
        let place = match pe.find(id) {
            Some(chare) => Some(Place { pe: pe.id(), epoch: chare.epoch() }),
            None => pe.locations.confirmed(id),
        };
        if let Some(place) = place.filter(|place| place.pe != to) {
            pe.send_news(to, id, place);
        }
    }
}
