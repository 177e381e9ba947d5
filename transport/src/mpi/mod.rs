//! A job whose processes are those of an MPI program, on any number of hosts.
//!
//! MPI is started by an [`Environment`], once in a process, and finalised when it, its clones and all drivers are gone. Without a launcher
//! the program is a job of one process.

mod call;
mod exit;
mod network;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ThreadId};

use ::mpi::Threading;
use ::mpi::environment::{Universe, initialize_with_threading, library_version, processor_name};

use crate::error::ConnectError;
use crate::facts::ThreadLevel;
use crate::frame::Rank;
use crate::launcher::launched_size;
use crate::limits::Limits;
use crate::start::{self, Hello, Identity, Process};
use crate::watch::{self, Address, Heartbeat, Post};

use call::Comm;
pub(crate) use call::die_silently;
use network::Mpi;

/// MPI, started.
///
/// When the last clone is dropped, that waits for all processes to do so, and MPI is finalised, unless a driver was dropped before all had
/// closed. Launchers end all processes when one has gone with an error: so say what is to be said before.
#[derive(Clone, Debug)]
pub struct Environment {
    started: Arc<Started>,
}

/// What finalises MPI when nobody needs it any more.
struct Started {
    /// Taken by `drop` only.
    universe: Option<Universe>,
    level: ThreadLevel,
    /// The thread that started MPI, and must finalise it.
    thread: ThreadId,
    /// A driver was dropped before all had closed: finalising would wait for processes that may never come.
    is_broken: AtomicBool,
}

impl Environment {
    /// Starts MPI, for use by several threads if the library grants that. To be called by the main thread, which should also be
    /// the one that drops it.
    ///
    /// With glibc it has the allocator keep memory that is freed, up to 1 GiB, unless the environment names a limit (`MALLOC_TRIM_THRESHOLD_`,
    /// `MALLOC_MMAP_THRESHOLD_` or `GLIBC_TUNABLES`).
    ///
    /// # Errors
    /// If MPI was started before in this process, by this or by another library. If a launcher has started several processes, and is not that of
    /// this library, which then finds this process alone.
    pub fn start() -> Result<Environment, ConnectError> {
        Environment::start_with(ThreadLevel::Multiple)
    }

    /// As [`Environment::start`], but asks for no more than a level: libraries spare locks below [`ThreadLevel::Multiple`].
    ///
    /// # Errors
    /// As [`Environment::start`].
    pub fn start_with(level: ThreadLevel) -> Result<Environment, ConnectError> {
        call::keep_memory();
        let wanted = match level {
            ThreadLevel::Single => Threading::Single,
            ThreadLevel::Funneled => Threading::Funneled,
            ThreadLevel::Serialized => Threading::Serialized,
            ThreadLevel::Multiple => Threading::Multiple,
        };
        let (universe, granted) = initialize_with_threading(wanted).ok_or_else(|| {
            ConnectError::Network("MPI was started before; start it once in a process".into())
        })?;
        let level = match granted {
            Threading::Single => ThreadLevel::Single,
            Threading::Funneled => ThreadLevel::Funneled,
            Threading::Serialized => ThreadLevel::Serialized,
            Threading::Multiple => ThreadLevel::Multiple,
        };
        let environment = Environment {
            started: Arc::new(Started {
                universe: Some(universe),
                level,
                thread: thread::current().id(),
                is_broken: AtomicBool::new(false),
            }),
        };
        match launched_size() {
            Some(started) if started > 1 && environment.size()? == 1 => {
                Err(ConnectError::OtherLauncher { started, library: library() })
            }
            _ => Ok(environment),
        }
    }

    /// The number of processes of the MPI program.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn size(&self) -> Result<usize, ConnectError> {
        call::world_size().map_err(|error| ConnectError::Network(error.to_string()))
    }

    /// The number of this process among those of the MPI program.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn rank(&self) -> Result<Rank, ConnectError> {
        call::world_rank().map(Rank).map_err(|error| ConnectError::Network(error.to_string()))
    }

    /// The least of the numbers that the processes of the MPI program bring. All of them call it, and it waits for them.
    ///
    /// # Errors
    /// If MPI fails.
    pub fn least(&self, number: u32) -> Result<u32, ConnectError> {
        let failed = |error: call::Failure| ConnectError::Network(error.to_string());
        let comm = Comm::duplicate_world().map_err(failed)?;
        let mut all = vec![[0_u8; 4]; comm.size().map_err(failed)?];
        comm.gather_all(&number.to_le_bytes(), all.as_flattened_mut()).map_err(failed)?;
        comm.free();
        Ok(all.into_iter().map(u32::from_le_bytes).min().unwrap_or(number))
    }

    /// Joins the other processes of the MPI program. All of them call it, each as often as the others, and it waits for them. Several
    /// jobs at a time do not disturb each other.
    ///
    /// # Errors
    /// If the identities or limits of the ranks differ, or if the limits cannot work; the same on all ranks. If MPI fails. Say so
    /// before the environment is dropped, which waits for all: launchers end all processes when one has failed.
    pub fn connect(&self, identity: &Identity, limits: &Limits) -> Result<Process, ConnectError> {
        self.connect_watched(identity, limits, None)
    }

    /// As [`Environment::connect`], and the processes watch each other, if all of them say how: [`Driver::on_alarm`](crate::Driver::on_alarm). If
    /// some do, and not all, rank 0 tells that on standard error.
    ///
    /// # Errors
    /// As [`Environment::connect`].
    pub fn connect_watched(
        &self,
        identity: &Identity,
        limits: &Limits,
        heartbeat: Option<Heartbeat>,
    ) -> Result<Process, ConnectError> {
        let failed = |error: call::Failure| ConnectError::Network(error.to_string());
        let host = processor_name().unwrap_or_else(|_| "an unknown host".into());
        let batches = Comm::duplicate_world().map_err(failed)?;
        let bulk = Comm::duplicate_world().map_err(failed)?;
        let rank = Rank(batches.rank().map_err(failed)?);
        let mut hellos = vec![[0_u8; start::HELLO_BYTES]; batches.size().map_err(failed)?];
        let mine: Hello = start::hello(identity, limits, &host);
        batches.gather_all(&mine, hellos.as_flattened_mut()).map_err(failed)?;
        // After the exchange: a rank that refuses before it would leave the others waiting.
        let hosts = start::meet(&hellos)?;
        start::check_limits(limits)?;
        let post = Post::open(heartbeat, hosts.iter().all(|host| *host == hosts[0]));
        let mut addresses = vec![[0_u8; Address::BYTES]; hosts.len()];
        batches
            .gather_all(&Post::address(post.as_ref()).to_bytes(), addresses.as_flattened_mut())
            .map_err(failed)?;
        let started = self.started.clone();
        let network = Mpi::new(started, batches, bulk, limits).map_err(failed)?;
        let mut process = start::process(rank, &hosts, self.started.level, limits, |_| Box::new(network));
        let addresses: Vec<_> = addresses.iter().map(Address::read).collect();
        if rank == Rank(0)
            && let Some(complaint) = watch::complaint(&addresses)
        {
            // Where nobody reads it, nothing else is lost.
            let _ = writeln!(io::stderr(), "{complaint}");
        }
        if let Some(post) = post {
            process.driver.watch(|facts, watched| post.watch(facts, &addresses, watched));
        }
        Ok(process)
    }
}

/// Name and version of the library, without what else it says on its first line.
fn library() -> String {
    let words = library_version().unwrap_or_default();
    let first = words.lines().next().unwrap_or_default();
    let name = first.split(',').next().unwrap_or_default();
    name.split_whitespace().collect::<Vec<_>>().join(" ")
}

impl Started {
    /// Which threads may use MPI.
    fn admits_this_thread(&self) -> bool {
        self.level.lets_drivers_move() || thread::current().id() == self.thread
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let is_at_home = thread::current().id() == self.thread;
        if self.is_broken.load(Ordering::Relaxed) || !is_at_home {
            std::mem::forget(self.universe.take());
        } else {
            // Finalising does not promise that.
            call::wait_for_all();
        }
    }
}

impl std::fmt::Debug for Started {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MPI with threads {:?}", self.level)
    }
}
