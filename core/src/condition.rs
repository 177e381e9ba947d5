//! Conditions over a chare's state: `this.wait_until(|s| ..)`.
//!
//! A waiting coroutine registers here; after every step that held `&mut` to the state, all registered coroutines are
//! woken in the order in which they began to wait, and each looks at its own condition. A look takes `&`, so it does
//! not count as such a step, and the looking comes to rest.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::cell::ChareRef;
use crate::chare::{Chare, This};
use crate::current;
use crate::scheduler::pe::Pe;
use crate::scheduler::waker::Wakeup;
use crate::waiting::{Waiter, What, cancel_replaced};

/// One registered wait for a condition.
pub(crate) struct Condition {
    number: u64,
    pub(crate) waiter: Option<Waiter>,
}

/// Wakes whoever waits for a condition of `chare`, if somebody may have changed its state.
pub(crate) fn recheck(pe: &Pe, chare: ChareRef) {
    if !chare.dirty.replace(false) {
        return;
    }
    let waiting: Vec<Waiter> = chare
        .extra_if_any(|extra| {
            extra.conditions.iter_mut().filter_map(|condition| condition.waiter.take()).collect()
        })
        .unwrap_or_default();
    for waiter in waiting {
        waiter.wake(pe);
    }
}

/// Waits until a condition holds; made by [`This::wait_until`].
#[must_use = "futures do nothing unless polled"]
pub struct WaitUntil<'a, C: Chare, F> {
    this: &'a This<C>,
    condition: F,
    number: Option<u64>,
    at: &'static Location<'static>,
}

impl<'a, C: Chare, F: Fn(&C) -> bool> WaitUntil<'a, C, F> {
    pub(crate) fn new(this: &'a This<C>, condition: F, at: &'static Location<'static>) -> Self {
        WaitUntil { this, condition, number: None, at }
    }
}

/// Ends the wait number `number` at `chare`.
fn leave(pe: &Pe, chare: ChareRef, number: u64) {
    let waiter = chare.extra_if_any(|extra| {
        let place = extra.conditions.iter().position(|condition| condition.number == number)?;
        extra.conditions.remove(place).waiter
    });
    if let Some(waiter) = waiter.flatten() {
        waiter.cancel(pe);
    }
}

impl<C: Chare, F: Fn(&C) -> bool + Unpin> Future for WaitUntil<'_, C, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let holds = self.this.look(|state| (self.condition)(state));
        current::on_pe("wait_until", |pe| {
            let chare = self.this.chare(pe);
            if holds {
                if let Some(number) = self.number.take() {
                    leave(pe, chare, number);
                }
                return Poll::Ready(());
            }
            let at = self.at;
            let number = *self.number.get_or_insert_with(|| {
                chare.extra(|extra| {
                    let number = extra.conditions.last().map_or(0, |last| last.number + 1);
                    extra.conditions.push(Condition { number, waiter: None });
                    number
                })
            });
            let waiter = Waiter::new(pe, Wakeup::of(context), What::Condition, at);
            let replaced = chare.extra(|extra| {
                let condition = extra.conditions.iter_mut().find(|condition| condition.number == number);
                condition.expect("its wait is registered").waiter.replace(waiter)
            });
            cancel_replaced(replaced, pe);
            Poll::Pending
        })
    }
}

impl<C: Chare, F> Drop for WaitUntil<'_, C, F> {
    fn drop(&mut self) {
        let Some(number) = self.number.take() else { return };
        let this = self.this;
        current::pe(|pe| {
            let Some(pe) = pe else { return };
            if let Some(chare) = pe.find(this.id()) {
                leave(pe, chare, number);
            }
        });
    }
}
