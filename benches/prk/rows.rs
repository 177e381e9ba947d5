//! The inner loops, on plain slices, in the best instructions that the machine has.
//!
//! Each is written once and compiled twice: as it is, and for AVX2 and FMA, which is taken if the machine has them.

use std::array;
use std::mem::replace;

/// Cells that a stencil reaches in each direction.
pub(crate) const RADIUS: usize = 2;

/// The weights along an axis: a discrete divergence. The middle one is counted and computed like the others.
const WEIGHTS: [f64; 2 * RADIUS + 1] = [-0.125, -0.25, 0.0, 0.25, 0.125];

/// Compiles a loop a second time, and chooses.
macro_rules! vectorised {
    ($(#[$docs:meta])* $name:ident, $fast:ident, $body:ident($($arg:ident: $Arg:ty),*)) => {
        $(#[$docs])*
        pub(crate) fn $name($($arg: $Arg),*) {
            #[cfg(target_arch = "x86_64")]
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                // SAFETY: the machine has AVX2 and FMA.
                return unsafe { $fast($($arg),*) };
            }
            $body::<false>($($arg),*)
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        fn $fast($($arg: $Arg),*) {
            $body::<true>($($arg),*)
        }
    };
}

vectorised! {
    /// Adds the star stencil to a row of `out`; `rows` are the rows of `in` from two before to two behind, each with two cells
    /// more at each end than `out`.
    add_stencil, add_stencil_fast, add_stencil_body(out: &mut [f64], rows: [&[f64]; 5])
}

vectorised! {
    /// Adds one to each cell.
    add_one, add_one_fast, add_one_body(row: &mut [f64])
}

vectorised! {
    /// One row of the pipeline: `row[i] = row[i - 1] + above[i] - above[i - 1]` from the second cell on.
    recur, recur_fast, recur_body(row: &mut [f64], above: &[f64])
}

vectorised! {
    /// Writes the transpose of a block of `from` to `to`, and adds one to each element of `from`. Both are column-major; see
    /// [`Tiles`].
    transpose, transpose_fast, transpose_body(from: Columns<'_>, to: Columns<'_>, tiles: Tiles)
}

vectorised! {
    /// As [`transpose`], but adds to what is there.
    add_transposed, add_transposed_fast, add_transposed_body(from: Columns<'_>, to: Columns<'_>, tiles: Tiles)
}

vectorised! {
    /// Adds one column to another.
    add_column, add_column_fast, add_column_body(to: &mut [f64], from: &[f64])
}

#[inline(always)]
fn multiply_add<const FUSED: bool>(a: f64, b: f64, sum: f64) -> f64 {
    if FUSED { a.mul_add(b, sum) } else { a * b + sum }
}

#[inline(always)]
fn add_stencil_body<const FUSED: bool>(out: &mut [f64], rows: [&[f64]; 5]) {
    let width = out.len();
    let rows = rows.map(|row| &row[..width + 2 * RADIUS]);
    for i in 0..width {
        let mut sum = out[i];
        for (weight, row) in WEIGHTS.into_iter().zip(rows) {
            sum = multiply_add::<FUSED>(weight, row[i + RADIUS], sum);
        }
        for j in [0, 1, 3, 4] {
            sum = multiply_add::<FUSED>(WEIGHTS[j], rows[RADIUS][i + j], sum);
        }
        out[i] = sum;
    }
}

#[inline(always)]
fn add_one_body<const FUSED: bool>(row: &mut [f64]) {
    row.iter_mut().for_each(|cell| *cell += 1.0);
}

#[inline(always)]
fn add_column_body<const FUSED: bool>(to: &mut [f64], from: &[f64]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// The differences do not wait for each other, so that each cell adds one operation only to the chain along the row.
#[inline(always)]
fn recur_body<const FUSED: bool>(row: &mut [f64], above: &[f64]) {
    let Some((first, rest)) = row.split_first_mut() else { return };
    let mut value = *first;
    for (cell, pair) in rest.iter_mut().zip(above.windows(2)) {
        value += pair[1] - pair[0];
        *cell = value;
    }
}

/// Part of a column-major matrix: what begins at `start` and has `stride` elements from column to column.
pub(crate) struct Columns<'a> {
    pub(crate) elements: &'a mut [f64],
    pub(crate) start: usize,
    pub(crate) stride: usize,
}

/// A square block of `order` elements along an edge, taken in tiles of `tile` so that both matrices stay in the cache.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    pub(crate) order: usize,
    pub(crate) tile: usize,
}

/// Elements along an edge of what is transposed in registers.
const SQUARE: usize = 4;

#[inline(always)]
fn transpose_body<const FUSED: bool>(from: Columns<'_>, to: Columns<'_>, tiles: Tiles) {
    each_square(from, to, tiles, |_, from| from);
}

#[inline(always)]
fn add_transposed_body<const FUSED: bool>(from: Columns<'_>, to: Columns<'_>, tiles: Tiles) {
    each_square(from, to, tiles, |to, from| to + from);
}

/// Puts what `put` makes of an element of `to` and its counterpart in `from` into `to`, and adds one to the one in `from`.
#[inline(always)]
fn each_square(from: Columns<'_>, to: Columns<'_>, tiles: Tiles, put: impl Fn(f64, f64) -> f64) {
    let Tiles { order, tile } = tiles;
    let (from_stride, to_stride) = (from.stride, to.stride);
    let (from, to) = (&mut from.elements[from.start..], &mut to.elements[to.start..]);
    let starts = || (0..order).step_by(tile);
    for (row, column) in starts().flat_map(|row| starts().map(move |column| (row, column))) {
        let (rows, columns) = (row..(row + tile).min(order), column..(column + tile).min(order));
        let whole_rows = rows.start..rows.start + rows.len() / SQUARE * SQUARE;
        let whole_columns = columns.start..columns.start + columns.len() / SQUARE * SQUARE;
        for i in whole_rows.clone().step_by(SQUARE) {
            for j in whole_columns.clone().step_by(SQUARE) {
                let square: [[f64; SQUARE]; SQUARE] = array::from_fn(|k| {
                    let cells = square_at(from, (j + k) * from_stride + i);
                    replace(cells, cells.map(|cell| cell + 1.0))
                });
                let turned: [[f64; SQUARE]; SQUARE] = array::from_fn(|k| square.map(|column| column[k]));
                for (k, new) in turned.into_iter().enumerate() {
                    let cells = square_at(to, (i + k) * to_stride + j);
                    *cells = array::from_fn(|l| put(cells[l], new[l]));
                }
            }
        }
        for j in columns {
            let skipped = if whole_columns.contains(&j) { whole_rows.end } else { rows.start };
            for i in skipped..rows.end {
                let (cell, taken) = (&mut from[j * from_stride + i], &mut to[i * to_stride + j]);
                *taken = put(*taken, *cell);
                *cell += 1.0;
            }
        }
    }
}

/// One edge of a square: elements of one column.
#[inline(always)]
fn square_at(elements: &mut [f64], start: usize) -> &mut [f64; SQUARE] {
    elements[start..].first_chunk_mut().expect("squares are inside of their block")
}
