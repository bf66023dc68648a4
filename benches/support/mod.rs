//! What benchmarks of two cores share: where a thread runs, how time is taken, what the machine can do.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

const BATCHES: usize = 41;

/// Nanoseconds of one operation: (median, best) over batches of about a millisecond.
pub(crate) fn time(mut operation: impl FnMut()) -> (f64, f64) {
    let mut times: Vec<f64> = Vec::with_capacity(BATCHES);
    let mut rounds = 1000u32;
    for batch in 0..BATCHES + 5 {
        let begun = Instant::now();
        (0..rounds).for_each(|_| operation());
        let each = begun.elapsed().as_nanos() as f64 / f64::from(rounds);
        match batch {
            // All ranks must make as many calls, so the batch's length is fixed.
            0..5 => rounds = 1000,
            _ => times.push(each),
        }
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

/// Puts this thread on one core, where there is one for each rank.
pub(crate) fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// The round trip of a cache line between cores 0 and 1.
pub(crate) fn line_round_trip() -> f64 {
    #[repr(align(128))]
    struct Line(AtomicU32);
    let (ping, pong) = (Line(AtomicU32::new(0)), Line(AtomicU32::new(0)));
    const TURNS: u32 = 50_000;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            pin(1);
            for turn in 1..=TURNS {
                while ping.0.load(Ordering::Acquire) != turn {
                    std::hint::spin_loop();
                }
                pong.0.store(turn, Ordering::Release);
            }
        });
        pin(0);
        let begun = Instant::now();
        for turn in 1..=TURNS {
            ping.0.store(turn, Ordering::Release);
            while pong.0.load(Ordering::Acquire) != turn {
                std::hint::spin_loop();
            }
        }
        begun.elapsed().as_nanos() as f64 / f64::from(TURNS)
    })
}
