//! The hang report: what each coroutine of a program that can never go on waits for and where, what is held, and who holds
//! up the others.
//!
//! It is written when all PEs have stopped, each PE its own part, in two passes: first every PE tells what the others need
//! of it (names, who is lost, how far the reductions have come), then each writes. Invariant: how long a part is depends on
//! the program's text, not on how many chares, coroutines and messages there are: what is not named is counted.
//!
//! Processes tell each other less ([`Findings`]): how far the reductions have come, and names and fates of those whom somebody is about to name. Who
//! these are is found by writing all parts once more than is needed.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::Location;
use std::sync::{Arc, Mutex, MutexGuard};

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::caught;
use crate::cell::{ChareRef, State};
use crate::channel;
use crate::collection::{Collection, CollectionInfo, Place};
use crate::condition::when::{self, Keeping};
use crate::entry::EntryInfo;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId};
use crate::message::{Msg, Name};
use crate::scheduler::pe::Pe;
use crate::scheduler::queue::Work;
use crate::scheduler::slots::Phase;
use crate::scheduler::task::TaskKey;
use crate::waiting::{Waiter, What};

/// Lines that one PE writes of each kind, and names in a line; the rest is counted.
const LINES_PER_KIND: usize = 20;
/// Different things in the line of one coroutine that waits for several.
const WAITS_PER_LINE: usize = 8;
/// Chares of other processes whose names and fates these are asked for; the others are described.
const MOST_MENTIONED: usize = 10_000;

/// The hang report of a run, while the PEs write it.
pub(crate) struct HangReport {
    known: Mutex<Known>,
    parts: Mutex<Vec<String>>,
}

/// What processes tell each other of a hang.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Findings {
    /// Of each collection: how many elements have contributed to how many reductions.
    contributions: Vec<(CollectionId, BTreeMap<u64, u64>)>,
    /// Who is about to be named.
    mentioned: BTreeSet<ChareId>,
    /// Names of singletons, and of elements of sparse arrays.
    singles: Vec<(ChareId, Cow<'static, str>)>,
    sparse: Vec<(ChareId, String)>,
    lost: Vec<(ChareId, Lost)>,
}

impl HangReport {
    /// Of so many PEs, which may be some of the processes'.
    pub(crate) fn new(pe_count: usize, is_all: bool) -> Self {
        let known = Known { is_partial: !is_all, counts_are_partial: !is_all, ..Known::default() };
        HangReport { known: known.into(), parts: Mutex::new(vec![String::new(); pe_count]) }
    }

    /// Between the passes, where there are other processes: notes whom this PE is about to name.
    pub(crate) fn mention(&self, pe: &Pe) {
        part(pe, &lock(&self.known));
    }

    /// How far the reductions have come, as far as is known here, and whom somebody is about to name.
    pub(crate) fn questions(&self) -> Findings {
        let known = lock(&self.known);
        let contributions = known.contributions.iter().map(|(id, counts)| (*id, counts.clone())).collect();
        let mentioned = known.mentioned.borrow().clone();
        Findings { contributions, mentioned, ..Findings::default() }
    }

    /// Adds the questions of another process to the own.
    pub(crate) fn add_questions(&self, of: Findings) {
        let mut known = lock(&self.known);
        for (id, counts) in of.contributions {
            let all = known.contributions.entry(id).or_default();
            for (count, elements) in counts {
                let sum = all.entry(count).or_default();
                *sum = sum.saturating_add(elements);
            }
        }
        known.mentioned.get_mut().extend(of.mentioned);
    }

    /// All processes have asked.
    pub(crate) fn counts_all(&self) {
        lock(&self.known).counts_are_partial = false;
    }

    /// Takes the questions of all processes.
    pub(crate) fn set_questions(&self, of_all: Findings) {
        let mut known = lock(&self.known);
        known.contributions = of_all.contributions.into_iter().collect();
        known.mentioned = of_all.mentioned.into();
    }

    /// What is known here of those whom somebody is about to name.
    pub(crate) fn answers(&self) -> Findings {
        fn of<T: Clone>(asked: &BTreeSet<ChareId>, known: &FxHashMap<ChareId, T>) -> Vec<(ChareId, T)> {
            asked.iter().filter_map(|id| Some((*id, known.get(id)?.clone()))).collect()
        }
        let known = lock(&self.known);
        let asked = known.mentioned.borrow();
        let (singles, sparse) = (of(&asked, &known.singles), of(&asked, &known.sparse));
        Findings { singles, sparse, lost: of(&asked, &known.lost), ..Findings::default() }
    }

    /// Takes what another process knows of them.
    pub(crate) fn add_answers(&self, of: Findings) {
        let mut known = lock(&self.known);
        known.singles.extend(of.singles);
        known.sparse.extend(of.sparse);
        known.lost.extend(of.lost);
    }

    /// All processes have answered, so there is nobody else than those whom they know, unless not all could be asked for.
    pub(crate) fn knows_all(&self) {
        let mut known = lock(&self.known);
        known.is_partial = known.mentioned.get_mut().len() >= MOST_MENTIONED;
    }

    /// The first pass of a PE: what the others need to know of it.
    pub(crate) fn tell(&self, pe: &Pe) {
        lock(&self.known).learn(pe);
    }

    /// The second pass, after all PEs have told.
    pub(crate) fn write(&self, pe: &Pe) {
        let part = part(pe, &lock(&self.known));
        lock(&self.parts)[pe.shared().own_number(pe.id())] = part;
    }

    pub(crate) fn into_text(self) -> String {
        lock(&self.parts).concat()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Why a chare will never do anything again.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Lost {
    Poisoned,
    Unconstructed,
}

/// What the PEs know together.
#[derive(Default)]
struct Known {
    collections: FxHashMap<CollectionId, Arc<CollectionInfo>>,
    singles: FxHashMap<ChareId, Cow<'static, str>>,
    /// Names of the elements of sparse arrays.
    sparse: FxHashMap<ChareId, String>,
    lost: FxHashMap<ChareId, Lost>,
    /// Of each collection: how many elements have contributed to how many reductions.
    contributions: FxHashMap<CollectionId, BTreeMap<u64, u64>>,
    /// What other processes know is not known here.
    is_partial: bool,
    /// Nor how many of their elements have contributed.
    counts_are_partial: bool,
    /// Who was named.
    mentioned: RefCell<BTreeSet<ChareId>>,
}

impl Known {
    fn learn(&mut self, pe: &Pe) {
        pe.for_each_single(|chare| {
            self.singles.insert(chare.id, chare.info().name.into());
        });
        for_each_chare(pe, |chare| {
            if chare.state.get() == State::Poisoned {
                self.lost.insert(chare.id, Lost::Poisoned);
            }
        });
        pe.for_each_stillborn(|id, error| {
            self.lost.insert(id, Lost::Unconstructed);
            if let (Some(_), Some(entry)) = (id.collection.single_home(), entry_of(error)) {
                self.singles.insert(id, entry.chare.into());
            }
        });
        for collection in pe.directory.iter() {
            self.collections.entry(collection.id()).or_insert_with(|| collection.info.clone());
            if collection.info.is_sparse() {
                let mut ids = Vec::new();
                collection.for_each_element(|chare| ids.push(chare.id));
                // Outside of the tables: names are the user's code.
                let name = |id: ChareId| (id, collection.name_of(pe, id.element));
                self.sparse.extend(ids.into_iter().map(name));
            }
            let elements_by_count = self.contributions.entry(collection.id()).or_default();
            for (_, contributed) in contributions(pe, collection) {
                *elements_by_count.entry(contributed).or_default() += 1;
            }
        }
    }

    /// Somebody is about to be named of whom another process may know more.
    fn mention(&self, id: ChareId) {
        let mut mentioned = self.mentioned.borrow_mut();
        if self.is_partial && mentioned.len() < MOST_MENTIONED {
            mentioned.insert(id);
        }
    }

    fn name(&self, id: ChareId) -> String {
        if let Some(info) = self.collections.get(&id.collection) {
            let name = self.sparse.get(&id).cloned().unwrap_or_else(|| {
                if info.is_sparse() {
                    self.mention(id);
                }
                info.name_of(id.element)
            });
            return info.chare.name.to_owned() + &name;
        }
        if !self.singles.contains_key(&id) {
            self.mention(id);
        }
        let unknown = match id.collection.single_home() {
            Some(_) if self.is_partial => "a singleton, perhaps of another process",
            Some(_) => "a singleton whose constructor has not ended",
            None => "a chare of a collection that was never created",
        };
        self.singles.get(&id).map_or(unknown, |name| &**name).to_owned()
    }

    /// What follows the name of a chare that is lost.
    fn fate(&self, id: ChareId) -> &'static str {
        match self.lost.get(&id) {
            None => "",
            Some(Lost::Poisoned) => " (poisoned)",
            Some(Lost::Unconstructed) => " (its constructor failed)",
        }
    }

    fn name_and_fate(&self, id: ChareId) -> String {
        if !self.lost.contains_key(&id) {
            self.mention(id);
        }
        self.name(id) + self.fate(id)
    }

    /// Reductions that some elements of the collection have contributed to, but not `first` of them and so not all.
    fn unfinished_since(&self, collection: CollectionId, first: u64) -> Range<u64> {
        let most = self.contributions.get(&collection).and_then(|counts| counts.last_key_value());
        first..most.map_or(first, |(most, _)| *most)
    }

    /// How many elements have contributed to a reduction.
    fn contributors(&self, collection: CollectionId, sequence: u64) -> u64 {
        let counts = self.contributions.get(&collection);
        counts.map_or(0, |counts| {
            counts
                .range(sequence.saturating_add(1)..)
                .fold(0, |sum: u64, (_, elements)| sum.saturating_add(*elements))
        })
    }

    /// How many elements there are.
    fn contributors_of_all(&self, collection: CollectionId) -> u64 {
        self.contributions
            .get(&collection)
            .map_or(0, |counts| counts.values().fold(0, |sum: u64, elements| sum.saturating_add(*elements)))
    }

    fn describe(&self, what: &What) -> String {
        match what {
            What::Call { entry, to } => {
                let is_known = self.collections.contains_key(&to.collection);
                let name = if is_known { self.name(*to) } else { entry.chare.to_owned() };
                format!("the outcome of {name}.{}", entry.name)
            }
            What::Reduction { collection, sequence } => {
                let chare = self.collections.get(collection).map_or("a collection", |info| info.chare.name);
                format!("reduction {sequence} of {chare}")
            }
            What::Receive { peer, tag } => {
                format!("a value from {} in channel {tag}", self.name_and_fate(*peer))
            }
            What::Credit { peer, tag } => {
                format!("credit from {} in channel {tag}", self.name_and_fate(*peer))
            }
            _ => in_general(what),
        }
    }
}

/// What a wait is for, without numbers and indexes: the same for all that wait alike.
fn in_general(what: &What) -> String {
    match what {
        What::Call { entry, .. } => format!("the outcome of {}.{}", entry.chare, entry.name),
        What::Broadcast { entry } => format!("the end of {}.{} on all elements", entry.chare, entry.name),
        What::Creation { chare } => format!("the creation of {}", chare.name),
        What::Promise => "a promise".to_owned(),
        What::Reduction { .. } => "a reduction".to_owned(),
        What::Sleep => "a timer".to_owned(),
        What::Quiescence => "quiescence".to_owned(),
        What::Receive { .. } => "a value in a channel".to_owned(),
        What::Credit { .. } => "credit in a channel".to_owned(),
        What::Condition => "a condition on its own state (wait_until)".to_owned(),
    }
}

/// The constructor or method whose error this is.
fn entry_of(error: &CallError) -> Option<&'static EntryInfo> {
    match error {
        CallError::Panicked(panicked) => Some(panicked.entry),
        CallError::Failed(failed) => Some(failed.entry),
        _ => None,
    }
}

/// The elements here, with the reductions that each, or its constructor, has contributed to.
fn contributions(pe: &Pe, collection: &Collection) -> impl Iterator<Item = (u64, u64)> {
    (0..collection.place_count()).filter_map(|place| match collection.at(place) {
        Place::Here(chare) => Some((chare.id.element, chare.contributed.get())),
        Place::Unborn(element) => {
            let id = ChareId { collection: collection.id(), element };
            Some((element, pe.unborn_contributions(id)))
        }
        Place::Vacant => None,
    })
}

fn for_each_chare(pe: &Pe, mut f: impl FnMut(ChareRef)) {
    pe.for_each_single(&mut f);
    for collection in pe.directory.iter() {
        collection.for_each_element(&mut f);
    }
}

/// This PE's part.
fn part(pe: &Pe, known: &Known) -> String {
    let mut lines = coroutines(pe, known);
    reductions(pe, known, &mut lines);
    lost(pe, &mut lines);
    let mut held = held(pe, known);
    kept(pe, known, &mut held);
    held.write(&mut lines);
    if lines.is_empty() { String::new() } else { format!("on PE {}:\n{}", pe.id(), lines.concat()) }
}

type Wait = (What, &'static Location<'static>);

/// The waits of coroutines here that the runtime knows.
fn waits(pe: &Pe) -> FxHashMap<TaskKey, Vec<Wait>> {
    let mut waits = FxHashMap::<TaskKey, Vec<Wait>>::default();
    let mut note = |waiter: &Waiter| {
        if let Some(task) = waiter.task() {
            waits.entry(task).or_default().push((waiter.what, waiter.at));
        }
    };
    pe.cells.for_each_waiter(&mut note);
    pe.waits_away.for_each_waiter(&mut note);
    for_each_chare(pe, |chare| {
        chare.extra_if_any(|extra| {
            extra.conditions.iter().for_each(&mut note);
            extra.channels.iter().for_each(|end| end.for_each_waiter(pe, &mut note));
        });
    });
    pe.for_each_unborn_chare(|unborn| {
        unborn.extra.channels.iter().for_each(|end| end.for_each_waiter(pe, &mut note));
    });
    waits
}

/// Coroutines of one method that wait for the same kinds of things at the same places.
struct Alike {
    method: &'static EntryInfo,
    wait_for: String,
    tasks: Vec<(Option<ChareId>, TaskKey, Phase)>,
}

fn coroutines(pe: &Pe, known: &Known) -> Vec<String> {
    let waits = waits(pe);
    let waits_of = |key| waits.get(&key).map_or(&[][..], Vec::as_slice);
    let mut alike = Vec::<Alike>::new();
    let mut places = FxHashMap::default();
    pe.tasks.for_each(|key, phase, method, chare| {
        let wait_for = Things::of(waits_of(key), in_general).kinds(phase);
        let place = *places.entry((method, wait_for.clone())).or_insert_with(|| {
            alike.push(Alike { method, wait_for, tasks: Vec::new() });
            alike.len() - 1
        });
        alike[place].tasks.push((chare.map(|chare| chare.id), key, phase));
    });
    let mut lines = Vec::new();
    for Alike { method, wait_for, mut tasks } in alike {
        tasks.sort_unstable_by_key(|(chare, key, _)| (*chare, *key));
        let EntryInfo { chare, name, file, line } = method;
        let name = if chare == name { String::new() } else { format!(".{name}") };
        for (id, key, phase) in tasks.iter().take(LINES_PER_KIND) {
            let index = id.map_or_else(String::new, |id| pe.element_name(id));
            let wait_for = Things::of(waits_of(*key), |what| known.describe(what)).list(*phase);
            lines.push(format!("  {chare}{index}{name} ({file}:{line}) waits for {wait_for}\n"));
        }
        let more = tasks.len().saturating_sub(LINES_PER_KIND);
        if more > 0 {
            let (coroutines, wait) = if more == 1 { ("coroutine", "waits") } else { ("coroutines", "wait") };
            lines.push(format!(
                "  and {more} more {coroutines} of {chare}{name} ({file}:{line}) {wait} for {wait_for}\n"
            ));
        }
    }
    lines
}

/// The different things that a coroutine waits for, with how often each.
struct Things(BTreeMap<String, usize>);

impl Things {
    fn of(waits: &[Wait], describe: impl Fn(&What) -> String) -> Things {
        let mut things = BTreeMap::new();
        for (what, at) in waits {
            *things.entry(format!("{} at {at}", describe(what))).or_default() += 1;
        }
        Things(things)
    }

    /// What to say if no wait is known.
    fn unknown(phase: Phase) -> &'static str {
        match phase {
            Phase::Queued => "its turn: an exclusive coroutine owns its chare",
            _ => "something that nobody can bring any more: no waker of it is left",
        }
    }

    fn list(self, phase: Phase) -> String {
        if self.0.is_empty() {
            return Things::unknown(phase).to_owned();
        }
        let more = self.0.len().saturating_sub(WAITS_PER_LINE);
        let named = self.0.into_iter().take(WAITS_PER_LINE);
        let mut named: Vec<_> = named
            .map(|(thing, count)| if count == 1 { thing } else { format!("{thing} ({count} times)") })
            .collect();
        if more > 0 {
            named.push(format!("{more} more"));
        }
        named.join(", or for ")
    }

    fn kinds(self, phase: Phase) -> String {
        if self.0.is_empty() {
            return Things::unknown(phase).to_owned();
        }
        self.0.into_keys().take(WAITS_PER_LINE).collect::<Vec<_>>().join(", or for ")
    }
}

/// The elements here that hold up reductions which others, anywhere, have contributed to.
fn reductions(pe: &Pe, known: &Known, lines: &mut Vec<String>) {
    // How many are named and not named, of all collections of one type.
    let mut counts = BTreeMap::<&str, (usize, u64)>::new();
    for collection in pe.directory.iter() {
        let fewest = contributions(pe, collection).map(|(_, contributed)| contributed).min();
        let Some(fewest) = fewest else { continue };
        let chare = collection.info.chare.name;
        let all = known.contributors_of_all(collection.id());
        let (named, more) = counts.entry(chare).or_default();
        let unfinished = known.unfinished_since(collection.id(), fewest);
        let end = unfinished.end;
        for sequence in unfinished {
            if *named == LINES_PER_KIND {
                *more += end - sequence;
                break;
            }
            *named += 1;
            let count = known.contributors(collection.id(), sequence);
            let missing = missing(pe, known, collection, sequence);
            let of = if known.counts_are_partial { " of this process" } else { "" };
            lines.push(format!(
                "  reduction {sequence} of {chare}: {count} of {all} elements{of} have contributed; missing here: {missing}\n"
            ));
        }
    }
    for (chare, (_, more)) in counts.into_iter().filter(|(_, (_, more))| *more > 0) {
        lines.push(format!("  and {more} more reductions of {chare}, in which elements here are missing\n"));
    }
}

/// The elements here that have not contributed to a reduction; first those that never will.
fn missing(pe: &Pe, known: &Known, collection: &Collection, sequence: u64) -> String {
    let (mut never, mut not_yet, mut count) = (Vec::new(), Vec::new(), 0);
    for (element, _) in contributions(pe, collection).filter(|(_, contributed)| *contributed <= sequence) {
        count += 1;
        let id = ChareId { collection: collection.id(), element };
        let (names, why) = match (known.fate(id), collection.find(element)) {
            ("", None) => (&mut not_yet, " (its constructor has not ended)"),
            ("", Some(_)) => (&mut not_yet, ""),
            (fate, _) => (&mut never, fate),
        };
        if names.len() < LINES_PER_KIND {
            names.push(collection.name_of(pe, element) + why);
        }
    }
    never.append(&mut not_yet);
    never.truncate(LINES_PER_KIND);
    let more = count - never.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    never.join(", ") + &more
}

/// What became of the chares here that are lost.
fn lost(pe: &Pe, lines: &mut Vec<String>) {
    let mut errors = BTreeMap::new();
    for_each_chare(pe, |chare| {
        if chare.state.get() == State::Poisoned {
            errors.insert(chare.id, chare.poisoned());
        }
    });
    pe.for_each_stillborn(|id, error| {
        errors.insert(id, error.clone());
    });
    let more = errors.len().saturating_sub(LINES_PER_KIND);
    for (id, error) in errors.iter().take(LINES_PER_KIND) {
        let text = caught::catch(pe, || format!("  {error}\n"));
        let unknown =
            |_| format!("  {} has failed with an error that panics when it is shown\n", pe.chare_name(*id));
        lines.push(text.unwrap_or_else(unknown));
    }
    if more > 0 {
        lines.push(format!("  and {more} more chares that have failed\n"));
    }
}

fn held(pe: &Pe, known: &Known) -> Held {
    let mut held = Held::default();
    for_each_chare(pe, |chare| {
        chare.extra_if_any(|extra| {
            let owner = known.name(chare.id);
            for work in &extra.held {
                let what = match work {
                    Work::Msg(msg) => format!("{} for", name(msg)),
                    Work::Resume(_) => "a wake-up in".to_owned(),
                    Work::Job(_) => continue,
                };
                let why = "an exclusive coroutine owns";
                held.add(why, format!("{what} {owner}, which {why}"));
            }
            for request in &extra.moves {
                let why = "it goes to another process when its coroutines have ended";
                held.add(why, format!("{} for {owner}: {why}", name(request)));
            }
            for end in extra.channels.iter() {
                let (unread, backlog) = end.queued(pe);
                let (tag, peer) = (end.tag, end.peer);
                if unread > 0 && !end.is_opened(pe) {
                    let from = known.name(peer);
                    held.add_unopened(format!("{} for {owner} in channel {tag} from {from}", values(unread)));
                }
                if backlog > 0 {
                    let (values, peer) = (values(backlog), known.name_and_fate(peer));
                    let line = format!("{values} of {owner} in channel {tag} wait for credit of {peer}");
                    held.add("waiting for credit", line);
                }
            }
        });
    });
    for ((owner, peer, tag), count) in channel::count_held(pe) {
        let (owner, peer) = (known.name(owner), known.name(peer));
        held.add_unopened(format!("{} for {owner} in channel {tag} from {peer}", values(count)));
    }
    let mut add = |msg: &Msg, why| {
        let chare = match msg.name() {
            Name::Entry(entry) => entry.chare.to_owned(),
            Name::Runtime(_) => known.name(msg.head().to),
        };
        held.add(why, format!("{} for {chare}, {why}", name(msg)));
    };
    pe.for_each_unborn_of_a_single(|msg| add(msg, "whose constructor has not ended"));
    pe.for_each_unborn_of_a_collection(|msg| add(msg, "which was never created"));
    for collection in pe.directory.iter() {
        let mut unborn = Vec::new();
        collection.for_each_unborn(|element, msg| unborn.push((element, name(msg))));
        for (element, msg) in unborn {
            let (chare, index) = (collection.info.chare.name, collection.name_of(pe, element));
            let why = if collection.expects(element) {
                "whose constructor has not ended"
            } else {
                "which was never inserted"
            };
            held.add(why, format!("{msg} for {chare}{index}, {why}"));
        }
    }
    held
}

/// The calls that chares here keep for the conditions of their entries.
fn kept(pe: &Pe, known: &Known, held: &mut Held) {
    let mut chares = Vec::new();
    // Showing tags is the user's code, so it is done outside of the tables.
    for_each_chare(pe, |chare| chares.push(chare));
    for chare in chares {
        for Keeping { entry, count, condition, tags } in when::keeping(pe, chare) {
            let EntryInfo { chare: class, name, file, line } = entry;
            let calls = if count == 1 { "1 call".to_owned() } else { format!("{count} calls") };
            let owner = known.name(chare.id);
            let tags = tags.map_or_else(String::new, |tags| format!(" ({tags})"));
            held.add(
                "kept until a condition holds",
                format!(
                    "{calls} of {class}.{name} ({file}:{line}) for {owner}, kept until {condition}{tags}"
                ),
            );
        }
    }
}

fn values(count: usize) -> String {
    if count == 1 { "1 value".to_owned() } else { format!("{count} values") }
}

fn name(msg: &Msg) -> String {
    match msg.name() {
        Name::Entry(entry) => format!("{}.{}", entry.chare, entry.name),
        Name::Runtime(name) => name.to_owned(),
    }
}

/// What is held, by the reason; equal lines with how often each came.
#[derive(Default)]
struct Held(BTreeMap<&'static str, BTreeMap<String, usize>>);

impl Held {
    fn add(&mut self, why: &'static str, line: String) {
        *self.0.entry(why).or_default().entry(line).or_default() += 1;
    }

    fn add_unopened(&mut self, values: String) {
        self.add("in channels that were not opened", format!("{values}, which it has not opened"));
    }

    fn write(self, lines: &mut Vec<String>) {
        for (why, counts) in self.0 {
            let more = counts.len().saturating_sub(LINES_PER_KIND);
            lines.extend(counts.into_iter().take(LINES_PER_KIND).map(|(line, count)| match count {
                1 => format!("  held: {line}\n"),
                _ => format!("  held: {count} times {line}\n"),
            }));
            if more > 0 {
                lines.push(format!("  held: {more} more like these ({why})\n"));
            }
        }
    }
}
