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
//! Authors write the first four; `fuse` makes the others. Ranks that share memory may leave blocks for each
//! other on the *board* instead of sending them; then `signal` and `await`, messages without a payload, say
//! when, and the prover sees that no access is left to chance. A lane runs its steps in order, once per
//! round (chunk index), and names each message's sender: plans are Kahn process networks, so one
//! simulated run settles every timing.

use super::few::Few;
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
    /// A bank that all ranks see: block b is the same memory on each of them. One chunk per block, reused
    /// in every round, and in every call that walks the same plan.
    Board(u8),
}

impl Memory {
    /// How many kinds there are.
    pub const KINDS: usize = 4;

    /// Which kind it is, from 0 on, whatever the bank.
    #[inline]
    pub const fn kind(self) -> usize {
        match self {
            Self::Input => 0,
            Self::Output => 1,
            Self::Scratch(_) => 2,
            Self::Board(_) => 3,
        }
    }
}

/// How many banks a board has at most.
pub const MOST_BANKS: usize = 255;

/// The bytes of a bank of the board. A round costs each core a switch between all of its ranks, and what is
/// worked on should stay in a core's second-level cache.
const BANK: usize = 256 << 10;

/// Chunks on the board begin on this boundary, in bytes.
const LINE: usize = 64;

/// `count` blocks of one memory, from `first` on, modulo the plan's number of blocks.
///
/// Striped, the blocks come in runs of `run` with gaps as long: with `run` 2 from block 2 on they are
/// 2, 3, 6, 7, 10, 11, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Span {
    /// Where.
    pub memory: Memory,
    /// How many blocks come together; 0 where all do.
    pub run: u16,
    /// The first block.
    pub first: u32,
    /// How many blocks.
    pub count: u32,
}

impl Span {
    /// One block.
    pub fn new(memory: Memory, block: usize) -> Self {
        Self { memory, run: 0, first: block as u32, count: 1 }
    }

    /// The same place, `count` blocks wide.
    #[must_use]
    pub fn wide(self, count: usize) -> Self {
        Self { count: count as u32, ..self }
    }

    /// The same blocks count, in runs of `run` blocks with gaps as long.
    #[must_use]
    pub fn striped(self, run: usize) -> Self {
        Self { run: run as u16, ..self }
    }

    /// Its blocks in the order in which a message holds them; `total` is the plan's number of blocks.
    pub fn blocks(self, total: u32) -> impl Iterator<Item = u32> + Clone {
        (0..self.count).map(move |index| self.block(index, total))
    }

    /// The `index`-th of [`Span::blocks`].
    #[inline]
    pub fn block(self, index: u32, total: u32) -> u32 {
        let gaps = if self.run == 0 { 0 } else { index / u32::from(self.run) * u32::from(self.run) };
        let block = self.first + index + gaps;
        if block < total { block } else { block % total }
    }

    /// How many blocks lie between its first and its last, both counted.
    pub fn reach(self) -> u32 {
        match (self.run, self.count) {
            (0, count) | (_, count @ 0) => count,
            (run, count) => count + (count - 1) / u32::from(run) * u32::from(run),
        }
    }
}

/// Block `block` of the caller's input.
pub fn input(block: usize) -> Span {
    Span::new(Memory::Input, block)
}

/// Block `block` of the caller's output.
pub fn output(block: usize) -> Span {
    Span::new(Memory::Output, block)
}

/// Block `block` of a scratch bank.
pub fn scratch(bank: u8, block: usize) -> Span {
    Span::new(Memory::Scratch(bank), block)
}

/// Block `block` of a bank of the board.
pub fn board(bank: u8, block: usize) -> Span {
    Span::new(Memory::Board(bank), block)
}

/// One operand of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// Blocks of this rank.
    Local(Span),
    /// The next message of this lane's channel from that rank.
    From(u32),
}

impl From<Span> for Source {
    fn from(span: Span) -> Self {
        Self::Local(span)
    }
}

/// The next message from `rank`, as a step's operand.
pub fn from(rank: usize) -> Source {
    Source::From(rank as u32)
}

/// One step of a lane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// Combine the sources from left to right, finish, store, send on.
    Move {
        /// What is combined, in this order; one source is a copy.
        sources: Few<Source>,
        /// Whether the operator's finish (the division of an average) is applied.
        finish: bool,
        /// Where the result is stored, if it is. A copy onto itself, as happens in place, moves nothing.
        into: Option<Span>,
        /// The ranks that it is sent to on this lane's channel.
        to: Few<u32>,
    },
    /// Give the given lane of this rank a token.
    Post(u8),
    /// Wait for a token from the given lane of this rank.
    Join(u8),
    /// Send that rank a message without a payload on this lane's channel, in every round: what was done to
    /// the board before may be relied upon.
    Signal(u32),
    /// Wait for a signal from that rank.
    Await(u32),
}

impl Step {
    /// Its local spans, those that it reads first.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        let (sources, into) = match self {
            Self::Move { sources, into, .. } => (sources.as_slice(), *into),
            _ => (&[][..], None),
        };
        sources.iter().filter_map(|source| source.span()).chain(into)
    }

    /// The ranks that it takes a message from.
    pub fn senders(&self) -> impl Iterator<Item = u32> + '_ {
        let (sources, signal) = match self {
            Self::Move { sources, .. } => (sources.as_slice(), None),
            Self::Await(rank) => (&[][..], Some(*rank)),
            _ => (&[][..], None),
        };
        let of = |source: &Source| match *source {
            Source::From(rank) => Some(rank),
            Source::Local(_) => None,
        };
        sources.iter().filter_map(of).chain(signal)
    }

    /// The ranks that it sends a message to.
    pub fn receivers(&self) -> &[u32] {
        match self {
            Self::Move { to, .. } => to,
            Self::Signal(rank) => std::slice::from_ref(rank),
            _ => &[],
        }
    }

    /// The span that tells how long its result is; every span of a step names the same blocks, except
    /// in all_to_all, where all blocks that can meet are of one length.
    pub fn extent(&self) -> Option<Span> {
        self.spans().last()
    }
}

impl Source {
    /// Its span, where it is local.
    pub fn span(self) -> Option<Span> {
        match self {
            Self::Local(span) => Some(span),
            Self::From(_) => None,
        }
    }
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
    /// The widest span of any rank's plan: the engine cuts rounds so that it fits a slot. 0 where only
    /// signals are sent: then rounds are cut by what the board holds.
    pub width: u32,
    /// How many scratch banks it uses.
    pub scratch: u8,
    /// How many banks the board has; the same on all ranks.
    pub board: u8,
    /// Whether its sends may lend their source: it is then proved that no source is overwritten
    /// before its receiver is done with it.
    pub lends: bool,
    /// Lanes; they write disjoint spans, or are ordered by messages and tokens.
    pub lanes: Vec<Lane>,
}

impl Plan {
    /// The most bytes of a block that one round moves, where a message holds `slot` bytes.
    #[inline]
    pub fn chunk(&self, slot: usize) -> usize {
        match (self.width as usize, self.board) {
            (0, _) => self.board_chunk(),
            (width, 0) => slot / width,
            (width, _) => self.board_chunk().min(slot / width),
        }
    }

    /// The bytes of one chunk on the board.
    pub fn board_chunk(&self) -> usize {
        ((BANK / self.blocks as usize) & !(LINE - 1)).max(LINE)
    }

    /// The bytes of the board.
    pub fn board_len(&self) -> usize {
        usize::from(self.board) * self.blocks as usize * self.board_chunk()
    }
}
