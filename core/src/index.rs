//! Indexes of dense arrays, 1-D to 6-D, and their numbering in row-major order.

use std::fmt::Debug;
use std::hash::Hash;

mod sealed {
    pub trait Sealed {}
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an array's index",
    note = "an index is `usize`, or a tuple of two to six `usize`"
)]
/// An index of a dense array, and, as a value, the array's shape. `usize` and tuples of two to six of them.
pub trait Index: Copy + Eq + Ord + Hash + Debug + Send + Sync + 'static + sealed::Sealed {
    /// The number of dimensions.
    const DIMS: usize;
    /// The extents or positions, outermost first.
    fn to_array(self) -> [usize; 6];
    #[doc(hidden)]
    fn from_array(axes: [usize; 6]) -> Self;

    /// The number of elements of an array of this shape, or `None` if it does not fit in 64 bits.
    fn element_count(self) -> Option<u64> {
        self.to_array()[..Self::DIMS]
            .iter()
            .try_fold(1_u64, |count, &extent| count.checked_mul(extent as u64))
    }

    /// The element's number in row-major order, or `None` outside of `shape`.
    fn number_in(self, shape: Self) -> Option<u64> {
        let (at, extents) = (self.to_array(), shape.to_array());
        let mut number = 0_u64;
        for axis in 0..Self::DIMS {
            if at[axis] >= extents[axis] {
                return None;
            }
            number = number * extents[axis] as u64 + at[axis] as u64;
        }
        Some(number)
    }

    /// The index of the element with this number in an array of this shape.
    fn of_number(number: u64, shape: Self) -> Self {
        let extents = shape.to_array();
        let mut axes = [0; 6];
        let mut rest = number;
        for axis in (1..Self::DIMS).rev() {
            let extent = extents[axis].max(1) as u64;
            axes[axis] = (rest % extent) as usize;
            rest /= extent;
        }
        axes[0] = rest as usize;
        Self::from_array(axes)
    }
}

impl sealed::Sealed for usize {}

impl Index for usize {
    const DIMS: usize = 1;
    fn to_array(self) -> [usize; 6] {
        [self, 0, 0, 0, 0, 0]
    }
    fn from_array(axes: [usize; 6]) -> Self {
        axes[0]
    }
}

macro_rules! tuple_index {
    ($dims:literal: $($axis:tt)*) => {
        impl sealed::Sealed for ($(tuple_index!(@usize $axis),)*) {}
        impl Index for ($(tuple_index!(@usize $axis),)*) {
            const DIMS: usize = $dims;
            fn to_array(self) -> [usize; 6] {
                let mut axes = [0; 6];
                $(axes[$axis] = self.$axis;)*
                axes
            }
            fn from_array(axes: [usize; 6]) -> Self {
                ($(axes[$axis],)*)
            }
        }
    };
    (@usize $axis:tt) => { usize };
}

tuple_index!(2: 0 1);
tuple_index!(3: 0 1 2);
tuple_index!(4: 0 1 2 3);
tuple_index!(5: 0 1 2 3 4);
tuple_index!(6: 0 1 2 3 4 5);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbering_is_a_bijection(shape in prop::array::uniform3(1_usize..9)) {
            let shape = (shape[0], shape[1], shape[2]);
            let mut next = 0;
            for i in 0..shape.0 {
                for j in 0..shape.1 {
                    for k in 0..shape.2 {
                        prop_assert_eq!((i, j, k).number_in(shape), Some(next));
                        prop_assert_eq!(<(usize, usize, usize)>::of_number(next, shape), (i, j, k));
                        next += 1;
                    }
                }
            }
            prop_assert_eq!(shape.element_count(), Some(next));
        }

        #[test]
        fn outside_is_none(at in prop::array::uniform6(0_usize..4), shape in prop::array::uniform6(1_usize..4)) {
            let tuple = |a: [usize; 6]| (a[0], a[1], a[2], a[3], a[4], a[5]);
            let inside = at.iter().zip(&shape).all(|(a, s)| a < s);
            prop_assert_eq!(tuple(at).number_in(tuple(shape)).is_some(), inside);
        }
    }

    #[test]
    fn too_many_elements_are_refused() {
        assert_eq!((usize::MAX, 2).element_count(), None);
        assert_eq!((7, 0).element_count(), Some(0));
    }
}
