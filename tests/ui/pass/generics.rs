//! A generic chare: bounds, a `where` clause and a constant reach everything that is generated.
#![deny(warnings)]

use chare::prelude::*;

/// What a grid is made of.
pub trait Elem: Clone + Send + 'static {}
impl Elem for f64 {}

/// A row of cells.
pub struct Grid<T, const N: usize> {
    cells: [T; N],
}

#[chare(index = (usize, usize))]
impl<T: Elem, const N: usize> Grid<T, N>
where
    T: Copy,
{
    async fn new(cell: T) -> Self {
        Grid { cells: [cell; N] }
    }

    #[entry]
    fn set(&mut self, at: usize, cell: T) {
        self.cells[at] = cell;
    }

    #[entry]
    async fn cell(&mut self, at: usize) -> T {
        self.cells[at]
    }

    #[entry]
    async fn all(this: This<Self>) -> Result<[T; N], String> {
        Ok(this.with(|s| s.cells))
    }
}

fn _calls(grid: &impl Target<Chare = Grid<f64, 2>>) {
    let _ = grid.set(1, 2.0);
    let _ = grid.cell(1);
    let _ = grid.all();
    let _ = Grid::<f64, 2>::SET;
}

fn main() {}
