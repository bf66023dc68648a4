//! A route at one size: where the bytes of each step's first round lie.
//!
//! Calls have the shapes of earlier ones, and most have no second round: so a chart is kept, and a small call finds
//! its bytes without arithmetic.

use std::ops::Range;

use smallvec::SmallVec;

use super::brief::Brief;
use super::extent::Extents;
use super::route::{Hop, Move, Operand, Route};

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

impl Place {
    /// Which link it is, if it is one.
    pub fn link(&self) -> Option<u32> {
        match *self {
            Self::Link(at) => Some(at),
            Self::Bytes(_) => None,
        }
    }
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
    /// The map that it was drawn from.
    pub extents: Extents<'static>,
    /// By lane of the first rail, and step; steps that move nothing have an empty one.
    pub legs: Vec<Vec<Leg>>,
    /// The same for a small call: of one lane and one round.
    pub brief: Option<Brief>,
}

impl Chart {
    /// The chart of a route.
    pub fn new(route: &Route, extents: Extents<'static>) -> Self {
        let leg = |hop: &Hop| hop.leg(&extents, 0);
        let first = &route.lanes[..route.plan.lanes.len()];
        let legs: Vec<Vec<_>> = first.iter().map(|hops| hops.iter().map(leg).collect()).collect();
        let brief = match (&route.lanes[..], &legs[..], extents.rounds()) {
            ([hops], [legs], 1) if route.prompt => Some(Brief::new(hops, legs)),
            _ => None,
        };
        Self { extents, legs, brief }
    }
}
