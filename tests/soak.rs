//! For as long as one likes: random collectives of random sizes, splits, works, deaths and newcomers on 8 ranks, each
//! element checked; nothing hangs, nothing is left behind, memory stays flat. Each rank is this program again, as [`rank`].
//!
//! What is done follows from the seed, the turn and how many ranks there are, so that all draw the same and a failure can
//! be looked for again. When a rank dies within its turn does not: that is the system's choice.

#[path = "support/child.rs"]
mod child;
mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use child::{Rank, say};
use kolo::{Buffer, Communicator, Kind, ReduceOp, Result};
use rustix::process::{Signal, getpid, kill_process};
use support::call::{Call, LARGEST};
use support::plain::Random;

/// What makes this program a rank.
const AS_RANK: [&str; 5] = ["rank", "--exact", "--ignored", "--nocapture", "--quiet"];
/// Tells it the seed, and until when it goes on, in milliseconds since 1970.
const SEED: &str = "KOLO_TEST_SEED";
const UNTIL: &str = "KOLO_TEST_UNTIL";
/// How many there are, but for a while after a death.
const FULL: usize = 8;
/// The most communicators beside that of all.
const PARTS: usize = 4;
/// A death comes within so many microseconds of its turn's beginning.
const DOOM: usize = 60_000;
/// From this turn on the first ranks live, so that their memory is seen for long.
const SETTLED: u64 = 500;
const ELDERS: usize = 2;
/// In a quarter of fewer turns memory depends on what was drawn.
const ENOUGH: usize = 100;
/// By so much a rank's memory may be more in its last quarter than in its first half.
const SLACK: usize = 16 << 20;

/// Not a test: what each rank does.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let number = |name| std::env::var(name).expect("the test says it").parse().expect("a number");
    let (seed, until) = (number(SEED), number(UNTIL));
    let before = open_and_threads();
    let world = join();
    let generation = world.generation();
    if generation == 0 {
        // Who dies before all have met takes the others with it.
        say("ready");
    }
    let (parts, sizes, longest) = (Vec::new(), Vec::new(), Default::default());
    let mut part =
        Part { seed, until, world, parts, memory: None, turn: 0, calls: 0, doomed: false, longest, sizes };
    while let Err(error) = part.go_on() {
        assert_eq!(error.kind(), Kind::PeerLost, "seed {seed}, turn {}: {error}", part.turn);
        part.forget();
        let world = part.timed("shrink", |part| part.world.shrink());
        part.world = world.expect("those that are left go on");
    }
    let Part { world, turn, calls, longest, sizes, .. } = part;
    let (place, last) = (world.rank(), world.generation());
    drop(world);
    let (half, quarter) = (sizes.len() / 2, sizes.len() / 4);
    let most = |sizes: &[usize]| sizes.iter().copied().max().unwrap_or(0);
    let (early, late) = (most(&sizes[..half]), most(&sizes[sizes.len() - quarter..]));
    assert!(
        quarter < ENOUGH || late <= early + SLACK,
        "seed {seed}: from {early} to {late} bytes in {turn} turns"
    );
    let ended = Instant::now();
    while open_and_threads() != before {
        // The progress thread may have to wake.
        std::thread::sleep(Duration::from_millis(10));
        let open = open_and_threads();
        assert!(
            ended.elapsed().as_secs() < 5,
            "seed {seed}: {before:?} descriptors and threads, now {open:?}"
        );
    }
    say(&format!(
        "rank {place}: turn {turn}, generations {generation} to {last}, {calls} calls, {} turns here, memory {:.1} then {:.1} MiB, \
         longest {longest:?}",
        sizes.len(),
        early as f64 / f64::from(1 << 20),
        late as f64 / f64::from(1 << 20)
    ));
}

/// Joins; a newcomer comes again where others were missing when it was let in.
fn join() -> Communicator {
    let begun = Instant::now();
    loop {
        match Communicator::from_env() {
            Ok(world) => return world,
            Err(error) => {
                let again = std::env::var("KOLO_JOIN").is_ok() && error.kind() == Kind::PeerLost;
                assert!(again && begun.elapsed().as_secs() < 60, "a rank cannot join: {error}");
            }
        }
    }
}

/// A rank's part in it all.
struct Part {
    seed: u64,
    until: u64,
    world: Communicator,
    /// Some of its ranks each.
    parts: Vec<Communicator>,
    /// Allocated by all together.
    memory: Option<Buffer<u64>>,
    turn: u64,
    calls: u64,
    /// Whether this rank is about to die.
    doomed: bool,
    /// How long what took longest, and what it failed with, if it did.
    longest: (Duration, &'static str, Option<String>),
    /// Its memory after each turn.
    sizes: Vec<usize>,
}

impl Part {
    /// Turn after turn, with newcomers where ranks are missing.
    fn go_on(&mut self) -> Result<()> {
        while let Some(doomed) = self.timed("agree", Self::agree)? {
            self.timed("play", |part| part.play(doomed))?;
            self.sizes.push(resident());
            let missing = FULL - self.world.size();
            if missing > 0 {
                self.forget();
                self.world = self.timed("grow", |part| part.world.grow(missing))?;
            }
        }
        self.forget();
        self.world.barrier()
    }

    /// Notes what took longest.
    fn timed<T>(&mut self, what: &'static str, f: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let begun = Instant::now();
        let outcome = f(self);
        let failed = outcome.as_ref().err().map(ToString::to_string);
        self.longest = (begun.elapsed(), what, failed).max(std::mem::take(&mut self.longest));
        outcome
    }

    /// What does not outlive its generation.
    fn forget(&mut self) {
        self.parts.clear();
        self.memory = None;
    }

    /// The next turn, of which the first rank knows the number: how many are about to die. Nothing if it is the end.
    fn agree(&mut self) -> Result<Option<u64>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970").as_millis();
        let mut known = [self.turn + 1, u64::from(now as u64 >= self.until)];
        self.world.broadcast(&mut known, 0)?;
        self.turn = known[0];
        let mut doomed = [u64::from(self.doomed)];
        self.world.all_reduce_in_place(&mut doomed, ReduceOp::Sum)?;
        let end = known[1] == 1 && doomed[0] == 0 && self.world.size() == FULL;
        Ok((!end).then_some(doomed[0]))
    }

    fn play(&mut self, doomed: u64) -> Result<()> {
        let size = self.world.size();
        let mut random = Random(self.seed ^ (self.turn << 16 | size as u64) << 20);
        random.next();
        let deadly = random.below(8) == 0 && doomed == 0 && size == FULL;
        for _ in 0..if deadly { 1 + random.below(3) } else { 0 } {
            let elders = if self.turn < SETTLED { 0 } else { ELDERS };
            let (victim, delay) = (elders + random.below(size - elders), random.below(DOOM));
            if victim == self.world.rank() {
                self.die_in(Duration::from_micros(delay as u64));
            }
        }
        for _ in 0..3 + random.below(12) {
            let (what, of_this) = (random.below(16), Random(random.next()));
            self.act(what, of_this)?;
        }
        Ok(())
    }

    fn die_in(&mut self, delay: Duration) {
        self.doomed = true;
        std::thread::spawn(move || {
            std::thread::sleep(delay);
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        });
    }

    /// One thing that all ranks do.
    fn act(&mut self, what: usize, mut random: Random) -> Result<()> {
        self.calls += 1;
        match what {
            0 if self.parts.len() < PARTS => {
                let colors = 1 + random.below(3);
                let mine = (0..=self.world.rank()).map(|_| random.below(colors)).last();
                self.parts.extend(self.world.split(mine.map(|color| color as u32), 0)?);
            }
            1 if !self.parts.is_empty() => drop(self.parts.remove(random.below(self.parts.len()))),
            2..=5 if !self.parts.is_empty() => {
                let part = random.below(self.parts.len());
                let part = &mut self.parts[part];
                let call = Call::draw(&mut random, part.size());
                check(&call, self.seed, self.turn, call.make(part, None)?);
            }
            6 => self.memory = Some(self.world.alloc(LARGEST)?),
            7 => self.works(&mut random)?,
            8 => self.pass_on(&mut random)?,
            _ => {
                let call = Call::draw(&mut random, self.world.size());
                let right = call.make(&mut self.world, self.memory.as_deref_mut())?;
                check(&call, self.seed, self.turn, right);
            }
        }
        Ok(())
    }

    /// Several sums at a time, by the progress thread.
    fn works(&mut self, random: &mut Random) -> Result<()> {
        let (size, rank) = (self.world.size() as u64, self.world.rank() as u64);
        let counts: Vec<usize> = (0..1 + random.below(4)).map(|_| 1 + random.below(50_000)).collect();
        let mut works = Vec::new();
        for (salt, &count) in (0..).zip(&counts) {
            let data: Vec<u64> = (0..count as u64).map(|index| rank + index * salt).collect();
            works.push(self.world.start_all_reduce(data.into(), ReduceOp::Sum)?);
        }
        for (salt, work) in (0..).zip(works) {
            let expected = |index: usize| size * (size - 1) / 2 + size * index as u64 * salt;
            let sum = work.wait()?;
            assert!(
                sum.iter().enumerate().all(|(index, element)| *element == expected(index)),
                "a work is wrong"
            );
        }
        Ok(())
    }

    /// A message to one neighbour, and one from the other.
    fn pass_on(&mut self, random: &mut Random) -> Result<()> {
        let (size, rank) = (self.world.size(), self.world.rank());
        let (count, distance) = (1 + random.below(50_000), 1 + random.below(size - 1));
        let (to, from) = ((rank + distance) % size, (rank + size - distance) % size);
        let of = |rank: usize| move |index: usize| (rank * 31 + index) as u32;
        let (data, mut got) = ((0..count).map(of(rank)).collect::<Vec<u32>>(), vec![0; count]);
        self.world.send_recv(&data, to, &mut got, from)?;
        assert!(got.into_iter().eq((0..count).map(of(from))), "a message is wrong");
        Ok(())
    }
}

fn check(call: &Call, seed: u64, turn: u64, right: bool) {
    assert!(right, "WRONG NUMBER: seed {seed}, turn {turn}: {call:?}");
}

/// Bytes of memory that this process has.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux tells");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

/// How many descriptors are open, and how many threads there are.
fn open_and_threads() -> [usize; 2] {
    ["/proc/self/fd", "/proc/self/task"].map(|of| fs::read_dir(of).expect("Linux tells").count())
}

/// What of kolo has a name in shared memory: nothing ever should.
fn named_memory() -> usize {
    let names = fs::read_dir("/dev/shm").into_iter().flatten().flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().contains("kolo")).count()
}

/// One job for so long. Whoever is killed is replaced.
fn soak(transport: &str, seed: u64, length: Duration) {
    let what = format!("seed {seed} over {transport}");
    println!("{what}, for {} s", length.as_secs());
    let (place, named) = (format!("@kolo-soak-{}-{transport}", std::process::id()), named_memory());
    let until = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970") + length;
    let process = |more: &[(&str, String)]| {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args(AS_RANK).env("KOLO_RENDEZVOUS", &place).env("KOLO_TRANSPORT", transport);
        command.env("KOLO_DEADLINE", "60").env(SEED, seed.to_string());
        command.env(UNTIL, until.as_millis().to_string());
        command.envs(more.iter().map(|(name, value)| (name, value)));
        Rank::start(&mut command)
    };
    let rank = |rank: usize| process(&[("KOLO_RANK", rank.to_string()), ("KOLO_SIZE", FULL.to_string())]);
    let mut ranks: Vec<Rank> = (0..FULL).map(rank).collect();
    for rank in &mut ranks {
        assert_eq!(rank.hear().as_deref(), Some("ready"), "{what}");
    }
    let (begun, mut deaths, mut ended) = (Instant::now(), 0, 0);
    while ended < FULL {
        assert!(begun.elapsed() < length + Duration::from_secs(120), "{what}: it hangs");
        std::thread::sleep(Duration::from_millis(5));
        ended = 0;
        for rank in &mut ranks {
            match rank.child.try_wait().expect("a child can be asked") {
                None => {}
                Some(status) if status.success() => ended += 1,
                Some(status) => {
                    assert_eq!(status.signal(), Some(Signal::KILL.as_raw()), "{what}: {status}");
                    *rank = process(&[("KOLO_JOIN", "1".into())]);
                    deaths += 1;
                }
            }
        }
    }
    for rank in &mut ranks {
        println!("{}", rank.hear().expect("it says how it was"));
    }
    println!("{what}: {deaths} deaths in {:.0} s", begun.elapsed().as_secs_f64());
    assert_eq!(named_memory(), named, "{what}: /dev/shm");
    let sockets = fs::read_to_string("/proc/net/unix").expect("Linux tells");
    assert!(!sockets.contains(&place[..]), "{what}: a socket is left");
}

/// Those that the environment names, or these.
fn number_or(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |number| number.parse().expect("a number"))
}

#[test]
fn whatever_is_called_whoever_dies() {
    for transport in ["shm", "tcp"] {
        soak(transport, number_or(SEED, 31), Duration::from_secs(7));
    }
}

/// Half an hour, or `KOLO_TEST_MINUTES`; with a seed of its own, or `KOLO_TEST_SEED`.
#[test]
#[ignore = "takes half an hour: cargo test --release --test soak -- --ignored --nocapture half_an_hour"]
fn half_an_hour() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    let (seed, minutes) = (number_or(SEED, now.as_secs() % 1_000_000), number_or("KOLO_TEST_MINUTES", 30));
    for transport in ["shm", "tcp"] {
        soak(transport, seed, Duration::from_secs(minutes * 30));
    }
}
