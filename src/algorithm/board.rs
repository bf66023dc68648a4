//! Ranks that share memory add up on a board, those of each core into an accumulator of its own: for hosts
//! with more ranks than cores.
//!
//! ```text
//!   core 0                                   core 1
//!   rank 0  in → b0                          rank 3  in → b3         each leaves its input on the board
//!   rank 1  in → b1                          rank 4  in → b4
//!   rank 2  b0 ⊕ b1 ⊕ in → b2  [1]    ◀──▶   rank 5  ... → b5  [0]   the last one leads: it adds up what the
//!           b0 ⊕ b1 ⊕ in ⊕ b5  [0]                   ... → b5  [1]   other leader finishes, and with that one's
//!           → b2, b5                  ◀──▶           → b5, b2        sum its own block, into both sums
//!   all     b2 → out                         all     b5 → out        and each copies its core's
//! ```
//!
//! | collective | time, for c cores with n/c ranks each, s the time of a switch     |
//! | ---------- | ----------------------------------------------------------------- |
//! | all_reduce | n/c (3 N γ + s) + (c-1)/c N (β + γ) + 4 α                         |
//!
//! Whoever runs can do all of its next round but what the leader does, so that a round costs a core one
//! switch for each of its ranks, in whatever order they run; what they add up stays in the core's cache. Only
//! the leaders' blocks cross, once each way, and each line is stored where it was read, so that it moves from
//! cache to cache instead of being shared by two. (The all-reduce within a node of MPICH's "release-gather"
//! collectives and of XHC in Open MPI, with cores in place of caches and the parallel leaders of DPML,
//! Bayatpour et al. 2017.)

use std::collections::BTreeMap;

use super::Algorithm;
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Source, Span};
use crate::plan::{board, input, output};
use crate::topology::Topology;

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
        all_reduce(rank, &Groups::new(rank, topology))
    }
}

/// The ranks of each core.
struct Groups {
    /// In the order of their cores' numbers; the last of each leads.
    all: Vec<Vec<usize>>,
    /// The number of this rank's.
    mine: usize,
}

impl Groups {
    fn new(rank: usize, topology: &Topology) -> Self {
        let mut by_core = BTreeMap::<usize, Vec<usize>>::new();
        for rank in 0..topology.size() {
            by_core.entry(topology.core(rank)).or_default().push(rank);
        }
        let all: Vec<_> = by_core.into_values().collect();
        let mine = all.iter().position(|group| group.contains(&rank)).unwrap_or(0);
        Self { all, mine }
    }

    fn leader(&self, group: usize) -> usize {
        self.all[group][self.all[group].len() - 1]
    }

    /// The ranks of this rank's group that do not lead.
    fn members(&self) -> &[usize] {
        let group = &self.all[self.mine];
        &group[..group.len() - 1]
    }

    /// The leaders of the other groups.
    fn other_leaders(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.all.len()).filter(|&group| group != self.mine).map(|group| self.leader(group))
    }
}

/// Block b is finished by the leader of group b; bank r is written by rank r, that of a leader by all
/// leaders.
fn all_reduce(rank: usize, groups: &Groups) -> Builder {
    let blocks = groups.all.len();
    let ranks: usize = groups.all.iter().map(Vec::len).sum();
    let leader = groups.leader(groups.mine);
    let mut plan = Builder::new(blocks, 0).board(ranks as u8);
    let mut lane = plan.lane(0);
    if rank == leader {
        lead(&mut lane, rank, groups);
    } else {
        lane.copy(input(0).wide(blocks), board(rank as u8, 0).wide(blocks));
        lane.signal(leader).await_signal(leader);
    }
    lane.copy(board(leader as u8, 0).wide(blocks), output(0).wide(blocks));
    plan
}

/// What the leader `rank` does until the result lies in its bank.
fn lead(lane: &mut LaneBuilder<'_>, rank: usize, groups: &Groups) {
    let blocks = groups.all.len();
    let mine = |block: usize, count: usize| {
        let members = groups.members().iter().map(move |&member| board(member as u8, block).wide(count));
        members.chain([input(block).wide(count)]).map(Source::from)
    };
    groups.members().iter().for_each(|&member| _ = lane.await_signal(member));
    if blocks > 1 {
        // The other leaders' blocks lie behind this one's, around to the one before it.
        let (first, count) = (groups.mine + 1, blocks - 1);
        let theirs: Vec<Source> = mine(first, count).collect();
        fold(lane, &theirs, board(rank as u8, first).wide(count));
        meet(lane, groups);
    }
    let own = groups.mine;
    let operands = (0..blocks).flat_map(|group| -> Vec<Source> {
        if group == own {
            mine(own, 1).collect()
        } else {
            vec![board(groups.leader(group) as u8, own).into()]
        }
    });
    let sum = board(rank as u8, own);
    fold(lane, &operands.collect::<Vec<_>>(), sum);
    lane.finish(sum, sum);
    groups.other_leaders().for_each(|other| {
        lane.copy(sum, board(other as u8, own));
    });
    if blocks > 1 {
        meet(lane, groups);
    }
    groups.members().iter().for_each(|&member| _ = lane.signal(member));
}

/// All leaders wait for each other.
fn meet(lane: &mut LaneBuilder<'_>, groups: &Groups) {
    groups.other_leaders().for_each(|leader| _ = lane.signal(leader));
    groups.other_leaders().for_each(|leader| _ = lane.await_signal(leader));
}

/// Combines operands from left to right.
fn fold(lane: &mut LaneBuilder<'_>, operands: &[Source], into: Span) {
    match *operands {
        [Source::Local(only)] => _ = lane.copy(only, into),
        [first, second, ref more @ ..] => {
            lane.reduce(first, second, into);
            more.iter().for_each(|&operand| _ = lane.reduce(into, operand, into));
        }
        _ => {}
    }
}
