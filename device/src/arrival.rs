//! Device memory that a network sends from, and receives to, by address.
//!
//! What is sent is a share, so nobody writes it; it goes when the operation that writes it last has ended ([`Account::fence_of`]), and is
//! kept by who sends it until it has gone. What is received to is memory of the pool that nobody has had since ([`Arrival`]): all operations that
//! used it before have ended, as pools promise, and none can use it before it has come. So no stream is asked, on either side.
//!
//! [`Account::fence_of`]: crate::Account

use std::ptr::NonNull;

use crate::account::Account;
use crate::device::Devices;
use crate::kernel::Language;
use crate::memory::MemoryRef;
use crate::processes::Leaving;
use crate::shape::Shape;

/// What arrives leaves the chares of a device this part of it.
const LEFT: u64 = 4;

/// Whose addresses memory of a device has.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The host's.
    Host,
    /// CUDA's: for libraries that know of it.
    Cuda,
}

/// Memory of a device that nobody has had yet, for what comes from another process.
#[doc(hidden)]
#[derive(Debug)]
pub struct Arrival {
    memory: MemoryRef,
}

impl Arrival {
    /// Where it is, until it is dropped.
    pub fn address(&self) -> NonNull<u8> {
        self.memory.block().address()
    }

    /// A share of it: it is never written in place, so others may have it too.
    pub fn share(&self) -> Leaving {
        Leaving::of(&self.memory)
    }

    pub(crate) fn into_memory(self) -> MemoryRef {
        self.memory
    }

    pub(crate) fn memory(&self) -> &MemoryRef {
        &self.memory
    }
}

impl Leaving {
    /// Where it is, and how long, for a network that reaches its device; none of what is another process's, and of nothing.
    pub fn place(&self) -> Option<(NonNull<u8>, usize)> {
        let memory = self.memory();
        let is_there = !memory.is_foreign() && memory.len_bytes() > 0;
        is_there.then(|| (memory.block().address(), memory.len_bytes()))
    }
}

impl Devices {
    /// Whose addresses memory of the devices has; none if it has none that are known outside of them.
    #[doc(hidden)]
    pub fn reach(&self) -> Option<Reach> {
        let facts = &self.get(0).core().facts;
        match facts.language {
            Language::CudaC => Some(Reach::Cuda),
            _ => facts.is_host_memory.then_some(Reach::Host),
        }
    }

    /// Memory for so many bytes from another process, on a device that has addresses; none if there is no room.
    /// None, too, if little is left there: it may wait for long until somebody takes it, and chares of the device need room before that.
    #[doc(hidden)]
    pub fn arrival(&self, ordinal: usize, len_bytes: usize) -> Option<Arrival> {
        let account = Account::courier(self.get(ordinal).core(), "another process");
        Arrival::reserve(&account, Shape::from(len_bytes), 1)
    }
}

impl Arrival {
    /// Memory on the device of an account, as [`Devices::arrival`].
    pub(crate) fn reserve(account: &Account, shape: Shape, elem_bytes: usize) -> Option<Arrival> {
        let len_bytes = shape.len().checked_mul(elem_bytes)?;
        let device = &account.branch().device;
        if device.room_bytes() < device.facts.capacity_bytes / LEFT + len_bytes as u64 {
            return None;
        }
        let (memory, _) = account.branch().reserve_bytes(shape, elem_bytes).ok()?;
        // Nobody pays for it until it is written, and so it is never written in place.
        memory.add_share();
        Some(Arrival { memory })
    }
}
