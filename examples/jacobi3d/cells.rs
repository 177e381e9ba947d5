//! A box of cells as it travels: to another process beside its message, from where it lies, and not cell by cell.

use bytemuck::Pod;
use chare::Bulk;
use ndarray::{Array3, ArrayView3};
use serde::{Deserialize, Serialize};

/// Cells in standard layout. Invariant: there are as many values as the extents say.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "T: Pod")]
pub(crate) struct Cells<T> {
    extents: [usize; 3],
    values: Bulk<T>,
}

impl<T: Pod> Cells<T> {
    pub(crate) fn view(&self) -> ArrayView3<'_, T> {
        ArrayView3::from_shape(self.extents, &self.values).expect("as many values as the extents say")
    }
}

impl<T: Pod> From<Array3<T>> for Cells<T> {
    fn from(array: Array3<T>) -> Self {
        let extents = array.dim().into();
        let values = match array.is_standard_layout() {
            true => array.into_raw_vec_and_offset().0,
            false => array.iter().copied().collect(),
        };
        Cells { extents, values: values.into() }
    }
}

impl<T: Pod> From<Cells<T>> for Array3<T> {
    fn from(cells: Cells<T>) -> Self {
        let Cells { extents, values } = cells;
        Array3::from_shape_vec(extents, values.into_vec()).expect("as many values as the extents say")
    }
}
