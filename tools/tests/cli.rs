//! What the program says: help with examples, completions, and one line for everything that is wrong.

mod support;

use support::{finish, folder, kolo};

/// Every command that a person can type.
const COMMANDS: &[&[&str]] = &[
    &[],
    &["run"],
    &["bench"],
    &["train"],
    &["plan"],
    &["plan", "show"],
    &["plan", "prove"],
    &["plan", "price"],
    &["status"],
    &["trace"],
    &["doctor"],
    &["completions"],
];

#[test]
fn every_command_has_help_with_examples() {
    for command in COMMANDS {
        let (code, out, err) = finish(&mut kolo(command.iter().chain(&["--help"])));
        assert_eq!((code, err.as_str()), (0, ""), "{command:?}");
        assert!(out.contains("Examples:\n  kolo "), "{command:?}: {out}");
    }
}

#[test]
fn every_command_stands_in_the_list_above() {
    let (_, help, _) = finish(&mut kolo(["--help"]));
    let commands = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next());
    for line in commands.expect("a list of commands").lines() {
        let name = line.split_whitespace().next().expect("a name");
        assert!(COMMANDS.iter().any(|command| command.first() == Some(&name)), "{name}");
    }
}

#[test]
fn completions_know_the_commands_and_flags() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let (code, out, err) = finish(&mut kolo(["completions", shell]));
        assert_eq!((code, err.as_str()), (0, ""), "{shell}");
        for word in ["bench", "doctor", "transport", "no-tag"] {
            assert!(out.contains(word), "{shell} does not complete {word}");
        }
    }
}

#[test]
fn wrong_input_gets_one_line() {
    let folder = folder("wrong-input");
    let missing = folder.join("nowhere/file.json").display().to_string();
    let text = folder.join("file.txt").display().to_string();
    let empty = folder.join("empty.txt").display().to_string();
    std::fs::write(&empty, "").expect("cannot write");
    let records = folder.display().to_string();
    // (exit code, words of the line, arguments)
    let table: &[(i32, &[&str], &[&str])] = &[
        (2, &["unrecognized subcommand 'bnech'", "'bench'"], &["bnech"]),
        (2, &["unexpected argument '--rnaks'", "'--ranks'"], &["run", "--rnaks", "2", "--", "true"]),
        (2, &["not provided", "<PROGRAM>"], &["run", "-n", "2"]),
        (2, &["not provided", "--ranks"], &["run", "--", "true"]),
        (2, &["'0' for '--ranks", "1 to 4096"], &["run", "-n", "0", "--", "true"]),
        (2, &["'x' for '--env", "KEY=VALUE"], &["run", "-n", "1", "--env", "x", "--", "true"]),
        (2, &["unknown transport `smoke`"], &["run", "-n", "1", "--transport", "smoke", "--", "true"]),
        (1, &["cannot run `no-such-program`"], &["run", "-n", "2", "--", "no-such-program"]),
        (2, &["unknown collective `all_reuse`", "all_reduce", "send_recv"], &["bench", "all_reuse"]),
        (2, &["unknown dtype `f31`", "bf16"], &["bench", "all_reduce", "--dtype", "f31"]),
        (2, &["unknown operator `minus`", "premul"], &["bench", "all_reduce", "--op", "minus"]),
        (2, &["--op and takes integers, not f32"], &["bench", "all_reduce", "--op", "and"]),
        (2, &["--op: broadcast does not combine"], &["bench", "broadcast", "--op", "sum"]),
        (2, &["--root: all_reduce has no root"], &["bench", "all_reduce", "--root", "1"]),
        (2, &["--root 3", "0 to 1"], &["bench", "broadcast", "--root", "3", "-n", "2"]),
        (2, &["--uneven: all_reduce"], &["bench", "all_reduce", "--uneven"]),
        (2, &["unknown algorithm `rung`", "ring"], &["bench", "all_reduce", "--algorithm", "rung"]),
        (2, &["--algorithm: ring does not do all_to_all"], &["bench", "all_to_all", "--algorithm", "ring"]),
        (2, &["unknown transport `smoke`"], &["bench", "all_reduce", "--transport", "smoke"]),
        (2, &["--end 8 is smaller than --begin 1024"], &["bench", "all_reduce", "-b", "1K", "-e", "8"]),
        (2, &["--factor 1 does not"], &["bench", "all_reduce", "-f", "1"]),
        (2, &["'8T'", "256M"], &["bench", "all_reduce", "-e", "8T"]),
        (2, &["only .svg"], &["bench", "all_reduce", "--plot", &text]),
        (1, &["cannot write", "nowhere"], &["bench", "all_reduce", "--json", &missing]),
        (2, &["unknown algorithm `rung`"], &["plan", "show", "all_reduce", "-a", "rung", "-n", "4"]),
        (
            2,
            &["ring does not do all_to_all", "direct"],
            &["plan", "show", "all_to_all", "-a", "ring", "-n", "4"],
        ),
        (
            2,
            &["--rank 4 is not one"],
            &["plan", "show", "all_reduce", "-a", "ring", "-n", "4", "--rank", "4"],
        ),
        (2, &["not provided", "<COLLECTIVE>"], &["plan", "prove", "-n", "4"]),
        (2, &["3-1 is empty"], &["plan", "prove", "--all", "-n", "3-1"]),
        (2, &["--root: all_reduce has no root"], &["plan", "prove", "all_reduce", "-n", "4", "--root", "1"]),
        (2, &["unknown transport `smoke`"], &["plan", "price", "all_reduce", "-n", "4", "-t", "smoke"]),
        (2, &["not provided", "--ranks"], &["plan", "price", "all_reduce"]),
        (2, &["not provided", "--hosts"], &["plan", "price", "all_reduce", "--ranks-per-host", "8"]),
        (2, &["'-1' for '--network", "above 0"], &["plan", "price", "all_reduce", "-n", "8", "--network=-1"]),
        (
            2,
            &["1073741824 ranks", "1048576"],
            &["plan", "price", "all_reduce", "--hosts", "1048576", "--ranks-per-host", "1024"],
        ),
        (2, &["no job `no-such-job`"], &["status", "no-such-job"]),
        (2, &["not provided", "<FILES>"], &["trace"]),
        (1, &["nowhere/file.json", "No such file"], &["trace", &missing]),
        (1, &["empty.txt", "no record of kolo's"], &["trace", &empty]),
        (1, &["wrong-input", "no records in this folder"], &["trace", &records]),
        (2, &["4 ranks", "multiple of 3"], &["train", "-n", "4", "--tp", "3"]),
        (2, &["layers (4)", "pp (3)"], &["train", "--pp", "3"]),
        (2, &["'many' for '--steps"], &["train", "--steps", "many"]),
        (2, &["unknown transport `smoke`"], &["train", "--transport", "smoke"]),
        (1, &["cannot write", "nowhere"], &["train", "--metrics", &missing]),
        (1, &["cannot read", "nowhere"], &["train", "--text", &missing]),
        (2, &["empty.txt"], &["train", "--tp", "2", "--text", &empty]),
        (2, &["'csh'", "bash"], &["completions", "csh"]),
    ];
    for (expected, words, arguments) in table {
        let (code, out, err) = finish(&mut kolo(*arguments));
        assert_eq!((code, out.as_str()), (*expected, ""), "{arguments:?}: {err}");
        assert!(err.starts_with("kolo: ") && err.lines().count() == 1, "{arguments:?}: {err}");
        for word in *words {
            assert!(err.contains(word), "{arguments:?}: no `{word}` in: {err}");
        }
    }
}

#[test]
fn a_wrong_environment_gets_one_line_too() {
    for (key, value) in [("KOLO_RANK", "5"), ("KOLO_DEADLINE", "soon"), ("KOLO_TRANSPORT", "smoke")] {
        let mut command = kolo(["bench", "all_reduce", "-e", "8"]);
        let (code, _, err) = finish(command.env("KOLO_RANK", "0").env("KOLO_SIZE", "1").env(key, value));
        assert_eq!((code, err.lines().count()), (2, 1), "{key}={value}: {err}");
        assert!(err.contains(value) && !err.contains("backtrace"), "{key}={value}: {err}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = taken.local_addr().expect("an address").to_string();
    let mut command = kolo(["bench", "all_reduce", "-e", "8"]);
    let command = command.env("KOLO_RANK", "0").env("KOLO_SIZE", "2").env("KOLO_RENDEZVOUS", &place);
    let (code, _, err) = finish(command.env("KOLO_SECRET", "sixteen bytes or more"));
    assert_eq!((code, err.lines().count()), (1, 1), "{err}");
    assert!(err.contains(&place) && err.contains("in use"), "{err}");
}

#[test]
fn a_file_that_is_no_text_is_named_once() {
    let file = folder("no-text").join("noise.bin");
    let noise: Vec<u8> = (0..100_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(&file, noise).expect("cannot write");
    let path = file.to_str().expect("UTF-8");
    let (code, _, err) = finish(&mut kolo(["train", "-n", "2", "--tp", "2", "--text", path]));
    assert_eq!((code, err.lines().count()), (2, 1), "{err}");
    assert!(err.contains("noise.bin"), "{err}");
}

#[test]
fn whoever_stops_reading_ends_the_program_quietly() {
    for arguments in [
        &["plan", "show", "all_reduce", "-a", "ring", "-n", "200"][..],
        &["completions", "bash"],
        &["doctor"],
        &["--help"],
        &["bench", "all_reduce", "--transport", "local", "-e", "64", "--iters", "1"],
        &["bench", "all_reduce", "-e", "64", "--iters", "1"],
    ] {
        let script = format!("{} {} | true", env!("CARGO_BIN_EXE_kolo"), arguments.join(" "));
        let mut shell = std::process::Command::new("sh");
        let (code, _, err) = finish(shell.args(["-c", &script]));
        assert_eq!((code, err.as_str()), (0, ""), "{arguments:?}");
    }
}
