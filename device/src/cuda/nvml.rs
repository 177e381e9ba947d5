//! NVML: what NVIDIA's driver tells of GPUs to those who look after them. Loaded when somebody asks, and left again.
//!
//! Everything may be missing: the library, a function of it, or an answer (a GPU in parts has no load). Each is one thing
//! that is unknown, and no error.

use std::ffi::{CString, c_uint, c_ulong};
use std::mem::MaybeUninit;

use nvml_wrapper_sys::bindings as sys;

use crate::cpus::Cpus;
use crate::vitals::Vitals;

/// The names of the library: that of the driver's package, and that of development packages.
const NAMES: [&str; 2] = ["libnvidia-ml.so.1", "libnvidia-ml.so"];

/// As many processors as a machine may have.
const MASK_WORDS: usize = 64;

/// How the GPUs with these UUIDs are doing.
pub(crate) fn vitals(uuids: &[&str]) -> Vec<Vitals> {
    match Nvml::open() {
        Some(nvml) => uuids.iter().map(|uuid| nvml.vitals(uuid)).collect(),
        None => vec![Vitals::default(); uuids.len()],
    }
}

/// The library, begun with.
struct Nvml {
    functions: sys::NvmlLib,
}

impl Nvml {
    fn open() -> Option<Nvml> {
        // SAFETY: loads the library of NVIDIA's, whose initialisers ask nothing of those who load it.
        let functions = NAMES.iter().find_map(|name| unsafe { sys::NvmlLib::new(name) }.ok())?;
        let init = *functions.nvmlInit_v2.as_ref().ok()?;
        // SAFETY: the function of this name takes nothing.
        is_well(unsafe { init() }).then_some(Nvml { functions })
    }

    fn vitals(&self, uuid: &str) -> Vitals {
        let Some(device) = self.find(uuid) else { return Vitals::default() };
        let Nvml { functions } = self;
        let busy = read(functions.nvmlDeviceGetUtilizationRates.as_ref().ok(), |rates, to| {
            // SAFETY: the device is of this library, which writes a whole answer or fails.
            unsafe { rates(device, to) }
        });
        let memory = read(functions.nvmlDeviceGetMemoryInfo.as_ref().ok(), |memory, to| {
            // SAFETY: as above.
            unsafe { memory(device, to) }
        });
        let celsius = read(functions.nvmlDeviceGetTemperature.as_ref().ok(), |temperature, to| {
            // SAFETY: as above.
            unsafe { temperature(device, sys::nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU, to) }
        });
        Vitals {
            busy_percent: busy.map(|busy: sys::nvmlUtilization_t| busy.gpu),
            memory_bytes: memory.map(|memory: sys::nvmlMemory_t| (memory.used, memory.total)),
            celsius,
            near_cpus: self.near_cpus(device),
        }
    }

    fn find(&self, uuid: &str) -> Option<sys::nvmlDevice_t> {
        let uuid = CString::new(uuid).ok()?;
        read(self.functions.nvmlDeviceGetHandleByUUID.as_ref().ok(), |find, to| {
            // SAFETY: the UUID is a C string; the answer is written whole or not at all.
            unsafe { find(uuid.as_ptr(), to) }
        })
    }

    fn near_cpus(&self, device: sys::nvmlDevice_t) -> Option<Cpus> {
        let affinity = *self.functions.nvmlDeviceGetCpuAffinity.as_ref().ok()?;
        let mut mask: [c_ulong; MASK_WORDS] = [0; MASK_WORDS];
        // SAFETY: the device is of this library, and there is room for as many words as it is told.
        let answer = unsafe { affinity(device, MASK_WORDS as c_uint, mask.as_mut_ptr()) };
        let cpus = Cpus::of_mask(&mask.map(u64::from));
        (is_well(answer) && !cpus.is_empty()).then_some(cpus)
    }
}

impl Drop for Nvml {
    fn drop(&mut self) {
        if let Ok(shutdown) = &self.functions.nvmlShutdown {
            // SAFETY: the function of this name takes nothing; there was one beginning for this end.
            unsafe { shutdown() };
        }
    }
}

/// What a function writes that is there and succeeds.
fn read<F, T: Copy>(function: Option<&F>, call: impl FnOnce(&F, *mut T) -> sys::nvmlReturn_t) -> Option<T> {
    let mut answer = MaybeUninit::<T>::zeroed();
    let code = call(function?, answer.as_mut_ptr());
    // SAFETY: numbers and pointers may be zero, and the function has succeeded in writing them besides.
    is_well(code).then(|| unsafe { answer.assume_init() })
}

fn is_well(code: sys::nvmlReturn_t) -> bool {
    code == sys::nvmlReturn_enum_NVML_SUCCESS
}
