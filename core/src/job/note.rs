//! What processes tell each other besides messages.

use serde::{Deserialize, Serialize};

use super::{NOTE, quiet::Standing};
use crate::hang::Findings;
use crate::profile::Profile;
use crate::report::{HANG_EXIT_CODE, Reason};
use crate::wire::{Decoder, Encoder};

/// A note.
#[derive(Serialize, Deserialize)]
pub(super) enum Note {
    /// The run ends.
    End(Ending),
    /// What one process knows that hangs, and what all know, of this round (`findings`).
    Findings(Round, Findings),
    /// The part of a hang report that a process has written.
    Hang(String),
    /// What the PEs of a process have done.
    Profile(Profile),
    /// All PEs of the process are idle.
    Idle(Standing),
    /// Is it as idle as it has said, for this round?
    Ask(u64),
    /// It is, and has been since.
    Confirm(u64),
    /// What had been lent under this number is not needed any more.
    Returned(u64),
    /// A piece of device memory is in its place, which the PE with this number has sent.
    Taken(u32),
}

/// What processes that hang tell each other in turn.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Round {
    Questions,
    Answers,
}

impl Note {
    /// The header of its frame.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.put_u32(NOTE);
        encoder.put_own(self);
        encoder.bytes
    }

    /// The note in a frame, if it is one.
    pub(super) fn read(header: &[u8]) -> Option<Note> {
        let mut decoder = Decoder::new(header, Vec::new());
        (decoder.take_u32().ok()? == NOTE).then(|| decoder.take().ok()).flatten()
    }

    /// Whether it means something to a process that ends.
    pub(super) fn is_of_the_end(&self) -> bool {
        matches!(self, Note::End(_) | Note::Findings(..) | Note::Hang(_) | Note::Profile(_))
    }
}

/// Why a process has ended the run, as the others know it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// As the program wished, with this exit code.
    Exit(i32),
    /// By an error, with this exit code; the text has been told where it arose.
    Failed(i32),
    /// Nothing can go on in any process.
    Hang,
}

impl Ending {
    pub(crate) fn of(reason: &Reason) -> Self {
        match reason {
            Reason::Hang => Ending::Hang,
            Reason::Elsewhere { ending, .. } => *ending,
            reason if reason.is_wish() => Ending::Exit(reason.code()),
            reason => Ending::Failed(reason.code()),
        }
    }

    /// The exit code.
    pub(crate) fn code(self) -> i32 {
        match self {
            Ending::Exit(code) | Ending::Failed(code) => code,
            Ending::Hang => HANG_EXIT_CODE,
        }
    }
}
