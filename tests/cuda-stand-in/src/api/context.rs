//! The driver itself, devices, and their primary contexts.

use super::{Out, driver};
use crate::code::Code;
use crate::world::{self, world};

const MULTIPROCESSORS: i32 = 8;

driver! {
    fn cuInit(flags: u32) {
        let mut state = world().lock();
        if flags != 0 {
            return Err(Code::INVALID_VALUE);
        }
        if state.contexts.is_empty() {
            return Err(Code::NO_DEVICE);
        }
        state.is_initialized = true;
        Ok(())
    }

    fn cuDriverGetVersion(version: Out<i32>) {
        version.put(world().settings.driver_version)
    }

    fn cuDeviceGetCount(count: Out<i32>) {
        let state = world().lock();
        if !state.is_initialized {
            return Err(Code::NOT_INITIALIZED);
        }
        count.put(state.contexts.len() as i32)
    }

    fn cuDeviceGet(device: Out<i32>, ordinal: i32) {
        world().lock().check_device(ordinal)?;
        device.put(ordinal)
    }

    fn cuDeviceGetName(name: Out<u8>, len: i32, device: i32) {
        world().lock().check_device(device)?;
        name.put_text("CUDA stand-in", len)
    }

    fn cuDeviceGetUuid_v2(uuid: Out<[u8; 16]>, device: i32) {
        let device = world().lock().check_device(device)?;
        let mut bytes = *b"cuda stand-in \0\0";
        bytes[15] = device as u8;
        uuid.put(bytes)
    }

    fn cuDeviceGetPCIBusId(id: Out<u8>, len: i32, device: i32) {
        let device = world().lock().check_device(device)?;
        id.put_text(&format!("0000:{:02X}:00.0", device + 1), len)
    }

    fn cuDeviceTotalMem_v2(bytes: Out<u64>, device: i32) {
        world().lock().check_device(device)?;
        bytes.put(world().settings.memory_bytes)
    }

    fn cuDeviceGetAttribute(value: Out<i32>, attribute: i32, device: i32) {
        world().lock().check_device(device)?;
        value.put(match attribute {
            1..=3 => 1024,                // threads of a block, and its x and y
            4 => 64,                      // its z
            5 => i32::MAX,                // blocks along x
            6 | 7 => 65535,               // along y and z
            8 => 48 << 10,                // shared memory of a block
            10 => 32,                     // threads of a warp
            16 => MULTIPROCESSORS,
            40 | 41 | 31 => 1,            // several copy engines, unified addresses, concurrent kernels
            75 => 9,                      // compute capability
            76 => 0,
            97 => 227 << 10,              // shared memory of a block that asks for it
            _ => return Err(Code::INVALID_VALUE),
        })
    }

    fn cuDeviceCanAccessPeer(can: Out<i32>, device: i32, peer: i32) {
        let state = world().lock();
        let (device, peer) = (state.check_device(device)?, state.check_device(peer)?);
        can.put(i32::from(device != peer && world().settings.has_peer_access))
    }

    fn cuDevicePrimaryCtxRetain(context: Out<u64>, device: i32) {
        let mut state = world().lock();
        let device = state.check_device(device)?;
        state.check_healthy(device)?;
        state.contexts[device].retain_count += 1;
        context.put(world::context_handle(device))
    }

    fn cuDevicePrimaryCtxRelease_v2(device: i32) {
        let mut state = world().lock();
        let device = state.check_device(device)?;
        let context = &mut state.contexts[device];
        match context.retain_count {
            0 => return Err(world().misuse(Code::INVALID_CONTEXT, "a context released once too often")),
            1 => {
                *context = world::Context::default();
                // With the context goes all that was made in it.
                state.poison(device, Code::INVALID_CONTEXT);
                state.contexts[device].fault = None;
                state.streams.retain(|_, stream| stream.device != device || !stream.is_idle());
                state.events.retain(|_, event| event.device != device);
                state.modules.retain(|_, module| module.device != device);
                state.functions.retain(|_, function| function.device != device);
                state.executables.retain(|_, executable| executable.device != device);
            }
            _ => context.retain_count -= 1,
        }
        Ok(())
    }

    fn cuCtxSetCurrent(context: u64) {
        let device = if context == 0 { None } else { Some(world().lock().device_of_context(context)?) };
        world::set_current(device);
        Ok(())
    }

    fn cuCtxGetCurrent(context: Out<u64>) {
        context.put(world::current().map_or(0, world::context_handle))
    }

    fn cuCtxGetStreamPriorityRange(least: Out<i32>, greatest: Out<i32>) {
        world().lock().current()?;
        if !least.is_null() {
            least.put(0)?;
        }
        if greatest.is_null() { Ok(()) } else { greatest.put(-5) }
    }

    fn cuCtxEnablePeerAccess(peer: u64, flags: u32) {
        let mut state = world().lock();
        let (device, peer) = (state.current()?, state.device_of_context(peer)?);
        if flags != 0 || device == peer {
            return Err(Code::INVALID_VALUE);
        }
        if !world().settings.has_peer_access {
            return Err(Code::PEER_ACCESS_UNSUPPORTED);
        }
        if state.contexts[device].peers.insert(peer) { Ok(()) } else { Err(Code::PEER_ACCESS_ALREADY_ENABLED) }
    }
}
