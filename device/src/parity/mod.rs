//! Tests that the sources of a kernel agree: on random inputs every device there is writes what the Rust source writes where it is
//! simply called.
//!
//! The inputs follow from the kernel's parameters. So the test of a kernel is one line:
//!
//! ```
//! use chare_device::parity::Case;
//! use chare_device::{In, InOut, Launch, kernel};
//!
//! kernel! {
//!     /// Adds `a` times `x` to `y`.
//!     pub const AXPY: fn axpy(a: f32, x: In<f32>, y: InOut<f32>) {
//!         rust: |_: &Launch, (a, x, y): (f32, &[f32], &mut [f32])| {
//!             y.iter_mut().zip(x).for_each(|(y, x)| *y += a * x);
//!         },
//!         cuda: "KERNEL axpy(f32 a, In<f32> x, InOut<f32> y, Grid grid) {
//!             u32 i = blockIdx.x * blockDim.x + threadIdx.x;
//!             if (i < grid.x) y[i] += a * x[i];
//!         }",
//!     }
//! }
//!
//! // `#[test] fn axpy_agrees()`
//! Case::sized(&AXPY, 0..1000).within(1e-6).check();
//! ```
//!
//! | a case | inputs |
//! |---|---|
//! | [`Case::sized`] | a random size; so many elements in each buffer, as large a grid, random scalars |
//! | [`Case::of`] | the sizes of buffers or their contents, scalars, and the grid, by a closure |
//! | [`Case::by_hand`] | what launches the kernel, or several, and says what they have written |
//!
//! What is compared is all that the kernel has written. It must be equal, but for a tolerance that the case states. Whatever
//! fails is told with a seed: the same seed makes the same inputs.

mod given;
mod random;

use std::ops::Range;

use crate::account::Account;
use crate::buffer::DeviceVec;
use crate::device::Devices;
use crate::error::DeviceError;
use crate::kernel::{Kernel, Language};
use crate::launch::Grid;
use crate::param::{DevicePod, Params};
use crate::spec::HostMode;

pub use given::{FromSize, Given, GivenAll};
pub use random::{Random, Sample, Value};

/// Inputs that each case is tried with.
const SEEDS: u64 = 40;

/// Which devices [`check`] compares with a call of the Rust source, and what they want kernels to be written in.
const SPECS: &[(&str, Language)] = &[
    ("host:workers=2", Language::Rust),
    ("host:polled", Language::Rust),
    ("wgpu:0", Language::Wgsl),
    ("cuda:0", Language::CudaC),
];

/// One kernel, and how to launch it on random inputs.
pub struct Case {
    kernel: &'static str,
    languages: Vec<Language>,
    relative: f64,
    absolute: f64,
    run: Run,
}

type Run = Box<dyn Fn(&Account, &mut Random) -> Result<Outcome, DeviceError> + Send + Sync>;

impl Case {
    /// A case whose inputs follow from a random size in `sizes`: each buffer has so many elements, the grid too, and scalars are
    /// random.
    pub fn sized<A: FromSize>(kernel: &Kernel<A>, sizes: Range<usize>) -> Case {
        Case::of(kernel, move |random| {
            let len = random.within(&sizes);
            (Grid::from(u32::try_from(len).unwrap_or(u32::MAX)), A::from_size(len, random))
        })
    }

    /// A case whose inputs are a grid and, for each parameter, what is [`Given`] for it.
    ///
    /// ```
    /// use chare_device::parity::Case;
    /// use chare_device::{Grid, In, Kernel, Launch, Out};
    ///
    /// const SUMS: Kernel<(In<u32>, Out<u32>, u32)> = Kernel::new("sums", sums);
    /// fn sums(_: &Launch, (x, sums, row): (&[u32], &mut [u32], u32)) {
    ///     for (sum, x) in sums.iter_mut().zip(x.chunks(row as usize)) {
    ///         *sum = x.iter().fold(0, |sum, x| sum.wrapping_add(*x));
    ///     }
    /// }
    ///
    /// let case = Case::of(&SUMS, |random| {
    ///     let (rows, row) = (random.below(20), 1 + random.below(9));
    ///     (Grid::from(rows), ((rows * row) as usize, rows as usize, row))
    /// });
    /// case.check();
    /// ```
    pub fn of<A: Params, G: GivenAll<A>>(
        kernel: &Kernel<A>,
        inputs: impl Fn(&mut Random) -> (Grid, G) + Send + Sync + 'static,
    ) -> Case {
        let launched = *kernel;
        Case::by_hand(kernel, move |account, random| {
            let (grid, given) = inputs(random);
            given.launch(&launched, grid, account, random)
        })
    }

    /// A case of what `run` does with the kernel, and perhaps others, and says is the outcome.
    pub fn by_hand<A: Params>(
        kernel: &Kernel<A>,
        run: impl Fn(&Account, &mut Random) -> Result<Outcome, DeviceError> + Send + Sync + 'static,
    ) -> Case {
        let languages = Language::ALL.into_iter().filter(|&language| kernel.is_written_in(language));
        let (relative, absolute) = (0.0, 0.0);
        Case { kernel: kernel.name(), languages: languages.collect(), relative, absolute, run: Box::new(run) }
    }

    /// The same case, whose floating-point results may differ by this part of the larger.
    #[must_use]
    pub fn within(mut self, part: f64) -> Case {
        self.relative = part;
        self
    }

    /// The same case, whose floating-point results may differ by so much, whatever they are: where terms cancel out.
    #[must_use]
    pub fn within_absolute(mut self, difference: f64) -> Case {
        self.absolute = difference;
        self
    }

    /// The name of the kernel.
    pub fn kernel(&self) -> &'static str {
        self.kernel
    }

    /// Whether the kernel has a source for devices that want this language.
    pub fn is_written_in(&self, language: Language) -> bool {
        self.languages.contains(&language)
    }

    /// Launches the kernel on the inputs of this seed, waits, and returns what it has written.
    ///
    /// # Errors
    ///
    /// Those of the device.
    pub fn run(&self, account: &Account, seed: u64) -> Result<Outcome, DeviceError> {
        (self.run)(account, &mut Random::new(seed))
    }

    /// Where two outcomes of one seed differ by more than they may: buffer, number in it, and the two values.
    pub fn difference(&self, one: &Outcome, other: &Outcome) -> Option<Difference> {
        let differ = |a: Value, b: Value| match (a, b) {
            (Value::Real(a), Value::Real(b)) => {
                let allowed = self.absolute.max(self.relative * a.abs().max(b.abs()));
                !(a == b || (a - b).abs() <= allowed || (a.is_nan() && b.is_nan()))
            }
            (a, b) => a != b,
        };
        for (buffer, (one, other)) in one.buffers.iter().zip(&other.buffers).enumerate() {
            if let Some(number) = (0..one.len().max(other.len())).find(|&number| {
                let both = one.get(number).copied().zip(other.get(number).copied());
                both.is_none_or(|(a, b)| differ(a, b))
            }) {
                let values = (one.get(number).copied(), other.get(number).copied());
                return Some(Difference { buffer, number, values });
            }
        }
        None
    }

    /// [`check`], of this case alone.
    ///
    /// # Panics
    ///
    /// As [`check`].
    pub fn check(self) {
        check(&[self]);
    }
}

/// Where two outcomes differ.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difference {
    /// Which of the buffers that were written, in the order of the parameters.
    pub buffer: usize,
    /// Which number in it.
    pub number: usize,
    /// What is there, in the one and the other; `None` beyond the end.
    pub values: (Option<Value>, Option<Value>),
}

/// What has been written: the numbers in each buffer.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Outcome {
    buffers: Vec<Vec<Value>>,
}

impl Outcome {
    /// Adds a buffer that was written. Waits for it.
    ///
    /// # Errors
    ///
    /// Those of a download.
    pub fn add<T: DevicePod + Sample>(
        mut self,
        account: &Account,
        buffer: &DeviceVec<T>,
    ) -> Result<Self, DeviceError> {
        self.buffers.push(values(&account.download(buffer)?.wait()?));
        Ok(self)
    }

    /// Adds numbers that the host has.
    #[must_use]
    pub fn add_values<T: Sample>(mut self, numbers: &[T]) -> Self {
        self.buffers.push(values(numbers));
        self
    }
}

fn values<T: Sample>(elements: &[T]) -> Vec<Value> {
    let mut values = Vec::new();
    elements.iter().for_each(|element| element.list(&mut values));
    values
}

/// Runs all cases on every device there is, and on the host by a plain call of the Rust source; and compares.
///
/// Devices that are not there, or not in this build, are skipped, and that is printed; if the variable `REQUIRE_DEVICE` names their
/// kind (`wgpu`, `cuda`), it is a failure. Kernels are skipped where they have no source.
///
/// # Panics
///
/// If two outcomes differ, with the kernel, the device and the seed; or if anything fails.
pub fn check(cases: &[Case]) {
    let open = |spec: &str| Devices::open(&spec.parse().expect("these are specifications"), HostMode::Inline);
    let reference = open("host:inline").expect("the host is there");
    let required = std::env::var("REQUIRE_DEVICE").unwrap_or_default();
    for (spec, language) in SPECS {
        let cases: Vec<&Case> = cases.iter().filter(|case| case.is_written_in(*language)).collect();
        if cases.is_empty() {
            continue;
        }
        let devices = match open(spec) {
            Ok(devices) => devices,
            Err(error) => {
                let kind = spec.split(':').next().unwrap_or_default();
                assert!(!required.contains(kind), "REQUIRE_DEVICE names {kind}, and {error}");
                eprintln!("{spec} is skipped: {error}");
                continue;
            }
        };
        for case in cases {
            for seed in 0..SEEDS {
                compare(case, seed, &reference, &devices);
            }
        }
    }
}

fn compare(case: &Case, seed: u64, reference: &Devices, devices: &Devices) {
    let outcome = |devices: &Devices| {
        let run = case.run(&devices.get(0).account("parity"), seed);
        run.unwrap_or_else(|error| {
            panic!("{} on {}, seed {seed}: {error}", case.kernel, devices.get(0).name())
        })
    };
    let (expected, found) = (outcome(reference), outcome(devices));
    if let Some(Difference { buffer, number, values: (expected, found) }) = case.difference(&expected, &found)
    {
        let show = |value: Option<Value>| value.map_or("nothing".to_owned(), |value| value.to_string());
        panic!(
            "{} on {}, seed {seed}: number {number} of the written buffer {buffer} is {}, and by the Rust source {}",
            case.kernel,
            devices.get(0).name(),
            show(found),
            show(expected)
        );
    }
}
