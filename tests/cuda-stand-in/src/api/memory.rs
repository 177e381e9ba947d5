//! Memory of devices and pinned memory of the host; copies, fills, and handles for other processes.

use std::alloc::{Layout, alloc, dealloc};
use std::sync::Arc;

use super::{In, Out, driver};
use crate::code::Code;
use crate::engine::{Address, End, Work};
use crate::world::{Pinned, State, world};

const PAGE_BYTES: usize = 4096;

/// `CUipcMemHandle`, which is passed by value.
#[repr(C)]
struct IpcHandle([u8; 64]);

/// The end of a copy in device memory, if so many bytes are there.
fn device_end(state: &State, address: u64, len_bytes: u64) -> Result<End, Code> {
    match state.memories.place(address) {
        Some(place) if place.len_bytes >= len_bytes => Ok(End::Device(address)),
        Some(_) => Err(world().misuse(Code::INVALID_VALUE, "a copy or fill past the end of an allocation")),
        None => Err(world().misuse(Code::INVALID_VALUE, "a copy or fill of memory that is not the device's")),
    }
}

fn page_layout(len_bytes: usize) -> Result<Layout, Code> {
    Layout::from_size_align(len_bytes, PAGE_BYTES).map_err(|_| Code::OUT_OF_MEMORY)
}

/// Gives memory back, which nothing may be using.
fn release(state: &mut State, start: u64) -> Result<(), Code> {
    let Some((found, allocation)) = state.memories.find(start).filter(|(found, _)| *found == start) else {
        return Err(world().misuse(Code::INVALID_VALUE, "memory freed that is not allocated"));
    };
    if state.pending().any(|work| work.touches_device(found, allocation.len_bytes)) {
        return Err(world().misuse(Code::INVALID_VALUE, "memory freed that queued work uses"));
    }
    if allocation.imported.is_none() && allocation.is_open_elsewhere() {
        return Err(world().misuse(Code::INVALID_VALUE, "memory freed that another process has open"));
    }
    drop(state.memories.remove(start));
    Ok(())
}

fn fill(to: u64, pattern: Vec<u8>, count: u64, stream: u64) -> Result<(), Code> {
    let mut state = world().lock();
    state.stream(stream)?;
    if count == 0 {
        return Ok(());
    }
    if !to.is_multiple_of(pattern.len() as u64) {
        return Err(world().misuse(Code::INVALID_VALUE, "a fill that is not aligned to its pattern"));
    }
    device_end(&state, to, count * pattern.len() as u64)?;
    state.submit(stream, Work::Set { to, pattern, count })
}

driver! {
    fn cuMemGetInfo_v2(free: Out<u64>, total: Out<u64>) {
        let state = world().lock();
        let device = state.current()?;
        let capacity = world().settings.memory_bytes;
        free.put(capacity - state.memories.used_bytes(device))?;
        total.put(capacity)
    }

    fn cuMemAlloc_v2(address: Out<u64>, len_bytes: u64) {
        let mut state = world().lock();
        let device = state.current()?;
        state.check_no_capture("cuMemAlloc")?;
        if len_bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        let used = state.memories.used_bytes(device);
        if used.checked_add(len_bytes).is_none_or(|wanted| wanted > world().settings.memory_bytes) {
            return Err(Code::OUT_OF_MEMORY);
        }
        address.put(state.memories.allocate(device, len_bytes)?)
    }

    fn cuMemFree_v2(address: u64) {
        let mut state = world().lock();
        state.current()?;
        state.check_no_capture("cuMemFree")?;
        if state.memories.find(address).is_some_and(|(_, allocation)| allocation.imported.is_some()) {
            return Err(world().misuse(Code::INVALID_VALUE, "imported memory freed, not closed"));
        }
        release(&mut state, address)
    }

    fn cuMemHostAlloc(address: Out<*mut u8>, len_bytes: usize, _flags: u32) {
        let mut state = world().lock();
        state.current()?;
        state.check_no_capture("cuMemHostAlloc")?;
        if len_bytes == 0 {
            return Err(Code::INVALID_VALUE);
        }
        // SAFETY: the size is not zero.
        let start = unsafe { alloc(page_layout(len_bytes)?) };
        if start.is_null() {
            return Err(Code::OUT_OF_MEMORY);
        }
        state.pinned.insert(start as usize, Pinned { len_bytes, is_registered: false });
        address.put(start)
    }

    fn cuMemFreeHost(address: In<u8>) {
        let mut state = world().lock();
        let start = address.address() as usize;
        let Some(len_bytes) = state.pinned.get(&start).filter(|p| !p.is_registered).map(|p| p.len_bytes) else {
            return Err(world().misuse(Code::INVALID_VALUE, "host memory freed that is not allocated"));
        };
        if state.pending().any(|work| work.touches_host(start, len_bytes)) {
            return Err(world().misuse(Code::INVALID_VALUE, "host memory freed that queued work uses"));
        }
        state.pinned.remove(&start);
        // SAFETY: it was allocated with this layout (`cuMemHostAlloc`), and nothing queued uses it.
        unsafe { dealloc(address.address(), page_layout(len_bytes)?) };
        Ok(())
    }

    fn cuMemHostRegister_v2(address: In<u8>, len_bytes: usize, _flags: u32) {
        let mut state = world().lock();
        state.current()?;
        let start = address.address() as usize;
        let overlaps = |(other, pinned): (&usize, &Pinned)| *other + pinned.len_bytes > start;
        if state.pinned.range(..start + len_bytes).next_back().is_some_and(overlaps) {
            return Err(Code::HOST_MEMORY_ALREADY_REGISTERED);
        }
        state.pinned.insert(start, Pinned { len_bytes, is_registered: true });
        Ok(())
    }

    fn cuMemHostUnregister(address: In<u8>) {
        let mut state = world().lock();
        let start = address.address() as usize;
        let Some(len_bytes) = state.pinned.get(&start).filter(|p| p.is_registered).map(|p| p.len_bytes) else {
            return Err(Code::HOST_MEMORY_NOT_REGISTERED);
        };
        if state.pending().any(|work| work.touches_host(start, len_bytes)) {
            return Err(world().misuse(Code::INVALID_VALUE, "host memory unregistered that queued work uses"));
        }
        state.pinned.remove(&start);
        Ok(())
    }

    fn cuMemcpyHtoDAsync_v2(to: u64, from: In<u8>, len_bytes: u64, stream: u64) {
        let mut state = world().lock();
        state.stream(stream)?;
        if len_bytes == 0 {
            return Ok(());
        }
        let to = device_end(&state, to, len_bytes)?;
        let from = if state.is_pinned(from.address() as usize, len_bytes as usize) {
            End::Host(Address(from.address()))
        } else {
            world().count_call("pageable copies");
            End::Staged(Arc::new(from.read_all(len_bytes as usize)?))
        };
        state.submit(stream, Work::Copy { to, from, len_bytes })
    }

    fn cuMemcpyDtoHAsync_v2(to: In<u8>, from: u64, len_bytes: u64, stream: u64) {
        let is_pinned = {
            let mut state = world().lock();
            state.stream(stream)?;
            if len_bytes == 0 {
                return Ok(());
            }
            let is_pinned = state.is_pinned(to.address() as usize, len_bytes as usize);
            if !is_pinned {
                state.check_not_capturing(stream, "a copy to pageable memory")?;
            }
            let from = device_end(&state, from, len_bytes)?;
            state.submit(stream, Work::Copy { to: End::Host(Address(to.address())), from, len_bytes })?;
            is_pinned
        };
        if !is_pinned {
            // A driver does not return either before the copy is done.
            world().count_call("pageable copies");
            world().wait_until(|state| {
                let waits = |stream: &crate::world::Stream| !stream.is_idle();
                !state.streams.get(&stream).is_some_and(waits)
            });
        }
        Ok(())
    }

    fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, len_bytes: u64, stream: u64) {
        let mut state = world().lock();
        state.stream(stream)?;
        if len_bytes == 0 {
            return Ok(());
        }
        let (to, from) = (device_end(&state, to, len_bytes)?, device_end(&state, from, len_bytes)?);
        state.submit(stream, Work::Copy { to, from, len_bytes })
    }

    fn cuMemcpyPeerAsync(to: u64, to_context: u64, from: u64, from_context: u64, len_bytes: u64, stream: u64) {
        let mut state = world().lock();
        state.stream(stream)?;
        for (address, context) in [(to, to_context), (from, from_context)] {
            let device = state.device_of_context(context)?;
            state.check_healthy(device)?;
            if len_bytes > 0 && state.memories.find(address).is_some_and(|(_, memory)| memory.device != device) {
                return Err(world().misuse(Code::INVALID_VALUE, "a peer copy that names the wrong context"));
            }
        }
        if len_bytes == 0 {
            return Ok(());
        }
        let (to, from) = (device_end(&state, to, len_bytes)?, device_end(&state, from, len_bytes)?);
        state.submit(stream, Work::Copy { to, from, len_bytes })
    }

    fn cuMemsetD8Async(to: u64, value: u8, count: u64, stream: u64) {
        fill(to, vec![value], count, stream)
    }

    fn cuMemsetD32Async(to: u64, value: u32, count: u64, stream: u64) {
        fill(to, value.to_ne_bytes().to_vec(), count, stream)
    }

    fn cuIpcGetMemHandle(handle: Out<IpcHandle>, address: u64) {
        let state = world().lock();
        state.current()?;
        handle.put(IpcHandle(state.memories.export(address).ok_or(Code::INVALID_VALUE)?))
    }

    fn cuIpcOpenMemHandle_v2(address: Out<u64>, handle: IpcHandle, flags: u32) {
        let mut state = world().lock();
        let device = state.current()?;
        if flags != 1 {
            return Err(Code::INVALID_VALUE);
        }
        address.put(state.memories.import(device, handle.0)?)
    }

    fn cuMemGetAddressRange_v2(start: Out<u64>, len_bytes: Out<u64>, address: u64) {
        let state = world().lock();
        state.current()?;
        let (found, memory) = state.memories.find(address).ok_or(Code::INVALID_VALUE)?;
        start.put(found)?;
        len_bytes.put(memory.len_bytes)
    }

    fn cuIpcCloseMemHandle(address: u64) {
        let mut state = world().lock();
        state.current()?;
        match state.memories.close(address) {
            None => Err(world().misuse(Code::INVALID_VALUE, "memory closed that is not imported")),
            Some(true) => release(&mut state, address),
            Some(false) => Ok(()),
        }
    }
}
