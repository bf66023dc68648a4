//! Where a block's chunk lies: the map from blocks and rounds to bytes.
//!
//! ```text
//! whole:   | round 0: parts 0 1 2 3 | round 1: parts 0 1 2 3 | last round: shorter parts |
//! ranked:  | block 0: rounds 0 1 2 .. | block 1: rounds 0 1 .. | block 2: rounds 0 1 2 .. |
//! ```

use std::ops::Range;

use crate::plan::{Layout, Memory, Plan, Span};

/// How many elements each block of a ranked vector has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts<'a> {
    /// Each block as many.
    Even(usize),
    /// `ends[b]` is where block b ends, counted from the vector's start.
    Ends(&'a [usize]),
}

impl Counts<'_> {
    fn range(self, block: usize) -> Range<usize> {
        match self {
            Self::Even(count) => block * count..(block + 1) * count,
            Self::Ends(ends) => (if block == 0 { 0 } else { ends[block - 1] })..ends[block],
        }
    }

    /// How many elements block `block` has.
    pub fn of(self, block: usize) -> usize {
        self.range(block).len()
    }

    fn longest(self, blocks: usize) -> usize {
        match self {
            Self::Even(count) => count,
            Self::Ends(_) => (0..blocks).map(|block| self.of(block)).max().unwrap_or(0),
        }
    }
}

/// What a caller's vectors are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape<'a> {
    /// One vector of that many elements, cut as the plan wants.
    Whole(usize),
    /// One block per rank.
    Ranked {
        /// Blocks of the input.
        input: Counts<'a>,
        /// Blocks of the output.
        output: Counts<'a>,
        /// The only block that the input holds, where it holds one.
        only_input: Option<usize>,
        /// The only block that the output holds, where it holds one.
        only_output: Option<usize>,
    },
}

impl Shape<'_> {
    /// Which layout this is.
    pub fn layout(&self) -> Layout {
        match self {
            Self::Whole(_) => Layout::Whole,
            Self::Ranked { .. } => Layout::Ranked,
        }
    }

    /// The same, where it borrows nothing.
    pub fn lasting(&self) -> Option<Shape<'static>> {
        match *self {
            Self::Whole(count) => Some(Shape::Whole(count)),
            Self::Ranked {
                input: Counts::Even(input),
                output: Counts::Even(output),
                only_input,
                only_output,
            } => {
                let (input, output) = (Counts::Even(input), Counts::Even(output));
                Some(Shape::Ranked { input, output, only_input, only_output })
            }
            Self::Ranked { .. } => None,
        }
    }
}

/// The map of one call.
#[derive(Clone, Copy, Debug)]
pub struct Extents<'a> {
    shape: Shape<'a>,
    blocks: usize,
    /// Elements of one block that one round moves at most.
    chunk: usize,
    /// Elements of a part in the last round of a whole vector.
    last: usize,
    /// Bytes of an element, as a power of two: pieces are found without a division.
    shift: u32,
    rounds: usize,
    /// Of the plan.
    banks: usize,
    rails: usize,
}

/// Chunks begin on this boundary (in bytes, from the vector's start) where the vector is long enough.
const LINE: usize = 64;

impl<'a> Extents<'a> {
    /// The map of a call whose messages hold `slot` bytes at most, and whose rounds are dealt to that many rails.
    #[inline]
    pub fn new(plan: &Plan, shape: Shape<'a>, size: usize, slot: usize, rails: usize) -> Self {
        let blocks = plan.blocks as usize;
        let shift = size.trailing_zeros();
        let most = plan.chunk(slot) >> shift;
        // A power of two, as LINE and sizes are.
        let line = LINE >> shift;
        let chunk = if most > line { most & !(line - 1) } else { most.max(1) };
        let longest = match shape {
            Shape::Whole(count) => count.div_ceil(blocks),
            Shape::Ranked { input, output, only_input, only_output } => {
                let side = |counts: Counts<'_>, only: Option<usize>| match only {
                    Some(block) => counts.of(block),
                    None => counts.longest(blocks),
                };
                side(input, only_input).max(side(output, only_output))
            }
        };
        // Each rail has as many rounds.
        let chunk = match rails {
            1 => chunk,
            _ => {
                let rounds = longest.div_ceil(chunk).max(1).next_multiple_of(rails);
                chunk.min((longest.div_ceil(rounds) + line - 1) & !(line - 1)).max(1)
            }
        };
        let rounds = if longest <= chunk { 1 } else { longest.div_ceil(chunk) };
        let last = match shape {
            Shape::Whole(count) => {
                let left = match rounds {
                    1 => longest,
                    _ => (count - (rounds - 1) * blocks * chunk).div_ceil(blocks),
                };
                ((left + line - 1) & !(line - 1)).min(chunk)
            }
            Shape::Ranked { .. } => chunk,
        };
        Self { shape, blocks, chunk, last, shift, rounds, banks: plan.scratch.into(), rails }
    }

    /// How many of its rounds are walked at once, each on a rail of its own.
    pub fn rails(&self) -> usize {
        self.rails
    }

    /// How often the plan is walked.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// How many blocks there are.
    pub fn blocks(&self) -> usize {
        self.blocks
    }

    /// The bytes of one bank.
    pub fn bank(&self) -> usize {
        (self.blocks * self.chunk) << self.shift
    }

    /// The bytes of all scratch banks: each rail has its own.
    pub fn scratch(&self) -> usize {
        self.bank() * self.banks * self.rails
    }

    /// Where the block's chunk lies in that memory, in bytes.
    #[inline]
    pub fn piece(&self, memory: Memory, block: usize, round: usize) -> Range<usize> {
        let elements = match (memory, self.shape) {
            (Memory::Scratch(bank) | Memory::Board(bank), _) => {
                let bank = usize::from(bank) + round % self.rails * self.banks;
                let start = (bank * self.blocks + block) * self.chunk;
                start..start + self.len(block, round)
            }
            (_, Shape::Whole(count)) => self.part(count, block, round),
            (Memory::Input, Shape::Ranked { input, only_input, .. }) => {
                self.chunk_of(input, only_input, block, round)
            }
            (Memory::Output, Shape::Ranked { output, only_output, .. }) => {
                self.chunk_of(output, only_output, block, round)
            }
        };
        elements.start << self.shift..elements.end << self.shift
    }

    /// Where the chunk of a span's `index`-th block lies.
    #[inline]
    pub fn block(&self, span: Span, index: u32, round: usize) -> Range<usize> {
        self.piece(span.memory, span.block(index, self.blocks as u32) as usize, round)
    }

    /// How many elements a block of a ranked vector has in all rounds together.
    pub fn count(&self, memory: Memory, block: usize) -> usize {
        match (self.shape, memory) {
            (Shape::Whole(count), _) => count,
            (Shape::Ranked { input, .. }, Memory::Input) => input.of(block),
            (Shape::Ranked { output, .. }, _) => output.of(block),
        }
    }

    /// How many elements of a block one round moves, whether or not this rank's output holds it.
    fn len(&self, block: usize, round: usize) -> usize {
        match self.shape {
            Shape::Whole(count) => self.part(count, block, round).len(),
            Shape::Ranked { output, .. } => {
                output.of(block).saturating_sub(round * self.chunk).min(self.chunk)
            }
        }
    }

    fn chunk_of(&self, counts: Counts<'_>, only: Option<usize>, block: usize, round: usize) -> Range<usize> {
        let whole = counts.range(block);
        // A vector that holds one block begins with it.
        let base = only.map_or(0, |only| counts.range(only).start);
        let start = (round * self.chunk).min(whole.len());
        let end = (start + self.chunk).min(whole.len());
        whole.start - base + start..whole.start - base + end
    }

    #[inline]
    fn part(&self, count: usize, block: usize, round: usize) -> Range<usize> {
        let start = round * self.blocks * self.chunk;
        let each = if round + 1 == self.rounds { self.last } else { self.chunk };
        (start + block * each).min(count)..(start + (block + 1) * each).min(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(blocks: u32, width: u32) -> Plan {
        Plan { blocks, width, scratch: 0, board: 0, lends: false, lanes: Vec::new() }
    }

    /// Every element belongs to exactly one (block, round), and no message outgrows its slot.
    #[test]
    fn whole_vectors_are_cut_without_gap_or_overlap() {
        for blocks in [1, 2, 3, 4, 7] {
            for width in [1, 2] {
                for size in [1, 4, 8] {
                    for count in [0, 1, 2, 3, 5, 63, 64, 65, 1000, 4096, 5003] {
                        let (plan, shape) = (plan(blocks, width), Shape::Whole(count));
                        let extents = Extents::new(&plan, shape, size, 1024, 1 + count % 3);
                        let mut seen = vec![0; count * size];
                        for round in 0..extents.rounds() {
                            for block in 0..blocks as usize {
                                let piece = extents.piece(Memory::Output, block, round);
                                assert!(piece.len() * width as usize <= 1024);
                                seen[piece].iter_mut().for_each(|times| *times += 1);
                            }
                        }
                        assert!(seen.iter().all(|&times| times == 1), "{blocks} {width} {size} {count}");
                    }
                }
            }
        }
    }

    #[test]
    fn ranked_blocks_of_any_count_are_cut_without_gap_or_overlap() {
        let ends = [0, 5, 5, 305, 312];
        let both = Counts::Ends(&ends);
        let shape = Shape::Ranked { input: both, output: both, only_input: Some(3), only_output: None };
        let extents = Extents::new(&plan(5, 1), shape, 4, 512, 1);
        assert_eq!(extents.rounds(), 3);
        let mut seen = vec![0; 312 * 4];
        for round in 0..3 {
            for block in 0..5 {
                let piece = extents.piece(Memory::Output, block, round);
                seen[piece].iter_mut().for_each(|times| *times += 1);
            }
        }
        assert!(seen.iter().all(|&times| times == 1));
        assert_eq!(extents.piece(Memory::Input, 3, 1), 512..1024, "the only block begins the vector");
        assert_eq!(extents.piece(Memory::Scratch(1), 3, 2), (5 + 3) * 512..(5 + 3) * 512 + 44 * 4);
    }

    #[test]
    fn scratch_has_room_for_blocks_that_the_output_does_not_hold() {
        let four = Counts::Even(4);
        let shape = Shape::Ranked { input: four, output: four, only_input: None, only_output: Some(1) };
        let extents = Extents::new(&plan(3, 1), shape, 4, 512, 1);
        for block in 0..3 {
            assert_eq!(extents.piece(Memory::Scratch(0), block, 0).len(), 16, "block {block}");
        }
    }
}
