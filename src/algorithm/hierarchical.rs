//! Within each host first, between hosts once for each shard, then within each host again.
//!
//! 2 hosts, with 2 and 3 ranks, so 3 shards of 2 blocks; on each host one rank keeps each shard, and ranks keep them in
//! turns where there are fewer of them:
//!
//! ```text
//!              host 0           host 1
//!   shard 0    rank 0  ◀──ring──▶  rank 2        1. the ranks of a host send it what they have of its shards,
//!   shard 1    rank 1  ◀──ring──▶  rank 3           and it adds that up
//!   shard 2    rank 0  ◀──ring──▶  rank 4        2. its blocks go around the hosts, as in a ring: once to be
//!                                                   summed, once to be shared
//!                                                3. it sends its shards to the ranks of its host
//! ```
//!
//! | collective | time, for h hosts of m ranks each; α', β' between hosts                        |
//! | ---------- | ------------------------------------------------------------------------------ |
//! | all_reduce | 2(m-1)/m N β + N γ + 2(h-1) α' + 2(h-1)/h N/m β' on each of m links of a host   |
//!
//! So each byte crosses between hosts as often as it must, 2(h-1)/h times, from whatever rank: a plain ring crosses
//! as often as if every rank were a host. (The three phases of NCCL's hierarchical rings and of MVAPICH's two-level
//! collectives, with all ranks of a host as leaders of a shard each, as in Horovod's "torus" and BlueConnect, Cho et
//! al. 2019.)

use super::Algorithm;
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Source, Span};
use crate::plan::{from, input, output, scratch};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Hierarchical;

impl Algorithm for Hierarchical {
    fn name(&self) -> &'static str {
        "hierarchical"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        kind == CollectiveKind::AllReduce
    }

    fn write(&self, _: Collective, rank: usize, topology: &Topology) -> Builder {
        let hosts = Hosts::new(rank, topology);
        let blocks = hosts.all.len();
        let mut plan = Builder::new(hosts.shards * blocks, 1);
        let mut lane = plan.lane(0);
        for turn in 0..hosts.turns() {
            hosts.add_up(&mut lane, turn);
            if let Some(shard) = hosts.shard(hosts.place, turn) {
                hosts.around_to_sum(&mut lane, shard);
                hosts.around_to_share(&mut lane, shard);
            }
            hosts.hand_out(&mut lane, turn);
        }
        plan
    }
}

/// The ranks of each host, and where this rank stands.
struct Hosts {
    all: Vec<Vec<usize>>,
    /// The number of this rank's host.
    mine: usize,
    /// This rank's place on it.
    place: usize,
    /// As many as the largest host has ranks, so that each has one at least.
    shards: usize,
}

impl Hosts {
    fn new(rank: usize, topology: &Topology) -> Self {
        let mut all: Vec<Vec<usize>> = Vec::new();
        for other in 0..topology.size() {
            match all.iter_mut().find(|ranks| topology.together(ranks[0], other)) {
                Some(ranks) => ranks.push(other),
                None => all.push(vec![other]),
            }
        }
        let mine = all.iter().position(|ranks| ranks.contains(&rank)).unwrap_or(0);
        let place = all[mine].iter().position(|&other| other == rank).unwrap_or(0);
        let shards = all.iter().map(Vec::len).max().unwrap_or(1);
        Self { all, mine, place, shards }
    }

    /// The rank that takes care of a shard on a host.
    fn keeper(&self, host: usize, shard: usize) -> usize {
        let ranks = &self.all[host];
        ranks[shard % ranks.len()]
    }

    /// How often the ranks of this rank's host take a shard each.
    fn turns(&self) -> usize {
        self.shards.div_ceil(self.all[self.mine].len())
    }

    /// The shard that the rank at some place of this rank's host takes then, if one is left.
    fn shard(&self, place: usize, turn: usize) -> Option<usize> {
        let shard = turn * self.all[self.mine].len() + place;
        (shard < self.shards).then_some(shard)
    }

    /// The places of the host's other ranks, from this rank's on: so not all begin with the same one.
    fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let (place, count) = (self.place, self.all[self.mine].len());
        (1..count).map(move |distance| (place + distance) % count)
    }

    /// A shard's first block; it has one for each host.
    fn first(&self, shard: usize) -> usize {
        shard * self.all.len()
    }

    /// The block of a shard that is summed on the host so many before this one.
    fn back(&self, shard: usize, hosts: usize) -> usize {
        let count = self.all.len();
        self.first(shard) + (self.mine + count - hosts) % count
    }

    /// Where this host's sums lie: alone, a rank's input is its host's sum.
    fn sums(&self) -> fn(usize) -> Span {
        if self.all[self.mine].len() == 1 { input } else { |block| scratch(0, block) }
    }

    /// The keepers of a shard on the hosts before and after this one.
    fn around(&self, shard: usize) -> (usize, usize) {
        let count = self.all.len();
        let host = |steps| self.keeper((self.mine + steps) % count, shard);
        (host(count - 1), host(1))
    }

    /// Each rank of this host sums its shard, block by block: there is credit for few messages, so who has sent one
    /// to each takes one from each.
    fn add_up(&self, lane: &mut LaneBuilder<'_>, turn: usize) {
        let host = &self.all[self.mine];
        for at in 0..self.all.len() {
            for other in self.others() {
                if let Some(shard) = self.shard(other, turn) {
                    lane.send(input(self.first(shard) + at), host[other]);
                }
            }
            let Some(shard) = self.shard(self.place, turn) else { continue };
            let block = self.first(shard) + at;
            let (sum, mut operand) = (self.sums()(block), Source::from(input(block)));
            for other in self.others() {
                lane.reduce(operand, from(host[other]), sum);
                operand = sum.into();
            }
        }
    }

    /// A shard's blocks go around the hosts and come home summed, as in a ring.
    fn around_to_sum(&self, lane: &mut LaneBuilder<'_>, shard: usize) {
        let (prev, next) = self.around(shard);
        let (host_sum, home) = (self.sums(), self.back(shard, 0));
        if self.all.len() == 1 {
            lane.finish(host_sum(home), output(home));
            return;
        }
        lane.send(host_sum(self.back(shard, 1)), next);
        for steps in 2..self.all.len() {
            let block = self.back(shard, steps);
            lane.reduce(from(prev), host_sum(block), scratch(0, block));
            lane.send(scratch(0, block), next);
        }
        lane.reduce(from(prev), host_sum(home), scratch(0, home));
        lane.finish(scratch(0, home), output(home));
    }

    /// Its summed blocks go around once more.
    fn around_to_share(&self, lane: &mut LaneBuilder<'_>, shard: usize) {
        let (prev, next) = self.around(shard);
        for steps in 0..self.all.len() {
            let block = self.back(shard, steps);
            if steps > 0 {
                lane.recv(prev, output(block));
            }
            if steps + 1 < self.all.len() {
                lane.send(output(block), next);
            }
        }
    }

    /// The ranks of this host send each other their shards, likewise.
    fn hand_out(&self, lane: &mut LaneBuilder<'_>, turn: usize) {
        let host = &self.all[self.mine];
        for at in 0..self.all.len() {
            if let Some(shard) = self.shard(self.place, turn) {
                self.others().for_each(|other| _ = lane.send(output(self.first(shard) + at), host[other]));
            }
            for other in self.others() {
                if let Some(shard) = self.shard(other, turn) {
                    lane.recv(host[other], output(self.first(shard) + at));
                }
            }
        }
    }
}
