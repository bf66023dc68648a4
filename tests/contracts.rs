//! No hang, no silent mismatch: what calls say when ranks disagree, are late, or are gone.

mod support;

use std::time::{Duration, Instant};

use kolo::{CollectiveKind, Communicator, Error, Kind, ReduceOp};
use support::{ranks, ranks_over};

/// The errors of two ranks that do different things; both must end.
fn clash(
    zero: impl Fn(&mut Communicator) -> kolo::Result<()> + Sync,
    one: impl Fn(&mut Communicator) -> kolo::Result<()> + Sync,
) -> [Option<Error>; 2] {
    let errors = std::sync::Mutex::new([None, None]);
    ranks(2, |communicator| {
        communicator.set_deadline(Some(Duration::from_secs(20)));
        let rank = communicator.rank();
        let outcome = if rank == 0 { zero(communicator) } else { one(communicator) };
        // A rank that only sends may not have noticed; the barrier tells it.
        let outcome = outcome.and_then(|()| communicator.barrier());
        let error = outcome.as_ref().err().cloned();
        if let Some(error) = &error {
            let again = communicator.barrier().unwrap_err();
            assert_eq!(again.to_string(), error.to_string(), "a failed communicator stays failed");
        }
        errors.lock().unwrap()[rank] = error;
    });
    errors.into_inner().unwrap()
}

fn all_reduce(count: usize) -> impl Fn(&mut Communicator) -> kolo::Result<()> {
    move |communicator| communicator.all_reduce_in_place(&mut vec![1.0f32; count], ReduceOp::Sum)
}

/// One side at least names the mismatch and shows both calls; the other learns of it.
fn assert_mismatch(errors: [Option<Error>; 2], texts: [&str; 2]) {
    let errors = errors.map(|error| error.expect("both sides learn"));
    assert!(errors.iter().all(|error| matches!(error.kind(), Kind::Mismatch | Kind::PeerLost)), "{errors:?}");
    let told = errors.iter().find(|error| error.kind() == Kind::Mismatch).expect("one side says why");
    let text = told.to_string();
    assert!(texts.iter().all(|part| text.contains(part)) && !text.contains('\n'), "{text}");
}

#[test]
fn counts_that_differ_are_told() {
    for (zero, one) in [(1000, 1001), (0, 1), (100_000, 1_000_000)] {
        let texts = [format!("{zero} x f32"), format!("{one} x f32")];
        assert_mismatch(clash(all_reduce(zero), all_reduce(one)), [&texts[0], &texts[1]]);
    }
}

/// Counts so different that ranks walk different plans over different links: nobody may wait for the
/// deadline.
#[test]
fn ranks_on_different_plans_are_told() {
    for transport in ["local", "shm", "tcp"] {
        for size in [2, 4, 5] {
            for (odd, others) in [(10, 1_000_000), (100_000, 1_000_000), (2_000_000, 2_000), (0, 20_000)] {
                // First with nothing open, then with the links of all these plans open.
                for warm in [false, true] {
                    let told = std::sync::atomic::AtomicUsize::new(0);
                    ranks_over(transport, size, |communicator| {
                        let case = format!("{transport}, {size} ranks, {odd} against {others}, warm {warm}");
                        communicator.set_deadline(Some(Duration::from_secs(60)));
                        if warm {
                            all_reduce(odd)(communicator).unwrap();
                            all_reduce(others)(communicator).unwrap();
                        }
                        let begun = Instant::now();
                        let count = if communicator.rank() == size / 2 { odd } else { others };
                        let outcome = all_reduce(count)(communicator).and_then(|()| communicator.barrier());
                        let error = outcome.expect_err(&case);
                        assert!(matches!(error.kind(), Kind::Mismatch | Kind::PeerLost), "{case}: {error}");
                        assert!(begun.elapsed() < Duration::from_secs(20), "{case}: {error}");
                        if error.kind() == Kind::Mismatch {
                            told.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        }
                    });
                    assert!(told.into_inner() > 0, "somebody says why");
                }
            }
        }
    }
}

#[test]
fn everything_that_must_agree_is_compared() {
    let sum = |op: ReduceOp<u8>| move |c: &mut Communicator| c.all_reduce_in_place(&mut [1, 2], op.clone());
    assert_mismatch(clash(sum(ReduceOp::Sum), sum(ReduceOp::Max)), ["sum", "max"]);
    let i8 = |c: &mut Communicator| c.all_reduce_in_place(&mut [1i8, 2], ReduceOp::Sum);
    assert_mismatch(clash(sum(ReduceOp::Sum), i8), ["2 x u8", "2 x i8"]);
    let root = |root: usize| move |c: &mut Communicator| c.broadcast(&mut [0u8; 100], root);
    assert_mismatch(clash(root(0), root(1)), ["root 0", "root 1"]);
    assert_mismatch(clash(root(0), sum(ReduceOp::Sum)), ["broadcast", "all_reduce"]);
    let named = |name: &'static str| {
        move |c: &mut Communicator| {
            c.set_algorithm(kolo::CollectiveKind::AllReduce, Some(name))?;
            c.all_reduce_in_place(&mut [1u8], ReduceOp::Sum)
        }
    };
    assert_mismatch(clash(named("ring"), named("direct")), ["ring", "direct"]);
    let gather_v = |count: usize| {
        move |c: &mut Communicator| {
            let mut output = [0u8; 7];
            let output = if c.rank() == 0 { &mut output[..] } else { &mut [] };
            c.gather_v(&vec![1; if c.rank() == 0 { 3 } else { count }], output, &[3, 4], 0)
        }
    };
    assert_mismatch(clash(gather_v(5), gather_v(5)), ["4 x u8", "5 x u8"]);
    let message = |c: &mut Communicator| match c.rank() {
        0 => c.send(&[1u8; 5], 1),
        _ => c.recv(&mut [0u8; 6], 0),
    };
    assert_mismatch(clash(message, message), ["5 x u8", "6 x u8"]);
}

/// One that only sends has sent elsewhere and gone on to its next call: it waits there for the rank that waits for it, and
/// neither has anything that could be compared. Who received what was sent tells both.
#[test]
fn two_that_wait_for_each_other_in_different_calls_hear_it_from_a_third() {
    for transport in ["local", "shm", "tcp"] {
        ranks_over(transport, 4, |communicator| {
            communicator.set_deadline(Some(Duration::from_secs(60)));
            communicator.set_algorithm(CollectiveKind::Gather, Some("direct")).unwrap();
            communicator.set_algorithm(CollectiveKind::Barrier, Some("direct")).unwrap();
            let rank = communicator.rank();
            let gather = |communicator: &mut Communicator, root: usize| {
                let mut all = vec![0u8; if rank == root { 4 } else { 0 }];
                communicator.gather(&[1], &mut all, root)
            };
            for root in [0, 2] {
                gather(communicator, root).unwrap();
            }
            communicator.barrier().unwrap();
            let begun = Instant::now();
            let outcome = gather(communicator, if rank == 3 { 0 } else { 2 });
            assert_eq!(outcome.is_err(), rank == 2, "{outcome:?}");
            let error = communicator.barrier().unwrap_err();
            assert!(error.kind() == Kind::Mismatch && error.to_string().contains(", root "), "{error:?}");
            assert!(begun.elapsed() < Duration::from_secs(20), "{error}");
            // Nobody ends before all were told.
            std::thread::sleep(Duration::from_secs(2));
        });
    }
}

#[test]
fn a_late_rank_is_named() {
    ranks(3, |communicator| {
        communicator.set_deadline(Some(Duration::from_millis(200)));
        if communicator.rank() == 1 {
            return std::thread::sleep(Duration::from_millis(1500));
        }
        let begun = Instant::now();
        let error = communicator.barrier().unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline, "{error}");
        assert!(error.to_string().contains("rank 1") && error.to_string().contains("barrier #1"), "{error}");
        assert!(begun.elapsed() >= Duration::from_millis(200));
    });
}

#[test]
fn a_rank_that_leaves_is_news() {
    ranks(2, |communicator| {
        communicator.barrier().unwrap();
        if communicator.rank() == 0 {
            return; // and drops its communicator
        }
        let error = communicator.barrier().unwrap_err();
        assert_eq!((error.kind(), error.peer()), (Kind::PeerLost, Some(0)), "{error}");
    });
}

/// A step that needs messages of several ranks looks for the first one's first; that one lives, and has not called yet.
#[test]
fn a_rank_that_leaves_is_news_while_another_is_late() {
    for transport in ["local", "shm", "tcp"] {
        let done = std::sync::Barrier::new(2);
        ranks_over(transport, 3, |ranks| {
            ranks.set_deadline(Some(Duration::from_secs(20)));
            ranks.set_algorithm(CollectiveKind::AllReduce, Some("direct")).expect("it is known");
            all_reduce(6)(ranks).expect("all are here");
            match ranks.rank() {
                0 => {
                    let outcome = all_reduce(6)(ranks);
                    done.wait();
                    let error = outcome.expect_err("one has left");
                    assert_eq!(
                        (error.kind(), error.peer()),
                        (Kind::PeerLost, Some(2)),
                        "{transport}: {error}"
                    );
                }
                1 => drop(done.wait()),
                _ => {}
            }
        });
    }
}

/// Whoever has not met it yet asks at its door, or would wait until the deadline.
#[test]
fn a_rank_that_leaves_before_it_was_met_is_news() {
    let calls: [fn(&mut Communicator) -> kolo::Result<()>; 3] = [
        |communicator| communicator.barrier(),
        |communicator| communicator.alloc::<u8>(1 << 20).map(drop),
        |communicator| {
            let mut child = communicator.duplicate()?;
            if child.rank() == 0 { Ok(()) } else { child.barrier() }
        },
    ];
    for (at, call) in calls.into_iter().enumerate() {
        ranks(2, |communicator| {
            communicator.set_deadline(Some(Duration::from_secs(20)));
            if communicator.rank() == 1 {
                let error = call(communicator).unwrap_err();
                assert_eq!((error.kind(), error.peer()), (Kind::PeerLost, Some(0)), "call {at}: {error}");
            } else if at == 2 {
                // It has the child that it leaves.
                call(communicator).unwrap();
            }
        });
    }
}

/// Ranks that leave blocks for each other wait by signals, which are messages like any other.
#[test]
fn a_board_keeps_the_contracts() {
    let all_reduce = |communicator: &mut Communicator, count: usize| {
        communicator.all_reduce_in_place(&mut vec![1.0f32; count], ReduceOp::Sum)
    };
    for transport in ["local", "shm"] {
        for trouble in ["a count", "a delay", "an end"] {
            ranks_over(transport, 5, |communicator| {
                communicator.set_algorithm(CollectiveKind::AllReduce, Some("board")).unwrap();
                communicator.set_deadline(Some(Duration::from_secs(if trouble == "a delay" {
                    1
                } else {
                    20
                })));
                all_reduce(communicator, 300_000).unwrap();
                let outcome = match (communicator.rank(), trouble) {
                    (3, "an end") => return,
                    (3, "a count") => all_reduce(communicator, 300_001),
                    (3, _) => {
                        std::thread::sleep(Duration::from_secs(3));
                        return;
                    }
                    _ => all_reduce(communicator, 300_000),
                };
                // A leader of another core may have all that it needs; it learns with the others.
                let error = outcome.and_then(|()| communicator.barrier()).unwrap_err();
                let expected = match trouble {
                    "a count" => [Kind::Mismatch, Kind::PeerLost],
                    "a delay" => [Kind::Deadline, Kind::PeerLost],
                    _ => [Kind::PeerLost; 2],
                };
                assert!(expected.contains(&error.kind()), "{trouble} over {transport}: {error}");
            });
        }
    }
}

#[test]
fn a_board_is_refused_where_memory_cannot_be_shared() {
    ranks_over("tcp", 2, |communicator| {
        communicator.set_algorithm(CollectiveKind::AllReduce, Some("board")).unwrap();
        let error = communicator.all_reduce_in_place(&mut [1.0f32], ReduceOp::Sum).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("in memory that all ranks share"), "{error}");
        communicator.set_algorithm(CollectiveKind::AllReduce, None).unwrap();
        communicator.barrier().unwrap();
    });
}

#[test]
fn abort_ends_a_blocked_call_and_a_work() {
    for blocking in [true, false] {
        ranks(2, |communicator| {
            communicator.barrier().unwrap();
            let abort = communicator.abort_handle();
            if communicator.rank() == 1 {
                return std::thread::sleep(Duration::from_secs(2));
            }
            let aborter = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(100));
                abort.abort();
                abort.abort();
            });
            let begun = Instant::now();
            let error = match blocking {
                true => communicator.barrier().unwrap_err(),
                false => communicator.start_barrier().unwrap().wait().unwrap_err(),
            };
            assert_eq!(error.kind(), Kind::Aborted, "{error}");
            assert!(begun.elapsed() < Duration::from_secs(1), "abort is bounded");
            aborter.join().unwrap();
        });
    }
}

#[test]
fn what_one_rank_can_check_is_a_usage_error_and_harmless() {
    ranks(2, |communicator| {
        let errors = [
            communicator.all_reduce(&[1.0f32; 3], &mut [0.0; 2], ReduceOp::Sum),
            communicator.all_gather(&[1u8; 3], &mut [0; 5]),
            communicator.broadcast(&mut [1u8], 2),
            communicator.send(&[1u8], 7),
            communicator.recv(&mut [1u8], communicator.rank()),
            communicator.all_gather_v(&[1u8], &mut [0; 3], &[1, 1]),
            communicator.all_gather_v(&[1u8], &mut [0; 3], &[1, 1, 1]),
            communicator.all_reduce_in_place(&mut [1.0f32], ReduceOp::BitXor),
            communicator.all_gather_v(&[1u8], &mut [0; 3], &[1, usize::MAX]),
        ];
        for error in errors.map(Result::unwrap_err) {
            assert_eq!(error.kind(), Kind::Usage, "{error}");
            assert!(!error.to_string().contains('\n'));
        }
        communicator.barrier().unwrap();
    });
}

/// A panic of the caller's operator ends the call, not the process, and nobody waits for that rank.
#[test]
fn an_operator_that_panics_fails_its_communicator_alone() {
    for blocking in [true, false] {
        ranks(2, |communicator| {
            communicator.set_deadline(Some(Duration::from_secs(20)));
            let bad = communicator.rank() == 1;
            let op =
                ReduceOp::user(true, move |a: u32, b: u32| if bad { panic!("on purpose") } else { a + b });
            let mut other = communicator.duplicate().unwrap();
            let call = std::panic::AssertUnwindSafe(|| match blocking {
                true => communicator.all_reduce_in_place(&mut [1u32; 10], op),
                false => communicator.start_all_reduce(vec![1u32; 10].into(), op).unwrap().wait().map(drop),
            });
            let outcome = std::panic::catch_unwind(call);
            assert_eq!(outcome.is_err(), bad && blocking, "a work's panic becomes its error");
            let failed = matches!(outcome, Ok(Err(_)) | Err(_));
            assert!(failed || !bad, "the rank that panicked cannot have a result");
            let error = communicator.barrier().unwrap_err();
            assert!(matches!(error.kind(), Kind::Aborted | Kind::PeerLost), "{error}");
            other.barrier().expect("other communicators still work");
        });
    }
}

/// What is kept of earlier calls must not be taken for another one's: more calls in turn than are kept, some with
/// lengths that one rank alone knows.
#[test]
fn calls_in_turn_find_their_own_ways() {
    for transport in ["local", "shm"] {
        ranks_over(transport, 3, |communicator| {
            let (rank, mine) = (communicator.rank(), communicator.rank() as u64);
            for turn in 1..4 {
                for count in 1..90 {
                    let (input, mut sum) = (vec![mine + count as u64; count], vec![0; count]);
                    communicator.all_reduce(&input, &mut sum, ReduceOp::Sum).unwrap();
                    assert_eq!(sum, vec![3 + 3 * count as u64; count]);
                    let counts = [count, turn, 90 - count];
                    let all: usize = counts.iter().sum();
                    let mut gathered = vec![9; if rank == 0 { all } else { 0 }];
                    communicator.gather_v(&vec![mine; counts[rank]], &mut gathered, &counts, 0).unwrap();
                    let expected = [0u64, 1, 2].map(|rank| vec![rank; counts[rank as usize]]).concat();
                    assert!(rank > 0 || gathered == expected);
                    // Nothing in between: only the lengths differ from the call before.
                    for counts in [counts, [2 * count, 2 * turn, 1], counts] {
                        let whole = [0u64, 1, 2].map(|rank| vec![rank; counts[rank as usize]]).concat();
                        let mut block = vec![9; counts[rank]];
                        communicator.scatter_v(&whole, &counts, &mut block, 0).unwrap();
                        assert_eq!(block, vec![mine; counts[rank]]);
                    }
                }
            }
        });
    }
}
