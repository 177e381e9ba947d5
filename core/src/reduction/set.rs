//! Reducers whose result is a set: every value once, in its own order.

use std::collections::BTreeSet;

use super::Reducer;
use crate::wire::Wire;

/// The different values among the contributions, in their order. Of values that are equal, one is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Set;

impl<T: Ord + Wire> Reducer<T> for Set {
    type Partial = BTreeSet<T>;
    type Output = BTreeSet<T>;
    fn start(&self, value: T, _: u64) -> BTreeSet<T> {
        BTreeSet::from([value])
    }
    fn merge(&self, into: &mut BTreeSet<T>, other: BTreeSet<T>) {
        unite(into, other);
    }
    fn add(&self, into: &mut BTreeSet<T>, value: T, _: u64) {
        into.insert(value);
    }
    fn finish(&self, partial: BTreeSet<T>) -> BTreeSet<T> {
        partial
    }
}

/// The union of the contributed sets, for elements that have several values each, or none. Of values that are equal, one
/// is kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Union;

impl<T: Ord + Wire> Reducer<BTreeSet<T>> for Union {
    type Partial = BTreeSet<T>;
    type Output = BTreeSet<T>;
    fn start(&self, values: BTreeSet<T>, _: u64) -> BTreeSet<T> {
        values
    }
    fn merge(&self, into: &mut BTreeSet<T>, other: BTreeSet<T>) {
        unite(into, other);
    }
    fn finish(&self, partial: BTreeSet<T>) -> BTreeSet<T> {
        partial
    }
}

/// Puts the smaller set into the larger one.
fn unite<T: Ord>(into: &mut BTreeSet<T>, mut other: BTreeSet<T>) {
    if into.len() < other.len() {
        std::mem::swap(into, &mut other);
    }
    into.extend(other);
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_set, vec};
    use proptest::prelude::*;

    use super::super::check_laws;
    use super::super::reducer::reduce;
    use super::*;

    proptest! {
        #[test]
        fn a_set_has_every_value_once(values in vec(0_u8..9, 3..8)) {
            let set = reduce(Set, values.clone());
            let mut expected = values.clone();
            expected.sort_unstable();
            expected.dedup();
            prop_assert_eq!(set.into_iter().collect::<Vec<_>>(), expected);
            check_laws(Set, &values)?;
        }

        #[test]
        fn a_union_has_what_any_set_has(sets in vec(btree_set(0_u8..20, 0..9), 3..7)) {
            let union = reduce(Union, sets.clone());
            prop_assert!((0..20).all(|value| union.contains(&value) == sets.iter().any(|set| set.contains(&value))));
            check_laws(Union, &sets)?;
        }
    }
}
