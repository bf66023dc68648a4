//! Same bits: what a result may depend on, and what it is where arithmetic ends.
//!
//! | mode                      | plans             | result                                                  |
//! | ------------------------- | ----------------- | ------------------------------------------------------- |
//! | deterministic             | direct, pairwise  | ((x0 ⊕ x1) ⊕ x2) ⊕ …, in rank order, on every rank      |
//! | operator does not commute | direct, pairwise  | the same                                                |
//! | any other                 | all               | the same bits on every rank and in every run            |
//!
//! What is rounded when, in rank order:
//!
//! | elements        | folded in      | rounded                                                               |
//! | --------------- | -------------- | --------------------------------------------------------------------- |
//! | f64, f32        | their own type | after each ⊕; an average once more, by its division                   |
//! | f16, bf16, fp8  | f32            | in f32 after each ⊕ (and division); to their own type once, at the end |
//! | integers        | their own type | never; sums wrap, averages drop the fraction of the wrapped sum       |
//! | premul          | as a sum       | the product with the factor to the element's type, before the sum     |
//!
//! The reference ([`reference`]) folds on one thread, by implementations that are not the kernels'.
//! Inputs are of all magnitudes, so that another order or one more rounding is another result; the first
//! test shows that they notice.

mod support;

use std::sync::Mutex;

use kolo::memory::as_bytes;
use kolo::op::{OpKind, ReduceOp};
use kolo::{CollectiveKind, Communicator, Dtype, F8E4M3, F8E5M2, Kind, bf16, f16};
use support::plain::{Plain, Random, reference, with_dtype};
use support::{ranks, ranks_over};

const SIZES: [usize; 7] = [1, 2, 3, 4, 5, 7, 8];
const TRANSPORTS: [&str; 3] = ["local", "shm", "tcp"];
const COUNT: usize = 1003;
const REDUCING: [CollectiveKind; 3] =
    [CollectiveKind::AllReduce, CollectiveKind::ReduceScatter, CollectiveKind::Reduce];

/// What rank `rank` contributes: any finite bits, or numbers about one.
fn input<T: Plain>(rank: usize, count: usize) -> Vec<T> {
    let mut random = Random(1000 + rank as u64);
    let element = |_| {
        let any = T::from_low(random.next());
        let near = T::from_f64((random.next() % 2001) as f64 / 999.0 - 1.0);
        let usable = any.to_f64().is_finite() && any.to_f64().abs() < 1e30;
        if !T::DTYPE.is_float() || usable && random.next() % 2 == 0 { any } else { near }
    };
    (0..count).map(element).collect()
}

fn inputs<T: Plain>(size: usize, count: usize) -> Vec<Vec<T>> {
    (0..size).map(|rank| input(rank, count)).collect()
}

/// The left fold in rank order; for a premul, of what rank r multiplied by r + 1.
fn folded<T: Plain>(op: OpKind, inputs: &[Vec<T>]) -> Vec<T> {
    match op {
        // One contribution alone is handed on as it is.
        OpKind::Average => reference(op, inputs, Some(inputs.len())),
        OpKind::PreMul => reference(OpKind::Sum, &scaled(inputs), None),
        _ if inputs.len() == 1 => inputs[0].clone(),
        _ => reference(op, inputs, None),
    }
}

fn factor<T: Plain>(rank: usize) -> T {
    T::from_f64(1.0 + rank as f64)
}

fn scaled<T: Plain>(inputs: &[Vec<T>]) -> Vec<Vec<T>> {
    let scale = |(rank, input): (usize, &Vec<T>)| {
        let factor = factor::<T>(rank).wide();
        input.iter().map(|x| T::round(T::combine(OpKind::Prod, x.wide(), factor))).collect()
    };
    inputs.iter().enumerate().map(scale).collect()
}

fn operator<T: Plain>(op: OpKind, rank: usize) -> ReduceOp<T> {
    match op {
        OpKind::Sum => ReduceOp::Sum,
        OpKind::Prod => ReduceOp::Prod,
        OpKind::Min => ReduceOp::Min,
        OpKind::Max => ReduceOp::Max,
        OpKind::Average => ReduceOp::Average,
        OpKind::PreMul => ReduceOp::PreMul(factor(rank)),
        _ => unreachable!("{op}"),
    }
}

/// Makes a reducing call of `input`; gives what this rank gets, and where in the whole result that stands.
fn reduce<T: Plain>(
    communicator: &mut Communicator,
    kind: CollectiveKind,
    input: &[T],
    op: ReduceOp<T>,
) -> (usize, Vec<T>) {
    let (rank, size) = (communicator.rank(), communicator.size());
    let zeros = |count| vec![T::from_low(0); count];
    match kind {
        CollectiveKind::AllReduce => {
            let mut output = zeros(input.len());
            communicator.all_reduce(input, &mut output, op).unwrap();
            (0, output)
        }
        CollectiveKind::ReduceScatter => {
            let each = input.len() / size;
            let mut output = zeros(each);
            communicator.reduce_scatter(&input[..each * size], &mut output, op).unwrap();
            (rank * each, output)
        }
        _ => {
            let root = size / 2;
            let mut output = zeros(if rank == root { input.len() } else { 0 });
            communicator.reduce(input, &mut output, op, root).unwrap();
            (0, output)
        }
    }
}

#[test]
fn the_inputs_notice_another_order_and_another_rounding() {
    let sum = |a: f32, b: f32| bf16::round(a + b).wide();
    let stepwise = |inputs: &[Vec<bf16>], at: usize| {
        bf16::round(inputs[1..].iter().fold(inputs[0][at].wide(), |a, b| sum(a, b[at].wide())))
    };
    for size in [3, 8] {
        let mut floats = inputs::<f32>(size, COUNT);
        let narrow = inputs::<bf16>(size, COUNT);
        let once = folded(OpKind::Sum, &narrow);
        assert!((0..COUNT).any(|at| stepwise(&narrow, at) != once[at]), "{size}");
        let forward = folded(OpKind::Sum, &floats);
        floats.rotate_left(1);
        assert_ne!(forward, folded(OpKind::Sum, &floats), "{size}");
    }
}

#[test]
fn deterministic_mode_is_the_left_fold_in_rank_order() {
    let admitted = [None, Some("direct"), Some("pairwise")];
    let types = [Dtype::F64, Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::F8E4M3, Dtype::F8E5M2, Dtype::I16];
    let ops = [OpKind::Sum, OpKind::Average, OpKind::Prod, OpKind::PreMul];
    for (transport, size) in TRANSPORTS.into_iter().flat_map(|t| SIZES.map(|size| (t, size))) {
        ranks_over(transport, size, |communicator| {
            communicator.set_deterministic(true);
            let rank = communicator.rank();
            for (dtype, op) in types.into_iter().flat_map(|dtype| ops.map(|op| (dtype, op))) {
                with_dtype!(dtype, T => {
                    let inputs = inputs::<T>(size, COUNT);
                    let expected = folded(op, &inputs);
                    for (kind, algorithm) in REDUCING.into_iter().flat_map(|k| admitted.map(|a| (k, a))) {
                        if kind == CollectiveKind::Reduce && algorithm == Some("pairwise") {
                            continue; // it does none
                        }
                        communicator.set_algorithm(kind, algorithm).unwrap();
                        for run in 0..2 {
                            let (from, found) = reduce(communicator, kind, &inputs[rank], operator(op, rank));
                            let what = format!("{kind} {op} {dtype}, {algorithm:?}, {size} ranks over {transport}");
                            same_bits(&found, &expected[from..from + found.len()], &format!("{what}, run {run}"));
                        }
                    }
                });
            }
        });
    }
}

fn same_bits<T: Plain>(found: &[T], expected: &[T], what: &str) {
    let wrong = (0..found.len()).find(|&at| as_bytes(&found[at..=at]) != as_bytes(&expected[at..=at]));
    if let Some(at) = wrong {
        panic!("{what}: element {at} is {:?}, should be {:?}", found[at], expected[at]);
    }
}

/// Several rounds, through the chooser's own plan for that size.
#[test]
fn large_vectors_keep_the_order_too() {
    const COUNT: usize = 300_007;
    for transport in TRANSPORTS {
        ranks_over(transport, 5, |communicator| {
            communicator.set_deterministic(true);
            let inputs = inputs::<f32>(5, COUNT);
            let expected = folded(OpKind::Sum, &inputs);
            let mut data = inputs[communicator.rank()].clone();
            communicator.all_reduce_in_place(&mut data, ReduceOp::Sum).unwrap();
            same_bits(&data, &expected, transport);
        });
    }
}

#[test]
fn naming_an_algorithm_of_another_order_is_told() {
    let others = [
        (CollectiveKind::AllReduce, &["ring", "tree", "halving", "doubling"][..], "direct, pairwise"),
        (CollectiveKind::ReduceScatter, &["ring", "halving", "bruck"], "direct, pairwise"),
        (CollectiveKind::Reduce, &["ring", "tree", "halving"], "there is direct"),
    ];
    ranks(3, |communicator| {
        for (kind, name) in
            others.into_iter().flat_map(|(kind, names, _)| names.iter().map(move |n| (kind, n)))
        {
            let there_is = others.iter().find(|other| other.0 == kind).unwrap().2;
            communicator.set_algorithm(kind, Some(name)).unwrap();
            for deterministic in [true, false] {
                communicator.set_deterministic(deterministic);
                // An operator that does not commute asks for the same.
                let op = if deterministic { ReduceOp::Sum } else { ReduceOp::user(false, |a, _| a) };
                let (data, mut output) = ([1u32; 3], [0; 3]);
                let error = match kind {
                    CollectiveKind::AllReduce => communicator.all_reduce(&data, &mut output, op),
                    CollectiveKind::ReduceScatter => communicator.reduce_scatter(&data, &mut output[..1], op),
                    _ => communicator.reduce(&data, &mut output, op, 0),
                };
                let error = error.unwrap_err();
                assert_eq!(error.kind(), Kind::Usage);
                let text = error.to_string();
                assert!(text.contains(name) && text.contains(there_is) && !text.contains('\n'), "{text}");
            }
        }
        // The communicator is as good as before; what does not reduce may be named as ever.
        communicator.set_algorithm(CollectiveKind::AllReduce, None).unwrap();
        communicator.set_deterministic(true);
        communicator.set_algorithm(CollectiveKind::AllGather, Some("ring")).unwrap();
        let mut all = [0; 3];
        communicator.all_gather(&[communicator.rank() as u32], &mut all).unwrap();
        assert_eq!(all, [0, 1, 2]);
        communicator.all_reduce_in_place(&mut all, ReduceOp::Sum).unwrap();
        assert_eq!(all, [0, 3, 6]);
    });
}

/// A 2x2 matrix of 16-bit numbers, packed; products wrap.
fn product(a: u64, b: u64) -> u64 {
    let entry = |m: u64, row: u64, column: u64| m >> (16 * (2 * row + column)) & 0xffff;
    let mut result = 0;
    for (row, column) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let sum = entry(a, row, 0) * entry(b, 0, column) + entry(a, row, 1) * entry(b, 1, column);
        result |= (sum & 0xffff) << (16 * (2 * row + column));
    }
    result
}

#[test]
fn an_operator_that_does_not_commute_is_applied_in_rank_order_by_default() {
    for (transport, size) in TRANSPORTS.into_iter().flat_map(|t| SIZES.map(|size| (t, size))) {
        ranks_over(transport, size, |communicator| {
            for count in [0, 1, 100, 50_001] {
                let inputs = inputs::<u64>(size, count);
                let fold = |at: usize| inputs[1..].iter().fold(inputs[0][at], |a, b| product(a, b[at]));
                let expected: Vec<_> = (0..count).map(fold).collect();
                for kind in REDUCING {
                    let op = ReduceOp::user(false, product);
                    let (from, found) = reduce(communicator, kind, &inputs[communicator.rank()], op);
                    assert_eq!(
                        found,
                        expected[from..from + found.len()],
                        "{kind} {size} {count} {transport}"
                    );
                }
            }
        });
    }
}

/// Without deterministic mode the order is the algorithm's, but one order: all ranks and runs agree.
#[test]
fn every_algorithm_gives_all_ranks_and_runs_the_same_bits() {
    for (transport, size) in TRANSPORTS.into_iter().flat_map(|t| [2, 3, 5, 8].map(|size| (t, size))) {
        let seen: Mutex<Vec<(&str, Vec<u8>)>> = Mutex::new(Vec::new());
        ranks_over(transport, size, |communicator| {
            let mine = input::<f32>(communicator.rank(), 40_001);
            for name in ["direct", "doubling", "tree", "halving", "ring", "pairwise"] {
                communicator.set_algorithm(CollectiveKind::AllReduce, Some(name)).unwrap();
                for _ in 0..2 {
                    let mut data = mine.clone();
                    communicator.all_reduce_in_place(&mut data, ReduceOp::Sum).unwrap();
                    seen.lock().unwrap().push((name, as_bytes(&data).to_vec()));
                }
            }
        });
        let seen = seen.into_inner().unwrap();
        for (name, bytes) in &seen {
            let first = seen.iter().find(|(other, _)| other == name).unwrap();
            assert!(bytes == &first.1, "{name}, {size} ranks over {transport}");
        }
    }
}

/// One element by each rank, all-reduced by every algorithm; the result on every rank.
fn all_reduced<T: Plain>(inputs: &[T], op: &ReduceOp<T>) -> Vec<T> {
    let results = Mutex::new(Vec::new());
    ranks(inputs.len(), |communicator| {
        for name in ["direct", "doubling", "tree", "halving", "ring", "pairwise"] {
            communicator.set_algorithm(CollectiveKind::AllReduce, Some(name)).unwrap();
            // Enough for each rank to have a part.
            let mut data = vec![inputs[communicator.rank()]; 700];
            communicator.all_reduce_in_place(&mut data, op.clone()).unwrap();
            results.lock().unwrap().extend(data);
        }
    });
    results.into_inner().unwrap()
}

fn all_are<T: Plain>(inputs: &[T], op: &ReduceOp<T>, expected: T) {
    for found in all_reduced(inputs, op) {
        assert_eq!(
            as_bytes(&[found]),
            as_bytes(&[expected]),
            "{op:?} of {inputs:?}: {found:?}, not {expected:?}"
        );
    }
}

#[test]
fn nan_and_infinity_go_through() {
    let nan = f32::from_bits(0x7fc0_0000);
    for at in 0..3 {
        let with = |special: f32| {
            let mut inputs = [1.0, -2.0, 3.0];
            inputs[at] = special;
            inputs
        };
        for op in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Min, ReduceOp::Max, ReduceOp::Average] {
            all_are(&with(f32::NAN), &op, nan);
            all_are(&with(f32::from_bits(0xff80_0001)), &op, nan);
        }
        all_are(&with(f32::INFINITY), &ReduceOp::Sum, f32::INFINITY);
        all_are(&with(f32::NEG_INFINITY), &ReduceOp::Average, f32::NEG_INFINITY);
        all_are(&with(f32::NEG_INFINITY), &ReduceOp::Min, f32::NEG_INFINITY);
        all_are(&with(f32::INFINITY), &ReduceOp::Max, f32::INFINITY);
    }
    all_are(&[f64::INFINITY, f64::NEG_INFINITY, 1.0], &ReduceOp::Sum, f64::from_bits(0x7ff8 << 48));
    all_are(&[f32::MAX, f32::MAX], &ReduceOp::Sum, f32::INFINITY);
    all_are(&[0.0, -0.0, 0.0], &ReduceOp::Min, -0.0f32);
    all_are(&[-0.0, 0.0, -0.0], &ReduceOp::Max, 0.0f64);
}

#[test]
fn integers_wrap_and_averages_drop_the_fraction() {
    all_are(&[i8::MAX, 1, 1], &ReduceOp::Sum, i8::MIN + 1);
    all_are(&[u64::MAX, 2, 3], &ReduceOp::Sum, 4);
    all_are(&[i32::MIN, -1], &ReduceOp::Sum, i32::MAX);
    all_are(&[u16::MAX, 3, 5], &ReduceOp::Prod, 0u16.wrapping_sub(15));
    all_are(&[-3i32, 0], &ReduceOp::Average, -1);
    all_are(&[-1i64, -1, -6], &ReduceOp::Average, -2);
    all_are(&[-7i8, 0, 0, 0], &ReduceOp::Average, -1);
    all_are(&[7u8, 0, 0, 0], &ReduceOp::Average, 1);
    // The sum wraps before it is divided.
    all_are(&[i8::MAX; 3], &ReduceOp::Average, 125 / 3);
    all_are(&[200u8, 100], &ReduceOp::Average, 22);
}

#[test]
fn fp8_saturates_and_f16_overflows() {
    let (e4m3, e5m2) = (F8E4M3::from_f64, F8E5M2::from_f64);
    all_are(&[e4m3(448.0); 3], &ReduceOp::Sum, e4m3(448.0));
    all_are(&[e4m3(-448.0); 2], &ReduceOp::Sum, e4m3(-448.0));
    all_are(&[e4m3(448.0); 3], &ReduceOp::Max, e4m3(448.0));
    all_are(&[e4m3(30.0); 2], &ReduceOp::Prod, e4m3(448.0));
    all_are(&[e5m2(57344.0); 4], &ReduceOp::Sum, e5m2(57344.0));
    all_are(&[F8E5M2::from_bits(0x7c), e5m2(1.0)], &ReduceOp::Sum, F8E5M2::from_bits(0x7c));
    all_are(&[F8E4M3::from_bits(0x7f), e4m3(1.0)], &ReduceOp::Sum, F8E4M3::from_bits(0x7f));
    all_are(&[f16::MAX; 2], &ReduceOp::Sum, f16::INFINITY);
    all_are(&[bf16::MAX; 2], &ReduceOp::Sum, bf16::INFINITY);
    // Two ranks are one fold in every algorithm: the division comes before the one rounding.
    all_are(&[f16::MAX; 2], &ReduceOp::Average, f16::MAX);
    all_are(&[e4m3(448.0); 2], &ReduceOp::Average, e4m3(448.0));
}

/// In rank order a narrow sum leaves its type's range and comes back; rounded at each hop it would not.
#[test]
fn narrow_sums_are_rounded_once_in_deterministic_mode() {
    ranks(4, |communicator| {
        communicator.set_deterministic(true);
        let rank = communicator.rank();
        let mut large = [[f16::MAX, f16::MAX, f16::MIN, f16::ONE][rank]];
        communicator.all_reduce_in_place(&mut large, ReduceOp::Sum).unwrap();
        assert_eq!(large, [f16::MAX]);
        let mut small = [bf16::from_f64([1.0, 1.0 / 256.0, 1.0 / 256.0, 0.0][rank])];
        communicator.all_reduce_in_place(&mut small, ReduceOp::Sum).unwrap();
        assert_eq!(small, [bf16::from_f64(1.0 + 1.0 / 128.0)], "each step rounded would have stayed at 1");
        let mut fp8 = [F8E4M3::from_f64([448.0, 448.0, -448.0, 0.0][rank])];
        communicator.all_reduce_in_place(&mut fp8, ReduceOp::Sum).unwrap();
        assert_eq!(fp8, [F8E4M3::from_f64(448.0)]);
    });
}
