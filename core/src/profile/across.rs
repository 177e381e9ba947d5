//! The profile of a run in several processes: each sends what its PEs have done to rank 0, when they have ended.

use chare_transport::Rank;
use serde::{Deserialize, Deserializer};

use super::Profile;
use crate::entry::EntryInfo;
use crate::wire;

/// As [`EntryInfo`], of another process.
#[derive(Deserialize)]
struct Entry {
    chare: String,
    name: String,
    file: String,
    line: u32,
}

/// Reads an entry, as the one of this process that is the same.
pub(super) fn entry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'static EntryInfo, D::Error> {
    let Entry { chare, name, file, line } = Entry::deserialize(deserializer)?;
    Ok(wire::kept_entry(chare, name, file, line))
}

impl Profile {
    /// Adds that of another process.
    pub(crate) fn add(&mut self, from: Rank, other: Profile) {
        self.pes.extend(other.pes);
        self.pes.sort_by_key(|profile| profile.pe);
        self.devices.extend(other.devices.into_iter().map(|mut device| {
            device.name = format!("{from}'s {}", device.name);
            device
        }));
    }
}
