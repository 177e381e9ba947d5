//! Reductions: the `k`-th contribution of every element of a collection is merged into the `k`-th result.
//!
//! Each PE merges what its elements give; when all of them have given to a reduction, the PE sends its part to the
//! collection's root, which merges the parts in the order of the PEs (so floating-point results do not depend on which
//! part came first) and delivers the result once. Any number of reductions is in flight, since a fast element may
//! contribute to the next before a slow one has to this. Invariants: instances of a PE are consecutive, the oldest
//! first; an element's next contribution goes to the instance that its own count names.

mod reducers;

use std::any::{Any, type_name};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll};

pub use reducers::{And, Combine, Gather, Max, Min, Nop, Or, Product, Reducer, Sum, Xor};

use crate::callback::Callback;
use crate::collection::Collection;
use crate::current;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::pending::{Pending, pending_future};
use crate::proxy::all_pes;
use crate::reply::{CellRef, Reply};
use crate::scheduler::pe::Pe;
use crate::waiting::What;

/// The reductions of one collection on one PE, and at its root.
#[derive(Default)]
pub(crate) struct Reductions {
    /// Reductions that every element here has contributed to.
    finished: u64,
    /// The unfinished ones; the first is number `finished`.
    open: VecDeque<Box<dyn Local>>,
    /// Cells of elements here that wait for the result of an `allreduce`, by reduction.
    waiting: HashMap<u64, Vec<u64>>,
    /// At the root: parts that have come, by reduction. Each is an `AtRoot<T, R>`.
    at_root: HashMap<u64, Box<dyn Any>>,
}

impl Reductions {
    /// The contributions that each unfinished reduction has got here, the oldest first.
    pub(crate) fn unfinished(&self) -> impl Iterator<Item = (u64, u64)> {
        self.open.iter().zip(self.finished..).map(|(local, sequence)| (sequence, local.count()))
    }
}

/// Where a result goes.
enum Target<O> {
    To(Callback<O>),
    /// To the waiting elements of all PEs; the function clones it.
    All(fn(&Pe, CollectionId, u64, Result<O, CallError>)),
}

/// What one PE has merged so far.
struct Merged<T, R: Reducer<T>> {
    reducer: R,
    partial: R::Partial,
    count: u64,
    target: Target<R::Output>,
}

trait Local: Any {
    fn count(&self) -> u64;
    fn names(&self) -> (&'static str, &'static str);
    /// Sends the merged part to the root.
    fn ship(self: Box<Self>, pe: &Pe, collection: &Collection, sequence: u64);
}

impl<T: Send + 'static, R: Reducer<T>> Local for Merged<T, R> {
    fn count(&self) -> u64 {
        self.count
    }

    fn names(&self) -> (&'static str, &'static str) {
        (type_name::<T>(), type_name::<R>())
    }

    fn ship(self: Box<Self>, pe: &Pe, collection: &Collection, sequence: u64) {
        let part = Part { collection: collection.id(), sequence, from: pe.id(), merged: *self };
        let root = collection.id().root();
        if root == pe.id() { part.arrive(pe) } else { pe.post(root, Msg::for_pe(part)) }
    }
}

/// Contributes to the next reduction of the chare's collection.
pub(crate) fn contribute<T, R>(id: ChareId, value: T, reducer: R, target: Callback<R::Output>)
where
    T: Send + 'static,
    R: Reducer<T>,
{
    current::on_pe("a contribution", |pe| {
        add(pe, id, value, reducer, Target::To(target), None);
    });
}

/// Contributes, and waits for the result as every other element does.
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
    current::on_pe("a contribution", |pe| {
        let key = pe.cells.open();
        let sequence = add(pe, id, value, reducer, Target::All(distribute::<R::Output>), Some(key));
        let what = What::Reduction { collection: id.collection, sequence };
        AllReduce(Pending::new(CellRef { pe: pe.id(), key }, what, at))
    })
}

/// The result of an `allreduce`.
#[must_use = "futures do nothing unless polled"]
pub struct AllReduce<O: Send + 'static>(Pending<O>);

pending_future!(AllReduce<O>, Result<O, CallError>, |outcome| outcome);

fn add<T, R>(
    pe: &Pe,
    id: ChareId,
    value: T,
    reducer: R,
    target: Target<R::Output>,
    waiting: Option<u64>,
) -> u64
where
    T: Send + 'static,
    R: Reducer<T>,
{
    let chare = match pe.find(id) {
        Some(chare) if pe.running() == Some(chare) => chare,
        _ => panic!("a chare contributes in its own methods only"),
    };
    let Some(collection) = pe.collection(id.collection) else {
        panic!("a singleton has no collection to reduce over: make it a group or an array");
    };
    let sequence = chare.contributed.replace(chare.contributed.get() + 1);
    let mut reductions = collection.reductions.borrow_mut();
    if let Some(key) = waiting {
        reductions.waiting.entry(sequence).or_default().push(key);
    }
    let place = (sequence - reductions.finished) as usize;
    debug_assert!(place <= reductions.open.len(), "an element contributes to reductions in order");
    match reductions.open.get_mut(place) {
        None => {
            let partial = reducer.start(value, id.element);
            reductions.open.push_back(Box::new(Merged { reducer, partial, count: 1, target }));
        }
        Some(open) => {
            let open: &mut dyn Any = &mut **open;
            match open.downcast_mut::<Merged<T, R>>() {
                Some(merged) => {
                    merged.reducer.add(&mut merged.partial, value, id.element);
                    merged.count += 1;
                }
                None => {
                    let there = reductions.open[place].names();
                    drop(reductions);
                    mismatch(collection, sequence, there, (type_name::<T>(), type_name::<R>()));
                }
            }
        }
    }
    if place == 0 && reductions.open[0].count() == collection.local_count() {
        let done = reductions.open.pop_front().expect("looked at above");
        reductions.finished += 1;
        drop(reductions);
        done.ship(pe, collection, sequence);
    }
    sequence
}

#[cold]
fn mismatch(collection: &Collection, sequence: u64, there: (&str, &str), here: (&str, &str)) -> ! {
    panic!(
        "reduction {sequence} of {}: its elements must agree, but one gave {} of `{}`, another {} of `{}` \
         (contributions are matched in order, element by element)",
        collection.info.chare.name, there.1, there.0, here.1, here.0
    )
}

/// One PE's part on its way to the root.
struct Part<T, R: Reducer<T>> {
    collection: CollectionId,
    sequence: u64,
    from: PeId,
    merged: Merged<T, R>,
}

struct AtRoot<T, R: Reducer<T>> {
    count: u64,
    parts: Vec<(PeId, Merged<T, R>)>,
}

impl<T: Send + 'static, R: Reducer<T>> Part<T, R> {
    fn arrive(self, pe: &Pe) {
        let Part { collection: id, sequence, from, merged } = self;
        let collection = pe.collection(id).expect("the root made the collection");
        let mut reductions = collection.reductions.borrow_mut();
        let at_root = reductions
            .at_root
            .entry(sequence)
            .or_insert_with(|| Box::new(AtRoot::<T, R> { count: 0, parts: Vec::new() }));
        let Some(at_root) = at_root.downcast_mut::<AtRoot<T, R>>() else {
            drop(reductions);
            mismatch(
                collection,
                sequence,
                ("another type", "another reducer"),
                (type_name::<T>(), type_name::<R>()),
            );
        };
        at_root.count += merged.count;
        at_root.parts.push((from, merged));
        if at_root.count < collection.info.element_count {
            return;
        }
        let mut parts = std::mem::take(&mut at_root.parts);
        reductions.at_root.remove(&sequence);
        drop(reductions);
        parts.sort_unstable_by_key(|(from, _)| *from);
        let mut parts = parts.into_iter().map(|(_, merged)| merged);
        let mut total = parts.next().expect("a part has just come");
        for part in parts {
            total.reducer.merge(&mut total.partial, part.partial);
        }
        let result = total.reducer.finish(total.partial);
        match total.target {
            Target::To(callback) => callback.deliver(result),
            Target::All(distribute) => distribute(pe, id, sequence, Ok(result)),
        }
    }
}

impl<T: Send + 'static, R: Reducer<T>> Payload for Part<T, R> {
    const NAME: Name = Name::Runtime("a part of a reduction");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        self.arrive(pe);
    }
}

/// A result on its way to the waiting elements of one PE.
struct Outcome<O> {
    collection: CollectionId,
    sequence: u64,
    outcome: Result<O, CallError>,
}

fn distribute<O: Clone + Send + 'static>(
    pe: &Pe,
    collection: CollectionId,
    sequence: u64,
    outcome: Result<O, CallError>,
) {
    for to in all_pes(pe.pe_count()).filter(|&to| to != pe.id()) {
        pe.post(to, Msg::for_pe(Outcome { collection, sequence, outcome: outcome.clone() }));
    }
    Outcome { collection, sequence, outcome }.run(ChareId { collection, element: 0 }, Reply::none(), pe);
}

impl<O: Clone + Send + 'static> Payload for Outcome<O> {
    const NAME: Name = Name::Runtime("the result of a reduction");
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let collection = pe.collection(self.collection).expect("its elements have contributed");
        let waiting = collection.reductions.borrow_mut().waiting.remove(&self.sequence);
        for key in waiting.into_iter().flatten() {
            pe.cells.deposit(pe, key, 0, self.outcome.clone());
        }
    }
}
