//! Narrow floats to and from f32: without branches or tables, so that loops over them vectorise.
//!
//! ```text
//! bits     f16 s.eeeee.mmmmmmmmmm   bf16 s.eeeeeeee.mmmmmmm   E5M2 s.eeeee.mm   E4M3 s.eeee.mmm
//! f32 -> narrow   nearest, ties to even; NaN becomes the one canonical, positive, quiet NaN
//! too large       f16, bf16: infinity. fp8: the largest finite value ("saturates")
//! infinity        stays infinite; E4M3 has none and saturates
//! ```
//! The fp8 formats are those of the OCP 8-bit Floating Point Specification, revision 1.0.

use super::{F8E4M3, F8E5M2, bf16, f16};

/// Where f32 keeps its exponent, its infinity, and its exponent's bias.
const F32_MANTISSA: u32 = 23;
const F32_INFINITY: u32 = 0x7f80_0000;
const F32_BIAS: u32 = 127;

/// A float that is narrower than f32.
pub(crate) trait Narrow: Copy {
    /// How wide it is.
    const BITS: u32 = 8 * size_of::<Self>() as u32;
    /// The value with these low bits; the others do not matter.
    fn from_low(bits: u32) -> Self;
    /// Its bits.
    fn low(self) -> u32;
    /// The exact value.
    fn widen(self) -> f32;
    /// The nearest value, ties to even.
    fn narrow(wide: f32) -> Self;
}

/// A layout: bits of the mantissa, bias of the exponent, and special values.
pub(crate) struct Format {
    pub(crate) mantissa: u32,
    bias: u32,
    /// What greater magnitudes are taken for, as the bits of an f32: of the largest finite value, or of
    /// one that rounds to infinity.
    pub(crate) largest: u32,
    /// The code that infinity becomes.
    pub(crate) infinity: u32,
    /// The code that NaN becomes.
    pub(crate) nan: u32,
    /// The least code that widens to NaN (E4M3), or to infinity or NaN (the others).
    pub(crate) special: u32,
}

const F16: Format = Format {
    mantissa: 10,
    bias: 15,
    largest: 65536f32.to_bits(),
    infinity: 0x7c00,
    nan: 0x7e00,
    special: 0x7c00,
};
pub(crate) const E5M2: Format =
    Format { mantissa: 2, bias: 15, largest: 57344f32.to_bits(), infinity: 0x7c, nan: 0x7e, special: 0x7c };
pub(crate) const E4M3: Format =
    Format { mantissa: 3, bias: 7, largest: 448f32.to_bits(), infinity: 0x7e, nan: 0x7f, special: 0x7f };

impl Format {
    /// The value of a code without its sign.
    #[inline(always)]
    pub(crate) const fn widen(&self, code: u32) -> f32 {
        let shift = F32_MANTISSA - self.mantissa;
        let normal = (code << shift) + ((F32_BIAS - self.bias) << F32_MANTISSA);
        // The unit of subnormals is a power of two that f32 holds: an exact product.
        let unit = f32::from_bits((F32_BIAS + 1 - self.bias - self.mantissa) << F32_MANTISSA);
        let subnormal = (code as i32 as f32 * unit).to_bits();
        let bits = if code >> self.mantissa == 0 { subnormal } else { normal };
        let special = (code << shift) | F32_INFINITY;
        f32::from_bits(if code >= self.special { special } else { bits })
    }

    /// The code, without sign, that is nearest to a magnitude given by its bits.
    ///
    /// The adder rounds: beside `grid`, one unit in the last place of f32 is one unit of the code. And
    /// `grid` has the code of its binade in its lowest bits, so that the sum has the whole code there.
    #[inline(always)]
    const fn narrow(&self, magnitude: u32) -> u32 {
        let finite = if magnitude > self.largest { self.largest } else { magnitude };
        let grid = self.grid(finite);
        let code = (f32::from_bits(finite) + f32::from_bits(grid)).to_bits() & self.codes();
        let code = if magnitude == F32_INFINITY { self.infinity } else { code };
        if magnitude > F32_INFINITY { self.nan } else { code }
    }

    /// What a finite magnitude is added to, to be rounded.
    pub(crate) const fn grid(&self, magnitude: u32) -> u32 {
        let shift = F32_MANTISSA - self.mantissa;
        let least = self.least_normal();
        let binade = if magnitude < least { least } else { magnitude & F32_INFINITY };
        binade + (shift << F32_MANTISSA) + ((binade - least) >> shift)
    }

    /// The bits, as f32, of the least magnitude that is not subnormal here.
    pub(crate) const fn least_normal(&self) -> u32 {
        (F32_BIAS + 1 - self.bias) << F32_MANTISSA
    }

    /// All bits that a code without sign may have.
    const fn codes(&self) -> u32 {
        (self.nan + 1).next_power_of_two() - 1
    }
}

macro_rules! in_words {
    ($bits:ty) => {
        #[inline(always)]
        fn from_low(bits: u32) -> Self {
            Self::from_bits(bits as $bits)
        }

        #[inline(always)]
        fn low(self) -> u32 {
            self.to_bits().into()
        }
    };
}

macro_rules! narrow {
    ($($rust:ty, $format:ident, $bits:ty;)*) => {$(
        impl Narrow for $rust {
            in_words!($bits);

            #[inline(always)]
            fn widen(self) -> f32 {
                const TOP: u32 = <$rust>::BITS - 1;
                let sign = (self.low() >> TOP) << 31;
                f32::from_bits($format.widen(self.low() & ((1 << TOP) - 1)).to_bits() | sign)
            }

            #[inline(always)]
            fn narrow(wide: f32) -> Self {
                const TOP: u32 = <$rust>::BITS - 1;
                let magnitude = wide.to_bits() & 0x7fff_ffff;
                let sign = if magnitude > F32_INFINITY { 0 } else { wide.to_bits() >> 31 };
                Self::from_low($format.narrow(magnitude) | (sign << TOP))
            }
        }
    )*};
}

narrow! { f16, F16, u16; F8E5M2, E5M2, u8; F8E4M3, E4M3, u8; }

impl Narrow for bf16 {
    in_words!(u16);

    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits((self.to_bits() as u32) << 16)
    }

    #[inline(always)]
    fn narrow(wide: f32) -> Self {
        let bits = wide.to_bits();
        let odd = (bits >> 16) & 1;
        let rounded = (bits | odd).wrapping_add(0x7fff) >> 16;
        let nan = bits & 0x7fff_ffff > F32_INFINITY;
        Self::from_low(if nan { 0x7fc0 } else { rounded })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All f32 whose low bits are at, or one beside, a tie of the given width, and a coarse sweep.
    fn wides(shift: u32) -> impl Iterator<Item = f32> {
        let tie = 1u32 << (shift - 1);
        let lows = [0, 1, tie - 1, tie, tie + 1, (1 << shift) - 1];
        (0..1u32 << (32 - shift)).flat_map(move |high| lows.map(|low| f32::from_bits(high << shift | low)))
    }

    #[test]
    fn f16_agrees_with_an_independent_implementation() {
        for bits in 0..=u16::MAX {
            let (ours, theirs) = (f16::from_bits(bits).widen(), f16::from_bits(bits).to_f32_const());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
        }
        for wide in wides(13).filter(|wide| !wide.is_nan()) {
            assert_eq!(f16::narrow(wide).to_bits(), f16::from_f32_const(wide).to_bits(), "{wide:e}");
        }
        assert_eq!(f16::narrow(-f32::NAN).to_bits(), 0x7e00);
    }

    #[test]
    fn bf16_agrees_with_an_independent_implementation() {
        for wide in wides(16).filter(|wide| !wide.is_nan()) {
            assert_eq!(bf16::narrow(wide).to_bits(), bf16::from_f32(wide).to_bits(), "{wide:e}");
            assert_eq!(bf16::narrow(wide).widen(), bf16::from_f32(wide).to_f32(), "{wide:e}");
        }
        assert_eq!(bf16::narrow(-f32::NAN).to_bits(), 0x7fc0);
    }

    #[test]
    fn fp8_agrees_with_an_independent_implementation() {
        for bits in 0..=u8::MAX {
            let (ours, theirs) = (F8E4M3::from_bits(bits).widen(), F8E4M3::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
            let (ours, theirs) = (F8E5M2::from_bits(bits).widen(), F8E5M2::from_bits(bits).to_f32());
            assert!(ours.to_bits() == theirs.to_bits() || ours.is_nan() && theirs.is_nan(), "{bits:#x}");
        }
        for wide in wides(20).chain(wides(21)).filter(|wide| wide.is_finite()) {
            assert_eq!(F8E4M3::narrow(wide).to_bits(), F8E4M3::from_f32(wide).to_bits(), "{wide:e}");
            assert_eq!(F8E5M2::narrow(wide).to_bits(), F8E5M2::from_f32(wide).to_bits(), "{wide:e}");
        }
    }

    #[test]
    fn fp8_saturates_and_keeps_the_infinities_that_it_has() {
        assert_eq!(F8E4M3::narrow(1e9).to_bits(), 0x7e);
        assert_eq!(F8E4M3::narrow(f32::NEG_INFINITY).to_bits(), 0xfe);
        assert_eq!(F8E5M2::narrow(-1e9).to_bits(), 0xfb);
        assert_eq!(F8E5M2::narrow(f32::INFINITY).to_bits(), 0x7c);
        assert_eq!((F8E4M3::narrow(f32::NAN).to_bits(), F8E5M2::narrow(f32::NAN).to_bits()), (0x7f, 0x7e));
    }
}
