//! Messages with more buffers than a frame takes: device memory, of which each share has one, and what a chare that moves has not read yet, however much there
//! is. The last of them are put into one buffer, in their order, and taken out of it where they come. That copies them twice, which only these messages
//! pay for. What is for all PEs is packed for each process, and comes apart in each before it goes on.

use chare_transport::{Buffer, Frame, HostBuf, MOST_ALIGN};

use super::PACKED;
use crate::wire::{Beside, Decoder, Encoder, WireError};

/// How long each of the buffers is, and what it is aligned to.
type Parts = Vec<(usize, usize)>;

/// The header of the frame, which has so many buffers at most from here on, if it has more. None if it has not, or if some of the last ones are no memory
/// of the host's: then nothing has changed.
#[cold]
pub(super) fn pack(frame: &mut Frame<'_>, most: usize) -> Option<Vec<u8>> {
    if frame.buffers.len() <= most {
        return None;
    }
    let (kept, last) = frame.buffers.split_at(most - 1);
    let last: Option<Vec<&HostBuf>> = last
        .iter()
        .map(|buffer| match buffer {
            Buffer::Host(memory) => Some(memory),
            _ => None,
        })
        .collect();
    let last = last?;
    let parts: Parts = last.iter().map(|memory| (memory.len(), memory.align().min(MOST_ALIGN))).collect();
    let mut bytes = Vec::with_capacity(parts.iter().map(|(len, _)| len).sum());
    last.iter().for_each(|memory| bytes.extend_from_slice(memory.as_bytes()));
    let mut encoder = Encoder::default();
    encoder.put_u32(PACKED);
    encoder.put_own(&parts);
    encoder.bytes.extend_from_slice(frame.header);
    let kept = kept.len();
    frame.buffers.truncate(kept);
    frame.buffers.push(bytes.into());
    Some(encoder.bytes)
}

/// Undoes `pack`, behind the word that says so.
pub(super) fn unpack(from: &mut Decoder<'_>) -> Result<(), WireError> {
    let parts: Parts = from.take()?;
    let wrong = || WireError::new("its last buffer is not what it says to be put together from");
    let packed = from.take_last_buffer().and_then(Beside::into_host).ok_or_else(wrong)?;
    let packed = packed.into_host().map_err(|_| wrong())?;
    let (mut bytes, mut buffers) = (packed.as_bytes(), Vec::new());
    for (len, align) in parts {
        let is_aligned = align.is_power_of_two() && align <= MOST_ALIGN;
        let (part, rest) = bytes.split_at_checked(len).filter(|_| is_aligned).ok_or_else(wrong)?;
        buffers.push(Beside::come(HostBuf::copied(part, align).into()));
        bytes = rest;
    }
    from.add_buffers(buffers);
    if bytes.is_empty() { Ok(()) } else { Err(wrong()) }
}

/// Passes over what `unpack` takes.
pub(super) fn skip(from: &mut Decoder<'_>) -> Result<(), WireError> {
    from.take::<Parts>().map(drop)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Of so many buffers, some of them empty, some of them aligned.
    fn frame(header: &[u8], count: usize) -> Frame<'_> {
        let buffer = |number: usize| -> Buffer {
            match number % 3 {
                0 => vec![number as u64; number % 7].into(),
                1 => vec![number as u8; number % 5].into(),
                _ => HostBuf::copied(&[number as u8; 9], 64).into(),
            }
        };
        Frame { header, buffers: (0..count).map(buffer).collect() }
    }

    fn contents(buffers: impl IntoIterator<Item = Buffer>) -> Vec<(Vec<u8>, bool)> {
        let host = |buffer: Buffer| buffer.into_host().expect("memory of the host");
        let content = |memory: HostBuf| {
            (memory.as_bytes().to_vec(), memory.as_bytes().as_ptr().addr().is_multiple_of(8))
        };
        buffers.into_iter().map(|buffer| content(host(buffer))).collect()
    }

    #[test]
    fn what_was_packed_comes_apart_as_it_was() {
        assert!(pack(&mut frame(b"header", 4), 4).is_none(), "so many are not too many");
        for count in [5, 6, 100] {
            let mut packed = frame(b"header", count);
            let header = pack(&mut packed, 4).expect("all are memory of the host");
            assert_eq!(packed.buffers.len(), 4);
            let mut decoder = Decoder::new(&header, packed.buffers.into_iter().map(Beside::come).collect());
            assert_eq!(decoder.take_u32().expect("a word"), PACKED);
            unpack(&mut decoder).expect("it was packed");
            assert_eq!(decoder.bytes_left(), 6);
            let came: Vec<Buffer> = (0..count)
                .map(|_| decoder.take_buffer().ok().and_then(Beside::into_host).expect("one of them"))
                .collect();
            let (came, sent) = (contents(came), contents(frame(b"header", count).buffers));
            for ((came, is_aligned), (sent, was_aligned)) in came.into_iter().zip(sent) {
                assert!(came == sent && (is_aligned || !was_aligned || came.is_empty()));
            }
        }
    }

    #[test]
    fn what_is_said_of_it_is_checked() {
        for parts in [
            vec![(4_usize, 1_usize)],
            vec![(2, 1)],
            vec![(3, 3)],
            vec![(3, MOST_ALIGN * 2)],
            vec![(usize::MAX, 1), (4, 1)],
        ] {
            let mut encoder = Encoder::default();
            encoder.put_own(&parts);
            let buffer = Buffer::from(vec![1_u8, 2, 3]);
            let mut decoder = Decoder::new(&encoder.bytes, vec![Beside::come(buffer)]);
            assert!(unpack(&mut decoder).is_err(), "{parts:?}");
        }
        let mut encoder = Encoder::default();
        encoder.put_own(&vec![(0_usize, 1_usize)]);
        assert!(unpack(&mut Decoder::new(&encoder.bytes, Vec::new())).is_err());
    }
}
