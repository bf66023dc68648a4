//! What a caller asks for, checked and without types: from here on, blocking and non-blocking calls,
//! Rust and C, are the same.

use std::fmt;

use crate::dtype::{Dtype, Element};
use crate::engine::{Counts, Routine, Shape, mix};
use crate::error::{Error, Result};
use crate::kernel::{self, Reducer};
use crate::op::{OpKind, ReduceOp};
use crate::plan::CollectiveKind;

/// A call, but for its memory.
///
/// Small, with all that is rare behind a pointer: small calls hand it on while it is being written.
pub(crate) struct Ask {
    pub(super) errand: Errand,
    pub(super) vectors: Vectors,
    pub(super) own: Own,
}

/// What an errand does not say of how a call combines.
pub(super) enum Own {
    /// It says all.
    Nothing,
    /// What contributions are multiplied by before they are summed: the first bytes, as an element.
    Factor([u8; 8]),
    /// The caller's operator.
    Operator(Box<Reducer>),
}

/// What calls must have in common to walk the same way: all of a call but its memory, its number, and an
/// operator's parameters.
#[derive(Clone, Copy, Debug, Eq)]
pub(crate) struct Errand {
    /// Elements of the whole vector, as far as all ranks know it.
    pub(super) count: usize,
    /// A hash of the counts, where they differ.
    pub(super) counts: u64,
    pub(super) root: u32,
    pub(super) routine: Routine,
    pub(super) dtype: Dtype,
    pub(super) op: Option<OpKind>,
    pub(super) commutes: bool,
    /// Whether each rank knows only its own edges.
    pub(super) edges: bool,
    /// The peers of a message between two ranks: to, from.
    pub(super) peers: (Option<u32>, Option<u32>),
    /// How many elements this rank's input and output have, where only it knows.
    pub(super) lengths: (usize, usize),
}

impl PartialEq for Errand {
    // Every call is compared with the one before: without a branch for each field.
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        (self.count == other.count)
            & (self.counts == other.counts)
            & (self.root == other.root)
            & (self.routine.code() == other.routine.code())
            & (self.dtype as u8 == other.dtype as u8)
            & (self.op == other.op)
            & (self.commutes == other.commutes)
            & (self.edges == other.edges)
            & (self.peers == other.peers)
            & (self.lengths == other.lengths)
    }
}

impl Errand {
    /// Its place among so many: hardly ever that of another errand of the same program.
    pub(super) fn place(&self, places: usize) -> usize {
        let Self { count, counts, root, routine, dtype, op, peers, lengths, .. } = *self;
        let codes = [routine.code(), dtype as u8, op.map_or(u8::MAX, |op| op as u8), root as u8];
        let [to, from] = [peers.0, peers.1].map(|peer| peer.unwrap_or(u32::MAX));
        let kind = u64::from(u32::from_le_bytes(codes)) << 32 | u64::from(to ^ from.rotate_left(16));
        let lengths = lengths.0 as u64 ^ (lengths.1 as u64).rotate_left(32);
        let hash = mix(mix(count as u64 ^ counts, kind), lengths);
        hash as usize % places
    }
}

/// How many elements there are, and where.
pub(super) enum Vectors {
    /// One vector.
    Whole(usize),
    /// One block per rank, each as long.
    Even { each: usize, only_input: Option<usize>, only_output: Option<usize> },
    /// A message each way between two ranks.
    Messages { sent: usize, received: usize },
    /// Blocks that differ.
    Ragged(Box<Ragged>),
}

/// Blocks that differ.
pub(super) enum Ragged {
    /// One block per rank; where each ends.
    Ends { ends: Vec<usize>, only_input: Option<usize>, only_output: Option<usize> },
    /// What this rank knows of its own edges.
    Edges { input: Known, output: Known },
}

/// One side of a call of which each rank knows only its own edges.
pub(super) enum Known {
    /// The one block that this rank has, and how long it is.
    Mine { rank: usize, count: usize },
    /// All blocks; where each ends.
    All(Vec<usize>),
}

impl Known {
    fn counts(&self) -> (Counts<'_>, Option<usize>) {
        match self {
            Self::Mine { rank, count } => (Counts::Even(*count), Some(*rank)),
            Self::All(ends) => (Counts::Ends(ends), None),
        }
    }
}

impl Ask {
    /// The vectors' shape, for the engine.
    #[inline(always)]
    pub(super) fn shape(&self) -> Shape<'_> {
        match &self.vectors {
            Vectors::Whole(count) => Shape::Whole(*count),
            Vectors::Even { each, only_input, only_output } => {
                ranked(Counts::Even(*each), *only_input, *only_output)
            }
            Vectors::Messages { sent, received } => {
                let (input, output) = (Counts::Even(*sent), Counts::Even(*received));
                Shape::Ranked { input, output, only_input: Some(0), only_output: Some(0) }
            }
            Vectors::Ragged(ragged) => ragged.shape(),
        }
    }

    // Inlined, as are the callers that small calls come through, and never changed once it is made: a structure
    // that is read in other pieces than it was just written in stalls whoever reads it until the stores before are
    // done, and a message to a peer may be among these.
    #[inline(always)]
    fn collective<T: Element>(
        kind: CollectiveKind,
        size: usize,
        root: usize,
        vectors: Vectors,
        Combining { op, commutes, own }: Combining,
    ) -> Self {
        let (count, counts, edges) = match &vectors {
            Vectors::Whole(count) => (*count, 0, false),
            Vectors::Even { each, .. } => (each * size, 0, false),
            Vectors::Messages { .. } => (0, 0, true),
            Vectors::Ragged(ragged) => ragged.agreed(),
        };
        let lengths = match &vectors {
            Vectors::Ragged(ragged) => ragged.lengths(),
            _ => (0, 0),
        };
        let errand = Errand {
            count,
            counts,
            root: root as u32,
            routine: Routine::Collective(kind),
            dtype: T::DTYPE,
            op,
            commutes,
            edges,
            peers: (None, None),
            lengths,
        };
        Self { errand, vectors, own }
    }
}

/// How a call combines.
struct Combining {
    op: Option<OpKind>,
    commutes: bool,
    own: Own,
}

impl Combining {
    /// Not at all.
    const NOT: Self = Self { op: None, commutes: true, own: Own::Nothing };

    #[inline(always)]
    fn of<T: Element>(op: &ReduceOp<T>, size: usize) -> Result<Self> {
        let kind = op.kind();
        if !kind.combines(T::DTYPE) {
            return Err(kernel::not_for(T::DTYPE, kind));
        }
        match kind {
            OpKind::PreMul | OpKind::User => Self::with_parameters(op, size),
            _ => Ok(Self { op: Some(kind), commutes: true, own: Own::Nothing }),
        }
    }

    #[inline(never)]
    fn with_parameters<T: Element>(op: &ReduceOp<T>, size: usize) -> Result<Self> {
        let (commutes, own) = match op {
            ReduceOp::PreMul(factor) => (true, Own::Factor(kernel::factor(*factor))),
            _ => {
                let reducer = Reducer::new(op, size)?;
                (reducer.commutes(), Own::Operator(Box::new(reducer)))
            }
        };
        Ok(Self { op: Some(op.kind()), commutes, own })
    }
}

fn ranked(both: Counts<'_>, only_input: Option<usize>, only_output: Option<usize>) -> Shape<'_> {
    Shape::Ranked { input: both, output: both, only_input, only_output }
}

impl Ragged {
    fn boxed(self) -> Vectors {
        Vectors::Ragged(Box::new(self))
    }

    fn shape(&self) -> Shape<'_> {
        match self {
            Self::Ends { ends, only_input, only_output } => {
                ranked(Counts::Ends(ends), *only_input, *only_output)
            }
            Self::Edges { input, output } => {
                let ((input, only_input), (output, only_output)) = (input.counts(), output.counts());
                Shape::Ranked { input, output, only_input, only_output }
            }
        }
    }

    /// How long the one block on each side is, where this rank knows no other.
    fn lengths(&self) -> (usize, usize) {
        let length = |known: &Known| if let Known::Mine { count, .. } = known { *count } else { 0 };
        match self {
            Self::Ends { .. } => (0, 0),
            Self::Edges { input, output } => (length(input), length(output)),
        }
    }

    /// What all ranks know of it: the elements, a hash of the counts; and whether that is not all.
    fn agreed(&self) -> (usize, u64, bool) {
        match self {
            Self::Ends { ends, .. } => {
                let hash = ends.iter().fold(1, |hash, &end| mix(hash, end as u64));
                (ends.last().copied().unwrap_or(0), hash, false)
            }
            Self::Edges { .. } => (0, 0, true),
        }
    }
}

/// Where a rank stands: what lengths are checked against.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) rank: usize,
    pub(crate) size: usize,
}

/// Lengths are in elements. Each constructor checks what one rank alone can check.
impl Ask {
    #[inline(always)]
    pub(crate) fn all_reduce<T: Element>(
        place: Place,
        input: usize,
        output: usize,
        op: &ReduceOp<T>,
    ) -> Result<Self> {
        same_length("all_reduce", input, output)?;
        let how = Combining::of(op, place.size)?;
        Ok(Self::collective::<T>(CollectiveKind::AllReduce, place.size, 0, Vectors::Whole(input), how))
    }

    pub(crate) fn reduce<T: Element>(
        place: Place,
        input: usize,
        output: usize,
        op: &ReduceOp<T>,
        root: usize,
    ) -> Result<Self> {
        check_rank("root", root, place.size)?;
        if place.rank == root {
            same_length("reduce", input, output)?;
        }
        let how = Combining::of(op, place.size)?;
        Ok(Self::collective::<T>(CollectiveKind::Reduce, place.size, root, Vectors::Whole(input), how))
    }

    #[inline(always)]
    pub(crate) fn broadcast<T: Element>(place: Place, count: usize, root: usize) -> Result<Self> {
        check_rank("root", root, place.size)?;
        Ok(Self::collective::<T>(
            CollectiveKind::Broadcast,
            place.size,
            root,
            Vectors::Whole(count),
            Combining::NOT,
        ))
    }

    pub(crate) fn barrier() -> Self {
        Self::collective::<u8>(CollectiveKind::Barrier, 1, 0, Vectors::Whole(0), Combining::NOT)
    }

    #[inline(always)]
    pub(crate) fn reduce_scatter<T: Element>(
        place: Place,
        input: usize,
        output: usize,
        op: &ReduceOp<T>,
    ) -> Result<Self> {
        per_rank("reduce_scatter", "input", input, "output", output, place.size)?;
        let vectors = Vectors::Even { each: output, only_input: None, only_output: Some(place.rank) };
        let how = Combining::of(op, place.size)?;
        Ok(Self::collective::<T>(CollectiveKind::ReduceScatter, place.size, 0, vectors, how))
    }

    #[inline(always)]
    pub(crate) fn all_gather<T: Element>(place: Place, input: usize, output: usize) -> Result<Self> {
        per_rank("all_gather", "output", output, "input", input, place.size)?;
        let vectors = Vectors::Even { each: input, only_input: Some(place.rank), only_output: None };
        Ok(Self::collective::<T>(CollectiveKind::AllGather, place.size, 0, vectors, Combining::NOT))
    }

    pub(crate) fn gather<T: Element>(place: Place, input: usize, output: usize, root: usize) -> Result<Self> {
        check_rank("root", root, place.size)?;
        if place.rank == root {
            per_rank("gather", "output", output, "input", input, place.size)?;
        }
        let vectors = Vectors::Even { each: input, only_input: Some(place.rank), only_output: None };
        Ok(Self::collective::<T>(CollectiveKind::Gather, place.size, root, vectors, Combining::NOT))
    }

    pub(crate) fn scatter<T: Element>(
        place: Place,
        input: usize,
        output: usize,
        root: usize,
    ) -> Result<Self> {
        check_rank("root", root, place.size)?;
        if place.rank == root {
            per_rank("scatter", "input", input, "output", output, place.size)?;
        }
        let vectors = Vectors::Even { each: output, only_input: None, only_output: Some(place.rank) };
        Ok(Self::collective::<T>(CollectiveKind::Scatter, place.size, root, vectors, Combining::NOT))
    }

    pub(crate) fn all_to_all<T: Element>(place: Place, input: usize, output: usize) -> Result<Self> {
        same_length("all_to_all", input, output)?;
        per_rank("all_to_all", "input", input, "block", input / place.size, place.size)?;
        let vectors = Vectors::Even { each: input / place.size, only_input: None, only_output: None };
        Ok(Self::collective::<T>(CollectiveKind::AllToAll, place.size, 0, vectors, Combining::NOT))
    }

    pub(crate) fn all_gather_v<T: Element>(
        place: Place,
        input: usize,
        output: usize,
        counts: &[usize],
    ) -> Result<Self> {
        let ends = ends("all_gather_v", "output", output, counts, place.size)?;
        expect("all_gather_v: input", input, counts[place.rank])?;
        let vectors = Ragged::Ends { ends, only_input: Some(place.rank), only_output: None }.boxed();
        Ok(Self::collective::<T>(CollectiveKind::AllGather, place.size, 0, vectors, Combining::NOT))
    }

    pub(crate) fn reduce_scatter_v<T: Element>(
        place: Place,
        input: usize,
        output: usize,
        counts: &[usize],
        op: &ReduceOp<T>,
    ) -> Result<Self> {
        let ends = ends("reduce_scatter_v", "input", input, counts, place.size)?;
        expect("reduce_scatter_v: output", output, counts[place.rank])?;
        let vectors = Ragged::Ends { ends, only_input: None, only_output: Some(place.rank) }.boxed();
        let how = Combining::of(op, place.size)?;
        Ok(Self::collective::<T>(CollectiveKind::ReduceScatter, place.size, 0, vectors, how))
    }

    /// `counts` at the root only.
    pub(crate) fn gather_v<T: Element>(
        place: Place,
        input: usize,
        output: usize,
        counts: &[usize],
        root: usize,
    ) -> Result<Self> {
        check_rank("root", root, place.size)?;
        let mine = Known::Mine { rank: place.rank, count: input };
        let output = match place.rank == root {
            true => {
                let ends = ends("gather_v", "output", output, counts, place.size)?;
                expect("gather_v: the root's own input", input, counts[root])?;
                Known::All(ends)
            }
            false => Known::Mine { rank: place.rank, count: 0 },
        };
        Ok(Self::collective::<T>(
            CollectiveKind::Gather,
            place.size,
            root,
            Ragged::Edges { input: mine, output }.boxed(),
            Combining::NOT,
        ))
    }

    /// `counts` at the root only.
    pub(crate) fn scatter_v<T: Element>(
        place: Place,
        input: usize,
        counts: &[usize],
        output: usize,
        root: usize,
    ) -> Result<Self> {
        check_rank("root", root, place.size)?;
        let mine = Known::Mine { rank: place.rank, count: output };
        let input = match place.rank == root {
            true => {
                let ends = ends("scatter_v", "input", input, counts, place.size)?;
                expect("scatter_v: the root's own output", output, counts[root])?;
                Known::All(ends)
            }
            false => Known::Mine { rank: place.rank, count: 0 },
        };
        Ok(Self::collective::<T>(
            CollectiveKind::Scatter,
            place.size,
            root,
            Ragged::Edges { input, output: mine }.boxed(),
            Combining::NOT,
        ))
    }

    pub(crate) fn all_to_all_v<T: Element>(
        place: Place,
        input: usize,
        send_counts: &[usize],
        output: usize,
        recv_counts: &[usize],
    ) -> Result<Self> {
        let sent = ends("all_to_all_v", "input", input, send_counts, place.size)?;
        let received = ends("all_to_all_v", "output", output, recv_counts, place.size)?;
        let (to_self, from_self) = (send_counts[place.rank], recv_counts[place.rank]);
        expect("all_to_all_v: what this rank receives from itself", from_self, to_self)?;
        let vectors = Ragged::Edges { input: Known::All(sent), output: Known::All(received) }.boxed();
        Ok(Self::collective::<T>(CollectiveKind::AllToAll, place.size, 0, vectors, Combining::NOT))
    }

    /// A message to one rank, from one rank, or both at once; lengths are 0 where there is none.
    pub(crate) fn message<T: Element>(
        place: Place,
        to: Option<usize>,
        sent: usize,
        from: Option<usize>,
        received: usize,
    ) -> Result<Self> {
        for (what, peer) in [("destination", to), ("source", from)] {
            if let Some(peer) = peer {
                check_rank(what, peer, place.size)?;
            }
        }
        if (to == Some(place.rank)) != (from == Some(place.rank)) {
            return Err(Error::usage(format!(
                "rank {} sends to or receives from itself alone; only send_recv can do both at once",
                place.rank
            )));
        }
        if to == Some(place.rank) {
            same_length("send_recv with itself", sent, received)?;
        }
        let errand = Errand {
            count: 0,
            counts: 0,
            root: 0,
            routine: Routine::PointToPoint,
            dtype: T::DTYPE,
            op: None,
            commutes: true,
            edges: true,
            peers: (to.map(|rank| rank as u32), from.map(|rank| rank as u32)),
            lengths: (sent, received),
        };
        Ok(Self { errand, vectors: Vectors::Messages { sent, received }, own: Own::Nothing })
    }
}

#[inline]
fn same_length(call: &str, input: usize, output: usize) -> Result<()> {
    match input == output {
        true => Ok(()),
        false => Err(wrong_length(format_args!("{call}: output"), output, input)),
    }
}

fn expect(what: impl fmt::Display, found: usize, expected: usize) -> Result<()> {
    match found == expected {
        true => Ok(()),
        false => Err(wrong_length(what, found, expected)),
    }
}

#[cold]
fn wrong_length(what: impl fmt::Display, found: usize, expected: usize) -> Error {
    Error::usage(format!("{what} has {found} elements; it must have {expected}"))
}

/// The long side of a call must have one block of the short side's length per rank.
fn per_rank(call: &str, long: &str, len: usize, short: &str, each: usize, size: usize) -> Result<()> {
    if each.checked_mul(size) == Some(len) {
        return Ok(());
    }
    Err(Error::usage(format!(
        "{call}: {long} has {len} elements; with {size} ranks and {each} elements per {short} it must have {}",
        each as u128 * size as u128
    )))
}

/// Where each block ends.
fn ends(call: &str, side: &str, len: usize, counts: &[usize], size: usize) -> Result<Vec<usize>> {
    expect(format_args!("{call}: the vector of counts"), counts.len(), size)?;
    let mut end = 0usize;
    let mut ends = Vec::with_capacity(size);
    for &count in counts {
        end = end
            .checked_add(count)
            .ok_or_else(|| Error::usage(format!("{call}: the counts' sum does not fit 64 bits")))?;
        ends.push(end);
    }
    expect(format_args!("{call}: {side}"), len, end)?;
    Ok(ends)
}

fn check_rank(what: &str, rank: usize, size: usize) -> Result<()> {
    match rank < size {
        true => Ok(()),
        false => Err(Error::usage(format!(
            "{what} {rank} is not a rank: this communicator has ranks 0 to {}",
            size - 1
        ))),
    }
}
