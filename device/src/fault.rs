//! Device faults, and the rule that none is lost.
//!
//! A kernel that fails leaves one [`FaultRecord`], shared by its completion, by the buffers it was writing
//! (they are *poisoned*: what depends on them fails with the same record) and by the [`FaultLog`] of its
//! devices. The record's status only moves forward:
//!
//! * *held*: a completion that carries it is alive and has not been polled;
//! * *dropped*: a completion that carries it was dropped unpolled; the account's next call returns it;
//! * *reported*: somebody has been given it.
//!
//! A waker that panics on a thread of the devices is a fault too. No completion carries it, since the operation itself
//! has its outcome: it is dropped from the first.
//!
//! [`Devices::take_dropped_faults`](crate::Devices::take_dropped_faults) takes the dropped ones,
//! [`Devices::take_unreported_faults`](crate::Devices::take_unreported_faults) the held ones too. So a fault is reported at least once, and never twice by different ways except to waiters, each of
//! which gets it.

use std::fmt;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::caught::Caught;

/// What failed in a [`Fault`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FaultKind {
    /// The kernel.
    Kernel,
    /// The waker that was to be told of the kernel's end, on a thread of the devices. The kernel has succeeded or
    /// failed by itself, and its completion says which; but whoever waited by that waker may never be woken.
    Waker,
}

/// A kernel that panicked, indexed out of bounds or was refused by its device; or a waker that panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fault {
    /// What failed.
    pub kind: FaultKind,
    /// The kernel, or the runtime's own operation, that failed first.
    pub kernel: &'static str,
    /// The device it ran on.
    pub device: Arc<str>,
    /// The label of the account that launched it.
    pub owner: Arc<str>,
    /// What went wrong, in the words of the panic or of the driver.
    pub message: Arc<str>,
    /// Where in the kernel, as `file:line:column`, if that is known.
    pub location: Option<Arc<str>>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault { kind, kernel, device, owner, message, location } = self;
        match kind {
            FaultKind::Kernel => write!(f, "kernel `{kernel}` of {owner} failed on {device}")?,
            FaultKind::Waker => {
                write!(f, "a waker that waited for kernel `{kernel}` of {owner} on {device} panicked")?;
            }
        }
        if let Some(location) = location {
            write!(f, " at {location}")?;
        }
        write!(f, ": {message}")
    }
}

const HELD: u8 = 0;
const DROPPED: u8 = 1;
const REPORTED: u8 = 2;

/// One fault and how far it has got on its way to somebody.
#[derive(Debug)]
pub(crate) struct FaultRecord {
    fault: Fault,
    status: AtomicU8,
    /// That of the log.
    dropped_count: Arc<AtomicU32>,
}

impl FaultRecord {
    /// Marks the fault as reported and returns it.
    pub(crate) fn report(&self) -> Fault {
        if self.status.swap(REPORTED, Ordering::AcqRel) == DROPPED {
            self.dropped_count.fetch_sub(1, Ordering::Release);
        }
        self.fault.clone()
    }

    /// What it says.
    pub(crate) fn text(&self) -> Arc<str> {
        self.fault.to_string().into()
    }

    /// Notes that a completion carrying this fault was dropped unpolled.
    pub(crate) fn drop_unpolled(&self) {
        if self.status.compare_exchange(HELD, DROPPED, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            // May briefly come after the decrement of a concurrent report: the count wraps and is right again
            // here.
            self.dropped_count.fetch_add(1, Ordering::Release);
        }
    }

    fn is(&self, status: u8) -> bool {
        self.status.load(Ordering::Acquire) == status
    }
}

/// The faults of one set of devices that may still be unreported.
#[derive(Debug, Default)]
pub(crate) struct FaultLog {
    /// Faults whose completions were dropped, for the next calls of their accounts.
    dropped_count: Arc<AtomicU32>,
    records: Mutex<Vec<Arc<FaultRecord>>>,
}

impl FaultLog {
    /// Records that `kernel`, launched by this owner, panicked, or a waker that waited for it.
    #[cold]
    pub(crate) fn record(
        &self,
        kind: FaultKind,
        kernel: &'static str,
        device: &Arc<str>,
        owner: &Arc<str>,
        Caught { message, location }: Caught,
    ) -> Arc<FaultRecord> {
        let (device, owner) = (device.clone(), owner.clone());
        let fault = Fault { kind, kernel, device, owner, message, location };
        let record = Arc::new(FaultRecord {
            fault,
            status: AtomicU8::new(HELD),
            dropped_count: self.dropped_count.clone(),
        });
        let mut records = self.records.lock().expect("nothing panics under this lock");
        records.retain(|record| !record.is(REPORTED));
        records.push(record.clone());
        record
    }

    /// Whether there may be a fault whose completion was dropped, of any account. Read at each launch: a line that all
    /// accounts have in common stays in the caches, where one of the account's own would not.
    #[inline(always)]
    pub(crate) fn has_dropped(&self) -> bool {
        // Pairs with the release in `FaultRecord::drop_unpolled`.
        self.dropped_count.load(Ordering::Acquire) != 0
    }

    /// Takes one fault of an owner whose completion was dropped. The owner is known by the allocation of its label.
    #[cold]
    pub(crate) fn take_dropped(&self, owner: &Arc<str>) -> Option<Fault> {
        let mut records = self.records.lock().expect("nothing panics under this lock");
        let found =
            records.iter().position(|record| Arc::ptr_eq(&record.fault.owner, owner) && record.is(DROPPED));
        found.map(|index| records.remove(index).report())
    }

    /// Takes every fault whose completion was dropped, in the order in which they happened.
    pub(crate) fn take_all_dropped(&self) -> Vec<Fault> {
        let mut records = self.records.lock().expect("nothing panics under this lock");
        records.extract_if(.., |record| record.is(DROPPED)).map(|record| record.report()).collect()
    }

    /// Takes every fault that nobody has been given, in the order in which they happened.
    pub(crate) fn take_unreported(&self) -> Vec<Fault> {
        let records = std::mem::take(&mut *self.records.lock().expect("nothing panics under this lock"));
        records.into_iter().filter(|record| !record.is(REPORTED)).map(|record| record.report()).collect()
    }
}
