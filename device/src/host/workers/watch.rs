//! The thread that watches for kernels that run too long, where there is a limit.
//!
//! A kernel that is overdue cannot be stopped, and has its worker. So its operation is *retired* as if it had finished, its completion gets
//! a fault, the device is lost, and another worker is started in the place of that one: what followed finds the device lost and ends.
//! Should the kernel end after all, its worker finds that its operation has been retired, lets go of it, and goes on as one worker more.
//! Until then it keeps the memory. Nobody waits for such a worker.

use std::sync::Arc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::{Live, Shared, State};
use crate::completion::Cell;
use crate::event::Event;
use crate::fault::FaultKind;
use crate::operation::Operation;
use crate::watchdog::overdue;

/// A kernel that runs and has a limit.
pub(super) struct Running {
    since: Instant,
    worker: ThreadId,
    cell: Arc<Cell>,
}

impl Running {
    /// Of an operation that this thread is about to run.
    pub(super) fn new(operation: &Operation) -> Self {
        let cell = operation.completion.clone().expect("an operation that has not ended has its completion");
        Running { since: Instant::now(), worker: std::thread::current().id(), cell }
    }
}

impl State {
    /// The kernel that is overdue, if there is one, or how long it takes until one may be.
    fn overdue(&self, limit: Duration) -> Result<Event, Duration> {
        let since = |(&event, live): (&Event, &Live)| Some((live.running.as_ref()?.since, event));
        match self.live.iter().filter_map(since).min() {
            Some((since, event)) => match limit.saturating_sub(since.elapsed()) {
                left if left.is_zero() => Ok(event),
                left => Err(left),
            },
            // One may begin now.
            None => Err(limit),
        }
    }
}

impl Shared {
    /// The loop of the watching thread.
    pub(super) fn watch(self: &Arc<Self>, limit: Duration) {
        let mut state = self.lock();
        while !state.has_ended() {
            match state.overdue(limit) {
                Ok(event) => {
                    self.give_up(state, event, limit);
                    state = self.lock();
                }
                Err(left) => {
                    let waited = self.watching.wait_timeout(state, left);
                    state = waited.expect("nothing panics under this lock").0;
                }
            }
        }
    }

    /// Goes on without an operation whose kernel is overdue.
    fn give_up(self: &Arc<Self>, mut state: std::sync::MutexGuard<'_, State>, event: Event, limit: Duration) {
        let live = state.live.get_mut(&event).expect("it runs, so it has not finished");
        let device = live.device;
        let Running { worker, cell, .. } = live.running.take().expect("it runs");
        let record = || cell.record_fault(FaultKind::Kernel, overdue(limit));
        let fault = self.limits.lose(device, record);
        state.overdue.push(worker);
        state.retire(event);
        drop(state);
        // With no thread more, what follows waits for the other workers.
        let _ = self.start_worker();
        self.wake.notify_all();
        cell.publish_overdue(fault);
        self.pending.end();
    }
}
