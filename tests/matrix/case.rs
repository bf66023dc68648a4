//! One case of the matrix: everything that is needed to repeat it.

use std::sync::Arc;

use kolo::algorithm::{self, choose::Needs};
use kolo::config::{Config, Links};
use kolo::engine::{Counts, Extents, Shape};
use kolo::plan::Layout;
use kolo::topology::Topology;
use kolo::transport::{self, Transport, local::Hub};
use kolo::{CollectiveKind, Dtype};

use crate::patterns::Op;

/// The calls of a communicator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    AllReduce,
    AllReduceInPlace,
    ReduceScatter,
    ReduceScatterInPlace,
    ReduceScatterV,
    Reduce,
    ReduceInPlace,
    AllGather,
    AllGatherInPlace,
    AllGatherV,
    Broadcast,
    Gather,
    GatherV,
    Scatter,
    ScatterV,
    AllToAll,
    AllToAllV,
    Barrier,
    /// Each rank receives from the one before it, then sends to the next.
    Chain,
    /// Each rank sends to the one `root` further on, and receives at once.
    SendRecv,
}

impl Call {
    pub(crate) const ALL: [Self; 20] = [
        Self::AllReduce,
        Self::AllReduceInPlace,
        Self::ReduceScatter,
        Self::ReduceScatterInPlace,
        Self::ReduceScatterV,
        Self::Reduce,
        Self::ReduceInPlace,
        Self::AllGather,
        Self::AllGatherInPlace,
        Self::AllGatherV,
        Self::Broadcast,
        Self::Gather,
        Self::GatherV,
        Self::Scatter,
        Self::ScatterV,
        Self::AllToAll,
        Self::AllToAllV,
        Self::Barrier,
        Self::Chain,
        Self::SendRecv,
    ];

    /// The collective, where it is one.
    pub(crate) fn kind(self) -> Option<CollectiveKind> {
        Some(match self {
            Self::AllReduce | Self::AllReduceInPlace => CollectiveKind::AllReduce,
            Self::ReduceScatter | Self::ReduceScatterInPlace | Self::ReduceScatterV => {
                CollectiveKind::ReduceScatter
            }
            Self::Reduce | Self::ReduceInPlace => CollectiveKind::Reduce,
            Self::AllGather | Self::AllGatherInPlace | Self::AllGatherV => CollectiveKind::AllGather,
            Self::Broadcast => CollectiveKind::Broadcast,
            Self::Gather | Self::GatherV => CollectiveKind::Gather,
            Self::Scatter | Self::ScatterV => CollectiveKind::Scatter,
            Self::AllToAll | Self::AllToAllV => CollectiveKind::AllToAll,
            Self::Barrier => CollectiveKind::Barrier,
            Self::Chain | Self::SendRecv => return None,
        })
    }

    pub(crate) fn reduces(self) -> bool {
        self.kind().is_some_and(CollectiveKind::reduces)
    }

    /// Whether the ranks' blocks may differ in length.
    pub(crate) fn uneven(self) -> bool {
        matches!(
            self,
            Self::ReduceScatterV | Self::AllGatherV | Self::GatherV | Self::ScatterV | Self::AllToAllV
        )
    }

    /// Whether there is a `start_…` for it.
    pub(crate) fn starts(self) -> bool {
        !matches!(
            self,
            Self::AllReduce | Self::ReduceScatterInPlace | Self::ReduceInPlace | Self::AllGatherInPlace
        )
    }

    /// Every way to do it over a transport: those that can be named, and the chooser's.
    pub(crate) fn algorithms(self, transport: &str) -> Vec<Option<&'static str>> {
        let Some(kind) = self.kind() else { return vec![None] };
        let edge_local = matches!(self, Self::GatherV | Self::ScatterV | Self::AllToAllV);
        let needs = Needs { edge_local, no_board: !shares_memory(transport), ..Needs::default() };
        let one_host = Topology::one_host(2).with_cores(1).sharing_memory(false);
        let able = algorithm::ALL
            .iter()
            .filter(|algorithm| needs.met(**algorithm, kind) && algorithm.suits(&one_host));
        able.map(|algorithm| Some(algorithm.name())).chain([None]).collect()
    }
}

/// One call by all ranks.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub transport: &'static str,
    pub size: usize,
    pub call: Call,
    /// What is named; nothing leaves it to the chooser.
    pub algorithm: Option<&'static str>,
    pub dtype: Dtype,
    pub op: Option<Op>,
    /// Elements: of the whole vector, or of one rank's block.
    pub count: usize,
    pub root: usize,
    /// By how many elements input and output are off the allocation's start; odd: sides that a rank does not
    /// need are empty.
    pub skew: [usize; 2],
    /// Turns uneven counts.
    pub salt: usize,
    /// Whether it is started and waited for later.
    pub work: bool,
}

impl Case {
    /// Whether its algorithm keeps the order that its operator asks for.
    pub(crate) fn fits(&self) -> bool {
        let (Some(Op::Ordered), Some(name), Some(kind)) = (self.op, self.algorithm, self.call.kind()) else {
            return true;
        };
        algorithm::find(name).is_ok_and(|algorithm| algorithm.rank_order(kind))
    }

    /// How many elements rank `from` has for rank `to`; where all have as many for all, or one of the two
    /// does not matter, it does not count.
    pub(crate) fn block(&self, from: usize, to: usize) -> usize {
        if !self.call.uneven() || self.count == 0 {
            return self.count;
        }
        let from = if self.call == Call::AllToAllV { 3 * from } else { 0 };
        match (from + to + self.salt) % 5 {
            0 => self.count,
            1 => 0,
            2 => self.count / 2 + 1,
            3 => 1,
            _ => self.count - 1,
        }
    }

    /// How many elements of the whole vector, or of one block, one round moves.
    pub(crate) fn unit(&self) -> usize {
        let kind = self.call.kind().unwrap_or(CollectiveKind::AllToAll);
        let named = algorithm::find(self.algorithm.unwrap_or("direct")).expect("cases name what there is");
        let plan = named.plan(kind.at(self.root), 0, &Topology::one_host(self.size)).expect("it does it");
        let even = Counts::Even(0);
        let shape = match kind.layout() {
            Layout::Whole => Shape::Whole(0),
            Layout::Ranked => {
                Shape::Ranked { input: even, output: even, only_input: None, only_output: None }
            }
        };
        let size = self.dtype.size();
        let bank = Extents::new(&plan, shape, size, slot(self.transport), 1).bank() / size;
        if kind.layout() == Layout::Whole { bank } else { bank / plan.blocks as usize }
    }
}

/// What ranks meet by.
pub(crate) fn config(transport: &str) -> Config {
    Config { transports: Some(vec![transport.into()]), ..Config::alone() }
}

fn named(transport: &str) -> Box<dyn Transport> {
    let hub: Arc<Hub> = Hub::new();
    transport::choose(Some(&[transport.into()]), Some(&hub), &Links::default())
        .expect("a known transport")
        .remove(0)
}

/// The most bytes of a message.
fn slot(transport: &str) -> usize {
    named(transport).slot()
}

/// Whether its ranks can share memory.
fn shares_memory(transport: &str) -> bool {
    named(transport).handover().is_some()
}
