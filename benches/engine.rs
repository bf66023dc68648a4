//! The engine's own cost: all-reduces between threads, and alone.
//!
//! `cargo bench --bench engine` prints the median and the best of several batches, and beside them the
//! round trip of a cache line between the two cores, which bounds every exchange.

use std::hint::black_box;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use kolo::{Communicator, ReduceOp};

const BATCHES: usize = 41;

/// Nanoseconds of one operation: (median, best) over batches of about a millisecond.
fn time(mut operation: impl FnMut()) -> (f64, f64) {
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
fn pin(core: usize) {
    let mut set = rustix::thread::CpuSet::new();
    set.set(core);
    let _ = rustix::thread::sched_setaffinity(None, &set);
}

/// The round trip of a cache line between cores 0 and 1.
fn line_round_trip() -> f64 {
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

fn all_reduce(ranks: usize, algorithm: &str, count: usize) -> (f64, f64) {
    let communicators = Communicator::local(ranks).expect("threads can always be linked");
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = communicators
            .into_iter()
            .map(|mut communicator| {
                scope.spawn(move || {
                    pin(communicator.rank());
                    let kind = kolo::CollectiveKind::AllReduce;
                    communicator.set_algorithm(kind, Some(algorithm)).expect("it exists");
                    let (input, mut output) = (vec![1.0f32; count], vec![0.0f32; count]);
                    time(|| {
                        let outcome = communicator.all_reduce(&input, &mut output, ReduceOp::Sum);
                        outcome.expect("nothing fails here");
                        black_box(&output);
                    })
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("no rank panics")).collect::<Vec<_>>()
    });
    results.into_iter().fold((0.0, 0.0), |worst, each| (worst.0.max(each.0), worst.1.max(each.1)))
}

fn main() {
    println!("a cache line's round trip: {:.0} ns", line_round_trip());
    println!("{:>6} {:>10} {:>10} {:>12} {:>12}", "ranks", "bytes", "algorithm", "median ns", "best ns");
    for (ranks, algorithm) in [(1, "direct"), (2, "direct"), (2, "ring")] {
        for count in [2, 256, 2048, 16384] {
            let (median, best) = all_reduce(ranks, algorithm, count);
            println!("{ranks:>6} {:>10} {algorithm:>10} {median:>12.0} {best:>12.0}", count * 4);
        }
    }
    println!("a cache line's round trip: {:.0} ns", line_round_trip());
}
