//! What owners have used devices for: launches, their time, and bytes that were copied;
//! and what each kernel had of it. For balancing load, and for people.
//!
//! Every operation leaves its part when it ends, with its owner and with its device, if the devices keep records
//! ([`DeviceSpec::with_records`](crate::DeviceSpec::with_records)); else nothing is counted and no clock is read. An owner's record is that of all
//! its accounts, and lives as long as one of them.
//!
//! A launch's time is *measured* where the backend can: around the Rust source on host devices (times the slowdown of a slow one), by a pair of
//! events on CUDA, by the device's clock on wgpu. Where an adapter has no clock, or it says nothing, the time is *estimated*: that of the
//! batch, divided by the launches of the batch.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::launch::Grid;
use crate::operation::Command;

/// What an owner has used a device for, or all owners; see [`Account::usage`](crate::Account::usage) and
/// [`Device::usage`](crate::Device::usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Usage {
    /// Launches that have ended, well or not, those in graphs too.
    pub launches: u64,
    /// What they took on the device. That of launches that have failed counts as far as it is known.
    pub launch_time: Duration,
    /// The part of `launch_time` in which the device had nothing else to do for this process: what the launches would take anywhere else
    /// too. The rest is of launches that may have been slowed by others beside them.
    pub alone_time: Duration,
    /// The part of `launch_time` that is estimated.
    pub estimated_time: Duration,
    /// Bytes that were copied from memory of the program.
    pub from_host_bytes: u64,
    /// Bytes that were copied to memory of the program.
    pub to_host_bytes: u64,
    /// Bytes that were copied from other devices of the set.
    pub from_peers_bytes: u64,
    /// Bytes that were copied from one buffer of the device to another, not counting snapshots.
    pub within_bytes: u64,
}

impl Usage {
    /// This and that.
    pub(crate) fn and(&self, other: &Usage) -> Usage {
        Usage {
            launches: self.launches + other.launches,
            launch_time: self.launch_time + other.launch_time,
            alone_time: self.alone_time + other.alone_time,
            estimated_time: self.estimated_time + other.estimated_time,
            from_host_bytes: self.from_host_bytes + other.from_host_bytes,
            to_host_bytes: self.to_host_bytes + other.to_host_bytes,
            from_peers_bytes: self.from_peers_bytes + other.from_peers_bytes,
            within_bytes: self.within_bytes + other.within_bytes,
        }
    }
}

/// What the launches of one kernel have used a device for; see [`Account::usage_by_kernel`](crate::Account::usage_by_kernel) and
/// [`Device::usage_by_kernel`](crate::Device::usage_by_kernel).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct KernelUsage {
    /// The name of the kernel, or of code of others. Kernels of one name count as one.
    pub kernel: Cow<'static, str>,
    /// Launches that have ended, well or not, those in graphs too.
    pub launches: u64,
    /// The elements of their grids, in all. None are known of code of others.
    pub elements: u64,
    /// The grid with the most elements.
    pub largest: Grid,
    /// What they took on the device. The launches of a graph have equal parts of its time.
    pub launch_time: Duration,
    /// The part of `launch_time` that is estimated, as it is in graphs of several launches.
    pub estimated_time: Duration,
}

/// Where copied bytes come from, and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    FromHost,
    ToHost,
    FromPeer,
    Within,
}

/// What a launch took on its device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(crate) time: Duration,
    pub(crate) is_estimated: bool,
}

impl Spent {
    pub(crate) fn measured(time: Duration) -> Self {
        Spent { time, is_estimated: false }
    }
}

impl KernelUsage {
    fn new(kernel: &'static str) -> Self {
        let (launches, elements, largest) = (0, 0, Grid::new(0, 0, 0));
        KernelUsage {
            kernel: Cow::Borrowed(kernel),
            launches,
            elements,
            largest,
            launch_time: Duration::ZERO,
            estimated_time: Duration::ZERO,
        }
    }

    fn add(&mut self, grid: Grid, time: Duration, is_estimated: bool) {
        self.launches += 1;
        self.elements = self.elements.saturating_add(grid.len());
        if grid.len() > self.largest.len() {
            self.largest = grid;
        }
        self.launch_time += time;
        if is_estimated {
            self.estimated_time += time;
        }
    }

    /// Counts what the same kernel has had elsewhere.
    fn join(&mut self, other: &KernelUsage) {
        self.launches += other.launches;
        self.elements = self.elements.saturating_add(other.elements);
        if other.largest.len() > self.largest.len() {
            self.largest = other.largest;
        }
        self.launch_time += other.launch_time;
        self.estimated_time += other.estimated_time;
    }
}

/// What each kernel has had in all of these, the one with the most time first.
pub(crate) fn by_kernel(usages: impl IntoIterator<Item = KernelUsage>) -> Vec<KernelUsage> {
    let mut kernels = Vec::<KernelUsage>::new();
    for usage in usages {
        match kernels.iter_mut().find(|known| known.kernel == usage.kernel) {
            Some(known) => known.join(&usage),
            None => kernels.push(usage),
        }
    }
    kernels.sort_by(|a, b| b.launch_time.cmp(&a.launch_time).then_with(|| a.kernel.cmp(&b.kernel)));
    kernels
}

/// What is counted for one [`Usage`]. Each number by itself is right at any moment.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    launches: AtomicU64,
    launch_ns: AtomicU64,
    alone_ns: AtomicU64,
    estimated_ns: AtomicU64,
    from_host_bytes: AtomicU64,
    to_host_bytes: AtomicU64,
    from_peers_bytes: AtomicU64,
    within_bytes: AtomicU64,
    /// Operations that have been submitted and have not ended. Of a device.
    pending: AtomicU64,
    /// Few: they are looked through.
    kernels: Mutex<Vec<KernelUsage>>,
}

impl Meter {
    /// Counts an operation that is submitted. Whether there is no other one.
    pub(crate) fn begin(&self) -> bool {
        self.pending.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Counts one that ends, or was refused. Whether there is no other one.
    pub(crate) fn end(&self) -> bool {
        self.pending.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Counts the launches of an operation that ends, and what it took.
    pub(crate) fn add_launches(&self, command: &Command, spent: Option<Spent>, is_alone: bool) {
        let count = command.launches();
        if count == 0 {
            return;
        }
        self.launches.fetch_add(count, Ordering::Relaxed);
        self.add_to_kernels(command, count, spent);
        let Some(Spent { time, is_estimated }) = spent else { return };
        // 584 years fit.
        let ns = time.as_nanos() as u64;
        self.launch_ns.fetch_add(ns, Ordering::Relaxed);
        for (sum, is_meant) in [(&self.alone_ns, is_alone), (&self.estimated_ns, is_estimated)] {
            if is_meant {
                sum.fetch_add(ns, Ordering::Relaxed);
            }
        }
    }

    fn add_to_kernels(&self, command: &Command, count: u64, spent: Option<Spent>) {
        let part = |time: Duration| Duration::from_nanos(time.as_nanos() as u64 / count);
        let time = spent.map_or(Duration::ZERO, |spent| part(spent.time));
        let is_estimated = count > 1 || spent.is_some_and(|spent| spent.is_estimated);
        let mut kernels = self.kernels();
        command.each_launch(|kernel, grid| {
            let place = kernels.iter().position(|usage| usage.kernel == kernel).unwrap_or_else(|| {
                kernels.push(KernelUsage::new(kernel));
                kernels.len() - 1
            });
            kernels[place].add(grid, time, is_estimated);
        });
    }

    fn kernels(&self) -> MutexGuard<'_, Vec<KernelUsage>> {
        self.kernels.lock().expect("nothing panics under this lock")
    }

    /// Each kernel that has been launched, the one with the most time first.
    pub(crate) fn usage_by_kernel(&self) -> Vec<KernelUsage> {
        let kernels = self.kernels().clone();
        by_kernel(kernels)
    }

    pub(crate) fn add_bytes(&self, direction: Direction, bytes: u64) {
        let sum = match direction {
            Direction::FromHost => &self.from_host_bytes,
            Direction::ToHost => &self.to_host_bytes,
            Direction::FromPeer => &self.from_peers_bytes,
            Direction::Within => &self.within_bytes,
        };
        sum.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn usage(&self) -> Usage {
        let count = |sum: &AtomicU64| sum.load(Ordering::Relaxed);
        let time = |sum: &AtomicU64| Duration::from_nanos(count(sum));
        Usage {
            launches: count(&self.launches),
            launch_time: time(&self.launch_ns),
            alone_time: time(&self.alone_ns),
            estimated_time: time(&self.estimated_ns),
            from_host_bytes: count(&self.from_host_bytes),
            to_host_bytes: count(&self.to_host_bytes),
            from_peers_bytes: count(&self.from_peers_bytes),
            within_bytes: count(&self.within_bytes),
        }
    }
}
