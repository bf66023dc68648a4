//! `kolo plan`: shows plans, proves them, prices them.

mod price;
mod prove;

use std::io::{self, Write};

use anyhow::Result;
use clap::{Args, Subcommand};
use kolo::algorithm::{self, Algorithm};
use kolo::plan::{Collective, CollectiveKind, plan_id};
use kolo::topology::Topology;

use crate::failure::usage;
use crate::run::parse_ranks;

const EXAMPLES: &str = "\
Examples:
  kolo plan show all_reduce --algorithm ring --ranks 4 --rank 1
  kolo plan prove all_reduce --algorithm ring --ranks 4096
  kolo plan prove --all --ranks 1-64
  kolo plan price all_reduce --ranks 8";

const SHOW_EXAMPLES: &str = "\
Examples:
  kolo plan show all_reduce --algorithm ring --ranks 4
  kolo plan show broadcast --algorithm direct --ranks 3 --root 2 --rank 0
  kolo plan show all_reduce --algorithm hierarchical --ranks 5 --hosts 2
  kolo plan show all_reduce --algorithm ring --ranks 4 --simple    before its steps are fused";

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// Print the steps of a plan
    Show(Show),
    /// Prove plans: each contribution exactly once, no deadlock, nothing overwritten while in use
    Prove(prove::Options),
    /// Predict what each algorithm takes, and which one is walked
    Price(price::Options),
}

#[derive(Args, Debug)]
#[command(after_help = SHOW_EXAMPLES)]
struct Show {
    /// The collective
    collective: CollectiveKind,
    /// The algorithm
    #[arg(short = 'a', long, value_name = "A")]
    algorithm: String,
    /// How many ranks
    #[arg(short = 'n', long, value_name = "N", value_parser = parse_ranks)]
    ranks: usize,
    /// The root, where there is one
    #[arg(long, value_name = "RANK", default_value = "0")]
    root: usize,
    /// This rank's plan only
    #[arg(long, value_name = "RANK")]
    rank: Option<usize>,
    #[command(flatten)]
    place: Place,
    /// As the algorithm wrote it, before its steps are fused
    #[arg(long)]
    simple: bool,
}

/// Where ranks run.
#[derive(Args, Clone, Copy, Debug)]
struct Place {
    /// Cores of each host, which neighbouring ranks share [default: one for each rank]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cores: Option<u32>,
    /// Hosts, among which ranks are divided in runs as even as can be
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    hosts: u32,
}

impl Place {
    /// That of so many ranks.
    fn of(self, ranks: usize) -> Topology {
        let hosts = ranks.min(self.hosts as usize);
        // A host is named by its first rank.
        let host = |rank: usize| (rank * hosts / ranks * ranks).div_ceil(hosts) as u32;
        let topology = Topology::new((0..ranks).map(host).collect()).sharing_memory(true);
        match self.cores {
            Some(cores) => topology.with_cores(cores as usize),
            None => topology,
        }
    }

    /// Whether plans of an algorithm can be had there.
    fn suits(self, algorithm: &dyn Algorithm) -> bool {
        self.hosts == 1 || !algorithm.uses_board()
    }
}

/// Does what was asked of plans, and returns the exit code.
pub(crate) fn plan(options: &Options) -> Result<u8> {
    match &options.action {
        Action::Show(options) => show(options),
        Action::Prove(options) => prove::prove(options),
        Action::Price(options) => price::price(options),
    }
}

fn show(options: &Show) -> Result<u8> {
    let Show { collective: kind, ranks, root, rank, simple, .. } = *options;
    let algorithm = find(&options.algorithm, kind)?;
    let collective = rooted(kind, root, ranks)?;
    if let Some(rank) = rank {
        check_rank("--rank", rank, ranks)?;
    }
    let topology = options.place.of(ranks);
    let plan = |rank| match simple {
        true => algorithm.simple(collective, rank, &topology),
        false => algorithm.plan(collective, rank, &topology),
    };
    let mut out = io::stdout().lock();
    let mut fingerprints = Vec::new();
    for each in 0..ranks {
        let Some(plan) = plan(each) else {
            return Err(usage(format!("{} has no plan for {kind} of {ranks} ranks", algorithm.name())));
        };
        fingerprints.push(plan.fingerprint());
        if rank.is_none_or(|rank| rank == each) {
            write!(out, "rank {each}: {plan}")?;
        }
    }
    writeln!(out, "id {:016x}", plan_id(fingerprints))?;
    Ok(0)
}

/// The algorithm of that name, which must do `kind`.
fn find(name: &str, kind: CollectiveKind) -> Result<&'static dyn Algorithm> {
    let algorithm = algorithm::find(name)?;
    match algorithm.does(kind) {
        true => Ok(algorithm),
        false => Err(usage(format!("{name} does not do {kind}; {} do", names(kind).join(", ")))),
    }
}

/// The algorithms that do `kind`.
fn names(kind: CollectiveKind) -> Vec<&'static str> {
    algorithm::ALL.iter().filter(|algorithm| algorithm.does(kind)).map(|algorithm| algorithm.name()).collect()
}

fn rooted(kind: CollectiveKind, root: usize, ranks: usize) -> Result<Collective> {
    check_rank("--root", root, ranks)?;
    Ok(kind.at(root))
}

fn check_rank(option: &str, rank: usize, ranks: usize) -> Result<()> {
    match rank < ranks {
        true => Ok(()),
        false => Err(usage(format!("{option} {rank} is not one of the ranks 0 to {}", ranks - 1))),
    }
}
