//! The command line of `kolo bench`, and what it comes to.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use kolo::dtype::Dtype;
use kolo::op::OpKind;
use kolo::plan::CollectiveKind;

use super::case::Operation;
use crate::failure::usage;
use crate::run::{check_transport, parse_ranks};

const EXAMPLES: &str = "\
Examples:
  kolo bench all_reduce -n 2
  kolo bench all_reduce -n 4 -b 8 -e 256M -f 2 --dtype bf16 --check --json out.json --plot out.svg
  kolo bench all_to_all -n 3 --uneven --counts 0,1,7,1000,12345 --check
  kolo bench broadcast -n 8 --root 3 --transport tcp --algorithm ring
  mpirun -n 4 kolo bench reduce_scatter --op max --dtype i32 --check";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// all_reduce, reduce_scatter, all_gather, broadcast, reduce, gather, scatter, all_to_all, barrier,
    /// send_recv
    #[arg(value_name = "COLLECTIVE", value_parser = parse_operation)]
    operation: Operation,

    /// How many ranks to start [default: 2; under a launcher, those it started]
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_ranks)]
    pub(crate) ranks: Option<usize>,

    /// The smallest size in bytes, of a rank's longer buffer; K, M and G may follow
    #[arg(short = 'b', long, value_name = "BYTES", default_value = "8", value_parser = parse_size)]
    begin: usize,

    /// The largest size in bytes
    #[arg(short = 'e', long, value_name = "BYTES", default_value = "64M", value_parser = parse_size)]
    end: usize,

    /// From one size to the next
    #[arg(short = 'f', long, value_name = "F", default_value = "2")]
    factor: f64,

    /// Counts of elements (of the vector, or of a rank's block) instead of sizes
    #[arg(long, value_name = "LIST", value_delimiter = ',', conflicts_with_all = ["begin", "end", "factor"])]
    counts: Option<Vec<usize>>,

    /// f64, f32, f16, bf16, f8e4m3, f8e5m2, i8 to i64, u8 to u64
    #[arg(short = 'd', long, default_value = "f32")]
    dtype: Dtype,

    /// sum, prod, min, max, average, premul, and, or, xor, user [default: sum]
    #[arg(short = 'o', long)]
    op: Option<OpKind>,

    /// The root of broadcast, reduce, gather and scatter [default: 0]
    #[arg(short = 'r', long, value_name = "RANK")]
    root: Option<usize>,

    /// Blocks of different lengths, some empty: the collective's v-variant
    #[arg(long)]
    uneven: bool,

    /// In memory that the ranks allocate together. Nobody rewrites it between the calls of a batch, so that in
    /// place less moves than in a program
    #[arg(long)]
    alloc: bool,

    /// local (ranks are threads), shm, tcp [default: the fastest that reaches]
    #[arg(short = 't', long, value_name = "T")]
    transport: Option<String>,

    /// The algorithm to walk [default: the cheapest by price]
    #[arg(short = 'a', long, value_name = "A")]
    algorithm: Option<String>,

    /// Timed calls per size [default: as many as fit a tenth of a second]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    iters: Option<u64>,

    /// Calls before the timed ones
    #[arg(long, value_name = "N", default_value = "5")]
    warmup: u64,

    /// Compare every element of every rank's result with what it must be
    #[arg(short = 'c', long)]
    check: bool,

    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Draw the results
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// What to measure, with nothing left to be wrong but the number of ranks.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) operation: Operation,
    pub(crate) sizes: Sizes,
    pub(crate) dtype: Dtype,
    /// Where the collective reduces.
    pub(crate) op: Option<OpKind>,
    pub(crate) root: usize,
    pub(crate) uneven: bool,
    pub(crate) alloc: bool,
    pub(crate) transport: Option<String>,
    pub(crate) algorithm: Option<String>,
    pub(crate) iters: Option<u64>,
    pub(crate) warmup: u64,
    pub(crate) check: bool,
    pub(crate) json: Option<PathBuf>,
    pub(crate) plot: Option<PathBuf>,
}

/// Which sizes.
#[derive(Clone, Debug)]
pub(crate) enum Sizes {
    /// In bytes of a rank's longer buffer.
    Bytes(Vec<usize>),
    /// In elements.
    Counts(Vec<usize>),
}

impl Options {
    /// Refuses what cannot be measured.
    pub(crate) fn settings(&self) -> Result<Settings> {
        let operation = self.operation;
        let name = operation.name();
        if let Some(op) = self.op {
            if !operation.reduces() {
                return Err(usage(format!("--op: {name} does not combine elements")));
            }
            if self.dtype.is_float() && matches!(op, OpKind::BitAnd | OpKind::BitOr | OpKind::BitXor) {
                return Err(usage(format!("--op {op} takes integers, not {}", self.dtype)));
            }
        }
        if self.root.is_some() && !operation.rooted() {
            return Err(usage(format!("--root: {name} has no root")));
        }
        if self.uneven && !operation.ranked() {
            return Err(usage(format!("--uneven: {name} has no variant with blocks of different lengths")));
        }
        self.check_algorithm()?;
        check_transport(self.transport.as_deref())?;
        Ok(Settings {
            operation,
            sizes: self.sizes()?,
            dtype: self.dtype,
            op: operation.reduces().then(|| self.op.unwrap_or(OpKind::Sum)),
            root: self.root.unwrap_or(0),
            uneven: self.uneven,
            alloc: self.alloc,
            transport: self.transport.clone(),
            algorithm: self.algorithm.clone(),
            iters: self.iters,
            warmup: self.warmup,
            check: self.check,
            json: self.json.clone(),
            plot: self.plot.clone(),
        })
    }

    fn check_algorithm(&self) -> Result<()> {
        let Some(name) = &self.algorithm else { return Ok(()) };
        let algorithm = kolo::algorithm::find(name)?;
        match self.operation.kind() {
            Some(kind) if algorithm.does(kind) => Ok(()),
            _ => Err(usage(format!("--algorithm: {name} does not do {}", self.operation.name()))),
        }
    }

    fn sizes(&self) -> Result<Sizes> {
        if self.operation == Operation::Collective(CollectiveKind::Barrier) {
            return Ok(Sizes::Counts(vec![0]));
        }
        if let Some(counts) = &self.counts {
            return Ok(Sizes::Counts(counts.clone()));
        }
        let Self { begin, end, factor, .. } = *self;
        if end < begin {
            return Err(usage(format!("--end {end} is smaller than --begin {begin}")));
        }
        if !factor.is_finite() || factor <= 1.0 {
            return Err(usage(format!("--factor {factor} does not lead from one size to a larger one")));
        }
        let next = |&size: &usize| Some(((size as f64 * factor) as usize).max(size + 1));
        Ok(Sizes::Bytes(std::iter::successors(Some(begin), next).take_while(|&size| size <= end).collect()))
    }
}

impl Settings {
    /// What only shows once the number of ranks is known.
    pub(crate) fn check_ranks(&self, ranks: usize) -> Result<()> {
        if self.root >= ranks {
            return Err(usage(format!("--root {} is not one of the ranks 0 to {}", self.root, ranks - 1)));
        }
        Ok(())
    }

    /// The counts to measure with that many ranks: without repetitions, where several sizes come to the same.
    pub(crate) fn counts(&self, ranks: usize) -> Vec<usize> {
        let bytes = match &self.sizes {
            Sizes::Counts(counts) => return counts.clone(),
            Sizes::Bytes(bytes) => bytes,
        };
        let unit = self.dtype.size() * if self.operation.ranked() { ranks } else { 1 };
        let mut counts: Vec<usize> = bytes.iter().map(|bytes| bytes.div_ceil(unit)).collect();
        counts.dedup();
        counts
    }

    /// Refuses files that cannot be written, before anybody waits for what should be in them.
    pub(crate) fn check_files(&self) -> Result<()> {
        if let Some(plot) = &self.plot
            && plot.extension().is_none_or(|extension| extension != "svg")
        {
            return Err(usage(format!("--plot {}: only .svg is drawn", plot.display())));
        }
        for path in self.json.iter().chain(&self.plot) {
            let mut file = std::fs::OpenOptions::new();
            file.append(true)
                .create(true)
                .open(path)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

fn parse_operation(name: &str) -> Result<Operation, String> {
    if name == Operation::SendRecv.name() {
        return Ok(Operation::SendRecv);
    }
    name.parse()
        .map(Operation::Collective)
        .map_err(|error: kolo::Error| format!("{error}, {}", Operation::SendRecv.name()))
}

/// `64`, `8K`, `256M`, `1G`
pub(crate) fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let scale = match text[digits.len()..].to_ascii_uppercase().as_str() {
        "" | "B" => Some(1),
        "K" | "KB" | "KIB" => Some(1 << 10),
        "M" | "MB" | "MIB" => Some(1 << 20),
        "G" | "GB" | "GIB" => Some(1 << 30),
        _ => None,
    };
    let number = digits.parse::<usize>().ok();
    number
        .zip(scale)
        .and_then(|(number, scale): (usize, usize)| number.checked_mul(scale))
        .ok_or_else(|| "expected bytes such as 8, 64K, 256M or 1G".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_take_suffixes() {
        for (text, size) in [("8", 8), ("0", 0), ("64K", 65536), ("1m", 1 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(parse_size(text), Ok(size), "{text}");
        }
        for text in ["", "K", "8T", "-1", "1.5M", "99999999999999999999", "99999999999G"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }
}
