//! How a rank waits: spin briefly, then yield, then park.
//!
//! With a core for each rank, what is waited for usually comes within a microsecond, and a spin
//! sees it soonest. With more ranks than cores, the one waited for may need this very core: then yield at
//! once. A rank of another core may be about to answer, while nobody here can do anything: spin, though not
//! for longer than a few switches take.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::health::{Deadline, Home};

/// How long to try before the next, more patient, way of waiting.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Looks before it is asked who is waited for.
    looks: u32,
    spins: u32,
    yields: u32,
}

impl Patience {
    /// What suits `ranks` on a host with that many cores.
    pub fn for_host(ranks: usize, cores: usize) -> Self {
        match ranks <= cores {
            true => Self { looks: 4000, spins: 4000, yields: 50 },
            false => Self { looks: 0, spins: 50, yields: 100 },
        }
    }

    /// The same where what is waited for comes over sockets: a look is a system call, which takes hundreds of times as
    /// long as one at memory.
    #[must_use]
    pub fn over_sockets(self) -> Self {
        Self { spins: (self.spins / 10).min(50), ..self }
    }

    /// How often to look before anything else is tried.
    pub fn looks(self) -> u32 {
        self.looks
    }
}

/// How a rank shares its host.
#[derive(Debug)]
pub struct Tenancy {
    /// How it waits.
    pub patience: Patience,
    /// The ranks that share its core.
    pub neighbours: Vec<u32>,
    /// That core, where it has neighbours and may leave it.
    pub home: Option<Home>,
    /// The most bytes of a call's vectors that are not too many for the caches, which the host's ranks share.
    pub overflow: usize,
}

/// What to do next while nothing moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look again.
    Again,
    /// Sleep, at most that long.
    Park(Duration),
    /// Give up: the deadline has passed.
    Late,
    /// Give up: somebody aborted.
    Aborted,
}

/// A sleeper looks up this often to see whether its peers still live. At first it does so soon: from then on it
/// also watches their [lifelines](crate::transport::Link::lifeline), which is not worth it for less.
const NAP: Duration = Duration::from_millis(50);
const FIRST_NAP: Duration = Duration::from_millis(2);

/// A call that has not moved for so long says so.
pub(super) const LONG: Duration = Duration::from_millis(200);
/// The times between its questions double so often: to an hour and a half.
const QUESTIONS: u32 = 15;

/// One call's waiting.
#[derive(Debug)]
pub struct Wait {
    patience: Patience,
    spins: u32,
    yields: u32,
    /// Made at the first look at the clock, so that a call that need not wait never reads it.
    deadline: Option<Deadline>,
    allowed: Option<Duration>,
    /// When it was first told to park since something moved, and how often peers were asked since.
    parked: Option<Instant>,
    asked: u32,
}

impl Wait {
    /// Waiting that gives up after `allowed`.
    pub fn new(patience: Patience, allowed: Option<Duration>) -> Self {
        Self { patience, spins: 0, yields: 0, deadline: None, allowed, parked: None, asked: 0 }
    }

    /// Something moved.
    pub fn reset(&mut self) {
        (self.spins, self.yields) = (0, 0);
        (self.parked, self.asked) = (None, 0);
    }

    /// For how long it has slept, now and then, without anything moving.
    pub fn waited(&self) -> Duration {
        self.parked.map_or(Duration::ZERO, |parked| parked.elapsed())
    }

    /// Whether it has slept long enough to watch its peers' lifelines.
    pub fn is_long(&self) -> bool {
        self.waited() >= FIRST_NAP
    }

    /// Whether after that time it is to ask those it waits for what they do; after twice as long the next time.
    pub fn asks(&mut self, waited: Duration) -> bool {
        let asks = waited >= LONG * (1 << self.asked.min(QUESTIONS));
        self.asked += u32::from(asks);
        asks
    }

    /// Nothing moved: what now? Spins and yields by itself; yields only where a rank of this core is waited
    /// for.
    pub fn next(&mut self, abort: &AtomicBool, neighbour: bool) -> Next {
        if self.spins < self.patience.spins && !neighbour {
            self.spins += 1;
            std::hint::spin_loop();
            // The clock and the flag are read every 16th time only: they cost as much as a spin.
            if !self.spins.is_multiple_of(16) {
                return Next::Again;
            }
        } else {
            self.yields = self.yields.saturating_add(1);
            if self.yields <= self.patience.yields {
                std::thread::yield_now();
            }
        }
        if abort.load(Ordering::Relaxed) {
            return Next::Aborted;
        }
        let deadline = self.deadline.get_or_insert_with(|| Deadline::after(self.allowed));
        if deadline.passed() {
            return Next::Late;
        }
        if self.yields <= self.patience.yields {
            return Next::Again;
        }
        let left = deadline.left();
        self.parked.get_or_insert_with(Instant::now);
        let nap = if self.is_long() { NAP } else { FIRST_NAP };
        Next::Park(left.map_or(nap, |left| left.min(nap)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often one is to look again before one may sleep.
    fn looks(patience: Patience, neighbour: bool) -> u32 {
        let (mut wait, abort) = (Wait::new(patience, None), AtomicBool::new(false));
        let again = std::iter::repeat_with(|| wait.next(&abort, neighbour));
        again.take_while(|next| *next == Next::Again).count() as u32
    }

    #[test]
    fn a_neighbour_gets_the_core_at_once() {
        let crowded = Patience::for_host(4, 2);
        assert_eq!(looks(crowded, true), crowded.yields);
        assert_eq!(looks(crowded, false), crowded.spins + crowded.yields);
        let roomy = Patience::for_host(2, 2);
        assert!(roomy.spins > 10 * crowded.spins && roomy.looks == roomy.spins);
        assert!(looks(roomy.over_sockets(), false) < looks(roomy, false) / 10, "looks at sockets are dear");
    }

    #[test]
    fn it_asks_ever_more_rarely_until_something_moves() {
        let mut wait = Wait::new(Patience::for_host(4, 2), None);
        let asks = |wait: &mut Wait| (0..=32).filter(|&at| wait.asks(LONG / 2 * at)).collect::<Vec<_>>();
        assert_eq!(asks(&mut wait), [2, 4, 8, 16, 32]);
        assert!(!wait.asks(LONG * 17));
        wait.reset();
        assert!(wait.asks(LONG) && wait.waited() == Duration::ZERO);
    }

    #[test]
    fn abort_and_deadline_end_it() {
        let abort = AtomicBool::new(true);
        assert_eq!(Wait::new(Patience::for_host(4, 2), None).next(&abort, true), Next::Aborted);
        abort.store(false, Ordering::Relaxed);
        let mut late = Wait::new(Patience::for_host(4, 2), Some(Duration::ZERO));
        assert_eq!(late.next(&abort, true), Next::Late);
    }
}
