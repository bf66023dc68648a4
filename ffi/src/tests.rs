//! The C functions, called as C calls them: by ranks that are threads, and wrongly.

use std::ffi::{CStr, c_void};
use std::ptr::{null, null_mut};
use std::thread;

use kolo_core::Communicator;
use kolo_core::config::Config;

use crate::status::guard;
use crate::*;

const F32: i32 = Dtype::KOLO_F32 as i32;
const I32: i32 = Dtype::KOLO_I32 as i32;
const SUM: i32 = Op::KOLO_SUM as i32;
const OK: Status = Status::KOLO_OK;
const USAGE: Status = Status::KOLO_USAGE;

/// A communicator, given to the thread that uses it; finalized even if that panics, so that no other waits
/// for it.
struct Handle(*mut Comm);
// SAFETY: each is used by the one thread that gets it.
unsafe impl Send for Handle {}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: this thread alone has it.
        assert_eq!(unsafe { kolo_finalize(self.0) }, OK);
    }
}

/// Runs `rank` on every rank of a job of threads.
fn on_ranks(size: usize, rank: impl Fn(*mut Comm, usize) + Sync) {
    thread::scope(|scope| {
        for (i, communicator) in Communicator::local(size).unwrap().into_iter().enumerate() {
            let (rank, handle) = (&rank, Handle(Comm::boxed(communicator)));
            scope.spawn(move || {
                let handle = handle;
                rank(handle.0, i);
            });
        }
    });
}

fn last_error() -> String {
    // SAFETY: the text lives until this thread's next failing call.
    unsafe { CStr::from_ptr(kolo_last_error()) }.to_str().unwrap().into()
}

fn input<T>(elements: &[T]) -> *const c_void {
    elements.as_ptr().cast()
}

fn output<T>(elements: &mut [T]) -> *mut c_void {
    elements.as_mut_ptr().cast()
}

/// A call must end so, with these words in its text.
#[track_caller]
fn refused(status: Status, expected: Status, words: &str) {
    assert_eq!(status, expected, "{}", last_error());
    let text = last_error();
    assert!(text.contains(words) && !text.contains('\n'), "no `{words}` in `{text}`");
}

#[test]
fn reductions_and_gathers_of_equal_blocks() {
    on_ranks(3, |comm, rank| {
        let mine = [rank as i32; 6];
        let (mut all, mut block) = ([0i32; 6], [0i32; 2]);
        // SAFETY: the memory is this thread's own and as long as said.
        unsafe {
            assert_eq!((kolo_rank(comm), kolo_size(comm)), (rank as i32, 3));
            assert_eq!(kolo_all_reduce(comm, input(&mine), output(&mut all), 6, I32, SUM), OK);
            assert_eq!(all, [3; 6]);
            assert_eq!(kolo_reduce_scatter(comm, input(&mine), output(&mut block), 2, I32, SUM), OK);
            assert_eq!(block, [3; 2]);
            assert_eq!(kolo_all_gather(comm, input(&mine), output(&mut all), 2, I32), OK);
            assert_eq!(all, [0, 0, 1, 1, 2, 2]);
            assert_eq!(kolo_all_to_all(comm, input(&all), output(&mut block), 0, I32), OK);
            let mut turned = [9i32; 6];
            assert_eq!(kolo_all_to_all(comm, input(&all), output(&mut turned), 2, I32), OK);
            assert_eq!(turned, [rank as i32; 6]);
        }
    });
}

#[test]
fn in_place_is_told_by_the_addresses() {
    on_ranks(3, |comm, rank| {
        let mut all = [rank as i32; 6];
        let start = output(&mut all);
        let block = start.wrapping_byte_add(8 * rank);
        // SAFETY: the memory is this thread's own and as long as said.
        unsafe {
            assert_eq!(kolo_all_reduce(comm, start, start, 6, I32, SUM), OK);
            assert_eq!(kolo_reduce_scatter(comm, start, block, 2, I32, SUM), OK);
            assert_eq!(kolo_all_gather(comm, block, start, 2, I32), OK);
            assert_eq!(all, [9; 6]);
            assert_eq!(kolo_reduce(comm, start, start, 6, I32, SUM, 1), OK);
        }
        assert_eq!(all, [if rank == 1 { 27 } else { 9 }; 6]);
    });
}

#[test]
fn rooted_collectives_and_blocks_of_any_length() {
    on_ranks(3, |comm, rank| {
        let counts = [1u64, 0, 2];
        let each = counts[rank];
        let mine = [10 * rank as i32; 3];
        let (mut all, mut block, mut data) = ([0i32; 9], [0i32; 3], [rank as i32; 2]);
        let root = rank == 2;
        // SAFETY: the memory is this thread's own and as long as said.
        unsafe {
            assert_eq!(kolo_broadcast(comm, output(&mut data), 2, I32, 2), OK);
            assert_eq!(data, [2, 2]);
            let to = if root { output(&mut all) } else { null_mut() };
            assert_eq!(kolo_reduce(comm, input(&mine), to, 3, I32, SUM, 2), OK);
            assert!(!root || all[..3] == [30; 3]);
            assert_eq!(kolo_gather(comm, input(&mine), to, 3, I32, 2), OK);
            assert!(!root || all == [0, 0, 0, 10, 10, 10, 20, 20, 20]);
            assert_eq!(kolo_scatter(comm, to, output(&mut block), 3, I32, 2), OK);
            assert_eq!(block, mine);
            let at_root = if root { counts.as_ptr() } else { null() };
            assert_eq!(kolo_gather_v(comm, input(&mine), each, to, at_root, I32, 2), OK);
            assert!(!root || all[..3] == [0, 20, 20]);
            assert_eq!(kolo_scatter_v(comm, to, at_root, output(&mut block), each, I32, 2), OK);
            assert_eq!(block, mine);
            assert_eq!(kolo_all_gather_v(comm, input(&mine), output(&mut all), counts.as_ptr(), I32), OK);
            assert_eq!(all[..3], [0, 20, 20]);
            let scattered = output(&mut block);
            assert_eq!(kolo_reduce_scatter_v(comm, input(&mine), scattered, counts.as_ptr(), I32, SUM), OK);
            assert!(block[..each as usize].iter().all(|&sum| sum == 30));
            let (sent, received) = ([each; 3], counts);
            let from = input(&mine);
            let many = [7i32; 6];
            let from = if rank == 2 { input(&many) } else { from };
            let mut got = [0i32; 3];
            let status =
                kolo_all_to_all_v(comm, from, sent.as_ptr(), output(&mut got), received.as_ptr(), I32);
            assert_eq!((status, got), (OK, [0, 7, 7]));
        }
    });
}

#[test]
fn messages_splits_and_memory() {
    on_ranks(4, |comm, rank| {
        let (mut part, mut memory) = (null_mut(), null_mut());
        let (to, from) = ((rank as i32 + 1) % 4, (rank as i32 + 3) % 4);
        // SAFETY: the memory is this thread's own and as long as said.
        unsafe {
            let mut got = [0f32];
            let mine = [rank as f32];
            assert_eq!(kolo_send_recv(comm, input(&mine), 1, to, output(&mut got), 1, from, F32), OK);
            assert_eq!(got, [from as f32]);
            match rank {
                0 => assert_eq!(kolo_send(comm, input(&mine), 1, F32, 3), OK),
                3 => assert_eq!(kolo_recv(comm, output(&mut got), 1, F32, 0), OK),
                _ => {}
            }
            assert!(rank != 3 || got == [0.0]);

            let color = if rank == 0 { -1 } else { 5 };
            assert_eq!(kolo_split(comm, color, 9 - rank as u64, &raw mut part), OK);
            assert_eq!(part.is_null(), rank == 0);
            assert_eq!(kolo_rank(part), if rank == 0 { -1 } else { 3 - rank as i32 });
            assert_eq!(kolo_finalize(part), OK);

            assert_eq!(kolo_split(comm, 0, 0, &raw mut part), OK);
            let mut left = null_mut();
            refused(kolo_shrink(part, null_mut()), USAGE, "left is null");
            assert_eq!(kolo_shrink(part, &raw mut left), OK);
            assert_eq!((kolo_size(left), kolo_rank(left)), (4, rank as i32));
            assert_eq!(kolo_barrier(left), OK);
            refused(kolo_shrink(part, &raw mut left), USAGE, "shrunk before");
            assert_eq!((kolo_finalize(left), kolo_finalize(part)), (OK, OK));

            assert_eq!(kolo_alloc(comm, 100, &raw mut memory), OK);
            assert!(memory.addr() % 64 == 0 && *memory.cast::<u8>() == 0);
            assert_eq!(kolo_all_reduce(comm, memory, memory, 25, F32, SUM), OK);
            assert_eq!(kolo_free(comm, memory), OK);
            refused(kolo_free(comm, memory), USAGE, "freed before");
            assert_eq!(kolo_barrier(comm), OK);
        }
    });
}

#[test]
fn newcomers_are_taken_in() {
    let place = format!("@kolo-ffi-{}-newcomers", std::process::id());
    // Where ranks and newcomers meet is said by the environment, which threads share.
    let join = |more: &[(&str, &str)]| {
        let known = [more, &[("KOLO_RENDEZVOUS", &*place), ("KOLO_DEADLINE", "60")]].concat();
        let find = |name: &str| known.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into());
        Handle(Comm::boxed(Communicator::join(&Config::read(&find).unwrap()).unwrap()))
    };
    // SAFETY: the memory is this thread's own and as long as said.
    let check = |comm: *mut Comm, size: i32, generation: i32| unsafe {
        let mut ones = [1i32; 6];
        let start = output(&mut ones);
        assert_eq!(kolo_all_reduce(comm, start, start, 6, I32, SUM), OK);
        assert_eq!((ones, kolo_size(comm), kolo_generation(comm)), ([size; 6], size, generation));
    };
    thread::scope(|scope| {
        for rank in ["0", "1"] {
            let rank = [("KOLO_RANK", rank), ("KOLO_SIZE", "2")];
            scope.spawn(move || {
                let comm = join(&rank);
                let mut grown = null_mut();
                // SAFETY: this thread's own communicators.
                unsafe {
                    refused(kolo_grow(comm.0, 1, null_mut()), USAGE, "grown is null");
                    refused(kolo_grow(comm.0, -1, &raw mut grown), USAGE, "-1 newcomers: expected 1 or more");
                    refused(kolo_grow(comm.0, 0, &raw mut grown), USAGE, "0 newcomers: expected 1 to");
                    assert_eq!(kolo_grow(comm.0, 1, &raw mut grown), OK, "{}", last_error());
                    assert_eq!(kolo_rank(grown), kolo_rank(comm.0));
                }
                check(Handle(grown).0, 3, 1);
                check(comm.0, 2, 0);
            });
        }
        let comm = join(&[("KOLO_JOIN", "1")]);
        check(comm.0, 3, 1);
    });
    // SAFETY: null is allowed.
    assert_eq!(unsafe { kolo_generation(null()) }, -1);
}

#[test]
fn wrong_arguments_are_told_and_leave_the_communicator_usable() {
    on_ranks(1, |comm, _| {
        let mut data = [1.5f32; 8];
        let (start, mut nowhere) = (output(&mut data), null_mut());
        // SAFETY: nothing of these calls touches memory but the last.
        unsafe {
            let all_reduce = |from, to, count, dtype, op| kolo_all_reduce(comm, from, to, count, dtype, op);
            let null_comm = kolo_all_reduce(null_mut(), start, start, 8, F32, SUM);
            refused(null_comm, USAGE, "kolo_all_reduce: comm is null");
            refused(all_reduce(null(), start, 8, F32, SUM), USAGE, "input is null, but has 8 elements");
            refused(all_reduce(start, start, 8, 14, SUM), USAGE, "14 is no enum kolo_dtype");
            refused(all_reduce(start, start, 8, F32, 5), USAGE, "5 is no enum kolo_op");
            refused(all_reduce(start, start, 8, F32, Op::KOLO_XOR as i32), USAGE, "xor");
            let odd = start.wrapping_byte_add(2);
            refused(all_reduce(odd, start, 1, F32, SUM), USAGE, "is not aligned to 4, as f32 is");
            let inside = start.wrapping_byte_add(4);
            refused(all_reduce(start, inside, 7, F32, SUM), USAGE, "input and output overlap");
            refused(all_reduce(start, start, u64::MAX / 2, F32, SUM), USAGE, "do not fit the address space");
            refused(kolo_broadcast(comm, start, 8, F32, -1), USAGE, "root is -1");
            refused(kolo_broadcast(comm, start, 8, F32, 1), USAGE, "1");
            refused(kolo_all_gather_v(comm, start, start, null(), F32), USAGE, "counts is null");
            refused(kolo_alloc(comm, u64::MAX, &raw mut nowhere), USAGE, "cannot be allocated");
            refused(kolo_alloc(comm, 8, null_mut()), USAGE, "memory is null");
            refused(kolo_init(null_mut()), USAGE, "comm is null");
            assert_eq!((kolo_rank(null()), kolo_finalize(null_mut())), (-1, OK));
            assert_eq!(all_reduce(start, start, 8, F32, SUM), OK);
        }
        assert_eq!(data, [1.5; 8]);
    });
}

#[test]
fn a_panic_becomes_a_status_and_an_abort_is_heard() {
    refused(guard("kolo_x", || panic!("no {}", "way")), Status::KOLO_INTERNAL, "a defect of kolo: no way");
    on_ranks(2, |comm, rank| {
        // SAFETY: this thread's own communicator.
        unsafe {
            if rank == 0 {
                assert_eq!(kolo_abort(comm), OK);
                refused(kolo_barrier(comm), Status::KOLO_ABORTED, "kolo_barrier: ");
            } else {
                refused(kolo_barrier(comm), Status::KOLO_PEER_LOST, "rank 0");
            }
        }
    });
}
