//! A run: starting the PEs, what they share, ending them; and [`Runtime`], what code on a PE can ask for.
//!
//! `Runtime::run` is re-entrant: two runtimes in a process do not know of each other. It never ends the process.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, MutexGuard, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use chare_device::DeviceError;

use crate::binding::{BoundDevices, NoSuchDevice};
use crate::caught::{self, Caught, PanicPayload};
use crate::chares::{ArrayElement, Standalone};
use crate::create::{ArrayBuilder, GroupBuilder, SingleBuilder, SparseBuilder};
use crate::current::{self, Entered, OnPe};
use crate::device_work;
use crate::entry::EntryInfo;
use crate::error::{BoxError, CallError, Panicked};
use crate::hang::HangReport;
use crate::ids::{PeId, RunId};
use crate::index::DenseIndex;
use crate::message::{Head, Msg};
use crate::options::{Options, OptionsError};
use crate::outside::Outside;
use crate::pending::Pending;
use crate::priority::{Rank, Ranked};
use crate::profile::{PeProfile, Profile};
use crate::promise::{Promise, PromiseFuture, PromisesFuture, Several};
use crate::quiescence::{Board, Quiescence};
use crate::reply::CellRef;
use crate::report::{ExitReport, Reason};
use crate::scheduler::block::Depot;
use crate::scheduler::inbox::{Inbox, InboxReader, Pushed};
use crate::scheduler::pe::Pe;
use crate::scheduler::task::{self, Mode};
use crate::scheduler::thread::{ThreadMail, WallClock, drive};
use crate::scheduler::waker::{Enrolment, MAX_RUNTIMES};
use crate::sim;
use crate::sleep::{Sleep, YieldNow};
use crate::table::{CodeTable, SameId};
use crate::unawaited::Reported;
use crate::waiting::What;

/// The stack of the thread of a PE other than 0. Arguments given by value pass through it, a few copies at a time; only
/// what is touched takes memory. No option: who needs more puts the value in a `Box`, which PE 0 needs as well.
pub(crate) const STACK_BYTES: usize = 16 << 20;

/// What the PEs of a process share.
pub(crate) struct Shared {
    number: u8,
    run: RunId,
    options: Options,
    devices: BoundDevices,
    depot: Depot,
    board: Board,
    inboxes: Box<[Inbox<Head>]>,
    threads: Box<[OnceLock<Thread>]>,
    stopping: AtomicBool,
    reason: Mutex<Option<Reason>>,
    profiles: Mutex<Vec<PeProfile>>,
    /// Coroutines that were started again.
    pub(crate) restarted: AtomicU64,
    reported: Reported,
    oversubscribed: bool,
    started: Instant,
    /// Handles and entered threads, by which the outside may still send.
    outsiders: AtomicUsize,
    /// Threads of the outside that are pushing just now.
    foreign_pushes: AtomicUsize,
}

impl Shared {
    /// What the PEs of a new run share, and the readers of their inboxes.
    pub(crate) fn new(
        enrolment: &Enrolment,
        options: Options,
        devices: BoundDevices,
    ) -> (Arc<Self>, Vec<InboxReader<Head>>) {
        let pe_count = options.pes();
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
            oversubscribed: pe_count > cores(),
            started: Instant::now(),
            outsiders: AtomicUsize::new(0),
            foreign_pushes: AtomicUsize::new(0),
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

    pub(crate) fn pe_count(&self) -> usize {
        self.inboxes.len()
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Errors that nobody awaits and that were reported.
    pub(crate) fn reported(&self) -> &Reported {
        &self.reported
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
        &self.inboxes[pe.index()]
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
        let pushed = unsafe { self.inboxes[to.index()].push(msg.into_raw()) };
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
        self.push(to, msg);
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
    pub(crate) fn send_foreign(&self, rank: Rank, msg: Msg) {
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
        if let Some(thread) = self.threads[pe.index()].get() {
            thread.unpark();
        }
    }

    /// Ends the run; the first reason counts.
    pub(crate) fn stop(&self, reason: Reason) {
        let mut place = self.lock_reason();
        let later = match &*place {
            Some(_) => Some(reason),
            None => place.replace(reason),
        };
        // The reason that came too late holds user values, whose destructors may stop the run once more.
        drop(place);
        drop(later);
        self.stopping.store(true, Ordering::SeqCst);
        for pe in 0..self.pe_count() {
            self.wake(PeId::new(pe));
        }
    }

    /// Notes what went wrong while a run that had ended well was taken apart.
    pub(crate) fn spoil(&self, reason: Reason) {
        let mut place = self.lock_reason();
        let ended_well = matches!(&*place, None | Some(Reason::Returned | Reason::Exit(0)));
        let other = if ended_well { place.replace(reason) } else { Some(reason) };
        drop(place);
        drop(other);
    }

    /// Whether no error has ended the run so far.
    pub(crate) fn has_ended_well(&self) -> bool {
        matches!(&*self.lock_reason(), None | Some(Reason::Returned | Reason::Exit(0)))
    }

    /// Whether it ends since nothing can go on.
    pub(crate) fn hangs(&self) -> bool {
        matches!(&*self.lock_reason(), Some(Reason::Hang))
    }

    pub(crate) fn keep_profile(&self, profile: Option<PeProfile>) {
        lock(&self.profiles).extend(profile);
    }

    /// Why the run has ended.
    pub(crate) fn take_reason(&self) -> Reason {
        self.lock_reason().take().unwrap_or(Reason::Returned)
    }

    fn lock_reason(&self) -> MutexGuard<'_, Option<Reason>> {
        lock(&self.reason)
    }
}

/// None of our locks is left in a state that another thread could not go on from.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Why a run could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An option cannot be used.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// A device cannot be opened.
    #[error("--device {spec}: {error}")]
    Device {
        /// What was asked for.
        spec: String,
        /// What is wrong with it.
        error: DeviceError,
    },
    /// A device that works by itself in a simulated run.
    #[error("--device {0} cannot be simulated, since it works by itself; use `host`")]
    NotSimulated(String),
    /// The device map names a device that is not there.
    #[error(transparent)]
    DeviceMap(#[from] NoSuchDevice),
    /// Code that may cross processes cannot be told apart.
    #[error(transparent)]
    SameId(#[from] SameId),
    /// Too many runtimes run in this process already.
    #[error("{MAX_RUNTIMES} runtimes run in this process already; wait until one has ended")]
    TooManyRuntimes,
    /// A thread could not be started.
    #[error("cannot start a thread for PE {pe}: {error}; run with fewer --pes")]
    Thread {
        /// The PE.
        pe: usize,
        /// What the system said.
        error: std::io::Error,
    },
    /// The thread that drives tokio (feature `tokio`), or what it needs of the system, could not be had.
    #[error("cannot start tokio: {error}; raise the limits of open files and threads (ulimit -n, ulimit -u)")]
    Tokio {
        /// What the system said.
        error: std::io::Error,
    },
}

/// The runtime, as code on a PE sees it. It holds nothing: it finds its PE when it is used.
#[derive(Clone, Debug)]
pub struct Runtime(PhantomData<()>);

impl Runtime {
    pub(crate) const fn here() -> Self {
        Runtime(PhantomData)
    }

    /// Runs a program to its end: starts the PEs (this thread becomes PE 0), runs `main` as a coroutine there, and
    /// returns when `main` has returned, `exit` was called, or an error ended the run. Blocks meanwhile. May be called
    /// again, and from several threads at a time.
    ///
    /// The threads of the other PEs have stacks of 16 MiB. PE 0 has that of this thread: 8 MiB for the main thread of most
    /// systems (`ulimit -s`), 2 MiB for one that `std::thread` has spawned.
    ///
    /// # Errors
    /// [`StartError`] if the run could not start. How a run ended, well or not, is in the [`ExitReport`].
    pub fn run<F, Fut, R>(options: Options, main: F) -> Result<ExitReport, StartError>
    where
        F: FnOnce(Runtime) -> Fut,
        Fut: Future<Output = R> + Send + 'static,
        R: MainOutput,
    {
        caught::note_panics();
        CodeTable::check()?;
        let devices = device_work::open(&options, cores().saturating_sub(options.pes()))?;
        let enrolment =
            Enrolment::reserve(options.simulation().is_some()).ok_or(StartError::TooManyRuntimes)?;
        let outside = options.simulation().is_none().then(Outside::start).transpose()?;
        let (shared, readers) = Shared::new(&enrolment, options, devices);
        enrolment.complete(&shared);
        let (hang, simulation) = match &outside {
            Some(outside) => (run_pes(&shared, outside, readers, main)?, None),
            None => sim::run(&shared, readers, main),
        };
        device_work::close(&shared);
        shared.spoil_if_reported();
        let profiles = std::mem::take(&mut *lock(&shared.profiles));
        let profile = shared.options.is_profiled().then(|| Profile::new(profiles, &shared.devices));
        let restarted = shared.options.restarts().map(|_| shared.restarted.load(Ordering::Relaxed));
        Ok(ExitReport::new(shared.take_reason(), hang, profile, restarted).with_simulation(simulation))
    }

    /// An array of `shape` (`8`, `(4, 4)`, ... up to six dimensions), not yet created.
    pub fn array<C: ArrayElement<Index: DenseIndex>>(&self, shape: C::Index) -> ArrayBuilder<C> {
        ArrayBuilder::new(shape)
    }

    /// A sparse array, whose elements are inserted one by one, or many at its creation. Not yet created.
    pub fn array_sparse<C: ArrayElement>(&self) -> SparseBuilder<C> {
        SparseBuilder::new()
    }

    /// A group: one chare on every PE. Not yet created.
    pub fn group<C: Standalone>(&self) -> GroupBuilder<C> {
        GroupBuilder::new()
    }

    /// A single chare, not yet created.
    pub fn single<C: Standalone>(&self) -> SingleBuilder<C> {
        SingleBuilder::new()
    }

    /// A promise of one value: its writing end, which can be sent anywhere, and its reading end.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn promise<T: Send + 'static>(&self) -> (Promise<T>, PromiseFuture<T>) {
        let at = Location::caller();
        current::on_pe("making a promise", |pe| {
            let cell = CellRef::new(pe, pe.cells.open());
            (Promise::new(cell, 1), PromiseFuture(Pending::new(cell, What::Promise, at)))
        })
    }

    /// A promise of `count` values, which arrive in any order.
    ///
    /// # Panics
    /// On a thread that is not a PE, and if `count` is 0.
    #[track_caller]
    pub fn promises<T: Send + 'static>(&self, count: usize) -> (Promise<T>, PromisesFuture<T>) {
        assert!(count > 0, "a promise is of one value or more");
        let at = Location::caller();
        current::on_pe("making a promise", |pe| {
            let key = pe.cells.open_sink::<T>(Several { missing: count, values: Vec::new() });
            let cell = CellRef::new(pe, key);
            (Promise::new(cell, count), PromisesFuture(Pending::new(cell, What::Promise, at)))
        })
    }

    /// Waits at least this long. Suspends the coroutine only.
    #[track_caller]
    pub fn sleep(&self, duration: Duration) -> Sleep {
        Sleep::new(duration, Location::caller())
    }

    /// Suspends the coroutine until everything that is queued on this PE now has had its turn. For coroutines that compute for
    /// long, or loop over what is ready at once: nothing else runs on their PE, nor is a device looked at, until they wait.
    pub fn yield_now(&self) -> YieldNow {
        YieldNow::new()
    }

    /// Waits until nothing runs, is queued, in flight or on a device. Coroutines that wait do not count as running.
    #[track_caller]
    pub fn quiescence(&self) -> Quiescence {
        Quiescence::new(Location::caller())
    }

    /// The PE that this code runs on.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn my_pe(&self) -> PeId {
        current::on_pe("my_pe", Pe::id)
    }

    /// The number of PEs.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn num_pes(&self) -> usize {
        current::on_pe("num_pes", Pe::pe_count)
    }

    /// All PEs, in order.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn pes(&self) -> impl DoubleEndedIterator<Item = PeId> + ExactSizeIterator + Clone + use<> {
        (0..self.num_pes()).map(PeId::new)
    }

    /// The program's own arguments, its name first; the runtime's options are taken out.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn args(&self) -> Vec<String> {
        current::on_pe("args", |pe| pe.shared().options.args().to_vec())
    }

    /// Whether the user asked for no progress reports (`--quiet`).
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn is_quiet(&self) -> bool {
        current::on_pe("is_quiet", |pe| pe.shared().options.is_quiet())
    }

    /// Ends the run on all PEs with this exit code. Returns at once; what was sent before may not be delivered. Device
    /// work that was launched before is finished if `code` is 0, and a fault in it that nobody awaited makes the exit
    /// code 1; at another code, work that has not begun is given up.
    ///
    /// # Panics
    /// On a thread that is neither a PE nor has entered the runtime.
    #[track_caller]
    pub fn exit(&self, code: i32) {
        stop_here(Reason::Exit(code));
    }

    /// Ends the run on all PEs with exit code 1 and prints `message`. Device work that has not begun is given up.
    ///
    /// # Panics
    /// On a thread that is neither a PE nor has entered the runtime.
    #[track_caller]
    pub fn abort(&self, message: impl Into<String>) {
        stop_here(Reason::Aborted(message.into()));
    }

    /// A handle by which another thread can enter this runtime.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn handle(&self) -> Handle {
        current::on_pe("handle", |pe| Handle(Outsider::new(pe.shared().clone())))
    }
}

fn stop_here(reason: Reason) {
    current::here(|here| match here {
        current::Here::Pe(pe) => pe.shared().stop(reason),
        current::Here::Foreign(shared) => shared.stop(reason),
        current::Here::Nowhere => crate::call::nowhere(),
    });
}

/// Lets threads that are no PEs (of a thread pool, of a user interface) use proxies, promises and futures. While one
/// lives, a program whose coroutines all wait does not count as hanging, since what they wait for may come from outside.
#[derive(Clone)]
pub struct Handle(Outsider);

impl Handle {
    /// Makes the runtime current on this thread while the guard lives. After the run has ended, what is sent is
    /// dropped.
    ///
    /// # Panics
    /// On a PE, which is in its own run already.
    #[track_caller]
    pub fn enter(&self) -> Entered {
        Entered::enter(self.0.clone())
    }
}

/// Somebody outside who may still send. While there is one, nothing is a hang.
pub(crate) struct Outsider(Arc<Shared>);

impl Outsider {
    fn new(shared: Arc<Shared>) -> Self {
        shared.outsiders.fetch_add(1, Ordering::SeqCst);
        Outsider(shared)
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0
    }
}

impl Clone for Outsider {
    fn clone(&self) -> Self {
        Outsider::new(self.0.clone())
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        if self.0.outsiders.fetch_sub(1, Ordering::SeqCst) == 1 {
            // PE 0 judges anew.
            self.0.wake(PeId::new(0));
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle of runtime {}", self.0.shared().number)
    }
}

/// Starts the PEs and runs them to the end; returns their hang report, empty if the run did not hang.
fn run_pes<F, Fut, R>(
    shared: &Arc<Shared>,
    outside: &Outside,
    readers: Vec<InboxReader<Head>>,
    main: F,
) -> Result<String, StartError>
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let barrier = Barrier::new(shared.pe_count());
    let hang = HangReport::new(shared.pe_count());
    let mut readers = readers.into_iter().map(ReaderForThread);
    let first = readers.next().expect("there is at least one PE");
    // Threads begin when all of them exist: they wait for this lock, and read whether to go.
    let go = Mutex::new(false);
    thread::scope(|scope| {
        let mut starting = lock(&go);
        for (pe, reader) in (1..).zip(readers) {
            let (go, barrier, hang) = (&go, &barrier, &hang);
            let builder = thread::Builder::new().name(format!("PE {pe}")).stack_size(STACK_BYTES);
            let spawned = builder.spawn_scoped(scope, move || {
                if *lock(go) {
                    outside.around(|| run_pe(PeId::new(pe), shared, reader, barrier, hang, |_| {}));
                }
            });
            spawned.map_err(|error| StartError::Thread { pe, error })?;
        }
        *starting = true;
        drop(starting);
        let begin = |pe: &Pe| start_main(pe, main);
        outside.around(|| run_pe(PeId::new(0), shared, first, &barrier, &hang, begin));
        Ok::<(), StartError>(())
    })?;
    Ok(hang.into_text())
}

struct ReaderForThread(InboxReader<Head>);

// SAFETY: the reader moves to its PE's thread before it is used, and stays there.
unsafe impl Send for ReaderForThread {}

/// The life of one PE, on its own thread. It ends in steps: (1) stop stepping; (2) wait until all have; (3) write the
/// hang report if it is one, in two passes, and wait until all have; (4) drop coroutines, chares, messages; (5) wait until
/// all have; (6) drop what came meanwhile. Device work that is pending at (2) is given up there if the run ended badly;
/// else it goes on, is waited for after (6), and its faults count.
fn run_pe(
    id: PeId,
    shared: &Arc<Shared>,
    reader: ReaderForThread,
    barrier: &Barrier,
    hang: &HangReport,
    begin: impl FnOnce(&Pe),
) {
    let ReaderForThread(reader) = reader;
    shared.threads[id.index()].get_or_init(thread::current);
    let mail = ThreadMail { pe: id, shared: shared.clone(), reader };
    let pe = Pe::new(id, shared.clone(), Box::new(mail), Box::new(WallClock(shared.started)));
    let _on_pe = OnPe::enter(&pe);
    // No step may keep this PE from the barriers, at which the others wait: a panic of user code ends in the report.
    if let Err(panic) = caught::catch(&pe, || begin(&pe)) {
        shared.stop(Reason::Unawaited(main_panicked(panic)));
    }
    drive(&pe);
    shared.keep_profile(pe.take_profile());
    barrier.wait();
    if id.index() == 0 {
        device_work::abandon_unless_ended_well(shared);
    }
    // All PEs see the same: the first reason counts, and a hang is never replaced (`Shared::spoil`).
    if shared.hangs() {
        pe.guard(|| hang.tell(&pe));
        barrier.wait();
        pe.guard(|| hang.write(&pe));
    }
    barrier.wait();
    pe.guard(|| pe.dismantle());
    shared.wait_for_foreign_pushes();
    barrier.wait();
    pe.guard(|| pe.drain());
}

static MAIN: EntryInfo = EntryInfo { chare: "main", name: "main", file: "the program's main", line: 0 };

/// Starts `main` as a coroutine of PE 0, whose end ends the run.
pub(crate) fn start_main<F, Fut, R>(pe: &Pe, main: F)
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let done = |pe: &Pe, outcome: Result<R, PanicPayload>| {
        let reason = match outcome.map(MainOutput::into_result) {
            Ok(Ok(())) => Reason::Returned,
            Ok(Err(error)) => Reason::Failed(error),
            Err(panic) => Reason::Unawaited(main_panicked(Caught::new(pe, panic))),
        };
        pe.shared().stop(reason);
    };
    pe.note_call(&MAIN);
    task::start(pe, None, &MAIN, Mode::Interleaving, main(Runtime::here()), done);
}

/// Whether `main` is running.
pub(crate) fn is_in_main(pe: &Pe) -> bool {
    let running = pe.running_task().and_then(|task| task::entry_of(pe, task));
    running.is_some_and(|entry| std::ptr::eq(entry, &MAIN))
}

fn main_panicked(Caught { message, location }: Caught) -> CallError {
    CallError::Panicked(Arc::new(Panicked { entry: &MAIN, element: String::new(), message, location }))
}

/// What `main` may return: nothing, or a `Result` of nothing.
#[diagnostic::on_unimplemented(
    message = "`main` cannot return `{Self}`",
    note = "it returns nothing, or a `Result<()>` such as `chare::Result<()>`"
)]
pub trait MainOutput: Send + 'static {
    #[doc(hidden)]
    fn into_result(self) -> Result<(), BoxError>;
}

impl MainOutput for () {
    fn into_result(self) -> Result<(), BoxError> {
        Ok(())
    }
}

impl<E: Into<BoxError> + Send + 'static> MainOutput for Result<(), E> {
    fn into_result(self) -> Result<(), BoxError> {
        self.map_err(Into::into)
    }
}
