//! Which algorithm to take: the cheapest by price.
//!
//! Prices are taken at sample sizes a factor of four apart, each when a call of about that size comes first, from
//! nothing but what all ranks agree on, so that all choose alike; between two samples the choice changes at their
//! geometric middle. What that costs is bounded: where plans have many steps, those are left out whose first and last
//! rank alone would take much longer than another plan's; and if what is left is still long, they are estimated.

use super::{ALL, Algorithm, plans};
use crate::plan::{Collective, CollectiveKind, Machine, Plan, estimate, price};
use crate::topology::{Cost, Topology};

/// The sizes to price, as powers of two: from one cache line to a gigabyte.
const SMALLEST: u32 = 6;
const LARGEST: u32 = 30;
const STRIDE: u32 = 2;
/// Steps of all ranks and algorithms up to which all are priced.
const FEW_STEPS: u64 = 1 << 14;
/// Steps up to which those that are left are.
const MOST_STEPS: u64 = 1 << 15;
/// How much longer than the least an estimate may be: it knows nothing of what waits for what.
const HOPELESS: u64 = 4;

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

/// The sizes at which a collective is priced.
#[must_use]
pub fn samples(kind: CollectiveKind) -> Vec<u64> {
    match kind {
        CollectiveKind::Barrier => vec![0],
        _ => (SMALLEST..=LARGEST).step_by(STRIDE as usize).map(|power| 1 << power).collect(),
    }
}

/// The one of [`samples`] that stands for a call of `bytes` bytes in all blocks together.
#[must_use]
pub fn sample(kind: CollectiveKind, bytes: u64) -> u64 {
    let samples = samples(kind);
    let after = samples.partition_point(|&sample| first_of(sample) <= bytes);
    samples[after.saturating_sub(1)]
}

/// The size from which on a sample stands for calls.
fn first_of(sample: u64) -> u64 {
    if sample <= 1 << SMALLEST { 0 } else { sample >> (STRIDE / 2) }
}

/// What knows the algorithms that do a collective as it is needed, and what they cost on a machine.
pub struct Chooser<'m, F> {
    machine: &'m Machine<F>,
    collective: Collective,
    able: Vec<(usize, Ends)>,
}

impl<'m, F: Fn(usize, usize) -> Cost> Chooser<'m, F> {
    /// Of all algorithms that do `kind` as it is needed. The ranks and hosts are those of the machine.
    pub fn new(kind: CollectiveKind, machine: &'m Machine<F>, needs: Needs) -> Self {
        let collective = kind.at(0);
        let able = (0..ALL.len()).filter(|&index| needs.met(ALL[index], kind));
        let ends = |index| Some((index, Ends::new(ALL[index], collective, &machine.topology)?));
        Self { machine, collective, able: able.filter_map(ends).collect() }
    }

    /// What counts for calls about as large as a sample.
    pub fn row(&self, sample: u64) -> Row {
        let steps = |some: &[&(usize, Ends)]| some.iter().map(|(_, ends)| ends.steps()).sum::<u64>();
        let mut left: Vec<&(usize, Ends)> = self.able.iter().collect();
        if steps(&left) > FEW_STEPS {
            let least = left.iter().map(|(_, ends)| ends.estimate(self.machine, sample)).min().unwrap_or(0);
            left.retain(|(_, ends)| ends.estimate(self.machine, sample) <= least.saturating_mul(HOPELESS));
        }
        let priced = steps(&left) <= MOST_STEPS;
        let bid = |(index, ends): &(usize, Ends)| match priced {
            true => self.price(*index, sample),
            false => {
                let ns = ends.estimate(self.machine, sample);
                Bid { ns, steps: ends.steps(), algorithm: *index }
            }
        };
        let Bid { ns, algorithm, .. } = best(left.into_iter().map(bid).collect());
        Row { from: first_of(sample), algorithm, bytes: sample, ns }
    }

    fn price(&self, index: usize, bytes: u64) -> Bid {
        let plans = plans(ALL[index], self.collective, &self.machine.topology).unwrap_or_default();
        // What needs more credit than there is comes last.
        let ns = price(&plans, self.machine, bytes).unwrap_or(u64::MAX);
        let lanes = plans.iter().map(|plan| plan.lanes.len() as u64).sum::<u64>();
        Bid { ns, steps: steps(&plans) + lanes, algorithm: index }
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
