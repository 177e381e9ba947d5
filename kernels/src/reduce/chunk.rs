//! Reductions of a chunk, in the order that all devices keep: lanes, then halves.
//!
//! Lanes are what vector registers hold: each row of a chunk is merged into them element by element, without an order between
//! lanes that the compiler would have to keep.

use crate::Real;

/// The elements that one block makes one value of.
pub const CHUNK: usize = 4096;

const LANES: usize = 256;

/// Reduces each chunk to one value. Of no elements there is one chunk.
pub(super) fn each<T: Real>(x: &[T], partial: &mut [T], reduce: impl Fn(&[T]) -> T) {
    assert_eq!(partial.len(), x.len().div_ceil(CHUNK).max(1), "partial: one value for each {CHUNK} elements");
    partial[0] = reduce(&[]);
    for (partial, chunk) in partial.iter_mut().zip(x.chunks(CHUNK)) {
        *partial = reduce(chunk);
    }
}

/// [`each`] of products.
pub(super) fn each_dot<T: Real>(x: &[T], y: &[T], partial: &mut [T]) {
    assert_eq!(x.len(), y.len(), "x and y: vectors of one length");
    assert_eq!(partial.len(), x.len().div_ceil(CHUNK).max(1), "partial: one value for each {CHUNK} elements");
    partial[0] = T::default();
    for ((partial, x), y) in partial.iter_mut().zip(x.chunks(CHUNK)).zip(y.chunks(CHUNK)) {
        *partial = dot(x, y);
    }
}

pub(super) fn sum<T: Real>(chunk: &[T]) -> T {
    reduce(chunk, T::default(), |a, b| a + b)
}

pub(super) fn min<T: Real>(chunk: &[T]) -> T {
    reduce(chunk, T::INFINITY, smaller)
}

pub(super) fn max<T: Real>(chunk: &[T]) -> T {
    reduce(chunk, -T::INFINITY, larger)
}

fn dot<T: Real>(x: &[T], y: &[T]) -> T {
    let mut lanes = [T::default(); LANES];
    for (x, y) in x.chunks(LANES).zip(y.chunks(LANES)) {
        for ((lane, x), y) in lanes.iter_mut().zip(x).zip(y) {
            *lane += *x * *y;
        }
    }
    merge(lanes, |a, b| a + b)
}

/// The smaller one, or a NaN.
#[inline(always)]
#[allow(clippy::eq_op, reason = "a NaN differs from itself")]
fn smaller<T: Real>(a: T, b: T) -> T {
    if a < b || a != a { a } else { b }
}

/// The larger one, or a NaN.
#[inline(always)]
#[allow(clippy::eq_op, reason = "a NaN differs from itself")]
fn larger<T: Real>(a: T, b: T) -> T {
    if a > b || a != a { a } else { b }
}

#[inline(always)]
fn reduce<T: Real>(chunk: &[T], identity: T, both: impl Fn(T, T) -> T) -> T {
    let mut lanes = [identity; LANES];
    for row in chunk.chunks(LANES) {
        for (lane, x) in lanes.iter_mut().zip(row) {
            *lane = both(*lane, *x);
        }
    }
    merge(lanes, both)
}

/// The upper half onto the lower, until one is left.
#[inline(always)]
fn merge<T: Real>(mut lanes: [T; LANES], both: impl Fn(T, T) -> T) -> T {
    let mut half = LANES / 2;
    while half > 0 {
        let (low, high) = lanes.split_at_mut(half);
        for (low, high) in low.iter_mut().zip(high) {
            *low = both(*low, *high);
        }
        half /= 2;
    }
    lanes[0]
}

/// Reduces chunks until one value is left.
fn all<T: Real>(mut partial: Vec<T>, reduce: impl Fn(&[T]) -> T) -> T {
    while partial.len() > 1 {
        partial = partial.chunks(CHUNK).map(&reduce).collect();
    }
    partial.first().copied().unwrap_or_else(|| reduce(&[]))
}

/// The sum of all elements: bit for bit that of [`sum`](super::sum).
pub fn sum_slice<T: Real>(x: &[T]) -> T {
    all(x.chunks(CHUNK).map(sum).collect(), sum)
}

/// The smallest element: that of [`min`](super::min).
pub fn min_slice<T: Real>(x: &[T]) -> T {
    all(x.chunks(CHUNK).map(min).collect(), min)
}

/// The largest element: that of [`max`](super::max).
pub fn max_slice<T: Real>(x: &[T]) -> T {
    all(x.chunks(CHUNK).map(max).collect(), max)
}

/// The sum of the products of the elements of two vectors, in the order of [`dot`](super::dot()).
///
/// # Panics
///
/// If the vectors are not of one length.
pub fn dot_slice<T: Real>(x: &[T], y: &[T]) -> T {
    assert_eq!(x.len(), y.len(), "x and y: vectors of one length");
    all(x.chunks(CHUNK).zip(y.chunks(CHUNK)).map(|(x, y)| dot(x, y)).collect(), sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn reductions_are_what_they_are_called(x in prop::collection::vec(-1e3..1e3f64, 0..3 * CHUNK)) {
            let y: Vec<f64> = x.iter().map(|x| 2.0 - x).collect();
            let close = |a: f64, b: f64, terms: f64| (a - b).abs() <= 1e-13 * terms;
            let plain: f64 = x.iter().sum();
            prop_assert!(close(sum_slice(&x), plain, 1e3 * x.len() as f64));
            let plain: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
            prop_assert!(close(dot_slice(&x, &y), plain, 1e6 * x.len() as f64));
            prop_assert_eq!(min_slice(&x), x.iter().copied().fold(f64::INFINITY, f64::min));
            prop_assert_eq!(max_slice(&x), x.iter().copied().fold(-f64::INFINITY, f64::max));
        }

        #[test]
        fn nan_is_never_lost(len in 1..3 * CHUNK, pick in any::<prop::sample::Index>()) {
            let mut x = vec![1.0f32; len];
            x[pick.index(len)] = f32::NAN;
            for reduced in [sum_slice(&x), min_slice(&x), max_slice(&x), dot_slice(&x, &x)] {
                prop_assert!(reduced.is_nan());
            }
        }
    }

    #[test]
    fn of_nothing_there_is_a_value() {
        assert_eq!((sum_slice::<f32>(&[]), dot_slice::<f64>(&[], &[])), (0.0, 0.0));
        assert_eq!((min_slice::<f32>(&[]), max_slice::<f64>(&[])), (f32::INFINITY, -f64::INFINITY));
    }
}
