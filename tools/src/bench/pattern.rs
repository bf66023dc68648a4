//! Inputs whose results are known exactly, whatever the order in which they are combined.
//!
//! | operator     | of integers             | of floats                                                   |
//! | ------------ | ----------------------- | ----------------------------------------------------------- |
//! | sum          | any bits (sums wrap)    | integers so small that every partial sum is exact           |
//! | premul       | any bits                | the same, with a factor for every other rank                |
//! | average      | small, truncated        | the same, with a sum that the number of ranks divides       |
//! | prod         | odd (products wrap)     | powers of two so small that every partial product is exact  |
//! | min, max     | any bits                | any bits but zeros, infinities and NaN                      |
//! | and, or, xor | any bits                | -                                                           |
//! | user         | elements of S3: what is combined in another order than the ranks' is another         |
//! | no operator  | any bits                | any bits                                                    |
//!
//! A vector repeats a pattern whose length is prime, so that blocks that went astray do not fit.

use std::cell::OnceCell;

use kolo::op::{OpKind, ReduceOp};

use super::value::Value;

/// Elements after which a vector repeats itself: a prime, so that no block or chunk is a multiple of it.
pub(crate) const PERIOD: usize = 16_381;

/// What the ranks put in, and what comes out if nothing is wrong. Each is made when it is first asked for: of many
/// ranks' patterns most ranks see few.
pub(crate) struct Patterns<T> {
    op: Option<OpKind>,
    ranks: Vec<OnceCell<Vec<T>>>,
    reduced: OnceCell<Vec<T>>,
    /// Elements of a pattern.
    len: usize,
}

impl<T: Value> Patterns<T> {
    /// The patterns of `size` ranks for vectors of up to `longest` elements; `None` is a collective that only moves.
    pub(crate) fn new(op: Option<OpKind>, size: usize, longest: usize) -> Self {
        let ranks = (0..size).map(|_| OnceCell::new()).collect();
        Self { op, ranks, reduced: OnceCell::new(), len: longest.clamp(1, PERIOD) }
    }

    fn of(&self, rank: usize) -> &[T] {
        let size = self.ranks.len();
        self.ranks[rank].get_or_init(|| (0..self.len).map(|i| input(self.op, size, rank, i)).collect())
    }

    fn reduced(&self) -> &[T] {
        let size = self.ranks.len();
        let inputs = |i| (0..size).map(move |rank| input(self.op, size, rank, i));
        let op = self.op.expect("only what is combined is expected to be");
        self.reduced.get_or_init(|| (0..self.len).map(|i| reduce(op, inputs(i))).collect())
    }

    /// Writes what `rank` contributes.
    pub(crate) fn fill(&self, rank: usize, into: &mut [T]) {
        for part in into.chunks_mut(self.len) {
            part.copy_from_slice(&self.of(rank)[..part.len()]);
        }
    }

    /// How many elements differ from what they should be.
    pub(crate) fn wrong(&self, found: &[T], expected: Expected) -> usize {
        if found.is_empty() {
            return 0;
        }
        let (pattern, mut at) = match expected {
            Expected::Of { rank, from } => (self.of(rank), from % self.len),
            Expected::Reduced { from } => (self.reduced(), from % self.len),
        };
        let mut rest = found;
        let mut wrong = 0;
        while !rest.is_empty() {
            let (part, next) = rest.split_at(rest.len().min(self.len - at));
            wrong += part.iter().zip(&pattern[at..]).filter(|(a, b)| a.bits() != b.bits()).count();
            (rest, at) = (next, 0);
        }
        wrong
    }
}

/// What a stretch of memory should hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// What `rank` contributed, from its element `from` on.
    Of { rank: usize, from: usize },
    /// The reduction of all contributions, from element `from` on.
    Reduced { from: usize },
}

/// The operator as `rank` calls it.
pub(crate) fn operator<T: Value>(kind: OpKind, size: usize, rank: usize) -> ReduceOp<T> {
    match kind {
        OpKind::Sum => ReduceOp::Sum,
        OpKind::Prod => ReduceOp::Prod,
        OpKind::Min => ReduceOp::Min,
        OpKind::Max => ReduceOp::Max,
        OpKind::Average => ReduceOp::Average,
        OpKind::PreMul => ReduceOp::PreMul(T::of(factor::<T>(size, rank))),
        OpKind::BitAnd => ReduceOp::BitAnd,
        OpKind::BitOr => ReduceOp::BitOr,
        OpKind::BitXor => ReduceOp::BitXor,
        OpKind::User => ReduceOp::user(false, permute),
    }
}

fn input<T: Value>(op: Option<OpKind>, size: usize, rank: usize, i: usize) -> T {
    let hash = hash(rank, i);
    let float = T::DTYPE.is_float();
    match op {
        Some(OpKind::User) => T::of((hash % 6) as f64),
        Some(OpKind::Average) if float => T::of(balanced::<T>(size, rank, i) as f64),
        Some(OpKind::Average) => T::of(small::<T>(size, rank, i) as f64),
        Some(OpKind::Sum | OpKind::PreMul) if float => T::of(small::<T>(size, rank, i) as f64),
        Some(OpKind::Prod) if float => T::of(power(size, rank, i)),
        Some(OpKind::Prod) => T::from_bits(hash | 1),
        Some(OpKind::Min | OpKind::Max) if float => ordered(hash),
        _ => T::from_bits(hash),
    }
}

/// How much each rank may add so that all together stay exact.
fn share<T: Value>(size: usize) -> i64 {
    T::EXACT.min(1 << 24) / size as i64
}

/// An integer such that every partial sum over the ranks is exact, in any order.
fn small<T: Value>(size: usize, rank: usize, i: usize) -> i64 {
    let bound = match share::<T>(size) {
        // Too many ranks for the type: as many as it can count say one, the others nothing.
        0 => i64::from((rank + i) % size < T::EXACT as usize),
        1 => 1,
        // Half, because a factor is at most 2.
        share => share / 2,
    };
    let hash = hash(rank, i);
    let magnitude = (hash >> 1) as i64 % (bound + 1);
    if T::SIGNED && hash & 1 == 1 { -magnitude } else { magnitude }
}

/// What a rank's contributions are multiplied with before they are added.
fn factor<T: Value>(size: usize, rank: usize) -> f64 {
    match (rank % 2 == 1, share::<T>(size) > 1) {
        (true, true) => 2.0,
        (true, false) if T::SIGNED => -1.0,
        _ => 1.0,
    }
}

/// As [`small`], with a sum that is a multiple of the number of ranks: a common value, plus one and minus
/// one for neighbours.
fn balanced<T: Value>(size: usize, rank: usize, i: usize) -> i64 {
    let lean = match rank % 2 {
        0 if rank + 1 < size => 1,
        1 => -1,
        _ => 0,
    };
    let common = hash(0, i);
    match share::<T>(size) {
        // Only as many neighbours as the type can count lean.
        0 if rank >= T::EXACT as usize => 0,
        0 => lean,
        1 => (common % 3) as i64 - 1,
        share => (common % (2 * share as u64 - 1)) as i64 - (share - 1) + lean,
    }
}

/// A power of two, such that every partial product over the ranks is within the narrowest type's range.
fn power(size: usize, rank: usize, i: usize) -> f64 {
    const STEPS: usize = 6;
    let hash = hash(rank, i);
    let exponent = if (rank + i) % size < STEPS { (hash % 3) as i32 - 1 } else { 0 };
    f64::from(exponent).exp2().copysign(if hash & 0x100 == 0 { 1.0 } else { -1.0 })
}

/// Any float that compares with every other.
fn ordered<T: Value>(hash: u64) -> T {
    let value = T::from_bits(hash);
    let number = value.number();
    if number.is_finite() && number != 0.0 { value } else { T::of(1.0) }
}

fn reduce<T: Value>(op: OpKind, inputs: impl ExactSizeIterator<Item = T>) -> T {
    let size = inputs.len();
    let scaled = inputs.enumerate().map(|(rank, value)| match op {
        OpKind::PreMul => times(value, T::of(factor::<T>(size, rank))),
        _ => value,
    });
    let result = scaled.reduce(|a, b| combine(op, a, b)).unwrap_or(T::of(0.0));
    match op {
        OpKind::Average => T::of((result.number() / size as f64).trunc()),
        _ => result,
    }
}

fn combine<T: Value>(op: OpKind, a: T, b: T) -> T {
    match op {
        OpKind::Sum | OpKind::PreMul | OpKind::Average => plus(a, b),
        OpKind::Prod => times(a, b),
        OpKind::Min => {
            if b < a {
                b
            } else {
                a
            }
        }
        OpKind::Max => {
            if b > a {
                b
            } else {
                a
            }
        }
        OpKind::BitAnd => T::from_bits(a.bits() & b.bits()),
        OpKind::BitOr => T::from_bits(a.bits() | b.bits()),
        OpKind::BitXor => T::from_bits(a.bits() ^ b.bits()),
        OpKind::User => permute(a, b),
    }
}

fn plus<T: Value>(a: T, b: T) -> T {
    match T::DTYPE.is_float() {
        true => T::of(a.number() + b.number()),
        false => T::from_bits(a.bits().wrapping_add(b.bits())),
    }
}

fn times<T: Value>(a: T, b: T) -> T {
    match T::DTYPE.is_float() {
        true => T::of(a.number() * b.number()),
        false => T::from_bits(a.bits().wrapping_mul(b.bits())),
    }
}

/// The composition of two permutations of three things, numbered 0 to 5: associative, and `a` after `b`
/// is not `b` after `a`.
fn permute<T: Value>(a: T, b: T) -> T {
    const PERMUTATIONS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    let [a, b] = [a, b].map(|value| PERMUTATIONS[value.number() as usize % 6]);
    let both = b.map(|i| a[i]);
    T::of(PERMUTATIONS.iter().position(|&permutation| permutation == both).unwrap_or(0) as f64)
}

/// A well-mixed number for every (rank, index): the finalizer of SplitMix64.
fn hash(rank: usize, i: usize) -> u64 {
    let mut x = (rank as u64) << 32 | i as u64;
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::value::with_dtype;
    use kolo::dtype::Dtype;

    /// Combines in another order than `reduce`: as a tree whose shape depends on `i`.
    fn other_order<T: Value>(op: OpKind, inputs: &[T], i: usize) -> T {
        match inputs.len() {
            1 => inputs[0],
            n => {
                let (left, right) = inputs.split_at(1 + i % (n - 1));
                let (left, right) = (other_order(op, left, i / 2), other_order(op, right, i / 3));
                if op == OpKind::User { combine(op, left, right) } else { combine(op, right, left) }
            }
        }
    }

    #[test]
    fn the_result_does_not_depend_on_the_order() {
        for (dtype, op, size) in Dtype::ALL.into_iter().flat_map(|dtype| {
            OpKind::ALL.into_iter().flat_map(move |op| [1, 2, 3, 8, 33].map(|size| (dtype, op, size)))
        }) {
            if matches!(op, OpKind::Average | OpKind::PreMul) {
                continue; // sums, with a factor before or after
            }
            with_dtype!(dtype, T => {
                let patterns = Patterns::<T>::new(Some(op), size, PERIOD);
                for i in 0..500 {
                    let inputs: Vec<T> = (0..size).map(|rank| patterns.of(rank)[i]).collect();
                    let found = other_order(op, &inputs, i);
                    assert_eq!(found.bits(), patterns.reduced()[i].bits(), "{dtype} {op} {size} {i} {inputs:?}");
                }
            });
        }
    }

    #[test]
    fn sums_are_exact_even_if_all_have_one_sign() {
        for (dtype, size) in
            Dtype::ALL.into_iter().flat_map(|dtype| [1, 2, 7, 8, 16, 100].map(|n| (dtype, n)))
        {
            with_dtype!(dtype, T => for i in 0..200 {
                let sum: i64 = (0..size).map(|rank| small::<T>(size, rank, i).abs()).sum();
                let balanced: i64 = (0..size).map(|rank| balanced::<T>(size, rank, i)).sum();
                assert!(sum <= T::EXACT, "{dtype} {size}");
                assert_eq!(balanced % size as i64, 0, "{dtype} {size}");
            });
        }
    }

    #[test]
    fn the_user_operator_notices_a_changed_order() {
        let patterns = Patterns::<u8>::new(Some(OpKind::User), 3, PERIOD);
        let swapped = |i: usize| {
            let [a, b, c] = [0, 1, 2].map(|rank| patterns.of(rank)[i]);
            permute(permute(b, a), c)
        };
        assert!((0..PERIOD).any(|i| swapped(i) != patterns.reduced()[i]));
    }

    #[test]
    fn differences_are_counted_across_the_period() {
        let patterns = Patterns::<f32>::new(None, 2, 3 * PERIOD);
        let mut vector = vec![0.0; 2 * PERIOD + 5];
        patterns.fill(1, &mut vector);
        assert_eq!(patterns.wrong(&vector, Expected::Of { rank: 1, from: 0 }), 0);
        assert_eq!(patterns.wrong(&vector[7..], Expected::Of { rank: 1, from: 7 }), 0);
        vector[3] = f32::NAN;
        vector[2 * PERIOD + 4] += 1.0;
        assert_eq!(patterns.wrong(&vector[3..], Expected::Of { rank: 1, from: 3 }), 2);
        assert!(patterns.wrong(&vector, Expected::Of { rank: 0, from: 0 }) > PERIOD);
    }
}
