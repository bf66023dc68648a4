//! What elements are combined in, and the arithmetic there.

use super::variant::Isa;
use crate::dtype::Element;

/// An element at any address.
#[derive(Clone, Copy)]
#[repr(C, packed)]
pub(super) struct Unaligned<N: Copy>(pub(super) N);

/// An element type of the kernels: how it enters and leaves the type that it is combined in.
pub(super) trait Number: Element {
    /// f32 for narrow floats, else the type itself.
    type Wide: Wide;

    fn widen(self) -> Self::Wide;

    /// Some elements, widened, in any order that [`store`](Self::store) undoes.
    ///
    /// # Safety
    /// `LANES` elements can be read there, and the processor is of that kind.
    unsafe fn load<I: Isa, const LANES: usize>(from: *const Unaligned<Self>) -> [Self::Wide; LANES];

    /// Rounds, and makes every NaN the one canonical NaN: which operand's NaN an addition hands on is
    /// left to compilers and processors, and would differ between the variants.
    ///
    /// # Safety
    /// `LANES` elements can be written there, and the processor is of that kind.
    unsafe fn store<I: Isa, const LANES: usize>(chunk: [Self::Wide; LANES], to: *mut Unaligned<Self>);

    /// As [`store`](Self::store), of what is copied from there at once.
    ///
    /// # Safety
    /// That of `store`.
    #[inline(always)]
    unsafe fn pack<I: Isa, const LANES: usize>(chunk: [Self::Wide; LANES], to: *mut Unaligned<Self>) {
        // SAFETY: the caller's promise.
        unsafe { Self::store::<I, LANES>(chunk, to) }
    }

    /// Walks in chunks of at least 256 widened bytes, then does what is left.
    ///
    /// # Safety
    /// What the walk asks.
    #[inline(always)]
    unsafe fn walk<I: Isa>(walk: &mut impl Walk) {
        // SAFETY: the caller's promise.
        unsafe {
            match size_of::<Self>() {
                1 if I::LONG => walk.chunks::<256>(),
                2 if I::LONG => walk.chunks::<128>(),
                1 | 2 => {}
                _ => {
                    if I::LONG {
                        walk.chunks::<64>();
                    }
                    walk.chunks::<16>();
                    return walk.ends();
                }
            }
            walk.chunks::<64>();
            walk.padded::<64>();
        }
    }
}

/// Work that is done in chunks of elements.
pub(super) trait Walk {
    /// Goes on as long as there are so many elements.
    ///
    /// # Safety
    /// What the work asks.
    unsafe fn chunks<const LANES: usize>(&mut self);

    /// Does what is left, fewer than 16 elements, as two chunks that may overlap.
    ///
    /// # Safety
    /// What the work asks.
    unsafe fn ends(&self);

    /// Does what is left, fewer than `LANES` elements, padded to so many.
    ///
    /// # Safety
    /// What the work asks; a chunk is at most [`few::MOST`](super::few::MOST) bytes long.
    unsafe fn padded<const LANES: usize>(&self);
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

/// A type that is combined in itself.
macro_rules! as_it_is {
    ($number:ty, |$wide:ident| $narrow:expr) => {
        impl Number for $number {
            type Wide = Self;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }

            #[inline(always)]
            unsafe fn load<I: Isa, const LANES: usize>(from: *const Unaligned<Self>) -> [Self; LANES] {
                // SAFETY: the caller's promise.
                unsafe { from.cast::<[Self; LANES]>().read_unaligned() }
            }

            #[inline(always)]
            unsafe fn store<I: Isa, const LANES: usize>(chunk: [Self; LANES], to: *mut Unaligned<Self>) {
                for (i, $wide) in chunk.into_iter().enumerate() {
                    // SAFETY: the caller's promise.
                    unsafe { to.add(i).write(Unaligned($narrow)) };
                }
            }
        }
    };
}

macro_rules! float {
    ($($float:ty, $sign:expr, $nan:expr;)*) => {$(
        as_it_is!($float, |wide| if wide.is_nan() { Self::from_bits($nan) } else { wide });

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

macro_rules! integer {
    ($($integer:ty, |$sum:ident, $count:ident| $quotient:expr;)*) => {$(
        as_it_is!($integer, |wide| wide);

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
