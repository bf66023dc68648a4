//! `kolo status`: asks the ranks of a running job on this host where they are, and says who waits for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use kolo::bootstrap::{Sight, Window};
use kolo::health::Report;
use serde::Serialize;

use crate::cause::{Ranks, Stance, list, printable, words};
use crate::failure::usage;

/// How long a rank may take to answer: at its door a thread of its own does, whatever the rank does.
const ANSWER: Duration = Duration::from_millis(250);

const EXAMPLES: &str = "\
Examples:
  kolo status                   of the one job that runs on this host
  kolo status 9f3c              of the job whose name begins so: KOLO_JOB, or what `kolo run` drew
  watch kolo status --json      for other programs";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The job's name, or how it begins; may be left out where this user has one job here
    job: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was found out.
#[derive(Serialize)]
struct Status {
    /// The version of this form.
    format: u32,
    kolo: &'static str,
    job: String,
    /// How many ranks the job has.
    size: u32,
    /// Those of this host.
    ranks: Vec<Rank>,
    /// Why nothing comes; nothing where nobody has waited for long.
    cause: Option<String>,
}

#[derive(Serialize)]
struct Rank {
    rank: u32,
    process: u32,
    /// Nothing where it does not answer.
    communicators: Option<Vec<Course>>,
}

/// One communicator, as a rank sees it.
#[derive(Serialize)]
struct Course {
    communicator: String,
    begun: u64,
    done: u64,
    failed: bool,
    /// The call that it has waited in for long, and for whom.
    waits: Option<Waits>,
}

#[derive(Serialize)]
struct Waits {
    call: String,
    seconds: f64,
    ranks: Vec<u32>,
}

/// Asks and tells.
pub(crate) fn status(options: &Options) -> Result<u8> {
    let windows = of_one_job(Window::all()?, options.job.as_deref())?;
    let look = |window: Window| {
        let sight = window.look(ANSWER).ok();
        (window, sight)
    };
    let status = status_of(&windows.into_iter().map(look).collect::<Vec<_>>());
    let mut out = io::stdout().lock();
    match options.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&status)?)?,
        false => print(&status, &mut out)?,
    }
    Ok(0)
}

/// The windows of the job that is meant.
fn of_one_job(mut windows: Vec<Window>, job: Option<&str>) -> Result<Vec<Window>> {
    let names = |windows: &[Window]| {
        let names: BTreeSet<String> = windows.iter().map(|window| format!("`{}`", window.job)).collect();
        names.into_iter().collect::<Vec<_>>().join(", ")
    };
    let all = names(&windows);
    if let Some(job) = job {
        windows.retain(|window| window.is_of(job));
    }
    let jobs: BTreeSet<&str> = windows.iter().map(|window| window.job.as_str()).collect();
    match (jobs.len(), job) {
        (1, _) => Ok(windows),
        (0, None) => Err(usage("no job of this user runs on this host")),
        (0, Some(job)) if all.is_empty() => {
            Err(usage(format!("no job `{job}` of this user runs on this host, nor any other")))
        }
        (0, Some(job)) => Err(usage(format!("no job `{job}` of this user runs on this host, but {all}"))),
        _ => Err(usage(format!("several jobs run on this host: name one of {}", names(&windows)))),
    }
}

fn status_of(looked: &[(Window, Option<Sight>)]) -> Status {
    let sight = looked.iter().find_map(|(_, sight)| sight.as_ref());
    let job = sight.map_or(&looked[0].0.job, |sight| &sight.job).clone();
    let size = sight.map_or(looked.len() as u32, |sight| sight.size);
    let stance = |report: &Report| Stance { report: report.clone(), failure: None, calls: Vec::new() };
    let said = looked.iter().filter_map(|(window, sight)| {
        Some((window.rank, sight.as_ref()?.reports.iter().map(stance).collect()))
    });
    let said: BTreeMap<u32, Vec<Stance>> = said.collect();
    let silence = "does not answer here: it runs on another host, is stopped, or has ended";
    let ranks = looked.iter().map(|(window, sight)| Rank {
        rank: window.rank,
        process: window.process,
        communicators: sight.as_ref().map(|sight| sight.reports.iter().map(course).collect()),
    });
    let ranks = ranks.collect();
    let cause = Ranks { said, silence }.cause();
    Status { format: 1, kolo: env!("CARGO_PKG_VERSION"), job, size, ranks, cause }
}

fn course(report: &Report) -> Course {
    let waits = report.waiting.as_ref().map(|waiting| Waits {
        call: words(waiting.call),
        seconds: waiting.waited.as_secs_f64(),
        ranks: waiting.on.iter().map(|awaited| awaited.rank).collect(),
    });
    Course {
        communicator: format!("{:08x}", report.communicator as u32),
        begun: report.begun,
        done: report.done,
        failed: report.failed.is_some(),
        waits,
    }
}

/// A line for each rank and communicator, and why nothing comes.
fn print(status: &Status, out: &mut impl Write) -> io::Result<()> {
    let (job, here) = (printable(&status.job), status.ranks.len());
    writeln!(out, "job {job}: {} ranks, {here} of them on this host", status.size)?;
    for Rank { rank, process, communicators } in &status.ranks {
        let who = format!("rank {rank} (process {process})");
        match communicators.as_deref() {
            None => writeln!(out, "{who}: does not answer: its process is stopped, or has ended")?,
            Some([]) => writeln!(out, "{who}: has no communicator yet, or no more")?,
            Some(courses) => {
                courses.iter().try_for_each(|course| writeln!(out, "{who}: {}", in_words(course)))?;
            }
        }
    }
    match &status.cause {
        Some(cause) => writeln!(out, "{cause}"),
        None => writeln!(out, "nobody has waited for long"),
    }
}

fn in_words(course: &Course) -> String {
    let Course { communicator, begun, done, failed, waits } = course;
    let failed = if *failed { "failed; " } else { "" };
    let what = match waits {
        Some(Waits { call, seconds, ranks }) => {
            return format!("{failed}has waited {seconds:.1} s for {} in {call}", list(ranks));
        }
        None if begun > done => format!("is in call #{begun}"),
        None => format!("has made {begun} calls, and is in none"),
    };
    format!("{failed}{what} of communicator {communicator}")
}
