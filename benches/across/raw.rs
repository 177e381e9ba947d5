//! The same work by MPI's own calls, for one of two processes; the other one calls the same function at the same time.
//!
//! Payloads lie in memory that is written once and used again, so nothing is allocated while the clock runs.

use std::time::{Duration, Instant};

use mpi::point_to_point::{Destination, Source};
use mpi::request::{WaitGuard, scope};
use mpi::topology::{Communicator, Process, SimpleCommunicator};

/// Messages that are under way together.
const WINDOW: usize = 64;

/// What the processes do.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Game {
    /// Each sends the payload back.
    OneWay { bytes: usize, rounds: u64 },
    /// So many payloads go one way.
    Stream { bytes: usize, count: usize },
    /// So many words go one way.
    Rate { count: u64 },
}

impl Game {
    /// Plays it, and says how long it took from the first message to the last, which tells the sender that all have come.
    pub(crate) fn play(self) -> Duration {
        let world = SimpleCommunicator::world();
        let leads = world.rank() == 0;
        let peer = world.process_at_rank(if leads { 1 } else { 0 });
        // The peer may not have begun yet.
        let mut word = [0_u8; 8];
        hop(&peer, leads, &mut word);
        match self {
            Game::OneWay { bytes, rounds } => {
                let mut payload = vec![1_u8; bytes];
                timed(|| (0..rounds).for_each(|_| hop(&peer, leads, &mut payload)))
            }
            Game::Stream { bytes, count } => {
                let mut payloads = vec![vec![1_u8; bytes]; count];
                timed(|| {
                    one_way(&peer, leads, payloads.iter_mut().map(Vec::as_mut_slice));
                    hop_back(&peer, leads, &mut word);
                })
            }
            Game::Rate { count } => {
                let mut words = [[0_u8; 8]; WINDOW];
                timed(|| {
                    for _ in 0..count / WINDOW as u64 {
                        one_way(&peer, leads, words.iter_mut().map(|word| &mut word[..]));
                    }
                    hop_back(&peer, leads, &mut word);
                })
            }
        }
    }
}

fn timed(f: impl FnOnce()) -> Duration {
    let start = Instant::now();
    f();
    start.elapsed()
}

/// There and back.
fn hop(peer: &Process<'_>, leads: bool, payload: &mut [u8]) {
    if leads {
        peer.send(payload);
        peer.receive_into(payload);
    } else {
        peer.receive_into(payload);
        peer.send(payload);
    }
}

/// From the one that follows to the one that leads.
fn hop_back(peer: &Process<'_>, leads: bool, payload: &mut [u8]) {
    if leads {
        peer.receive_into(payload);
    } else {
        peer.send(payload);
    }
}

/// From the one that leads to the one that follows, all at once.
fn one_way<'p>(peer: &Process<'_>, leads: bool, payloads: impl Iterator<Item = &'p mut [u8]>) {
    scope(|scope| {
        if leads {
            let sent = payloads.map(|bytes| WaitGuard::from(peer.immediate_send(scope, &*bytes)));
            drop(sent.collect::<Vec<_>>());
        } else {
            let came = payloads.map(|bytes| WaitGuard::from(peer.immediate_receive_into(scope, bytes)));
            drop(came.collect::<Vec<_>>());
        }
    });
}
