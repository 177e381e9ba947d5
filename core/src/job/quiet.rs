//! Quiescence over processes. `QUIESCENCE.md` has the argument.
//!
//! A process whose PEs are all idle tells rank 0 its *standing*: a number that changes whenever one of its PEs becomes active, and its counts.
//! When rank 0 is idle, too, has the standing of every process, and the messages sent and taken add up to the same, it asks all whether they
//! have been so ever since. If all confirm, there was a moment at which nothing ran anywhere.

use std::sync::{Mutex, MutexGuard, PoisonError};

use chare_transport::Rank;
use serde::{Deserialize, Serialize};

use super::Job;
use super::note::Note;
use crate::device_work;
use crate::process::Shared;
use crate::quiescence::Found;

/// What a process says while all of its PEs are idle.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Standing {
    /// Grows each time that a PE of it becomes active or idle.
    pub(crate) epoch: u64,
    pub(crate) posted: u64,
    pub(crate) taken: u64,
    pub(crate) timers: u64,
    /// Coroutines that wait for the outside world.
    pub(crate) external: u64,
    pub(crate) has_outsiders: bool,
    pub(crate) device_works: bool,
}

/// What a process knows of the others, and what it was asked.
pub(crate) struct Standings(Mutex<Known>);

struct Known {
    /// At rank 0: what each has said last, and the round that it has confirmed.
    of: Vec<Option<(Standing, u64)>>,
    /// At rank 0: the round that is asked for, and the own standing when it began, unless another standing has come since.
    round: u64,
    asked: Option<Standing>,
    /// Elsewhere: what was told rank 0 last, and the round that it has asked for since.
    told: Option<Standing>,
    to_confirm: Option<u64>,
}

/// What a process has to do.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Step {
    Nothing,
    /// Tell rank 0 where it stands.
    Tell,
    /// Confirm this round to rank 0.
    Confirm(u64),
    /// At rank 0: ask all others, for this round.
    Ask(u64),
    /// At rank 0: all were idle at one moment, with so many timers pending.
    Quiescent {
        timers: u64,
        has_outsiders: bool,
    },
}

impl Standings {
    pub(super) fn new(size: usize) -> Self {
        Standings(Mutex::new(Known {
            of: vec![None; size],
            round: 0,
            asked: None,
            told: None,
            to_confirm: None,
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what another process has said.
    pub(super) fn note(&self, from: Rank, standing: Standing) {
        let mut known = self.lock();
        if let Some(place) = known.of.get_mut(from.index()) {
            *place = Some((standing, 0));
            // Who was asked was asked about something else.
            known.asked = None;
        }
    }

    /// Notes that another process has confirmed what it has said last.
    pub(super) fn confirmed(&self, from: Rank, round: u64) {
        if let Some(Some((_, confirmed))) = self.lock().of.get_mut(from.index()) {
            *confirmed = round;
        }
    }

    /// Notes that rank 0 has asked.
    pub(super) fn asked(&self, round: u64) {
        self.lock().to_confirm = Some(round);
    }

    /// What a process other than rank 0 has to do that stands so just now.
    pub(super) fn step_elsewhere(&self, own: Standing) -> Step {
        let mut known = self.lock();
        if known.told != Some(own) {
            known.told = Some(own);
            // It was asked about what it had said before.
            known.to_confirm = None;
            return Step::Tell;
        }
        known.to_confirm.take().map_or(Step::Nothing, Step::Confirm)
    }

    /// What rank 0 has to do that stands so just now.
    pub(super) fn step_at_0(&self, own: Standing) -> Step {
        let known = &mut *self.lock();
        known.of[0] = Some((own, known.round));
        let mut sum = Standing::default();
        for standing in &known.of {
            let Some((standing, _)) = standing else { return Step::Nothing };
            sum.posted = sum.posted.wrapping_add(standing.posted);
            sum.taken = sum.taken.wrapping_add(standing.taken);
            sum.timers += standing.timers;
            sum.external += standing.external;
            sum.has_outsiders |= standing.has_outsiders;
            sum.device_works |= standing.device_works;
        }
        if sum.posted != sum.taken || sum.external > 0 || sum.device_works {
            return Step::Nothing;
        }
        if known.asked != Some(own) {
            known.asked = Some(own);
            known.round += 1;
            known.of[0] = Some((own, known.round));
            return Step::Ask(known.round);
        }
        let all_confirm = known.of.iter().flatten().all(|(_, confirmed)| *confirmed == known.round);
        if all_confirm {
            return Step::Quiescent { timers: sum.timers, has_outsiders: sum.has_outsiders };
        }
        Step::Nothing
    }
}

impl Job {
    /// Looks whether the whole job is quiescent, and does what this process has to do for that. Called by its first PE while that is idle.
    pub(crate) fn look(&self, shared: &Shared) -> Found {
        let has_outsiders = shared.has_outsiders();
        let Some(reading) = shared.board().reading() else { return Found::Busy };
        // After the board: a completion posts its wake-up before it stops being pending.
        let device_works = shared.devices().pending() > 0;
        let own = Standing { has_outsiders, device_works, ..reading };
        if self.rank() == Rank(0) {
            match self.standings.step_at_0(own) {
                Step::Ask(round) => self.others().for_each(|rank| self.tell(rank, &Note::Ask(round))),
                Step::Quiescent { timers, has_outsiders } => {
                    return Found::Quiescent { timers: timers as usize, has_outsiders };
                }
                _ => {}
            }
        } else {
            // Where only rank 0 would tell of it, it would not know.
            if let Some(reason) = device_work::unawaited(shared.devices().take_dropped_faults()) {
                shared.stop(reason);
            }
            match self.standings.step_elsewhere(own) {
                Step::Tell => self.tell(Rank(0), &Note::Idle(own)),
                Step::Confirm(round) => self.tell(Rank(0), &Note::Confirm(round)),
                _ => {}
            }
        }
        if device_works { Found::DeviceBusy } else { Found::Busy }
    }
}
