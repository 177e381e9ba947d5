//! Reducers that keep every contribution, in the order of the elements whatever the order of arrival.

use super::Reducer;
use crate::wire::Wire;

/// All contributions, sorted by the contributors' indexes (row-major).
#[derive(Clone, Copy, Debug, Default)]
pub struct Gather;

impl<T: Wire> Reducer<T> for Gather {
    type Partial = Vec<(u64, T)>;
    type Output = Vec<T>;
    fn start(&self, value: T, from: u64) -> Self::Partial {
        vec![(from, value)]
    }
    fn merge(&self, into: &mut Self::Partial, other: Self::Partial) {
        into.extend(other);
    }
    fn add(&self, into: &mut Self::Partial, value: T, from: u64) {
        into.push((from, value));
    }
    fn finish(&self, mut partial: Self::Partial) -> Vec<T> {
        partial.sort_by_key(|(from, _)| *from);
        partial.into_iter().map(|(_, value)| value).collect()
    }
}

/// The contributed [`Vec`]s one after another, in the order of the contributors' indexes (row-major). They may differ in
/// length, and be empty.
#[derive(Clone, Copy, Debug, Default)]
pub struct Concat;

impl<T: Wire> Reducer<Vec<T>> for Concat {
    type Partial = Vec<(u64, Vec<T>)>;
    type Output = Vec<T>;
    fn start(&self, values: Vec<T>, from: u64) -> Self::Partial {
        vec![(from, values)]
    }
    fn merge(&self, into: &mut Self::Partial, other: Self::Partial) {
        into.extend(other);
    }
    fn add(&self, into: &mut Self::Partial, values: Vec<T>, from: u64) {
        into.push((from, values));
    }
    fn finish(&self, mut partial: Self::Partial) -> Vec<T> {
        partial.sort_by_key(|(from, _)| *from);
        let mut all = Vec::with_capacity(partial.iter().map(|(_, values)| values.len()).sum());
        partial.into_iter().for_each(|(_, values)| all.extend(values));
        all
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::check_laws;
    use super::super::reducer::reduce;
    use super::*;

    proptest! {
        #[test]
        fn gather_sorts(order in Just((0..50_u64).collect::<Vec<_>>()).prop_shuffle(), cut in 1_usize..49) {
            let part = |range: &[u64]| {
                let mut partial = Gather.start(range[0], range[0]);
                range[1..].iter().for_each(|&i| Gather.add(&mut partial, i, i));
                partial
            };
            let mut total = part(&order[..cut]);
            Reducer::<u64>::merge(&Gather, &mut total, part(&order[cut..]));
            prop_assert_eq!(Gather.finish(total), (0..50).collect::<Vec<u64>>());
        }

        #[test]
        fn all_is_kept_in_order(rows in vec(vec(any::<i16>(), 0..4), 3..7)) {
            prop_assert_eq!(reduce(Concat, rows.clone()), rows.concat());
            prop_assert_eq!(reduce(Gather, rows.clone()), rows.clone());
            check_laws(Concat, &rows)?;
            check_laws(Gather, &rows)?;
        }
    }
}
