//! Why a driver cannot go on, and why a job does not start.

use crate::frame::Rank;
use crate::wire::WireError;

/// Why a driver cannot go on. It answers every later call with the same.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A peer has sent what is no part of the protocol.
    #[error("{rank} has sent what cannot be understood: {what}")]
    Corrupt {
        /// Who.
        rank: Rank,
        /// What is wrong.
        what: WireError,
    },
    /// A peer has ended without closing.
    #[error("{rank} is lost: {why}")]
    Lost {
        /// Who.
        rank: Rank,
        /// How that is known.
        why: String,
    },
    /// This process was taken for lost by its peers, and the job goes on without it.
    #[error("the other processes took this one, {rank}, for lost: {why}")]
    Missed {
        /// This process.
        rank: Rank,
        /// How they knew.
        why: String,
    },
    /// A process has ended its part badly, and said so to those who watch.
    #[error("{rank} has ended the run with exit code {code}")]
    Ended {
        /// Who.
        rank: Rank,
        /// With which exit code.
        code: i32,
    },
    /// A peer has ended the job.
    #[error("{by} has ended the job: {reason}")]
    Aborted {
        /// Who.
        by: Rank,
        /// Why, in its words.
        reason: String,
    },
    /// The network has failed, of which peer is not known.
    #[error("the network has failed: {0}")]
    Network(String),
    /// The network may be used by the thread that started it only, and this is another.
    #[error("MPI granted {granted}: only the thread that started it may drive it, and this is another")]
    WrongThread {
        /// The thread level that was granted.
        granted: &'static str,
    },
}

/// Why a job does not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// Two ranks were built from different sources or with different settings.
    #[error(
        "{one} and {other} cannot work together: {what} of {one} is {one_has}, of {other} {other_has}; run the same program on all ranks"
    )]
    Mismatch {
        /// What differs.
        what: &'static str,
        /// A rank.
        one: Rank,
        /// What it has.
        one_has: String,
        /// Another rank.
        other: Rank,
        /// What that has.
        other_has: String,
    },
    /// A rank did not introduce itself as ranks do.
    #[error("{0} runs a program that is none of ours, or one of a very different version")]
    Stranger(Rank),
    /// The limits cannot work.
    #[error("these limits cannot work: {0}")]
    Limits(String),
    /// The launcher is that of another library: each process is alone for MPI, and would do by itself what all are to do.
    #[error(
        "{started} processes were started by a launcher that the MPI of this program, {library}, knows nothing of: use the `mpirun` that comes with it"
    )]
    OtherLauncher {
        /// How many processes the launcher has started.
        started: usize,
        /// The library that this program uses, in its own words.
        library: String,
    },
    /// The network does not start.
    #[error("the network does not start: {0}")]
    Network(String),
}
