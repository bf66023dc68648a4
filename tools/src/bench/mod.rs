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
use kolo::{Communicator, Kind, ReduceOp};

use crate::failure;
use crate::ranks::Ranks;
use machine::Load;
use measure::Bench;
use options::Settings;
pub(crate) use options::{Options, parse_size};
use report::Report;
use value::{Value, with_dtype};

/// Ranks to start where nobody said how many.
const RANKS: usize = 2;

/// Runs the benchmark: as a rank of whoever started us, or else by starting ranks.
pub(crate) fn bench(options: &Options) -> Result<u8> {
    let settings = options.settings()?;
    let ranks = Ranks { asked: options.ranks, default: RANKS, transport: settings.transport.as_deref() };
    let check = |ranks, files| {
        settings.check_ranks(ranks)?;
        if files { settings.check_files() } else { Ok(()) }
    };
    ranks.run(check, |communicator| run_rank(communicator, &settings))
}

fn run_rank(mut communicator: Communicator, settings: &Settings) -> Result<u8> {
    match name_algorithm(&mut communicator, settings) {
        // What is wrong is so on every rank: one of them says it.
        Err(error) if error.kind() == Kind::Usage && communicator.rank() != 0 => {
            return Ok(failure::USAGE as u8);
        }
        named => named?,
    }
    let wrong = with_dtype!(settings.dtype, T => measure_all::<T>(&mut communicator, settings))?;
    Ok(u8::from(wrong > 0))
}

/// Has the algorithm walked that was asked for, if it can be among these ranks.
fn name_algorithm(communicator: &mut Communicator, settings: &Settings) -> kolo::Result<()> {
    if let (Some(name), Some(kind)) = (&settings.algorithm, settings.operation.kind()) {
        communicator.set_algorithm(kind, Some(name))?;
        communicator.explain(kind.at(settings.root), 0)?;
    }
    Ok(())
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
