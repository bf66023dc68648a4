//! `benches/versus/run` end to end, without peers from the net: its results' form, what happens to libraries
//! that are wrong or die, and that nothing is left when it is interrupted. Never a time.

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{folder, until};

/// A library that has kolo's interface: its all-reduce is wrong, its all-gather ends the process.
const WRONG: &str = r#"
#include <kolo.h>
#include <stdlib.h>
#include <string.h>
#define SAME(...) { (void)comm; __VA_ARGS__; return KOLO_OK; }
enum kolo_status kolo_init(struct kolo_comm **comm) { *comm = malloc(1); return KOLO_OK; }
enum kolo_status kolo_finalize(struct kolo_comm *comm) SAME()
int32_t kolo_rank(const struct kolo_comm *comm) { (void)comm; return atoi(getenv("KOLO_RANK")); }
int32_t kolo_size(const struct kolo_comm *comm) { (void)comm; return atoi(getenv("KOLO_SIZE")); }
enum kolo_status kolo_all_reduce(struct kolo_comm *comm, const void *input, void *output, uint64_t count,
                                 enum kolo_dtype dtype, enum kolo_op op)
  SAME((void)dtype, (void)op, memmove(output, input, count * 4))
enum kolo_status kolo_all_gather(struct kolo_comm *comm, const void *input, void *output, uint64_t count,
                                 enum kolo_dtype dtype)
  SAME((void)input, (void)output, (void)count, (void)dtype, exit(3))
enum kolo_status kolo_reduce_scatter(struct kolo_comm *comm, const void *input, void *output, uint64_t count,
                                     enum kolo_dtype dtype, enum kolo_op op)
  SAME((void)input, (void)output, (void)count, (void)dtype, (void)op)
enum kolo_status kolo_broadcast(struct kolo_comm *comm, void *data, uint64_t count, enum kolo_dtype dtype,
                                int32_t root)
  SAME((void)data, (void)count, (void)dtype, (void)root)
enum kolo_status kolo_alloc(struct kolo_comm *comm, uint64_t bytes, void **memory) SAME(*memory = malloc(bytes))
enum kolo_status kolo_free(struct kolo_comm *comm, void *memory) SAME(free(memory))
const char *kolo_last_error(void) { return "none"; }
const char *kolo_version(void) { return "wrong"; }
"#;

/// One harness at a time: ranks that spin would only be in each other's way.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a program is there. In CI everything must be.
fn offers(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    assert!(there || std::env::var_os("CI").is_none(), "in CI, {program} must be installed");
    if !there {
        eprintln!("skipped: no {program} on this machine");
    }
    there
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn succeed(command: &mut Command) {
    let Output { status, stderr, .. } = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(status.success(), "{command:?}: {}", String::from_utf8_lossy(&stderr));
}

/// The prefix of an installed kolo.
fn installed() -> PathBuf {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    let install = || {
        let prefix = Path::new(env!("CARGO_TARGET_TMPDIR")).join("versus-kolo");
        succeed(Command::new(root().join("ffi/install")).arg(&prefix));
        prefix
    };
    PREFIX.get_or_init(install).clone()
}

/// A prefix with the library that is wrong.
fn wrong(home: &Path) -> PathBuf {
    let (prefix, source) = (home.join("wrong"), home.join("wrong.c"));
    for part in ["include", "lib"] {
        fs::create_dir_all(prefix.join(part)).expect("cannot make a folder");
    }
    fs::copy(root().join("ffi/kolo.h"), prefix.join("include/kolo.h")).expect("no kolo.h");
    fs::write(&source, WRONG).expect("cannot write");
    let library = prefix.join("lib/libkolo.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-I"]).arg(prefix.join("include"));
    succeed(cc.arg(&source).arg("-o").arg(library));
    prefix
}

/// The harness with few and short windows, with nothing of a job around the tests in its environment. Its
/// processes can be told by the folder in their environment.
fn versus(home: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(root().join("benches/versus/run"));
    command
        .args(["--rounds", "2", "--window", "1", "--retries", "0", "--cache", "/nonexistent", "--out"])
        .arg(home.join("out"));
    command.args(arguments).stdin(Stdio::null()).env("VERSUS_TEST", home);
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("KOLO_")) {
        command.env_remove(key);
    }
    command
}

fn results(home: &Path) -> Value {
    let text = fs::read_to_string(home.join("out/versus.json")).expect("no results");
    serde_json::from_str(&text).expect("no JSON")
}

/// Processes of the harness that was started for this folder.
fn left(home: &Path) -> Vec<String> {
    let marked = |process: &Path| {
        let environment = fs::read(process.join("environ")).unwrap_or_default();
        let mark = format!("VERSUS_TEST={}", home.display());
        environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
    };
    let processes = fs::read_dir("/proc").expect("no /proc").flatten().map(|entry| entry.path());
    processes.filter(|process| marked(process)).map(|process| process.display().to_string()).collect()
}

fn string(value: &Value) -> &str {
    value.as_str().expect("a string")
}

#[test]
fn all_parts_measure_and_verify() {
    if !offers("cc") || !offers("python3") {
        return;
    }
    let _alone = alone();
    let home = folder("versus-all");
    let prefix = installed().display().to_string();
    // The only peer that needs no net, and only where its headers are installed.
    let debian = Path::new("/usr/lib/x86_64-linux-gnu/openmpi/include/mpi.h").exists();
    let peer = if debian { "openmpi4" } else { "none" };
    let few = ["--ranks", "2,3", "--sizes", "8,48,1M", "--peers", peer, "--kolo", &prefix];
    let output = versus(&home, &few).output().expect("cannot start");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");

    let found = results(&home);
    assert_eq!(found["format"], 1);
    assert_eq!(found["left_out"], Value::Array(Vec::new()));
    let rows = found["rows"].as_array().expect("rows");
    // 2 ranks: 4 collectives of 3 sizes; 3 ranks: 2 of 3, and 2 of the one size that has equal blocks.
    assert_eq!(rows.len(), 2 * (4 * 3 + 2 * 3 + 2), "{out}");
    for row in rows {
        let series = row["series"].as_object().expect("series");
        for label in ["kolo", "kolo alloc"] {
            assert!(row["to_best_peer"].get(label).is_some() && series.contains_key(label), "{row}");
        }
        assert_eq!(series.contains_key("kolo in place"), string(&row["collective"]) != "broadcast");
        assert_eq!(series.contains_key("openmpi4"), debian && row["ranks"] == 2);
        let yardstick = |one: &&Value| ["ideal", "exchange"].contains(&string(&one["library"]));
        let ideals = series.values().filter(yardstick).count();
        let expected = match (string(&row["transport"]), row["ranks"] == 2, string(&row["collective"])) {
            ("shm", ..) => 4,
            (_, true, "all_reduce") => 2,
            _ => 0,
        };
        assert_eq!((ideals, row["to_ideal"]["kolo"].is_number()), (expected, expected > 0), "{row}");
        for (label, one) in series {
            let windows = one["seconds"].as_array().expect("windows").len();
            // On a busy machine anybody may be hopelessly slow in the first round.
            assert!((1..=2).contains(&windows), "{label}: {one}");
            assert!(one["median"].as_f64().expect("a median") >= 0.0);
        }
    }
    let types = found["dtypes"].as_array().expect("types");
    assert_eq!(types.len(), 1);
    assert_eq!(types[0]["series"].as_object().expect("series").len(), 4);
    for (part, key) in
        [("start", "2"), ("start", "8"), ("memory", "8"), ("waiting", "shm"), ("waiting", "tcp")]
    {
        assert!(found[part][key]["kolo"].as_f64().expect("a figure") > 0.0, "{part}");
    }
    let page = fs::read_to_string(home.join("out/versus.md")).expect("no page");
    assert!(page.contains("## all-reduce, 2 ranks, shm\n\n| bytes | kolo |"), "{page}");
    let picture = fs::read_to_string(home.join("out/versus.svg")).expect("no picture");
    assert!(picture.starts_with("<svg") && picture.contains("all-gather, 3 ranks, tcp"));
    assert_eq!(left(&home), Vec::<String>::new());
}

#[test]
fn what_is_wrong_is_said_and_the_rest_is_done() {
    if !offers("cc") || !offers("python3") {
        return;
    }
    let _alone = alone();
    let home = folder("versus-wrong");
    let (right, wrong) = (installed(), wrong(&home));
    let kolos = [format!("kolo={}", right.display()), format!("wrong={}", wrong.display())];
    for (collective, complaint) in [
        ("all_reduce", "wrong: all_reduce of 64 bytes: wrong result: word "),
        ("all_gather", "wrong: all_gather of 64 bytes: ended: "),
    ] {
        let few = ["--ranks", "2", "--transports", "shm", "--sizes", "64,1K", "--peers", "none"];
        let who = ["--parts", "speed", "--collectives", collective, "--kolo", &kolos[1], "--kolo", &kolos[0]];
        let output =
            versus(&home, &[few.as_slice(), who.as_slice()].concat()).output().expect("cannot start");
        assert_eq!(output.status.code(), Some(1), "{collective}");
        let found = results(&home);
        let lines = found["left_out"].as_array().expect("lines");
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(string(&lines[0]).starts_with(complaint), "{lines:?}");
        for row in found["rows"].as_array().expect("rows") {
            let windows = row["series"]["kolo"]["seconds"].as_array().expect("the other's windows");
            assert!((1..=2).contains(&windows.len()));
            assert!(row["series"].get("wrong").is_none());
        }
    }
    assert_eq!(left(&home), Vec::<String>::new());
}

#[test]
fn a_row_is_measured_while_the_cores_are_as_wanted_or_left_out() {
    if !offers("cc") || !offers("python3") {
        return;
    }
    let _alone = alone();
    let home = folder("versus-line");
    let kolo = format!("kolo={}", installed().display());
    for (wanted, is) in [("near", (|line| line < 220.0) as fn(f64) -> bool), ("far", |line| line >= 220.0)] {
        let few =
            ["--ranks", "2", "--transports", "shm", "--sizes", "64", "--peers", "none", "--kolo", &kolo];
        let which = ["--parts", "speed", "--collectives", "all_reduce", "--line", wanted, "--patience", "1"];
        let output =
            versus(&home, &[few.as_slice(), which.as_slice()].concat()).output().expect("cannot start");
        let found = results(&home);
        let (rows, left_out) = (&found["rows"], &found["left_out"]);
        let (rows, left_out) = (rows.as_array().expect("rows"), left_out.as_array().expect("lines"));
        assert_eq!(rows.len() + left_out.len(), 1, "{wanted}: {found}");
        assert_eq!(output.status.code(), Some(i32::from(rows.is_empty())));
        let lines = rows.iter().flat_map(|row| row["lines_ns"].as_array().expect("lines"));
        assert!(lines.map(|line| line.as_f64().expect("a number")).all(is), "{wanted}: {found}");
        let said = format!("all_reduce of 64 bytes: the cores were not {wanted} for 1 s; left out");
        assert!(left_out.iter().all(|line| string(line) == said), "{left_out:?}");
    }
}

#[test]
fn an_interrupt_leaves_results_and_nothing_else() {
    if !offers("cc") || !offers("python3") {
        return;
    }
    let _alone = alone();
    let home = folder("versus-interrupt");
    let prefix = installed().display().to_string();
    let long = ["--rounds", "10", "--window", "30", "--ranks", "4", "--transports", "shm", "--peers", "none"];
    let mut command = versus(&home, &[long.as_slice(), &["--kolo", &prefix]].concat());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("cannot start");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains("8 B")), "no row came");
    assert!(left(&home).len() > 4, "ranks run");
    kill_process(Pid::from_child(&child), Signal::INT).expect("cannot interrupt");
    assert_eq!(child.wait().expect("no end").code(), Some(130));
    until("all processes have gone", || left(&home).is_empty());
    assert_eq!(results(&home)["rows"][0]["bytes"], 8);
}
