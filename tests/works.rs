//! Non-blocking calls, messages, and communicators from communicators.

mod support;

use std::future::IntoFuture;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::thread::Thread;

use kolo::{Buffer, ReduceOp, Result};
use support::{input, ranks, value};

fn sum(size: usize, index: usize) -> f32 {
    (0..size).map(|rank| value(rank, index) as f32).sum()
}

#[test]
fn works_run_in_order_and_give_their_memory_back() {
    ranks(3, |communicator| {
        let rank = communicator.rank();
        let counts = [5, 70_000, 0, 1];
        let works: Vec<_> = counts
            .iter()
            .map(|&count| {
                let data = Buffer::from(input::<f32>(rank, count));
                communicator.start_all_reduce(data, ReduceOp::Sum).unwrap()
            })
            .collect();
        // A blocking call queues behind them.
        let mut after = [1i64];
        communicator.all_reduce_in_place(&mut after, ReduceOp::Sum).unwrap();
        assert_eq!(after, [3]);
        for (work, count) in works.into_iter().zip(counts) {
            assert!(work.test(), "the blocking call came after all of them");
            let data = work.wait().unwrap();
            assert!(data.iter().enumerate().all(|(at, &x)| x == sum(3, at)), "{count} elements");
        }
    });
}

#[test]
fn parts_of_a_buffer_are_reduced_on_their_own() {
    ranks(2, |communicator| {
        let (left, right) = Buffer::from(input::<f32>(communicator.rank(), 1000)).split_at(300);
        let right = communicator.start_all_reduce(right, ReduceOp::Sum).unwrap();
        let left = communicator.start_all_reduce(left, ReduceOp::Sum).unwrap();
        let whole = left.wait().unwrap().join(right.wait().unwrap()).unwrap();
        assert!(whole.iter().enumerate().all(|(at, &x)| x == sum(2, at)));
    });
}

#[test]
fn a_scope_works_on_borrowed_slices() {
    ranks(4, |communicator| {
        let rank = communicator.rank();
        let (mut a, mut b, mine) = (input::<f32>(rank, 5000), input::<f32>(rank, 7), [rank as u32; 3]);
        let mut all = [9u32; 12];
        communicator
            .scope(|scope| {
                scope.all_reduce(&mut a, ReduceOp::Sum)?;
                scope.all_gather(&mine, &mut all)?;
                scope.all_reduce(&mut b, ReduceOp::Sum)
            })
            .unwrap();
        assert!(a.iter().chain(&b).zip((0..5000).chain(0..7)).all(|(&x, at)| x == sum(4, at)));
        assert_eq!(all, [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]);
    });
}

#[test]
fn a_scope_knows_every_call() {
    ranks(3, |communicator| {
        let (rank, n) = (communicator.rank(), 3);
        let (next, before) = ((rank + 1) % n, (rank + n - 1) % n);
        let (one, three) = ([rank as u32 + 1], [10, 20, 30u32]);
        let (mut sum, mut part, mut uneven_part) = ([0u32], [0u32], vec![0u32; rank]);
        let (mut all, mut uneven, mut from_all, mut to_root) = ([0u32; 3], [0u32; 3], [0u32; 3], [0u32; 3]);
        let (mut share, mut uneven_share, mut exchanged, mut word) =
            ([0u32], vec![0u32; rank], [0u32], [rank as u32]);
        let (mut uneven_root, mut uneven_all) = ([0u32; 3], [0u32; 3]);
        let mine = vec![rank as u32; rank];
        let counts = [0, 1, 2];
        let roots = rank == 2;
        communicator
            .scope(|scope| {
                scope.reduce(&one, &mut sum, ReduceOp::Sum, 2)?;
                scope.reduce_scatter(&three, &mut part, ReduceOp::Sum)?;
                scope.reduce_scatter_v(&three, &mut uneven_part, &counts, ReduceOp::Max)?;
                scope.all_gather(&one, &mut all)?;
                scope.all_gather_v(&mine, &mut uneven, &counts)?;
                scope.all_to_all(&three, &mut from_all)?;
                scope.all_to_all_v(&three, &[1, 1, 1], &mut uneven_all, &[1, 1, 1])?;
                scope.gather(&one, if roots { &mut to_root } else { &mut [] }, 2)?;
                scope.gather_v(&mine, if roots { &mut uneven_root } else { &mut [] }, &counts, 2)?;
                scope.scatter(if roots { &three } else { &[] }, &mut share, 2)?;
                scope.scatter_v(if roots { &three } else { &[] }, &counts, &mut uneven_share, 2)?;
                scope.send_recv(&one, next, &mut exchanged, before)?;
                scope.broadcast(&mut word, 1)
            })
            .unwrap();
        let own = three[rank];
        assert_eq!((part, all, from_all, uneven_all), ([3 * own], [1, 2, 3], [own; 3], [own; 3]));
        assert_eq!((uneven, share, word), ([1, 2, 2], [own], [1]));
        assert_eq!(uneven_part, [vec![], vec![10], vec![20, 30]][rank]);
        assert_eq!(uneven_share, uneven_part);
        assert_eq!(exchanged, [before as u32 + 1]);
        if roots {
            assert_eq!((sum, to_root, uneven_root), ([6], [1, 2, 3], [1, 2, 2]));
        }
    });
}

/// Wakes a thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<T>(future: impl IntoFuture<Output = T>) -> T {
    let mut future = pin!(future.into_future());
    let waker = Arc::new(Unpark(std::thread::current())).into();
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn a_work_can_be_awaited() {
    ranks(2, |communicator| {
        let work = communicator.start_all_reduce(Buffer::from(vec![1u16; 100_000]), ReduceOp::Sum).unwrap();
        assert!(block_on(work).unwrap().iter().all(|&x| x == 2));
    });
}

#[test]
fn works_of_two_communicators_do_not_wait_for_each_other() {
    ranks(2, |communicator| {
        let mut other = communicator.duplicate().unwrap();
        let rank = communicator.rank();
        let buffer = || Buffer::from(vec![rank as u64; 100_000]);
        // Started in opposite orders: with one queue for both, neither would ever end.
        let mut pair = [communicator, &mut other];
        pair.rotate_left(rank);
        let first = pair[0].start_all_reduce(buffer(), ReduceOp::Sum).unwrap();
        let second = pair[1].start_all_reduce(buffer(), ReduceOp::Sum).unwrap();
        assert!(first.wait().unwrap().iter().chain(second.wait().unwrap().iter()).all(|&x| x == 1));
    });
}

#[test]
fn messages_keep_their_order_and_neighbours_can_exchange() -> Result<()> {
    ranks(3, |communicator| {
        let (rank, size) = (communicator.rank(), communicator.size());
        let (next, before) = ((rank + 1) % size, (rank + size - 1) % size);
        for count in [0, 1, 5000, 300_000] {
            let mine = vec![rank as i32; count];
            let mut theirs = vec![-1; count];
            communicator.send_recv(&mine, next, &mut theirs, before).unwrap();
            assert!(theirs.iter().all(|&x| x == before as i32));
        }
        // More than the links hold: the receiver takes one after the other.
        match rank {
            0 => (0..100u8).for_each(|at| communicator.send(&[at; 1000], 1).unwrap()),
            1 => (0..100u8).for_each(|at| {
                let mut data = [0; 1000];
                communicator.recv(&mut data, 0).unwrap();
                assert_eq!(data, [at; 1000]);
            }),
            _ => {}
        }
        // Messages and collectives do not get into each other's way.
        if rank == 0 {
            communicator.send(&[7u8], 2).unwrap();
        }
        communicator.barrier().unwrap();
        if rank == 2 {
            let mut data = [0u8];
            communicator.recv(&mut data, 0).unwrap();
            assert_eq!(data, [7]);
        }
        let mut own = [0.0];
        communicator.send_recv(&[2.5], rank, &mut own, rank).unwrap();
        assert_eq!(own, [2.5]);
    });
    Ok(())
}

#[test]
fn a_split_orders_by_key_and_leaves_some_out() {
    ranks(7, |communicator| {
        let rank = communicator.rank();
        // Odd ranks in reverse; even ranks as they are; rank 6 alone outside.
        let color = (rank != 6).then_some(rank as u32 % 2);
        let part = communicator.split(color, if rank % 2 == 1 { 10 - rank } else { 0 }).unwrap();
        let Some(mut part) = part else { return assert_eq!(rank, 6) };
        assert_eq!(part.size(), 3);
        let mut all = [0; 3];
        part.all_gather(&[rank as u32], &mut all).unwrap();
        assert_eq!(all, if rank % 2 == 1 { [5, 3, 1] } else { [0, 2, 4] });
        assert_eq!(all[part.rank()], rank as u32);
        let mut again = part.split(Some(part.rank() as u32), 0).unwrap().unwrap();
        again.barrier().unwrap();
        assert_eq!(again.size(), 1);
    });
}

#[test]
fn memory_of_a_communicator_is_zero_aligned_and_alike() {
    ranks(2, |communicator| {
        let buffer = communicator.alloc::<f64>(1001).unwrap();
        assert!(buffer.len() == 1001 && buffer.iter().all(|&x| x == 0.0));
        assert_eq!(buffer.as_ptr() as usize % 64, 0);
        let buffer = communicator.start_all_reduce(buffer, ReduceOp::Sum).unwrap().wait().unwrap();
        assert_eq!(buffer.len(), 1001);
        let count = 10 + communicator.rank();
        let error = communicator.alloc::<u8>(count).unwrap_err();
        assert_eq!(error.kind(), kolo::Kind::Mismatch, "{error}");
        let error = communicator.alloc::<u64>(1 << 50).unwrap_err();
        assert_eq!(error.kind(), kolo::Kind::System, "{error}");
    });
}
