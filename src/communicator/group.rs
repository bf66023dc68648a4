//! Communicators from communicators.

use std::os::fd::OwnedFd;

use super::Communicator;
use super::core::Group;
use crate::dtype::Element;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::memory::{Allocation, Buffer, Part, Region};

/// What a rank that joins none of the new communicators says as its colour, and one that finds no fault.
const NONE: u64 = u64::MAX;

/// What an allocation's number is made of, in place of a colour.
const MEMORY: u64 = u64::from_be_bytes(*b"kolo/mem");

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
        let part = Self::new(self.context.clone(), self.group.part(id, &ranks), settings);
        part.map(Some).map_err(|error| error.at(self.rank()).during("split"))
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
    /// Processes of one host take them from memory that all of them map, each a part of its own. Two of them that
    /// reduce such memory in place, 32 KiB or more, then work in each other's, without a copy. It is given back to
    /// the system as soon as the buffer, with all its parts, is dropped.
    ///
    /// # Errors
    /// `System` on every rank where one has no memory left.
    pub fn alloc<T: Element>(&mut self, count: usize) -> Result<Buffer<T>> {
        let bytes = count.checked_mul(T::DTYPE.size()).filter(|&bytes| isize::try_from(bytes).is_ok());
        let Some(bytes) = bytes else {
            let text =
                format!("alloc: {count} x {} cannot be allocated: no address space holds them", T::DTYPE);
            return Err(Error::usage(text));
        };
        let (group, size) = self.sharers(bytes);
        let own = if group.is_none() { Buffer::zeroed(count) } else { None };
        let made = match (&group, size) {
            (Some(group), Some(size)) if group.rank == 0 => Some(Region::create("kolo-memory", size)),
            _ => None,
        };
        let (made, refused) = made.transpose().map_or_else(|why| (None, Some(why)), |made| (made, None));
        let waits = group.as_ref().is_some_and(|group| group.rank > 0);
        let (me, done) = (self.group.rank, waits || own.is_some() || made.is_some());
        let fault = (!done).then_some(me);
        let agreed = self.agree_to_alloc::<T>(count, fault);
        // The others know only that this rank has none.
        let why = |error: Error| match refused {
            Some(why) if error.kind() == Kind::System => why.at(me).during("alloc"),
            _ => error,
        };
        agreed.map_err(why)?;
        let Some((group, size)) = group.zip(size) else {
            let fault = own.is_none().then_some(me);
            self.agree_to_alloc::<T>(count, fault)?;
            return Ok(own.expect("every rank has it, this one too"));
        };
        let part = self.map_together(&group, made, bytes, size);
        // Nobody may lend from it before all have mapped it.
        let fault = part.as_ref().err().map(|error| match error.peer() {
            // That one's system, as this rank was told.
            Some(peer) if error.kind() != Kind::System => self.place_of(group.members[peer]),
            _ => me,
        });
        let agreed = self.agree_to_alloc::<T>(count, fault);
        let part = part.map_err(|error| error.at(me).during("alloc"))?;
        agreed?;
        self.context.allocations().add(part.allocation());
        Ok(Buffer::of_part(part, count))
    }

    /// The ranks of this host, if they can lend each other what they allocate together, and the bytes of a region
    /// in which each of them has `bytes`.
    fn sharers(&mut self, bytes: usize) -> (Option<Group>, Option<usize>) {
        let Group { rank, members, topology, .. } = &self.group;
        let here: Vec<usize> = (0..members.len()).filter(|&other| topology.together(other, *rank)).collect();
        let neighbours: Vec<u32> = here.iter().map(|&rank| members[rank]).collect();
        if bytes == 0 || !self.context.shares_allocations(&neighbours) {
            return (None, None);
        }
        let number = self.core().child_id(MEMORY);
        (Some(self.group.part(number, &here)), Allocation::size(bytes, here.len()))
    }

    /// This rank's part of the region that the first of a group has `made`, mapped by all of them.
    fn map_together(
        &mut self,
        group: &Group,
        made: Option<(Region, OwnedFd)>,
        bytes: usize,
        size: usize,
    ) -> Result<Part> {
        let deadline = Deadline::after(self.core().settings().deadline);
        let bell = self.core().bell().clone();
        let region = self.context.hand_round(group, made.map(Ok), size, &bell, deadline)?;
        Ok(Allocation::map(group.id, region, group.members.clone(), group.rank, bytes))
    }

    /// A rank of the job, as this communicator numbers it.
    fn place_of(&self, member: u32) -> usize {
        self.group.members.iter().position(|other| *other == member).unwrap_or(self.group.rank)
    }

    /// Compares what all ranks ask for, and whether all have it, or because of whom one has not.
    fn agree_to_alloc<T: Element>(&mut self, count: usize, fault: Option<usize>) -> Result<()> {
        let mine = [count as u64, fault.map_or(NONE, |rank| rank as u64)];
        let mut all = vec![0; 2 * self.size()];
        self.all_gather(&mine, &mut all)?;
        for (rank, theirs) in all.chunks(2).enumerate() {
            if theirs[0] != mine[0] {
                let text =
                    format!("alloc: this rank asks for {count} elements, rank {rank} for {}", theirs[0]);
                return Err(Error::new(Kind::Mismatch, text).at(self.rank()).with(rank));
            }
            if theirs[1] != NONE {
                let text = format!("alloc: no memory for {count} x {} on rank {}", T::DTYPE, theirs[1]);
                return Err(Error::new(Kind::System, text).at(self.rank()));
            }
        }
        Ok(())
    }
}

impl Group {
    /// The group of some of these ranks, in the given order; this rank is one of them.
    pub(super) fn part(&self, id: u64, ranks: &[usize]) -> Self {
        let new_rank = |old: usize| ranks.iter().position(|&rank| rank == old);
        Self {
            id,
            origin: self.id,
            rank: new_rank(self.rank).expect("this rank is one of them"),
            members: ranks.iter().map(|&rank| self.members[rank]).collect(),
            topology: self.topology.part(ranks),
        }
    }
}
