//! Ranks that other programs start: Open MPI's mpirun, MPICH's mpiexec, a person. Each rank is this program
//! again, as [`rank`].

use std::io::Write as _;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use kolo::{Communicator, ReduceOp};

/// What makes this program a rank.
const AS_RANK: [&str; 5] = ["rank", "--exact", "--ignored", "--nocapture", "--quiet"];

/// Not a test: what each rank does. It adds up all ranks' numbers.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let greet = || {
        let mut ranks = Communicator::from_env()?;
        let mut sum = [ranks.rank() as u64];
        ranks.all_reduce_in_place(&mut sum, ReduceOp::Sum)?;
        // One write that begins a line: what other ranks' test runners have printed may stand on the last one.
        let greeting =
            format!("\nrank {} of {}: all numbers add up to {}\n", ranks.rank(), ranks.size(), sum[0]);
        std::io::stdout().write_all(greeting.as_bytes()).expect("a launcher reads this");
        Ok(())
    };
    let outcome: kolo::Result<()> = greet();
    if let Err(error) = outcome {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn this_program() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// A command without what the environment of this test says about ranks.
fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    let of_a_launcher = |name: &str| {
        ["KOLO_", "OMPI_", "PMI", "PMIX_", "SLURM_", "TORCHELASTIC_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(of_a_launcher) {
            command.env_remove(name);
        }
    }
    command.env("KOLO_DEADLINE", "60").env("RUST_BACKTRACE", "0");
    command
}

/// A launcher that may not be installed; where it must be, its absence is a failure.
fn launcher(program: &str) -> Option<Command> {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        assert!(std::env::var_os("CI").is_none(), "{program} is not installed");
        eprintln!("skipped: {program} is not installed");
        return None;
    }
    Some(command(program))
}

fn mpirun() -> Option<Command> {
    let mut command = launcher("mpirun.openmpi")?;
    command.args(["--oversubscribe", "--bind-to", "none"]);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    Some(command)
}

fn expect_greetings(output: &Output, size: usize) {
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}{errors}");
    let mut lines: Vec<&str> = text.lines().filter(|line| line.starts_with("rank ")).collect();
    lines.sort_unstable();
    let sum = size * (size - 1) / 2;
    let greeting = |rank| format!("rank {rank} of {size}: all numbers add up to {sum}");
    assert_eq!(lines, (0..size).map(greeting).collect::<Vec<_>>(), "{errors}");
}

#[test]
fn open_mpi_starts_ranks() {
    for size in [1, 2, 4] {
        for transport in ["shm", "tcp"] {
            let Some(mut mpirun) = mpirun() else { return };
            mpirun.args(["-n", &size.to_string(), "-x", "KOLO_TRANSPORT"]).env("KOLO_TRANSPORT", transport);
            expect_greetings(&mpirun.arg(this_program()).args(AS_RANK).output().unwrap(), size);
        }
    }
}

#[test]
fn two_jobs_of_open_mpi_at_once_do_not_meet() {
    let Some(first) = mpirun() else { return };
    let start = |mut mpirun: Command, size: &str| {
        mpirun
            .args(["-n", size])
            .arg(this_program())
            .args(AS_RANK)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let (first, second) = (start(first, "3"), start(mpirun().unwrap(), "2"));
    expect_greetings(&first.wait_with_output().unwrap(), 3);
    expect_greetings(&second.wait_with_output().unwrap(), 2);
}

#[test]
fn mpich_starts_ranks_through_pmi() {
    for size in [1, 2, 4] {
        for transport in ["shm", "tcp"] {
            let Some(mut mpiexec) = launcher("mpiexec.hydra") else { return };
            mpiexec.args(["-n", &size.to_string()]).env("KOLO_TRANSPORT", transport);
            expect_greetings(&mpiexec.arg(this_program()).args(AS_RANK).output().unwrap(), size);
        }
    }
}

fn by_hand(rank: usize, size: usize, variables: &[(&str, &str)]) -> Child {
    let mut rank_itself = command(this_program());
    rank_itself.args(AS_RANK).env("KOLO_RANK", rank.to_string()).env("KOLO_SIZE", size.to_string());
    rank_itself.envs(variables.iter().copied()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_person_starts_ranks_in_any_order() {
    let place = format!("127.0.0.1:{}", free_port());
    let secret = ("KOLO_SECRET", "a secret that is long enough");
    for variables in [&[("KOLO_RENDEZVOUS", place.as_str())][..], &[("KOLO_RENDEZVOUS", &place), secret]] {
        for order in [[0, 1, 2], [2, 1, 0]] {
            let ranks: Vec<Child> = order.into_iter().map(|rank| by_hand(rank, 3, variables)).collect();
            let mut all: Option<Output> = None;
            for rank in ranks {
                let output = rank.wait_with_output().unwrap();
                match &mut all {
                    None => all = Some(output),
                    Some(all) => {
                        all.stdout.extend(output.stdout);
                        all.stderr.extend(output.stderr);
                    }
                }
            }
            expect_greetings(&all.unwrap(), 3);
        }
    }
}

#[test]
fn wrong_settings_are_one_line_each() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = taken.local_addr().unwrap().to_string();
    let secret = ("KOLO_SECRET", "a secret that is long enough");
    for (variables, expected) in [
        (vec![("KOLO_RENDEZVOUS", place.as_str()), secret], "is in use: choose another in KOLO_RENDEZVOUS"),
        (vec![("KOLO_RENDEZVOUS", "192.0.2.1:9000")], "give every rank the same KOLO_SECRET_FILE"),
        (vec![("KOLO_RENDEZVOUS", "nowhere")], "KOLO_RENDEZVOUS=`nowhere`: expected host:port"),
        (vec![], "KOLO_RENDEZVOUS is not set"),
        (vec![("KOLO_RENDEZVOUS", "@x"), ("KOLO_LISTEN_FD", "0")], "KOLO_LISTEN_FD=0"),
        (
            vec![("KOLO_RENDEZVOUS", "@x"), ("KOLO_LISTEN_FD", "999")],
            "KOLO_LISTEN_FD=999: Bad file descriptor",
        ),
    ] {
        let output = by_hand(0, 2, &variables).wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
        assert!(errors.contains(expected), "{errors}");
    }
}
