//! Device memory: host memory that is reached by device addresses only.
//!
//! A device address is the host address plus [`DEVICE`], which no host address has: so the host cannot read device memory
//! by accident, nor a kernel the host's. Each allocation is a file in memory, which another process can map: that is what
//! an IPC handle names. Who has it open holds a shared lock on the file, so that its owner can tell.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd};
use std::ptr::NonNull;

use crate::code::Code;

/// Added to host addresses. Addresses of this size are not canonical on the host.
const DEVICE: u64 = 0x2000_0000_0000_0000;

/// What fresh memory holds: as floating-point numbers of either size, it is absurd.
const GARBAGE: u8 = 0xA5;

/// One allocation.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) device: usize,
    pub(crate) len_bytes: u64,
    host: NonNull<u8>,
    file: File,
    /// How often an imported allocation is open here, under which handle.
    pub(crate) imported: Option<(u32, [u8; 64])>,
}

// SAFETY: the host address is that of a shared mapping owned by this value; who touches it when is up to the streams.
unsafe impl Send for Allocation {}

impl Allocation {
    fn map(device: usize, len_bytes: u64, file: File) -> Result<Allocation, Code> {
        let len = usize::try_from(len_bytes).map_err(|_| Code::OUT_OF_MEMORY)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new shared mapping at an address of the system's choice.
        let host = unsafe {
            libc::mmap(std::ptr::null_mut(), len, protection, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if host == libc::MAP_FAILED {
            return Err(Code::OUT_OF_MEMORY);
        }
        let host = NonNull::new(host.cast()).ok_or(Code::OUT_OF_MEMORY)?;
        Ok(Allocation { device, len_bytes, host, file, imported: None })
    }

    fn start(&self) -> u64 {
        self.host.as_ptr() as u64 + DEVICE
    }

    /// Whether another process has it open, of memory of this one.
    pub(crate) fn is_open_elsewhere(&self) -> bool {
        // SAFETY: the descriptor is open; a lock touches no memory.
        unsafe { libc::flock(self.file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) != 0 }
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this address and length; nobody uses it (`Memories::free`).
        unsafe { libc::munmap(self.host.as_ptr().cast(), self.len_bytes as usize) };
    }
}

/// The allocations of all devices, by device address.
#[derive(Debug, Default)]
pub(crate) struct Memories {
    by_start: BTreeMap<u64, Allocation>,
}

/// A piece of device memory: its host address and the bytes of the allocation behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) device: usize,
    pub(crate) host: *mut u8,
    pub(crate) len_bytes: u64,
}

impl Memories {
    /// Bytes in use on a device.
    pub(crate) fn used_bytes(&self, device: usize) -> u64 {
        let own = |allocation: &&Allocation| allocation.device == device && allocation.imported.is_none();
        self.by_start.values().filter(own).map(|allocation| allocation.len_bytes).sum()
    }

    pub(crate) fn allocate(&mut self, device: usize, len_bytes: u64) -> Result<u64, Code> {
        // SAFETY: a new file in memory; the name is only for listings.
        let descriptor = unsafe { libc::memfd_create(c"cuda-stand-in".as_ptr(), libc::MFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(Code::OUT_OF_MEMORY);
        }
        // SAFETY: the descriptor is new and ours.
        let file = unsafe { File::from_raw_fd(descriptor) };
        file.set_len(len_bytes).map_err(|_| Code::OUT_OF_MEMORY)?;
        let allocation = Allocation::map(device, len_bytes, file)?;
        // SAFETY: the mapping is new and has this length.
        unsafe { allocation.host.as_ptr().write_bytes(GARBAGE, len_bytes as usize) };
        let start = allocation.start();
        self.by_start.insert(start, allocation);
        Ok(start)
    }

    /// The allocation that holds `address`, and where it begins.
    pub(crate) fn find(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (&start, allocation) = self.by_start.range(..=address).next_back()?;
        (address - start < allocation.len_bytes).then_some((start, allocation))
    }

    pub(crate) fn place(&self, address: u64) -> Option<Place> {
        let (start, allocation) = self.find(address)?;
        let offset = address - start;
        // SAFETY: the offset is inside of the mapping.
        let host = unsafe { allocation.host.as_ptr().add(offset as usize) };
        Some(Place { device: allocation.device, host, len_bytes: allocation.len_bytes - offset })
    }

    /// Takes out an allocation that begins at `start`.
    pub(crate) fn remove(&mut self, start: u64) -> Option<Allocation> {
        self.by_start.remove(&start)
    }

    /// The name by which another process can open the allocation.
    pub(crate) fn export(&self, address: u64) -> Option<[u8; 64]> {
        let is_base = |found: &(u64, &Allocation)| found.0 == address && found.1.imported.is_none();
        let (start, allocation) = self.find(address).filter(is_base)?;
        let mut handle = [0; 64];
        handle[..4].copy_from_slice(&std::process::id().to_ne_bytes());
        handle[4..8].copy_from_slice(&allocation.file.as_raw_fd().to_ne_bytes());
        handle[8..16].copy_from_slice(&allocation.len_bytes.to_ne_bytes());
        handle[16..24].copy_from_slice(&start.to_ne_bytes());
        Some(handle)
    }

    /// Opens what another process has exported, or counts one use more of what is open.
    pub(crate) fn import(&mut self, device: usize, handle: [u8; 64]) -> Result<u64, Code> {
        let same = |allocation: &Allocation| allocation.imported.is_some_and(|(_, opened)| opened == handle);
        if let Some((&start, allocation)) = self.by_start.iter_mut().find(|(_, allocation)| same(allocation))
        {
            allocation.imported = allocation.imported.map(|(count, handle)| (count + 1, handle));
            return Ok(start);
        }
        let word = |at: usize| u32::from_ne_bytes(handle[at..at + 4].try_into().expect("four bytes"));
        let len_bytes = u64::from_ne_bytes(handle[8..16].try_into().expect("eight bytes"));
        if word(0) == std::process::id() {
            return Err(Code::INVALID_CONTEXT);
        }
        let path = format!("/proc/{}/fd/{}", word(0), word(4));
        let file = File::options().read(true).write(true).open(path).map_err(|_| Code::INVALID_VALUE)?;
        if len_bytes == 0 || file.metadata().map_or(0, |metadata| metadata.len()) != len_bytes {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: as in `is_open_elsewhere`. It ends with the file.
        if unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_SH | libc::LOCK_NB) } != 0 {
            return Err(Code::INVALID_VALUE);
        }
        let mut allocation = Allocation::map(device, len_bytes, file)?;
        allocation.imported = Some((1, handle));
        let start = allocation.start();
        self.by_start.insert(start, allocation);
        Ok(start)
    }

    /// Counts one use less of an imported allocation; whether that was the last one. `None` if it is not imported.
    pub(crate) fn close(&mut self, start: u64) -> Option<bool> {
        let (count, handle) = self.by_start.get(&start)?.imported?;
        if count == 1 {
            return Some(true);
        }
        self.by_start.get_mut(&start)?.imported = Some((count - 1, handle));
        Some(false)
    }
}
