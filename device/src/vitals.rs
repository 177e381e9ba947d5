//! How devices are doing, as NVIDIA's management library (NVML) tells of GPUs where it is there. What nobody tells is unknown.

use std::fmt;

use crate::cpus::Cpus;
use crate::device::{Device, Devices};

/// How a device is doing at some moment. What is `None` is unknown: of host devices and adapters of wgpu all is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Vitals {
    /// The percentage of the last while in which kernels ran on it, whoever's.
    pub busy_percent: Option<u32>,
    /// The bytes of its memory that are taken, by whomever, and all bytes of it.
    pub memory_bytes: Option<(u64, u64)>,
    /// Its temperature, in degrees Celsius.
    pub celsius: Option<u32>,
    /// The processors near it.
    pub near_cpus: Option<Cpus>,
}

impl fmt::Display for Vitals {
    /// In a few words, those that are not known as `unknown`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Vitals::default() {
            return f.write_str("load, memory, temperature and near processors unknown");
        }
        let mib = |bytes: u64| bytes >> 20;
        match self.busy_percent {
            Some(percent) => write!(f, "{percent} % busy")?,
            None => write!(f, "load unknown")?,
        }
        match self.memory_bytes {
            Some((used, all)) => write!(f, ", {} of {} MiB taken", mib(used), mib(all))?,
            None => write!(f, ", memory unknown")?,
        }
        match self.celsius {
            Some(degrees) => write!(f, ", {degrees} °C")?,
            None => write!(f, ", temperature unknown")?,
        }
        match &self.near_cpus {
            Some(cpus) => write!(f, ", near processors {cpus}"),
            None => write!(f, ", near processors unknown"),
        }
    }
}

impl Devices {
    /// How the devices are doing, by ordinal. Opens NVML if there are GPUs, which takes some milliseconds; no call for each launch.
    pub fn vitals(&self) -> Vec<Vitals> {
        let uuids: Vec<&str> = self.iter().map(Device::uuid).collect();
        match self.get(0).language() {
            #[cfg(feature = "cuda")]
            crate::Language::CudaC => crate::cuda::vitals(&uuids),
            _ => vec![Vitals::default(); uuids.len()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_said() {
        let unknown = Vitals::default();
        assert_eq!(unknown.to_string(), "load, memory, temperature and near processors unknown");
        let cool = Vitals { celsius: Some(31), ..unknown.clone() };
        assert_eq!(cool.to_string(), "load unknown, memory unknown, 31 °C, near processors unknown");
        let all = Vitals {
            busy_percent: Some(7),
            memory_bytes: Some((3 << 20, 5 << 20)),
            near_cpus: Some("0-3".parse().unwrap()),
            ..cool
        };
        assert_eq!(all.to_string(), "7 % busy, 3 of 5 MiB taken, 31 °C, near processors 0-3");
    }

    #[test]
    fn of_host_devices_nothing_is_known() {
        let devices = Devices::open(&"host:2".parse().unwrap(), crate::HostMode::Inline).unwrap();
        assert_eq!(devices.vitals(), [Vitals::default(), Vitals::default()]);
    }
}
