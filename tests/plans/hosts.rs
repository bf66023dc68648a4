//! What plans for several hosts cost on the way between them, whatever the ranks' numbers.

use super::topologies;
use kolo::algorithm;
use kolo::algorithm::choose::{Chooser, Needs, sample};
use kolo::plan::{Collective, CollectiveKind, Core, Host, Machine, Plan, price};
use kolo::topology::{Cost, Handling, Topology};

fn hosts(topology: &Topology) -> usize {
    (0..topology.size()).filter(|&rank| topology.host(rank) == rank).count()
}

/// How often the longest chain of messages crosses between hosts: a crossing takes a microsecond, all else nothing.
fn crossings(plans: &[Plan], topology: &Topology) -> u64 {
    let cost = |a: usize, b: usize| {
        let latency_ns = if topology.together(a, b) { 0 } else { 1000 };
        Cost { latency_ns, bytes_per_us: u32::MAX, handling: Handling::NONE }
    };
    let machine = Machine { topology: topology.clone(), ..Machine::textbook(topology.size(), cost) };
    price(plans, &machine, 0).expect("proved").div_ceil(1000)
}

/// Each case of an algorithm on several hosts, with its plans.
fn each(
    name: &str,
    kind: CollectiveKind,
    ranks: usize,
    mut look: impl FnMut(Collective, &Topology, &[Plan]),
) {
    let algorithm = algorithm::find(name).expect("there");
    for topology in topologies(algorithm, ranks).iter().filter(|topology| hosts(topology) > 1) {
        for root in if kind.rooted() { vec![0, ranks / 2, ranks - 1] } else { vec![0] } {
            let collective = kind.at(root);
            look(collective, topology, &algorithm::plans(algorithm, collective, topology).expect("it does"));
        }
    }
}

#[test]
fn small_sizes_cross_between_hosts_as_seldom_as_they_can() {
    use CollectiveKind::{AllReduce, Barrier, Broadcast, Reduce};
    for ranks in 2..=64 {
        let log = |topology: &Topology| u64::from(hosts(topology).next_power_of_two().trailing_zeros());
        for kind in [AllReduce, Barrier, Broadcast, Reduce] {
            each("leaders", kind, ranks, |collective, topology, plans| {
                let crossings = crossings(plans, topology);
                assert!((1..=log(topology)).contains(&crossings), "{crossings}: {collective:?} {topology:?}");
            });
        }
        // Where a host has one rank for several shards, they wait for one another.
        let even = |topology: &Topology| {
            let on = |host: usize| (0..ranks).filter(|&rank| topology.host(rank) == host).count();
            (0..ranks).all(|rank| on(topology.host(rank)) == on(0))
        };
        each("halves", AllReduce, ranks, |_, topology, plans| {
            assert!(!even(topology) || crossings(plans, topology) <= 2 * log(topology), "{topology:?}");
        });
        for kind in CollectiveKind::ALL {
            each("spread", kind, ranks, |collective, topology, plans| {
                assert_eq!(crossings(plans, topology), 1, "{collective:?} {topology:?}");
            });
        }
    }
}

/// How many blocks each host sends to others, and gets.
fn crossing_blocks(plans: &[Plan], topology: &Topology) -> Vec<[usize; 2]> {
    let mut blocks = vec![[0; 2]; topology.size()];
    for (rank, plan) in plans.iter().enumerate() {
        for step in plan.lanes.iter().flat_map(|lane| &lane.steps) {
            let count = step.extent().map_or(0, |span| span.count as usize);
            let away = |peer: &&u32| !topology.together(rank, **peer as usize);
            for &peer in step.receivers().iter().filter(away) {
                blocks[topology.host(rank)][0] += count;
                blocks[topology.host(peer as usize)][1] += count;
            }
        }
    }
    blocks
}

#[test]
fn blocks_cross_between_hosts_no_more_often_than_they_must() {
    use CollectiveKind::{AllGather, AllReduce, AllToAll, Broadcast, Gather, Reduce, ReduceScatter, Scatter};
    let names = ["hierarchical", "halves", "leaders", "spread"];
    for (name, ranks) in names.into_iter().flat_map(|name| (2..=33).map(move |ranks| (name, ranks))) {
        let algorithm = algorithm::find(name).expect("there");
        for kind in CollectiveKind::ALL.into_iter().filter(|kind| algorithm.does(*kind)) {
            each(name, kind, ranks, |collective, topology, plans| {
                let (h, all) = (hosts(topology), plans[0].blocks as usize);
                let on = |host: usize| (0..ranks).filter(|&rank| topology.host(rank) == host).count();
                let away = ranks - on(topology.host(collective.root as usize));
                let crossing = crossing_blocks(plans, topology);
                let sum: usize = crossing.iter().map(|[sent, _]| sent).sum();
                let case = format!("{name} {collective:?} {topology:?}: {crossing:?}");
                let least = match kind {
                    // Small ones take few crossings instead.
                    AllReduce if matches!(name, "leaders" | "spread") => return,
                    AllReduce => 2 * (h - 1) * all,
                    AllGather | ReduceScatter | Broadcast | Reduce => (h - 1) * all,
                    Gather | Scatter => away,
                    AllToAll => (0..ranks).map(|rank| ranks - on(topology.host(rank))).sum(),
                    CollectiveKind::Barrier => return,
                };
                assert_eq!(sum, least, "{case}");
                // And where hosts share in it, no one of them has more to carry than its part.
                let evenly = name == "hierarchical" && matches!(kind, AllReduce | Broadcast | Reduce);
                let most = if kind == AllReduce { 2 * (h - 1) * all / h } else { all };
                assert!(!evenly || crossing.iter().flatten().all(|&blocks| blocks <= most), "{case}");
            });
        }
    }
}

/// So many hosts of so many ranks, at 10 Gbit/s, numbered host by host or in turn.
fn machine(hosts: usize, each: usize, in_turn: bool) -> Machine<impl Fn(usize, usize) -> Cost> {
    let host = move |rank: usize| if in_turn { rank % hosts } else { rank / each * each } as u32;
    let topology = Topology::new((0..hosts * each).map(host).collect());
    let handling = Handling { ns: 1_600, bytes_per_us: 14_000 };
    let far = Cost { latency_ns: 20_000, bytes_per_us: 1_250, handling };
    let near = Cost { latency_ns: 100, bytes_per_us: 200_000, handling: Handling::NONE };
    let on = topology.clone();
    Machine {
        topology,
        cost: move |a, b| if on.together(a, b) { near } else { far },
        core: Core::MEASURED,
        host: Host::MEASURED,
        slot: 1 << 17,
        credit: 4,
        lends: false,
    }
}

#[test]
fn what_knows_hosts_is_taken_over_hosts_and_not_on_one() {
    let pick = |kind: CollectiveKind, machine: &Machine<_>, bytes| {
        let row = Chooser::new(kind.at(0), machine, Needs::default()).row(sample(kind, bytes));
        (algorithm::ALL[row.algorithm], row.ns)
    };
    for kind in CollectiveKind::ALL {
        for bytes in [8, 1 << 14, 1 << 22] {
            let one = machine(1, 8, false);
            assert!(pick(kind, &one, bytes).0.suits(&one.topology), "{kind} {bytes}");
            // The numbers of the ranks make no difference where it counts.
            let [(by_host, ns), (in_turn, other)] =
                [false, true].map(|turn| pick(kind, &machine(8, 4, turn), bytes));
            let case = format!("{kind} {bytes}: {} {ns}, {} {other}", by_host.name(), in_turn.name());
            let numbered =
                matches!(kind, CollectiveKind::AllToAll | CollectiveKind::Gather | CollectiveKind::Scatter);
            assert!(numbered || ns.abs_diff(other) * 5 <= ns.max(other), "{case}");
        }
        let small = pick(kind, &machine(8, 4, false), 8).0;
        assert!(!small.suits(&Topology::one_host(32)), "{kind}: {}", small.name());
    }
}

/// In large jobs, too, what has few steps is run: a tree's first and last ranks do not tell how deep it is.
#[test]
fn large_jobs_cross_seldom_for_small_sizes() {
    let machine = machine(256, 4, false);
    let chooser = Chooser::new(CollectiveKind::AllReduce.at(0), &machine, Needs::default());
    let row = chooser.row(sample(CollectiveKind::AllReduce, 1 << 10));
    let crossing = 20_000 + 2 * 1_600;
    assert!(row.ns < 9 * crossing, "{} takes {} ns", algorithm::ALL[row.algorithm].name(), row.ns);
}

/// Where ranks share cores and each message costs a core, few messages win.
#[test]
fn crowded_ranks_without_shared_memory_have_leaders() {
    let cost = Cost {
        latency_ns: 200,
        bytes_per_us: u32::MAX,
        handling: Handling { ns: 2_500, bytes_per_us: 14_000 },
    };
    for (cores, taken) in [(2, true), (8, false)] {
        let topology = Topology::one_host(8).with_cores(cores).sharing_memory(false);
        let machine =
            Machine { core: Core::MEASURED, credit: 4, topology, ..Machine::textbook(8, |_, _| cost) };
        let chooser = Chooser::new(CollectiveKind::AllReduce.at(0), &machine, Needs::default());
        let row = chooser.row(sample(CollectiveKind::AllReduce, 8));
        assert_eq!(algorithm::ALL[row.algorithm].name() == "leaders", taken, "{cores} cores");
    }
}
