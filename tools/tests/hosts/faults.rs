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
/// Each waits for the other's messages.
const LARGE: [&str; 6] = ["bench", "all_reduce", "-b", "32M", "-e", "32M"];
/// One sends, more than a connection takes while nobody reads.
const ONE_WAY: [&str; 6] = ["bench", "broadcast", "-b", "128M", "-e", "128M"];
/// All that is on its way is taken, whether anybody reads or not.
const SMALL: [&str; 6] = ["bench", "all_reduce", "-b", "64K", "-e", "64K"];

/// A rank, which ends with the test that started it, whatever becomes of that.
struct Rank(Option<Child>);

impl Rank {
    fn signal(&self, signal: Signal) {
        let child = self.0.as_ref().expect("it was not waited for");
        let pid = Pid::from_raw(child.id() as i32).expect("it was started");
        kill_process(pid, signal).expect("it is ours");
    }

    fn runs(&mut self) -> bool {
        self.0.as_mut().is_some_and(|child| child.try_wait().expect("it is ours").is_none())
    }

    /// How it ended, and what it said.
    fn last_words(mut self) -> (bool, String) {
        let child = self.0.take().expect("it is waited for once");
        let Output { status, stdout, stderr } = child.wait_with_output().expect("it ends");
        let text = [stdout, stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (status.success(), text.concat())
    }

    /// It ended since that peer's host fell silent.
    fn expect_lost(self, peer: usize) {
        let (well, text) = self.last_words();
        assert!(!well, "{text}");
        let said = text.contains(&format!("with rank {peer}: its host does not answer any more"));
        assert!(said, "{text}");
    }
}

impl Drop for Rank {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Two ranks, each on a host of its own, in the middle of many all-reduces.
fn in_the_middle(net: &Net, size: &[&str], calls: &str) -> [Rank; 2] {
    let mut job = Job::new(net, &[1, 1]);
    job.more = vec![("KOLO_KEEPALIVE", KEEPALIVE), ("KOLO_DEADLINE", "120")];
    let arguments = [size, &["--warmup", "0", "--iters", calls]].concat();
    let before = net.sent(0)[0];
    let ranks: Vec<Rank> = job.start(&arguments).into_iter().map(|child| Rank(Some(child))).collect();
    until("the ranks reduce", || net.sent(0)[0] > before + 10_000_000);
    ranks.try_into().unwrap_or_else(|_| unreachable!("two were started"))
}

/// Whom a rank cannot even try to reach is not out of reach: with however few descriptors, it says that these are wanting.
#[test]
fn who_has_no_descriptors_left_says_so() {
    let Some(net) = Net::with_rails("few", &[None; 2], 2) else { return };
    let mut job = Job::new(&net, &[1, 1]);
    job.more = vec![("KOLO_DEADLINE", "10")];
    let mut well = false;
    for count in 8..40 {
        job.descriptors = Some(count);
        let outcome = job.run(&["bench", "barrier"]);
        well = outcome.is_ok();
        match outcome {
            Ok(_) => break,
            Err(text) => assert!(text.contains("(ulimit -n)"), "with {count}: {text}"),
        }
    }
    assert!(well, "so many are not wanted");
}

/// Data is on its way, which nobody acknowledges.
#[test]
fn a_host_that_is_cut_off_while_data_flows_is_lost_on_either_side() {
    let Some(net) = Net::new("cut", &[GIGABIT; 2]) else { return };
    let [first, second] = in_the_middle(&net, &LARGE, "10000");
    net.cut_off(1);
    first.expect_lost(1);
    second.expect_lost(0);
}

/// Nothing is on its way, nothing should be: one waits for the other.
#[test]
fn a_host_that_is_cut_off_while_nothing_flows_is_lost_but_a_slow_peer_is_not() {
    let Some(net) = Net::new("idle", &[GIGABIT; 2]) else { return };
    let [mut first, second] = in_the_middle(&net, &SMALL, "100000000");
    second.signal(Signal::STOP);
    sleep(LONG);
    assert!(first.runs(), "{:?}", first.last_words());
    net.cut_off(1);
    first.expect_lost(1);
    second.signal(Signal::CONT);
    second.expect_lost(0);
}

/// All that a connection takes is on its way, and a host says again and again that there is no room for more.
#[test]
fn a_peer_that_takes_nothing_for_long_is_not_lost_but_its_host_may_be() {
    let Some(net) = Net::new("full", &[GIGABIT; 2]) else { return };
    let [first, second] = in_the_middle(&net, &ONE_WAY, "3");
    second.signal(Signal::STOP);
    sleep(LONG);
    second.signal(Signal::CONT);
    for rank in [first, second] {
        let (well, text) = rank.last_words();
        assert!(well, "{text}");
    }
    let [first, second] = in_the_middle(&net, &ONE_WAY, "10000");
    second.signal(Signal::STOP);
    sleep(LONG);
    net.cut_off(1);
    first.expect_lost(1);
}
