//! kill -9, at any moment: every survivor is told who died, and soon; those that are left go on. And SIGSTOP: who is
//! stopped is no dead one, and is named. Each rank is this program again, as [`rank`].

#[path = "support/child.rs"]
mod child;

use std::process::Command;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use child::{Rank, say, wait_for_a_word};
use kolo::{CollectiveKind, Communicator, Error, Kind, ReduceOp, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// What makes this program a rank.
const AS_RANK: [&str; 5] = ["rank", "--exact", "--ignored", "--nocapture", "--quiet"];
/// Tells it which algorithm to walk.
const ALGORITHM: &str = "KOLO_TEST_ALGORITHM";
/// After how many seconds its calls fail.
const DEADLINE: &str = "KOLO_TEST_DEADLINE";
/// Tells it what to do after its call has failed: `go on`, or `reuse` its memory.
const THEN: &str = "KOLO_TEST_THEN";
/// What memory is reused for.
const PATTERN: u64 = 0x5ca1_ab1e_0ddb_a11e;
/// So many sums in a row, a millisecond apart, take longer than a test takes to kill.
const STEADY: usize = 20;
/// Elements of the calls in the loop, in turn: one message, several, many rounds.
const COUNTS: [usize; 3] = [2, 5_000, 300_000];

/// Not a test: what each rank does. It sums until a rank dies, shrinks until a sum succeeds, and says what it saw.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let mut ranks = Communicator::from_env().expect("a rank can join");
    let algorithm = std::env::var(ALGORITHM).expect("a test says how");
    ranks.set_algorithm(CollectiveKind::AllReduce, Some(&algorithm)).expect("it is known");
    // From when on it runs: to start takes its time on a busy machine.
    let deadline: f64 = std::env::var(DEADLINE).expect("a test says for how long").parse().expect("seconds");
    let number = ranks.rank() as u64;
    // Memory in which others may work.
    let mut data = ranks.alloc(COUNTS[COUNTS.len() - 1]).expect("there is memory");
    for round in 0.. {
        let count = COUNTS[round % COUNTS.len()];
        match sum(&mut ranks, number, &mut data[..count]) {
            Ok(_) if round == COUNTS.len() => {
                ranks.set_deadline(Some(Duration::from_secs_f64(deadline)));
                say("ready");
            }
            Ok(_) => {}
            Err(error) => {
                say(&format!("error {} {:?} {:?} {error}", now(), error.kind(), error.peer()));
                break;
            }
        }
    }
    match std::env::var(THEN).as_deref() {
        Ok("go on") => {
            let (ranks, left) = go_on(ranks, number).expect("those that are left go on");
            say(&format!("left {} {left}", ranks.size()));
        }
        // The call is over: this memory is the caller's own again.
        Ok("reuse") => {
            data.fill(PATTERN);
            say("reused");
            wait_for_a_word();
            let changed = data.iter().filter(|element| **element != PATTERN).count();
            say(&format!("changed {changed}"));
        }
        _ => {}
    }
    wait_for_a_word();
}

/// Shrinks as often as it takes. One sum is not enough: who dies in the midst of it may have taken part for some, and
/// have died before for others.
fn go_on(mut ranks: Communicator, number: u64) -> Result<(Communicator, u64)> {
    loop {
        ranks = ranks.shrink()?;
        let mut steady = || {
            std::thread::sleep(Duration::from_millis(1));
            sum(&mut ranks, number, &mut vec![0; 1000])
        };
        match (0..STEADY).try_fold(0, |_, _| steady()) {
            Ok(left) => return Ok((ranks, left)),
            Err(error) if error.kind() == Kind::PeerLost => {}
            Err(error) => return Err(error),
        }
    }
}

/// The sum of all ranks' numbers, which takes part in every element.
fn sum(ranks: &mut Communicator, number: u64, data: &mut [u64]) -> Result<u64> {
    data.fill(number);
    ranks.all_reduce_in_place(data, ReduceOp::Sum)?;
    match data.iter().all(|element| *element == data[0]) {
        true => Ok(data[0]),
        false => Err(Error::new(Kind::Usage, "WRONG: elements differ")),
    }
}

/// Microseconds, as all processes count them.
fn now() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_micros()
}

/// How ranks are linked, and how they go about it.
struct Case {
    size: usize,
    transport: &'static str,
    algorithm: &'static str,
    /// In seconds.
    deadline: &'static str,
    /// See [`THEN`].
    then: &'static str,
}

/// One rank of a case.
fn process(case: &Case, place: &str, rank: usize) -> Rank {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command.args(AS_RANK).env("KOLO_RANK", rank.to_string()).env("KOLO_SIZE", case.size.to_string());
    command.env("KOLO_RENDEZVOUS", place).env("KOLO_TRANSPORT", case.transport);
    command.env(DEADLINE, case.deadline).env(ALGORITHM, case.algorithm).env(THEN, case.then);
    Rank::start(&mut command)
}

/// All ranks of a case, in the midst of their calls.
fn start(case: &Case, what: &str) -> Vec<Rank> {
    let place = format!("@kolo-deaths-{}-{what}", std::process::id());
    let mut ranks: Vec<Rank> = (0..case.size).map(|rank| process(case, &place, rank)).collect();
    for rank in &mut ranks {
        assert_eq!(rank.hear().as_deref(), Some("ready"), "{what}");
    }
    ranks
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % end
    }
}

/// When a process has ended: on a busy machine its kernel takes a while.
fn end_of(rank: &Rank) -> JoinHandle<u128> {
    let process = pidfd_open(Pid::from_child(&rank.child), PidfdFlags::empty()).expect("it runs");
    std::thread::spawn(move || {
        poll(&mut [PollFd::new(&process, PollFlags::IN)], None).expect("it ends");
        now()
    })
}

/// Kills a rank, and a second one right after where `twice`; says after how many microseconds the first had ended, and each
/// survivor was told.
fn trial(case: &Case, number: usize, twice: bool, dice: &mut Dice) -> (u128, Vec<u128>) {
    let &Case { size, transport, algorithm, .. } = case;
    let what = format!("trial {number}: {size} ranks over {transport} by {algorithm}");
    let mut ranks = start(case, &what);
    std::thread::sleep(Duration::from_micros(dice.below(20_000)));
    let first = dice.below(size as u64) as usize;
    let mut victims = vec![first];
    let (end, killed) = (end_of(&ranks[first]), now());
    ranks[first].signal(Signal::KILL);
    if twice {
        std::thread::sleep(Duration::from_micros(dice.below(3_000)));
        let second = (first + 1 + dice.below(size as u64 - 1) as usize) % size;
        ranks[second].signal(Signal::KILL);
        victims.push(second);
    }
    let survivors: Vec<usize> = (0..size).filter(|rank| !victims.contains(rank)).collect();
    let left = format!("left {} {}", survivors.len(), survivors.iter().sum::<usize>());
    let mut took = Vec::new();
    for &rank in &survivors {
        let error = ranks[rank].hear().unwrap_or_else(|| panic!("{what}: rank {rank} ended"));
        let mut words = error.split_whitespace();
        let (kind, when) = (words.next(), words.next().and_then(|when| when.parse::<u128>().ok()));
        let named = victims.iter().any(|victim| error.contains(&format!("PeerLost Some({victim})")));
        assert!(kind == Some("error") && named, "{what}, {victims:?} killed: rank {rank}: {error}");
        took.push(when.unwrap_or(killed).saturating_sub(killed));
    }
    for &rank in &survivors {
        let said = ranks[rank].hear();
        assert_eq!(said.as_deref(), Some(left.as_str()), "{what}, {victims:?} killed: rank {rank}");
    }
    (end.join().expect("it waits for the end").saturating_sub(killed), took)
}

/// So many trials of every kind.
fn trials(of_each: usize) {
    let mut dice = Dice(17);
    for transport in ["shm", "tcp"] {
        for (size, algorithm) in [(2, "direct"), (4, "ring"), (4, "tree"), (8, "direct"), (8, "tree")] {
            let case = Case { size, transport, algorithm, deadline: "30", then: "go on" };
            let (mut ended, mut took) = (Vec::new(), Vec::new());
            for number in 0..of_each {
                let twice = size > 2 && number % 2 == 1;
                let (end, mut told) = trial(&case, number, twice, &mut dice);
                if !twice {
                    ended.push(end);
                    took.append(&mut told);
                }
            }
            ended.sort_unstable();
            took.sort_unstable();
            let at = |times: &[u128], hundredths| times[(times.len() - 1) * hundredths / 100] as f64 / 1000.0;
            let (end, half, most, all) = (at(&ended, 50), at(&took, 50), at(&took, 95), at(&took, 100));
            let soon = took.iter().filter(|micros| **micros <= 10_000).count() * 100 / took.len();
            println!(
                "{size} ranks over {transport} by {algorithm}: ended after {end:.1} ms (median); survivors told after \
                 {half:.1} (median), {most:.1} (95 %), {all:.1} (all), {soon} % within 10 ms"
            );
        }
    }
}

#[test]
fn survivors_are_told_who_died_and_go_on() {
    trials(2);
}

/// The others wait until their deadline, and say who is stopped; that one learns what became of its call when it runs
/// on.
#[test]
fn who_is_stopped_is_named_and_learns_its_fate() {
    for transport in ["shm", "tcp"] {
        let case = Case { size: 4, transport, algorithm: "ring", deadline: "1", then: "" };
        let mut ranks = start(&case, &format!("stopped over {transport}"));
        ranks[2].signal(Signal::STOP);
        let pid = ranks[2].child.id();
        let errors: Vec<String> =
            [0, 1, 3].into_iter().filter_map(|rank: usize| ranks[rank].hear()).collect();
        assert!(errors.len() == 3 && errors.iter().all(|error| error.contains(" Some(2) ")), "{errors:?}");
        let named = format!("rank 2 is stopped: continue its process (kill -CONT {pid})");
        let first = errors.iter().find(|error| error.contains(" Deadline ")).expect("it waited");
        assert!(first.contains(&named), "{first}");
        ranks[2].signal(Signal::CONT);
        let fate = ranks[2].hear().expect("it runs on");
        assert!(fate.contains(" PeerLost ") || fate.contains(" Deadline "), "{fate}");
    }
}

/// Stops a rank in the midst of a call, lets the others' calls fail and their memory be reused, and wakes it.
fn wake_late(case: &Case, number: usize, dice: &mut Dice) {
    let &Case { size, transport, algorithm, .. } = case;
    let what = format!("waking {number}: {size} ranks over {transport} by {algorithm}");
    let mut ranks = start(case, &what);
    std::thread::sleep(Duration::from_micros(dice.below(5_000)));
    let sleeper = dice.below(size as u64) as usize;
    ranks[sleeper].signal(Signal::STOP);
    let others: Vec<usize> = (0..size).filter(|rank| *rank != sleeper).collect();
    for &rank in &others {
        let error = ranks[rank].hear().unwrap_or_default();
        assert!(error.starts_with("error "), "{what}: rank {rank}: {error}");
        assert_eq!(ranks[rank].hear().as_deref(), Some("reused"), "{what}: rank {rank}");
    }
    ranks[sleeper].signal(Signal::CONT);
    let fate = ranks[sleeper].hear().unwrap_or_default();
    assert!(fate.starts_with("error "), "{what}: rank {sleeper}: {fate}");
    for &rank in &others {
        ranks[rank].tell();
        assert_eq!(ranks[rank].hear().as_deref(), Some("changed 0"), "{what}: rank {rank}");
    }
}

/// So many times each way.
fn wakings(of_each: usize) {
    let mut dice = Dice(29);
    for transport in ["shm", "tcp"] {
        for (size, algorithm) in [(2, "direct"), (2, "halving"), (4, "ring"), (4, "tree"), (4, "board")] {
            if transport == "tcp" && algorithm == "board" {
                continue;
            }
            let case = Case { size, transport, algorithm, deadline: "0.1", then: "reuse" };
            (0..of_each).for_each(|number| wake_late(&case, number, &mut dice));
        }
    }
}

#[test]
fn nobody_writes_late() {
    wakings(2);
}

#[test]
#[ignore = "takes minutes: cargo test --release --test deaths -- --ignored --nocapture a_thousand"]
fn a_thousand_wakings() {
    wakings(112);
}

/// As many as make rare orders likely.
#[test]
#[ignore = "takes minutes: cargo test --release --test deaths -- --ignored --nocapture a_thousand"]
fn a_thousand_deaths() {
    trials(100);
}
