//! Kernels whose parameters are the fields of one C struct, of which some are buffers: an address and a number of elements. Their code gets
//! the struct as bytes.

use crate::door::{Geometry, StandIn};
use crate::kernel::Parameter;

/// A field of such a struct.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Where it begins.
    pub offset: usize,
    /// Its size: 16 if it is a buffer.
    pub len_bytes: usize,
    /// Whether it is the address of memory and a number of elements, both of 64 bits; both zero if the buffer is absent.
    pub is_buffer: bool,
}

impl StandIn {
    /// Makes `code` what the kernel `name` does. It gets the fields, in the order of their offsets, as one struct, with addresses of host memory
    /// in the place of the device's.
    ///
    /// # Panics
    ///
    /// If `name` holds a zero byte, or the fields overlap.
    pub fn register_packed(
        &self,
        name: &str,
        fields: &[Field],
        code: impl Fn(Geometry, &[u8]) + Send + Sync + 'static,
    ) {
        let mut parameters = Vec::new();
        let mut places = Vec::new();
        let mut end = 0;
        for &field in fields {
            let gap = field.offset.checked_sub(end).expect("fields come one after the other");
            // What is between two fields is a parameter too.
            parameters.extend((gap > 0).then_some(Parameter::Value { bytes: gap as u32 }));
            places.push((field, parameters.len()));
            match field.is_buffer {
                true => parameters.extend([Parameter::Address { align: 1 }, Parameter::Value { bytes: 8 }]),
                false => parameters.push(Parameter::Value { bytes: field.len_bytes as u32 }),
            }
            end = field.offset + field.len_bytes;
        }
        self.register(name, &parameters, move |geometry, arguments| {
            let mut packed = vec![0; end];
            for &(Field { offset, len_bytes, is_buffer }, index) in &places {
                let place = &mut packed[offset..offset + len_bytes];
                if !is_buffer {
                    place.copy_from_slice(arguments.bytes(index));
                    continue;
                }
                let len: u64 = arguments.value(index + 1);
                // An absent buffer has no byte; one without elements has memory all the same.
                let address = match arguments.slice::<u8>(index, (len as usize).max(1)) {
                    Ok(bytes) => bytes.as_mut_ptr().expose_provenance() as u64,
                    Err(_) if len == 0 => 0,
                    Err(fault) => return Err(fault),
                };
                place[..8].copy_from_slice(&address.to_ne_bytes());
                place[8..].copy_from_slice(&len.to_ne_bytes());
            }
            code(geometry, &packed);
            Ok(())
        });
    }
}
