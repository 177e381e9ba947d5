//! How device memory gets from one device to another: a pure function of what is known of both.

use std::fmt;

use crate::device::{Device, Devices};
use crate::kernel::Language;

/// How memory gets from one device of a set to another, or to other owners on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Path {
    /// It is there already, and handed over.
    SameDevice,
    /// Both keep it in the host's memory: one copy.
    Host,
    /// One copy from device to device.
    Peer,
    /// One copy on the adapter that both are of.
    Adapter,
    /// Copies that the driver makes, by way of memory of its own.
    Driver,
    /// A copy to the host and one from there, in the order of both devices; nobody waits for them.
    Staged,
}

/// What the choice of a path depends on.
#[derive(Debug, Clone, Copy)]
struct Ends {
    is_same: bool,
    /// Of both: the devices of a set are of one kind.
    language: Language,
    /// Whether the one that takes it reaches the memory of the other.
    reaches: bool,
    /// Whether a copy goes through memory of the host.
    is_staged: bool,
}

impl Path {
    fn between(ends: Ends) -> Path {
        match ends.language {
            _ if ends.is_same => Path::SameDevice,
            Language::Rust => Path::Host,
            Language::CudaC if ends.reaches => Path::Peer,
            Language::CudaC => Path::Driver,
            Language::Wgsl if ends.is_staged => Path::Staged,
            Language::Wgsl => Path::Adapter,
        }
    }

    /// Whether memory goes from the one device to the other by one copy, and nothing else.
    pub fn is_direct(self) -> bool {
        match self {
            Path::Host | Path::Peer | Path::Adapter => true,
            Path::SameDevice | Path::Driver | Path::Staged => false,
        }
    }

    /// Why it is this one.
    pub fn reason(self) -> &'static str {
        match self {
            Path::SameDevice => "it is there already and is handed over",
            Path::Host => "both devices keep it in the host's memory",
            Path::Peer => "the GPUs reach each other's memory",
            Path::Driver => {
                "the GPUs do not reach each other's memory, and the driver copies by way of its own"
            }
            Path::Adapter => "both devices are of one adapter",
            Path::Staged => "neither side sees the other's memory",
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Path::SameDevice => "same device",
            Path::Host => "host memory",
            Path::Peer => "peer copy",
            Path::Driver => "copy by the driver",
            Path::Adapter => "copy on the adapter",
            Path::Staged => "staged on the host",
        })
    }
}

impl Devices {
    /// How memory gets from one device to another, by ordinals.
    ///
    /// # Panics
    ///
    /// If one of the ordinals is not less than [`len`](Self::len).
    pub fn path(&self, from: usize, to: usize) -> Path {
        let [source, target]: [&Device; 2] = [self.get(from), self.get(to)];
        let reaches = self.backend().reaches(to, from);
        Path::between(Ends {
            is_same: source.ordinal() == target.ordinal(),
            language: target.language(),
            reaches,
            is_staged: self.backend().is_staged(from, to),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_from_what_is_known_of_its_ends() {
        for (is_same, language, reaches, is_staged, path) in [
            (true, Language::Rust, false, false, Path::SameDevice),
            (true, Language::CudaC, true, false, Path::SameDevice),
            (true, Language::Wgsl, false, false, Path::SameDevice),
            (false, Language::Rust, false, false, Path::Host),
            (false, Language::CudaC, true, false, Path::Peer),
            (false, Language::CudaC, false, false, Path::Driver),
            (false, Language::Wgsl, false, false, Path::Adapter),
            (false, Language::Wgsl, false, true, Path::Staged),
        ] {
            assert_eq!(Path::between(Ends { is_same, language, reaches, is_staged }), path);
        }
    }
}
