//! What a reducer is: the trait, the laws that the runtime relies on, and the reducer of nothing.

use crate::wire::Wire;

/// Merges the contributions of a reduction into one result.
///
/// On each PE the first contribution to come becomes a partial by [`start`](Reducer::start), and every other one joins it
/// by [`add`](Reducer::add), in order of arrival. The PEs' partials become one by [`merge`](Reducer::merge), and
/// [`finish`](Reducer::finish) makes the result of it, once. Which elements share a PE and who comes first may differ from
/// run to run.
///
/// # Laws
///
/// Write `a`, `b`, `c` for contributions, each a value with the number of its element, and `a · b` for the merge of their
/// partials. Results are compared as `finish` gives them, so partials may differ.
///
/// 1. *Pure*: the same contributions, merged in the same way, give the same result.
/// 2. *Associative*: `(a · b) · c` is `a · (b · c)`.
/// 3. *Commutative*: `a · b` is `b · a`. Contributions to one PE merge as they come in, and any two elements may share a
///    PE. A result in some order sorts by the numbers of the elements, as [`Gather`](super::Gather) does.
/// 4. *Add merges*: `add(p, a)` is `merge(p, start(a))` for every partial `p`.
///
/// There need be no neutral value: a partial begins with a contribution.
///
/// [`check_laws`](super::check_laws) tests them with samples. Sums of floating-point numbers keep the second only up to
/// rounding; what that changes in a result differs from run to run. Where every bit must be the same,
/// [`Gather`](super::Gather) and add up in order.
///
/// Elements agree on a reducer by its type. If it has fields, give it the same at every element: those of any one are used.
///
/// # Panics
/// A method of a reducer that panics makes an error of the reduction, [`crate::CallError::Reduction`], which goes where the
/// result would have gone; the partial is dropped. Methods may use the runtime.
///
/// # Examples
/// ```
/// use chare::reduction::{Reducer, check_laws_by};
///
/// /// The centre of the masses of all elements; each contributes its mass and its position.
/// #[derive(Clone, Copy)]
/// struct Centre;
///
/// impl Reducer<(f64, f64)> for Centre {
///     type Partial = (f64, f64); // the mass, and the mass times the position
///     type Output = f64;
///     fn start(&self, (mass, x): (f64, f64), _: u64) -> (f64, f64) {
///         (mass, mass * x)
///     }
///     fn merge(&self, into: &mut (f64, f64), other: (f64, f64)) {
///         *into = (into.0 + other.0, into.1 + other.1);
///     }
///     fn finish(&self, (mass, moment): (f64, f64)) -> f64 {
///         moment / mass
///     }
/// }
///
/// let samples = [(1.0, 0.5), (2.0, -3.0), (0.25, 8.0)];
/// check_laws_by(Centre, &samples, |a, b| (a - b).abs() < 1e-12)?;
/// # Ok::<(), chare::reduction::BrokenLaw>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not reduce values of type `{T}`",
    note = "a tuple of reducers takes a tuple of as many values; `Concat` takes a `Vec`, `Union` a `BTreeSet`, `MinLoc` and \
            `MaxLoc` a pair of a value and what stands beside it"
)]
pub trait Reducer<T>: Copy + Send + 'static {
    /// What contributions are merged into.
    type Partial: Wire;
    /// The result.
    type Output: Wire;

    /// The partial of one contribution, from the element with this number: in row-major order, or the PE in a group.
    fn start(&self, value: T, from: u64) -> Self::Partial;

    /// Merges another partial into one.
    fn merge(&self, into: &mut Self::Partial, other: Self::Partial);

    /// Merges one contribution into a partial. Worth writing where it saves making a partial of the contribution.
    fn add(&self, into: &mut Self::Partial, value: T, from: u64) {
        self.merge(into, self.start(value, from));
    }

    /// The result of all contributions.
    fn finish(&self, partial: Self::Partial) -> Self::Output;
}

/// Nothing but the news that all have contributed: a barrier.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nop;

impl Reducer<()> for Nop {
    type Partial = ();
    type Output = ();
    fn start(&self, (): (), _: u64) {}
    fn merge(&self, (): &mut (), (): ()) {}
    fn finish(&self, (): ()) {}
}

/// The result of these contributions of the elements 0, 1 and so on, merged as one PE does.
#[cfg(test)]
pub(super) fn reduce<T, R: Reducer<T>>(reducer: R, values: impl IntoIterator<Item = T>) -> R::Output {
    let mut values = (0..).zip(values);
    let (from, first) = values.next().expect("not empty");
    let mut partial = reducer.start(first, from);
    values.for_each(|(from, value)| reducer.add(&mut partial, value, from));
    reducer.finish(partial)
}
