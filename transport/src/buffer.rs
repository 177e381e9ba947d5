//! Bulk memory of frames: owned, of known alignment, and typed again without a copy.
//!
//! A [`HostBuf`] is memory of Rust's allocator with the layout that it was allocated with. So a `Vec<T>` becomes one and is
//! sent from where it lies, and what was received with the alignment of `T` becomes a `Vec<T>` where it lies. The
//! invariant: all `len` bytes of a `HostBuf` have been written; a [`Landing`] is the same memory before that.

use std::alloc::{self, Layout};
use std::any::Any;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::slice;

use bytemuck::{NoUninit, Pod};

/// The largest alignment that a buffer keeps on its way.
pub const MOST_ALIGN: usize = 4096;

/// Bulk memory that travels with a frame.
#[derive(Debug)]
#[non_exhaustive]
pub enum Buffer {
    /// Memory of the host.
    Host(HostBuf),
    /// Memory that the network's library reaches, and nothing else here: that of a device, or pinned for one.
    Device(DeviceBuf),
}

impl Buffer {
    /// The length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Buffer::Host(memory) => memory.len(),
            Buffer::Device(memory) => memory.len(),
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same in memory of its own, at the same alignment; none of memory that is not the host's.
    ///
    /// # Panics
    /// If there is no memory.
    pub fn copied(&self) -> Option<Buffer> {
        match self {
            Buffer::Host(memory) => Some(HostBuf::copied(memory.as_bytes(), memory.align()).into()),
            Buffer::Device(_) => None,
        }
    }

    /// The memory, where it is the host's.
    ///
    /// # Errors
    /// The buffer, if its memory is not the host's.
    pub fn into_host(self) -> Result<HostBuf, Buffer> {
        match self {
            Buffer::Host(memory) => Ok(memory),
            Buffer::Device(_) => Err(self),
        }
    }

    /// Where it begins, for the network.
    #[cfg(feature = "mpi")]
    pub(crate) fn start(&self) -> *const u8 {
        match self {
            Buffer::Host(memory) => memory.as_bytes().as_ptr(),
            Buffer::Device(memory) => memory.start.as_ptr(),
        }
    }
}

/// Memory that is sent from where it lies, or received to where it stays, and that nothing here reads or writes but the network: it is for libraries of
/// MPI that reach memory of devices. It goes by itself, however short it is, and without a checksum.
pub struct DeviceBuf {
    #[cfg_attr(not(feature = "mpi"), expect(dead_code, reason = "it is for MPI"))]
    start: NonNull<u8>,
    len: usize,
    owner: Box<dyn Any + Send>,
}

// SAFETY: an address, which is used as the maker of the value has promised, and an owner that may be sent.
unsafe impl Send for DeviceBuf {}

impl DeviceBuf {
    /// Memory at an address, which is there as long as its owner lives.
    ///
    /// # Panics
    /// If there are no bytes.
    ///
    /// # Safety
    /// The network may read and write the `len` bytes there, from any thread, until the owner is dropped or taken out. Nobody else writes them
    /// meanwhile, nor, of memory that is to be received to, reads them.
    pub unsafe fn new(start: NonNull<u8>, len: usize, owner: Box<dyn Any + Send>) -> DeviceBuf {
        assert!(len > 0, "memory that is sent by itself has bytes");
        DeviceBuf { start, len, owner }
    }

    /// The length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// What keeps the memory.
    pub fn owner(&self) -> &(dyn Any + Send) {
        &*self.owner
    }

    /// What keeps the memory, taken out.
    pub fn into_owner(self) -> Box<dyn Any + Send> {
        self.owner
    }
}

impl fmt::Debug for DeviceBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuf({} bytes)", self.len)
    }
}

impl<T: NoUninit> From<Vec<T>> for Buffer {
    /// The vector's memory, not a copy.
    fn from(values: Vec<T>) -> Self {
        Buffer::Host(values.into())
    }
}

impl From<DeviceBuf> for Buffer {
    fn from(memory: DeviceBuf) -> Self {
        Buffer::Device(memory)
    }
}

impl From<HostBuf> for Buffer {
    fn from(memory: HostBuf) -> Self {
        Buffer::Host(memory)
    }
}

/// Owned memory of the host.
///
/// ```
/// use chare_transport::HostBuf;
///
/// let face = vec![1.5_f64, 2.5];
/// let place = face.as_ptr();
/// let buffer = HostBuf::from(face);
/// assert_eq!((buffer.len(), buffer.align()), (16, 8));
/// let face: Vec<f64> = buffer.into_vec().expect("16 bytes are two numbers");
/// assert_eq!((face.as_ptr(), face[1]), (place, 2.5));
/// ```
pub struct HostBuf {
    start: NonNull<u8>,
    len: usize,
    /// What `start` was allocated with; of size 0 if nothing was.
    layout: Layout,
}

// SAFETY: a `HostBuf` owns its memory, which is plain bytes, like a `Vec<u8>`.
unsafe impl Send for HostBuf {}
// SAFETY: as above; a shared one is only read.
unsafe impl Sync for HostBuf {}

impl HostBuf {
    /// A copy of `bytes` at an alignment.
    ///
    /// # Panics
    /// If `align` is no power of two, or if there is no memory.
    pub fn copied(bytes: &[u8], align: usize) -> HostBuf {
        assert!(align.is_power_of_two(), "an alignment is a power of two, not {align}");
        match Landing::new(bytes.len(), align) {
            Some(landing) => landing.fill(bytes),
            None => panic!("no memory for {} bytes", bytes.len()),
        }
    }

    /// The length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The alignment that it was allocated with.
    pub fn align(&self) -> usize {
        self.layout.align()
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are ours and written; of none, the pointer is dangling but aligned.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to be changed.
    pub fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`, and `self` is borrowed for as long.
        unsafe { slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }

    /// The bytes as values; none if their length or their alignment does not fit.
    pub fn as_slice<T: Pod>(&self) -> Option<&[T]> {
        bytemuck::try_cast_slice(self.as_bytes()).ok()
    }

    /// The bytes as a vector: the memory itself if it was allocated with the alignment of `T`, else a copy.
    ///
    /// # Errors
    /// The buffer, if its length is no multiple of `T`'s.
    pub fn into_vec<T: Pod>(self) -> Result<Vec<T>, HostBuf> {
        let size = size_of::<T>();
        if size == 0 || !self.len.is_multiple_of(size) {
            return Err(self);
        }
        let (len, capacity) = (self.len / size, self.layout.size() / size);
        if self.align() != align_of::<T>() || !self.layout.size().is_multiple_of(size) {
            let mut copy: Vec<T> = vec![T::zeroed(); len];
            bytemuck::cast_slice_mut(&mut copy).copy_from_slice(self.as_bytes());
            return Ok(copy);
        }
        let memory = ManuallyDrop::new(self);
        // SAFETY: the memory was allocated by Rust's allocator with the alignment of `T` and the size of `capacity` of them (or
        // not at all, then the pointer is dangling and the capacity 0); `len` of them are written, and any bytes are a `T`.
        Ok(unsafe { Vec::from_raw_parts(memory.start.as_ptr().cast::<T>(), len, capacity) })
    }
}

impl<T: NoUninit> From<Vec<T>> for HostBuf {
    /// The vector's memory, not a copy.
    fn from(values: Vec<T>) -> Self {
        let mut values = ManuallyDrop::new(values);
        let layout = Layout::array::<T>(if size_of::<T>() == 0 { 0 } else { values.capacity() })
            .expect("the vector has allocated it");
        let start = NonNull::new(values.as_mut_ptr().cast::<u8>()).expect("a vector's pointer is not null");
        HostBuf { start, len: size_of_val(values.as_slice()), layout }
    }
}

impl Drop for HostBuf {
    fn drop(&mut self) {
        if self.layout.size() > 0 {
            // SAFETY: allocated with this layout, by us or by a vector, and nobody else's.
            unsafe { alloc::dealloc(self.start.as_ptr(), self.layout) };
        }
    }
}

impl fmt::Debug for HostBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HostBuf({} bytes, aligned to {})", self.len, self.align())
    }
}

/// Memory for a buffer that is still on its way: allocated, not written.
#[derive(Debug)]
pub struct Landing {
    /// Its bytes are not written, so nothing here reads them.
    memory: Buffer,
}

impl Landing {
    /// Memory of a length and an alignment; none if the machine has not got it.
    pub(crate) fn new(len: usize, align: usize) -> Option<Landing> {
        let layout = Layout::from_size_align(len, align).ok()?;
        let start = if len == 0 {
            NonNull::without_provenance(std::num::NonZero::new(align)?)
        } else {
            // SAFETY: the layout has a size.
            NonNull::new(unsafe { alloc::alloc(layout) })?
        };
        Some(Landing { memory: HostBuf { start, len, layout }.into() })
    }

    /// Memory that the receiver has made for it.
    pub(crate) fn at(memory: DeviceBuf) -> Landing {
        Landing { memory: memory.into() }
    }

    /// The bytes that are to come.
    pub fn len(&self) -> usize {
        self.memory.len()
    }

    /// Whether none are to come.
    pub fn is_empty(&self) -> bool {
        self.memory.is_empty()
    }

    /// The alignment; none of memory that is not the host's.
    pub fn align(&self) -> Option<usize> {
        match &self.memory {
            Buffer::Host(memory) => Some(memory.align()),
            Buffer::Device(_) => None,
        }
    }

    /// Copies what has come, into memory of the host.
    ///
    /// # Panics
    /// If it is not as long as what was to come, or if the memory is not the host's.
    pub fn fill(self, bytes: &[u8]) -> HostBuf {
        let Buffer::Host(memory) = self.memory else { panic!("only a network writes memory of devices") };
        assert_eq!(bytes.len(), memory.len, "a buffer has the length that was announced");
        // SAFETY: both are as long, and the landing is memory of its own.
        unsafe { memory.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        memory
    }

    /// Where a network writes what comes: `len` bytes.
    #[cfg(feature = "mpi")]
    pub(crate) fn as_mut_ptr(&mut self) -> *mut u8 {
        match &self.memory {
            Buffer::Host(memory) => memory.start.as_ptr(),
            Buffer::Device(memory) => memory.start.as_ptr(),
        }
    }

    /// What has come.
    ///
    /// # Safety
    /// All `len` bytes have been written, and nobody writes them any more.
    #[cfg(feature = "mpi")]
    pub(crate) unsafe fn assume_filled(self) -> Buffer {
        self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_come_and_go_where_they_lie() {
        let triples = vec![[1.0_f64, 2.0, 3.0]; 5];
        let place = triples.as_ptr().addr();
        let memory = HostBuf::from(triples);
        assert_eq!((memory.len(), memory.align()), (120, 8));
        let numbers = memory.into_vec::<f64>().expect("15 numbers");
        assert_eq!((numbers.as_ptr().addr(), numbers.len(), numbers[4]), (place, 15, 2.0));

        let mut roomy: Vec<u32> = Vec::with_capacity(100);
        roomy.extend([7, 8]);
        let memory = HostBuf::from(roomy);
        assert_eq!(memory.as_slice::<u32>(), Some(&[7, 8][..]));
        assert_eq!(memory.into_vec::<[u8; 4]>().expect("two words"), [[7, 0, 0, 0], [8, 0, 0, 0]]);
    }

    #[test]
    fn what_does_not_fit_is_copied_or_refused() {
        let memory = HostBuf::copied(&[1, 0, 2, 0], 64);
        assert_eq!(memory.as_bytes().as_ptr().addr() % 64, 0);
        assert_eq!(memory.into_vec::<u16>().expect("two numbers"), [1, 2]);
        let memory = HostBuf::from(vec![1_u8, 2, 3]).into_vec::<u16>().expect_err("three bytes");
        assert_eq!(memory.as_bytes(), [1, 2, 3]);
        // Three bytes of capacity are no whole number of pairs.
        let mut odd: Vec<u8> = Vec::with_capacity(3);
        odd.extend([1, 2]);
        assert_eq!(HostBuf::from(odd).into_vec::<[u8; 2]>().expect("one pair"), [[1, 2]]);
    }

    #[test]
    fn nothing_is_a_buffer_too() {
        let mut none = HostBuf::from(Vec::<f64>::new());
        assert!(none.is_empty() && none.as_bytes_mut().is_empty());
        assert_eq!(none.into_vec::<f64>().expect("no numbers"), [0.0; 0]);
        assert!(HostBuf::from(vec![(); 3]).into_vec::<()>().is_err());
        assert_eq!(HostBuf::copied(&[], 16).into_vec::<u128>().expect("no numbers"), [0; 0]);
        assert!(Landing::new(usize::MAX, 8).is_none() && Landing::new(1, 3).is_none());
    }

    #[test]
    #[should_panic(expected = "the length that was announced")]
    fn a_landing_takes_what_was_announced() {
        Landing::new(4, 1).expect("four bytes").fill(&[1, 2, 3]);
    }
}
