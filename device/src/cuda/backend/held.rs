//! A cap on what a stream is given: beyond it operations wait here, in their order, and not in a call of the driver's, which would
//! block whoever submits, and with it everybody who needs the lock.
//!
//! An operation is *held* while its stream is full, while one before it in the stream is held, or one that it comes after: that one
//! has no mark to wait for yet. Held operations are given to the driver when somebody submits to their stream or looks.
//!
//! Where there is a time limit, an operation is held too while one of *another device* that it comes after has not ended. A stream that
//! waits on its device for a kernel elsewhere would look stuck as that does, and its device be lost as well.
//!
//! All of them are given: the oldest held operation comes after none that is held, and is the first of its stream; so it is given as
//! soon as the stream is not full, and what it comes after elsewhere has ended, which comes when what the driver has been given is done,
//! or its device lost.

use super::{Fate, Gpus, Live, State, source_fault, wait_for};

/// Calls of the driver that one operation makes, for most: waits, a fill, a copy, the command.
const CALLS_PER_OPERATION: usize = 4;

impl Gpus {
    /// Gives what can be given of all streams. Whether there was something.
    pub(super) fn give_held(&self, state: &mut State) -> bool {
        let mut has_given = false;
        let mut again = state.held_count > 0;
        while again {
            again = false;
            for device in 0..self.gpus.len() {
                for lane in 0..state.queues[device].len() {
                    again |= self.give_front(state, device, lane);
                }
            }
            has_given |= again;
        }
        has_given
    }

    /// Gives what can be given of one stream. Whether there was something.
    pub(super) fn give_front(&self, state: &mut State, device: usize, lane: usize) -> bool {
        let mut has_given = false;
        while self.has_room(state, device, lane) {
            let queue = &mut state.queues[device][lane];
            let Some(first) = queue.held.front() else { break };
            let own = queue.stream.gpu.index;
            let is_away = |live: &Live| self.limit.is_some() && live.lane.0 != own;
            let holds = |event| state.live.get(event).is_some_and(|live| live.is_held || is_away(live));
            if first.operation.after.iter().any(holds) {
                break;
            }
            state.held_count -= 1;
            has_given = true;
            self.give_first(state, device, lane);
        }
        has_given
    }

    fn has_room(&self, state: &State, device: usize, lane: usize) -> bool {
        let queue = &state.queues[device][lane];
        // Most often there is so little that the stream need not be asked.
        queue.given.len() * CALLS_PER_OPERATION < self.full_at || state.abandoned || !queue.stream.is_full()
    }

    /// Gives the first held operation of a stream to the driver.
    fn give_first(&self, state: &mut State, device: usize, lane: usize) {
        let queue = &mut state.queues[device][lane];
        let mut given = queue.held.pop_front().expect("it was just looked at");
        let stream = queue.stream.clone();
        if given.operation.is_timed {
            given.timer = queue.timers.pop().or_else(|| stream.make_timer());
        }
        let mut parameters = std::mem::take(&mut state.parameters);
        let marks = given.operation.after.iter().filter_map(|event| state.live.get(event)?.mark);
        // While it was held, the device that it reads from may have been lost.
        let is_void = state.live.get(&given.event).is_some_and(|live| live.is_void)
            || source_fault(state, &given.operation).is_some();
        if state.abandoned {
            given.fate = Fate::Refused;
        }
        let answer = if is_void || given.fate == Fate::Refused {
            // What comes after it relies on the waits. It finds its fault when it ends.
            wait_for(&stream, marks).and_then(|()| stream.mark())
        } else {
            self.give(&stream, &given.operation, marks, &mut parameters, given.timer.as_ref())
        };
        (given.mark, given.fault) = match answer {
            Ok(mark) => (Some(mark), None),
            Err(error) => {
                let fault = self.refuse(state, error, &given.operation);
                // A part of it may be under way.
                (stream.mark().ok(), Some(fault))
            }
        };
        state.parameters = parameters;
        let lane_name = (self.gpus[device].index, stream.lane);
        let is_void = is_void || given.fault.is_some();
        state.live.insert(given.event, Live { mark: given.mark, is_void, is_held: false, lane: lane_name });
        state.queues[device][lane].given.push_back(given);
    }
}
