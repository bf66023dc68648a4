//! The engine's own cost: all-reduces between threads, and alone.
//!
//! `cargo bench --bench engine` prints the median and the best of several batches, and beside them the
//! round trip of a cache line between the two cores, which bounds every exchange.

mod support;

use std::hint::black_box;

use kolo::{Communicator, ReduceOp};
use support::{line_round_trip, pin, time};

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
