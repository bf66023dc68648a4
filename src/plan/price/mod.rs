//! Predicts how long a plan takes, by running it on a clock of its own.
//!
//! Steps happen in the order of their times; each waits for its messages and credit, then for what it
//! shares with others: its core, its host's memory, its link, its host's network. Each of those serves one
//! after the other, so that what is shared is counted once:
//!
//! ```text
//!   core     switch_ns after another rank's step, then step_ns + (sources + outputs) · bytes / touch; messages twice where
//!            ranks that take turns have more in hand than their core's cache holds; and each message's handling,
//!            where the system carries it
//!   memory   (sources + outputs) · bytes / memory, where all ranks' vectors are more than caches hold
//!   link     bytes / bandwidth, then the latency; between hosts after bytes / network on both sides
//!   lent     no copy; the receiver reads the sender's memory, and its acknowledgment comes a latency later
//! ```
//!
//! Times are integers (picoseconds), so that all ranks predict alike. Few rounds are run, all of one
//! length; what a few more of them took counts for those that are left.

mod flow;
mod machine;

pub use machine::{Core, Host, Machine};

use self::flow::Run;
use super::refusal::Refusal;
use super::step::{Plan, Step};
use crate::topology::Cost;

/// Rounds to run: the first half fills the links, the other half tells the pace.
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
    let run = |rounds| Run::new(plans, machine, block, rounds, spills(machine, bytes))?.run();
    let simulated = rounds.min(ROUNDS);
    let end = run(simulated)?;
    let left = rounds - simulated;
    let pace = if left > 0 { (end - run(ROUNDS / 2)?) / (ROUNDS / 2) } else { 0 };
    Ok((end + left * pace).div_ceil(1000))
}

/// What [`price`] would say if `rank` did one thing after the other and everybody did the same, while so many ranks
/// of its host share its network: for plans too long to be run.
pub fn estimate<F>(plan: &Plan, rank: usize, machine: &Machine<F>, bytes: u64, sharing: u32) -> u64
where
    F: Fn(usize, usize) -> Cost,
{
    let (block, rounds) = cut(plan, machine.slot, bytes);
    let network = machine.host.network_per_us / sharing.max(1);
    let step_cost = |step: &Step| {
        let bytes = block * step.extent().map_or(0, |span| u64::from(span.count));
        let sources = if let Step::Move { sources, .. } = step { sources.len() as u64 } else { 1 };
        let latency = |peer: u32| u64::from((machine.cost)(peer as usize, rank).latency_ns) * 1000;
        let carried = |&peer: &u32| {
            let link = (machine.cost)(rank, peer as usize).bytes_per_us;
            let here = machine.topology.together(rank, peer as usize);
            ps(bytes, if here { link } else { link.min(network) })
        };
        let handled = |peer: u32| handling((machine.cost)(rank, peer as usize), bytes);
        let waited = step.senders().map(latency).max().unwrap_or(0);
        let touched = ps((sources + 1) * bytes, machine.core.touch_per_us);
        let carried = step.receivers().iter().map(carried).sum::<u64>();
        let handled = step.senders().chain(step.receivers().iter().copied()).map(handled).sum::<u64>();
        machine.core.ps_to_begin() + waited + touched + carried + handled
    };
    let round: u64 = plan.lanes.iter().flat_map(|lane| &lane.steps).map(step_cost).sum();
    (rounds * round).div_ceil(1000)
}

/// Whether the inputs and outputs of a host's ranks are more than its caches hold.
fn spills<F>(machine: &Machine<F>, bytes: u64) -> bool {
    let Machine { topology, host, .. } = machine;
    let ranks = topology.size();
    let mut on_host = vec![0u64; ranks];
    (0..ranks).for_each(|rank| on_host[topology.host(rank)] += 1);
    let most = on_host.into_iter().max().unwrap_or(0);
    bytes.saturating_mul(2 * most) > u64::from(host.cache)
}

/// The bytes of a block in each round, and the number of rounds.
fn cut(plan: &Plan, slot: u32, bytes: u64) -> (u64, u64) {
    let block = bytes.div_ceil(u64::from(plan.blocks));
    let chunk = (plan.chunk(slot as usize) as u64).max(1);
    let rounds = block.div_ceil(chunk).max(1);
    (block.div_ceil(rounds), rounds)
}

/// How many picoseconds a core spends on handing a message over, or on taking it.
fn handling(cost: Cost, bytes: u64) -> u64 {
    u64::from(cost.handling.ns) * 1000 + ps(bytes, cost.handling.bytes_per_us)
}

/// How many picoseconds so many bytes take at so many a microsecond, of which the most there are take none.
fn ps(bytes: u64, per_us: u32) -> u64 {
    match per_us {
        u32::MAX => 0,
        _ => bytes.saturating_mul(1_000_000) / u64::from(per_us.max(1)),
    }
}
