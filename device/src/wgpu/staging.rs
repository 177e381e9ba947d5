//! Buffers that a batch borrows: for what goes to the device, for what comes from it, and for the scalars of kernels.
//!
//! They are cut from *chunks*, which are used by one batch and then by another. A chunk that the host writes is mapped
//! whenever it is free; mapping it again takes a look at the device, so it comes back a little later, through a channel.

use std::sync::mpsc::{Receiver, Sender, channel};

use wgpu::{BufferUsages, MapMode};

use super::inbox::Shared;

/// The size of a chunk, unless more is asked for in one piece.
const CHUNK_BYTES: u64 = 1 << 20;

/// Free chunks that are kept, in bytes.
const KEPT_BYTES: u64 = 64 << 20;

/// What pieces are aligned to, at least.
const PIECE_ALIGN: u64 = 256;

/// A buffer that pieces are cut from.
pub(super) struct Chunk {
    pub(super) buffer: wgpu::Buffer,
    used: u64,
}

/// A piece of a chunk: which one of its batch, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) chunk: usize,
    pub(super) offset: u64,
    pub(super) bytes: u64,
}

/// The chunks of one kind that no batch uses.
pub(super) struct Belt {
    usage: BufferUsages,
    align: u64,
    free: Vec<Chunk>,
    back: (Sender<Chunk>, Receiver<Chunk>),
}

impl Belt {
    pub(super) fn new(shared: &Shared, usage: BufferUsages) -> Self {
        let align = PIECE_ALIGN.max(shared.limits.min_uniform_buffer_offset_alignment.into());
        Belt { usage, align, free: Vec::new(), back: channel() }
    }

    /// Cuts `bytes` bytes, rounded up to whole words, from the chunks that a batch has `taken`, or from one more.
    pub(super) fn cut(
        &mut self,
        shared: &Shared,
        taken: &mut Vec<Chunk>,
        bytes: u64,
    ) -> Result<Piece, String> {
        let bytes = bytes.next_multiple_of(wgpu::COPY_BUFFER_ALIGNMENT);
        let fits = |chunk: &Chunk| chunk.buffer.size() - chunk.used >= bytes;
        if !taken.last().is_some_and(fits) {
            self.free.extend(self.back.1.try_iter());
            let free = self.free.iter().position(fits);
            let chunk = match free {
                Some(index) => self.free.swap_remove(index),
                None => self.make(shared, bytes)?,
            };
            taken.push(chunk);
        }
        let index = taken.len() - 1;
        let chunk = &mut taken[index];
        let offset = chunk.used;
        chunk.used = (offset + bytes).next_multiple_of(self.align).min(chunk.buffer.size());
        Ok(Piece { chunk: index, offset, bytes })
    }

    fn make(&self, shared: &Shared, bytes: u64) -> Result<Chunk, String> {
        let most = shared.limits.max_buffer_size / wgpu::COPY_BUFFER_ALIGNMENT * wgpu::COPY_BUFFER_ALIGNMENT;
        if bytes > most {
            return Err(format!(
                "{bytes} bytes cannot be staged: a buffer of this device has at most {most}"
            ));
        }
        let whole = bytes.next_power_of_two().max(CHUNK_BYTES).min(most);
        let buffer = shared.make_buffer(whole, self.usage, self.is_mapped())?;
        Ok(Chunk { buffer, used: 0 })
    }

    /// Whether free chunks are mapped.
    fn is_mapped(&self) -> bool {
        self.usage.contains(BufferUsages::MAP_WRITE)
    }

    /// Takes back the chunks of a batch that has ended.
    pub(super) fn give_back(&mut self, chunks: Vec<Chunk>) {
        let mut kept: u64 = self.free.iter().map(|chunk| chunk.buffer.size()).sum();
        for mut chunk in chunks {
            kept += chunk.buffer.size();
            if kept > KEPT_BYTES {
                return;
            }
            chunk.used = 0;
            if self.is_mapped() {
                let (buffer, back) = (chunk.buffer.clone(), self.back.0.clone());
                buffer.map_async(MapMode::Write, .., move |mapped| {
                    if mapped.is_ok() {
                        // Else the belt is gone, and wants none.
                        let _ = back.send(chunk);
                    }
                });
            } else {
                self.free.push(chunk);
            }
        }
    }
}

impl Piece {
    fn range(self) -> std::ops::Range<u64> {
        self.offset..self.offset + self.bytes
    }

    /// Writes a piece of a chunk that is mapped; `bytes` may be up to a word shorter than the piece.
    pub(super) fn write(self, chunks: &[Chunk], bytes: &[u8]) -> Result<(), String> {
        let view = chunks[self.chunk].buffer.get_mapped_range_mut(self.range());
        view.map_err(|error| error.to_string())?.slice(..bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    /// Shows a piece of a chunk that is mapped.
    pub(super) fn read<R>(self, chunks: &[Chunk], read: impl FnOnce(&[u8]) -> R) -> Result<R, String> {
        let view = chunks[self.chunk].buffer.get_mapped_range(self.range());
        Ok(read(&view.map_err(|error| error.to_string())?))
    }
}
