//! Which algorithm to take: the cheapest by price.
//!
//! Prices are taken at sample sizes a factor of four apart, each when a call of about that size comes first, from
//! nothing but what all ranks agree on, so that all choose alike; between two samples the choice changes at their
//! geometric middle. What that costs is bounded: where plans have many steps, those are left out of which a few ranks
//! alone would take much longer than another plan's; and if what is left is still long, they are estimated.

use super::{ALL, Algorithm, plans};
use crate::plan::{Collective, CollectiveKind, Machine, Plan, Step, estimate, price};
use crate::topology::{Cost, Topology};

/// The sizes to price, as powers of two: from one cache line to a gigabyte.
const SMALLEST: u32 = 6;
const LARGEST: u32 = 30;
const STRIDE: u32 = 2;
/// Steps of all ranks and algorithms up to which all are priced.
const FEW_STEPS: u64 = 1 << 14;
/// Steps up to which those that are left are, those with the fewest first.
const MOST_STEPS: u64 = 1 << 15;
/// Steps for each rank that are few, however many ranks there are.
const STEPS_EACH: u64 = 16;
/// Of how many ranks of a host plans are looked at, where there are several hosts.
const MOST_WITNESSES: usize = 64;
/// How much longer than the least an estimate may be: it knows nothing of what waits for what.
const HOPELESS: u64 = 4;
/// Over hosts, by how many nanoseconds prices may be apart and count as equal: what takes long there is the wire, of which
/// prices know. (All-reduce of 64 MiB, 4 hosts of 2 ranks, by `halves`, with fewer steps and 2 to 4 % dearer, and by
/// `hierarchical`: over two rails of 1 Gbit/s 527 and 455 ms, with one host at a tenth of the rate 9.0 and 8.5 s; two
/// cores of Zen 4, 2026-11-27, the ignored tests of tools/tests/hosts.)
const LONG_MARGIN: u64 = 1_000_000;

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
    able: Vec<(usize, Witnesses)>,
}

impl<'m, F: Fn(usize, usize) -> Cost> Chooser<'m, F> {
    /// Of all algorithms that do a collective as it is needed. The ranks and hosts are those of the machine.
    pub fn new(collective: Collective, machine: &'m Machine<F>, needs: Needs) -> Self {
        let topology = &machine.topology;
        let fits = |index: &usize| needs.met(ALL[*index], collective.kind) && ALL[*index].suits(topology);
        let able = (0..ALL.len()).filter(fits);
        let witnesses = |index| Some((index, Witnesses::new(ALL[index], collective, &machine.topology)?));
        Self { machine, collective, able: able.filter_map(witnesses).collect() }
    }

    /// What counts for calls about as large as a sample.
    pub fn row(&self, sample: u64) -> Row {
        let steps = |some: &[&(usize, Witnesses)]| some.iter().map(|(_, some)| some.steps()).sum::<u64>();
        let few = STEPS_EACH * self.machine.topology.size() as u64;
        let mut left: Vec<&(usize, Witnesses)> = self.able.iter().collect();
        if steps(&left) > FEW_STEPS {
            let least = left.iter().map(|(_, some)| some.estimate(self.machine, sample)).min().unwrap_or(0);
            let near =
                |some: &Witnesses| some.estimate(self.machine, sample) <= least.saturating_mul(HOPELESS);
            // Where ranks differ, as in a tree, a few of them do not tell what takes long; but then they have few steps.
            left.retain(|(_, some)| some.steps() <= few || near(some));
        }
        left.sort_by_key(|(_, some)| some.steps());
        let mut affordable = MOST_STEPS.max(few);
        let bid = |(index, some): &(usize, Witnesses)| match affordable.checked_sub(some.steps()) {
            Some(rest) => {
                affordable = rest;
                self.price(*index, sample)
            }
            None => Bid { ns: some.estimate(self.machine, sample), steps: some.steps(), algorithm: *index },
        };
        let margin = if self.machine.topology.has_hosts() { LONG_MARGIN } else { u64::MAX };
        let Bid { ns, algorithm, .. } = best(left.into_iter().map(bid).collect(), margin);
        Row { from: first_of(sample), algorithm, bytes: sample, ns }
    }

    fn price(&self, index: usize, bytes: u64) -> Bid {
        let plans = plans(ALL[index], self.collective, &self.machine.topology).unwrap_or_default();
        // What needs more credit than there is comes last.
        let ns = price(&plans, self.machine, bytes).unwrap_or(u64::MAX);
        let lanes = plans.iter().map(|plan| plan.lanes.len() as u64).sum::<u64>();
        Bid { ns, steps: steps(&plans) + lanes, algorithm: index }
    }

    /// What an algorithm takes: by a run of all ranks where they have up to `most` steps together, or else about.
    /// Nothing where it has no plan that would run.
    pub fn quote(&self, algorithm: &dyn Algorithm, bytes: u64, most: u64) -> Option<Quote> {
        let (index, some) = self.able.iter().find(|(index, _)| ALL[*index].name() == algorithm.name())?;
        match some.steps() <= most {
            true => Some(self.price(*index, bytes).ns).filter(|ns| *ns < u64::MAX).map(Quote::Run),
            false => Some(Quote::About(some.estimate(self.machine, bytes))),
        }
    }
}

/// What an algorithm takes, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quote {
    /// By a run of all ranks' plans.
    Run(u64),
    /// By what a few ranks do, one thing after the other.
    About(u64),
}

/// What one algorithm takes at one size.
#[derive(Clone, Copy, Debug)]
struct Bid {
    ns: u64,
    /// Of all ranks, and their lanes.
    steps: u64,
    algorithm: usize,
}

/// The cheapest. Prices are not exact: of those that are an eighth apart at most, and no more nanoseconds than
/// `margin`, the one with the fewest steps, which has the least that a price does not know of.
fn best(bids: Vec<Bid>, margin: u64) -> Bid {
    let least = bids.iter().map(|bid| bid.ns).min().unwrap_or(0);
    let near = bids.into_iter().filter(|bid| bid.ns <= least.saturating_add((least / 8).min(margin)));
    near.min_by_key(|bid| (bid.steps, bid.ns, bid.algorithm)).expect("some algorithm does it as it is needed")
}

/// The plans of a few ranks, which tell what those of the others are like: the first host's, where there are several
/// hosts, or else the first rank's; and the last one's.
struct Witnesses {
    plans: Vec<(usize, Plan)>,
    ranks: usize,
    /// How many of a host's ranks send to other hosts.
    sharing: u32,
}

impl Witnesses {
    fn new(algorithm: &dyn Algorithm, collective: Collective, topology: &Topology) -> Option<Self> {
        let ranks = topology.size();
        let away = |rank: &usize| !topology.together(0, *rank);
        let first = match (0..ranks).any(|rank| away(&rank)) {
            true => (0..ranks).filter(|rank| !away(rank)).take(MOST_WITNESSES).collect(),
            false => vec![0],
        };
        let plan = |rank| Some((rank, algorithm.plan(collective, rank, topology)?));
        let plans = first.into_iter().chain([ranks - 1]).map(plan).collect::<Option<Vec<_>>>()?;
        let crosses = |(rank, plan): &&(usize, Plan)| {
            let to_others = |step: &Step| step.receivers().iter().any(|&peer| away(&(peer as usize)));
            !away(rank) && plan.lanes.iter().flat_map(|lane| &lane.steps).any(to_others)
        };
        let sharing = plans.iter().filter(crosses).count() as u32;
        Some(Self { plans, ranks, sharing })
    }

    /// The steps of all ranks, about.
    fn steps(&self) -> u64 {
        let of = |witness: Option<&(usize, Plan)>| witness.map_or(0, |(_, plan)| steps([plan]));
        of(self.plans.first()) + of(self.plans.last()) * (self.ranks as u64 - 1)
    }

    /// The dearest one's price, about.
    fn estimate<F>(&self, machine: &Machine<F>, bytes: u64) -> u64
    where
        F: Fn(usize, usize) -> Cost,
    {
        let of = |(rank, plan): &(usize, Plan)| estimate(plan, *rank, machine, bytes, self.sharing);
        self.plans.iter().map(of).max().unwrap_or(0)
    }
}

fn steps<'a>(plans: impl IntoIterator<Item = &'a Plan>) -> u64 {
    plans.into_iter().flat_map(|plan| &plan.lanes).map(|lane| lane.steps.len() as u64).sum()
}
