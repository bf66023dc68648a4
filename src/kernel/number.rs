//! What elements are combined in, and the arithmetic there.

use crate::dtype::narrow::Narrow;
use crate::dtype::{Element, F8E4M3, F8E5M2, bf16, f16};

/// An element type of the kernels: how it enters and leaves the type that it is combined in.
pub(super) trait Number: Element {
    /// f32 for narrow floats, else the type itself.
    type Wide: Wide;

    fn widen(self) -> Self::Wide;

    /// Rounds, and makes every NaN the one canonical NaN: which operand's NaN an addition hands on is
    /// left to compilers and processors, and would differ between the variants.
    fn narrow(wide: Self::Wide) -> Self;
}

/// Arithmetic in which elements are combined.
pub(super) trait Wide: Copy {
    /// a + b; integers wrap.
    fn add(self, other: Self) -> Self;
    /// a × b; integers wrap.
    fn multiply(self, other: Self) -> Self;
    /// The smaller; NaN if either is; -0 is below +0.
    fn smaller(self, other: Self) -> Self;
    /// The larger; NaN if either is; +0 is above -0.
    fn larger(self, other: Self) -> Self;
    /// An average: the sum over a count; integers round toward zero.
    fn over(self, count: usize) -> Self;
}

macro_rules! float {
    ($($float:ty, $sign:expr, $nan:expr;)*) => {$(
        impl Number for $float {
            type Wide = Self;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }

            #[inline(always)]
            fn narrow(wide: Self) -> Self {
                if wide.is_nan() { Self::from_bits($nan) } else { wide }
            }
        }

        impl Wide for $float {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }

            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self * other
            }

            // Neither below the other: equal, and then "or" unites the signs of zeros; or one is NaN,
            // and a NaN's bits stay a NaN whatever is united with them.
            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                let united = Self::from_bits(self.to_bits() | other.to_bits());
                if self < other { self } else if other < self { other } else { united }
            }

            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                let (a, b) = (self.to_bits() ^ $sign, other.to_bits() ^ $sign);
                let united = Self::from_bits((a | b) ^ $sign);
                if self > other { self } else if other > self { other } else { united }
            }

            #[inline(always)]
            fn over(self, count: usize) -> Self {
                self / count as Self
            }
        }
    )*};
}

float! {
    f32, 1 << 31, 0x7fc0_0000;
    f64, 1 << 63, 0x7ff8_0000_0000_0000;
}

macro_rules! narrow {
    ($($float:ty),*) => {$(
        impl Number for $float {
            type Wide = f32;

            #[inline(always)]
            fn widen(self) -> f32 {
                Narrow::widen(self)
            }

            #[inline(always)]
            fn narrow(wide: f32) -> Self {
                Narrow::narrow(wide)
            }
        }
    )*};
}

narrow! { f16, bf16, F8E4M3, F8E5M2 }

macro_rules! integer {
    ($($integer:ty, |$sum:ident, $count:ident| $quotient:expr;)*) => {$(
        impl Number for $integer {
            type Wide = Self;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }

            #[inline(always)]
            fn narrow(wide: Self) -> Self {
                wide
            }
        }

        impl Wide for $integer {
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }

            #[inline(always)]
            fn multiply(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }

            #[inline(always)]
            fn smaller(self, other: Self) -> Self {
                self.min(other)
            }

            #[inline(always)]
            fn larger(self, other: Self) -> Self {
                self.max(other)
            }

            #[inline(always)]
            fn over(self, $count: usize) -> Self {
                let $sum = self;
                $quotient as Self
            }
        }
    )*};
}

// Up to 32 bits the quotient of f64, truncated, is exact: a quotient that is no integer is at least
// 1/count from the next, and f64 errs by less.
integer! {
    i8, |sum, count| (f64::from(sum) / count as f64);
    i16, |sum, count| (f64::from(sum) / count as f64);
    i32, |sum, count| (f64::from(sum) / count as f64);
    i64, |sum, count| (sum / count as i64);
    u8, |sum, count| (f64::from(sum) / count as f64);
    u16, |sum, count| (f64::from(sum) / count as f64);
    u32, |sum, count| (f64::from(sum) / count as f64);
    u64, |sum, count| (sum / count as u64);
}
