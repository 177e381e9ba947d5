//! Whether a reducer keeps its laws, tried out on samples.
//!
//! What is compared are results of whole trees of merges: two trees that the runtime may choose between must agree. The
//! smallest trees come first, so the error shows few contributions.

use std::any::type_name;
use std::fmt::{self, Debug, Display};

use super::Reducer;

/// A law of [`Reducer`]s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Law {
    /// The same contributions, merged in the same way, give the same result.
    Pure,
    /// `(a · b) · c` is `a · (b · c)`.
    Associative,
    /// `a · b` is `b · a`.
    Commutative,
    /// `add(p, a)` is `merge(p, start(a))`.
    AddMerges,
}

impl Display for Law {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Law::Pure => {
                "does not give twice the same (NaN is equal to nothing; `check_laws_by` takes a comparison)"
            }
            Law::Associative => "is not associative",
            Law::Commutative => "is not commutative",
            Law::AddMerges => "adds to another result than it merges to",
        })
    }
}

/// A reducer does not keep a law, with the contributions that show it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{reducer} {law}: of {contributions}, {one}, but {other}")]
pub struct BrokenLaw {
    law: Law,
    reducer: &'static str,
    contributions: String,
    one: String,
    other: String,
}

impl BrokenLaw {
    /// The law that is broken.
    pub fn law(&self) -> Law {
        self.law
    }
}

/// Checks the laws of a [`Reducer`] on samples: as [`check_laws_by`], where results must be equal.
///
/// # Errors
/// The first law that is found to be broken, with the contributions that show it.
///
/// # Panics
/// With fewer than three samples, and as the reducer does.
///
/// # Examples
/// ```
/// use chare::reduction::{Law, Reducer, Sum, check_laws};
///
/// check_laws(Sum, &[1_i64, -2, 30, 4]).expect("sums of integers keep all laws");
///
/// /// The mean, taken of two at a time.
/// #[derive(Clone, Copy)]
/// struct Halves;
///
/// impl Reducer<f64> for Halves {
///     type Partial = f64;
///     type Output = f64;
///     fn start(&self, value: f64, _: u64) -> f64 {
///         value
///     }
///     fn merge(&self, into: &mut f64, other: f64) {
///         *into = (*into + other) / 2.0;
///     }
///     fn finish(&self, partial: f64) -> f64 {
///         partial
///     }
/// }
///
/// let broken = check_laws(Halves, &[1.0, 2.0, 4.0]).expect_err("the last one counts most");
/// assert_eq!(broken.law(), Law::Associative);
/// assert!(broken.to_string().contains("merge(merge(0, 1), 2) gives 2.75, but merge(0, merge(1, 2)) gives 2.0"));
/// ```
pub fn check_laws<T, R>(reducer: R, samples: &[T]) -> Result<(), BrokenLaw>
where
    T: Clone + Debug,
    R: Reducer<T>,
    R::Output: PartialEq + Debug,
{
    check_laws_by(reducer, samples, |one, other| one == other)
}

/// Checks the laws of a [`Reducer`] on samples, where results must be the same to `same`: for floating-point numbers,
/// equal up to rounding.
///
/// The samples are contributions of the elements 0, 1 and so on. Every two and three of them are merged in every order
/// and grouping, and all of them in some: give a few that differ, and some that are equal. The time grows with the third power
/// of their number.
///
/// A reducer that panics where values do not fit (a sum of integers) may do so for one order and not for another; give
/// samples that fit in all.
///
/// # Errors
/// The first law that is found to be broken, with the contributions that show it.
///
/// # Panics
/// With fewer than three samples, and as the reducer does.
///
/// # Examples
/// ```
/// use chare::reduction::{Sum, check_laws, check_laws_by};
///
/// let samples = [0.1, 0.2, 0.3];
/// assert!(check_laws(Sum, &samples).is_err());
/// check_laws_by(Sum, &samples, |one: &f64, other| (one - other).abs() < 1e-15)?;
/// # Ok::<(), chare::reduction::BrokenLaw>(())
/// ```
pub fn check_laws_by<T, R>(
    reducer: R,
    samples: &[T],
    same: impl Fn(&R::Output, &R::Output) -> bool,
) -> Result<(), BrokenLaw>
where
    T: Clone + Debug,
    R: Reducer<T>,
    R::Output: Debug,
{
    let count = samples.len();
    assert!(count >= 3, "three samples at least show whether merging is associative; these are {count}");
    let trial = Trial { reducer, samples, same };
    (0..count).try_for_each(|x| trial.require(Law::Pure, Tree::start(x), Tree::start(x)))?;
    pairs(count).try_for_each(|(x, y)| trial.pair(x, y))?;
    for (x, y) in pairs(count) {
        (0..count).filter(|&z| z != x && z != y).try_for_each(|z| trial.triple(x, y, z))?;
    }
    trial.all(count)
}

/// All ways to take two of `0..count`, in order.
fn pairs(count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..count).flat_map(move |x| (0..count).filter(move |&y| y != x).map(move |y| (x, y)))
}

/// How partials come to be merged into one; contributions by the numbers of their elements.
#[derive(Clone)]
enum Tree {
    Start(usize),
    Merge(Box<Tree>, Box<Tree>),
    Add(Box<Tree>, usize),
}

impl Tree {
    fn start(of: usize) -> Tree {
        Tree::Start(of)
    }

    fn merge(self, other: Tree) -> Tree {
        Tree::Merge(Box::new(self), Box::new(other))
    }

    fn add(self, of: usize) -> Tree {
        Tree::Add(Box::new(self), of)
    }

    fn contributions(&self) -> Vec<usize> {
        match self {
            Tree::Start(of) => vec![*of],
            Tree::Merge(one, other) => [one.contributions(), other.contributions()].concat(),
            Tree::Add(one, of) => [one.contributions(), vec![*of]].concat(),
        }
    }
}

impl Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Start(of) => write!(f, "{of}"),
            Tree::Merge(one, other) => write!(f, "merge({one}, {other})"),
            Tree::Add(one, of) => write!(f, "add({one}, {of})"),
        }
    }
}

/// A reducer, what it is tried with, and which results count as the same.
struct Trial<'a, T, R, S> {
    reducer: R,
    samples: &'a [T],
    same: S,
}

impl<T, R, S> Trial<'_, T, R, S>
where
    T: Clone + Debug,
    R: Reducer<T>,
    R::Output: Debug,
    S: Fn(&R::Output, &R::Output) -> bool,
{
    fn pair(&self, x: usize, y: usize) -> Result<(), BrokenLaw> {
        let merged = Tree::start(x).merge(Tree::start(y));
        self.require(Law::AddMerges, merged.clone(), Tree::start(x).add(y))?;
        self.require(Law::Commutative, merged, Tree::start(y).merge(Tree::start(x)))
    }

    fn triple(&self, x: usize, y: usize, z: usize) -> Result<(), BrokenLaw> {
        let [a, b, c] = [x, y, z].map(Tree::start);
        let pair = a.clone().merge(b.clone());
        let merged = pair.clone().merge(c.clone());
        self.require(Law::Associative, merged.clone(), a.clone().merge(b.clone().merge(c.clone())))?;
        self.require(Law::AddMerges, merged.clone(), pair.add(z))?;
        self.require(Law::Commutative, merged.clone(), b.clone().merge(a.clone()).merge(c.clone()))?;
        self.require(Law::Commutative, merged, a.merge(c).merge(b))
    }

    /// What a few contributions do not show: all, as one PE, as a PE each, the last one first.
    fn all(&self, count: usize) -> Result<(), BrokenLaw> {
        let last = count - 1;
        let added = (1..count).fold(Tree::start(0), Tree::add);
        let merged = (1..count).fold(Tree::start(0), |tree, x| tree.merge(Tree::start(x)));
        let from_the_end = (0..last).rev().fold(Tree::start(last), |tree, x| Tree::start(x).merge(tree));
        let backwards = (0..last).rev().fold(Tree::start(last), |tree, x| tree.merge(Tree::start(x)));
        self.require(Law::Pure, merged.clone(), merged.clone())?;
        self.require(Law::AddMerges, merged.clone(), added)?;
        self.require(Law::Associative, merged.clone(), from_the_end)?;
        self.require(Law::Commutative, merged, backwards)
    }

    fn require(&self, law: Law, one: Tree, other: Tree) -> Result<(), BrokenLaw> {
        let results = [&one, &other].map(|tree| self.reducer.finish(self.partial(tree)));
        if (self.same)(&results[0], &results[1]) {
            return Ok(());
        }
        let mut contributions = one.contributions();
        contributions.sort_unstable();
        let listed = contributions.into_iter().map(|of| format!("{of}: {:?}", self.samples[of]));
        Err(BrokenLaw {
            law,
            reducer: type_name::<R>(),
            contributions: format!("{{{}}}", listed.collect::<Vec<_>>().join(", ")),
            one: format!("{one} gives {:?}", results[0]),
            other: format!("{other} gives {:?}", results[1]),
        })
    }

    fn partial(&self, tree: &Tree) -> R::Partial {
        let sample = |of: usize| (self.samples[of].clone(), of as u64);
        match tree {
            Tree::Start(of) => {
                let (value, from) = sample(*of);
                self.reducer.start(value, from)
            }
            Tree::Merge(one, other) => {
                let mut partial = self.partial(one);
                self.reducer.merge(&mut partial, self.partial(other));
                partial
            }
            Tree::Add(one, of) => {
                let mut partial = self.partial(one);
                let (value, from) = sample(*of);
                self.reducer.add(&mut partial, value, from);
                partial
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    /// A reducer by functions: of two partials, of a partial and a value, of the last partial.
    #[derive(Clone, Copy)]
    struct By<A, M, F>(A, M, F);

    impl<A, M, F> Reducer<i64> for By<A, M, F>
    where
        A: Fn(&mut Vec<i64>, i64) + Copy + Send + 'static,
        M: Fn(&mut Vec<i64>, Vec<i64>) + Copy + Send + 'static,
        F: Fn(Vec<i64>) -> i64 + Copy + Send + 'static,
    {
        type Partial = Vec<i64>;
        type Output = i64;
        fn start(&self, value: i64, _: u64) -> Vec<i64> {
            vec![value]
        }
        fn merge(&self, into: &mut Vec<i64>, other: Vec<i64>) {
            self.1(into, other);
        }
        fn add(&self, into: &mut Vec<i64>, value: i64, _: u64) {
            self.0(into, value);
        }
        fn finish(&self, partial: Vec<i64>) -> i64 {
            self.2(partial)
        }
    }

    #[track_caller]
    fn breaks<R: Reducer<i64, Output = i64>>(reducer: R, law: Law, words: &str) {
        let broken = check_laws(reducer, &[1, 2, 4, 9]).expect_err("a law is broken");
        assert_eq!(broken.law(), law, "{broken}");
        assert!(broken.to_string().contains(words), "{broken}");
    }

    fn push(into: &mut Vec<i64>, value: i64) {
        into.push(value);
    }

    fn extend(into: &mut Vec<i64>, other: Vec<i64>) {
        into.extend(other);
    }

    fn sum(partial: Vec<i64>) -> i64 {
        partial.iter().sum()
    }

    #[test]
    fn each_law_is_told_from_the_others() {
        check_laws(By(push, extend, sum), &[1, 2, 4, 9]).expect("a sum of all keeps the laws");
        breaks(
            By(push, extend, |p: Vec<i64>| p[0]),
            Law::Commutative,
            "of {0: 1, 1: 2}, merge(0, 1) gives 1",
        );
        let keep_one = |into: &mut Vec<i64>, value: i64| into[0] = (into[0] - value).abs();
        let differ = move |into: &mut Vec<i64>, other: Vec<i64>| keep_one(into, other[0]);
        breaks(
            By(keep_one, differ, sum),
            Law::Associative,
            "of {0: 1, 1: 2, 2: 4}, merge(merge(0, 1), 2) gives 3, but merge(0, merge(1, 2)) gives 1",
        );
        let doubled = |into: &mut Vec<i64>, value: i64| into.push(2 * value);
        breaks(By(doubled, extend, sum), Law::AddMerges, "merge(0, 1) gives 3, but add(0, 1) gives 5");
        static CALLS: AtomicU64 = AtomicU64::new(0);
        let count = |_| CALLS.fetch_add(1, Ordering::Relaxed) as i64;
        breaks(By(push, extend, count), Law::Pure, "of {0: 1}, 0 gives 0, but 0 gives 1");
    }

    #[test]
    fn what_only_many_contributions_show_is_found() {
        let fourth = |partial: Vec<i64>| partial.get(3).copied().unwrap_or(0);
        breaks(By(push, extend, fourth), Law::Commutative, "{0: 1, 1: 2, 2: 4, 3: 9}");
        let third = |partial: Vec<i64>| partial.get(2).copied().unwrap_or(0);
        breaks(By(push, extend, third), Law::Commutative, "{0: 1, 1: 2, 2: 4}");
        let bounded = |into: &mut Vec<i64>, other: Vec<i64>| {
            if into.len() + other.len() < 4 { into.extend(other) } else { *into = vec![other[0]] }
        };
        let add = move |into: &mut Vec<i64>, value| bounded(into, vec![value]);
        breaks(By(add, bounded, sum), Law::Associative, "merge(0, merge(1, merge(2, 3)))");
    }

    #[test]
    #[should_panic(expected = "three samples at least")]
    fn two_samples_show_too_little() {
        let _ = check_laws(super::super::Sum, &[1, 2]);
    }
}
