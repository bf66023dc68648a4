//! The loops.
//!
//! ```text
//!                 ┌ 256 bytes ┐
//! source 0   .....[aaaaaaaaaaa].....   widen           ┐
//! source 1   .....[bbbbbbbbbbb].....   widen, combine  ├ in registers
//! source n   .....[nnnnnnnnnnn].....   widen, combine  ┘
//! each dest. .....[ddddddddddd].....   finish, narrow
//! ```
//! So every source is read once, every destination written once, whatever their number; and as a chunk
//! is read from all sources before it is written, a destination may be the place of any source.
//! The loops over a chunk's lanes have a constant length: the compiler makes straight vector code of
//! them, for each [`Variant`](super::Variant).
//!
//! What is left at the end, less than a chunk, is done without a loop: as two smaller chunks that may
//! overlap, both combined before either is written.
//!
//! ```text
//! left   [.............]
//! first  [aaaaaaaa]
//! last        [zzzzzzzz]
//! ```
//! Narrow floats, which cost more by the element than by the chunk, are padded to a whole one instead.

use std::marker::PhantomData;

use super::combine::Combine;
use super::few;
use super::number::{Number, Unaligned, Walk, Wide};
use super::variant::{Isa, Job, Kernel, LINE};
use crate::memory::View;

/// Combines the sources and, with `FINISH`, divides by the number of ranks.
pub(super) struct Fold<N, O, const FINISH: bool>(PhantomData<(N, O)>);

/// Multiplies the one source by the factor.
pub(super) struct Prescale<N>(PhantomData<N>);

/// Writes the first source to every destination.
pub(super) struct Copy;

impl<N: Number, O: Combine<N::Wide>, const FINISH: bool> Kernel for Fold<N, O, FINISH> {
    #[inline(always)]
    unsafe fn run<I: Isa>(job: &Job<'_>) {
        let combine = |a, b| O::combine(a, b);
        let finish = |sum: N::Wide| if FINISH { sum.over(job.ranks) } else { sum };
        // The most common arity gets loops of its own, which pays in small messages.
        if let (&[to], &[a, b], false) = (job.destinations, job.sources, job.streams) {
            let job = Job { destinations: &[to], sources: &[a, b], streams: false, ..job.clone() };
            // SAFETY: the caller's promise, handed on.
            return unsafe { walk::<N, I>(&job, combine, finish) };
        }
        // SAFETY: the caller's promise, handed on.
        unsafe { walk::<N, I>(job, combine, finish) }
    }
}

impl<N: Number> Kernel for Prescale<N> {
    #[inline(always)]
    unsafe fn run<I: Isa>(job: &Job<'_>) {
        // SAFETY: 8 bytes hold any element.
        let factor = unsafe { job.factor.as_ptr().cast::<Unaligned<N>>().read() }.0.widen();
        let finish = |contribution: N::Wide| contribution.multiply(factor);
        // SAFETY: the caller's promise, handed on.
        unsafe { walk::<N, I>(job, |a, _| a, finish) }
    }
}

impl Kernel for Copy {
    #[inline(always)]
    unsafe fn run<I: Isa>(job: &Job<'_>) {
        // SAFETY: the caller's promise, handed on.
        unsafe { walk::<u8, I>(job, |a, _| a, |a| a) }
    }
}

/// Every destination = finish(source ⊕ source ⊕ …).
///
/// # Safety
/// That of [`Kernel::run`].
#[inline(always)]
unsafe fn walk<N: Number, I: Isa>(
    job: &Job<'_>,
    combine: impl Fn(N::Wide, N::Wide) -> N::Wide,
    finish: impl Fn(N::Wide) -> N::Wide,
) {
    let Some((first, others)) = job.sources.split_first() else { return };
    let (start, end) = (job.range.start / size_of::<N>(), job.range.end / size_of::<N>());
    let (destinations, streams) = (job.destinations, job.streams);
    let types = PhantomData::<(N, I)>;
    let mut views = Views { destinations, first, others, start, end, streams, combine, finish, types };
    // SAFETY: the caller's promise, handed on.
    unsafe { N::walk(&mut views) }
}

/// A walk through the views of a job.
struct Views<'a, N, I, C, F> {
    destinations: &'a [View<'a>],
    first: &'a View<'a>,
    others: &'a [View<'a>],
    /// The first element not yet done.
    start: usize,
    end: usize,
    streams: bool,
    combine: C,
    finish: F,
    types: PhantomData<(N, I)>,
}

impl<N, I, C, F> Views<'_, N, I, C, F>
where
    N: Number,
    I: Isa,
    C: Fn(N::Wide, N::Wide) -> N::Wide,
    F: Fn(N::Wide) -> N::Wide,
{
    /// The result of a chunk whose place in each source is given.
    ///
    /// # Safety
    /// `LANES` elements can be read there.
    #[inline(always)]
    unsafe fn combined<const LANES: usize>(
        &self,
        mut at: impl FnMut(&View<'_>) -> *const Unaligned<N>,
    ) -> [N::Wide; LANES] {
        // SAFETY: the caller's promise.
        let mut chunk = unsafe { N::load::<I, LANES>(at(self.first)) };
        for other in self.others {
            // SAFETY: the caller's promise.
            let lanes = unsafe { N::load::<I, LANES>(at(other)) };
            for i in 0..LANES {
                chunk[i] = (self.combine)(chunk[i], lanes[i]);
            }
        }
        chunk.map(|lane| (self.finish)(lane))
    }

    /// The result of the chunk that begins with this element.
    ///
    /// # Safety
    /// `LANES` elements lie there in every view.
    #[inline(always)]
    unsafe fn chunk<const LANES: usize>(&self, start: usize) -> [N::Wide; LANES] {
        // SAFETY: the caller's promise.
        unsafe { self.combined(|view| view.as_ptr().cast::<Unaligned<N>>().add(start).cast_const()) }
    }

    /// Writes a chunk to all destinations.
    ///
    /// # Safety
    /// As [`chunk`](Self::chunk), and writable.
    #[inline(always)]
    unsafe fn store<const LANES: usize>(&self, chunk: [N::Wide; LANES], start: usize) {
        for destination in self.destinations {
            // SAFETY: the caller's promise.
            unsafe {
                let to = destination.as_ptr().cast::<Unaligned<N>>().add(start);
                // What is left at the end fills no line.
                let whole = LANES * size_of::<N>() >= LINE && to.addr().is_multiple_of(LINE);
                if self.streams && destination.is_streamed() && whole {
                    stream::<N, I, LANES>(chunk, to);
                } else {
                    N::store::<I, LANES>(chunk, to);
                }
            }
        }
    }
}

/// Writes a chunk past the caches.
///
/// # Safety
/// As [`Number::store`]; the chunk consists of whole lines, and the address is a line's.
#[inline(always)]
unsafe fn stream<N: Number, I: Isa, const LANES: usize>(chunk: [N::Wide; LANES], to: *mut Unaligned<N>) {
    let mut lines = [[0u8; LINE]; 8];
    let count = LANES * size_of::<N>() / LINE;
    debug_assert!(count <= lines.len() && LANES * size_of::<N>() % LINE == 0);
    // SAFETY: `lines` are large enough for the largest chunk; the rest is the caller's promise.
    unsafe {
        N::store::<I, LANES>(chunk, lines.as_mut_ptr().cast());
        for i in 0..count {
            I::stream(lines[i], to.cast::<[u8; LINE]>().add(i).cast());
        }
    }
}

impl<N, I, C, F> Walk for Views<'_, N, I, C, F>
where
    N: Number,
    I: Isa,
    C: Fn(N::Wide, N::Wide) -> N::Wide,
    F: Fn(N::Wide) -> N::Wide,
{
    #[inline(always)]
    fn left(&self) -> usize {
        self.end - self.start
    }

    #[inline(always)]
    unsafe fn chunks<const LANES: usize>(&mut self) {
        let mut start = self.start;
        while self.end - start >= LANES {
            // SAFETY: so many elements are left in every view.
            unsafe { self.store(self.chunk::<LANES>(start), start) };
            start += LANES;
        }
        self.start = start;
    }

    #[inline(always)]
    unsafe fn ends<const LANES: usize>(&self) {
        let (first, last) = (self.start, self.end - LANES);
        // SAFETY: the caller's promise: so many elements are left in every view.
        unsafe {
            let (head, tail) = (self.chunk::<LANES>(first), self.chunk::<LANES>(last));
            self.store(head, first);
            self.store(tail, last);
        }
    }

    #[inline(always)]
    unsafe fn padded<const LANES: usize>(&self) {
        let bytes = self.left() * size_of::<N>();
        let mut padded = [0u8; few::MOST];
        let at = padded.as_mut_ptr();
        // SAFETY: the caller's promise: a chunk, and so what is left, fits into `padded`.
        unsafe {
            let start = |view: &View<'_>| view.as_ptr().add(self.start * size_of::<N>());
            let chunk = self.combined::<LANES>(|view| {
                few::copy(start(view), at, bytes);
                at.cast_const().cast()
            });
            N::store::<I, LANES>(chunk, at.cast());
            for destination in self.destinations {
                few::copy(at, start(destination), bytes);
            }
        }
    }
}
