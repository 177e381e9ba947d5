//! What is sent: a frame, and the rank that it goes to.

use std::fmt;

use crate::buffer::Buffer;

/// A process of a job, by its number: 0 and up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

impl Rank {
    /// The number, for tables.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for Rank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {}", self.0)
    }
}

/// One message between processes: a header that the caller has encoded, and bulk memory beside it.
///
/// A receiver's frame lends the header for the call; the buffers are its own.
#[derive(Debug, Default)]
pub struct Frame<'a> {
    /// What the frame says.
    pub header: &'a [u8],
    /// What it brings. A `Vec` without elements costs no allocation.
    pub buffers: Vec<Buffer>,
}

impl<'a> Frame<'a> {
    /// A frame without buffers.
    pub fn new(header: &'a [u8]) -> Self {
        Frame { header, buffers: Vec::new() }
    }

    /// The same with one buffer more.
    pub fn with_buffer(mut self, buffer: impl Into<Buffer>) -> Self {
        self.buffers.push(buffer.into());
        self
    }

    /// The bytes of the header and of all buffers.
    pub fn len_bytes(&self) -> u64 {
        let buffers = self.buffers.iter().map(|buffer| buffer.len() as u64);
        // No overflow: all of it is memory.
        buffers.sum::<u64>() + self.header.len() as u64
    }
}
