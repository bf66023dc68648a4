//! Why nothing comes: what errors say of ranks that were not waited for directly.

mod support;

use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use kolo::{CollectiveKind, Communicator, Error, Kind, ReduceOp};
use support::ranks_over;

const TRANSPORTS: [&str; 3] = ["local", "shm", "tcp"];

/// What each rank's part ends with.
fn errors(
    transport: &str,
    size: usize,
    part: impl Fn(&mut Communicator) -> kolo::Result<()> + Sync,
) -> Vec<Option<Error>> {
    let errors = Mutex::new(vec![None; size]);
    ranks_over(transport, size, |communicator| {
        let outcome = part(communicator);
        errors.lock().unwrap()[communicator.rank()] = outcome.err();
    });
    errors.into_inner().unwrap()
}

/// In a ring each rank waits for the one before it; only one of them waits for the absent one.
#[test]
fn all_name_the_rank_that_is_absent() {
    for transport in TRANSPORTS {
        let all_have_failed = Barrier::new(4);
        let errors = errors(transport, 4, |communicator| {
            communicator.set_algorithm(CollectiveKind::AllReduce, Some("ring"))?;
            let mut vector = vec![1.0f32; 1000];
            communicator.all_reduce_in_place(&mut vector, ReduceOp::Sum)?;
            communicator.set_deadline(Some(Duration::from_millis(600)));
            let outcome = match communicator.rank() {
                2 => Ok(()),
                _ => communicator.all_reduce_in_place(&mut vector, ReduceOp::Sum),
            };
            all_have_failed.wait();
            outcome
        });
        for rank in [0, 1, 3] {
            let error = errors[rank].as_ref().expect("it waited in vain");
            let told = [Kind::Deadline, Kind::PeerLost].contains(&error.kind());
            assert!(told, "{transport}: {error}");
        }
        // The first to give up has nobody's failure to report.
        let late: Vec<_> = errors.iter().flatten().filter(|error| error.kind() == Kind::Deadline).collect();
        assert!(!late.is_empty());
        for error in late {
            let text = error.to_string();
            assert!(error.peer() == Some(2), "{transport}: {text}");
            assert!(
                text.contains("rank 2 has not made this call: its last one was #1"),
                "{transport}: {text}"
            );
            assert!(!text.contains('\n'), "{text}");
        }
    }
}

/// Two ranks call on two communicators, in another order each.
#[test]
fn a_circle_over_two_communicators_is_shown_on_both_sides() {
    for transport in TRANSPORTS {
        // Who ends cannot be asked any more.
        let both_have_failed = Barrier::new(2);
        let errors = errors(transport, 2, |communicator| {
            let mut pair = [communicator.duplicate()?, communicator.duplicate()?];
            for communicator in &mut pair {
                communicator.barrier()?;
                communicator.set_deadline(Some(Duration::from_millis(700)));
            }
            if communicator.rank() == 1 {
                pair.reverse();
            }
            let outcome = pair[0].barrier();
            drop(pair);
            both_have_failed.wait();
            outcome
        });
        for (rank, error) in errors.into_iter().enumerate() {
            let error = error.expect("neither can go on");
            let (text, other) = (error.to_string(), 1 - rank);
            // Who is told that the other one gave up hears why.
            assert!([Kind::Deadline, Kind::PeerLost].contains(&error.kind()), "{transport}: {text}");
            assert!(
                text.contains(&format!("rank {other} has not made this call, but")),
                "{transport}: {text}"
            );
            assert!(text.contains("barrier #2 of communicator"), "{transport}: {text}");
            assert!(text.ends_with("which closes a circle"), "{transport}: {text}");
        }
    }
}

/// Where both sides begin by receiving, no message could tell them that they disagree.
#[test]
fn ranks_that_both_wait_for_the_other_are_told_that_they_disagree() {
    for transport in TRANSPORTS {
        let begun = Instant::now();
        let errors = errors(transport, 2, |communicator| {
            communicator.set_deadline(Some(Duration::from_secs(120)));
            let mut vector = [0u8; 100];
            // With the links of both calls open, nothing else compares them.
            for root in [0, 1] {
                communicator.broadcast(&mut vector, root)?;
            }
            communicator.broadcast(&mut vector, 1 - communicator.rank())
        });
        let errors: Vec<_> = errors.into_iter().map(|error| error.expect("neither can go on")).collect();
        assert!(begun.elapsed() < Duration::from_secs(20));
        let told = errors.iter().find(|error| error.kind() == Kind::Mismatch).expect("one side says why");
        let text = told.to_string();
        assert!(text.contains("root 0") && text.contains("root 1"), "{transport}: {text}");
        let learnt = |error: &Error| [Kind::Mismatch, Kind::PeerLost].contains(&error.kind());
        assert!(errors.iter().all(learnt), "{errors:?}");
    }
}

/// A rank that lost one peer leaves the others, who are told of the one that is to blame.
#[test]
fn who_left_because_of_another_names_it() {
    for transport in TRANSPORTS {
        let all_have_failed = Barrier::new(3);
        let errors = errors(transport, 4, |communicator| {
            communicator.set_algorithm(CollectiveKind::AllReduce, Some("ring"))?;
            let mut vector = vec![1.0f32; 1000];
            communicator.all_reduce_in_place(&mut vector, ReduceOp::Sum)?;
            if communicator.rank() == 1 {
                return Ok(()); // and drops its communicator
            }
            let outcome = communicator.all_reduce_in_place(&mut vector, ReduceOp::Sum);
            all_have_failed.wait();
            outcome
        });
        for rank in [0, 2, 3] {
            let error = errors[rank].as_ref().expect("nothing can come");
            assert_eq!((error.kind(), error.peer()), (Kind::PeerLost, Some(1)), "{transport}: {error}");
        }
    }
}

/// A call that takes long without anybody being at fault goes on, whatever was asked meanwhile.
#[test]
fn who_comes_late_is_waited_for() {
    for transport in TRANSPORTS {
        let errors = errors(transport, 3, |communicator| {
            communicator.barrier()?;
            for late in 0..3 {
                if communicator.rank() == late {
                    std::thread::sleep(Duration::from_millis(700));
                }
                let mut vector = vec![1u64; 10_000];
                communicator.all_reduce_in_place(&mut vector, ReduceOp::Sum)?;
                assert!(vector.iter().all(|element| *element == 3));
            }
            Ok(())
        });
        assert!(errors.iter().all(Option::is_none), "{transport}: {errors:?}");
    }
}
