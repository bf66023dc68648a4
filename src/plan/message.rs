//! A message between two ranks, as a plan.

use super::build::Builder;
use super::step::{Plan, input, output};
use crate::topology::Channel;

/// The channel of messages between two ranks: apart from the collectives', so that the two never mix.
const CHANNEL: Channel = Channel::MAX;

impl Plan {
    /// This rank's part where it sends its input to one rank, receives its output from one, or both at
    /// once; with itself it copies. The two directions are lanes, so that neither waits for the other.
    pub fn message(rank: u32, to: Option<u32>, from: Option<u32>) -> Self {
        let mut plan = Builder::new(1, 1).lends();
        if to == Some(rank) && from == Some(rank) {
            plan.lane(CHANNEL).copy(input(0), output(0));
            return plan.fused();
        }
        if let Some(to) = to {
            plan.lane(CHANNEL).send(input(0), to as usize);
        }
        if let Some(from) = from {
            plan.lane(CHANNEL).recv(from as usize, output(0));
        }
        plan.fused()
    }
}
