//! Opening: is there a driver, is it new enough, which devices are there.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};

use super::compile::Compiler;
use super::error::CudaError;
use super::lane::Lane;
use super::machine::{DeviceState, Gpu, Machine, Settings};
use super::pinned::{self, Pinned};
use super::raw::{self, Context, RawStream, Status};

/// The oldest driver that has all functions that are called here, as major and minor.
const OLDEST_DRIVER: (i32, i32) = (12, 8);

/// Whether there are GPUs that [`Cuda::open`] would open, without touching any: how many.
///
/// # Errors
///
/// [`CudaError::NoDriver`], [`CudaError::DriverTooOld`], [`CudaError::NoDevice`]; or what the driver says.
pub fn look() -> Result<usize, CudaError> {
    if !raw::has_driver() {
        return Err(CudaError::NoDriver);
    }
    let refused = |call: &'static str| {
        move |status: Status| CudaError::Call { call, device: Arc::from("this machine"), status }
    };
    let version = raw::driver_version().map_err(refused("cuDriverGetVersion"))?;
    let found = (version / 1000, version % 1000 / 10);
    if found < OLDEST_DRIVER {
        return Err(CudaError::DriverTooOld { found, needed: OLDEST_DRIVER });
    }
    raw::init().map_err(|status| match status.is_no_device() {
        true => CudaError::NoDevice { reason: status.to_string() },
        false => refused("cuInit")(status),
    })?;
    match raw::device_count().map_err(refused("cuDeviceGetCount"))? {
        0 => Err(CudaError::NoDevice { reason: "the driver shows none".to_owned() }),
        count => Ok(count as usize),
    }
}

/// The NVIDIA GPUs of this process. A cheap clone.
#[derive(Clone)]
pub struct Cuda {
    machine: Arc<Machine>,
}

impl Cuda {
    /// Opens all devices that the driver shows.
    ///
    /// # Errors
    ///
    /// [`CudaError::NoDriver`], [`CudaError::DriverTooOld`], [`CudaError::NoDevice`]; or what the driver says while it opens a
    /// device.
    pub fn open(mut settings: Settings) -> Result<Cuda, CudaError> {
        settings.stream_count = settings.stream_count.max(1);
        let count = look()?;
        let mut devices = Vec::new();
        for ordinal in 0..count as i32 {
            devices.push(open_device(ordinal, &settings)?);
        }
        connect(&mut devices)?;
        let compiler =
            Compiler::new(settings.cache.clone(), settings.image).with_shipped(settings.shipped.clone());
        Ok(Cuda { machine: Arc::new(Machine { devices, pinned: Mutex::default(), compiler, settings }) })
    }

    /// How many devices there are.
    #[allow(clippy::len_without_is_empty, reason = "there is at least one")]
    pub fn len(&self) -> usize {
        self.machine.devices.len()
    }

    /// The device with this ordinal.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn gpu(&self, ordinal: usize) -> Gpu {
        assert!(ordinal < self.len(), "there are {} devices", self.len());
        Gpu { machine: self.machine.clone(), index: ordinal as u16 }
    }

    /// The devices, by ordinal.
    pub fn gpus(&self) -> impl Iterator<Item = Gpu> {
        (0..self.len()).map(|ordinal| self.gpu(ordinal))
    }

    /// Pinned memory, of bytes of no particular value. Does not wait.
    ///
    /// # Errors
    ///
    /// [`CudaError::OutOfMemory`], or the fault of the last device that was not lost.
    pub fn pinned(&self, len_bytes: usize) -> Result<Pinned, CudaError> {
        pinned::allocate(&self.machine, len_bytes)
    }

    /// Waits until all that was submitted to all devices is done, or its device is lost.
    pub fn synchronize(&self) {
        self.machine.synchronize();
    }
}

fn open_device(ordinal: i32, settings: &Settings) -> Result<DeviceState, CudaError> {
    let name: Arc<str> = Arc::from(format!("cuda:{ordinal}"));
    let refused = |call: &'static str| {
        let device = name.clone();
        move |status: Status| CudaError::Call { call, device, status }
    };
    let found = raw::describe(ordinal).map_err(refused("cuDeviceGet"))?;
    let context = Context::retain(found.device).map_err(refused("cuDevicePrimaryCtxRetain"))?;
    let (lowest, highest) = context.priorities().map_err(refused("cuCtxGetStreamPriorityRange"))?;
    let mut lanes = Vec::new();
    for priority in [lowest, highest] {
        for _ in 0..settings.stream_count {
            let stream = RawStream::create(&context, priority).map_err(refused("cuStreamCreate"))?;
            lanes.push(Lane::new(stream));
        }
    }
    let recorder = RawStream::create(&context, lowest).map_err(refused("cuStreamCreate"))?;
    Ok(DeviceState {
        index: ordinal as u16,
        name: name.clone(),
        product: found.name,
        uuid: found.uuid,
        total_bytes: found.total_bytes,
        capability: found.capability,
        multiprocessor_count: found.multiprocessor_count,
        max_threads_of_block: found.max_threads_of_block,
        peers: Vec::new(),
        lanes,
        recorder: Mutex::new(recorder),
        next_lane: [const { AtomicUsize::new(0) }; 2],
        memory: Mutex::default(),
        imports: Mutex::default(),
        kernels: Mutex::default(),
        fault: OnceLock::new(),
        context,
    })
}

/// Lets each device touch the memory of those that it can reach.
fn connect(devices: &mut [DeviceState]) -> Result<(), CudaError> {
    for one in 0..devices.len() {
        let mut peers = Vec::new();
        for other in 0..devices.len() {
            let enabled = if one == other {
                Ok(true)
            } else {
                devices[one].context.enable_peer(&devices[other].context)
            };
            peers.push(enabled.map_err(|status| devices[one].explain("cuCtxEnablePeerAccess", status))?);
        }
        devices[one].peers = peers;
    }
    Ok(())
}
