//! No more descriptors: when a rank starts, opens its links, or splits.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::job::{Fate, Job, RANKS};

/// So many are always enough.
const PLENTY: usize = 40;
/// What a rank opens has lower numbers; a test may be started with some that are higher.
const INHERITED: i32 = 200;

/// How many this process has open.
pub(crate) fn open() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux tells").count()
}

/// How many more than `before` stay open: the thread that ran works closes its own when it has seen that nobody needs it.
pub(crate) fn left(before: usize) -> usize {
    for _ in 0..200 {
        if open() <= before {
            return 0;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    open() - before
}

/// Lets this process open so many more. What it has open leaves no gap then, as where no more can be had for long; the
/// answer holds what fills them.
pub(crate) fn leave(count: u64) -> Vec<OwnedFd> {
    let names = std::fs::read_dir("/proc/self/fd").expect("Linux tells").flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let highest = numbers.filter(|number| *number < INHERITED).max().expect("some are open");
    let mut fillers: Vec<OwnedFd> = Vec::new();
    while fillers.last().is_none_or(|last| last.as_raw_fd() < highest) {
        fillers.push(rustix::io::dup(std::io::stdin()).expect("one more can be had"));
    }
    limit(fillers.last().map_or(0, |last| last.as_raw_fd() as u64 + 1) + count);
    fillers
}

/// Lets it open as many as it could at first.
pub(crate) fn allow_all() {
    limit(getrlimit(Resource::Nofile).maximum.unwrap_or(1 << 20));
}

fn limit(count: u64) {
    let limit = Rlimit { current: Some(count), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).expect("a process may do with less");
}

/// Leaves rank `who` ever more, `step` by `step`, until all is well; says how many that took.
fn until_enough(transport: &str, who: usize, when: &str, step: usize) -> usize {
    for count in (0..PLENTY).step_by(step) {
        let trouble = format!("{when} descriptors {count}");
        // Who never came, or cannot even hear who knocks, is missed at the deadline.
        let absent = when == "start" && count < if who == 0 { RANKS + 2 } else { 1 };
        let deadline = if absent { "1" } else { "15" };
        let job = Job { transport, deadline, who: &who.to_string(), trouble: &trouble, environment: &[] };
        let fates = job.run();
        if fates.iter().all(Fate::is_well) {
            return count;
        }
        let all = format!("rank {who}, {trouble}, over {transport}: {fates:#?}");
        println!("rank {who}, {trouble}, over {transport}: {}", fates[who].told());
        assert!(fates.iter().all(|fate| fate.printed.is_empty()), "{all}");
        let own = fates[who].told();
        assert!(own.starts_with("System ") && own.contains("(ulimit -n)"), "{all}");
        for rank in (0..RANKS).filter(|&rank| rank != who) {
            let told = fates[rank].told();
            println!("    rank {rank}: {told}");
            let (named, kind) = (format!("rank {who}"), told.split(' ').next().unwrap_or_default());
            assert!(told.contains(&named) || told.contains(&format!("Some({who})")), "{all}");
            assert!(["PeerLost", "Refused", "System", "Deadline"].contains(&kind), "{all}");
        }
    }
    panic!("rank {who} needs more than {PLENTY} descriptors");
}

#[test]
fn at_the_start() {
    assert!(until_enough("shm", 0, "start", 1) > 3);
    assert!(until_enough("tcp", 2, "start", 2) > 3);
}

#[test]
fn when_links_open() {
    for transport in ["shm", "tcp"] {
        for who in [0, 1, 3] {
            assert!(until_enough(transport, who, "links", 2) > 3);
        }
    }
}

#[test]
fn when_memory_is_to_be_shared() {
    for who in [0, 1] {
        assert!(until_enough("shm", who, "alloc", 2) > 0);
    }
}

#[test]
fn at_a_split() {
    for (transport, who) in [("shm", 1), ("tcp", 2)] {
        assert!(until_enough(transport, who, "split", 1) > 1);
    }
}
