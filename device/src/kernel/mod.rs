//! A kernel: a name, a parameter list, and a source in each language that it has been written in.

pub(crate) mod declare;
pub(crate) mod declared;

use std::fmt;

use crate::arguments::{Arguments, Reader, Slots};
use crate::error::DeviceError;
use crate::launch::{Grid, Launch};
use crate::param::Params;
use crate::ship::Capability;

/// What the kernels of a device are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Language {
    /// Rust functions: `host` devices.
    Rust,
    /// CUDA C, compiled when the program runs: `cuda` devices.
    CudaC,
    /// WGSL: `wgpu` devices.
    Wgsl,
}

impl Language {
    /// All languages.
    pub const ALL: [Language; 3] = [Language::Rust, Language::CudaC, Language::Wgsl];
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Language::Rust => "Rust",
            Language::CudaC => "CUDA C",
            Language::Wgsl => "WGSL",
        })
    }
}

/// A typed kernel. Meant to be a constant, and best declared by [`kernel!`](crate::kernel!), which takes its sources in
/// other languages too:
///
/// ```
/// use chare_device::{In, Kernel, Launch, Out};
///
/// const SCALE: Kernel<(In<f32>, Out<f32>, f32)> = Kernel::new("scale", scale);
/// fn scale(_: &Launch, (x, y, factor): (&[f32], &mut [f32], f32)) {
///     for (y, x) in y.iter_mut().zip(x) {
///         *y = factor * x;
///     }
/// }
/// ```
pub struct Kernel<A: Params> {
    rust: RustSource<A>,
    code: Code,
}

/// The source of a kernel for host devices.
pub(crate) type RustSource<A> = for<'l, 'v> fn(&'l Launch, <A as Params>::Views<'v>);

/// A kernel without its types, as operations carry it.
#[derive(Clone, Copy)]
pub(crate) struct Code {
    pub(crate) name: &'static str,
    /// Calls the Rust source. The arguments are those of the kernel, with addresses for blocks, and what holds for the
    /// views of [`Params::views`] holds for them.
    pub(crate) run: unsafe fn(&Launch, &mut Reader<'_>),
    /// Lists the parameters.
    pub(crate) describe: fn(&mut Slots),
    pub(crate) cuda: Option<&'static str>,
    /// For the compiler of the CUDA C source.
    pub(crate) cuda_options: &'static [&'static str],
    /// The CUDA C source, compiled already.
    pub(crate) ptx: Option<&'static str>,
    /// The same, compiled for some devices.
    pub(crate) cubins: &'static [(Capability, &'static [u8])],
    pub(crate) wgsl: Option<&'static str>,
    /// Threads of a block along x, y and z, if the kernel wants so many.
    pub(crate) block: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory of a block, on CUDA.
    pub(crate) shared_bytes: u32,
}

impl<A: Params> Kernel<A> {
    /// A kernel with a Rust source, which `host` devices run: a function, or a closure that captures nothing
    /// and has annotated arguments. `name` stands in error messages. It is `Send + Sync`, since it is called on any
    /// thread: a marker without size that is neither (the proof of being on some thread) cannot be captured.
    ///
    /// ```compile_fail,E0277
    /// # use chare_device::{Kernel, Launch, Out};
    /// #[derive(Clone, Copy)]
    /// struct OnMain(std::marker::PhantomData<*const ()>); // only made on the main thread
    /// let main = OnMain(std::marker::PhantomData);
    /// let source = move |_: &Launch, (_,): (&mut [u32],)| drop::<OnMain>(main);
    /// let kernel: Kernel<(Out<u32>,)> = Kernel::new("touch", source);
    /// ```
    ///
    /// The source sees each buffer as a slice. It may panic: that is a device fault, with the panic's
    /// message.
    // Not simply a function pointer: with one, the parameter list could not be inferred from the constant's
    // type.
    pub const fn new<F>(name: &'static str, _rust: F) -> Self
    where
        F: for<'l, 'v> Fn(&'l Launch, A::Views<'v>) + Copy + Send + Sync + 'static,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "a kernel's source is a function, or a closure that captures nothing"
            )
        };
        let rust: RustSource<A> = |launch, views| {
            // SAFETY: `F` has no bytes, and a value of it existed: `_rust`, which could be copied and has not
            // been dropped. That value is shared with whatever thread this is, as `Sync` allows.
            let source = unsafe { std::ptr::NonNull::<F>::dangling().as_ref() };
            source(launch, views);
        };
        let run: unsafe fn(&Launch, &mut Reader<'_>) = |launch, arguments| {
            // SAFETY: as above.
            let source = unsafe { std::ptr::NonNull::<F>::dangling().as_ref() };
            // SAFETY: the caller of `Code::run` promises that these are arguments of this kernel, and what `views` asks.
            source(launch, unsafe { A::views(A::unpack(arguments)) });
        };
        let (cuda, ptx, wgsl, block) = (None, None, None, None);
        let (cuda_options, cubins, shared_bytes): (&[&str], &[_], u32) = (&[], &[], 0);
        let describe = A::describe;
        let code = Code { name, run, describe, cuda, cuda_options, ptx, cubins, wgsl, block, shared_bytes };
        Kernel { rust, code }
    }

    /// The same kernel, with a source in CUDA C. The rules for it are those of [`kernel!`](crate::kernel!).
    pub const fn with_cuda(mut self, source: &'static str) -> Self {
        self.code.cuda = Some(source);
        self
    }

    /// The same kernel, whose source in CUDA C is compiled with these options of NVRTC's, such as `--use_fast_math`. They are part of
    /// what compiled code is found by, in the cache and among what is shipped.
    pub const fn with_cuda_options(mut self, options: &'static [&'static str]) -> Self {
        self.code.cuda_options = options;
        self
    }

    /// The same kernel, with its source in CUDA C compiled to cubins already, each for GPUs of one compute capability and of the same
    /// major version after it. Such GPUs take these before all else, others PTX or CUDA C, if the kernel has them.
    pub const fn with_cubins(mut self, cubins: &'static [(Capability, &'static [u8])]) -> Self {
        self.code.cubins = cubins;
        self
    }

    /// The same kernel, for blocks that have so much dynamic shared memory on CUDA: `extern __shared__` in its source. More than 48
    /// KiB can be had in this way only, and how much there is depends on the device; a launch where there is less is an error.
    pub const fn with_shared_bytes(mut self, bytes: u32) -> Self {
        self.code.shared_bytes = bytes;
        self
    }

    /// The same kernel, with its source in CUDA C compiled to PTX already: GPUs take this, and need no compiler.
    pub const fn with_ptx(mut self, text: &'static str) -> Self {
        self.code.ptx = Some(text);
        self
    }

    /// The same kernel, with a source in WGSL. The rules for it are those of [`kernel!`](crate::kernel!).
    pub const fn with_wgsl(mut self, source: &'static str) -> Self {
        self.code.wgsl = Some(source);
        self
    }

    /// The same kernel, for blocks of exactly so many threads along x, y and z: the order of [`Grid::new`], and of `@workgroup_size` in
    /// WGSL. The rules for it are those of [`kernel!`](crate::kernel!).
    ///
    /// # Panics
    ///
    /// If they are not 32 to 1024 threads, a multiple of 32, and at most 64 along z. In a constant, that does not compile.
    pub const fn with_block(mut self, block: [u32; 3]) -> Self {
        declare::check_block(block);
        self.code.block = Some(block);
        self
    }

    /// The threads of a block along x, y and z, if the kernel says how many they are.
    pub const fn block(&self) -> Option<[u32; 3]> {
        self.code.block
    }

    /// The grid of so many blocks along each axis: as many threads as these blocks have.
    ///
    /// # Panics
    ///
    /// If the kernel has no block shape, or a grid has not so many threads.
    pub fn blocks(&self, count: impl Into<Grid>) -> Grid {
        let count = count.into();
        let Some(block) = self.code.block else {
            panic!("kernel `{}` has no block shape; declare it with `block: [x, y, z]`", self.name());
        };
        let threads = |count: u32, size: u32| match count.checked_mul(size) {
            Some(threads) => threads,
            None => {
                panic!("{count} blocks of kernel `{}` are too many along one axis of a grid", self.name())
            }
        };
        Grid::new(threads(count.x, block[0]), threads(count.y, block[1]), threads(count.z, block[2]))
    }

    /// The name.
    pub const fn name(&self) -> &'static str {
        self.code.name
    }

    /// Whether it has a source in this language.
    pub const fn is_written_in(&self, language: Language) -> bool {
        match language {
            Language::Rust => true,
            Language::CudaC => {
                self.code.cuda.is_some() || self.code.ptx.is_some() || !self.code.cubins.is_empty()
            }
            Language::Wgsl => self.code.wgsl.is_some(),
        }
    }

    /// Its source in CUDA C.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoSource`] with the languages that it has been written in.
    pub fn cuda_source(&self) -> Result<&'static str, DeviceError> {
        self.code.cuda.ok_or_else(|| self.no_source(Language::CudaC))
    }

    /// Its source in WGSL.
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoSource`] with the languages that it has been written in.
    pub fn wgsl_source(&self) -> Result<&'static str, DeviceError> {
        self.code.wgsl.ok_or_else(|| self.no_source(Language::Wgsl))
    }

    /// The error for a launch on a device that wants another language.
    #[cold]
    pub(crate) fn no_source(&self, language: Language) -> DeviceError {
        let has = Language::ALL.into_iter().filter(|&language| self.is_written_in(language)).collect();
        DeviceError::NoSource { kernel: self.code.name, language, has }
    }

    /// Where its arguments stand: the first byte of each, how many there are, and whether they are the address and the
    /// length of a buffer. For stand-ins of devices, which [run](Self::run_for) the Rust source.
    #[doc(hidden)]
    pub fn layout(&self) -> Vec<(usize, usize, bool)> {
        layout(self.code.describe)
    }

    /// Calls the Rust source as a device would.
    ///
    /// # Safety
    ///
    /// `arguments` are arguments of this kernel, as its layout says, with addresses of memory of this process, of which
    /// nobody writes what it reads, nor uses what it writes.
    #[doc(hidden)]
    pub unsafe fn run_for(&self, grid: Grid, arguments: &[u8]) {
        let mut all = Arguments::default();
        arguments.iter().for_each(|byte| all.push(byte));
        // SAFETY: promised by the caller.
        unsafe { (self.code.run)(&Launch::new(grid), &mut Reader::new(&all)) };
    }

    #[inline(always)]
    pub(crate) fn rust(&self) -> RustSource<A> {
        self.rust
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }
}

/// See [`Kernel::layout`].
fn layout(describe: fn(&mut Slots)) -> Vec<(usize, usize, bool)> {
    let mut slots = Slots::default();
    describe(&mut slots);
    slots.list.iter().map(|slot| (slot.offset, slot.bytes, slot.buffer.is_some())).collect()
}

impl<A: Params> Clone for Kernel<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: Params> Copy for Kernel<A> {}

impl<A: Params> fmt::Debug for Kernel<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kernel({})", self.code.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::param::Out;

    #[test]
    fn a_missing_source_is_told_with_those_that_are_there() {
        let kernel =
            Kernel::<(Out<f32>,)>::new("fill", |_: &Launch, _: (&mut [f32],)| ()).with_wgsl("fn fill");
        assert_eq!(kernel.wgsl_source().unwrap(), "fn fill");
        let error = kernel.cuda_source().unwrap_err();
        assert_eq!(
            error.to_string(),
            "kernel `fill` has no CUDA C source, which its device wants; it is written in Rust, WGSL; write one, or \
             run with `--device host`"
        );
        assert!(kernel.is_written_in(Language::Rust) && !kernel.is_written_in(Language::CudaC));
    }
    /// What a call panics with.
    fn refused<T: fmt::Debug>(call: impl FnOnce() -> T) -> String {
        let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).unwrap_err();
        let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
        text.unwrap_or_else(|| payload.downcast_ref::<String>().unwrap().clone())
    }

    #[test]
    fn a_grid_may_be_counted_in_blocks() {
        let kernel = Kernel::<(Out<f32>,)>::new("fill", |_: &Launch, _: (&mut [f32],)| ());
        let tiled = kernel.with_block([16, 4, 2]);
        assert_eq!((kernel.block(), tiled.block()), (None, Some([16, 4, 2])));
        assert_eq!(tiled.blocks(3), Grid::new(48, 4, 2));
        assert_eq!(tiled.blocks(Grid::new(0, 2, 5)), Grid::new(0, 8, 10));
        assert!(refused(|| kernel.blocks(1)).contains("kernel `fill` has no block shape"));
        assert!(refused(|| tiled.blocks(1 << 28)).contains("268435456 blocks of kernel `fill`"));
        for (block, reason) in [
            ([0, 1, 1], "at least one thread"),
            ([1025, 1, 1], "at most 1024"),
            ([1, 1, 96], "at most 64 along z"),
            ([24, 2, 1], "a multiple of 32"),
        ] {
            assert!(refused(|| kernel.with_block(block)).contains(reason), "{block:?}");
        }
    }
}
