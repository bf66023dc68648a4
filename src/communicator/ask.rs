//! What a caller asks for, checked and without types: from here on, blocking and non-blocking calls,
//! Rust and C, are the same.

use std::fmt;

use crate::dtype::{Dtype, Element};
use crate::engine::{Counts, Routine, Shape, mix};
use crate::error::{Error, Result};
use crate::kernel::{Kernels, Reducer};
use crate::op::{OpKind, ReduceOp};
use crate::plan::CollectiveKind;

/// A call, but for its memory.
pub(crate) struct Ask {
    pub(super) routine: Routine,
    pub(super) root: usize,
    pub(super) dtype: Dtype,
    pub(super) reduction: Option<Reduction>,
    pub(super) vectors: Vectors,
    /// The peers of a message between two ranks: to, from.
    pub(super) peers: (Option<u32>, Option<u32>),
}

/// How a reducing call combines.
pub(super) struct Reduction {
    pub(super) op: OpKind,
    pub(super) reducer: Reducer,
}

/// How many elements there are, and where.
pub(super) enum Vectors {
    /// One vector.
    Whole(usize),
    /// One block per rank, each as long.
    Even { each: usize, only_input: Option<usize>, only_output: Option<usize> },
    /// One block per rank; where each ends.
    Uneven { ends: Vec<usize>, only_input: Option<usize>, only_output: Option<usize> },
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
    pub(super) fn shape(&self) -> Shape<'_> {
        match &self.vectors {
            Vectors::Whole(count) => Shape::Whole(*count),
            Vectors::Even { each, only_input, only_output } => {
                let counts = Counts::Even(*each);
                Shape::Ranked {
                    input: counts,
                    output: counts,
                    only_input: *only_input,
                    only_output: *only_output,
                }
            }
            Vectors::Uneven { ends, only_input, only_output } => {
                let counts = Counts::Ends(ends);
                Shape::Ranked {
                    input: counts,
                    output: counts,
                    only_input: *only_input,
                    only_output: *only_output,
                }
            }
            Vectors::Edges { input, output } => {
                let ((input, only_input), (output, only_output)) = (input.counts(), output.counts());
                Shape::Ranked { input, output, only_input, only_output }
            }
        }
    }

    /// Elements of the whole vector, as far as all ranks know it.
    pub(super) fn count(&self, size: usize) -> usize {
        match &self.vectors {
            Vectors::Whole(count) => *count,
            Vectors::Even { each, .. } => each * size,
            Vectors::Uneven { ends, .. } => ends.last().copied().unwrap_or(0),
            Vectors::Edges { .. } => 0,
        }
    }

    /// A hash of the counts, where they differ.
    pub(super) fn counts_hash(&self) -> u64 {
        match &self.vectors {
            Vectors::Uneven { ends, .. } => ends.iter().fold(1, |hash, &end| mix(hash, end as u64)),
            _ => 0,
        }
    }

    /// Whether each rank knows only its own edges.
    pub(super) fn edges(&self) -> bool {
        matches!(self.vectors, Vectors::Edges { .. })
    }

    /// The reducer, where contributions are multiplied before they are summed.
    pub(super) fn prescales(&self) -> Option<&Reducer> {
        self.reduction.as_ref().map(|by| &by.reducer).filter(|reducer| reducer.has_prescale())
    }

    #[inline(always)]
    fn collective<T: Element>(kind: CollectiveKind, root: usize, vectors: Vectors) -> Self {
        let routine = Routine::Collective(kind);
        Self { routine, root, dtype: T::DTYPE, reduction: None, vectors, peers: (None, None) }
    }

    // Inlined, as are the callers that small calls come through: a structure that is moved right after it was
    // written stalls whoever reads it.
    #[inline(always)]
    fn reducing<T: Element>(self, op: &ReduceOp<T>, place: Place) -> Result<Self> {
        let Self { routine, root, dtype, vectors, peers, .. } = self;
        let reducer = Reducer::with(place.kernels, op, place.size)?;
        let reduction = Some(Reduction { op: op.kind(), reducer });
        Ok(Self { routine, root, dtype, reduction, vectors, peers })
    }
}

/// Where a rank stands: what lengths are checked against, and what it combines with.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) rank: usize,
    pub(crate) size: usize,
    pub(crate) kernels: Kernels,
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
        Self::collective::<T>(CollectiveKind::AllReduce, 0, Vectors::Whole(input)).reducing(op, place)
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
        Self::collective::<T>(CollectiveKind::Reduce, root, Vectors::Whole(input)).reducing(op, place)
    }

    #[inline(always)]
    pub(crate) fn broadcast<T: Element>(place: Place, count: usize, root: usize) -> Result<Self> {
        check_rank("root", root, place.size)?;
        Ok(Self::collective::<T>(CollectiveKind::Broadcast, root, Vectors::Whole(count)))
    }

    pub(crate) fn barrier() -> Self {
        Self::collective::<u8>(CollectiveKind::Barrier, 0, Vectors::Whole(0))
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
        Self::collective::<T>(CollectiveKind::ReduceScatter, 0, vectors).reducing(op, place)
    }

    #[inline(always)]
    pub(crate) fn all_gather<T: Element>(place: Place, input: usize, output: usize) -> Result<Self> {
        per_rank("all_gather", "output", output, "input", input, place.size)?;
        let vectors = Vectors::Even { each: input, only_input: Some(place.rank), only_output: None };
        Ok(Self::collective::<T>(CollectiveKind::AllGather, 0, vectors))
    }

    pub(crate) fn gather<T: Element>(place: Place, input: usize, output: usize, root: usize) -> Result<Self> {
        check_rank("root", root, place.size)?;
        if place.rank == root {
            per_rank("gather", "output", output, "input", input, place.size)?;
        }
        let vectors = Vectors::Even { each: input, only_input: Some(place.rank), only_output: None };
        Ok(Self::collective::<T>(CollectiveKind::Gather, root, vectors))
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
        Ok(Self::collective::<T>(CollectiveKind::Scatter, root, vectors))
    }

    pub(crate) fn all_to_all<T: Element>(place: Place, input: usize, output: usize) -> Result<Self> {
        same_length("all_to_all", input, output)?;
        per_rank("all_to_all", "input", input, "block", input / place.size, place.size)?;
        let vectors = Vectors::Even { each: input / place.size, only_input: None, only_output: None };
        Ok(Self::collective::<T>(CollectiveKind::AllToAll, 0, vectors))
    }

    pub(crate) fn all_gather_v<T: Element>(
        place: Place,
        input: usize,
        output: usize,
        counts: &[usize],
    ) -> Result<Self> {
        let ends = ends("all_gather_v", "output", output, counts, place.size)?;
        expect("all_gather_v: input", input, counts[place.rank])?;
        let vectors = Vectors::Uneven { ends, only_input: Some(place.rank), only_output: None };
        Ok(Self::collective::<T>(CollectiveKind::AllGather, 0, vectors))
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
        let vectors = Vectors::Uneven { ends, only_input: None, only_output: Some(place.rank) };
        Self::collective::<T>(CollectiveKind::ReduceScatter, 0, vectors).reducing(op, place)
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
        Ok(Self::collective::<T>(CollectiveKind::Gather, root, Vectors::Edges { input: mine, output }))
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
        Ok(Self::collective::<T>(CollectiveKind::Scatter, root, Vectors::Edges { input, output: mine }))
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
        let vectors = Vectors::Edges { input: Known::All(sent), output: Known::All(received) };
        Ok(Self::collective::<T>(CollectiveKind::AllToAll, 0, vectors))
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
        let known = |count| Known::Mine { rank: 0, count };
        Ok(Self {
            routine: Routine::PointToPoint,
            root: 0,
            dtype: T::DTYPE,
            reduction: None,
            vectors: Vectors::Edges { input: known(sent), output: known(received) },
            peers: (to.map(|rank| rank as u32), from.map(|rank| rank as u32)),
        })
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
