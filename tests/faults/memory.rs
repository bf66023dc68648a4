//! Memory: a rank whose cgroup has no more is killed, and the others are told of what.

use std::fs;
use std::path::Path;

use rustix::process::{Signal, getpid, kill_process};

use crate::cgroup::{Cgroup, LIMIT};
use crate::job::{CGROUP, Fate, Job};

/// Moves this process there.
pub(crate) fn enter(cgroup: &Path) {
    fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string()).expect("it may move there");
}

/// Takes more than there is, or `waits`, or is killed as by a person.
pub(crate) fn take(how: &str) {
    match how {
        "more" => {
            let mut taken = Vec::new();
            for _ in 0..2 * (LIMIT >> 20) {
                taken.push(vec![1u8; 1 << 20]);
            }
            unreachable!("{} MiB were to be had", taken.len());
        }
        _ => kill_process(getpid(), Signal::KILL).expect("a process may kill itself"),
    }
}

/// Rank 1 gets into trouble after its links were opened.
fn run(cgroup: &Cgroup, transport: &str, who: &str, how: &str) -> Vec<Fate> {
    let trouble = format!("split memory {how}");
    let place = cgroup.0.display().to_string();
    let environment = [(CGROUP, place.as_str())];
    let fates = Job { transport, deadline: "60", who, trouble: &trouble, environment: &environment }.run();
    println!("{how} over {transport}: {:?}", fates[0].told());
    assert_eq!(fates[1].told, None, "{fates:#?}");
    fates
}

#[test]
fn survivors_are_told_of_what_a_rank_was_killed() {
    for transport in ["shm", "tcp"] {
        let Some(cgroup) = Cgroup::new(transport) else { return };
        let fates = run(&cgroup, transport, "1", "more");
        let end = format!(
            "rank 1 (process {} on this host) was killed for memory: its cgroup {} counted an oom_kill",
            fates[1].pid,
            cgroup.0.display()
        );
        for rank in [0, 2, 3] {
            let told = fates[rank].told();
            assert!(told.starts_with("PeerLost Some(1): ") && told.contains(&end), "{told}");
        }
        let fates = run(&cgroup, transport, "1", "no more");
        for rank in [0, 2, 3] {
            let told = fates[rank].told();
            // What the cgroup counted before says nothing of this one.
            assert!(told.starts_with("PeerLost Some(1): ") && !told.contains("memory:"), "{told}");
        }
    }
}

#[test]
fn where_others_share_the_cgroup_it_is_not_sure() {
    let Some(cgroup) = Cgroup::new("shared") else { return };
    let mut other = std::process::Command::new("sleep").arg("60").spawn().expect("it can be run");
    fs::write(cgroup.0.join("cgroup.procs"), other.id().to_string()).expect("it may be moved there");
    let fates = run(&cgroup, "shm", "1", "more");
    other.kill().and_then(|()| other.wait()).expect("it runs");
    let doubt = format!("has ended, and may have been killed for memory: its cgroup {}", cgroup.0.display());
    for rank in [0, 2, 3] {
        let told = fates[rank].told();
        assert!(told.starts_with("PeerLost Some(1): ") && told.contains(&doubt), "{told}");
    }
}
