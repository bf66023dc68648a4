//! Who lives where, for algorithms that know hosts: the ranks of each, however they are numbered.

use std::ops::Range;

use crate::plan::{Memory, Span};
use crate::topology::Topology;

/// Ranks that are numbered one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: usize,
    pub(super) length: usize,
}

impl Run {
    /// Their blocks.
    pub(super) fn span(self, memory: Memory) -> Span {
        Span::new(memory, self.first).wide(self.length)
    }
}

/// The ranks of each host, and where this rank stands.
pub(super) struct Hosts {
    /// Those of one host after those of another, each in ascending order; hosts in the order of their first ranks.
    ranks: Vec<usize>,
    /// Where each host's begin, and where the last one's end.
    begins: Vec<usize>,
    /// The host and the place of each rank.
    homes: Vec<(usize, usize)>,
    /// The number of this rank's host.
    pub(super) mine: usize,
    /// This rank's place on it.
    pub(super) place: usize,
}

impl Hosts {
    pub(super) fn new(rank: usize, topology: &Topology) -> Self {
        Self::grouped(rank, topology.size(), |other| topology.host(other))
    }

    /// The same with the cores of one host in place of hosts: the ranks that take turns on each.
    pub(super) fn cores(rank: usize, topology: &Topology) -> Self {
        let first = |other| (0..other).find(|&before| topology.neighbours(before, other)).unwrap_or(other);
        Self::grouped(rank, topology.size(), first)
    }

    /// Groups, each named by its first rank.
    fn grouped(rank: usize, size: usize, group: impl Fn(usize) -> usize) -> Self {
        let mut homes: Vec<(usize, usize)> = Vec::with_capacity(size);
        let mut counts: Vec<usize> = Vec::new();
        for other in 0..size {
            // Its first rank comes first.
            let host = homes.get(group(other)).map_or(counts.len(), |home| home.0);
            if host == counts.len() {
                counts.push(0);
            }
            homes.push((host, counts[host]));
            counts[host] += 1;
        }
        let ends = counts.iter().scan(0, |end, count| {
            *end += count;
            Some(*end)
        });
        let begins: Vec<usize> = [0].into_iter().chain(ends).collect();
        let mut ranks = vec![0; size];
        homes.iter().enumerate().for_each(|(rank, &(host, place))| ranks[begins[host] + place] = rank);
        let (mine, place) = homes[rank];
        Self { ranks, begins, homes, mine, place }
    }

    /// How many hosts there are.
    pub(super) fn count(&self) -> usize {
        self.begins.len() - 1
    }

    /// How many ranks there are.
    pub(super) fn ranks(&self) -> usize {
        self.ranks.len()
    }

    /// The ranks of a host.
    pub(super) fn of(&self, host: usize) -> &[usize] {
        &self.ranks[self.begins[host]..self.begins[host + 1]]
    }

    /// The ranks of some hosts in ascending order, in runs that are numbered one after the other.
    pub(super) fn runs(&self, hosts: Range<usize>) -> Vec<Run> {
        let mut ranks = self.ranks[self.begins[hosts.start]..self.begins[hosts.end]].to_vec();
        ranks.sort_unstable();
        let runs = ranks.chunk_by(|before, after| before + 1 == *after);
        runs.map(|run| Run { first: run[0], length: run.len() }).collect()
    }

    /// The ranks of this rank's host.
    pub(super) fn here(&self) -> &[usize] {
        self.of(self.mine)
    }

    /// The host and the place of a rank.
    pub(super) fn home(&self, rank: usize) -> (usize, usize) {
        self.homes[rank]
    }

    /// How many ranks the largest host has.
    pub(super) fn largest(&self) -> usize {
        (0..self.count()).map(|host| self.of(host).len()).max().unwrap_or(1)
    }

    /// The rank that takes care of a shard on a host: its ranks take them in turns.
    pub(super) fn keeper(&self, host: usize, shard: usize) -> usize {
        let ranks = self.of(host);
        ranks[shard % ranks.len()]
    }

    /// How often the ranks of this host take one of so many shards each.
    pub(super) fn turns(&self, shards: usize) -> usize {
        shards.div_ceil(self.here().len())
    }

    /// Which of so many shards the rank at some place of this host takes then, if one is left.
    pub(super) fn shard(&self, place: usize, turn: usize, shards: usize) -> Option<usize> {
        let shard = turn * self.here().len() + place;
        (shard < shards).then_some(shard)
    }

    /// The places of this host's other ranks, from this rank's on: so not all begin with the same one.
    pub(super) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (place, count) = (self.place, self.here().len());
        (1..count).map(move |distance| (place + distance) % count)
    }

    /// The host so many before this one, around.
    pub(super) fn back(&self, hosts: usize) -> usize {
        (self.mine + self.count() - hosts) % self.count()
    }

    /// The keepers of a shard on the hosts before and after this one.
    pub(super) fn around(&self, shard: usize) -> (usize, usize) {
        let next = (self.mine + 1) % self.count();
        (self.keeper(self.back(1), shard), self.keeper(next, shard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_stand_for_hosts() {
        let cores = Hosts::cores(4, &Topology::one_host(5).with_cores(2));
        assert_eq!((cores.of(0), cores.of(1), cores.mine, cores.place), (&[0, 1, 2][..], &[3, 4][..], 1, 1));
    }

    #[test]
    fn hosts_are_found_whatever_their_ranks_numbers() {
        let hosts = Hosts::new(3, &Topology::new(vec![0, 1, 0, 1, 4, 0]));
        assert_eq!([hosts.of(0), hosts.of(1), hosts.of(2)], [&[0, 2, 5][..], &[1, 3], &[4]]);
        assert_eq!((hosts.mine, hosts.place, hosts.home(5), hosts.largest()), (1, 1, (0, 2), 3));
        assert_eq!((hosts.back(2), hosts.keeper(2, 7), hosts.around(1)), (2, 4, (2, 4)));
        let runs = hosts.runs(1..3).into_iter().map(|run| (run.first, run.length));
        assert_eq!(runs.collect::<Vec<_>>(), [(1, 1), (3, 2)]);
        // Three shards for two ranks.
        assert_eq!((hosts.turns(3), hosts.shard(0, 1, 3), hosts.shard(1, 1, 3)), (2, Some(2), None));
    }
}
