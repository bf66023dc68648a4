//! The memory of a route that all ranks see.

use crate::memory::{Region, View};

/// See [`crate::plan::Memory::Board`]. Each route has one of its own: what is proved of a plan's rounds says
/// nothing about those of another.
#[derive(Debug)]
pub struct Board(Region);

impl Board {
    /// A board in memory that all ranks map.
    pub fn new(memory: Region) -> Self {
        Self(memory)
    }

    /// All of its banks.
    #[inline]
    pub fn view(&self) -> View<'_> {
        self.0.view()
    }
}
