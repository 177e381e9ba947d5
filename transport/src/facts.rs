//! What a process knows about its job: its rank, how many there are, and who shares its host.

use crate::frame::Rank;

/// How threads may use the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ThreadLevel {
    /// The thread that started it, and there are no others.
    Single,
    /// The thread that started it, beside others.
    Funneled,
    /// Any thread, one at a time.
    Serialized,
    /// Any thread at any time.
    Multiple,
}

impl ThreadLevel {
    /// Whether a driver may be handed from thread to thread.
    pub fn lets_drivers_move(self) -> bool {
        self >= ThreadLevel::Serialized
    }
}

/// A host and the ranks on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// The ranks on it, in order.
    pub ranks: Vec<Rank>,
}

/// What a process knows about its job.
#[derive(Clone, Debug)]
pub struct Facts {
    rank: Rank,
    size: usize,
    thread_level: ThreadLevel,
    hosts: Vec<Host>,
    host_of: Vec<usize>,
}

impl Facts {
    /// Of the process `rank`, from the names of the hosts of all ranks.
    pub(crate) fn new(rank: Rank, names: &[String], thread_level: ThreadLevel) -> Facts {
        let (mut hosts, mut host_of): (Vec<Host>, Vec<usize>) = Default::default();
        // By name: a job on a thousand hosts compares no name with all others.
        let mut known = std::collections::HashMap::new();
        for (index, name) in names.iter().enumerate() {
            let host = *known.entry(name.as_str()).or_insert_with(|| {
                hosts.push(Host { name: name.clone(), ranks: Vec::new() });
                hosts.len() - 1
            });
            hosts[host].ranks.push(Rank(index as u32));
            host_of.push(host);
        }
        Facts { rank, size: names.len(), thread_level, hosts, host_of }
    }

    /// This process.
    pub fn rank(&self) -> Rank {
        self.rank
    }

    /// The number of processes.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Which threads may drive.
    pub fn thread_level(&self) -> ThreadLevel {
        self.thread_level
    }

    /// All hosts, in the order of their lowest ranks.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of a rank; none if there is no such rank.
    pub fn host_of(&self, rank: Rank) -> Option<&Host> {
        self.host_of.get(rank.index()).map(|host| &self.hosts[*host])
    }

    /// The number of the host of a rank among [`Facts::hosts`]; none if there is no such rank.
    pub fn host_index_of(&self, rank: Rank) -> Option<usize> {
        self.host_of.get(rank.index()).copied()
    }

    /// The place of this process among those of its host, from 0.
    pub fn local_rank(&self) -> usize {
        let host = &self.hosts[self.host_of[self.rank.index()]];
        host.ranks.iter().position(|rank| *rank == self.rank).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_know_who_shares_their_host() {
        let names = ["a", "b", "a", "a", "b"].map(str::to_owned);
        let facts = Facts::new(Rank(3), &names, ThreadLevel::Funneled);
        assert_eq!((facts.rank(), facts.size(), facts.local_rank()), (Rank(3), 5, 2));
        assert_eq!(facts.hosts()[1], Host { name: "b".into(), ranks: vec![Rank(1), Rank(4)] });
        assert_eq!(facts.host_of(Rank(2)).map(|host| host.name.as_str()), Some("a"));
        assert_eq!((facts.host_index_of(Rank(4)), facts.host_index_of(Rank(5))), (Some(1), None));
        assert!(facts.host_of(Rank(5)).is_none() && !facts.thread_level().lets_drivers_move());
    }
}
