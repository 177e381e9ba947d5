//! What a simulated run comes to: its modelled time, its messages, and what tells it from other runs.

use std::fmt;
use std::time::Duration;

use super::rng::mix;

/// What a simulated run has come to, from [`crate::ExitReport::simulation`]. `#[chare::main]` prints it on standard error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Simulation {
    /// What was simulated, as `--sim` takes it.
    pub spec: String,
    /// How many PEs there were.
    pub pes: usize,
    /// The time on the virtual clock at the end.
    pub time: Duration,
    /// How long each PE was busy.
    pub busy: Vec<Duration>,
    /// Messages taken from queues, and coroutines resumed.
    pub steps: u64,
    /// Messages between PEs of one process.
    pub within_processes: Carried,
    /// Messages between processes of one host. What is for all PEs of a process is one.
    pub between_processes: Carried,
    /// Messages between hosts.
    pub between_hosts: Carried,
    /// Chares that were moved at random (`:migrate=`).
    pub migrations: u64,
    /// A number made of all that has happened, in order: two runs with the same one were the same.
    pub trace_hash: u64,
}

/// Messages that went on one kind of way.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Carried {
    /// How many, those of the runtime's own included.
    pub messages: u64,
    /// Between processes, all that is sent. Inside of a process, the size of what they carry, as it lies in the messages, and of their headers; what they own
    /// elsewhere, such as a `Vec`'s elements, is not counted there.
    pub bytes: u64,
}

impl fmt::Display for Simulation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let busiest = self.busy.iter().max().copied().unwrap_or_default();
        let mean = self.busy.iter().sum::<Duration>() / self.busy.len().max(1) as u32;
        write!(
            f,
            "simulated {} on {} PE(s): {:?}, of which PEs were busy {mean:?} in the mean and {busiest:?} at most; {} steps\n\
             messages inside of processes: {}; between processes: {}; between hosts: {}; moves at random: {}\n\
             trace {:016x}",
            self.spec,
            self.pes,
            self.time,
            self.steps,
            self.within_processes,
            self.between_processes,
            self.between_hosts,
            self.migrations,
            self.trace_hash,
        )
    }
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.messages, self.bytes)
    }
}

/// The hash of what has happened so far.
#[derive(Default)]
pub(super) struct Trace(u64);

impl Trace {
    pub(super) fn note(&mut self, word: u64) {
        self.0 = mix(self.0.rotate_left(5) ^ word);
    }

    pub(super) fn note_text(&mut self, text: &str) {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.note(u64::from_le_bytes(word));
        }
        self.note(text.len() as u64);
    }

    pub(super) fn hash(&self) -> u64 {
        self.0
    }
}
