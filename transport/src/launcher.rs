//! What launchers of MPI programs leave in the environment of a process that they start. The caller's environment is looked at, not MPI,
//! which not all programs have.

use std::env;

/// Whether a launcher of MPI programs has started this process: OpenMPI's, or one that speaks PMI or PMIx, as MPICH's and Slurm's do.
pub fn is_launched() -> bool {
    ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"]
        .iter()
        .any(|name| env::var_os(name).is_some())
}

/// How many processes the launcher has started in all, if there is one that says so. The least that is said: one that starts another passes on what
/// it has been told itself, and a single process may be what was wanted.
pub fn launched_size() -> Option<usize> {
    let size = |name| env::var(name).ok()?.parse().ok();
    ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"].into_iter().filter_map(size).min()
}
