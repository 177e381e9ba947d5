//! Tests as jobs over MPI: each test of a binary that `mpirun` has started is one run in all of its processes.
//!
//! All processes go through the same tests in the same order, one at a time. Invariant: they meet once for each test that is spread, and tell its
//! name there, whatever has become of the tests before; so they never get out of step unnoticed. What keeps one of them from a
//! meeting or from the end of a test ends all of them after a time, by the process that still waits, which names the test.

use std::process;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, TryLockError};
use std::thread;
use std::time::Duration;

use chare_transport::{Limits, mpi};

use super::{BeginAgain, Test};
use crate::job;
use crate::launch::say;
use crate::report::ExitReport;
use crate::runtime::{Runtime, StartError};

/// How long a test may take, the meeting included.
const SECONDS_VARIABLE: &str = "CHARE_TEST_SECONDS";
const SECONDS: f64 = 120.0;

/// Held by the test that runs: MPI meets in one order only.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a test in all processes that `mpirun` has started, or in the first one if it cannot be spread.
#[track_caller]
pub(super) fn run(test: &Test, begin: BeginAgain<'_>, env: impl Fn(&str) -> Option<String>) {
    let turn = TURN.try_lock();
    assert!(
        !matches!(turn, Err(TryLockError::WouldBlock)),
        "under mpirun one test runs at a time: give the test binary --test-threads=1"
    );
    let limit = env(SECONDS_VARIABLE).map_or(Some(SECONDS), |text| text.parse().ok());
    let limit = limit.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let limit = limit.unwrap_or_else(|| panic!("{SECONDS_VARIABLE}: give a number of seconds"));
    let report = within(limit, test.path, || run_spread(test, begin));
    drop(turn);
    match report {
        Ok(None) => {}
        Ok(Some(report)) if report.is_told_elsewhere() && test.ends.is_some() => {}
        Ok(Some(report)) if !report.is_success() && report.to_string().is_empty() && test.ends.is_none() => {
            panic!("exit code {}: another process tells why", report.code())
        }
        Ok(Some(report)) => test.expect_end(Ok(report), String::new),
        Err(error) => test.expect_end(Err(error), String::new),
    }
}

/// The report of this process; none if it has no part in the test.
fn run_spread(test: &Test, begin: BeginAgain<'_>) -> Result<Option<ExitReport>, StartError> {
    let environment = mpi::Environment::until_exit()?;
    let processes = environment.size()?;
    if !test.spreads_over(processes) {
        let is_first = environment.rank()?.index() == 0;
        let run = || Runtime::run_alone_or_joined(None, test.options(), Some(Box::new(begin)));
        return is_first.then(run).transpose();
    }
    let options = test.options().with_pes(test.pes / processes);
    let identity = job::identity_of(test.path, &options)?;
    let process = environment.connect(&identity, &Limits::default())?;
    Runtime::run_joined(process, options, Box::new(begin)).map(Some)
}

/// Runs code that must not take longer: then this process is aborted, and the launcher ends the others. Nothing milder is sure to
/// end a process whose threads wait inside of MPI.
fn within<T>(limit: Duration, name: &str, code: impl FnOnce() -> T) -> T {
    let (done, is_done) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if is_done.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                say(&format!(
                    "error: {name} has not ended within {} s in all processes ({SECONDS_VARIABLE})",
                    limit.as_secs_f64()
                ));
                process::abort();
            }
        });
        let outcome = code();
        drop(done);
        outcome
    })
}
