//! A route at one size: where the bytes of each step's first round lie.
//!
//! Most calls have the shape of the one before, and most have no second round: so the route keeps the last
//! chart, and a small call finds its bytes without arithmetic.

use std::ops::Range;

use smallvec::SmallVec;

use super::brief::Brief;
use super::extent::{Extents, Shape};
use super::route::{Hop, Move, Operand};
use crate::plan::Plan;

/// Where the bytes of one step lie, in one round.
#[derive(Clone, Debug, Default)]
pub struct Leg {
    /// The bytes of its messages.
    pub len: usize,
    /// What it reads.
    pub sources: SmallVec<[Place; 2]>,
    /// What it writes.
    pub places: SmallVec<[Place; 2]>,
}

/// Where an operand of a step lies.
#[derive(Clone, Debug)]
pub enum Place {
    /// Its first block.
    Bytes(Bytes),
    /// In the next message of that link.
    Link(u32),
}

/// Bytes of a memory of that [`Memory::kind`](crate::plan::Memory::kind).
#[derive(Clone, Debug)]
pub struct Bytes(pub usize, pub Range<usize>);

impl Leg {
    /// The leg of a step.
    pub fn new(step: &Move, extents: &Extents<'_>, round: usize) -> Self {
        let place = |operand: &Operand| match *operand {
            Operand::Local(span) => Place::Bytes(Bytes(span.memory.kind(), extents.block(span, 0, round))),
            Operand::Link(at) => Place::Link(at),
        };
        let len = (0..step.span.count).map(|index| extents.block(step.span, index, round).len()).sum();
        let [sources, places] =
            [&step.sources, &step.places].map(|operands| operands.iter().map(place).collect());
        Self { len, sources, places }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Chart {
    shape: Shape<'static>,
    size: usize,
    /// The map that it was drawn from.
    pub extents: Extents<'static>,
    /// By lane and step; steps that move nothing have an empty one.
    pub legs: Vec<Vec<Leg>>,
    /// The same for a small call: of one lane and one round.
    pub brief: Option<Brief>,
}

impl Chart {
    /// The chart of these lanes, for elements of `size` bytes and messages of at most `slot`.
    pub fn new(plan: &Plan, lanes: &[Vec<Hop>], shape: Shape<'static>, size: usize, slot: usize) -> Self {
        let extents = Extents::new(plan, shape, size, slot);
        let leg = |hop: &Hop| hop.leg(&extents, 0);
        let legs: Vec<Vec<_>> = lanes.iter().map(|hops| hops.iter().map(leg).collect()).collect();
        let brief = match (lanes, &legs[..], extents.rounds()) {
            ([hops], [legs], 1) => Some(Brief::new(hops, legs)),
            _ => None,
        };
        Self { shape, size, extents, legs, brief }
    }

    /// Whether it is that of a call.
    #[inline(always)]
    pub fn serves(&self, shape: &Shape<'_>, size: usize) -> bool {
        self.shape == *shape && self.size == size
    }
}
