//! The same loops, compiled for several generations of processors.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64;
use std::fmt;
#[cfg(target_arch = "x86_64")]
use std::mem;
use std::ops::Range;

use super::few;
use crate::memory::View;

/// What one run of a kernel works on.
#[derive(Clone)]
pub(super) struct Job<'a> {
    pub(super) destinations: &'a [View<'a>],
    /// At least one. All views have the length of the first.
    pub(super) sources: &'a [View<'a>],
    /// The bytes of every view that this run is about: whole elements.
    pub(super) range: Range<usize>,
    /// Whether destinations that are marked so are written past the caches.
    pub(super) streams: bool,
    /// What an average divides by.
    pub(super) ranks: usize,
    /// What a prescale multiplies by: the first bytes, as an element.
    pub(super) factor: [u8; 8],
}

/// A loop over a job.
pub(super) trait Kernel {
    /// # Safety
    /// The views are what [`Job`] promises; destinations are writable; a destination is the very place
    /// of a source or apart from it.
    unsafe fn run<I: Isa>(job: &Job<'_>);
}

/// A kernel that has loops of its own for the most common job: one destination, two sources. Its
/// arguments stay in registers, which pays in small messages.
pub(super) trait PairKernel: Kernel {
    /// # Safety
    /// As [`Kernel::run`]: each is so many bytes long.
    unsafe fn run_pair<I: Isa>(to: *mut u8, sources: [*const u8; 2], bytes: usize, ranks: usize);
}

/// What kind of processor a kernel is compiled for, as a type.
pub(super) trait Isa {
    /// Whether it converts f16.
    const F16C: bool = false;
    /// Whether it has what [`Variant::Avx512`] asks for.
    const AVX512: bool = false;
    /// Whether long chunks are worth their code: not for the few processors that no better variant serves.
    const LONG: bool = true;

    /// Some bytes, and zeros.
    ///
    /// # Safety
    /// `count` is at most [`few::MOST`]; so many bytes can be read there; the processor is of that kind.
    #[inline(always)]
    unsafe fn read_few(from: *const u8, count: usize) -> [u8; few::MOST] {
        let mut bytes = [0; few::MOST];
        // SAFETY: the caller's promise.
        unsafe { few::copy(from, bytes.as_mut_ptr(), count) };
        bytes
    }

    /// Writes the first of these bytes.
    ///
    /// # Safety
    /// As [`read_few`](Self::read_few), and writable.
    #[inline(always)]
    unsafe fn write_few(bytes: &[u8; few::MOST], to: *mut u8, count: usize) {
        // SAFETY: the caller's promise.
        unsafe { few::copy(bytes.as_ptr(), to, count) };
    }

    /// Writes a line past the caches, where the processor can.
    ///
    /// # Safety
    /// `to` is a multiple of [`LINE`] and writable; the processor is of that kind.
    #[inline(always)]
    unsafe fn stream(line: [u8; LINE], to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[u8; LINE]>().write(line) }
    }
}

/// Bytes of a cache line, as far as stores past the caches are concerned.
pub(super) const LINE: usize = 64;

struct Plain;

impl Isa for Plain {
    const LONG: bool = Variant::ALL.len() == 1;

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn stream(line: [u8; LINE], to: *mut u8) {
        // SAFETY: SSE2 is part of x86-64; the rest is the caller's promise.
        unsafe {
            let quarters: [x86_64::__m128i; 4] = mem::transmute(line);
            for (i, quarter) in quarters.into_iter().enumerate() {
                x86_64::_mm_stream_si128(to.cast::<x86_64::__m128i>().add(i), quarter);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct Avx2;

#[cfg(target_arch = "x86_64")]
impl Isa for Avx2 {
    const F16C: bool = true;

    #[inline(always)]
    unsafe fn stream(line: [u8; LINE], to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe {
            let [low, high]: [x86_64::__m256i; 2] = mem::transmute(line);
            x86_64::_mm256_stream_si256(to.cast(), low);
            x86_64::_mm256_stream_si256(to.add(LINE / 2).cast(), high);
        }
    }
}

#[cfg(target_arch = "x86_64")]
struct Avx512;

#[cfg(target_arch = "x86_64")]
impl Isa for Avx512 {
    const F16C: bool = true;
    const AVX512: bool = true;

    #[inline(always)]
    unsafe fn read_few(from: *const u8, count: usize) -> [u8; few::MOST] {
        let [low, high] = masks(count);
        // SAFETY: the caller's promise; what a mask leaves out is not touched.
        unsafe {
            mem::transmute([
                x86_64::_mm512_maskz_loadu_epi8(low, from.cast()),
                x86_64::_mm512_maskz_loadu_epi8(high, from.wrapping_add(LINE).cast()),
            ])
        }
    }

    #[inline(always)]
    unsafe fn write_few(bytes: &[u8; few::MOST], to: *mut u8, count: usize) {
        let [low, high] = masks(count);
        // SAFETY: the caller's promise; what a mask leaves out is not touched.
        unsafe {
            let vectors: [x86_64::__m512i; 2] = mem::transmute(*bytes);
            x86_64::_mm512_mask_storeu_epi8(to.cast(), low, vectors[0]);
            x86_64::_mm512_mask_storeu_epi8(to.wrapping_add(LINE).cast(), high, vectors[1]);
        }
    }

    #[inline(always)]
    unsafe fn stream(line: [u8; LINE], to: *mut u8) {
        // SAFETY: the caller's promise.
        unsafe { x86_64::_mm512_stream_si512(to.cast(), mem::transmute::<[u8; LINE], x86_64::__m512i>(line)) }
    }
}

/// The first `count` of 128 bytes.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn masks(count: usize) -> [u64; 2] {
    let all = if count < few::MOST { (1u128 << count) - 1 } else { u128::MAX };
    [all as u64, (all >> 64) as u64]
}

/// A kernel compiled for one variant.
pub(super) type Entry = unsafe fn(&Job<'_>);

/// A kernel with its loops for one destination and two sources, compiled for one variant.
#[derive(Clone, Copy)]
pub(super) struct Entries {
    pub(super) any: Entry,
    /// Of the destination, the two sources, their length in bytes, and the number of ranks.
    pub(super) pair: unsafe fn(*mut u8, *const u8, *const u8, usize, usize),
}

/// For which processors a kernel is compiled. All variants give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Any processor of the target.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// x86-64 with AVX-512 F, BW, DQ, VL, VBMI: since Ice Lake and Zen 4. Earlier ones lower their clock for
    /// vectors of 64 bytes, and serve better as [`Avx2`](Self::Avx2).
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Variant {
    /// Every variant that was compiled, from plain to wide.
    pub const ALL: &[Self] = &[
        Self::Portable,
        #[cfg(target_arch = "x86_64")]
        Self::Avx2,
        #[cfg(target_arch = "x86_64")]
        Self::Avx512,
    ];

    /// The widest that this processor runs.
    pub fn best() -> Self {
        Self::ALL.iter().rev().copied().find(|variant| variant.runs_here()).unwrap_or(Self::Portable)
    }

    /// Whether this processor runs it.
    pub fn runs_here(self) -> bool {
        #[cfg(target_arch = "x86_64")]
        let avx2 = || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
        };
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                avx2()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512vbmi")
            }
        }
    }

    /// The kernel, compiled for this variant; to be called only where [`runs_here`](Self::runs_here).
    pub(super) fn entry<K: Kernel>(self) -> Entry {
        match self {
            Self::Portable => K::run::<Plain>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::<K>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::<K>,
        }
    }

    /// As [`entry`](Self::entry).
    pub(super) fn entries<K: PairKernel>(self) -> Entries {
        let pair = match self {
            Self::Portable => portable_pair::<K>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2_pair::<K>,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512_pair::<K>,
        };
        Entries { any: self.entry::<K>(), pair }
    }
}

impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => "AVX2",
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => "AVX-512",
        })
    }
}

unsafe fn portable_pair<K: PairKernel>(to: *mut u8, a: *const u8, b: *const u8, bytes: usize, ranks: usize) {
    // SAFETY: the caller's promise.
    unsafe { K::run_pair::<Plain>(to, [a, b], bytes, ranks) }
}

/// The functions of a variant, with its processors' features.
macro_rules! compiled {
    ($isa:ident, $features:literal, $any:ident, $pair:ident) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $any<K: Kernel>(job: &Job<'_>) {
            // SAFETY: the caller's promise.
            unsafe { K::run::<$isa>(job) }
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = $features)]
        unsafe fn $pair<K: PairKernel>(to: *mut u8, a: *const u8, b: *const u8, bytes: usize, ranks: usize) {
            // SAFETY: the caller's promise.
            unsafe { K::run_pair::<$isa>(to, [a, b], bytes, ranks) }
        }
    };
}

compiled!(Avx2, "avx2,fma,f16c", avx2, avx2_pair);
compiled!(Avx512, "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi", avx512, avx512_pair);
