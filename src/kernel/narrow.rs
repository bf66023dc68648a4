//! Narrow floats, widened to f32 while they are combined.
//!
//! Elements are taken out of 32-bit words by shifts, and a chunk's lanes are those of all words' lowest
//! bits first: that costs less than to spread and pack elements in their order.
//!
//! ```text
//! memory   b1 a1 | b2 a2 | b3 a3 | ...        lanes   a1 a2 a3 ... b1 b2 b3 ...
//! ```

#[cfg(target_arch = "x86_64")]
use super::avx512;
use super::number::{Number, Unaligned, Walk};
use super::variant::Isa;
use crate::dtype::narrow::Narrow;
use crate::dtype::{Dtype, Element, F8E4M3, F8E5M2, bf16, f16};

/// Lanes of a whole chunk. Vectors are made of no fewer, unless by hand.
pub(super) const CHUNK: usize = 64;

/// # Safety
/// `LANES` elements can be read there.
#[inline(always)]
unsafe fn load<N: Narrow, const LANES: usize>(from: *const Unaligned<N>) -> [f32; LANES] {
    let per_word = 4 / size_of::<N>();
    let mut chunk = [0.0; LANES];
    if LANES < per_word {
        for (i, lane) in chunk.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *lane = unsafe { from.add(i).read() }.0.widen();
        }
        return chunk;
    }
    let words = LANES / per_word;
    for part in 0..per_word {
        for i in 0..words {
            // SAFETY: the caller's promise.
            let word = unsafe { from.cast::<u32>().add(i).read_unaligned() };
            chunk[part * words + i] = N::from_low(word >> (part as u32 * N::BITS)).widen();
        }
    }
    chunk
}

/// # Safety
/// `LANES` elements can be written there.
#[inline(always)]
unsafe fn store<N: Narrow, const LANES: usize>(chunk: &[f32; LANES], to: *mut Unaligned<N>) {
    let per_word = 4 / size_of::<N>();
    if LANES < per_word {
        for (i, &lane) in chunk.iter().enumerate() {
            // SAFETY: the caller's promise.
            unsafe { to.add(i).write(Unaligned(N::narrow(lane))) };
        }
        return;
    }
    let words = LANES / per_word;
    for i in 0..words {
        let part = |part| N::narrow(chunk[part * words + i]).low() << (part as u32 * N::BITS);
        let word = (0..per_word).fold(0, |word, i| word | part(i));
        // SAFETY: the caller's promise.
        unsafe { to.cast::<u32>().add(i).write_unaligned(word) };
    }
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
            unsafe fn load<I: Isa, const LANES: usize>(from: *const Unaligned<Self>) -> [f32; LANES] {
                #[cfg(target_arch = "x86_64")]
                if I::AVX512 && LANES == CHUNK {
                    // SAFETY: the caller's promise.
                    return avx512::lanes(unsafe { avx512::Vectors::load(from) });
                } else if I::F16C && Self::DTYPE == Dtype::F16 && LANES.is_multiple_of(8) {
                    // SAFETY: the caller's promise.
                    return unsafe { f16c::load(from.cast()) };
                }
                // SAFETY: the caller's promise.
                unsafe { load(from) }
            }

            #[inline(always)]
            unsafe fn store<I: Isa, const LANES: usize>(chunk: [f32; LANES], to: *mut Unaligned<Self>) {
                #[cfg(target_arch = "x86_64")]
                if I::AVX512 && LANES == CHUNK {
                    // SAFETY: the caller's promise.
                    return unsafe { avx512::Vectors::store(avx512::vectors(chunk), to) };
                } else if I::F16C && Self::DTYPE == Dtype::F16 && LANES.is_multiple_of(8) {
                    // SAFETY: the caller's promise.
                    return unsafe { f16c::store(chunk, to.cast()) };
                }
                // SAFETY: the caller's promise.
                unsafe { store(&chunk, to) }
            }

            #[inline(always)]
            unsafe fn pack<I: Isa, const LANES: usize>(chunk: [f32; LANES], to: *mut Unaligned<Self>) {
                #[cfg(target_arch = "x86_64")]
                if I::AVX512 && LANES == CHUNK {
                    // SAFETY: the caller's promise.
                    return unsafe { avx512::Vectors::pack(avx512::vectors(chunk), to) };
                }
                // SAFETY: the caller's promise.
                unsafe { Self::store::<I, LANES>(chunk, to) }
            }

            #[inline(always)]
            unsafe fn walk<I: Isa>(walk: &mut impl Walk) {
                // SAFETY: the caller's promise.
                unsafe {
                    if I::LONG {
                        walk.chunks::<CHUNK>();
                    }
                    if I::AVX512 {
                        walk.padded::<CHUNK>();
                    } else {
                        walk.chunks::<8>();
                        walk.ends();
                    }
                }
            }
        }
    )*};
}

narrow! { f16, bf16, F8E4M3, F8E5M2 }

/// f16 where the processor converts it. The same bits: conversions are exact, or rounded to even; NaN is
/// made canonical before.
#[cfg(target_arch = "x86_64")]
mod f16c {
    use std::arch::x86_64::{__m128i, __m256, _MM_FROUND_TO_NEAREST_INT, _mm256_cvtph_ps, _mm256_cvtps_ph};

    /// # Safety
    /// `LANES` elements can be read there; the processor has F16C.
    #[inline(always)]
    pub(super) unsafe fn load<const LANES: usize>(from: *const u16) -> [f32; LANES] {
        let mut chunk = [0.0; LANES];
        for i in (0..LANES).step_by(8) {
            // SAFETY: the caller's promise.
            unsafe {
                let eight = from.add(i).cast::<__m128i>().read_unaligned();
                chunk.as_mut_ptr().add(i).cast::<__m256>().write_unaligned(_mm256_cvtph_ps(eight));
            }
        }
        chunk
    }

    /// # Safety
    /// `LANES` elements can be written there; the processor has F16C.
    #[inline(always)]
    pub(super) unsafe fn store<const LANES: usize>(mut chunk: [f32; LANES], to: *mut u16) {
        for lane in &mut chunk {
            *lane = if lane.is_nan() { f32::from_bits(0x7fc0_0000) } else { *lane };
        }
        for i in (0..LANES).step_by(8) {
            // SAFETY: the caller's promise.
            unsafe {
                let eight = chunk.as_ptr().add(i).cast::<__m256>().read_unaligned();
                let eight = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(eight);
                to.add(i).cast::<__m128i>().write_unaligned(eight);
            }
        }
    }
}
