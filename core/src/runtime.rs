//! A run: starting the PEs, what they share, ending them; and [`Runtime`], what code on a PE can ask for.
//!
//! `Runtime::run` is re-entrant: two runtimes in a process do not know of each other. It never ends the process.

use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use chare_device::DeviceError;
use chare_transport::{ConnectError, Process, Rank};

use crate::binding::NoSuchDevice;
use crate::caught::{self, Caught, PanicPayload};
use crate::chares::{ArrayElement, Standalone};
use crate::create::{ArrayBuilder, GroupBuilder, SingleBuilder, SparseBuilder};
use crate::current::{self, Entered, OnPe};
use crate::device_path::DevicePath;
use crate::device_work;
use crate::entry::EntryInfo;
use crate::error::{BoxError, CallError, Panicked};
use crate::hang::HangReport;
use crate::ids::PeId;
use crate::index::DenseIndex;
use crate::job::{self, Ending, Job};
use crate::message::Head;
use crate::options::{Options, OptionsError};
use crate::outside::Outside;
use crate::pending::Pending;
use crate::process::{Shared, lock};
use crate::profile::Profile;
use crate::promise::{Promise, PromiseFuture, PromisesFuture, Several};
use crate::quiescence::Quiescence;
use crate::reply::CellRef;
use crate::report::{ExitReport, Parting, Reason};
use crate::scheduler::inbox::InboxReader;
use crate::scheduler::pe::Pe;
use crate::scheduler::task::{self, Mode};
use crate::scheduler::thread::{ThreadMail, WallClock, drive};
use crate::scheduler::waker::{Enrolment, MAX_PES, MAX_RUNTIMES};
use crate::sim;
use crate::sleep::{Sleep, YieldNow};
use crate::table::{CodeTable, SameId};
use crate::waiting::What;

/// The stack of the thread of a PE other than 0. Arguments given by value pass through it, a few copies at a time; only
/// what is touched takes memory. No option: who needs more puts the value in a `Box`, which PE 0 needs as well.
pub(crate) const STACK_BYTES: usize = 16 << 20;

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
    /// A path of device memory between processes of the system, in a simulated run.
    #[error(
        "--device-path {0} cannot be simulated, since all processes of a simulated run are one; use `staged` or `auto`"
    )]
    PathNotSimulated(DevicePath),
    /// The device map names a device that is not there.
    #[error(transparent)]
    DeviceMap(#[from] NoSuchDevice),
    /// The processes of the job cannot work together.
    #[error(transparent)]
    Processes(#[from] ConnectError),
    /// The processes of the job have lost each other before they could work together.
    #[error(transparent)]
    Job(#[from] chare_transport::Error),
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
        Runtime::run_alone_or_joined(None, options, Some(Box::new(|pe| start_main(pe, main))))
    }

    /// Runs one process of a job, as [`Runtime::run`] runs a program alone. Every process calls it, with one of
    /// the transport's processes each; `main` runs in the process of rank 0, and is dropped in the others. It returns when the run has ended in all of them.
    ///
    /// The PEs of all processes are numbered one after the other, as many for each. A program that `#[chare::main]` has made does this by itself when it is started by
    /// `mpirun`; this is for programs that bring the transport along.
    ///
    /// # Errors
    /// [`StartError`] if the run could not start in this process. How it ended, well or not, is in the [`ExitReport`]: everywhere with the same exit
    /// code, with the reason where it arose.
    pub fn join<F, Fut, R>(process: Process, options: Options, main: F) -> Result<ExitReport, StartError>
    where
        F: FnOnce(Runtime) -> Fut,
        Fut: Future<Output = R> + Send + 'static,
        R: MainOutput,
    {
        Runtime::run_joined(process, options, Box::new(|pe| start_main(pe, main)))
    }

    pub(crate) fn run_joined(
        process: Process,
        options: Options,
        begin: Begin<'_>,
    ) -> Result<ExitReport, StartError> {
        if options.simulation().is_some() {
            let error = OptionsError::not_in_a_job().into();
            job::decline(process, &error);
            return Err(error);
        }
        let is_first = process.outbox.facts().rank().index() == 0;
        Runtime::run_alone_or_joined(Some(process), options, is_first.then_some(begin))
    }

    pub(crate) fn run_alone_or_joined(
        process: Option<Process>,
        options: Options,
        begin: Option<Begin<'_>>,
    ) -> Result<ExitReport, StartError> {
        caught::note_panics();
        let processes = process.as_ref().map_or(1, |process| process.outbox.facts().size());
        let prepare = || {
            CodeTable::check()?;
            if processes * options.pes() > MAX_PES {
                return Err(OptionsError::too_many_pes(processes, options.pes()).into());
            }
            let ranks_here = process.as_ref().map_or(1, |process| job::ranks_here(process.outbox.facts()));
            let devices = device_work::open(&options, ranks_here)?;
            let is_simulated = options.simulation().is_some();
            let enrolment = Enrolment::reserve(is_simulated).ok_or(StartError::TooManyRuntimes)?;
            let outside = (!is_simulated).then(Outside::start).transpose()?;
            Ok::<_, StartError>((devices, enrolment, outside))
        };
        let (devices, enrolment, outside) = match prepare() {
            Ok(prepared) => prepared,
            Err(error) => {
                process.into_iter().for_each(|process| job::decline(process, &error));
                return Err(error);
            }
        };
        let job = process.map(|process| Job::new(process, &devices, &options)).transpose()?.flatten();
        let (shared, readers) = Shared::new(&enrolment, options, devices, job);
        enrolment.complete(&shared);
        job::let_driver_tell(&shared);
        let (mut hang, simulation) = match &outside {
            Some(outside) => (run_pes(&shared, outside, readers, begin)?, None),
            None => {
                let begin = begin.expect("a simulated run is no part of a job");
                sim::run(&shared, readers, begin)
            }
        };
        device_work::close(&shared);
        shared.spoil_if_reported();
        let profiles = std::mem::take(&mut *lock(&shared.profiles));
        let mut profile = shared.options.is_profiled().then(|| Profile::new(profiles, &shared.devices));
        let have_all_closed = shared.job().is_none_or(|job| job.close(&shared, &mut hang, &mut profile));
        let restarted = shared.options.restarts().map(|_| shared.restarted.load(Ordering::Relaxed));
        let mut reason = shared.take_reason();
        // It is told once, by the process that was sent what all have written; by each where some process is lost, which may be that one.
        if shared.first > 0 && have_all_closed && matches!(*reason, Reason::Hang) {
            reason = Arc::new(Reason::Elsewhere { rank: Rank(0), ending: Ending::Hang });
        }
        let parting = shared.job().map(|job| Parting { is_told: job.words.end(), have_all_closed });
        let report = ExitReport::new(reason, hang, profile, restarted);
        Ok(report.with_simulation(simulation).with_parting(parting))
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
            let cell = CellRef::new(pe, pe.cells.open_here());
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
            let key = pe.cells.open_sink_here(Several::<T> { missing: count, values: Vec::new() });
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
            self.0.wake(self.0.first_pe());
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Handle of runtime {}", self.0.shared().number())
    }
}

/// Starts the PEs and runs them to the end; returns their hang report, empty if the run did not hang.
fn run_pes(
    shared: &Arc<Shared>,
    outside: &Outside,
    readers: Vec<InboxReader<Head>>,
    begin: Option<Begin<'_>>,
) -> Result<String, StartError> {
    let barrier = Barrier::new(shared.own_pe_count());
    let hang = HangReport::new(shared.own_pe_count(), shared.process_count() == 1);
    let mut readers = readers.into_iter().map(ReaderForThread);
    let first = readers.next().expect("there is at least one PE");
    // Threads begin when all of them exist: they wait for this lock, and read whether to go.
    let go = Mutex::new(false);
    thread::scope(|scope| {
        let mut starting = lock(&go);
        for (pe, reader) in (shared.first + 1..).zip(readers) {
            let (go, barrier, hang) = (&go, &barrier, &hang);
            let builder = thread::Builder::new().name(format!("PE {pe}")).stack_size(STACK_BYTES);
            let spawned = builder.spawn_scoped(scope, move || {
                if *lock(go) {
                    outside.around(|| run_pe(PeId::new(pe), shared, reader, barrier, hang, None));
                }
            });
            spawned.map_err(|error| StartError::Thread { pe, error })?;
        }
        *starting = true;
        drop(starting);
        outside.around(|| run_pe(shared.first_pe(), shared, first, &barrier, &hang, begin));
        Ok::<(), StartError>(())
    })?;
    Ok(hang.into_text())
}

struct ReaderForThread(InboxReader<Head>);

// SAFETY: the reader moves to its PE's thread before it is used, and stays there.
unsafe impl Send for ReaderForThread {}

/// The life of one PE, on its own thread. It ends in steps: (1) stop stepping; (2) wait until all have; (3) write the
/// hang report if it is one, in two passes, between which processes tell each other what they know, and wait until all have; (4) drop coroutines, chares, messages; (5) wait until
/// all have; (6) drop what came meanwhile. Device work that is pending at (2) is given up there if the run ended badly;
/// else it goes on, is waited for after (6), and its faults count.
fn run_pe(
    id: PeId,
    shared: &Arc<Shared>,
    reader: ReaderForThread,
    barrier: &Barrier,
    hang: &HangReport,
    begin: Option<Begin<'_>>,
) {
    let ReaderForThread(reader) = reader;
    shared.threads[shared.own_number(id)].get_or_init(thread::current);
    let mail = ThreadMail { pe: id, shared: shared.clone(), reader };
    let pe = Pe::new(id, shared.clone(), Box::new(mail), Box::new(WallClock(shared.started)));
    let _on_pe = OnPe::enter(&pe);
    // No step may keep this PE from the barriers, at which the others wait: a panic of user code ends in the report.
    if let Err(panic) = caught::catch(&pe, || begin.into_iter().for_each(|begin| begin(&pe))) {
        shared.stop(Reason::Unawaited(main_panicked(panic)));
    }
    drive(&pe);
    shared.keep_profile(pe.take_profile());
    barrier.wait();
    if id == shared.first_pe() {
        if let Some(job) = shared.job() {
            job.begin_end();
        }
        device_work::abandon_unless_ended_well(shared);
    }
    // All PEs see the same: the first reason counts, and one that is an error is never replaced (`Shared::spoil`).
    if shared.tells_what_waits() {
        pe.guard(|| hang.tell(&pe));
        barrier.wait();
        // All processes hang, or none.
        if let Some(job) = shared.job().filter(|_| shared.hangs()) {
            pe.guard(|| hang.mention(&pe));
            barrier.wait();
            if id == shared.first_pe() {
                pe.guard(|| job.exchange_findings(shared, hang));
            }
            barrier.wait();
        }
        pe.guard(|| hang.write(&pe));
    }
    barrier.wait();
    pe.guard(|| pe.dismantle());
    shared.wait_for_foreign_pushes();
    barrier.wait();
    pe.guard(|| pe.drain());
}

static MAIN: EntryInfo = EntryInfo { chare: "main", name: "main", file: "the program's main", line: 0 };

/// Starts `main` on the first PE. What runs a program does not know its type, and is compiled once.
pub(crate) type Begin<'a> = Box<dyn FnOnce(&Pe) + 'a>;

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
