//! How a rank waits: spin briefly, then yield, then park.
//!
//! With a core for each rank, what is waited for usually comes within a microsecond, and a spin
//! sees it soonest. With more ranks than cores, the one waited for may need this very core: hardly spin,
//! yield, park.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::health::Deadline;

/// How long to try before the next, more patient, way of waiting.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    spins: u32,
    yields: u32,
}

impl Patience {
    /// What suits `ranks` on a host with that many cores.
    pub fn for_host(ranks: usize, cores: usize) -> Self {
        if ranks <= cores { Self { spins: 4000, yields: 50 } } else { Self { spins: 16, yields: 100 } }
    }

    /// How often to look before anything else is tried.
    pub fn spins(self) -> u32 {
        self.spins
    }
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

/// A sleeper looks up this often to see whether its peers still live.
const NAP: Duration = Duration::from_millis(50);

/// One call's waiting.
#[derive(Debug)]
pub struct Wait {
    patience: Patience,
    turns: u32,
    /// Made at the first look at the clock, so that a call that need not wait never reads it.
    deadline: Option<Deadline>,
    allowed: Option<Duration>,
}

impl Wait {
    /// Waiting that gives up after `allowed`.
    pub fn new(patience: Patience, allowed: Option<Duration>) -> Self {
        Self { patience, turns: 0, deadline: None, allowed }
    }

    /// Something moved.
    pub fn reset(&mut self) {
        self.turns = 0;
    }

    /// Nothing moved: what now? Spins and yields by itself.
    pub fn next(&mut self, abort: &AtomicBool) -> Next {
        self.turns = self.turns.saturating_add(1);
        if self.turns <= self.patience.spins {
            std::hint::spin_loop();
            // The clock and the flag are read every 16th time only: they cost as much as a spin.
            if !self.turns.is_multiple_of(16) {
                return Next::Again;
            }
        } else if self.turns <= self.patience.spins + self.patience.yields {
            std::thread::yield_now();
        }
        if abort.load(Ordering::Relaxed) {
            return Next::Aborted;
        }
        let deadline = self.deadline.get_or_insert_with(|| Deadline::after(self.allowed));
        if deadline.passed() {
            return Next::Late;
        }
        if self.turns <= self.patience.spins + self.patience.yields {
            return Next::Again;
        }
        Next::Park(deadline.left().map_or(NAP, |left| left.min(NAP)))
    }
}
