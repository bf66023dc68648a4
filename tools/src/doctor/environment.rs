//! What the environment says, which transports reach, and which launchers are there.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Command, Stdio};

use kolo::bootstrap::{Door, Node, Secret};
use kolo::config::{Config, Launcher, Links, VARIABLES, Way};
use kolo::topology::Cost;
use kolo::transport::{self, Reason, Transport, fabric};

use super::Fact;

pub(super) fn launcher() -> Vec<Fact> {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => return vec![Fact::found("environment", Err(error))],
    };
    let name = match config.launcher {
        Launcher::None => return vec![Fact::plain("launcher", "none: this process is one rank alone")],
        Launcher::Kolo => "kolo run, or by hand",
        Launcher::OpenMpi => "Open MPI",
        Launcher::Pmi => "MPICH, Intel MPI or another that speaks PMI",
        Launcher::Torchrun => "torchrun",
        Launcher::Slurm => "srun",
    };
    let way = match &config.way {
        Way::Alone => "nobody".to_owned(),
        Way::Star(rendezvous) => format!("at {}", rendezvous.place),
        Way::Pmi { fd } => format!("through the launcher, on descriptor {fd}"),
        Way::Newcomer => "with a job that runs, when it grows".to_owned(),
        Way::Pmix { .. } => "through the launcher's PMIx server".to_owned(),
    };
    let rank = match config.way {
        Way::Newcomer => "a newcomer is told when it joins".to_owned(),
        _ => format!("{} of {}", config.rank, config.size),
    };
    vec![Fact::plain("launcher", name), Fact::plain("rank", rank), Fact::plain("meets", way)]
}

/// What is set of kolo's variables, and which look like one but are none.
pub(super) fn settings() -> Vec<Fact> {
    let mut facts = Vec::new();
    for (name, value) in std::env::vars_os() {
        let (name, value) = (name.to_string_lossy(), value.to_string_lossy());
        if !name.starts_with("KOLO_") {
            continue;
        }
        facts.push(match VARIABLES.iter().find(|(known, _)| *known == name) {
            Some(_) if name == "KOLO_SECRET" => Fact::plain(name, "(set)"),
            Some(_) => Fact::plain(name, value),
            None => Fact::found(name, Err(format!("{value}: kolo knows no such variable"))),
        });
    }
    facts.sort_by(|a, b| a.name.cmp(&b.name));
    let unset =
        VARIABLES.iter().map(|(name, _)| *name).filter(|name| facts.iter().all(|fact| fact.name != *name));
    let unset = unset.collect::<Vec<_>>().join(" ");
    facts.push(Fact::plain("not set", unset));
    facts
}

/// Whether each transport reaches another process of this machine, or why not.
pub(super) fn transports() -> Vec<Fact> {
    let fact = |transport: &dyn Transport| {
        let priced = |Cost { latency_ns, bytes_per_us, handling }| {
            let gbps = f64::from(bytes_per_us.min(handling.bytes_per_us)) / 1e3;
            format!("reaches other processes here, priced at {latency_ns} ns and {gbps:.1} GB/s")
        };
        Fact::found(transport.name(), reach(transport, Where::Here).map(priced))
    };
    transport::all(None, &links()).iter().map(|transport| fact(&**transport)).collect()
}

/// What is said of the ways between ranks; nothing where the environment is wrong, which is told elsewhere.
fn links() -> Links {
    Config::from_env().map(|config| config.links).unwrap_or_default()
}

/// The library, and which of its providers serve.
pub(super) fn libfabric() -> Vec<Fact> {
    match fabric::survey(&links().fabric) {
        Err(why) => vec![Fact::found("library", Err(why))],
        Ok((version, providers)) => {
            let library = Fact::found("library", Ok::<_, Reason>(format!("libfabric {version}")));
            let providers = providers.into_iter().map(|(name, found)| Fact::found(name, found));
            std::iter::once(library).chain(providers).collect()
        }
    }
}

/// Where a process is, seen from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Where {
    /// On the same machine.
    Here,
    /// On another one that the same network reaches.
    Elsewhere,
}

/// What it costs a transport to reach another process, or why it does not.
pub(crate) fn reach(transport: &dyn Transport, peer: Where) -> Result<Cost, Reason> {
    let card = || -> kolo::Result<Node> {
        let door = Door::open("kolo-doctor", 0, 1, Secret::random()?)?;
        // Doors are opened to TCP where a job needs them.
        let address = match peer {
            Where::Here => Ipv4Addr::LOCALHOST,
            // One of those that are for examples.
            Where::Elsewhere => Ipv4Addr::new(192, 0, 2, 1),
        };
        Ok(Node { tcp: vec![SocketAddr::from((address, 1))], ..Node::here(&door) })
    };
    let me = card().map_err(|error| error.to_string())?;
    let mut other = Node { process: me.process.map(|byte| !byte), ..me.clone() };
    if peer == Where::Elsewhere {
        other.boot = me.boot.map(|byte| !byte);
    }
    transport.reach(&me, &other)
}

/// Launchers that can be used besides `kolo run`.
pub(super) fn installed() -> Vec<Fact> {
    [("mpirun", true), ("mpiexec.hydra", true), ("srun", true), ("torchrun", false)]
        .into_iter()
        .filter_map(|(name, ask)| {
            let path = which::which(name).ok()?;
            let version = if ask { version(&path) } else { None };
            let version = version.map_or(String::new(), |version| format!(" ({version})"));
            Some(Fact::plain(name, format!("{}{version}", path.display())))
        })
        .chain(std::iter::once(Fact::plain("kolo run", "always")))
        .collect()
}

/// The first line that says something of what `PROGRAM --version` prints.
fn version(program: &std::path::Path) -> Option<String> {
    let output =
        Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let worth = |line: &&str| line.chars().any(|c| c.is_ascii_digit());
    text.lines().find(worth).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
}
