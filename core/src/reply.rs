//! Where the outcome of a method goes.
//!
//! A [`Reply`] is the obligation to answer exactly once; dropping it breaks the promise. What waits for the answer is a cell
//! ([`crate::answer`]) or a callback.

use std::any::Any;
use std::mem;

use chare_transport::Rank;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::callback::Callback;
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, PeId, RunId};
#[cfg(all(test, not(loom)))]
use crate::location::Trail;
use crate::message::{Msg, Name, Payload};
use crate::scheduler::pe::Pe;
use crate::scheduler::waker;
use crate::wire::{Arrives, Codec, Decoder, Encoder, Kind, Leaves, Stays, Unsent, WireError};

/// A cell, from anywhere: its run, its PE, and `generation << 32 | slot` there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub(crate) struct CellRef {
    /// Numbers of runs are those of one process: it gets that of the run that decodes it.
    #[serde(skip, default = "current::run_or_none")]
    pub(crate) run: RunId,
    pub(crate) pe: PeId,
    pub(crate) key: u64,
}

impl CellRef {
    /// A cell of `pe`.
    #[inline]
    pub(crate) fn new(pe: &Pe, key: u64) -> Self {
        CellRef { run: pe.run(), pe: pe.id(), key }
    }

    /// Whether it is in the tables of this PE.
    #[inline]
    pub(crate) fn is_of(self, pe: &Pe) -> bool {
        pe.id() == self.pe && pe.run() == self.run
    }

    /// Sends a message to the cell's PE from any thread, whatever runtime it has entered. Dropped if the run has ended.
    pub(crate) fn post(self, msg: Msg) {
        current::post_to_run(self.run, self.pe, msg);
    }

    /// Nobody waits any more for an error that was for this cell's future. From any thread.
    #[cold]
    pub(crate) fn unawaited(self, error: CallError) {
        if let Some(shared) = waker::find_run(self.run) {
            shared.unawaited_at(self.pe, error);
        }
    }
}

/// The element number of an error that comes from no element that is known: such errors are gathered last.
pub(crate) const UNKNOWN: u64 = u64::MAX;

/// Where the outcome of a method goes. It stays in its run; 16 bytes, since every message has one.
pub struct Reply {
    to: To,
    /// The way of the message that this belongs to.
    #[cfg(all(test, not(loom)))]
    pub(crate) trail: Trail,
}

const _: () = assert!(size_of::<To>() == 16 && (cfg!(test) || size_of::<Reply>() == 16));

enum To {
    /// Nobody waits: an error ends the job. The PE that has sent the message, if it has left that PE.
    Nobody(Sender),
    /// To a cell of this run.
    Cell { pe: PeId, key: u64 },
    /// To a cell of this run that counts what becomes of a broadcast, element by element.
    Tracker { pe: PeId, key: u64 },
    /// To a callback, which is a `Callback` of the entry's own output type.
    Callback(Box<ErasedCallback>),
}

/// A PE or none, in all the bytes that a reply has besides the number of its variant: what is written in one piece can be
/// copied in one piece at once. A processor that finds only a part of what it copies among its last writes waits for them.
#[derive(Clone, Copy)]
struct Sender {
    /// Nothing, a PE or a rank.
    knows: u32,
    /// The PE. Of what came from another process, which does not say which PE it was, the number of its rank.
    pe: PeId,
    /// The message is one of a broadcast.
    of_broadcast: u32,
}

impl Sender {
    const NONE: Sender = Sender { knows: Sender::NOTHING, pe: PeId::new(0), of_broadcast: 0 };
    const NOTHING: u32 = 0;
    const PE: u32 = 1;
    const RANK: u32 = 2;

    /// What came from this process, or perhaps from another one.
    fn of(from: Option<Rank>, of_broadcast: u32) -> Self {
        let (knows, number) = from.map_or((Sender::NOTHING, 0), |rank| (Sender::RANK, rank.index()));
        Sender { knows, pe: PeId::new(number), of_broadcast }
    }

    fn get(self) -> Option<PeId> {
        (self.knows == Sender::PE).then_some(self.pe)
    }
}

/// A callback whose type the entry knows.
pub(crate) struct ErasedCallback {
    callback: Box<dyn AnyCallback>,
    /// Who has sent the message. The callback may be for any PE.
    from: Sender,
}

trait AnyCallback: Send {
    /// A `Callback` of the entry's output.
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn fail(self: Box<Self>, error: CallError);
    fn encode(self: Box<Self>, to: &mut Encoder) -> Result<(), Stays>;
}

/// A callback, and how its values leave their process.
struct CallbackBy<R: 'static>(Callback<R>, &'static Codec<R>);

impl<R: Send + 'static> AnyCallback for CallbackBy<R> {
    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        Box::new(self.0)
    }
    fn fail(self: Box<Self>, error: CallError) {
        self.0.fail(error);
    }
    fn encode(self: Box<Self>, to: &mut Encoder) -> Result<(), Stays> {
        self.0.encode(to, self.1)
    }
}

/// What a reply in transit begins with. One to nobody is one of the first four.
mod form {
    pub(super) const NOBODY: u8 = 0;
    /// The PE that has sent the message follows.
    pub(super) const HAS_SENDER: u8 = 1;
    pub(super) const OF_BROADCAST: u8 = 2;
    /// The PE and the key follow, as for the next one.
    pub(super) const CELL: u8 = 4;
    pub(super) const TRACKER: u8 = 5;
    /// The callback follows.
    pub(super) const CALLBACK: u8 = 6;
    /// The PE that has sent the message follows, and the callback.
    pub(super) const CALLBACK_FROM: u8 = 7;
}

impl Encoder {
    fn put_cell(&mut self, form: u8, pe: PeId, key: u64) {
        self.put_byte(form);
        self.put_pe(pe);
        self.put_u64(key);
    }
}

impl To {
    /// Encodes whoever waits.
    fn leave(self, to: &mut Encoder) {
        match self {
            To::Nobody(_) => to.put_byte(form::NOBODY),
            To::Cell { pe, key } => to.put_cell(form::CELL, pe, key),
            To::Tracker { pe, key } => to.put_cell(form::TRACKER, pe, key),
            To::Callback(callback) => {
                let begin = to.mark();
                match callback.from.get() {
                    None => to.put_byte(form::CALLBACK),
                    Some(pe) => to.put_byte_and_pe(form::CALLBACK_FROM, pe),
                }
                let Err(why) = callback.callback.encode(to) else { return };
                to.rewind(begin);
                let text = format!("its value cannot come back from another process: {why}");
                current::on_pe("sending to another process", |pe| {
                    pe.unawaited(CallError::Refused(text.into()))
                });
                to.put_byte(form::NOBODY);
            }
        }
    }
}

impl Reply {
    const NONE: Reply = Reply::new(To::Nobody(Sender::NONE));

    #[inline(always)]
    const fn new(to: To) -> Reply {
        Reply {
            to,
            #[cfg(all(test, not(loom)))]
            trail: Trail::NEW,
        }
    }

    #[inline(always)]
    pub(crate) const fn none() -> Reply {
        Reply::NONE
    }

    /// Notes which PE has sent the message that this belongs to, unless another was noted before.
    pub(crate) fn sent_by(&mut self, pe: PeId) {
        let from = match &mut self.to {
            To::Nobody(from) => from,
            To::Callback(callback) => &mut callback.from,
            To::Cell { .. } | To::Tracker { .. } => return,
        };
        if from.get().is_none() {
            *from = Sender { knows: Sender::PE, pe, ..*from };
        }
    }

    /// The PE that has sent the message, as far as that is known: whoever waits for the outcome at a cell is there.
    pub(crate) fn sender(&self) -> Option<PeId> {
        match &self.to {
            To::Nobody(from) => from.get(),
            To::Callback(callback) => callback.from.get(),
            To::Cell { pe, .. } | To::Tracker { pe, .. } => Some(*pe),
        }
    }

    /// The rank that the message is from, if that is known.
    pub(crate) fn rank(&self, pe: &Pe) -> Option<Rank> {
        let from = match &self.to {
            To::Nobody(from) => *from,
            To::Callback(callback) => callback.from,
            To::Cell { .. } | To::Tracker { .. } => Sender::NONE,
        };
        match from {
            Sender { knows: Sender::RANK, pe: rank, .. } => Some(Rank(rank.index() as u32)),
            _ => self
                .sender()
                .filter(|&sender| !pe.is_near(sender))
                .map(|sender| pe.shared().place_of(sender).0),
        }
    }

    /// That of a message for a PE that came from another process: nobody's.
    pub(crate) fn none_from(from: &Decoder<'_>) -> Reply {
        Reply::new(To::Nobody(Sender::of(from.rank, 0)))
    }

    #[inline]
    pub(crate) fn to(cell: CellRef) -> Reply {
        Reply::new(To::Cell { pe: cell.pe, key: cell.key })
    }

    /// Where the outcome of a broadcast on one element goes. If there is no such element it is waived, not refused.
    #[inline]
    pub(crate) fn of_broadcast(tracker: Option<CellRef>) -> Reply {
        Reply::new(match tracker {
            Some(cell) => To::Tracker { pe: cell.pe, key: cell.key },
            None => To::Nobody(Sender { of_broadcast: 1, ..Sender::NONE }),
        })
    }

    /// Whether nobody waits.
    pub(crate) fn is_to_nobody(&self) -> bool {
        matches!(self.to, To::Nobody(_))
    }

    /// Whether it is that of a broadcast.
    pub(crate) fn is_of_broadcast(&self) -> bool {
        matches!(self.to, To::Tracker { .. } | To::Nobody(Sender { of_broadcast: 1, .. }))
    }

    /// To a callback, whose values leave their process by `codec`.
    pub(crate) fn to_callback<R: Send + 'static>(callback: Callback<R>, codec: &'static Codec<R>) -> Reply {
        Reply::to_callback_from(callback, codec, Sender::NONE)
    }

    fn to_callback_from<R: Send + 'static>(
        callback: Callback<R>,
        codec: &'static Codec<R>,
        from: Sender,
    ) -> Reply {
        let callback = Box::new(CallbackBy(callback, codec));
        Reply::new(To::Callback(Box::new(ErasedCallback { callback, from })))
    }

    /// Encodes the reply of a message that goes to another process. If it cannot leave, it learns that.
    #[inline]
    pub(crate) fn leave(self, to: &mut Encoder) {
        match self.into_destination() {
            To::Nobody(sender) => {
                let of_broadcast = if sender.of_broadcast == 1 { form::OF_BROADCAST } else { form::NOBODY };
                match sender.get() {
                    None => to.put_byte(of_broadcast),
                    Some(pe) => to.put_byte_and_pe(of_broadcast | form::HAS_SENDER, pe),
                }
            }
            destination => destination.leave(to),
        }
    }

    /// The reply of a message that says only that something is done: never a callback.
    pub(crate) fn decode(from: &mut Decoder<'_>) -> Result<Reply, WireError> {
        let reply = Reply::decode_plain(from)?;
        reply.map_err(|_| WireError::new("only calls of entries are answered by callbacks"))
    }

    /// The reply of a message whose outcome leaves its process by `codec`.
    #[inline(always)]
    pub(crate) fn decode_by<R: Send + 'static>(
        from: &mut Decoder<'_>,
        codec: &'static Codec<R>,
    ) -> Result<Reply, WireError> {
        match Reply::decode_plain(from)? {
            Ok(reply) => Ok(reply),
            Err(sender) => Ok(Reply::to_callback_from(Callback::decode(from, codec)?, codec, sender)),
        }
    }

    /// A reply; or who has sent the message, if it is a callback, which follows.
    fn decode_plain(from: &mut Decoder<'_>) -> Result<Result<Reply, Sender>, WireError> {
        let form = from.take_byte()?;
        let to = match form {
            form::CALLBACK => return Ok(Err(Sender::of(from.rank, 0))),
            form::CALLBACK_FROM => {
                return Ok(Err(Sender { knows: Sender::PE, pe: from.take_pe()?, of_broadcast: 0 }));
            }
            form::CELL => To::Cell { pe: from.take_pe()?, key: from.take_u64()? },
            form::TRACKER => To::Tracker { pe: from.take_pe()?, key: from.take_u64()? },
            _ if form > form::HAS_SENDER | form::OF_BROADCAST => {
                return Err(WireError::new(format!("there is no kind {form} of replies")));
            }
            nobody => {
                let of_broadcast = u32::from(nobody & form::OF_BROADCAST != 0);
                To::Nobody(if nobody & form::HAS_SENDER == 0 {
                    Sender::of(from.rank, of_broadcast)
                } else {
                    Sender { knows: Sender::PE, pe: from.take_pe()?, of_broadcast }
                })
            }
        };
        Ok(Ok(Reply::new(to)))
    }

    fn into_destination(mut self) -> To {
        let to = mem::replace(&mut self.to, To::Nobody(Sender::NONE));
        // Nothing is left to be told.
        mem::forget(self);
        to
    }

    /// Answers; `codec` says how the value leaves the process. An error with nobody to tell goes to `pe`, which ends the job with a
    /// report.
    #[inline(always)]
    pub(crate) fn answer_by<R: Send + 'static>(
        self,
        pe: &Pe,
        from: ChareId,
        outcome: Result<R, CallError>,
        codec: fn() -> &'static Codec<R>,
    ) {
        if matches!(self.to, To::Nobody(_)) && outcome.is_ok() {
            // Nothing to drop in a reply to nobody.
            mem::forget(self);
            return;
        }
        self.tell(pe, from, outcome, codec);
    }

    /// Answers that something is done.
    pub(crate) fn answer(self, pe: &Pe, from: ChareId, outcome: Result<(), CallError>) {
        self.answer_by(pe, from, outcome, Codec::by_serde);
    }

    fn tell<R: Send + 'static>(
        self,
        pe: &Pe,
        from: ChareId,
        outcome: Result<R, CallError>,
        codec: fn() -> &'static Codec<R>,
    ) {
        match self.into_destination() {
            To::Nobody(_) => {
                if let Err(error) = outcome {
                    pe.unawaited(error);
                }
            }
            To::Cell { pe: home, key } | To::Tracker { pe: home, key } => {
                let to = CellRef { run: pe.run(), pe: home, key };
                send_answer(pe, to, from.element, outcome, codec);
            }
            To::Callback(callback) => match outcome {
                Ok(value) => match callback.callback.into_any().downcast::<Callback<R>>() {
                    Ok(callback) => callback.bring(value),
                    Err(_) => unreachable!("a reply callback has the entry's output type"),
                },
                Err(error) => callback.callback.fail(error),
            },
        }
    }

    /// Says that there will be no outcome of a broadcast on an element.
    pub(crate) fn waive(self, pe: &Pe) {
        if let To::Tracker { pe: home, key } = self.into_destination() {
            pe.post(home, Msg::for_pe(Waiver { key }));
        }
    }

    /// Says that the guard of the call has dropped it, to whoever still waits.
    pub(crate) fn drop_call(self, pe: &Pe, from: ChareId) {
        let error = CallError::Dropped;
        match self.into_destination() {
            To::Nobody { .. } => {}
            To::Cell { pe: home, key } | To::Tracker { pe: home, key } => {
                pe.post(home, Msg::for_pe(Refusal { key, from: from.element, error, owed: false }));
            }
            To::Callback(callback) => callback.callback.fail(error),
        }
    }

    /// Answers with an error only, for the chare `from`: the type of the value is not known here.
    pub(crate) fn refuse(self, pe: &Pe, from: ChareId, error: CallError) {
        if self.is_of_broadcast() && matches!(error, CallError::NoElement(_)) {
            return self.waive(pe);
        }
        match self.into_destination() {
            To::Nobody(_) => pe.unawaited(error),
            To::Cell { pe: home, key } | To::Tracker { pe: home, key } => {
                pe.post(home, Msg::for_pe(Refusal { key, from: from.element, error, owed: true }));
            }
            To::Callback(callback) => callback.callback.fail(error),
        }
    }
}

/// An outcome less that a cell has to wait for.
#[derive(Serialize, Deserialize)]
pub(crate) struct Waiver {
    key: u64,
}

impl Payload for Waiver {
    const NAME: Name = Name::Runtime("the end of a broadcast");
    const LEAVES: Leaves<Self> = Leaves::plainly(Kind::Waiver);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.cells.settle(pe, self.key, 1);
    }
}

/// Brings an outcome to a cell of any PE, out of the process by `codec`.
#[inline]
pub(crate) fn send_answer<R: Send + 'static>(
    pe: &Pe,
    to: CellRef,
    from: u64,
    outcome: Result<R, CallError>,
    codec: fn() -> &'static Codec<R>,
) {
    if to.pe == pe.id() {
        pe.cells.deposit(pe, to.key, from, outcome);
    } else {
        pe.post(to.pe, Msg::for_pe(Answer::new(to.key, from, outcome, codec().encode)));
    }
}

/// Brings an outcome to a cell of this process from wherever the running code is, foreign threads included.
pub(crate) fn send_answer_from_anywhere<R: Send + 'static>(to: CellRef, outcome: Result<R, CallError>) {
    current::pe(|pe| match pe {
        Some(pe) if pe.run() == to.run => send_answer(pe, to, 0, outcome, Codec::nowhere),
        _ => to.post(Msg::for_pe(Answer::new(to.key, 0, outcome, Codec::nowhere().encode))),
    });
}

/// Breaks the promise of a cell from wherever the running code is.
pub(crate) fn refuse_from_anywhere(to: CellRef, error: CallError) {
    to.post(Msg::for_pe(Refusal { key: to.key, from: UNKNOWN, error, owed: false }));
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let To::Cell { pe, key } | To::Tracker { pe, key } = self.to
            && let Some(run) = current::run()
        {
            refuse_from_anywhere(CellRef { run, pe, key }, CallError::BrokenPromise);
        }
    }
}

/// An error for a cell whose value type the sender does not know.
pub(crate) struct Refusal {
    key: u64,
    from: u64,
    error: CallError,
    owed: bool,
}

impl Refusal {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Refusal { key, from, error, owed } = self;
        to.put_own(&(key, from, owed));
        to.put_error(&error);
        Ok(())
    }
}

impl Arrives for Refusal {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (key, element, owed) = from.take()?;
        Ok(Refusal { key, from: element, error: from.take_error()?, owed })
    }
}

impl Payload for Refusal {
    const NAME: Name = Name::Runtime("the refusal of a call");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Refusal, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.cells.refuse(pe, self.key, self.from, self.error, self.owed);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{Options, Runtime};

    #[test]
    fn it_is_known_elsewhere_who_has_sent_a_message() {
        let report = Runtime::run(Options::default().with_pes(1), async |rt: Runtime| {
            let (promise, _value) = rt.promise::<u64>();
            let codec = Codec::by_serde();
            for mut reply in [Reply::none(), Reply::to_callback(promise.into(), codec)] {
                let came = current::on_pe("a test", |pe| {
                    reply.sent_by(pe.id());
                    let mut encoder = Encoder::default();
                    let left = pe.encode(|| {
                        reply.leave(&mut encoder);
                        Ok::<_, WireError>(())
                    });
                    left.expect("a reply leaves");
                    Reply::decode_by(&mut Decoder::new(&encoder.bytes, Vec::new()), codec)
                });
                assert_eq!(came.expect("it is as it left").sender(), Some(PeId::new(0)));
            }
        });
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{report}");
    }
}
