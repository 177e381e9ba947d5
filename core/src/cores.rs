//! The cores that are a process's own, where several processes of a job share a host. It has one PE for each unless told, too many if
//! it has more, and threads for the kernels of host devices on those that are left.
//!
//! Launchers may bind each process to some cores, its own or those of a socket that it shares, or let all of them use all. Who has started this
//! process is not bound, and so shows which it is.

use std::{fs, thread};

use crate::binding::{NodeRank, count_listed};

/// How many PEs this process has unless told.
pub(crate) fn default_pes() -> usize {
    share_of_one(NodeRank::of_this_process().count).max(1)
}

/// Whether this process, one of `count` of its job on this host, has more PEs than cores for them.
pub(crate) fn are_too_many(pes: usize, count: usize) -> bool {
    pes > share_of_one(count)
}

/// The cores of this process, one of `count` of its job on this host, that none of its PEs needs.
pub(crate) fn spare_cores(pes: usize, count: usize) -> usize {
    share_of_one(count).saturating_sub(pes)
}

/// The cores that are for one of `count` processes of this host: 0 if there are more processes than cores.
fn share_of_one(count: usize) -> usize {
    if count == 1 {
        return cores();
    }
    let own = allowed_cores("self").unwrap_or_else(cores);
    share(count, cores(), own, parent_cores().unwrap_or(own))
}

/// The cores that this process may use at a time.
fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The share of one of `count` processes of a host that may use `usable` cores at a time, of `own` ones, while all that were started with it
/// have `all`.
fn share(count: usize, usable: usize, own: usize, all: usize) -> usize {
    if own < all { usable.min(all / count) } else { usable / count }
}

/// The cores that a process may use.
fn allowed_cores(process: &str) -> Option<usize> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    Some(count_listed(list.trim())).filter(|count| *count > 0)
}

#[cfg(unix)]
fn parent_cores() -> Option<usize> {
    allowed_cores(&std::os::unix::process::parent_id().to_string())
}

#[cfg(not(unix))]
fn parent_cores() -> Option<usize> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_of_a_host_share_its_cores() {
        // Not bound; under a quota of 8; more than there are cores.
        assert_eq!([share(4, 64, 64, 64), share(4, 8, 64, 64), share(4, 2, 2, 2)], [16, 2, 0]);
        // Each bound to cores of its own, or to a socket that two share, or to a core that two share.
        assert_eq!(
            [share(4, 16, 16, 64), share(2, 1, 1, 2), share(4, 32, 32, 64), share(4, 1, 1, 2)],
            [16, 1, 16, 0]
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells_which_cores_a_process_may_use() {
        assert!(allowed_cores("self").is_some_and(|count| count >= cores()));
        assert!(parent_cores().is_some());
        assert_eq!(allowed_cores("nobody"), None);
    }
}
