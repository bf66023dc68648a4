//! Who knocks at a running job's doors and does not know its secret is sent away, however many come, whatever they say or
//! do not say; the job runs on, and its memory stays what it was. Each rank is this program again, as [`rank`].

#[path = "support/child.rs"]
mod child;

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use child::{Rank, say};
use kolo::config::Config;
use kolo::health::Deadline;
use kolo::{Communicator, Kind, ReduceOp, bootstrap};

/// What makes this program a rank.
const AS_RANK: [&str; 5] = ["rank", "--exact", "--ignored", "--nocapture", "--quiet"];
const SECRET: &str = "a secret that only this test's ranks know";
const SOON: Duration = Duration::from_secs(30);
/// What a stranger hears at most: a challenge, and a verdict without words.
const HEARD: usize = 75;
/// So many strangers stay silent at a time: more than a door has places.
const SILENT: usize = 300;
/// By so much memory and descriptors may be more than they were: the places at the door.
const MORE: [u64; 2] = [8 << 20, 280];

/// Not a test: what each rank does. It sums for ever, and says how often it has for each word that it hears.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let mut ranks = Communicator::from_env().expect("a rank can join");
    let calls = AtomicU64::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = String::new();
            while std::io::stdin().read_line(&mut line).expect("the test holds the other end") > 0 {
                say(&format!("{} {} {}", calls.load(Ordering::Relaxed), resident(), open()));
            }
            std::process::exit(0);
        });
        let (rank, size) = (ranks.rank() as u64, ranks.size() as u64);
        loop {
            let mut data = vec![rank; 1000];
            if let Err(error) = ranks.all_reduce_in_place(&mut data, ReduceOp::Sum) {
                say(&format!("{error}"));
                std::process::exit(1);
            }
            assert!(data.iter().all(|element| *element == size * (size - 1) / 2));
            calls.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// Bytes of memory that this process has.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

fn open() -> usize {
    fs::read_dir("/proc/self/fd").expect("Linux tells").count()
}

/// Two ranks that sum over TCP, and where one of them has its door.
struct Job {
    ranks: Vec<Rank>,
    door: SocketAddr,
}

impl Job {
    fn start() -> Self {
        let free =
            || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let (door, place) = (free(), format!("@kolo-strangers-{}", std::process::id()));
        let rank = |rank: usize| {
            let mut command = Command::new(std::env::current_exe().expect("it runs"));
            command.args(AS_RANK).env("KOLO_RANK", rank.to_string()).env("KOLO_SIZE", "2");
            command.env("KOLO_RENDEZVOUS", &place).env("KOLO_TRANSPORT", "tcp").env("KOLO_SECRET", SECRET);
            if rank == 1 {
                command.env("KOLO_PORT", door.port().to_string());
            }
            Rank::start(&mut command)
        };
        let mut job = Self { ranks: vec![rank(0), rank(1)], door };
        while job.look(1)[0] == 0 {}
        job
    }

    /// How many calls a rank has made, its memory, and its open descriptors.
    fn look(&mut self, rank: usize) -> [u64; 3] {
        self.ranks[rank].tell();
        let said = self.ranks[rank].hear().expect("it runs on");
        let number = |number: &str| number.parse().unwrap_or_else(|_| panic!("it is disturbed: {said}"));
        let numbers: Vec<u64> = said.split(' ').map(number).collect();
        numbers.try_into().expect("three of them")
    }

    /// Calls in a second while something else happens.
    fn rate(&mut self, meanwhile: impl FnOnce()) -> f64 {
        let (begun, before) = (Instant::now(), self.look(0)[0]);
        meanwhile();
        (self.look(0)[0] - before) as f64 / begun.elapsed().as_secs_f64()
    }
}

/// Those that stay, and how many have come.
struct Crowd {
    door: SocketAddr,
    silent: VecDeque<TcpStream>,
    slow: TcpStream,
    come: usize,
}

impl Crowd {
    fn new(door: SocketAddr) -> Self {
        Self { door, silent: VecDeque::new(), slow: knock(door), come: 0 }
    }

    /// One more stranger, of each kind in turn.
    fn grow(&mut self) {
        let mut stranger = knock(self.door);
        let begins = |magic: &[u8; 8]| [&magic[..], &[self.come as u8; 128]].concat();
        match self.come % 8 {
            // It leaves at once.
            0 => {}
            // It says nothing and stays.
            1 | 2 => {
                self.silent.push_back(stranger.try_clone().expect("a descriptor"));
                if self.silent.len() > SILENT {
                    self.silent.pop_front();
                }
            }
            3 => sent_away(stranger, b"GET / HTTP/1.1\r\n\r\n"),
            4 => sent_away(stranger, &[0xff; 4096]),
            // Another version of the handshake; a hello as a rank says it, with a proof by another secret.
            5 => sent_away(stranger, &begins(b"kolo-hi3")),
            6 => sent_away(stranger, &[begins(b"kolo-hi4"), vec![7; 32]].concat()),
            // It leaves in the middle of a word.
            _ => _ = stranger.write_all(b"kolo-hi4 and"),
        }
        // One byte at a time; a new one where the door has lost its patience.
        if self.slow.write_all(b"k").is_err() {
            self.slow = knock(self.door);
        }
        self.come += 1;
    }
}

fn knock(door: SocketAddr) -> TcpStream {
    let stranger = TcpStream::connect(door).expect("the door is open");
    stranger.set_read_timeout(Some(SOON)).expect("a socket has one");
    stranger
}

/// Hears no more than anybody may, and then the end.
fn sent_away(mut stranger: TcpStream, words: &[u8]) {
    let _ = stranger.write_all(words);
    let _ = stranger.shutdown(std::net::Shutdown::Write);
    let mut heard = Vec::new();
    if let Err(error) = stranger.read_to_end(&mut heard) {
        // The door has hung up on words that it never read.
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it is kept waiting");
    }
    assert!(heard.len() <= HEARD, "{} bytes for a stranger", heard.len());
}

/// So many strangers, one after the other with so long between, some at a time; before each time the job is left alone
/// for a while.
fn storms(strangers: usize, times: usize, alone: Duration, between: Duration) {
    let mut job = Job::start();
    let (mut crowd, mut rates) = (Crowd::new(job.door), Vec::new());
    let before = job.look(1);
    for _ in 0..times {
        let alone = job.rate(|| std::thread::sleep(alone));
        let begun = Instant::now();
        let mut one = || {
            crowd.grow();
            std::thread::sleep(between);
        };
        let beset = job.rate(|| (0..strangers / times).for_each(|_| one()));
        let came = (strangers / times) as f64 / begun.elapsed().as_secs_f64();
        println!("{alone:.0} calls/s alone, {beset:.0} with {came:.0} strangers/s");
        rates.push((alone, beset));
    }
    let after = job.look(1);
    for (what, more) in [1, 2].into_iter().zip(MORE) {
        assert!(
            after[what] <= before[what] + more,
            "{before:?} became {after:?} with {} strangers",
            crowd.come
        );
    }
    let median = |mut rates: Vec<f64>| {
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    };
    let (alone, beset) = rates.into_iter().unzip();
    println!(
        "{} strangers: {:.0} calls/s alone, {:.0} with them (medians); memory {:.1}, then {:.1} MiB",
        crowd.come,
        median(alone),
        median(beset),
        before[1] as f64 / f64::from(1 << 20),
        after[1] as f64 / f64::from(1 << 20)
    );
    // It still lets in who belongs there, and sums.
    let calls = job.look(0)[0];
    while job.look(0)[0] < calls + 10 {}
}

/// Who has its own words said back to it believes none of them: neither as a challenge nor as a proof. (What was recorded
/// of others is played again in `encryption.rs`.)
#[test]
fn an_echo_is_no_rank() {
    let echo = TcpListener::bind("127.0.0.1:0").expect("a port");
    let place = echo.local_addr().expect("it has one").to_string();
    let variables =
        [("KOLO_RANK", "1"), ("KOLO_SIZE", "2"), ("KOLO_RENDEZVOUS", &place[..]), ("KOLO_SECRET", SECRET)];
    let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|it| it.1.into());
    let config = Config::read(&variable).expect("nothing is wrong with it");
    std::thread::scope(|scope| {
        let rank = scope.spawn(|| bootstrap::join(&config, Deadline::after(Some(SOON))).err());
        let (mut stranger, _) = echo.accept().expect("it comes");
        let mut words = [0; 1024];
        while let Ok(count @ 1..) = stranger.read(&mut words) {
            let _ = stranger.write_all(&words[..count]);
        }
        let error = rank.join().expect("it does not panic").expect("an echo lets nobody in");
        assert!(error.kind() == Kind::Refused && !error.to_string().contains('\n'), "{error:?}");
    });
}

#[test]
fn a_running_job_is_not_disturbed() {
    storms(1600, 2, Duration::from_millis(300), Duration::ZERO);
}

/// Throughput is shown, not asserted: of a job that is knocked at a few hundred times a second, and as fast as one thread
/// can, which takes the processor that the job would have had.
#[test]
#[ignore = "takes minutes: cargo test --release --test strangers -- --ignored --nocapture ten_thousand"]
fn ten_thousand_strangers() {
    storms(10_000, 10, Duration::from_secs(3), Duration::from_millis(3));
    storms(10_000, 10, Duration::from_secs(1), Duration::ZERO);
}
