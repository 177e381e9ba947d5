//! The graphs of Task Bench: which tasks there are, and which outputs each takes in.
//!
//! A task is a step `t` and a point `p`. Its inputs are outputs of step `t - 1`: those of its dependencies, in the order in
//! which they are listed, without the points that have no task at that step. Invariant: [`Graph::for_each_reverse_dep`] is
//! the mirror of [`Graph::for_each_dep`].

use std::ops::Range;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use super::kernel::Kernel;

/// One element of an output: the step and the point of the task that it comes from.
pub type Pair = [i64; 2];

/// The key of the hash that draws random numbers.
const HASH_KEY: [u8; 16] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0];

/// What a task's scratch memory begins with.
pub const SCRATCH_MARK: u64 = 0x5C4A_7C8B;

/// The shape of the dependencies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Pattern {
    /// None.
    Trivial,
    /// The same point.
    NoComm,
    /// The point and its two neighbours.
    Stencil1d,
    /// The same on a ring.
    Stencil1dPeriodic,
    /// The point and the one before, over a domain that grows and shrinks: a wavefront.
    Dom,
    /// The half of the point's number, over a domain that doubles.
    Tree,
    /// A butterfly, of another distance at each step.
    Fft,
    /// All points.
    AllToAll,
    /// `radix` points around the point.
    Nearest,
    /// `radix` points that lie as far apart as they can, others at each step of a period.
    Spread,
    /// Of the nearest ones some, drawn anew at each step of a period.
    RandomNearest,
}

impl Pattern {
    /// All of them, by the names of the option `-type`.
    pub const ALL: [(&str, Pattern); 11] = [
        ("trivial", Pattern::Trivial),
        ("no_comm", Pattern::NoComm),
        ("stencil_1d", Pattern::Stencil1d),
        ("stencil_1d_periodic", Pattern::Stencil1dPeriodic),
        ("dom", Pattern::Dom),
        ("tree", Pattern::Tree),
        ("fft", Pattern::Fft),
        ("all_to_all", Pattern::AllToAll),
        ("nearest", Pattern::Nearest),
        ("spread", Pattern::Spread),
        ("random_nearest", Pattern::RandomNearest),
    ];

    /// The name that `-type` gives it.
    pub fn name(self) -> &'static str {
        let named = Pattern::ALL.iter().find(|(_, pattern)| *pattern == self);
        named.map_or("", |(name, _)| name)
    }
}

/// A graph of tasks, and what each of them does.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Graph {
    /// Its number among those that run together.
    pub index: usize,
    /// The steps.
    pub steps: usize,
    /// The points, if all have tasks.
    pub width: usize,
    /// The shape of the dependencies.
    pub pattern: Pattern,
    /// How many points are near, or spread out.
    pub radix: usize,
    /// After how many steps spread and random dependencies repeat.
    pub period: usize,
    /// The part of the nearest points that is drawn.
    pub fraction: f64,
    /// The size of an output.
    pub output_bytes: usize,
    /// The size of the memory that a point keeps for its tasks.
    pub scratch_bytes: usize,
    /// What a task does between taking its inputs and giving its output.
    pub kernel: Kernel,
    /// How often it does it.
    pub iterations: u64,
}

impl Default for Graph {
    fn default() -> Self {
        Graph {
            index: 0,
            steps: 4,
            width: 4,
            pattern: Pattern::Trivial,
            radix: 3,
            period: 3,
            fraction: 0.25,
            output_bytes: size_of::<Pair>(),
            scratch_bytes: 0,
            kernel: Kernel::Empty,
            iterations: 0,
        }
    }
}

impl Graph {
    /// Says what of it cannot be run.
    ///
    /// # Errors
    /// With the reason.
    pub fn check(&self) -> Result<(), String> {
        let Graph { steps, width, radix, period, output_bytes, scratch_bytes, .. } = *self;
        let name = self.pattern.name();
        let is_counted = |count: usize| (1..=u32::MAX as usize).contains(&count);
        if !is_counted(steps) || !is_counted(width) {
            return Err(format!("-steps {steps} -width {width}: both are at least 1 and fit in 32 bits"));
        }
        if output_bytes == 0 || !output_bytes.is_multiple_of(size_of::<Pair>()) {
            return Err(format!("-output {output_bytes}: an output is a multiple of 16 bytes, at least 16"));
        }
        if (1..size_of::<u64>()).contains(&scratch_bytes) {
            return Err(format!("-scratch {scratch_bytes}: scratch memory begins with a mark of 8 bytes"));
        }
        if matches!(self.pattern, Pattern::Spread | Pattern::RandomNearest) && period == 0 {
            return Err(format!("-type {name} -period 0: the dependencies repeat after at least one step"));
        }
        if self.pattern == Pattern::Spread && (radix > width || radix > 0 && period > width.div_ceil(radix)) {
            return Err(format!(
                "-type spread -width {width} -radix {radix} -period {period}: the points are not all different; \
                 the radix is at most the width, and the period at most the width divided by the radix"
            ));
        }
        Ok(())
    }

    /// The points that have tasks at a step.
    #[inline]
    pub fn points(&self, step: usize) -> Range<usize> {
        let (steps, width) = (self.steps, self.width);
        if step >= steps {
            return 0..0;
        }
        match self.pattern {
            Pattern::Tree => {
                let doubled = u32::try_from(step).ok().and_then(|step| 1_usize.checked_shl(step));
                0..doubled.map_or(width, |doubled| doubled.min(width))
            }
            Pattern::Dom => {
                let first = (step + width).saturating_sub(steps);
                first..first + width.min(step + 1).min(steps - step)
            }
            _ => 0..width,
        }
    }

    /// The points of the step before `step`: those whose outputs are inputs there.
    #[inline]
    pub fn points_before(&self, step: usize) -> Range<usize> {
        step.checked_sub(1).map_or(0..0, |before| self.points(before))
    }

    /// Whether some points have tasks at some steps only.
    pub fn is_ragged(&self) -> bool {
        matches!(self.pattern, Pattern::Tree | Pattern::Dom)
    }

    /// The tasks.
    pub fn task_count(&self) -> u64 {
        (0..self.steps).map(|step| self.points(step).len() as u64).sum()
    }

    /// How many sets of dependencies there are.
    pub fn dset_count(&self) -> usize {
        match self.pattern {
            Pattern::Fft => (self.log2_width() as usize).max(1),
            Pattern::Spread | Pattern::RandomNearest => self.period,
            _ => 1,
        }
    }

    /// The number of the set of dependencies that the tasks of a step have.
    #[inline]
    pub fn dset(&self, step: usize) -> usize {
        match self.pattern {
            Pattern::Fft => {
                let count = self.dset_count();
                (step + count - 1) % count
            }
            Pattern::Spread | Pattern::RandomNearest => step % self.period,
            _ => 0,
        }
    }

    fn log2_width(&self) -> u32 {
        self.width.next_power_of_two().trailing_zeros()
    }

    /// Calls `f` with the points that a point depends on.
    #[inline(always)]
    pub fn for_each_dep(&self, dset: usize, point: usize, mut f: impl FnMut(usize)) {
        let Graph { width, radix, .. } = *self;
        let clipped =
            |before: usize, after: usize| point.saturating_sub(before)..(point + after + 1).min(width);
        match self.pattern {
            Pattern::Trivial => {}
            Pattern::NoComm => f(point),
            Pattern::Stencil1d => clipped(1, 1).for_each(f),
            Pattern::Stencil1dPeriodic => {
                clipped(1, 1).for_each(&mut f);
                self.across_the_edge(point).into_iter().flatten().for_each(f);
            }
            Pattern::Dom => clipped(1, 0).for_each(f),
            Pattern::Tree => f(point / 2),
            Pattern::Fft => self.butterfly(dset, point).into_iter().flatten().for_each(f),
            Pattern::AllToAll => (0..width).for_each(f),
            Pattern::Nearest if radix > 0 => clipped(radix / 2, (radix - 1) / 2).for_each(f),
            Pattern::Spread => {
                let shift = |i: usize| i * width / radix + if i > 0 { dset } else { 0 };
                (0..radix).for_each(|i| f((point + shift(i)) % width));
            }
            Pattern::RandomNearest if radix > 0 => {
                let near = clipped(radix / 2, (radix - 1) / 2);
                near.filter(|&other| self.is_drawn(dset, other, point)).for_each(f);
            }
            Pattern::Nearest | Pattern::RandomNearest => {}
        }
    }

    /// Calls `f` with the points that depend on a point.
    pub fn for_each_reverse_dep(&self, dset: usize, point: usize, mut f: impl FnMut(usize)) {
        let Graph { width, radix, .. } = *self;
        let clipped =
            |before: usize, after: usize| point.saturating_sub(before)..(point + after + 1).min(width);
        match self.pattern {
            Pattern::Dom => clipped(0, 1).for_each(f),
            Pattern::Tree => (2 * point..2 * point + 2).filter(|&child| child < width).for_each(f),
            Pattern::Nearest if radix > 0 => clipped((radix - 1) / 2, radix / 2).for_each(f),
            Pattern::Spread => {
                let shift = |i: usize| i * width / radix + if i > 0 { dset } else { 0 };
                (0..radix).for_each(|i| f((point + width - shift(i) % width) % width));
            }
            Pattern::RandomNearest if radix > 0 => {
                let near = clipped((radix - 1) / 2, radix / 2);
                near.filter(|&other| self.is_drawn(dset, point, other)).for_each(f);
            }
            // These are their own mirrors.
            _ => self.for_each_dep(dset, point, f),
        }
    }

    /// The neighbours of a point at the edge of a ring. A ring of less than three points has no others.
    #[inline]
    fn across_the_edge(&self, point: usize) -> [Option<usize>; 2] {
        let last = self.width - 1;
        [(point == 0 && last > 1).then_some(last), (point == last && last > 1).then_some(0)]
    }

    #[inline]
    fn butterfly(&self, dset: usize, point: usize) -> [Option<usize>; 3] {
        let distance = 1 << dset;
        let above = Some(point + distance).filter(|&above| above < self.width);
        [point.checked_sub(distance), Some(point), above]
    }

    /// Whether `point` depends on `on`, which is near.
    #[inline]
    fn is_drawn(&self, dset: usize, on: usize, point: usize) -> bool {
        let numbers = [self.index, self.radix, dset, on, point];
        on == point || uniform(&numbers.map(|number| number as u64)) < self.fraction
    }

    /// The task that is to be run: checks its inputs and runs the kernel. The `k`-th dependency as listed, if it has a task
    /// at the step before, has its output where `input(k)` says. The output is filled before the kernel runs.
    ///
    /// # Panics
    /// If there is no such task, or an input is not the output of that task: a graph that is run wrongly is not measured.
    #[inline(always)]
    pub fn execute<'a>(
        &self,
        step: usize,
        point: usize,
        input: impl Fn(usize) -> &'a [Pair],
        output: &mut [Pair],
        scratch: &[u64],
    ) {
        assert!(self.points(step).contains(&point), "there is no task of point {point} at step {step}");
        let before = self.points_before(step);
        let elements = self.output_bytes / size_of::<Pair>();
        let mut listed = 0;
        self.for_each_dep(self.dset(step), point, |dep| {
            if before.contains(&dep) {
                let (pairs, expected) = (input(listed), [step as i64 - 1, dep as i64]);
                if pairs.len() != elements || !pairs.iter().all(|pair| is_equal(*pair, expected)) {
                    wrong_input(step, point, expected, pairs);
                }
            }
            listed += 1;
        });
        output.fill([step as i64, point as i64]);
        if self.scratch_bytes > 0 {
            assert_eq!(scratch.first(), Some(&SCRATCH_MARK), "somebody has written to the scratch memory");
        }
        self.kernel.run(self.index, step, point, self.iterations);
    }

    /// The floating-point operations of all tasks.
    pub fn flops(&self) -> u64 {
        let tasks = (0..self.steps).flat_map(|step| self.points(step).map(move |point| (step, point)));
        match self.kernel {
            Kernel::Empty | Kernel::BusyWait => 0,
            Kernel::ComputeBound => self.task_count() * self.kernel.flops(self.index, 0, 0, self.iterations),
            Kernel::LoadImbalance(_) => {
                tasks.map(|(step, point)| self.kernel.flops(self.index, step, point, self.iterations)).sum()
            }
        }
    }
}

/// Word by word: what was written as two words is not in the cache as one for a while.
#[inline(always)]
fn is_equal(pair: Pair, expected: Pair) -> bool {
    (pair[0] == expected[0]) & (pair[1] == expected[1])
}

#[cold]
fn wrong_input(step: usize, point: usize, expected: Pair, found: &[Pair]) -> ! {
    panic!("the task of point {point} at step {step} was given {found:?} for {expected:?}")
}

/// A number in `0..1` that belongs to these.
pub(super) fn uniform(numbers: &[u64]) -> f64 {
    let mut bytes = [0; 40];
    let bytes = &mut bytes[..size_of_val(numbers)];
    for (chunk, number) in bytes.chunks_exact_mut(size_of::<u64>()).zip(numbers) {
        chunk.copy_from_slice(&number.to_le_bytes());
    }
    hash(bytes) as f64 * 2.0_f64.powi(-64)
}

fn hash(bytes: &[u8]) -> u64 {
    SipHasher24::new_with_key(&HASH_KEY).hash(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn deps(graph: &Graph, dset: usize, point: usize) -> Vec<usize> {
        let mut listed = Vec::new();
        graph.for_each_dep(dset, point, |dep| listed.push(dep));
        listed
    }

    fn with(pattern: &str, width: usize, radix: usize, period: usize) -> Graph {
        let found = Pattern::ALL.iter().find(|(name, _)| *name == pattern);
        let pattern = found.expect("the name of a pattern").1;
        Graph { pattern, width, radix, period, steps: 100.max(width), ..Graph::default() }
    }

    proptest! {
        #[test]
        fn reverse_dependencies_are_the_mirror(
            (pattern, width, radix) in (0..Pattern::ALL.len(), 1..70_usize, 0..12_usize),
            (period, fraction, index) in (1..8_usize, 0.0..1.0_f64, 0..3_usize),
        ) {
            let pattern = Pattern::ALL[pattern].1;
            let graph = Graph { index, pattern, width, radix, period, fraction, steps: 100, ..Graph::default() };
            prop_assume!(graph.check().is_ok());
            for dset in 0..graph.dset_count() {
                let (mut forth, mut back) = (BTreeSet::new(), BTreeSet::new());
                for point in 0..width {
                    graph.for_each_dep(dset, point, |dep| assert!(dep < width && forth.insert((dep, point))));
                    graph.for_each_reverse_dep(dset, point, |to| assert!(to < width && back.insert((point, to))));
                }
                prop_assert_eq!(&forth, &back, "{:?}, set {}", graph, dset);
            }
        }

        #[test]
        fn every_task_has_a_set_of_dependencies(
            (pattern, width, step) in (0..Pattern::ALL.len(), 1..70_usize, 0..100_usize),
        ) {
            let graph = Graph { pattern: Pattern::ALL[pattern].1, width, steps: 100, ..Graph::default() };
            prop_assert!(graph.dset(step) < graph.dset_count());
            prop_assert!(graph.points(step).end <= width && !graph.points(step).is_empty());
            prop_assert!(graph.is_ragged() || graph.points(step) == (0..width));
        }
    }

    #[test]
    fn dependencies_are_those_of_the_definition() {
        let listed = |pattern, width, radix, period, dset, point| {
            deps(&with(pattern, width, radix, period), dset, point)
        };
        assert_eq!(listed("stencil_1d", 8, 3, 3, 0, 7), [6, 7]);
        assert_eq!(listed("stencil_1d_periodic", 8, 3, 3, 0, 0), [0, 1, 7]);
        assert_eq!(listed("stencil_1d_periodic", 8, 3, 3, 0, 7), [6, 7, 0]);
        assert_eq!(listed("stencil_1d_periodic", 2, 3, 3, 0, 0), [0, 1]);
        assert_eq!(listed("dom", 8, 3, 3, 0, 0), [0]);
        assert_eq!(listed("dom", 8, 3, 3, 0, 5), [4, 5]);
        assert_eq!(listed("tree", 8, 3, 3, 0, 7), [3]);
        assert_eq!(listed("fft", 8, 3, 3, 2, 1), [1, 5]);
        assert_eq!(listed("fft", 6, 3, 3, 1, 4), [2, 4]);
        assert_eq!(listed("all_to_all", 3, 3, 3, 0, 1), [0, 1, 2]);
        assert_eq!(listed("nearest", 9, 5, 3, 0, 4), [2, 3, 4, 5, 6]);
        assert_eq!(listed("nearest", 9, 4, 3, 0, 4), [2, 3, 4, 5]);
        assert_eq!(listed("nearest", 9, 0, 3, 0, 4), []);
        assert_eq!(listed("spread", 8, 5, 2, 1, 6), [6, 0, 2, 3, 5]);
        assert_eq!(listed("trivial", 9, 5, 3, 0, 4), []);
    }

    #[test]
    fn ragged_graphs_grow_and_shrink() {
        let points = |pattern, step| Graph { steps: 10, ..with(pattern, 4, 3, 3) }.points(step);
        assert_eq!([0, 1, 2, 9].map(|step| points("tree", step)), [0..1, 0..2, 0..4, 0..4]);
        assert_eq!([0, 1, 3, 6].map(|step| points("dom", step)), [0..1, 0..2, 0..4, 0..4]);
        assert_eq!([7, 8, 9, 10].map(|step| points("dom", step)), [1..4, 2..4, 3..4, 0..0]);
        assert_eq!(points("fft", 0), 0..4);
        let fft = with("fft", 8, 3, 3);
        assert_eq!([1, 2, 3, 4].map(|step| fft.dset(step)), [0, 1, 2, 0]);
    }

    #[test]
    fn what_is_drawn_at_random_includes_the_point_and_about_the_fraction() {
        let graph = Graph { fraction: 0.25, ..with("random_nearest", 4096, 5, 3) };
        let drawn: usize = (0..4096).map(|point| deps(&graph, 1, point).len()).sum();
        assert!((0..4096).all(|point| deps(&graph, 2, point).contains(&point)));
        assert!((1.9..2.1).contains(&(drawn as f64 / 4096.0)), "{drawn}");
    }

    #[test]
    fn the_hash_is_siphash_2_4() {
        // The first and last of the vectors of the reference implementation: key 00..0f, messages 00, 01, 02, ..
        let key: [u8; 16] = std::array::from_fn(|i| i as u8);
        let message: [u8; 63] = std::array::from_fn(|i| i as u8);
        let hash_of = |length: usize| SipHasher24::new_with_key(&key).hash(&message[..length]);
        assert_eq!(hash_of(0), 0x726f_db47_dd0e_0e31);
        assert_eq!(hash_of(15), 0xa129_ca61_49be_45e5);
        assert_eq!(hash_of(63), 0x958a_324c_eb06_4572);
        let bytes: Vec<u8> = [7_u64, 1 << 40].iter().flat_map(|number| number.to_le_bytes()).collect();
        assert_eq!(uniform(&[7, 1 << 40]), hash(&bytes) as f64 / 2.0_f64.powi(64));
    }

    #[test]
    fn graphs_that_cannot_be_run_are_refused() {
        for wrong in [
            Graph { steps: 0, ..Graph::default() },
            Graph { output_bytes: 24, ..Graph::default() },
            Graph { scratch_bytes: 4, ..Graph::default() },
            with("spread", 8, 5, 3),
            with("spread", 8, 9, 1),
            with("random_nearest", 8, 5, 0),
        ] {
            assert!(wrong.check().is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_task_checks_every_element_of_its_inputs() {
        let graph = Graph { output_bytes: 32, ..with("stencil_1d", 3, 3, 3) };
        let run = |inputs: [[Pair; 2]; 3]| {
            let mut output = [[0; 2]; 2];
            graph.execute(5, 1, |k| &inputs[k], &mut output, &[]);
            assert_eq!(output, [[5, 1]; 2]);
        };
        let good = [0, 1, 2].map(|point| [[4, point]; 2]);
        run(good);
        for (input, element, word) in [(0, 1, 1), (1, 0, 0), (2, 1, 0)] {
            let mut inputs = good;
            inputs[input][element][word] += 1;
            assert!(std::panic::catch_unwind(|| run(inputs)).is_err(), "{inputs:?}");
        }
    }
}
