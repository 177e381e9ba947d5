//! The indexes of the elements of a sparse array that a PE knows, by their keys: of those that live on it, and of those that
//! it is the home of.

use std::any::Any;
use std::cell::RefCell;

use rustc_hash::FxHashMap;

use crate::index::Index;
use crate::known::Known;

/// The indexes of one array on one PE; their type is known to whoever knows the type of the chare.
pub(crate) trait AnyIndexes: Known {
    /// A copy of an index that goes with its element to another PE.
    fn copy(&self, element: u64) -> Option<Box<dyn Any + Send>>;
    /// Takes in such a copy.
    fn bring(&self, element: u64, index: Box<dyn Any + Send>);
    fn remove(&self, element: u64);
    /// The index as users write it.
    fn name(&self, element: u64) -> Option<String>;
    /// How many there are.
    #[cfg(all(test, not(loom)))]
    fn count(&self) -> usize;
}

pub(super) struct Indexes<I>(RefCell<FxHashMap<u64, I>>);

impl<I> Default for Indexes<I> {
    fn default() -> Self {
        Indexes(RefCell::default())
    }
}

impl<I: Index> Indexes<I> {
    pub(super) fn get(&self, element: u64) -> Option<I> {
        self.0.borrow().get(&element).copied()
    }

    pub(super) fn insert(&self, element: u64, index: I) {
        self.0.borrow_mut().insert(element, index);
    }
}

impl<I: Index> AnyIndexes for Indexes<I> {
    fn copy(&self, element: u64) -> Option<Box<dyn Any + Send>> {
        self.get(element).map(|index| Box::new(index) as Box<dyn Any + Send>)
    }

    fn bring(&self, element: u64, index: Box<dyn Any + Send>) {
        let index = index.downcast::<I>().expect("an element keeps its type of index");
        self.insert(element, *index);
    }

    fn remove(&self, element: u64) {
        self.0.borrow_mut().remove(&element);
    }

    fn name(&self, element: u64) -> Option<String> {
        self.get(element).map(|index| format!("[{index:?}]"))
    }

    #[cfg(all(test, not(loom)))]
    fn count(&self) -> usize {
        self.0.borrow().len()
    }
}
