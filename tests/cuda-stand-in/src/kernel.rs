//! Kernels: Rust code registered under a name, with the layout of its parameters, and one call of it.
//!
//! A parameter is known to be an address or plain bytes, so addresses of device memory become host addresses before the
//! code sees them, together with how much of their allocation lies behind them.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use crate::code::Code;

/// One parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter {
    /// An address of device memory whose elements are aligned to so many bytes.
    Address {
        /// The alignment of an element.
        align: u32,
    },
    /// So many bytes, given by value.
    Value {
        /// Its size.
        bytes: u32,
    },
}

impl Parameter {
    pub(crate) fn len_bytes(self) -> usize {
        match self {
            Parameter::Address { .. } => 8,
            Parameter::Value { bytes } => bytes as usize,
        }
    }

    /// As two numbers, to pass through the door of the library.
    pub(crate) fn encode(self) -> [u32; 2] {
        match self {
            Parameter::Address { align } => [0, align],
            Parameter::Value { bytes } => [1, bytes],
        }
    }

    pub(crate) fn decode([kind, number]: [u32; 2]) -> Parameter {
        if kind == 0 { Parameter::Address { align: number } } else { Parameter::Value { bytes: number } }
    }
}

/// How a kernel ends badly. Each is sticky: the context of the device is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It touched memory that it must not touch.
    IllegalAddress,
    /// An assertion in it failed. A panic is this too.
    Assert,
    /// Anything else.
    LaunchFailed,
}

impl Fault {
    pub(crate) fn code(self) -> Code {
        match self {
            Fault::IllegalAddress => Code::ILLEGAL_ADDRESS,
            Fault::Assert => Code::ASSERT,
            Fault::LaunchFailed => Code::LAUNCH_FAILED,
        }
    }
}

/// The shape of one launch.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawGeometry {
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) shared_bytes: u32,
}

/// One argument as the code of a kernel sees it: for an address, the host address of the memory and the bytes of the
/// allocation from there on; for a value, where its bytes are.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawArgument {
    pub(crate) start: *mut u8,
    pub(crate) len_bytes: u64,
}

/// Runs the kernel that `state` is; zero, or the code of a sticky error.
pub(crate) type Run = extern "C" fn(
    state: *const c_void,
    geometry: *const RawGeometry,
    arguments: *const RawArgument,
    count: usize,
) -> i32;

/// A registered kernel.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) name: String,
    pub(crate) parameters: Vec<Parameter>,
    run: Run,
    state: *const c_void,
}

// SAFETY: `state` is a closure that is `Send + Sync` and never freed (`StandIn::register`).
unsafe impl Send for Kernel {}
// SAFETY: as above.
unsafe impl Sync for Kernel {}

impl Kernel {
    pub(crate) fn new(name: String, parameters: Vec<Parameter>, run: Run, state: *const c_void) -> Kernel {
        Kernel { name, parameters, run, state }
    }

    /// Runs it on the calling thread.
    pub(crate) fn run(&self, geometry: RawGeometry, arguments: &[RawArgument]) -> Result<(), Code> {
        match (self.run)(self.state, &geometry, arguments.as_ptr(), arguments.len()) {
            0 => Ok(()),
            code => Err(Code(code)),
        }
    }
}

/// The kernels that have been registered, by name.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    kernels: Mutex<HashMap<String, Arc<Kernel>>>,
}

impl Registry {
    pub(crate) fn add(&self, kernel: Kernel) {
        let mut kernels = self.kernels.lock().expect("nothing panics under this lock");
        kernels.insert(kernel.name.clone(), Arc::new(kernel));
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Kernel>> {
        self.kernels.lock().expect("nothing panics under this lock").get(name).cloned()
    }
}

/// A kernel with the bytes of its arguments, copied when it was launched.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) kernel: Arc<Kernel>,
    pub(crate) geometry: RawGeometry,
    pub(crate) values: Vec<Vec<u8>>,
}

impl Call {
    /// The device addresses among its arguments, with the alignment that each must have.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (u64, u32)> {
        self.kernel.parameters.iter().zip(&self.values).filter_map(|(parameter, value)| match *parameter {
            Parameter::Address { align } => Some((read_address(value), align)),
            Parameter::Value { .. } => None,
        })
    }
}

/// The address that an argument holds.
pub(crate) fn read_address(value: &[u8]) -> u64 {
    u64::from_ne_bytes(value.try_into().expect("an address has eight bytes"))
}
