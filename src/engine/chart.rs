//! A route at one size: where the bytes of each step's first round lie.
//!
//! Most calls have the shape of the one before, and most have no second round: so the route keeps the last
//! chart, and a small call finds its bytes without arithmetic.

use std::ops::Range;

use smallvec::SmallVec;

use super::extent::{Extents, Shape};
use super::route::{Hop, Move, Operand};
use crate::plan::Plan;

/// Where the bytes of one step lie, in one round.
#[derive(Clone, Debug, Default)]
pub struct Leg {
    /// The bytes of its messages.
    pub len: usize,
    /// The first block of each local source, in order, then of where it stores: bytes of their memories.
    pub pieces: SmallVec<[Range<usize>; 2]>,
}

impl Leg {
    /// The leg of a step.
    pub fn new(step: &Move, extents: &Extents<'_>, round: usize) -> Self {
        let sources = step.sources.iter().filter_map(|source| match source {
            Operand::Local(span) => Some(span),
            Operand::Link(_) => None,
        });
        let pieces = sources.chain(&step.into).map(|span| extents.block(*span, 0, round)).collect();
        let len = (0..step.span.count).map(|index| extents.block(step.span, index, round).len()).sum();
        Self { len, pieces }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Chart {
    shape: Shape<'static>,
    size: usize,
    slot: usize,
    /// The map that it was drawn from.
    pub extents: Extents<'static>,
    /// By lane and step; steps that move nothing have an empty one.
    pub legs: Vec<Vec<Leg>>,
}

impl Chart {
    /// The chart of these lanes, for elements of `size` bytes and messages of at most `slot`.
    pub fn new(plan: &Plan, lanes: &[Vec<Hop>], shape: Shape<'static>, size: usize, slot: usize) -> Self {
        let extents = Extents::new(plan, shape, size, slot);
        let leg = |hop: &Hop| match hop {
            Hop::Move(step) => Leg::new(step, &extents, 0),
            _ => Leg::default(),
        };
        let legs = lanes.iter().map(|hops| hops.iter().map(leg).collect()).collect();
        Self { shape, size, slot, extents, legs }
    }

    /// Whether it is that of a call.
    #[inline]
    pub fn serves(&self, shape: &Shape<'_>, size: usize, slot: usize) -> bool {
        self.shape == *shape && self.size == size && self.slot == slot
    }
}
