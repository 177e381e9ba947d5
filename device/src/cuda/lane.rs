//! The order of one stream: positions, pending events, and the names of what is unfinished.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use super::error::DeviceFault;
use super::raw::{Answer, Context, Query, RawEvent, RawStream};

/// The label of a notification.
pub(super) const NOTIFICATION: &str = "notification";

/// A stream records an event at the latest after so many operations.
const OPERATIONS_PER_EVENT: u64 = 64;

/// A position of a stream: reached when all that the stream was given up to it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub(super) device: u16,
    pub(super) lane: u16,
    pub(super) position: u64,
}

/// What is known of a mark.
#[derive(Debug, Clone)]
#[must_use]
pub enum Progress {
    /// All up to it is done.
    Ready,
    /// It is not.
    Pending,
    /// It never will be: the device is lost.
    Fault(Arc<DeviceFault>),
}

/// A stream of the driver's, with its order.
pub(super) struct Lane {
    context: Arc<Context>,
    priority: i32,
    /// Made when it is first used: most programs use few, and each takes memory of the device.
    raw: OnceLock<RawStream>,
    /// The position up to which all is known to be done. Written under the lock.
    completed: AtomicU64,
    timeline: Mutex<Timeline>,
}

/// What a lane's lock guards.
pub(super) struct Timeline {
    /// The position of what was submitted last.
    submitted: u64,
    /// The position of the last event.
    marked: u64,
    /// Events that are not known to be complete, with their positions, oldest first.
    events: VecDeque<(u64, RawEvent)>,
    /// Complete events, to be recorded again.
    spare: Vec<RawEvent>,
    /// What is not known to be done, oldest first.
    labels: VecDeque<(u64, &'static str)>,
}

impl Timeline {
    /// The position of what was submitted last.
    pub(super) fn submitted(&self) -> u64 {
        self.submitted
    }
}

impl Lane {
    pub(super) fn new(context: Arc<Context>, priority: i32) -> Lane {
        let timeline = Timeline {
            submitted: 0,
            marked: 0,
            events: VecDeque::new(),
            spare: Vec::new(),
            labels: VecDeque::new(),
        };
        let (completed, timeline) = (AtomicU64::new(0), Mutex::new(timeline));
        Lane { context, priority, raw: OnceLock::new(), completed, timeline }
    }

    /// The driver's stream.
    #[inline]
    pub(super) fn raw(&self) -> Answer<&RawStream> {
        self.raw.get().map_or_else(|| self.make(), Ok)
    }

    #[cold]
    fn make(&self) -> Answer<&RawStream> {
        // Another thread may be faster; then this one's goes.
        let made = RawStream::create(&self.context, self.priority)?;
        Ok(self.raw.get_or_init(|| made))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().expect("nothing panics under this lock")
    }

    /// Whether a position is known to be reached, without asking the driver.
    #[inline]
    pub(super) fn has_completed(&self, position: u64) -> bool {
        // Pairs with the release in `poll`: what the host does next comes after what the device did.
        self.completed.load(Ordering::Acquire) >= position
    }

    /// Submits one operation, of which `call` is the driver's call; its position.
    pub(super) fn submit(
        &self,
        timeline: &mut Timeline,
        create: impl FnOnce() -> Answer<RawEvent>,
        label: &'static str,
        call: impl FnOnce(&RawStream) -> Answer<()>,
    ) -> Answer<u64> {
        call(self.raw()?)?;
        timeline.submitted += 1;
        timeline.labels.push_back((timeline.submitted, label));
        let position = timeline.submitted;
        if position - timeline.marked >= OPERATIONS_PER_EVENT {
            // The operation is submitted, whatever becomes of the event; another is recorded for whoever asks.
            let _ = self.record(timeline, create);
        }
        Ok(position)
    }

    /// Records an event after all that was submitted.
    fn record(&self, timeline: &mut Timeline, create: impl FnOnce() -> Answer<RawEvent>) -> Answer<()> {
        let event = timeline.spare.pop().map_or_else(create, Ok)?;
        self.raw()?.record(&event)?;
        timeline.marked = timeline.submitted;
        timeline.events.push_back((timeline.submitted, event));
        Ok(())
    }

    /// Sees to it that there is an event right after what was submitted last; the position of that.
    pub(super) fn mark(
        &self,
        timeline: &mut Timeline,
        create: impl FnOnce() -> Answer<RawEvent>,
    ) -> Answer<u64> {
        if timeline.marked < timeline.submitted && !self.has_completed(timeline.submitted) {
            self.record(timeline, create)?;
        }
        Ok(timeline.submitted)
    }

    /// Makes `waiter` wait until `position` is reached here. Whether it was given something to wait for.
    pub(super) fn hold_back(
        &self,
        waiter: &RawStream,
        position: u64,
        create: impl FnOnce() -> Answer<RawEvent>,
    ) -> Answer<bool> {
        let mut timeline = self.lock();
        if self.has_completed(position) {
            return Ok(false);
        }
        if timeline.marked < position {
            self.record(&mut timeline, create)?;
        }
        let event = timeline.events.iter().find(|(marked, _)| *marked >= position);
        event.map_or(Ok(false), |(_, event)| waiter.wait(event).map(|()| true))
    }

    /// Counts a wait that the stream was given. It is a position as any other: what is marked next is reached after the wait, also
    /// if nothing but the wait comes before it.
    pub(super) fn note_wait(&self) {
        self.lock().submitted += 1;
    }

    /// Asks the driver how far the stream has got, and sees to it that it can tell about `position` some time.
    pub(super) fn look_for(&self, position: u64, create: impl FnOnce() -> Answer<RawEvent>) -> Answer<()> {
        let mut timeline = self.lock();
        if timeline.marked < position {
            self.record(&mut timeline, create)?;
        }
        self.advance(&mut timeline)
    }

    /// Asks the driver how far the stream has got.
    pub(super) fn poll(&self) -> Answer<()> {
        self.advance(&mut self.lock())
    }

    fn advance(&self, timeline: &mut Timeline) -> Answer<()> {
        while let Some((position, event)) = timeline.events.front() {
            match event.query() {
                Query::Pending => break,
                Query::Failed(status) => return Err(status),
                Query::Ready => {}
            }
            let position = *position;
            // Pairs with the acquire in `has_completed`.
            self.completed.store(position, Ordering::Release);
            let event = timeline.events.pop_front().expect("it was just looked at").1;
            timeline.spare.push(event);
            while timeline.labels.front().is_some_and(|(labelled, _)| *labelled <= position) {
                timeline.labels.pop_front();
            }
        }
        Ok(())
    }

    /// Waits on the host until all is done.
    pub(super) fn synchronize(&self, create: impl FnOnce() -> Answer<RawEvent>) -> Answer<()> {
        {
            let mut timeline = self.lock();
            let last = self.mark(&mut timeline, create)?;
            if self.has_completed(last) {
                return Ok(());
            }
        }
        self.raw()?.synchronize()?;
        self.poll()
    }

    /// Operations that are not known to be done.
    pub(super) fn unfinished_count(&self) -> u64 {
        // The count never lags behind the completed position, which is read first.
        let completed = self.completed.load(Ordering::Acquire);
        self.lock().submitted - completed
    }

    /// The oldest operation that is not known to be done. A notification is none: it cannot fail, and one that has been called may not be known.
    pub(super) fn oldest(&self) -> Option<&'static str> {
        let timeline = &mut *self.lock();
        timeline.labels.iter().map(|(_, label)| *label).find(|&label| label != NOTIFICATION)
    }
}
