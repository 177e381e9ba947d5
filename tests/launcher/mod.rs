//! Starting programs under `mpirun`: that of OpenMPI, or of MPICH, or whichever `MPIRUN` names.

use std::env;
use std::process::Command;
use std::sync::LazyLock;

/// No program of these tests takes so long, however busy the machine is.
const LIMIT_S: &str = "300";

static NAME: LazyLock<String> = LazyLock::new(|| env::var("MPIRUN").unwrap_or_else(|_| "mpirun".into()));

static IS_OPEN_MPI: LazyLock<bool> = LazyLock::new(|| {
    let version = Command::new(&*NAME).arg("--version").output();
    let version = version.unwrap_or_else(|error| panic!("{} does not run: {error}", *NAME));
    String::from_utf8_lossy(&version.stdout).contains("Open MPI")
});

/// The launcher, which lacks the number of processes and the program yet.
pub(crate) fn mpirun() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", LIMIT_S, &NAME]);
    // Containers are root, and have fewer cores than a job has processes. Other launchers ask for neither.
    if *IS_OPEN_MPI {
        command.args(["--allow-run-as-root", "--oversubscribe"]);
    }
    command
}

/// Whether it ends all processes when one has ended with an error, whatever it is told.
#[allow(dead_code, reason = "as for `recovers`")]
pub(crate) fn ends_all_at_an_error() -> bool {
    !*IS_OPEN_MPI
}

/// The option by which it does not end the others when one process has gone.
#[allow(dead_code, reason = "not all who start programs have them lost")]
pub(crate) fn recovers() -> &'static [&'static str] {
    if *IS_OPEN_MPI { &["--enable-recovery"] } else { &["-disable-auto-cleanup"] }
}
