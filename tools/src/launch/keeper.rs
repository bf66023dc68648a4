//! The process that leads a job's process group, and takes the group with it when the launcher dies.
//!
//! Ranks enter the keeper's group before they run a line of their own, and their children are born into
//! it. The keeper holds the reading end of a pipe whose only writer is the launcher. However the launcher
//! ends, `kill -9` included, the pipe closes, and the keeper kills its own group, itself included. A rank
//! that is being started at that moment cannot enter the dead group, so its start fails.

use std::io::{self, Read, Write};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_current_process_group, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

/// The program that is running, even if its file has been replaced since.
pub(super) const THIS_PROGRAM: &str = "/proc/self/exe";

/// The hidden command that runs [`keep`].
pub(crate) const COMMAND: &str = "__keep";

/// The launcher's handle of the keeper. To drop it is to close the pipe: the job dies.
pub(super) struct Keeper {
    group: Pid,
    process: Child,
}

impl Keeper {
    /// Starts the keeper, and returns once signals to its group cannot end it any more.
    pub(super) async fn start() -> Result<Self> {
        let mut process = Command::new(THIS_PROGRAM)
            .arg0("kolo")
            .arg(COMMAND)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let id = process.id().context("it has gone")?;
        let group = i32::try_from(id).ok().and_then(Pid::from_raw).context("it has no id")?;
        let mut ready = [0];
        let read = process.stdout.take().context("it has no output")?.read(&mut ready).await?;
        ensure!(read == 1, "it ended early");
        Ok(Self { group, process })
    }

    /// The process group of the job.
    pub(super) fn group(&self) -> Pid {
        self.group
    }

    /// Sends a signal to every process of the job.
    pub(super) fn signal(&self, signal: Signal) {
        // The keeper leads the group and is not reaped, so the group's number is still ours.
        let _ = kill_process_group(self.group, signal);
    }

    /// Kills whatever is left of the job, and the keeper.
    pub(super) async fn end(mut self) {
        self.signal(Signal::KILL);
        let _ = self.process.wait().await;
    }
}

/// What the keeper runs: outlives every signal that can be outlived, and the launcher for a moment.
pub(crate) fn keep() -> Result<u8> {
    use tokio::signal::unix::{SignalKind, signal};

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    // Once a signal was listened to, its default action never comes back.
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        drop(signal(kind)?);
    }
    io::stdout().write_all(b"\n")?;
    io::stdout().flush()?;
    io::stdin().read_to_end(&mut Vec::new())?;
    kill_current_process_group(Signal::KILL)?;
    Ok(0)
}
