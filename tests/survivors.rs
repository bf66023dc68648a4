//! What the other ranks are told when one of them dies, or cannot do its part. Each rank is this program again,
//! as [`rank`].

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use kolo::{CollectiveKind, Communicator, Kind, ReduceOp, Result};
use rustix::process::{Resource, Rlimit, Signal, getpid, getrlimit, kill_process, setrlimit};

/// What makes this program a rank.
const AS_RANK: [&str; 5] = ["rank", "--exact", "--ignored", "--nocapture", "--quiet"];
/// Tells it who is in trouble, and which.
const TROUBLE: &str = "KOLO_TEST_TROUBLE";
/// On two cores and on one, some lead and some do not; the last one always leads.
const RANKS: usize = 5;
const LAST: usize = RANKS - 1;

/// Not a test: what each rank does. It says what became of its calls.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let mut ranks = Communicator::from_env().expect("a rank can join");
    let trouble = std::env::var(TROUBLE).expect("a test says what happens");
    let (who, what) = trouble.split_once(' ').expect("a rank and a trouble");
    let own = (who == ranks.rank().to_string()).then_some(what);
    let told = match call(&mut ranks, own) {
        Ok(()) => "nothing".to_owned(),
        Err(error) => format!("{:?} {:?}: {error}", error.kind(), error.peer()),
    };
    // One write that begins a line: what the test runner has printed may stand on the last one.
    std::io::stdout().write_all(format!("\ntold {told}\n").as_bytes()).expect("a test reads this");
}

/// All-reduces over the board, in the midst of which a rank gets into trouble of its `own`.
fn call(ranks: &mut Communicator, own: Option<&str>) -> Result<()> {
    let mut data = vec![1.0f32; 1 << 20];
    let kind = CollectiveKind::AllReduce;
    // Opens all links, so that the board's memory is all that is missing.
    ranks.set_algorithm(kind, Some("direct"))?;
    ranks.all_reduce_in_place(&mut data[..1], ReduceOp::Sum)?;
    ranks.set_algorithm(kind, Some("board"))?;
    match own {
        Some("no memory") => leave_little_memory(),
        Some("death") => _ = std::thread::spawn(die_soon),
        _ => {}
    }
    // Averages stay what they are, however often they are taken.
    (0..100_000).try_for_each(|_| ranks.all_reduce_in_place(&mut data, ReduceOp::Average))
}

/// Less than a board takes.
fn leave_little_memory() {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("how much is mapped");
    let used: u64 = size.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10;
    let limit = Rlimit { current: Some(used + (256 << 10)), ..getrlimit(Resource::As) };
    setrlimit(Resource::As, limit).expect("a process may do with less");
}

fn die_soon() {
    std::thread::sleep(Duration::from_millis(50));
    kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
}

/// What each rank was told when rank `who` got into trouble; nothing of one that was killed.
fn told(who: usize, what: &str) -> Vec<Option<String>> {
    let place = format!("@kolo-survivors-{}-{who}-{}", std::process::id(), what.len());
    let start = |rank: usize| -> Child {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args(AS_RANK).env("KOLO_RANK", rank.to_string()).env("KOLO_SIZE", RANKS.to_string());
        command.env("KOLO_RENDEZVOUS", &place).env("KOLO_TRANSPORT", "shm").env("KOLO_DEADLINE", "60");
        command.env(TROUBLE, format!("{who} {what}")).stdout(Stdio::piped()).spawn().expect("it can be run")
    };
    let ranks: Vec<Child> = (0..RANKS).map(start).collect();
    let outputs = ranks.into_iter().map(|rank| rank.wait_with_output().expect("it ends").stdout);
    let text = outputs.map(|output| String::from_utf8(output).expect("text"));
    text.map(|text| text.lines().find_map(|line| Some(line.strip_prefix("told ")?.to_owned()))).collect()
}

#[test]
fn a_rank_killed_at_the_board_is_news() {
    for who in [0, LAST] {
        let told = told(who, "death");
        assert_eq!(told[who], None);
        let survivors: Vec<&str> = told.iter().flatten().map(String::as_str).collect();
        assert_eq!(survivors.len(), LAST, "{told:?}");
        // Some wait for another one, which learned of it before them.
        assert!(survivors.iter().all(|told| told.starts_with("PeerLost Some(")), "{told:?}");
        let named = format!("PeerLost Some({who})");
        assert!(survivors.iter().any(|told| told.starts_with(&named)), "{told:?}");
    }
}

#[test]
fn that_there_is_no_memory_for_a_board_is_news() {
    // The first rank makes it, all map it.
    let told_of_first = told(0, "no memory");
    for (rank, told) in told_of_first.iter().enumerate() {
        let told = told.as_deref().unwrap_or_default();
        match rank {
            0 => assert!(told.starts_with("System None: ") && told.contains("shared memory"), "{told}"),
            _ => {
                assert!(told.starts_with("System Some(0): ") && told.contains("no memory to share"), "{told}")
            }
        }
    }
    for (rank, told) in told(LAST, "no memory").iter().enumerate() {
        let told = told.as_deref().unwrap_or_default();
        let kind = if rank == LAST { Kind::System } else { Kind::PeerLost };
        assert!(told.starts_with(&format!("{kind:?}")), "{rank}: {told}");
    }
}
