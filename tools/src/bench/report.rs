//! The results: nccl-tests' table, and JSON.

use std::io::{self, Write};

use serde::Serialize;

use super::options::Settings;

/// Everything that was measured, as `--json` writes it.
#[derive(Serialize)]
pub(crate) struct Report {
    /// The version of this form.
    pub(crate) format: u32,
    pub(crate) kolo: &'static str,
    pub(crate) collective: &'static str,
    pub(crate) dtype: &'static str,
    /// `None` where nothing is combined.
    pub(crate) op: Option<&'static str>,
    /// `None` where there is no root.
    pub(crate) root: Option<usize>,
    pub(crate) uneven: bool,
    /// Whether the ranks allocated their memory together.
    pub(crate) alloc: bool,
    pub(crate) ranks: usize,
    /// `None`: whichever reached.
    pub(crate) transport: Option<String>,
    /// Nanoseconds for a cache line to go to another core and back.
    pub(crate) line_round_trip_ns: Option<f64>,
    /// Cores that others kept busy during the run.
    pub(crate) foreign_cores: Option<f64>,
    pub(crate) rows: Vec<Row>,
}

/// One size.
#[derive(Clone, Serialize)]
pub(crate) struct Row {
    /// Of a rank's longer buffer.
    pub(crate) bytes: usize,
    /// Elements of the vector, or of one rank's block.
    pub(crate) count: usize,
    /// What was walked; `None` where it was a message.
    pub(crate) plan: Option<Plan>,
    pub(crate) out_of_place: Option<Timing>,
    pub(crate) in_place: Option<Timing>,
}

/// What was walked.
#[derive(Clone, Serialize)]
pub(crate) struct Plan {
    pub(crate) algorithm: String,
    /// As `kolo plan prove` prints it.
    pub(crate) id: String,
    /// `None` where the algorithm was named, so that no price was asked.
    pub(crate) predicted_us: f64,
}

/// What one size took.
#[derive(Clone, Copy, Serialize)]
pub(crate) struct Timing {
    pub(crate) time_us: f64,
    pub(crate) algbw_gbps: f64,
    pub(crate) busbw_gbps: f64,
    /// Elements, of all ranks; `None` where nothing was compared.
    pub(crate) wrong: Option<u64>,
}

impl Report {
    pub(crate) fn new(settings: &Settings, ranks: usize) -> Self {
        let operation = settings.operation;
        Self {
            format: 1,
            kolo: env!("CARGO_PKG_VERSION"),
            collective: operation.name(),
            dtype: settings.dtype.name(),
            op: settings.op.map(kolo::op::OpKind::name),
            root: operation.rooted().then_some(settings.root),
            uneven: settings.uneven,
            alloc: settings.alloc,
            ranks,
            transport: settings.transport.clone(),
            line_round_trip_ns: None,
            foreign_cores: None,
            rows: Vec::new(),
        }
    }

    /// Prints what stands above the rows.
    pub(crate) fn print_head(&self, out: &mut impl Write) -> io::Result<()> {
        let Self { collective, ranks, .. } = self;
        let transport = self.transport.as_deref().unwrap_or("whatever transport reaches");
        let blocks = if self.uneven { ", blocks of different lengths" } else { "" };
        let memory = if self.alloc { ", in memory allocated together" } else { "" };
        writeln!(out, "# kolo bench {collective}: {ranks} ranks over {transport}{blocks}{memory}")?;
        if let Some(ns) = self.line_round_trip_ns {
            writeln!(out, "# a cache line goes to another core and back in {ns:.0} ns")?;
        }
        let group = |[a, b, c, d]: [&str; 4]| format!("{a:>9} {b:>8} {c:>8} {d:>6}");
        let (names, units) = (["time", "algbw", "busbw", "#wrong"], ["(us)", "(GB/s)", "(GB/s)", ""]);
        writeln!(out, "#\n#{:47} {:^34} {:^34}", "", "out-of-place", "in-place")?;
        let names = group(names);
        let columns = ["size", "count", "type", "redop", "root"];
        line(out, '#', columns, [&names, &names], "algorithm, plan, predicted")?;
        let units = group(units);
        line(out, '#', ["(B)", "(elements)", "", "", ""], [&units, &units], "(us)")
    }

    /// Prints one row.
    pub(crate) fn print_row(&self, row: &Row, out: &mut impl Write) -> io::Result<()> {
        let root = self.root.map_or("-1".to_owned(), |root| root.to_string());
        let plan = row.plan.as_ref().map_or("-".to_owned(), |plan| {
            let predicted = decimals(plan.predicted_us);
            format!("{} {} {predicted}", plan.algorithm, plan.id)
        });
        let (bytes, count) = (row.bytes.to_string(), row.count.to_string());
        let columns = [&bytes, &count, self.dtype, self.op.unwrap_or("none"), &root];
        line(out, ' ', columns, [&timing(row.out_of_place), &timing(row.in_place)], &plan)
    }

    /// Prints what stands below the rows.
    pub(crate) fn print_foot(&self, out: &mut impl Write) -> io::Result<()> {
        let timings = self.rows.iter().flat_map(|row| [row.out_of_place, row.in_place]).flatten();
        let busbw: Vec<f64> = timings.clone().map(|timing| timing.busbw_gbps).collect();
        let checked = timings.clone().any(|timing| timing.wrong.is_some());
        writeln!(
            out,
            "# average bus bandwidth: {:.3} GB/s",
            busbw.iter().sum::<f64>() / busbw.len().max(1) as f64
        )?;
        if checked {
            writeln!(out, "# wrong elements: {}", timings.filter_map(|timing| timing.wrong).sum::<u64>())?;
        }
        match self.foreign_cores {
            Some(cores) => writeln!(out, "# others kept {cores:.2} cores busy meanwhile"),
            None => Ok(()),
        }
    }
}

fn line(
    out: &mut impl Write,
    mark: char,
    [size, count, dtype, op, root]: [&str; 5],
    [out_of_place, in_place]: [&str; 2],
    plan: &str,
) -> io::Result<()> {
    writeln!(
        out,
        "{mark}{size:>11} {count:>12} {dtype:>8} {op:>7} {root:>5} {out_of_place:>34} {in_place:>34}   {plan}"
    )
}

fn timing(timing: Option<Timing>) -> String {
    let Some(timing) = timing else { return format!("{:>9} {:>8} {:>8} {:>6}", "-", "-", "-", "-") };
    let wrong = timing.wrong.map_or("N/A".to_owned(), |wrong| wrong.to_string());
    let Timing { time_us, algbw_gbps, busbw_gbps, .. } = timing;
    format!("{:>9} {algbw_gbps:>8.2} {busbw_gbps:>8.2} {wrong:>6}", decimals(time_us))
}

/// Three digits that mean something, or all before the point.
fn decimals(value: f64) -> String {
    match value {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let shown: Vec<_> = [0.0, 1.234, 12.34, 123.4, 1234.5].map(decimals).into();
        assert_eq!(shown, ["0.00", "1.23", "12.3", "123", "1234"]);
    }
}
