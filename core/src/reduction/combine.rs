//! The operations: reducers that combine two values of a type into one of that type, containers element by element.
//!
//! Invariant: a value is never lost in silence: an integer that does not fit and lengths that differ panic, a NaN stays.

use super::Reducer;
use crate::wire::Wire;

/// Values that an operation combines in place. Containers combine element by element: [`Vec`], boxed slices, arrays (of up to 32
/// values, as many as serde knows) and, with the feature `ndarray`, arrays of that crate. Other types of other crates take a [`Reducer`] of your own.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be reduced by `{Op}`")]
pub trait Combine<Op>: Wire {
    /// Combines `other` into `self`.
    ///
    /// # Panics
    /// If two containers differ in length or shape, and if an integer sum or product overflows: the reduction then ends
    /// with an error that says so.
    fn combine(&mut self, other: Self);
}

macro_rules! operation {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $name;

        impl<T: Combine<$name>> Reducer<T> for $name {
            type Partial = T;
            type Output = T;
            #[inline]
            fn start(&self, value: T, _: u64) -> T {
                value
            }
            #[inline]
            fn merge(&self, into: &mut T, other: T) {
                into.combine(other);
            }
            fn finish(&self, partial: T) -> T {
                partial
            }
        }
    };
}

operation!(
    /// The sum; of containers, element by element. An integer sum that does not fit is an error of the reduction, also if it is
    /// that of some of the contributions and the whole would fit: whether it comes to that may depend on the order of arrival.
    Sum
);
operation!(
    /// The product; of containers, element by element. An integer product that does not fit is an error, as with [`Sum`].
    Product
);
operation!(
    /// The smallest value; a NaN anywhere gives NaN. Of `0.0` and `-0.0`, either. [`MinLoc`](super::MinLoc) tells where it is.
    Min
);
operation!(
    /// The largest value; a NaN anywhere gives NaN. Of `0.0` and `-0.0`, either. [`MaxLoc`](super::MaxLoc) tells where it is.
    Max
);
operation!(
    /// Logical and of `bool`s, bitwise and of integers.
    And
);
operation!(
    /// Logical or of `bool`s, bitwise or of integers.
    Or
);
operation!(
    /// Logical exclusive or of `bool`s, bitwise exclusive or of integers.
    Xor
);

macro_rules! combine_numbers {
    ($($kind:ident: $($number:ty)*;)*) => { $($( combine_numbers!(@$kind $number); )*)* };
    (@integer $t:ty) => {
        combine_numbers!(@impl $t, Sum, |a, b| a.checked_add(b).expect("a sum reduction overflowed"));
        combine_numbers!(@impl $t, Product, |a, b| a.checked_mul(b).expect("a product reduction overflowed"));
        combine_numbers!(@impl $t, Min, |a, b| a.min(b));
        combine_numbers!(@impl $t, Max, |a, b| a.max(b));
        combine_numbers!(@bits $t);
    };
    (@float $t:ty) => {
        combine_numbers!(@impl $t, Sum, |a, b| a + b);
        combine_numbers!(@impl $t, Product, |a, b| a * b);
        combine_numbers!(@impl $t, Min, |a, b| if a <= b || a.is_nan() { a } else { b });
        combine_numbers!(@impl $t, Max, |a, b| if a >= b || a.is_nan() { a } else { b });
    };
    (@bits $t:ty) => {
        combine_numbers!(@impl $t, And, |a, b| a & b);
        combine_numbers!(@impl $t, Or, |a, b| a | b);
        combine_numbers!(@impl $t, Xor, |a, b| a ^ b);
    };
    (@impl $t:ty, $op:ident, |$a:ident, $b:ident| $value:expr) => {
        impl Combine<$op> for $t {
            #[inline]
            fn combine(&mut self, $b: $t) {
                let $a = *self;
                *self = $value;
            }
        }
    };
}

combine_numbers! {
    integer: i8 i16 i32 i64 i128 isize u8 u16 u32 u64 u128 usize;
    float: f32 f64;
    bits: bool;
}

impl<Op, T: Combine<Op>> Combine<Op> for Vec<T> {
    fn combine(&mut self, other: Vec<T>) {
        require_equal_lengths(self.len(), other.len());
        self.iter_mut().zip(other).for_each(|(a, b)| a.combine(b));
    }
}

impl<Op, T: Combine<Op>> Combine<Op> for Box<[T]> {
    fn combine(&mut self, other: Box<[T]>) {
        require_equal_lengths(self.len(), other.len());
        self.iter_mut().zip(other).for_each(|(a, b)| a.combine(b));
    }
}

fn require_equal_lengths(one: usize, other: usize) {
    assert!(
        one == other,
        "the elements of a reduction gave arrays of different lengths: one of {one}, another of {other}"
    );
}

impl<Op, T: Combine<Op>, const N: usize> Combine<Op> for [T; N]
where
    [T; N]: Wire,
{
    fn combine(&mut self, other: [T; N]) {
        self.iter_mut().zip(other).for_each(|(a, b)| a.combine(b));
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::reducer::reduce;
    use super::super::{check_laws, check_laws_by};
    use super::*;

    #[test]
    fn a_nan_is_never_lost() {
        for values in [vec![1.0, f64::NAN, 3.0], vec![f64::NAN, 1.0], vec![1.0, f64::NAN]] {
            assert!(reduce(Max, values.clone()).is_nan());
            assert!(reduce(Min, values).is_nan());
        }
        assert_eq!((reduce(Max, vec![1.0, 3.0, 2.0]), reduce(Min, vec![2.0, 1.0, 3.0])), (3.0, 1.0));
    }

    #[test]
    fn containers_combine_element_by_element() {
        assert_eq!(reduce(Sum, vec![vec![1, 2], vec![10, 20]]), vec![11, 22]);
        assert_eq!(reduce(Product, vec![[2.0, 3.0], [4.0, 5.0]]), [8.0, 15.0]);
        assert_eq!(reduce(Xor, vec![vec![true, false], vec![true, true]]), vec![false, true]);
        let boxes: Vec<Box<[f64]>> = vec![Box::new([1.0, 2.0]), Box::new([10.0, 20.0])];
        assert_eq!(*reduce(Sum, boxes), [11.0, 22.0]);
    }

    #[test]
    #[should_panic(expected = "different lengths: one of 1, another of 2")]
    fn lengths_must_agree() {
        reduce(Sum, vec![vec![1], vec![1, 2]]);
    }

    #[test]
    #[should_panic(expected = "different lengths: one of 0, another of 1")]
    fn lengths_of_boxes_must_agree() {
        reduce(Sum, vec![Box::new([]) as Box<[i32]>, Box::new([2])]);
    }

    #[test]
    #[should_panic(expected = "overflowed")]
    fn integer_sums_do_not_wrap() {
        reduce(Sum, vec![u8::MAX, 1]);
    }

    proptest! {
        #[test]
        fn boxes_combine_like_a_loop_over_their_elements(
            rows in (0_usize..20).prop_flat_map(|n| vec(vec(-1e9..1e9_f64, n), 1..8)),
        ) {
            let boxes = || rows.iter().map(|row| row.clone().into_boxed_slice()).collect::<Vec<_>>();
            let fold = |f: fn(f64, f64) -> f64| -> Vec<f64> {
                let elements = 0..rows[0].len();
                elements.map(|i| rows.iter().map(|row| row[i]).reduce(f).expect("not empty")).collect()
            };
            prop_assert_eq!(reduce(Sum, boxes()).into_vec(), fold(|a, b| a + b));
            prop_assert_eq!(reduce(Min, boxes()).into_vec(), fold(f64::min));
            prop_assert_eq!(reduce(Max, boxes()).into_vec(), fold(f64::max));
        }

        #[test]
        fn operations_on_integers_keep_the_laws_and_agree_with_loops(
            values in vec(any::<i16>(), 3..7),
            small in vec(-9_i64..10, 3..7),
            flags in vec(any::<bool>(), 3..7),
        ) {
            check_laws(Sum, &values.iter().map(|&value| i64::from(value)).collect::<Vec<_>>())?;
            check_laws(Product, &small)?;
            prop_assert_eq!(reduce(Product, small.clone()), small.iter().product::<i64>());
            check_laws(Min, &values)?;
            check_laws(Max, &values)?;
            check_laws(And, &values)?;
            check_laws(Or, &values)?;
            check_laws(Xor, &values)?;
            let fold = |f: fn(i16, i16) -> i16| values.iter().copied().reduce(f).expect("not empty");
            prop_assert_eq!(reduce(And, values.clone()), fold(|a, b| a & b));
            prop_assert_eq!(reduce(Or, values.clone()), fold(|a, b| a | b));
            prop_assert_eq!(reduce(Xor, values.clone()), fold(|a, b| a ^ b));
            check_laws(And, &flags)?;
            check_laws(Or, &flags)?;
            check_laws(Xor, &flags)?;
            prop_assert_eq!(reduce(And, flags.clone()), flags.iter().all(|flag| *flag));
            prop_assert_eq!(reduce(Or, flags.clone()), flags.iter().any(|flag| *flag));
        }

        #[test]
        fn operations_on_floats_keep_the_laws_up_to_rounding(
            values in vec(prop_oneof![9 => -1e3..1e3_f64, 1 => Just(f64::NAN)], 3..7),
        ) {
            let same = |one: &f64, other: &f64| one == other || one.is_nan() && other.is_nan();
            let sum_of_sizes: f64 = values.iter().filter(|value| !value.is_nan()).map(|value| value.abs()).sum();
            check_laws_by(Min, &values, same)?;
            check_laws_by(Max, &values, same)?;
            check_laws_by(Sum, &values, |a, b| same(a, b) || (a - b).abs() <= 1e-14 * sum_of_sizes)?;
            check_laws_by(Product, &values, |a, b| same(a, b) || (a - b).abs() <= 1e-14 * a.abs())?;
        }

        #[test]
        fn containers_keep_the_laws(rows in vec([any::<i32>(), any::<i32>()], 3..7)) {
            check_laws(Max, &rows)?;
            check_laws(Sum, &rows.iter().map(|row| row.map(i64::from).to_vec()).collect::<Vec<_>>())?;
            check_laws(Xor, &rows.iter().map(|row| row.to_vec().into_boxed_slice()).collect::<Vec<_>>())?;
        }
    }
}
