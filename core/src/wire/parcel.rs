//! What is encoded before it is sent: so that what cannot leave is refused while nothing has been numbered or noted for it.

use super::exports::Copied;
use super::{Encoder, Stays};
use crate::caught;
use crate::current;
use crate::ids::PeId;
use crate::scheduler::pe::Pe;

/// Contents of a message on their way to a PE.
pub(crate) enum Parcel<T> {
    Here(T),
    Encoded(Packed),
}

/// What is encoded for a PE of another process, or for all of them. If it is dropped, the ends of promises in it are given back.
pub(crate) struct Packed {
    encoder: Encoder,
    /// Those of which there are ends in it.
    promises: Vec<Copied>,
    /// How many PEs it is for.
    pes: usize,
}

impl<T> Parcel<T> {
    /// Of what goes to this PE; `encode` is asked if that is in another process.
    pub(crate) fn new(
        pe: &Pe,
        to: PeId,
        contents: T,
        encode: impl FnOnce(T, &mut Encoder) -> Result<(), Stays>,
    ) -> Result<Self, Stays> {
        if pe.is_near(to) { Ok(Parcel::Here(contents)) } else { Parcel::encoded(pe, 1, contents, encode) }
    }

    /// Of what goes to so many PEs of other processes.
    pub(crate) fn encoded(
        pe: &Pe,
        pes: usize,
        contents: T,
        encode: impl FnOnce(T, &mut Encoder) -> Result<(), Stays>,
    ) -> Result<Self, Stays> {
        let mut encoder = Encoder::default();
        let promises = pe.encode_for(pes, || {
            // Serialisation is code of the user's.
            let encoded = caught::catch(pe, || encode(contents, &mut encoder));
            encoded.unwrap_or_else(|panic| Err(Stays::new(panic.to_string())))
        })?;
        Ok(Parcel::Encoded(Packed { encoder, promises, pes }))
    }

    /// The contents, in the process that they are for.
    pub(crate) fn into_contents(self) -> T {
        match self {
            Parcel::Here(contents) => contents,
            Parcel::Encoded(_) => unreachable!("what is encoded is for another process"),
        }
    }

    /// Adds what was encoded.
    pub(crate) fn leave(self, to: &mut Encoder) {
        match self {
            Parcel::Encoded(packed) => packed.leave(to),
            Parcel::Here(_) => unreachable!("what is for another process is encoded"),
        }
    }
}

impl Packed {
    /// Adds it.
    pub(crate) fn leave(mut self, to: &mut Encoder) {
        self.promises.clear();
        to.append(std::mem::take(&mut self.encoder));
    }
}

impl Drop for Packed {
    fn drop(&mut self) {
        if !self.promises.is_empty() {
            current::pe(|pe| {
                let give_back = |pe: &Pe| (0..self.pes).for_each(|_| pe.take_back_promises(&self.promises));
                pe.into_iter().for_each(give_back);
            });
        }
    }
}
