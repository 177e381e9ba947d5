//! Memory between processes: blocks that others open, and blocks of others.
//!
//! One block may be borrowed several times, since one share may be sent several times: it is at one address, and is counted. Its lender keeps it
//! until the last of them has told, so whatever is at an address has one length.

use std::ptr::NonNull;

use super::{Gpus, Name, address_of};
use crate::backend::Backend;
use crate::cuda::memory::ExportedBlock;
use crate::lending::Exported;

impl Gpus {
    pub(super) fn export_block(&self, block: Name) -> Result<Exported, String> {
        // Not under the lock: the driver is called.
        let block =
            self.memory().get(&address_of(block)).cloned().ok_or("it is no memory of this process")?;
        let ExportedBlock { uuid, handle, offset_bytes, len_bytes } =
            block.export().map_err(|error| error.to_string())?;
        let mut halves = [[0; 32]; 2];
        halves.as_flattened_mut().copy_from_slice(&handle);
        Ok(Exported { uuid, handle: halves, offset_bytes, len_bytes })
    }

    pub(super) fn borrow_block(&self, exported: &Exported) -> Result<(usize, Name), String> {
        if self.state().closed {
            return Err("the devices of this process are closed".to_owned());
        }
        let Exported { uuid, offset_bytes, len_bytes, .. } = *exported;
        let mut handle = [0; 64];
        handle.copy_from_slice(exported.handle.as_flattened());
        let ordinal = self.gpus.iter().position(|gpu| gpu.has_uuid(&uuid)).unwrap_or(0);
        // If it is none of these, that is the error.
        let block = self.gpus[ordinal].import(&ExportedBlock { uuid, handle, offset_bytes, len_bytes });
        let block = block.map_err(|error| error.to_string())?;
        let key = block.address();
        let address =
            NonNull::new(std::ptr::without_provenance_mut(key as usize)).ok_or("it is at no address")?;
        let mut borrowed = self.borrowed.lock().expect("nothing panics under this lock");
        let count = borrowed.entry(key).or_insert(0);
        *count += 1;
        let spare = if *count == 1 { self.memory().insert(key, block) } else { Some(block) };
        drop(borrowed);
        drop(spare);
        Ok((ordinal, Name::at(address)))
    }

    pub(super) fn close_borrowed_block(&self, block: Name) {
        let key = address_of(block);
        let mut borrowed = self.borrowed.lock().expect("nothing panics under this lock");
        // All may have been closed before.
        let Some(count) = borrowed.get_mut(&key) else { return };
        *count -= 1;
        let closed = if *count == 0 {
            borrowed.remove(&key);
            self.memory().remove(&key)
        } else {
            None
        };
        drop(borrowed);
        drop(closed);
    }

    pub(super) fn close_all_borrowed_blocks(&self) {
        // Closing waits for all, unless a waker closes; what is in flight then needs its memory.
        if !self.state().closed || self.pending.count() > 0 {
            return;
        }
        let keys = std::mem::take(&mut *self.borrowed.lock().expect("nothing panics under this lock"));
        let closed: Vec<_> = {
            let mut memory = self.memory();
            keys.keys().filter_map(|key| memory.remove(key)).collect()
        };
        drop(closed);
        self.close_unused_borrowed();
    }
}
