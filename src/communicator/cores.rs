//! Which core each rank counts to: what plans for more ranks than cores go by.

use std::collections::BTreeSet;

use crate::bootstrap::Bootstrap;
use crate::error::Result;
use crate::sys::os;
use crate::topology::Topology;

/// The cores that every rank may use, which all ranks agree on.
#[derive(Debug)]
pub(super) struct Cores {
    /// For each rank the numbers that its host's kernel gives them.
    ranks: Vec<BTreeSet<u32>>,
}

impl Cores {
    /// Tells all ranks which cores this one may use, and hears of theirs.
    pub(super) fn gather(bootstrap: &mut dyn Bootstrap) -> Result<Self> {
        let mine: Vec<u8> = os::cores().into_iter().flat_map(|core| (core as u32).to_le_bytes()).collect();
        let all = bootstrap.all_gather(&mine)?;
        let read = |bytes: &Vec<u8>| {
            let words = bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
            words.map(u32::from_le_bytes).collect()
        };
        Ok(Self { ranks: all.iter().map(read).collect() })
    }

    /// How many cores the ranks of a host may use together; `hosts` names each rank's.
    pub(super) fn of_host(&self, hosts: &[u32], host: u32) -> usize {
        let on_host = self.ranks.iter().zip(hosts).filter(|(_, theirs)| **theirs == host);
        on_host.flat_map(|(cores, _)| cores).collect::<BTreeSet<_>>().len().max(1)
    }

    /// The kernel's number of the core that a rank counts to in that topology, unless it is bound.
    pub(super) fn home(&self, topology: &Topology, rank: usize) -> Option<usize> {
        let mine = self.ranks.get(rank).filter(|cores| cores.len() > 1)?;
        mine.iter().nth(topology.core(rank)).map(|&core| core as usize)
    }

    /// The ranks on their hosts and cores. Where each is bound to one core, that is where it counts; else
    /// neighbours are taken to share one, as many of which there are on the host that has the fewest.
    pub(super) fn topology(&self, hosts: &[u32]) -> Topology {
        let topology = Topology::new(hosts.to_vec());
        let bound = |cores: &BTreeSet<u32>| cores.first().copied().filter(|_| cores.len() == 1);
        match self.ranks.iter().map(bound).collect() {
            Some(cores) => topology.on_cores(cores),
            None => {
                let fewest = hosts.iter().map(|&host| self.of_host(hosts, host)).min();
                topology.with_cores(fewest.unwrap_or(1))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(ranks: &[&[u32]]) -> Cores {
        Cores { ranks: ranks.iter().map(|cores| cores.iter().copied().collect()).collect() }
    }

    fn places(cores: &Cores, hosts: &[u32]) -> Vec<usize> {
        let topology = cores.topology(hosts);
        (0..hosts.len()).map(|rank| topology.core(rank)).collect()
    }

    #[test]
    fn ranks_count_to_the_core_that_they_are_bound_to_or_share_them_with_their_neighbours() {
        let bound = cores(&[&[3], &[5], &[3], &[5]]);
        assert_eq!(places(&bound, &[0; 4]), [3, 5, 3, 5]);
        assert_eq!(bound.of_host(&[0; 4], 0), 2);
        let free = cores(&[&[0, 1], &[0, 1], &[0, 1], &[0, 1], &[0, 1]]);
        assert_eq!(places(&free, &[0; 5]), [0, 0, 0, 1, 1]);
        // A core for each of two hosts that have one rank more on each.
        assert_eq!(places(&free, &[0, 0, 2, 2, 2]), [0, 1, 0, 0, 1]);
        assert_eq!(places(&cores(&[&[0], &[0, 1], &[1]]), &[0; 3]), [0, 0, 1]);
        assert_eq!(places(&cores(&[&[], &[]]), &[0; 2]), [0, 0], "where the kernel does not tell");
    }
}
