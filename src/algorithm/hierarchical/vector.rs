//! All-reduce: as many shards as the largest host has ranks, each of one block for each host and lane.
//!
//! ```text
//!   add_up            each rank of a host sums its shard of the host's inputs
//!   around_to_sum     the shard's blocks go around the hosts, as in a ring, and come home summed
//!   around_to_share   they go around once more
//!   hand_out          the ranks of a host send each other their shards
//! ```

use crate::algorithm::hosts::Hosts;
use crate::plan::{Builder, LaneBuilder, Source, Span};
use crate::plan::{from, input, output, scratch};

/// Each has its part of the shards: while one works within the host, the other crosses.
const LANES: usize = 2;

pub(super) fn all_reduce(hosts: &Hosts) -> Builder {
    let shards = hosts.largest();
    let blocks = shards * hosts.count();
    let mut plan = Builder::new(LANES * blocks, 1);
    for number in 0..LANES {
        let here = Here { hosts, shards, bank: number as u8, begin: number * blocks };
        let mut lane = plan.lane(number as u8);
        for turn in 0..hosts.turns(shards) {
            here.add_up(&mut lane, turn);
            if let Some(shard) = here.shard(hosts.place, turn) {
                here.around_to_sum(&mut lane, shard);
                here.around_to_share(&mut lane, shard);
            }
            here.hand_out(&mut lane, turn);
        }
    }
    plan
}

/// Where this rank stands.
struct Here<'a> {
    hosts: &'a Hosts,
    /// As many as the largest host has ranks, so that each has one at least.
    shards: usize,
    /// The lane's scratch, and where its blocks begin.
    bank: u8,
    begin: usize,
}

impl Here<'_> {
    fn shard(&self, place: usize, turn: usize) -> Option<usize> {
        self.hosts.shard(place, turn, self.shards)
    }

    /// A shard's first block; it has one for each host.
    fn first(&self, shard: usize) -> usize {
        self.begin + shard * self.hosts.count()
    }

    /// The block of a shard that is summed on the host so many before this one.
    fn back(&self, shard: usize, hosts: usize) -> usize {
        self.first(shard) + self.hosts.back(hosts)
    }

    fn scratch(&self, block: usize) -> Span {
        scratch(self.bank, block)
    }

    /// Where this host's sum lies: alone, a rank's input is its host's sum.
    fn host_sum(&self, block: usize) -> Span {
        if self.hosts.here().len() == 1 { input(block) } else { self.scratch(block) }
    }

    /// Each rank of this host sums its shard, block by block: there is credit for few messages, so who has sent one
    /// to each takes one from each.
    fn add_up(&self, lane: &mut LaneBuilder<'_>, turn: usize) {
        let host = self.hosts.here();
        for at in 0..self.hosts.count() {
            for other in self.hosts.others() {
                if let Some(shard) = self.shard(other, turn) {
                    lane.send(input(self.first(shard) + at), host[other]);
                }
            }
            let Some(shard) = self.shard(self.hosts.place, turn) else { continue };
            let block = self.first(shard) + at;
            let (sum, mut operand) = (self.host_sum(block), Source::from(input(block)));
            for other in self.hosts.others() {
                lane.reduce(operand, from(host[other]), sum);
                operand = sum.into();
            }
        }
    }

    /// A shard's blocks go around the hosts and come home summed, as in a ring.
    fn around_to_sum(&self, lane: &mut LaneBuilder<'_>, shard: usize) {
        let (prev, next) = self.hosts.around(shard);
        let home = self.back(shard, 0);
        if self.hosts.count() == 1 {
            lane.finish(self.host_sum(home), output(home));
            return;
        }
        lane.send(self.host_sum(self.back(shard, 1)), next);
        for steps in 2..self.hosts.count() {
            let block = self.back(shard, steps);
            lane.reduce(from(prev), self.host_sum(block), self.scratch(block));
            lane.send(self.scratch(block), next);
        }
        lane.reduce(from(prev), self.host_sum(home), self.scratch(home));
        lane.finish(self.scratch(home), output(home));
    }

    /// Its summed blocks go around once more.
    fn around_to_share(&self, lane: &mut LaneBuilder<'_>, shard: usize) {
        let (prev, next) = self.hosts.around(shard);
        for steps in 0..self.hosts.count() {
            let block = self.back(shard, steps);
            if steps > 0 {
                lane.recv(prev, output(block));
            }
            if steps + 1 < self.hosts.count() {
                lane.send(output(block), next);
            }
        }
    }

    /// The ranks of this host send each other their shards, likewise.
    fn hand_out(&self, lane: &mut LaneBuilder<'_>, turn: usize) {
        let (host, place) = (self.hosts.here(), self.hosts.place);
        for at in 0..self.hosts.count() {
            if let Some(shard) = self.shard(place, turn) {
                let block = output(self.first(shard) + at);
                self.hosts.others().for_each(|other| _ = lane.send(block, host[other]));
            }
            for other in self.hosts.others() {
                if let Some(shard) = self.shard(other, turn) {
                    lane.recv(host[other], output(self.first(shard) + at));
                }
            }
        }
    }
}
