//! Bruck's algorithms: log n steps for any n, in each of which a rank sends to one at twice the distance.
//!
//! All-gather of 5 ranks, as rank 0 sees it: what it has are always the blocks from its own on.
//!
//! ```text
//!   step     sends to    receives from     has then
//!   0        4: 0        1: 1              0 1
//!   1        3: 0 1      2: 2 3            0 1 2 3
//!   2        1: 0        4: 4              0 1 2 3 4
//! ```
//!
//! Reduce-scatter is the same backwards, with sums. All-to-all keeps the block for the rank j further on
//! in place j, and in step k moves all places whose number has bit k on by 2^k ranks.
//!
//! | collective       | time                                      |
//! | ---------------- | ----------------------------------------- |
//! | all_gather       | log n α + (n-1)/n N β                     |
//! | reduce_scatter   | log n α + (n-1)/n N (β + γ)               |
//! | all_to_all       | log n (α + N/2 β)                         |
//!
//! Source: Bruck, Ho, Kipnis, Upfal and Weathersby, "Efficient algorithms for all-to-all communications
//! in multiport message-passing systems" (1997). Reduce-scatter is what NCCL calls PAT.

use super::{Algorithm, widest_half};
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Span, from, input, output, scratch};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Bruck;

impl Algorithm for Bruck {
    fn name(&self) -> &'static str {
        "bruck"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        matches!(kind, CollectiveKind::AllGather | CollectiveKind::ReduceScatter | CollectiveKind::AllToAll)
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        match collective.kind {
            CollectiveKind::AllToAll => all_to_all(rank, topology.size()),
            CollectiveKind::ReduceScatter => reduce_scatter(rank, topology.size()),
            _ => all_gather(rank, topology.size()),
        }
    }
}

/// The powers of two below n.
fn distances(n: usize) -> impl DoubleEndedIterator<Item = usize> {
    (0..n.next_power_of_two().trailing_zeros()).map(|bit| 1 << bit)
}

fn all_gather(rank: usize, n: usize) -> Builder {
    let mut plan = Builder::new(n, widest_half(n)).lends();
    let mut lane = plan.lane(0);
    lane.copy(input(rank), output(rank));
    for distance in distances(n) {
        let (before, after) = ((rank + n - distance) % n, (rank + distance) % n);
        let count = distance.min(n - distance);
        lane.send(output(rank).wide(count), before).recv(after, output(after).wide(count));
    }
    plan
}

/// What is sent in one round is overwritten in the next: no lending.
fn reduce_scatter(rank: usize, n: usize) -> Builder {
    let width = widest_half(n);
    let mut plan = Builder::new(n, width);
    let mut lane = plan.lane(0);
    // The farthest step takes what is not yet in scratch; what it leaves is copied there.
    let farthest = n.next_power_of_two() / 2;
    let (before, after) = ((rank + n - farthest) % n, (rank + farthest) % n);
    let count = n - farthest;
    lane.send(input(after).wide(count), after);
    lane.reduce(from(before), input(rank).wide(count), scratch(0, rank).wide(count));
    let left = rank + count;
    copy(&mut lane, farthest - count, width, |i| input(left + i), |i| scratch(0, left + i));
    for distance in distances(farthest).rev() {
        let (before, after) = ((rank + n - distance) % n, (rank + distance) % n);
        let sum = scratch(0, rank).wide(distance);
        lane.send(scratch(0, after).wide(distance), after).reduce(from(before), sum, sum);
    }
    lane.finish(scratch(0, rank), output(rank));
    plan
}

/// What is sent is overwritten right after: no lending.
fn all_to_all(rank: usize, n: usize) -> Builder {
    let moved = |distance: usize| (1..n).filter(|place| place & distance != 0).count();
    let width = distances(n).map(moved).max().unwrap_or(1);
    let mut plan = Builder::new(n, width);
    let mut lane = plan.lane(0);
    lane.copy(input(rank), output(rank));
    copy(&mut lane, n - 1, width, |i| input(rank + 1 + i), |i| scratch(0, 1 + i));
    for distance in distances(n) {
        let places = scratch(0, distance).wide(moved(distance)).striped(distance);
        lane.send(places, (rank + distance) % n).recv((rank + n - distance) % n, places);
    }
    for place in 1..n {
        lane.copy(scratch(0, place), output((rank + n - place) % n));
    }
    plan
}

/// Copies `count` blocks in steps of at most `width`.
fn copy(
    lane: &mut LaneBuilder<'_>,
    count: usize,
    width: usize,
    source: impl Fn(usize) -> Span,
    into: impl Fn(usize) -> Span,
) {
    for first in (0..count).step_by(width) {
        let count = width.min(count - first);
        lane.copy(source(first).wide(count), into(first).wide(count));
    }
}
