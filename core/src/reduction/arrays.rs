//! Arrays of the crate `ndarray` in reductions: element by element, whatever their layouts in memory.

use ndarray::{Array, Dimension};

use super::Combine;
use crate::wire::Wire;

impl<Op, T: Combine<Op>, D: Dimension + Wire> Combine<Op> for Array<T, D> {
    fn combine(&mut self, other: Array<T, D>) {
        assert!(
            self.raw_dim() == other.raw_dim(),
            "the elements of a reduction gave arrays of different shapes: one of {:?}, another of {:?}",
            self.shape(),
            other.shape()
        );
        let is_plain = other.is_standard_layout();
        match self.as_slice_mut() {
            // The usual case, without a computation of addresses.
            Some(ours) if is_plain => {
                let (theirs, first) = other.into_raw_vec_and_offset();
                let theirs = theirs.into_iter().skip(first.unwrap_or(0));
                ours.iter_mut().zip(theirs).for_each(|(a, b)| a.combine(b));
            }
            _ => self.iter_mut().zip(other).for_each(|(a, b)| a.combine(b)),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array1, Array2, Axis, s};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::reducer::reduce;
    use super::super::{Max, Product, Sum, check_laws};

    /// The same values in one of several layouts: plain, column-major, a part of something larger, backwards, transposed.
    fn laid_out(rows: usize, columns: usize, values: &[i64], layout: usize) -> Array2<i64> {
        let plain = Array2::from_shape_vec((rows, columns), values.to_vec()).expect("as many values");
        match layout {
            0 => plain,
            1 => Array2::from_shape_vec((columns, rows), plain.t().iter().copied().collect())
                .expect("as many values")
                .reversed_axes(),
            2 => {
                let mut larger = Array2::from_elem((rows + 2, columns), -1);
                larger.slice_mut(s![1..=rows, ..]).assign(&plain);
                larger.slice_move(s![1..=rows, ..])
            }
            3 => {
                let mut larger = Array2::from_elem((rows, columns + 3), -1);
                larger.slice_mut(s![.., 2..columns + 2]).assign(&plain);
                larger.slice_move(s![.., 2..columns + 2])
            }
            _ => {
                let mut backwards = Array2::from_elem((rows, columns), -1);
                backwards.invert_axis(Axis(0));
                backwards.assign(&plain);
                backwards
            }
        }
    }

    proptest! {
        #[test]
        fn arrays_combine_like_a_loop_over_their_elements(
            (rows, columns, values) in (1_usize..6, 1_usize..6)
                .prop_flat_map(|(r, c)| (Just(r), Just(c), vec((vec(-9_i64..10, r * c), 0_usize..5), 1..6))),
        ) {
            let arrays = || values.iter().map(|(values, layout)| laid_out(rows, columns, values, *layout)).collect::<Vec<_>>();
            let fold = |f: fn(i64, i64) -> i64| -> Vec<i64> {
                let elements = 0..rows * columns;
                elements.map(|i| values.iter().map(|(row, _)| row[i]).reduce(f).expect("not empty")).collect()
            };
            let elements = |array: Array2<i64>| array.iter().copied().collect::<Vec<_>>();
            prop_assert_eq!(elements(reduce(Sum, arrays())), fold(|a, b| a + b));
            prop_assert_eq!(elements(reduce(Product, arrays())), fold(|a, b| a * b));
            prop_assert_eq!(elements(reduce(Max, arrays())), fold(i64::max));
            if values.len() >= 3 {
                check_laws(Sum, &arrays())?;
            }
        }
    }

    #[test]
    fn there_may_be_no_elements() {
        assert_eq!(reduce(Sum, vec![Array1::<f64>::zeros(0), Array1::zeros(0)]).len(), 0);
        assert_eq!(reduce(Sum, vec![Array2::<f64>::zeros((3, 0)); 2]).shape(), [3, 0]);
    }

    #[test]
    #[should_panic(expected = "different shapes: one of [2, 3], another of [3, 2]")]
    fn shapes_must_agree() {
        reduce(Sum, vec![Array2::<f64>::zeros((2, 3)), Array2::zeros((3, 2))]);
    }
}
