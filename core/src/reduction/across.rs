//! Reductions of elements in several processes.
//!
//! A part that comes to the root from another process is bytes, and only who has contributed by the same reducer can read them. The root
//! keeps them until the last part has come. If a part of its own process is among them, it reads the others by the reducer of that one. If
//! none is, they go on, in one message, to a PE that has contributed: that one concludes the reduction in the root's place. For that each
//! PE keeps a [`Reader`] for each reducer that it has used, by the names of its types; there are as many as the program's text has.
//!
//! A result is the same for all elements that wait on a PE, so it is read there once. A PE that has no reader for it has nobody that waits.

use std::any::type_name;
use std::cell::RefCell;
use std::collections::hash_map::Entry;
use std::hash::Hasher;
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};

use super::{AtRoot, Distribute, Merged, Outcome, Part, Parts, Reducer, Target};
use crate::callback::Callback;
use crate::collection::Collection;
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId, PeId};
use crate::message::{Msg, Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Arrives, Codec, Decoder, Encoder, Kind, Leaves, Rest, Unsent, Wire, WireError};

/// What code on one PE has contributed by, and waited for.
#[derive(Default)]
pub(crate) struct Readers {
    parts: RefCell<FxHashMap<u64, Rc<dyn Reader>>>,
    outcomes: RefCell<FxHashMap<u64, Settle>>,
}

/// Brings a result to the elements that wait here.
type Settle = fn(&Pe, CollectionId, u64, Rest) -> Result<(), WireError>;

/// Reads the parts that belong to one reducer.
trait Reader {
    /// Concludes a reduction of which these are all parts.
    fn conclude(&self, pe: &Pe, forwarded: Forwarded) -> Result<(), WireError>;
}

/// The reducer itself is kept, as it was used last: it may have fields.
struct ReaderOf<T, R: Reducer<T>> {
    reducer: R,
    /// If the result goes to all elements.
    distribute: Option<Distribute<R::Output>>,
    value: PhantomData<fn(T)>,
}

/// What other processes know a reducer by that is used like this.
pub(super) fn name_of<T, R>(is_all: bool) -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(type_name::<T>().as_bytes());
    hasher.write_u8(u8::from(is_all));
    hasher.write(type_name::<R>().as_bytes());
    hasher.finish()
}

fn name_of_outcome<O>() -> u64 {
    let mut hasher = FxHasher::default();
    hasher.write(type_name::<O>().as_bytes());
    hasher.finish()
}

impl Readers {
    /// Notes a reducer that code here contributes by.
    #[cold]
    pub(super) fn note<T: Send + 'static, R: Reducer<T>>(&self, reducer: R, target: &Target<R::Output>) {
        let distribute = match target {
            Target::To(_) => None,
            Target::All(distribute) => Some(*distribute),
        };
        let reader = || Rc::new(ReaderOf { reducer, distribute, value: PhantomData }) as Rc<dyn Reader>;
        let mut parts = self.parts.borrow_mut();
        let place = parts.entry(name_of::<T, R>(target.is_all()));
        match place {
            Entry::Occupied(_) if size_of::<R>() == 0 => {}
            Entry::Occupied(mut known) => drop(known.insert(reader())),
            Entry::Vacant(place) => drop(place.insert(reader())),
        }
    }

    /// Notes what elements here wait for.
    pub(super) fn note_outcome<O: Clone + Wire>(&self) {
        let settle = |pe: &Pe, collection, sequence, rest: Rest| {
            let outcome = Ok(rest.decode(|rest| rest.take_value::<O>())?);
            Outcome { collection, sequence, outcome }.settle(pe);
            Ok(())
        };
        self.outcomes.borrow_mut().entry(name_of_outcome::<O>()).or_insert(settle);
    }

    fn of_parts(&self, name: u64) -> Option<Rc<dyn Reader>> {
        self.parts.borrow().get(&name).cloned()
    }
}

/// What has been merged on a PE of another process.
pub(super) fn decode_merged<T: Send + 'static, R: Reducer<T>>(
    reducer: R,
    distribute: Option<Distribute<R::Output>>,
    from: &mut Decoder<'_>,
) -> Result<Merged<T, R>, WireError> {
    let target_from = from.take()?;
    let partial = from.take_outcome(Decoder::take_value::<R::Partial>)?.map_err(|error| match error {
        CallError::Reduction(text) => text,
        other => other.to_string().into(),
    });
    let target = match distribute {
        Some(distribute) => Target::All(distribute),
        None => Target::To(Callback::decode(from, Codec::by_serde())?),
    };
    Ok(Merged { reducer, partial, target, target_from })
}

impl<T: Send + 'static, R: Reducer<T>> Reader for ReaderOf<T, R> {
    fn conclude(&self, pe: &Pe, forwarded: Forwarded) -> Result<(), WireError> {
        let Forwarded { collection, sequence, failed, parts, .. } = forwarded;
        let decode = |(from, rest): (PeId, Rest)| {
            let merged = rest.decode(|rest| decode_merged::<T, R>(self.reducer, self.distribute, rest))?;
            Ok((from, merged))
        };
        let parts = parts.into_iter().map(decode).collect::<Result<Vec<_>, WireError>>()?;
        let Some(collection) = pe.collection(collection).filter(|_| !parts.is_empty()) else {
            return Err(WireError::new("a reduction that nobody here has contributed to"));
        };
        Box::new(parts).conclude(pe, collection, sequence, failed.map(Arc::from));
        Ok(())
    }
}

impl<T: Send + 'static, R: Reducer<T>> Part<T, R> {
    pub(super) fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Part { collection, sequence, from, count, merged } = self;
        let Merged { partial, target, target_from, .. } = merged;
        to.put_own(&(name_of::<T, R>(target.is_all()), collection, sequence, from, count));
        to.put_own(&target_from);
        let partial = partial.map_err(CallError::Reduction);
        // What cannot be encoded makes an error of the reduction, which ends all the same.
        to.put_outcome(partial, Codec::<R::Partial>::by_serde().encode);
        if let Target::To(callback) = target {
            callback.encode(to, Codec::by_serde())?;
        }
        Ok(())
    }
}

/// A part from another process.
pub(crate) struct EncodedPart {
    pub(super) name: u64,
    collection: CollectionId,
    sequence: u64,
    pub(super) from: PeId,
    count: u64,
    pub(super) rest: Rest,
}

impl Arrives for EncodedPart {
    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (name, collection, sequence, from, count) = bytes.take()?;
        Ok(EncodedPart { name, collection, sequence, from, count, rest: bytes.take_rest() })
    }
}

impl Payload for EncodedPart {
    const NAME: Name = Name::Runtime("a part of a reduction");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let Some(collection) = pe.collection(self.collection) else {
            return pe.received_nonsense(&WireError::new("a part of a reduction of an unknown collection"));
        };
        let (sequence, count) = (self.sequence, self.count);
        let complete =
            collection.reductions.borrow_mut().note_at_root(collection, sequence, count, |at_root| {
                at_root.encoded.push(self);
            });
        if let Some(at_root) = complete {
            at_root.end(pe, collection, sequence);
        }
    }
}

impl AtRoot {
    /// Ends a reduction of which all parts have come.
    pub(super) fn end(self, pe: &Pe, collection: &Collection, sequence: u64) {
        collection.membership.borrow_mut().end(sequence);
        let AtRoot { failed, mut parts, mut encoded, .. } = self;
        if let Some(parts) = &mut parts
            && let Err(error) = parts.absorb(&mut encoded)
        {
            return pe.received_nonsense(&error);
        }
        let mut by_name = FxHashMap::<u64, Vec<EncodedPart>>::default();
        for part in encoded {
            by_name.entry(part.name).or_default().push(part);
        }
        let groups = by_name.len() + usize::from(parts.is_some());
        let failed = failed.or_else(|| (groups > 1).then(|| super::mismatch_elsewhere(collection, sequence)));
        if let Some(parts) = parts {
            parts.conclude(pe, collection, sequence, failed.clone());
        }
        for (name, mut parts) in by_name {
            parts.sort_by_key(|part| part.from);
            let to = parts[0].from;
            let parts = parts.into_iter().map(|part| (part.from, part.rest)).collect();
            let failed = failed.as_deref().map(str::to_owned);
            let forwarded = Forwarded { name, collection: collection.id(), sequence, failed, parts };
            pe.post(to, Msg::for_pe(forwarded));
        }
    }
}

/// All parts of a reduction, on their way to a PE that can read them.
pub(crate) struct Forwarded {
    name: u64,
    collection: CollectionId,
    sequence: u64,
    failed: Option<String>,
    parts: Vec<(PeId, Rest)>,
}

impl Forwarded {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Forwarded { name, collection, sequence, failed, parts } = self;
        to.put_own(&(name, collection, sequence, failed, parts.len()));
        for (from, rest) in parts {
            to.put_own(&from);
            to.put_rest(rest);
        }
        Ok(())
    }
}

impl Arrives for Forwarded {
    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (name, collection, sequence, failed, count): (_, _, _, _, usize) = bytes.take()?;
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push((bytes.take()?, bytes.take_whole_rest()?));
        }
        Ok(Forwarded { name, collection, sequence, failed, parts })
    }
}

impl Payload for Forwarded {
    const NAME: Name = Name::Runtime("the parts of a reduction");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Forwarded, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let outcome = match pe.readers.of_parts(self.name) {
            Some(reader) => reader.conclude(pe, self),
            None => Err(WireError::new("parts of a reduction that has begun elsewhere")),
        };
        if let Err(error) = outcome {
            pe.received_nonsense(&error);
        }
    }
}

impl<O: Clone + Wire> Outcome<O> {
    pub(super) fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Outcome { collection, sequence, outcome } = self;
        to.put_own(&(name_of_outcome::<O>(), collection, sequence));
        to.put_outcome(outcome, Codec::<O>::by_serde().encode);
        Ok(())
    }
}

/// A result from another process.
pub(crate) struct EncodedOutcome {
    name: u64,
    collection: CollectionId,
    sequence: u64,
    is_value: bool,
    rest: Rest,
}

impl Arrives for EncodedOutcome {
    fn decode(from: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (name, collection, sequence) = from.take()?;
        let is_value = from.take()?;
        Ok(EncodedOutcome { name, collection, sequence, is_value, rest: from.take_rest() })
    }
}

impl Payload for EncodedOutcome {
    const NAME: Name = Name::Runtime("the result of a reduction");
    const LEAVES: Leaves<Self> = Leaves::Never;
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let EncodedOutcome { name, collection, sequence, is_value, rest } = self;
        let outcome = if is_value {
            let settle = pe.readers.outcomes.borrow().get(&name).copied();
            // Where nobody has ever waited for such a value, nobody does now.
            settle.map_or(Ok(()), |settle| settle(pe, collection, sequence, rest))
        } else {
            rest.decode(|rest| rest.take_error()).map(|error: CallError| {
                Outcome::<()> { collection, sequence, outcome: Err(error) }.settle(pe);
            })
        };
        if let Err(error) = outcome {
            pe.received_nonsense(&error);
        }
    }
}
