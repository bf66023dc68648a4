//! Jobs over several hosts: `kolo bench --check` in network namespaces, started by hand as on a cluster.

mod faults;
mod ipv6;
mod launchers;
mod net;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use kolo::CollectiveKind;
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
    /// What else is set.
    more: Vec<(&'a str, &'a str)>,
}

impl<'a> Job<'a> {
    fn new(net: &'a Net, ranks: &'a [usize]) -> Self {
        let secret = folder(net.name()).join("secret");
        fs::write(&secret, "a secret of these tests alone").expect("a file can be written");
        Self { net, ranks, secret, port: 29500, interface: None, more: Vec::new() }
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
        let mut command = self.net.on(host, &kolo(arguments));
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

/// Of a large all-reduce each host sends what it must, 2(h-1)/h of the vector, whatever ranks it has; and acknowledges
/// as much.
#[test]
fn an_all_reduce_crosses_between_hosts_no_more_than_it_must() {
    const HOSTS: usize = 4;
    const BYTES: u64 = 8 << 20;
    let Some(net) = Net::new("crossing", &[GIGABIT; HOSTS]) else { return };
    let job = Job::new(&net, &[2; HOSTS]);
    let sent = || -> Vec<u64> { (0..HOSTS).map(|host| net.sent(host)[0]).collect() };
    // Out of place and in place; what else a job sends is in both, but for a little more or less to time the network.
    let cost = |calls: u64| {
        let before = sent();
        let (size, calls) = (BYTES.to_string(), calls.to_string());
        job.run(&["bench", "all_reduce", "-b", &size, "-e", &size, "--iters", &calls, "--warmup", "1"])
            .expect("it runs");
        sent().into_iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>()
    };
    let (few, many) = (cost(1), cost(13));
    let least = BYTES * 2 * (HOSTS as u64 - 1) / HOSTS as u64;
    for (host, (few, many)) in few.into_iter().zip(many).enumerate() {
        let each = (many - few) / 24;
        assert!(
            each >= least - least / 50 && each <= least + least / 50,
            "host {host} sent {each} bytes for {least}"
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
    let arguments =
        ["bench", "all_reduce", "-b", "1M", "-e", "64M", "-f", "8", "--iters", "3", "--warmup", "1"];
    println!("{name}\n{}", Job::new(&net, &ranks).run(&arguments).expect("it runs"));
    for bytes in [1 << 20, 8 << 20, 64 << 20] {
        let sent = bytes * 2 * (hosts - 1) / hosts;
        let least = sent as f64 / per_us;
        println!("{bytes} bytes: each host sends {sent} at least, which takes {least:.0} us");
    }
}
