//! The calls of MPI that the engine uses, with results for return codes.
//!
//! The invariant: a communicator of ours returns errors instead of ending the process.

use std::ffi::{c_int, c_void};
use std::fmt;
use std::mem::MaybeUninit;

use ::mpi::ffi;

/// The one tag in use: order does what tags would do.
const TAG: c_int = 0;

/// Why a call has failed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    call: &'static str,
    code: c_int,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0_u8; 8192];
        let mut len = 0;
        // SAFETY: the text is longer than the longest of any MPI (MPI_MAX_ERROR_STRING is 512 or 8192 at most).
        let code = unsafe { ffi::MPI_Error_string(self.code, text.as_mut_ptr().cast(), &mut len) };
        let said = if code == 0 { &text[..(len as usize).min(text.len())] } else { &b"an unknown error"[..] };
        write!(f, "{}: {}", self.call, String::from_utf8_lossy(said))
    }
}

fn checked(call: &'static str, code: c_int) -> Result<(), Failure> {
    if code == ffi::MPI_SUCCESS as c_int { Ok(()) } else { Err(Failure { call, code }) }
}

/// A communicator of our own.
pub(super) struct Comm(ffi::MPI_Comm);

/// An operation in flight.
pub(super) type Request = ffi::MPI_Request;

/// How many bytes an ended receive has brought, and from whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ended {
    pub(super) source: u32,
    pub(super) bytes: usize,
}

impl Comm {
    /// A communicator of all processes, in which messages meet only each other.
    pub(super) fn duplicate_world() -> Result<Comm, Failure> {
        // SAFETY: MPI is started; the world is a communicator. All processes call this in the same order.
        unsafe {
            let mut comm = MaybeUninit::uninit();
            checked("MPI_Comm_dup", ffi::MPI_Comm_dup(ffi::RSMPI_COMM_WORLD, comm.as_mut_ptr()))?;
            let comm = Comm(comm.assume_init());
            checked(
                "MPI_Comm_set_errhandler",
                ffi::MPI_Comm_set_errhandler(comm.0, ffi::RSMPI_ERRORS_RETURN),
            )?;
            Ok(comm)
        }
    }

    pub(super) fn rank(&self) -> Result<u32, Failure> {
        let mut rank = 0;
        // SAFETY: the communicator is ours.
        checked("MPI_Comm_rank", unsafe { ffi::MPI_Comm_rank(self.0, &mut rank) })?;
        Ok(rank as u32)
    }

    pub(super) fn size(&self) -> Result<usize, Failure> {
        let mut size = 0;
        // SAFETY: the communicator is ours.
        checked("MPI_Comm_size", unsafe { ffi::MPI_Comm_size(self.0, &mut size) })?;
        Ok(size as usize)
    }

    /// Brings `mine` of each rank to `all`, in order of the ranks; waits for all.
    ///
    /// # Panics
    /// If `all` is not as long as `mine` of all ranks.
    pub(super) fn gather_all(&self, mine: &[u8], all: &mut [u8]) -> Result<(), Failure> {
        assert_eq!(all.len(), mine.len() * self.size()?, "room for all");
        let count = mine.len() as c_int;
        // SAFETY: `all` has room for as many bytes of each rank as each sends.
        checked("MPI_Allgather", unsafe {
            ffi::MPI_Allgather(
                mine.as_ptr().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                all.as_mut_ptr().cast(),
                count,
                ffi::RSMPI_UINT8_T,
                self.0,
            )
        })
    }

    /// Begins to send.
    ///
    /// # Safety
    /// The `len` bytes stay where they are, and nobody writes them, until the request has ended.
    pub(super) unsafe fn send(&self, bytes: *const u8, len: usize, to: u32) -> Result<Request, Failure> {
        let mut request = MaybeUninit::uninit();
        // SAFETY: as the caller promises.
        unsafe {
            checked(
                "MPI_Isend",
                ffi::MPI_Isend(
                    bytes.cast::<c_void>(),
                    len as c_int,
                    ffi::RSMPI_UINT8_T,
                    to as c_int,
                    TAG,
                    self.0,
                    request.as_mut_ptr(),
                ),
            )?;
            Ok(request.assume_init())
        }
    }

    /// Begins to receive, from a rank or from any.
    ///
    /// # Safety
    /// The `len` bytes stay where they are, and nobody else touches them, until the request has ended.
    pub(super) unsafe fn receive(
        &self,
        bytes: *mut u8,
        len: usize,
        from: Option<u32>,
    ) -> Result<Request, Failure> {
        let mut request = MaybeUninit::uninit();
        // SAFETY: as the caller promises.
        unsafe {
            let source = from.map_or(ffi::RSMPI_ANY_SOURCE, |rank| rank as c_int);
            checked(
                "MPI_Irecv",
                ffi::MPI_Irecv(
                    bytes.cast::<c_void>(),
                    len as c_int,
                    ffi::RSMPI_UINT8_T,
                    source,
                    TAG,
                    self.0,
                    request.as_mut_ptr(),
                ),
            )?;
            Ok(request.assume_init())
        }
    }

    /// Frees the communicator; all its requests have ended.
    pub(super) fn free(mut self) {
        // SAFETY: it is ours, and used no more. A failure at the end is of no consequence.
        unsafe { ffi::MPI_Comm_free(&mut self.0) };
    }
}

/// The number of processes of the program.
pub(super) fn world_size() -> Result<usize, Failure> {
    let mut size = 0;
    // SAFETY: MPI is started; the world is a communicator.
    checked("MPI_Comm_size", unsafe { ffi::MPI_Comm_size(ffi::RSMPI_COMM_WORLD, &mut size) })?;
    Ok(size as usize)
}

/// The number of this process among those of the program.
pub(super) fn world_rank() -> Result<u32, Failure> {
    let mut rank = 0;
    // SAFETY: MPI is started; the world is a communicator.
    checked("MPI_Comm_rank", unsafe { ffi::MPI_Comm_rank(ffi::RSMPI_COMM_WORLD, &mut rank) })?;
    Ok(rank as u32)
}

/// Whether a request has ended; makes progress.
pub(super) fn test(request: &mut Request) -> Result<Option<Ended>, Failure> {
    let (mut flag, mut status) = (0, MaybeUninit::zeroed());
    // SAFETY: the request came from a communicator of ours; a status of zeros is one.
    unsafe {
        checked("MPI_Test", ffi::MPI_Test(request, &mut flag, status.as_mut_ptr()))?;
        if flag == 0 { Ok(None) } else { ended(status.assume_init_ref()).map(Some) }
    }
}

/// Whether a send has ended.
pub(super) fn test_send(request: &mut Request) -> Result<bool, Failure> {
    let mut flag = 0;
    // SAFETY: the request came from a communicator of ours.
    unsafe { checked("MPI_Test", ffi::MPI_Test(request, &mut flag, ffi::RSMPI_STATUS_IGNORE))? };
    Ok(flag != 0)
}

/// Gives up a receive that nothing will come for.
pub(super) fn cancel(mut request: Request) {
    // SAFETY: the request came from a communicator of ours. A failure at the end is of no consequence.
    unsafe {
        ffi::MPI_Cancel(&mut request);
        ffi::MPI_Wait(&mut request, ffi::RSMPI_STATUS_IGNORE);
    }
}

/// Waits for all processes of the program.
pub(super) fn wait_for_all() {
    // SAFETY: MPI is started, and not finalised. A failure at the end is of no consequence.
    unsafe { ffi::MPI_Barrier(ffi::RSMPI_COMM_WORLD) };
}

/// Ends all processes of the program.
pub(super) fn abort(exit_code: i32) {
    // SAFETY: MPI is started.
    unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, exit_code) };
}

/// Has this process end at once when it aborts. Libraries of MPI would write first where it was, for which they wait as long as nobody reads it.
pub(crate) fn die_silently() {
    // SAFETY: nobody has a handler of this signal called after that, which is what a process begins with.
    unsafe { libc::signal(libc::SIGABRT, libc::SIG_DFL) };
}

fn ended(status: &ffi::MPI_Status) -> Result<Ended, Failure> {
    let mut count = 0;
    // SAFETY: the status is that of a request that has ended.
    checked("MPI_Get_count", unsafe { ffi::MPI_Get_count(status, ffi::RSMPI_UINT8_T, &mut count) })?;
    Ok(Ended { source: status.MPI_SOURCE as u32, bytes: count.max(0) as usize })
}

/// Which of many requests have ended.
#[derive(Default)]
pub(super) struct Completions {
    indices: Vec<c_int>,
    statuses: Vec<MaybeUninit<ffi::MPI_Status>>,
}

impl Completions {
    /// Looks at all requests, makes progress, and calls `each` with the index and the outcome of those that have ended. Their
    /// places in `requests` are void then.
    pub(super) fn test_some(
        &mut self,
        requests: &mut [Request],
        mut each: impl FnMut(usize, Result<Ended, Failure>),
    ) -> Result<(), Failure> {
        self.indices.resize(requests.len(), 0);
        self.statuses.resize_with(requests.len(), MaybeUninit::zeroed);
        let (count, mut ended_count) = (requests.len() as c_int, 0);
        // SAFETY: all requests came from communicators of ours, and there is room for what is said of each.
        let code = unsafe {
            ffi::MPI_Testsome(
                count,
                requests.as_mut_ptr(),
                &mut ended_count,
                self.indices.as_mut_ptr(),
                self.statuses.as_mut_ptr().cast(),
            )
        };
        let has_failed = code == ffi::MPI_ERR_IN_STATUS as c_int;
        if !has_failed {
            checked("MPI_Testsome", code)?;
        }
        // All requests may have been void, which is said by a number of its own.
        let ended_count = (ended_count.max(0) as usize).min(requests.len());
        for (index, status) in self.indices.iter().zip(&self.statuses).take(ended_count) {
            // SAFETY: made of zeros, which are a status, and written by MPI.
            let status = unsafe { status.assume_init_ref() };
            let outcome = match status.MPI_ERROR {
                code if has_failed && code != ffi::MPI_SUCCESS as c_int => {
                    Err(Failure { call: "MPI_Testsome", code })
                }
                _ => ended(status),
            };
            each(*index as usize, outcome);
        }
        Ok(())
    }
}

/// What MPI says of whether it sends and receives memory of CUDA devices; nothing, if it is of those that say nothing.
pub(super) fn query_cuda() -> Option<bool> {
    // No header of ours has it, since it is an extension of some libraries.
    // SAFETY: the name ends with a zero byte.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"MPIX_Query_cuda_support".as_ptr()) };
    // SAFETY: where there is such a function it has this type.
    let query = unsafe { std::mem::transmute::<*mut c_void, Option<extern "C" fn() -> c_int>>(found) };
    query.map(|query| query() == 1)
}

/// Has the allocator keep what is freed for what is allocated next. Large buffers are received to memory of their own: if each is given back to the system
/// when it is freed, the next one comes in pages that the system has to clear, which takes three times as long as to receive it.
pub(super) fn keep_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// As large as it may be.
        const MMAP_THRESHOLD: c_int = 32 << 20;
        const TRIM_THRESHOLD: c_int = 1 << 30;
        let names = ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"];
        if names.iter().all(|name| std::env::var_os(name).is_none()) {
            // SAFETY: these say only what the allocator keeps.
            unsafe {
                libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
                libc::mallopt(libc::M_TRIM_THRESHOLD, TRIM_THRESHOLD);
            }
        }
    }
}
