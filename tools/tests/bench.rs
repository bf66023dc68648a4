//! `kolo bench` end to end: its table, its JSON, its plots, and a check that can fail.

mod support;

use std::io::Read;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::{finish, folder, kolo, lives, run_script, until, written_pids};

/// Runs a short benchmark with `--check` and `--json`, and returns what it reports.
fn report(name: &str, arguments: &[&str]) -> Value {
    let file = folder(name).join("report.json");
    let file = file.to_str().expect("a path in UTF-8");
    let common = ["--check", "--iters", "2", "--warmup", "1", "--json", file];
    let (code, out, err) = finish(&mut kolo([&["bench"], arguments, &common].concat()));
    assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}: {out}");
    let text = std::fs::read_to_string(file).expect("no report");
    serde_json::from_str(&text).expect("no JSON")
}

fn wrong(report: &Value) -> u64 {
    let rows = report["rows"].as_array().expect("rows");
    assert!(!rows.is_empty());
    let forms = rows.iter().flat_map(|row| [&row["out_of_place"], &row["in_place"]]);
    forms.filter(|form| !form.is_null()).map(|form| form["wrong"].as_u64().expect("it was checked")).sum()
}

#[test]
fn the_report_has_the_form_that_it_promises() {
    let report =
        report("form", &["all_reduce", "-n", "3", "-t", "local", "-b", "8", "-e", "1K", "-d", "bf16"]);
    for (key, expected) in [
        ("format", Value::from(1)),
        ("collective", "all_reduce".into()),
        ("dtype", "bf16".into()),
        ("op", "sum".into()),
        ("root", Value::Null),
        ("uneven", false.into()),
        ("alloc", false.into()),
        ("ranks", 3.into()),
        ("transport", "local".into()),
    ] {
        assert_eq!(report[key], expected, "{key}");
    }
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 8);
    for (row, bytes) in rows.iter().zip((3..).map(|power| 1_u64 << power)) {
        assert_eq!((row["bytes"].as_u64(), row["count"].as_u64()), (Some(bytes), Some(bytes / 2)));
        assert_eq!(row["plan"]["id"].as_str().map(str::len), Some(16));
        assert!(row["plan"]["algorithm"].is_string() && row["plan"]["predicted_us"].is_number());
        for form in ["out_of_place", "in_place"] {
            let number = |key: &str| row[form][key].as_f64().expect("a number");
            assert!(number("time_us") > 0.0);
            let ratio = number("busbw_gbps") / number("algbw_gbps");
            assert!((ratio - 4.0 / 3.0).abs() < 1e-9, "busbw of 3 ranks is 2·2/3 of algbw: {ratio}");
        }
    }
}

#[test]
fn ranks_are_processes_otherwise() {
    for collective in ["all_reduce", "all_to_all", "send_recv"] {
        let arguments = [collective, "-n", "3", "-t", "shm", "--counts", "1,1000"];
        assert_eq!(wrong(&report(&format!("shm-{collective}"), &arguments)), 0, "{collective}");
    }
}

#[test]
fn ranks_that_a_launcher_started_join() {
    let binary = env!("CARGO_BIN_EXE_kolo");
    let bench = ["bench", "reduce", "--root", "2", "-e", "1K", "--iters", "1", "--check"];
    let mut command = kolo([&["run", "-n", "3", "--", binary][..], &bench].concat());
    let (code, out, err) = finish(&mut command);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.lines().all(|line| line.starts_with("[0] ")), "only rank 0 prints: {out}");
    assert!(out.contains("3 ranks") && out.contains("wrong elements: 0"), "{out}");
}

#[test]
fn a_launchers_ranks_are_not_started_again() {
    let binary = env!("CARGO_BIN_EXE_kolo");
    let mut command = kolo(["run", "-n", "2", "--no-tag", "--", binary, "bench", "all_reduce", "-n", "3"]);
    let (code, _, err) = finish(&mut command);
    assert_eq!(code, 2);
    assert!(err.contains("--ranks: the launcher started 2"), "{err}");
}

/// A benchmark that goes on for ever, its launcher's output, and the processes of its two ranks.
fn endless(name: &str) -> (std::process::Child, Vec<i32>) {
    let pids = folder(name);
    let script = format!(
        "echo $$ >{}/$KOLO_RANK; exec {} bench all_reduce -t shm -e 8 --iters 1000000000",
        pids.display(),
        env!("CARGO_BIN_EXE_kolo")
    );
    let launcher = run_script(2, &script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    until("both ranks run", || written_pids(&pids).len() == 2);
    // The head of the table comes once they have met.
    let mut launcher = launcher.expect("cannot start");
    let mut first = [0];
    launcher.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("output");
    (launcher, written_pids(&pids))
}

#[test]
fn a_killed_rank_ends_the_benchmark_and_is_named() {
    let (launcher, pids) = endless("killed");
    kill_process(Pid::from_raw(pids[0]).expect("a process"), Signal::KILL).expect("cannot kill");
    let output = launcher.wait_with_output().expect("cannot wait");
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(137), "{err}");
    assert!(err.contains("was killed by SIGKILL (signal 9)"), "{err}");
    until("all are gone", || !pids.iter().any(|&pid| lives(pid)));
}

#[test]
fn an_interrupted_benchmark_leaves_nobody() {
    let (launcher, pids) = endless("interrupted");
    kill_process(Pid::from_child(&launcher), Signal::INT).expect("cannot signal");
    let output = launcher.wait_with_output().expect("cannot wait");
    assert_eq!(output.status.code(), Some(130));
    until("all are gone", || !pids.iter().any(|&pid| lives(pid)));
}

#[test]
fn a_plot_is_well_formed() {
    let file = folder("plot").join("all<reduce>.svg");
    let path = file.to_str().expect("a path in UTF-8");
    let arguments = ["bench", "all_reduce", "-t", "local", "-e", "4K", "--iters", "1", "--plot", path];
    assert_eq!(finish(&mut kolo(arguments)).0, 0);
    let svg = std::fs::read_to_string(file).expect("no plot");
    let document = roxmltree::Document::parse(&svg).expect("not well-formed");
    let count = |name: &str| {
        document.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name))).count()
    };
    assert_eq!(count("polyline"), 4, "two forms in two panels");
    // Ten sizes in each of them, and two in the legend.
    assert_eq!(count("circle"), 4 * 10 + 2);
    assert!(!svg.contains("NaN") && !svg.contains("inf"));
}

#[test]
fn the_table_has_a_row_for_each_size() {
    let arguments = ["bench", "all_gather", "-n", "3", "-t", "local", "-b", "8", "-e", "64", "--iters", "1"];
    let (code, out, _) = finish(&mut kolo(arguments));
    let sizes: Vec<&str> = out
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    // Whole blocks on three ranks; 8 bytes come to the same as 12.
    assert_eq!((code, sizes), (0, vec!["12", "24", "36", "72"]), "{out}");
}

#[test]
fn an_algorithm_that_these_ranks_cannot_walk_is_said_once() {
    let (code, out, err) = finish(&mut kolo(["bench", "all_reduce", "-n", "3", "-a", "board", "-t", "tcp"]));
    assert_eq!((code, out.as_str(), err.lines().count()), (2, "", 1), "{err}");
    assert!(err.starts_with("kolo: board leaves blocks in memory that all ranks share"), "{err}");
}
