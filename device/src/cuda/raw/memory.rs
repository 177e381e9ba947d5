//! Memory: of a device, of another process, and pinned on the host.

use std::ffi::c_uint;
use std::ptr::NonNull;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUresult};

use super::{Answer, Context, Status, check, owned, written};

owned!(
    /// Device memory of the driver's.
    DeviceMemory(sys::CUdeviceptr),
    sys::cuMemFree_v2
);
owned!(
    /// Device memory of another process.
    ImportedMemory(sys::CUdeviceptr),
    sys::cuIpcCloseMemHandle
);

impl DeviceMemory {
    pub(in crate::cuda) fn allocate(context: &Arc<Context>, len_bytes: usize) -> Answer<DeviceMemory> {
        context.bind()?;
        // SAFETY: the address is written.
        let handle = unsafe { written(|address| sys::cuMemAlloc_v2(address, len_bytes)) }?;
        Ok(DeviceMemory { context: context.clone(), handle })
    }

    pub(in crate::cuda) fn address(&self) -> u64 {
        self.handle
    }

    /// The name by which another process can open it.
    pub(in crate::cuda) fn export(&self) -> Answer<[u8; 64]> {
        self.context.bind()?;
        // SAFETY: the memory is live; the handle is written.
        let handle = unsafe { written(|handle| sys::cuIpcGetMemHandle(handle, self.handle)) }?;
        Ok(handle.reserved.map(|byte| byte as u8))
    }
}

impl ImportedMemory {
    pub(in crate::cuda) fn open(context: &Arc<Context>, handle: [u8; 64]) -> Answer<ImportedMemory> {
        context.bind()?;
        let handle = sys::CUipcMemHandle { reserved: handle.map(|byte| byte as std::ffi::c_char) };
        let flags = sys::CUipcMem_flags_enum::CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS as c_uint;
        // SAFETY: the address is written.
        let address = unsafe { written(|address| sys::cuIpcOpenMemHandle_v2(address, handle, flags)) }?;
        Ok(ImportedMemory { context: context.clone(), handle: address })
    }

    /// How long it is.
    pub(in crate::cuda) fn len_bytes(&self) -> Answer<usize> {
        self.context.bind()?;
        let (mut start, mut len_bytes) = (0, 0);
        // SAFETY: the memory is open; both are written.
        check(unsafe { sys::cuMemGetAddressRange_v2(&mut start, &mut len_bytes, self.handle) })?;
        Ok(len_bytes)
    }

    pub(in crate::cuda) fn address(&self) -> u64 {
        self.handle
    }
}

/// Host memory that devices can copy from and to at any time.
pub(in crate::cuda) struct HostMemory {
    context: Arc<Context>,
    address: NonNull<u8>,
}

// SAFETY: plain memory; who may touch it is decided by `pinned`.
unsafe impl Send for HostMemory {}

impl HostMemory {
    pub(in crate::cuda) fn allocate(context: &Arc<Context>, len_bytes: usize) -> Answer<HostMemory> {
        context.bind()?;
        // For all devices; cached by the host, which write-combined memory is not.
        let flags = sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: the address is written.
        let address = unsafe { written(|address| sys::cuMemHostAlloc(address, len_bytes, flags)) }?;
        let address: NonNull<u8> =
            NonNull::new(address.cast()).ok_or(Status(CUresult::CUDA_ERROR_OUT_OF_MEMORY))?;
        // SAFETY: the memory is new and has this length. Bytes that the host may read must be initialised.
        unsafe { address.write_bytes(0, len_bytes) };
        Ok(HostMemory { context: context.clone(), address })
    }

    pub(in crate::cuda) fn address(&self) -> NonNull<u8> {
        self.address
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: the memory is ours, and no copy uses it (`arena`).
            let _ = unsafe { sys::cuMemFreeHost(self.address.as_ptr().cast()) };
        }
    }
}

/// Host memory of others that devices can copy from and to at any time, while this lives.
pub(in crate::cuda) struct RegisteredMemory {
    context: Arc<Context>,
    address: NonNull<u8>,
}

// SAFETY: an address that is not looked at here.
unsafe impl Send for RegisteredMemory {}

impl RegisteredMemory {
    pub(in crate::cuda) fn register(
        context: &Arc<Context>,
        address: NonNull<u8>,
        len_bytes: usize,
    ) -> Answer<RegisteredMemory> {
        context.bind()?;
        let flags = sys::CU_MEMHOSTREGISTER_PORTABLE;
        // SAFETY: the driver pins what is there and does not write it.
        check(unsafe { sys::cuMemHostRegister_v2(address.as_ptr().cast(), len_bytes, flags) })?;
        Ok(RegisteredMemory { context: context.clone(), address })
    }
}

impl Drop for RegisteredMemory {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: it was registered, and no copy uses it (`Gpu::register`).
            let _ = unsafe { sys::cuMemHostUnregister(self.address.as_ptr().cast()) };
        }
    }
}
