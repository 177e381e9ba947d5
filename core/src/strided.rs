//! Regular ranges of indexes, for arrays that have many elements from their creation.

use crate::index::DenseIndex;

/// The indexes from a start to an end, which is not among them, at distances of a step; along each axis if they are
/// tuples, the last axis fastest. Given to [`SparseBuilder::strided`](crate::SparseBuilder::strided).
///
/// ```
/// use chare::Strided;
///
/// assert_eq!(Strided::new(3, 12, 4).iter().collect::<Vec<_>>(), [3, 7, 11]);
/// let red = Strided::new((0, 1), (3, 4), (2, 2));
/// assert_eq!(red.iter().collect::<Vec<_>>(), [(0, 1), (0, 3), (2, 1), (2, 3)]);
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Strided<I> {
    start: I,
    step: I,
    /// How many there are along each axis.
    shape: I,
    count: u64,
}

impl<I: DenseIndex> Strided<I> {
    /// The indexes from `start` up to, but not including, `end`, `step` apart. There are none if they end where they start.
    ///
    /// # Panics
    /// If the step is 0 or the end below the start along some axis, or if there are more than 64 bits count.
    #[track_caller]
    pub fn new(start: I, end: I, step: I) -> Self {
        let (starts, ends, steps) = (start.to_array(), end.to_array(), step.to_array());
        let mut axes = [0; 6];
        for axis in 0..I::DIMS {
            assert!(
                steps[axis] > 0,
                "a strided range with the step {step:?} never ends: give a step above 0"
            );
            assert!(
                starts[axis] <= ends[axis],
                "a strided range from {start:?} to {end:?} ends before it starts"
            );
            axes[axis] = (ends[axis] - starts[axis]).div_ceil(steps[axis]);
        }
        let shape = I::from_array(axes);
        let is_empty = axes[..I::DIMS].contains(&0);
        let Some(count) = (if is_empty { Some(0) } else { shape.element_count() }) else {
            panic!("a strided range from {start:?} to {end:?} has more indexes than 64 bits count")
        };
        Strided { start, step, shape, count }
    }

    /// How many indexes there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The indexes, in row-major order.
    pub fn iter(&self) -> impl Iterator<Item = I> + use<I> {
        let range = *self;
        (0..range.count).map(move |number| range.index(number))
    }

    /// The start, the step, and how many there are along each axis: what other processes make it of.
    pub(crate) fn to_arrays(self) -> [[usize; 6]; 3] {
        [self.start, self.step, self.shape].map(I::to_array)
    }

    /// The range that has come as these; `None` if they are no range.
    pub(crate) fn from_arrays(arrays: [[usize; 6]; 3]) -> Option<Self> {
        let [start, step, shape] = arrays.map(I::from_array);
        for axis in 0..I::DIMS {
            let [start, step, count] = arrays.map(|axes| axes[axis]);
            start.checked_add(count.saturating_sub(1).checked_mul(step)?)?;
        }
        let is_empty = arrays[2][..I::DIMS].contains(&0);
        let count = if is_empty { 0 } else { shape.element_count()? };
        Some(Strided { start, step, shape, count })
    }

    pub(crate) fn index(&self, number: u64) -> I {
        let at = I::of_number(number, self.shape).to_array();
        let (starts, steps) = (self.start.to_array(), self.step.to_array());
        I::from_array(std::array::from_fn(|axis| starts[axis] + at[axis] * steps[axis]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_range_is_what_loops_would_be(
            start in prop::array::uniform2(0_usize..20),
            length in prop::array::uniform2(0_usize..20),
            step in prop::array::uniform2(1_usize..8),
        ) {
            let end = (start[0] + length[0], start[1] + length[1]);
            let range = Strided::new((start[0], start[1]), end, (step[0], step[1]));
            let rows = (start[0]..end.0).step_by(step[0]);
            let looped: Vec<_> =
                rows.flat_map(|i| (start[1]..end.1).step_by(step[1]).map(move |j| (i, j))).collect();
            prop_assert_eq!(range.count(), looped.len() as u64);
            prop_assert_eq!(range.iter().collect::<Vec<_>>(), looped);
            prop_assert_eq!(Strided::from_arrays(range.to_arrays()), Some(range));
        }
    }

    #[test]
    fn what_is_no_range_is_none() {
        let far = [usize::MAX - 1, 0, 0, 0, 0, 0];
        let range = |start, step, count| Strided::<usize>::from_arrays([start, step, count]);
        assert_eq!(range(far, [1; 6], [2; 6]).map(|range| range.count()), Some(2));
        assert_eq!(range(far, [1; 6], [3; 6]), None);
        assert_eq!(range([0; 6], far, [4; 6]), None);
        assert_eq!(Strided::<(usize, usize)>::from_arrays([[0; 6], [1; 6], [usize::MAX; 6]]), None);
    }
}
