//! The transposition: some columns of a matrix and of its transpose as a chare, which exchanges square blocks with all others.
//!
//! A block is transposed into the memory of the last one that came, and is added where it belongs at the other end.

use chare::prelude::*;

use crate::rows::{Columns, Tiles, add_column, add_transposed, transpose};

/// The matrix and its parts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matrix {
    pub(crate) order: usize,
    pub(crate) parts: usize,
    pub(crate) tile: usize,
}

/// Columns of both matrices.
pub(crate) struct Part {
    matrix: Matrix,
    number: usize,
    /// The columns of a part.
    width: usize,
    a: Vec<f64>,
    b: Vec<f64>,
    peers: Vec<Option<Channel<Vec<f64>>>>,
    spare: Vec<f64>,
}

#[chare(index = usize)]
impl Part {
    fn new(cx: &Cx<Self>, matrix: Matrix) -> Self {
        let Matrix { order, parts, .. } = matrix;
        let (number, width) = (cx.index(), order / parts);
        let first = number * width * order;
        let peer =
            |other| cx.element(other).filter(|_| other != number).map(|element| cx.channel(&element, 0));
        Part {
            matrix,
            number,
            width,
            a: (first..first + width * order).map(|value| value as f64).collect(),
            b: vec![0.0; width * order],
            peers: (0..parts).map(peer).collect(),
            spare: vec![0.0; width * width],
        }
    }

    #[entry]
    async fn iterate(&mut self, iterations: usize) -> Result<()> {
        let Matrix { order, parts, tile } = self.matrix;
        let (width, tiles) = (self.width, Tiles { order: self.width, tile });
        for _ in 0..iterations {
            let start = self.number * width;
            let own = Columns { elements: &mut self.a, start, stride: order };
            add_transposed(own, Columns { elements: &mut self.b, start, stride: order }, tiles);
            for phase in 1..parts {
                let (to, from) = ((self.number + parts - phase) % parts, (self.number + phase) % parts);
                let mut block = std::mem::take(&mut self.spare);
                let own = Columns { elements: &mut self.a, start: to * width, stride: order };
                transpose(own, Columns { elements: &mut block, start: 0, stride: width }, tiles);
                self.peer(to).send(block)?;
                let block = self.peer(from).recv().await?;
                for (to, column) in self.b.chunks_exact_mut(order).zip(block.chunks_exact(width)) {
                    add_column(&mut to[from * width..][..width], column);
                }
                self.spare = block;
            }
        }
        Ok(())
    }

    /// The sum of all differences from what `iterations` must have brought.
    #[entry]
    fn error(&self, iterations: usize) -> f64 {
        let Matrix { order, .. } = self.matrix;
        let times = iterations as f64;
        let first = self.number * self.width;
        let columns = self.b.chunks_exact(order).zip(first..);
        let differences = columns.flat_map(|(column, j)| {
            let expected = move |i: usize| (order * i + j) as f64 * times + times * (times - 1.0) / 2.0;
            column.iter().enumerate().map(move |(i, value)| (value - expected(i)).abs())
        });
        differences.sum()
    }
}

impl Part {
    fn peer(&self, number: usize) -> &Channel<Vec<f64>> {
        self.peers[number].as_ref().expect("there is a channel to each other part")
    }
}
