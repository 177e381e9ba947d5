//! What a run says without ending: warnings, printed on standard error unless the program takes them.

use std::fmt;
use std::sync::Arc;

use crate::binding::DeviceWarning;
use crate::caught;
use crate::current;
use crate::error::CallError;
use crate::launch;
use crate::mailbox::MailboxWarning;
use crate::options::Options;
use crate::scheduler::pe::Pe;

/// Something that the program should know of and that does not end the run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Warning {
    /// More messages wait in one place than [`Options::with_mailbox_budget`] allows for.
    Mailbox(MailboxWarning),
    /// A chare stays on its device though it was to go to another one.
    Device(DeviceWarning),
    /// An error that nobody awaits, where that is [reported](crate::Unawaited::Report).
    Unawaited(CallError),
}

impl fmt::Display for Warning {
    /// One line, with `warning: ` or `error: ` before it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Mailbox(warning) => write!(f, "warning: {warning}"),
            Warning::Device(warning) => write!(f, "warning: {warning}"),
            Warning::Unawaited(error) => {
                write!(f, "error: {error} (nobody awaited the call; the program goes on)")
            }
        }
    }
}

type Listen = dyn Fn(&Warning) + Send + Sync;

/// Who takes warnings: the program, or standard error if there is nobody.
#[derive(Clone, Default)]
pub(crate) struct Listener(Option<Arc<Listen>>);

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "the program" } else { "standard error" })
    }
}

impl Options {
    /// Calls `listener` with every warning, on the PE where it arises, instead of printing it on standard error. It may
    /// send messages; the PE waits until it returns, and it may be called inside of a method that sends. If it panics, the
    /// run ends with that.
    pub fn on_warning(mut self, listener: impl Fn(&Warning) + Send + Sync + 'static) -> Self {
        self.listener = Listener(Some(Arc::new(listener)));
        self
    }
}

impl Pe {
    /// Tells the program, or who reads standard error.
    #[cold]
    pub(crate) fn warn(&self, warning: &Warning) {
        match &self.shared().options().listener.0 {
            Some(listener) => self.guard(|| listener(warning)),
            None => {
                // Errors are the user's, and so is their text.
                let text = current::silently(|| warning.to_string()).unwrap_or_else(|panic| {
                    format!(
                        "error: an error of the program, whose own text panicked: {}",
                        caught::text(panic)
                    )
                });
                launch::say(&text);
            }
        }
    }
}
