//! Prices against textbook formulas, and the choices made from them.

use super::{cases, plans};
use kolo::algorithm::choose::{Chooser, Needs, Row, sample, samples};
use kolo::algorithm::{self, Algorithm};
use kolo::plan::{CollectiveKind, Core, Host, Machine, Step, price, prove};
use kolo::topology::{Cost, Handling, Topology};

/// α = 1 µs, β = 1 ns/byte.
const COST: Cost = Cost { latency_ns: 1000, bytes_per_us: 1000, handling: Handling::NONE };

fn textbook(ranks: usize) -> Machine<impl Fn(usize, usize) -> Cost> {
    Machine::textbook(ranks, |_, _| COST)
}

fn predicted(name: &str, kind: CollectiveKind, ranks: usize, bytes: u64) -> f64 {
    let plans = plans(algorithm::find(name).expect("there"), kind.at(0), ranks);
    price(&plans, &textbook(ranks), bytes).expect("proved") as f64
}

#[test]
fn textbook_figures() {
    use CollectiveKind::{AllGather, AllReduce, AllToAll, Barrier, Broadcast, ReduceScatter};
    let (n, bytes) = (8usize, 1u64 << 18);
    let (alpha, beta) = (1000.0, bytes as f64);
    let share = beta * (n - 1) as f64 / n as f64;
    let log = 3.0;
    let cases = [
        ("ring", AllReduce, 14.0 * alpha + 2.0 * share),
        ("ring", ReduceScatter, 7.0 * alpha + share),
        ("ring", AllGather, 7.0 * alpha + share),
        ("halving", ReduceScatter, log * alpha + share),
        ("halving", AllGather, log * alpha + share),
        ("bruck", AllGather, log * alpha + share),
        ("doubling", Barrier, log * alpha),
        ("direct", Barrier, alpha),
        ("bruck", AllToAll, log * (alpha + beta / 2.0)),
    ];
    for (name, kind, expected) in cases {
        let found = predicted(name, kind, n, if kind == Barrier { 0 } else { bytes });
        assert!(
            (found / expected - 1.0).abs() < 0.05,
            "{name} {kind}: {found} ns, the formula says {expected} ns"
        );
    }
    // Pipelined over 64 rounds: the length of the chain counts once.
    let long = 64 << 16;
    let chain = predicted("ring", Broadcast, n, long);
    let expected = 7.0 * (alpha + 65536.0) + 63.0 * 65536.0;
    assert!((chain / expected - 1.0).abs() < 0.05, "{chain} ns, the formula says {expected} ns");
}

#[test]
fn what_is_shared_is_counted_once() {
    let plans = plans(algorithm::find("direct").expect("there"), CollectiveKind::AllToAll.at(0), 8);
    let hosts = Topology::new(vec![0, 0, 0, 0, 4, 4, 4, 4]);
    let cost = |_, _| Cost { latency_ns: 0, bytes_per_us: 1_000_000, handling: Handling::NONE };
    let priced = |network_per_us, memory_per_us, cores| {
        let host = Host { cache: 0, memory_per_us, network_per_us };
        let core = Core { step_ns: 100, ..Machine::textbook(8, cost).core };
        let machine =
            Machine { host, core, topology: hosts.clone().with_cores(cores), ..Machine::textbook(8, cost) };
        price(&plans, &machine, 1 << 20).expect("proved")
    };
    let free = priced(1_000_000_000, 1_000_000_000, 8);
    // Half of what four ranks of 1 MiB each have goes to the other host: 2 MiB at 1 byte/ns.
    let network = priced(1000, 1_000_000_000, 8) as f64;
    assert!((network / f64::from(2 << 20) - 1.0).abs() < 0.05, "{network}");
    assert!(priced(1_000_000_000, 1000, 8) > 50 * free);
    // Four ranks on one core take their steps in turn.
    let crowded = priced(1_000_000_000, 1_000_000_000, 1) as f64;
    assert!(crowded > 4.0 * 15.0 * 100.0 && free < 4000, "{crowded} {free}");
}

/// One host of today with shared memory.
fn host(ranks: usize) -> Machine<impl Fn(usize, usize) -> Cost> {
    Machine {
        topology: Topology::one_host(ranks),
        cost: |_, _| Cost { latency_ns: 120, bytes_per_us: 20_000, handling: Handling::NONE },
        core: Core { step_ns: 15, switch_ns: 1300, touch_per_us: 30_000, cache: 1 << 20 },
        host: Host { cache: 0, memory_per_us: 40_000, network_per_us: 3_000 },
        slot: 1 << 17,
        credit: 4,
        lends: true,
    }
}

#[test]
fn prices_grow_with_size_and_are_positive() {
    for (algorithm, kind) in cases().filter(|(_, kind)| *kind != CollectiveKind::Barrier) {
        let plans = plans(algorithm, kind.at(0), 6);
        let prices: Vec<u64> =
            (6..28).map(|power| price(&plans, &host(6), 1 << power).expect("proved")).collect();
        let case = format!("{} {kind}: {prices:?}", algorithm.name());
        // A little slack where one more round begins.
        assert!(
            prices[0] > 0 && prices.windows(2).all(|pair| pair[1] as f64 >= 0.98 * pair[0] as f64),
            "{case}"
        );
        assert!(prices[21] > 100 * prices[0], "{case}");
    }
}

/// What is chosen at all sizes.
fn rows<F: Fn(usize, usize) -> Cost>(kind: CollectiveKind, machine: &Machine<F>, needs: Needs) -> Vec<Row> {
    let chooser = Chooser::new(kind.at(0), machine, needs);
    samples(kind).into_iter().map(|sample| chooser.row(sample)).collect()
}

/// What is chosen for so many bytes.
fn pick<F: Fn(usize, usize) -> Cost>(
    kind: CollectiveKind,
    machine: &Machine<F>,
    bytes: u64,
) -> &'static dyn Algorithm {
    let row = Chooser::new(kind.at(0), machine, Needs::default()).row(sample(kind, bytes));
    assert!(row.from <= bytes);
    algorithm::ALL[row.algorithm]
}

#[test]
fn between_two_samples_the_choice_changes_in_their_middle() {
    let kind = CollectiveKind::AllReduce;
    for (bytes, expected) in
        [(0, 64), (64, 64), (127, 64), (128, 256), (511, 256), (512, 1024), (u64::MAX, 1 << 30)]
    {
        assert_eq!(sample(kind, bytes), expected, "{bytes} bytes");
    }
    assert_eq!(sample(CollectiveKind::Barrier, 0), 0);
}

#[test]
fn small_sizes_take_few_hops_and_large_ones_little_traffic() {
    let hops = |algorithm: &dyn Algorithm, kind: CollectiveKind, ranks| {
        prove(kind.at(0), &plans(algorithm, kind.at(0), ranks)).expect("proved").hops
    };
    for ranks in [2, 4, 8, 16] {
        for kind in CollectiveKind::ALL {
            let machine = textbook(ranks);
            let rows = rows(kind, &machine, Needs::default());
            let (small, large) = (pick(kind, &machine, 8), pick(kind, &machine, 1 << 30));
            assert!(hops(small, kind, ranks) <= hops(large, kind, ranks), "{kind} of {ranks}");
            let prices: Vec<_> = rows.iter().map(|row| row.ns).collect();
            // But for the eighth that a plan of fewer steps may cost more than the cheapest.
            let grows = |pair: &[u64]| pair[1] >= pair[0] - pair[0] / 8;
            assert!(prices.windows(2).all(grows), "{kind} of {ranks}: {prices:?}");
            let steps = |a: &dyn Algorithm| plans(a, kind.at(0), ranks).len();
            assert_eq!(steps(small), ranks);
        }
    }
    let shared = |bytes| pick(CollectiveKind::AllReduce, &host(8), bytes).name();
    assert_ne!(shared(64), shared(1 << 28));
}

#[test]
fn deterministic_mode_takes_rank_order_alone() {
    let needs = Needs { rank_order: true, edge_local: false, no_board: false };
    for kind in CollectiveKind::ALL.into_iter().filter(|kind| kind.reduces()) {
        for row in rows(kind, &host(8), needs) {
            let algorithm = algorithm::ALL[row.algorithm];
            assert!(algorithm.rank_order(kind));
            let proof = prove(kind.at(0), &plans(algorithm, kind.at(0), 8)).expect("proved");
            assert!(proof.rank_order, "{} {kind}", algorithm.name());
        }
    }
}

#[test]
fn thousands_of_ranks_are_chosen_for_too() {
    for kind in CollectiveKind::ALL {
        assert!(pick(kind, &host(2000), 1 << 20).does(kind), "{kind}");
    }
    // Too long to be run, all of them: few messages for small sizes, little traffic for large ones.
    let exchange = |bytes| pick(CollectiveKind::AllToAll, &host(600), bytes).name();
    assert_eq!(exchange(64), "bruck");
    assert_ne!(exchange(1 << 30), "bruck");
}

/// With counts of their own, gather, scatter and all-to-all touch no block of somebody else.
#[test]
fn edge_local_plans_touch_their_own_blocks_alone() {
    let needs = Needs { rank_order: false, edge_local: true, no_board: false };
    for kind in [CollectiveKind::Gather, CollectiveKind::Scatter, CollectiveKind::AllToAll] {
        let (ranks, root) = (6, 4);
        for (algorithm, _) in cases().filter(|&(a, done)| done == kind && needs.met(a, kind)) {
            for (rank, plan) in plans(algorithm, kind.at(root), ranks).iter().enumerate() {
                let spans = plan.lanes.iter().flat_map(|lane| &lane.steps).flat_map(Step::spans);
                let all_own = kind == CollectiveKind::AllToAll || rank == root;
                for span in spans {
                    let own = (span.first, span.count) == (rank as u32, 1);
                    assert!(
                        plan.scratch == 0 && span.count == 1 && (all_own || own),
                        "{} {kind}: {span}",
                        algorithm.name()
                    );
                }
            }
        }
        let row = Chooser::new(kind.at(0), &host(4), needs).row(sample(kind, 1 << 10));
        assert!(needs.met(algorithm::ALL[row.algorithm], kind));
    }
}
