//! `kolo plan price`: what each algorithm would take, and which one would be walked.

use std::io::{self, Write};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kolo::algorithm::choose::{Chooser, Needs, sample};
use kolo::algorithm::{self, Algorithm};
use kolo::plan::{Collective, CollectiveKind, Core, Host, Machine, price as priced};
use kolo::topology::{Cost, Topology};
use kolo::transport;
use kolo::transport::local::Hub;

use super::rooted;
use crate::bench::parse_size;
use crate::doctor::reach;
use crate::failure::usage;
use crate::run::parse_ranks;

const EXAMPLES: &str = "\
Examples:
  kolo plan price all_reduce --ranks 8
  kolo plan price all_reduce --ranks 8 --bytes 8,1K,64K,1M --transport tcp
  kolo plan price broadcast --ranks 64 --cores 64 --root 3";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The collective
    collective: CollectiveKind,
    /// How many ranks, all on one host
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_ranks)]
    ranks: usize,
    /// Bytes of all blocks together
    #[arg(
        short = 'b',
        long,
        value_name = "LIST",
        value_delimiter = ',',
        value_parser = parse_size,
        default_value = "8,64,512,4K,32K,256K,2M,16M,128M"
    )]
    bytes: Vec<usize>,
    /// The root, where there is one
    #[arg(long, value_name = "RANK", default_value = "0")]
    root: usize,
    /// Between all ranks: local, shm, tcp
    #[arg(short = 't', long, value_name = "T", default_value = "shm")]
    transport: String,
    /// Cores of the host [default: those of this machine]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cores: Option<u32>,
}

pub(super) fn price(options: &Options) -> Result<u8> {
    let Options { collective: kind, ranks, root, .. } = *options;
    let collective = rooted(kind, root, ranks)?;
    let cores = match options.cores {
        Some(cores) => cores,
        None => u32::try_from(std::thread::available_parallelism().map_or(1, usize::from))?,
    };
    let machine = machine(&options.transport, ranks, cores)?;
    let able: Vec<_> = algorithm::ALL.iter().copied().filter(|algorithm| algorithm.does(kind)).collect();
    let chooser = Chooser::new(kind, &machine, Needs::default());

    let mut out = io::stdout().lock();
    writeln!(
        out,
        "# {kind}: {ranks} ranks on {cores} cores over {}; predicted microseconds, * is walked",
        options.transport
    )?;
    write!(out, "{:>12}", "bytes")?;
    for algorithm in &able {
        write!(out, " {:>12} ", algorithm.name())?;
    }
    writeln!(out)?;
    for &bytes in &options.bytes {
        write!(out, "{bytes:>12}")?;
        let pick = algorithm::ALL[chooser.row(sample(kind, bytes as u64)).algorithm].name();
        for algorithm in &able {
            let mark = if algorithm.name() == pick { '*' } else { ' ' };
            write!(out, " {:>12}{mark}", cell(*algorithm, collective, &machine, bytes as u64))?;
        }
        writeln!(out)?;
    }
    Ok(0)
}

/// The price in microseconds, or nothing where the algorithm has no plan that would run.
fn cell<F>(algorithm: &dyn Algorithm, collective: Collective, machine: &Machine<F>, bytes: u64) -> String
where
    F: Fn(usize, usize) -> Cost,
{
    let plans = algorithm::plans(algorithm, collective, &machine.topology);
    match plans.and_then(|plans| priced(&plans, machine, bytes).ok()) {
        Some(ns) => format!("{:.2}", ns as f64 / 1e3),
        None => "-".to_owned(),
    }
}

/// A host like this one, as a communicator over that transport prices it.
fn machine(name: &str, ranks: usize, cores: u32) -> Result<Machine<impl Fn(usize, usize) -> Cost>> {
    let named = transport::choose(Some(&[name.to_owned()]), Some(&Hub::new())).context("--transport")?;
    let transport = named.first().ok_or_else(|| usage("--transport names none"))?;
    let cost = reach(&**transport).map_err(|why| anyhow!("{name}: {why}"))?;
    Ok(Machine {
        topology: Topology::one_host(ranks)
            .with_cores(cores as usize)
            .sharing_memory(transport.handover().is_some()),
        cost: move |_, _| cost,
        core: Core::MEASURED,
        host: Host::MEASURED,
        slot: u32::try_from(transport.slot())?,
        credit: 4,
        lends: false,
    })
}
