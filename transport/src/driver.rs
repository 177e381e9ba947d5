//! The half of a transport that makes progress: one thread at a time polls it.
//!
//! The invariant: once a call has failed, the driver touches the network no more, and every later call fails the same way.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crate::buffer::DeviceBuf;
use crate::error::Error;
use crate::facts::Facts;
use crate::frame::{Frame, Rank};
use crate::network::{Event, Nap, Network};
use crate::outbox::Shared;
use crate::protocol::{Action, Engine};
use crate::watch::{Alarm, Herald, Watch, Watched};

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
    /// All have been told by the watch that a process is lost.
    has_told_loss: bool,
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
            has_told_loss: false,
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
    /// now. It may wait, though what comes next is not told meanwhile: the signs of life of this process are another thread's. As long as there is none,
    /// alarms are told on standard error, and [`Alarm::Stuck`] aborts the process.
    pub fn on_alarm(&mut self, hook: impl FnMut(Alarm) + Send + 'static) {
        self.watched.set_hook(Box::new(hook));
    }

    /// What tells the others that this process has ended badly, for any thread. It does nothing where processes do not watch each other.
    pub fn herald(&self) -> Herald {
        let own = self.facts().rank();
        self.watch.as_ref().map_or(Herald::of_none(own), |watch| watch.herald(own))
    }

    /// Whether the network says of itself that it sends and receives memory of CUDA devices.
    ///
    /// # Errors
    /// Why not, in a few words.
    pub fn reaches_cuda(&self) -> Result<(), &'static str> {
        self.network.reaches_cuda()
    }

    /// Has `make` called for each [`Buffer::Device`](crate::Buffer::Device) that is announced, with who sends it, the header of its frame (empty
    /// if that comes by itself) and its length. What it makes is received to, and comes with the frame; where it makes nothing, or something of another
    /// length, memory of the host is. It is called from polls, and must not panic.
    pub fn set_device_memory(
        &mut self,
        make: impl FnMut(Rank, &[u8], usize) -> Option<DeviceBuf> + Send + 'static,
    ) {
        self.engine.device_memory = Some(Box::new(make));
    }

    /// What this process knows about the job.
    pub fn facts(&self) -> &Facts {
        &self.shared.facts
    }

    /// Has all processes know what each of them brings, by rank. All of them call it, each as often as the others, and it waits for them:
    /// for what they agree on before they work. None if they are all parts of one process of the system, and need not ask.
    ///
    /// # Errors
    /// If the network has failed, as for [`Driver::poll`].
    pub fn gather(&mut self, own: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Error> {
        if let State::Failed(error) = &self.state {
            return Err(error.clone());
        }
        let gathered = self.network.gather(own);
        gathered.map_err(|error| self.fail(error))
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
        let mut is_busy = self.has_work() && self.push(false)?;
        let polled = self.network.poll(&mut self.engine.free, &mut self.events);
        if !self.events.is_empty() {
            is_busy = true;
            self.take_events(sink)?;
        }
        polled?;
        is_busy |= self.has_work() && self.push(false)?;
        if matches!(self.state, State::Closing)
            && self.engine.is_closed()
            && self.network.is_idle()
            && self.watch.as_mut().is_none_or(Watch::may_close)
        {
            self.network.closed();
            self.say_bye();
            self.state = State::Closed;
            return Ok(Progress::Closed);
        }
        Ok(if is_busy { Progress::Busy } else { Progress::Idle })
    }

    /// Sends full batches and large buffers that may go, and takes nothing: for a thread that has queued much, and polls later. Never
    /// waits.
    ///
    /// # Errors
    /// As [`Driver::poll`].
    pub fn flush(&mut self) -> Result<(), Error> {
        if !matches!(self.state, State::Open) || !self.has_work() {
            return Ok(());
        }
        self.push(true).map(drop).map_err(|error| self.fail(error))
    }

    /// Whether there may be something to push.
    fn has_work(&self) -> bool {
        self.engine.has_work() || self.shared.has_ready()
    }

    // Apart, like `push`: a poll that finds nothing is what the next arrival waits for.
    #[inline(never)]
    fn take_events(&mut self, sink: &mut dyn FnMut(Rank, Frame<'_>)) -> Result<(), Error> {
        // Mostly there is one, which needs no care for others.
        if self.events.len() == 1
            && let Some(Event::Batch { from, batch }) =
                self.events.pop_if(|event| matches!(event, Event::Batch { .. }))
        {
            return self.engine.take_arrival(from, batch, sink);
        }
        self.events.drain(..).try_for_each(|event| self.engine.handle(event, sink))
    }

    /// Hands the network what is queued and may go; whether there was anything. A batch that more fits into waits if it `may_wait`, or
    /// while the network is behind.
    #[inline(never)]
    fn push(&mut self, may_wait: bool) -> Result<bool, Error> {
        let Driver { shared, network, engine, .. } = self;
        let mut is_busy = false;
        shared.take_ready(|rank| {
            let may_wait = may_wait || network.is_behind(rank);
            if let Some(batch) = engine.take(shared, rank, may_wait) {
                is_busy = true;
                let queued_bytes = batch.cargo().queued_bytes;
                network.send_batch(rank, batch, &mut engine.free)?;
                shared.release(rank, queued_bytes);
            }
            Ok(())
        })?;
        if !engine.has_work() {
            return Ok(is_busy);
        }
        self.engine.pump();
        is_busy |= !self.engine.actions.is_empty();
        while let Some(action) = self.engine.actions.pop_front() {
            match action {
                Action::Batch { to, batch } => {
                    self.shared.release(to, batch.cargo().queued_bytes);
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
        // One that has left has told all of that itself.
        if let (Error::Lost { rank, .. }, None, Some(watch)) = (&error, self.watched.lost(), &self.watch)
            && self.engine.left() != Some(*rank)
        {
            self.has_told_loss = watch.tell_unreached(self.facts().rank(), *rank);
        }
        self.state = State::Failed(error.clone());
        error
    }

    /// Begins the end: nothing more can be sent, and [`Driver::poll`] goes on until it answers [`Progress::Closed`], which takes
    /// all processes: each delivers what was sent to it, and closes too.
    pub fn close(&mut self) {
        if matches!(self.state, State::Open) {
            self.state = State::Closing;
            self.watch.iter().for_each(Watch::begin_close);
            self.shared.close();
            for index in 0..self.facts().size() {
                self.engine.take_queued(&self.shared, Rank(index as u32), false);
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
        let told = self.push(false).is_ok();
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

    /// Whether what arrives calls the wake hook, too: [`Driver::announce_nap`] answers [`Nap::Briefly`] otherwise.
    pub fn is_woken(&self) -> bool {
        self.network.is_woken()
    }

    /// Says that the driver's thread is about to sleep. The next [`Driver::poll`] takes it back.
    ///
    /// A frame that is sent from now on calls the hook, once, unless the answer is [`Nap::Stay`].
    pub fn announce_nap(&mut self) -> Nap {
        let may_nap = || self.shared.begin_nap(|rank| self.network.is_behind(rank));
        if !matches!(self.state, State::Open | State::Closing) || !may_nap() {
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
        if matches!(self.state, State::Closed) || self.has_told_loss || self.watched.lost().is_some() {
            return;
        }
        let myself = self.facts().rank();
        self.engine.actions.clear();
        self.engine.leave(myself);
        // Whoever cannot be told finds out otherwise.
        let told = self.push(false).is_ok();
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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::batch::Batch;
    use crate::buffer::{Buffer, Landing};
    use crate::facts::ThreadLevel;
    use crate::limits::Limits;
    use crate::network::FreeBatches;
    use crate::start::{self, Process};

    /// A network that keeps up when it is told to, and what it was given.
    #[derive(Clone, Default)]
    struct Slow {
        is_behind: Arc<AtomicBool>,
        /// To the network a process is lost.
        misses: Arc<Mutex<Option<Rank>>>,
        batches: Arc<Mutex<Vec<(Rank, usize)>>>,
        buffers: Arc<Mutex<Vec<usize>>>,
    }

    impl Slow {
        fn batches_to(&self, rank: u32) -> usize {
            let batches = self.batches.lock().expect("no test panics here");
            batches.iter().filter(|(to, _)| *to == Rank(rank)).count()
        }
    }

    impl Network for Slow {
        fn send_batch(&mut self, to: Rank, batch: Batch, free: &mut FreeBatches) -> Result<(), Error> {
            self.batches.lock().expect("no test panics here").push((to, batch.bytes().len()));
            free.put(batch);
            Ok(())
        }
        fn send_bulk(&mut self, _: Rank, buffer: Buffer) -> Result<(), Error> {
            self.buffers.lock().expect("no test panics here").push(buffer.len());
            Ok(())
        }
        fn receive_bulk(&mut self, _: Rank, _: u64, _: Landing) -> Result<(), Error> {
            Ok(())
        }
        fn poll(&mut self, _: &mut FreeBatches, _: &mut Vec<Event>) -> Result<(), Error> {
            let missed = *self.misses.lock().expect("no test panics here");
            missed.map_or(Ok(()), |rank| Err(Error::Lost { rank, why: "it has failed".into() }))
        }
        fn is_behind(&self, to: Rank) -> bool {
            to == Rank(1) && self.is_behind.load(Ordering::SeqCst)
        }
        fn gather(&mut self, _: &[u8]) -> Result<Option<Vec<Vec<u8>>>, Error> {
            Ok(None)
        }
        fn reaches_cuda(&self) -> Result<(), &'static str> {
            Err("a test")
        }
        fn is_idle(&self) -> bool {
            true
        }
        fn before_nap(&mut self) -> Nap {
            Nap::Briefly
        }
        fn closed(&mut self) {}
        fn ends_processes(&self) -> bool {
            false
        }
        fn abort(&mut self, _: i32) {}
    }

    fn process(limits: &Limits) -> (Process, Slow) {
        let (slow, hosts) = (Slow::default(), vec!["here".to_owned(); 3]);
        let network = slow.clone();
        let process = start::process(Rank(0), &hosts, ThreadLevel::Multiple, limits, |_| Box::new(network));
        (process, slow)
    }

    fn poll(driver: &mut Driver) {
        let _ = driver.poll(&mut |_, _| unreachable!("nothing comes")).expect("nothing fails");
    }

    #[test]
    fn short_frames_go_together_while_the_network_is_behind() {
        let (Process { outbox, mut driver }, slow) = process(&Limits::default());
        slow.is_behind.store(true, Ordering::SeqCst);
        for round in 0..10_u8 {
            for to in [1, 2] {
                let _ = outbox.send(Rank(to), Frame::new(&[round])).expect("it is queued");
            }
            poll(&mut driver);
        }
        assert_eq!((slow.batches_to(1), slow.batches_to(2)), (0, 10), "who keeps up waits for nothing");
        assert_eq!(driver.announce_nap(), Nap::Briefly, "nobody spins until the network has caught up");
        slow.is_behind.store(false, Ordering::SeqCst);
        poll(&mut driver);
        assert_eq!(slow.batches_to(1), 1, "all of them are one batch");
        poll(&mut driver);
        assert_eq!(slow.batches_to(1), 1);
    }

    #[test]
    fn full_batches_and_buffers_wait_for_nothing() {
        let (Process { outbox, mut driver }, slow) = process(&Limits::default());
        slow.is_behind.store(true, Ordering::SeqCst);
        let header = [7; 1000];
        for _ in 0..70 {
            let _ = outbox.send(Rank(1), Frame::new(&header)).expect("it is queued");
        }
        driver.flush().expect("nothing fails");
        poll(&mut driver);
        assert_eq!(slow.batches_to(1), 1, "64 KiB are full, and the rest waits");
        let frame = Frame { header: &header, buffers: vec![vec![1_u8; 20_000].into()] };
        assert_eq!(outbox.send(Rank(1), frame).expect("it is queued"), crate::Queued::Full);
        driver.flush().expect("nothing fails");
        assert_eq!((slow.batches_to(1), slow.buffers.lock().expect("no test panics here").len()), (2, 1));
        assert_eq!(outbox.queued_bytes(Rank(1)), 0);
    }

    #[test]
    fn a_flush_leaves_what_more_fits_into() {
        let (Process { outbox, mut driver }, slow) = process(&Limits::default());
        let _ = outbox.send(Rank(2), Frame::new(&[1])).expect("it is queued");
        driver.flush().expect("nothing fails");
        assert_eq!(slow.batches_to(2), 0);
        assert_eq!(driver.announce_nap(), Nap::Stay, "there is something to send");
        poll(&mut driver);
        assert_eq!(slow.batches_to(2), 1);
    }

    #[cfg(feature = "mpi")]
    #[test]
    fn what_the_network_of_one_has_lost_is_lost_to_all() {
        use crate::watch::{Address, Heartbeat, Post};

        let heartbeat = Heartbeat::new(Duration::from_secs(600));
        let posts = [(); 3].map(|()| Post::open(Some(heartbeat), true).expect("a port is free"));
        let addresses = posts.each_ref().map(|post| Address::read(&Post::address(Some(post)).to_bytes()));
        let hosts = vec!["here".to_owned(); 3];
        let networks = [(); 3].map(|()| Slow::default());
        let mut drivers = Vec::new();
        for (rank, (post, network)) in posts.into_iter().zip(networks.clone()).enumerate() {
            let (rank, limits) = (Rank(rank as u32), Limits::default());
            let process = start::process(rank, &hosts, ThreadLevel::Multiple, &limits, |_| Box::new(network));
            let mut driver = process.driver;
            driver.watch(|facts, watched| post.watch(facts, &addresses, watched));
            driver.on_alarm(|_| {});
            drivers.push(driver);
        }
        while !drivers.iter().flat_map(|driver| &driver.watch).all(Watch::has_met) {
            thread::yield_now();
        }
        *networks[0].misses.lock().expect("no test panics here") = Some(Rank(2));
        let fail = |driver: &mut Driver| loop {
            match driver.poll(&mut |_, _| unreachable!("nothing comes")) {
                Ok(_) => thread::yield_now(),
                Err(error) => break error,
            }
        };
        let mut first = drivers.remove(0);
        assert_eq!(fail(&mut first), Error::Lost { rank: Rank(2), why: "it has failed".into() });
        // As it does that ends: the others are told before that.
        drop(first);
        let why = "rank 0 does not reach it over the network".to_owned();
        assert_eq!(fail(&mut drivers[0]), Error::Lost { rank: Rank(2), why: why.clone() });
        assert_eq!(fail(&mut drivers[1]), Error::Missed { rank: Rank(2), why });
    }
}
