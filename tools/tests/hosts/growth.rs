//! Ranks that are killed on several hosts, and newcomers in their places: on the same hosts or others, also where the host
//! at which all met is left by all of its ranks.

use std::process::Command;

use rustix::process::Signal;

use crate::child::Rank;
use crate::net::Net;
use crate::support::{kolo, until};
use crate::{GIGABIT, elastic};

/// Not a test: what each rank does.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    elastic::live();
    // Nobody ends while others still need it.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the test holds the other end");
}

/// A rank on some host.
fn start(net: &Net, host: usize, full: usize, more: &[(&str, String)]) -> Rank {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    program.args(["growth::rank", "--exact", "--ignored", "--nocapture", "--quiet"]);
    // What is said of a job around the tests is not for these ranks.
    for (name, _) in kolo([""; 0]).get_envs() {
        program.env_remove(name);
    }
    program.env("KOLO_RENDEZVOUS", format!("{},{}", net.place(0, 29500), net.place(1, 29500)));
    program.env("KOLO_SECRET", "a secret of these tests alone").env("KOLO_DEADLINE", "60");
    program.env(elastic::FULL, full.to_string()).envs(more.iter().map(|(name, value)| (name, value)));
    Rank::start(&mut net.on(host, &program))
}

/// Ranks on these hosts, of which some are killed at a time; a newcomer for each, on that host.
fn replace(net: &Net, hosts: &[usize], killed: &[(usize, usize)]) {
    let what = format!("{killed:?} of {hosts:?}");
    let full = hosts.len();
    let place = |rank: usize| [("KOLO_RANK", rank.to_string()), ("KOLO_SIZE", full.to_string())];
    let ranks = hosts.iter().enumerate();
    let mut ranks: Vec<Rank> = ranks.map(|(rank, host)| start(net, *host, full, &place(rank))).collect();
    for rank in &mut ranks {
        assert_eq!(rank.hear().as_deref(), Some("ready"), "{what}");
    }
    for (rank, _) in killed {
        ranks[*rank].signal(Signal::KILL);
    }
    for &(rank, host) in killed {
        ranks[rank] = start(net, host, full, &[("KOLO_JOIN", "1".into())]);
    }
    let said = ranks.iter_mut().map(|rank| rank.hear().unwrap_or_else(|| panic!("{what}: one ended")));
    let mut said: Vec<String> = said.collect();
    said.sort_unstable();
    assert_eq!(said, elastic::last_words(full), "{what}");
    drop(ranks);
    until("nothing is left", || (0..net.hosts()).all(|host| net.processes(host).is_empty()));
}

#[test]
fn who_is_killed_on_any_host_is_replaced_on_any() {
    let Some(net) = Net::new("replaced", &[GIGABIT; 3]) else { return };
    // Of the first host's ranks one is left, which opens the gate; the others are on hosts of their own.
    replace(&net, &[0, 0, 1, 2], &[(0, 0)]);
    replace(&net, &[0, 0, 1, 2], &[(3, 1), (2, 2)]);
    // The first host has none any more: the second one has the gate, at the place that is named next.
    replace(&net, &[0, 1, 1], &[(0, 2)]);
}
