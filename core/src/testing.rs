//! What `#[chare::test]` makes of a test: a run, or one simulated run for each of some seeds, that panics with the report
//! unless it succeeds.
//!
//! The environment may ask for more than the test does: `CHARE_SIM_SEEDS=200` simulates all tests, and `CHARE_SEED=17` runs one
//! seed. Both take what `--sim` takes behind the number. Where many seeds say nothing of `processes=`, they take turns: in one process, and spread over
//! each number of processes that divides the PEs. A test that says that it cannot be simulated never is. With
//! `CHARE_SIM_SECONDS=3` a test begins no further seed after so long. `CHARE_TEST_PROCESSES=2` spreads the PEs of a test that has a multiple
//! of two over two processes, which are joined by queues inside of this one. A binary of tests that `mpirun` has started spreads them over
//! its processes ([`ranks`], with the feature `mpi`). A test that says that it is for one process is not spread. `CHARE_DEVICE_PATH=staged` is what
//! `--device-path` is to a program.

#[cfg(feature = "mpi")]
mod ranks;

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use chare_transport::{Limits, Process, local};

use crate::job;
use crate::launch::say;
use crate::options::{Options, parse_device_path};
use crate::report::ExitReport;
use crate::runtime::{MainOutput, Runtime, STACK_BYTES, StartError, start_main};
use crate::scheduler::pe::Pe;
use crate::sim::Sim;

/// How many seeds to simulate each test with.
const SEEDS_VARIABLE: &str = "CHARE_SIM_SEEDS";
/// The one seed to simulate tests with.
const SEED_VARIABLE: &str = "CHARE_SEED";

/// Over how many processes to spread the PEs of each test.
const PROCESSES_VARIABLE: &str = "CHARE_TEST_PROCESSES";
/// By which path device memory goes to other processes.
const PATH_VARIABLE: &str = "CHARE_DEVICE_PATH";
/// How long to go on with further seeds.
const SECONDS_VARIABLE: &str = "CHARE_SIM_SECONDS";

/// How a test is run.
#[doc(hidden)]
#[derive(Debug)]
pub struct Test {
    pub pes: usize,
    pub device: Option<&'static str>,
    pub simulated: Simulated,
    /// It is never spread over several processes.
    pub one_process: bool,
    /// What looks at the report of a run; without it runs are to end well.
    pub ends: Option<fn(&ExitReport)>,
    /// The package that it is in.
    pub package: &'static str,
    /// Its name, with the modules.
    pub path: &'static str,
}

/// Whether a test is simulated.
#[doc(hidden)]
#[derive(Debug)]
pub enum Simulated {
    /// If the environment says so.
    Maybe,
    /// By seeds: how many, and what goes with each, as `--sim` takes it.
    Seeds(&'static str),
    /// It cannot be.
    Never,
}

/// The simulated runs of a test.
#[derive(Debug, PartialEq)]
struct Seeds {
    first: Sim,
    count: u64,
    /// Nobody has said how many processes there are.
    varies: bool,
}

impl Test {
    fn options(&self) -> Options {
        let mut options = Options::default().with_pes(self.pes);
        let path =
            std::env::var(PATH_VARIABLE).map_or(Ok(None), |path| parse_device_path(PATH_VARIABLE, &path));
        if let Some(path) = path.unwrap_or_else(|error| panic!("{error}")) {
            options = options.with_device_path(path);
        }
        match self.device {
            Some(spec) => {
                options.with_device(spec.parse().unwrap_or_else(|error| panic!("device {spec}: {error}")))
            }
            None => options,
        }
    }

    /// Whether its PEs can be spread over so many processes.
    fn spreads_over(&self, processes: usize) -> bool {
        processes > 1 && !self.one_process && self.pes.is_multiple_of(processes)
    }

    /// What to simulate; `None` if the run is to be a real one.
    fn seeds(&self, env: impl Fn(&str) -> Option<String>) -> Option<Seeds> {
        let own = match self.simulated {
            Simulated::Never => return None,
            Simulated::Maybe => None,
            Simulated::Seeds(spec) => Some(("seeds", spec.to_owned())),
        };
        let parse = |(name, text): (&str, String)| -> Sim {
            text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}"))
        };
        let named = |name| env(name).map(|text| (name, text));
        if let Some(first) = named(SEED_VARIABLE).map(parse) {
            return Some(Seeds { first, count: 1, varies: false });
        }
        let all = named(SEEDS_VARIABLE).or(own)?;
        let varies = !all.1.contains("processes=");
        let all = parse(all);
        assert!(all.seed() > 0, "{SEEDS_VARIABLE} or `seeds` is 0: give at least one seed");
        Some(Seeds { count: all.seed(), first: all.with_seed(0), varies })
    }

    /// The run of a seed that says nothing of processes: in one, or spread over as many as there may be, from seed to seed.
    fn shaped(&self, sim: Sim) -> Sim {
        let shapes: Vec<usize> =
            (1..=self.pes).filter(|&count| count == 1 || self.spreads_over(count)).collect();
        let processes = shapes[(sim.seed() % shapes.len() as u64) as usize];
        sim.with_processes(processes, 1)
    }

    /// How to run a seed again.
    fn replay(&self, sim: &Sim) -> String {
        let Test { package, path, .. } = self;
        // The first part is the crate, which the harness leaves out.
        let name = path.split_once("::").map_or(*path, |(_, name)| name);
        format!("{SEED_VARIABLE}={sim} cargo test -p {package} {name} -- --exact")
    }

    /// Panics if a run has not ended as it should have. What runs it again stands in the text, or is printed below what the test itself says.
    #[track_caller]
    fn expect_end(&self, outcome: Result<ExitReport, StartError>, how_to_replay: impl Fn() -> String) {
        let report = outcome.unwrap_or_else(|error| panic!("{error}"));
        let Some(ends) = self.ends else {
            assert!(report.is_success(), "exit code {}: {report}{}", report.code(), how_to_replay());
            return;
        };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| ends(&report))) {
            say(&how_to_replay());
            resume_unwind(panic);
        }
    }
}

/// What `#[chare::test]` calls.
#[doc(hidden)]
#[track_caller]
pub fn test<F, Fut, R>(test: &Test, main: F)
where
    F: Fn(Runtime) -> Fut + Sync,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    test_from(test, &|pe| start_main(pe, &main));
}

/// Starts `main`, however often.
type BeginAgain<'a> = &'a (dyn Fn(&Pe) + Sync);

#[track_caller]
fn test_from(test: &Test, begin: BeginAgain<'_>) {
    let env = |name: &str| std::env::var(name).ok();
    let Some(seeds) = test.seeds(env) else {
        #[cfg(feature = "mpi")]
        if chare_transport::is_launched() {
            return ranks::run(test, begin, env);
        }
        let report = match processes(env).filter(|processes| test.spreads_over(*processes)) {
            None => Runtime::run_alone_or_joined(None, test.options(), Some(Box::new(begin))),
            Some(processes) => {
                run_as_processes(processes, test.options().with_pes(test.pes / processes), begin)
            }
        };
        return test.expect_end(report, String::new);
    };
    let limit = env(SECONDS_VARIABLE).map(|text| {
        let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        seconds.unwrap_or_else(|| panic!("{SECONDS_VARIABLE}={text}: give a number of seconds"))
    });
    // All PEs have the stack that those other than the first have in a real run. Panics are told by the name of the test.
    let name = thread::current().name().unwrap_or(test.path).to_owned();
    let builder = thread::Builder::new().name(name).stack_size(STACK_BYTES);
    let outcome = thread::scope(|scope| {
        let simulating = builder.spawn_scoped(scope, || simulate(test, &seeds, limit, begin));
        simulating.expect("there is a thread for each test that runs").join()
    });
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}

/// Runs a program whose end is looked at, spread over processes as `#[chare::test]` would be.
#[doc(hidden)]
pub fn run<F, Fut, R>(options: Options, main: F) -> Result<ExitReport, StartError>
where
    F: FnOnce(Runtime) -> Fut + Send,
    Fut: Future<Output = R> + Send + 'static,
    R: MainOutput,
{
    let pes = options.pes();
    let is_spread = |processes: &usize| options.simulation().is_none() && pes.is_multiple_of(*processes);
    let Some(processes) = processes(|name| std::env::var(name).ok()).filter(is_spread) else {
        return Runtime::run(options, main);
    };
    let main = Mutex::new(Some(main));
    let begin = |pe: &Pe| {
        start_main(pe, main.lock().ok().and_then(|mut main| main.take()).expect("PE 0 begins once"))
    };
    run_as_processes(processes, options.with_pes(pes / processes), &begin)
}

/// Over how many processes the PEs of each test are spread, if their number is a multiple of it.
fn processes(env: impl Fn(&str) -> Option<String>) -> Option<usize> {
    let text = env(PROCESSES_VARIABLE)?;
    let processes = text.parse().ok().filter(|processes| *processes > 0);
    assert!(processes.is_some(), "{PROCESSES_VARIABLE}={text}: give a number of processes, 1 or more");
    processes
}

/// Runs a program as a job of several processes that are all inside of this one, joined by queues; each has the PEs that
/// `options` says. What they send each other is encoded as for any other network. The report is that of the process where the reason
/// arose; that all ended alike is checked.
pub(crate) fn run_as_processes(
    processes: usize,
    options: Options,
    begin: BeginAgain<'_>,
) -> Result<ExitReport, StartError> {
    run_within_limits(&Limits::default(), processes, options, begin)
}

/// The same with other limits of what they send each other.
pub(crate) fn run_within_limits(
    limits: &Limits,
    processes: usize,
    options: Options,
    begin: BeginAgain<'_>,
) -> Result<ExitReport, StartError> {
    let identities = vec![job::identity(&options)?; processes];
    run_joined(local::connect(&identities, limits)?, options, begin)
}

/// The same of processes that are joined already.
pub(crate) fn run_joined(
    processes: Vec<Process>,
    options: Options,
    begin: BeginAgain<'_>,
) -> Result<ExitReport, StartError> {
    let mut joined = processes.into_iter();
    let first = joined.next().expect("there is at least one process");
    thread::scope(|scope| {
        let run = |process| {
            let options = options.clone();
            scope.spawn(move || Runtime::run_joined(process, options, Box::new(begin)))
        };
        let others: Vec<_> = joined.map(run).collect();
        let mut report = Runtime::run_joined(first, options.clone(), Box::new(begin))?;
        for other in others {
            let other = other.join().expect("a run panics nowhere")?;
            assert_eq!(other.code(), report.code(), "all processes end alike: {report} {other}");
            if report.is_told_elsewhere() {
                report = other;
            }
        }
        Ok(report)
    })
}

fn simulate(test: &Test, seeds: &Seeds, limit: Option<Duration>, begin: BeginAgain<'_>) {
    let began = Instant::now();
    let options = test.options();
    for done in 0..seeds.count {
        if done > 0 && limit.is_some_and(|limit| began.elapsed() >= limit) {
            return println!("{}: {done} of {} seeds in {SECONDS_VARIABLE}", test.path, seeds.count);
        }
        let seed = seeds.first.seed().saturating_add(done);
        let sim = seeds.first.clone().with_seed(seed);
        let sim = if seeds.varies { test.shaped(sim) } else { sim };
        let options = options.clone().simulate(sim.clone());
        let report = Runtime::run_alone_or_joined(None, options, Some(Box::new(begin)));
        let trace =
            report.as_ref().ok().and_then(ExitReport::simulation).map(|simulation| simulation.trace_hash);
        test.expect_end(report, || {
            let (trace, replay) = (trace.unwrap_or_default(), test.replay(&sim));
            format!(
                "\nit failed at seed {seed}, trace {trace:016x}; this runs it again, and the same: {replay}"
            )
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seeds(simulated: Simulated, env: &[(&str, &str)]) -> Option<(String, u64)> {
        let test = Test {
            pes: 1,
            device: None,
            simulated,
            one_process: false,
            ends: None,
            package: "p",
            path: "c::m::t",
        };
        let env = |name: &str| env.iter().find(|(one, _)| *one == name).map(|(_, value)| (*value).to_owned());
        test.seeds(env).map(|Seeds { first, count, .. }| (first.to_string(), count))
    }

    #[test]
    fn the_environment_goes_before_the_test_and_one_seed_before_many() {
        let many = (SEEDS_VARIABLE, "200:calm");
        let one = (SEED_VARIABLE, "17:processes=2");
        let expected = |text: &str, count| Some((text.to_owned(), count));
        assert_eq!(seeds(Simulated::Maybe, &[]), None);
        assert_eq!(seeds(Simulated::Maybe, &[many]), expected("0:calm", 200));
        assert_eq!(seeds(Simulated::Seeds("8"), &[]), expected("0", 8));
        assert_eq!(seeds(Simulated::Seeds("8"), &[many]), expected("0:calm", 200));
        assert_eq!(seeds(Simulated::Seeds("8"), &[one, many]), expected("17:processes=2", 1));
        assert_eq!(seeds(Simulated::Never, &[one, many]), None);
    }

    #[test]
    fn a_failing_seed_is_named_with_what_runs_it_again() {
        let test = Test {
            pes: 1,
            device: None,
            simulated: Simulated::Maybe,
            one_process: false,
            ends: None,
            package: "p",
            path: "krate::module::name",
        };
        assert_eq!(test.replay(&Sim::new(17)), "CHARE_SEED=17 cargo test -p p module::name -- --exact");
    }

    #[test]
    fn a_test_is_spread_if_it_can_be_and_its_pes_divide() {
        let test = |pes, one_process| Test {
            pes,
            device: None,
            simulated: Simulated::Maybe,
            one_process,
            ends: None,
            package: "p",
            path: "c::t",
        };
        assert!(test(4, false).spreads_over(2) && test(4, false).spreads_over(4));
        assert!(!test(4, false).spreads_over(1) && !test(4, false).spreads_over(8));
        assert!(!test(4, true).spreads_over(2) && !test(3, false).spreads_over(2));
    }

    #[test]
    fn seeds_take_turns_in_one_process_and_in_several() {
        let test = |pes, one_process| Test {
            pes,
            device: None,
            simulated: Simulated::Maybe,
            one_process,
            ends: None,
            package: "p",
            path: "c::t",
        };
        let processes =
            |test: Test| (0..4).map(|seed| test.shaped(Sim::new(seed)).processes()).collect::<Vec<_>>();
        assert_eq!(processes(test(8, false)), [1, 2, 4, 8]);
        assert_eq!(processes(test(6, false)), [1, 2, 3, 6]);
        assert_eq!(processes(test(2, false)), [1, 2, 1, 2]);
        assert_eq!(processes(test(8, true)), [1; 4]);
        let varies = |text: &str| {
            let env = |name: &str| (name == SEEDS_VARIABLE).then(|| text.to_owned());
            test(8, false).seeds(env).expect("they are asked for").varies
        };
        assert!(varies("200:calm") && !varies("200:processes=1"));
    }

    #[test]
    #[should_panic(expected = "CHARE_SEED=x: give a number as seed")]
    fn a_bad_seed_is_an_error() {
        let _ = seeds(Simulated::Maybe, &[(SEED_VARIABLE, "x")]);
    }
}
