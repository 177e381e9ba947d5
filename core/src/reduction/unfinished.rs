//! The unfinished reductions of one collection on one PE, in order.
//!
//! Invariant: each element that lives on the PE is counted as owing to exactly one of them, the one that its own count
//! names; they are consecutive, the oldest first. What a reducer merges into is out of the table while it runs.
//!
//! What a contribution costs here: two entries, which are neighbours, are found and written (its own and the next
//! one's), and its own again when the reducer has run.

use std::collections::VecDeque;

use super::Local;

/// The reductions that elements here have not all contributed to, or that are not shipped yet.
#[derive(Default)]
pub(super) struct Unfinished {
    /// The number of the first in `open`.
    first: u64,
    open: VecDeque<Open>,
}

/// An unfinished reduction on one PE.
#[derive(Default)]
struct Open {
    /// Elements here whose next contribution goes to it.
    owing: u64,
    /// Contributions that have come here.
    count: u64,
    /// None before the first, and while a reducer runs on it.
    merged: Option<Box<dyn Local>>,
    is_merging: bool,
}

/// What a contribution is merged into, out of the table.
pub(super) struct Begun {
    /// None if it is the first.
    pub(super) merged: Option<Box<dyn Local>>,
    /// Elements here that still owe theirs.
    pub(super) owing: u64,
}

impl Unfinished {
    /// Takes in elements that contribute to reduction `next` next: they are constructed, or have arrived.
    pub(super) fn join(&mut self, next: u64, count: u64) {
        if count > 0 {
            self.at(next).owing += count;
        }
    }

    /// Lets an element go that would contribute to reduction `next` next.
    pub(super) fn leave(&mut self, next: u64) {
        self.at(next).owing -= 1;
    }

    /// Counts a contribution, and takes out what it is merged into.
    #[inline]
    pub(super) fn begin(&mut self, sequence: u64) -> Begun {
        if self.place_of(sequence + 1).is_none() {
            self.at(sequence + 1);
        }
        let place = self.place_of(sequence).expect("the element is counted as owing to it");
        self.open[place + 1].owing += 1;
        let open = &mut self.open[place];
        open.owing -= 1;
        open.count += 1;
        open.is_merging = true;
        Begun { merged: open.merged.take(), owing: open.owing }
    }

    /// Puts back what has been merged; true if no element here owes a contribution to it any more.
    #[inline]
    pub(super) fn put_back(&mut self, sequence: u64, merged: Box<dyn Local>) -> bool {
        let place = self.place_of(sequence).expect("nothing is shipped while a reducer runs on it");
        let open = &mut self.open[place];
        (open.merged, open.is_merging) = (Some(merged), false);
        open.owing == 0
    }

    /// Takes the oldest reduction, with its number and the count of its contributions, if no element here owes it one
    /// more. Others may arrive that do: they make another part of it.
    pub(super) fn next_finished(&mut self) -> Option<(u64, u64, Box<dyn Local>)> {
        // A contribution that a reducer makes to a later reduction may find this one out of the table.
        while self.open.front().is_some_and(|oldest| oldest.owing == 0 && !oldest.is_merging) {
            let oldest = self.open.pop_front()?;
            self.first += 1;
            if let Some(merged) = oldest.merged {
                return Some((self.first - 1, oldest.count, merged));
            }
        }
        None
    }

    /// The lowest reduction that elements here owe a contribution, or that is not shipped yet; the highest number if there is none.
    #[inline]
    pub(super) fn lowest(&self) -> u64 {
        let is_waited_for = |open: &Open| open.owing > 0 || open.is_merging || open.merged.is_some();
        let place = self.open.iter().position(is_waited_for);
        place.map_or(u64::MAX, |place| self.first + place as u64)
    }

    /// What is merged so far, at the end of the PE.
    pub(super) fn into_merged(self) -> impl Iterator<Item = Box<dyn Local>> {
        self.open.into_iter().filter_map(|open| open.merged)
    }

    #[inline]
    fn place_of(&self, number: u64) -> Option<usize> {
        let place = number.wrapping_sub(self.first);
        (place < self.open.len() as u64).then_some(place as usize)
    }

    /// The entry of a reduction, made if it is not there: elements that arrive may be behind or ahead of all others.
    #[inline(never)]
    fn at(&mut self, number: u64) -> &mut Open {
        if self.open.is_empty() {
            self.first = number;
        }
        while number < self.first {
            self.first -= 1;
            self.open.push_front(Open::default());
        }
        while number >= self.first + self.open.len() as u64 {
            self.open.push_back(Open::default());
        }
        &mut self.open[(number - self.first) as usize]
    }
}
