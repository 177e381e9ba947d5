//! The end of a reduction, at its root: parts are kept until as many contributions have come as elements take part, and then merged in
//! the order of their PEs.
//!
//! Invariant: only the root's count says that a reduction has ended. On which way parts have come, and how many were merged before that,
//! does not matter to it (`tree`).
//!
//! Parts of other processes are bytes, which only who has contributed by the same reducer can read. If a part of the root's own process is among
//! them, the root reads the others by the reducer of that one. If none is, they go on to a PE that has contributed (`across`), in as many messages as
//! their memory needs: that one concludes the reduction in the root's place.

use std::any::type_name;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::across::Forwarded;
use super::part::{EncodedPart, Given, Part, Parts, add_counts, in_messages};
use super::{Reducer, Reductions, mismatch, mismatch_elsewhere};
use crate::collection::Collection;
use crate::known::Known;
use crate::message::Msg;
use crate::reply::Reply;
use crate::scheduler::pe::Pe;
use crate::wire::WireError;

/// The parts of one reduction that have come to the root.
#[derive(Default)]
pub(super) struct AtRoot {
    count: u64,
    failed: Option<Arc<str>>,
    /// A `Vec<Given<T, R>>`, once there is one.
    parts: Option<Box<dyn Parts>>,
    /// Parts of other processes.
    encoded: Vec<EncodedPart>,
}

impl<T: Send + 'static, R: Reducer<T>> Part<T, R> {
    /// At the root, from a PE of its process.
    pub(super) fn arrive(self, pe: &Pe) {
        let Part { collection: id, sequence, from, count, merged, .. } = self;
        let Some(collection) = pe.named_collection(id, &Reply::none()) else { return };
        let (mut given, mut error) = (Some(Given { from, count, merged }), None);
        let complete =
            collection.reductions.borrow_mut().note_at_root(collection, sequence, count, |at_root| {
                let parts = at_root.parts.get_or_insert_with(|| Box::new(Vec::<Given<T, R>>::new()));
                let there = parts.names();
                let parts: &mut dyn Known = &mut **parts;
                match parts.known_mut::<Vec<Given<T, R>>>() {
                    Some(parts) => parts.extend(given.take()),
                    None => {
                        let misfit =
                            mismatch(collection, sequence, there, (type_name::<T>(), type_name::<R>()));
                        at_root.failed = Some(misfit.clone());
                        error = Some(misfit);
                    }
                }
            });
        match (given, error) {
            (Some(given), Some(error)) => given.merged.give_up(pe, error),
            (given, _) => pe.drop_each(given),
        }
        end(pe, collection, sequence, complete);
    }
}

impl EncodedPart {
    /// At the root, from another process.
    pub(super) fn arrive(self, pe: &Pe, collection: &Collection) {
        let (sequence, count) = (self.sequence, self.count);
        let complete =
            collection.reductions.borrow_mut().note_at_root(collection, sequence, count, |at_root| {
                at_root.encoded.push(self);
            });
        end(pe, collection, sequence, complete);
    }
}

/// Ends a reduction if it is complete.
fn end(pe: &Pe, collection: &Collection, sequence: u64, complete: Result<Option<AtRoot>, WireError>) {
    match complete {
        Ok(Some(at_root)) => at_root.end(pe, collection, sequence),
        Ok(None) => {}
        Err(error) => pe.received_nonsense(&error),
    }
}

impl Reductions {
    /// Counts contributions that have come to the root; `put` notes what has come with them. The whole, if it is complete.
    fn note_at_root(
        &mut self,
        collection: &Collection,
        sequence: u64,
        count: u64,
        put: impl FnOnce(&mut AtRoot),
    ) -> Result<Option<AtRoot>, WireError> {
        let at_root = self.at_root.entry(sequence).or_default();
        at_root.count = add_counts(at_root.count, count)?;
        put(at_root);
        let is_last = collection.membership.borrow().expected(sequence) == Some(at_root.count);
        Ok(if is_last { self.at_root.remove(&sequence) } else { None })
    }
}

/// Concludes the reductions that are complete now that other elements take part in them than before.
pub(crate) fn conclude_ready(pe: &Pe, collection: &Collection) {
    loop {
        let ready = {
            let mut reductions = collection.reductions.borrow_mut();
            let membership = collection.membership.borrow();
            let is_ready =
                |sequence: &u64, at_root: &AtRoot| membership.expected(*sequence) == Some(at_root.count);
            let ready = reductions.at_root.iter().filter(|(sequence, at_root)| is_ready(sequence, at_root));
            let first = ready.map(|(sequence, _)| *sequence).min();
            first.and_then(|sequence| reductions.at_root.remove_entry(&sequence))
        };
        let Some((sequence, at_root)) = ready else { return };
        at_root.end(pe, collection, sequence);
    }
}

impl AtRoot {
    /// Ends a reduction of which all parts have come.
    fn end(self, pe: &Pe, collection: &Collection, sequence: u64) {
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
        let failed = failed.or_else(|| (groups > 1).then(|| mismatch_elsewhere(collection, sequence)));
        if let Some(parts) = parts {
            parts.conclude(pe, collection, sequence, failed.clone());
        }
        for (_, mut parts) in by_name {
            parts.sort_by_key(|part| part.from);
            let (to, total) = (parts[0].from, parts.len());
            for parts in in_messages(parts) {
                let failed = failed.as_deref().map(str::to_owned);
                pe.post(to, Msg::for_pe(Forwarded { collection: collection.id(), failed, total, parts }));
            }
        }
    }

    /// Drops the values, at the end of the PE.
    pub(super) fn give_up(self, pe: &Pe) {
        self.parts.into_iter().for_each(|parts| parts.give_up(pe));
    }
}
