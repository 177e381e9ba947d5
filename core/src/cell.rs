//! Chares in memory: one allocation each, a header and the user's state behind it, addressed by pointer.
//!
//! This file is the only one that turns that pointer into references to the user's state. The rule that it keeps: at
//! any time at most one of these holds a reference to a chare's state: the plain method or the constructor that is
//! running on it, its `migrated`, one closure of `with` or `local`, one look of a condition or guard, or the exclusive
//! coroutine that owns it. [`State`] and `borrowed` say which.
//! While an exclusive coroutine is parked no reference is formed at all.
//!
//! A [`ChareRef`] is valid while its chare lives, and a chare is freed only by the PE that it is on, between steps and
//! after its coroutines. Nothing outside a step keeps one: the tables of that PE hold them, messages and wakers hold ids. A
//! chare that moves stays where it is in memory; the one message that carries it is its owner meanwhile.

use std::alloc::Layout;
use std::any::TypeId;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::broadcast::Gap;
use crate::channel::{self, Channels, Uprooted};
use crate::chares::{Chare, ChareInfo};
use crate::condition::Conditions;
use crate::condition::when::KeptCalls;
use crate::current;
use crate::entry::{EntryInfo, EntryOf};
use crate::error::{CallError, Panicked};
use crate::ids::{ChareId, PeId};
use crate::message::Msg;
use crate::migration::{self, across};
use crate::reply::Reply;
use crate::scheduler::pe::{Pe, Unborn};
use crate::scheduler::prefetch::prefetch;
use crate::scheduler::queue::Work;
use crate::scheduler::task::{self, TaskList};
use crate::wire::{Decoder, Encoder, Stays, WireError};

/// Cache lines of a chare that are asked for ahead of its turn.
const PREFETCHED_LINES: usize = 4;

/// What the header of a chare and its extra parts count, for its way to another process.
pub(crate) struct Counts {
    moves: u32,
    contributed: u64,
    covered: u64,
    extra: ExtraCounts,
}

/// Most chares have none of these.
#[derive(Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
struct ExtraCounts {
    first_broadcast: u64,
    first_epoch: u64,
    inserted: u64,
    owed_hooks: u32,
}

impl Counts {
    pub(crate) fn put(&self, to: &mut Encoder) {
        to.put_u32(self.moves);
        to.put_u64(self.contributed);
        to.put_u64(self.covered);
        let has_extra = self.extra != ExtraCounts::default();
        to.put_byte(has_extra.into());
        if has_extra {
            to.put_own(&self.extra);
        }
    }

    pub(crate) fn take(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (moves, contributed, covered) = (from.take_u32()?, from.take_u64()?, from.take_u64()?);
        let extra = if from.take_byte()? == 0 { ExtraCounts::default() } else { from.take()? };
        Ok(Counts { moves, contributed, covered, extra })
    }
}

/// Who may touch a chare's state.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    /// Nobody at the moment: any message may run.
    Idle,
    /// An exclusive coroutine, until it ends. Messages and wake-ups of others are held.
    Exclusive,
    /// Nobody ever again.
    Poisoned,
}

/// The header of every chare.
pub(crate) struct ChareHead {
    table: &'static ChareTable,
    pub(crate) id: ChareId,
    pub(crate) state: Cell<State>,
    /// A plain method or a `with` closure holds `&mut` to the state.
    borrowed: Cell<bool>,
    /// Somebody held `&mut` since the conditions were last looked at.
    pub(crate) dirty: Cell<bool>,
    /// It takes broadcasts by number: `Extra::gap` says which.
    pub(crate) has_gap: Cell<bool>,
    /// How often it has moved.
    moves: Cell<u32>,
    /// Reductions that the chare has contributed to.
    pub(crate) contributed: Cell<u64>,
    /// The number from which on the PE where it lives has to deliver broadcasts to it; `u64::MAX` once it is destroyed.
    pub(crate) covered: Cell<u64>,
    /// Its coroutines that have not ended.
    pub(crate) tasks: TaskList,
    /// What few chares need; none until the first use.
    extra: RefCell<Option<Box<Extra>>>,
}

/// The parts of a chare that are made at their first use.
#[derive(Default)]
pub(crate) struct Extra {
    /// What arrived while an exclusive coroutine owned the chare, in order of arrival.
    pub(crate) held: VecDeque<Work>,
    pub(crate) conditions: Conditions,
    /// Calls that wait for the conditions of their entries.
    pub(crate) kept: KeptCalls,
    pub(crate) channels: Channels,
    pub(crate) account: Option<chare_device::Account>,
    /// It has asked for its device, and keeps it wherever it goes.
    pub(crate) keeps_device: bool,
    pub(crate) gap: Option<Box<Gap>>,
    /// The first broadcast that reaches it, if it was inserted.
    pub(crate) first_broadcast: u64,
    /// The epoch that it began in, unless that is the first of its index.
    pub(crate) first_epoch: u64,
    /// Insertions that it has sent.
    pub(crate) inserted: u64,
    /// Roots that those may not have come to yet that it has sent from here, with the number of the last.
    pub(crate) insertions: Vec<(PeId, u64)>,
    /// It is not to be moved.
    pub(crate) is_pinned: bool,
    /// Requests to move to other processes, which wait until no coroutine of it is alive.
    pub(crate) moves: Vec<Msg>,
    /// Its coroutines that have come to their sync points meanwhile, as calls that start them again.
    pub(crate) restarts: Vec<Msg>,
    /// The first of these owned the chare, which nobody else gets until it is started again.
    pub(crate) owner_waits: bool,
    /// Moves whose `migrated` waits until an exclusive coroutine has ended.
    owed_hooks: u32,
    /// What poisoned the chare.
    panic: Option<Arc<Panicked>>,
}

impl Extra {
    /// Drops what is in it, which is the user's.
    pub(crate) fn give_up(mut self, pe: &Pe) {
        self.channels.close(pe).give_up(pe);
        pe.drop_each(std::mem::take(&mut self.held));
        pe.drop_each(std::mem::take(&mut self.moves));
        pe.drop_each(std::mem::take(&mut self.restarts));
        if let Some(gap) = self.gap.take() {
            gap.give_up(pe);
        }
        self.kept.give_up(pe);
        pe.guard(|| drop(self));
    }
}

struct ChareTable {
    layout: Layout,
    chare_type: TypeId,
    drop_value: unsafe fn(NonNull<ChareHead>),
    /// How reports name that, if it does anything.
    dropped_as: Option<&'static EntryInfo>,
    migrated: fn(&Pe, ChareRef, Reply),
    encode: fn(&Pe, ChareRef, &mut Encoder) -> Result<(), Stays>,
    info: &'static ChareInfo,
    keep_after_panic: bool,
}

#[repr(C)]
struct ChareBody<C> {
    head: ChareHead,
    value: MaybeUninit<C>,
}

struct TableOf<C>(std::marker::PhantomData<C>);

impl<C: Chare> TableOf<C> {
    const TABLE: ChareTable = ChareTable {
        layout: Layout::new::<ChareBody<C>>(),
        chare_type: TypeId::of::<C>(),
        drop_value: drop_value::<C>,
        dropped_as: if std::mem::needs_drop::<C>() { Some(EntryOf::<C>::DROP) } else { None },
        migrated: migrated::<C>,
        encode: across::encode_state::<C>,
        info: C::INFO,
        keep_after_panic: C::KEEP_AFTER_PANIC,
    };
}

unsafe fn drop_value<C>(head: NonNull<ChareHead>) {
    let body = head.cast::<ChareBody<C>>();
    // SAFETY: the caller owns the chare and its value is initialised.
    unsafe { std::ptr::drop_in_place((*body.as_ptr()).value.as_mut_ptr()) }
}

/// Calls the chare's `migrated` method, if it has one: at once, or first of all when an exclusive coroutine has ended.
fn migrated<C: Chare>(pe: &Pe, chare: ChareRef, reply: Reply) {
    match C::MIGRATED {
        None => reply.answer(pe, chare.id, Ok(())),
        Some(hook) if chare.state.get() == State::Idle => migration::run_hook(pe, chare, hook, reply),
        // It came along with another that it is bound to.
        Some(_) if chare.state.get() == State::Poisoned => reply.answer(pe, chare.id, Ok(())),
        Some(_) => {
            // The coroutine itself may be who waits.
            reply.answer(pe, chare.id, Ok(()));
            chare.extra(|extra| extra.owed_hooks += 1);
        }
    }
}

/// The address of a live chare.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChareRef(NonNull<ChareHead>);

impl ChareRef {
    /// Puts a constructed chare in its place in memory.
    pub(crate) fn new<C: Chare>(id: ChareId, value: C) -> ChareRef {
        let layout = Layout::new::<ChareBody<C>>();
        // SAFETY: the layout is not empty, the header is in it.
        let block = unsafe { std::alloc::alloc(layout) };
        let Some(block) = NonNull::new(block) else { std::alloc::handle_alloc_error(layout) };
        let head = ChareHead {
            table: &TableOf::<C>::TABLE,
            id,
            state: Cell::new(State::Idle),
            borrowed: Cell::new(false),
            dirty: Cell::new(false),
            has_gap: Cell::new(false),
            moves: Cell::new(0),
            contributed: Cell::new(0),
            covered: Cell::new(0),
            tasks: TaskList::default(),
            extra: RefCell::new(None),
        };
        // SAFETY: the block is fresh and has this layout.
        unsafe { block.cast::<ChareBody<C>>().write(ChareBody { head, value: MaybeUninit::new(value) }) };
        ChareRef(block.cast())
    }

    /// Asks for the header and the first words of the state.
    #[inline(always)]
    pub(crate) fn prefetch(self) {
        prefetch(self.0, PREFETCHED_LINES);
    }

    pub(crate) fn info(self) -> &'static ChareInfo {
        self.table.info
    }

    /// Whether the chare is a `C`. It is not if the proxy that led here belongs to another run, whose ids mean other chares.
    #[inline]
    pub(crate) fn is<C: Chare>(self) -> bool {
        // A type may have several tables, but no two types have one.
        std::ptr::eq(self.table, &TableOf::<C>::TABLE) || self.table.chare_type == TypeId::of::<C>()
    }

    /// Marks the chare after a panic in it. The first one poisons it.
    #[cold]
    pub(crate) fn panicked(self, pe: &Pe, panic: &Arc<Panicked>) {
        if self.table.keep_after_panic {
            return self.state.set(State::Idle);
        }
        self.state.set(State::Poisoned);
        // What is kept is refused by the next look.
        self.dirty.set(true);
        self.extra(|extra| {
            extra.panic.get_or_insert_with(|| panic.clone());
        });
        channel::poison(pe, self, &self.poisoned());
        across::go_on(pe, self);
    }

    /// The error of a call of this chare, which is poisoned.
    #[cold]
    pub(crate) fn poisoned(self) -> CallError {
        let panic = self.extra_if_any(|extra| extra.panic.clone()).flatten();
        CallError::Poisoned(panic.expect("a panic poisons a chare and is kept"))
    }

    /// Notes that the chare has been destroyed: from here on it has no part in broadcasts and reductions.
    pub(crate) fn note_end(self) {
        self.covered.set(u64::MAX);
    }

    /// Whether only the chare's destructors are left to run, of all its code.
    pub(crate) fn has_ended(self) -> bool {
        self.covered.get() == u64::MAX
    }

    /// Its epoch, which counts its moves ([`crate::location`]).
    pub(crate) fn epoch(self) -> u64 {
        let first = self.extra_if_any(|extra| extra.first_epoch).unwrap_or_default();
        first + u64::from(self.moves.get())
    }

    /// Begins the next epoch, and returns it: the chare moves.
    pub(crate) fn next_epoch(self) -> u64 {
        let moves = self.moves.get().checked_add(1).unwrap_or_else(|| {
            // The header has no room for more: what it has counted goes to the extra parts. One is left, for `has_moved`.
            self.extra(|extra| extra.first_epoch += u64::from(u32::MAX));
            1
        });
        self.moves.set(moves);
        self.epoch()
    }

    /// Lets the chare have moved almost as often as the header counts.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn age(self) {
        self.moves.set(u32::MAX - 2);
    }

    /// Whether it has moved since it was constructed.
    pub(crate) fn has_moved(self) -> bool {
        self.moves.get() > 0
    }

    /// Calls `f` with the extra parts, made if they are not there yet.
    pub(crate) fn extra<R>(self, f: impl FnOnce(&mut Extra) -> R) -> R {
        f(self.extra.borrow_mut().get_or_insert_default())
    }

    /// Takes over what the chare's constructor has made.
    pub(crate) fn adopt(self, unborn: Unborn) {
        *self.extra.borrow_mut() = Some(unborn.extra);
        self.contributed.set(unborn.contributed);
        self.covered.set(unborn.covered);
    }

    /// Calls `f` with the extra parts if there are any.
    #[inline]
    pub(crate) fn extra_if_any<R>(self, f: impl FnOnce(&mut Extra) -> R) -> Option<R> {
        self.extra.borrow_mut().as_deref_mut().map(f)
    }

    #[inline]
    pub(crate) fn has_extra(self) -> bool {
        self.extra.borrow().is_some()
    }

    /// Whether somebody holds the state: a plain method that is running, or a `with` closure.
    pub(crate) fn is_borrowed(self) -> bool {
        self.borrowed.get()
    }

    /// Calls `f` with the state.
    ///
    /// # Panics
    /// If somebody holds the state already: `with` inside `with`, or while an exclusive coroutine owns the chare. If the
    /// chare is poisoned, or not a `C`.
    #[inline]
    #[track_caller]
    pub(crate) fn with<C: Chare, R>(self, f: impl FnOnce(&mut C) -> R) -> R {
        if self.borrowed.get() || self.state.get() != State::Idle || !self.is::<C>() {
            busy::<C>(self);
        }
        self.borrow(f)
    }

    /// Calls `f` with the state of a chare that is free.
    #[inline(always)]
    fn borrow<C: Chare, R>(self, f: impl FnOnce(&mut C) -> R) -> R {
        debug_assert!(!self.borrowed.get() && self.state.get() == State::Idle && self.is::<C>());
        self.borrowed.set(true);
        let _borrow = Borrow(self);
        // SAFETY: the caller, above, has looked: the chare is a `C`; `borrowed` was false and no exclusive coroutine
        // owns it, so no other reference to the state exists until `_borrow` is dropped.
        f(unsafe { self.value::<C>().as_mut() })
    }

    /// As `with`, for code that only looks: does not make conditions be looked at again.
    #[inline]
    #[track_caller]
    pub(crate) fn look<C: Chare, R>(self, f: impl FnOnce(&mut C) -> R) -> R {
        let dirty = self.dirty.get();
        let value = self.with(f);
        self.dirty.set(dirty);
        value
    }

    /// The token by which an exclusive coroutine owns the state.
    ///
    /// # Safety
    /// The coroutine that gets the token is dropped before the chare.
    ///
    /// # Panics
    /// If the chare is not idle, or not a `C`.
    pub(crate) unsafe fn claim<C: Chare>(self) -> Exclusive<C> {
        assert!(self.is::<C>(), "{}", foreign::<C>(self));
        assert_eq!(self.state.replace(State::Exclusive), State::Idle, "only an idle chare can be claimed");
        // SAFETY: the type was checked.
        Exclusive(unsafe { self.value::<C>() })
    }

    /// # Safety
    /// The chare is of type `C`.
    unsafe fn value<C>(self) -> NonNull<C> {
        let body = self.0.cast::<ChareBody<C>>();
        // SAFETY: in bounds of the chare's allocation; a place, not a reference.
        unsafe { NonNull::new_unchecked((&raw mut (*body.as_ptr()).value).cast::<C>()) }
    }

    /// Encodes the code of its type, its index in a sparse array, and its state, which is idle. Runs code of the user's.
    pub(crate) fn encode(self, pe: &Pe, to: &mut Encoder) -> Result<(), Stays> {
        (self.table.encode)(pe, self, to)
    }

    /// What it counts.
    pub(crate) fn counts(self) -> Counts {
        let of_extra = |extra: &mut Extra| ExtraCounts {
            first_broadcast: extra.first_broadcast,
            first_epoch: extra.first_epoch,
            inserted: extra.inserted,
            owed_hooks: extra.owed_hooks,
        };
        let extra = self.extra_if_any(of_extra).unwrap_or_default();
        let (moves, contributed, covered) = (self.moves.get(), self.contributed.get(), self.covered.get());
        Counts { moves, contributed, covered, extra }
    }

    /// A chare that comes from another process goes on counting here.
    pub(crate) fn resume_counts(self, counts: &Counts) {
        self.moves.set(counts.moves);
        self.contributed.set(counts.contributed);
        self.covered.set(counts.covered);
        if counts.extra != ExtraCounts::default() {
            let ExtraCounts { first_broadcast, first_epoch, inserted, owed_hooks } = counts.extra;
            self.extra(|extra| {
                (extra.first_broadcast, extra.first_epoch) = (first_broadcast, first_epoch);
                (extra.inserted, extra.owed_hooks) = (inserted, owed_hooks);
            });
        }
    }

    /// What follows an arrival on this PE.
    pub(crate) fn migrated(self, pe: &Pe, reply: Reply) {
        (self.table.migrated)(pe, self, reply);
    }

    /// Runs what an exclusive coroutine has put off, which has ended: `migrated` for each move.
    #[cold]
    pub(crate) fn run_owed_hooks(self, pe: &Pe) {
        let owed = self.extra_if_any(|extra| std::mem::take(&mut extra.owed_hooks)).unwrap_or(0);
        (0..owed).for_each(|_| self.migrated(pe, Reply::none()));
    }

    fn drop_extra(self, pe: &Pe) {
        while let Some(extra) = self.extra.take() {
            extra.give_up(pe);
        }
    }

    /// Drops the chare, on its PE, and frees it.
    ///
    /// # Safety
    /// No step of it is running, its coroutines have been dropped, and no table refers to it any more.
    pub(crate) unsafe fn free(self, pe: &Pe) {
        let table = self.table;
        // What is dropped here runs user code, which may ask for the extra parts again, or for the state. The state is
        // there until its own destructor runs; from then on it counts as borrowed for ever.
        self.drop_extra(pe);
        self.borrowed.set(true);
        if let Some(entry) = table.dropped_as {
            pe.note_call(entry);
        }
        // SAFETY: by the caller's promise nobody refers to the state, which is dropped once.
        pe.guard(|| unsafe { (table.drop_value)(self.0) });
        pe.note_runtime();
        self.drop_extra(pe);
        // SAFETY: by the caller's promise nobody refers to the chare; it was allocated with this layout.
        unsafe {
            std::ptr::drop_in_place(self.0.as_ptr());
            std::alloc::dealloc(self.0.as_ptr().cast(), table.layout);
        }
    }
}

/// A chare between two PEs, with its coroutines and the ends of its channels.
pub(crate) struct Parcel {
    /// None once it is unpacked.
    chare: Option<ChareRef>,
    ends: Uprooted,
}

// SAFETY: a parcel owns its chare, whose state, coroutines, held messages and channel values are all `Send`; what is not
// (waits that are registered with the tables of a PE) has been taken out by `pack`.
unsafe impl Send for Parcel {}

impl Parcel {
    /// Takes a chare that is in no table any more apart from the PE that it was on. All of its coroutines are woken: they
    /// look again on the PE where they arrive, and register there.
    pub(crate) fn pack(pe: &Pe, chare: ChareRef) -> Parcel {
        let waiters = chare.extra_if_any(|extra| extra.conditions.take_waiters()).unwrap_or_default();
        for waiter in waiters {
            waiter.wake(pe);
        }
        let ends = channel::uproot(pe, chare);
        task::detach(pe, chare);
        // Wake-ups are held by the names that coroutines had here; all of them are queued on arrival anyway.
        chare.extra_if_any(|extra| extra.held.retain(|work| !matches!(work, Work::Resume(_))));
        Parcel { chare: Some(chare), ends }
    }

    /// A chare that has come from another process, in no table yet.
    pub(crate) fn of_arrival(chare: ChareRef) -> Parcel {
        Parcel { chare: Some(chare), ends: Uprooted::default() }
    }

    /// Gives it the ends of its channels, which its names lead to.
    pub(crate) fn bring_ends(&mut self, ends: Uprooted) {
        self.ends = ends;
    }

    /// The chare, unless it is unpacked.
    pub(crate) fn chare(&self) -> Option<ChareRef> {
        self.chare
    }

    /// Puts the chare's coroutines and channel ends into the tables of the PE where it has arrived.
    pub(crate) fn unpack(mut self, pe: &Pe) -> ChareRef {
        let chare = self.chare.take().expect("a parcel is unpacked once");
        channel::plant(pe, chare, std::mem::take(&mut self.ends));
        task::attach(pe, chare);
        chare
    }
}

impl Drop for Parcel {
    /// The run has ended meanwhile: the chare is freed by whichever PE finds it.
    fn drop(&mut self) {
        let Some(chare) = self.chare.take() else { return };
        let ends = std::mem::take(&mut self.ends);
        current::pe(|pe| match pe {
            Some(pe) => {
                pe.begin_step(chare);
                // SAFETY: `pack` has taken the chare out of all tables, so nobody else refers to it.
                unsafe {
                    task::discard_all(pe, chare);
                    ends.give_up(pe);
                    chare.free(pe);
                }
                pe.end_step();
            }
            None => std::mem::forget(ends),
        });
    }
}

impl Deref for ChareRef {
    type Target = ChareHead;

    #[inline]
    fn deref(&self) -> &ChareHead {
        // SAFETY: a `ChareRef` is used only while its chare lives (module docs); the header is shared by design.
        unsafe { self.0.as_ref() }
    }
}

#[cold]
#[track_caller]
fn busy<C: Chare>(chare: ChareRef) -> ! {
    assert!(chare.is::<C>(), "{}", foreign::<C>(chare));
    let name = chare.info().name;
    match chare.state.get() {
        State::Idle => {}
        State::Exclusive => {
            panic!("{name} is owned by an exclusive coroutine (`async fn(&mut self)`) until that ends")
        }
        State::Poisoned => panic!("{}", cannot_go_on(chare)),
    }
    panic!("{name} is borrowed already: `with` must not be called inside `with` or inside a plain method");
}

/// What becomes of a coroutine of a poisoned chare that needs its state, or sends in its name.
pub(crate) fn cannot_go_on(chare: ChareRef) -> String {
    let name = chare.info().name;
    format!("{name} was poisoned by an earlier panic, so this coroutine of it cannot go on either")
}

fn foreign<C: Chare>(chare: ChareRef) -> String {
    let (wanted, there) = (C::INFO.name, chare.info().name);
    format!(
        "this names a {wanted} of another run; here it would be a {there}: proxies are used in the run that made them"
    )
}

struct Borrow(ChareRef);

impl Drop for Borrow {
    #[inline]
    fn drop(&mut self) {
        self.0.borrowed.set(false);
        self.0.dirty.set(true);
    }
}

/// The state of a chare, owned by one exclusive coroutine until it ends.
pub struct Exclusive<C>(NonNull<C>);

// SAFETY: the token stands for `&mut C`.
unsafe impl<C: Send> Send for Exclusive<C> {}

impl<C> Exclusive<C> {
    /// The token of the coroutine that follows this one's, of the same start of its entry.
    ///
    /// # Safety
    /// This one, and any made of it before, is dropped before the other is used; the coroutine that gets the other is
    /// dropped before the chare.
    pub(crate) unsafe fn again(&self) -> Exclusive<C> {
        Exclusive(self.0)
    }
}

impl<C> Deref for Exclusive<C> {
    type Target = C;
    fn deref(&self) -> &C {
        // SAFETY: the token is unique and lives inside a coroutine that is dropped before the chare; `State::Exclusive`
        // keeps everybody else away.
        unsafe { self.0.as_ref() }
    }
}

impl<C> DerefMut for Exclusive<C> {
    fn deref_mut(&mut self) -> &mut C {
        // SAFETY: as in `deref`.
        unsafe { self.0.as_mut() }
    }
}
