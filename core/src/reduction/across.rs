//! Reductions of elements in several processes.
//!
//! Parts that the root cannot read (`root`) go on, in as many messages as their memory needs, to a PE that has contributed: that one concludes the
//! reduction in the root's place. For that each PE keeps a [`Reader`] for each reducer that it has used, by the names of its types; there are as
//! many as the program's text has.
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

use super::part::{EncodedPart, Given, Parts, name_of};
use super::{Distribute, Outcome, Reducer, Target};
use crate::error::CallError;
use crate::ids::{ChareId, CollectionId};
use crate::message::{Name, Payload};
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::{Arrives, Codec, Decoder, Encoder, Kind, Leaves, Rest, Unsent, Wire, WireError};

/// What code on one PE has contributed by, and waited for.
#[derive(Default)]
pub(crate) struct Readers {
    parts: RefCell<FxHashMap<u64, Rc<dyn Reader>>>,
    outcomes: RefCell<FxHashMap<u64, Settle>>,
    /// Parts that this PE reads for the root, until all of them have come, by name and reduction.
    forwarded: RefCell<FxHashMap<(u64, CollectionId, u64), Vec<EncodedPart>>>,
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

    /// All parts of a reduction that are of one name, once they have come.
    fn complete(&self, mut come: Forwarded) -> Option<Forwarded> {
        let Some(first) = come.parts.first().filter(|_| come.parts.len() < come.total) else {
            return Some(come);
        };
        let key = (first.name, come.collection, first.sequence);
        let mut forwarded = self.forwarded.borrow_mut();
        let parts = forwarded.entry(key).or_default();
        parts.append(&mut come.parts);
        if parts.len() < come.total {
            return None;
        }
        come.parts = forwarded.remove(&key)?;
        Some(come)
    }

    fn of_parts(&self, name: u64) -> Option<Rc<dyn Reader>> {
        self.parts.borrow().get(&name).cloned()
    }
}

impl<T: Send + 'static, R: Reducer<T>> Reader for ReaderOf<T, R> {
    fn conclude(&self, pe: &Pe, forwarded: Forwarded) -> Result<(), WireError> {
        let Forwarded { collection, failed, parts, .. } = forwarded;
        let sequence = parts.first().map(|part| part.sequence);
        let decode = |part| Given::<T, R>::decode(self.reducer, self.distribute, part);
        let parts = parts.into_iter().map(decode).collect::<Result<Vec<_>, WireError>>()?;
        let Some((collection, sequence)) = pe.collection(collection).zip(sequence) else {
            return Err(WireError::new("a reduction that nobody here has contributed to"));
        };
        Box::new(parts).conclude(pe, collection, sequence, failed.map(Arc::from));
        Ok(())
    }
}

/// Parts of a reduction, all of one name, on their way to a PE that can read them.
pub(crate) struct Forwarded {
    pub(super) collection: CollectionId,
    pub(super) failed: Option<String>,
    /// How many there are, in all messages.
    pub(super) total: usize,
    pub(super) parts: Vec<EncodedPart>,
}

impl Forwarded {
    fn leave(self, to: &mut Encoder) -> Result<(), Unsent> {
        let Forwarded { collection, failed, total, parts } = self;
        let count = parts.len();
        to.put_own(&(collection, failed, total, count));
        parts.into_iter().zip(1..).for_each(|(part, number)| part.leave(to, number == count));
        Ok(())
    }
}

impl Arrives for Forwarded {
    fn decode(bytes: &mut Decoder<'_>) -> Result<Self, WireError> {
        let (collection, failed, total, count): (_, _, _, usize) = bytes.take()?;
        let mut parts = Vec::new();
        for number in 1..=count {
            parts.push(EncodedPart::decode(bytes, number == count)?);
        }
        Ok(Forwarded { collection, failed, total, parts })
    }
}

impl Payload for Forwarded {
    const NAME: Name = Name::Runtime("the parts of a reduction");
    const LEAVES: Leaves<Self> = Leaves::As(Kind::Forwarded, Self::leave);
    fn run(self, _: ChareId, _: Reply, pe: &Pe) {
        let Some(all) = pe.readers.complete(self) else { return };
        let reader = all.parts.first().and_then(|part| pe.readers.of_parts(part.name));
        let outcome = match reader {
            Some(reader) => reader.conclude(pe, all),
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
        let (is_value, rest) = from.take_outcome_as_rest()?;
        Ok(EncodedOutcome { name, collection, sequence, is_value, rest })
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
