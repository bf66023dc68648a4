//! Every collective gives the right elements, for any number of ranks and any count.

mod support;

use kolo::{Communicator, ReduceOp};
use support::{input, ranks_over, value};

const SIZES: [usize; 7] = [1, 2, 3, 4, 5, 7, 8];
const COUNTS: [usize; 9] = [0, 1, 2, 7, 8, 9, 1000, 40_000, 100_003];

fn sum(size: usize, index: usize) -> f64 {
    (0..size).map(|rank| value(rank, index)).sum()
}

#[test]
fn all_reduce_sums() {
    for size in SIZES {
        for (transport, algorithm) in ["local", "shm", "tcp"]
            .iter()
            .flat_map(|transport| [(*transport, "direct"), (*transport, "ring")])
        {
            ranks_over(transport, size, |communicator: &mut Communicator| {
                communicator.set_algorithm(kolo::CollectiveKind::AllReduce, Some(algorithm)).unwrap();
                for count in COUNTS {
                    let mine: Vec<f32> = input(communicator.rank(), count);
                    let mut output = vec![-1.0; count];
                    communicator.all_reduce(&mine, &mut output, ReduceOp::Sum).unwrap();
                    let wrong = (0..count).filter(|&at| f64::from(output[at]) != sum(size, at)).count();
                    assert_eq!(wrong, 0, "{algorithm}, {size} ranks, {count} elements");
                    let mut data = mine.clone();
                    communicator.all_reduce_in_place(&mut data, ReduceOp::Sum).unwrap();
                    assert_eq!(data, output, "in place: {algorithm}, {size} ranks, {count} elements");
                }
            });
        }
    }
}
