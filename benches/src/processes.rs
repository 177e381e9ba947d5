//! The processes that a bench runs on: it starts itself under `mpirun`, and each of these is a rank of one job after another.
//!
//! Invariant: all ranks run the same programs in the same order, so that each run of one is a part of the run of all.

use std::future::Future;

use chare::{Result, Runtime};

#[cfg(feature = "mpi")]
pub(crate) use launched::Processes;

/// One process.
#[cfg(not(feature = "mpi"))]
#[derive(Debug, Default)]
pub(crate) struct Processes(());

#[cfg(not(feature = "mpi"))]
impl Processes {
    /// Ends this process if there should be others.
    pub(crate) fn begin(ranks: usize) -> Self {
        if ranks > 1 {
            eprintln!("error: --ranks {ranks}: build the bench with `--features mpi`");
            std::process::exit(2);
        }
        Processes(())
    }

    /// Runs a program of one process.
    pub(crate) fn run<T, F, Fut>(&self, pes: usize, program: F) -> Option<T>
    where
        T: Send + 'static,
        F: FnOnce(Runtime) -> Fut,
        Fut: Future<Output = Result<T>> + Send + 'static,
    {
        Some(crate::run(pes, program))
    }
}

#[cfg(feature = "mpi")]
mod launched {
    use std::process::{Command, exit};
    use std::sync::mpsc;

    use chare::CodeTable;
    use chare_transport::mpi::Environment;
    use chare_transport::{Identity, Limits};

    use super::{Future, Result, Runtime};
    use crate::run::{keep, options_of};

    /// Set for the processes that `mpirun` starts.
    const STARTED: &str = "CHARE_BENCH_RANKS";

    /// The processes of this bench, as one of them sees them; none if it has one only.
    #[derive(Debug, Default)]
    pub(crate) struct Processes(Option<Environment>);

    impl Processes {
        /// Starts this program again on so many processes, and ends as they do; in one of these, joins the others.
        pub(crate) fn begin(ranks: usize) -> Self {
            if ranks == 1 {
                return Processes(None);
            }
            if std::env::var_os(STARTED).is_none() {
                exit(start(ranks));
            }
            match Environment::start() {
                Ok(environment) => Processes(Some(environment)),
                Err(error) => {
                    eprintln!("error: --ranks {ranks}: {error}");
                    exit(2)
                }
            }
        }

        /// Runs a program on all processes; its value comes to the first one.
        pub(crate) fn run<T, F, Fut>(&self, pes: usize, program: F) -> Option<T>
        where
            T: Send + 'static,
            F: FnOnce(Runtime) -> Fut,
            Fut: Future<Output = Result<T>> + Send + 'static,
        {
            let Processes(Some(environment)) = self else { return Some(crate::run(pes, program)) };
            let (sender, receiver) = mpsc::channel();
            let table = CodeTable::of_program().expect("no two pieces of code of a bench have one number");
            let mut limits = Limits::default();
            limits.checksums = false;
            let process = environment.connect(&Identity::new(table.hash(), "bench"), &limits);
            let process = process.unwrap_or_else(|error| panic!("the processes do not meet: {error}"));
            let is_first = process.outbox.facts().rank().index() == 0;
            let report = Runtime::join(process, options_of(pes), |rt| keep(program(rt), sender));
            let report = report.unwrap_or_else(|error| panic!("the runtime does not start: {error}"));
            assert!(report.is_success(), "the bench failed: {report}");
            is_first.then(|| receiver.try_recv().expect("a program that succeeds has a value"))
        }
    }

    /// Starts this program under `mpirun`; returns the code that this process is to end with.
    fn start(ranks: usize) -> i32 {
        let launcher = std::env::var("MPIRUN").unwrap_or_else(|_| "mpirun".into());
        let version = Command::new(&launcher).arg("--version").output();
        let Ok(version) = version else {
            eprintln!("error: --ranks {ranks}: {launcher} does not run; MPIRUN may name another one");
            return 2;
        };
        let mut command = Command::new(launcher);
        if String::from_utf8_lossy(&version.stdout).contains("Open MPI") {
            command.args(["--allow-run-as-root", "--oversubscribe"]);
        }
        let program = std::env::current_exe().expect("a program that runs has a file");
        command.arg("-n").arg(ranks.to_string()).arg(program).args(std::env::args_os().skip(1));
        let status = command.env(STARTED, ranks.to_string()).status();
        status.ok().and_then(|status| status.code()).unwrap_or(1)
    }
}
