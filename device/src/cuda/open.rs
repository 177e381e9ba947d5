//! Opening: is there a driver, is it new enough, which devices are there.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, OnceLock};

use super::compile::Compiler;
use super::error::CudaError;
use super::lane::Lane;
use super::machine::{DeviceState, Gpu, Machine, Settings};
use super::pinned::{self, Pinned};
use super::raw::{self, Context, Status};

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
    /// [`CudaError::NoDriver`], [`CudaError::DriverTooOld`], [`CudaError::NoDevice`]; [`CudaError::Open`] if one cannot be opened.
    pub fn open(settings: Settings) -> Result<Cuda, CudaError> {
        let all = (0..look()?).collect::<Vec<_>>();
        Cuda::open_only(settings, &all)
    }

    /// Opens the devices with these of the driver's numbers, in this order, each given once. The others are not touched: they may
    /// be taken or broken.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open); [`CudaError::NoDevice`] also if there is none with one of the numbers.
    pub fn open_only(mut settings: Settings, numbers: &[usize]) -> Result<Cuda, CudaError> {
        settings.stream_count = settings.stream_count.max(1);
        let count = look()?;
        if let Some(wrong) = numbers.iter().find(|&&number| number >= count) {
            let reason = format!("`cuda:{wrong}` was asked for, and there are {count}, from `cuda:0`");
            return Err(CudaError::NoDevice { reason });
        }
        let open = |(index, &number): (usize, &usize)| open_device(index as u16, number as i32, &settings);
        let mut devices = numbers.iter().enumerate().map(open).collect::<Result<Vec<_>, _>>()?;
        connect(&mut devices)?;
        let compiler =
            Compiler::new(settings.cache.clone(), settings.image).with_shipped(settings.shipped.clone());
        Ok(Cuda { machine: Arc::new(Machine { devices, pinned: Mutex::default(), compiler, settings }) })
    }

    /// How many devices were opened.
    #[allow(clippy::len_without_is_empty, reason = "nobody opens none")]
    pub fn len(&self) -> usize {
        self.machine.devices.len()
    }

    /// The device with this ordinal, among those that were opened.
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

/// Opens the device with this number of the driver's. Its streams are made when they are first used.
fn open_device(index: u16, number: i32, settings: &Settings) -> Result<DeviceState, CudaError> {
    let name: Arc<str> = Arc::from(format!("cuda:{number}"));
    let refused = |call: &'static str| {
        let device = name.clone();
        move |status: Status| CudaError::Open { call, device, status }
    };
    let found = raw::describe(number).map_err(refused("cuDeviceGet"))?;
    let context = Context::retain(found.device).map_err(refused("cuDevicePrimaryCtxRetain"))?;
    let (lowest, highest) = context.priorities().map_err(refused("cuCtxGetStreamPriorityRange"))?;
    let lanes_of = |priority| (0..settings.stream_count).map(move |_| priority);
    let priorities = lanes_of(lowest).chain(lanes_of(highest));
    let lanes = priorities.map(|priority| Lane::new(context.clone(), priority)).collect();
    Ok(DeviceState {
        index,
        name: name.clone(),
        product: found.name,
        uuid: found.uuid,
        total_bytes: found.total_bytes,
        capability: found.capability,
        multiprocessor_count: found.multiprocessor_count,
        max_threads_of_block: found.max_threads_of_block,
        peers: Vec::new(),
        lanes,
        lowest_priority: lowest,
        recorder: OnceLock::new(),
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
