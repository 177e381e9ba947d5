//! The end of one operation, as a future.
//!
//! In inline mode a completion is born with its value and allocates nothing. Otherwise it shares a cell with
//! the operation: the value to return if all goes well is *prepared* there, the operation *stores* its outcome there when its work is done and *publishes* it when it
//! counts as finished (later, on a device that is slower than the host). No wake-up is lost, since both
//! `poll` and `publish` hold the cell's lock: if `poll` comes first its waker is there for `publish`, else it
//! sees the outcome.
//!
//! A cell has two sides, the operation and the completion. Each *leaves* it, under its lock, when it will not look at it again; the
//! second one gives it back to the account's branch, for another operation. (The first may still hold a reference, which it only drops.)
//! So cells have no type of their own: what an operation returns is a [`Payload`], and the completion knows what to make of it.
//!
//! A waker is code of the user's: its clone, its wake-up and its destructor run with no lock held, and may panic. On the
//! thread that polls or drops a completion that is the thread's own panic, and the completion is as it was, or gone; on
//! the thread that publishes it is a fault of its own ([`FaultKind::Waker`]), which no completion carries.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread::Thread;

use crate::branch::Branch;
use crate::caught::{Caught, catch};
use crate::error::DeviceError;
use crate::fault::{FaultKind, FaultRecord};
use crate::host_vec::HostMemory;

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
    Pending(Arc<Cell>, fn(Payload) -> T),
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

    pub(crate) fn pending(cell: Arc<Cell>, make: fn(Payload) -> T) -> Self {
        Completion { state: State::Pending(cell, make) }
    }

    /// Whether the operation has finished, so that the next poll returns its result.
    pub fn is_ready(&self) -> bool {
        match &self.state {
            State::Ready(_) | State::Faulted(_) => true,
            State::Pending(cell, _) => cell.lock().published,
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
        if let State::Pending(cell, _) = &self.state {
            let thread = std::thread::current();
            let is_same =
                |present: &Waiter| matches!(present, Waiter::Thread(present) if present.id() == thread.id());
            while cell.register(is_same, || Waiter::Thread(thread.clone())) {
                // Looks for operations that have finished, unless somebody else does.
                if cell.branch().is_some_and(|branch| branch.poll()) {
                    std::thread::yield_now();
                } else {
                    std::thread::park();
                }
            }
        }
        self.take()
    }

    /// As awaiting it, but nobody counts as having been given a fault: who copies memory to another process passes the fault on with it, and
    /// whoever owes it to somebody here still does. The text of the failure.
    #[doc(hidden)]
    pub fn poll_unreported(&mut self, context: &mut Context<'_>) -> Poll<Result<T, String>> {
        if self.is_pending(context) {
            return Poll::Pending;
        }
        Poll::Ready(self.settle().map_err(|failure| match failure {
            Failure::Fault(fault) => fault.text().to_string(),
            Failure::Closed(device) => DeviceError::Closed { device }.to_string(),
        }))
    }

    /// Whether it has not been published; then whoever polls is woken.
    fn is_pending(&self, context: &mut Context<'_>) -> bool {
        let is_same = |present: &Waiter| matches!(present, Waiter::Waker(present) if present.will_wake(context.waker()));
        match &self.state {
            State::Pending(cell, _) => cell.register(is_same, || Waiter::Waker(context.waker().clone())),
            _ => false,
        }
    }

    /// The result of an operation that has been published.
    fn take(&mut self) -> Result<T, DeviceError> {
        self.settle().map_err(|failure| match failure {
            Failure::Fault(fault) => DeviceError::Fault(fault.report()),
            Failure::Closed(device) => DeviceError::Closed { device },
        })
    }

    fn settle(&mut self) -> Result<T, Failure> {
        match std::mem::replace(&mut self.state, State::Taken) {
            State::Ready(value) => Ok(value),
            State::Faulted(fault) => Err(Failure::Fault(fault)),
            State::Pending(cell, make) => cell.take().map(make),
            State::Taken => panic!("a completion was polled after it had returned its result"),
        }
    }
}

// The value is never pinned: it is moved out when it is ready.
impl<T> Unpin for Completion<T> {}

impl<T> Future for Completion<T> {
    type Output = Result<T, DeviceError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.is_pending(context) { Poll::Pending } else { Poll::Ready(self.take()) }
    }
}

impl<T> Drop for Completion<T> {
    #[inline]
    fn drop(&mut self) {
        match &self.state {
            State::Ready(_) | State::Taken => {}
            State::Faulted(fault) => fault.drop_unpolled(),
            State::Pending(cell, _) => cell.abandon(),
        }
    }
}

impl<T> fmt::Debug for Completion<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").field("is_ready", &self.is_ready()).finish_non_exhaustive()
    }
}

/// The place that an operation and its completion share.
pub(crate) struct Cell {
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    /// Who has submitted the operation, and what it is called. Nobody's while the cell is kept for another operation.
    branch: Option<Arc<Branch>>,
    name: &'static str,
    prepared: Option<Payload>,
    outcome: Option<Result<Payload, Failure>>,
    waiter: Waiter,
    published: bool,
    /// A fault has been published in the place of the outcome, which may still come, and is not wanted.
    is_overdue: bool,
    /// The completion will not look at the cell again.
    completion_left: bool,
    /// Nor will the operation.
    operation_left: bool,
}

/// Who is told of the end.
#[derive(Default)]
enum Waiter {
    #[default]
    Nobody,
    Waker(Waker),
    /// One that blocks in [`Completion::wait`].
    Thread(Thread),
}

/// What an operation returns if it succeeds, in a form that all have in common.
pub(crate) enum Payload {
    Nothing,
    /// Host memory that has been copied from or to, and how many elements of it are in use.
    Host(HostMemory, usize),
    /// What has been made by the one below.
    Other(Box<dyn Any + Send>),
    /// Makes it of what the operation has left, such as the host memory that it was to fill. Does not panic.
    Made(Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>),
}

/// What an operation returns if it succeeds: the form in which it is kept, and how it is made of that.
pub(crate) struct Prepared<T> {
    payload: Payload,
    make: fn(Payload) -> T,
}

impl<T> Prepared<T> {
    /// `make` is given `payload`, or if that is made, what it makes.
    pub(crate) fn of(payload: Payload, make: fn(Payload) -> T) -> Self {
        Prepared { payload, make }
    }

    /// What the cell is to have, and the completion.
    pub(crate) fn split(self) -> (Payload, fn(Payload) -> T) {
        (self.payload, self.make)
    }
}

impl Prepared<()> {
    pub(crate) fn nothing() -> Self {
        Prepared::of(Payload::Nothing, |_| ())
    }

    /// Nothing, but it keeps something until the operation has ended. Allocates.
    pub(crate) fn keeping(value: impl Send + 'static) -> Self {
        Prepared::of(Payload::Other(Box::new(value)), |_| ())
    }
}

impl<T: Send + 'static> Prepared<T> {
    /// What `make` makes when the operation has succeeded. Allocates, unlike the others. `make` does not panic.
    pub(crate) fn made(make: impl FnOnce() -> T + Send + 'static) -> Self {
        let make = || -> Box<dyn Any + Send> { Box::new(make()) };
        Prepared::of(Payload::Made(Box::new(make)), |payload| match payload {
            Payload::Other(value) => *value.downcast().expect("it is what was made above"),
            _ => unreachable!("what comes out is what was made above"),
        })
    }
}

impl Cell {
    /// One that is free.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Cell { inside: Mutex::default() })
    }

    /// Takes a free one for an operation.
    pub(crate) fn open(&self, branch: Arc<Branch>, name: &'static str, prepared: Payload) {
        let mut inside = self.lock();
        (inside.branch, inside.name, inside.prepared) = (Some(branch), name, Some(prepared));
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("nothing panics under this lock")
    }

    /// Who has submitted the operation; `None` only when both sides have left.
    pub(crate) fn branch(&self) -> Option<Arc<Branch>> {
        self.lock().branch.clone()
    }

    /// Whether somebody is to be told of the end.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_awaited(&self) -> bool {
        !matches!(self.lock().waiter, Waiter::Nobody)
    }

    /// Keeps an outcome.
    fn put(&self, mut inside: MutexGuard<'_, Inside>, outcome: Result<Payload, Failure>) {
        inside.outcome = Some(outcome);
        let unwanted = if inside.completion_left { inside.outcome.take() } else { None };
        drop(inside);
        discard(unwanted);
    }

    /// Leaves, for `publish`, who is to be told: what `make` makes, unless the present one is the same. False if it has been
    /// published: then the outcome is there.
    fn register(&self, is_same: impl FnOnce(&Waiter) -> bool, make: impl FnOnce() -> Waiter) -> bool {
        let inside = self.lock();
        if inside.published {
            return false;
        }
        if is_same(&inside.waiter) {
            return true;
        }
        drop(inside);
        let waiter = make();
        let mut inside = self.lock();
        // It may have been published since, and would not look for a waiter again.
        let published = inside.published;
        let unused = if published { waiter } else { std::mem::replace(&mut inside.waiter, waiter) };
        drop(inside);
        drop(unused);
        !published
    }

    /// Takes the outcome after it has been published.
    fn take(self: Arc<Self>) -> Result<Payload, Failure> {
        let mut inside = self.lock();
        let outcome =
            inside.outcome.take().expect("an outcome is stored before it is published, and taken once");
        inside.completion_left = true;
        self.leave(inside);
        outcome
    }

    /// Notes that the completion is gone.
    fn abandon(self: &Arc<Self>) {
        let mut inside = self.lock();
        let (outcome, waiter) = (inside.outcome.take(), std::mem::take(&mut inside.waiter));
        inside.completion_left = true;
        self.leave(inside);
        discard(outcome);
        drop(waiter);
    }

    /// Gives the cell back to the account if both sides have left it.
    fn leave(self: &Arc<Self>, mut inside: MutexGuard<'_, Inside>) {
        if inside.operation_left && inside.completion_left {
            let used = std::mem::take(&mut *inside);
            drop(inside);
            if let Some(branch) = &used.branch {
                branch.keep_cell(self.clone());
            }
        }
    }

    /// Records that the operation, or who waited for it, failed.
    #[cold]
    pub(crate) fn record_fault(&self, kind: FaultKind, caught: Caught) -> Arc<FaultRecord> {
        let name = self.lock().name;
        self.record_fault_of(kind, name, caught)
    }

    /// Records that this kernel, which the operation ran among others, failed.
    #[cold]
    pub(crate) fn record_fault_of(
        &self,
        kind: FaultKind,
        kernel: &'static str,
        caught: Caught,
    ) -> Arc<FaultRecord> {
        let branch = self.lock().branch.clone().expect("the operation has not left its cell");
        branch.record_fault(kind, kernel, caught)
    }

    /// Keeps the outcome until it is published: what was prepared, or a fault.
    pub(crate) fn store(&self, outcome: Result<(), Arc<FaultRecord>>) {
        let mut inside = self.lock();
        let prepared = inside.prepared.take().expect("an operation ends once");
        if inside.is_overdue {
            drop(inside);
            return drop(prepared);
        }
        match (outcome, prepared) {
            (Err(fault), prepared) => {
                self.put(inside, Err(Failure::Fault(fault)));
                drop(prepared);
            }
            (Ok(()), Payload::Made(make)) => {
                drop(inside);
                let value = make();
                self.put(self.lock(), Ok(Payload::Other(value)));
            }
            (Ok(()), payload) => self.put(inside, Ok(payload)),
        }
    }

    /// Stores, as the outcome, that the operation will never begin.
    pub(crate) fn refuse(&self, device: Arc<str>) {
        let mut inside = self.lock();
        let prepared = inside.prepared.take();
        self.put(inside, Err(Failure::Closed(device)));
        drop(prepared);
    }

    /// Makes the stored outcome visible and wakes who waits for it; the operation leaves the cell. Does not panic: the waker's
    /// panic is noted.
    pub(crate) fn publish(self: &Arc<Self>) {
        self.announce(true);
    }

    /// Publishes a fault for an operation that has not ended, and may never end. It keeps its side of the cell, and what was
    /// prepared, in case that it does.
    pub(crate) fn publish_overdue(self: &Arc<Self>, fault: Arc<FaultRecord>) {
        let mut inside = self.lock();
        inside.is_overdue = true;
        self.put(inside, Err(Failure::Fault(fault)));
        self.announce(false);
    }

    fn announce(self: &Arc<Self>, has_ended: bool) {
        let mut inside = self.lock();
        inside.published = true;
        let waiter = std::mem::take(&mut inside.waiter);
        if let Waiter::Nobody = waiter {
            inside.operation_left = has_ended;
            return self.leave(inside);
        }
        drop(inside);
        match waiter {
            Waiter::Nobody => {}
            Waiter::Thread(thread) => thread.unpark(),
            Waiter::Waker(waker) => {
                if let Err(caught) = catch(|| waker.wake()) {
                    self.record_fault(FaultKind::Waker, caught).drop_unpolled();
                }
            }
        }
        let mut inside = self.lock();
        inside.operation_left = has_ended;
        self.leave(inside);
    }

    /// Takes back what was prepared for an operation that has been refused at once, which its completion has not seen.
    pub(crate) fn withdraw(self: &Arc<Self>) {
        let mut inside = self.lock();
        let prepared = inside.prepared.take();
        (inside.operation_left, inside.completion_left) = (true, true);
        self.leave(inside);
        drop(prepared);
    }
}

/// Drops an outcome, if there is one yet, that nobody will take; a fault is passed on. At once, and not when it is
/// published: who awaits a later operation of the stream finds the fault with its next call.
fn discard(outcome: Option<Result<Payload, Failure>>) {
    if let Some(Err(Failure::Fault(fault))) = outcome {
        fault.drop_unpolled();
    }
}
