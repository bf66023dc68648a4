//! Within each host first, then between hosts by halves: log h crossings, whatever the number of hosts.
//!
//! Hosts are halved, and their halves again; members of two halves exchange what the other half is to sum. Where a half
//! is one larger, its last member gives to the first of the other one, which has two partners then:
//!
//! ```text
//!   hosts          0      1      2      3      4        5 blocks of a shard, one for each host
//!   level 0        ◀──────┼──────┼──────▶               0 and 3, 1 and 4 exchange; 2 gives its 3 4 to 3
//!   keeps          012    012    012    34     34
//!   level 1        ◀──────┼──────▶      ◀──────▶        0 and 2; 1 gives its 2 to 2; 3 and 4
//!   level 2        ◀──────▶
//!   summed         0      1      2      3      4        then all of it backwards, with sums
//! ```
//!
//! | collective | time, for h hosts of m ranks each; α', β' between hosts, of whose network m links share         |
//! | ---------- | ------------------------------------------------------------------------------------------------ |
//! | all_reduce | 2(m-1)/m N β + N γ + 2 log h α' + 2(h-1)/h N/m β' on each of m links, log h rounded up            |
//!
//! The ranks of a host keep a shard each, as in `hierarchical`, which takes more crossings and overlaps more of them.
//! (Rabenseifner's halving and doubling between hosts, its folding replaced by halves that need not be equal.)

use std::ops::Range;

use super::Algorithm;
use super::hosts::Hosts;
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Memory, Span, from};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Halves;

impl Algorithm for Halves {
    fn name(&self) -> &'static str {
        "halves"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        kind == CollectiveKind::AllReduce
    }

    fn suits(&self, topology: &Topology) -> bool {
        topology.has_hosts()
    }

    fn write(&self, _: Collective, rank: usize, topology: &Topology) -> Builder {
        let hosts = Hosts::new(rank, topology);
        let here = Here { shards: hosts.largest(), hosts };
        let count = here.hosts.count();
        let mut plan = Builder::new(here.shards * count, count.div_ceil(2));
        let mut lane = plan.lane(0);
        for turn in 0..here.hosts.turns(here.shards) {
            here.add_up(&mut lane, turn);
            if let Some(shard) = here.shard(here.hosts.place, turn) {
                here.halve(&mut lane, shard);
                here.double(&mut lane, shard);
            }
            here.hand_out(&mut lane, turn);
        }
        plan
    }
}

/// What one of some members does at one level.
pub(super) struct Level {
    /// The half that it belongs to.
    pub(super) mine: Range<usize>,
    /// The other one.
    pub(super) theirs: Range<usize>,
    /// Who of them has what it needs of them; and gets, on the way to sums, what it has for them.
    pub(super) source: usize,
    /// Who of them need what it has; and give it what they have for its half.
    pub(super) targets: Vec<usize>,
}

/// The levels of one of `count` members, the one of all members first.
pub(super) fn levels(member: usize, count: usize) -> Vec<Level> {
    let mut all = 0..count;
    let mut levels = Vec::new();
    while all.len() > 1 {
        let (lower, upper) = halves(&all);
        let (mine, theirs) = if lower.contains(&member) { (lower, upper) } else { (upper, lower) };
        let place = member - mine.start;
        let source = theirs.start + place % theirs.len();
        let targets = theirs.clone().filter(|other| (other - theirs.start) % mine.len() == place).collect();
        all = mine.clone();
        levels.push(Level { mine, theirs, source, targets });
    }
    levels
}

/// Two halves, of which the lower one may be one larger.
pub(super) fn halves(all: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let middle = all.start + all.len().div_ceil(2);
    (all.start..middle, middle..all.end)
}

/// Where this rank stands.
struct Here {
    hosts: Hosts,
    shards: usize,
}

impl Here {
    fn shard(&self, place: usize, turn: usize) -> Option<usize> {
        self.hosts.shard(place, turn, self.shards)
    }

    /// A shard's blocks for some hosts.
    fn span(&self, memory: Memory, shard: usize, hosts: &Range<usize>) -> Span {
        Span::new(memory, shard * self.hosts.count() + hosts.start).wide(hosts.len())
    }

    /// Both halves of all hosts, or the only host.
    fn halves(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let (lower, upper) = halves(&(0..self.hosts.count()));
        [lower, upper].into_iter().filter(|half| !half.is_empty())
    }

    /// Where this host's sums lie: alone, a rank's input is its host's sum.
    fn sums(&self) -> Memory {
        if self.hosts.here().len() == 1 { Memory::Input } else { Memory::Scratch(0) }
    }

    /// Each rank of this host sums its shard of the host's inputs.
    fn add_up(&self, lane: &mut LaneBuilder<'_>, turn: usize) {
        let host = self.hosts.here();
        for half in self.halves() {
            for other in self.hosts.others() {
                if let Some(shard) = self.shard(other, turn) {
                    lane.send(self.span(Memory::Input, shard, &half), host[other]);
                }
            }
            let Some(shard) = self.shard(self.hosts.place, turn) else { continue };
            let (mut so_far, sum) = (Memory::Input, self.span(Memory::Scratch(0), shard, &half));
            for other in self.hosts.others() {
                lane.reduce(self.span(so_far, shard, &half), from(host[other]), sum);
                so_far = Memory::Scratch(0);
            }
        }
    }

    /// Sums this host's block of a shard.
    fn halve(&self, lane: &mut LaneBuilder<'_>, shard: usize) {
        let mine = self.hosts.mine;
        let mut memory = self.sums();
        for level in levels(mine, self.hosts.count()) {
            lane.send(self.span(memory, shard, &level.theirs), self.hosts.keeper(level.source, shard));
            for host in level.targets {
                let (sum, so_far) = (
                    self.span(Memory::Scratch(0), shard, &level.mine),
                    self.span(memory, shard, &level.mine),
                );
                lane.reduce(so_far, from(self.hosts.keeper(host, shard)), sum);
                memory = Memory::Scratch(0);
            }
        }
        let home = mine..mine + 1;
        lane.finish(self.span(memory, shard, &home), self.span(Memory::Output, shard, &home));
    }

    /// Shares all hosts' blocks of a shard.
    fn double(&self, lane: &mut LaneBuilder<'_>, shard: usize) {
        for level in levels(self.hosts.mine, self.hosts.count()).into_iter().rev() {
            for host in level.targets {
                let have = self.span(Memory::Output, shard, &level.mine);
                lane.send(have, self.hosts.keeper(host, shard));
            }
            let theirs = self.span(Memory::Output, shard, &level.theirs);
            lane.recv(self.hosts.keeper(level.source, shard), theirs);
        }
    }

    /// The ranks of this host send each other their shards.
    fn hand_out(&self, lane: &mut LaneBuilder<'_>, turn: usize) {
        let (host, place) = (self.hosts.here(), self.hosts.place);
        for half in self.halves() {
            if let Some(shard) = self.shard(place, turn) {
                let shard = self.span(Memory::Output, shard, &half);
                self.hosts.others().for_each(|other| _ = lane.send(shard, host[other]));
            }
            for other in self.hosts.others() {
                if let Some(shard) = self.shard(other, turn) {
                    lane.recv(host[other], self.span(Memory::Output, shard, &half));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a member has after all levels, or gives away on the way to sums, is everybody's, exactly once.
    #[test]
    fn halves_share_everything_in_the_fewest_levels() {
        for count in 1..=70usize {
            let all: Vec<Vec<Level>> = (0..count).map(|member| levels(member, count)).collect();
            let most = all.iter().map(Vec::len).max().expect("one member or more");
            assert_eq!(most as u32, count.next_power_of_two().trailing_zeros(), "{count}");
            for (member, levels) in all.iter().enumerate() {
                for (depth, level) in levels.iter().enumerate() {
                    assert!(level.mine.contains(&member) && level.theirs.contains(&level.source));
                    assert!((1..=2).contains(&level.targets.len()) || level.mine.len() > level.theirs.len());
                    for &target in &level.targets {
                        assert_eq!(
                            (all[target][depth].source, &all[target][depth].mine),
                            (member, &level.theirs)
                        );
                    }
                    assert!(all[level.source][depth].targets.contains(&member));
                }
            }
        }
    }
}
