//! Device memory that MPI sends from where it lies, and receives to memory of a device.
//!
//! A message with such memory waits in its lane (`staged`) until what writes the memory has ended, as one whose memory is lent does. Then the share goes to the
//! network as a buffer of its own kind, which keeps it until it has been sent. The receiver makes memory when the buffer is announced, on the first device
//! of the PE that the frame is for, and gets it with the frame; where there is no room it comes to the host's memory, as if it had been staged. No stream
//! and no kernel has the memory before the whole message is there (`device/src/arrival.rs`).
//!
//! Pinned memory of the host that copies from and to devices use (`pipeline`) is such a buffer too: all networks reach it, and it stays where it is.
//!
//! Whether MPI reaches the devices is tried before the run, by a sample of four bytes from a device of each process to one of the next.

use std::ptr::NonNull;
use std::thread;

use chare_device::{__Arrival as Arrival, __Come as Come, __Leaving as Leaving, HostVec};
use chare_transport::{Buffer, DeviceBuf, Driver, Frame, Outbox, Progress, Rank};

use super::coming;
use crate::binding::BoundDevices;
use crate::process::Shared;

/// A share as what the network sends; none if it has no place of its own.
pub(super) fn to_send(share: Leaving) -> Result<Buffer, Leaving> {
    let Some((start, len)) = share.place() else { return Err(share) };
    // SAFETY: what wrote the memory has ended, which the message has waited for; a share is not written, and lives as long as the buffer.
    Ok(unsafe { DeviceBuf::new(start, len, Box::new(share)) }.into())
}

/// Pinned memory of the host as what the network sends, or receives to. It is memory of devices too, for them.
pub(super) fn of_pinned(mut bytes: HostVec<u8>) -> DeviceBuf {
    let (start, len) = (NonNull::from(&mut *bytes).cast(), bytes.len());
    // SAFETY: it is there, and nobody else's, as long as the vector is in the box, which nobody looks into before the buffer has gone.
    unsafe { DeviceBuf::new(start, len, Box::new(bytes)) }
}

/// Memory to be received to.
fn to_receive(devices: &BoundDevices, ordinal: usize, len: usize) -> Option<DeviceBuf> {
    let arrival = devices.arrival(ordinal, len)?;
    // SAFETY: so many bytes are there as long as the arrival lives, and nobody else has them.
    Some(unsafe { DeviceBuf::new(arrival.address(), len, Box::new(arrival)) })
}

/// Memory for what is announced beside the header of a frame.
pub(super) fn make_room(shared: &Shared, header: &[u8], len: usize) -> Option<DeviceBuf> {
    if !shared.job()?.paths.sends() {
        return None;
    }
    // What stands before other messages is no number of a PE; they are for any.
    let to = header.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    to_receive(shared.devices(), coming::device_of(shared, to)?, len)
}

/// Sends a sample from a device to the next process, and receives that of the one before: all processes do so at once, and have sent nothing else. Why
/// nothing has come, if nothing has.
pub(super) fn exchange(outbox: &Outbox, driver: &mut Driver, devices: &BoundDevices) -> Result<(), String> {
    let (own, size) = (outbox.facts().rank().index(), outbox.facts().size());
    let (next, before) = ((own + 1) % size, (own + size - 1) % size);
    let ordinal = devices.of_pe(0)[0];
    let sample = devices.sample_of(ordinal, word(own));
    let mut room = to_receive(devices, ordinal, size_of::<u32>());
    driver.set_device_memory(move |_, _, _| room.take());
    let buffer = sample.as_ref().ok().cloned().and_then(|sample| to_send(sample).ok());
    // The other one is told in any case, and waits for it.
    let frame = Frame { header: &[], buffers: buffer.into_iter().collect() };
    if outbox.send(Rank(next as u32), frame).is_err() {
        return Err("the transport is closed".to_owned());
    }
    let mut came = None;
    while came.is_none() {
        let progress = driver.poll(&mut |_, frame| came = Some(frame.buffers.into_iter().next()));
        if progress.map_err(|error| error.to_string())? != Progress::Busy {
            thread::yield_now();
        }
    }
    sample?;
    let Some(Some(Buffer::Device(memory))) = came else { return Err("no sample came".to_owned()) };
    let arrival = memory.into_owner().downcast::<Arrival>().map_err(|_| "the sample came to other memory")?;
    if devices.word_of(Come::arrived(*arrival))? == word(before) {
        return Ok(());
    }
    Err("the sample came with other contents".to_owned())
}

/// What a rank sends.
fn word(rank: usize) -> u32 {
    0x5A3C_96E1 ^ rank as u32
}
