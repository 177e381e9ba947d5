//! Device memory that another process of the machine uses where it is.
//!
//! The process that has it *lends* it: it names it ([`Offer`]), and keeps a share of it for as long as the other one uses it. There it
//! is *borrowed*: memory of the device with the same UUID, which that process has opened too, at an address of its own. It is
//! ordinary memory then. What runs there reads it in place, in stream order, what runs on another device makes a twin of it by a copy, the host
//! reads it, a fault spoils what depends on it; and no operation lets go of it before it has ended.
//!
//! *Nobody writes it.* The lender's share is a snapshot: its owner gets other memory when it writes. In the borrowing process the memory has one
//! share more than there are handles, the lender's, so it never counts as one handle's own, and whoever writes a buffer that came so gets memory
//! of its own, by the rule for shares (`args`). So neither process waits for the other's streams, whose events it could not see.
//!
//! *What has been written before* is there if the lender names it when the operation that writes it last has ended, as a host has found out
//! ([`Account::fence_of`]): everything that is submitted later, by whichever process, comes after.
//!
//! *The end.* When the last handle and the last operation of the borrower have let go, the memory is closed there, and then the token is
//! dropped that came with it: that tells the lender (`core/src/job/lending.rs`). A slab that has been lent is kept by the lender until its devices are closed
//! (`cuda/memory`), so a token that comes late frees nothing under anybody. Before a process closes its devices the others must have closed what they
//! had borrowed ([`Devices::close_borrowed`]): a driver promises nothing about memory that is freed while others have it open.
//!
//! Nobody pays for what is borrowed where it is borrowed, until it is written or copied.

use std::any::Any;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::account::Account;
use crate::backend::{Backend, Block};
use crate::buffer::DeviceSlice;
use crate::completion::{Completion, Prepared};
use crate::device::Devices;
use crate::error::DeviceError;
use crate::operation::{AccessMode, Command};
use crate::processes::{Come, Leaving};
use crate::shape::Shape;

/// What the driver of a device calls a piece of its memory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exported {
    /// The UUID of the device.
    pub(crate) uuid: [u8; 16],
    /// The name of the slab that it is in, in halves: serde knows no longer arrays.
    pub(crate) handle: [[u8; 32]; 2],
    pub(crate) offset_bytes: u64,
    pub(crate) len_bytes: u64,
}

/// What another process of the machine needs to use memory of this one.
#[doc(hidden)]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    exported: Exported,
    /// How much of it is contents.
    len_bytes: u64,
}

/// Memory of another process, open here while this lives.
pub(crate) struct Borrowed {
    backend: Arc<dyn Backend>,
    block: Block,
    /// Dropped when it has been closed.
    _token: Box<dyn Any + Send + Sync>,
}

impl Borrowed {
    pub(crate) fn block(&self) -> Block {
        self.block
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.backend.close_borrowed(self.block);
    }
}

/// Memory of a device with known contents, for other processes to try whether they can use what this one lends.
#[doc(hidden)]
#[derive(Debug)]
pub struct Sample {
    _kept: Leaving,
    offer: Offer,
    word: u32,
}

impl Sample {
    /// What they are told: what to open, and what must be there.
    pub fn told(&self) -> (Offer, u32) {
        (self.offer.clone(), self.word)
    }
}

impl Leaving {
    /// Memory that another process lends, of which nobody knows what it holds. If it cannot be opened, it is spoiled.
    pub fn borrowed(devices: &Devices, offer: &Offer, token: Box<dyn Any + Send + Sync>) -> Leaving {
        let share: DeviceSlice<u8> =
            Come::borrowed(devices, offer, token).into_share(Shape::from(offer.len_bytes as usize));
        Leaving::of(share.memory())
    }

    /// What another process needs to use it where it is, when what writes it has ended.
    ///
    /// # Errors
    /// If the device, or its driver, cannot lend it; or if this process has not got it itself.
    pub fn offer(&self) -> Result<Offer, String> {
        let memory = self.memory();
        if memory.is_foreign() {
            return Err("it is another process's".to_owned());
        }
        let device = memory.device();
        let exported = device.backend.export(device.ordinal, memory.block())?;
        Ok(Offer { exported, len_bytes: memory.len_bytes() as u64 })
    }

    /// The device that it is on, as other processes know it.
    pub fn uuid(&self) -> &str {
        &self.memory().device().facts.uuid
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.memory().len_bytes() == 0
    }
}

impl Account {
    /// Ends when what has been enqueued to write the memory has ended; fails if it has been spoiled.
    ///
    /// # Errors
    /// As for [`download`](Self::download).
    #[doc(hidden)]
    pub fn fence_of(&self, leaving: &Leaving) -> Result<Completion<()>, DeviceError> {
        let branch = self.branch_near(leaving.memory())?;
        let operation = branch.operation_on(leaving.memory(), AccessMode::Read, Command::Fence);
        branch.submit("fence", operation, Prepared::nothing())
    }
}

impl Come {
    /// Memory that another process lends these devices. The token is dropped when it is needed no more. If it cannot be opened, it is
    /// spoiled.
    #[doc(hidden)]
    pub fn borrowed(devices: &Devices, offer: &Offer, token: Box<dyn Any + Send + Sync>) -> Come {
        let opened = if offer.len_bytes <= offer.exported.len_bytes {
            devices.shared_backend().borrow(&offer.exported)
        } else {
            Err("it is shorter than its contents".to_owned())
        };
        match opened {
            Ok((ordinal, block)) => {
                let borrowed = Borrowed { backend: devices.shared_backend().clone(), block, _token: token };
                Come::of_borrowed(devices, ordinal, offer.len_bytes as usize, borrowed)
            }
            Err(why) => {
                let why = format!(
                    "memory of another process cannot be opened: {why}; `--device-path staged` goes without"
                );
                Come::spoiled(devices, why, false)
            }
        }
    }
}

impl Devices {
    /// A sample of the memory of a device. Waits for the device.
    ///
    /// # Errors
    /// Why other processes cannot use memory of it.
    #[doc(hidden)]
    pub fn sample(&self, ordinal: usize) -> Result<Sample, String> {
        // Another one for each process and device: what is left of an earlier sample must not pass.
        let word = std::process::id() ^ ((ordinal as u32 + 1) << 24);
        let leaving = self.sample_of(ordinal, word)?;
        Ok(Sample { offer: leaving.offer()?, word, _kept: leaving })
    }

    /// A word in memory of a device, which has been written. Waits for the device.
    ///
    /// # Errors
    /// Why there is none.
    #[doc(hidden)]
    pub fn sample_of(&self, ordinal: usize, word: u32) -> Result<Leaving, String> {
        let said = |error: DeviceError| error.to_string();
        let account = Account::courier(self.get(ordinal).core(), "a sample for other processes");
        let leaving = Leaving::of(account.upload(vec![word]).map_err(said)?.memory());
        account.fence_of(&leaving).and_then(Completion::wait).map_err(said)?;
        Ok(leaving)
    }

    /// The word that has come from another process. Waits for the device that it is on.
    ///
    /// # Errors
    /// Why it cannot be read.
    #[doc(hidden)]
    pub fn word_of(&self, come: Come) -> Result<u32, String> {
        let share: DeviceSlice<u32> = come.into_share(Shape::from(1));
        let account = Account::courier(share.memory().device(), "a sample of another process");
        let found = account.download(&share).and_then(Completion::wait).map_err(|error| error.to_string())?;
        Ok(found[0])
    }

    /// Tries whether memory of another process can be used, of which this is a sample. Nothing stays open.
    ///
    /// # Errors
    /// Why it cannot.
    #[doc(hidden)]
    pub fn try_sample(&self, sample: &(Offer, u32)) -> Result<(), String> {
        let outcome = self.read_sample(sample);
        self.backend().close_unused_borrowed();
        outcome
    }

    fn read_sample(&self, (offer, word): &(Offer, u32)) -> Result<(), String> {
        let (ordinal, block) = self.shared_backend().borrow(&offer.exported)?;
        let borrowed = Borrowed { backend: self.shared_backend().clone(), block, _token: Box::new(()) };
        let come = Come::of_borrowed(self, ordinal, size_of::<u32>(), borrowed);
        if self.word_of(come)? == *word { Ok(()) } else { Err("other contents are there".to_owned()) }
    }

    /// Closes what is open of other processes: when all work has ended, and before those close their devices. What was borrowed cannot be used
    /// any more then.
    #[doc(hidden)]
    pub fn close_borrowed(&self) {
        self.backend().close_all_borrowed();
    }
}
