//! One rank of each host leads: ranks meet at their leader, leaders cross between hosts log h times, whatever the number
//! of hosts and the numbers of their ranks. On one host with more ranks than cores and no shared memory,
//! each core has a leader.
//!
//! 3 hosts of 2 ranks; the leaders 0, 2 and 4 go by `halves`:
//!
//! ```text
//!   all-reduce   1 ─▶ 0   3 ─▶ 2   5 ─▶ 4        each leader sums its host
//!                0 ◀─▶ 2                         leaders of two halves exchange all that they have: 0 1 | 2
//!                0 ◀─▶ 4  2 ◀── 4
//!                0 ─▶ 1   2 ─▶ 3   4 ─▶ 5        and hand out the sum
//! ```
//!
//! | collective     | time, for h hosts of m ranks each, log h rounded up; α', β' between hosts |
//! | -------------- | -------------------------------------------------------------------------- |
//! | all_reduce     | 2 α + 2(m-1) N β + log h (α' + N (β' + γ)) + (m-1) N γ                     |
//! | broadcast      | α + (m-1) N β + log h α' + N β' for each of a host's children              |
//! | reduce         | α + (m-1) N (β + γ) + log h α' + N (β' + γ) for each of a host's children  |
//! | barrier        | 2 α + log h α'                                                             |
//!
//! Where ranks share cores, each message costs a core that is busy in any case: an all-reduce of n ranks on c cores takes
//! 2(n-c) + c log c messages, recursive doubling n log n.
//!
//! All members of a half have the same bits, and combine lower halves with higher ones: so all get the same. Broadcast
//! and reduce go by a binomial tree of hosts, the barrier by dissemination, as in `doubling`. (Two-level collectives, as
//! in MVAPICH and in Open MPI's "han", by uneven recursive doubling.)

use super::Algorithm;
use super::halves::levels;
use super::hosts::Hosts;
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Source, Span};
use crate::plan::{from, input, output, scratch};
use crate::topology::Topology;

/// The most ranks of a core that has a leader: it has a connection to each of them.
const MOST_ON_A_CORE: usize = 8;

/// See the module's page.
pub(super) struct Leaders;

impl Algorithm for Leaders {
    fn name(&self) -> &'static str {
        "leaders"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        use CollectiveKind::{AllReduce, Barrier, Broadcast, Reduce};
        matches!(kind, AllReduce | Broadcast | Reduce | Barrier)
    }

    fn suits(&self, topology: &Topology) -> bool {
        topology.has_hosts() || !topology.has_board() && (2..=MOST_ON_A_CORE).contains(&topology.crowd())
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        let hosts =
            if topology.has_hosts() { Hosts::new(rank, topology) } else { Hosts::cores(rank, topology) };
        let here = Here { rank, root: collective.root as usize, hosts };
        match collective.kind {
            CollectiveKind::Broadcast => here.broadcast(),
            CollectiveKind::Reduce => here.reduce(),
            CollectiveKind::Barrier => here.barrier(),
            _ => here.all_reduce(),
        }
    }
}

/// A rank among leaders and led.
struct Here {
    rank: usize,
    root: usize,
    hosts: Hosts,
}

impl Here {
    /// The leader of a host: its first rank, or the root.
    fn leader(&self, host: usize) -> usize {
        if self.hosts.home(self.root).0 == host { self.root } else { self.hosts.of(host)[0] }
    }

    /// This rank's leader, unless it leads.
    fn led_by(&self) -> Option<usize> {
        Some(self.leader(self.hosts.mine)).filter(|leader| *leader != self.rank)
    }

    /// The other ranks of this host, in their order.
    fn led(&self) -> impl Iterator<Item = usize> + '_ {
        self.hosts.here().iter().copied().filter(|&rank| rank != self.rank)
    }

    /// Gives the sum of the inputs of this host's ranks.
    fn add_up(&self, lane: &mut LaneBuilder<'_>) -> Span {
        let mut sum = input(0);
        for rank in self.led() {
            lane.reduce(sum, from(rank), scratch(0, 0));
            sum = scratch(0, 0);
        }
        sum
    }

    /// What is sent is overwritten right after: no lending.
    fn all_reduce(&self) -> Builder {
        let mut plan = Builder::new(1, 1);
        let mut lane = plan.lane(0);
        if let Some(leader) = self.led_by() {
            lane.send(input(0), leader).recv(leader, output(0));
            return plan;
        }
        let mut sum = self.add_up(&mut lane);
        for level in levels(self.hosts.mine, self.hosts.count()).into_iter().rev() {
            level.targets.iter().for_each(|&host| _ = lane.send(sum, self.leader(host)));
            let theirs = from(self.leader(level.source));
            let (low, high) = match level.mine.start < level.theirs.start {
                true => (Source::from(sum), theirs),
                false => (theirs, sum.into()),
            };
            lane.reduce(low, high, scratch(0, 0));
            sum = scratch(0, 0);
        }
        lane.finish(sum, output(0));
        self.led().for_each(|rank| _ = lane.send(output(0), rank));
        plan
    }

    fn barrier(&self) -> Builder {
        let mut plan = Builder::new(1, 1);
        let mut lane = plan.lane(0);
        if let Some(leader) = self.led_by() {
            lane.send(input(0), leader).recv(leader, output(0));
            return plan;
        }
        self.led().for_each(|rank| _ = lane.recv(rank, output(0)));
        let (mine, count) = (self.hosts.mine, self.hosts.count());
        let distances = std::iter::successors(Some(1), |distance| Some(distance * 2));
        for distance in distances.take_while(|&distance| distance < count) {
            lane.send(input(0), self.leader((mine + distance) % count));
            lane.recv(self.leader(self.hosts.back(distance)), output(0));
        }
        self.led().for_each(|rank| _ = lane.send(output(0), rank));
        plan
    }

    /// The parent of this host in the binomial tree of the root's, and its children, the one with the fewest hosts
    /// below it first.
    fn tree(&self) -> (Option<usize>, Vec<usize>) {
        let (root, count) = (self.hosts.home(self.root).0, self.hosts.count());
        let distance = (self.hosts.mine + count - root) % count;
        let leader = |distance: usize| self.leader((root + distance) % count);
        let bits = (0..usize::BITS).map(|bit| 1 << bit);
        let below = bits.take_while(|&bit| distance + bit < count && distance & (2 * bit - 1) == 0);
        let children = below.map(|bit| leader(distance + bit)).collect();
        ((distance > 0).then(|| leader(distance & (distance - 1))), children)
    }

    fn broadcast(&self) -> Builder {
        let mut plan = Builder::new(1, 1).lends();
        let mut lane = plan.lane(0);
        if let Some(leader) = self.led_by() {
            lane.recv(leader, output(0));
            return plan;
        }
        let (parent, children) = self.tree();
        match parent {
            None => lane.copy(input(0), output(0)),
            Some(parent) => lane.recv(parent, output(0)),
        };
        children.into_iter().rev().chain(self.led()).for_each(|rank| _ = lane.send(output(0), rank));
        plan
    }

    fn reduce(&self) -> Builder {
        let mut plan = Builder::new(1, 1).lends();
        let mut lane = plan.lane(0);
        if let Some(leader) = self.led_by() {
            lane.send(input(0), leader);
            return plan;
        }
        let (parent, children) = self.tree();
        let mut sum = self.add_up(&mut lane);
        for child in children {
            lane.reduce(sum, from(child), scratch(0, 0));
            sum = scratch(0, 0);
        }
        match parent {
            None => lane.finish(sum, output(0)),
            Some(parent) => lane.send(sum, parent),
        };
        plan
    }
}
