//! What a frame's header says of a message before its contents are read: for a network that is simulated, whose order depends on it.

use std::fmt;

use super::kind::Kind;
use super::{Decoder, WireError};
use crate::ids::ChareId;
use crate::message::Msg;
use crate::priority::Rank;
use crate::table::{CodeId, Row};

/// What a message is. Of one with a rank, what waits in it.
pub(crate) struct Label {
    kind: Kind,
    to: ChareId,
    code: Option<CodeId>,
}

impl Label {
    /// Of the message that begins here.
    pub(crate) fn read(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (kind, to) = from.take_begin()?;
        if kind == Kind::Ranked {
            let _: (Rank, bool) = from.take()?;
            return Label::read(from);
        }
        let code = if kind.begins_with_code() { Some(from.take_code_id()?) } else { None };
        Ok(Label { kind, to, code })
    }

    /// Whether it is the call of one chare. These have no order.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self.kind, Kind::Call | Kind::Guarded | Kind::Turn)
    }

    /// Whether it is about ends of promises, which keep the order of their process.
    pub(crate) fn is_about_promises(&self) -> bool {
        matches!(self.kind, Kind::Fulfil | Kind::Fail | Kind::Retain | Kind::Release)
    }

    /// Numbers that tell it from others.
    pub(crate) fn words(&self) -> [u64; 3] {
        [self.kind as u64, self.code.map_or(0, CodeId::number), self.to.element]
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.kind)?;
        if let Some(code) = self.code.and_then(|code| Row::find(code).ok()) {
            write!(f, " {}", code.full_name())?;
        }
        if self.to == Msg::NOBODY { Ok(()) } else { write!(f, " for {:?}", self.to) }
    }
}
