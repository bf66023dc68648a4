//! Ranks that share memory add up on a board, each core into an accumulator of its own: for hosts with more
//! ranks than cores.
//!
//! ```text
//!   core 0                          core 1
//!   rank 0  in → A                  rank 3  in → B                each in its turn,
//!      ↓                               ↓
//!   rank 1  A ⊕ in → A              rank 4  B ⊕ in → B
//!      ↓                               ↓
//!   rank 2  A[1] ⊕ in → A[1]  ◀──▶  rank 5  B[0] ⊕ in → B[0]      the last one leads;
//!           A[0] ⊕ in ⊕ B[0]                A[1] ⊕ B[1] ⊕ in      leader j finishes block j
//!           → A[0], B[0]      ◀──▶          → B[1], A[1]          and stores it into every accumulator;
//!      ↓                               ↓
//!   rank 0  A → out                 rank 3  B → out               and around again: each copies it out,
//!      ↓    next: in → A'              ↓    next: in → B'         then begins the next round on the other page
//! ```
//!
//! | collective | time, for c cores with n/c ranks each, s the time of a switch       |
//! | ---------- | ------------------------------------------------------------------- |
//! | all_reduce | n/c (2 N γ + s) + (c-1)/c N (β + γ) + 4 α                           |
//!
//! A turn goes around the ranks of a core, so that a round costs a core one switch for each of its ranks; what
//! they add up stays in the core's cache. Only the leaders' blocks cross, once each way, and each line is
//! stored where it was read, so that it moves from cache to cache instead of being shared by two. (The
//! all-reduce within a node of MPICH's "release-gather" collectives and of XHC in Open MPI, with cores in
//! place of caches and the parallel leaders of DPML, Bayatpour et al. 2017.)

use std::collections::BTreeMap;

use super::Algorithm;
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Source, Span};
use crate::plan::{board, input, output, scratch};
use crate::topology::Topology;

/// The most accumulators.
const MOST_GROUPS: usize = 64;

/// See the module's page.
pub(super) struct Board;

impl Algorithm for Board {
    fn name(&self) -> &'static str {
        "board"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        kind == CollectiveKind::AllReduce
    }

    fn uses_board(&self) -> bool {
        true
    }

    fn write(&self, _: Collective, rank: usize, topology: &Topology) -> Builder {
        all_reduce(&Groups::new(rank, topology))
    }
}

/// The ranks of each core, and where this rank stands.
struct Groups {
    /// In the order of their cores' numbers.
    all: Vec<Vec<usize>>,
    /// This rank's group, and its place there.
    mine: usize,
    place: usize,
}

impl Groups {
    fn new(rank: usize, topology: &Topology) -> Self {
        let mut by_core = BTreeMap::<usize, Vec<usize>>::new();
        for rank in 0..topology.size() {
            by_core.entry(topology.core(rank) % MOST_GROUPS).or_default().push(rank);
        }
        let all: Vec<_> = by_core.into_values().collect();
        let mine = all.iter().position(|group| group.contains(&rank)).unwrap_or(0);
        let place = all[mine].iter().position(|&member| member == rank).unwrap_or(0);
        Self { all, mine, place }
    }

    /// The member of this rank's group whose turn comes after this rank's, or came before it.
    fn neighbour(&self, forward: bool) -> usize {
        let group = &self.all[self.mine];
        group[(self.place + if forward { 1 } else { group.len() - 1 }) % group.len()]
    }

    /// The leaders of the other groups.
    fn other_leaders(&self) -> impl Iterator<Item = usize> + '_ {
        let others = self.all.iter().enumerate().filter(|(group, _)| *group != self.mine);
        others.map(|(_, group)| group[group.len() - 1])
    }
}

/// Block b is finished by the leader of group b; bank g is the accumulator of group g.
fn all_reduce(groups: &Groups) -> Builder {
    let Groups { ref all, mine, place } = *groups;
    let (count, bank, last) = (all.len(), mine as u8, all[mine].len() - 1);
    let (whole, sum) = (input(0).wide(count), board(bank, 0).wide(count));
    let mut plan = Builder::new(count, 0).board(count as u8);
    let mut lane = plan.lane(0);
    if place > 0 {
        lane.await_signal(groups.neighbour(false));
    }
    if place < last {
        match place {
            0 => lane.copy(whole, sum),
            _ => lane.reduce(sum, whole, sum),
        };
        lane.signal(groups.neighbour(true)).await_signal(groups.neighbour(false));
    } else {
        lead(&mut lane, groups);
    }
    lane.copy(sum, output(0).wide(count));
    // The one before the leader has nobody to tell.
    if last > 0 && place + 1 != last {
        lane.signal(groups.neighbour(true));
    }
    plan
}

/// What the last rank of a group does when all others have added theirs.
fn lead(lane: &mut LaneBuilder<'_>, groups: &Groups) {
    let Groups { ref all, mine, place } = *groups;
    let (count, bank) = (all.len(), mine as u8);
    if count > 1 {
        // The other leaders' blocks lie behind this one's, around to the one before it.
        let (theirs, sum) = (input(mine + 1).wide(count - 1), board(bank, mine + 1).wide(count - 1));
        match place {
            0 => lane.copy(theirs, sum),
            _ => lane.reduce(sum, theirs, sum),
        };
        groups.other_leaders().for_each(|leader| _ = lane.signal(leader));
        groups.other_leaders().for_each(|leader| _ = lane.await_signal(leader));
    }
    let mut operands: Vec<Source> = Vec::new();
    for group in 0..count {
        if group != mine || place > 0 {
            operands.push(board(group as u8, mine).into());
        }
        if group == mine {
            operands.push(input(mine).into());
        }
    }
    fold(lane, &operands, mine, board(bank, mine));
    for group in (0..count).filter(|&group| group != mine) {
        lane.copy(board(bank, mine), board(group as u8, mine));
    }
    groups.other_leaders().for_each(|leader| _ = lane.signal(leader));
    groups.other_leaders().for_each(|leader| _ = lane.await_signal(leader));
}

/// Combines two or more operands from left to right, and finishes.
fn fold(lane: &mut LaneBuilder<'_>, operands: &[Source], block: usize, into: Span) {
    let sum = scratch(0, block);
    lane.reduce(operands[0], operands[1], sum);
    operands[2..].iter().for_each(|&operand| _ = lane.reduce(sum, operand, sum));
    lane.finish(sum, into);
}
