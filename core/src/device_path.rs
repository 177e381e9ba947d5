//! How device memory goes from one process to another: what the user may ask for, and the choice, a pure function of what the two have found
//! out about each other (`job/paths`). Inside of a process there is one path between two devices, by what they are (`chare_device::Path`): to ask for it
//! is to have it tested whether all that the PEs use have that one.

use std::fmt;
use std::str::FromStr;

use chare_device::Path;
use serde::{Deserialize, Serialize};

/// How device memory that is sent goes to another process, or to another device
/// ([`Options::with_device_path`](crate::Options::with_device_path)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DevicePath {
    /// `same`: it stays where it is. For programs in one process, all of whose PEs use one device.
    Same,
    /// `peer`: it goes from device to device by one copy. For programs in one process, whose devices reach each other's memory.
    Peer,
    /// `staged`: it is copied to the host, sent from there, and copied to the device where it is first used; in pieces, these overlapping, if it is
    /// long. Goes everywhere.
    Staged,
    /// `ipc`: the other process opens it, and uses it where it is (CUDA IPC). For processes of one host that have the same GPUs open.
    Ipc,
    /// `mpi`: MPI sends it from where it lies, and receives it to memory of a device. For GPUs where MPI reaches them (CUDA-aware MPI), and
    /// for devices whose memory is the host's.
    Mpi,
}

/// A text is no device path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give `same`, `peer`, `staged`, `ipc` or `mpi`")]
pub struct DevicePathError;

impl FromStr for DevicePath {
    type Err = DevicePathError;

    fn from_str(text: &str) -> Result<Self, DevicePathError> {
        match text {
            "same" => Ok(DevicePath::Same),
            "peer" => Ok(DevicePath::Peer),
            "staged" => Ok(DevicePath::Staged),
            "ipc" => Ok(DevicePath::Ipc),
            "mpi" => Ok(DevicePath::Mpi),
            _ => Err(DevicePathError),
        }
    }
}

impl fmt::Display for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DevicePath::Same => "same",
            DevicePath::Peer => "peer",
            DevicePath::Staged => "staged",
            DevicePath::Ipc => "ipc",
            DevicePath::Mpi => "mpi",
        })
    }
}

/// What has been found out about the way from one process to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    /// Whether the other one can use memory of this one where it is, or why not.
    pub(crate) opens: Result<(), &'a str>,
    /// Whether MPI sends and receives their memory by address, or why not.
    pub(crate) sends: Result<(), &'a str>,
}

/// A path, and why it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) path: DevicePath,
    pub(crate) reason: String,
}

impl DevicePath {
    /// Refuses it, with the reason, if memory goes another way from one device of a process to another, where this is that.
    pub(crate) fn allows(self, inside: Path) -> Result<(), &'static str> {
        match self {
            DevicePath::Same => Err("they are two devices"),
            DevicePath::Peer if inside.is_direct() => Ok(()),
            DevicePath::Peer => Err(inside.reason()),
            // They say nothing of it.
            DevicePath::Staged | DevicePath::Ipc | DevicePath::Mpi => Ok(()),
        }
    }
}

/// The best path there is, or the one that is wanted; why that is impossible, if it is.
pub(crate) fn choose(wanted: Option<DevicePath>, way: Way<'_>) -> Result<Chosen, String> {
    let chosen = |path, reason: String| Ok(Chosen { path, reason });
    let ipc = || chosen(DevicePath::Ipc, "the other process has opened a sample of it".to_owned());
    let mpi = || chosen(DevicePath::Mpi, "MPI has sent a sample of it from device to device".to_owned());
    match (wanted, way.opens, way.sends) {
        (Some(DevicePath::Same | DevicePath::Peer), ..) => Err("they are two processes".to_owned()),
        (Some(DevicePath::Staged), ..) => chosen(DevicePath::Staged, "it is asked for".to_owned()),
        (None | Some(DevicePath::Ipc), Ok(()), _) => ipc(),
        (None | Some(DevicePath::Mpi), _, Ok(())) => mpi(),
        (Some(DevicePath::Ipc), Err(why), _) | (Some(DevicePath::Mpi), _, Err(why)) => Err(why.to_owned()),
        (None, Err(ipc), Err(mpi)) => {
            chosen(DevicePath::Staged, format!("not ipc, since {ipc}; not mpi, since {mpi}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_from_what_is_known_and_wanted() {
        let (yes, no) = (Ok(()), Err("they are far apart"));
        let [all, ipc, mpi, none] =
            [(yes, yes), (yes, no), (no, yes), (no, no)].map(|(opens, sends)| Way { opens, sends });
        let path = |wanted, way| choose(wanted, way).map(|chosen| chosen.path).ok();
        use DevicePath::{Ipc, Mpi, Peer, Same, Staged};
        for (wanted, expected) in [
            (None, [Some(Ipc), Some(Ipc), Some(Mpi), Some(Staged)]),
            (Some(Staged), [Some(Staged); 4]),
            (Some(Ipc), [Some(Ipc), Some(Ipc), None, None]),
            (Some(Mpi), [Some(Mpi), None, Some(Mpi), None]),
        ] {
            assert_eq!([all, ipc, mpi, none].map(|way| path(wanted, way)), expected, "{wanted:?}");
        }
        for wanted in [Same, Peer] {
            assert_eq!(choose(Some(wanted), all), Err("they are two processes".to_owned()));
        }
        for wanted in [Ipc, Mpi] {
            assert_eq!(choose(Some(wanted), none), Err("they are far apart".to_owned()));
        }
        let reason = choose(None, none).expect("there is always a path").reason;
        assert_eq!(reason, "not ipc, since they are far apart; not mpi, since they are far apart");
        for path in [Same, Peer, Staged, Ipc, Mpi] {
            assert_eq!(path.to_string().parse(), Ok(path));
        }
    }

    #[test]
    fn what_is_asked_for_inside_of_a_process_is_there_or_refused() {
        use DevicePath::{Ipc, Mpi, Peer, Same, Staged};
        for path in [Path::Host, Path::Peer, Path::Adapter] {
            assert_eq!(Peer.allows(path), Ok(()));
        }
        for path in [Path::Driver, Path::Staged] {
            assert_eq!(Peer.allows(path), Err(path.reason()));
        }
        assert!(Same.allows(Path::Host).is_err());
        assert!([Ipc, Mpi, Staged].iter().all(|wanted| wanted.allows(Path::Driver).is_ok()));
    }
}
