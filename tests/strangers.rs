//! Who knocks at a running job's doors and does not know its secret is sent away, however many come, whatever they say or
//! do not say; the job runs on, and its memory stays what it was. Each rank is this program again, as [`rank`].

#[path = "support/child.rs"]
mod child;

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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

/// What a rank hears when all are to meet anew.
const MEET: &str = "meet\n";
/// For so long each waits for the other then.
const MEETING: Duration = Duration::from_secs(1);

/// Not a test: what each rank does. It sums for ever, and says how often it has for each word that it hears; or, if that
/// is [`MEET`], what came of a meeting.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let mut ranks = Communicator::from_env().expect("a rank can join");
    let (calls, wish) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut line = String::new();
            while std::io::stdin().read_line(&mut line).expect("the test holds the other end") > 0 {
                if std::mem::take(&mut line) == MEET {
                    wish.store(1, Ordering::Relaxed);
                    continue;
                }
                say(&format!("{} {} {}", calls.load(Ordering::Relaxed), resident(), open()));
            }
            std::process::exit(0);
        });
        let (rank, size) = (ranks.rank() as u64, ranks.size() as u64);
        loop {
            let mut data = vec![rank; 1000];
            // All learn of it in one call.
            data[0] = wish.load(Ordering::Relaxed);
            if let Err(error) = ranks.all_reduce_in_place(&mut data, ReduceOp::Sum) {
                say(&format!("{error}"));
                std::process::exit(1);
            }
            assert!(data[1..].iter().all(|element| *element == size * (size - 1) / 2));
            calls.fetch_add(1, Ordering::Relaxed);
            if data[0] > 0 {
                ranks.set_deadline(Some(MEETING));
                let met = ranks.duplicate().and_then(|mut twins| twins.barrier());
                say(&met.err().map_or("met".into(), |error| error.to_string()));
                loop {
                    std::thread::park();
                }
            }
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
        let place = format!("@kolo-strangers-{}", std::process::id());
        Self::over([&place, &place], free())
    }

    /// Each rank looks for the other at such a place.
    fn over(places: [&str; 2], door: SocketAddr) -> Self {
        let rank = |rank: usize| {
            let mut command = Command::new(std::env::current_exe().expect("it runs"));
            command.args(AS_RANK).env("KOLO_RANK", rank.to_string()).env("KOLO_SIZE", "2");
            command
                .env("KOLO_RENDEZVOUS", places[rank])
                .env("KOLO_TRANSPORT", "tcp")
                .env("KOLO_SECRET", SECRET);
            if rank == 1 {
                command.env("KOLO_PORT", door.port().to_string());
            }
            Rank::start(&mut command)
        };
        let mut job = Self { ranks: vec![rank(0), rank(1)], door };
        while job.look(1)[0] == 0 {}
        job
    }

    /// Has its ranks meet anew, and says what rank 1 makes of it.
    fn meet(&mut self) -> String {
        let words = self.ranks[1].child.stdin.as_mut().expect("it is a pipe");
        words.write_all(MEET.as_bytes()).expect("it runs on");
        self.ranks[1].hear().expect("it runs on")
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

fn free() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port")
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
    let _ = stranger.shutdown(Shutdown::Write);
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

/// A job whose only link goes through the test, with all that rank 0 has said on it. Nobody else gets through there.
struct Tapped {
    job: Job,
    said: Arc<Mutex<Vec<u8>>>,
    /// Where rank 0 takes rank 1's door to be.
    _tap: Arc<TcpListener>,
}

impl Tapped {
    fn start() -> Self {
        let (door, hub) = (free(), free());
        let [bend, tap] = [(); 2].map(|()| Arc::new(TcpListener::bind("127.0.0.1:0").expect("a port")));
        let at = |listener: &TcpListener| listener.local_addr().expect("it has one");
        let (place, wrong) = (at(&bend), at(&tap));
        let said = Arc::new(Mutex::new(Vec::new()));
        let (heard, listener) = (Arc::clone(&said), Arc::clone(&tap));
        // What rank 1 says of its door on the way to the rendezvous.
        let address = |of: SocketAddr| [&[127, 0, 0, 1][..], &of.port().to_le_bytes()].concat();
        std::thread::spawn(move || {
            between(&bend, hub, move |words| {
                let (right, wrong) = (address(door), address(wrong));
                if let Some(at) = words.windows(right.len()).position(|window| window == right) {
                    words[at..at + wrong.len()].copy_from_slice(&wrong);
                }
            });
        });
        std::thread::spawn(move || {
            between(&listener, door, move |words| heard.lock().expect("no panic").extend_from_slice(words));
        });
        let job = Job::over([&hub.to_string(), &place.to_string()], door);
        Self { job, said, _tap: tap }
    }

    /// Visits that end as they should, while the job sums; what rank 1 says of them in the end.
    fn visited(mut self, visit: impl FnOnce(SocketAddr, &[u8])) -> String {
        let said = self.said.lock().expect("no panic").clone();
        let before = self.job.look(1);
        visit(self.job.door, &said);
        let begun = Instant::now();
        while self.job.look(1)[2] > before[2] {
            assert!(begun.elapsed() < SOON, "descriptors of strangers stay open");
        }
        let [calls, memory, _] = self.job.look(1);
        assert!(memory <= before[1] + MORE[0], "{before:?} became {memory}");
        while self.job.look(0)[0] < calls + 10 {}
        self.job.meet()
    }
}

/// Takes one connection, and passes on what comes there as `change` leaves it, and what comes back.
fn between(listener: &TcpListener, to: SocketAddr, change: impl FnMut(&mut [u8])) {
    let near = listener.accept().expect("it comes").0;
    let begun = Instant::now();
    let far = loop {
        match TcpStream::connect(to) {
            Ok(far) => break far,
            Err(cause) => assert!(begun.elapsed() < SOON, "{to}: {cause}"),
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let twin = |stream: &TcpStream| stream.try_clone().expect("a descriptor");
    let (back, forth) = (twin(&far), twin(&near));
    std::thread::spawn(move || pass(back, forth, |_| {}));
    pass(near, far, change);
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut change: impl FnMut(&mut [u8])) {
    let mut words = vec![0; 1 << 16];
    while let Ok(count @ 1..) = from.read(&mut words) {
        change(&mut words[..count]);
        if to.write_all(&words[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

/// Of the handshake: the dialer's hello and its proof, the waiter's challenge.
const HELLO: usize = 136;
const PROOF: usize = 32;
const CHALLENGE: usize = 40;

/// Says a hello and hears the challenge.
fn challenged(door: SocketAddr, hello: &[u8]) -> (TcpStream, [u8; CHALLENGE]) {
    let (mut stranger, mut challenge) = (knock(door), [0; CHALLENGE]);
    stranger.write_all(hello).expect("the door is open");
    stranger.read_exact(&mut challenge).expect("anybody is asked");
    (stranger, challenge)
}

#[test]
fn whoever_repeats_what_ranks_say_is_refused_and_named() {
    let why = Tapped::start().visited(|door, said| {
        let hello = &said[..HELLO];
        // A genuine handshake, byte for byte, with what its rank said next.
        sent_away(knock(door), &said[..said.len().min(4096)]);
        // The door's own challenge, of this knock and of another at the same time, as a proof.
        let (one, other) = (challenged(door, hello), challenged(door, hello));
        sent_away(one.0, &other.1[CHALLENGE - PROOF..]);
        sent_away(other.0, &other.1[CHALLENGE - PROOF..]);
        // The same rank, of another version of the handshake.
        sent_away(knock(door), &[b"kolo-hi3", &said[8..HELLO + PROOF]].concat());
    });
    let claim = "claimed to be rank 0 without knowing the job's secret";
    let all = format!(
        "; 4 were refused, the first of whom {claim}, then {claim}, then {claim}, then spoke another protocol"
    );
    assert!(why.contains("it did not connect within 1 s") && why.contains(&all), "{why}");
}

/// The secret that ranks were given opens no door of a job that runs, either: each job draws another one from it.
#[test]
fn a_rank_of_another_job_is_refused_and_named() {
    let why = Tapped::start().visited(|door, _| {
        let place = door.to_string();
        for secret in ["a secret that another job's ranks know", SECRET] {
            let variables = [
                ("KOLO_RANK", "1"),
                ("KOLO_SIZE", "2"),
                ("KOLO_RENDEZVOUS", &place[..]),
                ("KOLO_SECRET", secret),
            ];
            let variable =
                |name: &str| variables.iter().find(|(known, _)| *known == name).map(|it| it.1.into());
            let config = Config::read(&variable).expect("nothing is wrong with it");
            let error =
                bootstrap::join(&config, Deadline::after(Some(SOON))).err().expect("it is of another job");
            let text = error.to_string();
            assert!(
                error.kind() == Kind::Refused && text.contains("the proof of the job's secret failed"),
                "{text}"
            );
            assert!(!text.contains('\n'), "{text}");
        }
    });
    let claim = "claimed to be rank 1 without knowing the job's secret";
    assert!(why.contains(&format!("; 2 were refused, the first of whom {claim}, then {claim}")), "{why}");
}

#[test]
fn whoever_does_not_come_to_the_point_is_refused_and_named() {
    let why = Tapped::start().visited(|door, said| {
        let mut half = knock(door);
        half.write_all(&said[..HELLO / 2]).expect("the door is open");
        let silent = [knock(door), half, challenged(door, &said[..HELLO]).0];
        let (mut slow, begun) = (knock(door), Instant::now());
        // One byte at a time, so that all of them would take longer than anybody may.
        for byte in &said[..HELLO + PROOF] {
            if slow.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        assert!(begun.elapsed() < Duration::from_secs(12), "a slow one stays for {:?}", begun.elapsed());
        silent.into_iter().for_each(|stranger| sent_away(stranger, b""));
    });
    let late = "did not prove who it is within 10 s";
    let all = format!("; 4 were refused, the first of whom {late}, then {late}, then {late}, then {late}");
    assert!(why.contains(&all), "{why}");
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
