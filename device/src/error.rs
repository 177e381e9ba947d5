//! The one error type of device calls and completions.

use std::fmt;
use std::sync::Arc;

use crate::fault::Fault;
use crate::kernel::Language;
use crate::spec::SpecError;

/// Why a device call or a completion failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The device specification is wrong, or names a device that is not here.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The device has not enough memory left.
    #[error(transparent)]
    OutOfMemory(Box<OutOfMemory>),
    /// A kernel failed: this one, one whose output it depends on, or an earlier one that nobody awaited.
    #[error("{0}")]
    Fault(Fault),
    /// A buffer belongs to another set of devices ([`Devices`](crate::Devices)), such as another run's: nothing orders
    /// the work of one set after that of another.
    #[error(
        "a buffer of {buffer_owner} on {buffer} was used by {owner}, whose devices are others (another run's); download it \
         with its own, and upload the values here"
    )]
    OtherDevices {
        /// The device that holds the buffer.
        buffer: Arc<str>,
        /// The label of the account that holds the buffer.
        buffer_owner: Arc<str>,
        /// The label of the account it was used with.
        owner: Arc<str>,
    },
    /// The machine has not the host memory for a [`HostVec`](crate::HostVec).
    #[error("there is no host memory for {len} elements of {elem_bytes} bytes that devices can copy from")]
    HostMemory {
        /// Elements asked for.
        len: usize,
        /// Bytes of each.
        elem_bytes: usize,
    },
    /// The driver does not pin a vector of the program's.
    #[error(
        "a vector of {len} elements of {elem_bytes} bytes cannot be pinned where it is: {said}; copy it into one of `Account::host_vec`"
    )]
    Pin {
        /// Elements of the vector.
        len: usize,
        /// Bytes of each.
        elem_bytes: usize,
        /// What the driver said.
        said: String,
    },
    /// A [`HostVec`](crate::HostVec) belongs to another set of devices, such as another run's.
    #[error(
        "a host vector that belongs to other devices (another run's) was used by {owner}; copy its values to one of its own"
    )]
    OtherHostMemory {
        /// The label of the account it was used with.
        owner: Arc<str>,
    },
    /// The requested shape has another number of elements than the buffer.
    #[error("a buffer of {len} elements cannot take a shape of {wanted}")]
    Shape {
        /// Elements of the buffer.
        len: usize,
        /// Elements asked for.
        wanted: usize,
    },
    /// An array to upload is not contiguous in row-major order.
    #[error(
        "an array must be in standard (row-major, contiguous) layout to be uploaded; use `as_standard_layout()`"
    )]
    Layout,
    /// A buffer was asked for with more axes than there can be.
    #[error(transparent)]
    Axes(#[from] crate::shape::TooManyAxes),
    /// A kernel has no source for the device that it was launched on.
    #[error(
        "kernel `{kernel}` has no {language} source, which its device wants; it is written in {}; write one, or run with \
         `--device host`",
        has.iter().map(Language::to_string).collect::<Vec<_>>().join(", ")
    )]
    NoSource {
        /// The kernel.
        kernel: &'static str,
        /// What the device wants.
        language: Language,
        /// What there is.
        has: Vec<Language>,
    },
    /// A kernel cannot be compiled for the device that it was launched on, or loaded there.
    #[error("{message}")]
    Kernel {
        /// The kernel's name, and what the compiler said, with line and caret.
        message: Arc<str>,
    },
    /// Code that gives work to a CUDA stream was to be called on a device that has none.
    #[error(
        "`{name}` of {owner} is for CUDA, and {device} is no CUDA device; launch a kernel there, or run with `--device cuda`"
    )]
    NotCuda {
        /// The device.
        device: Arc<str>,
        /// The label of the account.
        owner: Arc<str>,
        /// What it is called.
        name: &'static str,
    },
    /// A graph was recorded that does not what it declares.
    #[error("graph `{graph}` {problem}")]
    Graph {
        /// What it was to be called.
        graph: &'static str,
        /// What is wrong, and what can be done.
        problem: String,
    },
    /// The device is lost: nothing can be done with it any more by this process. Others go on.
    #[error("{message}")]
    Lost {
        /// The device, and what it was lost by.
        message: Arc<str>,
    },
    /// A buffer was asked for that is larger than the device allows.
    #[error(
        "{owner} asked for a buffer of {bytes} bytes, and {device} has at most {limit_bytes} bytes in one; cut it into several"
    )]
    TooLarge {
        /// The device.
        device: Arc<str>,
        /// The label of the account that asked.
        owner: Arc<str>,
        /// What it asked for.
        bytes: u64,
        /// The largest buffer that the device can have.
        limit_bytes: u64,
    },
    /// There is no device of the kind that was asked for, or not the one that was.
    #[error("no {what}: {reason}")]
    NotFound {
        /// The kind.
        what: &'static str,
        /// Why, and what can be done.
        reason: String,
    },
    /// The devices have been closed.
    #[error("{device} has been closed")]
    Closed {
        /// The device.
        device: Arc<str>,
    },
    /// The worker threads of the devices could not be started.
    #[error("the worker threads of the devices did not start: {message}")]
    Workers {
        /// What the system said.
        message: String,
    },
}

/// An allocation that did not fit, and who holds the memory.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct OutOfMemory {
    /// The device.
    pub device: Arc<str>,
    /// The label of the account that asked.
    pub owner: Arc<str>,
    /// What it asked for, rounded up to the pool's size class.
    pub requested_bytes: u64,
    /// The capacity of the device.
    pub capacity_bytes: u64,
    /// What was in use.
    pub used_bytes: u64,
    /// What is still to come of owners that have moved to the device, if the owner was to move there.
    pub awaited_bytes: u64,
    /// Bytes by owner, largest first.
    pub owners: Vec<(Arc<str>, u64)>,
    /// What the driver has left, if that is what did not suffice; `None` if it is the capacity, which `mem=` gives.
    pub driver: Option<DriverMemory>,
}

/// The memory of a device, as its driver sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverMemory {
    /// What nobody has taken.
    pub free_bytes: u64,
    /// All that the device has.
    pub total_bytes: u64,
    /// What has been taken for buffers of this set of devices, which may not fill it.
    pub taken_bytes: u64,
}

/// How many owners the message of an [`OutOfMemory`] lists.
const LISTED_OWNERS: usize = 8;

impl fmt::Display for OutOfMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OutOfMemory { device, owner, requested_bytes, awaited_bytes, capacity_bytes, used_bytes, .. } =
            self;
        write!(f, "{device} is out of memory: {owner} asked for {requested_bytes} bytes, ")?;
        if *awaited_bytes > 0 {
            write!(f, "beside {awaited_bytes} that are still to come of others that have moved there, ")?;
        }
        match (&self.driver, *capacity_bytes) {
            (Some(driver), _) => {
                driver.describe(f, *requested_bytes, *used_bytes)?;
                self.list_owners(f)?;
                write!(
                    f,
                    "; drop buffers, end other programs on the device (`nvidia-smi` lists them), or choose another device with \
                     `--device`"
                )
            }
            (None, u64::MAX) => {
                write!(f, "{used_bytes} are in use, and there is no more; held by")?;
                self.list_owners(f)?;
                write!(f, "; drop buffers")
            }
            (None, _) => {
                write!(f, "{used_bytes} of {capacity_bytes} are in use; held by")?;
                self.list_owners(f)?;
                write!(f, "; drop buffers, or give the device more with `mem=`")
            }
        }
    }
}

impl DriverMemory {
    /// Who has how much of it.
    fn describe(&self, f: &mut fmt::Formatter<'_>, requested_bytes: u64, used_bytes: u64) -> fmt::Result {
        let DriverMemory { free_bytes, total_bytes, taken_bytes } = *self;
        write!(f, "and of {total_bytes} the driver has {free_bytes} free")?;
        if free_bytes >= requested_bytes {
            write!(f, ", in pieces too small")?;
        }
        let others = total_bytes.saturating_sub(free_bytes).saturating_sub(taken_bytes);
        let between = taken_bytes.saturating_sub(used_bytes);
        write!(
            f,
            "; others have {others}, and buffers here {used_bytes} with {between} between them; held by"
        )
    }
}

impl OutOfMemory {
    fn list_owners(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owners = &self.owners;
        if owners.is_empty() {
            write!(f, " nobody")?;
        }
        for (index, (label, bytes)) in owners.iter().take(LISTED_OWNERS).enumerate() {
            write!(f, "{} {label}: {bytes}", if index == 0 { "" } else { "," })?;
        }
        if owners.len() > LISTED_OWNERS {
            let rest: u64 = owners[LISTED_OWNERS..].iter().map(|(_, bytes)| bytes).sum();
            write!(f, ", {} more: {rest}", owners.len() - LISTED_OWNERS)?;
        }
        Ok(())
    }
}

impl std::error::Error for OutOfMemory {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_what_is_short_and_what_helps() {
        let mut error = OutOfMemory {
            device: "gpu".into(),
            owner: "a".into(),
            requested_bytes: 60,
            capacity_bytes: u64::MAX,
            used_bytes: 0,
            awaited_bytes: 0,
            owners: Vec::new(),
            driver: None,
        };
        let none = "gpu is out of memory: a asked for 60 bytes, 0 are in use, and there is no more; held by nobody; drop buffers";
        assert_eq!(error.to_string(), none);
        (error.capacity_bytes, error.used_bytes) = (100, 49);
        error.owners = (0..10).map(|index| (format!("o{index}").into(), 10 - index)).collect();
        let owners = "held by o0: 10, o1: 9, o2: 8, o3: 7, o4: 6, o5: 5, o6: 4, o7: 3, 2 more: 3";
        let capped = "gpu is out of memory: a asked for 60 bytes, 49 of 100 are in use";
        let more = "drop buffers, or give the device more with `mem=`";
        assert_eq!(error.to_string(), format!("{capped}; {owners}; {more}"));
        error.awaited_bytes = 7;
        let beside =
            capped.replace("49", "beside 7 that are still to come of others that have moved there, 49");
        assert_eq!(error.to_string(), format!("{beside}; {owners}; {more}"));
        error.awaited_bytes = 0;
        let others = "drop buffers, end other programs on the device (`nvidia-smi` lists them), or choose another device with \
                      `--device`";
        for (free_bytes, words) in [
            (59, "59 free; others have 991, and buffers here 49 with 1 between them"),
            (60, "60 free, in pieces too small; others have 990, and buffers here 49 with 1 between them"),
        ] {
            error.driver = Some(DriverMemory { free_bytes, total_bytes: 1100, taken_bytes: 50 });
            let wanted = format!(
                "gpu is out of memory: a asked for 60 bytes, and of 1100 the driver has {words}; {owners}; {others}"
            );
            assert_eq!(error.to_string(), wanted);
        }
    }
}
