//! At the root of a collection: how many elements take part in each reduction, and which insertions are on their way.
//!
//! An element takes part from the first reduction on that comes after all that had ended when its insertion came to the root
//! (or that its inserter, another element, had not contributed to), up to the one that it would have contributed to when it was
//! destroyed. So a reduction ends when as many have contributed as took part,
//! whoever comes and goes meanwhile.
//!
//! Broadcasts, and the end of inserting, wait at the root until the insertions that came before them have a place, so they
//! reach those elements.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};

use crate::ids::PeId;
use crate::scheduler::pe::Pe;

/// Something that waits for insertions.
type Later = Box<dyn FnOnce(&Pe)>;

/// Who belongs to a collection, as its root knows.
pub(crate) struct Membership {
    /// All reductions below this number have ended.
    ended: u64,
    /// Others that have.
    ended_early: BTreeSet<u64>,
    /// Elements that take part in reduction `ended`.
    count: u64,
    /// How many more, or less, take part from a reduction on than in the one before.
    changes: BTreeMap<u64, i64>,
    /// All elements of the creation have been inserted.
    is_sealed: bool,
    insertions: u64,
    /// Insertions that have no place yet, as far as is known here.
    on_their_way: BTreeSet<u64>,
    waiting: VecDeque<Waiting>,
}

struct Waiting {
    /// The last insertion that it waits for.
    until: u64,
    is_broadcast: bool,
    later: Later,
}

/// What the root gives an insertion.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Ticket {
    /// The first reduction that the element takes part in.
    pub(crate) first_reduction: u64,
    /// The first broadcast that reaches it.
    pub(crate) first_broadcast: u64,
    number: u64,
}

impl Membership {
    pub(super) fn new(count: u64, is_sealed: bool) -> Self {
        Membership {
            ended: 0,
            ended_early: BTreeSet::new(),
            count,
            changes: BTreeMap::new(),
            is_sealed,
            insertions: 0,
            on_their_way: BTreeSet::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Admits an element that is being inserted, after so many broadcasts have been numbered. `inserter` is the reduction
    /// that its inserter contributes to next, so one that has not ended.
    pub(crate) fn admit(&mut self, inserter: Option<u64>, numbered_broadcasts: u64) -> Ticket {
        // One that has ended before an earlier one has its members already.
        let next = self.ended_early.last().map_or(self.ended, |last| last + 1);
        let first_reduction = inserter.unwrap_or(next);
        let waiting = self.waiting.iter().filter(|waiting| waiting.is_broadcast).count() as u64;
        self.insertions += 1;
        self.on_their_way.insert(self.insertions);
        self.change(first_reduction, 1);
        Ticket { first_reduction, first_broadcast: numbered_broadcasts + waiting, number: self.insertions }
    }

    /// Takes an admission back: the element is there already.
    pub(crate) fn withdraw(&mut self, ticket: Ticket) {
        self.change(ticket.first_reduction, -1);
    }

    /// Notes that the elements of a creation have places when all these homes have said so.
    pub(crate) fn await_places(&mut self, pe_count: usize) {
        self.insertions += pe_count as u64;
        self.on_their_way.extend(1..=self.insertions);
    }

    /// Notes that all elements of a creation have a place that one PE is the home of.
    pub(crate) fn settle_places(&mut self, home: PeId) {
        self.on_their_way.remove(&(home.index() as u64 + 1));
    }

    /// Lets an element go that would contribute to reduction `next` next.
    pub(crate) fn leave(&mut self, next: u64) {
        self.change(next, -1);
    }

    fn change(&mut self, from: u64, by: i64) {
        debug_assert!(from >= self.ended, "a reduction that has ended has its members");
        *self.changes.entry(from).or_default() += by;
    }

    /// How many take part in a reduction; `None` as long as elements are to be inserted that do, too.
    pub(crate) fn expected(&self, reduction: u64) -> Option<u64> {
        if !self.is_sealed {
            return None;
        }
        let changed: i64 = self.changes.range(..=reduction).map(|(_, by)| by).sum();
        self.count.checked_add_signed(changed)
    }

    /// Notes that a reduction has ended.
    pub(crate) fn end(&mut self, reduction: u64) {
        self.ended_early.insert(reduction);
        while self.ended_early.remove(&self.ended) {
            let changed = self.changes.remove(&self.ended).unwrap_or_default();
            self.count = self.count.checked_add_signed(changed).expect("more came than left");
            self.ended += 1;
        }
    }

    pub(crate) fn seal(&mut self) {
        self.is_sealed = true;
    }

    /// Gives `later` back if no insertion is on its way; else keeps it until those have a place that are.
    pub(crate) fn after_insertions(&mut self, is_broadcast: bool, later: Later) -> Option<Later> {
        if self.on_their_way.is_empty() && self.waiting.is_empty() {
            return Some(later);
        }
        self.waiting.push_back(Waiting { until: self.insertions, is_broadcast, later });
        None
    }

    /// Notes that an insertion has a place, or has failed.
    pub(crate) fn settle(&mut self, ticket: Ticket) {
        self.on_their_way.remove(&ticket.number);
    }

    /// Takes the first of what waits for insertions that have a place by now.
    pub(crate) fn next_ready(&mut self) -> Option<Later> {
        let until = self.waiting.front()?.until;
        let is_ready = self.on_their_way.first().is_none_or(|first| *first > until);
        if is_ready { self.waiting.pop_front().map(|waiting| waiting.later) } else { None }
    }

    /// Takes all that waits, at the end of the PE.
    pub(super) fn give_up(&mut self) -> impl Iterator<Item = Later> + use<> {
        std::mem::take(&mut self.waiting).into_iter().map(|waiting| waiting.later)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Admit,
        /// One of the members inserts another.
        Insert(prop::sample::Index),
        Withdraw,
        /// One of the members leaves.
        Leave(prop::sample::Index),
        /// One of the members contributes to its next reduction.
        Contribute(prop::sample::Index),
        /// One of the contributions comes to the root, where later reductions may so end first.
        Arrive(prop::sample::Index),
    }

    proptest! {
        /// Against a model that knows of each member which reductions it takes part in.
        #[test]
        fn a_reduction_ends_when_its_members_have_contributed(
            steps in prop::collection::vec(
                prop_oneof![
                    2 => Just(Step::Admit),
                    2 => any::<prop::sample::Index>().prop_map(Step::Insert),
                    1 => Just(Step::Withdraw),
                    1 => any::<prop::sample::Index>().prop_map(Step::Leave),
                    8 => any::<prop::sample::Index>().prop_map(Step::Contribute),
                    8 => any::<prop::sample::Index>().prop_map(Step::Arrive),
                ],
                0..200,
            ),
            initial in 0_u64..4,
        ) {
            let mut membership = Membership::new(initial, true);
            // Each member's next reduction, and each reduction's contributions.
            let mut members: Vec<u64> = vec![0; initial as usize];
            let mut contributions = BTreeMap::<u64, u64>::new();
            let mut on_their_way = Vec::new();
            let mut ended = BTreeSet::new();
            for step in steps {
                match step {
                    Step::Admit => members.push(membership.admit(None, 0).first_reduction),
                    Step::Withdraw => {
                        let ticket = membership.admit(None, 0);
                        membership.withdraw(ticket);
                    }
                    Step::Leave(_) | Step::Contribute(_) | Step::Insert(_) if members.is_empty() => {}
                    Step::Insert(which) => {
                        let inserter = members[which.index(members.len())];
                        prop_assert_eq!(membership.admit(Some(inserter), 0).first_reduction, inserter);
                        members.push(inserter);
                    }
                    Step::Leave(which) => {
                        let next = members.swap_remove(which.index(members.len()));
                        membership.leave(next);
                    }
                    Step::Contribute(which) => {
                        let which = which.index(members.len());
                        let next = &mut members[which];
                        prop_assert!(!ended.contains(next), "it was not waited for");
                        on_their_way.push(*next);
                        *next += 1;
                    }
                    Step::Arrive(_) if on_their_way.is_empty() => {}
                    Step::Arrive(which) => {
                        let reduction = on_their_way.swap_remove(which.index(on_their_way.len()));
                        *contributions.entry(reduction).or_default() += 1;
                    }
                }
                let is_over = |(reduction, count): (&u64, &u64)| {
                    (membership.expected(*reduction) == Some(*count)).then_some(*reduction)
                };
                let over: Vec<_> = contributions.iter().filter_map(is_over).collect();
                for reduction in over {
                    prop_assert!(members.iter().all(|next| *next > reduction), "one of them was forgotten");
                    membership.end(reduction);
                    ended.insert(reduction);
                    contributions.remove(&reduction);
                }
                for reduction in contributions.keys().filter(|reduction| !on_their_way.contains(reduction)) {
                    prop_assert!(members.iter().any(|next| next <= reduction), "all have contributed");
                }
            }
        }

        #[test]
        fn what_waits_goes_when_the_insertions_before_it_have_a_place(
            steps in prop::collection::vec((0..3, any::<prop::sample::Index>()), 0..100),
        ) {
            let mut membership = Membership::new(0, false);
            let mut tickets = Vec::<Ticket>::new();
            // Of each that waits: the insertions that it waits for.
            let mut waiting = VecDeque::<BTreeSet<u64>>::new();
            for (step, which) in steps {
                match step {
                    0 => tickets.push(membership.admit(None, 0)),
                    1 => {
                        let before: BTreeSet<_> = tickets.iter().map(|ticket| ticket.number).collect();
                        let is_kept = membership.after_insertions(false, Box::new(|_| ())).is_none();
                        prop_assert_eq!(is_kept, !before.is_empty() || !waiting.is_empty());
                        if is_kept {
                            waiting.push_back(before);
                        }
                    }
                    _ if tickets.is_empty() => {}
                    _ => {
                        let ticket = tickets.swap_remove(which.index(tickets.len()));
                        membership.settle(ticket);
                        waiting.iter_mut().for_each(|before| { before.remove(&ticket.number); });
                    }
                }
                while membership.next_ready().is_some() {
                    prop_assert_eq!(waiting.pop_front(), Some(BTreeSet::new()));
                }
                prop_assert!(waiting.front().is_none_or(|before| !before.is_empty()));
            }
        }
    }
}
