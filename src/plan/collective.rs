//! What each collective means in blocks.
//!
//! Blocks have the same number on every rank. Where a collective moves one vector (all-reduce,
//! broadcast, reduce), block b is the b-th part of it, and a plan chooses how many parts there are.
//! Where it moves one contribution per rank, block b is that of rank b, or for it:
//!
//! | collective     | input blocks of rank r | output blocks of rank r           |
//! | -------------- | ---------------------- | --------------------------------- |
//! | all_reduce     | all parts              | all parts, summed                 |
//! | reduce         | all parts              | root: all parts, summed           |
//! | broadcast      | root: all parts        | all parts                         |
//! | reduce_scatter | 0..n, block b for b    | r, summed                         |
//! | all_gather     | r                      | 0..n                              |
//! | gather         | r                      | root: 0..n                        |
//! | scatter        | root: 0..n             | r                                 |
//! | all_to_all     | 0..n, block b for b    | 0..n, block b from b              |
//! | barrier        | one empty part         | the same                          |
//!
//! In place, input block b and output block b are the same memory (all_to_all is never in place).

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A collective, with its root where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Collective {
    /// Which one.
    pub kind: CollectiveKind,
    /// The rank at which it begins or ends; 0 where there is no root.
    pub root: u32,
}

/// The collectives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum CollectiveKind {
    /// Every rank gets the reduction of all inputs.
    AllReduce,
    /// Rank r gets block r of the reduction.
    ReduceScatter,
    /// Every rank gets every rank's input.
    AllGather,
    /// Every rank gets the root's input.
    Broadcast,
    /// The root gets the reduction of all inputs.
    Reduce,
    /// The root gets every rank's input.
    Gather,
    /// Rank r gets block r of the root's input.
    Scatter,
    /// Rank r gets block r of every rank's input.
    AllToAll,
    /// Nobody leaves before all have come.
    Barrier,
}

/// How blocks lie in a user's vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// One vector, cut into as many parts as the plan wants.
    Whole,
    /// One block per rank, each with a count of its own.
    Ranked,
}

impl CollectiveKind {
    /// Every collective.
    pub const ALL: [Self; 9] = [
        Self::AllReduce,
        Self::ReduceScatter,
        Self::AllGather,
        Self::Broadcast,
        Self::Reduce,
        Self::Gather,
        Self::Scatter,
        Self::AllToAll,
        Self::Barrier,
    ];

    /// The name that calls, the command line and errors use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AllReduce => "all_reduce",
            Self::ReduceScatter => "reduce_scatter",
            Self::AllGather => "all_gather",
            Self::Broadcast => "broadcast",
            Self::Reduce => "reduce",
            Self::Gather => "gather",
            Self::Scatter => "scatter",
            Self::AllToAll => "all_to_all",
            Self::Barrier => "barrier",
        }
    }

    /// How its blocks lie in the user's vectors.
    pub const fn layout(self) -> Layout {
        match self {
            Self::AllReduce | Self::Broadcast | Self::Reduce | Self::Barrier => Layout::Whole,
            Self::ReduceScatter | Self::AllGather | Self::Gather | Self::Scatter | Self::AllToAll => {
                Layout::Ranked
            }
        }
    }

    /// Whether it combines elements, and so takes an operator.
    pub const fn reduces(self) -> bool {
        matches!(self, Self::AllReduce | Self::ReduceScatter | Self::Reduce)
    }

    /// Whether it has a root.
    pub const fn rooted(self) -> bool {
        matches!(self, Self::Broadcast | Self::Reduce | Self::Gather | Self::Scatter)
    }

    /// This collective with the given root, which counts only where there is one.
    pub const fn at(self, root: usize) -> Collective {
        Collective { kind: self, root: if self.rooted() { root as u32 } else { 0 } }
    }
}

impl Collective {
    /// Whether rank `rank` has input block `block`.
    pub fn has_input(self, rank: usize, block: usize) -> bool {
        match self.kind {
            CollectiveKind::AllGather | CollectiveKind::Gather => block == rank,
            CollectiveKind::Broadcast | CollectiveKind::Scatter => rank == self.root as usize,
            _ => true,
        }
    }

    /// Whether rank `rank` has output block `block`.
    pub fn has_output(self, rank: usize, block: usize) -> bool {
        match self.kind {
            CollectiveKind::ReduceScatter | CollectiveKind::Scatter => block == rank,
            CollectiveKind::Reduce | CollectiveKind::Gather => rank == self.root as usize,
            _ => true,
        }
    }
}

impl fmt::Display for CollectiveKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for CollectiveKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            Error::usage(format!("unknown collective `{name}`; known are {known}"))
        })
    }
}
