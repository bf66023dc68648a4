//! Recursive halving and doubling: partners exchange halves of what they are still to sum, then put the
//! sums together again.
//!
//! ```text
//!   rank     0        1        2        3       4 blocks; the ranks' sums of
//!   halve    01       01       23       23      0+2, 1+3, 0+2, 1+3
//!   halve    0        1        2        3       all
//!   double   01       01       23       23      all
//!   double   0123     0123     0123     0123    all
//! ```
//!
//! Where n is no power of two, the first ranks go in pairs: each of a pair sums one half of both inputs,
//! the even one collects both halves and takes part, the odd one gets the result (Rabenseifner).
//!
//! | collective       | time                                                      |
//! | ---------------- | --------------------------------------------------------- |
//! | all_reduce       | 2 log n α + 2(n-1)/n N β + (n-1)/n N γ                    |
//! | reduce           | 2 log n α + 2(n-1)/n N β + (n-1)/n N γ                    |
//! | broadcast        | 2 log n α + 2(n-1)/n N β                                  |
//! | reduce_scatter   | log n α + (n-1)/n N (β + γ)                               |
//! | all_gather       | log n α + (n-1)/n N β                                     |
//!
//! and if n is no power of two 2 α + 2 N β + N/2 γ more. Source: Rabenseifner, "Optimization of
//! collective reduction operations" (2004); van de Geijn's broadcast by scatter and all-gather.

use std::ops::Range;

use super::{Algorithm, PowerOfTwo};
use crate::plan::{Builder, Collective, CollectiveKind, LaneBuilder, Layout, Memory, Span};
use crate::plan::{from, input, output, scratch};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Halving;

impl Algorithm for Halving {
    fn name(&self) -> &'static str {
        "halving"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        use CollectiveKind::{AllGather, AllReduce, Broadcast, Reduce, ReduceScatter};
        matches!(kind, AllReduce | ReduceScatter | AllGather | Broadcast | Reduce)
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        let here = Here::new(collective, rank, topology.size());
        let mut plan = here.builder();
        let mut lane = plan.lane(0);
        match collective.kind {
            CollectiveKind::AllGather => here.all_gather(&mut lane),
            CollectiveKind::Broadcast => here.broadcast(&mut lane),
            CollectiveKind::ReduceScatter => here.reduce_scatter(&mut lane),
            CollectiveKind::Reduce => here.reduce(&mut lane),
            _ => here.all_reduce(&mut lane),
        }
        plan
    }
}

/// A rank's place, counted from the root.
struct Here {
    kind: CollectiveKind,
    n: usize,
    root: usize,
    /// Counted from the root.
    place: usize,
    core: PowerOfTwo,
}

impl Here {
    fn new(collective: Collective, rank: usize, n: usize) -> Self {
        let root = collective.root as usize;
        Self { kind: collective.kind, n, root, place: (rank + n - root) % n, core: PowerOfTwo::new(n) }
    }

    fn builder(&self) -> Builder {
        let width = self.lower().len().max(self.upper().len());
        let plan = Builder::new(self.start(self.core.size), width);
        match self.kind {
            // Their scratch is sent in one round and overwritten in the next.
            CollectiveKind::ReduceScatter | CollectiveKind::Reduce => plan,
            _ => plan.lends(),
        }
    }

    /// Where the blocks of a member of the core begin: with one block per rank, those of a pair together.
    fn start(&self, member: usize) -> usize {
        match self.kind.layout() {
            Layout::Whole => member,
            Layout::Ranked if member == self.core.size => self.n,
            Layout::Ranked => self.core.rank(member),
        }
    }

    /// The blocks of some members.
    fn range(&self, members: Range<usize>) -> Range<usize> {
        self.start(members.start)..self.start(members.end)
    }

    fn lower(&self) -> Range<usize> {
        self.range(0..self.core.size / 2)
    }

    fn upper(&self) -> Range<usize> {
        self.range(self.core.size / 2..self.core.size)
    }

    /// The rank at a place.
    fn at(&self, place: usize) -> usize {
        (place + self.root) % self.n
    }

    /// The rank of a member of the core.
    fn rank(&self, member: usize) -> usize {
        self.at(self.core.rank(member))
    }

    /// The distances of the exchanges, from 1 on.
    fn distances(&self) -> impl DoubleEndedIterator<Item = usize> + use<> {
        (0..self.core.size.trailing_zeros()).map(|bit| 1 << bit)
    }

    fn all_reduce(&self, lane: &mut LaneBuilder<'_>) {
        if let Some(member) = self.fold(lane) {
            let mine = self.range(member..member + 1);
            self.halve(lane, member);
            lane.finish(span(Memory::Scratch(0), &mine), span(Memory::Output, &mine));
            self.double(lane, member);
        }
        self.unfold(lane, Memory::Output);
    }

    fn reduce_scatter(&self, lane: &mut LaneBuilder<'_>) {
        let Some(member) = self.fold(lane) else {
            lane.recv(self.place - 1, output(self.place));
            return;
        };
        self.halve(lane, member);
        lane.finish(scratch(0, self.place), output(self.place));
        if self.core.folds(self.place) {
            let theirs = scratch(0, self.place + 1);
            lane.finish(theirs, theirs).send(theirs, self.place + 1);
        }
    }

    /// The sums are gathered along the way that halving came.
    fn reduce(&self, lane: &mut LaneBuilder<'_>) {
        let Some(member) = self.fold(lane) else { return };
        let memory = if member == 0 { Memory::Output } else { Memory::Scratch(0) };
        let mine = self.range(member..member + 1);
        self.halve(lane, member);
        lane.finish(span(Memory::Scratch(0), &mine), span(memory, &mine));
        for distance in self.distances() {
            if member & distance != 0 {
                let mine = self.range(member..member + distance);
                lane.send(span(memory, &mine), self.rank(member - distance));
                return;
            }
            let peer = member + distance;
            lane.recv(self.rank(peer), span(memory, &self.range(peer..peer + distance)));
        }
    }

    fn all_gather(&self, lane: &mut LaneBuilder<'_>) {
        let mine = self.place;
        match self.core.member(mine) {
            None => _ = lane.send(input(mine), mine - 1),
            Some(member) => {
                lane.copy(input(mine), output(mine));
                if self.core.folds(mine) {
                    lane.recv(mine + 1, output(mine + 1));
                }
                self.double(lane, member);
            }
        }
        self.unfold(lane, Memory::Output);
    }

    /// Scatter along a binomial tree, then double; who got a block while scattering does not get it again.
    fn broadcast(&self, lane: &mut LaneBuilder<'_>) {
        let memory = if self.place == 0 { Memory::Input } else { Memory::Output };
        if let Some(member) = self.core.member(self.place) {
            for distance in self.distances().rev() {
                match member % (2 * distance) {
                    0 => {
                        let peer = member + distance;
                        let theirs = self.range(peer..peer + distance);
                        lane.send(span(memory, &theirs), self.rank(peer));
                    }
                    low if low == distance => {
                        let mine = self.range(member..member + distance);
                        lane.recv(self.rank(member - distance), span(memory, &mine));
                    }
                    _ => {}
                }
            }
            for distance in self.distances() {
                let (peer, mine, theirs) = self.exchange(member, distance);
                if peer % (2 * distance) != 0 {
                    lane.send(span(memory, &mine), self.rank(peer));
                }
                if member % (2 * distance) != 0 {
                    lane.recv(self.rank(peer), span(memory, &theirs));
                }
            }
        }
        self.unfold(lane, memory);
        if self.place == 0 {
            for half in [self.lower(), self.upper()] {
                lane.copy(span(Memory::Input, &half), span(Memory::Output, &half));
            }
        }
    }

    /// Sums pairs into their even rank, which takes part; says which member this rank is then.
    fn fold(&self, lane: &mut LaneBuilder<'_>) -> Option<usize> {
        let (lower, upper) = (self.lower(), self.upper());
        let sum = |half| span(Memory::Scratch(0), half);
        let mine = |half| span(Memory::Input, half);
        let member = self.core.member(self.place);
        if member.is_none() {
            let even = self.at(self.place - 1);
            lane.send(mine(&lower), even);
            lane.reduce(from(even), mine(&upper), sum(&upper)).send(sum(&upper), even);
        } else if self.core.folds(self.place) {
            let odd = self.at(self.place + 1);
            lane.send(mine(&upper), odd);
            lane.reduce(mine(&lower), from(odd), sum(&lower)).recv(odd, sum(&upper));
        }
        member
    }

    /// The even rank of a pair gives the odd one the result.
    fn unfold(&self, lane: &mut LaneBuilder<'_>, memory: Memory) {
        for half in [self.lower(), self.upper()] {
            if self.core.member(self.place).is_none() {
                lane.recv(self.at(self.place - 1), span(Memory::Output, &half));
            } else if self.core.folds(self.place) {
                lane.send(span(memory, &half), self.at(self.place + 1));
            }
        }
    }

    /// Sums this member's blocks of all members into scratch.
    fn halve(&self, lane: &mut LaneBuilder<'_>, member: usize) {
        let mut memory = if self.core.folds(self.place) { Memory::Scratch(0) } else { Memory::Input };
        for distance in self.distances().rev() {
            let (peer, keep, give) = self.exchange(member, distance);
            lane.send(span(memory, &give), self.rank(peer));
            let (mine, sum) = (span(memory, &keep), span(Memory::Scratch(0), &keep));
            if member < peer {
                lane.reduce(mine, from(self.rank(peer)), sum);
            } else {
                lane.reduce(from(self.rank(peer)), mine, sum);
            }
            memory = Memory::Scratch(0);
        }
    }

    /// Shares all members' blocks of the output.
    fn double(&self, lane: &mut LaneBuilder<'_>, member: usize) {
        for distance in self.distances() {
            let (peer, mine, theirs) = self.exchange(member, distance);
            lane.send(span(Memory::Output, &mine), self.rank(peer));
            lane.recv(self.rank(peer), span(Memory::Output, &theirs));
        }
    }

    /// The partner at a distance, and the blocks of both sides' groups of that size.
    fn exchange(&self, member: usize, distance: usize) -> (usize, Range<usize>, Range<usize>) {
        let group = |member: usize| {
            let first = member / distance * distance;
            self.range(first..first + distance)
        };
        let peer = member ^ distance;
        (peer, group(member), group(peer))
    }
}

/// Some blocks of a memory.
fn span(memory: Memory, blocks: &Range<usize>) -> Span {
    Span::new(memory, blocks.start).wide(blocks.len())
}
