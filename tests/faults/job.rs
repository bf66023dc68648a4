//! The ranks of one job in trouble, and what becomes of each.

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::child::Rank;

/// Tell a rank what happens, see `Trouble`; to whom, a rank or all; and which cgroup those enter first.
pub(crate) const TROUBLE: &str = "KOLO_TEST_TROUBLE";
pub(crate) const WHO: &str = "KOLO_TEST_WHO";
pub(crate) const CGROUP: &str = "KOLO_TEST_CGROUP";
/// Has all ranks disagree when all else is done.
pub(crate) const END: &str = "KOLO_TEST_END";

/// What makes this program a rank.
const AS_RANK: [&str; 5] = ["rank", "--exact", "--ignored", "--nocapture", "--quiet"];
pub(crate) const RANKS: usize = 4;
/// No rank may take so long, whatever its deadline.
const PATIENCE: Duration = Duration::from_secs(25);

/// How many jobs there were: each meets somewhere else.
static JOBS: AtomicUsize = AtomicUsize::new(0);

/// A job.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) transport: &'a str,
    /// In seconds.
    pub(crate) deadline: &'a str,
    pub(crate) who: &'a str,
    pub(crate) trouble: &'a str,
    /// What else its environment says.
    pub(crate) environment: &'a [(&'a str, &'a str)],
}

/// What became of a rank.
#[derive(Debug)]
pub(crate) struct Fate {
    pub(crate) pid: u32,
    /// What it was told; nothing if it was killed.
    pub(crate) told: Option<String>,
    /// What kolo printed.
    pub(crate) printed: Vec<String>,
}

impl Job<'_> {
    /// Starts it, and sees it to its end. Ranks that live leave no descriptor open, and no file.
    pub(crate) fn run(&self) -> Vec<Fate> {
        let Self { transport, who, trouble, .. } = *self;
        let what = format!("{who} {trouble} over {transport}");
        let number = JOBS.fetch_add(1, Ordering::Relaxed);
        let place = format!("@kolo-faults-{}-{number}", std::process::id());
        let mut ranks: Vec<Rank> = (0..RANKS).map(|rank| self.process(&place, rank)).collect();
        let pids: Vec<Pid> = ranks.iter().map(|rank| Pid::from_child(&rank.child)).collect();
        let (done, hung) = channel::<()>();
        let fates = std::thread::scope(|scope| {
            // Who hangs is killed, and is missed below.
            let kill_all = || pids.iter().for_each(|&pid| kill_process(pid, Signal::KILL).unwrap_or(()));
            scope.spawn(move || {
                if hung.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                    kill_all();
                }
            });
            let told: Vec<_> = ranks.iter_mut().map(Rank::hear).collect();
            if told.contains(&None) {
                println!("{what}: {told:?}");
            }
            for (rank, told) in ranks.iter_mut().zip(&told) {
                told.iter().for_each(|_| rank.tell());
            }
            let fates = ranks.iter_mut().zip(told).map(|(rank, told)| self.end(rank, told, &what)).collect();
            drop(done);
            fates
        });
        let left = std::fs::read_to_string("/proc/net/unix").expect("Linux tells");
        assert!(!left.lines().any(|line| line.ends_with(&place)), "{what}: its meeting place is left behind");
        fates
    }

    fn process(&self, place: &str, rank: usize) -> Rank {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.args(AS_RANK).env("KOLO_RANK", rank.to_string()).env("KOLO_SIZE", RANKS.to_string());
        command.env("KOLO_RENDEZVOUS", place).env("KOLO_TRANSPORT", self.transport);
        command.env("KOLO_DEADLINE", self.deadline).env(WHO, self.who).env(TROUBLE, self.trouble);
        command.envs(self.environment.iter().copied()).stderr(Stdio::piped());
        Rank::start(&mut command)
    }

    /// What became of a rank that has told all it was told.
    fn end(&self, rank: &mut Rank, told: Option<String>, what: &str) -> Fate {
        let left = told.is_some().then(|| rank.hear());
        let status = rank.child.wait().expect("it ends");
        let mut text = String::new();
        rank.child.stderr.take().expect("it is a pipe").read_to_string(&mut text).expect("text");
        if let Some(left) = left {
            assert!(status.success(), "{what}: {status}: {text}");
            assert_eq!(left.as_deref(), Some("left 0"), "{what}: {told:?}");
        }
        let told = told.map(|told| told.strip_prefix("told ").expect("what it was told").to_owned());
        Fate { pid: rank.child.id(), told, printed: text.lines().map(str::to_owned).collect() }
    }
}

impl Fate {
    /// What it was told.
    pub(crate) fn told(&self) -> &str {
        self.told.as_deref().unwrap_or("(it was killed)")
    }

    pub(crate) fn is_well(&self) -> bool {
        self.told() == "nothing"
    }
}
