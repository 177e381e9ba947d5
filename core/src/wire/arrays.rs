//! Arrays of the crate `ndarray` in messages: their memory as it lies, row by row or column by column.

use bytemuck::Pod;
use ndarray::{Array, Dimension, ShapeBuilder};
use serde::{Deserialize, Serialize};

use super::plain::{Contiguous, sealed};

/// The lengths of the axes, and the order of the values.
#[derive(Serialize, Deserialize)]
pub struct Shape {
    lengths: Vec<usize>,
    order: Order,
}

#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
enum Order {
    /// The last axis varies fastest.
    Rows,
    /// The first one does.
    Columns,
}

/// The order in which an array lies; of one that lies otherwise, as parts of others do, that in which it is copied.
fn order_of<T, D: Dimension>(array: &Array<T, D>) -> Order {
    let lies_in_columns = !array.is_standard_layout() && array.t().is_standard_layout();
    if lies_in_columns { Order::Columns } else { Order::Rows }
}

impl<T: Pod, D: Dimension> sealed::Sealed for Array<T, D> {}

impl<T: Pod, D: Dimension + 'static> Contiguous for Array<T, D> {
    type Value = T;
    type Shape = Shape;

    fn shape(&self) -> Shape {
        Shape { lengths: self.shape().to_vec(), order: order_of(self) }
    }

    fn count(&self) -> usize {
        self.len()
    }

    fn copied(&self) -> Vec<T> {
        match order_of(self) {
            Order::Rows => self.iter().copied().collect(),
            Order::Columns => self.t().iter().copied().collect(),
        }
    }

    fn into_parts(self) -> (Shape, Vec<T>) {
        let (shape, count) = (Contiguous::shape(&self), self.len());
        let is_contiguous = self.is_standard_layout() || shape.order == Order::Columns;
        if !is_contiguous {
            return (shape, self.copied());
        }
        let (mut values, first) = self.into_raw_vec_and_offset();
        // Of an array that was made smaller in place, what is left.
        let first = first.unwrap_or(0);
        values.truncate(first + count);
        values.drain(..first);
        (shape, values)
    }

    fn from_parts(Shape { lengths, order }: Shape, values: Vec<T>) -> Option<Self> {
        if D::NDIM.is_some_and(|axes| axes != lengths.len()) {
            return None;
        }
        let mut shape = D::zeros(lengths.len());
        shape.slice_mut().copy_from_slice(&lengths);
        Array::from_shape_vec(shape.set_f(order == Order::Columns), values).ok()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use ndarray::{Array0, Array1, Array2, Array3, ArrayD, Axis, array, s};

    use super::*;

    fn there_and_back<T: Pod, D: Dimension + 'static>(array: Array<T, D>) -> Array<T, D> {
        let (shape, values) = array.into_parts();
        Array::from_parts(shape, values).expect("it was one")
    }

    fn numbers() -> Array3<f64> {
        Array3::from_shape_fn((2, 3, 4), |(i, j, k)| (100 * i + 10 * j + k) as f64)
    }

    #[test]
    fn arrays_come_as_they_were_whatever_their_layout() {
        let rows = numbers();
        let mut columns = Array3::zeros((2, 3, 4).f());
        columns.assign(&rows);
        let mut smaller = rows.clone();
        smaller.slice_collapse(s![1.., .., ..]);
        let mut parted = rows.clone();
        parted.slice_collapse(s![.., 1..;2, ..]);
        let mut backwards = rows.clone();
        backwards.invert_axis(Axis(1));
        for array in [rows, columns, smaller, parted, backwards] {
            let copy = Array::from_parts(Contiguous::shape(&array), array.copied()).expect("it was one");
            assert_eq!(copy, array);
            assert_eq!(there_and_back(array.clone()), array);
        }
        assert_eq!(there_and_back(Array0::from_elem((), 7_u8)), Array0::from_elem((), 7));
        assert_eq!(there_and_back(Array2::<u16>::zeros((0, 5))).dim(), (0, 5));
        let many = ArrayD::from_elem(vec![1, 2, 1, 2, 1], 3_i32);
        assert_eq!(there_and_back(many.clone()), many);
    }

    #[test]
    fn what_lies_in_one_piece_is_moved() {
        let rows = numbers();
        let place = rows.as_ptr();
        let back = there_and_back(rows);
        assert_eq!(back.as_ptr(), place);
        let columns = array![[1_u64, 2], [3, 4]].reversed_axes();
        let place = columns.as_ptr();
        let back = there_and_back(columns);
        assert_eq!((back.as_ptr(), back), (place, array![[1, 3], [2, 4]]));
    }

    #[test]
    fn shapes_of_other_arrays_are_refused() {
        let shape = |lengths: &[usize]| Shape { lengths: lengths.to_vec(), order: Order::Rows };
        assert!(Array1::<u8>::from_parts(shape(&[3]), vec![1, 2, 3]).is_some());
        assert!(Array1::<u8>::from_parts(shape(&[4]), vec![1, 2, 3]).is_none());
        assert!(Array1::<u8>::from_parts(shape(&[3, 1]), vec![1, 2, 3]).is_none());
        assert!(Array2::<u8>::from_parts(shape(&[usize::MAX, 2]), vec![1, 2, 3]).is_none());
        assert!(ArrayD::<u8>::from_parts(shape(&[0, usize::MAX, usize::MAX]), vec![]).is_none());
    }
}
