//! Blocks travel around the ring of ranks (a kolo).
//!
//! All-reduce of 4 ranks; each block starts right of its rank and comes home summed, then goes around
//! once more. `+` is one more contribution, `*` the whole sum:
//!
//! ```text
//!   step   rank 0      rank 1      rank 2      rank 3
//!   0      send 3      send 0      send 1      send 2
//!   1      pass 2+     pass 3+     pass 0+     pass 1+
//!   2      pass 1+     pass 2+     pass 3+     pass 0+
//!   3      pass 0*     pass 1*     pass 2*     pass 3*      reduce_scatter ends, all_gather begins
//!   4      pass 3*     pass 0*     pass 1*     pass 2*
//!   5      pass 2*     pass 3*     pass 0*     pass 1*
//!   6      recv 1*     recv 2*     recv 3*     recv 0*
//! ```
//!
//! | collective       | time                                       |
//! | ---------------- | ------------------------------------------ |
//! | all_reduce       | 2(n-1) α + 2(n-1)/n N β + (n-1)/n N γ      |
//! | reduce_scatter   | (n-1) α + (n-1)/n N (β + γ)                |
//! | all_gather       | (n-1) α + (n-1)/n N β                      |
//! | broadcast        | (n-1) α + N β, over many rounds            |
//! | reduce           | (n-1) α + N (β + γ), over many rounds      |
//!
//! Source: Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations"
//! (2009); NCCL's `runRing`. Broadcast and reduce are pipelined chains.

use super::Algorithm;
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, from, input, output, scratch};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Ring;

impl Algorithm for Ring {
    fn name(&self) -> &'static str {
        "ring"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        use CollectiveKind::{AllGather, AllReduce, Broadcast, Reduce, ReduceScatter};
        matches!(kind, AllReduce | ReduceScatter | AllGather | Broadcast | Reduce)
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        let n = topology.size();
        let here = Here { rank, n, next: (rank + 1) % n, prev: (rank + n - 1) % n };
        let root = collective.root as usize;
        match collective.kind {
            CollectiveKind::Broadcast => broadcast(&here, root),
            CollectiveKind::Reduce => reduce(&here, root),
            kind => {
                let mut plan = Builder::new(n, 1).lends();
                let mut lane = plan.lane(0);
                lane.reserve(4 * n);
                if kind.reduces() {
                    around_to_sum(&mut lane, &here);
                } else {
                    lane.copy(input(rank), output(rank));
                }
                if kind != CollectiveKind::ReduceScatter {
                    around_to_share(&mut lane, &here);
                }
                plan
            }
        }
    }
}

/// A place in the ring.
struct Here {
    rank: usize,
    n: usize,
    next: usize,
    prev: usize,
}

impl Here {
    /// The block of the rank `steps` before this one.
    fn back(&self, steps: usize) -> usize {
        (self.rank + self.n - steps) % self.n
    }
}

/// Each block comes home summed, so that output `rank` is final.
fn around_to_sum(lane: &mut LaneBuilder<'_>, here: &Here) {
    lane.send(input(here.back(1)), here.next);
    for step in 2..here.n {
        let block = here.back(step);
        lane.reduce(from(here.prev), input(block), scratch(0, block));
        lane.send(scratch(0, block), here.next);
    }
    let home = here.rank;
    lane.reduce(from(here.prev), input(home), scratch(0, home));
    lane.finish(scratch(0, home), output(home));
}

/// Output `rank` goes around, and so do all others'.
fn around_to_share(lane: &mut LaneBuilder<'_>, here: &Here) {
    lane.send(output(here.rank), here.next);
    for step in 1..here.n - 1 {
        let block = here.back(step);
        lane.recv(here.prev, output(block));
        lane.send(output(block), here.next);
    }
    lane.recv(here.prev, output(here.back(here.n - 1)));
}

/// A chain from the root on.
fn broadcast(here: &Here, root: usize) -> Builder {
    let mut plan = Builder::new(1, 1).lends();
    let mut lane = plan.lane(0);
    if here.rank == root {
        lane.send(input(0), here.next);
        lane.copy(input(0), output(0));
    } else {
        lane.recv(here.prev, output(0));
        if here.next != root {
            lane.send(output(0), here.next);
        }
    }
    plan
}

/// A chain from the rank after the root around to the root.
fn reduce(here: &Here, root: usize) -> Builder {
    let mut plan = Builder::new(1, 1).lends();
    let mut lane = plan.lane(0);
    if here.prev == root {
        lane.send(input(0), here.next);
        return plan;
    }
    lane.reduce(from(here.prev), input(0), scratch(0, 0));
    if here.rank == root {
        lane.finish(scratch(0, 0), output(0));
    } else {
        lane.send(scratch(0, 0), here.next);
    }
    plan
}
