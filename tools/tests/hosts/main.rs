//! Jobs over several hosts: `kolo bench --check` in network namespaces, started by hand as on a cluster.

#[path = "../../../tests/support/child.rs"]
mod child;
#[path = "../../../tests/support/elastic.rs"]
mod elastic;
mod faults;
mod growth;
mod ipv6;
mod launchers;
mod net;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use kolo::CollectiveKind;
use kolo::algorithm::ALL;
use kolo::topology::Topology;
use net::Net;
use support::{folder, kolo};

/// A job of so many ranks on each host.
struct Job<'a> {
    net: &'a Net,
    ranks: &'a [usize],
    secret: PathBuf,
    port: u16,
    /// `KOLO_INTERFACE`, if it is set.
    interface: Option<&'a str>,
    /// How many descriptors each rank may have, if that is limited.
    descriptors: Option<u32>,
    /// What else is set.
    more: Vec<(&'a str, &'a str)>,
}

/// `kolo` with these arguments, which may have so many descriptors.
fn limited(count: u32, arguments: &[&str]) -> Command {
    let kolo = kolo(arguments);
    let mut command = Command::new("prlimit");
    command.arg(format!("--nofile={count}")).arg(kolo.get_program()).args(kolo.get_args());
    for (name, _) in kolo.get_envs() {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

impl<'a> Job<'a> {
    fn new(net: &'a Net, ranks: &'a [usize]) -> Self {
        let secret = folder(net.name()).join("secret");
        fs::write(&secret, "a secret of these tests alone").expect("a file can be written");
        Self { net, ranks, secret, port: 29500, interface: None, descriptors: None, more: Vec::new() }
    }

    /// Starts `kolo` with these arguments as every rank.
    fn start(&self, arguments: &[&str]) -> Vec<Child> {
        let size: usize = self.ranks.iter().sum();
        let places = self.ranks.iter().enumerate().flat_map(|(host, &count)| vec![host; count]);
        places.enumerate().map(|(rank, host)| self.rank(arguments, rank, size, host)).collect()
    }

    /// Runs `kolo` with these arguments as every rank; what rank 0 wrote.
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let children = self.start(arguments);
        let outputs: Vec<_> =
            children.into_iter().map(|child| child.wait_with_output().expect("it ends")).collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let well = outputs.iter().all(|output| output.status.success() && output.stderr.is_empty());
        let errors: String = outputs.iter().map(|output| text(&output.stderr)).collect();
        let out = text(&outputs[0].stdout);
        if well { Ok(out) } else { Err(errors + &out) }
    }

    fn rank(&self, arguments: &[&str], rank: usize, size: usize, host: usize) -> Child {
        let limited = self.descriptors.map(|count| limited(count, arguments));
        let mut command = self.net.on(host, &limited.unwrap_or_else(|| kolo(arguments)));
        command.env("KOLO_RANK", rank.to_string()).env("KOLO_SIZE", size.to_string());
        command.env("KOLO_RENDEZVOUS", self.net.place(0, self.port));
        command.env("KOLO_SECRET_FILE", &self.secret).env("KOLO_DEADLINE", "60");
        if let Some(interface) = self.interface {
            command.env("KOLO_INTERFACE", interface);
        }
        command.envs(self.more.iter().copied());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().expect("a rank can be started")
    }
}

/// What is wrong with a checked benchmark, if anything is.
fn complaint(job: &Job<'_>, arguments: &[&str]) -> Option<String> {
    let common = ["--check", "--iters", "1", "--warmup", "0"];
    let outcome = job.run(&[&["bench"], arguments, &common].concat());
    let right = outcome.as_ref().is_ok_and(|out| out.contains("\n# wrong elements: 0\n"));
    (!right)
        .then(|| format!("kolo bench {}: {}", arguments.join(" "), outcome.unwrap_or_else(|errors| errors)))
}

/// Ranks of one host talk over shared memory, others over TCP, in one communicator.
#[test]
fn uneven_hosts_get_every_collective_right() {
    let Some(net) = Net::new("uneven", &[None; 3]) else { return };
    let job = Job::new(&net, &[1, 2, 5]);
    let counts = ["--counts", "0,1,7,1001,70001"];
    let plain = CollectiveKind::ALL.into_iter().map(|kind| vec![kind.name()]);
    let uneven = ["reduce_scatter", "all_gather", "gather", "scatter", "all_to_all"];
    let uneven = uneven.into_iter().map(|name| vec![name, "--uneven"]);
    let cases = plain.chain(uneven).chain([vec!["send_recv"]]);
    let wrong: Vec<String> =
        cases.filter_map(|case| complaint(&job, &[&case[..], &counts].concat())).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whatever is chosen: every algorithm that is for several hosts, over hosts with 1, 2 and 3 ranks.
#[test]
fn every_algorithm_for_hosts_is_right() {
    let Some(net) = Net::new("algorithms", &[None; 3]) else { return };
    let job = Job::new(&net, &[1, 2, 3]);
    let able = ALL.iter().filter(|algorithm| !algorithm.suits(&Topology::one_host(6)));
    let cases = able.flat_map(|algorithm| {
        let kinds = CollectiveKind::ALL.into_iter().filter(|kind| algorithm.does(*kind));
        kinds.map(|kind| [kind.name(), "-a", algorithm.name(), "--counts", "0,1,7,1001,70001"])
    });
    let wrong: Vec<String> = cases.filter_map(|case| complaint(&job, &case)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What the network does is told for each pair of hosts, and prices come of it.
#[test]
fn what_was_measured_is_shown_and_priced() {
    let Some(net) = Net::new("measured", &[GIGABIT; 3]) else { return };
    let job = Job::new(&net, &[2, 1, 1]);
    let out = job.run(&["plan", "price", "all_reduce", "--measured", "-b", "8,1M"]).expect("it runs");
    let pairs = |line: &&str| line.split_whitespace().filter(|word| word.parse::<f64>().is_ok()).count() == 4;
    let pairs: Vec<&str> = out.lines().filter(|line| line.starts_with("# ")).filter(pairs).collect();
    let named =
        |a: &str, b: &str| pairs.iter().any(|line| line.split_whitespace().skip(1).take(2).eq([a, b]));
    assert!(pairs.len() == 3 && named("0", "2") && named("0", "3") && named("2", "3"), "{out}");
    assert_eq!(out.matches('*').count(), 3, "one at each size, and the word for it: {out}");
}

/// Of each collective over four hosts of two ranks, what all hosts together send at least, in eighths of a vector.
const LEAST: [(&str, &str, u64); 6] = [
    ("all_reduce", "hierarchical", 48),
    ("all_reduce", "halves", 48),
    ("all_gather", "hierarchical", 24),
    ("reduce_scatter", "hierarchical", 24),
    ("broadcast", "hierarchical", 24),
    ("reduce", "hierarchical", 24),
];

/// Of large vectors hosts send what they must, by the counters of their interfaces, whatever ranks they have; and
/// acknowledge as much.
#[test]
fn vectors_cross_between_hosts_no_more_often_than_they_must() {
    const HOSTS: usize = 4;
    const BYTES: u64 = 8 << 20;
    /// By so much may two jobs' hosts differ in what they send to time the network: up to 32 messages to either
    /// neighbour.
    const TIMING: u64 = 4 << 20;
    const CALLS: u64 = 13;
    let Some(net) = Net::new("crossing", &[GIGABIT; HOSTS]) else { return };
    let job = Job::new(&net, &[2; HOSTS]);
    let sent = || -> Vec<u64> { (0..HOSTS).map(|host| net.sent(host)[0]).collect() };
    // What else a job sends is in both.
    let cost = |kind: &str, algorithm: &str, calls: u64| {
        let before = sent();
        let (size, calls) = (BYTES.to_string(), calls.to_string());
        let sizes = ["-b", &size, "-e", &size, "--iters", &calls, "--warmup", "1"];
        job.run(&[&["bench", kind, "-a", algorithm][..], &sizes].concat()).expect("it runs");
        sent().into_iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>()
    };
    for (kind, algorithm, eighths) in LEAST {
        let (few, many) = (cost(kind, algorithm, 1), cost(kind, algorithm, CALLS));
        // Broadcasts are in place alone; the others out of place, too.
        let calls = (CALLS - 1) * if kind == "broadcast" { 1 } else { 2 };
        // Who sends nothing may have timed the network with less the second time.
        let each = many.iter().zip(few).map(|(many, few)| many.saturating_sub(few) / calls);
        let each: Vec<u64> = each.collect();
        let (all, least) = (each.iter().sum::<u64>(), BYTES / 8 * eighths);
        println!(
            "{kind} by {algorithm}: {each:?} bytes a call, {all} of {least}: {:.3}",
            all as f64 / least as f64
        );
        let (slack, timing) = (least / 50, TIMING / calls);
        assert!(
            all.abs_diff(least) <= slack + HOSTS as u64 * timing,
            "{kind} by {algorithm}: {all} for {least}"
        );
        // All share alike in what goes around; a chain's last host has nobody to send to.
        let share = if eighths == 48 { least / 4 } else { BYTES };
        assert!(
            each.iter().all(|&bytes| bytes <= share + share / 50 + timing),
            "{kind} by {algorithm}: {each:?}"
        );
    }
}

/// Rounds go by both networks in turn; or by the one that is allowed.
#[test]
fn hosts_that_two_networks_join_use_both() {
    let Some(net) = Net::with_rails("rails", &[GIGABIT; 3], 2) else { return };
    let mut job = Job::new(&net, &[1, 2, 1]);
    let large = ["--counts", "1000003,4000001"];
    let sent = |job: &Job<'_>, kind: &str| -> Vec<u64> {
        let before = net.sent(0);
        assert_eq!(complaint(job, &[&[kind], &large[..]].concat()), None);
        net.sent(0).iter().zip(before).map(|(after, before)| after - before).collect()
    };
    for kind in ["all_reduce", "all_gather", "reduce_scatter", "broadcast", "all_to_all"] {
        let [first, second] = sent(&job, kind)[..] else { unreachable!("two rails") };
        assert!(first.min(second) > first.max(second) / 10 * 7, "{kind}: {first} and {second} bytes");
    }
    for (interface, used) in [("eth1", 1), ("^eth1", 0), ("10.77.1.0/24", 1)] {
        job.interface = Some(interface);
        let bytes = sent(&job, "all_reduce");
        let (least, most) = (bytes[1 - used], bytes[used]);
        // The rendezvous is on the first one, in any case.
        assert!(least < most / 50, "{interface}: {bytes:?} bytes");
    }
    job.interface = Some("ib0");
    let error = job.run(&["bench", "barrier"]).expect_err("there is no ib0");
    assert!(error.contains("KOLO_INTERFACE=ib0 allows none at which other hosts could reach it"), "{error}");
    assert!(error.contains("eth0 10.77.0.1/24, eth1 10.77.1.1/24"), "{error}");
}

/// A port for each rank of a host, the rendezvous' among them; or one line from each rank that says whose are too few.
#[test]
fn ranks_listen_at_the_ports_that_are_allowed() {
    let Some(net) = Net::new("ports", &[None; 2]) else { return };
    let mut job = Job::new(&net, &[2, 1]);
    job.more = vec![("KOLO_PORT", "29500-29501")];
    assert_eq!(complaint(&job, &["all_to_all", "--counts", "0,7,70001"]), None);
    job.more = vec![("KOLO_PORT", "29501")];
    let error = job.run(&["bench", "barrier"]).expect_err("two ranks want it");
    let lines: Vec<&str> = error.lines().collect();
    let said = |line: &&str| line.contains("no free port in KOLO_PORT=29501 (Address already in use");
    assert!(lines.len() == 3 && lines.iter().all(said), "{error}");
}

/// Not tests: tables of all-reduces, and what their times would be if nothing but the wires took any.
macro_rules! measurements {
    ($($name:ident: $rates:expr, $rails:expr, $per_us:expr;)*) => {
        $(
            #[test]
            #[ignore = "a measurement: cargo test --release -p kolo-tools --test hosts -- --ignored --nocapture"]
            fn $name() {
                measure(stringify!($name), &$rates, $rails, $per_us);
            }
        )*
    };
}

const GIGABIT: Option<&str> = Some("1gbit");

measurements! {
    over_a_gigabit: [GIGABIT; 4], 1, 125.0;
    over_two_gigabits: [GIGABIT; 4], 2, 250.0;
    where_one_of_four_is_a_tenth_as_fast: [GIGABIT, GIGABIT, Some("100mbit"), GIGABIT], 1, 12.5;
}

/// Two ranks on each host; the slowest one's wires carry so many bytes in a microsecond.
fn measure(name: &str, rates: &[Option<&str>], rails: usize, per_us: f64) {
    let Some(net) = Net::with_rails(name, rates, rails) else { return };
    let (hosts, ranks) = (rates.len(), vec![2; rates.len()]);
    let job = Job::new(&net, &ranks);
    let sizes = ["-b", "1M", "-e", "64M", "-f", "8", "--iters", "3", "--warmup", "1"];
    println!("{name}\n{}", job.run(&[&["bench", "all_reduce"][..], &sizes].concat()).expect("it runs"));
    for bytes in [1 << 20, 8 << 20, 64 << 20] {
        let sent = bytes * 2 * (hosts - 1) / hosts;
        let least = sent as f64 / per_us;
        println!("{bytes} bytes: each host sends {sent} at least, which takes {least:.0} us");
    }
}

/// Every collective, small and large, beside what is predicted from the network that was measured.
#[test]
#[ignore = "a measurement: cargo test --release -p kolo-tools --test hosts -- --ignored --nocapture"]
fn every_collective_over_a_gigabit() {
    let Some(net) = Net::new("collectives", &[GIGABIT; 4]) else { return };
    let job = Job::new(&net, &[2; 4]);
    let priced = job.run(&["plan", "price", "all_reduce", "--measured", "-b", "8,32K,1M,16M"]);
    println!("{}", priced.expect("it runs"));
    for kind in ["all_reduce", "broadcast", "reduce", "all_gather", "reduce_scatter", "all_to_all"] {
        let small = ["bench", kind, "-b", "32", "-e", "32K", "-f", "32"];
        println!("{}", job.run(&small).expect("it runs"));
        let large = ["bench", kind, "-b", "1M", "-e", "16M", "-f", "16", "--iters", "3", "--warmup", "1"];
        println!("{}", job.run(&large).expect("it runs"));
    }
    println!("{}", job.run(&["bench", "barrier"]).expect("it runs"));
}
