//! Element types as the benchmark fills and compares them.

use kolo::dtype::{Element, F8E4M3, F8E5M2, bf16, f16};

/// An element that can be made from, and turned into, bits and numbers.
pub(crate) trait Value: Element {
    /// All integers up to this one, and their negatives where there are any, are values of the type.
    const EXACT: i64;
    /// Whether it has negative values.
    const SIGNED: bool;
    /// The number, where it is a value of the type.
    fn of(number: f64) -> Self;
    /// The number; integers above 2^53 are rounded.
    fn number(self) -> f64;
    /// The value with these lowest bits.
    fn from_bits(bits: u64) -> Self;
    /// Its bits, zeros above.
    fn bits(self) -> u64;
}

macro_rules! integers {
    ($($t:ty, $unsigned:ty, $signed:literal);* $(;)?) => {$(
        impl Value for $t {
            const EXACT: i64 = if size_of::<$t>() == 8 { 1 << 53 } else { <$t>::MAX as i64 };
            const SIGNED: bool = $signed;
            fn of(number: f64) -> Self {
                number as $t
            }
            fn number(self) -> f64 {
                self as f64
            }
            fn from_bits(bits: u64) -> Self {
                bits as $t
            }
            fn bits(self) -> u64 {
                u64::from(self as $unsigned)
            }
        }
    )*};
}

macro_rules! floats {
    ($($t:ty, $unsigned:ty, $mantissa:literal, $of:expr, $number:expr);* $(;)?) => {$(
        impl Value for $t {
            const EXACT: i64 = 1 << ($mantissa + 1);
            const SIGNED: bool = true;
            fn of(number: f64) -> Self {
                $of(number)
            }
            fn number(self) -> f64 {
                $number(self)
            }
            fn from_bits(bits: u64) -> Self {
                <$t>::from_bits(bits as $unsigned)
            }
            fn bits(self) -> u64 {
                u64::from(self.to_bits())
            }
        }
    )*};
}

integers! {
    i8, u8, true; i16, u16, true; i32, u32, true; i64, u64, true;
    u8, u8, false; u16, u16, false; u32, u32, false; u64, u64, false;
}
floats! {
    f64, u64, 52, std::convert::identity, std::convert::identity;
    f32, u32, 23, |number| number as f32, f64::from;
    f16, u16, 10, f16::from_f64, f16::to_f64;
    bf16, u16, 7, bf16::from_f64, bf16::to_f64;
    F8E4M3, u8, 3, F8E4M3::from_f64, |value: F8E4M3| value.to_f64();
    F8E5M2, u8, 2, F8E5M2::from_f64, |value: F8E5M2| value.to_f64();
}

/// Evaluates `$body` with `$T` standing for the Rust type of a [`kolo::dtype::Dtype`].
macro_rules! with_dtype {
    ($dtype:expr, $T:ident => $body:expr) => {
        with_dtype!(@ $dtype, $T, $body;
            F64 f64, F32 f32, F16 kolo::dtype::f16, Bf16 kolo::dtype::bf16,
            F8E4M3 kolo::dtype::F8E4M3, F8E5M2 kolo::dtype::F8E5M2,
            I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64)
    };
    (@ $dtype:expr, $T:ident, $body:expr; $($variant:ident $rust:ty),*) => {
        match $dtype {
            $(kolo::dtype::Dtype::$variant => {
                type $T = $rust;
                $body
            })*
        }
    };
}
pub(crate) use with_dtype;

#[cfg(test)]
mod tests {
    use super::*;
    use kolo::dtype::Dtype;

    fn every_integer_up_to_exact<T: Value>() {
        for number in (0..=T::EXACT.min(1 << 12)).chain([T::EXACT - 1, T::EXACT]) {
            let number = number as f64;
            assert_eq!(T::of(number).number(), number, "{}", T::DTYPE);
        }
    }

    #[test]
    fn small_integers_are_exact_and_bits_round_trip() {
        for dtype in Dtype::ALL {
            with_dtype!(dtype, T => {
                every_integer_up_to_exact::<T>();
                for bits in [0_u64, 1, 0x35, 0x7f, 0x80] {
                    assert_eq!(<T as Value>::from_bits(bits).bits(), bits, "{dtype}");
                }
            });
        }
    }

    #[test]
    fn the_next_integer_is_not_exact_in_the_narrow_floats() {
        assert_ne!(F8E4M3::of(17.0).number(), 17.0);
        assert_ne!(F8E5M2::of(9.0).number(), 9.0);
        assert_ne!(bf16::of(257.0).number(), 257.0);
    }
}
