//! Device memory and other processes: how it leaves as a share and bytes, and lies in the host's memory where it comes.
//!
//! Serde is shown a name and a shape; the contents go beside. Who serialises gets the *share* ([`Leaving`]), and has its bytes copied to the
//! host when it knows where they go. Who deserialises hands back either that share (in the same process) or bytes, which are memory of the
//! *landing*: a device that is none, with an ordinal that no device has, so that no account is ever there. So what has landed is for all
//! accounts memory of another device. It is copied to theirs at its first use, and kept there as a twin; only where it is read or copied
//! one asks whether it has landed ([`Memory::landed`]). Nothing is ever written there; what had been spoiled comes spoiled, and has no bytes.
//!
//! Or it stays where it is, and another process of the machine uses it there (`lending`); or a network sends and receives it by address (`arrival`); or
//! it goes by pinned memory, piece by piece (`pieces`).
//!
//! The runtime's part is a [`Carrier`], which the linker finds, since serde hands on nothing of ours.

use std::any::type_name;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::account::Account;
use crate::arrival::Arrival;
use crate::backend::Facts;
use crate::buffer::{DeviceSlice, DeviceVec};
use crate::caught::Caught;
use crate::device::{DeviceCore, Devices, Ledger};
use crate::fault::{FaultKind, FaultRecord};
use crate::host_vec::HostVec;
use crate::lending::Borrowed;
use crate::memory::{HostBytes, Memory, MemoryRef};
use crate::param::DevicePod;
use crate::shape::Shape;

/// The carrier of the program, if it has a runtime that knows processes.
#[doc(hidden)]
#[linkme::distributed_slice]
pub static CARRIERS: [Carrier];

/// What takes device memory along while a value is serialised, and has it where the value is deserialised.
#[doc(hidden)]
pub struct Carrier {
    /// Takes a share along with the value that is being serialised, or says why it cannot.
    pub load: fn(Leaving) -> Result<(), String>,
    /// The next one that came with the value which is being deserialised.
    pub unload: fn() -> Result<Come, String>,
}

/// A share of device memory that is about to leave its process.
#[doc(hidden)]
#[derive(Clone)]
pub struct Leaving {
    /// Whatever its elements are: it is only counted.
    share: DeviceSlice<u8>,
}

impl Leaving {
    pub(crate) fn of(memory: &MemoryRef) -> Self {
        Leaving { share: DeviceSlice::of(memory.clone()) }
    }

    pub(crate) fn memory(&self) -> &MemoryRef {
        self.share.memory()
    }
}

impl fmt::Debug for Leaving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaving({} bytes)", self.memory().len_bytes())
    }
}

/// Device memory that has come with a value.
#[doc(hidden)]
pub struct Come(Kind);

enum Kind {
    Share(Leaving),
    Bytes(Landing, HostBytes),
    /// It has been received to memory of a device.
    Arrived(MemoryRef),
    /// Lent by another process; the landing of its device, and how much of it is contents.
    Borrowed(Landing, Borrowed, usize),
    /// With why, and whether somebody is told of that where it comes from.
    Spoiled(Landing, String, bool),
}

impl Come {
    /// The value has not left its process.
    pub fn share(leaving: Leaving) -> Self {
        Come(Kind::Share(leaving))
    }

    /// From another process, for these devices.
    pub fn bytes(devices: &Devices, bytes: HostBytes) -> Self {
        Come(Kind::Bytes(devices.landing().clone(), bytes))
    }

    /// From another process, in memory of a device.
    pub fn arrived(arrival: Arrival) -> Self {
        Come(Kind::Arrived(arrival.into_memory()))
    }

    /// Lent by another process, on a device of this one.
    pub(crate) fn of_borrowed(
        devices: &Devices,
        ordinal: usize,
        len_bytes: usize,
        borrowed: Borrowed,
    ) -> Self {
        let (device, ledger) = (devices.get(ordinal).core().clone(), devices.landing().ledger.clone());
        Come(Kind::Borrowed(Landing { device, ledger }, borrowed, len_bytes))
    }

    /// From another process, for these devices, which nobody can read, for this reason: a kernel has failed that was to write it, which
    /// is told there; or it could not be copied, which nobody knows yet.
    pub fn spoiled(devices: &Devices, why: String, is_told: bool) -> Self {
        Come(Kind::Spoiled(devices.landing().clone(), why, is_told))
    }

    fn check(&self, shape: Shape, elem_bytes: usize) -> Result<(), String> {
        let bytes = match &self.0 {
            Kind::Spoiled(..) => return Ok(()),
            Kind::Share(leaving) => leaving.memory().len_bytes(),
            Kind::Bytes(_, bytes) => (**bytes).as_ref().len(),
            Kind::Borrowed(_, _, len_bytes) => *len_bytes,
            Kind::Arrived(memory) if !memory.can_be(shape) => {
                return Err(format!("{shape:?} elements are announced, and {:?} came", memory.shape()));
            }
            Kind::Arrived(memory) => memory.len_bytes(),
        };
        if shape.len().checked_mul(elem_bytes) == Some(bytes) {
            return Ok(());
        }
        Err(format!("{shape:?} elements of {elem_bytes} bytes are announced, and {bytes} bytes came"))
    }

    /// As something to be read.
    pub(crate) fn into_share<T: DevicePod>(self, shape: Shape) -> DeviceSlice<T> {
        match self.0 {
            Kind::Share(leaving) => DeviceSlice::of(leaving.memory().clone()),
            Kind::Bytes(landing, bytes) => DeviceSlice::of(landing.memory(shape, bytes)),
            Kind::Borrowed(landing, borrowed, len_bytes) => {
                DeviceSlice::of(landing.borrowed(shape, len_bytes, borrowed))
            }
            Kind::Arrived(memory) => DeviceSlice::of(memory.relabelled(shape)),
            Kind::Spoiled(landing, why, is_told) => {
                DeviceSlice::of(landing.spoiled(shape, size_of::<T>(), why, is_told))
            }
        }
    }

    /// As something with an owner of its own: that of the share may live.
    fn into_buffer<T: DevicePod>(self, shape: Shape) -> Result<DeviceVec<T>, String> {
        let (landing, bytes) = match self.0 {
            Kind::Bytes(landing, bytes) => (landing, bytes),
            Kind::Borrowed(landing, borrowed, len_bytes) => {
                return Ok(DeviceVec::new(landing.borrowed(shape, len_bytes, borrowed)));
            }
            Kind::Arrived(memory) => return Ok(DeviceVec::new(memory.relabelled(shape))),
            Kind::Spoiled(landing, why, is_told) => {
                return Ok(DeviceVec::new(landing.spoiled(shape, size_of::<T>(), why, is_told)));
            }
            Kind::Share(leaving) => {
                let memory = leaving.memory();
                let Some(bytes) = memory.landed() else {
                    let courier = Account::courier(memory.device(), "a value that was read again");
                    let copy = courier.copy(&leaving.share).map_err(|error| error.to_string())?;
                    return Ok(DeviceVec::new(copy.memory().clone()));
                };
                let landing = Landing { device: memory.device().clone(), ledger: memory.ledger().clone() };
                if let Some(fault) = memory.poison() {
                    return Ok(DeviceVec::new(landing.poisoned(shape, memory.len_bytes(), fault)));
                }
                (landing, Box::new(bytes.to_vec()) as HostBytes)
            }
        };
        Ok(DeviceVec::new(landing.memory(shape, bytes)))
    }
}

/// What memory that has landed is of.
#[derive(Clone)]
pub(crate) struct Landing {
    device: Arc<DeviceCore>,
    ledger: Arc<Ledger>,
}

impl Landing {
    pub(crate) fn at(device: Arc<DeviceCore>) -> Self {
        let ledger = device.open_ledger("another process".into());
        Landing { device, ledger }
    }

    fn memory(&self, shape: Shape, bytes: HostBytes) -> MemoryRef {
        let len_bytes = (*bytes).as_ref().len();
        Memory::landed_at(&self.device, &self.ledger, shape, len_bytes, bytes)
    }

    fn borrowed(&self, shape: Shape, len_bytes: usize, borrowed: Borrowed) -> MemoryRef {
        Memory::borrowed_at(&self.device, &self.ledger, shape, len_bytes, borrowed)
    }

    fn spoiled(&self, shape: Shape, elem_bytes: usize, why: String, is_told: bool) -> MemoryRef {
        let Landing { device, ledger } = self;
        let caught = Caught { message: why.into(), location: None };
        let fault =
            device.faults.record(FaultKind::Kernel, "copy", &device.facts.name, &ledger.label, caught);
        if is_told {
            fault.report();
        } else {
            fault.drop_unpolled();
        }
        self.poisoned(shape, shape.len().saturating_mul(elem_bytes), fault)
    }

    /// Memory without bytes, which is as long as it would be.
    fn poisoned(&self, shape: Shape, len_bytes: usize, fault: Arc<FaultRecord>) -> MemoryRef {
        let memory = Memory::landed_at(&self.device, &self.ledger, shape, len_bytes, Box::new([]));
        memory.set_poison(Some(fault));
        memory
    }

    /// The facts of the device that is none, beside `like`.
    pub(crate) fn facts(like: &Facts) -> Facts {
        Facts {
            name: "the host's memory".into(),
            uuid: String::new(),
            speed: 1.0,
            model: None,
            capacity_bytes: 0,
            max_buffer_bytes: 0,
            language: like.language,
            is_host_memory: true,
            runs_at_once: false,
        }
    }
}

/// What serde is shown.
#[derive(Serialize, Deserialize)]
struct Form {
    element: String,
    extents: Vec<usize>,
}

fn load<T: DevicePod, S: Serializer>(memory: &MemoryRef, serializer: S) -> Result<S::Ok, S::Error> {
    let outcome = match CARRIERS.first() {
        _ if size_of::<T>() == 0 => Err("elements without a size do not leave their process".to_owned()),
        Some(carrier) => (carrier.load)(Leaving::of(memory)),
        None => Err(NO_CARRIER.to_owned()),
    };
    outcome.map_err(serde::ser::Error::custom)?;
    let (element, extents) = (type_name::<T>().to_owned(), memory.shape().extents().to_vec());
    Form { element, extents }.serialize(serializer)
}

fn unload<'de, T: DevicePod, D: Deserializer<'de>>(deserializer: D) -> Result<(Come, Shape), D::Error> {
    let Form { element, extents } = Form::deserialize(deserializer)?;
    let take = || {
        let shape = Shape::try_from(&extents[..]).map_err(|error| error.to_string())?;
        if element != type_name::<T>() {
            return Err(format!("elements of type `{element}` have come, and not `{}`", type_name::<T>()));
        }
        let carrier = CARRIERS.first().ok_or(NO_CARRIER)?;
        let come = (carrier.unload)()?;
        come.check(shape, size_of::<T>())?;
        Ok((come, shape))
    };
    take().map_err(serde::de::Error::custom)
}

const NO_CARRIER: &str = "device memory is serialised in messages between the processes of a runtime only";

impl<T: DevicePod> Serialize for DeviceSlice<T> {
    /// # Errors
    /// Anywhere but in a message of the runtime.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        load::<T, S>(self.memory(), serializer)
    }
}

impl<'de, T: DevicePod> Deserialize<'de> for DeviceSlice<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        unload::<T, D>(deserializer).map(|(come, shape)| come.into_share(shape))
    }
}

impl<T: DevicePod> Serialize for DeviceVec<T> {
    /// # Errors
    /// Anywhere but in a message of the runtime.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        load::<T, S>(self.memory(), serializer)
    }
}

impl<'de, T: DevicePod> Deserialize<'de> for DeviceVec<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (come, shape) = unload::<T, D>(deserializer)?;
        come.into_buffer(shape).map_err(serde::de::Error::custom)
    }
}

impl<T> Serialize for HostVec<T> {
    /// # Errors
    /// Always.
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("a `HostVec` does not leave its process: send its values as a `Vec`"))
    }
}

impl<'de, T> Deserialize<'de> for HostVec<T> {
    fn deserialize<D: Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("a `HostVec` does not leave its process"))
    }
}
