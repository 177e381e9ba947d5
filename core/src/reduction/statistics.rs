//! How many samples there are, where they lie and how they spread, in one pass.
//!
//! Two summaries merge by the pairwise formulas of T. F. Chan, G. H. Golub and R. J. LeVeque, "Updating Formulae and a
//! Pairwise Algorithm for Computing Sample Variances" (Stanford STAN-CS-79-773, 1979); with one sample on one side these
//! are B. P. Welford's (Technometrics 4(3), 1962). They add up squares of distances from means, so that a spread that is
//! small beside the mean keeps its digits, unlike in the difference of the mean square and the squared mean.
//!
//! Invariant: where a sample is NaN or infinite, the sum of squares is NaN from the start, since distances of such samples
//! would depend on the order. The mean is then a weighted sum, in which they last.

use serde::{Deserialize, Serialize};

use super::{Combine, Max, Min, Reducer};

/// Count, extremes, mean and variance of all contributions, as a [`Summary`].
///
/// Contributions are numbers that `f64` holds exactly: floating-point numbers, integers of up to 32 bits, `bool` (the mean is
/// then the part that is true); cast others with `as f64`. An element with many samples of its own, or none, contributes the
/// [`Summary`] of them:
///
/// ```
/// use chare::prelude::*;
/// use reduce::{Statistics, Summary};
///
/// struct Block {
///     cells: Vec<f32>,
/// }
///
/// #[chare(index = usize)]
/// impl Block {
///     fn new(cx: &Cx<Self>) -> Self {
///         Block { cells: vec![cx.index() as f32; 100] }
///     }
///
///     #[entry]
///     fn summarise(&self, cx: &Cx<Self>, to: Promise<Summary>) {
///         cx.contribute(self.cells.iter().copied().collect::<Summary>(), Statistics, to);
///     }
/// }
///
/// #[chare::main]
/// async fn main(rt: Runtime) -> Result<()> {
///     let (to, summary) = rt.promise();
///     rt.array::<Block>(3).create(()).await?.summarise(to).send();
///     let cells = summary.await?;
///     assert_eq!((cells.count(), cells.mean(), cells.max()), (300, 1.0, 2.0));
///     Ok(())
/// }
/// ```
///
/// Results are those of exact arithmetic up to rounding, whose last digits depend on the order of arrival.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics;

impl<T: Into<f64>> Reducer<T> for Statistics {
    type Partial = Summary;
    type Output = Summary;
    fn start(&self, sample: T, _: u64) -> Summary {
        Summary::of(sample)
    }
    fn merge(&self, into: &mut Summary, other: Summary) {
        into.merge(&other);
    }
    fn finish(&self, summary: Summary) -> Summary {
        summary
    }
}

impl Reducer<Summary> for Statistics {
    type Partial = Summary;
    type Output = Summary;
    fn start(&self, summary: Summary, _: u64) -> Summary {
        summary
    }
    fn merge(&self, into: &mut Summary, other: Summary) {
        into.merge(&other);
    }
    fn finish(&self, summary: Summary) -> Summary {
        summary
    }
}

/// What [`Statistics`] tells of samples. Collected from an iterator, or built up by [`Summary::push`] and
/// [`Summary::merge`]; [`Summary::default`] is that of no samples.
///
/// A NaN among the samples makes all but the count NaN. Infinite samples leave the extremes and the mean as they are in exact
/// arithmetic (infinite, or NaN if there are both infinities) and make the variance NaN.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    count: u64,
    min: f64,
    max: f64,
    mean: f64,
    /// The sum of the squared distances from the mean.
    squares: f64,
}

impl Default for Summary {
    fn default() -> Self {
        Summary { count: 0, min: f64::INFINITY, max: f64::NEG_INFINITY, mean: 0.0, squares: 0.0 }
    }
}

impl Summary {
    /// The summary of one sample.
    pub fn of(sample: impl Into<f64>) -> Self {
        let sample = sample.into();
        let squares = if sample.is_finite() { 0.0 } else { f64::NAN };
        Summary { count: 1, min: sample, max: sample, mean: sample, squares }
    }

    /// Adds a sample.
    ///
    /// # Panics
    /// As [`Summary::merge`].
    pub fn push(&mut self, sample: impl Into<f64>) {
        self.merge(&Summary::of(sample));
    }

    /// Adds the samples of another summary.
    ///
    /// # Panics
    /// If the number of samples overflows; in a reduction, that is its error.
    pub fn merge(&mut self, other: &Summary) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let count =
            self.count.checked_add(other.count).expect("the count of a statistics reduction overflowed");
        let (part, other_part) = (self.count as f64 / count as f64, other.count as f64 / count as f64);
        let distance = other.mean - self.mean;
        self.squares += other.squares + distance * (distance * (self.count as f64 * other_part));
        // The distance of two large means may overflow where the mean of all does not.
        self.mean = if distance.is_finite() {
            self.mean + distance * other_part
        } else {
            self.mean * part + other.mean * other_part
        };
        self.count = count;
        Combine::<Min>::combine(&mut self.min, other.min);
        Combine::<Max>::combine(&mut self.max, other.max);
    }

    /// The number of samples.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The smallest sample; NaN if there is none.
    pub fn min(&self) -> f64 {
        self.given(1, self.min)
    }

    /// The largest sample; NaN if there is none.
    pub fn max(&self) -> f64 {
        self.given(1, self.max)
    }

    /// The mean; NaN if there are no samples.
    pub fn mean(&self) -> f64 {
        self.given(1, self.mean)
    }

    /// The variance of the samples as the whole population: the mean of their squared distances from the mean. NaN if there
    /// are no samples.
    pub fn variance(&self) -> f64 {
        self.given(1, self.squares / self.count as f64)
    }

    /// The variance of the population that the samples were drawn from, without bias: [`Summary::variance`] with the count
    /// less one as divisor. NaN if there are fewer than two.
    pub fn sample_variance(&self) -> f64 {
        self.given(2, self.squares / (self.count as f64 - 1.0))
    }

    /// The square root of [`Summary::variance`].
    pub fn standard_deviation(&self) -> f64 {
        self.variance().sqrt()
    }

    /// The square root of [`Summary::sample_variance`].
    pub fn sample_standard_deviation(&self) -> f64 {
        self.sample_variance().sqrt()
    }

    fn given(&self, samples: u64, value: f64) -> f64 {
        if self.count >= samples { value } else { f64::NAN }
    }
}

impl<T: Into<f64>> FromIterator<T> for Summary {
    fn from_iter<I: IntoIterator<Item = T>>(samples: I) -> Self {
        let mut summary = Summary::default();
        samples.into_iter().for_each(|sample| summary.push(sample));
        summary
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::check_laws_by;
    use super::super::reducer::reduce;
    use super::*;

    /// Equal but for rounding, which is measured by the samples' size; NaN and infinities are themselves.
    fn close(one: &Summary, other: &Summary) -> bool {
        let size = one.min().abs().max(one.max().abs());
        let near = |a: f64, b: f64, unit: f64| {
            a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= 1e-14 * unit * one.count as f64
        };
        one.count == other.count
            && (one.min.to_bits(), one.max.to_bits()) == (other.min.to_bits(), other.max.to_bits())
            && near(one.mean(), other.mean(), size)
            && near(one.variance(), other.variance(), size * size)
    }

    proptest! {
        /// Samples of a small spread beside a large mean, against exact integers.
        #[test]
        fn the_digits_of_a_small_spread_are_kept(
            offset in -1_000_000_000_i64..1_000_000_000,
            spread in vec(-1000_i64..1001, 1..200),
            cut in 0_usize..200,
        ) {
            let samples: Vec<i64> = spread.iter().map(|distance| offset + distance).collect();
            let (head, tail) = samples.split_at(cut.min(samples.len()));
            let part = |samples: &[i64]| samples.iter().map(|sample| *sample as f64).collect::<Summary>();
            let both = reduce(Statistics, [part(head), part(tail)]);
            let count = samples.len() as i128;
            let sum: i128 = samples.iter().map(|&sample| i128::from(sample)).sum();
            let squares: i128 = samples.iter().map(|&sample| i128::from(sample).pow(2)).sum();
            let expected = (count * squares - sum * sum) as f64 / (count * count) as f64;
            prop_assert_eq!(both.count(), count as u64);
            prop_assert_eq!(Some(both.min()), samples.iter().min().map(|&min| min as f64));
            prop_assert_eq!(Some(both.max()), samples.iter().max().map(|&max| max as f64));
            prop_assert!((both.mean() - sum as f64 / count as f64).abs() <= 1e-5, "{both:?}");
            prop_assert!((both.variance() - expected).abs() <= 1e-5 * (1.0 + expected), "{both:?}, not {expected}");
            let deviation = both.standard_deviation();
            prop_assert!((deviation * deviation - expected).abs() <= 2e-5 * (1.0 + expected));
            if count > 1 {
                let unbiased = expected * count as f64 / (count - 1) as f64;
                prop_assert!((both.sample_variance() - unbiased).abs() <= 2e-5 * (1.0 + unbiased));
                prop_assert_eq!(both.sample_standard_deviation(), both.sample_variance().sqrt());
            }
        }

        #[test]
        fn statistics_keep_the_laws(
            samples in vec(-1e6..1e6_f64, 3..7),
            special in vec(
                prop_oneof![Just(f64::NAN), Just(f64::INFINITY), Just(f64::NEG_INFINITY), Just(1e308), Just(-1e308), Just(3.0)],
                3..6,
            ),
            integers in vec(any::<i32>(), 3..6),
            groups in vec(vec(any::<i16>(), 0..4), 3..6),
        ) {
            check_laws_by(Statistics, &samples, close)?;
            check_laws_by(Statistics, &special, close)?;
            check_laws_by(Statistics, &integers, close)?;
            let summaries: Vec<Summary> = groups.into_iter().map(Summary::from_iter).collect();
            check_laws_by(Statistics, &summaries, close)?;
        }
    }

    #[test]
    fn of_nothing_only_the_count_is_known() {
        let nothing = Summary::default();
        assert_eq!(nothing.count(), 0);
        let unknown =
            [nothing.min(), nothing.max(), nothing.mean(), nothing.variance(), nothing.sample_variance()];
        assert!(unknown.iter().all(|value| value.is_nan()), "{unknown:?}");
        let one = reduce(Statistics, [nothing, Summary::of(5_u8), nothing]);
        assert_eq!((one.count(), one.min(), one.max(), one.mean(), one.variance()), (1, 5.0, 5.0, 5.0, 0.0));
        assert!(one.sample_variance().is_nan());
    }

    #[test]
    fn what_is_not_finite_is_told_by_a_rule() {
        let infinite = reduce(Statistics, [1.0, f64::INFINITY, 2.0]);
        assert_eq!((infinite.min(), infinite.max(), infinite.mean()), (1.0, f64::INFINITY, f64::INFINITY));
        assert!(infinite.variance().is_nan());
        let both = reduce(Statistics, [f64::INFINITY, 1.0, f64::NEG_INFINITY]);
        assert!(both.mean().is_nan() && both.min() == f64::NEG_INFINITY && both.max() == f64::INFINITY);
        let lost = reduce(Statistics, [1.0, f64::NAN, 2.0]);
        assert_eq!(lost.count(), 3);
        assert!([lost.min(), lost.max(), lost.mean(), lost.variance()].iter().all(|value| value.is_nan()));
        let large = reduce(Statistics, [1.5e308, -1.5e308]);
        assert_eq!((large.mean(), large.variance()), (0.0, f64::INFINITY));
    }

    #[test]
    #[should_panic(expected = "overflowed")]
    fn counts_do_not_wrap() {
        let many = Summary { count: u64::MAX, ..Summary::of(1.0_f32) };
        reduce(Statistics, [many, Summary::of(1.0)]);
    }
}
