//! When a call gives up.

use std::time::{Duration, Instant};

/// A moment after which a call fails instead of waiting on.
#[derive(Clone, Copy, Debug)]
pub struct Deadline {
    allowed: Option<Duration>,
    end: Option<Instant>,
}

impl Deadline {
    /// That long from now; `None` waits for ever.
    pub fn after(allowed: Option<Duration>) -> Self {
        Self { allowed, end: allowed.and_then(|allowed| Instant::now().checked_add(allowed)) }
    }

    /// Whether it has passed.
    pub fn passed(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// How long is left; `None` where there is no end.
    pub fn left(&self) -> Option<Duration> {
        self.end.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// How long was allowed when it began.
    pub fn allowed(&self) -> Option<Duration> {
        self.allowed
    }
}
