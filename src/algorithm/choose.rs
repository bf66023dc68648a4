//! Which algorithm to take: the cheapest by price.
//!
//! A table of sizes is built once per communicator and collective, from nothing but what all ranks agree
//! on, so that all choose alike. Prices are taken at sample sizes a factor apart; between two samples the
//! choice changes at their geometric middle. What building costs is bounded: plans of many steps are
//! priced at fewer sizes, and beyond a limit estimated if there are no shorter ones.

use super::{ALL, Algorithm, plans};
use crate::plan::{Collective, CollectiveKind, Machine, Plan, estimate, price};
use crate::topology::{Cost, Topology};

/// The sizes to price: from one cache line to a gigabyte.
const SIZES: std::ops::RangeInclusive<u32> = 6..=30;
/// Steps of all ranks up to which a plan is priced.
const MOST_STEPS: u64 = 1 << 17;
/// Steps to be run for all prices of a table.
const WORK: u64 = 1 << 18;

/// What a call asks of an algorithm besides its collective.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Needs {
    /// See [`Algorithm::rank_order`].
    pub rank_order: bool,
    /// See [`Algorithm::edge_local`].
    pub edge_local: bool,
    /// That its ranks cannot share memory; see [`Algorithm::uses_board`].
    pub no_board: bool,
}

impl Needs {
    /// Whether `algorithm` does `kind` as it is needed.
    pub fn met(self, algorithm: &dyn Algorithm, kind: CollectiveKind) -> bool {
        algorithm.does(kind)
            && (!self.rank_order || !kind.reduces() || algorithm.rank_order(kind))
            && (!self.edge_local || algorithm.edge_local())
            && (!self.no_board || !algorithm.uses_board())
    }
}

/// For each size the algorithm to take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Row>,
}

/// From a size on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The bytes of all blocks together from which on this row counts.
    pub from: u64,
    /// The place of the algorithm in [`ALL`].
    pub algorithm: usize,
    /// The size that was priced.
    pub bytes: u64,
    /// Its price in nanoseconds.
    pub ns: u64,
}

impl Table {
    /// Prices all algorithms that do `kind` as it is needed. The ranks and hosts are those of the machine.
    pub fn build<F>(kind: CollectiveKind, machine: &Machine<F>, needs: Needs) -> Self
    where
        F: Fn(usize, usize) -> Cost,
    {
        let topology = &machine.topology;
        let able = (0..ALL.len()).filter(|&index| needs.met(ALL[index], kind));
        let (mut short, mut long) = (Vec::new(), Vec::new());
        for index in able {
            let Some(ends) = Ends::new(ALL[index], kind.at(0), topology) else { continue };
            if ends.steps() <= MOST_STEPS {
                short.extend(plans(ALL[index], kind.at(0), topology).map(|plans| (index, plans)));
            } else {
                long.push((index, ends));
            }
        }
        let rows = if short.is_empty() {
            let bid = |(index, ends): &(usize, Ends), bytes| Bid {
                ns: ends.estimate(machine, bytes),
                steps: ends.steps(),
                algorithm: *index,
            };
            rows(kind, 1, |bytes| best(long.iter().map(|one| bid(one, bytes)).collect()))
        } else {
            // What needs more credit than there is comes last.
            let bid = |(index, plans): &(usize, Vec<Plan>), bytes| {
                let ns = price(plans, machine, bytes).unwrap_or(u64::MAX);
                let lanes = plans.iter().map(|plan| plan.lanes.len() as u64).sum::<u64>();
                Bid { ns, steps: steps(plans) + lanes, algorithm: *index }
            };
            let all_steps = short.iter().map(|(_, plans)| steps(plans)).sum();
            rows(kind, all_steps, |bytes| best(short.iter().map(|one| bid(one, bytes)).collect()))
        };
        Self { rows }
    }

    /// The algorithm for `bytes` bytes of all blocks together.
    pub fn pick(&self, bytes: u64) -> &'static dyn Algorithm {
        ALL[self.row(bytes).algorithm]
    }

    /// What counts for `bytes` bytes of all blocks together.
    pub fn row(&self, bytes: u64) -> &Row {
        let after = self.rows.partition_point(|row| row.from <= bytes);
        &self.rows[after.saturating_sub(1)]
    }

    /// All sizes.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

/// What one algorithm takes at one size.
#[derive(Clone, Copy, Debug)]
struct Bid {
    ns: u64,
    /// Of all ranks, and their lanes.
    steps: u64,
    algorithm: usize,
}

/// The cheapest. Prices are not exact: of those that are an eighth apart at most, the one with the fewest
/// steps, which has the least that a price does not know of.
fn best(bids: Vec<Bid>) -> Bid {
    let least = bids.iter().map(|bid| bid.ns).min().unwrap_or(0);
    let near = bids.into_iter().filter(|bid| bid.ns <= least.saturating_add(least / 8));
    near.min_by_key(|bid| (bid.steps, bid.ns, bid.algorithm)).expect("some algorithm does it as it is needed")
}

/// The plans of the first and the last rank, which tell what those between are like.
struct Ends {
    first: Plan,
    last: Plan,
    ranks: usize,
}

impl Ends {
    fn new(algorithm: &dyn Algorithm, collective: Collective, topology: &Topology) -> Option<Self> {
        let ranks = topology.size();
        let plan = |rank| algorithm.plan(collective, rank, topology);
        Some(Self { first: plan(0)?, last: plan(ranks - 1)?, ranks })
    }

    /// The steps of all ranks, about.
    fn steps(&self) -> u64 {
        steps(std::slice::from_ref(&self.first))
            + steps(std::slice::from_ref(&self.last)) * (self.ranks as u64 - 1)
    }

    /// The dearer one's price, about.
    fn estimate<F>(&self, machine: &Machine<F>, bytes: u64) -> u64
    where
        F: Fn(usize, usize) -> Cost,
    {
        let (first, last) =
            (estimate(&self.first, 0, machine, bytes), estimate(&self.last, self.ranks - 1, machine, bytes));
        first.max(last)
    }
}

fn steps(plans: &[Plan]) -> u64 {
    plans.iter().flat_map(|plan| &plan.lanes).map(|lane| lane.steps.len() as u64).sum()
}

/// A row for each sample size, with what `best` says: its price in nanoseconds and its algorithm. The
/// more steps there are to be run for it, the fewer sizes.
fn rows(kind: CollectiveKind, steps: u64, best: impl Fn(u64) -> Bid) -> Vec<Row> {
    let strides = [2, 4, 8, 12];
    let most = (SIZES.end() - SIZES.start()) as u64;
    let stride = strides.into_iter().find(|stride| most / stride * steps <= WORK).unwrap_or(strides[3]);
    let sizes = SIZES.step_by(stride as usize).map(|power| 1u64 << power);
    let sizes: Vec<u64> = if kind == CollectiveKind::Barrier { vec![0] } else { sizes.collect() };
    let mut rows: Vec<Row> = Vec::new();
    for bytes in sizes {
        let Bid { ns, algorithm, .. } = best(bytes);
        let from = if rows.is_empty() { 0 } else { bytes >> (stride / 2) };
        rows.push(Row { from, algorithm, bytes, ns });
    }
    rows
}
