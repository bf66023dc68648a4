//! What a machine costs.

use crate::topology::{Cost, Topology};

/// What moving, storing and reducing cost on a machine: integers that all ranks agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine<F> {
    /// Who stands where; ranks of one core take turns.
    pub topology: Topology,
    /// What it costs to move bytes from one rank to another.
    pub cost: F,
    /// What a rank's core does.
    pub core: Core,
    /// What a host has for all of its ranks.
    pub host: Host,
    /// The bytes of a message at most.
    pub slot: u32,
    /// How many messages may be on their way in one direction of a link.
    pub credit: u32,
    /// Whether links lend the sources of plain sends.
    pub lends: bool,
}

/// What a core does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// Nanoseconds to begin a step.
    pub step_ns: u32,
    /// Nanoseconds to go over from one rank to another one.
    pub switch_ns: u32,
    /// Bytes that it reads or writes in its caches in a microsecond: a copy of n bytes counts twice, a
    /// reduction of two operands three times.
    pub touch_per_us: u32,
    /// Bytes that its own cache holds. Where ranks that take turns have more than that in their vectors and
    /// messages, they drive out each other's messages.
    pub cache: u32,
}

impl Core {
    /// As measured on Zen 4, all-reduces of two ranks of 4 KiB to 4 MiB; the switch is a yield.
    pub const MEASURED: Self = Self { step_ns: 25, switch_ns: 700, touch_per_us: 140_000, cache: 1 << 20 };

    /// Picoseconds to begin a step.
    pub(super) fn ps_to_begin(&self) -> u64 {
        u64::from(self.step_ns) * 1000
    }
}

/// What the ranks of a host share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Bytes that its caches hold: with more than that in its ranks' vectors, all traffic goes to its memory.
    pub cache: u32,
    /// Bytes that its memory reads and writes in a microsecond.
    pub memory_per_us: u32,
    /// Bytes that its network sends, and that it receives, in a microsecond.
    pub network_per_us: u32,
}

impl Host {
    /// Caches and memory as measured on servers with two of them; the network nominal, 10 Gbit/s.
    pub const MEASURED: Self = Self { cache: 24 << 20, memory_per_us: 50_000, network_per_us: 1_250 };
}

impl<F: Fn(usize, usize) -> Cost> Machine<F> {
    /// Latency and bandwidth alone, alike between all ranks, which share nothing: what textbooks count. Everything else
    /// costs nothing, and links have credit for any number of messages.
    pub fn textbook(ranks: usize, cost: F) -> Self {
        Self {
            topology: Topology::one_host(ranks).sharing_memory(false),
            cost,
            core: Core { step_ns: 0, switch_ns: 0, touch_per_us: u32::MAX, cache: u32::MAX },
            host: Host { cache: u32::MAX, memory_per_us: u32::MAX, network_per_us: u32::MAX },
            slot: 1 << 16,
            credit: u32::MAX,
            lends: false,
        }
    }
}
