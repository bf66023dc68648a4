//! One endpoint for all links of a process.
//!
//! Whoever waits on any of them has the library go on with all of them ([`State::progress`]): what was begun tells by its
//! context whose it is. The threads that have links take turns under one lock; who sleeps is rung.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ladder;
use super::lane::{Lane, Tags};
use super::operation::Operations;
use super::refused;
use crate::config;
use crate::error::{Error, Kind, Result};
use crate::memory::Ringer;
use crate::sys::fabric::Port;
use crate::sys::os;
use crate::transport::{Reason, Watch};

/// How long a process that ends waits for what was sent last.
const LINGER: Duration = Duration::from_secs(1);
/// How often a sleeper looks up where completions wake nobody.
const NAP: Duration = Duration::from_millis(1);
/// How often the library is asked to get ready for a sleep.
const TRIES: usize = 8;

/// See the module.
pub struct Endpoint {
    state: Mutex<State>,
    /// The provider and its version, as cards name them.
    pub(super) name: String,
    pub(super) address: Vec<u8>,
    /// The bits of tags that the provider looks at.
    tags: u64,
    /// Of how many stretches a message may be made.
    pub(super) stretches: usize,
    /// Whether completions wake sleepers; where they do not, peers ring bells.
    wakes: bool,
    /// Never stirs: watched by who only waits for its bell, or its nap's end.
    quiet: OwnedFd,
}

/// What is under the lock. The port is closed first: then nobody reads or writes what lanes have.
pub(super) struct State {
    port: Option<Port>,
    /// How many bytes at most are injected.
    injects: usize,
    lanes: Vec<Option<Box<Lane>>>,
    /// What messages to an address are sent to.
    peers: HashMap<Vec<u8>, u64>,
    /// Why the port was closed.
    closed: Option<Error>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Endpoint {
    /// Opens an endpoint as the configuration says; at `source`, an address of this host, if the provider can.
    ///
    /// # Errors
    /// Why there is none: no library, no such provider, or what each attempt met.
    pub fn open(settings: &config::Fabric, source: Option<&str>) -> Result<Arc<Self>, Reason> {
        let (info, port) = ladder::climb(settings, source)?;
        let text = |fault| port.library().text(fault);
        let address =
            port.address().map_err(|fault| format!("the endpoint has no address: {}", text(fault)))?;
        let quiet = os::eventfd().map_err(|cause| format!("no eventfd: {cause}"))?;
        Ok(Arc::new(Self {
            name: format!("{} of libfabric {}", info.provider(), port.library().version()),
            address,
            tags: u64::MAX >> (u64::BITS - info.tag_bits()),
            stretches: info.stretches(),
            wakes: port.has_descriptor(),
            quiet,
            state: Mutex::new(State {
                port: Some(port),
                injects: if ladder::fills_peers_memory(&info.provider()) { info.injects() } else { 0 },
                lanes: Vec::new(),
                peers: HashMap::new(),
                closed: None,
            }),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tags that stand for this number: that of heads, and that of the payloads which follow them.
    pub(super) fn tags(&self, number: u64) -> Tags {
        Tags { heads: number << 1 & self.tags, bodies: (number << 1 | 1) & self.tags }
    }

    /// Whether completions wake sleepers.
    pub(super) fn wakes(&self) -> bool {
        self.wakes
    }

    /// What wakes who waits for any link of this endpoint.
    pub(super) fn watch(&self, id: u32) -> Watch {
        let mut state = self.lock();
        state.place_all();
        let (port, lane) = state.lane_and_port(id);
        // Who is about to sleep has time for that.
        lane.listen();
        if let Some(port) = port {
            lane.pump(port);
        }
        let unsent = !lane.outgoing.is_empty();
        match state.descriptor(id) {
            Some(fd) => Watch { fd, write: false, unsent, within: None },
            None => Watch { fd: self.quiet.as_raw_fd(), write: false, unsent, within: Some(NAP) },
        }
    }
}

impl State {
    /// Makes a lane for messages that bear these tags.
    pub(super) fn attach(&mut self, tags: Tags, ringer: Ringer) -> Result<u32> {
        let port = self.port.as_ref().ok_or_else(|| closed(self.closed.as_ref()))?;
        let free = self.lanes.iter().position(Option::is_none);
        let id = free.unwrap_or(self.lanes.len());
        let lane = Some(Box::new(Lane::new(port, id as u32, tags, self.injects, ringer)?));
        match free {
            Some(free) => self.lanes[free] = lane,
            None => self.lanes.push(lane),
        }
        Ok(id as u32)
    }

    /// Where to send messages to that address.
    pub(super) fn endpoint_at(&mut self, address: Vec<u8>) -> Result<u64> {
        let Self { port, peers, closed: why, .. } = self;
        let port = port.as_ref().ok_or_else(|| closed(why.as_ref()))?;
        if let Some(known) = peers.get(&address) {
            return Ok(*known);
        }
        let endpoint =
            port.insert(&address).map_err(|fault| refused(port, "looking its address up", fault))?;
        peers.insert(address, endpoint);
        Ok(endpoint)
    }

    /// The port and a lane.
    #[inline]
    pub(super) fn lane(&mut self, id: u32) -> Result<(&Port, &mut Lane)> {
        let Self { port, lanes, closed: why, .. } = self;
        let lane = lanes[id as usize].as_mut().expect("a link's lane is there as long as the link");
        match port {
            Some(port) => Ok((port, lane)),
            None => Err(closed(why.as_ref())),
        }
    }

    /// The lane, whether or not there is a port.
    pub(super) fn lane_and_port(&mut self, id: u32) -> (Option<&Port>, &mut Lane) {
        let Self { port, lanes, .. } = self;
        (port.as_ref(), lanes[id as usize].as_mut().expect("a link's lane is there as long as the link"))
    }

    /// Has the library go on, and tells lanes what came of what they began.
    #[inline]
    pub(super) fn progress(&mut self) -> usize {
        let Self { port, lanes, .. } = self;
        let Some(port) = port else { return 0 };
        let progressed = port.progress(|completion| {
            // SAFETY: contexts are those of lanes, which stay until all their operations are complete.
            let (id, part) = unsafe { Operations::of(completion.context) };
            if let Some(lane) = &mut lanes[id as usize] {
                lane.complete(port, part, &completion);
                if lane.is_over() {
                    lanes[id as usize] = None;
                }
            }
        });
        match progressed {
            Ok(count) => count,
            Err(fault) => {
                let error = refused(port, "reading the completion queue", fault);
                self.close(error);
                0
            }
        }
    }

    /// Hands the library what it did not take before.
    pub(super) fn pump(&mut self) {
        let Self { port: Some(port), lanes, .. } = self else { return };
        lanes.iter_mut().flatten().for_each(|lane| lane.pump(port));
    }

    /// Lets all payloads come that nobody has asked for: while one waits, others may not pass it.
    fn place_all(&mut self) {
        let Self { port: Some(port), lanes, .. } = self else { return };
        lanes.iter_mut().flatten().for_each(|lane| lane.place(true, port));
    }

    /// What the provider makes readable when something completes, if it can now.
    fn descriptor(&mut self, id: u32) -> Option<RawFd> {
        for _ in 0..TRIES {
            let (port, _) = self.lane(id).ok()?;
            if !port.has_descriptor() {
                return None;
            }
            if let Some(fd) = port.descriptor() {
                return Some(fd);
            }
            self.progress();
        }
        None
    }

    /// Closes the port, after which nobody reads or writes anything of this process.
    pub(super) fn close(&mut self, why: Error) {
        self.closed.get_or_insert(why);
        self.port = None;
        for lane in &mut self.lanes {
            if let Some(open) = lane {
                open.forget();
                if open.is_over() {
                    *lane = None;
                }
            }
        }
    }

    /// Whether the library has let go of the memory of a link's callers; where it does not in good time, it is made to.
    pub(super) fn let_go(&mut self, id: u32) -> bool {
        let (_, lane) = self.lane_and_port(id);
        if lane.holds_memory() && !lane.is_overdue() {
            return false;
        }
        if lane.holds_memory() {
            self.close(Error::system(
                "libfabric's endpoint was closed",
                "a peer did not let go of memory in time",
            ));
        }
        true
    }

    /// Nobody has this link any more.
    pub(super) fn detach(&mut self, id: u32) {
        let (port, lane) = self.lane_and_port(id);
        match port {
            Some(port) => lane.close(port),
            None => lane.closing = true,
        }
        if lane.is_over() {
            self.lanes[id as usize] = None;
        }
    }
}

impl Drop for Endpoint {
    /// What was sent last is to go out, and the library is to have given back what links had.
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let begun = Instant::now();
        while state.port.is_some() && state.lanes.iter().any(Option::is_some) && begun.elapsed() < LINGER {
            state.pump();
            if state.progress() == 0 {
                std::thread::yield_now();
            }
        }
        state.port = None;
    }
}

#[cold]
fn closed(why: Option<&Error>) -> Error {
    why.cloned().unwrap_or_else(|| Error::new(Kind::System, "libfabric's endpoint is closed"))
}
