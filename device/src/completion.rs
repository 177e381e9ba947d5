//! The end of one operation, as a future.
//!
//! In inline mode a completion is born with its value and allocates nothing. Otherwise it shares a cell with
//! the operation: the value to return if all goes well is *prepared* there, the operation *stores* its outcome there when its work is done and *publishes* it when it
//! counts as finished (later, on a device that is slower than the host). No wake-up is lost, since both
//! `poll` and `publish` hold the cell's lock: if `poll` comes first its waker is there for `publish`, else it
//! sees the outcome.
//!
//! A waker is code of the user's: its clone, its wake-up and its destructor run with no lock held, and may panic. On the
//! thread that polls or drops a completion that is the thread's own panic, and the completion is as it was, or gone; on
//! the thread that publishes it is a fault of its own ([`FaultKind::Waker`]), which no completion carries.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;

use crate::account::Account;
use crate::caught::{Caught, catch};
use crate::error::DeviceError;
use crate::fault::{FaultKind, FaultRecord};

/// Why an operation brought no value.
enum Failure {
    Fault(Arc<FaultRecord>),
    /// It was never begun: this device has been abandoned.
    Closed(Arc<str>),
}

/// The result of an operation that has been submitted.
///
/// Awaiting it suspends until the operation has finished on its device. Dropping it neither cancels the
/// operation nor hides a fault: a fault that nobody awaited is returned by the account's next call, or taken by
/// [`Devices::take_dropped_faults`](crate::Devices::take_dropped_faults). A waker that panics on a thread of the devices
/// is such a fault too.
///
/// # Panics
///
/// Polling again after it has returned `Ready` panics.
pub struct Completion<T> {
    state: State<T>,
}

enum State<T> {
    Ready(T),
    Faulted(Arc<FaultRecord>),
    Pending(Arc<Cell<T>>),
    Taken,
}

impl<T> Completion<T> {
    #[inline]
    pub(crate) fn ready(value: T) -> Self {
        Completion { state: State::Ready(value) }
    }

    #[cold]
    pub(crate) fn faulted(fault: Arc<FaultRecord>) -> Self {
        Completion { state: State::Faulted(fault) }
    }

    pub(crate) fn pending(cell: Arc<Cell<T>>) -> Self {
        Completion { state: State::Pending(cell) }
    }

    /// Whether the operation has finished, so that the next poll returns its result.
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Ready(_) | State::Faulted(_) => true,
            State::Pending(cell) => cell.lock().published,
            State::Taken => false,
        }
    }

    /// Blocks the calling thread until the operation has finished. For programs without an executor, and
    /// tests.
    ///
    /// # Errors
    ///
    /// As for awaiting: [`DeviceError::Fault`] if the kernel failed, or one that it depends on;
    /// [`DeviceError::Closed`] if the devices were abandoned before it began.
    pub fn wait(mut self) -> Result<T, DeviceError> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(result) => return result,
                Poll::Pending if self.is_polled() => std::thread::yield_now(),
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl<T> Completion<T> {
    /// Looks for operations that have finished, unless somebody else does.
    fn is_polled(&self) -> bool {
        matches!(&self.state, State::Pending(cell) if cell.account.poll())
    }
}

/// Wakes a thread that blocks in [`Completion::wait`].
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

// The value is never pinned: it is moved out when it is ready.
impl<T> Unpin for Completion<T> {}

impl<T> Future for Completion<T> {
    type Output = Result<T, DeviceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let State::Pending(cell) = &self.state
            && cell.register(context.waker())
        {
            return Poll::Pending;
        }
        let outcome = match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(value) => Ok(value),
            State::Faulted(fault) => Err(Failure::Fault(fault)),
            State::Pending(cell) => cell.take(),
            State::Taken => panic!("a completion was polled after it had returned its result"),
        };
        Poll::Ready(outcome.map_err(|failure| match failure {
            Failure::Fault(fault) => DeviceError::Fault(fault.report()),
            Failure::Closed(device) => DeviceError::Closed { device },
        }))
    }
}

impl<T> Drop for Completion<T> {
    #[inline]
    fn drop(&mut self) {
        match &self.state {
            State::Ready(_) | State::Taken => {}
            State::Faulted(fault) => fault.drop_unpolled(),
            State::Pending(cell) => cell.abandon(),
        }
    }
}

impl<T> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("is_ready", &self.is_ready()).finish_non_exhaustive()
    }
}

/// The place that an operation and its completion share.
pub(crate) struct Cell<T> {
    inside: Mutex<Inside<T>>,
    /// Who has submitted the operation, and what it is called.
    account: Account,
    name: &'static str,
}

struct Inside<T> {
    prepared: Option<Prepared<T>>,
    outcome: Option<Result<T, Failure>>,
    published: bool,
    abandoned: bool,
    waker: Option<Waker>,
}

/// What an operation returns if it succeeds.
pub(crate) enum Prepared<T> {
    Value(T),
    /// Makes it of what the operation has left, such as the host memory that it was to fill. Does not panic.
    Made(Box<dyn FnOnce() -> T + Send>),
}

impl<T> Cell<T> {
    pub(crate) fn new(account: Account, name: &'static str, prepared: Prepared<T>) -> Arc<Self> {
        let prepared = Some(prepared);
        let inside = Inside { prepared, outcome: None, published: false, abandoned: false, waker: None };
        Arc::new(Cell { inside: Mutex::new(inside), account, name })
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        self.inside.lock().expect("nothing panics under this lock")
    }

    /// Keeps an outcome.
    fn put(&self, mut inside: MutexGuard<'_, Inside<T>>, outcome: Result<T, Failure>) {
        inside.outcome = Some(outcome);
        let unwanted = if inside.abandoned { inside.outcome.take() } else { None };
        drop(inside);
        discard(unwanted);
    }

    /// Leaves a waker for `publish`. False if that has been: then the outcome is there.
    fn register(&self, waker: &Waker) -> bool {
        let inside = self.lock();
        if inside.published {
            return false;
        }
        if inside.waker.as_ref().is_some_and(|present| present.will_wake(waker)) {
            return true;
        }
        drop(inside);
        let waker = waker.clone();
        let mut inside = self.lock();
        // It may have been published since, and would not look for a waker again.
        let published = inside.published;
        let unused = if published { Some(waker) } else { inside.waker.replace(waker) };
        drop(inside);
        drop(unused);
        !published
    }

    /// Takes the outcome after it has been published.
    fn take(&self) -> Result<T, Failure> {
        self.lock().outcome.take().expect("an outcome is stored before it is published, and taken once")
    }

    /// Notes that the completion is gone.
    fn abandon(&self) {
        let mut inside = self.lock();
        inside.abandoned = true;
        let (outcome, waker) = (inside.outcome.take(), inside.waker.take());
        drop(inside);
        discard(outcome);
        drop(waker);
    }
}

/// Drops an outcome, if there is one yet, that nobody will take; a fault is passed on. At once, and not when it is
/// published: who awaits a later operation of the stream finds the fault with its next call.
fn discard<T>(outcome: Option<Result<T, Failure>>) {
    if let Some(Err(Failure::Fault(fault))) = outcome {
        fault.drop_unpolled();
    }
}

/// The operation's end of a completion, whatever its type.
pub(crate) trait Publish: Send + Sync {
    /// Who has submitted the operation.
    fn account(&self) -> &Account;

    /// Records that the operation, or who waited for it, failed.
    fn record_fault(&self, kind: FaultKind, caught: Caught) -> Arc<FaultRecord>;

    /// Keeps the outcome until it is published: what was prepared, or a fault.
    fn store(&self, outcome: Result<(), Arc<FaultRecord>>);

    /// Stores, as the outcome, that the operation will never begin.
    fn refuse(&self, device: Arc<str>);

    /// Makes the stored outcome visible and wakes who waits for it. Does not panic: the waker's panic is noted.
    fn publish(&self);
}

impl<T: Send> Publish for Cell<T> {
    fn account(&self) -> &Account {
        &self.account
    }

    #[cold]
    fn record_fault(&self, kind: FaultKind, caught: Caught) -> Arc<FaultRecord> {
        self.account.record_fault(kind, self.name, caught)
    }

    fn store(&self, outcome: Result<(), Arc<FaultRecord>>) {
        let mut inside = self.lock();
        let prepared = inside.prepared.take().expect("an operation ends once");
        match (outcome, prepared) {
            (Err(fault), prepared) => {
                self.put(inside, Err(Failure::Fault(fault)));
                drop(prepared);
            }
            (Ok(()), Prepared::Value(value)) => self.put(inside, Ok(value)),
            (Ok(()), Prepared::Made(make)) => {
                drop(inside);
                let value = make();
                self.put(self.lock(), Ok(value));
            }
        }
    }

    fn refuse(&self, device: Arc<str>) {
        let mut inside = self.lock();
        let prepared = inside.prepared.take();
        self.put(inside, Err(Failure::Closed(device)));
        drop(prepared);
    }

    fn publish(&self) {
        let mut inside = self.lock();
        inside.published = true;
        let waker = inside.waker.take();
        drop(inside);
        if let Some(waker) = waker
            && let Err(caught) = catch(|| waker.wake())
        {
            self.record_fault(FaultKind::Waker, caught).drop_unpolled();
        }
    }
}
