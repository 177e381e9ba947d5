//! Several reducers at once: a tuple of them reduces tuples of values, each place by its own.
//!
//! A place knows nothing of the others, except that a panic in one is an error of the whole reduction.

use super::Reducer;

macro_rules! tuple_of_reducers {
    ($($place:tt: $value:ident $reducer:ident),*) => {
        impl<$($value, $reducer: Reducer<$value>),*> Reducer<($($value,)*)> for ($($reducer,)*) {
            type Partial = ($(<$reducer as Reducer<$value>>::Partial,)*);
            type Output = ($(<$reducer as Reducer<$value>>::Output,)*);
            #[inline]
            fn start(&self, value: ($($value,)*), from: u64) -> Self::Partial {
                ($(self.$place.start(value.$place, from),)*)
            }
            #[inline]
            fn merge(&self, into: &mut Self::Partial, other: Self::Partial) {
                $(self.$place.merge(&mut into.$place, other.$place);)*
            }
            #[inline]
            fn add(&self, into: &mut Self::Partial, value: ($($value,)*), from: u64) {
                $(self.$place.add(&mut into.$place, value.$place, from);)*
            }
            fn finish(&self, partial: Self::Partial) -> Self::Output {
                ($(self.$place.finish(partial.$place),)*)
            }
        }
    };
}

tuple_of_reducers!(0: A RA, 1: B RB);
tuple_of_reducers!(0: A RA, 1: B RB, 2: C RC);
tuple_of_reducers!(0: A RA, 1: B RB, 2: C RC, 3: D RD);
tuple_of_reducers!(0: A RA, 1: B RB, 2: C RC, 3: D RD, 4: E RE);
tuple_of_reducers!(0: A RA, 1: B RB, 2: C RC, 3: D RD, 4: E RE, 5: F RF);

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::reducer::reduce;
    use super::super::{And, Concat, First, Gather, Max, MaxLoc, Min, Nop, Set, Sum, Xor, check_laws};

    proptest! {
        #[test]
        fn each_place_is_reduced_by_its_own(
            rows in vec((any::<i32>(), any::<u8>(), any::<bool>(), vec(any::<char>(), 0..3)), 3..7),
        ) {
            let whole = reduce((Sum, Max, Xor, Concat), rows.iter().map(|(a, b, c, d)| (*a as i64, *b, *c, d.clone())));
            prop_assert_eq!(whole.0, rows.iter().map(|row| row.0 as i64).sum::<i64>());
            prop_assert_eq!(Some(whole.1), rows.iter().map(|row| row.1).max());
            prop_assert_eq!(whole.2, rows.iter().filter(|row| row.2).count() % 2 == 1);
            prop_assert_eq!(whole.3, rows.iter().flat_map(|row| row.3.clone()).collect::<Vec<_>>());
        }

        #[test]
        fn tuples_of_all_lengths_keep_the_laws(v in vec(any::<u8>(), 3..6), w in vec(any::<u8>(), 5)) {
            let rows: Vec<_> = v.into_iter().zip(w).map(|(a, b)| (u64::from(a), b)).collect();
            let six: Vec<_> = rows.iter().map(|&(a, b)| (a, b, b, (b, a), a, ())).collect();
            check_laws((Sum, Max, Set, MaxLoc, Gather, Nop), &six)?;
            check_laws((Sum, Min, First, MaxLoc, And), &six.iter().map(|s| (s.0, s.1, s.2, s.3, s.4)).collect::<Vec<_>>())?;
            check_laws((Sum, Max, Gather, Set), &six.iter().map(|s| (s.0, s.1, s.2, s.3)).collect::<Vec<_>>())?;
            check_laws((Xor, Gather, Min), &six.iter().map(|s| (s.0, s.1, s.2)).collect::<Vec<_>>())?;
            check_laws((Sum, (Max, Set)), &six.iter().map(|s| (s.0, (s.1, s.2))).collect::<Vec<_>>())?;
        }
    }

    #[test]
    #[should_panic(expected = "a sum reduction overflowed")]
    fn a_panic_in_one_place_is_that_of_all() {
        reduce((Max, Sum), [(1_u8, u8::MAX), (2, 1)]);
    }
}
