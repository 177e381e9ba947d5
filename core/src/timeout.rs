//! Waits with a limit of time.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::error::Elapsed;
use crate::runtime::Runtime;
use crate::sleep::Sleep;

pin_project! {
    /// Waits for a future, but not longer than a limit; made by [`crate::Runtime::timeout`].
    #[must_use = "futures do nothing unless polled"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        limit: Duration,
        // Gone, and its timer with it, once the future is ready.
        sleep: Option<Sleep>,
    }
}

impl Runtime {
    /// Waits for `future`, but not longer than `limit`, from the first poll. An outcome that is there when the time is over
    /// is brought, not lost. While the limit runs, waiting in vain is no hang.
    ///
    /// When the time is over, `future` is dropped with the [`Timeout`], and that is the end of the wait only: a call that
    /// was sent still runs, and its error, if it comes to one later, is one that nobody awaits. Give `&mut future` to go on
    /// waiting afterwards:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use chare::Elapsed;
    /// use chare::prelude::*;
    ///
    /// #[chare::main]
    /// async fn main(rt: Runtime) -> Result<()> {
    ///     let (promise, mut value) = rt.promise();
    ///     assert!(matches!(rt.timeout(Duration::from_millis(1), &mut value).await, Err(Elapsed { .. })));
    ///     promise.send(5)?;
    ///     assert_eq!(rt.timeout(Duration::from_secs(60), value).await??, 5);
    ///     Ok(())
    /// }
    /// ```
    #[track_caller]
    pub fn timeout<F: Future>(&self, limit: Duration, future: F) -> Timeout<F> {
        Timeout { future, limit, sleep: Some(Sleep::new(limit, Location::caller())) }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    /// # Panics
    /// If first polled on a thread that is not a PE.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let sleep = this.sleep.as_mut().expect("polled after it was ready");
        // First, so that what has come in time is never lost to a timer that has fired too.
        let outcome = match this.future.poll(context) {
            Poll::Ready(output) => Ok(output),
            Poll::Pending => match Pin::new(sleep).poll(context) {
                Poll::Ready(()) => Err(Elapsed { limit: *this.limit }),
                Poll::Pending => return Poll::Pending,
            },
        };
        *this.sleep = None;
        Poll::Ready(outcome)
    }
}
