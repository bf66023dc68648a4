//! Algorithms: pure functions from a collective, a rank and a topology to that rank's plan.
//!
//! To add one, write one file (its cost formula and source on top) and one line of [`ALL`].
//!
//! In the cost formulas n is the number of ranks, N the bytes of the whole vector (of one rank's block
//! where each rank has one: N/n), α the latency of a message, β the time per byte that crosses, γ the
//! time per byte reduced.

mod board;
mod bruck;
pub mod choose;
mod direct;
mod doubling;
mod halves;
mod halving;
mod hierarchical;
mod hosts;
mod leaders;
mod pairwise;
mod ring;
mod spread;
mod tree;

use crate::error::Error;
use crate::plan::{Builder, Collective, CollectiveKind, MOST_BANKS, Plan, fuse, input, output};
use crate::topology::Topology;

/// One way to do some of the collectives, for any number of ranks.
pub trait Algorithm: Sync {
    /// Its name, as `--algorithm` and reports use it.
    fn name(&self) -> &'static str;

    /// Whether it does collectives of that kind.
    fn does(&self, kind: CollectiveKind) -> bool;

    /// Whether each result is the left fold of the contributions in rank order. Deterministic mode and
    /// operators that do not commute ask for it; the tests prove what is claimed here.
    fn rank_order(&self, kind: CollectiveKind) -> bool {
        let _ = kind;
        false
    }

    /// Whether each rank handles no blocks but those that it sends or receives itself, so that it needs
    /// to know their lengths alone: what gather_v, scatter_v and all_to_all_v ask for.
    fn edge_local(&self) -> bool {
        false
    }

    /// Whether its ranks leave blocks for each other on a board: then it has plans only where all ranks can
    /// share memory.
    fn uses_board(&self) -> bool {
        false
    }

    /// Whether it is worth a look there: on other topologies there are algorithms that do the same with less.
    fn suits(&self, topology: &Topology) -> bool {
        let _ = topology;
        true
    }

    /// The simple steps of `rank`, one of two or more, for a collective that it does.
    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder;

    /// The plan of `rank`, fused; nothing where this algorithm does not do `collective`.
    fn plan(&self, collective: Collective, rank: usize, topology: &Topology) -> Option<Plan> {
        Some(fuse(&self.simple(collective, rank, topology)?))
    }

    /// The plan of `rank` as it was written.
    fn simple(&self, collective: Collective, rank: usize, topology: &Topology) -> Option<Plan> {
        let does = self.does(collective.kind)
            && (!self.uses_board() || topology.has_board() && topology.size() <= MOST_BANKS);
        does.then(|| match topology.size() {
            1 => alone(collective).simple(),
            _ => self.write(collective, rank, topology).simple(),
        })
    }
}

/// Every algorithm. Where two are equally cheap, the earlier one is taken.
pub const ALL: &[&dyn Algorithm] = &[
    &direct::Direct,
    &doubling::Doubling,
    &tree::Tree,
    &bruck::Bruck,
    &halving::Halving,
    &ring::Ring,
    &spread::Spread,
    &leaders::Leaders,
    &halves::Halves,
    &hierarchical::Hierarchical,
    &pairwise::Pairwise,
    &board::Board,
];

/// The algorithm of that name.
pub fn find(name: &str) -> Result<&'static dyn Algorithm, Error> {
    ALL.iter().copied().find(|algorithm| algorithm.name() == name).ok_or_else(|| {
        let known: Vec<_> = ALL.iter().map(|algorithm| algorithm.name()).collect();
        Error::usage(format!("unknown algorithm `{name}`; known are {}", known.join(", ")))
    })
}

/// The plans of all ranks, fused; nothing where the algorithm does not do `collective`.
pub fn plans(algorithm: &dyn Algorithm, collective: Collective, topology: &Topology) -> Option<Vec<Plan>> {
    (0..topology.size()).map(|rank| algorithm.plan(collective, rank, topology)).collect()
}

/// The plan of a rank without company: its input is the result.
fn alone(collective: Collective) -> Builder {
    let mut plan = Builder::new(1, 1).lends();
    let mut lane = plan.lane(0);
    if collective.kind.reduces() {
        lane.finish(input(0), output(0));
    } else {
        lane.copy(input(0), output(0));
    }
    plan
}

/// The widest message where blocks are passed on in runs of powers of two, the last of which n cuts off.
fn widest_half(n: usize) -> usize {
    let farthest = n.next_power_of_two() / 2;
    (n - farthest).max(farthest / 2)
}

/// The largest power of two of n places, for algorithms that need one. The first places go in pairs, of
/// which the even one is a member of the core; all later places are.
struct PowerOfTwo {
    /// Members of the core.
    size: usize,
    /// Pairs.
    pairs: usize,
}

impl PowerOfTwo {
    fn new(n: usize) -> Self {
        let size = 1 << n.ilog2();
        Self { size, pairs: n - size }
    }

    /// Which member of the core stands at `place`.
    fn member(&self, place: usize) -> Option<usize> {
        match place {
            paired if paired < 2 * self.pairs => (paired % 2 == 0).then_some(paired / 2),
            single => Some(single - self.pairs),
        }
    }

    /// Where a member of the core stands.
    fn rank(&self, member: usize) -> usize {
        if member < self.pairs { 2 * member } else { member + self.pairs }
    }

    /// Whether `place` is a member that stands for the one after it, too.
    fn folds(&self, place: usize) -> bool {
        place < 2 * self.pairs && place.is_multiple_of(2)
    }
}
