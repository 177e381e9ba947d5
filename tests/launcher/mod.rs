//! Starting programs under `mpirun`: that of OpenMPI, or of MPICH, or whichever `MPIRUN` names.

use std::env;
use std::process::Command;
use std::sync::LazyLock;

/// No program of these tests takes so long, however busy the machine is.
const LIMIT_S: &str = "300";

static NAME: LazyLock<String> = LazyLock::new(|| env::var("MPIRUN").unwrap_or_else(|_| "mpirun".into()));

/// OpenMPI's version, if it is OpenMPI's launcher.
static OPEN_MPI: LazyLock<Option<u32>> = LazyLock::new(|| {
    let said = Command::new(&*NAME).arg("--version").output();
    let said = said.unwrap_or_else(|error| panic!("{} does not run: {error}", *NAME));
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let (_, version) = said.split_once("(Open MPI) ")?;
    let major = version.split('.').next().and_then(|major| major.parse().ok());
    Some(major.unwrap_or_else(|| panic!("no version: {said}")))
});

/// The launcher, which lacks the number of processes and the program yet.
pub(crate) fn mpirun() -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=10", LIMIT_S, &NAME]);
    // Containers are root, and have fewer cores than a job has processes. Other launchers ask for neither.
    if OPEN_MPI.is_some() {
        command.args(["--allow-run-as-root", "--oversubscribe"]);
    }
    command
}

/// The options by which it does not end the others when a signal or an error has ended one. That of MPICH has none: it kills them when a signal
/// has, even with `-disable-auto-cleanup`, when it next looks at anything, so that what they say of it may be lost.
#[allow(dead_code, reason = "not all who start programs have them lost")]
pub(crate) fn recovers() -> &'static [&'static str] {
    match *OPEN_MPI {
        Some(..5) => &["--enable-recovery"],
        Some(_) => &["--runtime-options", "recoverable,error-nonzero-status=false"],
        None => &[],
    }
}
