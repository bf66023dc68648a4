//! Who stands where: what plans may depend on, agreed by all ranks.

/// The ranks of a communicator and the host that each lives on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topology {
    /// For each rank, the lowest rank that shares its host.
    hosts: Vec<u32>,
}

impl Topology {
    /// `size` ranks on one host.
    pub fn one_host(size: usize) -> Self {
        Self { hosts: vec![0; size] }
    }

    /// For each rank, the lowest rank that shares its host.
    pub fn new(hosts: Vec<u32>) -> Self {
        Self { hosts }
    }

    /// How many ranks there are.
    pub fn size(&self) -> usize {
        self.hosts.len()
    }

    /// The host of a rank, named by the lowest rank that lives there.
    pub fn host(&self, rank: usize) -> usize {
        self.hosts[rank] as usize
    }

    /// Whether two ranks share a host.
    pub fn together(&self, a: usize, b: usize) -> bool {
        self.hosts[a] == self.hosts[b]
    }
}

/// What it costs to move bytes between two ranks; integers, so that all ranks price alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cost {
    /// Nanoseconds from one rank's send to the other's receive of an empty message.
    pub latency_ns: u32,
    /// Bytes that cross in a microsecond once a large message flows.
    pub bytes_per_us: u32,
}

/// Tells apart the streams between one pair of ranks. Within a plan, each direction of a (peer, channel)
/// belongs to one lane.
pub type Channel = u8;
