//! Timers as futures, and a wait for nothing but one's turn.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::callback::{self, Callback};
use crate::current;
use crate::ids::ChareId;
use crate::message::{Msg, Name, Payload};
use crate::pending::Pending;
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::scheduler::timer::TimerKey;
use crate::waiting::What;
use crate::wire::{Codec, Leaves};

/// Waits at least a given time, from its first poll; made by [`crate::Runtime::sleep`]. The number of pending timers is
/// not limited; one that is dropped is forgotten.
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    duration: Duration,
    started: Option<Started>,
    at: &'static Location<'static>,
}

struct Started {
    pending: Pending<()>,
    cell: CellRef,
    timer: TimerKey,
}

/// A timer that was dropped away from its PE.
struct Forget(TimerKey);

impl Payload for Forget {
    const NAME: Name = Name::Runtime("a timer given up");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.timers.cancel(self.0);
    }
}

impl Sleep {
    pub(crate) fn new(duration: Duration, at: &'static Location<'static>) -> Self {
        Sleep { duration, started: None, at }
    }
}

impl Sleep {
    /// `callback` gets `()` when the time is over; it begins now. Returns at once.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    pub fn to(mut self, callback: impl Into<Callback<()>>) {
        self.start();
        let over = async move {
            self.await;
            Ok(())
        };
        callback::deliver_later(over, callback.into());
    }

    fn start(&mut self) -> &mut Started {
        let (duration, at) = (self.duration, self.at);
        self.started.get_or_insert_with(|| {
            current::on_pe("sleeping", |pe| {
                let key = pe.cells.open(Codec::<()>::by_serde());
                // 584 years fit; longer is for ever.
                let wait_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                let timer = pe.timers.set(pe.now_ns().saturating_add(wait_ns), key);
                let cell = CellRef::new(pe, key);
                Started { pending: Pending::new(cell, What::Sleep, at), cell, timer }
            })
        })
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// If first polled on a thread that is not a PE.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        // The only error is the end of the runtime, at which nobody polls.
        self.start().pending.poll(context).map(drop)
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let Some(Started { cell, timer, .. }) = &self.started else { return };
        current::pe(|pe| match pe {
            Some(pe) if cell.is_of(pe) => pe.timers.cancel(*timer),
            _ => cell.post(Msg::for_pe(Forget(*timer))),
        });
    }
}

/// Lets everything that is queued on this PE go first; made by [`crate::Runtime::yield_now`].
#[must_use = "futures do nothing unless polled"]
#[derive(Debug)]
pub struct YieldNow {
    has_yielded: bool,
}

impl YieldNow {
    pub(crate) fn new() -> Self {
        YieldNow { has_yielded: false }
    }
}

impl Future for YieldNow {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.has_yielded {
            return Poll::Ready(());
        }
        self.has_yielded = true;
        context.waker().wake_by_ref();
        Poll::Pending
    }
}
