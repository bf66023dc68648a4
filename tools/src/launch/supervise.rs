//! Watches the ranks: forwards signals, and when one fails replaces it or stops the rest.

use std::future::poll_fn;
use std::io::{self, IsTerminal};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::task::Poll;
use std::time::Duration;

use anyhow::{Result, anyhow};
use kolo::health::{Cgroup, Killed};
use rustix::process::{Signal, getpgrp};
use rustix::termios::tcgetpgrp;
use tokio::process::{Child, ChildStdin};
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::Output;
use super::keeper::Keeper;
use super::output::{Printer, Stream};

/// How long ranks that were asked to end may take before they are killed.
const GRACE: Duration = Duration::from_secs(2);

/// How long the last words of a rank are waited for once it has ended. (They come at once, unless
/// a child of the rank holds the pipe.)
const LAST_WORDS: Duration = Duration::from_millis(200);

/// How long the other ranks may take to fail on their own account, so that the right one is blamed.
const SETTLE: Duration = Duration::from_millis(100);

/// The signals that are passed on to the ranks: those that were not ignored already, as under nohup.
pub(super) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        let ignored = ignored()?;
        let heard = [Signal::INT, Signal::TERM, Signal::HUP].into_iter();
        let heard = heard.filter(|signal| ignored & 1 << (signal.as_raw() - 1) == 0);
        let listen = |signal: Signal| Ok((signal, unix::signal(SignalKind::from_raw(signal.as_raw()))?));
        heard.map(listen).collect::<io::Result<_>>().map(Self)
    }

    async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let came = self
                .0
                .iter_mut()
                .find_map(|(signal, stream)| stream.poll_recv(context).is_ready().then_some(*signal));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// The signals that this process ignores, signal n as bit n - 1.
fn ignored() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ok(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0))
}

/// How one rank ended.
struct End {
    rank: usize,
    status: ExitStatus,
    /// What its cgroup tells of why it was killed, if it was.
    starved: Option<String>,
}

impl End {
    fn code(&self) -> u8 {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => code as u8,
            (None, signal) => 128 + signal.unwrap_or(0) as u8,
        }
    }

    /// In words.
    fn fate(&self) -> String {
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exited with code {code}"),
            (None, signal) => {
                let why = self.starved.as_deref().unwrap_or_default();
                format!("was killed by {}{why}", signal_name(signal.unwrap_or(0)))
            }
        }
    }

    /// Whether a signal that we passed on is what ended it.
    fn follows(&self, forwarded: Option<Signal>) -> bool {
        forwarded.is_some_and(|signal| self.code() == 128 + signal.as_raw() as u8)
    }
}

/// What ranks that failed are replaced by.
pub(super) struct Spares<'a> {
    /// How many more times.
    pub(super) left: usize,
    /// Starts a newcomer in place of that rank.
    pub(super) replace: &'a dyn Fn(usize) -> Result<Child>,
}

/// Waits until all ranks have ended, or one has failed that is not to be replaced and the rest were stopped.
pub(super) async fn supervise(
    children: Vec<Child>,
    mut spares: Spares<'_>,
    keeper: Keeper,
    mut signals: Signals,
    output: Output,
) -> Result<u8> {
    let (printer, writer, mut unwritable) = Printer::start(output == Output::Tagged);
    let (ending, ended) = watch::channel(false);
    let mut ranks = JoinSet::new();
    for (rank, child) in children.into_iter().enumerate() {
        ranks.spawn(attend(rank, child, printer.clone(), ended.clone()));
    }
    let mut forwarded = None;
    let mut failed: Option<End> = None;
    let mut kill_at = None;
    let mut broken = None;
    while !ranks.is_empty() {
        tokio::select! {
            Some(end) = ranks.join_next() => {
                let end = end??;
                if failed.is_some() || end.status.success() {
                    continue;
                }
                let fallen = fallen(end, &mut ranks).await?;
                // Where nobody is left there is nothing to join; and who was told to end is not missed.
                if fallen.len() <= spares.left && !ranks.is_empty() && forwarded.is_none() {
                    for end in fallen {
                        spares.left -= 1;
                        let rest = format!("; replacing it (restarts left: {})", spares.left);
                        printer.say(&format!("rank {} {}{rest}", end.rank, end.fate())).await;
                        let newcomer = (spares.replace)(end.rank)?;
                        ranks.spawn(attend(end.rank, newcomer, printer.clone(), ended.clone()));
                    }
                    continue;
                }
                let end = culprit(fallen);
                if let Some(line) = obituary(&end, forwarded, output, ranks.is_empty()) {
                    printer.say(&line).await;
                }
                keeper.signal(Signal::TERM);
                failed = Some(end);
                kill_at = Some(Instant::now() + GRACE);
            }
            signal = signals.next() => {
                // Who asks twice for the same means it.
                if forwarded.replace(signal) == Some(signal) {
                    break;
                }
                keeper.signal(signal);
            }
            Ok(error) = &mut unwritable, if broken.is_none() => {
                broken = Some(error);
                break;
            }
            () = sleep_until(kill_at.unwrap_or_else(Instant::now)), if kill_at.is_some() => break,
        }
    }
    let killed = !ranks.is_empty();
    keeper.end().await;
    // Whoever left the job's process group is killed by name here, where the others only leave.
    let _ = timeout(LAST_WORDS, async { while ranks.join_next().await.is_some() {} }).await;
    ranks.shutdown().await;
    let _ = ending.send(true);
    drop(printer);
    writer.await?;
    match (broken.or_else(|| unwritable.try_recv().ok()), failed, forwarded) {
        (Some(error), ..) => Err(anyhow!(error).context("cannot write to standard output")),
        (None, Some(end), _) => Ok(end.code()),
        (None, None, Some(signal)) if killed => Ok(128 + signal.as_raw() as u8),
        (None, None, _) => Ok(0),
    }
}

/// Follows one rank to its end and its last words.
async fn attend(
    rank: usize,
    mut child: Child,
    printer: Printer,
    ended: watch::Receiver<bool>,
) -> io::Result<End> {
    let (process, memory) = (child.id().unwrap_or(0), Cgroup::own());
    let out = child.stdout.take();
    let err = child.stderr.take();
    let words = [
        out.map(|pipe| tokio::spawn(printer.clone().copy(pipe, rank, Stream::Out, ended.clone()))),
        err.map(|pipe| tokio::spawn(printer.copy(pipe, rank, Stream::Err, ended))),
    ];
    if let Some(input) = child.stdin.take() {
        relay(input)?;
    }
    let status = child.wait().await?;
    let _ = timeout(LAST_WORDS, async {
        for copying in words.into_iter().flatten() {
            let _ = copying.await;
        }
    })
    .await;
    let killed = status.signal() == Some(Signal::KILL.as_raw());
    let memory = memory.filter(|_| killed);
    let starved = memory.as_ref().and_then(|memory| memory.killed_since(process)).map(of_memory);
    Ok(End { rank, status, starved })
}

/// That a rank was killed for memory; perhaps, where others of its cgroup may have been.
fn of_memory(Killed { cgroup, shared }: Killed<'_>) -> String {
    let (sure, others) = if shared { ("perhaps ", ", in which others run, too,") } else { ("", "") };
    format!(", {sure}for memory: its cgroup {cgroup}{others} counted an oom_kill")
}

/// The ranks that fail at about the same time as the first one.
async fn fallen(first: End, ranks: &mut JoinSet<io::Result<End>>) -> Result<Vec<End>> {
    let mut fallen = vec![first];
    let end = Instant::now() + SETTLE;
    while let Ok(Some(next)) = timeout_at(end, ranks.join_next()).await {
        fallen.push(next??);
    }
    fallen.retain(|end| !end.status.success());
    Ok(fallen)
}

/// Of the ranks that failed together, the one to blame: where a signal ended one, the others only followed; and one of
/// our own that knows that its usage was wrong knows more than the others.
fn culprit(fallen: Vec<End>) -> End {
    let gravity = |end: &End| match (end.status.signal(), end.status.code()) {
        (Some(_), _) => 2,
        (None, Some(crate::failure::USAGE)) => 1,
        _ => 0,
    };
    // Of several as grave, the first.
    fallen.into_iter().rev().max_by_key(gravity).expect("there is the first")
}

/// The line that says which rank failed, if that is news.
fn obituary(end: &End, forwarded: Option<Signal>, output: Output, last: bool) -> Option<String> {
    if end.follows(forwarded) {
        return None;
    }
    if end.status.code().is_some() && output == Output::Ours {
        return None;
    }
    let rest = if last { "" } else { "; stopping the other ranks" };
    Some(format!("rank {} {}{rest}", end.rank, end.fate()))
}

fn signal_name(number: i32) -> String {
    let name = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        _ => return format!("signal {number}"),
    };
    format!("{name} (signal {number})")
}

/// What rank 0 reads. A terminal stays the launcher's, which relays it: the job's process group is not
/// the one that may read there.
pub(super) fn stdin() -> Stdio {
    let terminal = io::stdin();
    if !terminal.is_terminal() {
        return Stdio::inherit();
    }
    match tcgetpgrp(&terminal) {
        Ok(foreground) if foreground == getpgrp() => Stdio::piped(),
        _ => Stdio::null(),
    }
}

/// Copies the terminal to rank 0, on a thread that only the end of either stops.
fn relay(input: ChildStdin) -> io::Result<()> {
    let mut input = std::fs::File::from(input.into_owned_fd()?);
    std::thread::spawn(move || io::copy(&mut io::stdin().lock(), &mut input));
    Ok(())
}
