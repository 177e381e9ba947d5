//! Limits of all that a process holds for others, the same on all ranks.

use crate::frame::Frame;
use crate::outbox::Refusal;

/// How much may be queued, in flight and in one frame. All ranks of a job need the same; `connect` compares them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest batch: what goes as one message of the network.
    pub batch_bytes: usize,
    /// The largest header or buffer that travels inside of a batch; larger ones travel by themselves, without a copy.
    pub inline_bytes: usize,
    /// The most buffers of a frame.
    pub buffers: usize,
    /// The largest frame, with its buffers.
    pub frame_bytes: u64,
    /// Bytes of batches that are on their way from one process to another.
    pub eager_window_bytes: u64,
    /// Bytes of large buffers that are on their way from one process to another. A frame that is larger travels alone.
    pub bulk_window_bytes: u64,
    /// The largest single message of the network: larger buffers are sent in pieces.
    pub chunk_bytes: usize,
    /// What may be queued for a rank before [`Outbox::send`](crate::Outbox::send) answers
    /// [`Queued::Pressed`](crate::Queued::Pressed). Need not be the same on all ranks.
    pub queue_bytes: u64,
    /// Whether batches and buffers sent from here carry checksums. Need not be the same on all ranks.
    pub checksums: bool,
}

/// A buffer costs at least this part of the bulk window, so that the window bounds their number too.
const MOST_BUFFERS_IN_FLIGHT: u64 = 128;

impl Default for Limits {
    /// 64 KiB a batch; 1 MiB and 128 MiB in flight; 64 GiB a frame; checksums in debug builds.
    fn default() -> Self {
        Limits {
            batch_bytes: 64 << 10,
            inline_bytes: 8 << 10,
            buffers: 1024,
            frame_bytes: 64 << 30,
            eager_window_bytes: 1 << 20,
            bulk_window_bytes: 128 << 20,
            chunk_bytes: 1 << 30,
            queue_bytes: 64 << 20,
            checksums: cfg!(debug_assertions),
        }
    }
}

impl Limits {
    /// The numbers that ranks must agree on.
    pub(crate) fn shared(&self) -> [u64; 7] {
        [
            self.batch_bytes as u64,
            self.inline_bytes as u64,
            self.buffers as u64,
            self.frame_bytes,
            self.eager_window_bytes,
            self.bulk_window_bytes,
            self.chunk_bytes as u64,
        ]
    }

    /// What is wrong with them, if anything is.
    pub(crate) fn flaw(&self) -> Option<String> {
        let least_batch = crate::wire::least_batch_bytes(self.buffers);
        if self.buffers > usize::from(u16::MAX) - 1 {
            Some(format!(
                "buffers: {} are more than the {} that a frame can have",
                self.buffers,
                u16::MAX - 1
            ))
        } else if self.batch_bytes < least_batch || self.batch_bytes > 1 << 30 {
            Some(format!(
                "batch_bytes: {}: a frame of {} buffers needs {least_batch}, and 1 GiB is the most",
                self.batch_bytes, self.buffers
            ))
        } else if self.eager_window_bytes < 4 * self.batch_bytes as u64 {
            Some(format!(
                "eager_window_bytes: {}: four batches, {}, are the least",
                self.eager_window_bytes,
                4 * self.batch_bytes
            ))
        } else if !(MOST_BUFFERS_IN_FLIGHT..=1 << 46).contains(&self.bulk_window_bytes) {
            Some(format!(
                "bulk_window_bytes: {}: give {MOST_BUFFERS_IN_FLIGHT} bytes to 64 TiB",
                self.bulk_window_bytes
            ))
        } else if self.chunk_bytes == 0 || self.chunk_bytes > i32::MAX as usize {
            Some(format!("chunk_bytes: {}: give 1 to {}", self.chunk_bytes, i32::MAX))
        } else if self.frame_bytes > 1 << 46 {
            Some(format!("frame_bytes: {}: 64 TiB are the most", self.frame_bytes))
        } else {
            None
        }
    }

    /// How many bytes a frame has, if it may be sent. [`Outbox::send`](crate::Outbox::send) asks this; so can who only models a network.
    ///
    /// # Errors
    /// If it has too many buffers or bytes.
    pub fn admit(&self, frame: &Frame<'_>) -> Result<u64, Refusal> {
        if frame.buffers.len() > self.buffers {
            return Err(Refusal::TooManyBuffers { count: frame.buffers.len(), limit: self.buffers });
        }
        let bytes = frame.len_bytes();
        if bytes > self.frame_bytes {
            return Err(Refusal::TooLarge { bytes, limit: self.frame_bytes });
        }
        Ok(bytes)
    }

    /// What a buffer of this length takes of the bulk window.
    pub(crate) fn bulk_cost(&self, len: u64) -> u64 {
        len.max(self.bulk_window_bytes / MOST_BUFFERS_IN_FLIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_cannot_work_are_told() {
        assert_eq!(Limits::default().flaw(), None);
        type Spoil = fn(&mut Limits);
        let spoilt: [(&str, Spoil); 6] = [
            ("buffers", |l| l.buffers = 70_000),
            ("batch_bytes", |l| l.batch_bytes = 1000),
            ("eager_window_bytes", |l| l.eager_window_bytes = 100_000),
            ("bulk_window_bytes", |l| l.bulk_window_bytes = 5),
            ("chunk_bytes", |l| l.chunk_bytes = 0),
            ("frame_bytes", |l| l.frame_bytes = u64::MAX),
        ];
        for (name, spoil) in spoilt {
            let mut limits = Limits::default();
            spoil(&mut limits);
            let flaw = limits.flaw().expect(name);
            assert!(flaw.starts_with(name), "{flaw}");
        }
    }
}
