//! What travels beside the header of a message: plain memory of the host, and shares of device memory.
//!
//! A share is put beside a message when that is encoded, and is bytes of the host when it has come, or memory that the other process lends. In
//! between, when it is known where the message goes, the bytes are copied, or the share is kept there (`job/staged.rs`). Of what is encoded and read
//! again in its process the share itself is taken out. Where MPI reaches devices, what goes and what comes are buffers of the network's that are memory of a device
//! (`job/straight.rs`).

use std::any::Any;
use std::sync::Arc;

use chare_device::{
    __Arrival as Arrival, __CARRIERS, __Carrier as Carrier, __Come as Come, __Leaving as Leaving,
    __Offer as Offer,
};
use chare_transport::{Buffer, HostBuf};
use linkme::distributed_slice;
use serde::{Deserialize, Serialize};

use super::side;
use crate::current;

/// One thing beside a header.
#[derive(Debug)]
pub(crate) enum Beside {
    Host(Buffer),
    Device(Leaving),
    /// Memory of a device of this process that has been received to.
    Arrived(Arrival),
    /// Device memory that another process lends.
    Lent(Pledge),
    /// Device memory that has come, and that nobody can read.
    Spoiled(Spoiled),
}

/// What memory can be opened by that another process lends.
#[derive(Clone, Debug)]
pub(crate) struct Pledge {
    pub(crate) offer: Offer,
    /// Tells the lender when nobody has it any more.
    pub(crate) token: Arc<dyn Any + Send + Sync>,
}

/// Why device memory cannot be read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Spoiled {
    pub(crate) why: String,
    /// Somebody is told of it where it comes from.
    pub(crate) is_told: bool,
}

impl<B: Into<Buffer>> From<B> for Beside {
    fn from(buffer: B) -> Self {
        Beside::Host(buffer.into())
    }
}

impl Beside {
    /// What the network has brought.
    pub(crate) fn come(buffer: Buffer) -> Self {
        match buffer {
            Buffer::Device(memory) if memory.owner().is::<Arrival>() => {
                let arrival = memory.into_owner().downcast::<Arrival>();
                Beside::Arrived(*arrival.expect("it has been asked"))
            }
            buffer => Beside::Host(buffer),
        }
    }

    /// Whether it can go as it is.
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Beside::Host(_))
    }

    /// The memory, where it is the host's.
    pub(crate) fn into_host(self) -> Option<Buffer> {
        match self {
            Beside::Host(buffer) => Some(buffer),
            Beside::Device(_) | Beside::Arrived(_) | Beside::Lent(_) | Beside::Spoiled(_) => None,
        }
    }

    /// The same once more: plain memory of the host in memory of its own, that of devices shared.
    pub(crate) fn copied(&self) -> Beside {
        let nobodys =
            || Beside::Spoiled(Spoiled { why: "its buffer is nobody's here".to_owned(), is_told: false });
        match self {
            // It is never written where it is.
            Beside::Arrived(arrival) => Beside::Device(arrival.share()),
            Beside::Host(buffer) => buffer.copied().map_or_else(nobodys, Beside::Host),
            Beside::Device(leaving) => Beside::Device(leaving.clone()),
            Beside::Lent(pledge) => Beside::Lent(pledge.clone()),
            Beside::Spoiled(spoiled) => Beside::Spoiled(spoiled.clone()),
        }
    }
}

/// What device memory travels by.
#[distributed_slice(__CARRIERS)]
static CARRIER: Carrier = Carrier { load, unload };

fn load(leaving: Leaving) -> Result<(), String> {
    if !side::is_encoding() {
        return Err("device memory is serialised in messages of the runtime only".to_owned());
    }
    // However many there are: what is more than a frame takes is packed (`job/packed`).
    side::add_buffer(usize::MAX, || Beside::Device(leaving));
    Ok(())
}

fn unload() -> Result<Come, String> {
    if !side::is_decoding() {
        return Err("device memory is deserialised from messages of the runtime only".to_owned());
    }
    let beside = side::take_buffer().ok_or("its buffer did not come")?;
    match beside {
        Beside::Device(leaving) => Ok(Come::share(leaving)),
        Beside::Lent(Pledge { offer, token }) => current::on_pe("device memory from another process", |pe| {
            Ok(Come::borrowed(pe.shared().devices(), &offer, Box::new(token)))
        }),
        Beside::Spoiled(Spoiled { why, is_told }) => {
            current::on_pe("device memory from another process", |pe| {
                Ok(Come::spoiled(pe.shared().devices(), why, is_told))
            })
        }
        Beside::Arrived(arrival) => Ok(Come::arrived(arrival)),
        Beside::Host(buffer) => {
            let memory = buffer.into_host().map_err(|_| "its buffer is not the host's")?;
            let bytes = Box::new(Landed(memory));
            current::on_pe("device memory from another process", |pe| {
                Ok(Come::bytes(pe.shared().devices(), bytes))
            })
        }
    }
}

/// Bytes that the network has brought.
struct Landed(HostBuf);

impl AsRef<[u8]> for Landed {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use chare_device::{DeviceSlice, DeviceVec};

    use super::*;
    use crate::wire::{Decoder, Encoder, WireError};
    use crate::{Options, Runtime};

    fn taken<T: serde::Deserialize<'static>>(bytes: &[u8], beside: Vec<Beside>) -> Result<T, WireError> {
        let mut decoder = Decoder::new(bytes, beside);
        let value = decoder.take()?;
        decoder.end()?;
        Ok(value)
    }

    #[test]
    fn what_comes_is_checked_and_never_has_two_owners() {
        let report = Runtime::run(Options::default(), async |_: Runtime| {
            let account = current::on_pe("a test", |pe| pe.shared().devices().get(0).account("me"));
            let mut buffer = account.upload(vec![1.0_f64, 2.0, 3.0]).expect("memory");
            let mut encoder = Encoder::default();
            encoder.put(&buffer).expect("a message is being encoded");
            let Encoder { bytes, buffers, .. } = encoder;
            let same = || buffers.iter().map(Beside::copied).collect::<Vec<_>>();
            let come = |count: usize| vec![Beside::from(vec![2.5_f64; count])];

            assert!(taken::<DeviceSlice<f64>>(&bytes, Vec::new()).is_err(), "nothing came");
            assert!(taken::<DeviceSlice<u64>>(&bytes, come(3)).is_err(), "the elements are others");
            for count in [0, 2, 4] {
                assert!(taken::<DeviceVec<f64>>(&bytes, come(count)).is_err(), "{count} came");
            }
            for len in 0..bytes.len() {
                assert!(taken::<DeviceSlice<f64>>(&bytes[..len], come(3)).is_err(), "{len} bytes");
            }
            assert!(postcard::to_allocvec(&buffer).is_err(), "that is no message");

            let spoiled = Spoiled { why: "it has failed".to_owned(), is_told: true };
            let spoiled: DeviceVec<f64> = taken(&bytes, vec![Beside::Spoiled(spoiled)]).expect("it has come");
            // Also what is read again where it has come.
            let mut encoder = Encoder::default();
            encoder.put(&spoiled).expect("a message is being encoded");
            let again: DeviceVec<f64> = taken(&encoder.bytes, encoder.buffers).expect("it has not left");
            for spoiled in [spoiled, again] {
                assert_eq!(spoiled.len(), 3);
                let read = account.download(&spoiled).expect("it is enqueued").wait();
                assert!(read.expect_err("nobody can read it").to_string().contains("it has failed"));
            }

            let landed: DeviceSlice<f64> = taken(&bytes, come(3)).expect("three have come");
            assert_eq!(account.download(&landed).expect("it is there").wait().expect("it is"), [2.5; 3]);
            let share: DeviceSlice<f64> = taken(&bytes, same()).expect("it has not left");
            let mut other: DeviceVec<f64> = taken(&bytes, same()).expect("it has not left");
            drop(buffers);
            for written in [&mut buffer, &mut other] {
                let zeros = account.host_vec(3).expect("memory");
                account.write(written, zeros).expect("it is there").wait().expect("it is written");
                assert_eq!(account.download(written).expect("it is there").wait().expect("it is"), [0.0; 3]);
                let values = account.download(&share).expect("it is there").wait().expect("it is");
                assert_eq!(values, [1.0, 2.0, 3.0]);
            }
        });
        let report = report.expect("the host device is always there");
        assert!(report.is_success(), "{report}");
    }
}
