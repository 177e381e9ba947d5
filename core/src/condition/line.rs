//! The kinds of conditions, and for each the line in which calls of one entry wait for it.
//!
//! They differ in what a look costs. A condition on the state alone is looked at once for all calls; a tag is looked up;
//! any other condition is looked at for each call. Each line keeps its calls in order of arrival.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;

use rustc_hash::{FxHashMap, FxHasher};

use super::when::{Admitted, GivenUp, KeptCall, KeptCalls, Look, Ruling, When};
use crate::cell::{ChareRef, State};
use crate::entry::{Entry, EntryInfo};
use crate::guard::UnderGuard;
use crate::known::Known;
use crate::message::Msg;
use crate::scheduler::pe::Pe;

/// Wanted tags, or guards, that a report names for one entry of one chare; the rest is counted.
const TAGS_PER_LINE: usize = 8;

/// The kept calls of one entry of one chare.
pub(super) trait Line: Known + Send {
    /// Whether a look costs more the more calls there are.
    fn looks_at_each(&self) -> bool {
        false
    }
    fn entry(&self) -> &'static EntryInfo;
    /// The condition's source.
    fn condition(&self) -> &'static str;
    fn count(&self) -> usize;
    /// Finds the oldest call that need not wait, if its number is less than `before`, and gives the number. Runs user code, and
    /// may panic.
    fn find(&mut self, chare: ChareRef, before: u64) -> Option<u64>;
    /// Why the call that was found last never runs, if so.
    fn given_up(&mut self) -> Option<GivenUp> {
        None
    }
    /// Finds the call that is to blame for a panic in `find`. There are calls in the line.
    fn blame(&mut self);
    /// Takes the call that was found last.
    fn take(&mut self, pe: &Pe) -> Msg;
    fn take_all(&mut self, pe: &Pe, into: &mut Vec<(u64, Msg)>);
    /// What the calls wait for, closer than the condition says. Runs user code, and may panic.
    fn tags(&self, _: ChareRef) -> Option<String> {
        None
    }
}

/// No condition.
#[derive(Clone, Copy)]
pub(crate) struct Always;

impl<E: Entry> When<E> for Always {
    const IS_ALWAYS: bool = true;
    type Key = ();
    fn look(self, _: &E::Chare, _: &E::Args) -> Look<()> {
        Look::Run
    }
    fn keep(self, (): (), _: u64, _: &mut Option<KeptCall>, _: &mut KeptCalls) {}
}

/// A condition on the state alone.
#[derive(Clone, Copy)]
pub struct OnState<F> {
    condition: &'static str,
    holds: F,
}

/// `condition` is its source, for reports.
pub fn on_state<E: Entry, F: Fn(&E::Chare) -> bool>(condition: &'static str, holds: F) -> OnState<F> {
    OnState { condition, holds }
}

impl<E: Entry, F> When<E> for OnState<F>
where
    F: Fn(&E::Chare) -> bool + Copy + Send + 'static,
{
    type Key = ();
    fn look(self, state: &E::Chare, _: &E::Args) -> Look<()> {
        Look::run_if((self.holds)(state))
    }
    fn keep(self, (): (), number: u64, call: &mut Option<KeptCall>, kept: &mut KeptCalls) {
        let line = kept.line(|| StateLine::<E, F> { on: self, calls: VecDeque::new(), of: PhantomData });
        line.calls.extend(call.take().map(|KeptCall(msg)| (number, msg)));
    }
}

struct StateLine<E, F> {
    on: OnState<F>,
    calls: VecDeque<(u64, Msg)>,
    of: PhantomData<fn() -> E>,
}

impl<E: Entry, F> Line for StateLine<E, F>
where
    F: Fn(&E::Chare) -> bool + Send + 'static,
{
    fn entry(&self) -> &'static EntryInfo {
        E::INFO
    }

    fn condition(&self) -> &'static str {
        self.on.condition
    }

    fn count(&self) -> usize {
        self.calls.len()
    }

    fn find(&mut self, chare: ChareRef, before: u64) -> Option<u64> {
        let first = self.calls.front().map(|(number, _)| *number).filter(|first| *first < before)?;
        chare.look(|state: &mut E::Chare| (self.on.holds)(state)).then_some(first)
    }

    fn blame(&mut self) {}

    fn take(&mut self, _: &Pe) -> Msg {
        self.calls.pop_front().expect("the first call was found").1
    }

    fn take_all(&mut self, _: &Pe, into: &mut Vec<(u64, Msg)>) {
        into.extend(self.calls.drain(..));
    }
}

/// A condition on the state and the arguments.
#[derive(Clone, Copy)]
pub struct OnCall<F> {
    condition: &'static str,
    holds: F,
}

/// As [`on_state`].
pub fn on_call<E: Entry, F>(condition: &'static str, holds: F) -> OnCall<F>
where
    F: Fn(&E::Chare, &E::Args) -> bool,
{
    OnCall { condition, holds }
}

impl<E: Entry, F> When<E> for OnCall<F>
where
    F: Fn(&E::Chare, &E::Args) -> bool + Copy + Send + 'static,
{
    type Key = ();
    fn look(self, state: &E::Chare, args: &E::Args) -> Look<()> {
        Look::run_if((self.holds)(state, args))
    }
    fn keep(self, (): (), number: u64, call: &mut Option<KeptCall>, kept: &mut KeptCalls) {
        let line =
            kept.line(|| CallLine::<E, F> { on: self, calls: BTreeMap::new(), found: 0, of: PhantomData });
        line.calls.extend(call.take().map(|KeptCall(msg)| (number, msg)));
    }
}

/// Calls that are looked at one by one.
struct CallLine<E, F> {
    on: OnCall<F>,
    calls: BTreeMap<u64, Msg>,
    /// The call that was looked at last.
    found: u64,
    of: PhantomData<fn() -> E>,
}

impl<E: Entry, F> Line for CallLine<E, F>
where
    F: Fn(&E::Chare, &E::Args) -> bool + Send + 'static,
{
    fn looks_at_each(&self) -> bool {
        true
    }

    fn entry(&self) -> &'static EntryInfo {
        E::INFO
    }

    fn condition(&self) -> &'static str {
        self.on.condition
    }

    fn count(&self) -> usize {
        self.calls.len()
    }

    fn find(&mut self, chare: ChareRef, before: u64) -> Option<u64> {
        let CallLine { on, calls, found, .. } = self;
        chare.look(|state: &mut E::Chare| {
            let mut calls = calls.range(..before);
            calls.find_map(|(number, msg)| {
                *found = *number;
                let Admitted(args) = msg.payload::<Admitted<E>>().expect("kept by this entry");
                (on.holds)(state, args).then_some(*number)
            })
        })
    }

    fn blame(&mut self) {}

    fn take(&mut self, _: &Pe) -> Msg {
        self.calls.remove(&self.found).expect("the call was looked at last")
    }

    fn take_all(&mut self, _: &Pe, into: &mut Vec<(u64, Msg)>) {
        into.extend(std::mem::take(&mut self.calls));
    }
}

/// The calls of one entry that have guards.
pub(super) struct GuardLine {
    entry: &'static EntryInfo,
    calls: BTreeMap<u64, Msg>,
    /// The call that was looked at last.
    found: u64,
    /// Why that never runs, if so.
    given_up: Option<GivenUp>,
}

impl GuardLine {
    /// That of an entry.
    pub(super) fn of<'a>(kept: &'a mut KeptCalls, entry: &'static EntryInfo) -> &'a mut GuardLine {
        let new = || GuardLine { entry, calls: BTreeMap::new(), found: 0, given_up: None };
        kept.line_that(|line: &GuardLine| *line.entry == *entry, new)
    }

    pub(super) fn push(&mut self, number: u64, msg: Msg) {
        self.calls.insert(number, msg);
    }
}

fn under_guard(msg: &Msg) -> &UnderGuard {
    msg.payload().expect("a call with a guard")
}

impl Line for GuardLine {
    fn looks_at_each(&self) -> bool {
        true
    }

    fn entry(&self) -> &'static EntryInfo {
        self.entry
    }

    fn condition(&self) -> &'static str {
        "its guard lets it run"
    }

    fn count(&self) -> usize {
        self.calls.len()
    }

    fn find(&mut self, chare: ChareRef, before: u64) -> Option<u64> {
        let GuardLine { calls, found, given_up, .. } = self;
        calls.range(..before).find_map(|(number, msg)| {
            *found = *number;
            *given_up = match under_guard(msg).look(chare) {
                Ruling::Keep => return None,
                Ruling::Run => None,
                Ruling::GiveUp(why) => Some(why),
            };
            Some(*number)
        })
    }

    fn given_up(&mut self) -> Option<GivenUp> {
        self.given_up.take()
    }

    fn blame(&mut self) {}

    fn take(&mut self, pe: &Pe) -> Msg {
        let msg = self.calls.remove(&self.found).expect("the call was looked at last");
        UnderGuard::unguarded(msg, pe)
    }

    fn take_all(&mut self, _: &Pe, into: &mut Vec<(u64, Msg)>) {
        into.extend(std::mem::take(&mut self.calls));
    }

    fn tags(&self, _: ChareRef) -> Option<String> {
        let guards: BTreeSet<_> = self.calls.values().map(|msg| under_guard(msg).guard_name()).collect();
        let named = guards.iter().take(TAGS_PER_LINE).map(|guard| (*guard).to_owned()).collect();
        (!guards.is_empty()).then(|| list(named, guards.len()))
    }
}

/// The condition that a part of the state, the chare's tag, equals a part of the arguments, the call's tag.
pub struct OnTag<T, S, A> {
    condition: &'static str,
    of_state: S,
    of_args: A,
    show: fn(&T) -> Option<String>,
}

impl<T, S: Copy, A: Copy> Clone for OnTag<T, S, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, S: Copy, A: Copy> Copy for OnTag<T, S, A> {}

#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a tag",
    note = "calls that wait for tags are found by hash: a tag is `Eq`, `Hash`, `Clone` and `Send`; otherwise write a \
            closure, `when = |s: &Self, ..| ..`"
)]
/// What calls can wait for in `when(self.tag == tag)`.
pub trait TagValue: Eq + Hash + Clone + Send + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Eq + Hash + Clone + Send + 'static> TagValue for T {}

/// As [`on_state`].
pub fn on_tag<E: Entry, T: TagValue, S, A>(condition: &'static str, of_state: S, of_args: A) -> OnTag<T, S, A>
where
    S: Fn(&E::Chare) -> &T,
    A: Fn(&E::Args) -> &T,
{
    OnTag { condition, of_state, of_args, show: |_| None }
}

/// Tags that can be shown are shown in reports: `(&&tag).shown()` means this where it applies, else [`ShowNothing`].
pub trait ShowDebug {
    /// The same condition.
    type Shown;
    /// The condition, whose tags are shown.
    fn shown(&self) -> Self::Shown;
}

/// What there is for other tags.
pub trait ShowNothing {
    /// The same condition.
    type Shown;
    /// The condition as it is.
    fn shown(&self) -> Self::Shown;
}

impl<T: Debug, S: Copy, A: Copy> ShowDebug for &OnTag<T, S, A> {
    type Shown = OnTag<T, S, A>;
    fn shown(&self) -> OnTag<T, S, A> {
        OnTag { show: |tag| Some(format!("{tag:?}")), ..**self }
    }
}

impl<T, S: Copy, A: Copy> ShowNothing for OnTag<T, S, A> {
    type Shown = Self;
    fn shown(&self) -> Self {
        *self
    }
}

/// A tag and its hash, which is taken once: tables of hashes grow without running user code.
pub struct Tag<T> {
    hash: u64,
    value: T,
}

fn hash_of<T: Hash>(tag: &T) -> u64 {
    let mut hasher = FxHasher::default();
    tag.hash(&mut hasher);
    hasher.finish()
}

impl<E: Entry, T, S, A> When<E> for OnTag<T, S, A>
where
    T: TagValue,
    S: Fn(&E::Chare) -> &T + Copy + Send + 'static,
    A: Fn(&E::Args) -> &T + Copy + Send + 'static,
{
    type Key = Tag<T>;

    fn look(self, state: &E::Chare, args: &E::Args) -> Look<Tag<T>> {
        let wanted = (self.of_args)(args);
        if *(self.of_state)(state) == *wanted {
            return Look::Run;
        }
        Look::Keep(Tag { hash: hash_of(wanted), value: wanted.clone() })
    }

    fn keep(self, tag: Tag<T>, number: u64, call: &mut Option<KeptCall>, kept: &mut KeptCalls) {
        let new = || TagLine::<E, T, S, A> {
            on: self,
            tags: FxHashMap::default(),
            count: 0,
            found: (0, 0),
            of: PhantomData,
        };
        let line = kept.line(new);
        let place = line.place(tag.hash, &tag.value);
        let alike = line.tags.entry(tag.hash).or_default();
        let place = place.unwrap_or_else(|| {
            alike.push(Wanted { tag: tag.value, calls: VecDeque::new() });
            alike.len() - 1
        });
        alike[place].calls.extend(call.take().map(|KeptCall(msg)| (number, msg)));
        line.count += 1;
    }
}

/// The first ones of `count` names, and how many more there are.
fn list(named: Vec<String>, count: usize) -> String {
    let more = count - named.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    named.join(", ") + &more
}

/// The calls with one tag; there are some.
struct Wanted<T> {
    tag: T,
    calls: VecDeque<(u64, Msg)>,
}

impl<T> Wanted<T> {
    fn first(&self) -> u64 {
        self.calls.front().expect("there are calls with this tag").0
    }
}

struct TagLine<E, T, S, A> {
    on: OnTag<T, S, A>,
    /// By hash.
    tags: FxHashMap<u64, Vec<Wanted<T>>>,
    count: usize,
    /// The hash of the tag that was found last, and the place among those with the same.
    found: (u64, usize),
    of: PhantomData<fn() -> (E, A)>,
}

impl<E, T: TagValue, S, A> TagLine<E, T, S, A> {
    /// The place of a tag among those with the same hash.
    fn place(&self, hash: u64, tag: &T) -> Option<usize> {
        self.tags.get(&hash)?.iter().position(|wanted| wanted.tag == *tag)
    }
}

impl<E, T, S, A> TagLine<E, T, S, A> {
    /// All tags with their places, in no order.
    fn iter(&self) -> impl Iterator<Item = ((u64, usize), &Wanted<T>)> {
        self.tags.iter().flat_map(|(hash, alike)| {
            alike.iter().enumerate().map(|(place, wanted)| ((*hash, place), wanted))
        })
    }
}

impl<E: Entry, T, S, A> Line for TagLine<E, T, S, A>
where
    T: TagValue,
    S: Fn(&E::Chare) -> &T + Send + 'static,
    A: Send + 'static,
{
    fn entry(&self) -> &'static EntryInfo {
        E::INFO
    }

    fn condition(&self) -> &'static str {
        self.on.condition
    }

    fn count(&self) -> usize {
        self.count
    }

    fn find(&mut self, chare: ChareRef, before: u64) -> Option<u64> {
        let found = chare.look(|state: &mut E::Chare| {
            let tag = (self.on.of_state)(state);
            let hash = hash_of(tag);
            Some((hash, self.place(hash, tag)?))
        });
        self.found = found?;
        let (hash, place) = self.found;
        Some(self.tags[&hash][place].first()).filter(|first| *first < before)
    }

    fn blame(&mut self) {
        let oldest = self.iter().min_by_key(|(_, wanted)| wanted.first());
        self.found = oldest.expect("there are calls in this line").0;
    }

    fn take(&mut self, pe: &Pe) -> Msg {
        let (hash, place) = self.found;
        let alike = self.tags.get_mut(&hash).expect("the tag was found");
        let (_, msg) = alike[place].calls.pop_front().expect("there are calls with this tag");
        self.count -= 1;
        if alike[place].calls.is_empty() {
            let wanted = alike.swap_remove(place);
            if alike.is_empty() {
                self.tags.remove(&hash);
            }
            pe.guard(|| drop(wanted.tag));
        }
        msg
    }

    fn take_all(&mut self, pe: &Pe, into: &mut Vec<(u64, Msg)>) {
        self.count = 0;
        for wanted in std::mem::take(&mut self.tags).into_values().flatten() {
            into.extend(wanted.calls);
            pe.guard(|| drop(wanted.tag));
        }
    }

    fn tags(&self, chare: ChareRef) -> Option<String> {
        let mut oldest: Vec<&Wanted<T>> = self.iter().map(|(_, wanted)| wanted).collect();
        oldest.sort_unstable_by_key(|wanted| wanted.first());
        let wanted: Option<Vec<String>> =
            oldest.iter().take(TAGS_PER_LINE).map(|wanted| (self.on.show)(&wanted.tag)).collect();
        let text = format!("wanted: {}", list(wanted?, oldest.len()));
        let is_idle = chare.state.get() == State::Idle;
        let own =
            is_idle.then(|| chare.look(|state: &mut E::Chare| (self.on.show)((self.on.of_state)(state))));
        Some(match own.flatten() {
            Some(own) => format!("there: {own}; {text}"),
            None => text,
        })
    }
}
