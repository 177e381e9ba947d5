//! The time limit: what becomes of a device whose stream makes no progress.
//!
//! Whoever looks notes when it has first seen an operation at the head of its stream. If it is there for longer than the limit allows,
//! the device is lost, as after a sticky error: the driver is asked nothing more about it. But its work goes on, and may end. So what
//! the driver has been given is *deserted*: its waiter gets the fault, and the operation with all that it uses is kept for ever, as
//! is the machine, whose end would wait for the device.

use std::time::Instant;

use super::{Fate, Given, Gpus, State};
use crate::operation::Operation;
use crate::watchdog::overdue;

impl Gpus {
    /// Whether an operation that has been seen at the head of its stream has been there for too long.
    pub(super) fn is_overdue(&self, given: &Given) -> bool {
        self.limit.is_some_and(|limit| given.since.is_some_and(|since| since.elapsed() > limit))
    }

    /// Notes that the first operation of a stream has not ended. Whether it is overdue.
    pub(super) fn watch_first(&self, state: &mut State, device: usize, lane: usize) -> bool {
        if self.limit.is_none() {
            return false;
        }
        let first = state.queues[device][lane].given.front_mut().expect("it was just looked at");
        first.since.get_or_insert_with(Instant::now);
        self.is_overdue(first)
    }

    /// Loses the device of an overdue operation, the first of its stream, and ends all that it has been given.
    #[cold]
    pub(super) fn give_up(&self, state: &mut State, device: usize, lane: usize, ended: &mut Vec<Given>) {
        let (Some(limit), None) = (self.limit, &state.lost[device]) else { return };
        let first = state.queues[device][lane].given.front().expect("it was just looked at");
        let fault = first.operation.record_fault(overdue(limit));
        state.lost[device] = Some(fault.clone());
        self.gpus[device].give_up();
        std::mem::forget(self.cuda.clone());
        for queue in &mut state.queues[device] {
            let given = queue.given.drain(..).map(|given| Given { fate: Fate::Deserted, ..given });
            state.held_count -= queue.held.len();
            for given in given.chain(queue.held.drain(..)) {
                state.live.remove(&given.event);
                ended.push(Given { fault: Some(fault.clone()), ..given });
            }
        }
    }

    /// Keeps what may still be used.
    pub(super) fn keep_for_ever(&self, operation: Box<Operation>) {
        self.state().deserted.push(operation);
    }
}
