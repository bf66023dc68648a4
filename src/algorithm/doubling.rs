//! Recursive doubling: in each step partners exchange all that they have and both combine it.
//!
//! ```text
//!   rank    0     1     2     3            5 ranks: 1 gives its input to 0 first, the four ranks
//!   step 0  01    01    23    23           0 2 3 4 run as if they were four, 0 gives the result to 1
//!   step 1  0123  0123  0123  0123
//! ```
//!
//! | collective | time                                                              |
//! | ---------- | ----------------------------------------------------------------- |
//! | all_reduce | log n (α + N (β + γ)), and 2 α + N (2 β + γ) if n is no power of 2 |
//! | barrier    | log n α, rounded up: dissemination                                |
//!
//! Partners combine lower ranks with higher ones, so that all get the same bits. Source: Thakur,
//! Rabenseifner and Gropp, "Optimization of collective communication operations in MPICH" (2005);
//! Hensgen, Finkel and Manber, "Two algorithms for barrier synchronization" (1988).

use super::{Algorithm, PowerOfTwo};
use crate::plan::{Builder, Collective, CollectiveKind, from, input, output, scratch};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Doubling;

impl Algorithm for Doubling {
    fn name(&self) -> &'static str {
        "doubling"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        matches!(kind, CollectiveKind::AllReduce | CollectiveKind::Barrier)
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        match collective.kind {
            CollectiveKind::Barrier => disseminate(rank, topology.size()),
            _ => all_reduce(rank, topology.size()),
        }
    }
}

/// What is sent is overwritten right after: no lending.
fn all_reduce(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(1, 1);
    let mut lane = plan.lane(0);
    let core = PowerOfTwo::new(n);
    let Some(member) = core.member(rank) else {
        lane.send(input(0), rank - 1).recv(rank - 1, output(0));
        return plan;
    };
    let sum = scratch(0, 0);
    let mut mine = input(0);
    if core.folds(rank) {
        lane.reduce(mine, from(rank + 1), sum);
        mine = sum;
    }
    let distances = std::iter::successors(Some(1), |distance| Some(distance * 2));
    for distance in distances.take_while(|&distance| distance < core.size) {
        let peer = core.rank(member ^ distance);
        lane.send(mine, peer);
        if peer < rank {
            lane.reduce(from(peer), mine, sum);
        } else {
            lane.reduce(mine, from(peer), sum);
        }
        mine = sum;
    }
    lane.finish(sum, output(0));
    if core.folds(rank) {
        lane.send(output(0), rank + 1);
    }
    plan
}

/// After the step of distance d a rank has heard of the 2d - 1 ranks before it.
fn disseminate(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(1, 1);
    let mut lane = plan.lane(0);
    let distances = std::iter::successors(Some(1), |distance| Some(distance * 2));
    for distance in distances.take_while(|&distance| distance < n) {
        lane.send(input(0), (rank + distance) % n);
        lane.recv((rank + n - distance) % n, output(0));
    }
    plan
}
