//! What travels beside the header of a message: plain memory of the host, and shares of device memory.
//!
//! A share is put beside a message when that is encoded, and is bytes of the host when it has come. In between, when it is known where the
//! message goes, the bytes are copied (`job/staged.rs`). Of what is encoded and read again in its process the share itself is taken out.

use chare_device::{__CARRIERS, __Carrier as Carrier, __Come as Come, __Leaving as Leaving};
use chare_transport::{Buffer, HostBuf};
use linkme::distributed_slice;

use super::{MOST_BUFFERS, side};
use crate::current;

/// One thing beside a header.
#[derive(Debug)]
pub(crate) enum Beside {
    Host(Buffer),
    Device(Leaving),
}

impl<B: Into<Buffer>> From<B> for Beside {
    fn from(buffer: B) -> Self {
        Beside::Host(buffer.into())
    }
}

impl Beside {
    pub(crate) fn is_device(&self) -> bool {
        matches!(self, Beside::Device(_))
    }

    /// The memory, where it is the host's.
    pub(crate) fn into_host(self) -> Option<Buffer> {
        match self {
            Beside::Host(buffer) => Some(buffer),
            Beside::Device(_) => None,
        }
    }

    /// The same once more: plain memory in memory of its own.
    pub(crate) fn copied(&self) -> Beside {
        match self {
            Beside::Host(buffer) => Beside::Host(buffer.copied()),
            Beside::Device(leaving) => Beside::Device(leaving.clone()),
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
    if side::add_buffer(MOST_BUFFERS, || Beside::Device(leaving)) {
        return Ok(());
    }
    Err(format!("a message takes at most {MOST_BUFFERS} buffers to another process: send several messages"))
}

fn unload() -> Result<Come, String> {
    if !side::is_decoding() {
        return Err("device memory is deserialised from messages of the runtime only".to_owned());
    }
    let beside = side::take_buffer().ok_or("its buffer did not come")?;
    match beside {
        Beside::Device(leaving) => Ok(Come::share(leaving)),
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
