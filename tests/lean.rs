//! A blocking call allocates nothing, but for the first of its kind.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use kolo::{Communicator, ReduceOp, Result};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, start: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(start, layout, size) }
    }

    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(start, layout) }
    }
}

/// Allocations of ten calls, once warm.
fn allocations(mut call: impl FnMut() -> Result<()>) -> usize {
    // Each of the first messages takes another slot of its link.
    (0..8).for_each(|_| call().unwrap());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    (0..10).for_each(|_| call().unwrap());
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// What is counted is the process's, so all stands in one test. Two ranks share its thread where one only
/// sends and the other only receives; with a thread each they might park, where the counted may allocate.
#[test]
fn blocking_calls_allocate_nothing() {
    let counted = allocations(|| {
        std::hint::black_box(vec![1u8]);
        Ok(())
    });
    assert_eq!(counted, 10, "the count counts");

    let mut alone = Communicator::local(1).unwrap();
    let alone = &mut alone[0];
    for count in [0, 2, 1000, 100_000] {
        let (input, mut output) = (vec![1.0f32; count], vec![0.0f32; count]);
        let counts = [
            ("all_reduce", allocations(|| alone.all_reduce(&input, &mut output, ReduceOp::Sum))),
            ("an average", allocations(|| alone.all_reduce_in_place(&mut output, ReduceOp::Average))),
            ("a factor", allocations(|| alone.all_reduce(&input, &mut output, ReduceOp::PreMul(2.0)))),
            ("reduce_scatter", allocations(|| alone.reduce_scatter(&input, &mut output, ReduceOp::Max))),
            ("all_gather", allocations(|| alone.all_gather(&input, &mut output))),
            ("all_to_all", allocations(|| alone.all_to_all(&input, &mut output))),
            ("send_recv", allocations(|| alone.send_recv(&input, 0, &mut output, 0))),
            ("barrier", allocations(|| alone.barrier())),
        ];
        for (call, counted) in counts {
            assert_eq!(counted, 0, "{call} of {count} elements, ten times");
        }
    }

    let mut pair = Communicator::local(2).unwrap();
    let [zero, one] = pair.as_mut_slice() else { unreachable!("two ranks") };
    for count in [0, 2, 1000] {
        let (input, mut output) = (vec![1.0f32; count], vec![0.0f32; count]);
        let message = allocations(|| {
            zero.send(&input, 1)?;
            one.recv(&mut output, 0)
        });
        assert_eq!(message, 0, "a message of {count} elements, ten times");
        // A rank's first call of a kind meets the other's: each on a thread of its own.
        let first = |rank: &mut Communicator| {
            rank.broadcast(&mut vec![0.0f32; count], 0)?;
            rank.reduce(&vec![0.0f32; count], &mut vec![0.0f32; count], ReduceOp::Sum, 0)
        };
        std::thread::scope(|scope| {
            let other = scope.spawn(|| first(&mut *one));
            first(&mut *zero).and(other.join().unwrap()).unwrap();
        });
        let broadcast = allocations(|| {
            zero.broadcast(&mut output, 0)?;
            one.broadcast(&mut output, 0)
        });
        assert_eq!(broadcast, 0, "broadcast of {count} elements, ten times");
        let reduce = allocations(|| {
            one.reduce(&input, &mut [], ReduceOp::Sum, 0)?;
            zero.reduce(&input, &mut output, ReduceOp::Sum, 0)
        });
        assert_eq!(reduce, 0, "reduce of {count} elements, ten times");
    }
}
