//! Memory that ranks allocate together: results are the same as in any other, and no peer writes into it late.

mod support;

use std::ffi::OsString;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kolo::config::Config;
use kolo::{Buffer, CollectiveKind, Communicator, Element, Kind, ReduceOp};
use rustix::process::{Pid, Signal, getpid, kill_process};
use support::{input, ranks_over, value};

/// Element counts around what is lent: messages, rounds, pages.
const COUNTS: [usize; 9] = [1, 4_095, 4_096, 8_192, 16_384, 16_385, 65_536, 65_536 + 17, 700_001];

/// What all elements must be after an all-reduce of [`input`]s.
fn check<T: Element>(found: &[T], ranks: &[usize], case: &str) {
    for (index, &element) in found.iter().enumerate() {
        let expected: f64 = ranks.iter().map(|&rank| value(rank, index)).sum();
        assert!(element == T::from_f64(expected), "{case}: element {index} of {} is wrong", found.len());
    }
}

fn all_reduce<T: Element>(communicator: &mut Communicator, data: &mut [T], me: usize) {
    data.copy_from_slice(&input::<T>(me, data.len()));
    communicator.all_reduce_in_place(data, ReduceOp::Sum).unwrap();
}

fn each_type_and_count<T: Element>(transport: &str, size: usize) {
    ranks_over(transport, size, |communicator| {
        let (me, all) = (communicator.rank(), (0..size).collect::<Vec<_>>());
        for count in COUNTS {
            let case = format!("{transport}, {size} ranks, {count} x {}", T::DTYPE);
            let mut data = communicator.alloc::<T>(count).unwrap();
            assert!(data.iter().all(|&element| element == T::from_f64(0.0)), "{case}: no zeros");
            for _ in 0..3 {
                all_reduce(communicator, &mut data, me);
                check(&data, &all, &case);
            }
            // Out of place, into it and out of it.
            let (ordinary, mut sums) = (input::<T>(me, count), vec![T::from_f64(0.0); count]);
            communicator.all_reduce(&ordinary, &mut data, ReduceOp::Sum).unwrap();
            check(&data, &all, &case);
            data.copy_from_slice(&ordinary);
            communicator.all_reduce(&data, &mut sums, ReduceOp::Sum).unwrap();
            check(&sums, &all, &case);
            assert!(*data == ordinary[..], "{case}: an input was written");
        }
    });
}

#[test]
fn sums_are_right_in_every_type_and_count() {
    for size in 2..=4 {
        each_type_and_count::<f32>("shm", size);
    }
    each_type_and_count::<u8>("shm", 2);
    each_type_and_count::<u16>("shm", 2);
    each_type_and_count::<f64>("shm", 2);
    each_type_and_count::<f32>("local", 2);
    each_type_and_count::<f32>("tcp", 2);
}

#[test]
fn every_algorithm_may_work_on_it() {
    for size in 2..=4 {
        ranks_over("shm", size, |communicator| {
            let (me, all) = (communicator.rank(), (0..size).collect::<Vec<_>>());
            let mut data = communicator.alloc::<f32>(200_003).unwrap();
            for algorithm in kolo::algorithm::ALL {
                if !algorithm.does(CollectiveKind::AllReduce) {
                    continue;
                }
                communicator.set_algorithm(CollectiveKind::AllReduce, Some(algorithm.name())).unwrap();
                for _ in 0..3 {
                    all_reduce(communicator, &mut data, me);
                    check(&data, &all, algorithm.name());
                }
            }
        });
    }
}

/// So much is read where it lies, and rewritten as soon as a call returns; a rank may bring other memory.
#[test]
fn what_others_read_there_is_read_before_it_is_written_anew() {
    const EACH: usize = (1 << 18) + 1_003;
    let named =
        |kind: CollectiveKind| kolo::algorithm::ALL.iter().filter(move |algorithm| algorithm.does(kind));
    for size in 2..=4 {
        ranks_over("shm", size, |communicator| {
            let (me, all) = (communicator.rank(), size * EACH);
            let mut allocated = communicator.alloc::<u32>(2 * all).unwrap();
            let mut ordinary = vec![0; 2 * all];
            let number = |rank: usize, index: usize, turn: usize| (rank + index * 7 + turn * 1001) as u32;
            for turn in 0..3 {
                let own = turn == 2 && me == 1;
                let (input, output) = match own {
                    true => ordinary.split_at_mut(all),
                    false => allocated.split_at_mut(all),
                };
                for algorithm in named(CollectiveKind::AllGather) {
                    communicator.set_algorithm(CollectiveKind::AllGather, Some(algorithm.name())).unwrap();
                    (0..EACH).for_each(|index| input[index] = number(me, index, turn));
                    communicator.all_gather(&input[..EACH], output).unwrap();
                    let kept = (0..EACH).all(|index| input[index] == number(me, index, turn));
                    assert!(kept, "an input was written: all-gather by {}", algorithm.name());
                    input.fill(u32::MAX);
                    let expected = (0..all).map(|at| number(at / EACH, at % EACH, turn));
                    assert!(output.iter().copied().eq(expected), "all-gather by {}", algorithm.name());
                }
                for algorithm in named(CollectiveKind::AllToAll) {
                    communicator.set_algorithm(CollectiveKind::AllToAll, Some(algorithm.name())).unwrap();
                    (0..all).for_each(|index| input[index] = number(me, index, turn));
                    communicator.all_to_all(input, output).unwrap();
                    let kept = (0..all).all(|index| input[index] == number(me, index, turn));
                    assert!(kept, "an input was written: all-to-all by {}", algorithm.name());
                    input.fill(u32::MAX);
                    let expected = (0..all).map(|at| number(at / EACH, me * EACH + at % EACH, turn));
                    assert!(output.iter().copied().eq(expected), "all-to-all by {}", algorithm.name());
                }
                for algorithm in named(CollectiveKind::ReduceScatter) {
                    communicator
                        .set_algorithm(CollectiveKind::ReduceScatter, Some(algorithm.name()))
                        .unwrap();
                    (0..all).for_each(|index| input[index] = number(me, index, turn));
                    communicator.reduce_scatter(input, &mut output[..EACH], ReduceOp::Sum).unwrap();
                    let kept = (0..all).all(|index| input[index] == number(me, index, turn));
                    assert!(kept, "an input was written: reduce-scatter by {}", algorithm.name());
                    input.fill(u32::MAX);
                    let sum =
                        |index| (0..size).map(|rank| number(rank, me * EACH + index, turn)).sum::<u32>();
                    let found = output[..EACH].iter().copied();
                    assert!(found.eq((0..EACH).map(sum)), "reduce-scatter by {}", algorithm.name());
                }
            }
        });
    }
}

/// Parts of a buffer begin and end in the middle of pages, beside what others own.
#[test]
fn parts_are_reduced_and_their_neighbours_left_alone() {
    ranks_over("shm", 2, |communicator| {
        let me = communicator.rank();
        for (start, count) in [(0, 40_000), (1, 70_000), (1000, 65_536), (1024, 262_144), (1023, 262_146)] {
            let mut whole = communicator.alloc::<f32>(start + count + 5000).unwrap();
            whole.fill(-1.0);
            let (left, rest) = whole.split_at(start);
            let (mut middle, right) = rest.split_at(count);
            for _ in 0..3 {
                all_reduce(communicator, &mut middle, me);
                check(&middle, &[0, 1], "a part");
            }
            assert!(left.iter().chain(&*right).all(|&element| element == -1.0), "{start}, {count}");
            let whole = left.join(middle).unwrap().join(right).unwrap();
            assert_eq!(whole.len(), start + count + 5000);
        }
    });
}

#[test]
fn works_own_it_while_they_run() {
    ranks_over("shm", 2, |communicator| {
        let me = communicator.rank();
        let parts = |communicator: &mut Communicator| {
            let (left, right) = communicator.alloc::<f32>(400_000).unwrap().split_at(150_001);
            [left, right]
        };
        let works: Vec<_> = parts(communicator)
            .into_iter()
            .map(|mut part: Buffer<f32>| {
                let count = part.len();
                part.copy_from_slice(&input::<f32>(me, count));
                communicator.start_all_reduce(part, ReduceOp::Sum).unwrap()
            })
            .collect();
        for work in works {
            check(&work.wait().unwrap(), &[0, 1], "a work");
        }
    });
}

/// Only ranks that map an allocation are lent any of it.
#[test]
fn other_communicators_may_use_it() {
    ranks_over("shm", 4, |world| {
        let me = world.rank();
        let mut low = world.split(Some(me as u32 / 2), me).unwrap().unwrap();
        let mut odd = world.split(Some(me as u32 % 2), me).unwrap().unwrap();
        let (mut of_all, mut of_two) =
            (world.alloc::<f32>(100_000).unwrap(), low.alloc::<f32>(100_000).unwrap());
        for _ in 0..3 {
            for data in [&mut of_all, &mut of_two] {
                all_reduce(world, data, me);
                check(data, &[0, 1, 2, 3], "all");
                all_reduce(&mut low, data, me);
                check(data, &[me / 2 * 2, me / 2 * 2 + 1], "low or high");
                all_reduce(&mut odd, data, me);
                check(data, &[me % 2, me % 2 + 2], "even or odd");
            }
        }
    });
}

#[test]
fn ranks_may_mix_it_with_other_memory() {
    ranks_over("shm", 2, |communicator| {
        let me = communicator.rank();
        let mut shared = communicator.alloc::<f32>(300_000).unwrap();
        let mut ordinary = vec![0.0; 300_000];
        for turn in 0..6 {
            let data = if turn % 2 == me { &mut shared[..] } else { &mut ordinary[..] };
            all_reduce(communicator, data, me);
            check(data, &[0, 1], "a mixture");
        }
    });
}

/// The mappings of allocations that this process has.
fn mappings() -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("kolo-memory")).count()
}

/// What the child counts, alone in its process.
#[test]
fn what_is_dropped_is_given_back() {
    let (mut one, mut other) = with_child("allocate");
    allocate_and_drop(&mut one, |_| ());
    assert!(other.0.wait().unwrap().success());
}

fn allocate_and_drop(communicator: &mut Communicator, look: impl Fn(usize)) {
    let me = communicator.rank();
    for turn in 0..200 {
        let mut data = communicator.alloc::<f32>(40_000).unwrap();
        all_reduce(communicator, &mut data, me);
        check(&data, &[0, 1], "one of many");
        look(turn);
    }
}

/// Tells a child what to do.
const ROLE: &str = "KOLO_TEST_ALLOCATION_ROLE";

/// Kills the other process when a test ends, however it ends.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Rank 0, here, and rank 1, which does as its role says.
fn with_child(role: &str) -> (Communicator, Other) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let place = format!("127.0.0.1:{port}");
    let job = [("KOLO_SIZE", "2"), ("KOLO_RENDEZVOUS", &place), ("KOLO_TRANSPORT", "shm")];
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture", "--quiet"])
        .envs(job)
        .envs([(ROLE, role), ("KOLO_RANK", "1")])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let other = Other(child);
    let mine = |name: &str| {
        let found = job.iter().chain(&[("KOLO_RANK", "0")]).find(|(known, _)| *known == name);
        found.map(|(_, value)| OsString::from(value))
    };
    (Communicator::join(&Config::read(&mine).unwrap()).unwrap(), other)
}

const COUNT: usize = 300_000;

/// Not a test: rank 1 of the tests here.
#[test]
#[ignore = "runs as the child of other tests"]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut two = Communicator::from_env().unwrap();
    if role == "allocate" {
        // This one, and the one before, whose other part may not have been dropped yet.
        return allocate_and_drop(&mut two, |turn| {
            assert!(mappings() <= 2, "{} after {turn} allocations", mappings());
        });
    }
    let signal = if role == "stop" { Signal::STOP } else { Signal::KILL };
    let mut data = two.alloc::<u32>(COUNT).unwrap();
    two.all_reduce_in_place(&mut data, interrupted(None)).unwrap();
    // What rank 0 finds in its memory, if it finds anything.
    data.fill(1 << 16);
    let error = two.all_reduce_in_place(&mut data, interrupted(Some(signal))).unwrap_err();
    assert_eq!(error.kind(), Kind::PeerLost, "{error}");
}

/// A sum, in the middle of whose first message this process sends itself a signal.
fn interrupted(signal: Option<Signal>) -> ReduceOp<u32> {
    let calls = std::sync::atomic::AtomicUsize::new(0);
    ReduceOp::user(true, move |a: u32, b: u32| {
        if calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 10_000
            && let Some(signal) = signal
        {
            kill_process(getpid(), signal).unwrap();
            // Another thread may take it, and this one runs on for a while.
            std::thread::sleep(Duration::from_millis(300));
        }
        a + b
    })
}

/// Whether a byte lies in memory that other processes map.
fn is_shared(byte: *const u32) -> bool {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let holds = |line: &&str| {
        let (start, rest) = line.split_once('-').unwrap();
        let end = rest.split(' ').next().unwrap();
        let number = |text| usize::from_str_radix(text, 16).unwrap();
        (number(start)..number(end)).contains(&byte.addr())
    };
    maps.lines().find(holds).unwrap().contains("kolo-memory")
}

/// A call that fails while the peer is in the middle of its answer returns at once, with memory that the peer
/// cannot reach any more.
fn nothing_is_written_late(role: &str, expected: Kind) {
    let (mut one, other) = with_child(role);
    let mut data = one.alloc::<u32>(COUNT).unwrap();
    one.all_reduce_in_place(&mut data, interrupted(None)).unwrap();
    one.set_deadline(Some(Duration::from_millis(700)));
    data.fill(1);
    assert!(is_shared(&raw const data[0]) && is_shared(&raw const data[COUNT - 1]));

    let begun = Instant::now();
    let error = one.all_reduce_in_place(&mut data, interrupted(None)).unwrap_err();
    assert_eq!(error.kind(), expected, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    // The second half of the first round was lent: there it is this process' alone by now.
    assert!(!is_shared(&raw const data[48_000]), "nothing was lent, or nothing taken back");
    assert!(data.iter().all(|&element| element == 1 || element == (1 << 16) + 1), "what was lent is lost");

    data.fill(7);
    drop(one);
    let mut other = other;
    if role == "stop" {
        kill_process(Pid::from_child(&other.0), Signal::CONT).unwrap();
        assert!(other.0.wait().unwrap().success(), "it goes on and learns that its peer is gone");
    } else {
        other.0.wait().unwrap();
    }
    assert!(data.iter().all(|&element| element == 7), "a late writer");
}

#[test]
fn a_peer_that_is_stopped_writes_nothing_late() {
    nothing_is_written_late("stop", Kind::Deadline);
}

#[test]
fn a_peer_that_is_killed_writes_nothing_late() {
    nothing_is_written_late("kill", Kind::PeerLost);
}

#[test]
fn what_differs_is_told() {
    ranks_over("shm", 2, |communicator| {
        let count = 1000 + communicator.rank();
        let error = communicator.alloc::<f32>(count).unwrap_err();
        assert_eq!(error.kind(), Kind::Mismatch, "{error}");
        let error = communicator.alloc::<f32>(1 << 60).unwrap_err();
        assert_eq!(error.kind(), Kind::System, "{error}");
        assert!(communicator.alloc::<f32>(0).unwrap().is_empty());
        communicator.barrier().unwrap();
    });
}
