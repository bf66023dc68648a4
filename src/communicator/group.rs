//! Communicators from communicators.

use super::Communicator;
use super::core::Group;
use crate::dtype::Element;
use crate::error::{Error, Kind, Result};
use crate::memory::Buffer;

/// What a rank that joins none of the new communicators says as its colour.
const NONE: u64 = u64::MAX;

impl Communicator {
    /// Ranks that name the same colour form a new communicator, ordered by (key, rank); a rank that names
    /// none joins none. A collective. The new communicator has links and a deadline of its own, begins with
    /// this one's settings, and shares the progress thread.
    pub fn split(&mut self, color: Option<u32>, key: usize) -> Result<Option<Self>> {
        let mine = [color.map_or(NONE, u64::from), key as u64];
        let mut all = vec![0u64; 2 * self.size()];
        self.all_gather(&mine, &mut all)?;
        if color.is_none() {
            return Ok(None);
        }
        let mut ranks: Vec<usize> = (0..self.size()).filter(|&rank| all[2 * rank] == mine[0]).collect();
        ranks.sort_by_key(|&rank| (all[2 * rank + 1], rank));
        let core = self.core();
        let (id, settings) = (core.child_id(mine[0]), core.settings().clone());
        Self::new(self.context.clone(), self.group.part(id, &ranks), settings).map(Some)
    }

    /// A communicator of the same ranks, with links of its own: its calls and this one's do not wait for
    /// each other. A collective.
    pub fn duplicate(&mut self) -> Result<Self> {
        let rank = self.rank();
        Ok(self.split(Some(0), rank)?.expect("every rank named a colour"))
    }
}

impl Communicator {
    /// `count` zeros that belong with this communicator, aligned so that its transports move them best. A
    /// collective: all ranks ask for as many.
    ///
    /// # Errors
    /// `System` on every rank where one has no memory left.
    pub fn alloc<T: Element>(&mut self, count: usize) -> Result<Buffer<T>> {
        let bytes = count.checked_mul(T::DTYPE.size()).filter(|&bytes| isize::try_from(bytes).is_ok());
        if bytes.is_none() {
            let text =
                format!("alloc: {count} x {} cannot be allocated: no address space holds them", T::DTYPE);
            return Err(Error::usage(text));
        }
        let memory = Buffer::zeroed(count);
        let mine = [count as u64, u64::from(memory.is_some())];
        let mut all = vec![0; 2 * self.size()];
        self.all_gather(&mine, &mut all)?;
        for (rank, theirs) in all.chunks(2).enumerate() {
            if theirs[0] != mine[0] {
                let text =
                    format!("alloc: this rank asks for {count} elements, rank {rank} for {}", theirs[0]);
                return Err(Error::new(Kind::Mismatch, text).at(self.rank()).with(rank));
            }
            if theirs[1] == 0 {
                let text = format!("alloc: no memory for {count} x {} on rank {rank}", T::DTYPE);
                return Err(Error::new(Kind::System, text).at(self.rank()));
            }
        }
        Ok(memory.expect("every rank has it, this one too"))
    }
}

impl Group {
    /// The group of some of these ranks, in the given order; this rank is one of them.
    fn part(&self, id: u64, ranks: &[usize]) -> Self {
        let new_rank = |old: usize| ranks.iter().position(|&rank| rank == old);
        Self {
            id,
            rank: new_rank(self.rank).expect("this rank named the colour"),
            members: ranks.iter().map(|&rank| self.members[rank]).collect(),
            topology: self.topology.part(ranks),
        }
    }
}
