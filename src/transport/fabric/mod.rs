//! Ranks that libfabric connects: over RDMA where there is some, else over what its providers have.
//!
//! A process has one endpoint, which takes tagged messages and keeps their order. A link is a pair of tags, one at either
//! end, drawn at random, so that no stranger guesses it and no message of another link, communicator or job matches.
//!
//! ```text
//! short message   head, payload       │ to the next place of the reader's ring
//! long message    head                │ the same
//!                 payload             │ a message of its own: to where its reader wants it, else to a buffer
//! between them    head                │ as the first
//!                 pieces of payload   │ messages of their own: likewise
//! ```
//!
//! Ends meet through the peer's door. The stream there stays open: it tells what became of the peer, and how many of its
//! messages are to be believed. So nobody takes a message for whole whose sender failed and had its memory back before it
//! was read.
//!
//! Progress is manual: nothing moves unless somebody of the process looks. Calls look until all that they sent has left.

mod endpoint;
mod head;
mod incoming;
mod ladder;
mod lane;
mod link;
mod operation;
mod outgoing;
mod peer;
#[cfg(any(test, fuzzing))]
pub(crate) mod probes;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

pub use endpoint::Endpoint;
pub use link::link_over;
pub use peer::Stream;

use super::{Link, Meeting, Reason, Transport};
use crate::bootstrap::{self, Node};
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::sys::fabric::{Fault, Port};
use crate::topology::{Cost, Handling};

/// The most payload bytes of a message.
const SLOT: usize = 1 << 20;
/// The most payload bytes that go with their head: copying them twice costs as much as another message.
const EAGER: usize = (16 << 10) - PAYLOAD;
/// Where the payload begins in a place, on a cache line; the head stands right before it.
const PAYLOAD: usize = 64;
/// From one place to the next: some lines more than a place has, so that their heads do not push each other out of the
/// first cache.
const STRIDE: usize = PAYLOAD + EAGER + 3 * PAYLOAD;
/// The bytes of a piece, where a payload goes in several that are injected, and of how many it is at most.
const PIECE: usize = 4 << 10;
const PIECES: usize = EAGER.div_ceil(PIECE);
/// How many messages may be on their way in one direction.
const WINDOW: usize = 8;
/// How many always may: a peer that was told of half a window's releases is told of the next ones with the next half.
const CREDIT: usize = WINDOW / 2;
/// How many may wait in this process, or be the library's, which may tell late that one is gone.
const PLACES: usize = 2 * WINDOW;
/// The places of a ring: those, and some for what is no message.
const RING: usize = WINDOW + 4;

/// The library's calls, and copies into and out of buffers: nominal, as over TCP.
const HANDLING: Handling = Handling { ns: 1_600, bytes_per_us: 14_000 };
/// Within a host: nobody carries anything but the cores.
const WITHIN: Cost = Cost { latency_ns: 2_000, bytes_per_us: u32::MAX, handling: HANDLING };
/// Between hosts; nominal, until the job has timed it: 100 Gbit/s.
const BETWEEN: Cost = Cost { latency_ns: 2_000, bytes_per_us: 12_500, handling: Handling::NONE };

/// Providers that do in hardware what no socket does: what is taken before TCP between hosts, unasked.
const RDMA: [&str; 7] = ["verbs", "efa", "cxi", "psm2", "psm3", "opx", "ucx"];
/// Where the kernel shows such hardware. Where it shows none, libfabric is not even loaded, unless it is asked for:
/// looking at all of its providers takes nearly half a second.
const DEVICES: [&str; 3] = ["/sys/class/infiniband", "/sys/class/cxi", "/sys/class/hfi1"];

/// Connects ranks by libfabric.
#[derive(Debug, Default)]
pub struct Fabric {
    settings: config::Fabric,
    /// Whether nothing may cross a network that is not encrypted, as libfabric's data is not.
    encrypt: bool,
    /// Whether it was asked for by its name.
    named: bool,
    opened: OnceLock<Result<Arc<Endpoint>, Reason>>,
}

impl Fabric {
    /// As the configuration says; `named` where it was asked for, so that any provider serves.
    pub fn new(links: config::Links, named: bool) -> Self {
        let config::Links { encrypt, fabric } = links;
        Self { settings: fabric, encrypt, named, opened: OnceLock::new() }
    }

    /// Why this rank has none, or what its card would say.
    fn why(&self) -> Reason {
        match self.opened.get() {
            Some(Err(why)) => why.clone(),
            _ => "libfabric was not asked for (-t fabric), and there is no RDMA device".to_owned(),
        }
    }
}

impl Transport for Fabric {
    fn name(&self) -> &'static str {
        "fabric"
    }

    fn reach(&self, me: &Node, peer: &Node) -> Result<Cost, Reason> {
        if self.encrypt && (beyond(&me.tcp) || beyond(&peer.tcp)) {
            let why = "its data is not encrypted (KOLO_ENCRYPT=1): it serves where all ranks share a host";
            return Err(why.to_owned());
        }
        if me.fabric.is_empty() {
            return Err(self.why());
        }
        if peer.fabric != me.fabric {
            let theirs = if peer.fabric.is_empty() { "none" } else { &peer.fabric };
            return Err(format!("one has {}, the other {theirs}", me.fabric));
        }
        let base = ladder::base(me.fabric.split(' ').next().unwrap_or_default());
        if !self.named && !RDMA.contains(&base) {
            return Err(format!(
                "{} is nothing that TCP does not do: name it to have it (-t fabric)",
                me.fabric
            ));
        }
        if me.tcp.is_empty() || peer.tcp.is_empty() {
            return Err("no TCP door was opened, through which the ends would meet".into());
        }
        let together = me.shares_loopback(peer);
        match base {
            "shm" if !together => Err("it is on another host, which shm does not reach".into()),
            // Its endpoints of one process touch each other's memory after one is closed.
            "shm" if me.process == peer.process => Err("libfabric's shm does not connect threads".into()),
            "shm" if me.user != peer.user => {
                Err(format!("one runs as user {}, the other as {}", me.user, peer.user))
            }
            _ => Ok(if together { WITHIN } else { BETWEEN }),
        }
    }

    fn slot(&self) -> usize {
        SLOT
    }

    fn tcp_doors(&self) -> bootstrap::Tcp {
        bootstrap::Tcp::BetweenHosts
    }

    fn available(&self) -> Result<(), Reason> {
        ladder::climb(&self.settings, None).map(drop)
    }

    fn offer(&self, doors: &[SocketAddr]) -> String {
        if self.encrypt && beyond(doors) {
            return String::new();
        }
        if !self.named
            && !DEVICES
                .iter()
                .any(|path| std::fs::read_dir(path).is_ok_and(|mut found| found.next().is_some()))
        {
            return String::new();
        }
        let source = doors.first().map(|door| door.ip().to_string());
        let opened = self.opened.get_or_init(|| Endpoint::open(&self.settings, source.as_deref()));
        opened.as_ref().map_or_else(|_| String::new(), |endpoint| endpoint.name.clone())
    }

    fn connect(&self, meeting: &Meeting<'_>) -> Result<Box<dyn Link>> {
        let Some(Ok(endpoint)) = self.opened.get() else { return Err(Error::new(Kind::System, self.why())) };
        let stream = match endpoint.wakes() {
            true => Stream::Tcp(meeting.door.tcp(meeting)?),
            false => Stream::Unix(meeting.door.unix(meeting)?),
        };
        link_over(endpoint, stream, meeting.bell, meeting.deadline)
    }
}

/// Whether doors are open to other hosts, as they are unless all ranks share one.
fn beyond(doors: &[SocketAddr]) -> bool {
    doors.iter().any(|door| !door.ip().is_loopback())
}

/// Providers by name, with what each would be on, or why it does not serve.
pub type Providers = Vec<(String, Result<String, Reason>)>;

/// What `kolo doctor` tells: the library's version, and its providers.
///
/// # Errors
/// Why there is no library.
pub fn survey(settings: &config::Fabric) -> Result<(String, Providers), Reason> {
    let library = ladder::load(settings)?;
    Ok((library.version(), ladder::survey(&library)?))
}

/// The library did not do what it was asked.
#[cold]
fn refused(port: &Port, doing: &str, fault: Fault) -> Error {
    Error::system(format!("libfabric, {doing}"), port.library().text(fault))
}
