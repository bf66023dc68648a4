//! The plain reference of all arithmetic: one element at a time, by implementations that are not the
//! kernels' own.

use kolo::dtype::{Element, F8E4M3, F8E5M2, bf16, f16};
use kolo::op::OpKind;

/// Numbers without a seed from outside: every run tests the same.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The arithmetic of the reference: what one element is worth, and back.
pub trait Plain: Element {
    type Wide: Copy;
    fn wide(self) -> Self::Wide;
    fn round(wide: Self::Wide) -> Self;
    fn combine(op: OpKind, a: Self::Wide, b: Self::Wide) -> Self::Wide;
    fn over(wide: Self::Wide, ranks: usize) -> Self::Wide;
    /// From the low bits of a number.
    fn from_low(bits: u64) -> Self;
}

macro_rules! plain_float {
    ($($float:ty, $wide:ty, $bits:ty, |$number:ident| $widen:expr, |$value:ident| $round:expr;)*) => {$(
        impl Plain for $float {
            type Wide = $wide;
            fn wide(self) -> $wide {
                let $number = self;
                $widen
            }
            fn round($value: $wide) -> Self {
                $round
            }
            fn combine(op: OpKind, a: $wide, b: $wide) -> $wide {
                match op {
                    OpKind::Sum | OpKind::Average | OpKind::PreMul => a + b,
                    OpKind::Prod => a * b,
                    _ if a.is_nan() || b.is_nan() => <$wide>::NAN,
                    OpKind::Min if a == b => if a.is_sign_negative() { a } else { b },
                    OpKind::Max if a == b => if a.is_sign_negative() { b } else { a },
                    OpKind::Min => if a < b { a } else { b },
                    OpKind::Max => if a > b { a } else { b },
                    _ => unreachable!("{op} of floats"),
                }
            }
            fn over(wide: $wide, ranks: usize) -> $wide {
                wide / ranks as $wide
            }
            fn from_low(bits: u64) -> Self {
                Self::from_bits(bits as $bits)
            }
        }
    )*};
}

// Narrowing by implementations that are not the kernels' own; NaN, and the infinity of E5M2, by hand.
plain_float! {
    f64, f64, u64, |x| x, |x| if x.is_nan() { Self::from_bits(0x7ff8 << 48) } else { x };
    f32, f32, u32, |x| x, |x| if x.is_nan() { Self::from_bits(0x7fc0 << 16) } else { x };
    f16, f32, u16, |x| x.to_f32_const(), |x| if x.is_nan() { Self::from_bits(0x7e00) } else { Self::from_f32_const(x) };
    bf16, f32, u16, |x| x.to_f32(), |x| if x.is_nan() { Self::from_bits(0x7fc0) } else { Self::from_f32(x) };
    F8E4M3, f32, u8, |x| x.to_f32(), |x| if x.is_nan() { Self::from_bits(0x7f) } else { Self::from_f32(x) };
    F8E5M2, f32, u8, |x| x.to_f32(), |x| match x {
        f32::INFINITY => Self::from_bits(0x7c),
        f32::NEG_INFINITY => Self::from_bits(0xfc),
        x if x.is_nan() => Self::from_bits(0x7e),
        x => Self::from_f32(x),
    };
}

macro_rules! plain_integer {
    ($($integer:ty),*) => {$(
        impl Plain for $integer {
            type Wide = i128;
            fn wide(self) -> i128 {
                self.into()
            }
            fn round(wide: i128) -> Self {
                wide as Self
            }
            fn combine(op: OpKind, a: i128, b: i128) -> i128 {
                let exact = match op {
                    OpKind::Sum | OpKind::Average | OpKind::PreMul => a + b,
                    OpKind::Prod => a.wrapping_mul(b),
                    OpKind::Min => a.min(b),
                    OpKind::Max => a.max(b),
                    OpKind::BitAnd => a & b,
                    OpKind::BitOr => a | b,
                    OpKind::BitXor => a ^ b,
                    OpKind::User => unreachable!(),
                };
                (exact as Self).into()
            }
            fn over(wide: i128, ranks: usize) -> i128 {
                wide / ranks as i128
            }
            fn from_low(bits: u64) -> Self {
                bits as Self
            }
        }
    )*};
}

plain_integer! { i8, i16, i32, i64, u8, u16, u32, u64 }

/// sources\[0\] ⊕ sources\[1\] ⊕ …, from left to right, rounded once, element by element; divided by `ranks` if
/// given.
pub fn reference<T: Plain>(op: OpKind, sources: &[Vec<T>], ranks: Option<usize>) -> Vec<T> {
    let element = |i: usize| {
        let sum = sources[1..].iter().fold(sources[0][i].wide(), |a, b| T::combine(op, a, b[i].wide()));
        T::round(ranks.map_or(sum, |ranks| T::over(sum, ranks)))
    };
    (0..sources[0].len()).map(element).collect()
}

/// Half of the elements any bits (NaN, infinities, subnormals, overflow), half small whole numbers.
pub fn elements<T: Plain>(random: &mut Random, count: usize) -> Vec<T> {
    let element = |_| match random.next() {
        any if any & 1 == 0 => T::from_low(any >> 1),
        small => T::from_f64((small >> 1) as f64 % 9.0 - if small & 2 == 0 { 0.0 } else { 4.0 }),
    };
    (0..count).map(element).collect()
}

/// Evaluates `$body` with `$T` standing for the Rust type of a dtype.
#[allow(unused_macros, reason = "each test file uses a part of this")]
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        with_dtype!(@ $dtype, $T, $body;
            F64 f64, F32 f32, F16 kolo::f16, Bf16 kolo::bf16, F8E4M3 kolo::F8E4M3, F8E5M2 kolo::F8E5M2,
            I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64)
    };
    (@ $dtype:expr, $T:ident, $body:expr; $($variant:ident $rust:ty),*) => {
        match $dtype {
            $(kolo::Dtype::$variant => {
                type $T = $rust;
                $body
            })*
        }
    };
}
#[allow(unused_imports, reason = "each test file uses a part of it")]
pub(crate) use with_dtype;
