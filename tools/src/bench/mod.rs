//! `kolo bench`: measures a collective, and checks it.

mod case;
mod machine;
mod measure;
mod options;
mod pattern;
mod plot;
mod report;
mod statistics;
mod value;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result};
use indicatif::{ProgressBar, ProgressStyle};
use kolo::config::{Config, Launcher};
use kolo::{Communicator, ReduceOp};

use crate::failure::usage;
use crate::launch::Job;
use machine::Load;
use measure::Bench;
pub(crate) use options::Options;
use options::Settings;
use report::Report;
use value::{Value, with_dtype};

/// Ranks to start where nobody said how many.
const RANKS: usize = 2;

/// The transport whose ranks are threads of one process.
const LOCAL: &str = "local";

/// Runs the benchmark: as a rank of whoever started us, or else by starting ranks.
pub(crate) fn bench(options: &Options) -> Result<u8> {
    let settings = options.settings()?;
    let mut config = Config::from_env()?;
    if let Some(names) = &settings.transport {
        config.transports = Some(names.split(',').map(str::to_owned).collect());
    }
    let local = settings.transport.as_deref() == Some(LOCAL);
    if config.launcher != Launcher::None {
        return join(options, &settings, &config);
    }
    let ranks = options.ranks.unwrap_or(RANKS);
    settings.check_ranks(ranks)?;
    settings.check_files()?;
    if local {
        return as_threads(&settings, ranks, &config);
    }
    let mut job = Job::ourselves(ranks);
    job.environment.extend(settings.transport.iter().map(|name| ("KOLO_TRANSPORT".into(), name.into())));
    job.run()
}

/// One rank of a job that a launcher started.
fn join(options: &Options, settings: &Settings, config: &Config) -> Result<u8> {
    let size = config.size;
    if options.ranks.is_some_and(|ranks| ranks != size) {
        return Err(usage(format!("--ranks: the launcher started {size}")));
    }
    if size > 1 && settings.transport.as_deref() == Some(LOCAL) {
        return Err(usage(
            "--transport local: its ranks are threads of one process, which no launcher starts",
        ));
    }
    settings.check_ranks(size)?;
    if config.rank == 0 {
        settings.check_files()?;
    }
    run_rank(&mut Communicator::join(config)?, settings)
}

fn as_threads(settings: &Settings, ranks: usize, config: &Config) -> Result<u8> {
    let communicators = Communicator::threads(ranks, config)?;
    let codes: Vec<Result<u8>> = std::thread::scope(|scope| {
        let threads: Vec<_> = communicators
            .into_iter()
            .map(|mut communicator| scope.spawn(move || run_rank(&mut communicator, settings)))
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a rank panicked")).collect()
    });
    // Where one rank failed on its own account, the others only tell of the loss of it.
    let mut worst = 0;
    let mut lost = None;
    for code in codes {
        match code {
            Ok(code) => worst = worst.max(code),
            Err(error) if is_echo(&error) => lost = lost.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    lost.map_or(Ok(worst), Err)
}

fn is_echo(error: &anyhow::Error) -> bool {
    error.downcast_ref::<kolo::Error>().is_some_and(|error| error.kind() == kolo::Kind::PeerLost)
}

fn run_rank(communicator: &mut Communicator, settings: &Settings) -> Result<u8> {
    if let (Some(name), Some(kind)) = (&settings.algorithm, settings.operation.kind()) {
        communicator.set_algorithm(kind, Some(name))?;
    }
    let wrong = with_dtype!(settings.dtype, T => measure_all::<T>(communicator, settings))?;
    Ok(u8::from(wrong > 0))
}

/// Measures every size, and returns how many elements this rank found wrong: a number that does not
/// depend on the collectives that it judges.
fn measure_all<T: Value>(communicator: &mut Communicator, settings: &Settings) -> Result<u64> {
    let counts = settings.counts(communicator.size());
    let mut desk = Desk::new(communicator.rank(), Report::new(settings, communicator.size()), counts.len())?;
    let load = Load::begin();
    let mut bench = Bench::<T>::new(communicator, settings);
    for count in counts {
        let row = bench.row(count)?;
        desk.row(row)?;
        if !bench.go_on(desk.open)? {
            break;
        }
    }
    let wrong = bench.wrong;
    let mut used = [load.as_ref().map_or(0, |load| load.own().as_micros() as u64)];
    communicator.all_reduce_in_place(&mut used, ReduceOp::Sum)?;
    desk.report.foreign_cores = load.and_then(|load| load.foreign(Duration::from_micros(used[0])));
    desk.finish(settings)?;
    Ok(wrong)
}

/// Where results are written: at rank 0.
struct Desk {
    report: Report,
    progress: ProgressBar,
    here: bool,
    /// Whether somebody reads.
    open: bool,
}

impl Desk {
    fn new(rank: usize, mut report: Report, rows: usize) -> Result<Self> {
        let here = rank == 0;
        let progress = if here { ProgressBar::new(rows as u64) } else { ProgressBar::hidden() };
        progress.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} sizes, {eta} left")?);
        if here {
            report.line_round_trip_ns = machine::line_round_trip();
        }
        let mut desk = Self { report, progress, here, open: true };
        desk.print(|report, out| report.print_head(out))?;
        Ok(desk)
    }

    fn row(&mut self, row: report::Row) -> Result<()> {
        self.print(|report, out| report.print_row(&row, out))?;
        self.report.rows.push(row);
        self.progress.inc(1);
        Ok(())
    }

    fn finish(&mut self, settings: &Settings) -> Result<()> {
        self.progress.finish_and_clear();
        self.print(|report, out| report.print_foot(out))?;
        if !self.here {
            return Ok(());
        }
        if let Some(path) = &settings.json {
            let json = serde_json::to_string_pretty(&self.report)? + "\n";
            std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
        }
        if let Some(path) = &settings.plot {
            std::fs::write(path, plot::svg(&self.report))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Prints around the progress bar. When nobody reads any more, only notes it: the other ranks have to
    /// stop in the same place.
    fn print(
        &mut self,
        print: impl FnOnce(&Report, &mut io::StdoutLock<'_>) -> io::Result<()>,
    ) -> Result<()> {
        if !self.here || !self.open {
            return Ok(());
        }
        let Self { report, progress, .. } = self;
        let printed = progress.suspend(|| {
            let mut out = io::stdout().lock();
            print(report, &mut out).and_then(|()| out.flush())
        });
        match printed {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.open = false,
            other => other.context("cannot write the results")?,
        }
        Ok(())
    }
}
