//! The tests' side: finding the library, registering kernels, asking what happened.
//!
//! A test links this crate for its types only; the state is that of the library that was loaded as `libcuda.so`.

use std::ffi::{CString, c_void};
use std::path::PathBuf;
use std::sync::Arc;

use crate::kernel::{Fault, Parameter, RawArgument, RawGeometry, Run};

/// The folder that makes the stand-in the CUDA driver of a process that has it in `LD_LIBRARY_PATH` when it starts.
///
/// The library lies beside the tests, under a name that no program looks for; in the folder it is called `libcuda.so`.
///
/// # Panics
///
/// If the library has not been built, or the folder cannot be made.
pub fn folder() -> PathBuf {
    let tests = std::env::current_exe().expect("a process knows its file");
    let tests = tests.parent().expect("a file lies in a folder");
    let library = tests.join("libcuda_stand_in.so");
    assert!(library.exists(), "{} is not there: build the package chare-cuda-stand-in", library.display());
    let folder = tests.join("cuda-stand-in");
    std::fs::create_dir_all(&folder).expect("the folder of the tests can be written");
    // Another test may have made it just now.
    for name in ["libcuda.so", "libnvidia-ml.so.1"] {
        let _ = std::os::unix::fs::symlink(&library, folder.join(name));
    }
    assert!(folder.join("libcuda.so").exists(), "the link in {} is broken", folder.display());
    folder
}

/// The loaded library.
pub struct StandIn {
    loaded: libloading::Library,
}

/// The shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
}

/// The arguments of one launch.
pub struct Arguments<'a> {
    raw: &'a [RawArgument],
}

impl Arguments<'_> {
    /// The value of parameter `index`.
    ///
    /// # Panics
    ///
    /// If the parameter has another size.
    pub fn value<T: Copy>(&self, index: usize) -> T {
        let RawArgument { start, len_bytes } = self.raw[index];
        assert_eq!(len_bytes as usize, size_of::<T>(), "the size of parameter {index}");
        // SAFETY: `start` is the argument's bytes, of which there are enough. Any bytes are a value of the types that
        // kernels take.
        unsafe { start.cast::<T>().read_unaligned() }
    }

    /// The bytes of parameter `index`, which is a value.
    pub fn bytes(&self, index: usize) -> &[u8] {
        let RawArgument { start, len_bytes } = self.raw[index];
        // SAFETY: `start` is the argument's bytes.
        unsafe { std::slice::from_raw_parts(start, len_bytes as usize) }
    }

    /// `len` elements at the address that parameter `index` is.
    ///
    /// # Errors
    ///
    /// [`Fault::IllegalAddress`] if its allocation ends before.
    #[allow(
        clippy::mut_from_ref,
        reason = "what a kernel may write is what it is launched with, not a borrow"
    )]
    pub fn slice<T: Copy>(&self, index: usize, len: usize) -> Result<&mut [T], Fault> {
        let RawArgument { start, len_bytes } = self.raw[index];
        if len == 0 {
            return Ok(&mut []);
        }
        if len.checked_mul(size_of::<T>()).is_none_or(|wanted| wanted as u64 > len_bytes) {
            return Err(Fault::IllegalAddress);
        }
        // SAFETY: so many bytes are there, aligned as the parameter was registered; a test's kernel takes numbers, and
        // each of its buffers once.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.cast(), len) })
    }
}

type Code = Arc<dyn Fn(Geometry, &Arguments<'_>) -> Result<(), Fault> + Send + Sync>;

/// Runs a registered closure.
extern "C" fn run(
    state: *const c_void,
    geometry: *const RawGeometry,
    arguments: *const RawArgument,
    count: usize,
) -> i32 {
    // SAFETY: `state` is the box that `register` leaked; the library calls with one geometry and `count` arguments.
    let (code, geometry, raw) =
        unsafe { (&*state.cast::<Code>(), *geometry, std::slice::from_raw_parts(arguments, count)) };
    let geometry =
        Geometry { grid: geometry.grid, block: geometry.block, shared_bytes: geometry.shared_bytes };
    let outcome =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| code(geometry, &Arguments { raw })));
    match outcome {
        Ok(Ok(())) => 0,
        Ok(Err(fault)) => fault.code().0,
        Err(_) => Fault::Assert.code().0,
    }
}

impl StandIn {
    /// The library that is this process's `libcuda.so`; `None` if that is a real driver, or there is none.
    pub fn loaded() -> Option<StandIn> {
        // SAFETY: loading it runs no code of its own.
        let library = unsafe { libloading::Library::new("libcuda.so") }.ok()?;
        let found = StandIn { loaded: library };
        found.has("stand_in_call_count").then_some(found)
    }

    fn has(&self, name: &str) -> bool {
        // SAFETY: the symbol is not used.
        unsafe { self.loaded.get::<*const c_void>(name.as_bytes()) }.is_ok()
    }

    /// Makes `code` what the kernel `name` does.
    ///
    /// # Panics
    ///
    /// If `name` holds a zero byte.
    pub fn register(
        &self,
        name: &str,
        parameters: &[Parameter],
        code: impl Fn(Geometry, &Arguments<'_>) -> Result<(), Fault> + Send + Sync + 'static,
    ) {
        type Register = extern "C" fn(*const i8, *const [u32; 2], usize, Run, *const c_void) -> i32;
        let name = CString::new(name).expect("a kernel's name has no zero byte");
        let parameters: Vec<[u32; 2]> = parameters.iter().map(|parameter| parameter.encode()).collect();
        let code: Code = Arc::new(code);
        let state = Box::into_raw(Box::new(code));
        // SAFETY: the symbol has this type; what it is given outlives the call, and `state` the process.
        let answer = unsafe {
            let register =
                self.loaded.get::<Register>(b"stand_in_register_kernel").expect("the stand-in has it");
            register(name.as_ptr().cast(), parameters.as_ptr(), parameters.len(), run, state.cast())
        };
        assert_eq!(answer, 0, "a kernel can be registered");
    }

    /// How often a driver function was called. `misuse`, `pageable copies` and `full queues` are counted too: work
    /// that a stream was given which a driver would have had no room for, and blocked.
    ///
    /// # Panics
    ///
    /// If `name` holds a zero byte.
    pub fn call_count(&self, name: &str) -> u64 {
        type Count = extern "C" fn(*const i8, *mut u64) -> i32;
        let name = CString::new(name).expect("a function's name has no zero byte");
        let mut count = 0;
        // SAFETY: the symbol has this type.
        unsafe {
            let ask = self.loaded.get::<Count>(b"stand_in_call_count").expect("the stand-in has it");
            ask(name.as_ptr().cast(), &mut count);
        }
        count
    }

    /// Makes every later call for a device fail with `code`, as if it were lost.
    ///
    /// # Panics
    ///
    /// If there is no such device.
    pub fn fail_device(&self, device: i32, code: i32) {
        type Fail = extern "C" fn(i32, i32) -> i32;
        // SAFETY: the symbol has this type.
        let answer = unsafe {
            self.loaded.get::<Fail>(b"stand_in_fail_device").expect("the stand-in has it")(device, code)
        };
        assert_eq!(answer, 0, "device {device} is there");
    }
}
