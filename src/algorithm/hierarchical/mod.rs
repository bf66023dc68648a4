//! Within each host first, between hosts once for each shard, then within each host again.
//!
//! Each host has a keeper for each shard of what crosses; ranks keep shards in turns where a host has fewer of them. The
//! keepers of a shard stand in a ring of hosts. 2 hosts, with 2 and 3 ranks, so 3 shards:
//!
//! ```text
//!              host 0           host 1
//!   shard 0    rank 0  ◀──ring──▶  rank 2        1. the ranks of a host give its keeper what they have of a shard
//!   shard 1    rank 1  ◀──ring──▶  rank 3        2. it crosses from host to host
//!   shard 2    rank 0  ◀──ring──▶  rank 4        3. keepers hand it to the ranks of their host
//! ```
//!
//! | collective     | time, for h hosts of m ranks each; α', β' between hosts, of whose network m links share       |
//! | -------------- | ---------------------------------------------------------------------------------------------- |
//! | all_reduce     | 2(m-1)/m N β + N γ + 2(h-1) α' + 2(h-1)/h N/m β' on each of m links of a host                  |
//! | reduce_scatter | (m-1)/m N β + N γ + (h-1) α' + (h-1)/h N/m β' on each of m links                               |
//! | all_gather     | (m-1)/m N β + (h-1) α' + (h-1)/h N/m β' on each of m links                                     |
//! | broadcast      | (m-1)/m N β + (h-1) α' + N/m β' on each of m links, over many rounds                           |
//! | reduce         | (m-1)/m N β + N γ + (h-1) α' + N/m β' on each of m links, over many rounds                     |
//!
//! So each byte crosses between hosts as often as it must, whatever the numbers of the ranks: a plain ring crosses as
//! often as neighbours in it are apart. (The three phases of NCCL's hierarchical rings and of MVAPICH's two-level
//! collectives, with all ranks of a host as leaders of a shard each, as in Horovod's "torus" and BlueConnect, Cho et
//! al. 2019.)

mod blocks;
mod chain;
mod vector;

use super::Algorithm;
use super::hosts::Hosts;
use crate::plan::{Builder, Collective, CollectiveKind};
use crate::topology::Topology;

/// See the module's page.
pub(super) struct Hierarchical;

impl Algorithm for Hierarchical {
    fn name(&self) -> &'static str {
        "hierarchical"
    }

    fn does(&self, kind: CollectiveKind) -> bool {
        use CollectiveKind::{AllGather, AllReduce, Broadcast, Reduce, ReduceScatter};
        matches!(kind, AllReduce | ReduceScatter | AllGather | Broadcast | Reduce)
    }

    fn suits(&self, topology: &Topology) -> bool {
        topology.has_hosts()
    }

    fn write(&self, collective: Collective, rank: usize, topology: &Topology) -> Builder {
        let hosts = Hosts::new(rank, topology);
        let root = collective.root as usize;
        match collective.kind {
            CollectiveKind::ReduceScatter => blocks::reduce_scatter(&hosts),
            CollectiveKind::AllGather => blocks::all_gather(&hosts),
            CollectiveKind::Broadcast => chain::broadcast(&hosts, rank, root),
            CollectiveKind::Reduce => chain::reduce(&hosts, rank, root),
            _ => vector::all_reduce(&hosts),
        }
    }
}
