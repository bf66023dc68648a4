//! Which algorithm to take: the cheapest by price.
//!
//! A table of sizes is built once per communicator and collective, from nothing but what all ranks agree
//! on, so that all choose alike. Prices are taken at sample sizes a factor apart; between two samples the
//! choice changes at their geometric middle. What building costs is bounded: plans of many steps are
//! priced at fewer sizes, and beyond a limit not at all.

use super::{ALL, Algorithm, plans};
use crate::plan::{Collective, CollectiveKind, Machine, Plan, price};
use crate::topology::{Cost, Topology};

/// The sizes to price: from one cache line to a gigabyte.
const SIZES: std::ops::RangeInclusive<u32> = 6..=30;
/// Steps of all ranks up to which a plan is priced.
const MOST_STEPS: u64 = 1 << 18;
/// Steps to be run for all prices of a table.
const WORK: u64 = 1 << 18;

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
    /// Its price in nanoseconds; nothing where all plans are too long to be priced.
    pub ns: Option<u64>,
}

impl Table {
    /// Prices all algorithms that do `kind`, or of them those that keep the rank order. The ranks and
    /// hosts are those of the machine.
    pub fn build<F>(kind: CollectiveKind, machine: &Machine<F>, rank_order: bool) -> Self
    where
        F: Fn(usize, usize) -> Cost,
    {
        let collective = kind.at(0);
        let fits = |algorithm: &dyn Algorithm| {
            algorithm.does(kind) && (!rank_order || !kind.reduces() || algorithm.rank_order(kind))
        };
        let able: Vec<usize> = (0..ALL.len()).filter(|&index| fits(ALL[index])).collect();
        let steps: Vec<u64> =
            able.iter().map(|&i| guess_steps(ALL[i], collective, &machine.topology)).collect();
        let priced = able.iter().zip(&steps).filter(|&(_, &steps)| steps <= MOST_STEPS);
        let candidates: Vec<(usize, Vec<Plan>)> = priced
            .filter_map(|(&index, _)| Some((index, plans(ALL[index], collective, &machine.topology)?)))
            .collect();
        if candidates.is_empty() {
            let shortest =
                able.iter().zip(&steps).min_by_key(|&(_, steps)| steps).map_or(0, |(&index, _)| index);
            return Self { rows: vec![Row { from: 0, algorithm: shortest, bytes: 0, ns: None }] };
        }
        let all_steps: u64 = steps.iter().filter(|&&steps| steps <= MOST_STEPS).sum();
        Self { rows: rows(&candidates, machine, stride(all_steps)) }
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

/// The steps of all ranks, from those of the first and the last.
fn guess_steps(algorithm: &dyn Algorithm, collective: Collective, topology: &Topology) -> u64 {
    let ranks = topology.size();
    let steps = |rank| {
        let plan = algorithm.plan(collective, rank, topology);
        plan.map_or(0, |plan| plan.lanes.iter().map(|lane| lane.steps.len() as u64).sum())
    };
    let (first, last): (u64, u64) = (steps(0), steps(ranks - 1));
    first + last * (ranks as u64 - 1)
}

/// By how many powers of two the sizes grow, so that the work is bounded.
fn stride(steps: u64) -> usize {
    let sizes = u64::from(SIZES.end() - SIZES.start());
    [2, 4, 8].into_iter().find(|stride| sizes / stride * steps <= WORK).unwrap_or(12) as usize
}

fn rows<F>(candidates: &[(usize, Vec<Plan>)], machine: &Machine<F>, stride: usize) -> Vec<Row>
where
    F: Fn(usize, usize) -> Cost,
{
    let mut rows: Vec<Row> = Vec::new();
    for power in SIZES.step_by(stride) {
        let bytes = 1u64 << power;
        let price_of =
            |(index, plans): &(usize, Vec<Plan>)| Some((price(plans, machine, bytes).ok()?, *index));
        let Some((ns, algorithm)) = candidates.iter().filter_map(price_of).min() else { continue };
        let from = if rows.is_empty() { 0 } else { bytes >> (stride / 2) };
        rows.push(Row { from, algorithm, bytes, ns: Some(ns) });
    }
    rows
}
