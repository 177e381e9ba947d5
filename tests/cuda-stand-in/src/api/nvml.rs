//! What NVIDIA's management library tells of the devices: the same library, found as `libnvidia-ml.so.1`.
//!
//! Its handles are ordinals plus one.

use super::{In, Out, driver};
use crate::code::Code;
use crate::world::world;

/// Finds the device of a handle.
fn device(handle: u64) -> Result<usize, Code> {
    let ordinal = i32::try_from(handle).ok().and_then(|handle| handle.checked_sub(1));
    let count = world().lock().contexts.len();
    ordinal.map(|ordinal| ordinal as usize).filter(|&ordinal| ordinal < count).ok_or(Code::INVALID_VALUE)
}

driver! {
    fn nvmlInit_v2() {
        Ok(())
    }

    fn nvmlShutdown() {
        Ok(())
    }

    fn nvmlDeviceGetHandleByUUID(uuid: In<u8>, found: Out<u64>) {
        let uuid = uuid.text()?;
        let ordinal = uuid.strip_prefix("GPU-63756461-2073-7461-6e64-2d696e2000");
        let ordinal = ordinal.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or(Code::INVALID_VALUE)?;
        device(ordinal + 1)?;
        found.put(ordinal + 1)
    }

    fn nvmlDeviceGetUtilizationRates(handle: u64, busy: Out<[u32; 2]>) {
        let device = device(handle)?;
        busy.put([10 * device as u32, 0])
    }

    fn nvmlDeviceGetMemoryInfo(handle: u64, memory: Out<[u64; 3]>) {
        let device = device(handle)? as u64;
        let total = world().settings.memory_bytes;
        let used = (device + 1) << 20;
        memory.put([total, total - used, used])
    }

    fn nvmlDeviceGetTemperature(handle: u64, _sensor: u32, celsius: Out<u32>) {
        celsius.put(40 + device(handle)? as u32)
    }

    fn nvmlDeviceGetCpuAffinity(handle: u64, words: u32, mask: Out<u64>) {
        let device = device(handle)?;
        if words == 0 {
            return Err(Code::INVALID_VALUE);
        }
        mask.put(match world().settings.near_cpu {
            Some(first) => 1 << ((first + device as u64) % 64),
            None => u64::MAX,
        })
    }
}
