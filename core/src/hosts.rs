//! Where PEs are: the processes of a run, and the hosts that these are on. In a simulated run, those that are simulated.
//!
//! Invariant: the PEs of a process are numbered one after the other, and each has as many, but in a simulated run where they do not divide; hosts are numbered in the order of their first PEs. Nothing here changes
//! during a run, and nobody is asked.

use std::fmt;
use std::ops::Range;

use chare_transport::Rank;
use serde::{Deserialize, Serialize};

use crate::current;
use crate::ids::{IntoPe, PeId};
use crate::process::{Dealings, Shared};
use crate::runtime::Runtime;
use crate::scheduler::pe::Pe;

/// A host of a run.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HostId(u32);

impl HostId {
    /// The host with this number; hosts are numbered from 0, in the order of their first PEs.
    ///
    /// # Panics
    /// If the number does not fit in 32 bits.
    #[track_caller]
    pub const fn new(number: usize) -> Self {
        assert!(number <= u32::MAX as usize, "a host's number fits in 32 bits");
        HostId(number as u32)
    }

    /// The host's number.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}", self.0)
    }
}

impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl Shared {
    /// The processes of the run.
    pub(crate) fn process_count(&self) -> usize {
        match (self.job(), self.options().simulation()) {
            (Some(job), _) => job.facts().size(),
            (None, Some(sim)) => sim.processes().min(self.pe_count()),
            (None, None) => 1,
        }
    }

    pub(crate) fn process_of(&self, pe: PeId) -> usize {
        pe.index() * self.process_count() / self.pe_count()
    }

    /// The numbers of the PEs of a process.
    pub(crate) fn pes_of_process(&self, rank: Rank) -> Range<usize> {
        let first = |process: usize| (process * self.pe_count()).div_ceil(self.process_count());
        first(rank.index())..first(rank.index() + 1)
    }

    /// The process of a PE, and its number there.
    #[inline]
    pub(crate) fn place_of(&self, pe: PeId) -> (Rank, u32) {
        let number_in = |rank: usize, first: usize| (Rank(rank as u32), (pe.index() - first) as u32);
        if self.job().is_some() {
            let rank = pe.index() / self.own_pe_count();
            return number_in(rank, rank * self.own_pe_count());
        }
        let rank = self.process_of(pe);
        number_in(rank, self.pes_of_process(Rank(rank as u32)).start)
    }

    fn host_of(&self, pe: PeId) -> HostId {
        let process = self.process_of(pe);
        HostId::new(match (self.job(), self.options().simulation()) {
            (Some(job), _) => job.facts().host_index_of(Rank(process as u32)).unwrap_or(0),
            (None, Some(sim)) => sim.host_of(process),
            (None, None) => 0,
        })
    }

    fn pes(&self) -> impl DoubleEndedIterator<Item = PeId> + ExactSizeIterator + use<> {
        (0..self.pe_count()).map(PeId::new)
    }

    fn host_name(&self, host: HostId) -> String {
        match (self.job(), self.options().simulation()) {
            (Some(job), _) => job.facts().hosts()[host.index()].name.clone(),
            (None, Some(_)) => format!("simulated host {host}"),
            (None, None) => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .map_or_else(|_| "localhost".to_owned(), |name| name.trim().to_owned()),
        }
    }
}

impl Pe {
    /// Whether there are PEs in other processes.
    pub(crate) fn has_far_pes(&self) -> bool {
        self.far_pe_count() > 0
    }

    /// How many those are.
    pub(crate) fn far_pe_count(&self) -> usize {
        self.pe_count() - self.near.1
    }

    /// The PEs of this process.
    pub(crate) fn near_pes(&self) -> impl ExactSizeIterator<Item = PeId> + use<> {
        (self.near.0..self.near.0 + self.near.1).map(PeId::new)
    }

    /// What the PEs of this process have to do with other processes.
    pub(crate) fn dealings(&self) -> &Dealings {
        self.shared().dealings(self.rank)
    }
}

/// Refuses a PE that there is not.
#[track_caller]
fn existing(pe: impl IntoPe, shared: &Shared) -> PeId {
    let pe = PeId::new(pe.into_pe_number());
    assert!(pe.index() < shared.pe_count(), "there is no PE {pe}: the run has {}", shared.pe_count());
    pe
}

impl Runtime {
    /// The number of processes of the run.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn num_processes(&self) -> usize {
        current::on_pe("num_processes", |pe| pe.shared().process_count())
    }

    /// The process that a PE is in, from 0; over MPI that is its rank.
    ///
    /// # Panics
    /// On a thread that is not a PE, and if there is no such PE.
    #[track_caller]
    pub fn process_of(&self, pe: impl IntoPe) -> usize {
        current::on_pe("process_of", |here| here.shared().process_of(existing(pe, here.shared())))
    }

    /// The number of hosts of the run.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn num_hosts(&self) -> usize {
        current::on_pe("num_hosts", |pe| {
            let shared = pe.shared();
            shared.pes().map(|pe| shared.host_of(pe).index() + 1).max().unwrap_or(1)
        })
    }

    /// The host that this code runs on.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn my_host(&self) -> HostId {
        current::on_pe("my_host", |pe| pe.shared().host_of(pe.id()))
    }

    /// The host of a PE.
    ///
    /// # Panics
    /// On a thread that is not a PE, and if there is no such PE.
    #[track_caller]
    pub fn host_of(&self, pe: impl IntoPe) -> HostId {
        current::on_pe("host_of", |here| here.shared().host_of(existing(pe, here.shared())))
    }

    /// The PEs of a host, in order; none if there is no such host.
    ///
    /// # Panics
    /// On a thread that is not a PE.
    #[track_caller]
    pub fn pes_of(&self, host: HostId) -> Vec<PeId> {
        current::on_pe("pes_of", |here| {
            here.shared().pes().filter(|pe| here.shared().host_of(*pe) == host).collect()
        })
    }

    /// The place of a PE among those of its host, from 0.
    ///
    /// # Panics
    /// On a thread that is not a PE, and if there is no such PE.
    #[track_caller]
    pub fn rank_on_host(&self, pe: impl IntoPe) -> usize {
        current::on_pe("rank_on_host", |here| {
            let (shared, pe) = (here.shared(), existing(pe, here.shared()));
            let host = shared.host_of(pe);
            shared.pes().take(pe.index()).filter(|before| shared.host_of(*before) == host).count()
        })
    }

    /// The name of a host.
    ///
    /// # Panics
    /// On a thread that is not a PE, and if there is no such host.
    #[track_caller]
    pub fn host_name(&self, host: HostId) -> String {
        current::on_pe("host_name", |here| here.shared().host_name(host))
    }
}
