//! How device memory goes from one process to another: what the user may ask for, and the choice, a pure function of what the two have found
//! out about each other (`job/paths`).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How device memory that is sent goes to another process ([`Options::with_device_path`](crate::Options::with_device_path)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DevicePath {
    /// `staged`: it is copied to the host, sent from there, and copied to the device where it is first used. Goes everywhere.
    Staged,
    /// `ipc`: the other process opens it, and uses it where it is (CUDA IPC). For processes of one host that have the same GPUs open.
    Ipc,
}

/// A text is no device path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give `auto`, `staged` or `ipc`")]
pub struct DevicePathError;

impl FromStr for DevicePath {
    type Err = DevicePathError;

    fn from_str(text: &str) -> Result<Self, DevicePathError> {
        match text {
            "staged" => Ok(DevicePath::Staged),
            "ipc" => Ok(DevicePath::Ipc),
            _ => Err(DevicePathError),
        }
    }
}

impl fmt::Display for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DevicePath::Staged => "staged",
            DevicePath::Ipc => "ipc",
        })
    }
}

/// What has been found out about the way from one process to another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Way<'a> {
    /// Whether the other one can use memory of this one where it is, or why not.
    pub(crate) opens: Result<(), &'a str>,
}

/// A path, and why it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    pub(crate) path: DevicePath,
    pub(crate) reason: String,
}

/// The best path there is, or the one that is wanted; why that is impossible, if it is.
pub(crate) fn choose(wanted: Option<DevicePath>, way: Way<'_>) -> Result<Chosen, String> {
    let chosen = |path, reason: String| Ok(Chosen { path, reason });
    match (wanted, way.opens) {
        (Some(DevicePath::Staged), _) => chosen(DevicePath::Staged, "it is asked for".to_owned()),
        (None | Some(DevicePath::Ipc), Ok(())) => {
            chosen(DevicePath::Ipc, "the other process has opened a sample of it".to_owned())
        }
        (Some(DevicePath::Ipc), Err(why)) => Err(why.to_owned()),
        (None, Err(why)) => chosen(DevicePath::Staged, format!("not ipc, since {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_follows_from_what_is_known_and_wanted() {
        let (open, closed) = (Way { opens: Ok(()) }, Way { opens: Err("they are far apart") });
        let path = |wanted, way| choose(wanted, way).map(|chosen| chosen.path);
        for (wanted, way, expected) in [
            (None, open, Ok(DevicePath::Ipc)),
            (None, closed, Ok(DevicePath::Staged)),
            (Some(DevicePath::Staged), open, Ok(DevicePath::Staged)),
            (Some(DevicePath::Staged), closed, Ok(DevicePath::Staged)),
            (Some(DevicePath::Ipc), open, Ok(DevicePath::Ipc)),
            (Some(DevicePath::Ipc), closed, Err("they are far apart".to_owned())),
        ] {
            assert_eq!(path(wanted, way), expected, "{wanted:?} {way:?}");
        }
        let reason = choose(None, closed).expect("there is always a path").reason;
        assert_eq!(reason, "not ipc, since they are far apart");
        for path in [DevicePath::Staged, DevicePath::Ipc] {
            assert_eq!(path.to_string().parse(), Ok(path));
        }
    }
}
