//! Starts the ranks of a job on this machine and leaves nothing of them behind.
//!
//! ```text
//!   kolo run ──┬── keeper          leads the process group that all of the job belongs to
//!              ├── rank 0          inherits the bound rendezvous socket (KOLO_LISTEN_FD)
//!              ├── rank 1
//!              └── ...
//! ```
//!
//! The rendezvous is bound before any rank exists, so no rank ever has to try twice. A rank that failed may be replaced:
//! by a newcomer with the same environment and `KOLO_JOIN=1`, which the others take in when they `grow`.

mod keeper;
mod output;
mod supervise;

use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::Stdio;

use anyhow::{Context, Result};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;
use tokio::process::{Child, Command};

pub(crate) use keeper::{COMMAND as KEEP, keep};

/// Ranks to start on this machine.
pub(crate) struct Job {
    /// What each rank runs.
    pub(crate) program: OsString,
    /// Its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// How many ranks.
    pub(crate) ranks: usize,
    /// How many ranks may be replaced, one after the other.
    pub(crate) restarts: usize,
    /// Variables that all ranks get besides those of the job.
    pub(crate) environment: Vec<(OsString, OsString)>,
    /// What becomes of their output.
    pub(crate) output: Output,
}

/// What becomes of the ranks' output.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Whole lines, each with its rank in front.
    Tagged,
    /// Whole lines as they are.
    Plain,
    /// As `Plain`, but terminals are the ranks' own, so that they can draw there; and a rank that exits
    /// with a code has itself said why.
    Ours,
}

impl Job {
    /// This very program with this very command line, as `ranks` ranks.
    pub(crate) fn ourselves(ranks: usize) -> Self {
        Self {
            program: keeper::THIS_PROGRAM.into(),
            arguments: std::env::args_os().skip(1).collect(),
            ranks,
            restarts: 0,
            environment: Vec::new(),
            output: Output::Ours,
        }
    }

    /// Starts the ranks, waits for them, and returns the exit code: 0, or that of the rank that failed first
    /// (128 + signal where a signal ended it).
    pub(crate) fn run(&self) -> Result<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.launch())
    }

    async fn launch(&self) -> Result<u8> {
        let signals = supervise::Signals::new()?;
        let keeper = keeper::Keeper::start().await.context("cannot start the keeper of the job")?;
        let (name, secret) = (hex(&random::<16>()?), hex(&random::<32>()?));
        let group = keeper.group();
        let mut rendezvous = Some(bind(&name)?);
        let start = |rank: usize| {
            let mut command = self.command(rank, &name, &secret);
            // Taken by rank 0 alone: gone before rank 1 starts.
            let socket = rendezvous.take();
            if let Some(socket) = &socket {
                fcntl_setfd(socket, FdFlags::empty())?;
                command.env("KOLO_LISTEN_FD", socket.as_raw_fd().to_string());
            }
            self.spawn(command.stdin(if rank == 0 { supervise::stdin() } else { Stdio::null() }), rank, group)
        };
        let ranks = (0..self.ranks).map(start).collect::<Result<Vec<Child>>>()?;
        // What standard input held the one before has read.
        let replace = |rank: usize| {
            let mut command = self.command(rank, &name, &secret);
            self.spawn(command.env("KOLO_JOIN", "1").stdin(Stdio::null()), rank, group)
        };
        let spares = supervise::Spares { left: self.restarts, replace: &replace };
        supervise::supervise(ranks, spares, keeper, signals, self.output).await
    }

    fn spawn(&self, command: &mut Command, rank: usize, group: Pid) -> Result<Child> {
        let started = command.process_group(group.as_raw_nonzero().get()).spawn();
        started.with_context(|| format!("cannot start rank {rank} ({})", self.program.to_string_lossy()))
    }

    fn command(&self, rank: usize, job: &str, secret: &str) -> Command {
        let stream = |terminal: bool| match self.output {
            Output::Ours if terminal => Stdio::inherit(),
            _ => Stdio::piped(),
        };
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_remove("KOLO_LISTEN_FD")
            .env_remove("KOLO_JOIN")
            .env_remove("KOLO_SECRET_FILE")
            .env("KOLO_RANK", rank.to_string())
            .env("KOLO_SIZE", self.ranks.to_string())
            .env("KOLO_LOCAL_RANK", rank.to_string())
            .env("KOLO_LOCAL_SIZE", self.ranks.to_string())
            .env("KOLO_JOB", job)
            .env("KOLO_RENDEZVOUS", format!("@{}", rendezvous(job)))
            .env("KOLO_SECRET", secret)
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .stdout(stream(io::stdout().is_terminal()))
            .stderr(stream(io::stderr().is_terminal()))
            .kill_on_drop(true);
        command
    }
}

/// The name of the socket at which the job's ranks meet: abstract, so that it dies with the job.
fn rendezvous(job: &str) -> String {
    format!("kolo-{job}")
}

fn bind(job: &str) -> Result<OwnedFd> {
    let address = SocketAddr::from_abstract_name(rendezvous(job))?;
    let listener = UnixListener::bind_addr(&address).context("cannot bind the job's rendezvous")?;
    Ok(listener.into())
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
