//! What owners have used devices for: launches, their time, and bytes that were copied. For balancing load, and for people.
//!
//! Every operation leaves its part when it ends, with its owner and with its device, if the devices keep records
//! ([`DeviceSpec::with_records`](crate::DeviceSpec::with_records)); else nothing is counted and no clock is read. An owner's record is that of all
//! its accounts, and lives as long as one of them.
//!
//! A launch's time is *measured* where the backend can: around the Rust source on host devices (times the slowdown of a slow one), by a pair of
//! events on CUDA. On wgpu it is *estimated*: the time of its batch, divided by the launches of the batch.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What an owner has used a device for, or all owners; see [`Account::usage`](crate::Account::usage) and
/// [`Device::usage`](crate::Device::usage).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

    pub(crate) fn add_launches(&self, count: u64, spent: Option<Spent>, is_alone: bool) {
        self.launches.fetch_add(count, Ordering::Relaxed);
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
