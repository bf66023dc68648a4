//! The whole matrix through `kolo bench --check`: every element of every rank's result, ranks as processes
//! and as threads. Counts are multiples of nothing; the largest takes more than one round.

mod support;

use kolo::topology::Topology;
use kolo::{CollectiveKind, Dtype, OpKind, algorithm};
use support::{finish, kolo};

const TRANSPORTS: [&str; 3] = ["local", "shm", "tcp"];
const COUNTS: &str = "0,1,7,1000,12345,70001";

/// Runs a case; says what it was if anything is wrong.
fn complaint(arguments: &[&str]) -> Option<String> {
    let common = ["--check", "--iters", "1", "--warmup", "0"];
    let (code, out, err) = finish(&mut kolo([&["bench"], arguments, &common].concat()));
    let right = code == 0 && err.is_empty() && out.contains("\n# wrong elements: 0\n");
    (!right).then(|| format!("kolo bench {}: {code}: {err}{out}", arguments.join(" ")))
}

fn all_right(cases: impl Iterator<Item = Vec<String>>) {
    let mut count = 0;
    let wrong: Vec<String> = cases
        .inspect(|_| count += 1)
        .filter_map(|case| complaint(&case.iter().map(String::as_str).collect::<Vec<_>>()))
        .collect();
    assert!(wrong.is_empty(), "{} of {count} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Every collective by every algorithm that does it there, from the last root where there is one.
fn every_algorithm(transport: &str, ranks: usize) -> impl Iterator<Item = Vec<String>> {
    let (n, last) = (ranks.to_string(), (ranks - 1).to_string());
    let shares_memory = transport != "tcp";
    let pairs = CollectiveKind::ALL.into_iter().flat_map(move |kind| {
        // What is for several hosts is run over some in `hosts`.
        let one_host = Topology::one_host(2).with_cores(1).sharing_memory(false);
        let able = algorithm::ALL.iter().filter(move |a| a.does(kind) && a.suits(&one_host));
        let able = able.filter(move |a| shares_memory || !a.uses_board());
        able.map(move |a| (kind, a.name()))
    });
    pairs.map(move |(kind, algorithm)| {
        let mut case = words(&[kind.name(), "-n", &n, "-t", transport, "-a", algorithm, "--counts", COUNTS]);
        if kind.rooted() {
            case.extend(words(&["--root", &last]));
        }
        case
    })
}

/// What no algorithm is named for: messages, and blocks of different lengths.
fn the_rest(transport: &str, ranks: usize) -> impl Iterator<Item = Vec<String>> {
    let n = ranks.to_string();
    let variants = [
        ("send_recv", false),
        ("reduce_scatter", true),
        ("all_gather", true),
        ("gather", true),
        ("scatter", true),
        ("all_to_all", true),
    ];
    variants.into_iter().map(move |(name, uneven)| {
        let mut case = words(&[name, "-n", &n, "-t", transport, "--counts", COUNTS]);
        case.extend(uneven.then(|| "--uneven".to_owned()));
        case
    })
}

fn every_dtype(transport: &str) -> impl Iterator<Item = Vec<String>> {
    let ops = |dtype: Dtype| {
        let bits = |op: &OpKind| matches!(op, OpKind::BitAnd | OpKind::BitOr | OpKind::BitXor);
        OpKind::ALL.into_iter().filter(move |op| !(dtype.is_float() && bits(op)))
    };
    Dtype::ALL.into_iter().flat_map(move |dtype| {
        let case = move |name: &str, more: &[&str]| {
            let counts = "1,12345";
            words(
                &[&[name, "-n", "3", "-t", transport, "-d", dtype.name(), "--counts", counts], more].concat(),
            )
        };
        let reduce = ops(dtype).map(move |op| case("all_reduce", &["-o", op.name()]));
        reduce.chain(["all_gather", "all_to_all"].into_iter().map(move |name| case(name, &[])))
    })
}

/// In place, and where messages are long enough to be lent.
fn allocated_together() -> impl Iterator<Item = Vec<String>> {
    let case = |name: &str, dtype: Dtype, ranks: usize| {
        let (n, counts) = (ranks.to_string(), "1,12345,70001,300007");
        words(&[name, "-n", &n, "-t", "shm", "-d", dtype.name(), "--counts", counts, "--alloc"])
    };
    let kinds =
        move |ranks| CollectiveKind::ALL.into_iter().map(move |kind| case(kind.name(), Dtype::F32, ranks));
    let dtypes = Dtype::ALL.into_iter().map(move |dtype| case("all_reduce", dtype, 2));
    (2..=4).flat_map(kinds).chain(dtypes)
}

#[test]
fn every_collective_and_type_is_right_in_memory_allocated_together() {
    all_right(allocated_together());
}

#[test]
fn every_algorithm_is_right_for_one_to_eight_ranks_between_threads() {
    all_right((1..=8).flat_map(|ranks| every_algorithm("local", ranks).chain(the_rest("local", ranks))));
}

#[test]
fn every_algorithm_is_right_for_one_to_eight_ranks_over_shm() {
    all_right((1..=8).flat_map(|ranks| every_algorithm("shm", ranks).chain(the_rest("shm", ranks))));
}

#[test]
fn every_algorithm_is_right_for_one_to_eight_ranks_over_tcp() {
    all_right((1..=8).flat_map(|ranks| every_algorithm("tcp", ranks).chain(the_rest("tcp", ranks))));
}

#[test]
fn every_dtype_and_operator_is_right_over_every_transport() {
    all_right(TRANSPORTS.into_iter().flat_map(every_dtype));
}
