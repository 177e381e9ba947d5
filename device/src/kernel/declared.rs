//! The kernels that a program declares, in one table of the whole program, and what they say about the devices that it
//! can use.
//!
//! `kernel!` adds a row where it stands, and the linker puts them side by side, in an order that differs between builds;
//! so nothing depends on it. The table has the kernels of libraries too, launched or not: what is declared is meant to
//! run. A kernel made by `Kernel::new` alone is not in it, and can only be missed when it is launched.

use super::{Kernel, Language};
use crate::arguments::Slots;
use crate::param::Params;

/// Every row of the program, as the linker has found them.
#[doc(hidden)]
#[linkme::distributed_slice]
pub static KERNELS: [Declared];

/// A kernel, as it is known when the program is compiled.
#[doc(hidden)]
pub struct Declared {
    name: &'static str,
    /// The path of the module that it stands in.
    module: &'static str,
    /// In the order of [`Language::ALL`].
    is_written: [bool; Language::ALL.len()],
    describe: fn(&mut Slots),
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only CUDA compiles it"))]
    cuda: Option<&'static str>,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only CUDA compiles with them"))]
    cuda_options: &'static [&'static str],
}

impl Declared {
    /// The row of a kernel.
    #[doc(hidden)]
    pub const fn of<A: Params>(kernel: &Kernel<A>, module: &'static str) -> Declared {
        let mut is_written = [false; Language::ALL.len()];
        let mut index = 0;
        while index < Language::ALL.len() {
            is_written[index] = kernel.is_written_in(Language::ALL[index]);
            index += 1;
        }
        let (cuda, cuda_options) = (kernel.code.cuda, kernel.code.cuda_options);
        Declared { name: kernel.name(), module, is_written, describe: A::describe, cuda, cuda_options }
    }

    /// The name of the kernel.
    #[doc(hidden)]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The path of the module that it stands in.
    #[doc(hidden)]
    pub fn module(&self) -> &'static str {
        self.module
    }

    /// As [`Kernel::layout`].
    #[doc(hidden)]
    pub fn layout(&self) -> Vec<(usize, usize, bool)> {
        super::layout(self.describe)
    }

    fn is_written_in(&self, language: Language) -> bool {
        Language::ALL.iter().zip(self.is_written).any(|(&one, is_written)| one == language && is_written)
    }

    /// Its name, its CUDA C source and the options that this is compiled with.
    #[cfg(feature = "cuda")]
    pub(crate) fn cuda(&self) -> Option<(&'static str, &'static str, &'static [&'static str])> {
        Some((self.name, self.cuda?, self.cuda_options))
    }

    /// Whether a device of this language that cannot run it is good enough for the program: only some adapters have
    /// numbers of 64 bits, so a program with kernels of such numbers has others, or can do without.
    fn may_lack(&self, language: Language) -> bool {
        let mut slots = Slots::default();
        (self.describe)(&mut slots);
        language == Language::Wgsl && slots.has_64_bits
    }
}

/// Whether these kernels can do on devices of a language: how many are written in it, or why they cannot.
pub(crate) fn fit(kernels: &[Declared], language: Language) -> Result<usize, String> {
    let count = kernels.iter().filter(|kernel| kernel.is_written_in(language)).count();
    if count == 0 {
        return Err(format!("no kernel that the program declares has a {language} source"));
    }
    let is_missed = |kernel: &&Declared| !kernel.is_written_in(language) && !kernel.may_lack(language);
    let missed = kernels.iter().filter(is_missed).map(|kernel| (kernel.module, kernel.name)).min();
    match missed {
        Some((module, name)) => Err(format!("kernel `{name}` of `{module}` has no {language} source")),
        None => Ok(count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launch::Launch;
    use crate::param::{In, Out};

    const NARROW: Kernel<(Out<f32>, u32)> = Kernel::new("narrow", |_: &Launch, _: (&mut [f32], u32)| ());
    const WIDE: Kernel<(In<f64>,)> = Kernel::new("wide", |_: &Launch, _: (&[f64],)| ());
    const COUNT: Kernel<(Out<f32>, [u64; 2])> =
        Kernel::new("count", |_: &Launch, _: (&mut [f32], [u64; 2])| ());

    #[test]
    fn a_device_must_run_all_kernels_but_those_of_wide_numbers() {
        let rust = Declared::of(&NARROW, "a::b");
        let cuda = || Declared::of(&NARROW.with_cuda(""), "a");
        let both = || Declared::of(&NARROW.with_ptx("").with_wgsl(""), "a");
        let [wide, count] = [Declared::of(&WIDE.with_cuda(""), "a"), Declared::of(&COUNT.with_cuda(""), "a")];
        let fit =
            |kernels: &[Declared]| [Language::CudaC, Language::Wgsl].map(|language| fit(kernels, language));
        let no = |text: &str| Err(text.to_owned());
        let none =
            |language: &str| Err(format!("no kernel that the program declares has a {language} source"));
        assert_eq!(fit(&[]), [none("CUDA C"), none("WGSL")]);
        assert_eq!(fit(&[cuda(), cuda()]), [Ok(2), none("WGSL")]);
        assert_eq!(fit(&[both(), cuda()]), [Ok(2), no("kernel `narrow` of `a` has no WGSL source")]);
        assert_eq!(fit(&[both(), wide, count]), [Ok(3), Ok(1)]);
        let missed = "kernel `narrow` of `a::b` has no";
        assert_eq!(
            fit(&[both(), rust]),
            [no(&format!("{missed} CUDA C source")), no(&format!("{missed} WGSL source"))]
        );
    }

    #[test]
    fn what_is_declared_is_in_the_table() {
        crate::kernel! {
            const HERE: fn here(x: In<f32>) {
                rust: |_: &Launch, _: (&[f32],)| (),
                cuda: "KERNEL here(In<f32> x, Grid grid) {}",
            }
        }
        let row = KERNELS.iter().find(|kernel| kernel.name == HERE.name()).expect("it is in the table");
        assert!(row.module.ends_with("declared::tests"), "{}", row.module);
        assert_eq!(row.is_written, [true, true, false]);
    }
}
