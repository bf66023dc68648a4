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
    let Some(net) = Net::new("uneven", 3, None) else { return };
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
