//! Every plan proved, wrong ones refused, prices and choices as the textbooks have them.

#[path = "plans/broken.rs"]
mod broken;
#[path = "plans/hosts.rs"]
mod hosts;
#[path = "plans/mutations.rs"]
mod mutations;
#[path = "plans/prices.rs"]
mod prices;
#[path = "plans/walk.rs"]
mod walk;

use kolo::algorithm::{self, Algorithm};
use kolo::plan::{Collective, CollectiveKind, Plan, Proof, Source, Step, fuse, given, plan_id, prove};
use kolo::topology::Topology;

/// Every algorithm with each kind of collective that it does.
fn cases() -> impl Iterator<Item = (&'static dyn Algorithm, CollectiveKind)> {
    let every = algorithm::ALL.iter().flat_map(|&a| CollectiveKind::ALL.map(|kind| (a, kind)));
    every.filter(|(algorithm, kind)| algorithm.does(*kind))
}

/// The collective at all roots worth telling apart.
fn at_roots(kind: CollectiveKind, ranks: usize) -> Vec<Collective> {
    let mut roots = match ranks {
        1..=16 => vec![0, ranks / 2, ranks - 1],
        _ => vec![ranks / 3],
    };
    roots.truncate(if kind.rooted() { 3 } else { 1 });
    roots.dedup();
    roots.into_iter().map(|root| kind.at(root)).collect()
}

/// The hosts worth telling apart: one with a core for each rank, and with fewer, or several of them, where that makes
/// a difference.
fn topologies(algorithm: &dyn Algorithm, ranks: usize) -> Vec<Topology> {
    let one_host = |cores| Topology::one_host(ranks).with_cores(cores).sharing_memory(algorithm.uses_board());
    let mut found = Vec::new();
    if !algorithm.suits(&one_host(ranks)) {
        let run = |length: usize| (0..ranks).map(|rank| (rank - rank % length) as u32).collect();
        let in_turn = |hosts: usize| (0..ranks).map(|rank| (rank % hosts) as u32).collect();
        let growing = |rank: usize| (1..).map(|host| host * host).take_while(|&first| first <= rank).last();
        let uneven = (0..ranks).map(|rank| growing(rank).unwrap_or(0) as u32).collect();
        let hosts = [run(ranks), run(1), run(2), run(ranks.div_ceil(2)), in_turn(3.min(ranks)), uneven];
        found.extend(hosts.map(Topology::new));
    }
    let mut cores = match algorithm {
        _ if algorithm.uses_board() => vec![ranks, ranks / 2, 3, 2, 1],
        _ if !found.is_empty() => vec![ranks / 2, 3],
        _ => vec![ranks],
    };
    cores.retain(|&cores| 0 < cores && cores <= ranks);
    cores.dedup();
    found.extend(cores.into_iter().map(one_host).filter(|topology| algorithm.suits(topology)));
    // Nobody has company.
    if found.is_empty() { vec![one_host(ranks)] } else { found }
}

fn plans(algorithm: &dyn Algorithm, collective: Collective, ranks: usize) -> Vec<Plan> {
    algorithm::plans(algorithm, collective, &Topology::one_host(ranks)).expect("it does this collective")
}

/// The proof, which must be had.
fn proved(algorithm: &dyn Algorithm, collective: Collective, plans: &[Plan]) -> Proof {
    prove(collective, plans).unwrap_or_else(|refusal| {
        let (name, Collective { kind, root }) = (algorithm.name(), collective);
        panic!("{name} {kind} at root {root} of {}: {refusal}", plans.len())
    })
}

#[test]
fn every_algorithm_is_proved_from_1_to_64_ranks() {
    let mut count = 0;
    for (algorithm, kind) in cases() {
        for ranks in 1..=64 {
            let mut hosts = topologies(algorithm, ranks);
            if hosts.len() > 5 && ranks > 24 {
                // The placements take turns: a third of them for each number of ranks.
                let mut turns = (0..3).cycle().skip(ranks);
                hosts.retain(|_| turns.next() == Some(0));
            }
            let cases = at_roots(kind, ranks).into_iter().flat_map(|at| hosts.iter().map(move |on| (at, on)));
            for (collective, topology) in cases {
                let plans = algorithm::plans(algorithm, collective, topology).expect("it does this");
                let proof = proved(algorithm, collective, &plans);
                let case = format!("{} {collective:?} of {ranks}: {proof}", algorithm.name());
                assert!(proof.ordered, "{case}");
                assert!(proof.rank_order || !algorithm.rank_order(kind), "{case}");
                assert_eq!(proof.lends, plans[0].lends, "{case}");
                assert!(plans[0].width == 0 || widest(&plans) == plans[0].width, "{case}");
                count += 1;
            }
        }
    }
    println!("{count} plans proved");
}

/// The widest span of any step.
fn widest(plans: &[Plan]) -> u32 {
    let steps = plans.iter().flat_map(|plan| &plan.lanes).flat_map(|lane| &lane.steps);
    steps.flat_map(Step::spans).map(|span| span.count).max().unwrap_or(1)
}

#[test]
fn logarithmic_algorithms_are_proved_at_hundreds_of_ranks() {
    for (algorithm, kind) in cases() {
        let rank_0 = |ranks| algorithm.plan(kind.at(0), 0, &Topology::one_host(ranks));
        let steps = |plan: &Plan| plan.lanes.iter().map(|lane| lane.steps.len()).sum::<usize>();
        for ranks in [100, 128, 255, 1000] {
            let Some(plan) = rank_0(ranks) else { continue };
            if steps(&plan) < 40 && (ranks < 256 || widest(&[plan]) == 1) {
                let collective = kind.at(ranks / 3);
                proved(algorithm, collective, &plans(algorithm, collective, ranks));
            }
        }
    }
}

/// Sources are given away to ranks that answer, as far as a rank's own plan can tell; between two ranks, surely.
#[test]
fn who_is_given_a_source_answers() {
    for (algorithm, kind) in cases() {
        for ranks in 1..=9 {
            let plans = plans(algorithm, kind.at(0), ranks);
            let case = format!("{} {kind} of {ranks}", algorithm.name());
            let mut count = 0;
            for (rank, plan) in plans.iter().enumerate() {
                let steps = plan.lanes.iter().flat_map(|lane| &lane.steps);
                let given = steps.zip(given(plan).into_iter().flatten()).filter(|(_, gives)| *gives);
                for (step, _) in given {
                    let peer = step.receivers()[0] as usize;
                    let from = Source::From(rank as u32);
                    let mut theirs = plans[peer].lanes.iter().flat_map(|lane| &lane.steps);
                    let answers = theirs.any(|step| match step {
                        Step::Move { sources, to, .. } => sources.contains(&from) && to[..] == [rank as u32],
                        _ => false,
                    });
                    assert!(answers, "{case}: {peer} only reads what {rank} gives it: {}", plans[peer]);
                    count += 1;
                }
            }
            let exchange = matches!(algorithm.name(), "halving" | "pairwise" | "ring");
            let expected = if exchange && kind == CollectiveKind::AllReduce { 2 } else { 0 };
            assert!(ranks != 2 || count == expected, "{case}: {count} are given");
        }
    }
}

#[test]
fn fusing_keeps_the_meaning() {
    let (mut written, mut fused) = (0, 0);
    for (algorithm, kind) in cases() {
        for ranks in [1, 2, 3, 4, 5, 8, 13] {
            for collective in at_roots(kind, ranks) {
                let topology = Topology::one_host(ranks);
                let simple = |rank| algorithm.simple(collective, rank, &topology).expect("it does");
                // Simple steps keep in scratch what fused ones do not keep: that cannot be lent.
                let simple: Vec<Plan> =
                    (0..ranks).map(|rank| Plan { lends: false, ..simple(rank) }).collect();
                let before = proved(algorithm, collective, &simple);
                let after = proved(algorithm, collective, &plans(algorithm, collective, ranks));
                let case = format!("{} {collective:?} of {ranks}", algorithm.name());
                assert_eq!(before.results, after.results, "{case}");
                assert_eq!((before.messages, before.hops), (after.messages, after.hops), "{case}");
                assert!(after.steps <= before.steps, "{case}");
                assert!(simple.iter().all(|plan| fuse(&fuse(plan)) == fuse(plan)), "{case}");
                written += before.steps;
                fused += after.steps;
            }
        }
    }
    assert!(fused < written);
    println!("{written} steps written, {fused} fused");
}

/// Fused steps are what the ring is known for, and names are the same on every build.
#[test]
fn a_ring_of_four_is_the_textbook_ring() {
    let plans = plans(algorithm::find("ring").expect("there"), CollectiveKind::AllReduce.at(0), 4);
    let expected = "4 blocks, steps up to 1 wide, 0 scratch banks, may lend
  lane 0 on channel 0
      0  send: in[0] -> to 2
      1  reduce-send: from 0 + in[3] -> to 2
      2  reduce-send: from 0 + in[2] -> to 2
      3  reduce-send: from 0 + in[1] -> finish -> out[1] -> to 2
      4  relay: from 0 -> out[0] -> to 2
      5  relay: from 0 -> out[3] -> to 2
      6  recv: from 0 -> out[2]
";
    assert_eq!(plans[1].to_string(), expected);
    assert_eq!(format!("{:016x}", plans[1].fingerprint()), "b1ba15b9f24b1b86");
    assert_ne!(plans[1].fingerprint(), plans[2].fingerprint());
    let id = plan_id(plans.iter().map(Plan::fingerprint));
    assert_ne!(id, plan_id(plans.iter().rev().map(Plan::fingerprint)));
}

#[test]
fn every_collective_has_an_algorithm_and_every_order_too() {
    for kind in CollectiveKind::ALL {
        assert!(cases().any(|(_, done)| done == kind), "{kind}");
        assert!(!kind.reduces() || cases().any(|(a, done)| done == kind && a.rank_order(kind)), "{kind}");
    }
    let unknown = algorithm::find("rign").err().expect("there is none").to_string();
    assert!(unknown.contains("`rign`") && unknown.contains("ring"), "{unknown}");
}
