//! The face of a backend: memory by name, operations as data.
//!
//! Everything above this line (accounts, snapshots, poisoning, completions) is the same for every backend; everything
//! below knows one kind of device. Nothing above reads what a [`Block`] or an [`Event`] means. `device/README.md` says
//! who orders what, and how the end of an operation and a fault travel.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::Arc;
use std::thread::{Thread, ThreadId};

use crate::error::{DeviceError, DriverMemory};
use crate::event::StreamKey;
use crate::kernel::{Code, Language};
use crate::lending::Exported;
use crate::operation::Operation;
use crate::sleepers::{Pending, Rest};

/// The devices of one kind.
///
/// # What a backend promises
///
/// * An operation that it has accepted ends: it is [left](Operation::leave) once, and its completion is then
///   [published](crate::completion::Cell::publish), whatever becomes of the device.
/// * An operation takes effect after those that [`Operation::order`] has named, and its snapshot copies come first.
/// * What an operation holds (memory, host memory, completion) is kept until it has ended.
/// * No call blocks on a device, but `close`.
pub(crate) trait Backend: Send + Sync {
    /// New memory of `bytes` (a multiple of 256) bytes on a device, aligned to 256; `None` if there is none.
    fn allocate(&self, device: usize, bytes: usize) -> Option<Fresh>;

    /// Takes memory back.
    ///
    /// # Safety
    ///
    /// `block` came from [`allocate`](Self::allocate) of this backend with the same `device` and `bytes`, and nobody
    /// uses it.
    unsafe fn release(&self, device: usize, block: Block, bytes: usize);

    /// A stream for one account, or for several: operations on one stream run in the order of their submission. Where it
    /// can, the device prefers what is ready on an urgent stream. Blocks no longer than an allocation.
    fn open_stream(&self, device: usize, is_urgent: bool) -> StreamKey;

    /// Nothing more is submitted to the stream by the account that [`open_stream`](Self::open_stream) has given it to, and all
    /// that was has ended.
    fn close_stream(&self, stream: StreamKey);

    /// Zeroed host memory of `bytes` (a multiple of 256) bytes, aligned to 256, that operations copy from and to; `None` if
    /// there is none.
    fn allocate_pinned(&self, bytes: usize) -> Option<NonNull<u8>>;

    /// Takes host memory back.
    ///
    /// # Safety
    ///
    /// `address` came from [`allocate_pinned`](Self::allocate_pinned) of this backend with the same `bytes`, and nobody
    /// uses it.
    unsafe fn release_pinned(&self, address: NonNull<u8>, bytes: usize);

    /// Lets operations copy from and to host memory of others, from [`pin`](Self::pin) to [`unpin`](Self::unpin); or says why they cannot.
    fn pin(&self, _address: NonNull<u8>, _bytes: usize) -> Result<(), String> {
        Ok(())
    }

    /// Takes it back.
    ///
    /// # Safety
    ///
    /// `address` was given to [`pin`](Self::pin), which has succeeded, the memory is still there, and no operation uses it.
    unsafe fn unpin(&self, _address: NonNull<u8>) {}

    /// Sees to it that a kernel can be launched on a device, where something can be wrong with it that the caller should know
    /// before anything is enqueued.
    fn prepare(&self, _device: usize, _code: &Code) -> Result<(), DeviceError> {
        Ok(())
    }

    /// Whether kernels of a device may touch the memory of another where it is.
    fn reaches(&self, _device: usize, _other: usize) -> bool {
        false
    }

    /// Why a device is lost: nothing can be done with it any more. `None` if it is not.
    fn loss(&self, _device: usize) -> Option<Arc<str>> {
        None
    }

    /// Whether a copy from one device to another goes through memory of the host.
    fn is_staged(&self, _from: usize, _to: usize) -> bool {
        false
    }

    /// Names memory for other processes of the machine, or says why it cannot. It stays with the driver from now on, until the devices are closed.
    fn export(&self, _device: usize, _block: Block) -> Result<Exported, String> {
        Err("it is of a kind of device that lends no memory to other processes".to_owned())
    }

    /// Opens memory of another process, on the device that it is of; or says why it cannot.
    fn borrow(&self, _exported: &Exported) -> Result<(usize, Block), String> {
        Err("devices of this kind borrow no memory of other processes".to_owned())
    }

    /// Takes back what [`borrow`](Self::borrow) has opened, once for each time. Nobody uses it.
    fn close_borrowed(&self, _block: Block) {}

    /// Closes whatever it has opened for that, and of which nothing is borrowed any more.
    fn close_unused_borrowed(&self) {}

    /// Takes back all that it has opened, unless there are operations that have not ended. Nothing more is submitted then.
    fn close_all_borrowed(&self) {}

    /// What the driver of a device says of its memory; `None` where no driver deals it out to several programs, or says nothing.
    fn driver_memory(&self, _device: usize) -> Option<DriverMemory> {
        None
    }

    /// Accepts an operation. If it is refused, nothing has been done.
    fn submit(&self, operation: Box<Operation>) -> Result<(), DeviceError>;

    /// Looks for operations that have finished, and ends them, on the calling thread. False if that is done without:
    /// then nobody needs to look.
    fn poll(&self) -> bool;

    /// How often somebody has looked while something was pending. Zero where nobody needs to.
    fn looks(&self) -> u64 {
        0
    }

    /// A thread is about to sleep: how long it may. It is added to those that are woken when something may have ended, until
    /// [`after_park`](Self::after_park). Ends nothing. To be overridden where somebody needs to look.
    fn before_park(&self, _sleeper: &Thread) -> Rest {
        Rest::Unlimited
    }

    /// The thread is awake.
    fn after_park(&self, _sleeper: ThreadId) {}

    /// Operations submitted whose completions have not all been published; `None` where there never is one.
    fn pending(&self) -> Option<&Pending>;

    /// Takes nothing more and begins nothing more of what has been submitted.
    fn abandon(&self);

    /// Finishes what has been submitted, then stops.
    fn close(&self);
}

/// Names a piece of device memory. What the word means is its backend's: an address on host devices and on CUDA, the
/// number of a buffer elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block(NonNull<()>);

// SAFETY: a name is a word. Whoever makes an address of it answers for its use.
unsafe impl Send for Block {}
// SAFETY: as above.
unsafe impl Sync for Block {}

impl Block {
    /// The memory at an address.
    pub(crate) fn at(address: NonNull<u8>) -> Self {
        Block(address.cast())
    }

    /// The memory with a number, which is not zero.
    pub(crate) fn numbered(number: NonZeroUsize) -> Self {
        Block(NonNull::without_provenance(number))
    }

    /// The address, or the number as one: whichever it has been named by.
    #[inline(always)]
    pub(crate) fn address(self) -> NonNull<u8> {
        self.0.cast()
    }
}

/// New memory.
pub(crate) struct Fresh {
    pub(crate) block: Block,
    /// Whether it is all zeros; else its contents are unspecified.
    pub(crate) is_zeroed: bool,
}

/// The devices that a backend has opened.
pub(crate) struct Opened {
    pub(crate) backend: Arc<dyn Backend>,
    /// By ordinal; at least one.
    pub(crate) devices: Vec<Facts>,
}

/// What the rest of the crate knows of a device.
pub(crate) struct Facts {
    pub(crate) name: Arc<str>,
    pub(crate) uuid: String,
    pub(crate) speed: f64,
    /// What a GPU is, for people.
    pub(crate) model: Option<String>,
    pub(crate) capacity_bytes: u64,
    /// The most that one allocation may have.
    pub(crate) max_buffer_bytes: u64,
    /// What its kernels are written in.
    pub(crate) language: Language,
    /// Whether its memory is named by addresses that this process may use, as long as no operation does.
    pub(crate) is_host_memory: bool,
    /// Whether an operation may simply be done by the thread that submits it, when nothing is in its way. Only of host memory.
    pub(crate) runs_at_once: bool,
}
