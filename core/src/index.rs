//! Indexes of arrays. Those of dense arrays are 1-D to 6-D and number the elements in row-major order; those of sparse
//! arrays are any small values, each with a key of 64 bits.

use std::fmt::Debug;
use std::hash::{DefaultHasher, Hash, Hasher};

mod sealed {
    pub trait Sealed {}
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be an array's index",
    note = "an index is `usize`, or a tuple of two to six `usize`; for sparse arrays also a type that implements `chare::Index`"
)]
/// An index of an element of an array: `usize`, a tuple of two to six of them, or, for sparse arrays, a type of your own.
///
/// ```
/// use chare::prelude::*;
///
/// /// A node of a binary tree.
/// #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
/// struct Node {
///     depth: u8,
///     number: u32,
/// }
///
/// impl chare::Index for Node {
///     fn key(&self) -> u64 {
///         1 << self.depth | u64::from(self.number)
///     }
/// }
/// ```
pub trait Index: Copy + Eq + Ord + Hash + Debug + Send + Sync + 'static {
    /// The number by which the runtime knows the element of a sparse array, not [`u64::MAX`]. Values that are gathered
    /// come in the order of the keys. An insertion whose key is taken by another index is refused;
    /// calls are not checked. An index of your own with at most 64 bits should give them: then no two have one key.
    ///
    /// By default this is a hash of the index, so what is gathered comes in no order that means anything: let elements return
    /// their indexes too, or give keys. `usize`, and tuples of small ones, have keys in their own order.
    fn key(&self) -> u64 {
        hashed(self)
    }

    /// The index that has a key, if the key tells: so reports can name it where only the key is known.
    #[doc(hidden)]
    fn of_key(_key: u64) -> Option<Self> {
        None
    }
}

fn hashed(index: &impl Hash) -> u64 {
    // Without a random seed: every PE computes the same. The top bit tells it from a packed one.
    let mut hasher = DefaultHasher::new();
    index.hash(&mut hasher);
    (hasher.finish() | 1 << 63).min(u64::MAX - 1)
}

#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the index of a dense array",
    note = "that is `usize`, or a tuple of two to six `usize`; other indexes are for `rt.array_sparse()`"
)]
/// An index of a dense array, and, as a value, the array's shape. `usize` and tuples of two to six of them.
pub trait DenseIndex: Index + sealed::Sealed {
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

/// The axes side by side, the first one highest, if they fit in 63 bits.
fn packed<I: DenseIndex>(index: I) -> Option<u64> {
    let bits = 63 / I::DIMS as u32;
    index.to_array()[..I::DIMS].iter().try_fold(0_u64, |key, &axis| {
        let axis = axis as u64;
        (axis >> bits == 0).then_some(key << bits | axis)
    })
}

/// The index with a packed key.
fn unpacked<I: DenseIndex>(key: u64) -> Option<I> {
    let bits = 63 / I::DIMS as u32;
    let mut axes = [0; 6];
    for (place, axis) in axes[..I::DIMS].iter_mut().rev().enumerate() {
        *axis = (key >> (bits * place as u32) & ((1 << bits) - 1)) as usize;
    }
    (key >> 63 == 0).then(|| I::from_array(axes))
}

impl sealed::Sealed for usize {}

impl Index for usize {
    fn key(&self) -> u64 {
        *self as u64
    }

    fn of_key(key: u64) -> Option<Self> {
        Some(key as usize)
    }
}

impl DenseIndex for usize {
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
            fn key(&self) -> u64 {
                packed(*self).unwrap_or_else(|| hashed(self))
            }

            fn of_key(key: u64) -> Option<Self> {
                unpacked(key)
            }
        }
        impl DenseIndex for ($(tuple_index!(@usize $axis),)*) {
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
        fn a_key_in_the_order_of_the_axes_tells_the_index(axes in prop::array::uniform3(0_usize..1 << 23), far: usize) {
            let index = (axes[0], axes[1], axes[2]);
            let told = Index::of_key(index.key());
            prop_assert!(told == Some(index) || told.is_none() && axes.iter().any(|axis| axis >> 21 != 0));
            prop_assert_eq!(Index::of_key(far.key()), Some(far));
        }

        #[test]
        fn outside_is_none(at in prop::array::uniform6(0_usize..4), shape in prop::array::uniform6(1_usize..4)) {
            let tuple = |a: [usize; 6]| (a[0], a[1], a[2], a[3], a[4], a[5]);
            let inside = at.iter().zip(&shape).all(|(a, s)| a < s);
            prop_assert_eq!(tuple(at).number_in(tuple(shape)).is_some(), inside);
        }
    }

    #[test]
    fn keys_keep_the_order_of_small_indexes_and_differ() {
        let mut indexes: Vec<_> = (0..20_usize).flat_map(|i| (0..20).map(move |j| (i * 7919, j))).collect();
        indexes.extend([
            (usize::MAX, 0),
            (0, usize::MAX),
            (usize::MAX, usize::MAX),
            (1 << 31, 0),
            (0, 1 << 31),
        ]);
        let keys: std::collections::BTreeSet<_> = indexes.iter().map(Index::key).collect();
        assert!(keys.len() == indexes.len() && !keys.contains(&u64::MAX));
        assert!(indexes[..400].is_sorted_by_key(Index::key));
        assert_eq!((usize::MAX - 1).key(), u64::MAX - 1);
    }

    #[test]
    fn too_many_elements_are_refused() {
        assert_eq!((usize::MAX, 2).element_count(), None);
        assert_eq!((7, 0).element_count(), Some(0));
    }
}
