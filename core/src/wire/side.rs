//! What stands beside the bytes while a value is encoded or decoded: buffers, for code that serde calls and that gets nothing but a
//! serializer.
//!
//! They are with the PE, since code finds nothing else than that. Code of the user's may send messages while its value is encoded,
//! so each use takes the place of the one around it and puts that back.

use std::cell::{Cell, RefCell};

use chare_transport::Buffer;

use super::Encoder;
use crate::current;

/// Of one PE.
#[derive(Default)]
pub(crate) struct Crossing {
    outgoing: RefCell<Option<Vec<Buffer>>>,
    incoming: RefCell<Option<std::vec::IntoIter<Buffer>>>,
    /// Kept for its memory.
    encoder: Cell<Encoder>,
}

impl Crossing {
    pub(crate) fn take_encoder(&self) -> Encoder {
        self.encoder.take()
    }

    pub(crate) fn put_encoder(&self, mut encoder: Encoder) {
        encoder.clear();
        self.encoder.set(encoder);
    }
}

/// Puts `mine` in a place while `f` runs.
fn lend<T, R>(place: impl Fn(&Crossing) -> &RefCell<Option<T>>, mine: &mut T, f: impl FnOnce() -> R) -> R
where
    T: Default,
{
    struct Back<'a, T: Default>(&'a RefCell<Option<T>>, Option<T>, &'a mut T);
    impl<T: Default> Drop for Back<'_, T> {
        fn drop(&mut self) {
            *self.2 = self.0.replace(self.1.take()).unwrap_or_default();
        }
    }
    current::pe(|pe| match pe {
        Some(pe) => {
            let place = place(&pe.crossing);
            let around = place.replace(Some(std::mem::take(mine)));
            let _back = Back(place, around, mine);
            f()
        }
        None => f(),
    })
}

/// Lets code that `f` calls add buffers.
pub(super) fn with_outgoing<R>(buffers: &mut Vec<Buffer>, f: impl FnOnce() -> R) -> R {
    lend(|crossing| &crossing.outgoing, buffers, f)
}

/// Lets code that `f` calls take buffers.
pub(super) fn with_incoming<R>(buffers: &mut std::vec::IntoIter<Buffer>, f: impl FnOnce() -> R) -> R {
    lend(|crossing| &crossing.incoming, buffers, f)
}

/// Adds a buffer to the message that is being encoded; false if none is, or if it has so many.
pub(super) fn add_buffer(most: usize, buffer: impl FnOnce() -> Buffer) -> bool {
    current::pe(|pe| {
        let Some(pe) = pe else { return false };
        if pe.crossing.outgoing.borrow().as_ref().is_none_or(|buffers| buffers.len() >= most) {
            return false;
        }
        let buffer = buffer();
        if let Some(buffers) = &mut *pe.crossing.outgoing.borrow_mut() {
            buffers.push(buffer);
        }
        true
    })
}

/// Takes the next buffer of the message that is being decoded.
pub(super) fn take_buffer() -> Option<Buffer> {
    current::pe(|pe| pe?.crossing.incoming.borrow_mut().as_mut()?.next())
}

/// Whether a message is being encoded here.
pub(crate) fn is_encoding() -> bool {
    current::pe(|pe| pe.is_some_and(|pe| pe.crossing.outgoing.borrow().is_some()))
}

/// Whether a message is being decoded here.
pub(crate) fn is_decoding() -> bool {
    current::pe(|pe| pe.is_some_and(|pe| pe.crossing.incoming.borrow().is_some()))
}
