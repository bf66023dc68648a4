//! `kolo plan` end to end.

mod support;

use support::{finish, folder, kolo};

/// The last word of the line that begins with `id`.
fn shown_id(arguments: &[&str]) -> String {
    let (code, out, err) = finish(&mut kolo([&["plan", "show"], arguments].concat()));
    assert_eq!((code, err.as_str()), (0, ""));
    out.lines().find_map(|line| line.strip_prefix("id ")).expect("an id").to_owned()
}

#[test]
fn the_shown_the_proved_and_the_walked_plan_bear_one_id() {
    for (collective, algorithm) in [("all_reduce", "ring"), ("all_gather", "ring"), ("all_to_all", "direct")]
    {
        let shown = shown_id(&[collective, "-a", algorithm, "-n", "3"]);
        let (code, proved, _) = finish(&mut kolo(["plan", "prove", collective, "-a", algorithm, "-n", "3"]));
        assert!(code == 0 && proved.contains(&format!("id {shown}:")), "{shown}: {proved}");
        let bench =
            ["bench", collective, "-a", algorithm, "-n", "3", "-t", "local", "-e", "16", "--iters", "1"];
        let (code, walked, _) = finish(&mut kolo(bench));
        assert!(code == 0 && walked.contains(&format!("{algorithm} {shown}")), "{shown}: {walked}");
    }
}

#[test]
fn a_boards_plan_depends_on_the_cores() {
    let all_reduce = ["all_reduce", "-a", "board", "-n", "4"];
    let on_two = [&all_reduce[..], &["--cores", "2"]].concat();
    let shown = shown_id(&on_two);
    assert_ne!(shown, shown_id(&all_reduce));
    let (code, proved, _) = finish(&mut kolo([&["plan", "prove"], &on_two[..]].concat()));
    assert!(code == 0 && proved.contains(&format!("id {shown}:")), "{shown}: {proved}");
}

#[test]
fn one_ranks_plan_is_a_part_of_all() {
    let all = finish(&mut kolo(["plan", "show", "all_reduce", "-a", "ring", "-n", "4"])).1;
    let one = finish(&mut kolo(["plan", "show", "all_reduce", "-a", "ring", "-n", "4", "--rank", "2"])).1;
    assert_eq!(all.matches("rank ").count(), 4);
    let body = one.split("\nid ").next().expect("steps");
    assert!(body.starts_with("rank 2: ") && all.contains(body), "{one}");
}

#[test]
fn steps_are_fused_unless_asked_not_to_be() {
    let steps = |more: &[&str]| {
        let arguments = [&["plan", "show", "all_reduce", "-a", "ring", "-n", "4"], more].concat();
        finish(&mut kolo(arguments)).1.lines().count()
    };
    assert!(steps(&["--simple"]) > steps(&[]));
}

#[test]
fn proving_counts_every_algorithm_of_every_collective() {
    let (code, out, err) = finish(&mut kolo(["plan", "prove", "--all", "-n", "1-6"]));
    assert_eq!((code, err.as_str()), (0, ""));
    let families = out.lines().filter(|line| line.contains("plans proved, up to")).count();
    let expected: usize = kolo::CollectiveKind::ALL
        .iter()
        .map(|kind| kolo::algorithm::ALL.iter().filter(|algorithm| algorithm.does(*kind)).count())
        .sum();
    assert_eq!(families, expected, "{out}");
    // Each of them for 1 to 6 ranks, from every root where there is one.
    let sum: usize = out
        .lines()
        .filter_map(|line| line.split(" ranks: ").nth(1)?.split(' ').next()?.parse::<usize>().ok())
        .sum();
    assert!(out.contains(&format!("\n{sum} plans proved, 0 refused")), "{out}");
}

#[test]
fn prices_name_the_algorithm_that_is_walked() {
    let (code, out, err) = finish(&mut kolo(["plan", "price", "all_reduce", "-n", "4", "-b", "8,1M"]));
    assert_eq!((code, err.as_str()), (0, ""));
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 4, "{out}");
    let names: Vec<&str> = lines[1].split_whitespace().skip(1).collect();
    assert!(names.contains(&"ring") && names.contains(&"direct"), "{out}");
    for row in &lines[2..] {
        let cells: Vec<&str> = row.split_whitespace().skip(1).collect();
        assert_eq!((cells.len(), row.matches('*').count()), (names.len(), 1), "{out}");
    }
}

/// The prices of a row: by algorithm, with what stands beside them.
fn row(out: &str, bytes: &str) -> Vec<(String, String)> {
    let mut lines = out.lines().filter(|line| !line.starts_with('#'));
    let names = lines.next().expect("names").split_whitespace().skip(1);
    let row = lines.find(|line| line.split_whitespace().next() == Some(bytes)).expect("a row");
    names.map(str::to_owned).zip(row.split_whitespace().skip(1).map(str::to_owned)).collect()
}

#[test]
fn prices_between_hosts_count_what_their_network_carries() {
    let price = |hosts, each, rate, bytes| {
        let place = ["--hosts", hosts, "--ranks-per-host", each, "--network", rate, "-b", bytes];
        let (code, out, err) = finish(&mut kolo([&["plan", "price", "all_reduce"], &place[..]].concat()));
        assert_eq!((code, err.as_str()), (0, ""));
        row(&out, bytes)
    };
    // Each of 4 hosts sends 1.5 vectors at least: 805 ms at 1 Gbit/s, half of that at two.
    for (rate, least) in [("1", 805_306.0), ("2", 402_653.0)] {
        let walked = price("4", "2", rate, "67108864").into_iter().find(|(_, cell)| cell.ends_with('*'));
        let (name, cell) = walked.expect("one is walked");
        let us: f64 = cell.trim_end_matches('*').parse().expect("a number");
        assert!(
            ["hierarchical", "halves"].contains(&name.as_str()) && (least..1.1 * least).contains(&us),
            "{name}: {us}"
        );
    }
    // Too many steps to run them all, but not to say about how long they take.
    let many = price("1024", "8", "100", "1073741824");
    let about = many.iter().filter(|(_, cell)| cell.starts_with('~')).count();
    assert!(
        about > 0 && many.iter().any(|(name, cell)| name == "tree" && !cell.starts_with('~')),
        "{many:?}"
    );
    assert_eq!(many.iter().filter(|(_, cell)| cell.ends_with('*')).count(), 1, "{many:?}");
}

#[test]
fn the_doctor_tells_people_and_programs_the_same() {
    let text =
        finish(kolo(["doctor"]).env("KOLO_TRANSPROT", "tcp").env("KOLO_SECRET", "not for everybody")).1;
    let json = finish(&mut kolo(["doctor", "--json"])).1;
    let json: serde_json::Value = serde_json::from_str(&json).expect("no JSON");
    assert_eq!(json["format"], 1);
    for section in json["sections"].as_array().expect("sections") {
        let title = section["title"].as_str().expect("a title");
        assert!(text.contains(&format!("\n{title}\n")), "{title}");
        assert!(!section["facts"].as_array().expect("facts").is_empty(), "{title}");
    }
    for transport in ["local", "shm", "tcp"] {
        assert!(
            text.lines().any(|line| line.split_whitespace().nth(1) == Some(transport)),
            "{transport}: {text}"
        );
    }
    assert!(text.contains("✗ KOLO_TRANSPROT") && !text.contains("for everybody"), "{text}");
}

#[test]
fn a_short_training_run_tells_where_it_goes() {
    let folder = folder("train");
    let text = folder.join("text.txt");
    std::fs::write(&text, "round and round the kolo goes, hand in hand; ".repeat(200)).expect("cannot write");
    let metrics = folder.join("run.jsonl");
    let [text, metrics_path] = [&text, &metrics].map(|path| path.to_str().expect("UTF-8"));
    let small =
        ["--layers", "2", "--dim", "16", "--heads", "2", "--context", "16", "--batch", "4", "--sample", "9"];
    let arguments = ["train", "-n", "4", "--tp", "2", "--pp", "2", "--steps", "3", "--text", text];
    let arguments = [&arguments[..], &["--metrics", metrics_path], &small].concat();
    let (code, out, err) = finish(&mut kolo(&arguments));
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(
        out.contains("dp 1 x tp 2 x pp 2") && out.contains("in 3 steps") && out.contains("A sample:"),
        "{out}"
    );
    let events: Vec<serde_json::Value> = std::fs::read_to_string(metrics)
        .expect("no metrics")
        .lines()
        .map(|line| serde_json::from_str(line).expect("no JSON"))
        .collect();
    let names: Vec<_> = events.iter().map(|event| event["event"].as_str().expect("a name")).collect();
    assert_eq!(names, ["start", "step", "step", "step", "finish"]);
}
