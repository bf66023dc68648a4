//! Every one-step mutation of every plan is refused, or the plan still proves: then it is equivalent, and
//! walks well in random orders, too.

use std::collections::BTreeMap;

use super::walk::walk;
use super::{cases, plans, topologies};
use kolo::algorithm;
use kolo::plan::{CollectiveKind, Plan, Source, Span, Step, prove};

/// A way to change one step of a lane; nothing where it changes nothing.
type Mutation = (&'static str, Box<dyn Fn(&mut Vec<Step>)>);

/// All mutations of the step at `at`.
fn mutations(plan: &Plan, lane: usize, at: usize, rank: usize, ranks: usize) -> Vec<Mutation> {
    let steps = &plan.lanes[lane].steps;
    let mut all: Vec<Mutation> = vec![
        ("drop", Box::new(move |steps| drop(steps.remove(at)))),
        ("duplicate", Box::new(move |steps| steps.insert(at, steps[at].clone()))),
    ];
    if steps.get(at + 1).is_some_and(|next| *next != steps[at]) {
        all.push(("swap", Box::new(move |steps| steps.swap(at, at + 1))));
    }
    let retargeted = retarget(&steps[at], plan.blocks, rank as u32, ranks as u32);
    all.extend(
        retargeted
            .into_iter()
            .map(|step| -> Mutation { ("retarget", Box::new(move |steps| steps[at] = step.clone())) }),
    );
    all
}

/// The step with each peer and each span's block, one after the other, moved to the next one.
fn retarget(step: &Step, blocks: u32, rank: u32, ranks: u32) -> Vec<Step> {
    let next_rank = |peer: u32| (1..ranks).map(|by| (peer + by) % ranks).find(|&other| other != rank);
    let (sources, finish, into, to) = match step {
        Step::Move { sources, finish, into, to } => (sources, finish, into, to),
        Step::Signal(peer) | Step::Await(peer) => {
            let other = next_rank(*peer).filter(|other| other != peer).into_iter();
            let signals = matches!(step, Step::Signal(_));
            return other.map(|peer| if signals { Step::Signal(peer) } else { Step::Await(peer) }).collect();
        }
        Step::Post(_) | Step::Join(_) => return Vec::new(),
    };
    let next_block = |span: Span| Span { first: (span.first + 1) % blocks, ..span };
    let mut all = Vec::new();
    for index in 0..sources.len() {
        let mut sources = sources.to_vec();
        sources[index] = match sources[index] {
            Source::From(peer) => Source::From(next_rank(peer).unwrap_or(peer)),
            Source::Local(span) => Source::Local(next_block(span)),
        };
        all.push(Step::Move { sources: sources.into(), finish: *finish, into: *into, to: to.clone() });
    }
    for index in 0..to.len() {
        let mut to = to.to_vec();
        to[index] = next_rank(to[index]).unwrap_or(to[index]);
        all.push(Step::Move { sources: sources.clone(), finish: *finish, into: *into, to: to.into() });
    }
    if let Some(span) = into {
        let into = Some(next_block(*span));
        all.push(Step::Move { sources: sources.clone(), finish: *finish, into, to: to.clone() });
    }
    all.retain(|other| other != step);
    all
}

#[test]
fn every_one_step_mutation_is_refused_or_equivalent() {
    println!("{:>9} {:>14}   refused + equivalent of each mutation, 2 to 8 ranks", "", "");
    for (algorithm, kind) in cases() {
        let mut counts: BTreeMap<&str, [u32; 2]> = BTreeMap::new();
        for (ranks, topology) in
            (2..=8).flat_map(|ranks| topologies(algorithm, ranks).into_iter().map(move |on| (ranks, on)))
        {
            let collective = kind.at(ranks / 2);
            let mut plans = algorithm::plans(algorithm, collective, &topology).expect("it does");
            for rank in 0..ranks {
                for lane in 0..plans[rank].lanes.len() {
                    for at in 0..plans[rank].lanes[lane].steps.len() {
                        for (name, mutate) in mutations(&plans[rank], lane, at, rank, ranks) {
                            let whole = plans[rank].lanes[lane].steps.clone();
                            mutate(&mut plans[rank].lanes[lane].steps);
                            let equivalent = prove(collective, &plans).is_ok();
                            counts.entry(name).or_default()[usize::from(equivalent)] += 1;
                            // No plan has a step that it does not need, and no step is as good elsewhere.
                            let step = &whole[at];
                            let case = || {
                                format!(
                                    "{} {kind} of {ranks}: {name} {rank}.{lane}.{at} {step}",
                                    algorithm.name()
                                )
                            };
                            assert!(!equivalent || matches!(name, "swap" | "duplicate"), "{}", case());
                            let walked = if equivalent {
                                walk(collective, &plans, u64::from(at as u32))
                            } else {
                                Ok(())
                            };
                            assert_eq!(walked, Ok(()), "{}", case());
                            plans[rank].lanes[lane].steps = whole;
                        }
                    }
                }
            }
        }
        let printed: Vec<_> =
            counts.iter().map(|(name, [refused, equal])| format!("{name} {refused} + {equal}")).collect();
        println!("{:>9} {:>14}   {}", algorithm.name(), kind.name(), printed.join(", "));
    }
}

#[test]
fn proved_plans_walk_well_in_any_order() {
    for (algorithm, kind) in cases() {
        for ranks in [1, 2, 3, 4, 5, 6, 7, 8, 11] {
            let collective = kind.at(ranks - 1);
            let plans = plans(algorithm, collective, ranks);
            for seed in 0..8 {
                let walked = walk(collective, &plans, seed);
                assert_eq!(walked, Ok(()), "{} {kind} of {ranks}, seed {seed}", algorithm.name());
            }
        }
    }
}

/// The walk finds what the prover finds, or it would be no second opinion.
#[test]
fn a_lent_source_overwritten_shows_in_some_walk() {
    let collective = CollectiveKind::AllReduce.at(0);
    let mut plans = plans(algorithm::find("direct").expect("there"), collective, 4);
    plans.iter_mut().for_each(|plan| plan.lends = true);
    assert!(prove(collective, &plans).is_err());
    assert!((0..64).any(|seed| walk(collective, &plans, seed).is_err()));
}
