//! `kolo bench` over libfabric: every collective compared element by element, and what is said where it cannot be had.
//! `KOLO_TEST_LIBFABRIC` names another library than the system's.

mod support;

use std::path::PathBuf;
use std::process::Command;

use kolo::config;
use kolo::transport::fabric::Endpoint;
use support::{finish, kolo};

const COLLECTIVES: [&str; 8] =
    ["all_reduce", "reduce_scatter", "all_gather", "broadcast", "reduce", "gather", "scatter", "all_to_all"];

fn library() -> Option<PathBuf> {
    std::env::var_os("KOLO_TEST_LIBFABRIC").map(PathBuf::from)
}

/// Why a provider cannot be had here.
fn missing(provider: &str) -> Option<String> {
    let settings = config::Fabric { library: library(), provider: Some(provider.to_owned()) };
    Endpoint::open(&settings, Some("127.0.0.1")).err()
}

/// `kolo bench COLLECTIVE -n RANKS -t fabric` over a provider.
fn bench(collective: &str, ranks: usize, provider: &str) -> Command {
    let ranks = ranks.to_string();
    let mut command = kolo(["bench", collective, "-n", &ranks, "-t", "fabric", "--check"]);
    command.args(["-b", "12", "-e", "1200012", "-f", "300", "--iters", "2", "--warmup", "0"]);
    command.env("KOLO_FABRIC_PROVIDER", provider).env("KOLO_DEADLINE", "60");
    if let Some(library) = library() {
        command.env("KOLO_LIBFABRIC", library);
    }
    command
}

fn every_collective_over(provider: &str) {
    if let Some(why) = missing(provider) {
        return eprintln!("skipped: {why}");
    }
    for (at, collective) in COLLECTIVES.into_iter().enumerate() {
        let (code, out, err) = finish(&mut bench(collective, [2, 3][at % 2], provider));
        assert_eq!(code, 0, "{collective} over {provider}: {err}");
        assert!(out.contains("# wrong elements: 0"), "{out}");
    }
}

#[test]
fn every_collective_over_tcp() {
    every_collective_over("tcp");
}

#[test]
fn every_collective_over_shm() {
    every_collective_over("shm");
}

#[test]
#[ignore = "boots an emulated machine: half a minute, and Debian's kernel is fetched the first time"]
fn collectives_over_verbs_in_a_machine_with_software_roce() {
    let mut machine = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/rdma-vm"));
    let (code, out, err) = finish(machine.env("KOLO", env!("CARGO_BIN_EXE_kolo")));
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(out.matches("# wrong elements: 0").count(), 4, "{out}");
    let sent = out.lines().find_map(|line| line.strip_prefix("# packets that software RoCE sent: "));
    assert!(sent.is_some_and(|sent| sent.trim().parse::<u64>().is_ok_and(|sent| sent > 1000)), "{out}");
}

#[test]
fn without_the_library_one_line_says_what_is_missing() {
    let mut command = bench("all_reduce", 2, "tcp");
    let (code, _, err) = finish(command.env("KOLO_LIBFABRIC", "/nowhere/libfabric.so.1"));
    let said: Vec<_> = err.lines().filter(|line| line.contains("fabric")).collect();
    assert!(code != 0 && said.len() == 1, "{err}");
    assert!(said[0].contains("KOLO_LIBFABRIC=/nowhere/libfabric.so.1"), "{err}");
}

#[test]
fn without_the_provider_one_line_says_which_there_are() {
    if let Some(why) = missing("tcp") {
        return eprintln!("skipped: {why}");
    }
    let (code, _, err) = finish(&mut bench("all_reduce", 2, "carrier-pigeon"));
    let said: Vec<_> = err.lines().filter(|line| line.contains("fabric")).collect();
    assert!(code != 0 && said.len() == 1, "{err}");
    assert!(said[0].contains("no provider `carrier-pigeon`") && said[0].contains("it offers tcp"), "{err}");
}
