//! The collections that a PE knows.

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;

use crate::collection::Collection;
use crate::ids::{CollectionId, PeId};

/// A table of collections by creator and counter that only grows.
pub(crate) struct Directory {
    by_creator: UnsafeCell<Vec<Vec<Option<Box<Collection>>>>>,
    /// The collection that was asked for last: programs send to one for long.
    last: Cell<(CollectionId, Option<NonNull<Collection>>)>,
}

impl Directory {
    pub(crate) fn new(pe_count: usize) -> Self {
        Directory {
            by_creator: UnsafeCell::new((0..pe_count).map(|_| Vec::new()).collect()),
            last: Cell::new((CollectionId::singles_of(PeId::new(0)), None)),
        }
    }

    #[inline(always)]
    pub(crate) fn get(&self, id: CollectionId) -> Option<&Collection> {
        match self.last.get() {
            // SAFETY: the collection is in its box as long as the directory lives.
            (last, Some(collection)) if last == id => Some(unsafe { collection.as_ref() }),
            _ => self.look_up(id),
        }
    }

    #[inline(never)]
    fn look_up(&self, id: CollectionId) -> Option<&Collection> {
        // SAFETY: the directory is not `Sync`, and no reference into the vectors outlives a method of it. A collection's
        // box is never removed or replaced while the directory lives, so `&Collection` may live as long as `&self`.
        let by_creator = unsafe { &*self.by_creator.get() };
        let collection = by_creator.get(id.root().index())?.get(id.counter())?.as_deref()?;
        self.last.set((id, Some(NonNull::from(collection))));
        Some(collection)
    }

    /// Adds a collection that is not there yet.
    pub(super) fn insert(&self, collection: Collection) -> &Collection {
        let id = collection.id();
        assert!(self.get(id).is_none(), "a collection is created once");
        // SAFETY: as in `get`; growing the vectors moves boxes, not the collections in them.
        let row = unsafe { &mut (&mut *self.by_creator.get())[id.root().index()] };
        if row.len() <= id.counter() {
            row.resize_with(id.counter() + 1, || None);
        }
        row[id.counter()].insert(Box::new(collection))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Collection> {
        // SAFETY: as in `get`; callers do not create collections while they iterate.
        let by_creator = unsafe { &*self.by_creator.get() };
        by_creator.iter().flatten().flatten().map(|collection| &**collection)
    }
}
