//! The kinds of messages that cross processes, and how each is told from its bytes.
//!
//! A message is its kind, the chare that it is for (unless it is for a PE), its contents and its reply. The contents of what belongs to an
//! entry or to a type of chare begin with the id of that code in the table of the program, where the function stands that decodes the
//! rest. What belongs to a value alone is decoded where somebody waits for the value, who knows its type.

use serde::{Deserialize, Serialize};

use super::exports::{Fail, Fulfil, Release, Retain};
use super::{Codec, Decoder, Encoder, MOST_DEPTH, Stays, WireError};
use crate::answer::EncodedAnswer;
use crate::bound::{AllPlaced, Follow, Orphaned, Placed};
use crate::broadcast::{Apply, Late, Number, Relayed, Turn};
use crate::channel::{Credit, EncodedCarry, Loss};
use crate::chares::{ArrayElement, Chare, Standalone};
use crate::collection::{Create, CreateSingle, Start};
use crate::destruction::{self, Destroy, Gone};
use crate::entry::{Entry, Invoke};
use crate::ids::ChareId;
use crate::index::DenseIndex;
use crate::insertion::{Arrange, Behind, Build, Register, Seal, Sealed, Settle};
use crate::location::{Asked, Doubt, Forget, News, Tell};
use crate::message::{Msg, Payload};
use crate::migration::across::{self, Companion};
use crate::migration::{Again, Arrive, Arrived, Migrate};
use crate::priority::Ranked;
use crate::quiescence::{AwaitQuiescence, Withdraw};
use crate::reduction::{Ascent, EncodedOutcome, Forwarded};
use crate::reply::{Refusal, Reply, Waiver};
use crate::restart::Restart;
use crate::stillborn::Uncreated;
use crate::table::{CodeId, Row};

/// The message is for a PE, and names no chare.
const FOR_PE: u8 = 0x80;

/// How a kind of message leaves its process.
pub(crate) enum Leaves<P> {
    /// It is only ever for a PE of its own process.
    Never,
    /// As a message of this kind. The function encodes its contents.
    As(Kind, fn(P, &mut Encoder) -> Result<(), Unsent>),
}

impl<P: Serialize> Leaves<P> {
    /// By its fields, which are ours.
    pub(crate) const fn plainly(kind: Kind) -> Self {
        Leaves::As(kind, |contents, to| {
            to.put_own(&contents);
            Ok(())
        })
    }
}

/// Why a message was not encoded.
pub(crate) enum Unsent {
    /// It holds what cannot leave the process.
    Stays(Stays),
    /// So does a message inside of it, whose sender has been told.
    Told,
}

impl From<Stays> for Unsent {
    fn from(stays: Stays) -> Self {
        Unsent::Stays(stays)
    }
}

/// Contents that can be read from their bytes alone.
pub(crate) trait Arrives: Payload {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError>;
}

macro_rules! kinds {
    (
        entries { $($entry:ident)* }
        chares { $($chare:ident)* }
        plain { $($plain:ident: $plain_type:ty,)* }
        others { $($other:ident: $other_type:ty,)* }
    ) => {
        /// What a message is. The numbers are part of the protocol: all processes run the same build.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        #[repr(u8)]
        #[allow(missing_docs)]
        pub enum Kind {
            $($entry,)*
            $($chare,)*
            $($plain,)*
            $($other,)*
        }

        impl Kind {
            const ALL: &[Kind] = &[$(Kind::$entry,)* $(Kind::$chare,)* $(Kind::$plain,)* $(Kind::$other,)*];

            /// Whether its contents begin with the id of code.
            pub(super) fn begins_with_code(self) -> bool {
                matches!(self, $(Kind::$entry)|* | $(Kind::$chare)|*)
            }
        }

        fn decode_contents(kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
            match kind {
                $(Kind::$entry)|* | $(Kind::$chare)|* => decode_by_code(kind, to, from),
                $(Kind::$plain => decode_plain::<$plain_type>(to, from),)*
                $(Kind::$other => {
                    let contents = <$other_type as Arrives>::decode(from)?;
                    Ok(Msg::new(to, reply(to, from)?, contents))
                })*
            }
        }
    };
}

kinds! {
    entries { Call Guarded Restart }
    chares { Create CreateSingle Start Follow Register Arrange Build Arrive Companion }
    plain {
        Waiver: Waiver,
        News: News,
        Tell: Tell,
        Settle: Settle,
        Seal: Seal,
        Sealed: Sealed,
        Destroy: Destroy,
        Leave: destruction::Leave,
        Migrate: Migrate,
        Again: Again,
        Placed: Placed,
        AllPlaced: AllPlaced,
        AwaitQuiescence: AwaitQuiescence,
        Withdraw: Withdraw,
        Forget: Forget,
        Retain: Retain,
        Release: Release,
    }
    others {
        Arrived: Arrived,
        Answer: EncodedAnswer,
        Refusal: Refusal,
        Gone: Gone,
        Orphaned: Orphaned,
        Ranked: Ranked,
        Doubt: Doubt,
        Asked: Asked,
        Behind: Behind,
        Fulfil: Fulfil,
        Fail: Fail,
        Value: EncodedCarry,
        Credit: Credit,
        Loss: Loss,
        Ascent: Ascent,
        Outcome: EncodedOutcome,
        Forwarded: Forwarded,
        Number: Number,
        Apply: Apply,
        Turn: Turn,
        Late: Late,
        Relayed: Relayed,
        Uncreated: Uncreated,
    }
}

/// What begins with the id of its code.
pub(crate) fn decode_by_code(kind: Kind, to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
    take_row(from)?.decode(kind, to, from)
}

/// The code whose name [`Encoder::put_code`] has put.
#[inline(always)]
pub(crate) fn take_row(from: &mut Decoder<'_>) -> Result<&'static Row, WireError> {
    Row::find(from.take_code_id()?)
}

fn decode_plain<P: Payload + Deserialize<'static>>(
    to: ChareId,
    from: &mut Decoder<'_>,
) -> Result<Msg, WireError> {
    let contents: P = from.take()?;
    Ok(Msg::new(to, reply(to, from)?, contents))
}

impl Decoder<'_> {
    /// The beginning of a message.
    #[inline]
    pub(super) fn take_begin(&mut self) -> Result<(Kind, ChareId), WireError> {
        let first = self.take_byte()?;
        let kind = kind(first)?;
        let to = if first & FOR_PE == 0 { self.take_chare()? } else { Msg::NOBODY };
        Ok((kind, to))
    }
}

impl Encoder {
    /// Begins a message.
    #[inline]
    pub(crate) fn begin(&mut self, kind: Kind, to: Option<ChareId>) {
        match to {
            Some(to) => self.put_byte_and_chare(kind as u8, to),
            None => self.put_byte(kind as u8 | FOR_PE),
        }
    }

    /// Adds the name of code, by which its decoder is found.
    #[inline]
    pub(crate) fn put_code(&mut self, code: Option<CodeId>, what: &str) -> Result<(), Stays> {
        self.put_code_id(code.ok_or_else(|| numberless(what))?);
        Ok(())
    }
}

#[cold]
fn numberless(what: &str) -> Stays {
    Stays::new(format!(
        "{what} has no number in the table of the program, so it is not known in other processes: list the types of a generic \
         chare, `#[chare(types = [..])]`"
    ))
}

/// The reply of a message; one for a PE has none.
fn reply(to: ChareId, from: &mut Decoder<'_>) -> Result<Reply, WireError> {
    if to == Msg::NOBODY { Ok(Reply::none_from(from)) } else { Reply::decode(from) }
}

#[inline]
fn kind(first: u8) -> Result<Kind, WireError> {
    Kind::ALL.get(usize::from(first & !FOR_PE)).copied().ok_or_else(|| unknown(first))
}

#[cold]
fn unknown(first: u8) -> WireError {
    WireError::new(format!("there is no kind {} of messages", first & !FOR_PE))
}

/// A message from its bytes.
pub(crate) fn decode_message(from: &mut Decoder<'_>) -> Result<Msg, WireError> {
    let (kind, to) = from.take_begin()?;
    from.depth += 1;
    if from.depth > MOST_DEPTH {
        return Err(WireError::new("too many messages inside of one another"));
    }
    // Most are calls.
    let msg = match kind {
        Kind::Call => take_row(from)?.decode(kind, to, from)?,
        _ => decode_contents(kind, to, from)?,
    };
    from.depth -= 1;
    Ok(msg)
}

impl<E: Entry> Invoke<E> {
    #[inline]
    pub(crate) fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        to.put_code(E::code(), E::INFO.name)?;
        Ok(E::encode_args(self.0, to)?)
    }
}

/// The call of an entry.
pub(crate) fn decode_call_of<E: Entry>(
    kind: Kind,
    to: ChareId,
    from: &mut Decoder<'_>,
) -> Result<Msg, WireError> {
    let is_restart = E::IS_RESTARTABLE && kind == Kind::Restart;
    if kind != Kind::Call && !is_restart {
        return Err(misplaced(kind, E::INFO.name));
    }
    let args = E::decode_args(from)?;
    let reply = reply_of_call(to, from, E::output())?;
    // Compiled only for what can be started again.
    if const { E::IS_RESTARTABLE } && is_restart {
        return Ok(Msg::new(to, reply, Restart::<E>(args)));
    }
    Ok(Msg::new(to, reply, Invoke::<E>(args)))
}

/// The reply of a call, which one inside of another message has not.
#[inline(always)]
pub(crate) fn reply_of_call<R: Send + 'static>(
    to: ChareId,
    from: &mut Decoder<'_>,
    output: &'static Codec<R>,
) -> Result<Reply, WireError> {
    if to == Msg::NOBODY { Ok(Reply::none()) } else { Reply::decode_by(from, output) }
}

/// A call inside of another message, for no chare yet.
pub(crate) fn decode_call(from: &mut Decoder<'_>) -> Result<Msg, WireError> {
    if from.take_byte()? != Kind::Call as u8 | FOR_PE {
        return Err(WireError::new("a broadcast brings calls only"));
    }
    take_row(from)?.decode(Kind::Call, Msg::NOBODY, from)
}

/// What makes single chares, and moves them.
pub(super) fn decode_single<C: Standalone>(
    kind: Kind,
    to: ChareId,
    from: &mut Decoder<'_>,
) -> Result<Msg, WireError> {
    match kind {
        Kind::CreateSingle => with_reply(to, from, |from| Ok(CreateSingle::<C>(C::decode_init(from)?))),
        Kind::Arrive => decode_arrival::<C>(to, from),
        _ => Err(misplaced(kind, C::INFO.name)),
    }
}

/// What makes single chares and groups.
pub(super) fn decode_group<C: Standalone<Init: Clone>>(
    kind: Kind,
    to: ChareId,
    from: &mut Decoder<'_>,
) -> Result<Msg, WireError> {
    match kind {
        Kind::Create => with_reply(to, from, Create::<C>::decode),
        _ => decode_single::<C>(kind, to, from),
    }
}

/// What makes elements of sparse arrays one by one, and moves elements of all arrays.
pub(super) fn decode_inserted<C: ArrayElement>(
    kind: Kind,
    to: ChareId,
    from: &mut Decoder<'_>,
) -> Result<Msg, WireError> {
    match kind {
        Kind::Start => with_reply(to, from, Start::decode::<C>),
        Kind::Register => with_reply(to, from, Register::<C>::decode),
        Kind::Arrange => with_reply(to, from, Arrange::<C>::decode),
        Kind::Build => with_reply(to, from, Build::<C>::decode),
        Kind::Arrive => decode_arrival::<C>(to, from),
        Kind::Companion => Ok(Msg::new(to, Reply::none(), Companion::decode::<C>(to, from)?)),
        _ => Err(misplaced(kind, C::INFO.name)),
    }
}

/// What makes sparse arrays.
pub(super) fn decode_sparse<C: ArrayElement<Init: Clone>>(
    kind: Kind,
    to: ChareId,
    from: &mut Decoder<'_>,
) -> Result<Msg, WireError> {
    match kind {
        Kind::Create => with_reply(to, from, Create::<C>::decode_sparse),
        _ => decode_inserted::<C>(kind, to, from),
    }
}

/// What makes dense and sparse arrays.
pub(super) fn decode_dense<C: ArrayElement<Init: Clone, Index: DenseIndex>>(
    kind: Kind,
    to: ChareId,
    from: &mut Decoder<'_>,
) -> Result<Msg, WireError> {
    match kind {
        Kind::Create => with_reply(to, from, Create::<C>::decode),
        Kind::Follow => with_reply(to, from, Follow::<C>::decode),
        _ => decode_inserted::<C>(kind, to, from),
    }
}

/// A chare that has moved, and those that are bound to it.
fn decode_arrival<C: Chare>(to: ChareId, from: &mut Decoder<'_>) -> Result<Msg, WireError> {
    with_reply(to, from, |from| Arrive::decode(to, from, across::decode_state::<C>))
}

fn with_reply<P: Payload>(
    to: ChareId,
    from: &mut Decoder<'_>,
    contents: impl FnOnce(&mut Decoder<'_>) -> Result<P, WireError>,
) -> Result<Msg, WireError> {
    let contents = contents(from)?;
    Ok(Msg::new(to, reply(to, from)?, contents))
}

pub(crate) fn misplaced(kind: Kind, name: &str) -> WireError {
    WireError::new(format!("{name} has no messages of the kind {kind:?}"))
}
