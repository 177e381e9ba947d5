//! What can go wrong, as seen by whoever waits: one enum for calls, small ones where a value must be given back.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::entry::EntryInfo;
use crate::ids::PeId;

/// Any error, as `main` and entries return it.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The result of programs and entries; the error defaults to any error.
pub type Result<T, E = BoxError> = std::result::Result<T, E>;

/// Why a call, a creation or another awaited value brought no value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The method panicked. The chare is poisoned afterwards, unless it was declared `keep_after_panic`.
    #[error("{0}")]
    Panicked(Arc<Panicked>),
    /// The method returned `Err`.
    #[error("{0}")]
    Failed(Arc<Failed>),
    /// There is no such element, and there will be none.
    #[error("{0}")]
    NoElement(Arc<NoElement>),
    /// The chare panicked earlier, this way, so its state is not to be trusted. A chare whose state survives a panic is
    /// declared `#[chare(keep_after_panic)]`. Values that come to a poisoned chare through channels are not read any more;
    /// if the program hangs, its report names them.
    #[error("{}", .0.as_poison())]
    Poisoned(Arc<Panicked>),
    /// The method was to run on the stack of its caller and cannot: `.now()`, or a call of a local entry from elsewhere.
    #[error("{0}")]
    NotNow(Arc<NotNow>),
    /// Every writing end was dropped before the value came.
    #[error("broken promise: the last writing end was dropped without a value")]
    BrokenPromise,
    /// A value came for a promise that has all its values, from a callback that could not tell its sender.
    #[error("a callback brought one value more than the {expected} that its promise takes")]
    Fulfilled {
        /// How many values the promise takes in all.
        expected: usize,
    },
    /// The contributions to a reduction could not be merged: the elements gave different reducers or values that do not
    /// fit, or the reducer panicked.
    #[error("{0}")]
    Reduction(Arc<str>),
    /// The runtime does not do what was asked of it, for this reason; nothing has changed.
    #[error("{0}")]
    Refused(Arc<str>),
    /// The guard of the call has decided that it never runs ([`Call::when`](crate::Call::when)).
    #[error("the call was dropped by its guard")]
    Dropped,
    /// The runtime ended before the value came.
    #[error("the runtime has ended")]
    Ended,
}

/// A panic in an entry method.
#[derive(Debug)]
pub struct Panicked {
    /// The method that was running.
    pub entry: &'static EntryInfo,
    /// The element that it ran on, as users write its index.
    pub element: String,
    /// What the panic said.
    pub message: String,
    /// `file:line:column` of the panic, where known.
    pub location: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Panicked { entry, element, message, location } = self;
        write!(f, "{}{element}.{} panicked at {location}: {message}", entry.chare, entry.name)
    }
}

impl Panicked {
    /// What is said of a chare that this panic has poisoned.
    fn as_poison(&self) -> impl fmt::Display {
        fmt::from_fn(|f| {
            let Panicked { entry: EntryInfo { chare, name, .. }, element, message, location } = self;
            write!(f, "{chare}{element} was poisoned by a panic in {chare}.{name} at {location}: {message}")
        })
    }
}

/// An `Err` that an entry method returned.
#[derive(Debug)]
pub struct Failed {
    /// The method that returned it.
    pub entry: &'static EntryInfo,
    /// The element that it ran on, as users write its index.
    pub element: String,
    /// The error itself. Where it came from another process only its text does.
    pub error: BoxError,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Failed { entry, element, error } = self;
        write!(f, "{}{element}.{} failed: {error}", entry.chare, entry.name)?;
        let mut source = error.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

/// A message to an element that does not exist.
#[derive(Debug)]
pub struct NoElement {
    /// The type of the chare.
    pub chare: &'static str,
    /// The index, as users write it.
    pub element: String,
    /// What the collection has instead.
    pub bounds: String,
}

impl fmt::Display for NoElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NoElement { chare, element, bounds } = self;
        if element.is_empty() {
            // A singleton.
            return write!(f, "this {chare} does not exist: {bounds}");
        }
        write!(f, "{chare} has no element {element}: {bounds}")
    }
}

/// A call that could not run on the stack of its caller.
#[derive(Debug)]
pub struct NotNow {
    /// The method.
    pub entry: &'static EntryInfo,
    /// The element, as users write its index.
    pub element: String,
    /// What keeps it from running.
    pub why: WhyNotNow,
}

impl fmt::Display for NotNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NotNow { entry, element, why } = self;
        write!(f, "{}{element}.{} cannot run at once: {why}", entry.chare, entry.name)
    }
}

/// What keeps a call from running on the stack of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhyNotNow {
    /// The chare is on another PE.
    #[error("it is on PE {there}, and the call was made on PE {here}; make it from a chare there")]
    Elsewhere {
        /// Where the call was made.
        here: PeId,
        /// Where the chare is, as far as is known here.
        there: PeId,
    },
    /// The caller is no PE.
    #[error("the call was made on a thread that is no PE; send a message to a chare there, which makes it")]
    OffPe,
    /// A method of the chare is the caller, or the caller's caller.
    #[error("a method of it is running already, on the same stack")]
    Running,
    /// An exclusive coroutine owns the chare.
    #[error("an exclusive coroutine (`async fn(&mut self)`) owns it until that ends")]
    Owned,
    /// Its constructor has not ended, or it is not known here that there is one.
    #[error("it is not constructed yet; await its creation")]
    NotConstructed,
    /// As many direct calls as are allowed are on the stack.
    #[error("too many such calls are on the stack already, each made by the one before")]
    TooDeep,
    /// The caller is no method: a destructor of something that the runtime drops.
    #[error("the call was made outside of any method, as in the destructor of a message")]
    OutsideOfMethods,
}

impl CallError {
    /// The error that the method returned, if it returned one of type `E`.
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        match self {
            CallError::Failed(failed) => failed.error.downcast_ref(),
            _ => None,
        }
    }
}

/// A value on its way back to who has sent it. Nobody else gets at it, so an error with it is `Sync` if the value is `Send`:
/// `?` makes a [`BoxError`] of it whatever is sent.
struct Returned<T>(Mutex<T>);

impl<T> Returned<T> {
    fn take(self) -> T {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A promise took no value; the value is given back.
#[derive(thiserror::Error)]
#[error("the promise is fulfilled already: it takes {expected} value(s)")]
pub struct Fulfilled<T> {
    /// How many values the promise takes in all.
    pub expected: usize,
    value: Returned<T>,
}

impl<T> Fulfilled<T> {
    pub(crate) fn new(expected: usize, value: T) -> Self {
        Fulfilled { expected, value: Returned(Mutex::new(value)) }
    }

    /// The value that was one too many.
    pub fn into_value(self) -> T {
        self.value.take()
    }
}

impl<T> fmt::Debug for Fulfilled<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fulfilled").field("expected", &self.expected).finish_non_exhaustive()
    }
}

/// A channel took no value; the value is given back.
#[derive(thiserror::Error)]
#[error("the channel is full: {queued} values wait for credit; await `reserve()` before sending more")]
pub struct Full<T> {
    /// Values that wait at the sending end.
    pub queued: usize,
    value: Returned<T>,
}

impl<T> Full<T> {
    pub(crate) fn new(queued: usize, value: T) -> Self {
        Full { queued, value: Returned(Mutex::new(value)) }
    }

    /// The value that was one too many.
    pub fn into_value(self) -> T {
        self.value.take()
    }
}

impl<T> fmt::Debug for Full<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Full").field("queued", &self.queued).finish_non_exhaustive()
    }
}

/// Why a channel brought no value.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The two ends disagree on the type of the values.
    #[error("channel {tag} from {peer} carries `{sent}`, but this end receives `{expected}`")]
    WrongType {
        /// The chare at the other end.
        peer: String,
        /// The tag of the channel.
        tag: u64,
        /// What the other end sends.
        sent: &'static str,
        /// What this end was opened for.
        expected: &'static str,
    },
    /// Nothing comes from the peer any more: there is none ([`CallError::NoElement`]), or it is poisoned
    /// ([`CallError::Poisoned`]). What it had sent before has been received.
    #[error("{0}")]
    Peer(CallError),
    /// The channel was opened in another chare than the one that uses it.
    #[error("a channel end works in its own chare only; send the values, not the channel")]
    NotHere,
}

/// Nothing came before the limit of a [`crate::Timeout`] was over.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("nothing came within {limit:?}")]
pub struct Elapsed {
    /// How long it was waited for.
    pub limit: Duration,
}

/// Ends the program with an exit code and a one-line message, when returned from `main`.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ExitWith {
    /// The process's exit code.
    pub code: i32,
    /// What is printed on standard error, after `error: `; nothing if empty.
    pub message: String,
}

impl ExitWith {
    /// A wrong use of the program: exit code 2.
    pub fn usage(message: impl fmt::Display) -> ExitWith {
        ExitWith { code: 2, message: message.to_string() }
    }
}
