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
    /// Bytes copied in a microsecond.
    pub copy_per_us: u32,
    /// Bytes of a further operand combined in a microsecond.
    pub reduce_per_us: u32,
}

impl Core {
    /// As measured on a Zen 4 server with everything in cache; the switch is a `sched_yield`.
    pub const MEASURED: Self =
        Self { step_ns: 20, switch_ns: 1300, copy_per_us: 45_000, reduce_per_us: 45_000 };

    /// Picoseconds to begin a step.
    pub(super) fn ps_to_begin(&self) -> u64 {
        u64::from(self.step_ns) * 1000
    }
}

/// What the ranks of a host share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Host {
    /// Bytes that its memory reads and writes in a microsecond.
    pub memory_per_us: u32,
    /// Bytes that its network sends, and that it receives, in a microsecond.
    pub network_per_us: u32,
}

impl Host {
    /// The memory as measured on a Zen 4 server with two of them, the network nominal.
    pub const MEASURED: Self = Self { memory_per_us: 50_000, network_per_us: 10_000 };
}

impl<F: Fn(usize, usize) -> Cost> Machine<F> {
    /// Latency and bandwidth alone, alike between all ranks: what textbooks count. Everything else
    /// costs nothing, and links have credit for any number of messages.
    pub fn textbook(ranks: usize, cost: F) -> Self {
        Self {
            topology: Topology::one_host(ranks),
            cost,
            core: Core { step_ns: 0, switch_ns: 0, copy_per_us: u32::MAX, reduce_per_us: u32::MAX },
            host: Host { memory_per_us: u32::MAX, network_per_us: u32::MAX },
            slot: 1 << 16,
            credit: u32::MAX,
            lends: false,
        }
    }
}
