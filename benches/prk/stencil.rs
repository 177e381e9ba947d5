//! The star stencil: a block of the grid as a chare, whose coroutine exchanges ghosts with its neighbours over channels.
//!
//! An iteration adds the stencil of `in` to `out` and then one to every cell of `in`. A row of `in` gets its one as soon as no
//! row of `out` needs it any more: it is still in the cache then.

use std::ops::Range;

use chare::prelude::*;

use crate::rows::{RADIUS, add_one, add_stencil};

/// The grid and its blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Grid {
    pub(crate) order: usize,
    /// Blocks down and across.
    pub(crate) blocks: (usize, usize),
}

impl Grid {
    /// The rows or columns of a block.
    fn part(self, number: usize, blocks: usize) -> Range<usize> {
        number * self.order / blocks..(number + 1) * self.order / blocks
    }

    /// The cells whose neighbours all exist.
    fn inner(self, range: &Range<usize>) -> Range<usize> {
        range.start.max(RADIUS)..range.end.min(self.order - RADIUS)
    }

    pub(crate) fn inner_cell_count(self) -> f64 {
        ((self.order - 2 * RADIUS) as f64).powi(2)
    }
}

/// The sides of a block: the offset of the neighbour there.
const SIDES: [(isize, isize); 4] = [(-1, 0), (1, 0), (0, -1), (0, 1)];

/// The way to the neighbour at a side, and the memory that is sent there next.
struct Neighbour {
    side: (isize, isize),
    ghosts: Channel<Vec<f64>>,
    spare: Vec<f64>,
}

/// A block of the grid: `input` with two layers of ghosts around it, `output` without.
pub(crate) struct Block {
    grid: Grid,
    rows: Range<usize>,
    columns: Range<usize>,
    input: Vec<f64>,
    output: Vec<f64>,
    neighbours: Vec<Neighbour>,
}

#[chare(index = (usize, usize))]
impl Block {
    fn new(cx: &Cx<Self>, grid: Grid) -> Self {
        let (down, across) = cx.index();
        let (rows, columns) = (grid.part(down, grid.blocks.0), grid.part(across, grid.blocks.1));
        let mut block = Block {
            input: vec![0.0; (rows.len() + 2 * RADIUS) * (columns.len() + 2 * RADIUS)],
            output: vec![0.0; rows.len() * columns.len()],
            neighbours: Vec::new(),
            grid,
            rows,
            columns,
        };
        for row in block.rows.clone() {
            let (start, columns) = (block.at(row, block.columns.start), block.columns.clone());
            for (cell, column) in block.input[start..].iter_mut().zip(columns) {
                *cell = (row + column) as f64;
            }
        }
        for side in SIDES {
            let place = down.checked_add_signed(side.0).zip(across.checked_add_signed(side.1));
            if let Some(element) = place.and_then(|place| cx.element(place)) {
                let ghosts = cx.channel(&element, 0);
                block.neighbours.push(Neighbour { side, ghosts, spare: Vec::new() });
            }
        }
        block
    }

    #[entry]
    async fn iterate(&mut self, iterations: usize) -> Result<()> {
        for _ in 0..iterations {
            for number in 0..self.neighbours.len() {
                self.send_ghosts(number)?;
            }
            for number in 0..self.neighbours.len() {
                let ghosts = self.neighbours[number].ghosts.recv().await?;
                self.take_ghosts(number, ghosts);
            }
            self.compute();
        }
        Ok(())
    }

    /// The sum of the magnitudes of all results.
    #[entry]
    fn norm(&self) -> f64 {
        self.output.iter().map(|cell| cell.abs()).sum()
    }
}

impl Block {
    /// Where a cell of the grid is in `input`.
    fn at(&self, row: usize, column: usize) -> usize {
        (row + RADIUS - self.rows.start) * self.stride() + column + RADIUS - self.columns.start
    }

    fn stride(&self) -> usize {
        self.columns.len() + 2 * RADIUS
    }

    /// The rows and columns that a side sends, or, two cells further out, that it receives; counted in `input`.
    fn strip(&self, side: (isize, isize), is_ghost: bool) -> (Range<usize>, Range<usize>) {
        let out = if is_ghost { RADIUS } else { 0 };
        let along = |side: isize, count: usize| match side {
            -1 => RADIUS - out..2 * RADIUS - out,
            0 => RADIUS..RADIUS + count,
            _ => count + out..count + out + RADIUS,
        };
        (along(side.0, self.rows.len()), along(side.1, self.columns.len()))
    }

    fn send_ghosts(&mut self, number: usize) -> Result<()> {
        let (rows, columns) = self.strip(self.neighbours[number].side, false);
        let mut cells = std::mem::take(&mut self.neighbours[number].spare);
        cells.clear();
        for row in rows {
            let start = row * self.stride();
            cells.extend_from_slice(&self.input[start + columns.start..start + columns.end]);
        }
        self.neighbours[number].ghosts.send(cells)?;
        Ok(())
    }

    fn take_ghosts(&mut self, number: usize, ghosts: Vec<f64>) {
        let (rows, columns) = self.strip(self.neighbours[number].side, true);
        for (row, cells) in rows.zip(ghosts.chunks_exact(columns.len())) {
            let start = row * self.stride();
            self.input[start + columns.start..start + columns.end].copy_from_slice(cells);
        }
        self.neighbours[number].spare = ghosts;
    }

    fn compute(&mut self) {
        let (width, stride) = (self.columns.len(), self.stride());
        let (rows, columns) = (self.grid.inner(&self.rows), self.grid.inner(&self.columns));
        let mut raised = self.rows.start;
        for row in rows.clone() {
            let start = (row - self.rows.start) * width + columns.start - self.columns.start;
            let first = self.at(row, columns.start) - RADIUS - RADIUS * stride;
            let around: [&[f64]; 2 * RADIUS + 1] = std::array::from_fn(|down| {
                &self.input[first + down * stride..][..columns.len() + 2 * RADIUS]
            });
            add_stencil(&mut self.output[start..start + columns.len()], around);
            if row >= self.rows.start + RADIUS {
                self.raise(row - RADIUS);
                raised = row - RADIUS + 1;
            }
        }
        (raised..self.rows.end).for_each(|row| self.raise(row));
    }

    fn raise(&mut self, row: usize) {
        let start = self.at(row, self.columns.start);
        add_one(&mut self.input[start..start + self.columns.len()]);
    }
}
