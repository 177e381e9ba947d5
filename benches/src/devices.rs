//! The devices that a bench of devices measures: those of `--device`, or else those that it names itself. One that is not there is said
//! to be missing, in one line, and has no rows: the same command runs on machines with and without GPUs.

use std::fmt;

use chare::device::DeviceSpec;

use crate::{Bench, OptionsError};

/// What a bench of devices says besides when it is asked for help.
const USAGE: &str =
    "\n  --device D    On this device only, such as cuda:0 or host:1:inline; may be given several times\n";

/// Devices to measure on.
#[derive(Clone, Debug)]
pub struct Place {
    /// What cases are called after it.
    pub name: String,
    /// Which devices.
    pub device: DeviceSpec,
}

impl Place {
    /// Devices under a name of their own.
    ///
    /// # Panics
    /// If `device` is no specification.
    pub fn new(name: &str, device: &str) -> Place {
        let device = device.parse().unwrap_or_else(|error| panic!("{device}: {error}"));
        Place { name: name.to_owned(), device }
    }

    /// The options of a run here.
    pub fn options(&self, pes: usize) -> chare::Options {
        chare::Options::default().with_pes(pes).with_device(self.device.clone())
    }

    /// Says on standard error why nothing is measured here.
    pub fn is_missing(&self, reason: impl fmt::Display) {
        eprintln!("{} is not measured: {reason}", self.name);
    }
}

impl Bench {
    /// As [`Bench::from_args`], for a bench that knows the option `--device`: with the devices that were asked for, or these.
    pub fn of_devices(name: &'static str, otherwise: &[(&str, &str)]) -> (Bench, Vec<Place>) {
        let mut places = Vec::new();
        let bench = Bench::from_args_with(name, USAGE, |option, value| {
            if option != "--device" {
                return Ok(false);
            }
            let name = value()?;
            let device =
                name.parse().map_err(|error| OptionsError::Wrong(format!("--device {name}: {error}")))?;
            places.push(Place { name, device });
            Ok(true)
        });
        if places.is_empty() {
            places.extend(otherwise.iter().map(|(name, device)| Place::new(name, device)));
        }
        (bench, places)
    }
}
