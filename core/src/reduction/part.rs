//! A part of a reduction on its way: as a value inside of a process, as bytes between them.
//!
//! The place of the result goes along with each part, and that of the lowest element gets it. Who only passes parts on does not read the places of other
//! processes: reading the end of a promise, and encoding it again, would tell its home twice. What loses against another place is forgotten, unless it is
//! the end of a promise. That counts at its home until somebody reads it, so it goes along, and is read and dropped where the result is made.

use std::any::type_name;
use std::hash::Hasher;
use std::mem;
use std::sync::Arc;

use rustc_hash::FxHasher;

use super::tree::{self, Climb, Standing};
use super::{Distribute, Merged, Reducer, Target, distribute, guard, mixed};
use crate::callback::{self, Callback};
use crate::caught;
use crate::collection::Collection;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::known::Known;
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{
    Codec, Decoder, Encoder, Kind, Leaves, MOST_BUFFERS, Rest, Unsent, Wire, WireError, count_buffers,
};

/// What was merged, on its way up: on one PE, or on one and those behind it.
pub(super) struct Part<T, R: Reducer<T>> {
    pub(super) collection: CollectionId,
    pub(super) standing: Standing,
    pub(super) sequence: u64,
    /// The first PE of those that it is from.
    pub(super) from: PeId,
    pub(super) count: u64,
    pub(super) merged: Merged<T, R>,
    /// If parts of other processes are in it.
    away: Option<Box<Away>>,
}

/// A part from another process, which is read by whoever knows its reducer.
pub(crate) struct EncodedPart {
    /// That of its values and its reducer.
    pub(super) name: u64,
    pub(super) sequence: u64,
    pub(super) from: PeId,
    pub(super) count: u64,
    pub(super) rest: Rest,
}

/// Places of the result that came from other processes and go on as they are.
#[derive(Default)]
struct Away {
    /// That of the lowest element, and which one that is.
    target: Option<(u64, Rest)>,
    /// Ends of promises that have lost.
    lost: Vec<Rest>,
}

impl Away {
    /// Takes in what stands behind the partial of a part from another process.
    fn read(&mut self, target_from: u64, from: &mut Decoder<'_>) -> Result<(), WireError> {
        for _ in 0..from.take::<usize>()? {
            self.lost.push(from.take_whole_rest()?);
        }
        let target = from.take_rest();
        match &self.target {
            Some((lowest, _)) if *lowest <= target_from => self.lose(target),
            _ => {
                let former = self.target.replace((target_from, target));
                former.into_iter().for_each(|(_, target)| self.lose(target));
            }
        }
        Ok(())
    }

    fn lose(&mut self, target: Rest) {
        if callback::is_end_of_promise(&target) {
            self.lost.push(target);
        }
    }

    /// The target, if it is of a lower element than `other`; else it loses.
    fn lower_than(&mut self, other: u64) -> Option<(u64, Rest)> {
        let (from, target) = self.target.take()?;
        if from < other {
            return Some((from, target));
        }
        self.lose(target);
        None
    }
}

/// What other processes know a reducer by that is used like this.
pub(super) fn name_of<T, R>(is_all: bool) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(type_name::<T>().as_bytes());
    hasher.write_u8(u8::from(is_all));
    hasher.write(type_name::<R>().as_bytes());
    hasher.finish()
}

impl<T: Send + 'static, R: Reducer<T>> Part<T, R> {
    /// What a PE has merged.
    pub(super) fn new(pe: &Pe, collection: &Collection, climb: Climb, merged: Merged<T, R>) -> Self {
        let Climb { sequence, count, standing } = climb;
        Part { collection: collection.id(), standing, sequence, from: pe.id(), count, merged, away: None }
    }

    /// As a message of which this is the only part, [`tree::Ascent`].
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Part { collection, standing, sequence, from, count, merged, away } = self;
        let Merged { partial, target, target_from, .. } = merged;
        let mut away = away.map_or_else(Away::default, |away| *away);
        let lower = away.lower_than(target_from);
        tree::put_head(to, collection, standing, 1);
        to.put_own(&(name_of::<T, R>(target.is_all()), sequence, from, count));
        to.put_own(&lower.as_ref().map_or(target_from, |(from, _)| *from));
        let partial = partial.map_err(CallError::Reduction);
        // What cannot be encoded makes an error of the reduction, which ends all the same.
        to.put_outcome(partial, Codec::<R::Partial>::by_serde().encode);
        let Target::To(callback) = target else { return Ok(()) };
        to.put_own(&away.lost.len());
        away.lost.into_iter().for_each(|end| to.put_rest(end));
        match lower {
            Some((_, target)) => to.put_end(target),
            None => callback.encode(to, Codec::by_serde())?,
        }
        Ok(())
    }
}

impl<T: Send + 'static, R: Reducer<T>> Payload for Part<T, R> {
    const NAME: Name = Name::Runtime("a part of a reduction");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Ascent, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        if self.collection.root() == pe.id() { self.arrive(pe) } else { self.come_by(pe) }
    }
}

impl EncodedPart {
    /// Adds it; the last one of a message needs no length.
    pub(super) fn leave(self, to: &mut Encoder, is_last: bool) {
        to.put_own(&(self.name, self.sequence, self.from, self.count));
        if is_last { to.put_end(self.rest) } else { to.put_rest(self.rest) }
    }

    pub(super) fn decode(from: &mut Decoder<'_>, is_last: bool) -> Result<Self, WireError> {
        let (name, sequence, first, count) = from.take()?;
        let rest = if is_last { from.take_rest() } else { from.take_whole_rest()? };
        Ok(EncodedPart { name, sequence, from: first, count, rest })
    }
}

/// So many parts to a message as have no more buffers than one takes.
pub(super) fn in_messages(parts: Vec<EncodedPart>) -> Vec<Vec<EncodedPart>> {
    let (mut messages, mut last, mut buffers) = (Vec::new(), Vec::new(), 0);
    for part in parts {
        let more = part.rest.buffers().len();
        if buffers + more > MOST_BUFFERS && !last.is_empty() {
            messages.push(mem::take(&mut last));
            buffers = 0;
        }
        buffers += more;
        last.push(part);
    }
    messages.extend((!last.is_empty()).then_some(last));
    messages
}

/// What was merged, or why it could not be.
fn take_partial<P: Wire>(from: &mut Decoder<'_>) -> Result<Result<P, Arc<str>>, WireError> {
    let partial = from.take_outcome(Decoder::take_value::<P>)?;
    Ok(partial.map_err(|error| match error {
        CallError::Reduction(text) => text,
        other => other.to_string().into(),
    }))
}

/// More contributions than can be are nonsense from another process.
pub(super) fn add_counts(one: u64, other: u64) -> Result<u64, WireError> {
    let sum = one.checked_add(other);
    sum.ok_or_else(|| WireError::new("it counts more contributions to a reduction than can be"))
}

/// A part whose types are known where it is.
pub(super) struct Given<T, R: Reducer<T>> {
    pub(super) from: PeId,
    pub(super) count: u64,
    pub(super) merged: Merged<T, R>,
}

impl<T: Send + 'static, R: Reducer<T>> Given<T, R> {
    /// Reads what has been merged in another process, where the result is made.
    pub(super) fn decode(
        reducer: R,
        distribute: Option<Distribute<R::Output>>,
        part: EncodedPart,
    ) -> Result<Self, WireError> {
        let EncodedPart { from, count, rest, .. } = part;
        let merged = rest.decode(|rest| {
            let (target_from, partial) = (rest.take()?, take_partial(rest)?);
            let take_callback = |rest: &mut Decoder<'_>| Callback::decode(rest, Codec::by_serde());
            let target = match distribute {
                Some(distribute) => Target::All(distribute),
                None => {
                    for _ in 0..rest.take::<usize>()? {
                        drop(rest.take_whole_rest()?.decode(take_callback)?);
                    }
                    Target::To(take_callback(rest)?)
                }
            };
            Ok(Merged { reducer, partial, target, target_from })
        })?;
        Ok(Given { from, count, merged })
    }

    /// How many buffers a message has that takes it to another process. One that cannot go is too much for any: its error is its own.
    fn buffers(&self, pe: &Pe) -> usize {
        // What owns nothing has no memory that stands beside it.
        if const { !mem::needs_drop::<R::Partial>() } {
            return 0;
        }
        let Ok(partial) = &self.merged.partial else { return 0 };
        // Serialisation is code of the user's.
        let counted = caught::catch(pe, || count_buffers(partial));
        counted.ok().flatten().unwrap_or(usize::MAX)
    }
}

/// Parts of one reduction that go up as one.
pub(super) struct Bundle {
    /// Of this process: a `Vec<Given<T, R>>`.
    pub(super) parts: Box<dyn Parts>,
    /// Of the same name, from processes behind it, in the order of their PEs.
    pub(super) theirs: Vec<EncodedPart>,
}

/// Parts of one reduction whose type is known where they have been made.
pub(super) trait Parts: Known {
    fn names(&self) -> (&'static str, &'static str);
    /// Reads the parts from other processes that are of these types, by the reducer of a contribution to the same reduction.
    fn absorb(&mut self, encoded: &mut Vec<EncodedPart>) -> Result<(), WireError>;
    /// Merges the parts in the order of their PEs and delivers the result.
    fn conclude(self: Box<Self>, pe: &Pe, collection: &Collection, sequence: u64, failed: Option<Arc<str>>);
    /// Makes the reduction fail.
    fn spoil(&mut self, pe: &Pe, error: &Arc<str>);
    /// Divides the parts, in the order of their PEs, into such as can be merged: these have no more buffers together than one message takes.
    /// Of those from other processes, which are of the same name and in that order, what is not behind the last of them stays in `theirs`.
    fn divide(self: Box<Self>, pe: &Pe, theirs: &mut Vec<EncodedPart>) -> Vec<Bundle>;
    /// Merges the parts of a bundle into one that goes up.
    fn climb(
        self: Box<Self>,
        pe: &Pe,
        collection: &Collection,
        sequence: u64,
        standing: Standing,
        theirs: Vec<EncodedPart>,
    ) -> Result<Msg, WireError>;
    /// Drops the parts, which hold values of the user's.
    fn give_up(self: Box<Self>, pe: &Pe);
}

/// Merges parts in the order of their PEs.
fn fold<T: Send + 'static, R: Reducer<T>>(
    pe: &Pe,
    collection: &Collection,
    sequence: u64,
    mut parts: Vec<Given<T, R>>,
) -> Merged<T, R> {
    // Stable: a PE may have sent several parts.
    parts.sort_by_key(|given| given.from);
    let mut parts = parts.into_iter().map(|given| given.merged);
    let mut total = parts.next().expect("there is one for each contributor, and there are contributors");
    for part in parts {
        if part.target.is_all() != total.target.is_all() {
            let error = mixed(collection, sequence);
            part.give_up(pe, error.clone());
            total.fail(pe, error);
            continue;
        }
        total.aim(part.target, part.target_from);
        total.join(pe, collection, sequence, part.partial);
    }
    total
}

impl<T: Send + 'static, R: Reducer<T>> Merged<T, R> {
    /// Merges what comes from PEs behind these.
    fn join(&mut self, pe: &Pe, collection: &Collection, sequence: u64, other: Result<R::Partial, Arc<str>>) {
        match other {
            Ok(other) => {
                self.merge(pe, collection, sequence, |reducer, partial| reducer.merge(partial, other));
            }
            Err(error) => self.fail(pe, error),
        }
    }
}

impl<T: Send + 'static, R: Reducer<T>> Parts for Vec<Given<T, R>> {
    fn names(&self) -> (&'static str, &'static str) {
        (type_name::<T>(), type_name::<R>())
    }

    fn give_up(self: Box<Self>, pe: &Pe) {
        pe.drop_each(*self);
    }

    fn absorb(&mut self, encoded: &mut Vec<EncodedPart>) -> Result<(), WireError> {
        let Some(Given { merged: first, .. }) = self.first() else { return Ok(()) };
        let (reducer, distribute) = (first.reducer, first.target.distribute());
        let name = name_of::<T, R>(first.target.is_all());
        for part in encoded.extract_if(.., |part| part.name == name) {
            self.push(Given::decode(reducer, distribute, part)?);
        }
        Ok(())
    }

    fn conclude(self: Box<Self>, pe: &Pe, collection: &Collection, sequence: u64, failed: Option<Arc<str>>) {
        let mut total = fold(pe, collection, sequence, *self);
        if let Some(error) = failed {
            total.fail(pe, error);
        }
        let Merged { reducer, partial, target, .. } = total;
        let result = partial
            .and_then(|partial| guard(pe, collection, sequence, || reducer.finish(partial)))
            .map_err(CallError::Reduction);
        match (target, result) {
            (Target::To(callback), Ok(value)) => callback.bring(value),
            (Target::To(callback), Err(error)) => {
                // Elements that disagreed may wait for it.
                distribute::<()>(pe, collection.id(), sequence, Err(error.clone()));
                callback.fail(error);
            }
            (Target::All(distribute), result) => distribute(pe, collection.id(), sequence, result),
        }
    }

    fn spoil(&mut self, pe: &Pe, error: &Arc<str>) {
        self.iter_mut().for_each(|given| given.merged.fail(pe, error.clone()));
    }

    fn divide(mut self: Box<Self>, pe: &Pe, theirs: &mut Vec<EncodedPart>) -> Vec<Bundle> {
        if self.len() == 1 && theirs.is_empty() {
            return vec![Bundle { parts: self, theirs: Vec::new() }];
        }
        // Stable: a PE may have sent several parts.
        self.sort_by_key(|given| given.from);
        let (mut bundles, mut last, mut buffers) = (Vec::new(), Vec::new(), 0_usize);
        for given in *self {
            let more = given.buffers(pe);
            if buffers.saturating_add(more) > MOST_BUFFERS && !last.is_empty() {
                bundles.push(Bundle { parts: Box::new(mem::take(&mut last)), theirs: Vec::new() });
                buffers = 0;
            }
            buffers = buffers.saturating_add(more);
            last.push(given);
        }
        // What is behind one that does not fit does not go before it.
        let fitting = theirs.iter().take_while(|part| {
            buffers = buffers.saturating_add(part.rest.buffers().len());
            buffers <= MOST_BUFFERS
        });
        let fitting = fitting.count();
        bundles.push(Bundle { parts: Box::new(last), theirs: theirs.drain(..fitting).collect() });
        bundles
    }

    fn climb(
        self: Box<Self>,
        pe: &Pe,
        collection: &Collection,
        sequence: u64,
        standing: Standing,
        theirs: Vec<EncodedPart>,
    ) -> Result<Msg, WireError> {
        let mut count = self.iter().map(|given| given.count).sum();
        let from = self.iter().map(|given| given.from).min().expect("there is one");
        let mut total = fold(pe, collection, sequence, *self);
        let mut away = Away::default();
        for part in theirs {
            count = add_counts(count, part.count)?;
            let partial = part.rest.decode(|rest| {
                let (target_from, partial) = (rest.take()?, take_partial(rest)?);
                if !total.target.is_all() {
                    away.read(target_from, rest)?;
                }
                Ok(partial)
            })?;
            total.join(pe, collection, sequence, partial);
        }
        let away = away.target.is_some().then(|| Box::new(away));
        let collection = collection.id();
        Ok(Msg::for_pe(Part { collection, standing, sequence, from, count, merged: total, away }))
    }
}
