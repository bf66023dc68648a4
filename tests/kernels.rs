//! Kernels against a plain reference: every dtype, operator, number of sources, length, address,
//! destination in place or apart, on every variant that this processor runs.

mod support;

use kolo::dtype::{Dtype, Element, F8E4M3, F8E5M2, bf16, f16};
use kolo::kernel::{Reducer, Variant, copy, copy_both};
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

/// Where and how a fold's results are written.
#[derive(Clone, Copy, Debug)]
struct Target {
    /// In the place of a source; else apart.
    place: Option<usize>,
    skew: usize,
    /// To a second destination as well.
    extra: bool,
    /// The first destination past the caches; the second too.
    streamed: [bool; 2],
    /// This source's lines are claimed.
    claimed: Option<usize>,
}

/// Folds; the results' bytes.
fn folded<T: Plain>(reducer: &Reducer, sources: &[Vec<T>], target: Target) -> Vec<Vec<u8>> {
    let Target { place, skew, extra, streamed, claimed } = target;
    let mut memory: Vec<_> = sources
        .iter()
        .enumerate()
        .map(|(i, source)| Skewed::new(as_bytes(source), (skew * (i + 1)) % 13))
        .collect();
    let empty = vec![0x5a; size_of_val(&sources[0][..])];
    let mut apart = [Skewed::new(&empty, skew % 11), Skewed::new(&empty, skew % 7)];
    let views: Vec<_> = memory.iter_mut().map(Skewed::view).collect();
    let [first, second] = &mut apart;
    let mark = |view, i: usize| if streamed[i] { View::streamed(view) } else { view };
    let mut destinations = vec![mark(place.map_or_else(|| first.view(), |i| views[i]), 0)];
    if extra {
        destinations.push(mark(second.view(), 1));
    }
    let mut claiming = views.clone();
    if let Some(view) = claimed.and_then(|i| claiming.get_mut(i)) {
        *view = view.claimed();
    }
    reducer.fold(&destinations, &claiming, true);
    let result = place.map_or_else(|| first.bytes(), |i| memory[i].bytes()).to_vec();
    let kept = |(i, _): &(usize, &Vec<T>)| place != Some(*i) && claimed != Some(*i);
    for (i, source) in sources.iter().enumerate().filter(kept) {
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
                    let target = Target {
                        place: places[random.below(4)],
                        skew: random.below(9),
                        extra: random.below(4) == 0,
                        streamed: [random.below(2) == 0, random.below(2) == 0],
                        claimed: Some(random.below(10)),
                    };
                    for result in folded(&reducer, &sources, target) {
                        if result != as_bytes(&expected) {
                            report::<T>(&expected, &result, &sources);
                            panic!("{variant} {op} {} {count} x {length}, {target:?} {ranks}", T::DTYPE);
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

/// Pairs of codes, combined by every variant and operator as by the reference.
fn pairs_agree<T: Plain>(pairs: impl Iterator<Item = (u64, u64)>) {
    let (a, b): (Vec<T>, Vec<T>) = pairs.map(|(a, b)| (T::from_low(a), T::from_low(b))).unzip();
    let sources = [a, b];
    for op in operators(T::DTYPE) {
        let finish = (op == OpKind::Average).then_some(2);
        let expected = reference(op, &sources, finish);
        for variant in variants() {
            let reducer = Reducer::compiled_for(variant, T::DTYPE, op, 2).unwrap();
            let target = Target { place: None, skew: 0, extra: false, streamed: [false; 2], claimed: None };
            let result = folded(&reducer, &sources, target).remove(0);
            if result != as_bytes(&expected) {
                report::<T>(&expected, &result, &sources);
                panic!("{variant} {op} {}", T::DTYPE);
            }
        }
    }
}

#[test]
fn all_pairs_of_fp8_agree() {
    // Codes from `special` on are treated apart, together with whatever lies beside them: so they come last.
    let pairs = |special| {
        let plain = move |&(a, b): &(u64, u64)| [a, b].into_iter().all(|code| code & 0x7f < special);
        let all = || (0..1 << 16).map(|pair| (pair & 0xff, pair >> 8));
        all().filter(plain).chain(all().filter(move |pair| !plain(pair)))
    };
    pairs_agree::<F8E4M3>(pairs(0x7f));
    pairs_agree::<F8E5M2>(pairs(0x7c));
}

#[test]
fn special_and_sampled_pairs_of_16_bits_agree() {
    // Zero, the least subnormals, the border of the normal ones, one, the largest, infinity, NaN.
    let f16 = [0, 1, 2, 0x3ff, 0x400, 0x401, 0x3c00, 0x7bff, 0x7c00, 0x7c01, 0x7e00, 0x7fff];
    let bf16 = [0, 1, 2, 0x7f, 0x80, 0x81, 0x3f80, 0x7f7f, 0x7f80, 0x7f81, 0x7fc0, 0x7fff];
    let with_all =
        |special: u64| (0..1 << 16).flat_map(move |code| [(special, code), (code, special | 0x8000)]);
    for i in 0..f16.len() {
        pairs_agree::<f16>(with_all(f16[i]));
        pairs_agree::<bf16>(with_all(bf16[i]));
    }
    let sampled = |seed| {
        let mut random = Random(seed);
        (0..1 << 20).map(move |_| {
            let bits = random.next();
            (bits & 0xffff, bits >> 16 & 0xffff)
        })
    };
    pairs_agree::<f16>(sampled(1));
    pairs_agree::<bf16>(sampled(2));
    // Close to each other, where sums cancel and ties abound.
    let close = |seed| sampled(seed).map(|(a, b)| (a, (a ^ 0x8000).wrapping_add(b % 0x500) & 0xffff));
    pairs_agree::<f16>(close(3));
    pairs_agree::<bf16>(close(4));
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
    for length in (0..200).chain([4095, 4096, 50_000]) {
        let bytes: Vec<_> = (0..length).map(|i| (i * 7 + i / 251) as u8).collect();
        for marks in 0..8 {
            for count in 1..=3 {
                let mut memory = [1, 33, 3].map(|skew| Skewed::new(&vec![0; length], skew));
                let views = memory.each_mut().map(Skewed::view);
                let mark = |i: usize| if marks >> i & 1 == 1 { views[i].streamed() } else { views[i] };
                let destinations: Vec<_> = (0..count).map(mark).collect();
                copy(&destinations, View::read(&bytes));
                memory[..count].iter().for_each(|copied| assert_eq!(copied.bytes(), bytes, "{length}"));
            }
        }
    }
}

#[test]
fn two_copies_in_turns_are_two_copies() {
    for [one, other] in [[0, 0], [1, 100], [4096, 4097], [50_000, 0], [70_001, 131_072]] {
        for marks in 0..8 {
            let bytes =
                [one, other].map(|length| (0..length).map(|i| (i * 7 + i / 251) as u8).collect::<Vec<_>>());
            let mut from = [Skewed::new(&bytes[0], 3), Skewed::new(&bytes[1], 0)];
            let mut to = [Skewed::new(&vec![0; one], 5), Skewed::new(&vec![0; other], 40)];
            let ([mut a, mut b], [mut x, y]) =
                (to.each_mut().map(Skewed::view), from.each_mut().map(Skewed::view));
            a = if marks & 1 > 0 { a.streamed() } else { a };
            b = if marks & 2 > 0 { b.streamed() } else { b };
            x = if marks & 4 > 0 { x.claimed() } else { x };
            copy_both([(a, x), (b, y)]);
            for (to, bytes) in to.iter().zip(&bytes) {
                assert!(to.bytes() == bytes, "{one}, {other} bytes, marked {marks:b}");
            }
        }
    }
}

#[test]
fn a_source_among_the_destinations_keeps_its_bytes() {
    for length in [0, 1, 8, 100, 5000] {
        let bytes: Vec<_> = (0..length).map(|i| i as u8).collect();
        let (mut own, mut other) = (Skewed::new(&bytes, 5), Skewed::new(&vec![0; length], 2));
        let view = own.view();
        copy(&[view], view);
        copy(&[other.view(), view], view);
        copy(&[view.streamed()], view);
        copy(&[other.view()], view.claimed());
        copy(&[view], view.claimed());
        assert_eq!((own.bytes(), other.bytes()), (&bytes[..], &bytes[..]));
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
