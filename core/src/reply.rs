//! Where the outcome of a method goes, and the one-shot cells that bring it to a future.
//!
//! A [`Reply`] is the obligation to answer exactly once; dropping it breaks the promise. A *cell* lives on the PE whose
//! code waits, in a slab of (slot, generation) keys, so an answer for a future that is gone finds a stale key. A cell
//! holds one value, or a [`Sink`] that collects several.

use std::any::{Any, type_name};
use std::cell::RefCell;
use std::mem;
use std::panic::Location;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::callback::Callback;
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, PeId, RunId};
use crate::message::{Msg, Name, Payload};
use crate::scheduler::pe::Pe;
use crate::scheduler::waker::{self, Wakeup};
use crate::waiting::{Waiter, What, cancel_replaced};

/// A cell, from anywhere: its run, its PE, and `generation << 32 | slot` there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct CellRef {
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
pub(crate) struct Reply(To);

const _: () = assert!(size_of::<Reply>() == 16);

enum To {
    /// Nobody waits: an error ends the job. The PE that has sent the message, if it has left that PE.
    Nobody(Sender),
    /// To a cell of this run.
    Cell { pe: PeId, key: u64 },
    /// To a callback, which is a `Callback` of the entry's own output type.
    Callback(Box<ErasedCallback>),
}

/// A PE or none, in all the bytes that a reply has besides the number of its variant: what is written in one piece can be
/// copied in one piece at once. A processor that finds only a part of what it copies among its last writes waits for them.
#[derive(Clone, Copy)]
struct Sender {
    is_known: u32,
    pe: [PeId; 2],
}

impl Sender {
    const NONE: Sender = Sender { is_known: 0, pe: [PeId::new(0); 2] };

    fn get(self) -> Option<PeId> {
        (self.is_known != 0).then_some(self.pe[0])
    }
}

/// A callback whose type the entry knows.
pub(crate) struct ErasedCallback(Box<dyn AnyCallback>);

pub(crate) trait AnyCallback: Send {
    fn into_any(self: Box<Self>) -> Box<dyn Any>;
    fn fail(self: Box<Self>, error: CallError);
}

impl Reply {
    const NONE: Reply = Reply(To::Nobody(Sender::NONE));

    #[inline(always)]
    pub(crate) const fn none() -> Reply {
        Reply::NONE
    }

    /// Notes which PE has sent the message that this belongs to, unless another was noted before.
    pub(crate) fn sent_by(&mut self, pe: PeId) {
        if let To::Nobody(from) = &mut self.0
            && from.get().is_none()
        {
            *from = Sender { is_known: 1, pe: [pe; 2] };
        }
    }

    /// The PE that has sent the message, as far as that is known: whoever waits for the outcome is there.
    pub(crate) fn sender(&self) -> Option<PeId> {
        match self.0 {
            To::Nobody(from) => from.get(),
            To::Cell { pe, .. } => Some(pe),
            To::Callback(_) => None,
        }
    }

    #[inline]
    pub(crate) fn to(cell: CellRef) -> Reply {
        Reply(To::Cell { pe: cell.pe, key: cell.key })
    }

    pub(crate) fn to_callback<R: Send + 'static>(callback: Callback<R>) -> Reply {
        Reply(To::Callback(Box::new(ErasedCallback(Box::new(callback)))))
    }

    fn into_destination(mut self) -> To {
        mem::replace(&mut self.0, To::Nobody(Sender::NONE))
    }

    /// Answers. An error with nobody to tell goes to `pe`, which ends the job with a report.
    #[inline(always)]
    pub(crate) fn answer<R: Send + 'static>(self, pe: &Pe, from: ChareId, outcome: Result<R, CallError>) {
        if matches!(self.0, To::Nobody(_)) && outcome.is_ok() {
            // Nothing to drop in a reply to nobody.
            mem::forget(self);
            return;
        }
        self.tell(pe, from, outcome);
    }

    fn tell<R: Send + 'static>(self, pe: &Pe, from: ChareId, outcome: Result<R, CallError>) {
        match self.into_destination() {
            To::Nobody(_) => {
                if let Err(error) = outcome {
                    pe.unawaited(error);
                }
            }
            To::Cell { pe: home, key } => {
                send_answer(pe, CellRef { run: pe.run(), pe: home, key }, from.element, outcome);
            }
            To::Callback(callback) => match outcome {
                Ok(value) => match callback.0.into_any().downcast::<Callback<R>>() {
                    Ok(callback) => callback.bring(value),
                    Err(_) => unreachable!("a reply callback has the entry's output type"),
                },
                Err(error) => callback.0.fail(error),
            },
        }
    }

    /// Says that there will be no outcome, to a cell that counts many.
    pub(crate) fn waive(self, pe: &Pe) {
        if let To::Cell { pe: home, key } = self.into_destination() {
            pe.post(home, Msg::for_pe(Waiver { key }));
        }
    }

    /// Says that the guard of the call has dropped it, to whoever still waits.
    pub(crate) fn drop_call(self, pe: &Pe, from: ChareId) {
        let error = CallError::Dropped;
        match self.into_destination() {
            To::Nobody { .. } => {}
            To::Cell { pe: home, key } => {
                pe.post(home, Msg::for_pe(Refusal { key, from: from.element, error, owed: false }));
            }
            To::Callback(callback) => callback.0.fail(error),
        }
    }

    /// Answers with an error only, for the chare `from`: the type of the value is not known here.
    pub(crate) fn refuse(self, pe: &Pe, from: ChareId, error: CallError) {
        match self.into_destination() {
            To::Nobody(_) => pe.unawaited(error),
            To::Cell { pe: home, key } => {
                pe.post(home, Msg::for_pe(Refusal { key, from: from.element, error, owed: true }));
            }
            To::Callback(callback) => callback.0.fail(error),
        }
    }
}

/// An outcome less that a cell has to wait for.
struct Waiver {
    key: u64,
}

impl Payload for Waiver {
    const NAME: Name = Name::Runtime("the end of a broadcast");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.cells.settle(pe, self.key, 1);
    }
}

/// Brings an outcome to a cell of any PE.
#[inline]
pub(crate) fn send_answer<R: Send + 'static>(pe: &Pe, to: CellRef, from: u64, outcome: Result<R, CallError>) {
    if to.pe == pe.id() {
        pe.cells.deposit(pe, to.key, from, outcome);
    } else {
        pe.post(to.pe, Msg::for_pe(Answer { key: to.key, from, outcome }));
    }
}

/// Brings an outcome to a cell from wherever the running code is, foreign threads included.
pub(crate) fn send_answer_from_anywhere<R: Send + 'static>(to: CellRef, outcome: Result<R, CallError>) {
    current::pe(|pe| match pe {
        Some(pe) if pe.run() == to.run => send_answer(pe, to, 0, outcome),
        _ => to.post(Msg::for_pe(Answer { key: to.key, from: 0, outcome })),
    });
}

/// Breaks the promise of a cell from wherever the running code is.
pub(crate) fn refuse_from_anywhere(to: CellRef, error: CallError) {
    to.post(Msg::for_pe(Refusal { key: to.key, from: UNKNOWN, error, owed: false }));
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let To::Cell { pe, key } = self.0
            && let Some(run) = current::run()
        {
            refuse_from_anywhere(CellRef { run, pe, key }, CallError::BrokenPromise);
        }
    }
}

/// An outcome on its way to a cell of another PE, and its resting place in a cell.
pub(crate) struct Answer<R> {
    key: u64,
    from: u64,
    outcome: Result<R, CallError>,
}

impl<R: Send + 'static> Payload for Answer<R> {
    const NAME: Name = Name::Runtime("the answer of a call");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.cells.deposit(pe, self.key, self.from, self.outcome);
    }
}

/// An error for a cell whose value type the sender does not know.
struct Refusal {
    key: u64,
    from: u64,
    error: CallError,
    owed: bool,
}

impl Payload for Refusal {
    const NAME: Name = Name::Runtime("the refusal of a call");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        pe.cells.refuse(pe, self.key, self.from, self.error, self.owed);
    }
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
    /// It is full: an `Answer` for the future that waits, and the error in it that somebody must learn of.
    Ready(Msg, Option<CallError>),
    /// It has failed. If the error is owed, the run ends should nobody take it.
    Refused(CallError, bool),
    /// It is done, and nobody waits at it.
    Closed,
}

impl After {
    /// The cell brings `value`. `owed` is an error inside of it: the run ends should nobody take the value.
    pub(crate) fn ready<R: Send + 'static>(value: R, owed: Option<CallError>) -> After {
        After::Ready(Msg::for_pe(Answer { key: 0, from: 0, outcome: Ok(value) }), owed)
    }
}

trait AnySink {
    fn as_any(&mut self) -> &mut dyn Any;
    fn refuse(&mut self, pe: &Pe, from: u64, error: CallError) -> After;
    fn settle(&mut self, pe: &Pe, count: u64) -> After;
}

struct SinkBox<R>(Box<dyn Sink<R>>);

impl<R: 'static> AnySink for SinkBox<R> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
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
    fn clone_to(&self, place: &mut dyn Any);
}

struct Value<R>(R);

impl<R: Clone + 'static> AnyValue for Value<R> {
    fn clone_to(&self, place: &mut dyn Any) {
        if let Some(place) = place.downcast_mut::<Option<R>>() {
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
            Content::Ready(answer, _) => match answer.into_payload::<Answer<R>>(pe) {
                Some(answer) => answer.outcome,
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
    waiter: Option<Waiter>,
}

const NONE: u32 = u32::MAX;

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
        slot.generation = slot.generation.wrapping_add(1);
        self.free = key as u32;
        (content, waiter)
    }
}

impl Cells {
    pub(crate) fn new() -> Self {
        Cells(RefCell::new(Slab { slots: Vec::new(), free: NONE }))
    }

    /// Opens a cell for one value.
    #[inline]
    pub(crate) fn open(&self) -> u64 {
        self.open_with(Content::Empty)
    }

    /// Opens a cell that collects.
    pub(crate) fn open_sink<R: 'static>(&self, sink: impl Sink<R>) -> u64 {
        self.open_with(Content::Sink(Box::new(SinkBox::<R>(Box::new(sink)))))
    }

    fn open_with(&self, content: Content) -> u64 {
        let mut slab = self.0.borrow_mut();
        let index = slab.free;
        if let Some(slot) = slab.slots.get_mut(index as usize) {
            let Content::Vacant { next } = mem::replace(&mut slot.content, content) else {
                unreachable!("the free list holds vacant slots only")
            };
            let key = u64::from(slot.generation) << 32 | u64::from(index);
            slab.free = next;
            return key;
        }
        let index = u32::try_from(slab.slots.len()).expect("fewer than 2^32 waits at a time on one PE");
        slab.slots.push(Slot { generation: 0, content, waiter: None });
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
                    Ok(_) => Content::Ready(Msg::for_pe(Answer { key, from, outcome }), None),
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
                let Some(typed) = sink.as_any().downcast_mut::<SinkBox<R>>() else {
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
