//! Running operations under the time limit of the devices, and the devices that were lost by it.

use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use super::{pace, run};
use crate::backend::Block;
use crate::fault::FaultRecord;
use crate::operation::Operation;
use crate::usage::Spent;
use crate::watchdog::overdue;

/// What a time limit has done to a set of devices.
pub(super) struct Limits {
    pub(super) limit: Option<Duration>,
    slowdowns: Vec<f64>,
    /// By device: the fault that it was lost with.
    lost: Mutex<Vec<Option<Arc<FaultRecord>>>>,
}

/// When an operation counts as finished, if that is not now, and what has become of it.
pub(super) type End = (Option<Instant>, Result<(), Arc<FaultRecord>>);

impl Limits {
    pub(super) fn new(limit: Option<Duration>, slowdowns: Vec<f64>) -> Self {
        let lost = Mutex::new(vec![None; slowdowns.len()]);
        Limits { limit, slowdowns, lost }
    }

    fn lost(&self) -> MutexGuard<'_, Vec<Option<Arc<FaultRecord>>>> {
        self.lost.lock().expect("nothing panics under this lock")
    }

    /// The limit for an operation, if it has one.
    pub(super) fn of(&self, operation: &Operation) -> Option<Duration> {
        self.limit.filter(|_| operation.command.launches() > 0)
    }

    /// Loses a device by an operation that is overdue. The fault that it is lost with.
    pub(super) fn lose(&self, device: usize, record: impl FnOnce() -> Arc<FaultRecord>) -> Arc<FaultRecord> {
        self.lost()[device].get_or_insert_with(record).clone()
    }

    /// Why a device is lost.
    pub(super) fn loss(&self, device: usize) -> Option<Arc<str>> {
        let record = self.limit.and_then(|_| self.lost()[device].clone());
        record.map(|record| record.text())
    }

    /// The fault of a device that the operation needs, if one is lost.
    fn fault_of(&self, operation: &Operation) -> Option<Arc<FaultRecord>> {
        self.limit?;
        let lost = self.lost();
        // What came from another process is of no device.
        let of_memory =
            |index: usize| lost.get(operation.accesses[index].memory.device().ordinal).cloned().flatten();
        lost[operation.device].clone().or_else(|| (0..operation.accesses.len()).find_map(of_memory))
    }

    /// Carries out an operation, as [`run::run`] does.
    pub(super) fn run(&self, operation: &mut Operation, address: impl Fn(Block) -> NonNull<u8>) -> End {
        if let Some(fault) = self.fault_of(operation) {
            return (None, Err(fault));
        }
        let (device, limit) = (operation.device, self.of(operation));
        let start = (operation.is_timed || limit.is_some()).then(Instant::now);
        let mut outcome = Ok(());
        let end = pace::finish_time(self.slowdowns[device], || outcome = run::run(operation, address));
        let Some(start) = start else { return (end, outcome) };
        let time = end.unwrap_or_else(Instant::now).saturating_duration_since(start);
        operation.spent = operation.is_timed.then(|| Spent::measured(time));
        match limit {
            Some(limit) if time > limit => {
                // It may be known already: a thread that watches has seen it.
                let fault = self.lose(device, || operation.record_fault(overdue(limit)));
                (end.map(|end| end.min(start + limit)), Err(fault))
            }
            _ => (end, outcome),
        }
    }
}
