//! `kolo plan price --measured`: what a job's hosts found out about the network between them, and prices by that.

use std::io::{self, Write};

use anyhow::Result;
use kolo::Communicator;
use kolo::plan::Machine;
use kolo::topology::Cost;

use super::{Options, rooted, write_prices};
use crate::ranks::Ranks;

/// Hosts of which all pairs are printed; of more, each with the next one.
const MOST_PAIRED: usize = 16;

/// Ranks to start where nobody said how many.
const RANKS: usize = 2;

/// Joins the job that a launcher started, or starts ranks here; rank 0 prints.
pub(super) fn price(options: &Options) -> Result<u8> {
    let asked = options.ranks.map(usize::try_from).transpose()?;
    let ranks = Ranks { asked, default: RANKS, transport: options.transport.as_deref() };
    let check = |ranks, _| rooted(options.collective, options.root, ranks).map(drop);
    ranks.run(check, |communicator| print(&communicator, options))
}

fn print(communicator: &Communicator, options: &Options) -> Result<u8> {
    if communicator.rank() != 0 {
        return Ok(0);
    }
    let machine = communicator.machine();
    let mut out = io::stdout().lock();
    write_network(&mut out, &machine)?;
    let (kind, size) = (options.collective, communicator.size());
    writeln!(out, "# {kind}: {size} ranks, as they are; predicted microseconds, * is walked")?;
    write_prices(&mut out, options, &machine)?;
    Ok(0)
}

/// A line for each pair of hosts.
fn write_network<F>(out: &mut impl Write, machine: &Machine<F>) -> io::Result<()>
where
    F: Fn(usize, usize) -> Cost,
{
    let topology = &machine.topology;
    let first: Vec<usize> = (0..topology.size()).filter(|&rank| topology.host(rank) == rank).collect();
    if first.len() == 1 {
        return writeln!(out, "# all ranks share a host: there is no network to measure");
    }
    let each = if first.len() > MOST_PAIRED { ", each with the next one" } else { "" };
    writeln!(out, "# {} hosts by their first ranks{each}, measured when the job started", first.len())?;
    writeln!(out, "# {:>8} {:>8} {:>12} {:>12}", "rank", "and", "latency us", "Gbit/s")?;
    for (at, &a) in first.iter().enumerate() {
        let most = if each.is_empty() { first.len() } else { 1 };
        for &b in first[at + 1..].iter().take(most) {
            let cost = (machine.cost)(a, b);
            // Both ends handle a message; a Gbit/s is 125 bytes a microsecond.
            let latency = f64::from(cost.latency_ns) + 2.0 * f64::from(cost.handling.ns);
            let rate = f64::from(cost.bytes_per_us) / 125.0;
            writeln!(out, "# {a:>8} {b:>8} {:>12.1} {rate:>12.2}", latency / 1e3)?;
        }
    }
    Ok(())
}
