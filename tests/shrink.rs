//! Going on without ranks that are lost. The protocol has its model beside it (`communicator/shrink.rs`).

mod support;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kolo::{Communicator, Kind, ReduceOp};
use support::{ranks, ranks_over};

const TRANSPORTS: [&str; 3] = ["local", "shm", "tcp"];

/// The sum of the ranks' numbers of old, which they carry along.
fn sum(communicator: &mut Communicator, number: u64) -> kolo::Result<u64> {
    let mut data = vec![number; 5000];
    communicator.all_reduce_in_place(&mut data, ReduceOp::Sum)?;
    assert!(data.iter().all(|element| *element == data[0]));
    Ok(data[0])
}

#[test]
fn those_that_are_left_go_on() {
    for transport in TRANSPORTS {
        for lost in [vec![0], vec![4], vec![1, 2], vec![0, 1, 2, 3]] {
            ranks_over(transport, 5, |communicator| {
                let old = communicator.rank();
                let case = format!("{transport}, {lost:?} lost, rank {old}");
                assert_eq!(sum(communicator, old as u64).unwrap(), 10);
                if lost.contains(&old) {
                    return; // and drops its communicator
                }
                let left: Vec<usize> = (0..5).filter(|rank| !lost.contains(rank)).collect();
                if left.len() > 1 {
                    let error = sum(communicator, 1).expect_err(&case);
                    assert_eq!(error.kind(), Kind::PeerLost, "{case}: {error}");
                }
                let mut shrunk = communicator.shrink().expect(&case);
                assert_eq!(shrunk.size(), left.len(), "{case}");
                assert_eq!(left[shrunk.rank()], old, "{case}: in the same order");
                assert_eq!(sum(&mut shrunk, old as u64).expect(&case), left.iter().sum::<usize>() as u64);
                assert_eq!(communicator.shrink().err().expect(&case).kind(), Kind::Usage);
                assert!(communicator.barrier().is_err(), "the old one stays failed");
            });
        }
    }
}

/// One after the other, down to a single rank.
#[test]
fn what_was_shrunk_can_be_shrunk() {
    for transport in TRANSPORTS {
        ranks_over(transport, 4, |communicator| {
            let me = communicator.rank();
            let mut current = communicator.duplicate().unwrap();
            for size in (1..=4).rev() {
                assert_eq!(current.size(), size);
                assert_eq!(sum(&mut current, 1).unwrap(), size as u64);
                if me + 1 == size {
                    return;
                }
                let next = current.shrink();
                // The last one may be there yet, when this one asks; it leaves without having called.
                current = next.unwrap();
            }
        });
    }
}

/// The job may number ranks in another order than the communicator does.
#[test]
fn order_is_kept_whatever_the_job_numbers_ranks() {
    ranks_over("shm", 5, |communicator| {
        let me = communicator.rank();
        let mut reversed = communicator.split(Some(0), 4 - me).unwrap().unwrap();
        assert_eq!(reversed.rank(), 4 - me);
        if me == 1 {
            return;
        }
        let mut left = reversed.shrink().unwrap();
        assert_eq!((left.size(), left.rank()), (4, [3, 9, 2, 1, 0][me]));
        assert_eq!(sum(&mut left, me as u64).unwrap(), 9);
    });
}

/// Who waits in a call for ranks that shrink hears of it.
#[test]
fn a_call_that_others_have_given_up_ends() {
    ranks(3, |communicator| {
        communicator.barrier().unwrap();
        if communicator.rank() == 2 {
            let error = communicator.barrier().unwrap_err();
            assert_eq!(error.kind(), Kind::PeerLost, "{error}");
        }
        let mut all = communicator.shrink().unwrap();
        assert_eq!(all.size(), 3);
        all.barrier().unwrap();
    });
}

/// One that lives and does not take part is named at the deadline.
#[test]
fn who_does_not_take_part_is_named() {
    let (over, told) = (Barrier::new(3), AtomicUsize::new(0));
    ranks(3, |communicator| {
        communicator.barrier().unwrap();
        communicator.set_deadline(Some(Duration::from_millis(300)));
        if communicator.rank() != 1 {
            let error = communicator.shrink().err().expect("rank 1 is missing");
            assert_eq!(error.kind(), Kind::Deadline, "{error}");
            told.fetch_add(
                usize::from(error.to_string().contains("rank 1 has not called it")),
                Ordering::Relaxed,
            );
        }
        over.wait();
    });
    assert!(told.into_inner() > 0, "the one who decides names it");
}
