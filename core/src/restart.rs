//! Coroutines that can be started again, `#[entry(restart)]`: at a sync point all of their progress is in the chare, so the
//! runtime may drop the coroutine there and start the entry anew, with the same arguments.
//!
//! That is how a chare with a live coroutine gets into another process or a checkpoint, where a coroutine cannot go. Inside a
//! process coroutines move as they are. What restarts them here is [`Options::with_restarts`](crate::Options::with_restarts),
//! which tries out whether a program's coroutines keep their word.
//!
//! A [`SyncPoint`] that decides to restart returns `Pending` and notes so at its PE; [`Restartable`], which polls the
//! coroutine, finds the note, drops the coroutine and makes another one. Nobody else sees any of it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::chares::{Chare, Cx};
use crate::current;
use crate::ids::PeId;
use crate::scheduler::pe::Pe;

/// What a PE knows of restarts.
pub(crate) struct Restarts {
    /// The coroutine that is being polled can be started again.
    is_possible: Cell<bool>,
    /// It is to be.
    is_wanted: Cell<bool>,
    /// Decides, if coroutines are restarted at all.
    dice: Option<Cell<u64>>,
}

impl Restarts {
    pub(crate) fn new(seed: Option<u64>, pe: PeId) -> Self {
        let dice = seed.map(|seed| Cell::new(seed ^ (pe.index() as u64) << 32));
        Restarts { is_possible: Cell::new(false), is_wanted: Cell::new(false), dice }
    }

    /// Decides for one sync point: every second one, at random.
    fn decide(&self) -> bool {
        let Some(dice) = &self.dice else { return false };
        // SplitMix64, by Steele, Lea and Flood.
        dice.set(dice.get().wrapping_add(0x9E37_79B9_7F4A_7C15));
        let mixed = (dice.get() ^ (dice.get() >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        self.is_possible.get() && (mixed ^ (mixed >> 31)) & 1 == 1
    }
}

/// A moment at which a coroutine can be started again; made by [`Cx::sync_point`].
#[must_use = "futures do nothing unless polled"]
pub struct SyncPoint {
    is_passed: bool,
    /// It has decided to restart the coroutine.
    is_deciding: bool,
}

impl<C: Chare> Cx<C> {
    /// A point at which this coroutine may be dropped and its entry be started again, with the same arguments: to go to
    /// another process, into a checkpoint, or because [`Options::with_restarts`](crate::Options::with_restarts) tries it
    /// out. To be awaited where all progress is in `self` and nothing is awaited elsewhere in the coroutine: what its other
    /// variables hold is dropped. Usually it is over at once.
    ///
    /// In an entry that is not declared `#[entry(restart)]` it is always over at once.
    pub fn sync_point(&self) -> SyncPoint {
        SyncPoint { is_passed: false, is_deciding: false }
    }
}

impl Future for SyncPoint {
    type Output = ();

    /// # Panics
    /// On a thread that is not a PE.
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.is_passed, true) {
            return Poll::Ready(());
        }
        current::on_pe("Cx::sync_point", |pe| {
            if pe.restarts.decide() {
                pe.restarts.is_wanted.set(true);
                self.is_deciding = true;
                return Poll::Pending;
            }
            Poll::Ready(())
        })
    }
}

impl Drop for SyncPoint {
    /// Of several futures another was ready: the coroutine goes on, and is not started again later.
    fn drop(&mut self) {
        if self.is_deciding {
            current::pe(|pe| pe.into_iter().for_each(|pe| pe.restarts.is_wanted.set(false)));
        }
    }
}

/// A coroutine of an entry that can be started again.
pub(crate) struct Restartable<M, F> {
    make: M,
    /// None before its first poll, and after a restart.
    coroutine: Option<Pin<Box<F>>>,
}

impl<M, F> Unpin for Restartable<M, F> {}

impl<M: FnMut() -> F, F: Future> Restartable<M, F> {
    /// `make` makes the coroutine, anew each time.
    pub(crate) fn new(make: M) -> Self {
        Restartable { make, coroutine: None }
    }
}

/// Says, while it lives, that the coroutine which is being polled can be started again.
struct Possible<'a> {
    pe: &'a Pe,
    before: bool,
}

impl<'a> Possible<'a> {
    fn new(pe: &'a Pe) -> Self {
        pe.restarts.is_wanted.set(false);
        Possible { pe, before: pe.restarts.is_possible.replace(true) }
    }
}

impl Drop for Possible<'_> {
    fn drop(&mut self) {
        self.pe.restarts.is_possible.set(self.before);
    }
}

impl<M: FnMut() -> F, F: Future> Future for Restartable<M, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Restartable { make, coroutine } = &mut *self;
        loop {
            let running = coroutine.get_or_insert_with(|| Box::pin(make()));
            let (polled, is_wanted) = current::on_pe("a coroutine", |pe| {
                let _possible = Possible::new(pe);
                let polled = running.as_mut().poll(context);
                (polled, pe.restarts.is_wanted.take())
            });
            match polled {
                Poll::Pending if is_wanted => {
                    *coroutine = None;
                    current::on_pe("a coroutine", |pe| {
                        // Relaxed: it is read when the PEs have ended.
                        pe.shared().restarted.fetch_add(1, Ordering::Relaxed);
                    });
                }
                polled => return polled,
            }
        }
    }
}
