//! How threads that sleep are woken by a device: a function that the driver calls behind the work of a stream.
//!
//! The function only unparks a thread that is in the list of sleepers. Invariant: while there are sleepers and work that they may wait
//! for, each stream with such work has a notification behind it that has not been called, or a thread is awake that will look and see
//! to the others ([`Gpus::see_to_sleepers`]). `device/README.md` has the argument.

use std::collections::VecDeque;
use std::thread::Thread;

use super::{Given, Gpu, Gpus, Progress, Rest, State};

impl Gpus {
    /// How long a thread may sleep, which is added to the sleepers.
    pub(super) fn rest(&self, state: &mut State, sleeper: &Thread) -> Rest {
        if self.pending.count() == 0 {
            return Rest::Unlimited;
        }
        // First, so that a notification either comes later, and finds it, or came before what is asked below.
        self.sleepers.add(sleeper);
        if state.runner.is_some() {
            // That one sees to the others when it is done.
            return Rest::SHORT;
        }
        if self.can_end(state) {
            self.sleepers.remove(sleeper.id());
            return Rest::LookFirst;
        }
        self.ask_for_notifications(state)
    }

    /// Whether something may end now.
    pub(super) fn can_end(&self, state: &State) -> bool {
        let is_over = |given: &Given, gpu: &Gpu| {
            !given.operation.after.iter().any(|event| state.live.contains_key(event))
                && given.mark.is_none_or(|mark| {
                    !matches!(gpu.query(mark), Progress::Pending) || self.is_overdue(given)
                })
        };
        let queues_of = self.gpus.iter().zip(&state.queues);
        queues_of
            .flat_map(|(gpu, queues)| queues.iter().map(move |queue| (gpu, queue)))
            .any(|(gpu, queue)| queue.given.front().is_some_and(|given| is_over(given, gpu)))
    }

    /// Has the driver wake a sleeper behind all that the streams have been given. How long that one may sleep.
    pub(super) fn ask_for_notifications(&self, state: &mut State) -> Rest {
        let mut rest = Rest::LONG;
        for queue in state.queues.iter_mut().flatten() {
            if !queue.held.is_empty() {
                rest = Rest::SHORT;
            }
            let Some(last) = queue.given.back().map(|given| given.event) else { continue };
            if queue.notified != Some(last) {
                let sleepers = self.sleepers.clone();
                // Should it be refused, the device is lost or will be, which is found by looking.
                let asked = queue.stream.notify(move || sleepers.wake_one());
                queue.notified = asked.is_ok().then_some(last);
            }
            if tells_too_late(&queue.given) || queue.notified.is_none() {
                rest = Rest::SHORT;
            }
        }
        rest
    }

    /// Whoever has ended operations may have been woken for others that sleep.
    pub(super) fn see_to_sleepers(&self, state: &mut State) {
        if self.pending.count() == 0 || self.sleepers.is_empty() {
            return;
        }
        if self.can_end(state) {
            self.sleepers.wake_one();
        } else {
            self.ask_for_notifications(state);
        }
    }
}

/// Whether somebody waits for an operation of the stream other than the last, of which notifications do not tell. Looks at a few.
fn tells_too_late(given: &VecDeque<Given>) -> bool {
    const LOOKED_AT: usize = 64;
    let is_awaited =
        |given: &Given| given.operation.completion.as_ref().is_some_and(|cell| cell.is_awaited());
    given.len() > LOOKED_AT || given.iter().rev().skip(1).any(is_awaited)
}
