//! Which adapters there are, how they are numbered, and how a device is made of one.
//!
//! Adapters are numbered from the best kind to the worst, GPUs with memory of their own first and processors last; those of a kind in
//! the order of their driver. Without numbers all GPUs are taken, or the processor if there is no GPU.

use std::sync::{Arc, Mutex, PoisonError};

use wgpu::{Backends, DeviceType, DownlevelFlags, Features};

use super::errors::{now, text};
use crate::error::DeviceError;
use crate::host::host_name;

/// What can be done if there is no adapter.
const INSTALL: &str = "install a driver for Vulkan: that of your GPU, or `mesa-vulkan-drivers` (Debian, Ubuntu) for one in \
                       software";

/// An adapter that is to be a device.
pub(super) struct Adapter {
    adapter: wgpu::Adapter,
    pub(super) number: usize,
    /// Which device of this adapter it will be.
    copy: usize,
}

/// Why a device can do no more, once it is so.
pub(super) type Lost = Arc<Mutex<Option<String>>>;

impl Adapter {
    /// The adapters with these numbers, one for each time that a number occurs, or the best ones.
    pub(super) fn choose(numbers: &[usize]) -> Result<Vec<Adapter>, DeviceError> {
        let found = found();
        if found.is_empty() {
            return Err(not_found(INSTALL.to_owned()));
        }
        let best: Vec<usize> = (0..found.len()).filter(|&number| is_gpu(&found[number])).collect();
        let numbers = match (numbers, &*best) {
            ([], []) => &[0],
            ([], best) => best,
            (numbers, _) => numbers,
        };
        let choose = |(index, &number): (usize, &usize)| {
            // wgpu wants a new adapter for each device.
            let adapter = self::found().into_iter().nth(number).ok_or_else(|| too_few(number, &found))?;
            let copy = numbers[..index].iter().filter(|&&earlier| earlier == number).count();
            Ok(Adapter { adapter, number, copy })
        };
        numbers.iter().enumerate().map(choose).collect()
    }

    /// How many adapters are GPUs; if none is, why.
    pub(super) fn look() -> Result<usize, String> {
        let found = found();
        match found.first() {
            Some(best) if is_gpu(best) => Ok(found.iter().filter(|adapter| is_gpu(adapter)).count()),
            Some(best) => Err(format!("there is no GPU, only {}; `--device wgpu` takes it", model(best))),
            None => Err(format!("there is no adapter; {INSTALL}")),
        }
    }

    pub(super) fn limits(&self) -> wgpu::Limits {
        self.adapter.limits()
    }

    /// What it is, for people.
    pub(super) fn model(&self) -> String {
        model(&self.adapter)
    }

    /// A name that no other device has. Two devices of one adapter have different ones.
    pub(super) fn uuid(&self) -> String {
        let wgpu::AdapterInfo { vendor, device, device_pci_bus_id, .. } = self.adapter.get_info();
        let (host, number, copy) = (host_name(), self.number, self.copy);
        format!("wgpu:{host}:{vendor:04x}:{device:04x}:{device_pci_bus_id}:{number}:{copy}")
    }

    /// Makes the device. Why it is lost, if it ever is, will stand in `lost`.
    pub(super) fn open(&self, lost: &Lost) -> Result<(wgpu::Device, wgpu::Queue), DeviceError> {
        let descriptor = wgpu::DeviceDescriptor {
            label: None,
            required_features: self.adapter.features()
                & (Features::SHADER_F64 | Features::SHADER_INT64 | Features::TIMESTAMP_QUERY),
            required_limits: self.limits(),
            ..Default::default()
        };
        let opened = now(self.adapter.request_device(&descriptor));
        let (device, queue) =
            opened.map_err(|error| not_found(format!("{} refuses: {error}", self.model())))?;
        let note = lost.clone();
        device.set_device_lost_callback(move |reason, message| {
            let said = if message.is_empty() { format!("{reason:?}") } else { message };
            lose(&note, &said);
        });
        let note = lost.clone();
        device.on_uncaptured_error(Arc::new(move |error| lose(&note, &text(&error))));
        Ok((device, queue))
    }
}

/// Notes why a device can do no more. The first reason stays.
pub(super) fn lose(lost: &Lost, why: &str) {
    // wgpu may call this in whatever state: a panic here would be one more.
    lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| why.to_owned());
}

/// The adapters of this machine that can run kernels, by number.
fn found() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    // Else debug builds ask for Vulkan's validation layers, and complain if these are not installed.
    descriptor.flags = wgpu::InstanceFlags::empty();
    let instance = wgpu::Instance::new(descriptor.with_env());
    let mut adapters = now(instance.enumerate_adapters(Backends::all()));
    adapters.retain(|adapter| {
        adapter.get_downlevel_capabilities().flags.contains(DownlevelFlags::COMPUTE_SHADERS)
    });
    adapters.sort_by_key(rank);
    adapters
}

fn is_gpu(adapter: &wgpu::Adapter) -> bool {
    rank(adapter) < rank_of(DeviceType::Cpu)
}

fn rank(adapter: &wgpu::Adapter) -> usize {
    rank_of(adapter.get_info().device_type)
}

fn rank_of(kind: DeviceType) -> usize {
    match kind {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    }
}

fn model(adapter: &wgpu::Adapter) -> String {
    let info = adapter.get_info();
    format!("{} through {:?}", info.name, info.backend)
}

fn not_found(reason: String) -> DeviceError {
    DeviceError::NotFound { what: "wgpu adapter", reason }
}

fn too_few(number: usize, found: &[wgpu::Adapter]) -> DeviceError {
    let list = found.iter().map(model).enumerate().map(|(number, model)| format!("{number}: {model}"));
    not_found(format!("none has the number {number}; there are {}", list.collect::<Vec<_>>().join(", ")))
}
