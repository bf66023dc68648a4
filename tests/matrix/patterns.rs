//! Inputs whose results are known exactly, whatever the order in which they are combined.
//!
//! | operator     | of integers           | of floats                                                     |
//! | ------------ | --------------------- | ------------------------------------------------------------- |
//! | sum          | any bits (sums wrap)  | whole numbers so small that every partial sum is exact        |
//! | premul       | any bits, any factor  | the same, with a factor of 1, -1 or 2                         |
//! | average      | any bits              | the same: one division of an exact sum, one rounding          |
//! | prod         | any bits              | powers of two so small that every partial product is exact    |
//! | min, max     | any bits              | any bits but NaN                                              |
//! | and, or, xor | any bits              | -                                                             |
//! | commuting    | any bits, xored by an operator of the caller                                          |
//! | ordered      | any bits as affine maps, composed: another order is another result                    |
//! | none         | any bits                                                                              |

use kolo::memory::as_bytes;
use kolo::op::{OpKind, ReduceOp};
use kolo::{Dtype, Element};

use crate::support::plain::{Plain, Random, reference, with_dtype};

/// Elements after which a vector repeats itself: a prime, so that no block or chunk is a multiple of it.
pub(crate) const PERIOD: usize = 1021;

/// What memory holds that nobody may write.
pub(crate) const FILL: u8 = 0xa5;

/// The operators of the library, and two kinds of a caller's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Sum,
    Prod,
    Min,
    Max,
    Average,
    PreMul,
    And,
    Or,
    Xor,
    /// The caller's; it commutes.
    Commuting,
    /// The caller's; it does not commute.
    Ordered,
}

impl Op {
    const ALL: [Self; 11] = [
        Self::Sum,
        Self::Prod,
        Self::Min,
        Self::Max,
        Self::Average,
        Self::PreMul,
        Self::And,
        Self::Or,
        Self::Xor,
        Self::Commuting,
        Self::Ordered,
    ];

    /// What can be done with elements of that type.
    pub(crate) fn all(dtype: Dtype) -> impl Iterator<Item = Self> {
        let bitwise = |op: Self| matches!(op, Self::And | Self::Or | Self::Xor);
        Self::ALL.into_iter().filter(move |&op| !(bitwise(op) && dtype.is_float()))
    }

    /// The operator as `rank` calls it.
    pub(crate) fn of<T: Plain>(self, rank: usize) -> ReduceOp<T> {
        match self {
            Self::Sum => ReduceOp::Sum,
            Self::Prod => ReduceOp::Prod,
            Self::Min => ReduceOp::Min,
            Self::Max => ReduceOp::Max,
            Self::Average => ReduceOp::Average,
            Self::PreMul => ReduceOp::PreMul(factor(rank)),
            Self::And => ReduceOp::BitAnd,
            Self::Or => ReduceOp::BitOr,
            Self::Xor => ReduceOp::BitXor,
            Self::Commuting => ReduceOp::user(true, xor),
            Self::Ordered => ReduceOp::user(false, compose),
        }
    }
}

/// What the ranks put in, and what comes out if nothing is wrong.
pub(crate) struct Patterns<T> {
    ranks: Vec<Vec<T>>,
    reduced: Vec<T>,
}

impl<T: Plain> Patterns<T> {
    /// The patterns of `size` ranks; without an operator nothing is reduced.
    pub(crate) fn new(op: Option<Op>, size: usize) -> Self {
        let ranks: Vec<Vec<T>> = (0..size)
            .map(|rank| {
                let mut random = Random(1 + rank as u64);
                (0..PERIOD).map(|_| input(op, rank, random.next())).collect()
            })
            .collect();
        let reduced = op.map_or_else(Vec::new, |op| reduce(op, &ranks));
        Self { ranks, reduced }
    }

    /// What rank `rank` contributes.
    pub(crate) fn rank(&self, rank: usize) -> &[T] {
        &self.ranks[rank]
    }

    /// What all contributions give.
    pub(crate) fn reduced(&self) -> &[T] {
        &self.reduced
    }
}

fn input<T: Plain>(op: Option<Op>, rank: usize, random: u64) -> T {
    let any = T::from_low(random);
    match op {
        Some(Op::Ordered) => T::from_low(random | 1 << (4 * size_of::<T>())),
        _ if !T::DTYPE.is_float() => any,
        Some(Op::Sum | Op::Average) => T::from_f64(whole(random, share(T::DTYPE))),
        // A share is one at least, and who has that has a factor of one.
        Some(Op::PreMul) => {
            T::from_f64(whole(random, share(T::DTYPE) / if factor_of(T::DTYPE, rank) > 1.0 { 2 } else { 1 }))
        }
        Some(Op::Prod) => {
            let magnitude = f64::from((random % 3) as i32 - 1).exp2();
            T::from_f64(if random & 0x100 == 0 { magnitude } else { -magnitude })
        }
        Some(Op::Min | Op::Max) if any.to_f64().is_nan() => T::from_f64(1.0),
        _ => any,
    }
}

/// How large each of eight ranks' contribution may be if their sum is to be exact.
fn share(dtype: Dtype) -> u64 {
    let digits = match dtype {
        Dtype::F64 => 53,
        Dtype::F32 => 24,
        Dtype::F16 => 11,
        Dtype::Bf16 => 8,
        Dtype::F8E4M3 => 4,
        Dtype::F8E5M2 => 3,
        _ => unreachable!("integers wrap"),
    };
    (1 << digits) / 8
}

/// A whole number from `-most` to `most`.
fn whole(random: u64, most: u64) -> f64 {
    (random % (2 * most + 1)) as f64 - most as f64
}

/// What a rank's contributions are multiplied by before they are summed.
fn factor<T: Plain>(rank: usize) -> T {
    match T::DTYPE.is_float() {
        true => T::from_f64(factor_of(T::DTYPE, rank)),
        false => T::from_low(Random(77 + rank as u64).next()),
    }
}

fn factor_of(dtype: Dtype, rank: usize) -> f64 {
    match rank % 3 {
        0 => 1.0,
        1 => -1.0,
        _ if share(dtype) > 1 => 2.0,
        _ => 1.0,
    }
}

fn reduce<T: Plain>(op: Op, ranks: &[Vec<T>]) -> Vec<T> {
    let fold = |combine: fn(T, T) -> T| {
        let fold = |i: usize| ranks[1..].iter().fold(ranks[0][i], |a, b| combine(a, b[i]));
        (0..PERIOD).map(fold).collect()
    };
    let kind = match op {
        Op::Sum | Op::Average => OpKind::Sum,
        Op::PreMul => return reference(OpKind::Sum, &scaled(ranks), None),
        Op::Prod => OpKind::Prod,
        Op::Min => OpKind::Min,
        Op::Max => OpKind::Max,
        Op::And => OpKind::BitAnd,
        Op::Or => OpKind::BitOr,
        Op::Xor => OpKind::BitXor,
        Op::Commuting => return fold(xor),
        Op::Ordered => return fold(compose),
    };
    reference(kind, ranks, (op == Op::Average).then_some(ranks.len()))
}

fn scaled<T: Plain>(ranks: &[Vec<T>]) -> Vec<Vec<T>> {
    let scale = |(rank, pattern): (usize, &Vec<T>)| {
        let factor = factor::<T>(rank).wide();
        pattern.iter().map(|x| T::round(T::combine(OpKind::Prod, x.wide(), factor))).collect()
    };
    ranks.iter().enumerate().map(scale).collect()
}

/// An element's bits.
fn low<T: Element>(element: T) -> u64 {
    let mut bytes = [0; 8];
    bytes[..size_of::<T>()].copy_from_slice(as_bytes(&[element]));
    u64::from_le_bytes(bytes)
}

fn xor<T: Plain>(a: T, b: T) -> T {
    T::from_low(low(a) ^ low(b))
}

/// The composition of two maps x ↦ m x + c, modulo a power of two; m stands in the upper half of the bits.
pub(crate) fn compose<T: Plain>(a: T, b: T) -> T {
    let half = 4 * size_of::<T>();
    let parts = |bits: u64| (bits >> half, bits & ((1 << half) - 1));
    let ((am, ac), (bm, bc)) = (parts(low(a)), parts(low(b)));
    let constant = am.wrapping_mul(bc).wrapping_add(ac) & ((1 << half) - 1);
    T::from_low(am.wrapping_mul(bm) << half | constant)
}

#[test]
fn another_order_is_another_result_only_where_it_should_be() {
    let reversed = |op| {
        let mut ranks = Patterns::<u32>::new(Some(op), 5).ranks;
        let forward = reduce(op, &ranks);
        ranks.reverse();
        forward == reduce(op, &ranks)
    };
    assert!(reversed(Op::Commuting) && reversed(Op::Sum) && !reversed(Op::Ordered));
    for (dtype, op) in Dtype::ALL.into_iter().flat_map(|dtype| Op::all(dtype).map(move |op| (dtype, op))) {
        if matches!(op, Op::Ordered | Op::PreMul) {
            continue; // a factor belongs to its rank
        }
        with_dtype!(dtype, T => {
            let mut ranks = Patterns::<T>::new(Some(op), 8).ranks;
            let forward = reduce(op, &ranks);
            ranks.rotate_left(3);
            ranks.swap(1, 4);
            assert_eq!(as_bytes(&forward), as_bytes(&reduce(op, &ranks)), "{dtype} {op:?}");
        });
    }
}
