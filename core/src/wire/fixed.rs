//! What every message has, at fixed lengths: ids are spread over all 64 bits, so that a number of variable length would be longer, and take
//! many times as long to write and to read. PEs that they name are checked here too.

use super::ids::{self, NoSuchPe};
use super::{Decoder, Encoder, WireError};
use crate::ids::{ChareId, CollectionId, PeId};
use crate::table::CodeId;

impl Encoder {
    #[inline]
    pub(crate) fn put_byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    #[inline]
    pub(crate) fn put_u32(&mut self, number: u32) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    #[inline]
    pub(crate) fn put_u64(&mut self, number: u64) {
        self.bytes.extend_from_slice(&number.to_le_bytes());
    }

    #[inline]
    pub(crate) fn put_byte_and_pe(&mut self, byte: u8, pe: PeId) {
        let mut both = [byte; 5];
        both[1..].copy_from_slice(&(pe.index() as u32).to_le_bytes());
        self.bytes.extend_from_slice(&both);
    }

    pub(crate) fn put_pe(&mut self, pe: PeId) {
        self.put_u32(pe.index() as u32);
    }

    pub(crate) fn put_chare(&mut self, ChareId { collection, element }: ChareId) {
        self.put_u64(collection.0);
        self.put_u64(element);
    }

    /// A byte and a chare, as `put_byte` and `put_chare` would add them, but at once.
    #[inline]
    pub(super) fn put_byte_and_chare(&mut self, byte: u8, ChareId { collection, element }: ChareId) {
        let mut both = [byte; 17];
        both[1..9].copy_from_slice(&collection.0.to_le_bytes());
        both[9..].copy_from_slice(&element.to_le_bytes());
        self.bytes.extend_from_slice(&both);
    }

    #[inline]
    pub(crate) fn put_code_id(&mut self, code: CodeId) {
        self.put_u64(code.number());
    }
}

impl Decoder<'_> {
    #[inline]
    fn take_array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let Some((taken, rest)) = self.bytes.split_first_chunk::<N>() else {
            return Err(too_short(N, self.bytes.len()));
        };
        self.bytes = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn take_byte(&mut self) -> Result<u8, WireError> {
        self.take_array().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn take_u32(&mut self) -> Result<u32, WireError> {
        self.take_array().map(u32::from_le_bytes)
    }

    #[inline]
    pub(crate) fn take_u64(&mut self) -> Result<u64, WireError> {
        self.take_array().map(u64::from_le_bytes)
    }

    #[inline]
    pub(crate) fn take_pe(&mut self) -> Result<PeId, WireError> {
        let number = self.take_u32()?;
        ids::check_pe(u64::from(number)).map_err(foreign)?;
        Ok(PeId::new(number as usize))
    }

    #[inline]
    pub(crate) fn take_chare(&mut self) -> Result<ChareId, WireError> {
        let halves: [u8; 16] = self.take_array()?;
        let [collection, element] =
            [0, 8].map(|at| u64::from_le_bytes(halves[at..at + 8].try_into().expect("eight bytes")));
        let id = ChareId { collection: CollectionId(collection), element };
        ids::check_pe(ids::pe_number_of(id)).map_err(foreign)?;
        Ok(id)
    }

    #[inline]
    pub(super) fn take_code_id(&mut self) -> Result<CodeId, WireError> {
        self.take_u64().map(CodeId)
    }
}

#[cold]
fn foreign(error: NoSuchPe) -> WireError {
    WireError::new(error.to_string())
}

#[cold]
fn too_short(wanted: usize, left: usize) -> WireError {
    WireError::new(format!("{wanted} bytes are missing, {left} are there"))
}
