//! The built-in reducers, and the trait that makes one.
//!
//! A reducer must be associative, and commutative over the elements of one PE: contributions merge in order of arrival
//! there, and the PEs' parts in the order of the PEs. `Gather` sorts, so its result has one order.

/// Merges the contributions of a reduction.
pub trait Reducer<T>: Copy + Send + 'static {
    /// What contributions are merged into.
    type Partial: Send + 'static;
    /// The result.
    type Output: Send + 'static;

    /// The partial of one contribution, from the element with this number in row-major order.
    fn start(&self, value: T, from: u64) -> Self::Partial;

    /// Merges another partial into one.
    fn merge(&self, into: &mut Self::Partial, other: Self::Partial);

    /// Merges one contribution into a partial.
    fn add(&self, into: &mut Self::Partial, value: T, from: u64) {
        self.merge(into, self.start(value, from));
    }

    /// The result of all contributions.
    fn finish(&self, partial: Self::Partial) -> Self::Output;
}

/// Values that an operation combines in place. Containers combine element by element: [`Vec`], boxed slices, arrays and,
/// with the feature `ndarray`, arrays of that crate. Other types of other crates take a [`Reducer`] of your own.
#[diagnostic::on_unimplemented(message = "`{Self}` cannot be reduced by `{Op}`")]
pub trait Combine<Op>: Send + 'static {
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
    /// The sum; of containers, element by element.
    Sum
);
operation!(
    /// The product; of containers, element by element.
    Product
);
operation!(
    /// The smallest value; a NaN anywhere gives NaN.
    Min
);
operation!(
    /// The largest value; a NaN anywhere gives NaN.
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

impl<Op, T: Combine<Op>, const N: usize> Combine<Op> for [T; N] {
    fn combine(&mut self, other: [T; N]) {
        self.iter_mut().zip(other).for_each(|(a, b)| a.combine(b));
    }
}

/// Nothing but the news that all have contributed: a barrier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nop;

impl Reducer<()> for Nop {
    type Partial = ();
    type Output = ();
    fn start(&self, (): (), _: u64) {}
    fn merge(&self, (): &mut (), (): ()) {}
    fn finish(&self, (): ()) {}
}

/// All contributions, sorted by the contributors' indexes (row-major).
#[derive(Clone, Copy, Debug, Default)]
pub struct Gather;

impl<T: Send + 'static> Reducer<T> for Gather {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn reduce<T, R: Reducer<T>>(reducer: R, values: Vec<T>) -> R::Output {
        let mut parts = values.into_iter().enumerate().map(|(i, value)| reducer.start(value, i as u64));
        let mut total = parts.next().expect("not empty");
        parts.for_each(|part| reducer.merge(&mut total, part));
        reducer.finish(total)
    }

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
    }
}
