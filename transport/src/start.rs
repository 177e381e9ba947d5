//! How the processes of a job meet: each tells what it is, and all compare all.
//!
//! The invariant: the verdict depends on the hellos only, so it is the same on all ranks. A hello has a fixed size, and its
//! fields have fixed places, in every version of the protocol.

use std::sync::Arc;

use crate::driver::Driver;
use crate::error::ConnectError;
use crate::facts::{Facts, ThreadLevel};
use crate::frame::Rank;
use crate::limits::Limits;
use crate::network::Network;
use crate::outbox::{Outbox, Shared};
use crate::wire::{VERSION, u32_at, u64_at};

/// What must be equal on all ranks, besides the limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    table_hash: u64,
    build_id: String,
    host: Option<String>,
}

impl Identity {
    /// The hash of the table by which frames find code, and what the build calls itself (the first 64 bytes are shown if they differ).
    pub fn new(table_hash: u64, build_id: impl Into<String>) -> Self {
        Identity { table_hash, build_id: build_id.into(), host: None }
    }

    /// Calls the host so, and not by its own name.
    pub fn on_host(mut self, name: impl Into<String>) -> Self {
        self.host = Some(name.into());
        self
    }
}

/// A process of a job: both halves of its transport.
#[derive(Debug)]
pub struct Process {
    /// For all threads.
    pub outbox: Outbox,
    /// For one thread at a time.
    pub driver: Driver,
}

/// The size of a hello, for ever.
pub(crate) const HELLO_BYTES: usize = 256;
const MAGIC: &[u8; 8] = b"chare-hi";
const TEXT_BYTES: usize = 64;

pub(crate) type Hello = [u8; HELLO_BYTES];

/// Writes what a process tells the others.
pub(crate) fn hello(identity: &Identity, limits: &Limits, host: &str) -> Hello {
    let mut hello = [0; HELLO_BYTES];
    hello[..8].copy_from_slice(MAGIC);
    hello[8..12].copy_from_slice(&VERSION.to_le_bytes());
    hello[12..16].copy_from_slice(&crc32fast::hash(identity.build_id.as_bytes()).to_le_bytes());
    hello[16..24].copy_from_slice(&identity.table_hash.to_le_bytes());
    for (place, number) in hello[24..80].chunks_exact_mut(8).zip(limits.shared()) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    write_text(&mut hello[80..80 + TEXT_BYTES], &identity.build_id);
    write_text(&mut hello[144..144 + TEXT_BYTES], identity.host.as_deref().unwrap_or(host));
    hello
}

fn write_text(place: &mut [u8], text: &str) {
    let len = text.len().min(place.len());
    place[..len].copy_from_slice(&text.as_bytes()[..len]);
}

fn text(bytes: &[u8]) -> String {
    let len = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..len]).into_owned()
}

/// Compares the hellos of all ranks, and returns the names of their hosts.
pub(crate) fn meet(hellos: &[Hello]) -> Result<Vec<String>, ConnectError> {
    let first = hellos.first().ok_or_else(|| ConnectError::Network("a job of no processes".into()))?;
    for (index, other) in hellos.iter().enumerate() {
        let rank = Rank(index as u32);
        if &other[..8] != MAGIC {
            return Err(ConnectError::Stranger(rank));
        }
        let differs = |what, show: &dyn Fn(&Hello) -> String| {
            let (one_has, other_has) = (show(first), show(other));
            Err(ConnectError::Mismatch { what, one: Rank(0), one_has, other: rank, other_has })
        };
        if first[8..12] != other[8..12] {
            return differs("the protocol version", &|hello| u32_at(hello, 8).to_string());
        }
        if first[16..24] != other[16..24] {
            return differs("the table hash", &|hello| format!("{:#018x}", u64_at(hello, 16)));
        }
        if first[12..16] != other[12..16] || first[80..144] != other[80..144] {
            return differs("the build", &|hello| {
                format!("{} ({:08x})", text(&hello[80..144]), u32_at(hello, 12))
            });
        }
        if first[24..80] != other[24..80] {
            return differs("the set of limits", &|hello| {
                format!("{:?}", (0..7).map(|index| u64_at(hello, 24 + 8 * index)).collect::<Vec<_>>())
            });
        }
    }
    Ok(hellos.iter().map(|hello| text(&hello[144..208])).collect())
}

/// Refuses limits that cannot work.
pub(crate) fn check_limits(limits: &Limits) -> Result<(), ConnectError> {
    limits.flaw().map_or(Ok(()), |flaw| Err(ConnectError::Limits(flaw)))
}

/// The two halves of a process that has met the others.
pub(crate) fn process(
    rank: Rank,
    hosts: &[String],
    thread_level: ThreadLevel,
    limits: &Limits,
    network: impl FnOnce(&Arc<Shared>) -> Box<dyn Network>,
) -> Process {
    let facts = Facts::new(rank, hosts, thread_level);
    let shared = Arc::new(Shared::new(facts, limits.clone()));
    let network = network(&shared);
    Process { driver: Driver::new(shared.clone(), network), outbox: Outbox::new(shared) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello_of(table_hash: u64, build_id: &str) -> Hello {
        hello(&Identity::new(table_hash, build_id), &Limits::default(), "here")
    }

    #[test]
    fn equal_programs_meet() {
        let away = hello(&Identity::new(7, "b").on_host("there"), &Limits::default(), "here");
        assert_eq!(meet(&[hello_of(7, "b"), away]), Ok(vec!["here".into(), "there".into()]));
        let own = Limits { queue_bytes: 5, checksums: true, ..Limits::default() };
        assert!(meet(&[hello_of(7, "b"), hello(&Identity::new(7, "b"), &own, "here")]).is_ok());
    }

    #[test]
    fn a_difference_names_both_sides() {
        let same = hello_of(7, "one");
        let narrow = Limits { chunk_bytes: 4096, ..Limits::default() };
        let mut newer = same;
        newer[8] = 9;
        let long = "x".repeat(64);
        for (other, what, values) in [
            (hello_of(8, "one"), "the table hash", ["0x0000000000000007", "0x0000000000000008"]),
            (hello_of(7, "two"), "the build", ["one (", "two ("]),
            (hello_of(7, &long), "the build", ["one (", &long]),
            (hello(&Identity::new(7, "one"), &narrow, "here"), "the set of limits", ["1073741824", "4096"]),
            (newer, "the protocol version", [&VERSION.to_string(), "9"]),
        ] {
            let error = meet(&[same, same, other]).expect_err(what);
            let said = error.to_string();
            assert!(
                matches!(error, ConnectError::Mismatch { other: Rank(2), what: named, .. } if named == what)
            );
            assert!(values.iter().all(|value| said.contains(value)) && said.contains("rank 2"), "{said}");
        }
        // What is cut off counts too.
        assert!(meet(&[hello_of(7, &format!("{long}a")), hello_of(7, &format!("{long}b"))]).is_err());
        assert_eq!(meet(&[same, [0; HELLO_BYTES]]), Err(ConnectError::Stranger(Rank(1))));
        assert!(meet(&[]).is_err());
    }
}
