//! Frames between the processes of a job.
//!
//! This crate is apart because it knows nothing of chares: a *process* of a job has a [`Rank`], and sends *frames*, a small encoded
//! header and buffers beside it, to others. It is for runtimes with several threads in each process: any thread may send at any time, and one thread at a time
//! makes progress. The networks are [`local`], several processes in one program, and, with the feature `mpi`, MPI.
//!
//! The design, with the arguments for order, credit and end, is in `README.md` of this crate. It promises:
//!
//! * **Order.** Frames from one process to another arrive in the order in which they were sent, each once; their buffers with them.
//! * **No waiting.** [`Outbox::send`] and [`Driver::poll`] never wait. What has no room on the network is queued, and past a
//!   limit `send` says so ([`Queued::Pressed`]); nothing is lost.
//! * **Progress** is made in `poll` only, at both ends.
//! * **Few messages.** Frames for one rank that are queued between two polls travel as one.
//! * **No copies of what is large.** Large buffers are sent from the memory in which they are given, and received into the memory in which
//!   they stay. A `Vec` goes in, a `Vec` comes out.
//! * **Bounds.** What a process holds for another is bounded by [`Limits`], whatever that other sends.
//! * **Nothing that is received is trusted.** What is truncated, flipped or oversized is an error with the sender's rank.
//! * **One start, one end.** Ranks that were built differently refuse to start; [`Driver::close`] ends when all that was sent has
//!   been delivered; [`Driver::abort`] ends the job everywhere and says why; a process that goes without either is an error
//!   for the others.
//!
//! [`local::connect`] shows a whole program.

mod batch;
mod buffer;
mod driver;
mod error;
mod facts;
mod frame;
mod launcher;
mod limits;
pub mod local;
#[cfg(feature = "mpi")]
pub mod mpi;
pub mod network;
mod outbox;
mod protocol;
mod start;
#[cfg_attr(
    not(feature = "mpi"),
    allow(dead_code, reason = "without MPI there are no processes that could be lost")
)]
mod watch;
mod wire;
mod words;

pub use batch::Batch;
pub use buffer::{Buffer, DeviceBuf, HostBuf, Landing, MOST_ALIGN};
pub use driver::{Driver, Progress};
pub use error::{ConnectError, Error};
pub use facts::{Facts, Host, ThreadLevel};
pub use frame::{Frame, Rank};
pub use launcher::{is_launched, launched_size};
pub use limits::Limits;
pub use network::Nap;
pub use outbox::{Outbox, Queued, Refusal, SendError};
pub use start::{Identity, Process};
pub use watch::{Alarm, Heartbeat, Herald};
pub use wire::WireError;
pub use words::{abort_after, say_within};
