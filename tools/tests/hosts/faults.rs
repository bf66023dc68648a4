//! Hosts that vanish without a word, and peers that only take their time.

use std::process::{Child, Output};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::net::Net;
use crate::support::until;
use crate::{GIGABIT, Job};

/// After so many seconds of silence a host is lost; the least that can be said.
const KEEPALIVE: &str = "3";
/// Twice as long, and a little more.
const LONG: Duration = Duration::from_secs(8);
/// Vectors whose messages are more than a connection takes while nobody reads.
const LARGE: [&str; 6] = ["bench", "all_reduce", "-b", "32M", "-e", "32M"];
const SMALL: [&str; 6] = ["bench", "all_reduce", "-b", "8", "-e", "8"];

fn signal(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(child.id() as i32).expect("it was started");
    kill_process(pid, signal).expect("it is ours");
}

/// Two ranks, each on a host of its own, in the middle of many all-reduces.
fn in_the_middle(net: &Net, size: &[&str], calls: &str) -> [Child; 2] {
    let mut job = Job::new(net, &[1, 1]);
    job.more = vec![("KOLO_KEEPALIVE", KEEPALIVE), ("KOLO_DEADLINE", "120")];
    let arguments = [size, &["--check", "--warmup", "0", "--iters", calls]].concat();
    let before = net.sent(0)[0];
    let ranks = job.start(&arguments).try_into().expect("two ranks");
    until("the ranks reduce", || net.sent(0)[0] > before + 10_000_000);
    ranks
}

/// What a rank said when it had ended.
fn last_words(rank: Child) -> (bool, String) {
    let Output { status, stdout, stderr } = rank.wait_with_output().expect("it ends");
    let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (status.success(), text.concat())
}

fn expect_lost((well, text): (bool, String), peer: usize) {
    assert!(!well, "{text}");
    assert!(
        text.contains(&format!("with rank {peer}")) && text.contains("its host does not answer any more"),
        "{text}"
    );
}

/// Data is on its way, which nobody acknowledges.
#[test]
fn a_host_that_is_cut_off_while_data_flows_is_lost_on_either_side() {
    let Some(net) = Net::new("cut", &[GIGABIT; 2]) else { return };
    let [first, second] = in_the_middle(&net, &LARGE, "10000");
    net.cut_off(1);
    expect_lost(last_words(first), 1);
    expect_lost(last_words(second), 0);
}

/// Nothing is on its way, nothing should be: one waits for the other.
#[test]
fn a_host_that_is_cut_off_while_nothing_flows_is_lost_but_a_slow_peer_is_not() {
    let Some(net) = Net::new("idle", &[GIGABIT; 2]) else { return };
    let [mut first, second] = in_the_middle(&net, &SMALL, "100000000");
    signal(&second, Signal::STOP);
    sleep(LONG);
    assert!(first.try_wait().expect("it is ours").is_none(), "{:?}", last_words(first));
    net.cut_off(1);
    expect_lost(last_words(first), 1);
    signal(&second, Signal::CONT);
    expect_lost(last_words(second), 0);
}

/// All that a connection takes is on its way, and a host says again and again that there is no room for more.
#[test]
fn a_peer_that_takes_nothing_for_long_is_not_lost_but_its_host_may_be() {
    let Some(net) = Net::new("full", &[GIGABIT; 2]) else { return };
    let [first, second] = in_the_middle(&net, &LARGE, "6");
    signal(&second, Signal::STOP);
    sleep(LONG);
    signal(&second, Signal::CONT);
    for rank in [first, second] {
        let (well, text) = last_words(rank);
        assert!(well, "{text}");
    }
    let [first, second] = in_the_middle(&net, &LARGE, "10000");
    signal(&second, Signal::STOP);
    sleep(LONG);
    net.cut_off(1);
    expect_lost(last_words(first), 1);
    signal(&second, Signal::KILL);
    last_words(second);
}
