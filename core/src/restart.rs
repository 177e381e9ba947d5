//! Coroutines that can be started again, `#[entry(restart)]`: at a sync point all of their progress is in the chare, so the
//! runtime may drop the coroutine there and start the entry anew, with the same arguments.
//!
//! That is how a chare with a live coroutine gets into another process or a checkpoint, where a coroutine cannot go. Inside a
//! process coroutines move as they are. What restarts them here is [`Options::with_restarts`](crate::Options::with_restarts),
//! which tries out whether a program's coroutines keep their word.
//!
//! A [`SyncPoint`] that decides to restart returns `Pending` and notes so at its PE; [`Restartable`], which polls the
//! coroutine, finds the note, drops the coroutine and makes another one. Nobody else sees any of it. If its chare is to move to another
//! process, it makes no other one but a call ([`Restart`]), which goes along with the chare and makes it there, and ends without an outcome.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use crate::cell::State;
use crate::chares::{Chare, Cx};
use crate::current;
use crate::entry::{Delivery, Entry, Invoke};
use crate::ids::{ChareId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::migration::across;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Encoder, Kind, Leaves, Unsent};

/// What a PE knows of restarts.
pub(crate) struct Restarts {
    /// The coroutine that is being polled can be started again.
    is_possible: Cell<bool>,
    /// It is to be.
    is_wanted: Cell<bool>,
    /// Elsewhere, by a call that goes there with its chare.
    is_leaving: Cell<bool>,
    /// Decides, if coroutines are restarted at all.
    dice: Option<Cell<u64>>,
}

impl Restarts {
    pub(crate) fn new(seed: Option<u64>, pe: PeId) -> Self {
        let dice = seed.map(|seed| Cell::new(seed ^ (pe.index() as u64) << 32));
        Restarts {
            is_possible: Cell::new(false),
            is_wanted: Cell::new(false),
            is_leaving: Cell::new(false),
            dice,
        }
    }

    fn reset(&self) {
        self.is_wanted.set(false);
        self.is_leaving.set(false);
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
    /// out. If the chare is to go to another process it waits there until all of the chare's coroutines have ended or come to theirs. To be
    /// awaited where all progress is in `self` and nothing is awaited elsewhere in the coroutine: what its other
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
            let is_leaving = pe.restarts.is_possible.get() && pe.running().is_some_and(across::is_waited_for);
            if is_leaving || pe.restarts.decide() {
                pe.restarts.is_wanted.set(true);
                pe.restarts.is_leaving.set(is_leaving);
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
            current::pe(|pe| pe.into_iter().for_each(|pe| pe.restarts.reset()));
        }
    }
}

/// A coroutine of an entry that can be started again, from its arguments.
pub(crate) struct Restartable<A, M, F, L> {
    /// None once it has left.
    args: Option<A>,
    make: M,
    /// None before its first poll, and after a restart.
    coroutine: Option<Pin<Box<F>>>,
    leave: L,
}

impl<A, M, F, L> Unpin for Restartable<A, M, F, L> {}

impl<A, M, F, L> Restartable<A, M, F, L>
where
    F: Future,
    M: FnMut(&A) -> F,
    L: FnMut(&Pe, A) -> F::Output,
{
    /// `make` makes the coroutine, anew each time; `leave` has it started where its chare arrives, and brings an outcome for nobody.
    pub(crate) fn new(args: A, make: M, leave: L) -> Self {
        Restartable { args: Some(args), make, coroutine: None, leave }
    }
}

/// Says, while it lives, that the coroutine which is being polled can be started again.
struct Possible<'a> {
    pe: &'a Pe,
    before: bool,
}

impl<'a> Possible<'a> {
    fn new(pe: &'a Pe) -> Self {
        pe.restarts.reset();
        Possible { pe, before: pe.restarts.is_possible.replace(true) }
    }
}

impl Drop for Possible<'_> {
    fn drop(&mut self) {
        self.pe.restarts.is_possible.set(self.before);
    }
}

impl<A, M, F, L> Future for Restartable<A, M, F, L>
where
    F: Future,
    M: FnMut(&A) -> F,
    L: FnMut(&Pe, A) -> F::Output,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let Restartable { args, make, coroutine, leave } = &mut *self;
        loop {
            let of = args.as_ref().expect("what has left is not polled");
            let running = coroutine.get_or_insert_with(|| Box::pin(make(of)));
            let (polled, is_wanted, is_leaving) = current::on_pe("a coroutine", |pe| {
                let _possible = Possible::new(pe);
                let polled = running.as_mut().poll(context);
                (polled, pe.restarts.is_wanted.take(), pe.restarts.is_leaving.take())
            });
            if !(is_wanted && polled.is_pending()) {
                return polled;
            }
            *coroutine = None;
            if let Some(args) = args.take_if(|_| is_leaving) {
                return Poll::Ready(current::on_pe("a coroutine", |pe| leave(pe, args)));
            }
            current::on_pe("a coroutine", |pe| {
                // Relaxed: it is read when the PEs have ended.
                pe.shared().restarted.fetch_add(1, Ordering::Relaxed);
            });
        }
    }
}

/// The call that starts a coroutine again where its chare has arrived, or here if the chare stays. Its condition held when it was started first.
pub(crate) struct Restart<E: Entry>(pub(crate) E::Args);

impl<E: Entry> Restart<E> {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        Invoke::<E>(self.0).leave(to)
    }
}

impl<E: Entry> Payload for Restart<E> {
    const NAME: Name = Name::Entry(E::INFO);
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Restart, Self::leave);
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(chare) if chare.state.get() == State::Idle => {
                // Relaxed: it is read when the PEs have ended.
                pe.shared().restarted.fetch_add(1, Ordering::Relaxed);
                E::deliver(Delivery::new(pe, chare, self.0, reply));
            }
            _ => pe.undeliverable(Msg::new(to, reply, self)),
        }
    }
}
