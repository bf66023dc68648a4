//! Writes plans the way their tables read.

use super::fuse::fuse;
use super::step::{Lane, Memory, Plan, Source, Span, Step};
use crate::topology::Channel;

/// A plan being written, step by simple step.
#[derive(Debug)]
pub struct Builder {
    plan: Plan,
}

/// A lane being written. Block numbers wrap modulo the plan's number of blocks.
#[derive(Debug)]
pub struct LaneBuilder<'a> {
    blocks: u32,
    steps: &'a mut Vec<Step>,
}

impl Builder {
    /// A plan over `blocks` blocks, none of whose steps on any rank is wider than `width`; 0 where no
    /// message carries a block.
    pub fn new(blocks: usize, width: usize) -> Self {
        let (blocks, width) = (blocks as u32, width as u32);
        Self { plan: Plan { blocks, width, scratch: 0, board: 0, lends: false, lanes: Vec::new() } }
    }

    /// Lets sends lend their source: no source is overwritten before its receiver is done with it.
    #[must_use]
    pub fn lends(mut self) -> Self {
        self.plan.lends = true;
        self
    }

    /// Gives the ranks a board of so many banks.
    #[must_use]
    pub fn board(mut self, banks: u8) -> Self {
        self.plan.board = banks;
        self
    }

    /// Begins another lane, whose messages go over `channel`.
    pub fn lane(&mut self, channel: Channel) -> LaneBuilder<'_> {
        self.plan.lanes.push(Lane { channel, steps: Vec::new() });
        let steps = &mut self.plan.lanes.last_mut().expect("just pushed").steps;
        LaneBuilder { blocks: self.plan.blocks, steps }
    }

    /// The plan as it was written.
    pub fn simple(mut self) -> Plan {
        self.plan.count_scratch();
        self.plan
    }

    /// The plan with its steps fused.
    pub fn fused(self) -> Plan {
        fuse(&self.simple())
    }
}

impl LaneBuilder<'_> {
    /// Makes room for `steps` more steps.
    pub fn reserve(&mut self, steps: usize) -> &mut Self {
        self.steps.reserve(steps);
        self
    }

    /// span → rank
    pub fn send(&mut self, span: Span, to: usize) -> &mut Self {
        self.step([span.into()], false, None, Some(to))
    }

    /// rank → span
    pub fn recv(&mut self, from: usize, into: Span) -> &mut Self {
        self.step([Source::From(from as u32)], false, Some(into), None)
    }

    /// left ⊕ right → span
    pub fn reduce(&mut self, left: impl Into<Source>, right: impl Into<Source>, into: Span) -> &mut Self {
        self.step([left.into(), right.into()], false, Some(into), None)
    }

    /// span → span
    pub fn copy(&mut self, source: Span, into: Span) -> &mut Self {
        self.step([source.into()], false, Some(into), None)
    }

    /// finish(span) → span: the value is final now.
    pub fn finish(&mut self, source: Span, into: Span) -> &mut Self {
        self.step([source.into()], true, Some(into), None)
    }

    /// Gives lane `lane` of this rank a token.
    pub fn post(&mut self, lane: usize) -> &mut Self {
        self.steps.push(Step::Post(lane as u8));
        self
    }

    /// Waits for a token from lane `lane` of this rank.
    pub fn join(&mut self, lane: usize) -> &mut Self {
        self.steps.push(Step::Join(lane as u8));
        self
    }

    /// Tells `rank` that what was done to the board so far is done.
    pub fn signal(&mut self, rank: usize) -> &mut Self {
        self.steps.push(Step::Signal(rank as u32));
        self
    }

    /// Waits for a signal from `rank`.
    pub fn await_signal(&mut self, rank: usize) -> &mut Self {
        self.steps.push(Step::Await(rank as u32));
        self
    }

    fn step<const N: usize>(
        &mut self,
        sources: [Source; N],
        finish: bool,
        into: Option<Span>,
        to: Option<usize>,
    ) -> &mut Self {
        let blocks = self.blocks;
        let wrap = |span: Span| Span { first: span.first % blocks, ..span };
        let sources = sources.map(|source| match source {
            Source::Local(span) => Source::Local(wrap(span)),
            Source::From(_) => source,
        });
        let to = to.map(|rank| rank as u32).into_iter().collect();
        self.steps.push(Step::Move { sources: sources.into(), finish, into: into.map(wrap), to });
        self
    }
}

impl Plan {
    /// Sets the number of scratch banks to what its steps use.
    pub(super) fn count_scratch(&mut self) {
        let spans = self.lanes.iter().flat_map(|lane| &lane.steps).flat_map(Step::spans);
        let banks = spans.map(|span| match span.memory {
            Memory::Scratch(bank) => bank + 1,
            Memory::Input | Memory::Output | Memory::Board(_) => 0,
        });
        self.scratch = banks.max().unwrap_or(0);
    }
}
