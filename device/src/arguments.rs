//! The arguments of one launch as bytes, for whoever runs the kernel by its name or source.
//!
//! The parameters follow one another as in a C struct: each at the next offset that its alignment allows. A buffer is two
//! words of 64 bits, what names its block and its number of elements (both zero if the argument is absent); `Each` is its
//! parts one after the other; a scalar is its bytes. That is how CUDA C sees them too (see [`kernel!`](crate::kernel!)).

use bytemuck::NoUninit;

use crate::operation::AccessMode;

/// The strictest alignment of an argument.
pub(crate) const MAX_ALIGN: usize = 8;

/// The arguments of one launch.
#[derive(Default)]
pub struct Arguments {
    words: Vec<u64>,
    len_bytes: usize,
}

impl Arguments {
    /// Removes all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.len_bytes = 0;
    }

    #[inline(always)]
    pub(crate) fn push<S: NoUninit>(&mut self, value: &S) {
        let start = self.len_bytes.next_multiple_of(align_of::<S>());
        self.len_bytes = start + size_of::<S>();
        while self.words.len() * MAX_ALIGN < self.len_bytes {
            self.words.push(0);
        }
        self.bytes_mut()[start..].copy_from_slice(bytemuck::bytes_of(value));
    }

    /// [`push`](Self::push), of a buffer.
    #[inline(always)]
    pub(crate) fn push_buffer(&mut self, block: u64, len: u64) {
        self.len_bytes = (self.words.len() + 2) * MAX_ALIGN;
        self.words.extend_from_slice(&[block, len]);
    }

    /// Adds zeros for a value of this size and alignment, and says where they are.
    pub(crate) fn push_zeros(&mut self, bytes: usize, align: usize) -> usize {
        let start = self.len_bytes.next_multiple_of(align);
        self.len_bytes = start + bytes;
        self.words.resize(self.len_bytes.div_ceil(MAX_ALIGN), 0);
        start
    }

    /// Makes these arguments the same as others.
    pub(crate) fn copy_from(&mut self, other: &Arguments) {
        self.words.clone_from(&other.words);
        self.len_bytes = other.len_bytes;
    }

    /// The word at an offset.
    #[cfg(feature = "wgpu")]
    pub(crate) fn word(&self, offset: usize) -> u64 {
        self.words[offset / MAX_ALIGN]
    }

    /// The word at an offset, as the name of a block is one.
    pub(crate) fn word_mut(&mut self, offset: usize) -> &mut u64 {
        &mut self.words[offset / MAX_ALIGN]
    }

    #[inline(always)]
    pub(crate) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len_bytes]
    }

    #[inline(always)]
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len_bytes]
    }
}

/// Reads arguments in the order in which they were pushed.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    #[inline(always)]
    pub(crate) fn new(arguments: &'a Arguments) -> Self {
        Reader { bytes: arguments.bytes(), at: 0 }
    }

    /// The bytes of the next value, which is of this type.
    #[inline(always)]
    pub(crate) fn next<S>(&mut self) -> &'a [u8] {
        let start = self.at.next_multiple_of(align_of::<S>());
        self.at = start + size_of::<S>();
        &self.bytes[start..self.at]
    }
}

/// Where one buffer or scalar stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    /// What is done to the buffer; `None` for a scalar.
    pub(crate) buffer: Option<AccessMode>,
}

/// The slots of a parameter list.
#[derive(Debug, Default)]
pub struct Slots {
    pub(crate) list: Vec<Slot>,
    pub(crate) len_bytes: usize,
    /// Whether there are numbers of 64 bits, in scalars or in buffers.
    pub(crate) has_64_bits: bool,
}

impl Slots {
    /// Removes all, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.len_bytes = 0;
        self.has_64_bits = false;
    }

    /// Adds the name of a block, with its length, of a buffer of such elements.
    pub(crate) fn push_buffer<T>(&mut self, mode: AccessMode) {
        self.has_64_bits |= align_of::<T>() == MAX_ALIGN;
        self.push::<[u64; 2]>(Some(mode));
    }

    /// Adds a scalar of this type.
    pub(crate) fn push_scalar<S>(&mut self) {
        self.has_64_bits |= align_of::<S>() == MAX_ALIGN;
        self.push::<S>(None);
    }

    fn push<S>(&mut self, buffer: Option<AccessMode>) {
        let offset = self.len_bytes.next_multiple_of(align_of::<S>());
        self.len_bytes = offset + size_of::<S>();
        self.list.push(Slot { offset, bytes: size_of::<S>(), buffer });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_follow_one_another_as_in_a_c_struct() {
        let mut arguments = Arguments::default();
        arguments.push(&1u8);
        arguments.push(&[2u32, 3, 4]);
        arguments.push(&5.0f64);
        arguments.push(&6u16);
        let mut slots = Slots::default();
        slots.push_scalar::<u8>();
        slots.push_scalar::<[u32; 3]>();
        slots.push_scalar::<f64>();
        slots.push_scalar::<u16>();
        let places: Vec<_> = slots.list.iter().map(|slot| (slot.offset, slot.bytes)).collect();
        assert_eq!((places, slots.len_bytes), (vec![(0, 1), (4, 12), (16, 8), (24, 2)], 26));
        let bytes = arguments.bytes();
        assert_eq!((bytes.len(), bytes[0], &bytes[8..12]), (26, 1, &3u32.to_ne_bytes()[..]));
        let mut reader = Reader::new(&arguments);
        assert_eq!(reader.next::<u8>(), [1]);
        assert_eq!(reader.next::<[u32; 3]>(), bytemuck::bytes_of(&[2u32, 3, 4]));
        assert_eq!(reader.next::<f64>(), 5.0f64.to_ne_bytes());
        assert_eq!(reader.next::<u16>(), 6u16.to_ne_bytes());
    }
}
