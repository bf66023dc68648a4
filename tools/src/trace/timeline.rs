//! What ranks did last, as text.

use std::collections::BTreeMap;
use std::io::{self, Write};

use kolo::health::{Moved, Past, Record};

use super::{call_of, end_of, ranks};
use crate::cause::{list, printable, words};

/// One rank after the other, then all their last calls in the order in which they began.
pub(super) fn print(records: &BTreeMap<u32, Record>, last: usize, out: &mut impl Write) -> io::Result<()> {
    let size = records.values().next().map_or(0, |record| record.size);
    for record in records.values() {
        writeln!(
            out,
            "\nrank {} of {size}, process {} on {}",
            record.rank,
            record.process,
            printable(&record.host)
        )?;
        for past in &record.communicators {
            describe(past, out)?;
        }
    }
    let missing: Vec<u32> = (0..size).filter(|rank| !records.contains_key(rank)).collect();
    if !missing.is_empty() {
        writeln!(out, "\nno record of {}; {} left one", list(&missing), list(&ranks(records)))?;
    }
    let mut lines = lines(records, last);
    lines.sort_by_key(|(begin, ..)| *begin);
    let Some(&(start, ..)) = lines.first() else { return Ok(()) };
    writeln!(out, "\n{:>14}  {:>6}  {:>14}", "seconds", "rank", "took")?;
    for (begin, rank, took, what) in lines {
        writeln!(out, "{:>14.6}  {rank:>6}  {took:>14}  {what}", (begin - start) as f64 / 1e9)?;
    }
    Ok(())
}

fn describe(past: &Past, out: &mut impl Write) -> io::Result<()> {
    let (report, ranks) = (&past.report, past.members.iter().map(|(_, len)| u64::from(*len)).sum::<u64>());
    let id = report.communicator as u32;
    writeln!(
        out,
        "  communicator {id:08x} of {ranks} ranks: {} calls begun, {} done",
        report.begun, report.done
    )?;
    if let Some(failure) = &past.failure {
        writeln!(out, "    {:?}: {}", failure.kind, printable(&failure.text))?;
    }
    if let Some(waiting) = &report.waiting {
        let ranks: Vec<u32> = waiting.on.iter().map(|awaited| awaited.rank).collect();
        let waited = waiting.waited.as_secs_f64();
        writeln!(out, "    waited {waited:.1} s for {} in {}", list(&ranks), words(waiting.call))?;
    }
    // Where the last call stands, if it is not done.
    let open = past.calls.last().filter(|call| !call.done);
    let step = past.steps.last().filter(|step| open.is_some_and(|call| call.number == step.call));
    if let (Some(call), Some(step)) = (open, step) {
        let after = step.time.saturating_sub(call.begin) as f64 / 1e6;
        writeln!(out, "    what moved last in it: {}, {after:.3} ms after its beginning", moved(step))?;
    }
    Ok(())
}

/// Such as `65536 B from rank 1 (lane 0, round 3, step 2)`.
pub(super) fn moved(step: &Moved) -> String {
    let from = step.from.map_or(String::new(), |rank| format!(" from rank {rank}"));
    let to = step.to.map_or(String::new(), |rank| format!(" to rank {rank}"));
    let Moved { lane, round, step: at, bytes, .. } = step;
    format!("{bytes} B{from}{to} (lane {lane}, round {round}, step {at})")
}

/// When it began, whose it is, how long it took, and what it is.
type Line = (u64, u32, String, String);

fn lines(records: &BTreeMap<u32, Record>, last: usize) -> Vec<Line> {
    let mut all = Vec::new();
    for record in records.values() {
        let calls =
            record.communicators.iter().flat_map(|past| (0..past.calls.len()).map(move |at| (past, at)));
        let mut own: Vec<Line> = calls.map(|(past, at)| line(record, past, at)).collect();
        own.sort_by_key(|(begin, ..)| *begin);
        all.extend(own.split_off(own.len().saturating_sub(last)));
    }
    all
}

fn line(record: &Record, past: &Past, at: usize) -> Line {
    let call = &past.calls[at];
    let us = (end_of(record, past, at) - call.begin) as f64 / 1e3;
    let took = match (call.done, call.end) {
        (false, _) => "not done".into(),
        (true, Some(_)) => format!("{us:.1} us"),
        // Its end was not looked at.
        (true, None) => format!("< {us:.1} us"),
    };
    let from = call.from.map_or(String::new(), |rank| format!(" from rank {rank}"));
    let to = call.to.map_or(String::new(), |rank| format!(" to rank {rank}"));
    (call.begin, record.rank, took, format!("{}{from}{to}", words(call_of(past, call))))
}
