//! What the macros turn a program's `main` and its tests into: a run, whose report ends the process or the test.

use std::future::Future;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use chare_device::Capability;
#[cfg(not(feature = "mpi"))]
use chare_transport::launched_size;
use chare_transport::say_within;
#[cfg(feature = "mpi")]
use chare_transport::{Heartbeat, Limits, Process, is_launched, mpi};

#[cfg(feature = "mpi")]
use crate::job;
use crate::options::Options;
use crate::report::ExitReport;
use crate::runtime::{MainOutput, Runtime, StartError};

/// How long the words may take of a process that others wait for, or that is aborted.
pub(crate) const WORDS_WITHIN: Duration = Duration::from_secs(2);
/// How long a process stays that ends while others have not ended their part, as when one is lost.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What `#[chare::main]` calls: options from the command line, the report on standard error, its code as exit code.
#[doc(hidden)]
pub fn main<F, Fut, R>(_program: &'static str, main: F) -> ExitCode
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let options = Options::from_env().map_err(StartError::from);
    if let Ok(Some((folder, capability))) = options.as_ref().map(Options::ships_kernels) {
        return ship_kernels(folder, capability);
    }
    let options = match options {
        Ok(options) => options,
        Err(error) => return end(Err(error)),
    };
    let is_asked = options.asks_to_choose();
    run_program(options, |rt| {
        say_what_was_chosen(&rt, is_asked);
        main(rt)
    })
}

/// Says how the run has ended; the exit code.
fn end(report: Result<ExitReport, StartError>) -> ExitCode {
    let report = match report {
        Ok(report) => report,
        Err(error) => {
            say(&format!("error: {error}"));
            return ExitCode::from(2);
        }
    };
    let words = [
        report.profile().map(ToString::to_string),
        report.restarted().map(|count| format!("coroutines started again at sync points: {count}")),
        report.simulation().map(ToString::to_string),
        Some(report.to_string())
            .filter(|text| !text.is_empty() && !report.parting().is_some_and(|parting| parting.is_told)),
    ];
    let say_all = move || words.iter().flatten().for_each(|text| say(text));
    if report.parting().is_some() && !report.is_success() {
        // The others wait for this process to go, and nobody may read what it says.
        say_within(WORDS_WITHIN, say_all);
    } else {
        say_all();
    }
    if report.parting().is_some_and(|parting| !parting.have_all_closed) {
        // Launchers end all processes when one has gone, and the others have something to say, too.
        thread::sleep(LAST_WORDS);
    }
    // Exit codes of processes have 8 bits; what does not fit is still not success.
    ExitCode::from(u8::try_from(report.code()).unwrap_or(u8::MAX))
}

/// Runs the program: as one process of a job if a launcher of MPI has started it, else by itself.
#[cfg(feature = "mpi")]
fn run_program<F, Fut, R>(options: Options, main: F) -> ExitCode
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    if !is_launched() {
        return end(Runtime::run(options, main));
    }
    let (environment, options, process) = match meet(options) {
        Ok(met) => met,
        Err(error) => return end(Err(error)),
    };
    let code = end(Runtime::join(process, options, main));
    // Launchers end all processes when one has gone with an error. So none goes before all have said what they have to say.
    drop(environment);
    code
}

/// Meets the other processes of the job. The options are those that all of them use.
#[cfg(feature = "mpi")]
pub(crate) fn meet(options: Options) -> Result<(mpi::Environment, Options, Process), StartError> {
    let environment = mpi::Environment::start()?;
    // Hosts may have different numbers of cores and of processes; each process has as many PEs.
    let least = environment.least(options.pes() as u32)?;
    let options = if options.names_pes() { options } else { options.with_pes(least as usize) };
    let heartbeat = options.heartbeat().map(Heartbeat::new);
    let process = environment.connect_watched(&job::identity(&options)?, &Limits::default(), heartbeat)?;
    Ok((environment, options, process))
}

/// Runs the program by itself.
#[cfg(not(feature = "mpi"))]
fn run_program<F, Fut, R>(options: Options, main: F) -> ExitCode
where
    F: FnOnce(Runtime) -> Fut,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    if launched_size().is_some_and(|size| size > 1) {
        say(
            "warning: this program runs by itself in each process of `mpirun`: build it with `--features mpi` to make one job of them",
        );
    }
    end(Runtime::run(options, main))
}

/// Compiles the kernels of the program for machines elsewhere.
fn ship_kernels(folder: &Path, capability: Capability) -> ExitCode {
    match chare_device::ship_kernels(folder, capability) {
        Ok(count) => {
            say(&format!("kernels compiled: {count}, in {}", folder.display()));
            ExitCode::SUCCESS
        }
        Err(error) => {
            say(&format!("error: --ship-kernels: {error}"));
            ExitCode::from(2)
        }
    }
}

/// Says which devices the program has chosen, and why, to a user who asks for that; and to one who does not, if GPUs stay
/// unused.
fn say_what_was_chosen(rt: &Runtime, is_asked: bool) {
    if !rt.is_quiet() && (is_asked || rt.passes_over_gpus()) {
        say(&format!("--device auto: {}", rt.device_reason()));
    }
}

/// Writes a line on standard error. Where nobody reads it, the exit code still tells.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
