//! Everybody sends to everybody, or to the root: one hop.
//!
//! ```text
//!   rank 0   in ─┬──────────┐            all_reduce: every rank sends its input to every other one and
//!   rank 1   in ─┼─┬────────┤            folds what it gets and its own, in rank order.
//!   rank 2   in ─┼─┼─┬──────┤
//!                ▼ ▼ ▼      ⊕ 0 1 2
//! ```
//!
//! | collective                       | time                        |
//! | -------------------------------- | --------------------------- |
//! | all_reduce                       | α + (n-1) N β + (n-1) N γ   |
//! | reduce                           | α + (n-1) N β + (n-1) N γ   |
//! | broadcast                        | α + (n-1) N β               |
//! | reduce_scatter                   | α + (n-1)/n N (β + γ)       |
//! | all_gather, gather, scatter      | α + (n-1)/n N β             |
//! | all_to_all                       | α + (n-1)/n N β             |
//! | barrier                          | α                           |
//!
//! The least latency that there is, and exact rank order. The all-reduce is the small one of DeepSpeed's
//! shared memory (deepspeed/csrc/cpu/comm/shm.cpp): every rank reduces everything itself.
//! Ranks begin with their right-hand neighbour, so that not all start at the same receiver.

use super::Algorithm;
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Source, Span};
use crate::plan::{from, input, output, scratch};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Direct;

impl Algorithm for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn edge_local(&self) -> bool {
        true
    }

    fn rank_order(&self, kind: CollectiveKind) -> bool {
        kind.reduces()
    }

    fn does(&self, _: CollectiveKind) -> bool {
        true
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        let (n, root) = (topology.size(), collective.root as usize);
        match collective.kind {
            CollectiveKind::AllReduce => all_reduce(rank, n),
            CollectiveKind::ReduceScatter => reduce_scatter(rank, n),
            CollectiveKind::Reduce => reduce(rank, n, root),
            CollectiveKind::Broadcast => broadcast(rank, n, root),
            CollectiveKind::AllGather => all_gather(rank, n),
            CollectiveKind::Gather => gather(rank, n, root),
            CollectiveKind::Scatter => scatter(rank, n, root),
            CollectiveKind::AllToAll => all_to_all(rank, n),
            CollectiveKind::Barrier => barrier(rank, n),
        }
    }
}

/// The ranks after `rank`, around to the one before it.
pub(super) fn others(rank: usize, n: usize) -> impl Iterator<Item = usize> {
    (1..n).map(move |distance| (rank + distance) % n)
}

/// The others in the order in which their messages come when all ranks send to [`others`] in turn.
pub(super) fn senders(rank: usize, n: usize) -> impl Iterator<Item = usize> {
    (1..n).map(move |distance| (rank + n - distance) % n)
}

/// Folds the inputs `block` of all ranks in rank order: this rank's own and a message of each other.
pub(super) fn fold(lane: &mut LaneBuilder<'_>, rank: usize, n: usize, block: usize, into: Span) {
    let operand = |r: usize| if r == rank { Source::from(input(block)) } else { from(r) };
    let sum = scratch(0, block);
    lane.reduce(operand(0), operand(1), sum);
    (2..n).for_each(|r| _ = lane.reduce(sum, operand(r), sum));
    lane.finish(sum, into);
}

/// In place, the input is overwritten while others may still read it: no lending.
fn all_reduce(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(1, 1);
    let mut lane = plan.lane(0);
    others(rank, n).for_each(|peer| _ = lane.send(input(0), peer));
    fold(&mut lane, rank, n, 0, output(0));
    plan
}

/// Also the first half of `pairwise`.
pub(super) fn reduce_scatter(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(n, 1).lends();
    let mut lane = plan.lane(0);
    others(rank, n).for_each(|peer| _ = lane.send(input(peer), peer));
    fold(&mut lane, rank, n, rank, output(rank));
    plan
}

fn reduce(rank: usize, n: usize, root: usize) -> Builder {
    let mut plan = Builder::new(1, 1).lends();
    let mut lane = plan.lane(0);
    if rank == root {
        fold(&mut lane, rank, n, 0, output(0));
    } else {
        lane.send(input(0), root);
    }
    plan
}

fn broadcast(rank: usize, n: usize, root: usize) -> Builder {
    let mut plan = Builder::new(1, 1).lends();
    let mut lane = plan.lane(0);
    if rank == root {
        others(rank, n).for_each(|peer| _ = lane.send(input(0), peer));
        lane.copy(input(0), output(0));
    } else {
        lane.recv(root, output(0));
    }
    plan
}

fn all_gather(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(n, 1).lends();
    let mut lane = plan.lane(0);
    others(rank, n).for_each(|peer| _ = lane.send(input(rank), peer));
    lane.copy(input(rank), output(rank));
    senders(rank, n).for_each(|peer| _ = lane.recv(peer, output(peer)));
    plan
}

fn gather(rank: usize, n: usize, root: usize) -> Builder {
    let mut plan = Builder::new(n, 1).lends();
    let mut lane = plan.lane(0);
    if rank == root {
        lane.copy(input(rank), output(rank));
        others(rank, n).for_each(|peer| _ = lane.recv(peer, output(peer)));
    } else {
        lane.send(input(rank), root);
    }
    plan
}

fn scatter(rank: usize, n: usize, root: usize) -> Builder {
    let mut plan = Builder::new(n, 1).lends();
    let mut lane = plan.lane(0);
    if rank == root {
        others(rank, n).for_each(|peer| _ = lane.send(input(peer), peer));
        lane.copy(input(rank), output(rank));
    } else {
        lane.recv(root, output(rank));
    }
    plan
}

fn all_to_all(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(n, 1).lends();
    let mut lane = plan.lane(0);
    others(rank, n).for_each(|peer| _ = lane.send(input(peer), peer));
    lane.copy(input(rank), output(rank));
    senders(rank, n).for_each(|peer| _ = lane.recv(peer, output(peer)));
    plan
}

fn barrier(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(1, 1).lends();
    let mut lane = plan.lane(0);
    others(rank, n).for_each(|peer| _ = lane.send(input(0), peer));
    senders(rank, n).for_each(|peer| _ = lane.recv(peer, output(0)));
    plan
}
