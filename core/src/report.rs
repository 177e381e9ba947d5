//! How a run ended, and what is said about it: the exit report. What a hang is about is said in `hang`.

use std::fmt;
use std::sync::Arc;

use chare_transport::Rank;

use crate::caught;
use crate::current;
use crate::error::{BoxError, CallError, ExitWith};
use crate::job::Ending;
use crate::profile::Profile;
use crate::sim::Simulation;

/// Why the runtime stops.
#[derive(Debug)]
pub(crate) enum Reason {
    /// `main` has returned.
    Returned,
    /// `exit` was called.
    Exit(i32),
    /// `abort` was called.
    Aborted(String),
    /// `main` has returned an error.
    Failed(BoxError),
    /// An error that nobody waited for.
    Unawaited(CallError),
    /// Errors that nobody waited for were reported, and the run has ended well otherwise.
    Reported(usize),
    /// A device fault that nobody waited for.
    DeviceFault(String),
    /// Nothing can go on.
    Hang,
    /// The simulator cannot go on.
    NotSimulated(String),
    /// Another process has ended the run, and tells why.
    Elsewhere { rank: Rank, ending: Ending },
    /// The processes of the job do not understand each other, or the network has failed.
    Processes(String),
    /// A process of the job is lost.
    Lost(String),
    /// Our own bug.
    Internal(String),
}

impl Reason {
    /// Whether the program has ended as it wished, with whichever code.
    pub(crate) fn is_wish(&self) -> bool {
        match self {
            Reason::Returned | Reason::Exit(_) => true,
            Reason::Failed(error) => error.is::<ExitWith>(),
            _ => false,
        }
    }

    /// Whether an error in another process has ended the run.
    pub(crate) fn is_error_elsewhere(&self) -> bool {
        matches!(self, Reason::Elsewhere { ending: Ending::Failed(_), .. })
    }

    /// Whether another process has ended the run.
    pub(crate) fn is_elsewhere(&self) -> bool {
        matches!(self, Reason::Elsewhere { .. })
    }

    /// Whether the end is a bad one and arose in this process, which has to say why.
    pub(crate) fn is_error_here(&self) -> bool {
        let is_told_otherwise = self.is_elsewhere() || matches!(self, Reason::Hang | Reason::Lost(_));
        self.code() != 0 && !is_told_otherwise
    }

    /// The exit code.
    pub(crate) fn code(&self) -> i32 {
        match self {
            Reason::Returned => 0,
            Reason::Exit(code) => *code,
            Reason::Elsewhere { ending, .. } => ending.code(),
            Reason::Failed(error) => error.downcast_ref::<ExitWith>().map_or(1, |exit| exit.code),
            Reason::Hang => HANG_EXIT_CODE,
            Reason::Aborted(_)
            | Reason::Unawaited(_)
            | Reason::Reported(_)
            | Reason::DeviceFault(_)
            | Reason::Processes(_)
            | Reason::Lost(_)
            | Reason::NotSimulated(_)
            | Reason::Internal(_) => 1,
        }
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct ExitReport {
    reason: Arc<Reason>,
    text: String,
    hang: String,
    profile: Option<Profile>,
    restarted: Option<u64>,
    simulation: Option<Simulation>,
    parting: Option<Parting>,
}

/// What has become of the other processes of the run.
#[derive(Debug)]
pub(crate) struct Parting {
    /// While this one waited for them it has said why the run has ended.
    pub(crate) is_told: bool,
    /// All have ended their part, and wait for each other: no launcher ends one before it has said what it has to say.
    pub(crate) have_all_closed: bool,
}

/// The exit code of a program that hangs.
pub const HANG_EXIT_CODE: i32 = 3;

impl ExitReport {
    /// `hang` is the hang report, if the run hung.
    pub(crate) fn new(
        reason: Arc<Reason>,
        hang: String,
        profile: Option<Profile>,
        restarted: Option<u64>,
    ) -> Self {
        // Made once: it takes code of the user's, the `Display` of errors.
        let text = current::silently(|| text_of(&reason, &hang)).unwrap_or_else(|panic| {
            format!("error: an error of the program, whose own text panicked: {}", caught::text(panic))
        });
        ExitReport { reason, text, hang, profile, restarted, simulation: None, parting: None }
    }

    pub(crate) fn with_parting(mut self, parting: Option<Parting>) -> Self {
        self.parting = parting;
        self
    }

    pub(crate) fn with_simulation(mut self, simulation: Option<Simulation>) -> Self {
        // What tokio says on a thread that has not entered it; the program's own words cannot be these by chance.
        if simulation.is_some() && self.text.contains("there is no reactor running") {
            self.text +=
                "\n(a simulated run has no threads, no tokio and no time but its own; run it without --sim)";
        }
        self.simulation = simulation;
        self
    }

    /// Whether another process has ended the run, and says why.
    pub(crate) fn is_told_elsewhere(&self) -> bool {
        matches!(*self.reason, Reason::Elsewhere { .. })
    }

    /// The exit code: 0 after `main` returned, that of `exit(code)` or [`ExitWith`], 3 for a hang, 1 for other errors.
    pub fn code(&self) -> i32 {
        self.reason.code()
    }

    /// Whether the run ended as the program wanted: `main` returned `Ok`, or called `exit(0)`.
    pub fn is_success(&self) -> bool {
        self.code() == 0
    }

    /// The error that ended the run, if an error of a call that nobody awaited did (see [`crate::Options::on_unawaited`]).
    pub fn unawaited(&self) -> Option<&CallError> {
        match &*self.reason {
            Reason::Unawaited(error) => Some(error),
            _ => None,
        }
    }

    /// The error that `main` returned.
    pub fn main_error(&self) -> Option<&BoxError> {
        match &*self.reason {
            Reason::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// What has become of the other processes, if the run had any.
    pub(crate) fn parting(&self) -> Option<&Parting> {
        self.parting.as_ref()
    }

    /// The hang report, if the program hung.
    pub fn hang(&self) -> Option<&str> {
        matches!(*self.reason, Reason::Hang).then_some(self.hang.as_str())
    }

    /// What the PEs have done, if the run was profiled (`--profile`, [`crate::Options::with_profile`]). `#[chare::main]`
    /// prints it on standard error. Of a run in several processes, the report of rank 0 has that of all PEs, and the others have none.
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// How many times a coroutine was started again at a sync point, if that was asked for (`--restart-coroutines`,
    /// [`crate::Options::with_restarts`]). `#[chare::main]` prints it on standard error.
    pub fn restarted(&self) -> Option<u64> {
        self.restarted
    }

    /// What the run has come to, if it was simulated (`--sim`, [`crate::Options::simulate`]). `#[chare::main]` prints it on
    /// standard error.
    pub fn simulation(&self) -> Option<&Simulation> {
        self.simulation.as_ref()
    }
}

impl fmt::Display for ExitReport {
    /// What the program prints on standard error at its end; empty if there is nothing to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// What a process says of a bad end of its run, which arose here, while it waits for others.
pub(crate) fn early(reason: &Reason) -> Option<String> {
    current::silently(|| text_of(reason, "")).ok().filter(|text| !text.is_empty())
}

fn text_of(reason: &Reason, hang: &str) -> String {
    match reason {
        Reason::Returned | Reason::Exit(_) => String::new(),
        // Where it arose, it is told.
        Reason::Elsewhere { rank, .. } => match hang.trim_end() {
            waits if reason.is_error_elsewhere() && !waits.is_empty() => {
                format!(
                    "{rank} has ended the run with an error; what was waited for in this process:\n{waits}"
                )
            }
            _ => String::new(),
        },
        Reason::Failed(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                let cause_text = cause.to_string();
                if !text.contains(&cause_text) {
                    text = format!("{text}: {cause_text}");
                }
                source = cause.source();
            }
            if text.is_empty() { text } else { format!("error: {text}") }
        }
        Reason::Aborted(message) => format!("error: aborted: {message}"),
        Reason::Unawaited(error) => {
            format!("error: {error} (nobody awaited the call, so the program ends)")
        }
        Reason::Reported(1) => "error: an error that nobody awaited was reported".to_owned(),
        Reason::Reported(count) => format!("error: {count} errors that nobody awaited were reported"),
        Reason::DeviceFault(fault) => format!("error: {fault} (nobody awaited it, so the program ends)"),
        Reason::NotSimulated(why) => format!(
            "error: this cannot be simulated: {why}\n\
             (a simulated run has no threads, no tokio and no time but its own; run it without --sim)"
        ),
        Reason::Processes(message) => format!("error: {message}"),
        Reason::Lost(message) => match hang.trim_end() {
            "" => format!("error: {message}"),
            waits => format!("error: {message}\nwhat was waited for in this process:\n{waits}"),
        },
        Reason::Internal(message) => format!("error: the runtime failed, please report this: {message}"),
        Reason::Hang => format!(
            "error: the program hangs: nothing runs, is queued, in flight or on a device, and nobody awaits quiescence\n{}",
            hang.trim_end()
        ),
    }
}
