//! Device memory that goes to another process of the host by being lent: who keeps it, and how long.
//!
//! A message with a share for a process that can open it waits in its lane (`staged`) until what writes the share has ended, by an operation that
//! copies nothing. Then it goes with a *pledge* in the place of the bytes: what the other process needs to open the memory, and a number. From
//! then on the share is kept here, in [`Lent`]. What the memory is in the other process, and why nobody writes it, is said in
//! `device/src/lending.rs`.
//!
//! The receiver owes one note, [`Returned`](super::note::Note::Returned), with that number. It is owed by a token that is made when the frame has come, before anything
//! of it is read, and is told when the token is dropped: when the last handle and the last operation there have let go of the memory and it is closed,
//! or when the message is dropped unread, refused, or cannot be opened. So each share comes back once, as long as both processes live; if one
//! is lost the run ends for all.
//!
//! *Quiescence.* The wait is device work until its waker has posted its message, as for a copy. The message counts from its sending to its taking.
//! The note is no message, and nothing waits for it: memory that comes back late is free late, as in one process after a share was dropped on another PE.
//!
//! *The end.* All device work of a process has ended, and what it had borrowed is closed, before it says that it closes (`device_work::close`, then
//! [`Job::close`](super::Job::close)). It has closed when all others have said so. So when devices are dropped, and slabs go back to the driver, nobody
//! has them open.
//!
//! What is for all PEs is not lent: it is copied once, and goes over the tree.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Weak};

use chare_device::__Leaving as Leaving;
use chare_transport::Rank;
use rustc_hash::FxHashMap;

use super::note::Note;
use crate::process::{Shared, lock};

/// The shares that other processes use.
#[derive(Default)]
pub(super) struct Lent {
    next: AtomicU64,
    /// By number: to whom.
    shares: Mutex<FxHashMap<u64, (Rank, Leaving)>>,
}

impl Lent {
    /// Keeps a share for another process, which knows it by this number.
    pub(super) fn keep(&self, to: Rank, share: Leaving) -> u64 {
        // Relaxed: only the number counts.
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.shares).insert(id, (to, share));
        id
    }

    /// Lets go of what has come back, if it was that process's.
    pub(super) fn take_back(&self, from: Rank, id: u64) {
        let mut shares = lock(&self.shares);
        let share = match shares.get(&id) {
            Some((to, _)) if *to == from => shares.remove(&id),
            _ => None,
        };
        // It may be the last, and its memory goes back then.
        drop(shares);
        drop(share);
    }

    /// Lets go of all, when nobody has anything open any more.
    pub(super) fn clear(&self) {
        let shares = std::mem::take(&mut *lock(&self.shares));
        drop(shares);
    }
}

/// Tells the lender, when it is dropped, that a share is not needed any more.
pub(super) struct Token {
    pub(super) shared: Weak<Shared>,
    pub(super) lender: Rank,
    pub(super) id: u64,
}

impl Drop for Token {
    fn drop(&mut self) {
        let shared = self.shared.upgrade();
        if let Some(job) = shared.as_ref().and_then(|shared| shared.job()) {
            job.tell(self.lender, &Note::Returned(self.id));
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::current;
    use crate::wire::{Beside, Encoder};
    use crate::{Options, Runtime};

    #[test]
    fn a_share_comes_back_once_and_from_whom_it_went_to() {
        let options = Options::default().with_pes(1).with_device("host".parse().expect("a device"));
        let report = Runtime::run(options, async |_: Runtime| {
            let device = current::on_pe("a test", |pe| pe.shared().devices().get(0).clone());
            let account = device.account("me");
            let mut encoder = Encoder::default();
            encoder.put(&account.upload(vec![1.0_f64; 100]).expect("memory")).expect("it is encoded");
            let Some(Beside::Device(leaving)) = encoder.buffers.pop() else { panic!("a share is beside it") };
            let (lent, bytes) = (Lent::default(), device.used_bytes());
            let ids = [1, 2].map(|rank| lent.keep(Rank(rank), leaving.clone()));
            drop(leaving);
            for (rank, id) in [(2, ids[0]), (1, ids[0]), (1, ids[0]), (1, 77)] {
                lent.take_back(Rank(rank), id);
            }
            assert_eq!(device.used_bytes(), bytes, "rank 2 has it still");
            lent.take_back(Rank(2), ids[1]);
            assert_eq!(device.used_bytes(), 0);
        });
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{report}");
    }
}
