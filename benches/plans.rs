//! What a step costs to write, to fuse and to prove, and a choice to make: `cargo bench --bench plans -- [RANKS] [NAMES...]`,
//! where names pick algorithms and collectives.

use std::hint::black_box;
use std::time::Instant;

use kolo::algorithm;
use kolo::algorithm::choose::{Chooser, Needs, samples};
use kolo::plan::{CollectiveKind, Core, Host, Machine, Plan, fuse, prove};
use kolo::topology::{Cost, Handling, Topology};

fn main() {
    proofs();
    choices();
}

/// What it costs to choose at all sizes; a communicator chooses at those of its calls.
fn choices() {
    println!("{:>14} {:>6}   us for all sizes, the choices", "", "ranks");
    for kind in CollectiveKind::ALL {
        for ranks in [2, 4, 8, 64, 512, 4096] {
            let machine = Machine {
                core: Core { step_ns: 15, switch_ns: 1300, touch_per_us: 30_000, cache: 1 << 20 },
                host: Host { cache: 0, memory_per_us: 40_000, network_per_us: 3_000 },
                credit: 4,
                ..Machine::textbook(ranks, |_, _| Cost {
                    latency_ns: 120,
                    bytes_per_us: 20_000,
                    handling: Handling::NONE,
                })
            };
            let start = Instant::now();
            let chooser = Chooser::new(kind.at(0), &machine, Needs::default());
            let rows: Vec<_> = samples(kind).into_iter().map(|sample| chooser.row(sample)).collect();
            let us = start.elapsed().as_micros();
            let mut names: Vec<_> =
                rows.iter().map(|row| (row.from, algorithm::ALL[row.algorithm].name())).collect();
            names.dedup_by_key(|(_, name)| *name);
            println!("{:>14} {ranks:>6}   {us:>8} {names:?}", kind.name());
        }
    }
}

fn proofs() {
    let arguments: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let ranks = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(256);
    let names: Vec<_> = arguments.iter().filter(|argument| argument.parse::<usize>().is_err()).collect();
    let picked = |name: &str, known: &dyn Fn(&str) -> bool| {
        let mut asked = names.iter().filter(|asked| known(asked)).peekable();
        asked.peek().is_none() || asked.any(|asked| *asked == name)
    };
    let is_kind = |name: &str| name.parse::<CollectiveKind>().is_ok();
    let is_algorithm = |name: &str| algorithm::find(name).is_ok();
    println!(
        "{:>9} {:>14} {:>6} {:>10}   ns per simple step: write, fuse; per fused step: prove",
        "", "", "ranks", "steps"
    );
    for algorithm in algorithm::ALL.iter().filter(|algorithm| picked(algorithm.name(), &is_algorithm)) {
        for kind in CollectiveKind::ALL {
            if !algorithm.does(kind) || !picked(kind.name(), &is_kind) {
                continue;
            }
            let (collective, topology) = (kind.at(0), Topology::one_host(ranks));
            let count = |plan: &Plan| plan.lanes.iter().map(|lane| lane.steps.len()).sum::<usize>();
            let (mut written, mut write_ns, mut fuse_ns) = (0, 0, 0);
            let mut fused = Vec::with_capacity(ranks);
            for rank in 0..ranks {
                let start = Instant::now();
                let simple = algorithm.simple(collective, rank, &topology).expect("it does");
                write_ns += start.elapsed().as_nanos();
                let start = Instant::now();
                fused.push(fuse(&simple));
                fuse_ns += start.elapsed().as_nanos();
                written += count(&simple);
            }
            let start = Instant::now();
            let proof = black_box(prove(collective, &fused));
            let prove_ns = start.elapsed().as_nanos();
            let per = |ns: u128, steps: u64| ns as f64 / steps as f64;
            let steps: u64 = fused.iter().map(|plan| count(plan) as u64).sum();
            let (write, fuse) = (per(write_ns, written as u64), per(fuse_ns, written as u64));
            let prove = per(prove_ns, steps);
            println!(
                "{:>9} {:>14} {ranks:>6} {steps:>10}   {write:8.1} {fuse:8.1} {prove:8.1}",
                algorithm.name(),
                kind.name()
            );
            match proof {
                Ok(proof) => println!("          {proof}"),
                Err(refusal) => println!("          refused: {refusal}"),
            }
        }
    }
}
