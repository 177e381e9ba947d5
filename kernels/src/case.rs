//! Kernels on random inputs, by which the devices of a machine are compared.
//!
//! Each module of kernels has its cases beside its sources; a case launches one kernel as a program would and returns all that it has
//! written. The Rust source on a host device says what is right; `tests/parity.rs` runs every case on every device there
//! is.

use chare_device::{Account, DeviceError, DeviceVec, Kernel, Language, Params};

use crate::{Real, jacobi3d};

/// One kernel, and how to launch it on random inputs.
pub struct Case {
    kernel: &'static str,
    languages: Vec<Language>,
    tolerance: f64,
    run: Run,
}

type Run = Box<dyn Fn(&Account, &mut Random) -> Result<Outcome, DeviceError> + Send + Sync>;

impl Case {
    /// A case of `kernel`. Its results may differ from those of the Rust source by `tolerance`, as a part of the larger.
    pub(crate) fn new<A: Params>(
        kernel: &Kernel<A>,
        tolerance: f64,
        run: impl Fn(&Account, &mut Random) -> Result<Outcome, DeviceError> + Send + Sync + 'static,
    ) -> Case {
        let languages = Language::ALL.into_iter().filter(|&language| kernel.is_written_in(language));
        Case { kernel: kernel.name(), languages: languages.collect(), tolerance, run: Box::new(run) }
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
        (self.run)(account, &mut Random(seed))
    }

    /// Where two outcomes of one seed differ by more than the kernel's sources may: buffer, element, and the two
    /// values.
    pub fn difference(&self, one: &Outcome, other: &Outcome) -> Option<(usize, usize, f64, f64)> {
        let differ = |a: f64, b: f64| {
            let close = (a - b).abs() <= self.tolerance * a.abs().max(b.abs());
            !(a == b || close || (a.is_nan() && b.is_nan()))
        };
        for (buffer, (one, other)) in one.buffers.iter().zip(&other.buffers).enumerate() {
            if one.len() != other.len() {
                return Some((buffer, one.len().min(other.len()), f64::NAN, f64::NAN));
            }
            if let Some(index) = (0..one.len()).find(|&index| differ(one[index], other[index])) {
                return Some((buffer, index, one[index], other[index]));
            }
        }
        None
    }
}

/// What a kernel has written: the elements of each buffer.
#[derive(Debug, Default)]
pub struct Outcome {
    buffers: Vec<Vec<f64>>,
}

impl Outcome {
    /// Adds a buffer that was written.
    pub(crate) fn add<T: Real>(
        mut self,
        account: &Account,
        buffer: &DeviceVec<T>,
    ) -> Result<Self, DeviceError> {
        self.buffers.push(account.download(buffer)?.wait()?.into_iter().map(T::into_f64).collect());
        Ok(self)
    }
}

/// Numbers that look random, the same for each seed: splitmix64.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound`, without it.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        (self.next() % u64::from(bound)) as u32
    }

    /// So many numbers from -1 to 1.
    pub(crate) fn reals<T: Real>(&mut self, len: usize) -> Vec<T> {
        let real = |_| T::from_f64((self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0);
        (0..len).map(real).collect()
    }
}

/// The cases of all kernels of this crate.
pub fn cases() -> Vec<Case> {
    jacobi3d::cases()
}
