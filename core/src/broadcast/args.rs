//! The arguments of a broadcast, whose entry they alone know.
//!
//! Broadcasts are numbered, sent to all PEs, delivered and waited for by code that knows nothing of their entries, so it is compiled once.
//! What depends on the entry are a few functions, [`Copies`]. The arguments are those of a call that has no chare yet.

use std::marker::PhantomData;

use super::open_tracker;
use crate::cell::ChareRef;
use crate::entry::{self, Delivery, Entry, EntryInfo, Invoke};
use crate::ids::ChareId;
use crate::message::Msg;
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::table::Row;
use crate::wire::{self, Decoder, Encoder, Kind, Stays, WireError};

/// What broadcasts of one entry do with its arguments. The calls that they get are calls of that entry.
pub struct Copies {
    copy: fn(&Msg) -> Msg,
    deliver: fn(&Pe, ChareRef, &Msg, Reply),
    encode: fn(Msg, &Pe, &mut Encoder) -> Result<(), Stays>,
    open_tracker: fn(&Pe, u64, CellRef, bool) -> Option<CellRef>,
    entry: &'static EntryInfo,
}

struct CopiesOf<E>(PhantomData<E>);

impl<E: Entry<Args: Clone>> CopiesOf<E> {
    const TABLE: Copies = Copies {
        copy: |call| Msg::for_pe(Invoke::<E>(args_of::<E>(call).clone())),
        deliver: deliver_to::<E>,
        encode: |call, pe, to| {
            let Invoke(args) = call.into_payload::<Invoke<E>>(pe).expect("a call of the entry");
            to.put_code(E::code(), E::INFO.name)?;
            E::encode_args(args, to)
        },
        open_tracker: |pe, count, root, gather| open_tracker::<E::Output>(pe, count, root, gather, E::output),
        entry: E::INFO,
    };
}

fn args_of<E: Entry>(call: &Msg) -> &E::Args {
    let Invoke(args) = call.payload::<Invoke<E>>().expect("a call of the entry");
    args
}

fn deliver_to<E: Entry<Args: Clone>>(pe: &Pe, chare: ChareRef, call: &Msg, reply: Reply) {
    match entry::guarded(pe, chare.id, E::INFO, || args_of::<E>(call).clone()) {
        Ok(args) => {
            pe.note_call(E::INFO);
            Delivery::<E>::new(pe, chare, args, reply).arrive();
        }
        Err(error) => reply.refuse(pe, chare.id, error),
    }
}

impl Copies {
    pub(crate) const fn of<E: Entry<Args: Clone>>() -> &'static Copies {
        &CopiesOf::<E>::TABLE
    }

    /// Opens the cell that counts `count` outcomes on this PE; `None` if there are none to wait for, which is reported now.
    pub(super) fn open_tracker(&self, pe: &Pe, count: u64, root: CellRef, gather: bool) -> Option<CellRef> {
        (self.open_tracker)(pe, count, root, gather)
    }
}

/// The arguments of a broadcast.
pub(crate) struct Args {
    call: Msg,
    pub(super) copies: &'static Copies,
}

impl Args {
    pub(super) fn new<E: Entry<Args: Clone>>(args: E::Args) -> Self {
        Args { call: Msg::for_pe(Invoke::<E>(args)), copies: Copies::of::<E>() }
    }

    pub(super) fn entry(&self) -> &'static EntryInfo {
        self.copies.entry
    }

    pub(super) fn message(&self) -> &Msg {
        &self.call
    }

    /// Clones them.
    pub(super) fn copy(&self) -> Self {
        Args { call: (self.copies.copy)(&self.call), copies: self.copies }
    }

    /// A copy for one element; refused already, by the error of the call, if it cannot be cloned.
    pub(super) fn copy_for(&self, pe: &Pe, id: ChareId, reply: Reply) -> Option<(Msg, Reply)> {
        match entry::guarded(pe, id, self.entry(), || self.copy()) {
            Ok(copy) => Some((copy.call, reply)),
            Err(error) => {
                reply.refuse(pe, id, error);
                None
            }
        }
    }

    /// Calls the entry on an idle chare with a copy.
    #[inline]
    pub(super) fn deliver_to(&self, pe: &Pe, chare: ChareRef, reply: Reply) {
        (self.copies.deliver)(pe, chare, &self.call, reply);
    }

    /// The call itself.
    pub(super) fn into_call(self) -> Msg {
        self.call
    }

    /// Encodes them behind the number of their entry.
    pub(super) fn encode(self, pe: &Pe, to: &mut Encoder) -> Result<(), Stays> {
        (self.copies.encode)(self.call, pe, to)
    }

    pub(super) fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        Args::decode_of(wire::take_row(from)?, from)
    }

    /// Those of a known entry.
    pub(crate) fn decode_of(row: &'static Row, from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let copies =
            row.copies().ok_or_else(|| WireError::new(format!("there are no broadcasts of {}", row.name)))?;
        Ok(Args { call: row.decode(Kind::Call, Msg::NOBODY, from)?, copies })
    }
}
