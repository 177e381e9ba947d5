//! Conditions of entries, `#[entry(when = ..)]`: calls that are kept at their chare until they may run.
//!
//! A call whose condition does not hold when it is delivered gets a number and stands in the line of its entry (`line`).
//! After every step that had the state (with `&self`, too: there may be a `Cell` in it), the oldest kept call of the chare that may run does, and
//! again until none may: running one may let others run. They run one after another here, never one inside another.
//!
//! Invariants: between two steps no kept call of an idle chare may run, unless a [`GoOn`] is queued, since one turn does a
//! bounded part of them. Conditions, and what tags do to be found, are the user's code: the lines are taken out of the
//! chare's extra parts while they are looked at, and each look is guarded. A panic in it is that of the call.

use std::collections::VecDeque;

use super::line::{GuardLine, Line};
use crate::cell::{ChareRef, State};
use crate::entry::{self, Delivery, Entry, EntryInfo, Failure, Invoke};
use crate::error::CallError;
use crate::guard::UnderGuard;
use crate::ids::ChareId;
use crate::known::Known;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::wire::{Encoder, Kind, Leaves, Unsent};

/// Kept calls of a chare that run before others have their turn on the PE.
const RUNS_PER_TURN: usize = 32;

/// The condition of an entry; the macros make it.
pub trait When<E: Entry>: Copy + Send + 'static {
    /// Known when the program is compiled: such a call is run without a look.
    const IS_ALWAYS: bool = false;
    /// What a call that is kept waits for.
    type Key;
    /// Looks at the condition.
    fn look(self, state: &E::Chare, args: &E::Args) -> Look<Self::Key>;
    /// Puts a call at the end of its line and leaves `None`; if it panics, the call is where it was.
    fn keep(self, key: Self::Key, number: u64, call: &mut Option<KeptCall>, kept: &mut KeptCalls);
}

/// What a look says of a call.
pub enum Look<K> {
    /// It may run.
    Run,
    /// It has to wait, for this.
    Keep(K),
}

impl Look<()> {
    pub(super) fn run_if(holds: bool) -> Self {
        if holds { Look::Run } else { Look::Keep(()) }
    }
}

/// What a condition and guards say of a call.
#[must_use]
pub(crate) enum Ruling {
    /// It may run.
    Run,
    /// It has to wait.
    Keep,
    /// It never runs.
    GiveUp(GivenUp),
}

/// Why a guard has given its call up.
pub(crate) enum GivenUp {
    /// It decided so.
    Dropped,
    /// It returned an error.
    Failed(Failure),
}

/// A call that has to wait.
pub struct KeptCall(pub(super) Msg);

/// The contents of a kept call: arguments that are not looked at again when they run.
pub(super) struct Admitted<E: Entry>(pub(super) E::Args);

impl<E: Entry> Admitted<E> {
    /// In another process, where its chare has moved, it is looked at again.
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        Invoke::<E>(self.0).leave(to)
    }
}

impl<E: Entry> Payload for Admitted<E> {
    const NAME: Name = Name::Entry(E::INFO);
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Call, Self::leave);
    fn run(self, to: ChareId, reply: Reply, pe: &Pe) {
        match pe.find(to) {
            Some(chare) if chare.state.get() == State::Idle => {
                E::deliver(Delivery::new(pe, chare, self.0, reply));
            }
            _ => pe.undeliverable(Msg::new(to, reply, Invoke::<E>(self.0))),
        }
    }
}

/// The calls that one chare keeps.
#[derive(Default)]
pub struct KeptCalls {
    /// One for each entry that has kept a call, and one more if calls of it with guards are kept. First those of which a look costs the same however many calls there are.
    lines: Vec<Box<dyn Line>>,
    /// Calls that were ever kept: the number of the next.
    arrived: u64,
    /// Some are being run, by a function further up.
    is_running: bool,
    /// A `GoOn` is queued.
    goes_on: bool,
}

impl KeptCalls {
    /// The line of this type, which is that of one entry.
    pub(super) fn line<L: Line>(&mut self, make: impl FnOnce() -> L) -> &mut L {
        self.line_that(|_| true, make)
    }

    /// The line of this type that `is_wanted`.
    pub(super) fn line_that<L: Line>(
        &mut self,
        is_wanted: impl Fn(&L) -> bool,
        make: impl FnOnce() -> L,
    ) -> &mut L {
        let is_wanted = |line: &dyn Line| (line as &dyn Known).known_ref::<L>().is_some_and(&is_wanted);
        let place = self.lines.iter().position(|line| is_wanted(&**line)).unwrap_or_else(|| {
            let line = make();
            let place = if line.looks_at_each() { self.lines.len() } else { 0 };
            self.lines.insert(place, Box::new(line));
            place
        });
        let line: &mut dyn Known = &mut *self.lines[place];
        line.known_mut().expect("its type was compared")
    }

    fn count(&self) -> usize {
        self.lines.iter().map(|line| line.count()).sum()
    }

    /// How many there are of each entry.
    fn counts(&self) -> Vec<(&'static EntryInfo, usize)> {
        self.lines.iter().map(|line| (line.entry(), line.count())).collect()
    }

    fn is_empty(&self) -> bool {
        self.lines.iter().all(|line| line.count() == 0)
    }

    /// Takes the oldest call that need not wait any longer.
    fn take_next(&mut self, pe: &Pe, chare: ChareRef) -> Option<(Msg, Next)> {
        let mut oldest = None;
        for (place, line) in self.lines.iter_mut().enumerate().filter(|(_, line)| line.count() > 0) {
            let before = oldest.map_or(u64::MAX, |(number, _)| number);
            match guarded(pe, chare, line.entry(), || line.find(chare, before)) {
                Ok(Some(number)) => oldest = Some((number, place)),
                Ok(None) => {}
                Err(error) => {
                    line.blame();
                    return Some((line.take(pe), Next::Panicked(error)));
                }
            }
        }
        let line = &mut self.lines[oldest?.1];
        let next = match line.given_up() {
            Some(why) => Next::GivenUp(line.entry(), why),
            None => Next::Run,
        };
        Some((line.take(pe), next))
    }

    /// Takes all calls, in order of arrival.
    fn take_all(&mut self, pe: &Pe) -> Vec<Msg> {
        let mut all = Vec::new();
        for mut line in self.lines.drain(..) {
            line.take_all(pe, &mut all);
        }
        all.sort_unstable_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, msg)| msg).collect()
    }

    /// Drops all calls, at the end of their chare.
    pub(crate) fn give_up(&mut self, pe: &Pe) {
        pe.drop_each(self.take_all(pe));
    }
}

/// What becomes of a kept call that need not wait any longer.
enum Next {
    Run,
    Panicked(CallError),
    GivenUp(&'static EntryInfo, GivenUp),
}

/// Runs code of the user's for the sake of `entry` on `chare`, which counts as running.
fn guarded<R>(
    pe: &Pe,
    chare: ChareRef,
    entry: &'static EntryInfo,
    f: impl FnOnce() -> R,
) -> Result<R, CallError> {
    pe.begin_step(chare);
    let outcome = entry::guarded(pe, chare.id, entry, f);
    pe.end_step();
    outcome
}

/// Takes the kept calls out of the chare's extra parts, for a time in which none of its methods runs.
fn take(chare: ChareRef) -> KeptCalls {
    chare.extra(|extra| std::mem::take(&mut extra.kept))
}

fn put_back(chare: ChareRef, kept: KeptCalls) {
    chare.extra(|extra| extra.kept = kept);
}

/// What the condition of its entry says of a call of `chare`, in whose name it is looked at.
pub(crate) fn look<E: Entry, W: When<E>>(chare: ChareRef, args: &E::Args, when: W) -> Ruling {
    if W::IS_ALWAYS {
        return Ruling::Run;
    }
    match chare.look(|state: &mut E::Chare| when.look(state, args)) {
        Look::Run => Ruling::Run,
        Look::Keep(_) => Ruling::Keep,
    }
}

/// What becomes of a call of an entry that has a condition: it runs, or is kept.
pub(crate) fn deliver<E: Entry>(delivery: Delivery<'_, E>, when: impl When<E>) {
    let (pe, chare) = (delivery.pe, delivery.chare);
    let looked =
        guarded(pe, chare, E::INFO, || chare.look(|state: &mut E::Chare| when.look(state, &delivery.args)));
    let key = match looked {
        Ok(Look::Run) => return E::deliver(delivery),
        Ok(Look::Keep(key)) => key,
        Err(error) => {
            let Delivery { args, reply, .. } = delivery;
            return refuse(pe, chare, Msg::new(chare.id, reply, Admitted::<E>(args)), error);
        }
    };
    let Delivery { args, reply, .. } = delivery;
    let mut call = Some(KeptCall(Msg::new(chare.id, reply, Admitted::<E>(args))));
    let put = keep(pe, chare, |number, kept| {
        guarded(pe, chare, E::INFO, || when.keep(key, number, &mut call, kept))
    });
    if let (Err(error), Some(KeptCall(msg))) = (put, call) {
        refuse(pe, chare, msg, error);
    }
}

/// What becomes of a call with a guard.
pub(crate) fn deliver_guarded(pe: &Pe, chare: ChareRef, call: UnderGuard) {
    let entry = call.entry();
    match guarded(pe, chare, entry, || call.look(chare)) {
        Ok(Ruling::Run) => call.into_call(pe).run(pe),
        Ok(Ruling::Keep) => {
            let msg = Msg::new(chare.id, Reply::none(), call);
            keep(pe, chare, |number, kept| GuardLine::of(kept, entry).push(number, msg));
        }
        Ok(Ruling::GiveUp(why)) => give_up(pe, chare, call.into_call(pe), entry, why),
        Err(error) => refuse(pe, chare, call.into_call(pe), error),
    }
}

/// Lets `put` put a call of `chare` under its number among those that are kept.
fn keep<R>(pe: &Pe, chare: ChareRef, put: impl FnOnce(u64, &mut KeptCalls) -> R) -> R {
    let mut kept = take(chare);
    kept.arrived += 1;
    let put = put(kept.arrived, &mut kept);
    let counts = pe.exceeds_budget(kept.count()).then(|| kept.counts());
    put_back(chare, kept);
    if let Some(counts) = counts {
        pe.warn_of_kept(chare, counts);
    }
    put
}

/// A call whose condition panicked as it arrived.
#[cold]
fn refuse(pe: &Pe, chare: ChareRef, msg: Msg, error: CallError) {
    fail(pe, chare, msg, error);
    entry::after_step(pe, chare);
}

/// A call whose condition panicked.
#[cold]
fn fail(pe: &Pe, chare: ChareRef, msg: Msg, error: CallError) {
    if let CallError::Panicked(panic) = &error {
        chare.panicked(pe, panic);
    }
    msg.lose(pe, error);
}

/// A call whose guard has given it up. That it was dropped is what the caller asked for: nobody needs to hear of it.
#[cold]
fn give_up(pe: &Pe, chare: ChareRef, mut msg: Msg, entry: &'static EntryInfo, why: GivenUp) {
    match why {
        GivenUp::Failed(failure) => msg.lose(pe, entry::failed(pe, chare.id, entry, failure)),
        GivenUp::Dropped => {
            msg.take_reply().drop_call(pe, chare.id);
            pe.guard(|| drop(msg));
        }
    }
}

/// Runs the kept calls of `chare` that may run; somebody may have changed its state.
pub(super) fn run_ready(pe: &Pe, chare: ChareRef) {
    let begins = chare.extra_if_any(|extra| {
        let begins = !extra.kept.is_running && !extra.kept.is_empty();
        extra.kept.is_running |= begins;
        begins
    });
    if begins != Some(true) {
        return;
    }
    let is_done = run_some(pe, chare);
    chare.extra(|extra| extra.kept.is_running = false);
    if !is_done {
        run_ready_later(pe, chare);
    }
}

/// As `run_ready`, when what is running has ended, and before what is queued.
pub(super) fn run_ready_later(pe: &Pe, chare: ChareRef) {
    let queues = chare.extra_if_any(|extra| {
        let kept = &mut extra.kept;
        !kept.is_empty() && !std::mem::replace(&mut kept.goes_on, true)
    });
    if queues == Some(true) {
        let go_on = Msg::new(chare.id, Reply::none(), GoOn);
        pe.enqueue_first(VecDeque::from([Work::Msg(go_on)]));
    }
}

/// Takes all kept calls of a chare that goes, in order of arrival.
pub(crate) fn take_all(pe: &Pe, chare: ChareRef) -> Vec<Msg> {
    match chare.extra_if_any(|extra| std::mem::take(&mut extra.kept)) {
        Some(mut kept) => kept.take_all(pe),
        None => Vec::new(),
    }
}

/// Whether there is nothing left to do now.
fn run_some(pe: &Pe, chare: ChareRef) -> bool {
    for _ in 0..RUNS_PER_TURN {
        // The end of the run drops what is kept, and so does the end of an exclusive coroutine look at it again.
        if pe.shared().is_stopping() || chare.state.get() == State::Exclusive {
            return true;
        }
        let mut kept = take(chare);
        if chare.state.get() == State::Poisoned {
            let calls = kept.take_all(pe);
            put_back(chare, kept);
            for msg in calls {
                msg.lose(pe, chare.poisoned());
            }
            return true;
        }
        let next = kept.take_next(pe, chare);
        put_back(chare, kept);
        match next {
            None => return true,
            Some((msg, Next::Run)) => {
                pe.note_kept(&msg);
                msg.run(pe);
            }
            Some((msg, Next::Panicked(error))) => fail(pe, chare, msg, error),
            Some((msg, Next::GivenUp(entry, why))) => give_up(pe, chare, msg, entry, why),
        }
    }
    false
}

/// More kept calls of a chare may be able to run than had their turn.
struct GoOn;

impl Payload for GoOn {
    const NAME: Name = Name::Runtime("the kept calls of a chare");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, of: ChareId, reply: Reply, pe: &Pe) {
        let Some(chare) = pe.find(of) else { return pe.undeliverable(Msg::new(of, reply, self)) };
        chare.extra(|extra| extra.kept.goes_on = false);
        run_ready(pe, chare);
    }

    /// What a chare keeps goes with it.
    fn lost(self, _: ChareId, _: Reply, _: &Pe, _: CallError) {}
}

/// The calls that a chare keeps for one entry, in the words of the hang report.
pub(crate) struct Keeping {
    pub(crate) entry: &'static EntryInfo,
    pub(crate) count: usize,
    /// The condition's source.
    pub(crate) condition: &'static str,
    /// What is compared: that of the chare, then those of the calls.
    pub(crate) tags: Option<String>,
}

/// What `chare` keeps. Calls the user's code that shows tags.
pub(crate) fn keeping(pe: &Pe, chare: ChareRef) -> Vec<Keeping> {
    if chare.extra_if_any(|extra| extra.kept.is_empty()) != Some(false) {
        return Vec::new();
    }
    let kept = take(chare);
    let describe = |line: &dyn Line| {
        let tags = guarded(pe, chare, line.entry(), || line.tags(chare)).ok().flatten();
        Keeping { entry: line.entry(), count: line.count(), condition: line.condition(), tags }
    };
    let lines = kept.lines.iter().filter(|line| line.count() > 0);
    let keeping = lines.map(|line| describe(&**line)).collect();
    put_back(chare, kept);
    keeping
}
