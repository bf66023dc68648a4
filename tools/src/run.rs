//! `kolo run`: starts a program as the ranks of a job.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kolo::config::Config;

use crate::failure::usage;
use crate::launch::{Job, Output};

/// More ranks than this on one machine are a slip of the finger.
const MOST_RANKS: usize = 4096;

const EXAMPLES: &str = "\
Examples:
  kolo run -n 4 -- ./my_program --its own flags
  kolo run -n 2 --transport tcp -- kolo bench all_reduce --check
  kolo run -n 4 --restart 3 -- ./my_program          replace up to three ranks that die
  kolo run -n 4 --record records -- ./my_program     then: kolo trace records
  kolo run -n 8 --env RUST_BACKTRACE=1 --no-tag -- ./my_program > output.txt";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// How many ranks to start
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_ranks)]
    ranks: usize,

    /// How bytes may move: shm, tcp (default: the fastest that reaches)
    #[arg(long, value_name = "T")]
    transport: Option<String>,

    /// A variable for all ranks; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_variable)]
    env: Vec<(OsString, OsString)>,

    /// So many times, start a rank in place of one that failed; the others take it in by `grow`
    #[arg(long, value_name = "N", default_value_t = 0)]
    restart: usize,

    /// A folder where ranks write what they did last when a call fails: see kolo trace
    #[arg(long, value_name = "DIR")]
    record: Option<PathBuf>,

    /// Print lines as they are, without the rank in front
    #[arg(long)]
    no_tag: bool,

    /// The program and its arguments
    #[arg(last = true, required = true, num_args = 1.., value_name = "PROGRAM")]
    program: Vec<OsString>,
}

/// Parses a number of ranks.
pub(crate) fn parse_ranks(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(ranks @ 1..=MOST_RANKS) => Ok(ranks),
        _ => Err(format!("a number of ranks is 1 to {MOST_RANKS}")),
    }
}

/// Refuses transports that do not exist, or none of which can be had here; several may be named, with commas between
/// them.
pub(crate) fn check_transport(names: Option<&str>) -> Result<()> {
    let Some(names) = names else { return Ok(()) };
    let names: Vec<String> = names.split(',').map(str::to_owned).collect();
    let links = Config::from_env().map(|config| config.links).unwrap_or_default();
    let chosen = kolo::transport::choose(Some(&names), None, &links).context("--transport")?;
    let reasons: Vec<String> = chosen.iter().map_while(|transport| transport.available().err()).collect();
    match chosen.len() == reasons.len() {
        true => Err(anyhow!("--transport {}: {}", names.join(","), reasons.join("; "))),
        false => Ok(()),
    }
}

fn parse_variable(text: &str) -> Result<(OsString, OsString), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE".into()),
    }
}

/// Runs the job and returns the exit code.
pub(crate) fn run(options: Options) -> Result<u8> {
    check_transport(options.transport.as_deref())?;
    let mut words = options.program.into_iter();
    let name = words.next().ok_or_else(|| usage("no program to run"))?;
    let program = which::which(&name)
        .map_err(|_| anyhow::anyhow!("cannot run `{}`: no such program", name.to_string_lossy()))?;
    let transport = options.transport.map(|transport| ("KOLO_TRANSPORT".into(), transport.into()));
    // Ranks may change their working folder before they join.
    let record = options.record.map(std::path::absolute).transpose().context("--record")?;
    let record = record.map(|folder| ("KOLO_RECORD".into(), folder.into()));
    let job = Job {
        program: program.into(),
        arguments: words.collect(),
        ranks: options.ranks,
        environment: options.env.into_iter().chain(transport).chain(record).collect(),
        restarts: options.restart,
        output: if options.no_tag { Output::Plain } else { Output::Tagged },
    };
    job.run()
}
