//! An account: the stream of one owner on the device that it is bound to, and the memory charged to it.
//!
//! It is a handle: each call asks once where the owner is now (`branch`), so that who keeps one while the owner is moved
//! launches where it is. Copies are in `transfer`.
//!
//! # What a launch costs
//!
//! On an inline host device of native speed a launch is a function call with checks, made for blocks of a few
//! thousand elements. With three buffers and a scalar it does: three loads for where it is, and one
//! for faults to report; per buffer one
//! load and compare for the device and one for shares and spoiled contents; the call through the kernel's
//! function pointer, inside `catch`, which sets and resets a flag of the thread and costs no more until a kernel
//! panics; and it returns a completion that is a tag. No lock, no atomic read-modify-write, no allocation, no clock, no counting.
//! Everything else (other memory, workers, slower devices, a buffer that is shared or spoiled) goes the general way: an
//! [`Operation`] is made and handed to the backend.

use std::fmt;
use std::sync::{Arc, OnceLock};

use crate::args::Args;
use crate::branch::{Branch, Owner};
use crate::buffer::DeviceVec;
use crate::caught::catch;
use crate::completion::{Completion, Prepared};
use crate::device::{Device, DeviceCore};
use crate::error::DeviceError;
use crate::fault::FaultKind;
use crate::host_vec::HostVec;
use crate::kernel::Kernel;
use crate::launch::{Grid, Launch};
use crate::memory::Memory;
use crate::operation::{AccessMode, Command};
use crate::param::{DevicePod, Params};
use crate::shape::Shape;
use crate::usage::{KernelUsage, Usage};

/// The device account of one owner: bound to one device at a time ([`move_to`](Self::move_to)), and to one stream. A cheap clone; all
/// clones are the same account.
///
/// Calls return when the work is *enqueued*; it runs in the order of the calls. Every call that can fail
/// first returns a fault of this account that nobody awaited, if there is one; what it was to do is then not
/// done.
///
/// Buffers and shares on other devices of the set may be passed to all calls. What a launch reads there is copied to this account's device
/// first, in order and at most once for all who use a share on this device; the copy lives as long as the share (and of a buffer that is passed
/// itself, until it is written). What it writes there comes over for good, and is charged to this account.
#[derive(Clone)]
pub struct Account {
    core: Arc<AccountCore>,
}

struct AccountCore {
    owner: Arc<Owner>,
    is_urgent: bool,
    /// By the ordinal of the device.
    branches: Box<[OnceLock<Arc<Branch>>]>,
}

impl Account {
    /// The account of a new owner on this device.
    pub(crate) fn new(device: &Arc<DeviceCore>, label: &str) -> Self {
        let account = Account::courier(device, label);
        account.core.owner.arrive(device);
        account
    }

    /// As `new`, of one that only copies from devices: it is no load that others should keep away from.
    pub(crate) fn courier(device: &Arc<DeviceCore>, label: &str) -> Self {
        let account = Account::of(Owner::new(label, device), false);
        account.branch();
        account
    }

    fn of(owner: Arc<Owner>, is_urgent: bool) -> Self {
        let branches = (0..owner.device_count()).map(|_| OnceLock::new()).collect();
        Account { core: Arc::new(AccountCore { owner, is_urgent, branches }) }
    }

    /// Another account of the same owner, charged to it and moved as this one is, whose work the device prefers to what is not urgent:
    /// for what others wait for, such as the faces of a block. It has a stream of its own: buffers order what the two do.
    #[must_use]
    pub fn urgent(&self) -> Account {
        Account::of(self.core.owner.clone(), true)
    }

    /// What it is at the device that its owner is bound to. A call asks once.
    #[inline(always)]
    pub(crate) fn branch(&self) -> &Arc<Branch> {
        let core = &*self.core;
        let ordinal = core.owner.now();
        match core.branches[ordinal].get() {
            Some(branch) => branch,
            None => self.open_branch(ordinal),
        }
    }

    #[cold]
    #[inline(never)]
    fn open_branch(&self, ordinal: usize) -> &Arc<Branch> {
        let AccountCore { owner, is_urgent, branches } = &*self.core;
        branches[ordinal].get_or_init(|| Branch::at(owner, ordinal, *is_urgent))
    }

    /// The branch for a call, unless there is a fault that nobody awaited.
    #[inline(always)]
    pub(crate) fn checked(&self) -> Result<&Arc<Branch>, DeviceError> {
        let branch = self.branch();
        branch.check()?;
        Ok(branch)
    }

    /// What it is at the device where this memory is.
    pub(crate) fn branch_near(&self, memory: &Memory) -> Result<&Arc<Branch>, DeviceError> {
        let branch = self.branch();
        if branch.is_here(memory) {
            return Ok(branch);
        }
        branch.check_same_set(memory)?;
        let AccountCore { owner, is_urgent, branches } = &*self.core;
        Ok(branches[memory.device().ordinal].get_or_init(|| Branch::near(owner, memory, *is_urgent)))
    }

    /// The device this account is bound to.
    pub fn device(&self) -> Device {
        Device::from_core(&self.branch().device)
    }

    /// Binds this account, and all others of its owner, to another device of the set. Does not wait.
    ///
    /// What has been enqueued ends where it is (a [`fence`](Self::fence) asked for before says when). What is enqueued from now on goes to the other device, and buffers follow: each comes over when
    /// it is first written, by a copy that is ordered after all work on it, or with no copy if it is overwritten; memory goes back to the old device
    /// when the last operation and the last share there have ended. What is only read is copied once, and stays on the old device too
    /// until it is written, dropped or [brought](Self::bring) over. What is read by the host is read where it is.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] if the device has not enough room now for all that the owner holds on others, beside what others hold
    /// elsewhere that have moved there; [`DeviceError::Lost`]. The account stays on its device then, and nothing has changed. (Room is not kept
    /// against what is allocated there meanwhile: a launch that finds none later fails and leaves its buffers where they are, and the account
    /// may go back.)
    ///
    /// # Panics
    ///
    /// If the device is of another set ([`Devices`](crate::Devices)).
    pub fn move_to(&self, device: &Device) -> Result<(), DeviceError> {
        let core = device.core();
        assert!(
            Arc::ptr_eq(&core.backend, &self.branch().device.backend),
            "{} cannot move to {}, which is of another set of devices",
            self.label(),
            device.name()
        );
        self.core.owner.move_to(core)
    }

    /// What messages call its owner.
    pub fn label(&self) -> &str {
        self.core.owner.label()
    }

    /// The bytes charged to this account, on all devices, in size classes of the pool: its buffers, shares of them that
    /// others still hold, and freed memory that an operation still uses.
    pub fn used_bytes(&self) -> u64 {
        self.core.owner.used_bytes()
    }

    /// What its owner has used devices for, by this account and others; `None` if no records are kept
    /// ([`DeviceSpec::with_records`](crate::DeviceSpec::with_records)). An operation counts when it has ended, before its waiter is woken; a
    /// copy when it is submitted.
    pub fn usage(&self) -> Option<Usage> {
        self.core.owner.usage()
    }

    /// What each kernel has had of this, the one with the most time first; `None` if no records are kept.
    pub fn usage_by_kernel(&self) -> Option<Vec<KernelUsage>> {
        self.core.owner.usage_by_kernel()
    }

    /// A buffer of zeros. `shape` is a length or an array of extents.
    ///
    /// Does not wait. The memory of a buffer that has been dropped comes back when the last operation on it has ended and somebody has
    /// looked; an allocation that finds no room looks once. So a loop that allocates more than half of the device, launches and
    /// drops runs out while the first launch still runs: await its [`Completion`] (or that of a [`fence`](Self::fence))
    /// before, or use one buffer again.
    ///
    /// # Errors
    ///
    /// [`DeviceError::OutOfMemory`] with what each owner holds; a fault nobody awaited.
    pub fn alloc<T: DevicePod>(&self, shape: impl Into<Shape>) -> Result<DeviceVec<T>, DeviceError> {
        let branch = self.checked()?;
        let (memory, is_zeroed) = branch.reserve::<T>(shape.into())?;
        if !is_zeroed {
            branch.zero(&memory)?;
        }
        Ok(DeviceVec::new(memory))
    }

    /// A buffer with the elements of `values`.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    pub fn upload<T: DevicePod>(&self, values: Vec<T>) -> Result<DeviceVec<T>, DeviceError> {
        self.from_slice(&values)
    }

    /// A buffer with a copy of `values`, which is not used after the return.
    ///
    /// # Errors
    ///
    /// As for [`alloc`](Self::alloc).
    #[allow(clippy::wrong_self_convention)]
    pub fn from_slice<T: DevicePod>(&self, values: &[T]) -> Result<DeviceVec<T>, DeviceError> {
        self.checked()?.filled(Shape::from(values.len()), values)
    }

    /// A buffer with the elements and the shape of an array in standard (row-major, contiguous) layout.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Layout`] for another layout, [`DeviceError::Axes`] for more than six axes; else as for
    /// [`alloc`](Self::alloc).
    #[cfg(feature = "ndarray")]
    #[allow(clippy::wrong_self_convention)]
    pub fn from_array<T, S, D>(
        &self,
        array: &ndarray::ArrayBase<S, D, T>,
    ) -> Result<DeviceVec<T>, DeviceError>
    where
        T: DevicePod,
        S: ndarray::Data<Elem = T>,
        D: ndarray::Dimension,
    {
        let branch = self.checked()?;
        let values = array.as_slice().ok_or(DeviceError::Layout)?;
        branch.filled(Shape::try_from(array.shape())?, values)
    }

    /// Enqueues a kernel over `grid` elements. `args` is a tuple with one [`Arg`](crate::Arg) per parameter.
    ///
    /// The arguments are taken for the call only. A buffer that is written while shares of it live gets other
    /// memory first (see [`DeviceVec::share`]). A kernel that panics is a fault: the completion returns it,
    /// what the kernel was to write is *spoiled*, and every later operation that reads it fails with the same
    /// fault, until a kernel overwrites it ([`Out`](crate::Out)). Other launches of the account go on (on
    /// host devices; a GPU may refuse all).
    ///
    /// # Errors
    ///
    /// [`DeviceError::NoSource`] if the kernel is not written in what the device wants, [`DeviceError::Kernel`] if it cannot be
    /// compiled for it, [`DeviceError::OtherDevices`], [`DeviceError::OutOfMemory`] for a shared buffer that is written and for what comes
    /// from another device, a fault nobody awaited, [`DeviceError::Closed`]. The kernel is not enqueued then, and except after `Closed` all
    /// buffers are as before.
    #[inline]
    pub fn launch<A, X>(
        &self,
        kernel: &Kernel<A>,
        grid: impl Into<Grid>,
        args: X,
    ) -> Result<Completion<()>, DeviceError>
    where
        A: Params,
        X: Args<A>,
    {
        let branch = self.checked()?;
        let launch = Launch::new(grid.into());
        let runs_at_once = branch.device.facts.runs_at_once;
        if !runs_at_once {
            branch.check_source(kernel)?;
        }
        let mut bound = args.bind();
        X::check(&mut bound, branch)?;
        let raw = X::commit(&mut bound);
        let mut plain = runs_at_once;
        X::visit(&bound, &mut |used| {
            plain &= !used.memory.is_poisoned() & used.copy_from.is_none();
        });
        if !plain {
            let command = Command::Launch { code: kernel.code(), launch };
            return branch.enqueue::<A, X>(kernel.name(), command, &bound, raw);
        }
        let source = kernel.rust();
        // SAFETY: the borrows in `bound` keep the memory alive during the call. What is written is borrowed
        // by `&mut` and not shared (`check`), so nobody else uses it; what is read can only be read by others.
        // Inline devices have no operations in flight.
        let outcome = catch(|| unsafe { source(&launch, A::views(raw)) });
        match outcome {
            Ok(()) => Ok(Completion::ready(())),
            Err(caught) => {
                let fault = branch.record_fault(FaultKind::Kernel, kernel.name(), caught);
                X::visit(&bound, &mut |used| {
                    if used.mode != AccessMode::Read {
                        used.memory.set_poison(Some(fault.clone()));
                    }
                });
                Ok(Completion::faulted(fault))
            }
        }
    }

    /// A vector of zeros in host memory that devices copy from and to without a detour; see [`HostVec`].
    ///
    /// # Errors
    ///
    /// [`DeviceError::HostMemory`] if the machine has not so much.
    pub fn host_vec<T: DevicePod>(&self, len: usize) -> Result<HostVec<T>, DeviceError> {
        HostVec::zeros(&self.branch().device.host_pool, len)
            .ok_or(DeviceError::HostMemory { len, elem_bytes: size_of::<T>() })
    }

    /// A vector of the program's as one that devices copy from and to without a detour: its memory is pinned where it is, by the driver that
    /// wants that, and not copied. Takes the driver a while, so it is for memory that is used often. [`HostVec::into_vec`] gives it back.
    ///
    /// # Errors
    ///
    /// [`DeviceError::Pin`] if the driver refuses, with its words. The vector is gone then.
    pub fn host_vec_of<T: DevicePod>(&self, values: Vec<T>) -> Result<HostVec<T>, DeviceError> {
        let len = values.len();
        let refused = |said| DeviceError::Pin { len, elem_bytes: size_of::<T>(), said };
        HostVec::of(&self.branch().device.host_pool, values).map_err(refused)
    }

    /// A completion of everything enqueued so far on the device that the account is bound to.
    ///
    /// # Errors
    ///
    /// A fault nobody awaited, [`DeviceError::Closed`].
    pub fn fence(&self) -> Result<Completion<()>, DeviceError> {
        let branch = self.checked()?;
        branch.submit("fence", branch.operation(), Prepared::nothing())
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account")
            .field("label", &self.label())
            .field("device", &self.branch().device.facts.name)
            .finish()
    }
}
