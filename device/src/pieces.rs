//! Device memory that leaves its process, and comes to a device, piece by piece, by way of pinned memory of the host.
//!
//! What leaves is a share, so nobody writes it while its pieces are copied, and each piece is an operation that reads it. What comes is written to memory that
//! nobody has had yet ([`Arrival`]), and each piece is an operation that updates it: the pieces come after each other, and whatever uses the memory later comes after
//! the pieces that have been put there by then, on the device. So who puts a piece waits for nothing, nor does who uses the memory, as long as all
//! pieces have been put before it is handed out.
//!
//! The host's memory of a piece belongs to its operation until that has ended, goes back to the pool of its devices then, and what was kept with it is dropped:
//! that is how the sender is told that it may send one more. How many pieces there are at a time is decided above (`core/src/job/pipeline.rs`).

use std::any::Any;

use crate::account::Account;
use crate::arrival::Arrival;
use crate::completion::{Completion, Prepared};
use crate::device::Devices;
use crate::error::DeviceError;
use crate::host_vec::HostVec;
use crate::operation::{AccessMode, Command, PIECE_ALIGN};
use crate::processes::Leaving;
use crate::shape::Shape;
use crate::usage::Direction;

impl Leaving {
    /// How long it is.
    pub fn len_bytes(&self) -> usize {
        self.memory().len_bytes()
    }

    /// The extents of its elements.
    pub fn extents(&self) -> Vec<usize> {
        self.memory().shape().extents().to_vec()
    }

    /// Whether it has to be copied to pinned memory before it can leave: it is neither in the host's memory nor has it come from another process.
    pub fn is_staged(&self) -> bool {
        let memory = self.memory();
        !memory.is_foreign() && !memory.device().facts.is_host_memory
    }
}

impl Account {
    /// Enqueues a copy of a piece of a share to pinned memory of the host, which has any contents until then.
    ///
    /// # Errors
    /// As for [`download`](Self::download), and if there is no such memory.
    ///
    /// # Panics
    /// If the piece is not within the share, or begins at an odd place.
    #[doc(hidden)]
    pub fn download_piece(
        &self,
        leaving: &Leaving,
        at_bytes: usize,
        len_bytes: usize,
    ) -> Result<Completion<HostVec<u8>>, DeviceError> {
        let memory = leaving.memory();
        assert!(at_bytes.is_multiple_of(PIECE_ALIGN) && at_bytes + len_bytes <= memory.len_bytes());
        let branch = self.branch_near(memory)?;
        let no_memory = DeviceError::HostMemory { len: len_bytes, elem_bytes: 1 };
        let mut to = HostVec::to_fill(&branch.device.host_pool, len_bytes).ok_or(no_memory)?;
        let operation =
            branch.operation_on(memory, AccessMode::Read, Command::Download(to.range_at(at_bytes)));
        branch.note_copied(Direction::ToHost, len_bytes);
        branch.submit("download", operation, Prepared::host(to))
    }
}

impl Devices {
    /// Pinned memory of the host, of any contents, for a piece that is to come; none if there is none.
    #[doc(hidden)]
    pub fn pinned(&self, len_bytes: usize) -> Option<HostVec<u8>> {
        HostVec::to_fill(&self.get(0).core().host_pool, len_bytes)
    }

    /// Memory of a device for so many bytes, which come in pieces and are elements of this shape; none if there is no room, as for
    /// [`arrival`](Self::arrival), or if no elements are so long.
    #[doc(hidden)]
    pub fn filling(&self, ordinal: usize, extents: &[usize], len_bytes: usize) -> Option<Filling> {
        let shape = Shape::try_from(extents).ok()?;
        let elem_bytes = len_bytes.checked_div(shape.len())?;
        if shape.len().checked_mul(elem_bytes) != Some(len_bytes) {
            return None;
        }
        let courier = Account::courier(self.get(ordinal).core(), "another process");
        let arrival = Arrival::reserve(&courier, shape, elem_bytes)?;
        Some(Filling { arrival, courier, put_bytes: 0 })
    }

    /// Whether the memory of the devices is the host's.
    #[doc(hidden)]
    pub fn are_host_memory(&self) -> bool {
        self.get(0).core().facts.is_host_memory
    }
}

/// Memory of a device that pieces from another process are put into.
#[doc(hidden)]
#[derive(Debug)]
pub struct Filling {
    arrival: Arrival,
    courier: Account,
    put_bytes: usize,
}

impl Filling {
    /// Enqueues a copy of the next piece. What is kept is dropped when that has ended, whatever has come of it.
    ///
    /// # Errors
    /// [`DeviceError::HostMemory`] if the piece is not in memory that these devices copy from, and there is none; [`DeviceError::Closed`].
    ///
    /// # Panics
    /// If there is no place for the piece.
    pub fn put(&mut self, mut piece: HostVec<u8>, kept: Box<dyn Any + Send>) -> Result<(), DeviceError> {
        let (memory, branch) = (self.arrival.memory(), self.courier.branch());
        let at_bytes = self.put_bytes;
        assert!(at_bytes.is_multiple_of(PIECE_ALIGN) && at_bytes + piece.len() <= memory.len_bytes());
        let pool = &branch.device.host_pool;
        if !piece.is_of(pool) {
            let no_memory = DeviceError::HostMemory { len: piece.len(), elem_bytes: 1 };
            let mut ours = HostVec::to_fill(pool, piece.len()).ok_or(no_memory)?;
            ours.copy_from_slice(&piece);
            piece = ours;
        }
        self.put_bytes += piece.len();
        branch.note_copied(Direction::FromHost, piece.len());
        let command = Command::Upload(piece.range_at(at_bytes));
        let operation = branch.operation_on(memory, AccessMode::Update, command);
        // The memory first: who is told may send more.
        let prepared = Prepared::keeping((piece, kept));
        branch.submit("upload", operation, prepared).map(drop)
    }

    /// The memory, when all pieces have been put.
    ///
    /// # Panics
    /// If some are missing.
    pub fn arrived(self) -> Arrival {
        assert_eq!(self.put_bytes, self.arrival.memory().len_bytes(), "all of it has been put");
        self.arrival
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::buffer::DeviceVec;
    use crate::spec::HostMode;

    /// Counts how often it is dropped.
    struct Told(Arc<AtomicUsize>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn open(spec: &str) -> Devices {
        Devices::open(&spec.parse().expect("a device"), HostMode::Inline).expect("it is there")
    }

    /// Whether there are devices of wgpu; says what is skipped without.
    fn has_adapter() -> bool {
        match Devices::open(&"wgpu".parse().expect("a device"), HostMode::Inline) {
            Ok(_) => true,
            Err(error) => {
                let required = std::env::var("REQUIRE_DEVICE").is_ok_and(|kinds| kinds.contains("wgpu"));
                assert!(!required, "REQUIRE_DEVICE wants wgpu, and there is {error}");
                eprintln!("skipped on wgpu: {error}");
                false
            }
        }
    }

    #[test]
    fn what_leaves_in_pieces_comes_whole() {
        let mut kinds = vec!["host:inline", "host:workers=2", "host:polled"];
        if has_adapter() {
            kinds.push("wgpu");
        }
        for (from, to) in kinds.iter().flat_map(|from| kinds.iter().map(move |to| (from, to))) {
            let (from, to) = (open(from), open(to));
            let account = from.get(0).account("me");
            let values: Vec<u8> = (0..1003).map(|i| (i * 7) as u8).collect();
            let buffer = account.upload(values.clone()).expect("memory");
            let leaving = Leaving::of(buffer.memory());
            assert_eq!((leaving.len_bytes(), leaving.extents()), (1003, vec![1003]));

            let mut filling = to.filling(0, &leaving.extents(), 1003).expect("there is room");
            let told = Arc::new(AtomicUsize::new(0));
            for (at, len) in [(0, 400), (400, 400), (800, 203)] {
                let piece = account.download_piece(&leaving, at, len).expect("it is enqueued").wait();
                let told = Told(told.clone());
                filling.put(piece.expect("it is copied"), Box::new(told)).expect("it is enqueued");
            }
            let came = DeviceVec::<u8>::new(filling.arrived().into_memory());
            let there = to.get(0).account("you");
            let seen = there.download(&came).expect("it is enqueued").wait().expect("it is copied");
            assert!(seen == values, "{from:?} to {to:?}");
            assert_eq!(told.load(Ordering::Relaxed), 3, "all have been put when what comes later has been");
        }
    }

    #[test]
    fn what_does_not_fit_is_not_filled() {
        let devices = open("host:polled:mem=1MiB");
        assert!(devices.filling(0, &[1 << 20], 1 << 20).is_none(), "there is no room");
        for (extents, bytes) in [(&[3, 5][..], 16), (&[0], 8), (&[2; 7], 128), (&[usize::MAX, 2], 8)] {
            assert!(devices.filling(0, extents, bytes).is_none(), "{extents:?} of {bytes} bytes");
        }
        let pinned = devices.pinned(100).expect("memory");
        assert_eq!(pinned.len(), 100);
    }
}
