//! The one-shot cells that bring an outcome to a future.
//!
//! A *cell* lives on the PE whose code waits, in a slab of (slot, generation) keys, so an answer for a future that is gone
//! finds a stale key. A cell holds one value, or a [`Sink`] that collects several.

use std::any::type_name;
use std::cell::RefCell;
use std::mem;
use std::panic::Location;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::error::CallError;
use crate::ids::ChareId;
use crate::known::Known;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::waker::Wakeup;
use crate::waiting::{Waiter, What, cancel_replaced};
use crate::wire::{Arrives, Codec, Decoder, Encode, Encoder, Kind, Leaves, Rest, Unsent, Way, WireError};

/// An outcome on its way to a cell of another PE, out of the process by `encode`.
pub(crate) struct Answer<R> {
    key: u64,
    from: u64,
    outcome: Result<R, CallError>,
    encode: Encode<R>,
}

impl<R: Send + 'static> Answer<R> {
    pub(crate) fn new(key: u64, from: u64, outcome: Result<R, CallError>, encode: Encode<R>) -> Self {
        Answer { key, from, outcome, encode }
    }

    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Answer { key, from, outcome, encode } = self;
        to.put_own(&(key, from));
        to.put_outcome(outcome, encode);
        Ok(())
    }
}

impl<R: Send + 'static> Payload for Answer<R> {
    const NAME: Name = Name::Runtime("the answer of a call");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Answer, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.cells.deposit(pe, self.key, self.from, self.outcome);
    }
}

/// The resting place of a value in a cell.
struct Held<R>(R);

impl<R: Send + 'static> Payload for Held<R> {
    const NAME: Name = Name::Runtime("the value of a call");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, _: &Pe) {
        unreachable!("it is taken out of its cell")
    }
}

/// An outcome from another process, on its way to its cell, which knows the type of the value.
pub(crate) struct EncodedAnswer {
    key: u64,
    from: u64,
    is_value: bool,
    rest: Rest,
}

impl Arrives for EncodedAnswer {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (key, element) = from.take()?;
        let (is_value, rest) = from.take_outcome_as_rest()?;
        Ok(EncodedAnswer { key, from: element, is_value, rest })
    }
}

impl Payload for EncodedAnswer {
    const NAME: Name = Name::Runtime("the answer of a call");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let EncodedAnswer { key, from, is_value, rest } = self;
        let taken = if is_value {
            // Nobody waits any more where there is none.
            let Some(deposit) = pe.cells.depositor(key) else { return };
            rest.decode(|rest| deposit(pe, key, from, rest))
        } else {
            rest.decode(|rest| rest.take_error()).map(|error| pe.cells.refuse(pe, key, from, error, true))
        };
        if let Err(error) = taken {
            pe.received_nonsense(&error);
        }
    }
}

/// Brings an encoded value to a cell.
pub(crate) type Deposit = fn(&Pe, u64, u64, &mut Decoder<'_>) -> Result<(), WireError>;

pub(crate) fn deposit_encoded<R: Send + 'static, W: Way<R>>(
    pe: &Pe,
    key: u64,
    from: u64,
    rest: &mut Decoder<'_>,
) -> Result<(), WireError> {
    let value = W::decode(rest)?;
    pe.cells.deposit::<R>(pe, key, from, Ok(value));
    Ok(())
}

fn nothing_comes(_: &Pe, _: u64, _: u64, _: &mut Decoder<'_>) -> Result<(), WireError> {
    Err(WireError::new("an answer for what is no call"))
}

/// Collects several outcomes of type `R` in one cell.
pub(crate) trait Sink<R>: 'static {
    /// Takes one outcome.
    fn take(&mut self, pe: &Pe, from: u64, outcome: Result<R, CallError>) -> After;
    /// Takes an error whose sender does not know `R`.
    fn refuse(&mut self, pe: &Pe, from: u64, error: CallError) -> After;
    /// Takes `count` good outcomes at once whose values do not matter.
    fn settle(&mut self, pe: &Pe, count: u64) -> After;
}

/// What becomes of the cell after its sink has taken an outcome.
pub(crate) enum After {
    /// It waits for more.
    Open,
    /// It is full: the value, `Held` for the future that waits, and the error in it that somebody must learn of.
    Ready(Msg, Option<CallError>),
    /// It has failed. If the error is owed, the run ends should nobody take it.
    Refused(CallError, bool),
    /// It is done, and nobody waits at it.
    Closed,
}

impl After {
    /// The cell brings `value`. `owed` is an error inside of it: the run ends should nobody take the value.
    pub(crate) fn ready<R: Send + 'static>(value: R, owed: Option<CallError>) -> After {
        After::Ready(Msg::for_pe(Held(value)), owed)
    }
}

trait AnySink: Known {
    fn refuse(&mut self, pe: &Pe, from: u64, error: CallError) -> After;
    fn settle(&mut self, pe: &Pe, count: u64) -> After;
}

struct SinkBox<R>(Box<dyn Sink<R>>);

impl<R: 'static> AnySink for SinkBox<R> {
    fn refuse(&mut self, pe: &Pe, from: u64, error: CallError) -> After {
        self.0.refuse(pe, from, error)
    }
    fn settle(&mut self, pe: &Pe, count: u64) -> After {
        self.0.settle(pe, count)
    }
}

/// A value that many cells of one PE bring: each future takes a clone.
#[derive(Clone)]
pub(crate) struct SharedValue(Rc<dyn AnyValue>);

impl SharedValue {
    pub(crate) fn new<R: Clone + 'static>(value: R) -> Self {
        SharedValue(Rc::new(Value(value)))
    }

    /// A clone, if the value is of type `R`.
    fn get<R: 'static>(&self) -> Option<R> {
        let mut place = None;
        self.0.clone_to(&mut place);
        place
    }
}

trait AnyValue {
    /// Puts a clone in `place`, if that is an `Option` of the value's type.
    fn clone_to(&self, place: &mut dyn Known);
}

struct Value<R>(R);

impl<R: Clone + 'static> AnyValue for Value<R> {
    fn clone_to(&self, place: &mut dyn Known) {
        if let Some(place) = place.known_mut::<Option<R>>() {
            *place = Some(self.0.clone());
        }
    }
}

enum Content {
    Vacant {
        next: u32,
    },
    Empty,
    /// A value, and an error in it that is owed to somebody.
    Ready(Msg, Option<CallError>),
    Shared(SharedValue),
    /// An error; if it is owed, the run ends should nobody take it.
    Refused(CallError, bool),
    Sink(Box<dyn AnySink>),
    /// The sink is running.
    Busy,
}

impl Content {
    /// What is found where the cell was, once the run has ended.
    const ENDED: Content = Content::Refused(CallError::Ended, false);

    #[inline]
    fn is_outcome(&self) -> bool {
        matches!(self, Content::Ready(..) | Content::Shared(_) | Content::Refused(..))
    }

    #[inline]
    fn into_outcome<R: Send + 'static>(self, pe: &Pe) -> Result<R, CallError> {
        match self {
            Content::Ready(answer, _) => match answer.into_payload::<Held<R>>(pe) {
                Some(Held(value)) => Ok(value),
                None => unreachable!("a cell holds an answer of its future's type, {}", type_name::<R>()),
            },
            Content::Shared(value) => match value.get() {
                Some(value) => Ok(value),
                None => unreachable!("a cell brings a value of its future's type, {}", type_name::<R>()),
            },
            Content::Refused(error, _) => Err(error),
            _ => unreachable!("only outcomes are taken"),
        }
    }
}

/// An outcome that has left its cell and has not reached its future.
pub(crate) struct Untaken<R> {
    pub(crate) outcome: Result<R, CallError>,
    /// The error in it, if the run ends should nobody take it.
    pub(crate) owed: Option<CallError>,
}

struct Slot {
    generation: u32,
    content: Content,
    deposit: Deposit,
    waiter: Option<Waiter>,
}

const NONE: u32 = u32::MAX;
/// That of a slot which is not used again: its next cell would have the key of its first one.
const RETIRED: u32 = u32::MAX;

/// The cells of one PE.
pub(crate) struct Cells(RefCell<Slab>);

struct Slab {
    slots: Vec<Slot>,
    free: u32,
}

impl Slab {
    fn get(&mut self, key: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(key as u32 as usize)?;
        (u64::from(slot.generation) == key >> 32).then_some(slot)
    }

    fn close(&mut self, key: u64) -> (Content, Option<Waiter>) {
        let free = self.free;
        let Some(slot) = self.get(key) else { return (Content::Empty, None) };
        let content = mem::replace(&mut slot.content, Content::Vacant { next: free });
        let waiter = slot.waiter.take();
        slot.generation += 1;
        if slot.generation != RETIRED {
            self.free = key as u32;
        }
        (content, waiter)
    }
}

impl Cells {
    pub(crate) fn new() -> Self {
        Cells(RefCell::new(Slab { slots: Vec::new(), free: NONE }))
    }

    /// Opens a cell for one value, which comes from other processes by `codec`.
    #[inline]
    pub(crate) fn open<R>(&self, codec: &Codec<R>) -> u64 {
        self.open_with(Content::Empty, codec.deposit)
    }

    /// Opens a cell for one value, which does not come from other processes as an outcome.
    #[inline]
    pub(crate) fn open_here(&self) -> u64 {
        self.open_with(Content::Empty, nothing_comes)
    }

    /// Opens a cell that collects what comes from other processes by `codec`.
    pub(crate) fn open_sink<R: 'static>(&self, sink: impl Sink<R>, codec: &Codec<R>) -> u64 {
        self.open_with(Content::Sink(Box::new(SinkBox::<R>(Box::new(sink)))), codec.deposit)
    }

    /// Opens a cell that collects what does not come from other processes as outcomes.
    pub(crate) fn open_sink_here<R: 'static>(&self, sink: impl Sink<R>) -> u64 {
        self.open_with(Content::Sink(Box::new(SinkBox::<R>(Box::new(sink)))), nothing_comes)
    }

    /// What brings an encoded value to a cell, if that is there.
    pub(crate) fn depositor(&self, key: u64) -> Option<Deposit> {
        self.0.borrow_mut().get(key).map(|slot| slot.deposit)
    }

    fn open_with(&self, content: Content, deposit: Deposit) -> u64 {
        let mut slab = self.0.borrow_mut();
        let index = slab.free;
        if let Some(slot) = slab.slots.get_mut(index as usize) {
            let Content::Vacant { next } = mem::replace(&mut slot.content, content) else {
                unreachable!("the free list holds vacant slots only")
            };
            slot.deposit = deposit;
            let key = u64::from(slot.generation) << 32 | u64::from(index);
            slab.free = next;
            return key;
        }
        let index = u32::try_from(slab.slots.len()).expect("fewer than 2^32 waits at a time on one PE");
        slab.slots.push(Slot { generation: 0, content, deposit, waiter: None });
        u64::from(index)
    }

    /// Brings an outcome to a cell. If nobody waits any more, a value is dropped and an error ends the job.
    #[inline]
    pub(crate) fn deposit<R: Send + 'static>(
        &self,
        pe: &Pe,
        key: u64,
        from: u64,
        outcome: Result<R, CallError>,
    ) {
        let mut slab = self.0.borrow_mut();
        let Some(slot) = slab.get(key) else {
            drop(slab);
            if let Err(error) = outcome {
                pe.unawaited(error);
            }
            return;
        };
        match &mut slot.content {
            Content::Empty => {
                let waiter = slot.waiter.take();
                slot.content = match outcome {
                    Ok(value) => Content::Ready(Msg::for_pe(Held(value)), None),
                    Err(error) => Content::Refused(error, true),
                };
                drop(slab);
                if let Some(waiter) = waiter {
                    waiter.wake(pe);
                }
            }
            Content::Sink(_) => {
                let Content::Sink(mut sink) = mem::replace(&mut slot.content, Content::Busy) else {
                    unreachable!()
                };
                drop(slab);
                let known: &mut dyn Known = &mut *sink;
                let Some(typed) = known.known_mut::<SinkBox<R>>() else {
                    unreachable!("a cell takes one type of value, got {}", type_name::<R>())
                };
                let after = typed.0.take(pe, from, outcome);
                self.after_sink(pe, key, sink, after);
            }
            // A second answer: promises check that before they send, so only a duplicate error can come here.
            Content::Ready(..)
            | Content::Shared(_)
            | Content::Refused(..)
            | Content::Busy
            | Content::Vacant { .. } => {}
        }
    }

    /// Brings a value that other cells bring too; if nobody waits any more, nothing.
    #[inline]
    pub(crate) fn deposit_shared(&self, pe: &Pe, key: u64, value: &SharedValue) {
        let mut slab = self.0.borrow_mut();
        let Some(slot @ Slot { content: Content::Empty, .. }) = slab.get(key) else { return };
        slot.content = Content::Shared(value.clone());
        let waiter = slot.waiter.take();
        drop(slab);
        if let Some(waiter) = waiter {
            waiter.wake(pe);
        }
    }

    /// Brings an error to a cell whose value type the caller does not know.
    /// If it is `owed`, the outcome of a call, the run ends should nobody wait any more.
    pub(crate) fn refuse(&self, pe: &Pe, key: u64, from: u64, error: CallError, owed: bool) {
        let mut slab = self.0.borrow_mut();
        let Some(slot) = slab.get(key) else {
            drop(slab);
            if owed {
                pe.unawaited(error);
            }
            return;
        };
        match &mut slot.content {
            Content::Empty => {
                slot.content = Content::Refused(error, owed);
                let waiter = slot.waiter.take();
                drop(slab);
                if let Some(waiter) = waiter {
                    waiter.wake(pe);
                }
            }
            Content::Sink(_) => {
                let Content::Sink(mut sink) = mem::replace(&mut slot.content, Content::Busy) else {
                    unreachable!()
                };
                drop(slab);
                let after = sink.refuse(pe, from, error);
                self.after_sink(pe, key, sink, after);
            }
            Content::Ready(..)
            | Content::Shared(_)
            | Content::Refused(..)
            | Content::Busy
            | Content::Vacant { .. } => {}
        }
    }

    /// Brings `count` good outcomes whose values do not matter to a collecting cell.
    pub(crate) fn settle(&self, pe: &Pe, key: u64, count: u64) {
        let mut slab = self.0.borrow_mut();
        let Some(slot) = slab.get(key) else { return };
        let Content::Sink(mut sink) = mem::replace(&mut slot.content, Content::Busy) else {
            unreachable!("only trackers are settled, and not from inside of themselves")
        };
        drop(slab);
        let after = sink.settle(pe, count);
        self.after_sink(pe, key, sink, after);
    }

    fn after_sink(&self, pe: &Pe, key: u64, sink: Box<dyn AnySink>, after: After) {
        let mut slab = self.0.borrow_mut();
        // The future may have been dropped by what the sink did; then the slot is gone.
        let Some(slot) = slab.get(key) else { return };
        let content = match after {
            After::Open => {
                slot.content = Content::Sink(sink);
                return;
            }
            After::Closed => {
                let closed = slab.close(key);
                drop(slab);
                return drop(closed);
            }
            After::Ready(answer, owed) => Content::Ready(answer, owed),
            After::Refused(error, owed) => Content::Refused(error, owed),
        };
        slot.content = content;
        let waiter = slot.waiter.take();
        drop(slab);
        if let Some(waiter) = waiter {
            waiter.wake(pe);
        }
    }

    /// Takes the value, or registers the waker.
    #[inline]
    pub(crate) fn poll<R: Send + 'static>(
        &self,
        pe: &Pe,
        key: u64,
        context: &Context<'_>,
        what: What,
        at: &'static Location<'static>,
    ) -> Poll<Result<R, CallError>> {
        self.poll_content(pe, key, context, what, at).map(|content| content.into_outcome(pe))
    }

    /// As `poll`, in the name of a future elsewhere, which may be gone before the outcome reaches it.
    pub(crate) fn poll_for_another<R: Send + 'static>(
        &self,
        pe: &Pe,
        key: u64,
        context: &Context<'_>,
        what: What,
        at: &'static Location<'static>,
    ) -> Poll<Untaken<R>> {
        self.poll_content(pe, key, context, what, at).map(|content| {
            let owed = match &content {
                Content::Refused(error, true) | Content::Ready(_, Some(error)) => Some(error.clone()),
                _ => None,
            };
            Untaken { outcome: content.into_outcome(pe), owed }
        })
    }

    #[inline]
    fn poll_content(
        &self,
        pe: &Pe,
        key: u64,
        context: &Context<'_>,
        what: What,
        at: &'static Location<'static>,
    ) -> Poll<Content> {
        let wakeup = Wakeup::of(context);
        let mut slab = self.0.borrow_mut();
        let Some(slot) = slab.get(key) else { return Poll::Ready(Content::ENDED) };
        if !slot.content.is_outcome() {
            let replaced = slot.waiter.replace(Waiter::new(pe, wakeup, what, at));
            drop(slab);
            cancel_replaced(replaced, pe);
            return Poll::Pending;
        }
        let (content, waiter) = slab.close(key);
        drop(slab);
        cancel_replaced(waiter, pe);
        Poll::Ready(content)
    }

    /// Whether the outcome has come, which the next poll takes.
    pub(crate) fn is_ready(&self, key: u64) -> bool {
        self.0.borrow_mut().get(key).is_none_or(|slot| slot.content.is_outcome())
    }

    /// Takes the outcome if it has come.
    pub(crate) fn try_take<R: Send + 'static>(&self, pe: &Pe, key: u64) -> Option<Result<R, CallError>> {
        if !self.is_ready(key) {
            return None;
        }
        let (content, waiter) = self.0.borrow_mut().close(key);
        cancel_replaced(waiter, pe);
        let content = if content.is_outcome() { content } else { Content::ENDED };
        Some(content.into_outcome(pe))
    }

    /// The future is gone: what comes later finds nobody.
    pub(crate) fn abandon(&self, pe: &Pe, key: u64) {
        let (content, waiter) = self.0.borrow_mut().close(key);
        cancel_replaced(waiter, pe);
        match content {
            Content::Refused(error, true) | Content::Ready(_, Some(error)) => pe.unawaited(error),
            content => drop(content),
        }
    }

    /// Every registered wait of this PE.
    pub(crate) fn for_each_waiter(&self, mut f: impl FnMut(&Waiter)) {
        self.0.borrow().slots.iter().filter_map(|slot| slot.waiter.as_ref()).for_each(&mut f);
    }

    /// Whether there are no cells, after `clear`.
    pub(crate) fn is_clear(&self) -> bool {
        self.0.borrow().slots.is_empty()
    }

    /// Drops all contents, at the end of the PE. Whoever waits from elsewhere is woken, to learn of the end.
    pub(crate) fn clear(&self, pe: &Pe) {
        let slots = mem::take(&mut self.0.borrow_mut().slots);
        self.0.borrow_mut().free = NONE;
        for slot in slots {
            pe.guard(|| drop(slot.content));
            if let Some(waiter) = slot.waiter {
                // It may be a waker of the user's.
                pe.guard(|| waiter.wake(pe));
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_slot_whose_generations_are_used_up_is_not_used_again() {
        let cells = Cells::new();
        let open = || cells.open_here();
        let (first, other) = (open(), open());
        assert!(matches!(cells.0.borrow_mut().close(first), (Content::Empty, None)));
        cells.0.borrow_mut().slots[0].generation = RETIRED - 1;
        let last = open();
        assert_eq!((last as u32, last >> 32), (0, u64::from(RETIRED - 1)));
        cells.0.borrow_mut().close(last);
        let fresh: Vec<u64> = (0..3).map(|_| open()).collect();
        assert_eq!(fresh, [2, 3, 4]);
        let slab = &mut *cells.0.borrow_mut();
        assert!(slab.get(first).is_none() && slab.get(last).is_none(), "no key leads to the slot");
        assert!([other, 2, 3, 4].into_iter().all(|key| slab.get(key).is_some()));
        // Those that are given back now are used again, by other keys.
        slab.close(3);
        slab.close(other);
        assert_eq!((slab.free, slab.get(3).is_none()), (other as u32, true));
    }
}
