//! Reductions: the `k`-th contribution of every element of a collection is merged into the `k`-th result.
//!
//! An element contributes by [`Cx::contribute`](crate::Cx::contribute), whose result goes to one place, or by
//! [`Cx::allreduce`](crate::Cx::allreduce), whose result goes to all elements.
//!
//! | reducer | of | result |
//! |---|---|---|
//! | [`Sum`], [`Product`] | numbers, and containers of them ([`Combine`]) | the same; integers that do not fit are an error |
//! | [`Min`], [`Max`] | likewise | the same; a NaN anywhere gives NaN |
//! | [`And`], [`Or`], [`Xor`] | `bool`s, integers, and containers of them | the same |
//! | [`MinLoc`], [`MaxLoc`] | a value that can be compared, and what stands beside it | the extreme, with what stands beside it |
//! | [`Statistics`] | numbers, or summaries of many | [`Summary`]: count, extremes, mean, variance |
//! | [`Gather`] | anything | `Vec` of all, by the elements' indexes |
//! | [`Concat`] | `Vec`s | one `Vec`, by the elements' indexes |
//! | [`Set`], [`Union`] | values that have an order, or `BTreeSet`s of them | `BTreeSet` |
//! | [`First`] | anything | that of the element with the lowest index |
//! | [`Nop`] | nothing | nothing: the news that all have contributed |
//! | a tuple of two to six reducers | a tuple of as many values | the tuple of their results |
//! | your own [`Reducer`] | what you like | what you like; [`check_laws`] tries it out |
//!
//! ```
//! use chare::prelude::*;
//! use reduce::{Gather, MaxLoc, Sum};
//!
//! struct Block;
//!
//! #[chare(index = usize)]
//! impl Block {
//!     fn new() -> Self {
//!         Block
//!     }
//!
//!     #[entry]
//!     fn finish_step(&self, cx: &Cx<Self>, report: Callback<(f64, (f64, usize), Vec<String>)>) {
//!         let (energy, error) = (0.5, 1.0 / (1.0 + cx.index() as f64));
//!         let name = format!("block {}", cx.index());
//!         cx.contribute((energy, (error, cx.index()), name), (Sum, MaxLoc, Gather), report);
//!     }
//! }
//!
//! #[chare::main]
//! async fn main(rt: Runtime) -> Result<()> {
//!     let (to, report) = rt.promise();
//!     rt.array::<Block>(4).create(()).await?.finish_step(to.into()).send();
//!     let (energy, (error, at), names) = report.await?;
//!     assert_eq!((energy, error, at, &*names[3]), (2.0, 1.0, 0, "block 3"));
//!     Ok(())
//! }
//! ```

// Each PE merges what its elements give; when none of them owes a reduction a contribution any more, the PE sends its part
// towards the collection's root (`tree`), which merges the parts in the order of the PEs (so floating-point results do not depend on
// which part came first) and delivers the result once, when as many contributions have come as there are elements (`root`). Any
// number of reductions is in flight, since a fast element may contribute to the next before a slow one has to this.
// Invariants: instances of a PE are consecutive, the oldest first; an element's next contribution goes to the instance
// that its own count names, and it is counted there as owing on the PE where it lives, and on no other.
//
// An element that moves takes its count along: what it has given stays where it gave it. One that arrives with an older
// count than all that live there makes the PE send another part, with what those contribute that arrive in the same round of work
// (`migration/tidings`); the root only counts contributions.
//
// Reducers and the destructors of values are user code, which may itself contribute: no table is borrowed while they run.
// While a reducer runs, what it merges into is out of the table.
//
// Contributions that cannot be merged (the elements disagree on the reducer, or the reducer panics) still count, so the
// reduction ends: with an error, which goes where the result would have gone.

mod across;
#[cfg(feature = "ndarray")]
mod arrays;
mod choose;
mod combine;
mod gather;
mod laws;
mod part;
mod reducer;
mod root;
mod set;
mod statistics;
mod tree;
mod tuple;
mod unfinished;

use std::any::type_name;
use std::future::Future;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

pub(crate) use across::{EncodedOutcome, Forwarded, Readers};
pub use choose::{First, MaxLoc, MinLoc};
pub use combine::{And, Combine, Max, Min, Or, Product, Sum, Xor};
pub use gather::{Concat, Gather};
pub use laws::{BrokenLaw, Law, check_laws, check_laws_by};
use part::Part;
pub use reducer::{Nop, Reducer};
use root::AtRoot;
pub(crate) use root::conclude_ready;
pub use set::{Set, Union};
pub use statistics::{Statistics, Summary};
use tree::Node;
pub(crate) use tree::{Ascent, go_straight, tell_standing};
use unfinished::{Begun, Unfinished};

use rustc_hash::FxHashMap;

use crate::answer::SharedValue;
use crate::callback::Callback;
use crate::caught::{self, Caught, blame_caller};
use crate::collection::Collection;
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId};
use crate::known::Known;
use crate::message::{Msg, Name, Payload};
use crate::pending::{Pending, pending_future};
use crate::reply::{CellRef, Reply, UNKNOWN};
use crate::scheduler::pe::Pe;
use crate::waiting::What;
use crate::wire::{Codec, Kind, Leaves, Wire};

/// Waiting elements for which a reduction in flight has room from its beginning; beyond that its list grows.
const MAX_RESERVED: u64 = 1024;

/// The reductions of one collection on one PE, and at its root.
#[derive(Default)]
pub(crate) struct Reductions {
    unfinished: Unfinished,
    /// Cells that wait here for the result of an `allreduce`, by reduction.
    waiting: FxHashMap<u64, Vec<u64>>,
    /// At the root: parts that have come, by reduction.
    at_root: FxHashMap<u64, AtRoot>,
    /// Where this PE stands, as it has told.
    told: u64,
    /// An element here has inserted another one: parts go the way of its insertions.
    goes_straight: bool,
    /// At the leader of a process, if others send to it.
    node: Option<Box<Node>>,
}

impl Reductions {
    /// Takes in elements that contribute to reduction `next` next: they are constructed, or have arrived.
    pub(crate) fn join(&mut self, next: u64, count: u64) {
        self.unfinished.join(next, count);
    }

    /// Lets an element go that would contribute to reduction `next` next.
    pub(crate) fn leave(&mut self, next: u64) {
        self.unfinished.leave(next);
    }

    /// Counts a contribution, and takes out what it is merged into: nothing for the first.
    #[inline]
    fn begin(&mut self, sequence: u64, waiting: Option<u64>) -> Option<Box<dyn Local>> {
        let Begun { merged, owing } = self.unfinished.begin(sequence);
        if let Some(key) = waiting {
            // All elements here will wait, unless they disagree.
            let room = owing.min(MAX_RESERVED) as usize + 1;
            self.waiting.entry(sequence).or_insert_with(|| Vec::with_capacity(room)).push(key);
        }
        merged
    }

    /// Drops the values that are merged so far, at the end of the PE.
    pub(crate) fn give_up(self, pe: &Pe) {
        pe.drop_each(self.unfinished.into_merged());
        self.at_root.into_values().for_each(|at_root| at_root.give_up(pe));
        self.node.into_iter().for_each(|node| node.give_up(pe));
    }
}

/// Ships the parts of reductions that no element here owes a contribution any more.
pub(crate) fn ship_finished(pe: &Pe, collection: &Collection) {
    loop {
        let finished = collection.reductions.borrow_mut().unfinished.next_finished();
        let Some((sequence, count, merged)) = finished else { break };
        merged.ship(pe, collection, sequence, count);
    }
    tell_standing(pe, collection);
}

/// Where a result goes.
enum Target<O> {
    To(Callback<O>),
    /// To the waiting elements of all PEs; the function clones it.
    All(Distribute<O>),
}

type Distribute<O> = fn(&Pe, CollectionId, u64, Result<O, CallError>);

impl<O: Send + 'static> Target<O> {
    fn is_all(&self) -> bool {
        matches!(self, Target::All(_))
    }

    fn distribute(&self) -> Option<Distribute<O>> {
        match self {
            Target::To(_) => None,
            Target::All(distribute) => Some(*distribute),
        }
    }

    /// Tells the place of a contribution that does not fit. Waiting elements learn it at the end of the reduction.
    fn fail(self, error: Arc<str>) {
        if let Target::To(callback) = self {
            callback.fail(CallError::Reduction(error));
        }
    }
}

/// What one PE has merged so far.
struct Merged<T, R: Reducer<T>> {
    reducer: R,
    /// What has been merged, or why that is impossible.
    partial: Result<R::Partial, Arc<str>>,
    target: Target<R::Output>,
    /// The element that gave the target: the lowest of those that have contributed.
    target_from: u64,
}

impl<T, R: Reducer<T>> Merged<T, R> {
    /// Keeps the target of the lower element, so that which one gets the result does not depend on who came first.
    fn aim(&mut self, target: Target<R::Output>, from: u64) {
        if from < self.target_from {
            (self.target, self.target_from) = (target, from);
        }
    }

    /// Merges one more into the partial, unless that has failed before.
    fn merge(
        &mut self,
        pe: &Pe,
        collection: &Collection,
        sequence: u64,
        f: impl FnOnce(&R, &mut R::Partial),
    ) {
        let Ok(partial) = &mut self.partial else { return pe.guard(|| drop(f)) };
        if let Err(error) = guard(pe, collection, sequence, || f(&self.reducer, partial)) {
            self.fail(pe, error);
        }
    }

    /// Drops a part that does not fit, and tells the place of its result.
    fn give_up(self, pe: &Pe, error: Arc<str>) {
        pe.drop_each(self.partial);
        self.target.fail(error);
    }

    /// Gives up what has been merged.
    fn fail(&mut self, pe: &Pe, error: Arc<str>) {
        let partial = mem::replace(&mut self.partial, Err(error));
        pe.guard(|| drop(partial));
    }
}

/// Runs code of a reducer; a panic in it becomes the error of the reduction.
fn guard<V>(pe: &Pe, collection: &Collection, sequence: u64, f: impl FnOnce() -> V) -> Result<V, Arc<str>> {
    caught::catch(pe, f).map_err(|Caught { message, location }| {
        let chare = collection.info.chare.name;
        format!("reduction {sequence} of {chare}: code of its values or its reducer panicked at {location}: {message}").into()
    })
}

trait Local: Known {
    /// The types of value and reducer.
    fn names(&self) -> (&'static str, &'static str);
    /// Makes the reduction fail.
    fn spoil(&mut self, pe: &Pe, error: Arc<str>);
    /// Sends the merged part towards the root.
    fn ship(self: Box<Self>, pe: &Pe, collection: &Collection, sequence: u64, count: u64);
}

impl<T: Send + 'static, R: Reducer<T>> Local for Merged<T, R> {
    fn names(&self) -> (&'static str, &'static str) {
        (type_name::<T>(), type_name::<R>())
    }

    fn spoil(&mut self, pe: &Pe, error: Arc<str>) {
        self.fail(pe, error);
    }

    fn ship(self: Box<Self>, pe: &Pe, collection: &Collection, sequence: u64, count: u64) {
        let part = Part::new(pe, collection, tree::climb(pe, collection, sequence, count), *self);
        // By message to this PE too: who reduces in a loop, and has all contributions here, lets others run in between.
        pe.post(tree::above(pe, collection), Msg::for_pe(part));
    }
}

/// Contributes to the next reduction of the chare's collection.
#[track_caller]
pub(crate) fn contribute<T, R>(id: ChareId, value: T, reducer: R, target: Callback<R::Output>)
where
    T: Send + 'static,
    R: Reducer<T>,
{
    let added = current::on_pe("a contribution", |pe| add(pe, id, value, reducer, Target::To(target), None));
    blame_caller(added);
}

/// Contributes, and waits for the result as every other element does.
#[track_caller]
pub(crate) fn allreduce<T, R>(
    id: ChareId,
    value: T,
    reducer: R,
    at: &'static Location<'static>,
) -> AllReduce<R::Output>
where
    T: Send + 'static,
    R: Reducer<T>,
    R::Output: Clone,
{
    let added = current::on_pe("a contribution", |pe| {
        let cell = CellRef::new(pe, pe.cells.open(Codec::<R::Output>::by_serde()));
        if pe.has_far_pes() {
            pe.readers.note_outcome::<R::Output>();
        }
        match add(pe, id, value, reducer, Target::All(distribute::<R::Output>), Some(cell.key)) {
            Ok(sequence) => {
                let what = What::Reduction { collection: id.collection, sequence };
                Ok(AllReduce(Pending::new(cell, what, at)))
            }
            Err(mistake) => {
                pe.cells.abandon(pe, cell.key);
                Err(mistake)
            }
        }
    });
    blame_caller(added)
}

/// The result of an `allreduce`.
#[must_use = "futures do nothing unless polled"]
pub struct AllReduce<O: Send + 'static>(Pending<O>);

pending_future!(AllReduce<O>, Result<O, CallError>);

/// Adds a contribution to the chare's next reduction, and brings its number. The error is a mistake of the caller's.
fn add<T, R>(
    pe: &Pe,
    id: ChareId,
    value: T,
    reducer: R,
    target: Target<R::Output>,
    waiting: Option<u64>,
) -> Result<u64, &'static str>
where
    T: Send + 'static,
    R: Reducer<T>,
{
    let Some(sequence) = pe.next_contribution(id) else {
        return Err("a chare contributes in its own methods and its constructor only");
    };
    let Some(collection) = pe.collection(id.collection) else {
        return Err("a singleton has no collection to reduce over: make it a group or an array");
    };
    if pe.shared().is_stopping() {
        // The reductions may have been given up already, and nothing that is sent now arrives.
        return Ok(sequence);
    }
    pe.note_contribution();
    let earlier = collection.reductions.borrow_mut().begin(sequence, waiting);
    let merged: Box<dyn Local> = match earlier {
        None => {
            if pe.has_far_pes() {
                pe.readers.note::<T, R>(reducer, &target);
            }
            let partial = guard(pe, collection, sequence, || reducer.start(value, id.element));
            Box::new(Merged { reducer, partial, target, target_from: id.element })
        }
        Some(mut earlier) => {
            let known: &mut dyn Known = &mut *earlier;
            match known.known_mut::<Merged<T, R>>() {
                Some(merged) if merged.target.is_all() != target.is_all() => {
                    let error = mixed(collection, sequence);
                    merged.fail(pe, error.clone());
                    target.fail(error);
                }
                Some(merged) => {
                    merged.aim(target, id.element);
                    merged.merge(pe, collection, sequence, |reducer, partial| {
                        reducer.add(partial, value, id.element);
                    });
                }
                None => {
                    let names = (earlier.names(), (type_name::<T>(), type_name::<R>()));
                    let error = mismatch(collection, sequence, names.0, names.1);
                    earlier.spoil(pe, error.clone());
                    target.fail(error);
                }
            }
            earlier
        }
    };
    let is_over = collection.reductions.borrow_mut().unfinished.put_back(sequence, merged);
    if is_over && !pe.tidings.put_off_shipping(collection.id()) {
        ship_finished(pe, collection);
    }
    Ok(sequence)
}

#[cold]
fn mixed(collection: &Collection, sequence: u64) -> Arc<str> {
    let chare = collection.info.chare.name;
    format!("reduction {sequence} of {chare}: its elements must agree, but one called `contribute`, another `allreduce`")
        .into()
}

#[cold]
fn mismatch(collection: &Collection, sequence: u64, there: (&str, &str), here: (&str, &str)) -> Arc<str> {
    format!(
        "reduction {sequence} of {}: its elements must agree, but one gave {} of `{}`, another {} of `{}` \
         (contributions are matched in order, element by element)",
        collection.info.chare.name, there.1, there.0, here.1, here.0
    )
    .into()
}

/// The same of contributions in other processes, whose types are not known here.
#[cold]
fn mismatch_elsewhere(collection: &Collection, sequence: u64) -> Arc<str> {
    let chare = collection.info.chare.name;
    format!(
        "reduction {sequence} of {chare}: its elements must agree, but those in other processes gave values or reducers of \
         other types (contributions are matched in order, element by element)"
    )
    .into()
}

/// A result on its way to the waiting elements of one PE.
struct Outcome<O> {
    collection: CollectionId,
    sequence: u64,
    outcome: Result<O, CallError>,
}

fn distribute<O: Clone + Wire>(
    pe: &Pe,
    collection: CollectionId,
    sequence: u64,
    outcome: Result<O, CallError>,
) {
    let at_root = pe.collection(collection).expect("its elements have contributed");
    pe.post_to_others(|| {
        let copy = guard(pe, at_root, sequence, || outcome.clone());
        let outcome = copy.unwrap_or_else(|error| Err(CallError::Reduction(error)));
        Msg::for_pe(Outcome { collection, sequence, outcome })
    });
    Outcome { collection, sequence, outcome }.settle(pe);
}

impl<O: Clone + Wire> Outcome<O> {
    fn settle(self, pe: &Pe) {
        // Where the collection is not known yet, nobody waits.
        let Some(collection) = pe.collection(self.collection) else { return };
        let waiting = collection.reductions.borrow_mut().waiting.remove(&self.sequence);
        let waiting = waiting.into_iter().flatten();
        match self.outcome {
            Ok(value) => {
                let value = SharedValue::new(value);
                waiting.for_each(|key| pe.cells.deposit_shared(pe, key, &value));
            }
            // An element that disagreed may wait for a value of another type.
            Err(error) => waiting.for_each(|key| pe.cells.refuse(pe, key, UNKNOWN, error.clone(), true)),
        }
    }
}

impl<O: Clone + Wire> Payload for Outcome<O> {
    const NAME: Name = Name::Runtime("the result of a reduction");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Outcome, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        self.settle(pe);
    }
}
