//! The pipeline: a strip of columns as a chare, which computes a row when it has the value at the row's left edge, and sends
//! the value at its right edge to the next strip.
//!
//! One message a row and strip, as in the original without its grouping of rows. The first strip waits for nobody: it tells
//! itself to go on after each row, so that the others on its PE have their turns. Messages between two chares have no
//! order, so a value names its row.

use std::mem::replace;
use std::ops::Range;

use chare::prelude::*;

use crate::rows::recur;

/// The grid and its strips.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pipeline {
    pub(crate) columns: usize,
    pub(crate) rows: usize,
    pub(crate) strips: usize,
}

/// The columns of a strip, each row behind a cell for its left neighbour.
pub(crate) struct Strip {
    pipeline: Pipeline,
    columns: Range<usize>,
    cells: Vec<f64>,
    /// The values that have come for rows that were not computed yet, or NaN.
    edges: Vec<f64>,
    /// The row that is computed next.
    next: usize,
    iterations_left: usize,
    first: Element<Strip>,
    right: Option<Element<Strip>>,
    finished: Option<Promise<f64>>,
}

#[chare(index = usize)]
impl Strip {
    fn new(cx: &Cx<Self>, pipeline: Pipeline) -> Self {
        let Pipeline { columns, rows, strips } = pipeline;
        let columns = cx.index() * columns / strips..(cx.index() + 1) * columns / strips;
        let stride = columns.len() + 1;
        let mut cells = vec![0.0; stride * rows];
        for (cell, column) in cells.iter_mut().zip(columns.start as i64 - 1..) {
            *cell = column as f64;
        }
        if columns.start == 0 {
            (0..rows).for_each(|row| cells[row * stride + 1] = row as f64);
        }
        Strip {
            pipeline,
            columns,
            cells,
            edges: vec![f64::NAN; rows],
            next: 1,
            iterations_left: 0,
            first: cx.array().at(0),
            right: cx.element(cx.index() + 1),
            finished: None,
        }
    }

    /// Before the first strip begins: the last one will fulfil `finished` with the value in the corner.
    #[entry]
    fn prepare(&mut self, iterations: usize, finished: Promise<f64>) {
        self.iterations_left = iterations;
        self.finished = self.right.is_none().then_some(finished);
    }

    /// Computes the next row of the first strip.
    #[entry]
    fn go_on(&mut self) {
        self.compute();
        if self.next < self.pipeline.rows {
            self.first.go_on().send();
        } else {
            self.end_iteration();
        }
    }

    /// The value at the left edge of a row.
    #[entry]
    fn edge(&mut self, row: usize, value: f64) {
        self.edges[row] = value;
        while self.next < self.pipeline.rows && !self.edges[self.next].is_nan() {
            let at = self.next * (self.columns.len() + 1);
            self.cells[at] = replace(&mut self.edges[self.next], f64::NAN);
            self.compute();
        }
        if self.next == self.pipeline.rows {
            self.end_iteration();
        }
    }

    /// The value that the next iteration of the first strip begins with.
    #[entry]
    fn corner(&mut self, value: f64) {
        self.cells[1] = value;
        self.first.go_on().send();
    }
}

impl Strip {
    fn compute(&mut self) {
        let stride = self.columns.len() + 1;
        let (above, row) = self.cells.split_at_mut(self.next * stride);
        let above = &above[above.len() - stride..];
        // The first column of the grid is given.
        let given = usize::from(self.columns.start == 0);
        recur(&mut row[given..stride], &above[given..]);
        if let Some(right) = &self.right {
            right.edge(self.next, row[stride - 1]).send();
        }
        self.next += 1;
    }

    fn end_iteration(&mut self) {
        self.next = 1;
        self.iterations_left -= 1;
        if self.right.is_some() {
            return;
        }
        let corner = self.cells[self.cells.len() - 1];
        if self.iterations_left > 0 {
            self.first.corner(-corner).send();
        } else {
            let finished = self.finished.take().expect("iterations are prepared before they begin");
            finished.send(corner).expect("the promise takes one value");
        }
    }
}
