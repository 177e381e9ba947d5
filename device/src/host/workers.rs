//! Worker threads that run operations as a GPU would: in stream order, after the events of the buffers they
//! use.
//!
//! # The life of an operation
//!
//! All states are kept under one lock, `Workers::shared.state`. An operation is
//!
//! 1. *waiting*: `unmet > 0` operations before it have not finished; each of them lists it among its
//!    `followers`;
//! 2. *ready*: `unmet == 0`; it stands in the queue of its device, the urgent one if its stream is urgent;
//! 3. *running*: a worker has taken it and it holds one of its device's lanes; no lock is held meanwhile;
//! 4. *lingering* (on slow devices only): its work is done, but it counts as running until its time in
//!    `timers`;
//! 5. *finished*: it is no longer in `live`. Then its completion is published, and last it leaves the count
//!    of pending operations. A panic of the waker that this calls is noted as a fault (`Cell`), before the count goes
//!    down, so that whoever sees nothing pending sees the fault.
//!
//! Once the devices are *abandoned*, an operation that has not begun goes through the same states in the same order,
//! only that a worker that takes it does not run it, and nothing lingers.
//!
//! An operation waits only for operations submitted before it, so there are no cycles; and a worker only ever
//! takes ready operations, never waits for one. So one worker is enough for any set of streams, and every
//! operation finishes.
//!
//! # Who wakes whom
//!
//! An operation is *runnable* when it is ready and its device has a free lane. A worker sleeps only if, under
//! the lock, it has found nothing runnable and no timer due; if there are timers it sleeps no longer than the
//! earliest. Operations become runnable in three places. In `submit`: it wakes one worker. When an operation
//! finishes, by its followers getting ready or by its lane getting free: the worker that finished it looks
//! again before it sleeps. And when a worker that takes one operation leaves others runnable, or timers with
//! nobody to watch them: it wakes one more. So while anything is runnable, some worker is awake and on its
//! way to look.
//!
//! Waking a thread takes longer than many kernels (20 us and more), so a worker that has found nothing first *looks on* for a
//! while, if no other does: it yields until `is_looked_on` is taken from it. The flag is set and cleared under the lock only. Who would wake
//! a worker clears it instead, if it is set; then the one that has looked on takes the lock and finds what there is, as
//! one that has been woken would. If its time is over it clears the flag itself, and looks once more under the lock before it
//! sleeps: what came before has been queued under that lock, and what comes later finds the flag cleared and wakes.
//!
//! # Lanes
//!
//! The workers are spread over the devices: each device runs at most `ceil(workers / devices)` operations at
//! once, and a slow device's lane is busy for the whole of the slowed time. So a device of half the speed has
//! half the throughput.

mod watch;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use super::limits::Limits;
use crate::backend::{Backend, Block, Fresh};
use crate::completion::Cell;
use crate::error::DeviceError;
use crate::event::{Event, LiveMap, StreamKey};
use crate::operation::{InFlight, Operation};
use crate::sleepers::Pending;
use watch::Running;

/// Between two looks whether a thread has ended that may never.
const END_OF_THREAD: Duration = Duration::from_millis(1);

/// How long a worker looks on before it sleeps.
const LOOK: Duration = Duration::from_micros(50);

const USUAL: StreamKey = StreamKey(0);
const URGENT: StreamKey = StreamKey(1);

/// The worker threads of one set of devices.
pub(crate) struct Workers {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// A worker looks on.
    is_looked_on: AtomicBool,
    /// For the thread that watches for overdue kernels.
    watching: Condvar,
    pending: Pending,
    limits: Limits,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

struct State {
    next_event: u64,
    live: LiveMap<Live>,
    /// Lists of followers, empty, for later operations.
    spare: Vec<Vec<Event>>,
    devices: Vec<Lanes>,
    timers: BinaryHeap<Reverse<(Instant, Event)>>,
    /// The device that is looked at first, so that none is starved.
    first: usize,
    /// Nothing more is taken.
    closed: bool,
    /// Nothing more is begun.
    abandoned: bool,
    /// Workers whose kernels are overdue.
    overdue: Vec<ThreadId>,
}

/// An operation that has not finished.
struct Live {
    unmet: usize,
    followers: Vec<Event>,
    device: usize,
    is_urgent: bool,
    /// Taken when it starts to run.
    operation: Option<Box<Operation>>,
    /// Kept while it lingers.
    lingering: Option<Arc<Cell>>,
    /// While a kernel runs that has a limit.
    running: Option<Running>,
}

/// One device's ready operations, and how many more may start.
struct Lanes {
    /// Those of urgent streams, which go first.
    urgent: VecDeque<Event>,
    ready: VecDeque<Event>,
    free: usize,
}

impl Lanes {
    fn push(&mut self, event: Event, is_urgent: bool) {
        if is_urgent { self.urgent.push_back(event) } else { self.ready.push_back(event) }
    }

    fn is_runnable(&self) -> bool {
        self.free > 0 && !(self.ready.is_empty() && self.urgent.is_empty())
    }
}

impl Workers {
    /// Starts `count` threads for so many devices.
    pub(super) fn start(count: usize, device_count: usize, limits: Limits) -> Result<Self, DeviceError> {
        let count = count.max(1);
        let free = count.div_ceil(device_count);
        let lanes = |_| Lanes { urgent: VecDeque::new(), ready: VecDeque::new(), free };
        let state = State {
            next_event: 0,
            live: LiveMap::default(),
            spare: Vec::new(),
            devices: (0..device_count).map(lanes).collect(),
            timers: BinaryHeap::new(),
            first: 0,
            closed: false,
            abandoned: false,
            overdue: Vec::new(),
        };
        let (wake, watching) = (Condvar::new(), Condvar::new());
        let (pending, threads) = (Pending::default(), Mutex::default());
        let limit = limits.limit;
        let (state, is_looked_on) = (Mutex::new(state), AtomicBool::new(false));
        let shared = Arc::new(Shared { state, wake, is_looked_on, watching, pending, limits, threads });
        let workers = Workers { shared };
        let mut started = (0..count).try_for_each(|_| workers.shared.start_worker());
        if let (Ok(()), Some(limit)) = (&started, limit) {
            let watcher = workers.shared.clone();
            started = workers.shared.start("device-watch".to_owned(), move || watcher.watch(limit));
        }
        match started {
            Ok(()) => Ok(workers),
            Err(error) => {
                workers.close();
                Err(DeviceError::Workers { message: error.to_string() })
            }
        }
    }
}

impl Backend for Workers {
    fn allocate(&self, _: usize, bytes: usize) -> Option<Fresh> {
        Some(Fresh { block: Block::at(super::allocate(bytes)?), is_zeroed: true })
    }

    unsafe fn release(&self, _: usize, block: Block, bytes: usize) {
        // SAFETY: the caller promises what this asks.
        unsafe { super::release(block.address(), bytes) };
    }

    /// There are two, as far as workers can tell: they only look whether an operation is urgent.
    fn open_stream(&self, _: usize, is_urgent: bool) -> StreamKey {
        if is_urgent { URGENT } else { USUAL }
    }

    fn close_stream(&self, _: StreamKey) {}

    fn allocate_pinned(&self, bytes: usize) -> Option<NonNull<u8>> {
        super::allocate(bytes)
    }

    unsafe fn release_pinned(&self, address: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller promises what this asks.
        unsafe { super::release(address, bytes) };
    }

    /// Queues an operation behind its stream and the events of its buffers.
    fn submit(&self, operation: Box<Operation>) -> Result<(), DeviceError> {
        let mut state = self.shared.lock();
        if state.closed {
            return Err(DeviceError::Closed { device: super::name(operation.device) });
        }
        self.shared.pending.begin();
        let event = Event(state.next_event);
        state.next_event += 1;
        let mut waits = Waits { live: &mut state.live, event, unmet: 0 };
        operation.order(event, &mut waits);
        let unmet = waits.unmet;
        let (device, is_urgent) = (operation.device, operation.stream.key() == URGENT);
        let followers = state.spare.pop().unwrap_or_default();
        let (operation, lingering) = (Some(operation), None);
        let live = Live { unmet, followers, device, is_urgent, operation, lingering, running: None };
        state.live.insert(event, live);
        if unmet == 0 {
            state.devices[device].push(event, is_urgent);
            self.shared.wake_one(state);
        }
        Ok(())
    }

    fn loss(&self, device: usize) -> Option<Arc<str>> {
        self.shared.limits.loss(device)
    }

    fn poll(&self) -> bool {
        false
    }

    fn pending(&self) -> Option<&Pending> {
        Some(&self.shared.pending)
    }

    /// Takes nothing more, and begins nothing more. Does not wait.
    fn abandon(&self) {
        let mut state = self.shared.lock();
        (state.closed, state.abandoned) = (true, true);
        drop(state);
        self.shared.wake.notify_all();
    }

    /// Waits until everything submitted has finished and been published, and joins the threads.
    fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
        self.shared.watching.notify_all();
        while let Some(thread) = self.shared.take_thread() {
            // A waker may drop the devices on a worker; that one ends by itself. So does one with an overdue kernel, or not.
            let id = thread.thread().id();
            if id != std::thread::current().id() && self.shared.will_end(&thread) {
                thread.join().expect("workers catch the panics of kernels and have none of their own");
            }
        }
    }
}

/// Puts an operation behind those that must come first and have not finished, and counts them.
struct Waits<'a> {
    live: &'a mut LiveMap<Live>,
    event: Event,
    unmet: usize,
}

impl InFlight for Waits<'_> {
    fn wait_for(&mut self, earlier: Event) {
        if let Some(live) = self.live.get_mut(&earlier) {
            live.followers.push(self.event);
            self.unmet += 1;
        }
    }

    fn contains(&self, event: Event) -> bool {
        self.live.contains_key(&event)
    }
}

impl State {
    /// Takes the next runnable operation.
    fn take_runnable(&mut self) -> Option<(Event, Box<Operation>)> {
        let count = self.devices.len();
        let index = (0..count).map(|n| (self.first + n) % count).find(|&n| self.devices[n].is_runnable())?;
        self.first = (index + 1) % count;
        let lanes = &mut self.devices[index];
        lanes.free -= 1;
        let event = lanes
            .urgent
            .pop_front()
            .or_else(|| lanes.ready.pop_front())
            .expect("a runnable device has a ready operation");
        let live = self.live.get_mut(&event).expect("a ready operation has not finished");
        let operation = live.operation.take().expect("an operation is run once");
        Some((event, operation))
    }

    /// Whether all is done that ever will be.
    fn has_ended(&self) -> bool {
        self.closed && self.live.is_empty()
    }

    fn has_runnable(&self) -> bool {
        self.devices.iter().any(Lanes::is_runnable)
    }

    /// Takes an operation out of the live ones: its lane is free, its followers have one less to wait for.
    fn retire(&mut self, event: Event) {
        let mut finished = self.live.remove(&event).expect("an operation finishes once");
        self.devices[finished.device].free += 1;
        for event in finished.followers.drain(..) {
            let follower = self.live.get_mut(&event).expect("a follower cannot have finished");
            follower.unmet -= 1;
            if follower.unmet == 0 {
                self.devices[follower.device].push(event, follower.is_urgent);
            }
        }
        self.spare.push(finished.followers);
    }

    /// Whether an operation that this thread has run was given up meanwhile, since it was overdue. Else it is no longer watched.
    fn has_retired(&mut self, event: Event) -> bool {
        match self.live.get_mut(&event) {
            Some(live) => live.running = None,
            None => self.overdue.retain(|&worker| worker != std::thread::current().id()),
        }
        !self.live.contains_key(&event)
    }

    /// Takes a lingering operation whose time has come.
    fn take_due(&mut self) -> Option<(Event, Arc<Cell>)> {
        let &Reverse((time, event)) = self.timers.peek()?;
        if !self.abandoned && time > Instant::now() {
            return None;
        }
        self.timers.pop();
        let live = self.live.get_mut(&event).expect("it lingers, so it has not finished");
        Some((event, live.lingering.take().expect("it lingers once")))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// Starts a thread that `close` waits for.
    fn start(&self, name: String, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name(name).spawn(body)?;
        self.threads().push(thread);
        Ok(())
    }

    fn start_worker(self: &Arc<Self>) -> std::io::Result<()> {
        let shared = self.clone();
        let name = format!("device-{}", self.threads().len());
        self.start(name, move || shared.work())
    }

    fn threads(&self) -> MutexGuard<'_, Vec<JoinHandle<()>>> {
        self.threads.lock().expect("nothing panics under this lock")
    }

    fn take_thread(&self) -> Option<JoinHandle<()>> {
        self.threads().pop()
    }

    /// Waits until a thread has ended, or is found to have an overdue kernel. Whether it has ended, or will without a limit.
    fn will_end(&self, thread: &JoinHandle<()>) -> bool {
        if self.limits.limit.is_none() {
            return true;
        }
        let id = thread.thread().id();
        while !thread.is_finished() {
            if self.lock().overdue.contains(&id) {
                return false;
            }
            std::thread::sleep(END_OF_THREAD);
        }
        true
    }

    /// The loop of one worker.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some((event, completion)) = state.take_due() {
                state = self.finish(state, event, completion);
            } else if let Some((event, mut operation)) = state.take_runnable() {
                if state.has_runnable() || !state.timers.is_empty() {
                    self.wake_one(state);
                    state = self.lock();
                }
                let abandoned = state.abandoned;
                if self.limits.of(&operation).is_some() {
                    let live = state.live.get_mut(&event).expect("it was just taken");
                    live.running = Some(Running::new(&operation));
                }
                drop(state);
                let (end, completion) = if abandoned {
                    let device = super::name(operation.device);
                    (None, operation.refuse(device))
                } else {
                    let (end, outcome) = self.limits.run(&mut operation, Block::address);
                    (end, operation.leave(outcome))
                };
                state = self.lock();
                if self.limits.limit.is_some() && state.has_retired(event) {
                    drop(state);
                    completion.publish();
                    state = self.lock();
                    continue;
                }
                match end {
                    None => state = self.finish(state, event, completion),
                    Some(end) => {
                        let live = state.live.get_mut(&event).expect("it lingers, so it has not finished");
                        live.lingering = Some(completion);
                        state.timers.push(Reverse((end, event)));
                    }
                }
            } else if state.has_ended() {
                self.wake.notify_all();
                self.watching.notify_all();
                return;
            } else {
                state = self.sleep(state);
            }
        }
    }

    /// Retires an operation, publishes its completion without holding the lock, and only then stops counting
    /// it.
    fn finish<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        event: Event,
        completion: Arc<Cell>,
    ) -> MutexGuard<'a, State> {
        state.retire(event);
        if state.has_runnable() {
            // This worker is about to call a waker, which may take long.
            self.wake_one(state);
        } else {
            drop(state);
        }
        completion.publish();
        self.pending.end();
        self.lock()
    }

    /// Sees to it that a worker looks.
    fn wake_one(&self, state: MutexGuard<'_, State>) {
        let is_looked_on = self.is_looked_on.swap(false, Ordering::Relaxed);
        drop(state);
        if !is_looked_on {
            self.wake.notify_one();
        }
    }

    /// Waits until there may be something to do.
    fn sleep<'a>(&'a self, mut state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        if state.timers.is_empty() && !self.is_looked_on.swap(true, Ordering::Relaxed) {
            drop(state);
            let began = Instant::now();
            while self.is_looked_on.load(Ordering::Relaxed) && began.elapsed() < LOOK {
                std::thread::yield_now();
            }
            state = self.lock();
            self.is_looked_on.store(false, Ordering::Relaxed);
            if state.has_runnable() || state.has_ended() || !state.timers.is_empty() {
                return state;
            }
        }
        match state.timers.peek() {
            None => self.wake.wait(state).expect("nothing panics under this lock"),
            Some(&Reverse((time, _))) => {
                let left = time.saturating_duration_since(Instant::now());
                self.wake.wait_timeout(state, left).expect("nothing panics under this lock").0
            }
        }
    }
}
