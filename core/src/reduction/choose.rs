//! Reducers whose result is one of the contributions, as it came. Where several are as good, that of the element with the
//! lowest index is taken, so who comes first never shows.

use std::cmp::Ordering;

use super::Reducer;
use crate::wire::Wire;

/// The contribution of the element with the lowest index (row-major): any one of them, where all are known to be equal, and
/// always the same one where they are not.
#[derive(Clone, Copy, Debug, Default)]
pub struct First;

impl<T: Wire> Reducer<T> for First {
    type Partial = (u64, T);
    type Output = T;
    fn start(&self, value: T, from: u64) -> (u64, T) {
        (from, value)
    }
    fn merge(&self, into: &mut (u64, T), other: (u64, T)) {
        if other.0 < into.0 {
            *into = other;
        }
    }
    fn finish(&self, (_, value): (u64, T)) -> T {
        value
    }
}

/// Whether the other value is taken rather than ours: it comes `wanted` to it, or is as good and of a lower element.
///
/// # Panics
/// If two values that are no NaN cannot be compared.
fn is_better<V: PartialOrd>(wanted: Ordering, (other, from): (&V, u64), (ours, our_from): (&V, u64)) -> bool {
    // A value that is not equal to itself has a NaN in it. It must not be compared: `(1.0, NAN)` is less than `(2.0, 0.0)`.
    let is_nan = |value: &V| value.partial_cmp(value).is_none();
    match (is_nan(other), is_nan(ours)) {
        (true, true) => from < our_from,
        (true, false) => true,
        (false, true) => false,
        (false, false) => match other.partial_cmp(ours) {
            Some(Ordering::Equal) => from < our_from,
            Some(order) => order == wanted,
            None => panic!("two values of a reduction to an extreme cannot be compared"),
        },
    }
}

macro_rules! extreme {
    ($(#[$doc:meta])* $name:ident, $wanted:expr) => {
        $(#[$doc])*
        ///
        /// Each element contributes a pair: its value, and what stands beside it, such as its index or a position. The
        /// result is the pair of the one value.
        ///
        /// Of equal values (`-0.0` is equal to `0.0`), that of the element with the lowest index is taken. A NaN anywhere,
        /// also inside of a tuple, is the result; of several, that of the lowest element: what stands beside it tells
        /// where it comes from. Values that cannot be compared although they are no NaN are an error of the reduction.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl<V, L> Reducer<(V, L)> for $name
        where
            V: PartialOrd + Wire,
            L: Wire,
        {
            type Partial = (u64, (V, L));
            type Output = (V, L);
            fn start(&self, value: (V, L), from: u64) -> Self::Partial {
                (from, value)
            }
            fn merge(&self, into: &mut Self::Partial, other: Self::Partial) {
                if is_better($wanted, (&other.1.0, other.0), (&into.1.0, into.0)) {
                    *into = other;
                }
            }
            fn finish(&self, (_, value): Self::Partial) -> (V, L) {
                value
            }
        }
    };
}

extreme!(
    /// The smallest value, and where it is.
    MinLoc,
    Ordering::Less
);
extreme!(
    /// The largest value, and where it is.
    MaxLoc,
    Ordering::Greater
);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::reducer::reduce;
    use super::super::{check_laws, check_laws_by};
    use super::*;

    /// Few values, so that there are ties, and some that are special.
    fn float() -> impl Strategy<Value = f64> {
        prop_oneof![
            4 => (-2_i8..3).prop_map(f64::from),
            1 => prop::sample::select(vec![f64::NAN, -0.0, f64::INFINITY, f64::NEG_INFINITY]),
        ]
    }

    proptest! {
        #[test]
        fn the_first_is_that_of_element_zero(values in vec(any::<u8>(), 3..7)) {
            prop_assert_eq!(reduce(First, values.clone()), values[0]);
            check_laws(First, &values)?;
        }

        #[test]
        fn an_extreme_is_where_a_loop_finds_it_first(values in vec(float(), 3..8)) {
            let located: Vec<_> = values.iter().copied().zip(10_usize..).collect();
            let find = |is_better: fn(f64, f64) -> bool| {
                let nan = located.iter().find(|(value, _)| value.is_nan());
                let best = located.iter().fold(located[0], |best, one| if is_better(one.0, best.0) { *one } else { best });
                nan.copied().unwrap_or(best)
            };
            let bits = |one: &(f64, usize), other: &(f64, usize)| {
                (one.0.to_bits(), one.1) == (other.0.to_bits(), other.1)
            };
            prop_assert!(bits(&reduce(MinLoc, located.clone()), &find(|one, best| one < best)));
            prop_assert!(bits(&reduce(MaxLoc, located.clone()), &find(|one, best| one > best)));
            check_laws_by(MinLoc, &located, bits)?;
            check_laws_by(MaxLoc, &located, bits)?;
        }

        #[test]
        fn a_nan_in_a_tuple_keeps_the_laws(values in vec([float(), float(), float()], 3..7)) {
            let located: Vec<_> = values.iter().map(|[a, b, c]| (*a, *b, *c)).zip(0_u32..).collect();
            type Located = ((f64, f64, f64), u32);
            let same_place = |one: &Located, other: &Located| one.1 == other.1;
            check_laws_by(MaxLoc, &located, same_place)?;
            check_laws_by(MinLoc, &located, same_place)?;
        }
    }

    #[test]
    #[should_panic(expected = "cannot be compared")]
    fn values_without_an_order_are_refused() {
        #[derive(PartialEq, serde::Serialize, serde::Deserialize)]
        struct Subset(BTreeSet<u8>);
        impl PartialOrd for Subset {
            fn partial_cmp(&self, other: &Subset) -> Option<Ordering> {
                match (self.0.is_subset(&other.0), other.0.is_subset(&self.0)) {
                    (true, true) => Some(Ordering::Equal),
                    (true, false) => Some(Ordering::Less),
                    (false, true) => Some(Ordering::Greater),
                    (false, false) => None,
                }
            }
        }
        reduce(MinLoc, [1, 2].map(|value| (Subset(BTreeSet::from([value])), value)));
    }
}
