//! Predicts how long a plan takes, by running it on a clock of its own.
//!
//! Steps happen in the order of their times; each waits for its messages and credit, then for what it
//! shares with others: its core, its host's memory, its link, its host's network. Each of those serves one
//! after the other, so that what is shared is counted once:
//!
//! ```text
//!   core     switch_ns after another rank's step, step_ns + (sources - 1) · bytes / reduce + further outputs · bytes / copy
//!   memory   (sources + outputs) · bytes / memory
//!   link     bytes / bandwidth, then the latency; between hosts after bytes / network on both sides
//!   lent     no copy; the receiver reads the sender's memory, and its acknowledgment comes a latency later
//! ```
//!
//! Times are integers (picoseconds), so that all ranks predict alike. Few rounds are run, all of one
//! length; the pace of the last of them counts for those that are left.

mod flow;
mod machine;

pub use machine::{Core, Host, Machine};

use self::flow::Run;
use super::refusal::Refusal;
use super::step::{Plan, Step};
use crate::topology::Cost;

/// Rounds to run: the first fill the links, the last two tell the pace.
const ROUNDS: u64 = 4;

/// How many nanoseconds a collective over `bytes` takes, from the first rank's begin to the last one's
/// end; `plans` are those of all ranks, and `bytes` are those of all blocks together.
///
/// # Errors
/// The plans do not fit each other; see [`super::prove`].
pub fn price<F>(plans: &[Plan], machine: &Machine<F>, bytes: u64) -> Result<u64, Box<Refusal>>
where
    F: Fn(usize, usize) -> Cost,
{
    let Some(plan) = plans.first() else { return Ok(0) };
    let (block, rounds) = cut(plan, machine.slot, bytes);
    let simulated = rounds.min(ROUNDS);
    let (end, pace) = Run::new(plans, machine, block, simulated)?.run()?;
    Ok((end + (rounds - simulated) * pace).div_ceil(1000))
}

/// What [`price`] would say if `rank` did one thing after the other and everybody did the same: for plans
/// too long to be run.
pub fn estimate<F>(plan: &Plan, rank: usize, machine: &Machine<F>, bytes: u64) -> u64
where
    F: Fn(usize, usize) -> Cost,
{
    let (block, rounds) = cut(plan, machine.slot, bytes);
    let step_cost = |step: &Step| {
        let bytes = block * step.extent().map_or(0, |span| u64::from(span.count));
        let sources = if let Step::Move { sources, .. } = step { sources.len() as u64 } else { 1 };
        let latency = |peer: u32| u64::from((machine.cost)(peer as usize, rank).latency_ns) * 1000;
        let carried = |&peer: &u32| ps(bytes, (machine.cost)(rank, peer as usize).bytes_per_us);
        let waited = step.senders().map(latency).max().unwrap_or(0);
        let reduced = ps((sources - 1) * bytes, machine.core.reduce_per_us);
        machine.core.ps_to_begin() + waited + reduced + step.receivers().iter().map(carried).sum::<u64>()
    };
    let round: u64 = plan.lanes.iter().flat_map(|lane| &lane.steps).map(step_cost).sum();
    (rounds * round).div_ceil(1000)
}

/// The bytes of a block in each round, and the number of rounds.
fn cut(plan: &Plan, slot: u32, bytes: u64) -> (u64, u64) {
    let block = bytes.div_ceil(u64::from(plan.blocks));
    let chunk = (plan.chunk(slot as usize) as u64).max(1);
    let rounds = block.div_ceil(chunk).max(1);
    (block.div_ceil(rounds), rounds)
}

/// How many picoseconds so many bytes take at so many a microsecond.
fn ps(bytes: u64, per_us: u32) -> u64 {
    bytes.saturating_mul(1_000_000) / u64::from(per_us.max(1))
}
