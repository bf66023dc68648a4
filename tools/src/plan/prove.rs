//! `kolo plan prove`: runs plans under the simulator, on all cores.

use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use kolo::algorithm::{self, Algorithm};
use kolo::plan::{Collective, CollectiveKind, Plan, Proof};
use kolo::topology::Topology;

use super::{Place, find, rooted};
use crate::failure::usage;
use crate::run::parse_ranks;

const EXAMPLES: &str = "\
Examples:
  kolo plan prove all_reduce --algorithm ring --ranks 4096
  kolo plan prove all_reduce --algorithm board --ranks 8 --cores 2
  kolo plan prove --all --ranks 1-64 --hosts 4
  kolo plan prove broadcast --ranks 1-16         by every algorithm that does it, from every root
  kolo plan prove --all --ranks 1-64             every algorithm of every collective";

/// Up to so many ranks, collectives are proved from every root; above, from the first, the middle, the last.
const EVERY_ROOT: usize = 8;

/// Above so many ranks a job's plans are written on all cores.
const LARGE: usize = 512;

#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Options {
    /// The collective
    #[arg(required_unless_present = "all")]
    collective: Option<CollectiveKind>,
    /// Every algorithm of every collective
    #[arg(long, conflicts_with_all = ["collective", "algorithm", "root"])]
    all: bool,
    /// The algorithm [default: every one that does the collective]
    #[arg(short = 'a', long, value_name = "A")]
    algorithm: Option<String>,
    /// How many ranks: 8, or 1-64, or 2,3,8-16
    #[arg(short = 'n', long, value_name = "RANGE", value_parser = parse_range)]
    ranks: Range,
    #[command(flatten)]
    place: Place,
    /// The root, where there is one [default: every one up to 8 ranks, three above]
    #[arg(long, value_name = "RANK")]
    root: Option<usize>,
}

/// Numbers of ranks, and how they were written.
#[derive(Clone, Debug)]
struct Range {
    text: String,
    ranks: Vec<usize>,
}

/// One algorithm of one collective, with all its plans to prove.
struct Family {
    kind: CollectiveKind,
    algorithm: &'static dyn Algorithm,
    plans: Vec<(Collective, usize)>,
}

/// The outcome for one plan: a proof, or why not.
type Verdict = Result<Proof, String>;

pub(super) fn prove(options: &Options) -> Result<u8> {
    let families = families(options)?;
    let work: Vec<(usize, Collective, usize)> = families
        .iter()
        .enumerate()
        .flat_map(|(family, f)| f.plans.iter().map(move |&(collective, ranks)| (family, collective, ranks)))
        .collect();
    let start = Instant::now();
    let progress = ProgressBar::new(work.len() as u64);
    progress.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} plans, {eta} left  {msg}")?);
    let verdicts = in_parallel(work.len(), |index| {
        let (family, collective, ranks) = work[index];
        let algorithm = families[family].algorithm;
        progress.set_message(format!("{} {} {ranks}", collective.kind, algorithm.name()));
        let verdict = prove_one(algorithm, collective, &options.place.of(ranks));
        progress.inc(1);
        verdict
    });
    progress.finish_and_clear();

    let mut out = io::stdout().lock();
    let mut rest = &verdicts[..];
    for family in &families {
        let (own, others) = rest.split_at(family.plans.len());
        rest = others;
        write_family(&mut out, family, own, &options.ranks.text)?;
    }
    let refused = verdicts.iter().filter(|verdict| verdict.is_err()).count();
    let (proved, seconds) = (verdicts.len() - refused, start.elapsed().as_secs_f64());
    let plans = if proved == 1 { "plan" } else { "plans" };
    writeln!(out, "{proved} {plans} proved, {refused} refused, in {seconds:.1} s")?;
    Ok(u8::from(refused > 0))
}

fn families(options: &Options) -> Result<Vec<Family>> {
    let Options { collective, ranks: Range { ranks, .. }, root, .. } = options;
    if let (Some(kind), true) = (collective, root.is_some())
        && !kind.rooted()
    {
        return Err(usage(format!("--root: {kind} has no root")));
    }
    let kinds = collective.map_or(CollectiveKind::ALL.to_vec(), |kind| vec![kind]);
    let mut families = Vec::new();
    for kind in kinds {
        let able = match &options.algorithm {
            Some(name) => vec![find(name, kind)?],
            None => {
                let does =
                    |algorithm: &&dyn Algorithm| algorithm.does(kind) && options.place.suits(*algorithm);
                algorithm::ALL.iter().copied().filter(does).collect()
            }
        };
        let mut plans = Vec::new();
        for &ranks in ranks {
            match root {
                Some(root) => plans.push((rooted(kind, *root, ranks)?, ranks)),
                None => plans.extend(roots(kind, ranks).into_iter().map(|root| (kind.at(root), ranks))),
            }
        }
        families.extend(able.into_iter().map(|algorithm| Family { kind, algorithm, plans: plans.clone() }));
    }
    Ok(families)
}

fn roots(kind: CollectiveKind, ranks: usize) -> Vec<usize> {
    match ranks {
        _ if !kind.rooted() => vec![0],
        _ if ranks <= EVERY_ROOT => (0..ranks).collect(),
        _ => vec![0, ranks / 2, ranks - 1],
    }
}

fn prove_one(algorithm: &dyn Algorithm, collective: Collective, topology: &Topology) -> Verdict {
    let ranks = topology.size();
    let plan = |rank| algorithm.plan(collective, rank, topology);
    // A large job's plans are worth writing on several cores; those of many small jobs are spread already.
    let plans: Option<Vec<Plan>> = match ranks > LARGE {
        true => in_parallel(ranks, plan).into_iter().collect(),
        false => (0..ranks).map(plan).collect(),
    };
    let plans = plans.ok_or_else(|| "it has no plan".to_owned())?;
    kolo::plan::prove(collective, &plans).map_err(|refusal| refusal.to_string())
}

/// One line for what was proved, one for each refusal.
fn write_family(out: &mut impl Write, family: &Family, verdicts: &[Verdict], range: &str) -> io::Result<()> {
    let Family { kind, algorithm, plans } = family;
    let name = algorithm.name();
    for ((collective, ranks), verdict) in plans.iter().zip(verdicts) {
        if let Err(refusal) = verdict {
            let root = if kind.rooted() { format!(" from {}", collective.root) } else { String::new() };
            writeln!(out, "{kind} {name}: {ranks} ranks{root}: refused: {refusal}")?;
        }
    }
    let proofs: Vec<&Proof> = verdicts.iter().filter_map(|verdict| verdict.as_ref().ok()).collect();
    match proofs[..] {
        [] => Ok(()),
        [proof] => writeln!(out, "{kind} {name}: {} ranks: proved: {proof}", proof.ranks),
        _ => {
            let steps = proofs.iter().map(|proof| proof.steps).max().unwrap_or(0);
            let hops = proofs.iter().map(|proof| proof.hops).max().unwrap_or(0);
            let order = if proofs.iter().all(|proof| proof.rank_order) { ", in rank order" } else { "" };
            let lends = if proofs.iter().all(|proof| proof.lends) { ", may lend" } else { "" };
            writeln!(
                out,
                "{:<14} {name:<12} {range} ranks: {} plans proved, up to {steps} steps, {hops} hops{order}{lends}",
                kind.name(),
                proofs.len()
            )
        }
    }
}

/// `work(0)`, `work(1)`, ... `work(count - 1)`, computed on all cores. The last come first: they are the
/// largest.
fn in_parallel<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<T>>> = Mutex::new((0..count).map(|_| None).collect());
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(count);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let index @ 0.. = next.fetch_add(1, Ordering::Relaxed)
                    && index < count
                {
                    let index = count - 1 - index;
                    let result = work(index);
                    if let Ok(mut results) = results.lock() {
                        results[index] = Some(result);
                    }
                }
            });
        }
    });
    results.into_inner().map_or_else(|_| Vec::new(), |results| results.into_iter().flatten().collect())
}

/// `8`, `1-64`, `2,3,8-16`
fn parse_range(text: &str) -> Result<Range, String> {
    let mut ranks = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (parse_ranks(first.trim())?, parse_ranks(last.trim())?);
        if last < first {
            return Err(format!("{first}-{last} is empty"));
        }
        ranks.extend(first..=last);
    }
    Ok(Range { text: text.to_owned(), ranks })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_numbers_and_intervals() {
        assert_eq!(parse_range("8").unwrap().ranks, [8]);
        assert_eq!(parse_range("1-3,7").unwrap().ranks, [1, 2, 3, 7]);
        for text in ["", "0", "3-1", "x", "1-", "99999999"] {
            assert!(parse_range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn parallel_results_keep_their_order() {
        assert_eq!(in_parallel(100, |i| i * i), (0..100).map(|i| i * i).collect::<Vec<_>>());
        assert!(in_parallel(0, |i| i).is_empty());
    }
}
