//! How coroutines reach the world outside: by tokio, on one thread beside the PEs, if the feature `tokio` is on; else not
//! at all.
//!
//! Every run has its own tokio runtime, and its thread alone drives sockets, timers and tasks. A PE only *enters* it, so
//! that what coroutines make on the PE finds it; their wake-ups come back as messages. Invariant: it is there before the
//! first PE begins and until the last one has dropped everything, with destructors of user code.

#[cfg(feature = "tokio")]
pub(crate) use with_tokio::Outside;
#[cfg(not(feature = "tokio"))]
pub(crate) use without::Outside;

#[cfg(feature = "tokio")]
mod with_tokio {
    use std::convert::Infallible;
    use std::future::pending;
    use std::io;
    use std::pin::pin;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
    use std::task::{Context, Poll, Waker};
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    use tokio::runtime::{Builder, Handle};
    use tokio::task::AbortHandle;
    use tokio::task::coop::unconstrained;

    use crate::runtime::StartError;

    /// How long the end of a run waits for tasks that do not yield, and then again for blocking calls: enough to write
    /// the last buffer of a file, which tokio has taken before it is on the disk. What takes longer is left behind.
    const GRACE: Duration = Duration::from_secs(1);

    /// The tokio runtime of one run; dropping it ends it.
    pub(crate) struct Outside {
        handle: Handle,
        /// While this task lives, the thread drives the runtime.
        running: AbortHandle,
        thread: Option<JoinHandle<()>>,
        /// Closed when the runtime is gone. In a lock because the PEs share all this; only the end looks at it.
        gone: Mutex<Receiver<Infallible>>,
    }

    impl Outside {
        pub(crate) fn start() -> Result<Self, StartError> {
            let ((to_us, made), (until_gone, gone)) = (channel(), channel());
            // The runtime is made and ended on its thread: on this one, which may be inside another tokio runtime, it
            // could not be ended by waiting.
            let thread = thread::Builder::new()
                .name("tokio".to_owned())
                .spawn(move || drive(&to_us, until_gone))
                .map_err(|error| StartError::Tokio { error })?;
            let made = made.recv().unwrap_or_else(|_| Err(io::Error::other("its thread has panicked")));
            let (handle, running) = made.map_err(|error| StartError::Tokio { error })?;
            Ok(Outside { handle, running, thread: Some(thread), gone: Mutex::new(gone) })
        }

        /// Runs the life of a PE, from which tokio is reached.
        pub(crate) fn around<T>(&self, life: impl FnOnce() -> T) -> T {
            let _entered = self.handle.enter();
            // If this thread is inside another tokio runtime, the life of the PE is one poll of a task there. Such a poll
            // has a budget, after which no future of tokio's would ever be ready again on this PE.
            let life = pin!(unconstrained(async { life() }));
            match life.poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(value) => value,
                Poll::Pending => unreachable!("it awaits nothing"),
            }
        }
    }

    impl Drop for Outside {
        fn drop(&mut self) {
            self.running.abort();
            let gone = self.gone.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
            // Nothing is ever sent. Twice, since first a task and then a blocking call may hold the thread up.
            let left_behind = gone.recv_timeout(2 * GRACE) == Err(RecvTimeoutError::Timeout);
            if !left_behind && let Some(thread) = self.thread.take() {
                let _ = thread.join();
            }
        }
    }

    type Made = io::Result<(Handle, AbortHandle)>;

    /// The life of the thread.
    fn drive(to_starter: &Sender<Made>, _until_gone: Sender<Infallible>) {
        let runtime = match Builder::new_current_thread().enable_all().thread_name("tokio blocking").build() {
            Ok(runtime) => runtime,
            Err(error) => return drop(to_starter.send(Err(error))),
        };
        let running = runtime.spawn(pending::<()>());
        let made = (runtime.handle().clone(), running.abort_handle());
        if to_starter.send(Ok(made)).is_ok() {
            let _aborted = runtime.block_on(running);
        }
        runtime.shutdown_timeout(GRACE);
    }
}

#[cfg(not(feature = "tokio"))]
mod without {
    use crate::runtime::StartError;

    /// Nothing.
    pub(crate) struct Outside;

    impl Outside {
        pub(crate) fn start() -> Result<Self, StartError> {
            Ok(Outside)
        }

        pub(crate) fn around<T>(&self, life: impl FnOnce() -> T) -> T {
            life()
        }
    }
}
