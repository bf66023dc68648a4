//! Meeting among the threads of one process.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::Bootstrap;
use super::dial::within;
use super::star::name;
use crate::error::{Error, Kind, Result};
use crate::health::Deadline;

/// One thread's end.
pub struct Local {
    rank: usize,
    table: Arc<Table>,
    deadline: Deadline,
}

struct Table {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// What each rank says in this round.
    said: Vec<Option<Vec<u8>>>,
    /// The last complete round.
    all: Vec<Vec<u8>>,
    round: u64,
    /// Who gave up, or ended too early.
    left: Option<usize>,
}

impl Local {
    /// Ends for `size` threads, in rank order.
    pub fn all(size: usize, deadline: Deadline) -> Vec<Self> {
        let state = State { said: vec![None; size], all: Vec::new(), round: 0, left: None };
        let table = Arc::new(Table { state: Mutex::new(state), changed: Condvar::new() });
        (0..size).map(|rank| Self { rank, table: Arc::clone(&table), deadline }).collect()
    }
}

impl Bootstrap for Local {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.table.lock().said.len()
    }

    fn all_gather(&mut self, mine: &[u8]) -> Result<Vec<Vec<u8>>> {
        let mut state = self.table.lock();
        let round = state.round;
        state.said[self.rank] = Some(mine.to_vec());
        if state.said.iter().all(Option::is_some) {
            state.all = state.said.iter_mut().filter_map(Option::take).collect();
            state.round += 1;
            self.table.changed.notify_all();
        }
        while state.round == round {
            let missing = state.said.iter().enumerate().filter(|(_, said)| said.is_none());
            let missing = name(missing.map(|(rank, _)| rank));
            if let Some(left) = state.left {
                let text = format!("rank {left} left while the ranks were meeting; {missing} had not come");
                return Err(Error::new(Kind::PeerLost, text));
            }
            if self.deadline.passed() {
                state.left = Some(self.rank);
                self.table.changed.notify_all();
                let text = format!("{missing} did not come{}", within(&self.deadline));
                return Err(Error::new(Kind::Deadline, text));
            }
            let changed = &self.table.changed;
            state = match self.deadline.left() {
                None => changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
        Ok(state.all.clone())
    }
}

impl Drop for Local {
    /// Whoever still waits for this rank in a round learns that it will not come.
    fn drop(&mut self) {
        let mut state = self.table.lock();
        state.left.get_or_insert(self.rank);
        self.table.changed.notify_all();
    }
}

impl Table {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
