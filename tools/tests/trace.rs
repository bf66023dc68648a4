//! What `kolo trace` makes of the records of failed jobs, and what `kolo status` says of a running one. Each rank is this program again, as [`rank`].

mod support;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kolo::{CollectiveKind, Communicator, Kind, ReduceOp};
use rustix::process::{Pid, Signal, getpid, kill_process};
use support::{finish, folder, kolo, until};

/// Tells a rank what is to go wrong.
const PLANTED: &str = "PLANTED";

/// Not a test: what each rank does. Two sums that go well; then one rank does something else.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let mut ranks = Communicator::from_env().expect("a rank can join");
    let number = ranks.rank();
    ranks.set_algorithm(CollectiveKind::AllReduce, Some("ring")).expect("it is known");
    let mut data = vec![1.0f32; 100_000];
    for _ in 0..2 {
        ranks.all_reduce_in_place(&mut data, ReduceOp::Sum).expect("all ranks come");
    }
    match (std::env::var(PLANTED).expect("a test says what").as_str(), number) {
        ("hang", 2) => std::thread::sleep(Duration::from_secs(100)),
        ("mismatch", 1) => data.truncate(99_999),
        ("death", 2) => kill_process(getpid(), Signal::KILL).expect("a process may kill itself"),
        _ => {}
    }
    let error = ranks.all_reduce_in_place(&mut data, ReduceOp::Sum).expect_err("one rank does not come");
    assert!(error.kind() != Kind::Usage && error.to_string().contains("; recorded in "), "{error}");
    panic!("{error}");
}

/// Four ranks of which one goes wrong.
fn job<'a>(what: &str, options: impl IntoIterator<Item = &'a str>) -> Command {
    let program = std::env::current_exe().expect("this program has a path");
    let mut job = kolo(["run", "-n", "4"].into_iter().chain(options));
    job.arg("--").arg(program).args(["rank", "--exact", "--ignored", "--nocapture", "--quiet"]);
    job.env(PLANTED, what);
    job
}

/// Runs them until they fail, and write into a folder.
fn plant(what: &str, records: &Path) {
    let mut job = job(what, ["--record", records.to_str().expect("UTF-8")]);
    let (code, out, err) = finish(job.env("KOLO_DEADLINE", "1"));
    assert_ne!(code, 0, "{out}{err}");
}

/// What is said of the records in a folder.
fn trace(records: &Path, more: &[&str]) -> String {
    let records = records.to_str().expect("UTF-8");
    let (code, out, err) = finish(&mut kolo([&["trace", records], more].concat()));
    assert_eq!((code, err.as_str()), (0, ""));
    out
}

#[test]
fn the_rank_that_does_not_come_is_named_first() {
    let records = folder("trace-hang").join("made");
    plant("hang", &records);
    let text = trace(&records, &[]);
    let first = text.lines().next().expect("a line");
    let expected =
        ["hang: rank 2 has not made all_reduce #3(100000 x f32, sum, ring", "its last one there was #2"];
    assert!(expected.iter().all(|part| first.contains(part)), "{text}");
    // It was asked to write down what it did last, though its own call has not failed.
    assert!(text.contains("\nrank 2 of 4, process "), "{text}");
    assert!(text.contains("2 calls begun, 2 done") && text.contains("3 calls begun, 2 done"), "{text}");
    let calls = text.lines().filter(|line| line.contains(" us  all_reduce #2(100000 x f32"));
    assert!(calls.count() >= 2, "{text}");
}

#[test]
fn the_rank_that_calls_differently_is_named_first() {
    let records = folder("trace-mismatch");
    plant("mismatch", &records);
    let text = trace(&records, &[]);
    let first = text.lines().next().expect("a line");
    let expected =
        ["mismatch: rank 1 called all_reduce #3(99999 x f32", " called all_reduce #3(100000 x f32"];
    assert!(expected.iter().all(|part| first.contains(part)), "{text}");
}

#[test]
fn a_rank_that_was_killed_is_named_though_it_left_nothing() {
    let records = folder("trace-death");
    plant("death", &records);
    let text = trace(&records, &[]);
    let first = text.lines().next().expect("a line");
    assert!(first.starts_with("lost: rank 2 left no record: it was killed or stopped"), "{text}");
    assert!(first.contains("all_reduce #3(100000 x f32"), "{text}");
    assert!(text.contains("\nno record of rank"), "{text}");
}

#[test]
fn records_become_a_picture_of_what_moved_and_hold_no_secret() {
    let records = folder("trace-chrome");
    plant("hang", &records);
    let picture = records.join("trace.json");
    trace(&records, &["--chrome", picture.to_str().expect("UTF-8")]);
    let bytes = std::fs::read(&picture).expect("it was written");
    let picture: serde_json::Value = serde_json::from_slice(&bytes).expect("JSON");
    let events = picture["traceEvents"].as_array().expect("a list");
    let calls = events.iter().filter(|event| event["ph"] == "X" && event["name"] == "all_reduce #2");
    assert!(calls.clone().count() >= 2 && calls.clone().all(|call| call["args"]["done"] == true));
    assert!(calls.clone().all(|call| call["dur"].as_f64().is_some_and(|dur| dur > 0.0)));
    // In a ring of four each rank takes six blocks of 100 KB in each sum.
    let moved = events.iter().filter(|event| event["ph"] == "i");
    assert!(moved.clone().all(|step| step["name"].as_str().is_some_and(|name| name.contains(" B "))));
    assert!(moved.count() >= 8, "{picture}");
}

#[test]
fn what_is_no_whole_record_gets_one_line() {
    let records = folder("trace-broken");
    plant("mismatch", &records);
    let record = std::fs::read_dir(&records).expect("a folder").flatten().next().expect("a record").path();
    let bytes = std::fs::read(&record).expect("it can be read");
    let mut other = bytes.clone();
    other[8] += 1;
    let cut = &bytes[..bytes.len() - 1];
    for (bytes, expected) in [(cut, "damaged, or cut off"), (&other, "another version of kolo")] {
        std::fs::write(&record, bytes).expect("it can be written");
        let (code, out, err) = finish(kolo(["trace"]).arg(&record));
        assert_eq!((code, out.as_str(), err.lines().count()), (1, "", 1), "{err}");
        assert!(err.contains(expected) && err.contains(".record"), "{err}");
    }
}

#[test]
fn a_running_job_says_who_waits_for_whom() {
    let name = format!("status-{}", std::process::id());
    let mut ranks = job("hang", ["--env", &format!("KOLO_JOB={name}")]);
    let mut ranks = ranks.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("kolo starts");
    let status = |more: &[&str]| finish(&mut kolo([&["status", &name], more].concat()));
    let cause = "hang: rank 2 has not made all_reduce #3(100000 x f32, sum, ring, communicator 00000000): \
                 its last one there was #2; ranks 0, 1 and 3 wait for it\n";
    until("all wait for rank 2", || status(&[]).1.ends_with(cause));
    let (code, out, err) = status(&[]);
    assert_eq!((code, err.as_str(), out.lines().count()), (0, "", 6), "{out}");
    assert!(
        out.starts_with(&format!("job {name}: 4 ranks, 4 of them on this host\nrank 0 (process ")),
        "{out}"
    );
    assert!(
        out.contains(" s for rank 3 in all_reduce #3(") && out.contains("has made 2 calls, and is in none")
    );
    let json: serde_json::Value = serde_json::from_str(&status(&["--json"]).1).expect("JSON");
    assert_eq!(json["ranks"].as_array().map(Vec::len), Some(4));
    assert_eq!(json["ranks"][0]["communicators"][0]["waits"]["ranks"][0], 3);
    // One that is stopped does not hold up who asks.
    let process = json["ranks"][2]["process"].as_u64().expect("a number");
    let process = Pid::from_raw(process as i32).expect("a process");
    kill_process(process, Signal::STOP).expect("it runs");
    let (_, out, _) = status(&[]);
    assert!(out.contains(": does not answer: its process is stopped"), "{out}");
    assert!(out.contains("\nhang: rank 2 does not answer here"), "{out}");
    kill_process(Pid::from_child(&ranks), Signal::TERM).expect("it runs");
    ranks.wait().expect("it ends");
    assert_eq!(status(&[]).0, 2, "nothing of it is left");
}
