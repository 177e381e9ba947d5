//! Catching what a kernel throws, or a waker on a thread of the devices: its panic becomes the text of a fault, with the
//! place, and nothing is printed.
//!
//! A panic's place is known to the panic hook only, and the hook runs on the thread that panics; so the two
//! thread-locals here are how it gets to [`catch`]. The hook is silent inside of `catch` alone: every other panic goes to
//! the hook that was there before.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind};
use std::sync::{Arc, Once};

thread_local! {
    /// Whether this thread is inside of [`catch`].
    static CATCHING: Cell<bool> = const { Cell::new(false) };
    /// Where the panic happened that `catch` is about to see.
    static PLACE: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// What a panic said, and where, as `file:line:column`.
#[derive(Debug)]
pub(crate) struct Caught {
    pub(crate) message: Arc<str>,
    pub(crate) location: Option<Arc<str>>,
}

/// Calls `body`, and catches its panic without a word.
#[inline(always)]
pub(crate) fn catch<R>(body: impl FnOnce() -> R) -> Result<R, Caught> {
    let outer = CATCHING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(body));
    let outcome = outcome.map_err(describe);
    CATCHING.set(outer);
    outcome
}

#[cold]
fn describe(panic: Box<dyn Any + Send>) -> Caught {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let caught = Caught {
        message: Arc::from(text.unwrap_or("it panicked with a value that is no text")),
        location: PLACE.take(),
    };
    // A value whose destructor panics too is not looked at any further: the thread must go on.
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
    caught
}

/// Keeps the place of a kernel's panic, and says whether it was one. For panic hooks: they have nothing to print then.
#[doc(hidden)]
pub fn note_kernel_panic(info: &PanicHookInfo<'_>) -> bool {
    let catching = CATCHING.get();
    if catching {
        let place = info.location().map(|location| Arc::from(location.to_string()));
        PLACE.set(place);
    }
    catching
}

/// Installs the hook, once in the life of the process.
pub(crate) fn install_hook() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !note_kernel_panic(info) {
                previous(info);
            }
        }));
    });
}
