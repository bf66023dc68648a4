//! In step k, each rank sends to the rank k after it and receives from the rank k before it: everybody
//! sends to one rank at a time, and nobody is sent to by two.
//!
//! ```text
//!   step 1   0→1  1→2  2→3  3→0
//!   step 2   0→2  1→3  2→0  3→1
//!   step 3   0→3  1→0  2→1  3→2
//! ```
//!
//! | collective       | time                                                      |
//! | ---------------- | --------------------------------------------------------- |
//! | all_to_all       | (n-1) α + (n-1)/n N β                                     |
//! | all_gather       | (n-1) α + (n-1)/n N β                                     |
//! | reduce_scatter   | α + (n-1)/n N (β + γ), as in `direct`                     |
//! | all_reduce       | n α + 2(n-1)/n N β + (n-1)/n N γ                          |
//!
//! All-reduce is a reduce-scatter in which each rank folds one block in rank order, and an all-gather:
//! the plan of deterministic mode for large vectors. Source: MPICH's pairwise exchange (Thakur,
//! Rabenseifner and Gropp, 2005).

use super::Algorithm;
use super::direct::{fold, others, reduce_scatter, senders};
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Span, input, output};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Pairwise;

impl Algorithm for Pairwise {
    fn name(&self) -> &'static str {
        "pairwise"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        use CollectiveKind::{AllGather, AllReduce, AllToAll, ReduceScatter};
        matches!(kind, AllToAll | AllGather | ReduceScatter | AllReduce)
    }

    fn edge_local(&self) -> bool {
        true
    }

    fn rank_order(&self, kind: CollectiveKind) -> bool {
        kind.reduces()
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        let n = topology.size();
        if collective.kind == CollectiveKind::ReduceScatter {
            return reduce_scatter(rank, n);
        }
        let mut plan = Builder::new(n, 1).lends();
        let mut lane = plan.lane(0);
        match collective.kind {
            CollectiveKind::AllToAll => {
                exchange(&mut lane, rank, n, input);
                lane.copy(input(rank), output(rank));
            }
            CollectiveKind::AllGather => {
                exchange(&mut lane, rank, n, |_| input(rank));
                lane.copy(input(rank), output(rank));
            }
            _ => {
                others(rank, n).for_each(|peer| _ = lane.send(input(peer), peer));
                fold(&mut lane, rank, n, rank, output(rank));
                exchange(&mut lane, rank, n, |_| output(rank));
            }
        }
        plan
    }
}

/// Sends `what` is for each other rank, and receives its output block.
fn exchange(lane: &mut LaneBuilder<'_>, rank: usize, n: usize, what: impl Fn(usize) -> Span) {
    for (to, from) in others(rank, n).zip(senders(rank, n)) {
        lane.send(what(to), to).recv(from, output(from));
    }
}
