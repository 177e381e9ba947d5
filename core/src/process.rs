//! What the PEs of one process share, and how the process ends: the first reason counts.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::thread::{self, Thread};
use std::time::Instant;

use chare_transport::Rank;
use crossbeam_utils::CachePadded;

use crate::binding::BoundDevices;
use crate::channel::ValueTypes;
use crate::cores::are_too_many;
use crate::ids::{ChareId, PeId, RunId};
use crate::job::{Job, ranks_here};
use crate::message::{Head, Msg, Name, Payload};
use crate::options::Options;
use crate::priority::{self, Ranked};
use crate::profile::PeProfile;
use crate::quiescence::Board;
use crate::reply::Reply;
use crate::report::Reason;
use crate::scheduler::block::Depot;
use crate::scheduler::inbox::{Inbox, InboxReader, Pushed};
use crate::scheduler::pe::Pe;
use crate::scheduler::waker::Enrolment;
use crate::unawaited::Reported;
use crate::wire::{Exports, Leaves};

/// What the PEs of a process share that belongs to no other process of the run, also where all of them are in one memory.
#[derive(Default)]
pub(crate) struct Dealings {
    /// Promises that other processes hold.
    pub(crate) exports: Exports,
    pub(crate) value_types: ValueTypes,
}

/// What the PEs of a process share.
pub(crate) struct Shared {
    number: u8,
    run: RunId,
    pub(crate) options: Options,
    pub(crate) devices: BoundDevices,
    depot: Depot,
    board: Board,
    inboxes: Box<[Inbox<Head>]>,
    pub(crate) threads: Box<[OnceLock<Thread>]>,
    stopping: AtomicBool,
    reason: Mutex<Option<Arc<Reason>>>,
    pub(crate) profiles: Mutex<Vec<PeProfile>>,
    /// Coroutines that were started again.
    pub(crate) restarted: AtomicU64,
    reported: Reported,
    oversubscribed: bool,
    pub(crate) started: Instant,
    /// Handles and entered threads, by which the outside may still send.
    pub(crate) outsiders: CachePadded<AtomicUsize>,
    /// Threads of the outside that are pushing just now.
    foreign_pushes: CachePadded<AtomicUsize>,
    /// Of this process; of each in a simulated run of several.
    dealings: Box<[Dealings]>,
    /// If the run has several processes.
    job: Option<Job>,
    /// The first PE of this process.
    pub(crate) first: usize,
    /// The PEs of the job.
    pe_count: usize,
}

impl Shared {
    /// What the PEs of a new run share, and the readers of their inboxes.
    pub(crate) fn new(
        enrolment: &Enrolment,
        options: Options,
        devices: BoundDevices,
        job: Option<Job>,
    ) -> (Arc<Self>, Vec<InboxReader<Head>>) {
        let pe_count = options.pes();
        let simulated = options.simulation().map_or(1, |sim| sim.processes().min(pe_count));
        let ranks_here = job.as_ref().map_or(1, |job| ranks_here(job.facts()));
        let (inboxes, readers): (Vec<_>, _) = (0..pe_count).map(|_| Inbox::new(Msg::stub())).unzip();
        let shared = Shared {
            number: enrolment.number,
            run: enrolment.run,
            devices,
            depot: Depot::new(),
            board: Board::new(pe_count),
            inboxes: inboxes.into(),
            threads: (0..pe_count).map(|_| OnceLock::new()).collect(),
            stopping: AtomicBool::new(false),
            reason: Mutex::new(None),
            profiles: Mutex::default(),
            restarted: AtomicU64::default(),
            reported: Reported::default(),
            oversubscribed: are_too_many(pe_count, ranks_here),
            started: Instant::now(),
            outsiders: CachePadded::default(),
            foreign_pushes: CachePadded::default(),
            dealings: (0..simulated).map(|_| Dealings::default()).collect(),
            first: job.as_ref().map_or(0, |job| job.rank().index() * pe_count),
            pe_count: pe_count * job.as_ref().map_or(1, |job| job.facts().size()),
            job,
            options,
        };
        (Arc::new(shared), readers)
    }

    pub(crate) fn number(&self) -> u8 {
        self.number
    }

    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// The PEs of the job.
    #[inline]
    pub(crate) fn pe_count(&self) -> usize {
        self.pe_count
    }

    /// The PEs of this process.
    pub(crate) fn own_pe_count(&self) -> usize {
        self.inboxes.len()
    }

    /// The number of a PE among those of this process; no such number if it is of another.
    #[inline]
    pub(crate) fn own_number(&self, pe: PeId) -> usize {
        pe.index().wrapping_sub(self.first)
    }

    /// The processes of the job, if there are several.
    #[inline]
    pub(crate) fn job(&self) -> Option<&Job> {
        self.job.as_ref()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Errors that nobody awaits and that were reported.
    pub(crate) fn reported(&self) -> &Reported {
        &self.reported
    }

    /// What the PEs of a process have to do with other processes. In a simulated run each of its processes is here.
    pub(crate) fn dealings(&self, rank: Rank) -> &Dealings {
        &self.dealings[if self.job.is_some() { 0 } else { rank.index() }]
    }

    /// The first PE of this process: it judges quiescence, and decides for threads that are no PEs.
    pub(crate) fn first_pe(&self) -> PeId {
        PeId::new(self.first)
    }

    pub(crate) fn devices(&self) -> &BoundDevices {
        &self.devices
    }

    #[inline]
    pub(crate) fn depot(&self) -> &Depot {
        &self.depot
    }

    pub(crate) fn board(&self) -> &Board {
        &self.board
    }

    pub(crate) fn inbox(&self, pe: PeId) -> &Inbox<Head> {
        &self.inboxes[self.own_number(pe)]
    }

    /// Whether there are more PEs than cores.
    pub(crate) fn is_oversubscribed(&self) -> bool {
        self.oversubscribed
    }

    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        // Relaxed: only a hint to stop stepping; what must be seen afterwards is ordered by the barriers in `run_pe`.
        self.stopping.load(Ordering::Relaxed)
    }

    /// Pushes a message into the inbox of a PE and wakes it if it sleeps.
    #[inline]
    pub(crate) fn push(&self, to: PeId, msg: Msg) {
        // SAFETY: the message is given up; messages are `Send`.
        let pushed = unsafe { self.inboxes[self.own_number(to)].push(msg.into_raw()) };
        if pushed == Pushed::Wake {
            self.wake(to);
        }
    }

    /// As `push`, from a thread that is no PE of this runtime. After the end the message is dropped.
    pub(crate) fn post_foreign(&self, to: PeId, msg: Msg) {
        // Announced before the look at `stopping`, both SeqCst: either we see that the run ends, or the end sees us and
        // waits before the inboxes go (`wait_for_foreign_pushes`).
        self.foreign_pushes.fetch_add(1, Ordering::SeqCst);
        if self.stopping.load(Ordering::SeqCst) {
            self.foreign_pushes.fetch_sub(1, Ordering::SeqCst);
            return drop(msg);
        }
        self.board.count_foreign();
        if self.own_number(to) < self.own_pe_count() {
            self.push(to, msg);
        } else {
            self.push(self.first_pe(), Msg::for_pe(Onward { to, msg }));
        }
        self.foreign_pushes.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits until no thread of the outside is between its look at `stopping` and the end of its push. Called when the run
    /// is stopping, so that none begins any more.
    pub(crate) fn wait_for_foreign_pushes(&self) {
        while self.foreign_pushes.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
    }

    /// Sends a message to its chare by way of a PE that can find it.
    pub(crate) fn send_foreign(&self, rank: priority::Rank, msg: Msg) {
        let id = msg.head().to;
        let by = id.collection.single_home().unwrap_or_else(|| id.collection.root());
        self.post_foreign(by, Ranked::wrapped(rank, msg));
    }

    /// Whether a thread of the outside may send something. Read it before the board: who goes has counted what it sent.
    pub(crate) fn has_outsiders(&self) -> bool {
        self.outsiders.load(Ordering::SeqCst) > 0
    }

    #[cold]
    pub(crate) fn wake(&self, pe: PeId) {
        if let Some(thread) = self.threads[self.own_number(pe)].get() {
            thread.unpark();
        }
    }

    /// Ends the run; the first reason counts.
    pub(crate) fn stop(&self, reason: Reason) {
        // Of a loss each process learns by itself, and says what it was waiting for.
        let is_loss = matches!(reason, Reason::Lost(_));
        // One that comes too late holds user values, whose destructors may stop the run once more: it goes when the lock has.
        let reason = Arc::new(reason);
        let first = self.lock_reason().get_or_insert_with(|| reason.clone()).clone();
        drop(reason);
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(job) = self.job.as_ref().filter(|_| !is_loss) {
            job.tell_end(&first);
        }
        for pe in 0..self.own_pe_count() {
            self.wake(PeId::new(self.first + pe));
        }
    }

    /// Notes what went wrong while a run that had ended well was taken apart.
    pub(crate) fn spoil(&self, reason: Reason) {
        let mut place = self.lock_reason();
        let ended_well = place.as_ref().is_none_or(|reason| reason.code() == 0);
        let reason = Arc::new(reason);
        let before = if ended_well { place.replace(reason.clone()) } else { None };
        drop(place);
        drop(before);
        if let Some(job) = self.job.as_ref().filter(|_| ended_well) {
            job.tell_of_error(&reason);
        }
    }

    /// Whether no error has ended the run so far.
    pub(crate) fn has_ended_well(&self) -> bool {
        self.lock_reason().as_ref().is_none_or(|reason| reason.code() == 0)
    }

    /// Whether it ends in a way that has to be explained by what was waited for.
    pub(crate) fn tells_what_waits(&self) -> bool {
        self.lock_reason().as_ref().is_some_and(|reason| {
            matches!(**reason, Reason::Hang | Reason::Lost(_)) || reason.is_error_elsewhere()
        })
    }

    /// Whether it ends since nothing can go on.
    pub(crate) fn hangs(&self) -> bool {
        matches!(self.lock_reason().as_deref(), Some(Reason::Hang))
    }

    pub(crate) fn keep_profile(&self, profile: Option<PeProfile>) {
        lock(&self.profiles).extend(profile);
    }

    /// Why the run has ended.
    pub(crate) fn take_reason(&self) -> Arc<Reason> {
        self.lock_reason().take().unwrap_or_else(|| Arc::new(Reason::Returned))
    }

    pub(crate) fn lock_reason(&self) -> MutexGuard<'_, Option<Arc<Reason>>> {
        lock(&self.reason)
    }
}

/// A message on its way from a thread that is no PE to another process, which only PEs send to.
struct Onward {
    to: PeId,
    msg: Msg,
}

impl Payload for Onward {
    const NAME: Name = Name::Runtime("a message of a thread");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.post(self.to, self.msg);
    }
}

/// None of our locks is left in a state that another thread could not go on from.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
