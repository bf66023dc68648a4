//! Kernels against a plain reference: every dtype, operator, number of sources, length, address,
//! destination in place or apart, on every variant that this processor runs.

mod support;

use kolo::dtype::{Dtype, Element, F8E4M3, F8E5M2, bf16, f16};
use kolo::kernel::{Reducer, Variant, copy};
use kolo::memory::{View, as_bytes};
use kolo::op::{OpKind, ReduceOp};
use support::plain::{Plain, Random, elements, reference};

/// Memory for some bytes, off any alignment by `skew`.
struct Skewed {
    bytes: Vec<u8>,
    skew: usize,
    length: usize,
}

impl Skewed {
    fn new(bytes: &[u8], skew: usize) -> Self {
        let guard = [0xa5; 64];
        Self { bytes: [&guard[..skew], bytes, &guard].concat(), skew, length: bytes.len() }
    }

    fn view(&mut self) -> View<'_> {
        View::write(&mut self.bytes[self.skew..][..self.length])
    }

    fn bytes(&self) -> &[u8] {
        let (before, rest) = self.bytes.split_at(self.skew);
        let (bytes, after) = rest.split_at(self.length);
        assert!(before.iter().chain(after).all(|&byte| byte == 0xa5), "written outside");
        bytes
    }
}

/// Folds with the destination apart (`None`) or in the place of a source; the result's bytes.
fn folded<T: Plain>(
    reducer: &Reducer,
    sources: &[Vec<T>],
    place: Option<usize>,
    skew: usize,
    extra: bool,
) -> Vec<Vec<u8>> {
    let mut memory: Vec<_> = sources
        .iter()
        .enumerate()
        .map(|(i, source)| Skewed::new(as_bytes(source), (skew * (i + 1)) % 13))
        .collect();
    let empty = vec![0x5a; size_of_val(&sources[0][..])];
    let mut apart = [Skewed::new(&empty, skew % 11), Skewed::new(&empty, skew % 7)];
    let views: Vec<_> = memory.iter_mut().map(Skewed::view).collect();
    let [first, second] = &mut apart;
    let mut destinations = vec![place.map_or_else(|| first.view(), |i| views[i])];
    if extra {
        destinations.push(second.view());
    }
    reducer.fold(&destinations, &views, true);
    let result = place.map_or_else(|| first.bytes(), |i| memory[i].bytes()).to_vec();
    for (i, source) in sources.iter().enumerate().filter(|(i, _)| Some(*i) != place) {
        assert_eq!(memory[i].bytes(), as_bytes(source), "source {i} was written");
    }
    if extra { vec![result, second.bytes().to_vec()] } else { vec![result] }
}

fn variants() -> impl Iterator<Item = Variant> {
    Variant::ALL.iter().copied().filter(|variant| variant.runs_here())
}

fn operators(dtype: Dtype) -> impl Iterator<Item = OpKind> {
    let bitwise = |op| matches!(op, OpKind::BitAnd | OpKind::BitOr | OpKind::BitXor);
    let parameters = |op| matches!(op, OpKind::PreMul | OpKind::User);
    OpKind::ALL.into_iter().filter(move |&op| !(parameters(op) || bitwise(op) && dtype.is_float()))
}

fn agrees_with_the_reference<T: Plain>() {
    let mut random = Random(T::DTYPE as u64);
    for op in operators(T::DTYPE) {
        for count in 1..=9 {
            for length in (0..=70).chain([1000, 5000]) {
                let sources: Vec<_> = (0..count).map(|_| elements::<T>(&mut random, length)).collect();
                let ranks = count + random.below(2) * 297;
                let finish = (op == OpKind::Average).then_some(ranks);
                let mut expected = reference(op, &sources, finish);
                if count == 1 && finish.is_none() {
                    expected.clone_from(&sources[0]);
                }
                let places = [None, Some(0), Some(count / 2), Some(count - 1)];
                for variant in variants() {
                    let reducer = Reducer::compiled_for(variant, T::DTYPE, op, ranks).unwrap();
                    let place = places[random.below(4)];
                    let (skew, extra) = (random.below(9), random.below(4) == 0);
                    for result in folded(&reducer, &sources, place, skew, extra) {
                        if result != as_bytes(&expected) {
                            report::<T>(&expected, &result, &sources);
                            panic!("{variant} {op} {} {count} x {length}, {place:?} {ranks}", T::DTYPE);
                        }
                    }
                }
            }
        }
    }
}

fn report<T: Plain>(expected: &[T], result: &[u8], sources: &[Vec<T>]) {
    let size = size_of::<T>();
    let wrong = (0..expected.len()).find(|&i| as_bytes(&expected[i..=i]) != &result[i * size..][..size]);
    let i = wrong.unwrap_or(0);
    let inputs: Vec<_> = sources.iter().map(|source| source[i]).collect();
    println!("element {i}: {:?} expected, got {:x?} of {inputs:?}", expected[i], &result[i * size..][..size]);
}

macro_rules! for_every_type {
    ($function:ident: $($name:ident $rust:ty),*) => {
        mod $function {
            $(#[test] fn $name() { super::$function::<$rust>(); })*
            use kolo::dtype::{F8E4M3, F8E5M2, bf16, f16};
        }
    };
    ($function:ident) => {
        for_every_type!($function: f64_ f64, f32_ f32, f16_ f16, bf16_ bf16, e4m3 F8E4M3, e5m2 F8E5M2,
            i8_ i8, i16_ i16, i32_ i32, i64_ i64, u8_ u8, u16_ u16, u32_ u32, u64_ u64);
    };
}

for_every_type!(agrees_with_the_reference);
for_every_type!(all_in_one_place);
for_every_type!(premul_scales_then_sums);

/// Every source and the destination the same memory.
fn all_in_one_place<T: Plain>() {
    for variant in variants() {
        for count in 2..5 {
            let data = elements::<T>(&mut Random(7), 333);
            let expected = reference(OpKind::Sum, &vec![data.clone(); count], None);
            let mut memory = Skewed::new(as_bytes(&data), 1);
            let view = memory.view();
            Reducer::compiled_for(variant, T::DTYPE, OpKind::Sum, 1).unwrap().fold(
                &[view],
                &vec![view; count],
                true,
            );
            assert_eq!(memory.bytes(), as_bytes(&expected), "{variant} x {count}");
        }
    }
}

fn premul_scales_then_sums<T: Plain>() {
    let mut random = Random(3);
    let factor = T::from_f64(3.0);
    let reducer = Reducer::new(&ReduceOp::PreMul(factor), 2).unwrap();
    assert!(reducer.has_prescale());
    for length in [0, 1, 7, 64, 777] {
        let data = elements::<T>(&mut random, length);
        let scaled: Vec<_> =
            data.iter().map(|x| T::round(T::combine(OpKind::Prod, x.wide(), factor.wide()))).collect();
        let (mut from, mut to) = (Skewed::new(as_bytes(&data), 3), Skewed::new(as_bytes(&data), 5));
        reducer.prescale(to.view(), from.view());
        let view = from.view();
        reducer.prescale(view, view);
        assert_eq!((to.bytes(), from.bytes()), (as_bytes(&scaled), as_bytes(&scaled)));
        let sum = reference(OpKind::Sum, &[scaled.clone(), data.clone()], None);
        let mut other = Skewed::new(as_bytes(&data), 0);
        let into = to.view();
        reducer.fold(&[into], &[into, other.view()], true);
        assert_eq!(to.bytes(), as_bytes(&sum));
    }
}

/// The result of folding single elements.
fn fold_one<T: Element>(op: &ReduceOp<T>, sources: &[T]) -> T {
    let reducer = Reducer::new(op, sources.len()).unwrap();
    let mut to = [sources[0]];
    let views: Vec<_> = sources.iter().map(|x| View::read(as_bytes(std::slice::from_ref(x)))).collect();
    reducer.fold(&[View::write(kolo::memory::as_bytes_mut(&mut to))], &views, true);
    to[0]
}

#[test]
fn integers_wrap_and_average_toward_zero() {
    assert_eq!(fold_one(&ReduceOp::Sum, &[i8::MAX, 1]), i8::MIN);
    assert_eq!(fold_one(&ReduceOp::Prod, &[u64::MAX, 3]), u64::MAX - 2);
    assert_eq!(fold_one(&ReduceOp::Average, &[-3, 0]), -1);
    assert_eq!(fold_one(&ReduceOp::Average, &[3u8, 0]), 1);
    assert_eq!(fold_one(&ReduceOp::Average, &[i64::MIN, 1, 0]), (i64::MIN + 1) / 3);
    assert_eq!(fold_one(&ReduceOp::Average, &[i32::MAX, 0, 0]), i32::MAX / 3);
}

#[test]
fn nan_wins_in_min_and_max_and_zeros_are_ordered() {
    for op in [ReduceOp::Min, ReduceOp::Max] {
        for sources in [[f32::NAN, 1.0], [1.0, f32::NAN], [f32::NAN, f32::INFINITY], [-f32::NAN, f32::NAN]] {
            assert_eq!(fold_one(&op, &sources).to_bits(), 0x7fc0_0000, "{op:?} {sources:?}");
        }
    }
    for sources in [[0.0, -0.0f64], [-0.0, 0.0]] {
        assert_eq!(fold_one(&ReduceOp::Min, &sources).to_bits(), (-0.0f64).to_bits());
        assert_eq!(fold_one(&ReduceOp::Max, &sources).to_bits(), 0.0f64.to_bits());
    }
}

#[test]
fn fp8_saturates_and_f16_overflows() {
    assert_eq!(fold_one(&ReduceOp::Sum, &[F8E4M3::from_f64(448.0); 2]), F8E4M3::from_f64(448.0));
    assert_eq!(fold_one(&ReduceOp::Prod, &[F8E5M2::from_f64(-57344.0); 3]), F8E5M2::from_f64(-57344.0));
    let infinite = F8E5M2::from_bits(0x7c);
    assert_eq!(fold_one(&ReduceOp::Sum, &[infinite, F8E5M2::from_f64(1.0)]), infinite);
    assert!(fold_one(&ReduceOp::Sum, &[infinite, F8E5M2::from_bits(0xfc)]).is_nan());
    assert_eq!(fold_one(&ReduceOp::Sum, &[f16::MAX; 2]), f16::INFINITY);
    assert_eq!(fold_one(&ReduceOp::Average, &[f16::MAX; 2]), f16::MAX, "divided before it is rounded");
}

#[test]
fn narrow_sums_are_rounded_once() {
    let (one, half_unit) = (bf16::ONE, bf16::from_f64(1.0 / 256.0));
    let sum = fold_one(&ReduceOp::Sum, &[one, half_unit, half_unit]);
    assert_eq!(sum, bf16::from_f64(1.0 + 1.0 / 128.0), "each step rounded would have stayed at 1");
    assert_eq!(fold_one(&ReduceOp::Sum, &[one, half_unit]), one, "a tie goes to even");
}

#[test]
fn a_users_operator_is_applied_from_left_to_right() {
    let digits = ReduceOp::user(false, |a: u64, b: u64| a * 10 + b);
    assert!(!Reducer::new(&digits, 3).unwrap().commutes());
    assert_eq!(fold_one(&digits, &[1, 2, 3, 4, 5]), 12345);
    assert_eq!(fold_one(&digits, &[7]), 7);
    let mut data = [1u64, 2, 3, 4];
    let view = View::write(kolo::memory::as_bytes_mut(&mut data));
    let (left, right) = (view.part(0..16), view.part(16..32));
    Reducer::new(&digits, 2).unwrap().fold(&[right], &[left, right], true);
    assert_eq!(data, [1, 2, 13, 24]);
}

#[test]
fn copies_go_to_every_destination() {
    for length in [0, 1, 100, 50_000] {
        let bytes: Vec<_> = (0..length).map(|i| i as u8).collect();
        let mut memory = [1, 2, 3].map(|skew| Skewed::new(&vec![0; length], skew));
        let views = memory.each_mut().map(Skewed::view);
        copy(&views, View::read(&bytes));
        memory.iter().for_each(|copied| assert_eq!(copied.bytes(), bytes));
    }
}

#[test]
fn broken_rules_are_told() {
    let refusal = |result: kolo::Result<Reducer>| result.unwrap_err().to_string();
    assert!(refusal(Reducer::of(Dtype::F32, OpKind::BitXor, 2)).contains("`xor` is for integers; f32"));
    assert!(refusal(Reducer::of(Dtype::F32, OpKind::User, 2)).contains("`user` needs its parameters"));

    let sum = Reducer::of(Dtype::U16, OpKind::Sum, 2).unwrap();
    let mut bytes = [0; 16];
    let view = View::write(&mut bytes);
    let fold = |to: View<'_>, a: View<'_>, b: View<'_>| {
        let call = std::panic::AssertUnwindSafe(|| sum.fold(&[to], &[a, b], false));
        std::panic::catch_unwind(call).is_err()
    };
    assert!(!fold(view.part(0..4), view.part(4..8), view.part(8..12)));
    assert!(fold(view.part(0..4), view.part(4..8), view.part(8..10)), "lengths differ");
    assert!(fold(view.part(0..3), view.part(4..7), view.part(8..11)), "half an element");
    assert!(fold(view.part(0..4), view.part(2..6), view.part(8..12)), "partly overlapping");
    assert!(fold(View::read(&[0; 4]), view.part(4..8), view.part(8..12)), "not writable");
}
