//! The `host` backend: device memory is host memory, kernels are Rust functions.
//!
//! It stands in for GPUs, so it keeps their manners: stream order, operations that finish later, several
//! devices of different speeds. With [`HostMode::Inline`] an operation runs inside `submit`; with
//! [`HostMode::Workers`] the [`workers`] run it; with [`HostMode::Polled`] and [`HostMode::Seeded`] whoever [polls](polled) does, and memory
//! is known by numbers, so that nothing outside of the backend can use it.

mod limits;
mod pace;
mod polled;
mod run;
mod workers;

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

use crate::backend::{Backend, Block, Facts, Fresh, Opened};
use crate::error::DeviceError;
use crate::event::StreamKey;
use crate::kernel::Language;
use crate::memory::MAX_ALIGN;
use crate::operation::Operation;
use crate::sleepers::Pending;
use crate::spec::{DeviceSpec, HostMode};
use limits::Limits;
use polled::Polled;
use workers::Workers;

/// Opens the virtual devices of a specification. `default_mode` says where kernels run if it does not.
pub(crate) fn open(spec: &DeviceSpec, default_mode: HostMode) -> Result<Opened, DeviceError> {
    let speeds = spec.host_speeds();
    let fastest = speeds.iter().copied().fold(0.0, f64::max);
    let slowdowns: Vec<f64> = speeds.iter().map(|speed| fastest / speed).collect();
    let mode = spec.mode().unwrap_or(default_mode);
    let uuid_prefix = uuid_prefix();
    let facts = |ordinal: usize| Facts {
        name: name(ordinal),
        uuid: format!("{uuid_prefix}:{ordinal}"),
        speed: speeds[ordinal],
        capacity_bytes: spec.capacity_bytes().unwrap_or(u64::MAX),
        language: Language::Rust,
        is_host_memory: !matches!(mode, HostMode::Polled | HostMode::Seeded(_)),
        model: None,
        max_buffer_bytes: u64::MAX,
        // A launch that has a limit is watched, by an operation.
        runs_at_once: mode == HostMode::Inline && slowdowns[ordinal] == 1.0 && spec.time_limit().is_none(),
    };
    let devices = (0..speeds.len()).map(facts).collect();
    let limits = Limits::new(spec.time_limit(), slowdowns);
    let backend: Arc<dyn Backend> = match mode {
        HostMode::Inline => Arc::new(Inline { limits }),
        HostMode::Workers(count) => Arc::new(Workers::start(count, speeds.len(), limits)?),
        HostMode::Polled => Arc::new(Polled::new(limits, None)),
        HostMode::Seeded(seed) => Arc::new(Polled::new(limits, Some(seed))),
    };
    Ok(Opened { backend, devices })
}

/// What messages call a device.
fn name(ordinal: usize) -> Arc<str> {
    Arc::from(format!("host:{ordinal}"))
}

/// The part of a host device's identity that other processes of the machine do not have.
fn uuid_prefix() -> String {
    format!("host:{}:{}", host_name(), std::process::id())
}

/// What this machine calls itself.
pub(crate) fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// Zeroed host memory, aligned as device memory is.
pub(crate) fn allocate(bytes: usize) -> Option<NonNull<u8>> {
    let layout = Layout::from_size_align(bytes, MAX_ALIGN).ok().filter(|_| bytes > 0)?;
    // SAFETY: the size is not zero.
    NonNull::new(unsafe { alloc_zeroed(layout) })
}

/// Takes it back.
///
/// # Safety
///
/// `address` came from [`allocate`] with the same `bytes`, and nobody uses it.
pub(crate) unsafe fn release(address: NonNull<u8>, bytes: usize) {
    let layout =
        Layout::from_size_align(bytes, MAX_ALIGN).expect("the layout was valid when this was allocated");
    // SAFETY: the caller gives back what `allocate` made with this layout.
    unsafe { dealloc(address.as_ptr(), layout) };
}

/// Devices whose operations run where they are submitted. Nothing is ever in flight, so nothing needs to be ordered.
struct Inline {
    limits: Limits,
}

impl Backend for Inline {
    fn allocate(&self, _: usize, bytes: usize) -> Option<Fresh> {
        Some(Fresh { block: Block::at(allocate(bytes)?), is_zeroed: true })
    }

    unsafe fn release(&self, _: usize, block: Block, bytes: usize) {
        // SAFETY: the caller promises what this asks.
        unsafe { release(block.address(), bytes) };
    }

    /// All streams are alike: operations run in the order of their submission anyway.
    fn open_stream(&self, _: usize, _: bool) -> StreamKey {
        StreamKey(0)
    }

    fn close_stream(&self, _: StreamKey) {}

    fn allocate_pinned(&self, bytes: usize) -> Option<NonNull<u8>> {
        allocate(bytes)
    }

    unsafe fn release_pinned(&self, address: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller promises what this asks.
        unsafe { release(address, bytes) };
    }

    fn submit(&self, mut operation: Box<Operation>) -> Result<(), DeviceError> {
        let (end, outcome) = self.limits.run(&mut operation, Block::address);
        end.inspect(|&end| pace::wait_until(end));
        operation.leave(outcome).publish();
        Ok(())
    }

    fn loss(&self, device: usize) -> Option<Arc<str>> {
        self.limits.loss(device)
    }

    fn poll(&self) -> bool {
        false
    }

    fn pending(&self) -> Option<&Pending> {
        None
    }

    fn abandon(&self) {}

    fn close(&self) {}
}
