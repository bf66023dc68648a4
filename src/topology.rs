//! Who stands where: what plans may depend on, agreed by all ranks.

use std::collections::HashMap;

/// The ranks of a communicator, the host that each lives on, and the core of it that each counts to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topology {
    /// For each rank, the lowest rank that shares its host.
    hosts: Vec<u32>,
    /// For each rank, the number of its core on its host; ranks of one core take turns.
    cores: Vec<u32>,
    /// Whether ranks of one host can share memory.
    shares_memory: bool,
}

impl Topology {
    /// `size` ranks on one host, with a core for each, which can share memory.
    pub fn one_host(size: usize) -> Self {
        Self { shares_memory: true, ..Self::new(vec![0; size]) }
    }

    /// For each rank, the lowest rank that shares its host. Each has a core; no memory is shared.
    pub fn new(hosts: Vec<u32>) -> Self {
        let cores = (0..hosts.len() as u32).collect();
        Self { hosts, cores, shares_memory: false }
    }

    /// The same with `cores` cores on each host, among which its ranks are divided in runs as even as can be:
    /// neighbours share a core.
    #[must_use]
    pub fn with_cores(self, cores: usize) -> Self {
        let mut place = vec![0; self.size()];
        let mut on_host = vec![0; self.size()];
        for rank in 0..self.size() {
            place[rank] = on_host[self.host(rank)];
            on_host[self.host(rank)] += 1;
        }
        let core = |rank: usize| {
            let ranks = on_host[self.host(rank)];
            (place[rank] * cores.clamp(1, ranks) / ranks) as u32
        };
        Self { cores: (0..self.size()).map(core).collect(), ..self }
    }

    /// The same where each rank counts to the core of that number.
    #[must_use]
    pub fn on_cores(self, cores: Vec<u32>) -> Self {
        Self { cores, ..self }
    }

    /// The same where ranks of one host can share memory, or cannot.
    #[must_use]
    pub fn sharing_memory(self, shares_memory: bool) -> Self {
        Self { shares_memory, ..self }
    }

    /// The topology of some of these ranks, in the given order.
    #[must_use]
    pub fn part(&self, ranks: &[usize]) -> Self {
        // A host is named by the lowest of its ranks that takes part.
        let host = |&old: &usize| ranks.iter().position(|&rank| self.together(rank, old)).unwrap_or(0) as u32;
        Self {
            hosts: ranks.iter().map(host).collect(),
            cores: ranks.iter().map(|&rank| self.cores[rank]).collect(),
            shares_memory: self.shares_memory,
        }
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.hosts.len()
    }

    /// The host of a rank, named by the lowest rank that lives there.
    pub fn host(&self, rank: usize) -> usize {
        self.hosts[rank] as usize
    }

    /// Whether two ranks share a host.
    pub fn together(&self, a: usize, b: usize) -> bool {
        self.hosts[a] == self.hosts[b]
    }

    /// The number of a rank's core on its host.
    pub fn core(&self, rank: usize) -> usize {
        self.cores[rank] as usize
    }

    /// Whether two ranks share a core.
    pub fn neighbours(&self, a: usize, b: usize) -> bool {
        self.together(a, b) && self.cores[a] == self.cores[b]
    }

    /// Whether ranks live on several hosts.
    pub fn has_hosts(&self) -> bool {
        self.hosts.iter().any(|&host| host != 0)
    }

    /// How many ranks share a core, at most.
    pub fn crowd(&self) -> usize {
        let mut on_core = HashMap::new();
        (0..self.size())
            .for_each(|rank| *on_core.entry((self.hosts[rank], self.cores[rank])).or_default() += 1);
        on_core.into_values().max().unwrap_or(0)
    }

    /// Whether all ranks can share one memory.
    pub fn has_board(&self) -> bool {
        self.shares_memory && !self.has_hosts()
    }
}

/// What it costs to move bytes between two ranks; integers, so that all ranks price alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cost {
    /// Nanoseconds from one rank's send to the other's receive of an empty message.
    pub latency_ns: u32,
    /// Bytes that cross in a microsecond once a large message flows.
    pub bytes_per_us: u32,
    /// What it costs the cores at both ends.
    pub handling: Handling,
}

/// What it costs a core to hand a message to the system, or to take one from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handling {
    /// Nanoseconds for an empty message.
    pub ns: u32,
    /// Bytes in a microsecond.
    pub bytes_per_us: u32,
}

impl Handling {
    /// Where a message is where it was written.
    pub const NONE: Self = Self { ns: 0, bytes_per_us: u32::MAX };
}

/// Tells apart the streams between one pair of ranks. Within a plan, each direction of a (peer, channel)
/// belongs to one lane.
pub type Channel = u8;

/// Where hosts are joined by several networks (rails), rounds are dealt to them in turn, and a lane has a stream on each:
/// on rail r, that of its channel and r times this many.
pub const RAIL: Channel = 32;

/// The most rails that are used.
pub const MOST_RAILS: usize = 4;

/// The rail of a stream; those of no plan are on the first.
#[must_use]
pub fn rail(channel: Channel) -> usize {
    match usize::from(channel / RAIL) {
        rail @ 0..MOST_RAILS => rail,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(topology: &Topology) -> Vec<usize> {
        (0..topology.size()).map(|rank| topology.core(rank)).collect()
    }

    #[test]
    fn neighbours_share_cores_evenly() {
        assert_eq!(cores(&Topology::one_host(5).with_cores(2)), [0, 0, 0, 1, 1]);
        assert_eq!(cores(&Topology::one_host(2).with_cores(8)), [0, 1]);
        assert_eq!(cores(&Topology::one_host(3).with_cores(0)), [0, 0, 0]);
        let hosts = Topology::new(vec![0, 1, 0, 1, 0]).with_cores(2);
        assert_eq!(cores(&hosts), [0, 0, 0, 1, 1]);
        assert!(hosts.neighbours(0, 2) && !hosts.neighbours(0, 1) && !hosts.neighbours(0, 4));
    }

    #[test]
    fn a_part_keeps_its_hosts_and_cores() {
        let hosts = Topology::new(vec![0, 1, 0, 1]).with_cores(2).sharing_memory(true);
        let part = hosts.part(&[3, 2, 0]);
        assert_eq!([part.host(0), part.host(1), part.host(2)], [0, 1, 1]);
        assert_eq!(cores(&part), [1, 1, 0]);
        assert!(!part.has_board() && hosts.part(&[2, 0]).has_board());
        assert!(!hosts.sharing_memory(false).part(&[2, 0]).has_board());
    }
}
