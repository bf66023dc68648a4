//! What each rank has before a case and must have after it, element by element, and beyond.
//!
//! ```text
//!   guard, skew | pieces .................... | guard
//!   a5 a5 a5 a5 | of rank 2 | any | reduced   | a5 a5 a5 a5
//! ```

use kolo::Buffer;
use kolo::memory::{as_bytes, as_bytes_mut};

use crate::case::{Call, Case};
use crate::patterns::{FILL, PERIOD, Patterns};
use crate::support::plain::Plain;

/// What stands in some elements.
#[derive(Clone, Copy, Debug)]
enum Content {
    /// What rank `.0` contributed, from its element `.1` on.
    Of(usize, usize),
    /// The reduction of all contributions, from that element on.
    Reduced(usize),
    /// What nobody may write.
    Fill,
    /// Anything.
    Any,
}

use Content::{Any, Fill, Of, Reduced};

/// Some contents, each with its length.
type Pieces = Vec<(usize, Content)>;

fn total(pieces: &Pieces) -> usize {
    pieces.iter().map(|(len, _)| len).sum()
}

/// What one rank has.
pub(crate) struct Sides {
    /// Not there in place.
    input: Pieces,
    before: Pieces,
    after: Pieces,
}

impl Sides {
    /// Those of `rank`.
    pub(crate) fn new(case: &Case, rank: usize) -> Self {
        let &Case { size, count, root, call, .. } = case;
        let block = |from, to| case.block(from, to);
        // Where a block begins, and where all end, in a vector of one block per rank.
        let start = |to: usize| -> usize { (0..to).map(|to| block(0, to)).sum() };
        let unneeded = |skew: usize| vec![(if skew % 2 == 1 { 0 } else { count }, Fill)];
        let at_root = |pieces: Pieces, skew: usize| if rank == root { pieces } else { unneeded(skew) };
        let all = || (0..size).map(|from| (block(0, from), Of(from, 0))).collect::<Pieces>();
        let mine = block(0, rank);
        match call {
            Call::AllReduce => Self::apart(vec![(count, Of(rank, 0))], vec![(count, Reduced(0))]),
            Call::AllReduceInPlace => Self::in_place(vec![(count, Of(rank, 0))], vec![(count, Reduced(0))]),
            Call::ReduceScatter | Call::ReduceScatterV => {
                Self::apart(vec![(start(size), Of(rank, 0))], vec![(mine, Reduced(start(rank)))])
            }
            Call::ReduceScatterInPlace => {
                let rest = start(size) - start(rank) - mine;
                let after = vec![(start(rank), Any), (mine, Reduced(start(rank))), (rest, Any)];
                Self::in_place(vec![(start(size), Of(rank, 0))], after)
            }
            Call::Reduce => {
                Self::apart(vec![(count, Of(rank, 0))], at_root(vec![(count, Reduced(0))], case.skew[1]))
            }
            Call::ReduceInPlace => {
                let after = if rank == root { Reduced(0) } else { Of(rank, 0) };
                Self::in_place(vec![(count, Of(rank, 0))], vec![(count, after)])
            }
            Call::AllGather | Call::AllGatherV => Self::apart(vec![(mine, Of(rank, 0))], all()),
            Call::AllGatherInPlace => {
                let rest = start(size) - start(rank) - mine;
                Self::in_place(vec![(start(rank), Fill), (mine, Of(rank, 0)), (rest, Fill)], all())
            }
            Call::Broadcast => {
                let before = if rank == root { Of(root, 0) } else { Fill };
                Self::in_place(vec![(count, before)], vec![(count, Of(root, 0))])
            }
            Call::Gather | Call::GatherV => {
                Self::apart(vec![(mine, Of(rank, 0))], at_root(all(), case.skew[1]))
            }
            Call::Scatter | Call::ScatterV => Self::apart(
                at_root(vec![(start(size), Of(root, 0))], case.skew[0]),
                vec![(mine, Of(root, start(rank)))],
            ),
            Call::AllToAll | Call::AllToAllV => {
                let sent = (0..size).map(|to| block(rank, to)).sum();
                let from = |from| (block(from, rank), Of(from, (0..rank).map(|to| block(from, to)).sum()));
                Self::apart(vec![(sent, Of(rank, 0))], (0..size).map(from).collect())
            }
            Call::Barrier => Self::apart(vec![], vec![]),
            Call::Chain => {
                let (sent, received) = (rank + 1 < size, rank > 0);
                Self::apart(
                    vec![(if sent { count } else { 0 }, Of(rank, 0))],
                    vec![(if received { count } else { 0 }, Of(rank.saturating_sub(1), 0))],
                )
            }
            Call::SendRecv => {
                Self::apart(vec![(count, Of(rank, 0))], vec![(count, Of((rank + size - root) % size, 0))])
            }
        }
    }

    fn apart(input: Pieces, after: Pieces) -> Self {
        Self { input, before: vec![(total(&after), Fill)], after }
    }

    fn in_place(before: Pieces, after: Pieces) -> Self {
        assert_eq!(total(&before), total(&after));
        Self { input: Vec::new(), before, after }
    }

    /// Its memory before the call: input and output, or an empty input.
    pub(crate) fn memory<T: Plain>(&self, patterns: &Patterns<T>, skew: [usize; 2]) -> [Memory<T>; 2] {
        [Memory::new(&self.input, patterns, skew[0]), Memory::new(&self.before, patterns, skew[1])]
    }

    /// What is wrong with it after the call.
    pub(crate) fn wrong<T: Plain>(&self, patterns: &Patterns<T>, memory: &[Memory<T>; 2]) -> Option<String> {
        let input = memory[0].wrong(&self.input, patterns).map(|what| format!("input: {what}"));
        input.or_else(|| memory[1].wrong(&self.after, patterns))
    }
}

/// Elements that may be written, among others that may not.
pub(crate) struct Memory<T> {
    all: Vec<T>,
    start: usize,
    len: usize,
}

/// Elements that are guarded on each side.
const GUARD: usize = 64;

impl<T: Plain> Memory<T> {
    fn new(pieces: &Pieces, patterns: &Patterns<T>, skew: usize) -> Self {
        let (start, len) = (GUARD + skew, total(pieces));
        let mut all = vec![fill(); start + len + GUARD];
        let mut rest = &mut all[start..];
        for &(len, content) in pieces {
            let (piece, next) = std::mem::take(&mut rest).split_at_mut(len);
            let mut at = 0;
            while at < len {
                let Some(source) = content.run(at, patterns) else { break };
                let run = source.len().min(len - at);
                piece[at..at + run].copy_from_slice(&source[..run]);
                at += run;
            }
            rest = next;
        }
        Self { all, start, len }
    }

    /// What a call works on.
    pub(crate) fn slice(&mut self) -> &mut [T] {
        &mut self.all[self.start..][..self.len]
    }

    /// What a work works on, and what must join it later.
    pub(crate) fn split(self) -> (Buffer<T>, impl FnOnce(Buffer<T>) -> Self + use<T>) {
        let Self { all, start, len } = self;
        let (left, rest) = Buffer::from(all).split_at(start);
        let (middle, right) = rest.split_at(len);
        let join = move |middle| {
            let whole = left.join(middle).expect("neighbours").join(right).expect("neighbours");
            Self { all: whole.to_vec(), start, len }
        };
        (middle, join)
    }

    fn wrong(&self, pieces: &Pieces, patterns: &Patterns<T>) -> Option<String> {
        let after = self.start + self.len;
        let guarded = [0..self.start, after..self.all.len()];
        if let Some(at) = guarded.into_iter().flatten().find(|&at| !same(&self.all[at..=at], &[fill()])) {
            let at = at as isize - self.start as isize;
            return Some(format!("element {at} of {} was written", self.len));
        }
        let mut begin = self.start;
        for &(len, content) in pieces {
            let found = &self.all[begin..begin + len];
            if let Some((at, expected)) = content.differs(found, patterns) {
                let place = begin - self.start + at;
                return Some(format!(
                    "element {place} of {} is {:?} ({:02x?}), should be {expected:?} ({:02x?})",
                    self.len,
                    found[at],
                    as_bytes(&found[at..=at]),
                    as_bytes(&[expected]),
                ));
            }
            begin += len;
        }
        None
    }
}

impl Content {
    /// What it says from its element `at` on, as far as it lies in a row; nothing where it says nothing.
    fn run<T: Plain>(self, at: usize, patterns: &Patterns<T>) -> Option<&[T]> {
        match self {
            Of(rank, from) => Some(&patterns.rank(rank)[(from + at) % PERIOD..]),
            Reduced(from) => Some(&patterns.reduced()[(from + at) % PERIOD..]),
            Fill | Any => None,
        }
    }

    /// The first element that differs, and what it should be.
    fn differs<T: Plain>(self, found: &[T], patterns: &Patterns<T>) -> Option<(usize, T)> {
        if matches!(self, Any) {
            return None;
        }
        let filled = [fill::<T>()];
        let mut at = 0;
        while at < found.len() {
            let source = self.run(at, patterns).unwrap_or(&filled);
            let run = source.len().min(found.len() - at);
            if !same(&found[at..at + run], &source[..run]) {
                let wrong = (0..run).find(|&i| !same(&found[at + i..=at + i], &source[i..=i]));
                return wrong.map(|i| (at + i, source[i]));
            }
            at += run;
        }
        None
    }
}

fn same<T: Plain>(a: &[T], b: &[T]) -> bool {
    as_bytes(a) == as_bytes(b)
}

fn fill<T: Plain>() -> T {
    let mut element = [T::from_low(0)];
    as_bytes_mut(&mut element).fill(FILL);
    element[0]
}
