//! What stands beside the bytes while a value is encoded or decoded: buffers, for code that serde calls and that gets nothing but a
//! serializer.
//!
//! They are with the PE, since code finds nothing else than that. Code of the user's may send messages while its value is encoded, so each
//! use takes the place of the one around it and puts that back. Most values have no buffers: then nothing is moved.

use std::cell::{Cell, RefCell};

use serde::ser::Error;

use super::exports::Copied;
use super::{Beside, Encoder, Stays};
use crate::current;
use crate::ids::RunId;
use crate::job::Staged;
use crate::scheduler::pe::Pe;

/// Of one PE.
#[derive(Default)]
pub(crate) struct Crossing {
    encodes: Cell<Encodes>,
    /// What values that are being encoded have added, the innermost last.
    added: RefCell<Vec<Beside>>,
    /// How many buffers the message that is being encoded has besides its last ones in `added`, of which so many belong to others.
    before: Cell<(usize, usize)>,
    decodes: Cell<Decodes>,
    /// The value that is being decoded is one of ours.
    is_ours: Cell<bool>,
    incoming: RefCell<Option<std::vec::IntoIter<Beside>>>,
    /// Kept for its memory.
    encoder: Cell<Option<Box<Encoder>>>,
    /// Why the value that is being encoded cannot leave: postcard keeps no text of an error. Each value begins without one: one before it
    /// may have been refused in code of the user's that went on all the same.
    refusal: Cell<Option<Stays>>,
    /// Promises of which an end was copied into what is being encoded, the innermost last.
    copied: RefCell<Vec<Copied>>,
    /// What waits for its device memory before it leaves.
    pub(crate) staged: Staged,
    /// A message has left for another process since the network was looked at last.
    pub(crate) has_sent: Cell<bool>,
    /// When a busy PE began to look at the network for what it had sent; 0 if it does not.
    pub(crate) look_ns: Cell<u64>,
    /// When it may do so again.
    pub(crate) next_look_ns: Cell<u64>,
}

/// Whether a value is being encoded.
#[derive(Clone, Copy, Default, PartialEq)]
enum Encodes {
    #[default]
    Nothing,
    Message,
    /// It is not, but the buffers are counted that it would have: so many.
    Count(usize),
}

/// Whether a value is being decoded.
#[derive(Clone, Copy, Default, PartialEq)]
enum Decodes {
    #[default]
    Nothing,
    /// One that no buffer stands beside.
    Alone,
    WithBuffers,
}

impl Crossing {
    #[inline]
    pub(crate) fn take_encoder(&self) -> Box<Encoder> {
        self.encoder.take().unwrap_or_default()
    }

    /// Calls `f`, which lets no panic out, and brings the promises of which it has encoded ends as well.
    pub(super) fn noting_promises<R>(&self, f: impl FnOnce() -> R) -> (R, Vec<Copied>) {
        let first = self.noted_promises();
        let result = f();
        (result, self.take_promises(first))
    }

    /// How many promises stand in what is being encoded.
    #[inline]
    pub(super) fn noted_promises(&self) -> usize {
        self.copied.borrow().len()
    }

    /// Those behind the first ones, which are noted no longer.
    pub(super) fn take_promises(&self, first: usize) -> Vec<Copied> {
        let mut copied = self.copied.borrow_mut();
        if copied.len() > first { copied.split_off(first) } else { Vec::new() }
    }

    /// Ends of these were encoded.
    pub(super) fn note_promises(&self, promises: impl IntoIterator<Item = Copied>) {
        self.copied.borrow_mut().extend(promises);
    }

    #[inline(always)]
    pub(crate) fn put_encoder(&self, mut encoder: Box<Encoder>) {
        encoder.clear();
        self.encoder.set(Some(encoder));
    }
}

/// Puts back what was there when it is dropped.
struct Back<'a, T: Default>(&'a Cell<T>, T);

impl<'a, T: Default> Back<'a, T> {
    fn set(place: &'a Cell<T>, value: T) -> Self {
        Back(place, place.replace(value))
    }
}

impl<T: Default> Drop for Back<'_, T> {
    fn drop(&mut self) {
        self.0.set(std::mem::take(&mut self.1));
    }
}

/// Lets code that `f` calls add buffers, and say why it refuses: `f` asks for that itself.
pub(super) fn with_outgoing<R>(buffers: &mut Vec<Beside>, f: impl FnOnce() -> R) -> R {
    /// Takes what was added from a place on.
    struct Added<'a>(&'a Crossing, usize, &'a mut Vec<Beside>);
    impl Drop for Added<'_> {
        fn drop(&mut self) {
            let mut added = self.0.added.borrow_mut();
            if added.len() > self.1 {
                self.2.extend(added.drain(self.1..));
            }
        }
    }
    current::pe(|pe| {
        let Some(crossing) = pe.map(|pe| &pe.crossing) else { return f() };
        let first = crossing.added.borrow().len();
        let _before = Back::set(&crossing.before, (buffers.len(), first));
        let _encodes = Back::set(&crossing.encodes, Encodes::Message);
        let _refusal = Back::set(&crossing.refusal, None);
        let _added = Added(crossing, first, buffers);
        f()
    })
}

/// Counts the buffers that code which `f` calls would add.
pub(super) fn counting<R>(f: impl FnOnce() -> R) -> (R, usize) {
    current::pe(|pe| {
        let Some(Crossing { encodes, refusal, .. }) = pe.map(|pe| &pe.crossing) else { return (f(), 0) };
        let _encodes = Back::set(encodes, Encodes::Count(0));
        // Who encodes it learns it again.
        let _refusal = Back::set(refusal, None);
        let result = f();
        let Encodes::Count(count) = encodes.get() else { unreachable!("who changes it puts it back") };
        (result, count)
    })
}

/// Lets code that `f` calls take buffers, for a value of ours or of the user's.
pub(super) fn with_incoming<R>(
    buffers: &mut std::vec::IntoIter<Beside>,
    is_ours: bool,
    f: impl FnOnce() -> R,
) -> R {
    /// Gives the rest back, and puts back what was there.
    struct Lent<'a>(&'a Crossing, Option<std::vec::IntoIter<Beside>>, &'a mut std::vec::IntoIter<Beside>);
    impl Drop for Lent<'_> {
        fn drop(&mut self) {
            *self.2 = self.0.incoming.replace(self.1.take()).unwrap_or_default();
        }
    }
    current::pe(|pe| {
        let Some(crossing) = pe.map(|pe| &pe.crossing) else { return f() };
        let _is_ours = Back::set(&crossing.is_ours, is_ours);
        if buffers.len() == 0 {
            let _decodes = Back::set(&crossing.decodes, Decodes::Alone);
            return f();
        }
        let _decodes = Back::set(&crossing.decodes, Decodes::WithBuffers);
        let around = crossing.incoming.replace(Some(std::mem::take(buffers)));
        let _lent = Lent(crossing, around, buffers);
        f()
    })
}

/// Adds a buffer to the message that is being encoded; false if none is, or if it has so many. Where they are counted none is too many.
pub(super) fn add_buffer(most: usize, buffer: impl FnOnce() -> Beside) -> bool {
    current::pe(|pe| {
        let Some(crossing) = pe.map(|pe| &pe.crossing) else { return false };
        match crossing.encodes.get() {
            Encodes::Nothing => return false,
            Encodes::Message => {}
            Encodes::Count(count) => {
                crossing.encodes.set(Encodes::Count(count + 1));
                return true;
            }
        }
        let (own, others) = crossing.before.get();
        if own + crossing.added.borrow().len() - others >= most {
            return false;
        }
        let buffer = buffer();
        crossing.added.borrow_mut().push(buffer);
        true
    })
}

/// Takes the next buffer of the message that is being decoded.
pub(super) fn take_buffer() -> Option<Beside> {
    current::pe(|pe| {
        let crossing = &pe?.crossing;
        if crossing.decodes.get() != Decodes::WithBuffers {
            return None;
        }
        crossing.incoming.borrow_mut().as_mut()?.next()
    })
}

/// Whether a message is being encoded here, or counted what that would take.
pub(crate) fn is_encoding() -> bool {
    encoding_run().is_some()
}

/// The run whose message that is.
pub(super) fn encoding_run() -> Option<RunId> {
    current::pe(|pe| pe.filter(|pe| pe.crossing.encodes.get() != Encodes::Nothing).map(Pe::run))
}

/// The error of a value that cannot leave, for its serializer and for who has asked that.
#[cold]
pub(super) fn refuse<E: Error>(why: Stays) -> E {
    let error = E::custom(&why);
    current::pe(|pe| pe.into_iter().for_each(|pe| pe.crossing.refusal.set(Some(why.clone()))));
    error
}

/// Why a value has just been refused, if it was one of ours in it.
#[cold]
pub(super) fn take_refusal() -> Option<Stays> {
    current::pe(|pe| pe?.crossing.refusal.take())
}

/// Whether buffers are only counted.
pub(super) fn is_counting() -> bool {
    current::pe(|pe| pe.is_some_and(|pe| matches!(pe.crossing.encodes.get(), Encodes::Count(_))))
}

/// Whether a value of ours is being decoded here.
pub(super) fn is_decoding_ours() -> bool {
    current::pe(|pe| pe.is_some_and(|pe| pe.crossing.is_ours.get()))
}

/// Whether a message is being decoded here.
pub(crate) fn is_decoding() -> bool {
    current::pe(|pe| pe.is_some_and(|pe| pe.crossing.decodes.get() != Decodes::Nothing))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use serde::{Serialize, Serializer};

    use super::*;
    use crate::wire::count_buffers;
    use crate::{Options, Runtime};

    /// Values that are refused, each in its way.
    enum Refused {
        /// For no reason of ours.
        Plainly,
        /// And then not.
        AfterAll,
        AndPanics,
        /// While it is, others are encoded.
        Around,
    }

    impl Serialize for Refused {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if let Refused::Plainly = self {
                return Err(S::Error::custom("of its own"));
            }
            let error = refuse::<S::Error>(Stays::new("a reason of ours"));
            match self {
                Refused::AfterAll => return serializer.serialize_unit(),
                Refused::AndPanics => panic!("on purpose"),
                Refused::Plainly | Refused::Around => {}
            }
            assert!(put(&Refused::AfterAll).is_ok() && !is_told(&Refused::Plainly));
            assert_eq!(
                (count_buffers(&Refused::AfterAll), count_buffers(&Refused::Plainly)),
                (Some(0), None)
            );
            Err(error)
        }
    }

    fn put(value: &Refused) -> Result<(), Stays> {
        Encoder::default().put(value)
    }

    /// Whether it is refused with the reason of ours.
    fn is_told(value: &Refused) -> bool {
        put(value).expect_err("it is refused").to_string().contains("a reason of ours")
    }

    #[test]
    fn a_value_is_refused_for_its_own_reason() {
        let report = Runtime::run(Options::default(), async |_: Runtime| {
            assert!(!is_told(&Refused::Plainly) && is_told(&Refused::Around));
            assert!(put(&Refused::AfterAll).is_ok() && !is_told(&Refused::Plainly));
            assert!(count_buffers(&Refused::AfterAll).is_some() && !is_told(&Refused::Plainly));
            let panics = catch_unwind(AssertUnwindSafe(|| put(&Refused::AndPanics)));
            assert!(panics.is_err() && !is_told(&Refused::Plainly));
        });
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{report}");
    }
}
