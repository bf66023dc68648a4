//! `kolo run --restart` with real ranks that kill themselves: others take their places, and the job ends as if nothing
//! had been.

#[path = "../../tests/support/child.rs"]
mod child;
#[path = "../../tests/support/elastic.rs"]
mod elastic;
mod support;

use std::ffi::OsString;
use std::process::Command;

use support::{finish, folder, kolo, lives, until, written_pids};

/// Not a test: what each rank does.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    elastic::live();
}

/// `kolo run` of so many ranks, of which these kill themselves one after the other.
fn job(ranks: usize, restarts: usize, transport: &str, die: &str) -> Command {
    let (ranks, restarts) = (ranks.to_string(), restarts.to_string());
    let options = ["run", "-n", &ranks, "--restart", &restarts, "--transport", transport, "--"];
    let rank = ["rank", "--exact", "--ignored", "--nocapture", "--quiet"];
    let program = std::env::current_exe().expect("it runs").into_os_string();
    let words = options.map(OsString::from).into_iter().chain([program]).chain(rank.map(OsString::from));
    let mut command = kolo(words);
    command.env(elastic::FULL, &ranks).env(elastic::DIE, die).env("KOLO_DEADLINE", "60");
    command
}

#[test]
fn ranks_that_die_are_replaced() {
    for transport in ["shm", "tcp"] {
        for die in ["0", "3", "2 0"] {
            let (code, out, err) = finish(&mut job(4, 2, transport, die));
            let what = format!("{die} over {transport}: {out}{err}");
            assert_eq!(code, 0, "{what}");
            let mut said: Vec<&str> =
                out.lines().filter_map(|line| line.split_once("said rank ")).map(|said| said.1).collect();
            said.sort_unstable();
            let expected = elastic::last_words(4);
            let expected: Vec<&str> = expected.iter().filter_map(|said| said.strip_prefix("rank ")).collect();
            assert_eq!(said, expected, "{what}");
            let mut left = 2;
            let told = die.split(' ').map(|rank| {
                left -= 1;
                format!("kolo: rank {rank} was killed by SIGKILL (signal 9); replacing it (restarts left: {left})\n")
            });
            assert_eq!(err, told.collect::<String>(), "{what}");
        }
    }
}

/// The last one to die is not replaced any more; what it leaves behind is nothing.
#[test]
fn no_more_are_replaced_than_is_allowed() {
    let folder = folder("restarts");
    let script = format!(
        "echo $$ >{}/$$; [ $KOLO_RANK = 1 ] && sleep 0.3 && exit 7; exec sleep 1000",
        folder.display()
    );
    let (code, out, err) = finish(&mut kolo(["run", "-n", "3", "--restart", "2", "--", "sh", "-c", &script]));
    let replaced =
        |left: u32| format!("kolo: rank 1 exited with code 7; replacing it (restarts left: {left})\n");
    let last = "kolo: rank 1 exited with code 7; stopping the other ranks\n";
    assert_eq!((code, out.as_str(), err), (7, "", replaced(1) + &replaced(0) + last));
    let pids = written_pids(&folder);
    assert_eq!(pids.len(), 5);
    until("all are gone", || !pids.iter().any(|&pid| lives(pid)));
}

/// A newcomer has the environment of the rank whose place it takes, and one variable more.
#[test]
fn a_newcomer_is_told_to_join() {
    let script = r#"
        [ $KOLO_RANK = 0 ] && exec sleep 2
        [ "$KOLO_JOIN" ] || exit 3
        echo $KOLO_RANK/$KOLO_SIZE $KOLO_LOCAL_RANK ${#KOLO_SECRET} ${KOLO_LISTEN_FD:-none} $KOLO_JOIN"#;
    let (code, out, _) = finish(&mut kolo(["run", "-n", "2", "--restart", "1", "--", "sh", "-c", script]));
    assert_eq!((code, out.as_str()), (0, "[1] 1/2 1 64 none 1\n"));
}

/// Where all end there is nobody whom a newcomer could join.
#[test]
fn a_program_that_fails_everywhere_is_not_tried_again() {
    let (code, _, err) = finish(&mut kolo(["run", "-n", "3", "--restart", "9", "--", "sh", "-c", "exit 4"]));
    assert_eq!(code, 4);
    assert!(
        err.lines().count() == 1 && err.contains("exited with code 4") && !err.contains("replacing"),
        "{err}"
    );
}
