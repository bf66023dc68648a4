//! `kolo plan price`: what each algorithm would take, and which one would be walked.

mod measured;

use std::io::{self, Write};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use kolo::algorithm;
use kolo::algorithm::choose::{Chooser, Needs, Quote, sample};
use kolo::config::Links;
use kolo::plan::{CollectiveKind, Core, Host, Machine};
use kolo::topology::{Cost, Topology};
use kolo::transport;
use kolo::transport::local::Hub;

use super::{Place, rooted};
use crate::bench::parse_size;
use crate::doctor::{Where, reach};
use crate::failure::usage;

const EXAMPLES: &str = "\
Examples:
  kolo plan price all_reduce --ranks 8
  kolo plan price all_reduce --ranks 8 --bytes 8,1K,64K,1M --transport tcp
  kolo plan price broadcast --ranks 64 --cores 64 --root 3
  kolo plan price all_reduce --hosts 1024 --ranks-per-host 8 --bytes 1G --network 100
  mpirun -n 8 kolo plan price all_reduce --measured     by what the network between its hosts can do";

/// The most ranks to price.
const MOST_RANKS: u64 = 1 << 20;

/// Steps of all ranks up to which they are run: a few seconds.
const MOST_STEPS: u64 = 1 << 21;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The collective
    collective: CollectiveKind,
    /// How many ranks
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        value_parser = number(),
        required_unless_present_any = ["ranks_per_host", "measured"],
        conflicts_with = "ranks_per_host"
    )]
    ranks: Option<u64>,
    /// Hosts, among which ranks are divided in runs as even as can be [default: 1]
    #[arg(long, value_name = "N", value_parser = number())]
    hosts: Option<u64>,
    /// How many ranks on each of them
    #[arg(long, value_name = "N", value_parser = number(), requires = "hosts")]
    ranks_per_host: Option<u64>,
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
    /// Between the ranks of a host: local, shm, tcp [default: shm; with --measured, whatever reaches]
    #[arg(short = 't', long, value_name = "T")]
    transport: Option<String>,
    /// Cores of each host [default: one for each rank, and of one host those of this machine]
    #[arg(long, value_name = "N", value_parser = number())]
    cores: Option<u64>,
    /// What the network of each host carries, in Gbit/s [default: 10]
    #[arg(long, value_name = "RATE", value_parser = parse_positive, requires = "hosts")]
    network: Option<f64>,
    /// What a message takes between two hosts, in microseconds [default: 17]
    #[arg(long, value_name = "TIME", value_parser = parse_positive, requires = "hosts")]
    latency: Option<f64>,
    /// Join a job as `kolo bench` does, and price by what its hosts' network was measured to do
    #[arg(long, conflicts_with_all = ["hosts", "ranks_per_host", "cores", "network", "latency"])]
    measured: bool,
}

impl Options {
    /// What connects the ranks of a host that nobody measured.
    fn within(&self) -> &str {
        self.transport.as_deref().unwrap_or("shm")
    }
}

fn number() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=MOST_RANKS)
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if f64::is_normal(number) && number > 0.0 && number < 1e6 => Ok(number),
        _ => Err("a number above 0 and below a million".to_owned()),
    }
}

pub(super) fn price(options: &Options) -> Result<u8> {
    if options.measured {
        return measured::price(options);
    }
    let kind = options.collective;
    let (ranks, place) = place(options)?;
    rooted(kind, options.root, ranks)?;
    let machine = machine(options, place.of(ranks))?;
    let mut out = io::stdout().lock();
    write!(out, "# {kind}: {ranks} ranks on ")?;
    if place.hosts > 1 {
        write!(out, "{} hosts with ", place.hosts)?;
    }
    let cores = place.cores.map_or("a core for each rank".to_owned(), |cores| format!("{cores} cores"));
    writeln!(out, "{cores} over {}; predicted microseconds, * is walked", options.within())?;
    write_prices(&mut out, options, &machine)?;
    Ok(0)
}

/// A table of what each algorithm takes on a machine.
fn write_prices<F>(out: &mut impl Write, options: &Options, machine: &Machine<F>) -> io::Result<()>
where
    F: Fn(usize, usize) -> Cost,
{
    let kind = options.collective;
    let able: Vec<_> = algorithm::ALL
        .iter()
        .copied()
        .filter(|algorithm| algorithm.does(kind) && algorithm.suits(&machine.topology))
        .collect();
    // A communicator chooses for the first root, whoever is the root of a call.
    let walked = Chooser::new(kind.at(0), machine, Needs::default());
    let asked = Chooser::new(kind.at(options.root), machine, Needs::default());
    let mut about = false;
    write!(out, "{:>12}", "bytes")?;
    for algorithm in &able {
        write!(out, " {:>14} ", algorithm.name())?;
    }
    writeln!(out)?;
    for &bytes in &options.bytes {
        write!(out, "{bytes:>12}")?;
        let pick = algorithm::ALL[walked.row(sample(kind, bytes as u64)).algorithm].name();
        for algorithm in &able {
            let mark = if algorithm.name() == pick { '*' } else { ' ' };
            let quote = asked.quote(*algorithm, bytes as u64, MOST_STEPS);
            about |= matches!(quote, Some(Quote::About(_)));
            write!(out, " {:>14}{mark}", cell(quote))?;
        }
        writeln!(out)?;
    }
    if about {
        writeln!(
            out,
            "# ~ by what a few ranks do, one thing after the other: all ranks' steps are too many to run"
        )?;
    }
    Ok(())
}

/// A price in microseconds, or nothing where there is no plan that would run.
fn cell(quote: Option<Quote>) -> String {
    match quote {
        Some(Quote::Run(ns)) => format!("{:.2}", ns as f64 / 1e3),
        Some(Quote::About(ns)) => format!("~{:.0}", ns as f64 / 1e3),
        None => "-".to_owned(),
    }
}

/// How many ranks, and where they are.
fn place(options: &Options) -> Result<(usize, Place)> {
    let hosts = options.hosts.unwrap_or(1);
    let ranks = match (options.ranks, options.ranks_per_host) {
        (Some(ranks), _) => ranks,
        (None, each) => hosts * each.unwrap_or(1),
    };
    if ranks > MOST_RANKS {
        return Err(usage(format!("{ranks} ranks together: {MOST_RANKS} can be priced")));
    }
    let here = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let cores = options.cores.or_else(|| (hosts == 1).then(here)).map(u32::try_from).transpose()?;
    Ok((usize::try_from(ranks)?, Place { cores, hosts: u32::try_from(hosts)? }))
}

/// Hosts like this one, as a communicator prices them.
fn machine(options: &Options, topology: Topology) -> Result<Machine<impl Fn(usize, usize) -> Cost>> {
    let name = options.within();
    let named = transport::choose(Some(&[name.to_owned()]), Some(&Hub::new()), &Links::default())
        .context("--transport")?;
    let within = named.first().ok_or_else(|| usage("--transport names none"))?;
    let near = reach(&**within, Where::Here).map_err(|why| anyhow!("{name}: {why}"))?;
    let (mut far, mut slot, mut host) = (near, within.slot(), Host::MEASURED);
    if (0..topology.size()).any(|rank| !topology.together(0, rank)) {
        let all = transport::choose(None, None, &Links::default())?;
        let between = all.iter().find_map(|by| Some((by, reach(&**by, Where::Elsewhere).ok()?)));
        let (between, nominal) = between.ok_or_else(|| anyhow!("no transport reaches other hosts"))?;
        // A Gbit/s is 125 bytes a microsecond.
        let bytes_per_us =
            options.network.map_or(nominal.bytes_per_us, |rate| (rate * 125.0).max(1.0) as u32);
        let latency_ns = options.latency.map_or(nominal.latency_ns, |time| (time * 1e3) as u32);
        far = Cost { latency_ns, bytes_per_us, ..nominal };
        host.network_per_us = bytes_per_us;
        slot = slot.min(between.slot());
    }
    let topology = topology.sharing_memory(within.handover().is_some());
    let hosts = topology.clone();
    Ok(Machine {
        topology,
        cost: move |a, b| if hosts.together(a, b) { near } else { far },
        core: Core::MEASURED,
        host,
        slot: u32::try_from(slot)?,
        credit: 4,
        lends: false,
    })
}
