//! Whether a parked coroutine may be woken by something that the runtime does not know. If so it is *external*: the
//! program neither hangs nor is quiescent.
//!
//! What is known: the waits of the runtime's own futures, each registered by our own waker or by a *wrapper*, the waker
//! that a combinator hands out in its stead; the waits that the user has marked; and how many of our wakers others hold,
//! of any poll and of the last one (*fresh*). From that:
//!
//! * a marked wait makes it external;
//! * without a known wait, any waker that somebody holds does; if nobody holds one, nothing can ever wake it;
//! * with known waits, only fresh wakers do: others are left from waits that are over;
//! * with wrappers among them, fresh wakers may be the combinators' own. Waking the wrappers tells: a combinator then
//!   gives its waker back, by waking us with it, and what is still held is of the outside. What is inside of the
//!   combinators, beside known waits, cannot be told apart; that is what marks are for.
//!
//! Counts can be deceived: a waker that the loser of a `select!` has kept is fresh if that was decided in the last poll;
//! a waker of another coroutine, of another run even, can be the same word, so that a future does not clone ours, or that
//! its drop counts here. Therefore what is in doubt is polled once more for nothing before the PE calls itself idle (every
//! future tolerates that): the poll has a number of its own, so what is still awaited is registered anew. A combinator
//! may wake itself whenever it is polled, to let others run; after [`ROUNDS`] such polls without another wake-up that is
//! no news any more.

use std::sync::Arc;
use std::task::Waker;

use rustc_hash::FxHashMap;

use crate::scheduler::waker::Wakeup;

/// Polls for nothing and probes after which a coroutine that wakes itself is believed.
const ROUNDS: u8 = 4;

/// What may wake a coroutine.
#[derive(Default)]
pub(super) struct Interest {
    /// Known waits that were registered by our own waker.
    direct_waits: u32,
    wrappers: Option<Box<Wrappers>>,
    marked_waits: u32,
    /// Wakers that others hold; at least as many as are fresh.
    wakers: u32,
    fresh_wakers: u32,
    certainty: Certainty,
    /// Polls for nothing and probes since something else than itself has woken it.
    rounds: u8,
}

/// The known waits that were registered by wrappers.
#[derive(Default)]
struct Wrappers {
    /// By address, which differs from run to run: each has its number in order of coming, the order in which they are woken.
    by_address: FxHashMap<usize, (u64, Arc<Waker>)>,
    count: u64,
}

/// How far the counts are to be believed.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Certainty {
    /// The last poll was for a reason.
    #[default]
    None,
    /// It was for nothing: what is fresh is awaited.
    Polled,
    /// The wrappers are being woken; this many fresh wakers have woken us and were kept.
    Probing { kept: u32 },
    /// They have been: fresh wakers of the outside were left, or not.
    Probed { outside: bool },
}

/// What the counts say of a parked coroutine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Judgement {
    /// Something outside may wake it.
    External,
    /// Only what the runtime knows can, or nothing at all.
    Known,
    /// To be told by another poll.
    Poll,
    /// To be told by waking the wrappers.
    Probe,
}

impl Interest {
    #[inline]
    pub(super) fn judge(&self) -> Judgement {
        use Judgement::{External, Known, Poll, Probe};
        if self.marked_waits > 0 {
            return External;
        }
        let has_wrappers = self.has_wrappers();
        if self.direct_waits == 0 && !has_wrappers {
            return match self.certainty {
                _ if self.wakers > 0 => External,
                Certainty::None => Poll,
                _ => Known,
            };
        }
        if self.wakers == 0 {
            return Known;
        }
        match self.certainty {
            Certainty::None => Poll,
            _ if self.fresh_wakers == 0 => Known,
            _ if !has_wrappers => External,
            Certainty::Probed { outside: true } => External,
            Certainty::Probed { outside: false } => Known,
            Certainty::Polled | Certainty::Probing { .. } => Probe,
        }
    }

    fn has_wrappers(&self) -> bool {
        self.wrappers.as_ref().is_some_and(|wrappers| !wrappers.by_address.is_empty())
    }

    #[inline]
    pub(super) fn begin_wait(&mut self, wakeup: &Wakeup) {
        match wakeup {
            Wakeup::Own(_) => self.direct_waits += 1,
            Wakeup::Other(waker) => {
                let wrappers = self.wrappers.get_or_insert_default();
                wrappers.count += 1;
                wrappers.by_address.insert(address(waker), (wrappers.count, waker.clone()));
            }
        }
    }

    /// Returns the wrapper of the wait, if it was registered by one, to be dropped where nothing is borrowed.
    #[inline]
    #[must_use]
    pub(super) fn end_wait(&mut self, wakeup: &Wakeup) -> Option<Arc<Waker>> {
        match wakeup {
            Wakeup::Own(_) => {
                self.direct_waits -= 1;
                None
            }
            Wakeup::Other(waker) => {
                self.wrappers.as_mut()?.by_address.remove(&address(waker)).map(|(_, waker)| waker)
            }
        }
    }

    pub(super) fn mark(&mut self) {
        self.marked_waits += 1;
    }

    pub(super) fn unmark(&mut self) {
        self.marked_waits -= 1;
    }

    #[inline]
    pub(super) fn begin_poll(&mut self) {
        self.fresh_wakers = 0;
    }

    /// It is polled next for nothing.
    pub(super) fn begin_check(&mut self) {
        self.certainty = Certainty::Polled;
        self.rounds = self.rounds.saturating_add(1);
    }

    /// Somebody has woken it, and holds the waker still if it `is_kept`; itself, if it `is_running`.
    #[inline]
    pub(super) fn woken(&mut self, is_kept: bool, is_running: bool) {
        match &mut self.certainty {
            Certainty::Probing { kept } => *kept += u32::from(is_kept),
            _ if is_running && self.rounds >= ROUNDS => {}
            certainty => *certainty = Certainty::None,
        }
        if !is_running && !matches!(self.certainty, Certainty::Probing { .. }) {
            self.rounds = 0;
        }
    }

    /// Others hold one waker more.
    pub(super) fn waker_cloned(&mut self, is_fresh: bool) {
        self.wakers += 1;
        self.fresh_wakers += u32::from(is_fresh);
    }

    /// Others hold one waker less. Of a parked coroutine that is news, and may be wrong: the waker may have been one of an
    /// older coroutine that looks the same.
    pub(super) fn waker_dropped(&mut self, is_fresh: bool, is_parked: bool) {
        self.fresh_wakers = self.fresh_wakers.saturating_sub(u32::from(is_fresh));
        self.wakers = self.wakers.saturating_sub(1).max(self.fresh_wakers);
        if is_parked && !matches!(self.certainty, Certainty::Probing { .. }) {
            self.certainty = Certainty::None;
        }
    }

    /// The wrappers that are to be woken; then comes `end_probe`.
    pub(super) fn begin_probe(&mut self) -> Vec<Arc<Waker>> {
        self.certainty = Certainty::Probing { kept: 0 };
        self.rounds = self.rounds.saturating_add(1);
        self.wrappers()
    }

    /// The wrappers of its known waits.
    pub(super) fn wrappers(&self) -> Vec<Arc<Waker>> {
        let mut numbered: Vec<_> =
            self.wrappers.iter().flat_map(|wrappers| wrappers.by_address.values().cloned()).collect();
        numbered.sort_unstable_by_key(|(number, _)| *number);
        numbered.into_iter().map(|(_, waker)| waker).collect()
    }

    pub(super) fn end_probe(&mut self) {
        if let Certainty::Probing { kept } = self.certainty {
            self.certainty = Certainty::Probed { outside: self.fresh_wakers > kept };
        }
    }
}

fn address(waker: &Arc<Waker>) -> usize {
    Arc::as_ptr(waker).addr()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::scheduler::waker::OwnWakeup;

    fn wrapper() -> Wakeup {
        Wakeup::Other(Arc::new(Waker::noop().clone()))
    }

    /// Polls it as `polls` says, and lets it park.
    fn polled(interest: &mut Interest, poll: impl FnOnce(&mut Interest)) -> Judgement {
        interest.begin_poll();
        poll(interest);
        interest.judge()
    }

    #[test]
    fn a_known_wait_alone_is_never_in_doubt() {
        let mut interest = Interest::default();
        interest.begin_wait(&Wakeup::Own(OwnWakeup::for_a_test()));
        assert_eq!(interest.judge(), Judgement::Known);
        let wrapped = wrapper();
        interest.begin_wait(&wrapped);
        assert_eq!(interest.judge(), Judgement::Known, "no waker of ours is out");
        assert!(interest.end_wait(&wrapped).is_some() && interest.end_wait(&wrapped).is_none());
    }

    #[test]
    fn nobody_can_wake_it_only_if_another_poll_says_so_too() {
        let mut interest = Interest::default();
        assert_eq!(polled(&mut interest, |_| ()), Judgement::Poll);
        interest.begin_check();
        assert_eq!(polled(&mut interest, |_| ()), Judgement::Known);
        // The future had not cloned our waker because a foreign one looked the same.
        let mut deceived = Interest::default();
        assert_eq!(polled(&mut deceived, |_| ()), Judgement::Poll);
        deceived.begin_check();
        let poll = |interest: &mut Interest| {
            interest.waker_cloned(true);
            interest.waker_dropped(false, false);
        };
        assert_eq!(polled(&mut deceived, poll), Judgement::External);
    }

    #[test]
    fn a_waker_that_was_left_behind_counts_until_the_next_poll_only() {
        let mut interest = Interest::default();
        let poll = |interest: &mut Interest| {
            interest.begin_wait(&Wakeup::Own(OwnWakeup::for_a_test()));
            interest.waker_cloned(true);
        };
        assert_eq!(polled(&mut interest, poll), Judgement::Poll);
        interest.begin_check();
        assert_eq!(polled(&mut interest, |_| ()), Judgement::Known);
        interest.woken(false, false);
        assert_eq!(polled(&mut interest, |_| ()), Judgement::Poll);
    }

    #[test]
    fn a_combinator_gives_its_waker_back_and_the_outside_does_not() {
        for (outside, expected) in [(0, Judgement::Known), (1, Judgement::External)] {
            for kept in [false, true] {
                let mut interest = Interest::default();
                interest.begin_check();
                let poll = |interest: &mut Interest| {
                    interest.begin_wait(&wrapper());
                    (0..1 + outside).for_each(|_| interest.waker_cloned(true));
                };
                assert_eq!(polled(&mut interest, poll), Judgement::Probe);
                assert_eq!(interest.begin_probe().len(), 1);
                interest.woken(kept, false);
                if !kept {
                    interest.waker_dropped(true, true);
                }
                interest.end_probe();
                let again = |interest: &mut Interest| {
                    (0..1 + outside).for_each(|_| interest.waker_cloned(true));
                };
                assert_eq!(polled(&mut interest, again), expected);
            }
        }
    }

    #[test]
    fn a_combinator_that_wakes_itself_is_believed_in_the_end() {
        let mut interest = Interest::default();
        interest.begin_wait(&wrapper());
        let mut rounds = 0;
        loop {
            match polled(&mut interest, |interest| interest.waker_cloned(true)) {
                Judgement::Poll => interest.begin_check(),
                Judgement::Probe => {
                    assert_eq!(interest.begin_probe().len(), 1);
                    interest.woken(false, false);
                    interest.waker_dropped(true, true);
                    interest.end_probe();
                    interest.woken(true, true);
                }
                judgement => {
                    assert_eq!(judgement, Judgement::Known);
                    break;
                }
            }
            rounds += 1;
            assert!(rounds < 10, "in doubt for ever");
        }
        interest.woken(false, false);
        assert_eq!(polled(&mut interest, |interest| interest.waker_cloned(true)), Judgement::Poll);
    }

    #[test]
    fn the_drop_of_a_waker_of_another_life_is_found_out() {
        let mut interest = Interest::default();
        assert_eq!(polled(&mut interest, |interest| interest.waker_cloned(true)), Judgement::External);
        interest.waker_dropped(true, true);
        assert_eq!(interest.judge(), Judgement::Poll);
        interest.begin_check();
        assert_eq!(polled(&mut interest, |interest| interest.waker_cloned(true)), Judgement::External);
    }
}
