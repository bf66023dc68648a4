//! What a plan is: lanes of steps over blocks.
//!
//! Every step that moves data has one shape:
//!
//! ```text
//!   sources, left to right ──⊕──▶ (finish) ──▶ into ──▶ to*
//!   spans of this rank, messages from others    a span     other ranks
//! ```
//!
//! | sources           | into | to  | it is called           |
//! | ----------------- | ---- | --- | ---------------------- |
//! | span              | -    | r   | send                   |
//! | from r            | span | -   | receive                |
//! | from r, span      | span | -   | reduce                 |
//! | span              | span | -   | copy; scale (finish)   |
//! | from r            | span | s.. | relay                  |
//! | from r, span      | any  | s   | reduce-send            |
//! | many              | any  | any | reduce-many            |
//!
//! Authors write the first four; `fuse` makes the others. A lane runs its steps in order, once per
//! round (chunk index), and names each message's sender: plans are Kahn process networks, so one
//! simulated run settles every timing.

use crate::topology::Channel;

/// Which of a rank's memories a span lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Memory {
    /// The caller's input. In place it is the output.
    Input,
    /// The caller's output.
    Output,
    /// A bank of the engine's own; one chunk per block, reused in every round.
    Scratch(u8),
}

/// Blocks `first`, `first + 1`, … (`count` of them, modulo the plan's number of blocks) of one memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Where.
    pub memory: Memory,
    /// The first block.
    pub first: u32,
    /// How many blocks.
    pub count: u32,
}

/// One operand of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Blocks of this rank.
    Local(Span),
    /// The next message of this lane's channel from that rank.
    From(u32),
}

/// One step of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Combine the sources from left to right, finish, store, send on.
    Move {
        /// What is combined, in this order; one source is a copy.
        sources: Vec<Source>,
        /// Whether the operator's finish (the division of an average) is applied.
        finish: bool,
        /// Where the result is stored, if it is.
        into: Option<Span>,
        /// The ranks that it is sent to on this lane's channel.
        to: Vec<u32>,
    },
    /// Give the given lane of this rank a token.
    Post(u8),
    /// Wait for a token from the given lane of this rank.
    Join(u8),
}

/// Steps in order, on one channel.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The channel of its messages.
    pub channel: Channel,
    /// The steps, run once per round.
    pub steps: Vec<Step>,
}

/// What one rank does in a collective.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// How many blocks there are; the same on all ranks.
    pub blocks: u32,
    /// The widest span of any rank's plan: the engine cuts rounds so that it fits a slot.
    pub width: u32,
    /// How many scratch banks it uses.
    pub scratch: u8,
    /// Whether its sends may lend their source: it is then proved that no source is overwritten
    /// before its receiver is done with it.
    pub lends: bool,
    /// Lanes; they write disjoint spans, or are ordered by messages and tokens.
    pub lanes: Vec<Lane>,
}
