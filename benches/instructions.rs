//! What small calls cost in instructions, counted by callgrind: the guard of `tools/instructions`.
//!
//! `instructions REGION REPETITIONS` prepares and then runs a region that often; the difference of two
//! such runs is the cost of the repetitions alone. Without arguments it prints which kernels this
//! processor runs, and each region with the repetitions that make its figure repeatable.

use std::hint::black_box;

use kolo::algorithm;
use kolo::dtype::Dtype;
use kolo::kernel::{Reducer, Variant, copy};
use kolo::memory::View;
use kolo::op::OpKind;
use kolo::plan::CollectiveKind;
use kolo::topology::Topology;
use kolo::{Communicator, ReduceOp};

struct Region {
    name: &'static str,
    repetitions: u32,
    run: fn(u32),
}

const REGIONS: &[Region] = &[
    Region { name: "all_reduce-8B", repetitions: 2000, run: |times| all_reduce(2, times) },
    Region { name: "all_reduce-64KiB", repetitions: 200, run: |times| all_reduce(16 << 10, times) },
    Region { name: "all_reduce-8B-16B", repetitions: 2000, run: in_turn },
    Region { name: "send_recv-self-8B", repetitions: 2000, run: send_recv },
    Region { name: "message-8B", repetitions: 2000, run: message },
    Region { name: "ring-plan-16-ranks", repetitions: 100, run: ring_plan },
    Region { name: "fold-8B", repetitions: 2000, run: |times| fold::<1>(8, times) },
    Region { name: "fold-64B", repetitions: 2000, run: |times| fold::<1>(64, times) },
    Region { name: "fold-4KiB", repetitions: 2000, run: |times| fold::<1>(4 << 10, times) },
    Region { name: "fold-8B-to-two", repetitions: 2000, run: |times| fold::<2>(8, times) },
    Region { name: "copy-8B", repetitions: 2000, run: |times| copied(8, times) },
    Region { name: "copy-64B", repetitions: 2000, run: |times| copied(64, times) },
];

fn main() {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let [name, times] = words.as_slice() else {
        println!("{}/{}", std::env::consts::ARCH, Variant::best());
        REGIONS.iter().for_each(|region| println!("{} {}", region.name, region.repetitions));
        return;
    };
    let region = REGIONS.iter().find(|region| region.name == name).expect("a region's name");
    (region.run)(times.parse().expect("a number of repetitions"));
}

fn alone() -> Communicator {
    let mut communicators = Communicator::local(1).expect("a rank alone needs nobody");
    communicators.pop().expect("one rank")
}

/// Repeats what may do more the first time.
fn repeat(times: u32, mut operation: impl FnMut()) {
    (0..=times).for_each(|_| operation());
}

/// An all-reduce of one rank.
fn all_reduce(count: usize, times: u32) {
    let mut communicator = alone();
    let (input, mut output) = (vec![1.0f32; count], vec![0.0f32; count]);
    repeat(times, || {
        communicator.all_reduce(black_box(&input), &mut output, ReduceOp::Sum).expect("nothing fails here");
        black_box(&output);
    });
}

/// Two all-reduces in turn.
fn in_turn(times: u32) {
    let mut communicator = alone();
    let (input, mut output) = ([1.0f32; 4], [0.0f32; 4]);
    repeat(times, || {
        for count in [2, 4] {
            let (input, output) = (&black_box(&input)[..count], &mut output[..count]);
            communicator.all_reduce(input, output, ReduceOp::Sum).expect("nothing fails here");
            black_box(output);
        }
    });
}

/// A message to oneself.
fn send_recv(times: u32) {
    let mut communicator = alone();
    let (input, mut output) = ([1.0f32; 2], [0.0f32; 2]);
    repeat(times, || {
        communicator.send_recv(black_box(&input), 0, &mut output, 0).expect("nothing fails here");
        black_box(&output);
    });
}

/// A message over a link, both of whose ends are this thread's: sending does not wait where there is room.
fn message(times: u32) {
    let mut communicators = Communicator::local(2).expect("threads can always be linked");
    let [zero, one] = communicators.as_mut_slice() else { unreachable!("two ranks") };
    let (input, mut output) = ([1.0f32; 2], [0.0f32; 2]);
    repeat(times, || {
        zero.send(black_box(&input), 1).expect("there is room");
        one.recv(&mut output, 0).expect("it has come");
        black_box(&output);
    });
}

/// One rank's plan of a ring, written and fused.
fn ring_plan(times: u32) {
    let ring = algorithm::find("ring").expect("it exists");
    let (collective, topology) = (CollectiveKind::AllReduce.at(0), Topology::one_host(16));
    repeat(times, || {
        black_box(ring.plan(collective, black_box(3), &topology));
    });
}

/// A fold of two sources to some destinations.
fn fold<const DESTINATIONS: usize>(bytes: usize, times: u32) {
    let reducer = Reducer::of(Dtype::F32, OpKind::Sum, 2).expect("floats have a sum");
    let mut to = [(); DESTINATIONS].map(|()| vec![0u8; bytes]);
    let (a, b) = (vec![1u8; bytes], vec![2u8; bytes]);
    let (destinations, sources) = (to.each_mut().map(|to| View::write(to)), [View::read(&a), View::read(&b)]);
    let views = (destinations.as_slice(), sources.as_slice());
    repeat(times, || {
        let (destinations, sources) = black_box(views);
        reducer.fold(destinations, sources, true);
    });
}

/// A copy to one destination.
fn copied(bytes: usize, times: u32) {
    let (mut to, from) = (vec![0u8; bytes], vec![1u8; bytes]);
    let (destinations, source) = ([View::write(&mut to)], View::read(&from));
    repeat(times, || copy(black_box(&destinations), black_box(source)));
}
