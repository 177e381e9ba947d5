//! Conditions over a chare's state: `this.wait_until(|s| ..)`, and those of entries (`when`).
//!
//! A waiting coroutine registers here; after every step that had the state, all registered coroutines are
//! woken in the order in which they began to wait, and each looks at its own condition. A look takes `&`, so it does
//! not count as such a step, and the looking comes to rest. After them come the calls that are kept for their entries'
//! conditions.

pub(crate) mod line;
pub(crate) mod when;

use std::collections::BTreeMap;
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::cell::ChareRef;
use crate::chares::{Chare, This};
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::waker::Wakeup;
use crate::waiting::{Waiter, What, cancel_replaced};
use crate::wire::Leaves;

/// The waits for conditions of one chare.
#[derive(Default)]
pub(crate) struct Conditions {
    /// By number, in the order in which they began; empty if woken and not registered again yet.
    waits: BTreeMap<u64, Option<Waiter>>,
    began: u64,
}

impl Conditions {
    fn begin(&mut self) -> u64 {
        self.began += 1;
        self.waits.insert(self.began, None);
        self.began
    }

    /// Registers a wait that has begun; returns what it had registered before.
    #[must_use]
    fn register(&mut self, number: u64, waiter: Waiter) -> Option<Waiter> {
        self.waits.insert(number, Some(waiter)).flatten()
    }

    #[must_use]
    fn end(&mut self, number: u64) -> Option<Waiter> {
        self.waits.remove(&number).flatten()
    }

    /// Takes all that are registered; their coroutines look again, and register anew.
    pub(crate) fn take_waiters(&mut self) -> Vec<Waiter> {
        self.waits.values_mut().filter_map(Option::take).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Waiter> {
        self.waits.values().flatten()
    }
}

/// Wakes whoever waits for a condition of `chare`, and runs the kept calls that may run, if somebody may have changed its
/// state.
pub(crate) fn recheck(pe: &Pe, chare: ChareRef) {
    if pe.direct.is_nested() {
        // A direct call has ended: its caller goes on first.
        return recheck_later(pe, chare);
    }
    if wake_if_dirty(pe, chare) {
        when::run_ready(pe, chare);
    }
}

/// As `recheck`, in the middle of another chare's method: kept calls have their turn after it.
pub(crate) fn recheck_later(pe: &Pe, chare: ChareRef) {
    if wake_if_dirty(pe, chare) {
        when::run_ready_later(pe, chare);
    }
}

/// Wakes whoever waits for a condition. Whether somebody may have changed the state.
fn wake_if_dirty(pe: &Pe, chare: ChareRef) -> bool {
    if !chare.dirty.replace(false) {
        return false;
    }
    let waiting = chare.extra_if_any(|extra| extra.conditions.take_waiters()).unwrap_or_default();
    for waiter in waiting {
        waiter.wake(pe);
    }
    true
}

/// Waits until a condition holds; made by [`This::wait_until`].
#[must_use = "futures do nothing unless polled"]
pub struct WaitUntil<'a, C: Chare, F> {
    this: &'a This<C>,
    condition: F,
    begun: Option<Begun>,
    at: &'static Location<'static>,
}

/// A wait that is registered: where, and under which number.
#[derive(Clone, Copy)]
struct Begun {
    run: RunId,
    home: PeId,
    number: u64,
}

impl<'a, C: Chare, F: Fn(&C) -> bool> WaitUntil<'a, C, F> {
    pub(crate) fn new(this: &'a This<C>, condition: F, at: &'static Location<'static>) -> Self {
        WaitUntil { this, condition, begun: None, at }
    }
}

/// Ends the wait number `number` at `chare`.
fn leave(pe: &Pe, chare: ChareRef, number: u64) {
    let waiter = chare.extra_if_any(|extra| extra.conditions.end(number));
    cancel_replaced(waiter.flatten(), pe);
}

/// A wait that was given up on another thread than its PE's.
struct Leave {
    number: u64,
}

impl Payload for Leave {
    const NAME: Name = Name::Runtime("a wait for a condition given up");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, of: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(of) {
            Some(chare) => leave(pe, chare, self.number),
            None => pe.undeliverable(Msg::new(of, reply, self)),
        }
    }

    /// The wait has gone with its chare.
    fn lost(self, _: ChareId, _: Reply, _: &Pe, _: CallError) {}
}

impl<C: Chare, F: Fn(&C) -> bool + Unpin> Future for WaitUntil<'_, C, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let holds = self.this.look(|state| (self.condition)(state));
        let chare = self.this.chare("wait_until");
        current::on_pe("wait_until", |pe| {
            if holds {
                if let Some(Begun { number, .. }) = self.begun.take() {
                    leave(pe, chare, number);
                }
                return Poll::Ready(());
            }
            let at = self.at;
            let Begun { number, .. } = *self.begun.get_or_insert_with(|| Begun {
                run: pe.run(),
                home: pe.id(),
                number: chare.extra(|extra| extra.conditions.begin()),
            });
            let waiter = Waiter::new(pe, Wakeup::of(context), What::Condition, at);
            let replaced = chare.extra(|extra| extra.conditions.register(number, waiter));
            cancel_replaced(replaced, pe);
            Poll::Pending
        })
    }
}

impl<C: Chare, F> Drop for WaitUntil<'_, C, F> {
    fn drop(&mut self) {
        let Some(Begun { run, home, number }) = self.begun.take() else { return };
        let id = self.this.id();
        current::pe(|pe| match pe {
            // A chare that is being destroyed is found no more; its index may be another's soon.
            Some(pe) if pe.run() == run => match pe.running_as(id).or_else(|| pe.find(id)) {
                Some(chare) => leave(pe, chare, number),
                None => pe.send(Msg::new(id, Reply::none(), Leave { number })),
            },
            _ => current::post_to_run(run, home, Msg::new(id, Reply::none(), Leave { number })),
        });
    }
}
