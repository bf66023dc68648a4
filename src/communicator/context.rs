//! What the communicators of one rank share: where the others are, and how to reach them.

use std::sync::{Arc, OnceLock};

use super::Communicator;
use super::choice::Settings;
use super::core::Group;
use super::progress::Progress;
use crate::bootstrap::{Door, Node, Secret};
use crate::engine::{Patience, Port};
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;
use crate::memory::Bell;
use crate::topology::{Cost, Topology};
use crate::transport::local::{Hub, Local};
use crate::transport::{Link, Meeting, Transport};

/// See the module.
pub(super) struct Context {
    /// This rank, as the job numbers it.
    me: usize,
    /// What each rank told about itself.
    nodes: Vec<Node>,
    door: Door,
    /// In the order of preference.
    transports: Vec<Box<dyn Transport>>,
    patience: Patience,
    progress: OnceLock<Progress>,
}

impl Context {
    /// Opens a link of a communicator.
    pub(super) fn link(
        &self,
        group: &Group,
        port: Port,
        bell: &Arc<Bell>,
        deadline: Deadline,
    ) -> Result<Box<dyn Link>> {
        let peer = group.members[port.peer as usize] as usize;
        let transport = self.transport(peer)?;
        let meeting = Meeting {
            me: self.me,
            peer,
            communicator: group.id,
            channel: port.channel,
            node: &self.nodes[peer],
            door: &self.door,
            bell,
            deadline,
        };
        transport.connect(&meeting).map_err(|error| error.with(port.peer as usize))
    }

    fn transport(&self, peer: usize) -> Result<&dyn Transport> {
        let (me, peer) = (&self.nodes[self.me], &self.nodes[peer]);
        let mut reasons = Vec::new();
        for transport in &self.transports {
            match transport.reach(me, peer) {
                Ok(_) => return Ok(&**transport),
                Err(reason) => reasons.push(format!("{}: {reason}", transport.name())),
            }
        }
        Err(Error::new(Kind::System, format!("no transport reaches it ({})", reasons.join("; "))))
    }

    /// What crossing between two ranks of the job costs.
    pub(super) fn cost(&self, a: usize, b: usize) -> Cost {
        let reached = self.transports.iter().find_map(|by| by.reach(&self.nodes[a], &self.nodes[b]).ok());
        reached.unwrap_or(Cost { latency_ns: u32::MAX, bytes_per_us: 1 })
    }

    /// The most payload bytes of a message; the same on all ranks.
    pub(super) fn slot(&self) -> usize {
        self.transports.iter().map(|transport| transport.slot()).min().unwrap_or(1 << 16)
    }

    /// How long to try before sleeping.
    pub(super) fn patience(&self) -> Patience {
        self.patience
    }

    /// The thread that runs works; started by the first.
    pub(super) fn progress(&self) -> Result<&Progress> {
        if let Some(progress) = self.progress.get() {
            return Ok(progress);
        }
        let started = Progress::start()?;
        Ok(self.progress.get_or_init(|| started))
    }
}

/// Cores that this process may use.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| cores.get())
}

impl Communicator {
    /// A job of `size` ranks that are threads of this process: hand one to each thread.
    pub fn local(size: usize) -> Result<Vec<Self>> {
        if size == 0 {
            return Err(Error::usage("a communicator has at least one rank"));
        }
        let hub = Hub::new();
        let secret = Secret::random()?;
        let open = |rank| Door::open("threads", rank, size, secret.clone());
        let doors = (0..size).map(open).collect::<Result<Vec<_>>>()?;
        let nodes: Vec<Node> = doors.iter().map(Node::here).collect();
        let rank = |(rank, door)| {
            let context = Context {
                me: rank,
                nodes: nodes.clone(),
                door,
                transports: vec![Box::new(Local::new(hub.clone()))],
                patience: Patience::for_host(size, cores()),
                progress: OnceLock::new(),
            };
            let members = (0..size as u32).collect();
            let group = Group { id: 0, rank, members, topology: Topology::one_host(size) };
            Self::new(Arc::new(context), group, Settings::default())
        };
        doors.into_iter().enumerate().map(rank).collect()
    }
}
