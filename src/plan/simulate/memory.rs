//! The ranks' memories during a proof.

use super::value::Value;
use crate::plan::collective::{Collective, CollectiveKind};
use crate::plan::step::{Memory, Plan, Span};

/// In how many rounds each block has elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lengths {
    /// All blocks in all rounds.
    Even,
    /// Each block in a number of rounds of its own, some in none; the number picks a pattern.
    Uneven(u32),
    /// No block in any round: one round of empty messages.
    Nothing,
}

/// All ranks' memories: a cell for each block of each round of the output (and in place of the input),
/// and of each scratch bank. The board is the memory of one more rank, which has nothing else. An input out of place is never stored, since nobody writes it.
#[derive(Debug)]
pub(super) struct Memories {
    collective: Collective,
    in_place: bool,
    pub(super) rounds: u32,
    blocks: u32,
    lengths: Lengths,
    /// The number of the board, behind those of the ranks.
    board: usize,
    cells: Vec<Vec<Value>>,
    /// For each cell of each rank's scratch and of the board, the round that wrote it last, counted from 1.
    written: Vec<Vec<u32>>,
}

impl Memories {
    pub(super) fn new(
        collective: Collective,
        plans: &[Plan],
        in_place: bool,
        rounds: u32,
        lengths: Lengths,
    ) -> Self {
        let blocks = plans[0].blocks;
        let scratch = |plan: &Plan| u32::from(plan.scratch) * blocks;
        let board = u32::from(plans[0].board) * blocks;
        let reused: Vec<u32> = plans.iter().map(scratch).chain([board]).collect();
        let cells = |&reused: &u32| vec![Value::UNDEFINED; (rounds * blocks + reused) as usize];
        let mut memories = Self {
            collective,
            in_place,
            rounds,
            blocks,
            lengths,
            board: plans.len(),
            cells: reused.iter().map(cells).collect(),
            written: reused.iter().map(|&reused| vec![0; reused as usize]).collect(),
        };
        if in_place {
            memories.fill_inputs();
        }
        memories
    }

    fn fill_inputs(&mut self) {
        for (rank, cells) in self.cells[..self.board].iter_mut().enumerate() {
            for round in 0..self.rounds {
                for block in 0..self.blocks as usize {
                    if self.collective.has_input(rank, block) {
                        let cell = (round * self.blocks) as usize + block;
                        cells[cell] = Value::contribution(rank, block, round);
                    }
                }
            }
        }
    }

    /// How many cells each rank has, and the board.
    pub(super) fn cells(&self) -> impl Iterator<Item = usize> + '_ {
        self.cells.iter().map(Vec::len)
    }

    /// Whose memory `rank` means: its own or the board.
    pub(super) fn owner(&self, rank: usize, memory: Memory) -> usize {
        if matches!(memory, Memory::Board(_)) { self.board } else { rank }
    }

    /// Where a block lies in its owner's memory; nothing for an input that is not in place.
    pub(super) fn cell(&self, memory: Memory, block: u32, round: u32) -> Option<usize> {
        let row = match memory {
            Memory::Input if !self.in_place => return None,
            Memory::Input | Memory::Output => round,
            Memory::Scratch(bank) | Memory::Board(bank) => self.rounds + u32::from(bank),
        };
        Some((row * self.blocks + block) as usize)
    }

    /// Whether a block has no elements in a round.
    pub(super) fn is_empty(&self, rank: usize, memory: Memory, block: u32, round: u32) -> bool {
        let rounds = match self.lengths {
            Lengths::Even => return false,
            Lengths::Nothing => 0,
            Lengths::Uneven(pattern) if self.collective.kind == CollectiveKind::AllToAll => {
                let rank = rank as u32;
                let (from, to) = if memory == Memory::Output { (block, rank) } else { (rank, block) };
                (3 * from + 5 * to + pattern) % (self.rounds + 1)
            }
            Lengths::Uneven(pattern) => (7 * block + pattern) % (self.rounds + 1),
        };
        round >= rounds
    }

    /// Whether no block of a span has elements in a round.
    pub(super) fn nothing(&self, rank: usize, span: Span, round: u32) -> bool {
        self.lengths != Lengths::Even
            && span.blocks(self.blocks).all(|block| self.is_empty(rank, span.memory, block, round))
    }

    /// What a block holds; nothing if it was not written, or scratch and board not in this round.
    pub(super) fn read(&self, rank: usize, memory: Memory, block: u32, round: u32) -> Option<Value> {
        if self.is_empty(rank, memory, block, round) {
            return Some(Value::EMPTY);
        }
        let Some(cell) = self.cell(memory, block, round) else {
            return Some(Value::contribution(rank, block as usize, round));
        };
        let owner = self.owner(rank, memory);
        let reused = matches!(memory, Memory::Scratch(_) | Memory::Board(_));
        if reused && self.written[owner][self.reused(cell)] != round + 1 {
            return None;
        }
        Some(self.cells[owner][cell]).filter(|&value| value != Value::UNDEFINED)
    }

    pub(super) fn write(&mut self, owner: usize, cell: usize, round: u32, value: Value) {
        self.cells[owner][cell] = value;
        if cell >= (self.rounds * self.blocks) as usize {
            let reused = self.reused(cell);
            self.written[owner][reused] = round + 1;
        }
    }

    /// The number of a cell among those that rounds use again.
    fn reused(&self, cell: usize) -> usize {
        cell - (self.rounds * self.blocks) as usize
    }

    /// What an output holds in the end; nothing where there is none, or no element of it.
    pub(super) fn output(&self, rank: usize, block: u32, round: u32) -> Option<Value> {
        let there = self.collective.has_output(rank, block as usize)
            && !self.is_empty(rank, Memory::Output, block, round);
        there.then(|| self.cells[rank][(round * self.blocks + block) as usize])
    }

    /// Whether a span lies in the output.
    pub(super) fn is_output(&self, span: Span) -> bool {
        span.memory == Memory::Output
    }

    /// Whether two spans are the same memory.
    pub(super) fn same_place(&self, a: Span, b: Span) -> bool {
        let place = |span: Span| match span.memory {
            Memory::Input if self.in_place => Span { memory: Memory::Output, ..span },
            _ => span,
        };
        place(a) == place(b)
    }
}
