//! Where a rank runs, with more ranks than cores.
//!
//! Plans take neighbours to share a core: they leave data in its cache for each other, and wait for each other
//! by yielding it. The scheduler knows nothing of that. So a rank that finds itself elsewhere moves to its
//! core, now and then, and stays as free to leave it as it was.

use std::cell::Cell;
use std::time::{Duration, Instant};

use crate::sys::os;

/// How long a rank that was moved away stays there, at the least.
const PATIENCE: Duration = Duration::from_millis(20);

/// The core that a rank counts to.
#[derive(Debug)]
pub struct Home {
    core: usize,
    /// When it moved there last.
    moved: Cell<Option<Instant>>,
}

impl Home {
    /// That core, as the kernel numbers it.
    pub fn new(core: usize) -> Self {
        Self { core, moved: Cell::new(None) }
    }

    /// Moves the calling thread there, if it is elsewhere and has not just been moved. What cores it may use
    /// stays as it is.
    pub fn settle(&self) {
        if os::core() == self.core || self.moved.get().is_some_and(|when| when.elapsed() < PATIENCE) {
            return;
        }
        os::move_to(self.core);
        self.moved.set(Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_moves_there_once_in_a_while_and_stays_free() {
        let before = os::cores();
        for &core in &before {
            let home = Home::new(core);
            home.settle();
            // Elsewhere already, or there: it does not move twice in a row, unless this took long.
            let moved = home.moved.get();
            home.settle();
            let stayed = |when: Instant| home.moved.get() == moved || when.elapsed() >= PATIENCE;
            assert!(moved.is_none_or(stayed));
            assert_eq!(os::cores(), before);
        }
        let nowhere = Home::new(usize::MAX);
        nowhere.settle();
        assert_eq!(os::cores(), before);
    }
}
