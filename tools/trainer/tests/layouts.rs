//! One run, many layouts: the losses of 50 steps stay within 3e-6 of one rank's.

use std::path::PathBuf;
use std::thread;

use kolo::Communicator;
use kolo_trainer::{Settings, Summary, train};

/// The largest difference of a step's loss between two layouts that counts as rounding.
const TOLERANCE: f64 = 3e-6;

fn sources() -> Vec<PathBuf> {
    vec![
        concat!(env!("CARGO_MANIFEST_DIR"), "/src").into(),
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests").into(),
    ]
}

/// 4 layers, d 128, 4 heads, T 128, batch 16: the defaults; 50 steps at a constant rate.
fn settings(tp: usize, pp: usize) -> Settings {
    Settings {
        tp,
        pp,
        steps: 50,
        learning_rate: 3e-4,
        rate: kolo_trainer::Rate::Constant,
        warm_up: 0,
        text: sources(),
        sample: 0,
        ..Settings::default()
    }
}

/// Ranks as threads; rank 0's summary.
fn run(ranks: usize, settings: &Settings) -> Summary {
    let communicators = Communicator::local(ranks).unwrap();
    thread::scope(|scope| {
        let threads: Vec<_> = communicators
            .into_iter()
            .map(|communicator| scope.spawn(move || train(communicator, settings, &mut ()).unwrap()))
            .collect();
        let mut summaries: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        summaries.swap_remove(0)
    })
}

#[test]
fn every_layout_follows_the_losses_of_one_rank() {
    let alone = run(1, &settings(1, 1)).losses;
    assert!((alone[0] - 5.5).abs() < 0.2, "first loss {}", alone[0]);
    assert!(alone[49] < 4.0, "last loss {}", alone[49]);
    for (name, tp, pp) in [
        ("dp4", 1, 1),
        ("tp4", 4, 1),
        ("pp4", 1, 4),
        ("tp2 x pp2", 2, 2),
        ("dp2 x tp2", 2, 1),
        ("dp2 x pp2", 1, 2),
    ] {
        let losses = run(4, &settings(tp, pp)).losses;
        let off = alone.iter().zip(&losses).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{name}: {off:.2e}");
        assert!(off <= TOLERANCE, "{name} is off by {off:.2e}");
    }
}
