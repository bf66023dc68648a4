//! What the communicators of one rank share: where the others are, and how to reach them.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::Communicator;
use super::choice::Settings;
use super::core::Group;
use super::cores::Cores;
use super::gauge::{GAUGE, Gauge};
use super::progress::Progress;
use crate::bootstrap::{self, Bootstrap, Door, Doorway, Roster, Secret};
use crate::config::{Config, Way};
use crate::engine::{Patience, Port, Vigil, mix};
use crate::error::{Error, Kind, Result};
use crate::health::{Deadline, Scribe, Stage, Standing, Standings};
use crate::memory::{Allocations, Bell, Region};
use crate::plan::{Core, Host, Machine};
use crate::sys::os;
use crate::topology::{Cost, Handling, Topology};
use crate::transport::local::Hub;
use crate::transport::{self, HANDOVER, Link, Meeting, Transport};

/// What the number of all ranks' communicator is made of, once the job has grown.
const GROWN: u64 = u64::from_be_bytes(*b"kolo/gro");

/// What crossing between two ranks of a communicator costs.
pub(super) type Costs = Box<dyn Fn(usize, usize) -> Cost>;

/// What a rank without company cuts its rounds by.
const LONELY_SLOT: usize = 128 << 10;

/// Beyond so many bytes of all inputs and outputs of a host's ranks writing outputs past the caches wins: on Zen 4
/// and 5, twice what their 32 MiB hold. With 2 ranks it costs a tenth at just that size, with 8 it may gain
/// one.
const OVERFLOW: usize = 64 << 20;

/// See the module.
pub(super) struct Context {
    /// This rank, as the job numbers it.
    me: usize,
    /// How often the job had grown when these ranks met.
    generation: u32,
    /// What this rank's user said.
    config: Config,
    roster: Arc<Roster>,
    door: Arc<Door>,
    /// Where this rank stands on its communicators, for others who ask.
    standings: Arc<Standings>,
    /// In the order of preference.
    transports: Vec<Box<dyn Transport>>,
    patience: Patience,
    /// Who stands where in the job.
    topology: Topology,
    /// The core that this rank counts to there, as the kernel numbers it, unless it is bound to one.
    home: Option<usize>,
    /// The most payload bytes of a message over any transport that two ranks use.
    slot: usize,
    /// What the network between the hosts can do.
    gauge: Gauge,
    /// What ranks of this host have allocated together, whatever the communicator.
    allocations: Arc<Allocations>,
    progress: OnceLock<Progress>,
}

impl Context {
    /// Meets the other ranks and learns where they are.
    fn join(
        bootstrap: &mut dyn Bootstrap,
        config: &Config,
        transports: Vec<Box<dyn Transport>>,
    ) -> Result<Self> {
        let (me, size) = (bootstrap.rank(), bootstrap.size());
        compare_settings(bootstrap, config)?;
        let secret = Secret::agree(bootstrap, config.secret.as_ref())?;
        let mut door = Door::open(&config.job, me, size, secret)?;
        door.open_window();
        let tcp = transport::tcp_doors(&transports);
        let doorway = Doorway {
            ports: &config.ports,
            interfaces: config.interfaces.as_ref(),
            encrypt: config.links.encrypt,
        };
        // One transport has something to say.
        let offer =
            |doors: &[SocketAddr]| transports.iter().map(|transport| transport.offer(doors)).collect();
        let mut roster = Roster::gather(bootstrap, &mut door, tcp, doorway, offer)?;
        if !takes_rails(&roster, &transports) {
            roster.rails = 1;
        }
        // A process of one thread joins at once; later the kernel waits 10 ms for all cores.
        let _ = os::join_barriers();
        let folder = config.record.clone();
        let scribe = Scribe { rank: me as u32, size: size as u32, job: config.job.clone(), folder };
        let standings = Arc::new(Standings::new(scribe));
        door.attend(Arc::clone(&standings))?;
        let here = roster.hosts.iter().filter(|host| **host == roster.hosts[me]).count();
        let cores = Cores::gather(bootstrap)?;
        let patience = Patience::for_host(here, cores.of_host(&roster.hosts, roster.hosts[me]));
        let shares_memory = shares_memory(&roster, &transports);
        let topology = cores.topology(&roster.hosts).sharing_memory(shares_memory);
        let home = cores.home(&topology, me);
        let slot = smallest_slot(&roster, &transports);
        let (gauge, allocations, progress) = (Gauge::default(), Arc::default(), OnceLock::new());
        let context = Self {
            me,
            generation: bootstrap.generation(),
            config: config.clone(),
            roster: Arc::new(roster),
            door: Arc::new(door),
            standings,
            transports,
            patience,
            topology,
            home,
            slot,
            gauge,
            allocations,
            progress,
        };
        let gauge = context.measure(bootstrap, Deadline::after(config.deadline))?;
        Ok(Self { gauge, ..context })
    }

    /// Measures the network between the hosts, if there are several.
    fn measure(&self, bootstrap: &mut dyn Bootstrap, deadline: Deadline) -> Result<Gauge> {
        if self.roster.hosts.iter().all(|host| *host == 0) {
            return Ok(Gauge::default());
        }
        let all = self.everybody();
        Gauge::measure(bootstrap, &self.roster.hosts, deadline, |peer, bell| {
            self.link(&all, Port { peer: peer as u32, channel: GAUGE }, bell, deadline)
        })
    }

    /// All ranks, as their communicator numbers them.
    fn everybody(&self) -> Group {
        let id = if self.generation == 0 { 0 } else { mix(GROWN, u64::from(self.generation)) };
        Group::all(id, self.me, &self.topology)
    }

    /// How often the job had grown when these ranks met.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// What this rank's user said.
    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Opens a link of a communicator.
    pub(super) fn link(
        &self,
        group: &Group,
        port: Port,
        bell: &Arc<Bell>,
        deadline: Deadline,
    ) -> Result<Box<dyn Link>> {
        let meeting = self.meeting(group, port, bell, deadline);
        let transport = self.transport(meeting.peer)?;
        transport.connect(&meeting).map_err(|error| error.with(port.peer as usize))
    }

    /// Memory of `len` zero bytes that all ranks of a communicator see. All of them call it; the first one
    /// makes it.
    pub(super) fn share(
        &self,
        group: &Group,
        len: usize,
        bell: &Arc<Bell>,
        deadline: Deadline,
    ) -> Result<Region> {
        let made = (group.rank == 0).then(|| Region::create("kolo-board", len));
        self.hand_round(group, made, len, bell, deadline)
    }

    /// Gives all ranks of a communicator the memory of `len` bytes that its first one has `made`, or tells them
    /// that there is none.
    pub(super) fn hand_round(
        &self,
        group: &Group,
        made: Option<Result<(Region, OwnedFd)>>,
        len: usize,
        bell: &Arc<Bell>,
        deadline: Deadline,
    ) -> Result<Region> {
        let with = |rank: u32| {
            let port = Port { peer: rank, channel: HANDOVER };
            let meeting = self.meeting(group, port, bell, deadline);
            let blame = move |error: Error| error.with(rank as usize);
            match self.transport(meeting.peer).map(|transport| transport.handover()) {
                Ok(Some(handover)) => Ok((meeting, handover, blame)),
                Ok(None) => Err(blame(Error::new(Kind::System, "no memory can be shared with it"))),
                Err(error) => Err(blame(error)),
            }
        };
        let Some(made) = made else {
            let (meeting, handover, blame) = with(0)?;
            let taken = handover.take(&meeting).and_then(|fd| Region::open(fd.as_fd(), len));
            return taken.map_err(blame);
        };
        let give = |rank| {
            let (meeting, handover, blame) = with(rank)?;
            handover.give(&meeting, made.as_ref().ok().map(|(_, fd)| fd.as_fd())).map_err(blame)
        };
        // All hear of it, whatever became of the memory or of the rank before them.
        let given = (1..group.members.len() as u32).map(give).fold(Ok(()), Result::and);
        made.and_then(|(region, _)| given.map(|()| region))
    }

    fn meeting<'a>(
        &'a self,
        group: &Group,
        port: Port,
        bell: &'a Arc<Bell>,
        deadline: Deadline,
    ) -> Meeting<'a> {
        let peer = group.members[port.peer as usize] as usize;
        Meeting {
            me: self.me,
            peer,
            communicator: group.id,
            origin: group.origin,
            channel: port.channel,
            node: &self.roster.nodes[peer],
            door: &self.door,
            bell,
            allocations: &self.allocations,
            deadline,
            keepalive: self.config.keepalive,
        }
    }

    /// How far a rank of the job is in agreeing on who is left of a communicator.
    pub(super) fn stage_of(&self, rank: u32, communicator: u64, allowed: Duration) -> Result<Stage> {
        self.door.stage(rank as usize, &self.roster.nodes[rank as usize], communicator, allowed)
    }

    /// Another agreement in which this rank takes part with these, which others may ask about as long as it lives.
    pub(super) fn enter(&self, number: u64, members: &[u32]) -> Arc<Standing> {
        self.standings.enter(number, members.into())
    }

    /// Why a rank of the job will not call on a communicator any more, if so.
    pub(super) fn has_left(&self, rank: u32, communicator: u64) -> Result<Option<&'static str>> {
        let id = (communicator, communicator);
        self.door.has_left(rank as usize, &self.roster.nodes[rank as usize], id)
    }

    /// Whether a rank that has been silent for so long counts as lost: not one whose process can be seen.
    pub(super) fn is_lost(&self, rank: u32, silent: Duration) -> bool {
        let hidden = self.roster.nodes[rank as usize].state().is_none();
        hidden && self.config.keepalive.is_some_and(|keepalive| silent >= keepalive)
    }

    /// Watches over a communicator's calls that wait for long.
    pub(super) fn vigil(&self, group: &Group) -> Vigil {
        let shared = (self.standings.clone(), self.door.clone(), self.roster.clone());
        Vigil::new(group.id, (group.members.as_slice().into(), group.rank), shared.0, shared.1, shared.2)
    }

    /// What ranks of this host have allocated together.
    pub(super) fn allocations(&self) -> &Allocations {
        &self.allocations
    }

    /// Whether the links between some ranks of this host lend what they have allocated together.
    pub(super) fn shares_allocations(&self, members: &[u32]) -> bool {
        let Some((&first, others)) = members.split_first() else { return false };
        let first = &self.roster.nodes[first as usize];
        // All ranks ask about the same pairs, so that they agree.
        let shares = |rank: &u32| {
            let node = &self.roster.nodes[*rank as usize];
            let transport = self.transports.iter().find(|transport| transport.reach(first, node).is_ok());
            transport.is_some_and(|transport| transport.shares_allocations())
        };
        !others.is_empty() && others.iter().all(shares)
    }

    fn transport(&self, peer: usize) -> Result<&dyn Transport> {
        let (me, peer) = (&self.roster.nodes[self.me], &self.roster.nodes[peer]);
        let mut reasons = Vec::new();
        for transport in &self.transports {
            match transport.reach(me, peer) {
                Ok(_) => return Ok(&**transport),
                Err(reason) => reasons.push(format!("{}: {reason}", transport.name())),
            }
        }
        Err(Error::new(Kind::System, format!("no transport reaches it ({})", reasons.join("; "))))
    }

    /// What the pricer must know of a communicator's machine: nothing but what all ranks agree on.
    pub(super) fn machine(self: &Arc<Self>, group: &Group) -> Machine<Costs> {
        let (context, members) = (self.clone(), group.members.clone());
        let cost = move |a: usize, b: usize| context.cost(members[a] as usize, members[b] as usize);
        Machine {
            topology: group.topology.clone(),
            cost: Box::new(cost),
            core: Core::MEASURED,
            host: Host { network_per_us: self.network_per_us(&group.topology), ..Host::MEASURED },
            slot: self.slot() as u32,
            credit: 4,
            lends: false,
        }
    }

    fn cost(&self, a: usize, b: usize) -> Cost {
        let Roster { nodes, hosts, rails } = &*self.roster;
        let reached = self.transports.iter().find_map(|transport| transport.reach(&nodes[a], &nodes[b]).ok());
        let mut cost =
            reached.unwrap_or(Cost { latency_ns: u32::MAX, bytes_per_us: 1, handling: Handling::NONE });
        if hosts[a] != hosts[b] {
            cost = self.gauge.cost(cost, hosts[a], hosts[b]);
            // Two ranks have a stream on each rail.
            cost.bytes_per_us = cost.bytes_per_us.saturating_mul(*rails as u32);
        }
        cost
    }

    fn network_per_us(&self, topology: &Topology) -> u32 {
        let one = self.gauge.fastest().unwrap_or(Host::MEASURED.network_per_us);
        one.saturating_mul(self.rails(topology) as u32)
    }

    /// How many networks join the hosts of a communicator's ranks.
    pub(super) fn rails(&self, topology: &Topology) -> usize {
        let one_host = (1..topology.size()).all(|rank| topology.together(0, rank));
        if one_host { 1 } else { self.roster.rails }
    }

    /// The most payload bytes of a message; the same on all ranks.
    pub(super) fn slot(&self) -> usize {
        self.slot
    }

    /// The core that this rank counts to, as the kernel numbers it, unless it is bound to one.
    pub(super) fn home(&self) -> Option<usize> {
        self.home
    }

    /// The most bytes of a call's vectors that are not too many for the caches, which the host's ranks share.
    pub(super) fn overflow(&self) -> usize {
        let hosts = &self.roster.hosts;
        let here = hosts.iter().filter(|host| **host == hosts[self.me]).count();
        OVERFLOW / here
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

/// What connects each host's first rank with every other rank. What connects two ranks depends on their hosts, so it is
/// enough to ask about those.
fn used<'a>(
    roster: &'a Roster,
    transports: &'a [Box<dyn Transport>],
) -> impl Iterator<Item = (usize, usize, &'a dyn Transport)> {
    let Roster { nodes, hosts, .. } = roster;
    let leaders = (0..nodes.len()).filter(|&rank| hosts[rank] as usize == rank);
    leaders.flat_map(move |leader| {
        let with = move |rank: usize| {
            let by = transports.iter().find(|by| by.reach(&nodes[leader], &nodes[rank]).is_ok())?;
            Some((leader, rank, &**by))
        };
        (0..nodes.len()).filter(move |&rank| rank != leader).filter_map(with)
    })
}

/// The smallest slot of the transports that some two ranks use.
fn smallest_slot(roster: &Roster, transports: &[Box<dyn Transport>]) -> usize {
    used(roster, transports).map(|(.., by)| by.slot()).min().unwrap_or(LONELY_SLOT)
}

/// Whether what connects hosts can be on several networks.
fn takes_rails(roster: &Roster, transports: &[Box<dyn Transport>]) -> bool {
    let apart = |a: usize, b: usize| roster.hosts[a] != roster.hosts[b];
    used(roster, transports).all(|(a, b, by)| by.takes_rails() || !apart(a, b))
}

/// Whether all ranks of a host can share memory. What connects two ranks depends on their hosts, so it is
/// enough to ask about each rank and the first one of its host.
fn shares_memory(roster: &Roster, transports: &[Box<dyn Transport>]) -> bool {
    let Roster { nodes, hosts, .. } = roster;
    hosts.iter().enumerate().filter(|(rank, host)| *rank != **host as usize).all(|(rank, &host)| {
        let first = &nodes[host as usize];
        let transport = transports.iter().find(|transport| transport.reach(first, &nodes[rank]).is_ok());
        transport.is_some_and(|transport| transport.handover().is_some())
    })
}

/// What a rank's environment says must not differ from what the others' says: plans are chosen by it, and who encrypts
/// reads nothing of who does not.
fn compare_settings(bootstrap: &mut dyn Bootstrap, config: &Config) -> Result<()> {
    let transports = config.transports.as_ref().map_or("all".into(), |names| names.join(","));
    let algorithms = config.algorithms.iter().map(|(kind, name)| match kind {
        Some(kind) => format!("{kind}={name}"),
        None => name.clone(),
    });
    let algorithms = algorithms.collect::<Vec<_>>().join(",");
    let mine = format!(
        "KOLO_TRANSPORT={transports} KOLO_ALGORITHM={algorithms} KOLO_DETERMINISTIC={} KOLO_ENCRYPT={}",
        u8::from(config.deterministic),
        u8::from(config.links.encrypt)
    );
    let all = bootstrap.all_gather(mine.as_bytes())?;
    match all.iter().position(|theirs| theirs != mine.as_bytes()) {
        None => Ok(()),
        Some(other) => Err(Error::new(
            Kind::Mismatch,
            format!(
                "settings differ: this rank has {mine}, rank {other} has {}; give all ranks the same",
                String::from_utf8_lossy(&all[other])
            ),
        )),
    }
}

impl Communicator {
    /// All ranks of the job that a launcher started, as the environment says: `kolo run`, mpirun, mpiexec,
    /// srun, torchrun, or variables set by hand. Without any of them, one rank.
    ///
    /// With `KOLO_JOIN=1` this process is a newcomer: it waits until the job [grows](Self::grow), and is one of its ranks
    /// then. [`generation`](Self::generation) tells it.
    ///
    /// # Errors
    /// `Usage` names a variable with a value that cannot be, `Deadline` the ranks that did not come,
    /// `Refused` says why a rank was not let in, `System` what the operating system refused.
    pub fn from_env() -> Result<Self> {
        Self::join(&Config::from_env()?)
    }

    /// The same, as a configuration says.
    pub fn join(config: &Config) -> Result<Self> {
        let deadline = Deadline::after(config.deadline);
        loop {
            let joined = bootstrap::join(config, deadline)
                .and_then(|mut bootstrap| Self::meet(&mut *bootstrap, config, deadline));
            match joined {
                // The job is as it was, without those whom it missed, and may grow once more.
                Err(error) if config.way == Way::Newcomer && may_pass(&error) && !deadline.passed() => {}
                joined => return joined.inspect(|joined| confess(&format!("rank {}", joined.rank()))),
            }
        }
    }

    /// All ranks that have met.
    pub(super) fn meet(bootstrap: &mut dyn Bootstrap, config: &Config, deadline: Deadline) -> Result<Self> {
        let rank = bootstrap.rank();
        let transports = transport::choose(config.transports.as_deref(), None, &config.links)?;
        let met = Self::over(bootstrap, config, transports);
        let all = met.and_then(|met| met.all_or_none(&deadline).map(|()| met));
        all.map_err(|error| error.at(rank))
    }

    /// A job of `size` ranks that are threads of this process: hand one to each thread.
    pub fn local(size: usize) -> Result<Vec<Self>> {
        Self::threads(size, &Config { transports: Some(vec!["local".into()]), ..Config::alone() })
    }

    /// A job of `size` threads, over the transports that a configuration says.
    pub fn threads(size: usize, config: &Config) -> Result<Vec<Self>> {
        if size == 0 {
            return Err(Error::usage("a communicator has at least one rank"));
        }
        let hub = Hub::new();
        let join = |mut bootstrap: bootstrap::Local| {
            let transports = transport::choose(config.transports.as_deref(), Some(&hub), &config.links)?;
            Self::over(&mut bootstrap, config, transports)
        };
        // Ranks meet at once, so each needs a thread of its own.
        std::thread::scope(|scope| {
            let ranks = bootstrap::Local::all(size, Deadline::after(config.deadline)).into_iter();
            let ranks: Vec<_> = ranks.map(|rank| scope.spawn(|| join(rank))).collect();
            ranks
                .into_iter()
                .map(|rank| rank.join().expect("joining does not panic"))
                .collect::<Result<Vec<_>>>()
        })
        .inspect(|_| confess("every rank of this process"))
    }

    fn over(
        bootstrap: &mut dyn Bootstrap,
        config: &Config,
        transports: Vec<Box<dyn Transport>>,
    ) -> Result<Self> {
        let context = Context::join(bootstrap, config, transports)?;
        let group = context.everybody();
        Self::new(Arc::new(context), group, Settings::of(config)?)
    }
}

/// Says on stderr what these ranks do without, at the price of speed: once, since a process joins a job once.
fn confess(who: &str) {
    if let Err(cause) = os::join_barriers() {
        let why = Error::system("membarrier", cause);
        // Where it cannot be said, it is so all the same.
        let _ =
            writeln!(io::stderr(), "kolo: {who} sleeps 1 ms at a time instead of until it is woken: {why}");
    }
}

/// Whether it failed because of others, so that a newcomer may come again.
fn may_pass(error: &Error) -> bool {
    matches!(error.kind(), Kind::PeerLost | Kind::Deadline)
}
