//! The memory of a route that all ranks see, and the page of it that a round works on.

use std::cell::Cell;

use crate::memory::{Region, View};
use crate::plan::PAGES;

/// See [`crate::plan::Memory::Board`]. Each route has one of its own: what is proved of a plan's rounds says
/// nothing about those of another.
#[derive(Debug)]
pub struct Board {
    memory: Region,
    /// How many rounds have been walked over it, modulo its pages; alike on all ranks.
    walked: Cell<usize>,
}

impl Board {
    /// A board in memory that all ranks map.
    pub fn new(memory: Region) -> Self {
        Self { memory, walked: Cell::new(0) }
    }

    /// The page of a call's round `round`, where it began after so many [`walked`](Self::walked) rounds.
    #[inline]
    pub fn page(&self, walked: usize, round: usize) -> View<'_> {
        let memory = self.memory.view();
        let page = memory.len() / PAGES as usize;
        let number = (walked + round) % PAGES as usize;
        memory.part(number * page..(number + 1) * page)
    }

    /// How many rounds were walked before the next call.
    #[inline]
    pub fn walked(&self) -> usize {
        self.walked.get()
    }

    /// A call of `rounds` rounds that began after so many is done.
    #[inline]
    pub fn walk(&self, walked: usize, rounds: usize) {
        self.walked.set((walked + rounds) % PAGES as usize);
    }
}
