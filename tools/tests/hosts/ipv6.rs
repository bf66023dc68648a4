//! Hosts that have no IPv4 address.

use crate::net::Net;
use crate::{Job, complaint};

#[test]
fn hosts_with_ipv6_alone_are_hosts_like_others() {
    let Some(net) = Net::ipv6("ipv6", 2) else { return };
    let mut job = Job::new(&net, &[1, 2]);
    assert!(net.place(0, job.port).starts_with("[fd77:"));
    let counts = ["--counts", "0,7,70001"];
    for case in [["all_reduce"], ["all_to_all"], ["broadcast"]] {
        assert_eq!(complaint(&job, &[&case[..], &counts].concat()), None);
    }
    job.more.push(("KOLO_INTERFACE", "fd77::/48"));
    assert_eq!(complaint(&job, &[&["all_reduce"], &counts[..]].concat()), None);
    job.more = vec![("KOLO_INTERFACE", "10.0.0.0/8")];
    let error = job.run(&["bench", "barrier"]).expect_err("there is no such network");
    assert!(
        error.contains("KOLO_INTERFACE=10.0.0.0/8 allows none") && error.contains("eth0 fd77::1/64"),
        "{error}"
    );
}

/// Ranks of one host, which talk over its loopback.
#[test]
fn loopback_may_be_ipv6_alone() {
    let Some(net) = Net::ipv6("loop6", 1) else { return };
    let mut job = Job::new(&net, &[3]);
    job.more = vec![("KOLO_RENDEZVOUS", "[::1]:29500"), ("KOLO_TRANSPORT", "tcp")];
    assert_eq!(complaint(&job, &["all_reduce", "--counts", "0,7,70001"]), None);
}
