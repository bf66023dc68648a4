//! Every plan proved, and wrong ones refused.

use kolo::algorithm::{self, Algorithm};
use kolo::plan::{Collective, CollectiveKind, Proof, Refusal, prove};
use kolo::topology::Topology;

fn cases() -> impl Iterator<Item = (&'static dyn Algorithm, CollectiveKind)> {
    let every = algorithm::ALL.iter().flat_map(|&a| CollectiveKind::ALL.map(|kind| (a, kind)));
    every.filter(|(algorithm, kind)| algorithm.does(*kind))
}

/// The collective at all roots worth telling apart.
fn at_roots(kind: CollectiveKind, ranks: usize) -> Vec<Collective> {
    let mut roots =
        if kind.rooted() && ranks <= 16 { vec![0, ranks / 2, ranks - 1] } else { vec![ranks / 3] };
    roots.dedup();
    roots.into_iter().map(|root| kind.at(root)).collect()
}

fn proved(algorithm: &dyn Algorithm, collective: Collective, ranks: usize) -> Result<Proof, Box<Refusal>> {
    let plans = algorithm::plans(algorithm, collective, &Topology::one_host(ranks)).expect("it does");
    prove(collective, &plans)
}

#[test]
fn every_algorithm_is_proved_from_1_to_64_ranks() {
    let mut count = 0;
    for (algorithm, kind) in cases() {
        for ranks in 1..=64 {
            for collective in at_roots(kind, ranks) {
                let proof = proved(algorithm, collective, ranks);
                let case = format!("{} {kind} at root {} of {ranks}", algorithm.name(), collective.root);
                let proof = proof.unwrap_or_else(|refusal| panic!("{case}: {refusal}"));
                assert!(proof.ordered, "{case}: {proof}");
                assert!(proof.rank_order || !algorithm.rank_order(kind), "{case}: {proof}");
                count += 1;
            }
        }
    }
    println!("{count} plans proved");
}
