//! The `host` backend: device memory is host memory, kernels are Rust functions.
//!
//! It stands in for GPUs, so it keeps their manners: stream order, operations that finish later, several
//! devices of different speeds. With [`HostMode::Inline`] an operation runs inside `submit`; with
//! [`HostMode::Workers`] the [`workers`] run it.

mod pace;
mod workers;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

use crate::backend::{Backend, Operation};
use crate::error::DeviceError;
use crate::memory::MAX_ALIGN;
use crate::spec::HostMode;
use workers::Workers;

/// The host devices of one [`Devices`](crate::Devices).
pub(crate) enum Host {
    /// Operations run where they are submitted. Holds each device's slowdown.
    Inline(Vec<f64>),
    /// Operations run on worker threads.
    Workers(Workers),
}

impl Host {
    /// Starts devices with these slowdowns (1 is native speed, 2 is half of it).
    pub(crate) fn start(mode: HostMode, slowdowns: &[f64]) -> Result<Self, DeviceError> {
        match mode {
            HostMode::Inline => Ok(Host::Inline(slowdowns.to_vec())),
            HostMode::Workers(count) => Ok(Host::Workers(Workers::start(count, slowdowns)?)),
        }
    }

    /// Takes nothing more and begins nothing more of what has been submitted.
    pub(crate) fn abandon(&self) {
        match self {
            Host::Inline(_) => {}
            Host::Workers(workers) => workers.abandon(),
        }
    }

    /// Finishes what has been submitted, then stops.
    pub(crate) fn close(&self) {
        match self {
            Host::Inline(_) => {}
            Host::Workers(workers) => workers.close(),
        }
    }
}

impl Backend for Host {
    fn allocate(&self, bytes: usize) -> Option<NonNull<u8>> {
        let layout = Layout::from_size_align(bytes, MAX_ALIGN).ok().filter(|_| bytes > 0)?;
        // SAFETY: the size is not zero.
        NonNull::new(unsafe { alloc_zeroed(layout) })
    }

    unsafe fn release(&self, address: NonNull<u8>, bytes: usize) {
        let layout =
            Layout::from_size_align(bytes, MAX_ALIGN).expect("the layout was valid when this was allocated");
        // SAFETY: the caller gives back what `allocate` made with this layout.
        unsafe { dealloc(address.as_ptr(), layout) };
    }

    fn submit(&self, operation: Operation) -> Result<(), DeviceError> {
        match self {
            Host::Inline(slowdowns) => {
                let Operation { device, accesses, work, completion, .. } = operation;
                pace::run_slowed(slowdowns[device], || work(&accesses));
                drop(accesses);
                completion.publish();
                Ok(())
            }
            Host::Workers(workers) => workers.submit(operation),
        }
    }

    fn pending(&self) -> usize {
        match self {
            Host::Inline(_) => 0,
            Host::Workers(workers) => workers.pending(),
        }
    }
}
