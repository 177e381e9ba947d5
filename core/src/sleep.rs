//! Timers as futures.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::current;
use crate::pending::Pending;
use crate::reply::CellRef;
use crate::waiting::What;

/// Waits at least a given time, from its first poll; made by [`crate::Runtime::sleep`]. The number of pending timers is
/// not limited.
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    duration: Duration,
    pending: Option<Pending<()>>,
    at: &'static Location<'static>,
}

impl Sleep {
    pub(crate) fn new(duration: Duration, at: &'static Location<'static>) -> Self {
        Sleep { duration, pending: None, at }
    }
}

impl Future for Sleep {
    type Output = ();

    /// # Panics
    /// If first polled on a thread that is not a PE.
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let (duration, at) = (self.duration, self.at);
        let pending = self.pending.get_or_insert_with(|| {
            current::on_pe("sleeping", |pe| {
                let key = pe.cells.open();
                // 584 years fit; longer is for ever.
                let wait_ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
                pe.timers.set(pe.now_ns().saturating_add(wait_ns), key);
                Pending::new(CellRef { pe: pe.id(), key }, What::Sleep, at)
            })
        });
        // The only error is the end of the runtime, at which nobody polls.
        pending.poll(context).map(drop)
    }
}
