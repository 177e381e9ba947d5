//! Devices for programs made of many small owners: buffers, streams, events and typed kernels.
//!
//! This crate is apart because it knows devices and no chares: whatever owns device memory here is an
//! [`Account`] with a label, and whoever waits is a [`Waker`](std::task::Waker). It promises four things.
//!
//! * **Typed launches.** A [`Kernel`] is a constant whose parameter list is a type; the wrong buffer, or `&`
//!   where the kernel writes, does not compile.
//! * **Stream order, then data order.** Work of one account runs in the order of its calls. Work of different
//!   accounts that touches one buffer is ordered by that buffer's events. Memory of one device can be used on another of the set,
//!   to which it is copied or goes, and an account can move there. It stays with its [`Devices`]: another set
//!   of devices, as of another run in the process, refuses it.
//! * **Snapshots.** [`DeviceVec::share`] gives a read-only view that later writes of the owner never change.
//! * **No silent fault.** A kernel that fails is an error at whoever awaits it or depends on what it wrote;
//!   if nobody does, at the account's next call; if there is none, in [`Devices::take_unreported_faults`].
//!
//! | word | on a GPU | on the `host` backend |
//! |---|---|---|
//! | [`Device`] | a device | a virtual device with a relative speed and a capacity |
//! | [`Account`] | a stream and the bytes charged to one owner | the same |
//! | [`Kernel`] | compiled device code | a Rust function |
//! | [`Graph`] | a graph | a list of calls |
//! | [`DeviceVec`] | pooled device memory | pooled, aligned host memory |
//! | [`HostVec`] | pooled, pinned host memory | pooled host memory |
//! | [`Completion`] | an event | a cell filled by a worker, or a value born ready |
//!
//! # Examples
//!
//! ```
//! use chare_device::{Devices, HostMode, In, InOut, Kernel, Launch};
//!
//! const AXPY: Kernel<(f64, In<f64>, InOut<f64>)> = Kernel::new("axpy", axpy);
//! fn axpy(_: &Launch, (a, x, y): (f64, &[f64], &mut [f64])) {
//!     for (y, x) in y.iter_mut().zip(x) {
//!         *y += a * x;
//!     }
//! }
//!
//! let devices = Devices::open(&"host".parse()?, HostMode::Inline)?;
//! let account = devices.get(0).account("me");
//! let (x, mut y) = (account.upload(vec![1.0; 8])?, account.alloc::<f64>(8)?);
//! account.launch(&AXPY, 8, (2.0, &x, &mut y))?;
//! assert_eq!(account.download(&y)?.wait()?, [2.0; 8]);
//! # Ok::<(), chare_device::DeviceError>(())
//! ```

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test's unwrap is an assertion"))]

mod account;
mod args;
mod arguments;
mod arrival;
mod backend;
mod branch;
mod buffer;
mod caught;
mod choice;
mod completion;
mod cpus;
#[cfg(feature = "cuda")]
#[doc(hidden)]
pub mod cuda;
mod device;
mod enqueue;
mod error;
mod event;
mod fault;
mod graph;
mod host;
mod host_vec;
mod kernel;
mod launch;
mod lending;
mod memory;
mod operation;
mod param;
pub mod parity;
mod path;
mod pieces;
mod pool;
mod processes;
mod shape;
mod ship;
mod sleepers;
mod spec;
mod transfer;
mod usage;
mod vitals;
mod watchdog;
#[cfg(feature = "wgpu")]
mod wgpu;

pub use account::Account;
pub use args::{Arg, Args};
#[doc(hidden)]
pub use arrival::{Arrival as __Arrival, Reach as __Reach};
pub use buffer::{DeviceSlice, DeviceVec, Source};
pub use bytemuck::{NoUninit, Pod};
#[doc(hidden)]
pub use caught::note_kernel_panic;
pub use choice::{Kind as BackendKind, kinds as backend_kinds};
pub use completion::Completion;
pub use cpus::{Cpus, CpusError};
pub use device::{Copies, Device, Devices};
pub use enqueue::{CudaStream, DevicePtr};
pub use error::{DeviceError, DriverMemory, OutOfMemory};
pub use fault::{Fault, FaultKind};
pub use graph::{
    BufferParam, Formal, FormalParam, FormalParams, Graph, Recording, StepArg, StepArgs, WrittenParam,
};
pub use host_vec::HostVec;
pub use kernel::declare::CUDA_PRELUDE;
#[doc(hidden)]
pub use kernel::declare::{
    block as __block, cuda_declares as __cuda_declares, wgsl_declares as __wgsl_declares,
};
#[doc(hidden)]
pub use kernel::declared::{Declared as __Declared, KERNELS as __KERNELS};
pub use kernel::{Kernel, Language};
pub use launch::{Grid, Launch};
#[doc(hidden)]
pub use lending::{Offer as __Offer, Sample as __Sample};
#[doc(hidden)]
pub use linkme as __linkme;
pub use param::{Buffers, DevicePod, Each, In, InOut, Maybe, Out, Param, Params, Scalar, Zeroed};
pub use path::Path;
#[doc(hidden)]
pub use pieces::Filling as __Filling;
#[doc(hidden)]
pub use processes::{CARRIERS as __CARRIERS, Carrier as __Carrier, Come as __Come, Leaving as __Leaving};
pub use shape::Shape;
pub use ship::{Capability, CapabilityError, ship_kernels};
pub use sleepers::Rest;
pub use spec::{DeviceSpec, HostMode, SpecError};
pub use usage::{KernelUsage, Usage};
pub use vitals::Vitals;
