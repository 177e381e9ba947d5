//! Panics of user code, caught: what they said, where, and what becomes of the value that they carry.
//!
//! Invariant: catching a panic never panics. The payload is a value of the user's whose destructor may panic as well, so
//! it is taken apart here and dropped nowhere else.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, Location, catch_unwind, resume_unwind};
use std::sync::Once;

use crate::current;
use crate::report::Reason;
use crate::scheduler::pe::Pe;

/// What a caught panic carries.
pub(crate) type PanicPayload = Box<dyn Any + Send>;

/// Where the source of this crate is, as panics name it. What panics there is ours; a mistake of a caller's is at the
/// caller's own place (`#[track_caller]`, [`blame_caller`]).
const OWN_SOURCE: &str = file!().split_at(file!().len() - "caught.rs".len()).0;

/// What a panic said, and where; its place comes from the hook that saw it.
pub(crate) struct Caught {
    pub(crate) message: String,
    pub(crate) location: String,
}

impl Caught {
    /// Takes apart what a panic on this PE carries.
    #[cold]
    pub(crate) fn new(pe: &Pe, panic: PanicPayload) -> Self {
        let location = pe.take_panic_location();
        Caught { message: text(panic), location }
    }

    /// As `new`, of a panic that goes on.
    #[cold]
    pub(crate) fn look(pe: &Pe, panic: &PanicPayload) -> Self {
        let location = pe.take_panic_location();
        pe.note_panic(location.clone());
        Caught { message: said(panic), location }
    }

    /// Whether it is a bug of ours.
    pub(crate) fn is_ours(&self) -> bool {
        self.location.starts_with(OWN_SOURCE)
    }
}

impl fmt::Display for Caught {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "panic at {}: {}", self.location, self.message)
    }
}

/// Calls `f`, and catches its panic.
pub(crate) fn catch<R>(pe: &Pe, f: impl FnOnce() -> R) -> Result<R, Caught> {
    catch_unwind(AssertUnwindSafe(f)).map_err(|panic| Caught::new(pe, panic))
}

/// What a panic said.
#[cold]
pub(crate) fn text(panic: PanicPayload) -> String {
    let text = said(&panic);
    dispose(panic);
    text
}

fn said(panic: &PanicPayload) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("a value that is no text").to_owned()
}

/// Drops what a panic carries. If that panics too, what the second panic carries is not looked at any further: the
/// thread must go on.
#[cold]
pub(crate) fn dispose(panic: PanicPayload) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(another);
    }
}

/// Panics at the caller's place if the caller has made a mistake.
#[inline]
#[track_caller]
pub(crate) fn blame_caller<R>(outcome: Result<R, impl fmt::Display>) -> R {
    match outcome {
        Ok(value) => value,
        Err(mistake) => panic!("{mistake}"),
    }
}

impl Pe {
    /// Panics at a place of the user's that is known, where code of ours is polled. The running method catches it.
    #[cold]
    pub(crate) fn panic_at(&self, at: &Location<'_>, text: String) -> ! {
        self.note_panic(at.to_string());
        resume_unwind(Box::new(text))
    }

    /// A panic of user code that belongs to no method ends the run, or spoils its good end.
    #[cold]
    pub(crate) fn tell(&self, panic: &Caught) {
        let is_ending = self.shared().is_stopping();
        let reason = if panic.is_ours() {
            Reason::Internal(format!("PE {}: {panic}", self.id()))
        } else if is_ending {
            Reason::Aborted(format!("a destructor at the end of the run: {panic}"))
        } else {
            Reason::Aborted(format!("outside of any method, as in a destructor: {panic}"))
        };
        if is_ending { self.shared().spoil(reason) } else { self.shared().stop(reason) }
    }

    /// Runs code of the user's that belongs to no method: destructors. A panic in it is told.
    pub(crate) fn guard(&self, f: impl FnOnce()) {
        if let Err(panic) = catch(self, f) {
            self.tell(&panic);
        }
    }

    /// Drops values of the user's one by one, each guarded: two panics in the destructor of one container would end the
    /// process.
    pub(crate) fn drop_each<T>(&self, values: impl IntoIterator<Item = T>) {
        values.into_iter().for_each(|value| self.guard(|| drop(value)));
    }
}

/// Installs, once per process, a panic hook that keeps the place of a panic on a PE for the report. Other panics go to
/// the hook that was there before.
pub(crate) fn note_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // It becomes a fault, with its place, or is told by who has called the code.
            if chare_device::note_kernel_panic(info) || current::is_silent() {
                return;
            }
            let noted = current::pe(|pe| match (pe, info.location()) {
                (Some(pe), Some(location)) => {
                    pe.note_panic(location.to_string());
                    true
                }
                _ => false,
            });
            if !noted {
                previous(info);
            }
        }));
    });
}
