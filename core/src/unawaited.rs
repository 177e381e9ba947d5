//! What becomes of an error that nobody awaits: it ends the run, unless the program decides otherwise.
//!
//! Invariant: where the program decides, it is asked in a step of its own, since errors arise where tables are borrowed and
//! destructors run. An error that arose before the end of the run is told even if the end comes first. One that arises in a
//! step of `main` is decided upon after that: what `main` drops when it ends with an error does not hide that error.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::caught;
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::options::Options;
use crate::process::Shared;
use crate::reply::Reply;
use crate::report::Reason;
use crate::runtime;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::warning::Warning;
use crate::wire::Leaves;

/// What becomes of an error that nobody awaits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unawaited {
    /// It ends the run, with exit code 1 and the error as its report.
    End,
    /// It becomes a [`Warning`], and the run goes on. Its exit code is 1 if it would have been 0.
    Report,
    /// Nothing; the run goes on as if there were no error.
    Ignore,
}

/// Who decides.
#[derive(Clone)]
pub(crate) enum Policy {
    Fixed(Unawaited),
    Asked(Arc<dyn Fn(&CallError) -> Unawaited + Send + Sync>),
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Policy::Fixed(fate) => fate.fmt(f),
            Policy::Asked(_) => f.write_str("decided by the program"),
        }
    }
}

impl Options {
    /// Decides what becomes of errors that nobody awaits: those of calls that were sent or given up, of constructors and
    /// of broadcasts. Without it they end the run ([`Unawaited::End`]); `--unawaited report` is `|_| Unawaited::Report`.
    ///
    /// `decide` is called on the PE where the error arises, in a step of its own, some time after it arose; at the
    /// end of the run for those that arose shortly before. It may send messages. If it panics, the run ends with that.
    /// An error of `main`, a device fault and a panic outside of any method end the run in any case.
    ///
    /// ```
    /// use chare::prelude::*;
    /// use chare::{Options, Unawaited};
    ///
    /// struct Worker;
    ///
    /// #[chare(index = usize)]
    /// impl Worker {
    ///     fn new() -> Self {
    ///         Worker
    ///     }
    ///
    ///     #[entry]
    ///     fn work(&self) -> Result<(), String> {
    ///         Err("no input".into())
    ///     }
    /// }
    ///
    /// let options = Options::default().with_pes(2).on_unawaited(|error| match error {
    ///     CallError::Failed(_) => Unawaited::Ignore,
    ///     _ => Unawaited::End,
    /// });
    /// let report = Runtime::run(options, async |rt: Runtime| {
    ///     rt.array::<Worker>(4).create(()).await?.work().send();
    ///     rt.quiescence().await
    /// })?;
    /// assert!(report.is_success());
    /// # Ok::<(), chare::StartError>(())
    /// ```
    pub fn on_unawaited(mut self, decide: impl Fn(&CallError) -> Unawaited + Send + Sync + 'static) -> Self {
        self.unawaited = Policy::Asked(Arc::new(decide));
        self
    }

    fn ends_at_unawaited(&self) -> bool {
        matches!(self.unawaited, Policy::Fixed(Unawaited::End))
    }
}

/// How many errors a run has reported.
#[derive(Default)]
pub(crate) struct Reported(AtomicUsize);

impl Shared {
    /// Nobody waits for this error, which arose away from `pe`, the one that decides.
    #[cold]
    pub(crate) fn unawaited_at(&self, pe: PeId, error: CallError) {
        if !self.options().ends_at_unawaited() {
            return current::post_to_run(self.run(), pe, Undecided::msg(self.run(), error));
        }
        current::pe(|here| match here {
            Some(here) if here.run() == self.run() => here.unawaited(error),
            _ => self.stop(Reason::Unawaited(error)),
        });
    }

    /// A run that has reported errors has not ended well.
    pub(crate) fn spoil_if_reported(&self) {
        let count = self.reported().0.load(Ordering::Relaxed);
        if count > 0 {
            self.spoil(Reason::Reported(count));
        }
    }
}

impl Pe {
    /// Nobody waits for this error.
    #[cold]
    pub(crate) fn unawaited(&self, error: CallError) {
        let ends_now = self.shared().options().ends_at_unawaited() && !runtime::is_in_main(self);
        if ends_now || self.shared().is_stopping() {
            self.shared().stop(Reason::Unawaited(error));
        } else {
            self.enqueue_first([Work::Msg(Undecided::msg(self.run(), error))].into());
        }
    }

    fn decide(&self, error: CallError) {
        let fate = match &self.shared().options().unawaited {
            Policy::Fixed(fate) => Ok(*fate),
            Policy::Asked(decide) => caught::catch(self, || decide(&error)),
        };
        match fate {
            Ok(Unawaited::End) if self.shared().is_stopping() => {
                self.shared().spoil(Reason::Unawaited(error))
            }
            Ok(Unawaited::End) => self.shared().stop(Reason::Unawaited(error)),
            Ok(Unawaited::Report) => {
                self.shared().reported().0.fetch_add(1, Ordering::Relaxed);
                let warning = Warning::Unawaited(error);
                self.warn(&warning);
                self.guard(|| drop(warning));
            }
            Ok(Unawaited::Ignore) => self.guard(|| drop(error)),
            Err(panic) => {
                self.tell(&panic);
                self.guard(|| drop(error));
            }
        }
    }
}

/// An error on its way to the program's decision.
struct Undecided {
    run: RunId,
    error: Option<CallError>,
}

impl Undecided {
    fn msg(run: RunId, error: CallError) -> Msg {
        Msg::for_pe(Undecided { run, error: Some(error) })
    }

    fn decide(&mut self, pe: Option<&Pe>) {
        if let (Some(pe), Some(error)) = (pe.filter(|pe| pe.run() == self.run), self.error.take()) {
            pe.decide(error);
        }
    }
}

impl Payload for Undecided {
    const NAME: Name = Name::Runtime("an error that nobody awaits");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(mut self, _: ChareId, _: Reply, pe: &Pe) {
        self.decide(Some(pe));
    }
}

impl Drop for Undecided {
    /// The run ends before its turn.
    fn drop(&mut self) {
        if self.error.is_some() {
            current::pe(|pe| self.decide(pe));
        }
    }
}
