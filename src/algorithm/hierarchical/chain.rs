//! Broadcast and reduce: as many shards as the largest host has ranks, each of which crosses a chain of hosts.
//!
//! 3 hosts of 2 ranks, 2 shards, root 0:
//!
//! ```text
//!   broadcast   shard 0   0 ──▶ 2 ──▶ 4         keepers hand what comes to the next host and to their neighbours;
//!                         ▼     ▼     ▼         the root gives its neighbours their shards
//!                         1     3     5
//!   reduce      shard 1   3 ──▶ 5 ──▶ 1 ──▶ 0   keepers add their neighbours' to what comes; on the root's host
//!                         2     4     0         they give it to the root
//! ```

use crate::algorithm::hosts::Hosts;
use crate::plan::{Builder, LaneBuilder, Source, from, input, output, scratch};

/// Where this rank stands, seen from the root.
struct Here<'a> {
    hosts: &'a Hosts,
    shards: usize,
    /// How many hosts lie between the root's and this one.
    distance: usize,
    /// The root's place, on its host.
    root: Option<usize>,
}

impl<'a> Here<'a> {
    fn new(hosts: &'a Hosts, root: usize) -> Self {
        let (host, place) = hosts.home(root);
        let distance = (hosts.mine + hosts.count() - host) % hosts.count();
        Self { hosts, shards: hosts.largest(), distance, root: (distance == 0).then_some(place) }
    }

    fn is_root(&self) -> bool {
        self.root == Some(self.hosts.place)
    }

    /// The shard that the rank at some place takes then.
    fn shard(&self, place: usize, turn: usize) -> Option<usize> {
        self.hosts.shard(place, turn, self.shards)
    }

    /// The ranks at other places of this host but the root's.
    fn neighbours(&self) -> impl Iterator<Item = usize> + '_ {
        let others = self.hosts.others().filter(|other| Some(*other) != self.root);
        others.map(|other| self.hosts.here()[other])
    }
}

pub(super) fn broadcast(hosts: &Hosts, rank: usize, root: usize) -> Builder {
    let here = Here::new(hosts, root);
    let mut plan = Builder::new(here.shards, 1).lends();
    let mut lane = plan.lane(0);
    for turn in 0..hosts.turns(here.shards) {
        if rank == root {
            for (other, &keeper) in hosts.here().iter().enumerate().filter(|(_, keeper)| **keeper != root) {
                if let Some(shard) = here.shard(other, turn) {
                    lane.copy(input(shard), output(shard)).send(output(shard), keeper);
                }
            }
        }
        if let Some(shard) = here.shard(hosts.place, turn) {
            here.pass_on(&mut lane, shard);
        }
        for other in hosts.others().filter(|_| rank != root) {
            if let Some(shard) = here.shard(other, turn) {
                lane.recv(hosts.here()[other], output(shard));
            }
        }
    }
    plan
}

pub(super) fn reduce(hosts: &Hosts, rank: usize, root: usize) -> Builder {
    let here = Here::new(hosts, root);
    let mut plan = Builder::new(here.shards, 1).lends();
    let mut lane = plan.lane(0);
    for turn in 0..hosts.turns(here.shards) {
        for other in hosts.others() {
            if let Some(shard) = here.shard(other, turn) {
                lane.send(input(shard), hosts.here()[other]);
            }
        }
        if let Some(shard) = here.shard(hosts.place, turn) {
            here.add_to(&mut lane, shard, root);
        }
        for other in hosts.others().filter(|_| rank == root) {
            if let Some(shard) = here.shard(other, turn) {
                lane.recv(hosts.here()[other], output(shard));
            }
        }
    }
    plan
}

impl Here<'_> {
    /// A keeper takes a shard from the root or from the host before, and hands it on.
    fn pass_on(&self, lane: &mut LaneBuilder<'_>, shard: usize) {
        let (prev, next) = self.hosts.around(shard);
        match self.root {
            Some(_) if self.is_root() => lane.copy(input(shard), output(shard)),
            Some(root) => lane.recv(self.hosts.here()[root], output(shard)),
            None => lane.recv(prev, output(shard)),
        };
        if self.distance + 1 < self.hosts.count() {
            lane.send(output(shard), next);
        }
        self.neighbours().for_each(|neighbour| _ = lane.send(output(shard), neighbour));
    }

    /// A keeper adds this host's inputs to what comes from the host before, and sends that on: the chain begins on the
    /// host after the root's.
    fn add_to(&self, lane: &mut LaneBuilder<'_>, shard: usize, root: usize) {
        let (prev, next) = self.hosts.around(shard);
        let before = (self.distance != 1 && self.hosts.count() > 1).then(|| from(prev));
        let neighbours = self.hosts.others().map(|other| from(self.hosts.here()[other]));
        let mut sum = input(shard);
        for operand in before.into_iter().chain(neighbours) {
            lane.reduce(operand, Source::from(sum), scratch(0, shard));
            sum = scratch(0, shard);
        }
        match self.root {
            Some(_) if self.is_root() => lane.finish(sum, output(shard)),
            Some(_) => lane.finish(sum, scratch(0, shard)).send(scratch(0, shard), root),
            None => lane.send(sum, next),
        };
    }
}
