//! kill -9, then shrink, then grow by a fresh process in the dead one's place, and on: whoever is killed, when several
//! are, and when newcomers are killed while they come. Each rank is this program again, as [`rank`].

#[path = "support/child.rs"]
mod child;
#[path = "support/elastic.rs"]
mod elastic;

use std::process::Command;
use std::time::Duration;

use child::{Rank, say};
use rustix::process::Signal;

/// What makes this program a rank.
const AS_RANK: [&str; 5] = ["rank", "--exact", "--ignored", "--nocapture", "--quiet"];

/// Not a test: what each rank does.
#[test]
#[ignore = "runs as the child of other tests"]
fn rank() {
    let open = || std::fs::read_dir("/proc/self/fd").expect("Linux tells").count();
    let before = open();
    elastic::live();
    say(&format!("open: {} more", open() - before));
    // Nobody ends while others still need it.
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("the test holds the other end");
}

/// Ranks, and who takes the place of those that are killed.
struct Job {
    transport: &'static str,
    place: String,
    ranks: Vec<Rank>,
}

impl Job {
    fn start(transport: &'static str, size: usize, what: &str) -> Self {
        let place = format!("@kolo-replacements-{}-{what}", std::process::id());
        let mut job = Self { transport, place, ranks: Vec::new() };
        for rank in 0..size {
            let place = [("KOLO_RANK", rank.to_string()), ("KOLO_SIZE", size.to_string())];
            job.ranks.push(job.process(size, &place));
        }
        for rank in &mut job.ranks {
            assert_eq!(rank.hear().as_deref(), Some("ready"), "{what}");
        }
        job
    }

    fn process(&self, full: usize, more: &[(&str, String)]) -> Rank {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args(AS_RANK).env("KOLO_RENDEZVOUS", &self.place).env("KOLO_TRANSPORT", self.transport);
        command.env("KOLO_DEADLINE", "60").env(elastic::FULL, full.to_string());
        command.envs(more.iter().map(|(name, value)| (name, value)));
        Rank::start(&mut command)
    }

    /// kill -9, and a newcomer in its place.
    fn replace(&mut self, which: usize) {
        self.ranks[which].signal(Signal::KILL);
        let newcomer = self.process(self.ranks.len(), &[("KOLO_JOIN", "1".into())]);
        // What was killed is reaped here.
        self.ranks[which] = newcomer;
    }

    /// All steps were done by as many ranks, and each process is one of them.
    fn ends_well(mut self, what: &str) {
        let said = self.ranks.iter_mut().map(Rank::hear);
        let said = said.map(|said| said.unwrap_or_else(|| panic!("{what}: one ended")));
        let mut said: Vec<String> = said.collect();
        said.sort_unstable();
        assert_eq!(said, elastic::last_words(self.ranks.len()), "{what}");
        // However many generations there were, nothing is left of them.
        for rank in &mut self.ranks {
            assert_eq!(rank.hear().as_deref(), Some("open: 0 more"), "{what}");
        }
    }
}

/// Numbers that look random, the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % end as u64) as usize
    }
}

/// Kills so many one after the other, the later ones while the first is being replaced, and perhaps those who replace.
fn trials(of_each: usize, seed: u64) {
    let mut dice = Dice(seed);
    for transport in ["shm", "tcp"] {
        for (size, kills) in [(2, 1), (4, 1), (4, 2), (4, 3)] {
            for number in 0..of_each {
                let what = format!("trial {number}: {size} ranks over {transport} with {kills} killed");
                let mut job = Job::start(transport, size, &what);
                std::thread::sleep(Duration::from_micros(dice.below(40_000) as u64));
                for _ in 0..kills {
                    job.replace(dice.below(size));
                    std::thread::sleep(Duration::from_micros(dice.below(30_000) as u64));
                }
                job.ends_well(&what);
            }
        }
    }
}

#[test]
fn whoever_is_killed_is_replaced() {
    trials(2, 23);
}

/// As many as make rare orders likely.
#[test]
#[ignore = "takes minutes: cargo test --release --test replacements -- --ignored --nocapture a_thousand"]
fn a_thousand_replacements() {
    trials(125, 29);
}
