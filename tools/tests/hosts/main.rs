//! Jobs over several hosts: `kolo bench --check` in network namespaces, started by hand as on a cluster.

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
}

impl<'a> Job<'a> {
    fn new(net: &'a Net, ranks: &'a [usize]) -> Self {
        let secret = folder(net.name()).join("secret");
        fs::write(&secret, "a secret of these tests alone").expect("a file can be written");
        Self { net, ranks, secret, port: 29500 }
    }

    /// Runs `kolo` with these arguments as every rank; what rank 0 wrote.
    fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let size: usize = self.ranks.iter().sum();
        let places = self.ranks.iter().enumerate().flat_map(|(host, &count)| vec![host; count]);
        let children: Vec<Child> =
            places.enumerate().map(|(rank, host)| self.rank(arguments, rank, size, host)).collect();
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
        command.env("KOLO_RENDEZVOUS", format!("{}:{}", self.net.address(0), self.port));
        command.env("KOLO_SECRET_FILE", &self.secret).env("KOLO_DEADLINE", "60");
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
    const BYTES: u64 = 16 << 20;
    let Some(net) = Net::new("crossing", &[None; HOSTS]) else { return };
    let job = Job::new(&net, &[2; HOSTS]);
    let sent = || -> Vec<u64> { (0..HOSTS).map(|host| net.sent(host)[0]).collect() };
    // Out of place and in place; what else a job sends is in both.
    let cost = |calls: u64| {
        let before = sent();
        let (size, calls) = (BYTES.to_string(), calls.to_string());
        job.run(&["bench", "all_reduce", "-b", &size, "-e", &size, "--iters", &calls, "--warmup", "1"])
            .expect("it runs");
        sent().into_iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>()
    };
    let (few, many) = (cost(1), cost(5));
    let least = BYTES * 2 * (HOSTS as u64 - 1) / HOSTS as u64;
    for (host, (few, many)) in few.into_iter().zip(many).enumerate() {
        let each = (many - few) / 8;
        assert!(each >= least && each <= least + least / 50, "host {host} sent {each} bytes for {least}");
    }
}

/// Not a test: tables, and what their times would be if nothing but the wire took any.
#[test]
#[ignore = "a measurement: cargo test --release -p kolo-tools --test hosts -- --ignored --nocapture"]
fn how_long_an_all_reduce_takes_over_wires() {
    const HOSTS: u64 = 4;
    let fast = Some("1gbit");
    let slow = Some("100mbit");
    for (name, rates, rails) in [
        ("gigabit", [fast; 4], 1),
        ("one of four a tenth as fast", [fast, fast, slow, fast], 1),
        ("two gigabits", [fast; 4], 2),
    ] {
        let Some(net) = Net::with_rails("wires", &rates, rails) else { return };
        let job = Job::new(&net, &[2; HOSTS as usize]);
        let per_us = if rates.contains(&slow) { 12.5 } else { 125.0 * rails as f64 };
        println!("{name}");
        let sizes = ["-b", "1M", "-e", "64M", "-f", "8"];
        let table =
            job.run(&[&["bench", "all_reduce", "--iters", "3", "--warmup", "1"], &sizes[..]].concat());
        println!("{}", table.expect("it runs"));
        for bytes in [1 << 20, 8 << 20, 64 << 20] {
            let sent = bytes * 2 * (HOSTS - 1) / HOSTS;
            let least = sent as f64 / per_us;
            println!("{bytes} bytes: each host sends {sent} at least, which takes {least:.0} us");
        }
    }
}
