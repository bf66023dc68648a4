//! `kolo trace`: merges what ranks wrote down when their calls failed, and names who is to blame.

mod chrome;
mod timeline;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kolo::health::{Past, Record};

use crate::cause::{Ranks, Stance, list, printable};
use crate::failure::usage;

/// A record has a few hundred kilobytes; what is longer than this is none.
const LONGEST: u64 = 64 << 20;
/// What the names of records end with.
const ENDING: &str = "record";

const EXAMPLES: &str = "\
Examples:
  kolo run -n 4 --record records -- ./my_program   ranks whose calls fail write what they did last
  kolo trace records                               who is to blame, and what each rank did last
  kolo trace records --last 100 --chrome trace.json  the same, and a picture: chrome://tracing, ui.perfetto.dev
  kolo trace host-a/*.record host-b/*.record       records of several hosts";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Records, or folders of records, of one job
    #[arg(required = true, value_name = "FILES")]
    files: Vec<PathBuf>,

    /// How many of each rank's last calls to print
    #[arg(long, value_name = "N", default_value_t = 10)]
    last: usize,

    /// Write all calls and what moved in them as Chrome's trace events
    #[arg(long, value_name = "FILE")]
    chrome: Option<PathBuf>,
}

/// Reads, merges, and tells.
pub(crate) fn trace(options: &Options) -> Result<u8> {
    let mut records = Vec::new();
    for path in expand(&options.files)? {
        records.push(read(&path).with_context(|| path.display().to_string())?);
    }
    let records = of_one_job(records)?;
    if let Some(path) = &options.chrome {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::new(file);
        serde_json::to_writer(&mut file, &chrome::events(&records))?;
        file.flush().with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "{}", verdict(&records))?;
    timeline::print(&records, options.last, &mut out)?;
    Ok(0)
}

/// The files that are meant, and those in the folders that are.
fn expand(paths: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in paths {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let before = files.len();
        for entry in entries {
            let file = entry?.path();
            let hidden = file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !hidden && file.extension().is_some_and(|extension| extension == ENDING) {
                files.push(file);
            }
        }
        if files.len() == before {
            return Err(anyhow!("{}: no records in this folder: no call has failed", path.display()));
        }
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Record> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(Record::decode(&bytes)?)
}

/// The newest record of each rank, if all are of one job.
fn of_one_job(records: Vec<Record>) -> Result<BTreeMap<u32, Record>> {
    let mut newest: BTreeMap<u32, Record> = BTreeMap::new();
    let job = (records[0].job.clone(), records[0].size);
    for record in records {
        if (&record.job, record.size) != (&job.0, job.1) {
            let name = |job: &str, size: u32| format!("`{}` of {size} ranks", printable(job));
            let (one, other) = (name(&job.0, job.1), name(&record.job, record.size));
            return Err(usage(format!("records of several jobs: {one} and {other}; give those of one")));
        }
        match newest.get(&record.rank) {
            Some(known) if known.written >= record.written => {}
            _ => _ = newest.insert(record.rank, record),
        }
    }
    Ok(newest)
}

/// Who is to blame, in one line.
fn verdict(records: &BTreeMap<u32, Record>) -> String {
    let stance = |past: &Past| Stance {
        report: past.report.clone(),
        failure: past.failure.clone(),
        calls: past.calls.iter().map(|call| call_of(past, call)).collect(),
    };
    let stances = |record: &Record| record.communicators.iter().map(stance).collect();
    let said = records.iter().map(|(rank, record)| (*rank, stances(record))).collect();
    let silence = "left no record: it was killed or stopped, or its call has not failed";
    let cause = Ranks { said, silence }.cause();
    cause.unwrap_or_else(|| format!("no failure is recorded by {}", list(&ranks(records))))
}

fn ranks(records: &BTreeMap<u32, Record>) -> Vec<u32> {
    records.keys().copied().collect()
}

/// A recorded call as it travels.
fn call_of(past: &Past, call: &kolo::health::Called) -> [u64; 4] {
    [past.report.communicator, call.sequence, call.count, call.codes]
}

/// When a call ended, as far as is known, or else when it was over for sure: when the next one began, or the record was
/// written.
fn end_of(record: &Record, past: &Past, index: usize) -> u64 {
    let next = past.calls.get(index + 1).map_or(record.written, |next| next.begin);
    past.calls[index].end.unwrap_or(next).max(past.calls[index].begin)
}
