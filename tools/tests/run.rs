//! `kolo run` with real processes: exit codes, output, signals, and nothing left behind.

#[path = "../../tests/support/cgroup.rs"]
mod cgroup;
mod support;

use std::io::Write;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::{finish, folder, kolo, lives, run_script, until, written_pids};

#[test]
fn ranks_learn_their_place() {
    let script = "echo $KOLO_RANK/$KOLO_SIZE $KOLO_LOCAL_RANK/$KOLO_LOCAL_SIZE ${#KOLO_JOB} ${#KOLO_SECRET} ${KOLO_RENDEZVOUS%%-*} $KOLO_TRANSPORT $EXTRA";
    let mut command = kolo([
        "run",
        "-n",
        "3",
        "--transport",
        "shm",
        "--env",
        "EXTRA=a=b",
        "--no-tag",
        "--",
        "sh",
        "-c",
        script,
    ]);
    let (code, out, err) = finish(&mut command);
    let mut lines: Vec<_> = out.lines().collect();
    lines.sort_unstable();
    let expected =
        ["0/3 0/3 32 64 @kolo shm a=b", "1/3 1/3 32 64 @kolo shm a=b", "2/3 2/3 32 64 @kolo shm a=b"];
    assert_eq!((code, &lines[..], err.as_str()), (0, &expected[..], ""));
}

#[test]
fn the_secret_differs_from_job_to_job() {
    let secret = || finish(&mut run_script(1, "echo $KOLO_JOB $KOLO_SECRET")).1;
    assert_ne!(secret(), secret());
}

#[test]
fn only_rank_0_inherits_the_bound_rendezvous() {
    let script = r#"
        name=$(readlink /proc/$$/fd/${KOLO_LISTEN_FD:-none})
        inode=$(echo "$name" | tr -dc 0-9)
        echo "$KOLO_RANK ${inode:+$(grep " $inode " /proc/net/unix | grep -c "$KOLO_RENDEZVOUS")}"
        ls -l /proc/$$/fd | grep -c socket: || true"#;
    let (code, out, _) = finish(&mut run_script(2, script));
    let mut lines: Vec<_> = out.lines().map(str::trim_end).collect();
    lines.sort_unstable();
    assert_eq!((code, lines), (0, vec!["[0] 0 1", "[0] 1", "[1] 0", "[1] 1"]));
}

#[test]
fn each_line_is_whole_and_bears_its_rank() {
    let script = r#"for i in 1 2 3 4 5 6 7 8; do printf "$KOLO_RANK-"; sleep 0.01; printf "$i-end\n"; done
                    printf "words without an end" >&2"#;
    let (code, out, err) = finish(&mut run_script(4, script));
    assert_eq!(code, 0);
    for rank in 0..4 {
        let own: Vec<_> = out.lines().filter(|line| line.starts_with(&format!("[{rank}] "))).collect();
        let expected: Vec<_> = (1..=8).map(|i| format!("[{rank}] {rank}-{i}-end")).collect();
        assert_eq!(own, expected, "of\n{out}");
    }
    let mut words: Vec<_> = err.lines().collect();
    words.sort_unstable();
    assert_eq!(words, (0..4).map(|rank| format!("[{rank}] words without an end")).collect::<Vec<_>>());
}

#[test]
fn much_output_arrives_completely() {
    let (code, out, _) = finish(&mut run_script(2, "seq 1 50000"));
    assert_eq!((code, out.lines().count()), (0, 100_000));
    for rank in 0..2 {
        let tag = format!("[{rank}] ");
        let numbers = out.lines().filter_map(|line| line.strip_prefix(&tag)?.parse::<u32>().ok());
        assert!(numbers.eq(1..=50_000), "rank {rank}");
    }
}

#[test]
fn standard_input_goes_to_rank_0() {
    let mut launcher =
        run_script(3, "cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("cannot start");
    launcher.stdin.take().expect("no pipe").write_all(b"a word\n").expect("cannot write");
    let output = launcher.wait_with_output().expect("cannot wait");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[0] a word\n");
}

#[test]
fn a_rank_that_fails_stops_the_rest_and_lends_its_code() {
    let folder = folder("fails");
    let script = format!(
        "sleep 1000 & echo $$ $! >{}/$KOLO_RANK; [ $KOLO_RANK = 1 ] && sleep 0.3 && exit 7; wait",
        folder.display()
    );
    let (code, _, err) = finish(&mut run_script(3, &script));
    assert_eq!((code, err.as_str()), (7, "kolo: rank 1 exited with code 7; stopping the other ranks\n"));
    let pids = written_pids(&folder);
    assert_eq!(pids.len(), 6);
    until("all are gone", || !pids.iter().any(|&pid| lives(pid)));
}

#[test]
fn a_rank_that_is_killed_is_named_with_its_signal() {
    let (code, _, err) = finish(&mut run_script(2, "[ $KOLO_RANK = 0 ] && kill -SEGV $$; exec sleep 1000"));
    let expected = "kolo: rank 0 was killed by SIGSEGV (signal 11); stopping the other ranks\n";
    assert_eq!((code, err.as_str()), (139, expected));
}

#[test]
fn a_rank_that_takes_too_much_memory_is_named_with_its_cgroup() {
    let Some(cgroup) = cgroup::Cgroup::new("run") else { return };
    let place = cgroup.0.display();
    let rank = "[ $KOLO_RANK = 1 ] || exec sleep 1000; exec tail /dev/zero";
    let script = format!("echo $$ > {place}/cgroup.procs && exec \"$0\" run -n 2 -- sh -c '{rank}'");
    let mut command = Command::new("sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_kolo")]).stdin(Stdio::null());
    let (code, _, err) = finish(&mut command);
    // The launcher and the other rank run there, too.
    let cgroup = format!("its cgroup {place}, in which others run, too, counted an oom_kill");
    let why = format!("was killed by SIGKILL (signal 9), perhaps for memory: {cgroup}");
    assert_eq!((code, err), (137, format!("kolo: rank 1 {why}; stopping the other ranks\n")));
}

#[test]
fn the_last_rank_leaves_nobody_to_stop() {
    let (code, _, err) = finish(&mut run_script(1, "echo last words >&2; exit 3"));
    assert_eq!((code, err.as_str()), (3, "[0] last words\nkolo: rank 0 exited with code 3\n"));
}

#[test]
fn who_does_not_listen_is_killed_after_the_grace() {
    let folder = folder("stubborn");
    let script = format!(
        "trap '' TERM; echo $$ >{}/$KOLO_RANK; [ $KOLO_RANK = 1 ] && exit 5; while :; do sleep 1; done",
        folder.display()
    );
    let (code, ..) = finish(&mut run_script(3, &script));
    assert_eq!(code, 5);
    assert!(!written_pids(&folder).into_iter().any(lives));
}

#[test]
fn who_left_the_process_group_is_killed_too() {
    let folder = folder("stranger");
    let script = format!(
        "echo $$ >{}/$KOLO_RANK; [ $KOLO_RANK = 1 ] && sleep 0.3 && exit 5; exec setsid sleep 1000",
        folder.display()
    );
    assert_eq!(finish(&mut run_script(2, &script)).0, 5);
    until("all are gone", || !written_pids(&folder).into_iter().any(lives));
}

#[test]
fn signals_reach_the_ranks_and_what_they_make_of_them_counts() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let folder = folder(&format!("signal-{}", signal.as_raw()));
        let script = format!(
            "trap 'echo caught; exit 0' INT TERM HUP; echo $$ >{}/$KOLO_RANK; while :; do sleep 0.05; done",
            folder.display()
        );
        let launcher = run_script(2, &script)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("cannot start");
        until("both ranks run", || written_pids(&folder).len() == 2);
        kill_process(Pid::from_child(&launcher), signal).expect("cannot signal");
        let output = launcher.wait_with_output().expect("cannot wait");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stdout).matches("caught").count(), 2);
        // The shells may say that their sleep was ended; the launcher has nothing to say.
        assert!(!String::from_utf8_lossy(&output.stderr).contains("kolo:"));
    }
}

#[test]
fn ranks_that_a_passed_on_signal_ends_are_no_news() {
    let folder = folder("interrupt");
    let script = format!("echo $$ >{}/$KOLO_RANK; exec sleep 1000", folder.display());
    let launcher = run_script(2, &script).stderr(Stdio::piped()).spawn().expect("cannot start");
    until("both ranks run", || written_pids(&folder).len() == 2);
    kill_process(Pid::from_child(&launcher), Signal::INT).expect("cannot signal");
    let output = launcher.wait_with_output().expect("cannot wait");
    assert_eq!((output.status.code(), output.stderr.len()), (Some(130), 0));
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let folder = folder("nohup");
    let script = format!(
        "trap '' HUP; exec {} run -n 2 -- sh -c 'echo $$ >{}/$KOLO_RANK; exec sleep 1000'",
        env!("CARGO_BIN_EXE_kolo"),
        folder.display()
    );
    let mut launcher = std::process::Command::new("sh").args(["-c", &script]).spawn().expect("cannot start");
    until("both ranks run", || written_pids(&folder).len() == 2);
    let signal = |signal| kill_process(Pid::from_child(&launcher), signal).expect("cannot signal");
    // To hear it twice would be to kill the job.
    for _ in 0..2 {
        signal(Signal::HUP);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    signal(Signal::TERM);
    assert_eq!(launcher.wait().expect("cannot wait").code(), Some(128 + Signal::TERM.as_raw()));
}

#[test]
fn nothing_outlives_a_killed_launcher() {
    let folder = folder("orphans");
    // Ranks that refuse to listen, each with a child.
    let script = format!(
        "trap '' INT TERM HUP; sleep 1000 & echo $$ $! >{}/$KOLO_RANK; while :; do sleep 1; done",
        folder.display()
    );
    let mut launcher =
        run_script(3, &script).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("cannot start");
    until("all ranks run", || written_pids(&folder).len() == 6);
    launcher.kill().expect("cannot kill");
    launcher.wait().expect("cannot wait");
    let pids = written_pids(&folder);
    until("all are gone", || !pids.iter().any(|&pid| lives(pid)));
}

#[test]
fn children_that_ranks_forgot_are_not_left_behind() {
    let folder = folder("forgotten");
    let script = format!("sleep 1000 & echo $! >{}/$KOLO_RANK", folder.display());
    let (code, ..) = finish(&mut run_script(2, &script));
    assert_eq!((code, written_pids(&folder).len()), (0, 2));
    until("all are gone", || !written_pids(&folder).into_iter().any(lives));
}

#[test]
fn a_closed_pipe_ends_the_job_quietly() {
    let folder = folder("closed-pipe");
    let script = format!("echo $$ >{}/$KOLO_RANK; exec yes", folder.display());
    let mut launcher =
        run_script(2, &script).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("cannot start");
    until("both ranks run", || written_pids(&folder).len() == 2);
    drop(launcher.stdout.take());
    let output = launcher.wait_with_output().expect("cannot wait");
    assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(0), ""));
    until("all are gone", || !written_pids(&folder).into_iter().any(lives));
}

#[test]
fn many_ranks_start() {
    let (code, out, _) = finish(&mut run_script(64, "echo here"));
    assert_eq!((code, out.lines().count()), (0, 64));
}

/// The sockets of each child of a process, the fewest first.
fn sockets_of_children(parent: u32) -> Vec<usize> {
    let processes = std::fs::read_dir("/proc").expect("/proc").filter_map(|entry| Some(entry.ok()?.path()));
    let child = |process: &std::path::PathBuf| {
        let stat = std::fs::read_to_string(process.join("stat")).ok()?;
        // proc(5): the parent is the second number behind the name, which ends with the last parenthesis.
        let of: u32 = stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok()?;
        (of == parent).then_some(())
    };
    let sockets = |process: std::path::PathBuf| {
        let open =
            std::fs::read_dir(process.join("fd")).ok()?.filter_map(|fd| fd.ok()?.path().read_link().ok());
        Some(open.filter(|link| link.to_string_lossy().starts_with("socket:")).count())
    };
    let mut found: Vec<_> =
        processes.filter(|process| child(process).is_some()).filter_map(sockets).collect();
    found.sort_unstable();
    found
}

#[test]
fn one_of_many_ranks_has_few_sockets() {
    let arguments = ["bench", "all_reduce", "-n", "64", "-t", "tcp", "-b", "8", "-e", "8", "--iters", "300"];
    let mut job = kolo(arguments).stdout(Stdio::null()).spawn().expect("kolo starts");
    let mut most = 0;
    let ended = loop {
        // One rank, by which the others find each other, has one for each of them at first.
        most = most.max(sockets_of_children(job.id()).into_iter().nth_back(1).unwrap_or(0));
        if let Some(ended) = job.try_wait().expect("its end") {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    };
    assert!(ended.success());
    // Those of a job's start, and two for each of the 6 peers that a tree, or a barrier, gives it.
    assert!((10..=24).contains(&most), "{most}");
}
