//! The half of a transport that makes progress: one thread at a time polls it.
//!
//! The invariant: once a call has failed, the driver touches the network no more, and every later call fails the same way.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::facts::Facts;
use crate::frame::{Frame, Rank};
use crate::network::{Event, Nap, Network};
use crate::outbox::Shared;
use crate::protocol::{Action, Engine};
use crate::watch::{Alarm, Watch, Watched};

/// How long a process that ends the job waits for the others to have noticed.
const ABORT_GRACE: Duration = Duration::from_secs(1);

/// How long it waits then for launchers to pass on what the others have printed.
const PRINT_GRACE: Duration = Duration::from_millis(100);

/// Moves frames between the outbox and the network, in both directions.
pub struct Driver {
    shared: Arc<Shared>,
    network: Box<dyn Network>,
    engine: Engine,
    events: Vec<Event>,
    state: State,
    has_announced_nap: bool,
    watched: Arc<Watched>,
    /// Dropped last: until then this process is not missed.
    watch: Option<Watch>,
    /// A driver may change threads, but is never shared by them.
    not_shared: PhantomData<Cell<()>>,
}

enum State {
    Open,
    Closing,
    Closed,
    Failed(Error),
}

/// What a poll has found.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing to do.
    Idle,
    /// Something was sent or has come; there may be more.
    Busy,
    /// All processes have closed, and all that was sent has been delivered. There is nothing to poll for any more.
    Closed,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>, network: Box<dyn Network>) -> Self {
        Driver {
            engine: Engine::new(shared.facts.size(), shared.limits.clone()),
            shared,
            network,
            events: Vec::new(),
            state: State::Open,
            has_announced_nap: false,
            watched: Arc::default(),
            watch: None,
            not_shared: PhantomData,
        }
    }

    /// Has this process watch others, and be watched, as `begin` says.
    #[cfg(feature = "mpi")]
    pub(crate) fn watch(&mut self, begin: impl FnOnce(&Facts, Arc<Watched>) -> Option<Watch>) {
        self.watch = begin(&self.shared.facts, self.watched.clone());
    }

    /// Has `hook` called, by a thread of this crate's, when a process is lost, where processes watch each other. It may also be called
    /// now.
    pub fn on_alarm(&mut self, hook: impl FnMut(Alarm<'_>) + Send + 'static) {
        self.watched.set_hook(Box::new(hook));
    }

    /// What this process knows about the job.
    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    /// Sends what is queued, takes what has come, and gives complete frames to `sink`, those of each process in the order in which it
    /// sent them. What the sink queues goes at once. Never waits, and is to be called often: by a process that does not
    /// poll, nothing is sent or received.
    ///
    /// The sink may send, and must not panic: after a panic the frames of that peer are in disorder.
    ///
    /// # Errors
    /// If a peer is lost, has ended the job or has sent what is no part of the protocol, or if the network has failed. Every later
    /// call answers the same; the job is over, and the way on is [`Driver::abort`].
    pub fn poll(&mut self, sink: &mut dyn FnMut(Rank, Frame<'_>)) -> Result<Progress, Error> {
        match &self.state {
            State::Failed(error) => return Err(error.clone()),
            State::Closed => return Ok(Progress::Closed),
            State::Open | State::Closing => {}
        }
        if let Some(error) = self.watched.lost() {
            let error = error.clone();
            return Err(self.fail(error));
        }
        if self.has_announced_nap {
            self.has_announced_nap = false;
            self.shared.end_nap();
        }
        self.advance(sink).map_err(|error| self.fail(error))
    }

    fn advance(&mut self, sink: &mut dyn FnMut(Rank, Frame<'_>)) -> Result<Progress, Error> {
        let mut is_busy = self.has_work() && self.push()?;
        let polled = self.network.poll(&mut self.engine.free, &mut self.events);
        if !self.events.is_empty() {
            is_busy = true;
            self.take_events(sink)?;
        }
        polled?;
        is_busy |= self.has_work() && self.push()?;
        if matches!(self.state, State::Closing) && self.engine.is_closed() && self.network.is_idle() {
            self.network.closed();
            self.say_bye();
            self.state = State::Closed;
            return Ok(Progress::Closed);
        }
        Ok(if is_busy { Progress::Busy } else { Progress::Idle })
    }

    /// Sends what is queued and may go, and takes nothing: for a thread that has queued much, and polls later. Never waits.
    ///
    /// # Errors
    /// As [`Driver::poll`].
    pub fn flush(&mut self) -> Result<(), Error> {
        if !matches!(self.state, State::Open) || !self.has_work() {
            return Ok(());
        }
        self.push().map(drop).map_err(|error| self.fail(error))
    }

    /// Whether there may be something to push.
    fn has_work(&self) -> bool {
        self.engine.has_work() || self.shared.has_ready()
    }

    // Apart, like `push`: a poll that finds nothing is what the next arrival waits for.
    #[inline(never)]
    fn take_events(&mut self, sink: &mut dyn FnMut(Rank, Frame<'_>)) -> Result<(), Error> {
        self.events.drain(..).try_for_each(|event| self.engine.handle(event, sink))
    }

    /// Hands the network what is queued and may go; whether there was anything.
    #[inline(never)]
    fn push(&mut self) -> Result<bool, Error> {
        self.shared.take_ready(|rank| self.engine.take_queued(&self.shared, rank));
        self.engine.pump();
        let is_busy = !self.engine.actions.is_empty();
        while let Some(action) = self.engine.actions.pop_front() {
            match action {
                Action::Batch { to, batch, queued_bytes } => {
                    self.shared.release(to, queued_bytes);
                    self.network.send_batch(to, batch, &mut self.engine.free)?;
                }
                Action::Bulk { to, buffer } => self.network.send_bulk(to, buffer)?,
                Action::Receive { from, id, landing } => self.network.receive_bulk(from, id, landing)?,
            }
        }
        Ok(is_busy)
    }

    /// Lets this process go without being missed.
    fn say_bye(&self) {
        self.watch.iter().for_each(Watch::say_bye);
    }

    fn fail(&mut self, error: Error) -> Error {
        self.shared.close();
        self.state = State::Failed(error.clone());
        error
    }

    /// Begins the end: nothing more can be sent, and [`Driver::poll`] goes on until it answers [`Progress::Closed`], which takes
    /// all processes: each delivers what was sent to it, and closes too.
    pub fn close(&mut self) {
        if matches!(self.state, State::Open) {
            self.state = State::Closing;
            self.shared.close();
            for index in 0..self.facts().size() {
                self.engine.take_queued(&self.shared, Rank(index as u32));
            }
            self.engine.close();
        }
    }

    /// Ends the job for all processes, and tells them why; `exit_code` is that of the launcher, where the network has one.
    ///
    /// Over MPI it waits up to a second for the others to have dropped their drivers, and does not return. In one process it returns, and the
    /// others find [`Error::Aborted`] when they poll.
    pub fn abort(mut self, reason: &str, exit_code: i32) {
        let myself = self.facts().rank();
        self.engine.abort(myself, reason);
        // The job is over; what can be told is told, and what fails now is of no more use to anybody.
        let told = self.push().is_ok();
        if told && self.network.ends_processes() {
            self.wait_for_farewells();
        }
        self.say_bye();
        self.network.abort(exit_code);
        self.state = State::Closed;
    }

    fn wait_for_farewells(&mut self) {
        let mut until = Instant::now() + ABORT_GRACE;
        let mut waited_for = self.facts().size() - 1;
        if waited_for == 0 {
            return;
        }
        while Instant::now() < until {
            let polled = self.network.poll(&mut self.engine.free, &mut self.events);
            for event in self.events.drain(..) {
                if matches!(&event, Event::Batch { batch, .. } if Engine::says_farewell(batch)) {
                    waited_for -= 1;
                    if waited_for == 0 {
                        until = until.min(Instant::now() + PRINT_GRACE);
                    }
                }
            }
            if polled.is_err() {
                break;
            }
            thread::yield_now();
        }
    }

    /// Has `hook` called when a driver that naps should poll again. It is called by threads that send, under no lock, and should
    /// only unpark a thread.
    ///
    /// # Panics
    /// If there is one already.
    pub fn set_wake_hook(&mut self, hook: impl Fn() + Send + Sync + 'static) {
        self.shared.set_hook(Arc::new(hook));
    }

    /// Says that the driver's thread is about to sleep. The next [`Driver::poll`] takes it back.
    ///
    /// A frame that is sent from now on calls the hook, once, unless the answer is [`Nap::Stay`].
    pub fn announce_nap(&mut self) -> Nap {
        if !matches!(self.state, State::Open | State::Closing) || !self.shared.begin_nap() {
            return Nap::Stay;
        }
        let nap = self.network.before_nap();
        if nap == Nap::Stay {
            self.shared.end_nap();
        } else {
            self.has_announced_nap = true;
        }
        nap
    }
}

impl Drop for Driver {
    /// Tells the others, unless all have closed.
    ///
    /// Where a peer has ended the job and the network ends its processes, this waits for that, up to twice the time that the
    /// peer waits: launchers end all when one has gone, and others may have something to say yet. So say what is to be said
    /// before the driver is dropped.
    fn drop(&mut self) {
        self.shared.close();
        // Who is lost would be told in vain, and all others know.
        if matches!(self.state, State::Closed) || self.watched.lost().is_some() {
            return;
        }
        let myself = self.facts().rank();
        self.engine.actions.clear();
        self.engine.leave(myself);
        // Whoever cannot be told finds out otherwise.
        let told = self.push().is_ok();
        if told && matches!(self.state, State::Failed(Error::Aborted { .. })) && self.network.ends_processes()
        {
            let begin = Instant::now();
            while begin.elapsed() < 2 * ABORT_GRACE {
                let polled = self.network.poll(&mut self.engine.free, &mut self.events);
                self.events.clear();
                if polled.is_err() {
                    break;
                }
                thread::yield_now();
            }
            self.say_bye();
        }
    }
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Driver of {} of {}", self.facts().rank(), self.facts().size())
    }
}
