//! Predicts how long a plan takes, by running it on a clock of its own.
//!
//! Steps happen in the order of their times; each waits for its messages and credit, then for what it
//! shares with others: its core, its host's memory, its link, its host's network. Each of those serves one
//! after the other, so that what is shared is counted once:
//!
//! ```text
//!   core     step_ns + (sources - 1) · bytes / reduce + further outputs · bytes / copy
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
use super::step::Plan;
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
    let block = bytes.div_ceil(u64::from(plan.blocks));
    let chunk = u64::from(machine.slot / plan.width).max(1);
    let rounds = block.div_ceil(chunk).max(1);
    let simulated = rounds.min(ROUNDS);
    let (end, pace) = Run::new(plans, machine, block.div_ceil(rounds), simulated)?.run()?;
    Ok((end + (rounds - simulated) * pace).div_ceil(1000))
}
