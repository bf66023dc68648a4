//! Each host talks to each other one at once: one crossing; a host's ranks share in the talking.
//!
//! On each host one rank talks to each other host. All-reduce of 4 hosts of 2 ranks, as host 0 sees it:
//!
//! ```text
//!   within    0 ◀─▶ 1                            each sums the inputs of the host's ranks
//!   across    0 ◀─▶ host 2   1 ◀─▶ hosts 1, 3    even hosts' sums come to the first rank, odd ones' to the second
//!             0: sums of 0 2   1: sums of 1 3    which add them up
//!   within    0 ◀─▶ 1                            each adds up both
//! ```
//!
//! | collective     | time, for h hosts of m ranks each; α', β' between hosts                 |
//! | -------------- | ------------------------------------------------------------------------ |
//! | all_reduce     | 2 α + 2(m-1) N β + α' + (h-1) N β' + (m + h/m + m) N γ                    |
//! | broadcast      | 2 α + (m-1) N β + α' + (h-1) N β'                                         |
//! | reduce         | 2 α + (m-1) N (β + γ) + α' + (h-1) N (β' + γ)                             |
//! | all_gather     | α + (m-1)/m N β + α' + (h-1)/h N β'                                       |
//! | reduce_scatter | α + (m-1)/m N (β + γ) + α' + (h-1)/h N (β' + γ)                           |
//! | gather         | α + α' + (h-1)/h N β', in h-1 messages where a host's ranks are neighbours |
//! | scatter        | the same                                                                  |
//! | all_to_all     | α + α' + (h-1)/h N β', in (h-1) messages for each rank likewise            |
//! | barrier        | 2 α + α'                                                                  |
//!
//! All-gather and reduce-scatter cross as little as in `hierarchical`: a host's ranks take what comes in turns, or add up
//! what goes; what is for one rank or from one goes to it or from it at once. (What `direct` is among ranks, among hosts.)

use super::Algorithm;
use super::hosts::{Hosts, Run};
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Memory, Source, Span};
use crate::plan::{from, input, output, scratch};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Spread;

impl Algorithm for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }

    fn does(&self, _: CollectiveKind) -> bool {
        true
    }

    fn suits(&self, topology: &Topology) -> bool {
        topology.has_hosts()
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        let hosts = Hosts::new(rank, topology);
        let groups = hosts.largest().min(hosts.count());
        let here = Here { rank, root: collective.root as usize, groups, hosts };
        match collective.kind {
            CollectiveKind::AllReduce => here.all_reduce(),
            CollectiveKind::ReduceScatter => here.reduce_scatter(),
            CollectiveKind::AllGather => here.all_gather(),
            CollectiveKind::Broadcast => here.broadcast(),
            CollectiveKind::Reduce => here.reduce(),
            CollectiveKind::Gather => here.gather(),
            CollectiveKind::Scatter => here.scatter(),
            CollectiveKind::AllToAll => here.all_to_all(),
            CollectiveKind::Barrier => here.barrier(),
        }
    }
}

/// A rank among its neighbours, and hosts among theirs.
struct Here {
    rank: usize,
    root: usize,
    /// Of hosts, dealt out in turn; the ranks of each host take a group each, in turns where they are fewer.
    groups: usize,
    hosts: Hosts,
}

impl Here {
    /// The rank of host `a` that talks to host `b`.
    fn talker(&self, a: usize, b: usize) -> usize {
        self.hosts.keeper(a, b % self.groups)
    }

    /// The other hosts that this rank talks to, from its own on.
    fn partners(&self) -> impl Iterator<Item = usize> + '_ {
        let (mine, count) = (self.hosts.mine, self.hosts.count());
        let others = (1..count).map(move |distance| (mine + distance) % count);
        others.filter(move |&host| self.talker(mine, host) == self.rank)
    }

    /// The ranks of the other hosts that this one talks to.
    fn talked_to(&self) -> impl Iterator<Item = usize> + '_ {
        self.partners().map(|host| self.talker(host, self.hosts.mine))
    }

    /// The other ranks of this host, from this one on.
    fn neighbours(&self) -> impl Iterator<Item = usize> + '_ {
        self.hosts.others().map(|other| self.hosts.here()[other])
    }

    /// The host of the root, and whether it is this one.
    fn root_host(&self) -> (usize, bool) {
        let host = self.hosts.home(self.root).0;
        (host, host == self.hosts.mine)
    }

    /// What is sent is overwritten in the next round: no lending.
    fn all_reduce(&self) -> Builder {
        let mut plan = Builder::new(1, 1);
        let mut lane = plan.lane(0);
        self.neighbours().for_each(|peer| _ = lane.send(input(0), peer));
        let own = |rank: usize| if rank == self.rank { Source::from(input(0)) } else { from(rank) };
        let inputs = self.hosts.here().iter().map(|&rank| own(rank));
        let host_sum = fold(&mut lane, inputs, scratch(0, 0));
        self.talked_to().for_each(|peer| _ = lane.send(host_sum, peer));
        let mut total = None;
        for turn in 0..self.hosts.turns(self.groups) {
            let mut own = None;
            if let Some(group) = self.hosts.shard(self.hosts.place, turn, self.groups) {
                let sums = (group..self.hosts.count()).step_by(self.groups).map(|host| match host {
                    mine if mine == self.hosts.mine => Source::from(host_sum),
                    other => from(self.talker(other, self.hosts.mine)),
                });
                // The first turn's may be the total until the second.
                let sum = fold(&mut lane, sums, scratch(1 + turn.min(1) as u8, 0));
                self.neighbours().for_each(|peer| _ = lane.send(sum, peer));
                own = Some(sum);
            }
            total = Some(self.add_turn(&mut lane, total, turn, own));
        }
        lane.finish(total.expect("there is a group"), output(0));
        plan
    }

    /// Adds the sums of a turn's groups, of which one may be this rank's own, to those before.
    fn add_turn(
        &self,
        lane: &mut LaneBuilder<'_>,
        before: Option<Span>,
        turn: usize,
        own: Option<Span>,
    ) -> Span {
        let keepers = self.hosts.here().iter().enumerate();
        let keepers = keepers.filter(|&(place, _)| self.hosts.shard(place, turn, self.groups).is_some());
        let sums = keepers.map(|(_, &keeper)| match own {
            Some(own) if keeper == self.rank => own.into(),
            _ => from(keeper),
        });
        fold(lane, before.map(Source::from).into_iter().chain(sums), scratch(3, 0))
    }

    fn barrier(&self) -> Builder {
        let mut plan = Builder::new(1, 1);
        let mut lane = plan.lane(0);
        let meet = |lane: &mut LaneBuilder<'_>, peers: &[usize]| {
            peers.iter().for_each(|&peer| _ = lane.send(input(0), peer));
            peers.iter().rev().for_each(|&peer| _ = lane.recv(peer, output(0)));
        };
        let neighbours: Vec<usize> = self.neighbours().collect();
        meet(&mut lane, &neighbours);
        meet(&mut lane, &self.talked_to().collect::<Vec<_>>());
        if self.hosts.count() > 1 {
            meet(&mut lane, &neighbours);
        }
        plan
    }

    fn broadcast(&self) -> Builder {
        let mut plan = Builder::new(1, 1).lends();
        let mut lane = plan.lane(0);
        let (root_host, here) = self.root_host();
        match (here, self.talker(self.hosts.mine, root_host)) {
            (true, _) if self.rank == self.root => _ = lane.copy(input(0), output(0)),
            (true, _) => _ = lane.recv(self.root, output(0)),
            (false, talker) if self.rank == talker => {
                lane.recv(self.talker(root_host, self.hosts.mine), output(0));
            }
            (false, talker) => {
                lane.recv(talker, output(0));
                return plan;
            }
        }
        if !here || self.rank == self.root {
            self.neighbours().for_each(|peer| _ = lane.send(output(0), peer));
        }
        if here {
            self.talked_to().for_each(|peer| _ = lane.send(output(0), peer));
        }
        plan
    }

    fn reduce(&self) -> Builder {
        let mut plan = Builder::new(1, 1).lends();
        let mut lane = plan.lane(0);
        let (root_host, here) = self.root_host();
        let talker = self.talker(self.hosts.mine, root_host);
        let target = match here {
            true => Some(self.root).filter(|root| *root != self.rank),
            false if self.rank == talker => Some(self.talker(root_host, self.hosts.mine)),
            false => Some(talker),
        };
        // Neighbours give their sums to one rank; on the root's host they have asked other hosts before.
        let adds_up = if here { self.rank == self.root } else { self.rank == talker };
        let neighbours = self.neighbours().filter(|_| adds_up);
        let others = self.talked_to().filter(|_| here);
        let operands = [Source::from(input(0))].into_iter().chain(neighbours.chain(others).map(from));
        let sum = fold(&mut lane, operands, scratch(0, 0));
        match target {
            Some(target) => lane.send(sum, target),
            None => lane.finish(sum, output(0)),
        };
        plan
    }

    fn all_gather(&self) -> Builder {
        let mut plan = Builder::new(self.hosts.ranks(), 1).lends();
        let mut lane = plan.lane(0);
        let hosts = &self.hosts;
        lane.copy(input(self.rank), output(self.rank));
        for distance in 1..hosts.count() {
            let host = (hosts.mine + distance) % hosts.count();
            lane.send(input(self.rank), hosts.keeper(host, hosts.place));
        }
        for distance in 0..hosts.count() {
            let blocks = hosts.of(hosts.back(distance));
            for turn in 0..hosts.turns(blocks.len()) {
                if let Some(shard) = hosts.shard(hosts.place, turn, blocks.len()) {
                    let block = blocks[shard];
                    if distance > 0 {
                        lane.recv(block, output(block));
                    }
                    self.neighbours().for_each(|peer| _ = lane.send(output(block), peer));
                }
                for other in hosts.others() {
                    if let Some(shard) = hosts.shard(other, turn, blocks.len()) {
                        lane.recv(hosts.here()[other], output(blocks[shard]));
                    }
                }
            }
        }
        plan
    }

    fn reduce_scatter(&self) -> Builder {
        let mut plan = Builder::new(self.hosts.ranks(), 1).lends();
        let mut lane = plan.lane(0);
        let hosts = &self.hosts;
        for distance in 1..=hosts.count() {
            let home = (hosts.mine + distance) % hosts.count();
            let blocks = hosts.of(home);
            for turn in 0..hosts.turns(blocks.len()) {
                for other in hosts.others() {
                    if let Some(shard) = hosts.shard(other, turn, blocks.len()) {
                        lane.send(input(blocks[shard]), hosts.here()[other]);
                    }
                }
                let Some(shard) = hosts.shard(hosts.place, turn, blocks.len()) else { continue };
                let block = blocks[shard];
                let own = [Source::from(input(block))].into_iter().chain(self.neighbours().map(from));
                if home != hosts.mine {
                    let sum = fold(&mut lane, own, scratch(0, block));
                    lane.send(sum, block);
                    continue;
                }
                let others = (1..hosts.count()).map(|hosts_back| hosts.back(hosts_back));
                let theirs = others.map(|host| from(hosts.keeper(host, hosts.place)));
                let sum = fold(&mut lane, own.chain(theirs), scratch(0, block));
                lane.finish(sum, output(block));
            }
        }
        plan
    }

    /// The ranks of a host, in runs.
    fn runs(&self, host: usize) -> Vec<Run> {
        self.hosts.runs(host..host + 1)
    }

    /// A plan with a block for each rank, of which messages between hosts hold the runs of some hosts.
    fn ranked(&self, crossing: impl Fn(usize) -> bool) -> Builder {
        let hosts = (0..self.hosts.count()).filter(|&host| self.hosts.count() > 1 && crossing(host));
        let lengths = hosts.flat_map(|host| self.runs(host)).map(|run| run.length);
        Builder::new(self.hosts.ranks(), lengths.max().unwrap_or(1))
    }

    fn gather(&self) -> Builder {
        let (root_host, here) = self.root_host();
        let mut plan = self.ranked(|host| host != root_host);
        let mut lane = plan.lane(0);
        let talker = self.talker(self.hosts.mine, root_host);
        if self.rank == self.root {
            lane.copy(input(self.rank), output(self.rank));
            self.neighbours().for_each(|peer| _ = lane.recv(peer, output(peer)));
            for distance in 1..self.hosts.count() {
                let host = self.hosts.back(distance);
                let peer = self.talker(host, root_host);
                self.runs(host).into_iter().for_each(|run| _ = lane.recv(peer, run.span(Memory::Output)));
            }
        } else if here {
            lane.send(input(self.rank), self.root);
        } else if self.rank != talker {
            lane.send(input(self.rank), talker);
        } else {
            lane.copy(input(self.rank), scratch(0, self.rank));
            self.neighbours().for_each(|peer| _ = lane.recv(peer, scratch(0, peer)));
            self.runs(self.hosts.mine)
                .into_iter()
                .for_each(|run| _ = lane.send(run.span(Memory::Scratch(0)), self.root));
        }
        plan
    }

    fn scatter(&self) -> Builder {
        let (root_host, here) = self.root_host();
        let mut plan = self.ranked(|host| host != root_host);
        let mut lane = plan.lane(0);
        let talker = self.talker(self.hosts.mine, root_host);
        if self.rank == self.root {
            for distance in 1..self.hosts.count() {
                let host = self.hosts.back(distance);
                let peer = self.talker(host, root_host);
                self.runs(host).into_iter().for_each(|run| _ = lane.send(run.span(Memory::Input), peer));
            }
            self.neighbours().for_each(|peer| _ = lane.send(input(peer), peer));
            lane.copy(input(self.rank), output(self.rank));
        } else if here || self.rank != talker {
            lane.recv(if here { self.root } else { talker }, output(self.rank));
        } else {
            self.runs(self.hosts.mine)
                .into_iter()
                .for_each(|run| _ = lane.recv(self.root, run.span(Memory::Scratch(0))));
            self.neighbours().for_each(|peer| _ = lane.send(scratch(0, peer), peer));
            lane.copy(scratch(0, self.rank), output(self.rank));
        }
        plan
    }

    /// Whether a host's ranks are numbered one after the other, so that one message holds what is for all of them.
    fn one_run(&self, host: usize) -> bool {
        self.runs(host).len() == 1
    }

    /// What is sent is overwritten by what comes from the next host: no lending.
    fn all_to_all(&self) -> Builder {
        let mut plan = self.ranked(|host| self.one_run(host));
        let mut lane = plan.lane(0);
        let hosts = &self.hosts;
        for distance in 1..hosts.count() {
            let host = (hosts.mine + distance) % hosts.count();
            match self.one_run(host) {
                true => self.runs(host).into_iter().for_each(|run| {
                    lane.send(run.span(Memory::Input), hosts.keeper(host, hosts.place));
                }),
                false => hosts.of(host).iter().for_each(|&rank| _ = lane.send(input(rank), rank)),
            }
        }
        self.neighbours().for_each(|peer| _ = lane.send(input(peer), peer));
        lane.copy(input(self.rank), output(self.rank));
        self.neighbours().for_each(|peer| _ = lane.recv(peer, output(peer)));
        for distance in 1..hosts.count() {
            let sources = hosts.of(hosts.back(distance));
            match self.one_run(hosts.mine) {
                true => self.deal_out(&mut lane, sources),
                false => sources.iter().for_each(|&rank| _ = lane.recv(rank, output(rank))),
            }
        }
        plan
    }

    /// The ranks of this host take what those of another one sent to it, in turns, and give each other theirs.
    fn deal_out(&self, lane: &mut LaneBuilder<'_>, sources: &[usize]) {
        let hosts = &self.hosts;
        for turn in 0..hosts.turns(sources.len()) {
            if let Some(shard) = hosts.shard(hosts.place, turn, sources.len()) {
                let source = sources[shard];
                self.runs(hosts.mine)
                    .into_iter()
                    .for_each(|run| _ = lane.recv(source, run.span(Memory::Scratch(0))));
                self.neighbours().for_each(|peer| _ = lane.send(scratch(0, peer), peer));
                lane.copy(scratch(0, self.rank), output(source));
            }
            for other in hosts.others() {
                if let Some(shard) = hosts.shard(other, turn, sources.len()) {
                    lane.recv(hosts.here()[other], output(sources[shard]));
                }
            }
        }
    }
}

/// Combines operands from left to right, of which the first may be all; says where the sum lies.
fn fold(lane: &mut LaneBuilder<'_>, operands: impl IntoIterator<Item = Source>, sum: Span) -> Span {
    let mut operands = operands.into_iter();
    let mut so_far = operands.next().expect("there is something to sum");
    for operand in operands {
        lane.reduce(so_far, operand, sum);
        so_far = sum.into();
    }
    match so_far {
        Source::Local(span) => span,
        Source::From(rank) => {
            lane.recv(rank as usize, sum);
            sum
        }
    }
}
