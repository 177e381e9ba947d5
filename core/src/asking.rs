//! What is asked of the runtime for one chare: that it moves, is inserted or is destroyed. An [`Asking`] is sent when the
//! program says so, or when it is first polled; whoever awaits it waits at a cell.

use std::panic::Location;
use std::task::{Context, Poll};

use crate::call;
use crate::caught::blame_caller;
use crate::chares::Chare;
use crate::current::{self, Here};
use crate::error::CallError;
use crate::message::Msg;
use crate::pending::Pending;
use crate::priority::Rank;
use crate::proxy::Element;
use crate::reply::{CellRef, Reply};
use crate::waiting::What;
use crate::wire::Codec;

/// What can be asked.
pub(crate) trait Ask: Sized {
    /// What works on a PE only: to wait for it.
    const WAITING: &'static str;
    /// What it is in the hang report.
    fn what(&self) -> What;
    /// Sends it. The error is a mistake of the caller's.
    fn send(self, reply: Reply) -> Result<(), String>;
}

/// Something that is asked once.
pub(crate) struct Asking<A> {
    /// Until it is sent.
    ask: Option<A>,
    /// Since it was sent, if somebody waits.
    pending: Option<Pending<()>>,
    at: &'static Location<'static>,
}

impl<A: Ask> Asking<A> {
    #[track_caller]
    pub(crate) fn new(ask: A) -> Self {
        Asking { ask: Some(ask), pending: None, at: Location::caller() }
    }

    /// What is to be asked, unless it has been.
    pub(crate) fn ask_mut(&mut self) -> Option<&mut A> {
        self.ask.as_mut()
    }

    /// Asks, unless it was polled before; nobody waits.
    ///
    /// # Panics
    /// If what is asked is a mistake.
    #[track_caller]
    pub(crate) fn send(self) {
        if let Some(ask) = self.ask {
            blame_caller(ask.send(Reply::none()));
        }
    }

    /// Asks, unless it was polled before, and brings what to wait for.
    ///
    /// # Panics
    /// On a thread that is not a PE, and if what is asked is a mistake.
    #[track_caller]
    pub(crate) fn start(mut self) -> Pending<()> {
        self.begin();
        self.pending.expect("it has begun")
    }

    #[track_caller]
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), CallError>> {
        self.begin();
        self.pending.as_mut().expect("it has begun").poll(context)
    }

    /// Asks, unless it was asked before; somebody will wait.
    ///
    /// # Panics
    /// On a thread that is not a PE, and if what is asked is a mistake.
    #[track_caller]
    pub(crate) fn begin(&mut self) {
        if let Some(ask) = self.ask.take() {
            let cell =
                current::on_pe(A::WAITING, |pe| CellRef::new(pe, pe.cells.open(Codec::<()>::by_serde())));
            self.pending = Some(Pending::new(cell, ask.what(), self.at));
            blame_caller(ask.send(Reply::to(cell)));
        }
    }
}

/// Sends a message of the runtime's to a chare, from wherever the running code is.
pub(crate) fn send_to<C: Chare>(chare: &Element<C>, msg: Msg) {
    current::here(|here| match here {
        Here::Pe(pe) => match call::missing(pe, chare) {
            None => pe.send(msg),
            Some(error) => msg.lose(pe, error),
        },
        Here::Foreign(shared) => {
            current::require(chare.run());
            shared.send_foreign(Rank::Normal, msg);
        }
        Here::Nowhere => call::nowhere(),
    });
}
