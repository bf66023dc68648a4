//! The sum of two fp8 numbers from their codes, without widening them: 64 at once.
//!
//! Formats with few bits have few cases, and those are looked up. Within a binade and its neighbours the sum of two
//! numbers depends on their mantissas and on how far their exponents are apart, not on the exponents. So, with E4M3's
//! significands of four bits (a subnormal's first is 0) and three bits more for what is shifted out:
//!
//! ```text
//! larger      1.mmm 000      8 x its significand
//! smaller     0.01m mm0      8 x its significand, as many places to the right as its exponent is less;
//!                            the last bit stands for all beyond (looked up by distance and significand)
//! sum        10.0mm mm0      added, or subtracted where the signs differ
//! code        eeee mmm       the larger's binade + what the sum is rounded to in it (looked up by the sum)
//! ```
//! Cancellation may leave the normal numbers. Binades are counted on below the least one for a moment, and what is
//! found there is replaced by the subnormal code; it is exact, since every number is a multiple of the least.
//! The same bits as a sum in f32, rounded: tests/kernels.rs compares all pairs.

use std::marker::PhantomData;

use super::combine::{Combine, Sum, each};
use super::fold::Fold;
use super::number::Number;
use super::variant::{Isa, Job, Kernel, PairKernel};
use crate::dtype::narrow::{E4M3, E5M2, Format, Narrow};
use crate::dtype::{F8E4M3, F8E5M2};

/// Sums of fp8: two by their codes where the processor looks up 64 at once, else in f32.
pub(super) struct CodeSum<N>(PhantomData<N>);

/// The sum of two codes, as an operator on bytes.
pub(super) struct Codes<N>(PhantomData<N>);

/// An fp8 type.
pub(super) trait Fp8: Number<Wide = f32> + Narrow {
    const TABLES: &'static Tables;
}

impl Fp8 for F8E4M3 {
    const TABLES: &'static Tables = &Tables::of(&E4M3);
}

impl Fp8 for F8E5M2 {
    const TABLES: &'static Tables = &Tables::of(&E5M2);
}

impl<N: Fp8> Kernel for CodeSum<N> {
    #[inline(always)]
    unsafe fn run<I: Isa>(job: &Job<'_>) {
        // SAFETY: the caller's promise, handed on. More than two would be rounded more than once.
        unsafe {
            match job.sources.len() {
                2 if I::AVX512 => Fold::<u8, Codes<N>, false>::run::<I>(job),
                _ => Fold::<N, Sum, false>::run::<I>(job),
            }
        }
    }
}

impl<N: Fp8> PairKernel for CodeSum<N> {
    #[inline(always)]
    unsafe fn run_pair<I: Isa>(to: *mut u8, sources: [*const u8; 2], bytes: usize, ranks: usize) {
        // SAFETY: the caller's promise, handed on.
        unsafe {
            if I::AVX512 {
                Fold::<u8, Codes<N>, false>::run_pair::<I>(to, sources, bytes, ranks);
            } else {
                Fold::<N, Sum, false>::run_pair::<I>(to, sources, bytes, ranks);
            }
        }
    }
}

impl<N: Fp8> Combine<u8> for Codes<N> {
    #[inline(always)]
    fn combine(a: u8, b: u8) -> u8 {
        let [a, b] = [a, b].map(|code| Narrow::widen(N::from_low(code.into())));
        <N as Narrow>::narrow(a + b).low() as u8
    }

    #[inline(always)]
    unsafe fn combine_all<I: Isa, const LANES: usize>(mut a: [u8; LANES], b: [u8; LANES]) -> [u8; LANES] {
        if !I::AVX512 {
            return each(a, b, Self::combine);
        }
        let (parts, rest) = a.as_chunks_mut::<64>();
        assert!(rest.is_empty());
        for (a, b) in parts.iter_mut().zip(b.as_chunks::<64>().0) {
            // SAFETY: the caller's promise of the processor.
            *a = unsafe { avx512::sum::<N>(*a, *b) };
        }
        a
    }
}

/// What is looked up.
pub(super) struct Tables {
    /// A code's bits of the exponent, and the one that is the lowest of them.
    exponent: u8,
    least: u8,
    /// The least code that is infinite or no number.
    special: u8,
    /// By code: 8 x its significand.
    larger: [u8; 128],
    /// By code: what twice the larger number's binade, less 128, is more than the place in `smaller` of one with
    /// this code. Both have a sign, and differences that are too large are taken for the largest there is.
    places: [u8; 128],
    /// 8 x the significand, shifted by so many places as there are rows of all significands before it.
    smaller: [u8; 128],
    /// By the sum: its code less that of the larger number's binade.
    rounded: [[u8; 128]; 2],
    /// By a code less than `least`, as if binades went on there: the subnormal one.
    subnormal: [u8; 64],
}

/// What takes any binade below the least one, to an odd code that no number has.
const NOTHING: u8 = -127i8 as u8;

impl Tables {
    const fn of(format: &Format) -> Self {
        let least: i32 = 1 << format.mantissa;
        let (mut larger, mut places, mut smaller) = ([0; 128], [0; 128], [0; 128]);
        let (mut rounded, mut subnormal) = ([[0; 128]; 2], [0; 64]);
        let mut code = 0;
        while code < 128 {
            let binade = if code < least { least } else { code - code % least };
            let significand = code - (binade - least);
            larger[code as usize] = 8 * significand as u8;
            places[code as usize] = (2 * binade - 128 - significand) as u8;
            code += 1;
        }
        let mut place = 0;
        while place < 128 {
            let (distance, significand) = (place / (2 * least), place % (2 * least));
            let (shifted, lost) = ((8 * significand) >> distance, 8 * significand % (1 << distance));
            smaller[place as usize] = (shifted | (lost != 0) as i32) as u8;
            place += 1;
        }
        // Nothing is left: a place in `subnormal` that is no number's, since binades are even.
        rounded[0][0] = NOTHING;
        let mut sum = 1;
        while sum < 32 * least {
            // Such that the significand has its first bit where a normal number's is.
            let (mut binade, mut unit) = (0, 8);
            if sum >= 16 * least {
                (binade, unit) = (least, 16);
            }
            let mut normal = sum;
            while normal < 8 * least {
                (binade, normal) = (binade - least, 2 * normal);
            }
            let (whole, part) = (normal / unit, normal % unit);
            let up = 2 * part > unit || 2 * part == unit && whole % 2 == 1;
            rounded[(sum >> 7) as usize][(sum & 127) as usize] = (binade + whole - least + up as i32) as u8;
            sum += 1;
        }
        let mut code = 1;
        while code < least {
            let (mut binade, mut significand) = (0, code);
            while significand < least {
                (binade, significand) = (binade - least, 2 * significand);
            }
            subnormal[((binade + significand) & 63) as usize] = code as u8;
            code += 1;
        }
        let exponent = 0x7f & !(least as u8 - 1);
        let special = format.special as u8;
        Self { exponent, least: least as u8, special, larger, places, smaller, rounded, subnormal }
    }
}

mod avx512 {
    use std::arch::x86_64::*;

    use super::super::avx512::{looked_up, masked_or};
    use super::{Codes, Combine, Fp8};

    /// # Safety
    /// The processor is [`Avx512`](super::super::Variant::Avx512).
    #[inline(always)]
    pub(super) unsafe fn sum<N: Fp8>(left: [u8; 64], right: [u8; 64]) -> [u8; 64] {
        let tables = N::TABLES;
        // SAFETY: 64 bytes are a vector; the caller's promise of the processor.
        unsafe {
            let [a, b] = std::mem::transmute::<[[u8; 64]; 2], [__m512i; 2]>([left, right]);
            let (magnitude_a, magnitude_b) = (_mm512_and_si512(a, all(0x7f)), _mm512_and_si512(b, all(0x7f)));
            let larger = _mm512_max_epu8(magnitude_a, magnitude_b);
            let smaller = _mm512_min_epu8(magnitude_a, magnitude_b);
            if _mm512_cmpge_epu8_mask(larger, all(tables.special)) != 0 {
                // Copies, for what a call is given by its place would be kept there always.
                return one_by_one::<N>(
                    &std::mem::transmute::<__m512i, [u8; 64]>(a),
                    &std::mem::transmute::<__m512i, [u8; 64]>(b),
                );
            }
            // Subnormal numbers are in the least binade of the normal ones.
            let binade = _mm512_max_epu8(_mm512_and_si512(larger, all(tables.exponent)), all(tables.least));
            let doubled = _mm512_xor_si512(_mm512_add_epi8(binade, binade), all(0x80));
            let place = _mm512_subs_epi8(doubled, looked_up(smaller, &tables.places));
            let addend = looked_up(place, &tables.smaller);
            let augend = looked_up(larger, &tables.larger);
            let differ = _mm512_movepi8_mask(_mm512_xor_si512(a, b));
            let sum = _mm512_add_epi8(augend, addend);
            let sum = _mm512_mask_sub_epi8(sum, differ, augend, addend);
            let mut rounded = looked_up(sum, &tables.rounded[0]);
            if tables.least > 4 {
                // E4M3's sums have eight bits.
                let carried = looked_up(sum, &tables.rounded[1]);
                rounded = _mm512_mask_mov_epi8(rounded, _mm512_movepi8_mask(sum), carried);
            }
            let code = _mm512_adds_epi8(binade, rounded);
            let below = _mm512_cmplt_epi8_mask(code, all(tables.least));
            let code = _mm512_mask_permutexvar_epi8(code, below, code, vector(&tables.subnormal));
            let code = _mm512_min_epu8(code, all(tables.special - 1));
            // The larger one's sign. Of two that are equal but for theirs nothing is left: +0.
            let (a_less, b_less) =
                (_mm512_sub_epi8(magnitude_a, magnitude_b), _mm512_sub_epi8(magnitude_b, magnitude_a));
            let sign = _mm512_ternarylogic_epi32::<0xe0>(a, b, b_less);
            let sign = _mm512_ternarylogic_epi32::<0xf8>(sign, b, a_less);
            std::mem::transmute::<__m512i, [u8; 64]>(masked_or(sign, all(0x80), code))
        }
    }

    #[inline(always)]
    unsafe fn all(byte: u8) -> __m512i {
        // SAFETY: the caller's promise of the processor.
        unsafe { _mm512_set1_epi8(byte as i8) }
    }

    #[inline(always)]
    unsafe fn vector(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: they are one; the caller's promise of the processor.
        unsafe { bytes.as_ptr().cast::<__m512i>().read_unaligned() }
    }

    /// Sums some of which are infinite or no number.
    #[cold]
    #[inline(never)]
    fn one_by_one<N: Fp8>(left: &[u8; 64], right: &[u8; 64]) -> [u8; 64] {
        std::array::from_fn(|i| Codes::<N>::combine(left[i], right[i]))
    }
}
