//! What a program does that outlives its ranks: on a loss those that are left go on, with a newcomer for each that is
//! not; newcomers do the same from where the others are. For tests in which ranks are killed.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::time::Duration;

use kolo::{Communicator, Kind, ReduceOp, Result};
use rustix::process::{Signal, getpid, kill_process};

use super::child::say;

/// Tells of how many ranks each step is to be.
pub const FULL: &str = "KOLO_TEST_FULL";
/// Tells which of the ranks that start together kill themselves, each some steps after the one before: `2 0`.
pub const DIE: &str = "KOLO_TEST_DIE";
/// So many steps, a millisecond apart at least, take longer than a test takes to kill.
pub const STEPS: u64 = 200;
/// After so many steps the first one dies by itself, and each other after as many more.
const LIFE: u64 = 20;

/// How far the job is.
#[derive(Default)]
struct State {
    step: u64,
    total: u64,
}

/// All steps, whatever becomes of the others. Says when it is ready to be killed, and what came of it.
pub fn live() {
    let full: usize = std::env::var(FULL).expect("a test says how many").parse().expect("a number");
    let mut ranks = Communicator::from_env().expect("a rank can join");
    let mut state = State::default();
    if ranks.generation() == 0 {
        // Who dies before all have met takes the others with it.
        say("ready");
    }
    let dies = own_death(&ranks);
    while let Err(error) = work(&mut ranks, &mut state, full, dies) {
        assert_eq!(error.kind(), Kind::PeerLost, "{error}");
        ranks = ranks.shrink().expect("those that are left go on");
    }
    let State { step, total } = state;
    say(&format!("rank {} of {}: {step} steps, {total}", ranks.rank(), ranks.size()));
}

/// What all ranks say in the end, in their order.
pub fn last_words(size: usize) -> Vec<String> {
    let total = STEPS * (size * (size + 1) / 2) as u64;
    (0..size).map(|rank| format!("rank {rank} of {size}: {STEPS} steps, {total}")).collect()
}

/// The step at which this rank is to die by its own hand.
fn own_death(ranks: &Communicator) -> Option<u64> {
    let (which, me) = (std::env::var(DIE).unwrap_or_default(), ranks.rank().to_string());
    let turn = which.split_whitespace().position(|rank| rank == me)?;
    (ranks.generation() == 0).then_some(LIFE * (turn as u64 + 1))
}

/// From where the first rank is, to the end, with a newcomer for each rank that is missing.
fn work(
    ranks: &mut Communicator,
    State { step, total }: &mut State,
    full: usize,
    dies: Option<u64>,
) -> Result<()> {
    if ranks.size() < full {
        *ranks = ranks.grow(full - ranks.size())?;
    }
    let mut known = [*step, *total];
    ranks.broadcast(&mut known, 0)?;
    [*step, *total] = known;
    while *step < STEPS {
        if dies == Some(*step) {
            kill_process(getpid(), Signal::KILL).expect("a process may kill itself");
        }
        let count = [2, 5_000, 100_000][*step as usize % 3];
        let mut data = vec![1 + ranks.rank() as u64; count];
        ranks.all_reduce_in_place(&mut data, ReduceOp::Sum)?;
        assert!(data.iter().all(|element| *element == data[0]), "elements differ");
        *total += data[0];
        *step += 1;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
