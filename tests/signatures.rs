//! One rank calls otherwise, in one field of the call's signature: no rank hands out a wrong number, none hangs, each is
//! told both calls, and other communicators go on.

mod support;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kolo::{CollectiveKind, Communicator, Error, Kind};
use support::call::{Call, LARGEST};
use support::plain::Random;
use support::ranks_over;

/// Longer than any rank takes to be told, and shorter than the deadline.
const SOON: Duration = Duration::from_secs(20);

/// The algorithms of barriers.
const BARRIERS: [&str; 3] = ["direct", "tree", "doubling"];

/// Ranks of which one calls otherwise.
#[derive(Debug)]
struct Trial {
    transport: &'static str,
    size: usize,
    field: &'static str,
    odd: usize,
    calls: [Call; 2],
    /// Whether the links of both calls are open.
    warm: bool,
    /// Whether all-reduces of u64 take place in memory that ranks have allocated together.
    lent: bool,
}

impl Trial {
    fn draw(random: &mut Random) -> Self {
        let transport = ["shm", "tcp", "shm", "tcp", "local"][random.below(5)];
        let size = [2, 4, 8][random.below(3)];
        let call = Call::draw(random, size);
        let (other, field) = call.differing(random, size);
        let [warm, lent] = [random.below(4) > 0, random.below(2) > 0];
        Self { transport, size, field, odd: random.below(size), calls: [call, other], warm, lent }
    }

    /// How many ranks were told in the call itself, and in the next one.
    fn run(&self) -> [usize; 2] {
        let told: [AtomicUsize; 2] = Default::default();
        ranks_over(self.transport, self.size, |ranks| {
            ranks.set_deadline(Some(3 * SOON));
            let mut bystander = ranks.duplicate().expect("all is well");
            let mut memory = ranks.alloc::<u64>(LARGEST).expect("there is memory");
            let mut make = |ranks: &mut Communicator, call: &Call| {
                call.make(ranks, self.lent.then_some(&mut memory[..]))
            };
            if self.warm {
                for call in &self.calls {
                    assert!(make(ranks, call).expect("all agree"), "{self:?}");
                }
            }
            let begun = Instant::now();
            let mine = self.calls[usize::from(ranks.rank() == self.odd)];
            let outcome = make(ranks, &mine);
            if let Ok(right) = outcome {
                assert!(right, "rank {}: a wrong number: {self:?}", ranks.rank());
            }
            // Who only sends, or had all from ranks that called alike, is told by the next call.
            let mut calls = 0;
            let mut outcome = outcome.map(drop);
            while outcome.is_ok() {
                calls += 1;
                assert!(calls < told.len(), "rank {} goes on: {self:?}", ranks.rank());
                outcome = ranks.barrier();
            }
            told[calls].fetch_add(1, Ordering::Relaxed);
            let error = outcome.expect_err("it is one");
            self.tells(&error);
            assert!(
                begun.elapsed() < SOON,
                "rank {} was told after {:?}: {self:?}",
                ranks.rank(),
                begun.elapsed()
            );
            let again = ranks.barrier().expect_err("it stays failed");
            assert_eq!(again.to_string(), error.to_string());
            // Nobody ends before all were told.
            assert!(
                self.calls[0].make(&mut bystander, None).expect("it has nothing to do with it"),
                "{self:?}"
            );
        });
        told.map(AtomicUsize::into_inner)
    }

    /// The error shows both calls; in place of one the next call, where a rank that only sent went on to that.
    fn tells(&self, error: &Error) {
        let text = error.to_string();
        assert!(error.kind() == Kind::Mismatch && !text.contains('\n'), "{error:?}: {self:?}");
        let shows = |call: &Call| call.words(self.size).iter().all(|words| text.contains(words));
        let shown = self.calls.iter().filter(|call| shows(call)).count();
        assert!(shown + usize::from(text.contains("barrier #")) >= 2, "{text}: {self:?}");
    }
}

/// So many trials, and how many there were for each field.
fn trials(seed: u64, count: usize) {
    let (mut random, mut fields, mut told) = (Random(seed), BTreeMap::new(), [0; 2]);
    let begun = Instant::now();
    for _ in 0..count {
        let trial = Trial::draw(&mut random);
        told.iter_mut().zip(trial.run()).for_each(|(all, here)| *all += here);
        *fields.entry(trial.field).or_insert(0) += 1;
    }
    let [at_once, next] = told;
    println!(
        "seed {seed}: {count} trials in {:.1} s: {fields:?}; ranks told at once {at_once}, by the next call {next}",
        begun.elapsed().as_secs_f64()
    );
}

#[test]
fn whoever_calls_otherwise_is_found_and_all_are_told() {
    trials(1, 60);
}

/// Each has all that it wants of a call that one of them makes otherwise, and nobody looks at what is too much: the next
/// call tells every rank, whoever it hears of in it, and by however many others.
#[test]
fn whoever_had_all_that_it_wanted_is_told_by_the_next_call() {
    for (transport, barrier) in ["local", "shm", "tcp"].into_iter().flat_map(|it| BARRIERS.map(|by| (it, by)))
    {
        ranks_over(transport, 5, |ranks| {
            ranks.set_deadline(Some(SOON));
            ranks.set_algorithm(CollectiveKind::Barrier, Some(barrier)).expect("it is one");
            let (mut bystander, rank) = (ranks.duplicate().expect("all is well"), ranks.rank());
            let gather = |ranks: &mut Communicator| {
                ranks.gather(&[rank as u64], &mut vec![0; if rank == 2 { 5 } else { 0 }], 2)
            };
            let broadcast = |ranks: &mut Communicator| ranks.broadcast(&mut [rank as u64], 0);
            ranks.set_algorithm(CollectiveKind::Gather, Some("direct")).expect("it is known");
            ranks.set_algorithm(CollectiveKind::Broadcast, Some("direct")).expect("it is known");
            // So that their links are open.
            let warm = gather(ranks).and_then(|()| broadcast(ranks)).and_then(|()| ranks.barrier());
            warm.expect("all agree");
            let odd = if rank == 1 { gather(ranks) } else { broadcast(ranks) };
            let error = odd.and_then(|()| ranks.barrier()).expect_err("they have not called alike");
            let text = error.to_string();
            let told = ["broadcast #", "gather #", "barrier #"].map(|call| text.matches(call).count());
            // Besides the call in which it is told; one that finds what was too much has that and its own.
            assert!(
                error.kind() == Kind::Mismatch && told.iter().sum::<usize>() == 3,
                "{transport}, {barrier}: {text}"
            );
            bystander.barrier().expect("it has nothing to do with it");
        });
    }
}

/// As many as make rare orders likely, in 20 batches; `KOLO_TEST_SEED=n` runs the n-th alone.
#[test]
#[ignore = "takes minutes: cargo test --release --test signatures -- --ignored --nocapture a_thousand"]
fn a_thousand_odd_calls() {
    let only = std::env::var("KOLO_TEST_SEED").ok().map(|seed| seed.parse().expect("a number"));
    (100..120)
        .filter(|batch| only.is_none_or(|only: u64| only + 100 == *batch))
        .for_each(|batch| trials(batch, 50));
}
