//! Direct calls: those of entries with `#[entry(inline)]` or `#[entry(local)]`, which run on the stack of their caller.
//!
//! Invariant: no chare is on one stack twice, so no state is borrowed twice and no coroutine sees its chare change in
//! the middle of a poll. A plain method has its state borrowed while it is on the stack. Only what is at the bottom may
//! not: the poll of a coroutine, whose chare is remembered. Calls run directly only out of a method, a coroutine or a
//! constructor: a destructor that the runtime runs may find it in the middle of something. A look without a message
//! ([`crate::local`]) keeps to the same.

use std::cell::Cell;
use std::sync::Arc;

use crate::call::{dispatch_to_id, missing};
use crate::cell::{ChareRef, State};
use crate::chares::Chare;
use crate::current::{self, Here};
use crate::entry::{Delivery, Entry, EntryInfo, Runs};
use crate::error::{CallError, NotNow, WhyNotNow};
use crate::ids::ChareId;
use crate::location::Route;
use crate::priority::Rank;
use crate::proxy::Element;
use crate::reply::{CellRef, Reply};
use crate::report::Reason;
use crate::scheduler::pe::Pe;
use crate::scheduler::task::TaskKey;

/// Direct calls on one stack. What each method keeps there is the user's to say, so this leaves each of them 256 KiB of the
/// smallest stack that a PE has.
const MAX_DEPTH: u32 = 32;

/// Entries whose calls run on the stack of their caller: those with `#[entry(inline)]` or `#[entry(local)]`.
#[diagnostic::on_unimplemented(
    message = "calls of this entry do not run on the stack of their caller, so there is no value to be had now",
    note = "`.now()` is for entries with `#[entry(inline)]` or `#[entry(local)]`; `.await` works with any"
)]
pub trait Direct: Entry {}

/// What a local entry is called on: one chare.
#[diagnostic::on_unimplemented(
    message = "a local entry is called on one chare, on its own PE: there are no broadcasts of it",
    note = "name the chare: `.on(cx.my_pe())` of a group, `.at(index)` of an array"
)]
pub trait OneChare {}

impl<C: Chare> OneChare for Element<C> {}

/// The direct calls that are on the stack of a PE.
#[derive(Default)]
pub(crate) struct Chain {
    depth: Cell<u32>,
    /// The chare whose method or coroutine the first of them was made by.
    bottom: Cell<Option<ChareRef>>,
}

/// What was running when a direct call began; dropped when that has ended.
struct Suspended<'a> {
    pe: &'a Pe,
    running: Option<ChareRef>,
    running_task: Option<TaskKey>,
    constructing: Option<ChareId>,
}

impl Chain {
    /// Whether what is running was called directly.
    pub(crate) fn is_nested(&self) -> bool {
        self.depth.get() > 0
    }
}

impl<'a> Suspended<'a> {
    /// Suspends what is running for a call of `entry`.
    fn new(pe: &'a Pe, entry: &'static EntryInfo) -> Self {
        let Chain { depth, bottom } = &pe.direct;
        let running = pe.running.take();
        if depth.get() == 0 {
            bottom.set(running);
        }
        depth.set(depth.get() + 1);
        pe.note_direct_call(entry);
        Suspended { pe, running, running_task: pe.running_task.take(), constructing: pe.constructing.take() }
    }
}

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        let Suspended { pe, running, running_task, constructing } = *self;
        pe.note_return();
        let Chain { depth, bottom } = &pe.direct;
        depth.set(depth.get() - 1);
        if depth.get() == 0 {
            bottom.set(None);
        }
        pe.running.set(running);
        pe.running_task.set(running_task);
        pe.constructing.set(constructing);
    }
}

/// Why a call does not run now.
pub(crate) enum Obstacle {
    NotNow(WhyNotNow),
    /// It will not run later either.
    Never(CallError),
}

/// What keeps the running code from touching the state of a chare on this stack, if something does.
pub(crate) fn obstacle(pe: &Pe, chare: ChareRef) -> Option<Obstacle> {
    let is_on_the_stack =
        chare.is_borrowed() || [pe.direct.bottom.get(), pe.running()].contains(&Some(chare));
    let is_outside = pe.running().is_none() && pe.running_task().is_none() && pe.constructing.get().is_none();
    let why = match chare.state.get() {
        State::Poisoned => return Some(Obstacle::Never(chare.poisoned())),
        State::Exclusive => WhyNotNow::Owned,
        State::Idle if is_on_the_stack => WhyNotNow::Running,
        State::Idle if is_outside => WhyNotNow::OutsideOfMethods,
        State::Idle => return None,
    };
    Some(Obstacle::NotNow(why))
}

/// The chare, if a call of it can run on this stack.
fn callable(pe: &Pe, id: ChareId) -> Result<ChareRef, Obstacle> {
    if pe.shared().is_stopping() {
        return Err(Obstacle::Never(CallError::Ended));
    }
    let Some(chare) = pe.find(id) else { return Err(absent(pe, id)) };
    match obstacle(pe, chare) {
        Some(obstacle) => Err(obstacle),
        None if pe.direct.depth.get() >= MAX_DEPTH => Err(Obstacle::NotNow(WhyNotNow::TooDeep)),
        None => Ok(chare),
    }
}

/// Where a chare is that is not here.
#[cold]
fn absent(pe: &Pe, id: ChareId) -> Obstacle {
    match (pe.stillborn(id), pe.route(id)) {
        (Some(error), _) => Obstacle::Never(error),
        (None, Route::To(there)) => Obstacle::NotNow(WhyNotNow::Elsewhere { here: pe.id(), there }),
        (None, _) => Obstacle::NotNow(WhyNotNow::NotConstructed),
    }
}

fn run<E: Entry>(pe: &Pe, chare: ChareRef, args: E::Args, reply: Reply) {
    let _suspended = Suspended::new(pe, E::INFO);
    E::deliver(Delivery::new(pe, chare, args, reply));
}

#[cold]
fn not_now<E: Entry>(to: &Element<E::Chare>, why: WhyNotNow) -> CallError {
    CallError::NotNow(Arc::new(NotNow { entry: E::INFO, element: format!("[{:?}]", to.index()), why }))
}

/// Runs a call of an entry that is called directly, or sends it if it is to wait.
pub(crate) fn dispatch<E: Entry>(to: Element<E::Chare>, args: E::Args, reply: Reply, rank: Rank) {
    let is_local = matches!(E::RUNS, Runs::Local);
    current::here(|here| {
        match here {
            Here::Pe(pe) if missing(pe, &to).is_none() => match callable(pe, to.id()) {
                Ok(chare) => return run::<E>(pe, chare, args, reply),
                Err(Obstacle::NotNow(why @ WhyNotNow::Elsewhere { .. })) if is_local => {
                    return reply.refuse(pe, to.id(), not_now::<E>(&to, why));
                }
                Err(_) => {}
            },
            Here::Foreign(shared) if is_local && shared.run() == to.run() => {
                return shared.stop(Reason::Unawaited(not_now::<E>(&to, WhyNotNow::OffPe)));
            }
            _ => {}
        }
        dispatch_to_id::<E>(to.run(), to.id(), args, reply, rank, || format!("[{:?}]", to.index()));
    });
}

/// Runs a call now and brings its outcome.
pub(crate) fn now<E: Direct>(pe: &Pe, to: &Element<E::Chare>, args: E::Args) -> Result<E::Output, CallError> {
    if let Some(error) = missing(pe, to) {
        return Err(error);
    }
    let chare = callable(pe, to.id()).map_err(|obstacle| match obstacle {
        Obstacle::NotNow(why) => not_now::<E>(to, why),
        Obstacle::Never(error) => error,
    })?;
    let cell = CellRef::new(pe, pe.cells.open(E::output()));
    run::<E>(pe, chare, args, Reply::to(cell));
    pe.cells.try_take(pe, cell.key).unwrap_or(Err(CallError::Ended))
}
