//! How a run ended, and what is said about it: the exit report, and the hang report that each PE writes its part of.

use std::collections::BTreeMap;
use std::fmt::{self, Write};

use crate::cell::ChareRef;
use crate::error::{BoxError, CallError, ExitWith};
use crate::ids::ChareId;
use crate::message::{Msg, Name};
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::scheduler::task::{Phase, TaskKey};
use crate::waiting::{Waiter, What};

/// Lines that one PE writes of each kind; the rest is counted.
const LINES_PER_KIND: usize = 20;

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
    /// A device fault that nobody waited for.
    DeviceFault(String),
    /// Nothing can go on.
    Hang,
    /// Our own bug.
    Internal(String),
}

/// How a run ended.
#[derive(Debug)]
pub struct ExitReport {
    reason: Reason,
    hang: String,
}

/// The exit code of a program that hangs.
pub const HANG_EXIT_CODE: i32 = 3;

impl ExitReport {
    pub(crate) fn new(reason: Reason, hang_parts: &[String]) -> Self {
        let hang = if matches!(reason, Reason::Hang) { hang_parts.concat() } else { String::new() };
        ExitReport { reason, hang }
    }

    /// The exit code: 0 after `main` returned, that of `exit(code)` or [`ExitWith`], 3 for a hang, 1 for other errors.
    pub fn code(&self) -> i32 {
        match &self.reason {
            Reason::Returned => 0,
            Reason::Exit(code) => *code,
            Reason::Failed(error) => error.downcast_ref::<ExitWith>().map_or(1, |exit| exit.code),
            Reason::Hang => HANG_EXIT_CODE,
            Reason::Aborted(_) | Reason::Unawaited(_) | Reason::DeviceFault(_) | Reason::Internal(_) => 1,
        }
    }

    /// Whether the run ended as the program wanted: `main` returned `Ok`, or called `exit(0)`.
    pub fn is_success(&self) -> bool {
        self.code() == 0
    }

    /// The error that ended the run, if an error of a call that nobody awaited did.
    pub fn unawaited(&self) -> Option<&CallError> {
        match &self.reason {
            Reason::Unawaited(error) => Some(error),
            _ => None,
        }
    }

    /// The error that `main` returned.
    pub fn main_error(&self) -> Option<&BoxError> {
        match &self.reason {
            Reason::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// The hang report, if the program hung.
    pub fn hang(&self) -> Option<&str> {
        matches!(self.reason, Reason::Hang).then_some(self.hang.as_str())
    }
}

impl fmt::Display for ExitReport {
    /// What the program prints on standard error at its end; empty if there is nothing to say.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Returned | Reason::Exit(_) => Ok(()),
            Reason::Failed(error) => {
                let mut text = error.to_string();
                let mut source = error.source();
                while let Some(cause) = source {
                    let cause_text = cause.to_string();
                    if !text.contains(&cause_text) {
                        write!(text, ": {cause_text}")?;
                    }
                    source = cause.source();
                }
                if text.is_empty() { Ok(()) } else { write!(f, "error: {text}") }
            }
            Reason::Aborted(message) => write!(f, "error: aborted: {message}"),
            Reason::Unawaited(error) => {
                write!(f, "error: {error} (nobody awaited the call, so the program ends)")
            }
            Reason::DeviceFault(fault) => {
                write!(f, "error: {fault} (nobody awaited it, so the program ends)")
            }
            Reason::Internal(message) => {
                write!(f, "error: the runtime failed, please report this: {message}")
            }
            Reason::Hang => write!(
                f,
                "error: the program hangs: nothing runs, is queued, in flight or on a device, and nobody awaits \
                 quiescence\n{}",
                self.hang.trim_end()
            ),
        }
    }
}

/// This PE's part of the hang report.
pub(crate) fn hang_part(pe: &Pe) -> String {
    let mut waits: BTreeMap<TaskKey, Vec<String>> = BTreeMap::new();
    let mut note = |waiter: &Waiter| {
        if let Some(task) = waiter.task() {
            waits.entry(task).or_default().push(format!("{} at {}", describe(pe, &waiter.what), waiter.at));
        }
    };
    pe.cells.for_each_waiter(&mut note);
    pe.waits_away.for_each_waiter(&mut note);
    let mut held = Counts::default();
    for_each_chare(pe, |chare| {
        chare.extra_if_any(|extra| {
            extra.conditions.iter().filter_map(|condition| condition.waiter.as_ref()).for_each(&mut note);
            extra.channels.iter().for_each(|end| end.for_each_waiter(pe, &mut note));
            let owner = pe.chare_name(chare.id);
            for work in &extra.held {
                match work {
                    Work::Msg(msg) => {
                        held.add(format!("{} for {owner}, which an exclusive coroutine owns", name(msg)))
                    }
                    Work::Resume(_) => {
                        held.add(format!("a wake-up in {owner}, which an exclusive coroutine owns"))
                    }
                    Work::Job(_) => {}
                }
            }
            for end in extra.channels.iter() {
                let (unread, backlog) = end.queued(pe);
                let peer = pe.chare_name(end.peer);
                if unread > 0 && !end.is_opened(pe) {
                    held.add(format!(
                        "{unread} values for {owner} in channel {} from {peer}, which it has not opened",
                        end.tag
                    ));
                }
                if backlog > 0 {
                    held.add(format!(
                        "{backlog} values of {owner} in channel {} wait for credit of {peer}",
                        end.tag
                    ));
                }
            }
        });
    });
    pe.for_each_unborn(|msg| {
        held.add(format!("{} for {}, which was never created", name(msg), pe.chare_name(msg.head().to)))
    });
    for collection in pe.directory.iter() {
        collection.for_each_unborn(|element, msg| {
            let target = format!("{}{}", collection.info.chare.name, collection.info.name_of(element));
            held.add(format!("{} for {target}, whose constructor has not ended", name(msg)));
        });
    }

    let mut lines = Vec::new();
    pe.tasks.for_each(|key, phase, info, chare| {
        let who = chare.map_or_else(|| info.chare.to_owned(), |chare| pe.chare_name(chare.id));
        let what = match (waits.remove(&key), phase) {
            (Some(what), _) => what.join(", or for "),
            (None, Phase::Queued) => "its turn: an exclusive coroutine owns its chare".to_owned(),
            (None, _) => "something that nobody can bring any more: no waker of it is left".to_owned(),
        };
        let (method, place) = (info.name, format!("{}:{}", info.file, info.line));
        let method = if info.chare == info.name { String::new() } else { format!(".{method}") };
        lines.push(format!("  {who}{method} ({place}) waits for {what}\n"));
    });
    reductions(pe, &mut lines);
    lines.extend(held.lines());
    if lines.is_empty() { String::new() } else { format!("on PE {}:\n{}", pe.id(), lines.concat()) }
}

/// The elements here that hold up reductions which others have contributed to.
fn reductions(pe: &Pe, lines: &mut Vec<String>) {
    for collection in pe.directory.iter() {
        let reductions = collection.reductions.borrow();
        for (sequence, count) in reductions.unfinished() {
            let mut missing = Vec::new();
            collection.for_each_element(|chare| {
                if chare.contributed.get() <= sequence {
                    missing.push(collection.info.name_of(chare.id.element));
                }
            });
            let (chare, local) = (collection.info.chare.name, collection.local_count());
            let more = missing.len().saturating_sub(LINES_PER_KIND);
            missing.truncate(LINES_PER_KIND);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!(
                "  reduction {sequence} of {chare}: {count} of {local} elements here have contributed; missing {}{more}\n",
                missing.join(", ")
            ));
        }
    }
}

fn for_each_chare(pe: &Pe, mut f: impl FnMut(ChareRef)) {
    pe.for_each_single(&mut f);
    for collection in pe.directory.iter() {
        collection.for_each_element(&mut f);
    }
}

fn name(msg: &Msg) -> String {
    match msg.name() {
        Name::Entry(entry) => format!("{}.{}", entry.chare, entry.name),
        Name::Runtime(name) => name.to_owned(),
    }
}

fn describe(pe: &Pe, what: &What) -> String {
    let chare = |id: &ChareId| pe.chare_name(*id);
    match what {
        What::Call { entry, to } => format!("the outcome of {}.{}", chare(to), entry.name),
        What::Broadcast { entry } => format!("the end of {}.{} on all elements", entry.chare, entry.name),
        What::Creation { chare } => format!("the creation of {}", chare.name),
        What::Promise => "a promise".to_owned(),
        What::Reduction { collection, sequence } => {
            let chare =
                pe.collection(*collection).map_or("a collection", |collection| collection.info.chare.name);
            format!("reduction {sequence} of {chare}")
        }
        What::Sleep => "a timer".to_owned(),
        What::Quiescence => "quiescence".to_owned(),
        What::Receive { peer, tag } => format!("a value from {} in channel {tag}", chare(peer)),
        What::Credit { peer, tag } => format!("credit from {} in channel {tag}", chare(peer)),
        What::Condition => "a condition on its own state (wait_until)".to_owned(),
    }
}

/// Equal lines with how often each came.
#[derive(Default)]
struct Counts(BTreeMap<String, usize>);

impl Counts {
    fn add(&mut self, line: String) {
        *self.0.entry(line).or_default() += 1;
    }

    fn lines(self) -> impl Iterator<Item = String> {
        let more = self.0.len().saturating_sub(LINES_PER_KIND);
        let tail = (more > 0).then(|| format!("  held: {more} more kinds\n"));
        let lines = self.0.into_iter().take(LINES_PER_KIND).map(|(line, count)| match count {
            1 => format!("  held: {line}\n"),
            _ => format!("  held: {count} times {line}\n"),
        });
        lines.chain(tail)
    }
}
