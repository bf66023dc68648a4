//! Where a rank stands in its calls, for others who ask why nothing comes.
//!
//! A call that does not have to wait stores two numbers and what it is, and nothing else. One that has waited for a while
//! says for whom; what a communicator was waiting for when it failed stays to be read, since its peers may ask later.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::record::{Failure, Past, Record};
use super::recorder::{Clock, Move, Peers, Recorder, Times};
use crate::CHECKED;
use crate::bootstrap::VERSION;
use crate::error::Error;

/// How many failed communicators are remembered after their owners let go of them.
const REMEMBERED: usize = 16;

/// Whom a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Awaited {
    /// The rank, as the job numbers it.
    pub rank: u32,
    /// Whether it is a message that has not come; else room for one that is to go.
    pub message: bool,
}

/// A call that has waited for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// What it is, as it travels.
    pub call: [u64; 4],
    /// For how long nothing has moved.
    pub waited: Duration,
    /// For whom, in the order of its lanes.
    pub on: Vec<Awaited>,
}

/// How far a rank is in agreeing with others on who is left of a communicator. What others read of it never goes back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It does not take part, or not yet.
    #[default]
    Out,
    /// It leaves it to that rank of the job to decide.
    Left(u32),
    /// These are left, as the job numbers them.
    Decided(Vec<u32>),
}

/// The rank because of which a communicator failed, as the job numbers it, where one is known.
pub type Blame = Option<u32>;

/// Two calls of one number that are not alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Who made them, as the job numbers ranks.
    pub ranks: [u32; 2],
    /// What they are, as they travel.
    pub calls: [[u64; 4]; 2],
}

/// How far a rank has come on one communicator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The communicator, as all its ranks number it.
    pub communicator: u64,
    /// How many calls have begun, and how many of those were done.
    pub begun: u64,
    /// See `begun`.
    pub done: u64,
    /// Whether the communicator has failed, and because of whom: what it waits for is what it waited for then.
    pub failed: Option<Blame>,
    /// The calls because of which it failed, where they were not alike: all its ranks are to learn of them.
    pub clash: Option<Clash>,
    /// What the last call waits for, where that has taken a while.
    pub waiting: Option<Waiting>,
}

/// One communicator's place in a rank's [`Standings`].
pub struct Standing {
    communicator: u64,
    /// Its ranks, as the job numbers them.
    members: Arc<[u32]>,
    begun: AtomicU64,
    done: AtomicU64,
    recorder: Recorder,
    /// Whether `waiting` holds anything.
    told: AtomicBool,
    failed: Mutex<Option<Blame>>,
    clash: Mutex<Option<Clash>>,
    failure: Mutex<Option<Failure>>,
    stage: Mutex<Stage>,
    waiting: Mutex<Option<(Waiting, Instant)>>,
}

impl Standing {
    /// A call begins, the communicator's `sequence`-th: what it is, as it travels, and whom a message is between.
    #[inline(always)]
    pub fn begin(&self, sequence: u64, call: &[u64; 4], peers: Peers) {
        if !CHECKED {
            return;
        }
        self.begun.store(sequence, Ordering::Relaxed);
        self.recorder.begin(call, peers);
    }

    /// Something of it has moved.
    pub fn moved(&self, what: Move) {
        self.recorder.moved(what);
    }

    /// It took long enough for its end to be told from the next one's beginning.
    pub fn stamp(&self) {
        self.recorder.stamp();
    }

    /// It has ended well.
    #[inline(always)]
    pub fn end(&self, sequence: u64) {
        if !CHECKED {
            return;
        }
        self.done.store(sequence, Ordering::Relaxed);
        self.recorder.end();
        if self.told.load(Ordering::Relaxed) {
            self.withdraw();
        }
    }

    /// The call that has begun waits.
    pub fn tell(&self, waiting: Waiting) {
        let since = Instant::now().checked_sub(waiting.waited).unwrap_or_else(Instant::now);
        *lock(&self.waiting) = Some((waiting, since));
        self.told.store(true, Ordering::Relaxed);
    }

    /// It waits no more.
    #[cold]
    fn withdraw(&self) {
        *lock(&self.waiting) = None;
        self.told.store(false, Ordering::Relaxed);
    }

    /// The communicator has failed because of that rank.
    pub fn fail(&self, blame: Blame) {
        *lock(&self.failed) = Some(blame);
    }

    /// It fails because calls were not alike.
    pub fn differ(&self, clash: Clash) {
        *lock(&self.clash) = Some(clash);
    }

    /// Its callers are told so.
    pub fn explain(&self, error: &Error) {
        *lock(&self.failure) = Some(Failure { kind: error.kind(), text: error.to_string() });
    }

    /// This rank has come that far in agreeing on who is left.
    pub fn come_to(&self, stage: Stage) {
        *lock(&self.stage) = stage;
    }

    /// How far it has come there.
    pub fn stage(&self) -> Stage {
        lock(&self.stage).clone()
    }

    /// The last calls that it has made together with the others, as they travel, the oldest first.
    pub fn calls(&self) -> Vec<[u64; 4]> {
        self.recorder
            .called()
            .into_iter()
            .map(|[number, count, codes]| [self.communicator, number, count, codes])
            .collect()
    }

    fn past(&self, times: &Times) -> Past {
        let members = &self.members;
        Past {
            report: self.report(),
            failure: lock(&self.failure).clone(),
            members: members.chunk_by(|a, b| a + 1 == *b).map(|run| (run[0], run.len() as u32)).collect(),
            calls: self.recorder.calls(times, members),
            steps: self.recorder.steps(times, members),
        }
    }

    fn report(&self) -> Report {
        let waiting = lock(&self.waiting).clone();
        Report {
            communicator: self.communicator,
            begun: self.begun.load(Ordering::Relaxed),
            done: self.done.load(Ordering::Relaxed),
            failed: *lock(&self.failed),
            clash: *lock(&self.clash),
            waiting: waiting.map(|(waiting, since)| Waiting { waited: since.elapsed(), ..waiting }),
        }
    }
}

impl fmt::Debug for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.report().fmt(f)
    }
}

/// Who writes a rank's record, and where.
#[derive(Clone, Debug, Default)]
pub struct Scribe {
    /// The rank, of so many.
    pub rank: u32,
    /// See `rank`.
    pub size: u32,
    /// The job's name.
    pub job: String,
    /// Where records are written; nowhere if nothing is said.
    pub folder: Option<PathBuf>,
}

/// Where a rank stands on all its communicators.
#[derive(Debug)]
pub struct Standings {
    all: Mutex<Vec<Arc<Standing>>>,
    clock: Clock,
    /// Held while it writes: the thread whose call failed may, and the one that is asked to.
    scribe: Mutex<Scribe>,
}

impl Default for Standings {
    fn default() -> Self {
        Self::new(Scribe::default())
    }
}

impl Standings {
    /// Those of a rank with such a scribe.
    pub fn new(scribe: Scribe) -> Self {
        Self { all: Mutex::default(), clock: Clock::start(), scribe: Mutex::new(scribe) }
    }

    /// Another communicator, of these ranks of the job.
    pub fn enter(&self, communicator: u64, members: Arc<[u32]>) -> Arc<Standing> {
        let standing = Arc::new(Standing {
            communicator,
            members,
            begun: AtomicU64::new(0),
            done: AtomicU64::new(0),
            recorder: Recorder::new(),
            told: AtomicBool::new(false),
            failed: Mutex::default(),
            clash: Mutex::default(),
            failure: Mutex::default(),
            stage: Mutex::default(),
            waiting: Mutex::new(None),
        });
        lock(&self.all).push(Arc::clone(&standing));
        standing
    }

    /// Its owner lets go of it.
    pub fn leave(&self, standing: &Arc<Standing>) {
        let mut all = lock(&self.all);
        if lock(&standing.failed).is_none() {
            return all.retain(|other| !Arc::ptr_eq(other, standing));
        }
        // Only this list holds on to a communicator that was let go of, and to this one in a moment.
        let left = |other: &Arc<Standing>| Arc::strong_count(other) == 1;
        if all.iter().filter(|other| left(other)).count() >= REMEMBERED
            && let Some(oldest) = all.iter().position(left)
        {
            all.remove(oldest);
        }
    }

    /// The last calls that this rank has made on that communicator together with its other ranks, as they travel.
    pub fn calls(&self, communicator: u64) -> Vec<[u64; 4]> {
        let all = lock(&self.all);
        let mut newest = all.iter().rev();
        newest.find(|standing| standing.communicator == communicator).map_or_else(Vec::new, |it| it.calls())
    }

    /// How far this rank is in agreeing on who is left of that communicator.
    pub fn stage(&self, communicator: u64) -> Stage {
        let of = |standing: &&Arc<Standing>| standing.communicator == communicator;
        lock(&self.all).iter().find(of).map_or(Stage::Out, |standing| standing.stage())
    }

    /// Writes down all that is known, if it is to be written anywhere, and says where it is.
    ///
    /// # Errors
    /// What the system refused.
    pub fn write(&self) -> Option<io::Result<PathBuf>> {
        let scribe = lock(&self.scribe);
        let folder = scribe.folder.as_deref()?;
        Some(self.record(&scribe).write(folder))
    }

    fn record(&self, Scribe { rank, size, job, .. }: &Scribe) -> Record {
        let times = self.clock.times();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Record {
            version: VERSION.to_owned(),
            rank: *rank,
            size: *size,
            process: std::process::id(),
            host: host.trim_end().to_owned(),
            job: job.clone(),
            written: times.now(),
            communicators: lock(&self.all).iter().map(|standing| standing.past(&times)).collect(),
        }
    }

    /// All of them, the oldest first.
    pub fn reports(&self) -> Vec<Report> {
        lock(&self.all).iter().map(|standing| standing.report()).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> Waiting {
        let on = vec![Awaited { rank: 3, message: true }];
        Waiting { call: [1, 2, 3, 4], waited: Duration::from_secs(1), on }
    }

    #[test]
    fn what_is_waited_for_is_told_until_it_has_come() {
        let standings = Standings::default();
        let standing = standings.enter(7, Arc::new([0, 1]));
        let begin = |sequence| standing.begin(sequence, &[7, sequence, 0, 0], Peers::new(None, None));
        begin(1);
        standing.end(1);
        begin(2);
        standing.tell(waiting());
        let report = standings.reports().remove(0);
        assert_eq!((report.communicator, report.begun, report.done), (7, 2, 1));
        let told = report.waiting.expect("it was told");
        assert!(told.on == waiting().on && told.waited >= Duration::from_secs(1), "{told:?}");
        standing.end(2);
        assert_eq!(standings.reports().remove(0).waiting, None);
        assert_eq!((standings.stage(7), standings.stage(8)), (Stage::Out, Stage::Out));
        standing.come_to(Stage::Decided(vec![0, 2]));
        assert_eq!(standings.stage(7), Stage::Decided(vec![0, 2]));
        standings.leave(&standing);
        assert_eq!(standings.reports(), []);
    }

    #[test]
    fn some_failures_are_remembered() {
        let standings = Standings::default();
        for number in 0..2 * REMEMBERED as u64 {
            let standing = standings.enter(number, Arc::new([]));
            standing.tell(waiting());
            standing.fail(Some(3));
            standings.leave(&standing);
        }
        let reports = standings.reports();
        assert!(reports.len() <= REMEMBERED + 1, "{}", reports.len());
        let last = reports.last().expect("there are some");
        assert!(last.failed == Some(Some(3)) && last.waiting.is_some());
        assert_eq!(last.communicator, 2 * REMEMBERED as u64 - 1);
    }
}
