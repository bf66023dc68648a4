//! Narrow floats by AVX-512: 64 lanes between memory and four vectors of f32.
//!
//! ```text
//! f16    widened and narrowed by the processor
//! bf16   b1 a1 | b2 a2 | ...  two vectors of 16-bit pairs
//!        widen    a << 16, b & 0xffff0000: four vectors, two with the even elements, two with the odd
//!        narrow   ties to even by one integer addition; the upper halves are picked from two vectors
//! fp8    d c b a | h g f e | ...  one vector
//!        widen    a table of 128 codes gives the bytes of a bf16: interleaved, they go on as bf16
//!        narrow   as the portable way does (`Format::narrow`), what is added looked up by exponent
//! ```
//! The instruction that narrows to bf16 (VCVTNE2PS2BF16) takes subnormal numbers for zero: other bits than
//! everywhere else. NaN, and infinity in fp8, are so rare that a branch leads to their treatment.

use std::arch::x86_64::*;

use super::narrow::CHUNK;
use super::number::Unaligned;
use crate::dtype::narrow::{E4M3, E5M2, Format, Narrow};
use crate::dtype::{F8E4M3, F8E5M2, bf16, f16};

/// 64 elements, widened, in an order that [`store`](Self::store) undoes.
pub(super) trait Vectors: Sized + Copy {
    /// # Safety
    /// 64 elements can be read there; the processor is [`Avx512`](super::Variant::Avx512).
    unsafe fn load(from: *const Unaligned<Self>) -> [__m512; 4];

    /// # Safety
    /// 64 elements can be written there; the processor is [`Avx512`](super::Variant::Avx512).
    unsafe fn store(lanes: [__m512; 4], to: *mut Unaligned<Self>);

    /// As [`store`](Self::store), of what is read again at once, by whole vectors.
    ///
    /// # Safety
    /// As `store`.
    #[inline(always)]
    unsafe fn pack(lanes: [__m512; 4], to: *mut Unaligned<Self>) {
        // SAFETY: the caller's promise.
        unsafe { Self::store(lanes, to) }
    }
}

/// Vectors as the lanes of a chunk.
#[inline(always)]
pub(super) fn lanes<const LANES: usize>(vectors: [__m512; 4]) -> [f32; LANES] {
    assert!(LANES == CHUNK);
    // SAFETY: both are 64 f32, any bits of which are values.
    unsafe { std::mem::transmute_copy(&vectors) }
}

/// The lanes of a chunk as vectors.
#[inline(always)]
pub(super) fn vectors<const LANES: usize>(lanes: [f32; LANES]) -> [__m512; 4] {
    assert!(LANES == CHUNK);
    // SAFETY: as above.
    unsafe { std::mem::transmute_copy(&lanes) }
}

/// The upper half of a pair of 16 bits.
const UPPER: i32 = 0xffff_0000_u32 as i32;

/// Calls a function for each of four vectors. No closures here: they would be functions without the
/// processor's features, and calls.
macro_rules! each {
    ($function:ident($lanes:expr $(, $more:expr)*)) => {{
        let [a, b, c, d] = $lanes;
        [$function(a $(, $more)*), $function(b $(, $more)*), $function(c $(, $more)*), $function(d $(, $more)*)]
    }};
}

/// Makes every NaN the canonical one.
#[inline(always)]
unsafe fn canonical(lanes: [__m512; 4]) -> [__m512; 4] {
    let [a, b, c, d] = lanes;
    // SAFETY: the caller's promise of the processor.
    unsafe {
        // A comparison finds NaN in either operand.
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, b) | _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(c, d);
        if nan == 0 { lanes } else { each!(canonical_vector(lanes)) }
    }
}

#[inline(always)]
unsafe fn canonical_vector(wide: __m512) -> __m512 {
    // SAFETY: the caller's promise of the processor.
    unsafe {
        let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(wide, wide);
        _mm512_mask_mov_ps(wide, nan, _mm512_set1_ps(f32::from_bits(0x7fc0_0000)))
    }
}

/// a & mask | b, lane by lane.
#[inline(always)]
pub(super) unsafe fn masked_or(a: __m512i, mask: __m512i, b: __m512i) -> __m512i {
    // SAFETY: the caller's promise of the processor.
    unsafe { _mm512_ternarylogic_epi32::<0xea>(a, mask, b) }
}

/// Pairs of bf16 as vectors of the even and of the odd elements.
#[inline(always)]
unsafe fn even_and_odd(pairs: __m512i) -> [__m512; 2] {
    // SAFETY: the caller's promise of the processor.
    unsafe {
        let even = _mm512_slli_epi32::<16>(pairs);
        let odd = _mm512_and_si512(pairs, _mm512_set1_epi32(UPPER));
        [_mm512_castsi512_ps(even), _mm512_castsi512_ps(odd)]
    }
}

impl Vectors for bf16 {
    #[inline(always)]
    unsafe fn load(from: *const Unaligned<Self>) -> [__m512; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b] = from.cast::<[__m512i; 2]>().read_unaligned();
            let ([a, b], [c, d]) = (even_and_odd(a), even_and_odd(b));
            [a, b, c, d]
        }
    }

    #[inline(always)]
    unsafe fn store(lanes: [__m512; 4], to: *mut Unaligned<Self>) {
        // SAFETY: the caller's promise.
        unsafe {
            let upper = UPPER_HALVES.as_ptr().cast::<__m512i>().read_unaligned();
            let [a, b, c, d] = each!(rounded_to_upper_half(canonical(lanes)));
            let pairs = [_mm512_permutex2var_epi16(a, upper, b), _mm512_permutex2var_epi16(c, upper, d)];
            to.cast::<[__m512i; 2]>().write_unaligned(pairs);
        }
    }
}

/// Rounds to the nearest upper half: where that is odd, the lower one is made odd, and a tie goes up.
#[inline(always)]
unsafe fn rounded_to_upper_half(wide: __m512) -> __m512i {
    // SAFETY: the caller's promise of the processor.
    unsafe {
        let bits = _mm512_castps_si512(wide);
        let bits = masked_or(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1), bits);
        _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff))
    }
}

/// Where the upper halves of two vectors' lanes are, one of each in turn.
const UPPER_HALVES: [u16; 32] = {
    let mut halves = [0; 32];
    let mut i = 0;
    while i < 32 {
        halves[i] = (i as u16 & !1) + 1 + 32 * (i as u16 & 1);
        i += 1;
    }
    halves
};

impl Vectors for f16 {
    #[inline(always)]
    unsafe fn load(from: *const Unaligned<Self>) -> [__m512; 4] {
        // SAFETY: the caller's promise.
        unsafe { each!(_mm512_cvtph_ps(from.cast::<[__m256i; 4]>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn store(lanes: [__m512; 4], to: *mut Unaligned<Self>) {
        // SAFETY: the caller's promise.
        unsafe {
            let halves = each!(f16_of(canonical(lanes)));
            to.cast::<[__m256i; 4]>().write_unaligned(halves);
        }
    }

    // Whoever reads what two stores wrote waits until both are in the cache. To join halves always would cost more:
    // narrowing straight into memory is cheaper.
    #[inline(always)]
    unsafe fn pack(lanes: [__m512; 4], to: *mut Unaligned<Self>) {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = each!(f16_of(canonical(lanes)));
            to.cast::<[__m512i; 2]>().write_unaligned([joined(a, b), joined(c, d)]);
        }
    }
}

#[inline(always)]
unsafe fn joined(low: __m256i, high: __m256i) -> __m512i {
    // SAFETY: the caller's promise of the processor.
    unsafe { _mm512_inserti64x4::<1>(_mm512_castsi256_si512(low), high) }
}

/// # Safety
/// The processor is [`Avx512`](super::Variant::Avx512).
#[inline(always)]
unsafe fn f16_of(wide: __m512) -> __m256i {
    // SAFETY: the caller's promise of the processor.
    unsafe { _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(wide) }
}

/// What an fp8 format looks up.
struct Tables {
    /// For each code without sign, the lower and the upper byte of the bf16 of its value.
    lower: [u8; 128],
    upper: [u8; 128],
    /// For each exponent, by its last five bits: [`Format::grid`].
    grid: [u32; 32],
}

const fn tables(format: &Format) -> Tables {
    let mut tables = Tables { lower: [0; 128], upper: [0; 128], grid: [0; 32] };
    let mut code = 0;
    while code < 128 {
        let bits = format.widen(code as u32).to_bits();
        (tables.lower[code], tables.upper[code]) = ((bits >> 16) as u8, (bits >> 24) as u8);
        code += 1;
    }
    let mut exponent = format.least_normal() >> 23;
    while exponent <= format.largest >> 23 {
        tables.grid[exponent as usize % 32] = format.grid(exponent << 23);
        exponent += 1;
    }
    tables
}

static E4M3_TABLES: Tables = tables(&E4M3);
static E5M2_TABLES: Tables = tables(&E5M2);

/// # Safety
/// As [`Vectors::load`], of 64 bytes.
#[inline(always)]
unsafe fn load_fp8(from: *const u8, tables: &Tables) -> [__m512; 4] {
    // SAFETY: the caller's promise.
    unsafe {
        let codes = from.cast::<__m512i>().read_unaligned();
        let (lower, upper) = (looked_up(codes, &tables.lower), looked_up(codes, &tables.upper));
        let upper = masked_or(codes, _mm512_set1_epi8(i8::MIN), upper);
        let [a, b] = even_and_odd(_mm512_unpacklo_epi8(lower, upper));
        let [c, d] = even_and_odd(_mm512_unpackhi_epi8(lower, upper));
        [a, b, c, d]
    }
}

/// The bytes of a table at the codes, whatever their signs.
#[inline(always)]
pub(super) unsafe fn looked_up(codes: __m512i, table: &[u8; 128]) -> __m512i {
    // SAFETY: the table is two vectors long; the caller's promise of the processor.
    unsafe {
        let [first, second] = table.as_ptr().cast::<[__m512i; 2]>().read_unaligned();
        _mm512_permutex2var_epi8(first, codes, second)
    }
}

/// # Safety
/// As [`Vectors::store`], of 64 bytes.
#[inline(always)]
unsafe fn store_fp8<N: Narrow>(lanes: [__m512; 4], to: *mut Unaligned<N>, format: &Format, tables: &Tables) {
    // SAFETY: the caller's promise.
    unsafe {
        let [a, b, c, d] = lanes;
        let (low, high) = (upper_halves(a, b), upper_halves(c, d));
        let doubled = _mm512_max_epu16(_mm512_add_epi16(low, low), _mm512_add_epi16(high, high));
        if _mm512_cmpge_epu16_mask(doubled, _mm512_set1_epi16(INFINITY_DOUBLED)) != 0 {
            return store_special(&std::mem::transmute::<[__m512; 4], [f32; CHUNK]>(lanes), to);
        }
        let [a, b, c, d] = each!(code(lanes, format, tables));
        let codes = _mm512_packus_epi16(lower_halves(a, b), lower_halves(c, d));
        // Packing with saturation keeps the sign.
        let signs = _mm512_packs_epi16(low, high);
        to.cast::<__m512i>().write_unaligned(masked_or(signs, _mm512_set1_epi8(i8::MIN), codes));
    }
}

/// The upper half of the infinities of f32, without sign, doubled: that of NaN is this or more.
const INFINITY_DOUBLED: i16 = (f32::INFINITY.to_bits() >> 15) as i16;

/// The code, without sign, of each lane, in its lowest bits.
#[inline(always)]
unsafe fn code(wide: __m512, format: &Format, tables: &Tables) -> __m512i {
    // SAFETY: the table is two vectors long; the caller's promise of the processor.
    unsafe {
        let largest = _mm512_set1_ps(f32::from_bits(format.largest));
        let finite = _mm512_range_ps::<LESSER_MAGNITUDE>(wide, largest);
        let least = _mm512_set1_epi32(format.least_normal() as i32);
        let normal = _mm512_max_epu32(_mm512_castps_si512(finite), least);
        let [first, second] = tables.grid.as_ptr().cast::<[__m512i; 2]>().read_unaligned();
        let grid = _mm512_permutex2var_epi32(first, _mm512_srli_epi32::<23>(normal), second);
        _mm512_castps_si512(_mm512_add_ps(finite, _mm512_castsi512_ps(grid)))
    }
}

/// For [`_mm512_range_ps`]: the magnitude of the operand whose magnitude is less.
const LESSER_MAGNITUDE: i32 = 0b1010;

/// The lower halves of two vectors' lanes, one of each in turn.
#[inline(always)]
unsafe fn lower_halves(even: __m512i, odd: __m512i) -> __m512i {
    // SAFETY: the caller's promise of the processor.
    unsafe { masked_or(even, _mm512_set1_epi32(!UPPER), _mm512_slli_epi32::<16>(odd)) }
}

/// The upper halves of two vectors' lanes, one of each in turn.
#[inline(always)]
unsafe fn upper_halves(even: __m512, odd: __m512) -> __m512i {
    // SAFETY: the caller's promise of the processor.
    unsafe {
        let (even, odd) = (_mm512_castps_si512(even), _mm512_castps_si512(odd));
        masked_or(odd, _mm512_set1_epi32(UPPER), _mm512_srli_epi32::<16>(even))
    }
}

/// Lanes of which some are infinite or NaN.
///
/// # Safety
/// As [`Vectors::store`].
#[cold]
#[inline(never)]
unsafe fn store_special<N: Narrow>(lanes: &[f32; CHUNK], to: *mut Unaligned<N>) {
    for (i, &wide) in lanes.iter().enumerate() {
        let (vector, lane) = (i / 16, i % 16);
        // Vectors take turns within 4 elements, those of each half of an unpacked 16.
        let element = 16 * (lane / 4) + 8 * (vector / 2) + 2 * (lane % 4) + vector % 2;
        // SAFETY: the caller's promise.
        unsafe { to.add(element).write(Unaligned(N::narrow(wide))) };
    }
}

macro_rules! fp8 {
    ($($float:ty: $format:ident, $tables:ident;)*) => {$(
        impl Vectors for $float {
            #[inline(always)]
            unsafe fn load(from: *const Unaligned<Self>) -> [__m512; 4] {
                // SAFETY: the caller's promise.
                unsafe { load_fp8(from.cast(), &$tables) }
            }

            #[inline(always)]
            unsafe fn store(lanes: [__m512; 4], to: *mut Unaligned<Self>) {
                // SAFETY: the caller's promise.
                unsafe { store_fp8(lanes, to, &$format, &$tables) }
            }
        }
    )*};
}

fp8! { F8E4M3: E4M3, E4M3_TABLES; F8E5M2: E5M2, E5M2_TABLES; }
