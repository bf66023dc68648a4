//! What the test files share: ranks as threads, and data whose results are known exactly.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod call;
pub mod plain;

use kolo::config::Config;
use kolo::{Communicator, Element};

/// Runs `f` on every rank of a job of `size` threads; panics if a rank does.
pub fn ranks(size: usize, f: impl Fn(&mut Communicator) + Sync) {
    ranks_over("local", size, f);
}

/// The same, over that transport.
pub fn ranks_over(transport: &str, size: usize, f: impl Fn(&mut Communicator) + Sync) {
    let config = Config { transports: Some(vec![transport.into()]), ..Config::alone() };
    let communicators = Communicator::threads(size, &config).expect("threads can always be linked");
    std::thread::scope(|scope| {
        for mut communicator in communicators {
            let f = &f;
            scope.spawn(move || f(&mut communicator));
        }
    });
}

/// Element `index` of rank `rank`'s input: a small whole number, so that sums of few ranks are exact.
pub fn value(rank: usize, index: usize) -> f64 {
    ((rank * 3 + index * 7) % 4) as f64
}

/// `count` elements of rank `rank`'s input.
pub fn input<T: Element>(rank: usize, count: usize) -> Vec<T> {
    (0..count).map(|index| T::from_f64(value(rank, index))).collect()
}
