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

use std::marker::PhantomData;

use super::combine::Combine;
use super::number::{Chunks, Number, Unaligned, Wide};
use super::variant::{Isa, Job, Kernel};
use crate::memory::View;

/// Combines the sources and, with `FINISH`, divides by the number of ranks.
pub(super) struct Fold<N, O, const FINISH: bool>(PhantomData<(N, O)>);

/// Multiplies the one source by the factor.
pub(super) struct Prescale<N>(PhantomData<N>);

impl<N: Number, O: Combine<N::Wide>, const FINISH: bool> Kernel for Fold<N, O, FINISH> {
    #[inline(always)]
    unsafe fn run<I: Isa>(job: &Job<'_>) {
        let combine = |a, b| O::combine(a, b);
        let finish = |sum: N::Wide| if FINISH { sum.over(job.ranks) } else { sum };
        if let (&[to], &[a, b]) = (job.destinations, job.sources) {
            // The most common arity gets loops of its own, which pays in small messages.
            // SAFETY: the caller's promise, handed on.
            return unsafe { stream::<N, I>(&[to], &[a, b], combine, finish) };
        }
        // SAFETY: the caller's promise, handed on.
        unsafe { stream::<N, I>(job.destinations, job.sources, combine, finish) }
    }
}

impl<N: Number> Kernel for Prescale<N> {
    #[inline(always)]
    unsafe fn run<I: Isa>(job: &Job<'_>) {
        // SAFETY: 8 bytes hold any element.
        let factor = unsafe { job.factor.as_ptr().cast::<Unaligned<N>>().read() }.0.widen();
        let combine = |a, _| a;
        let finish = |contribution: N::Wide| contribution.multiply(factor);
        // SAFETY: the caller's promise, handed on.
        unsafe { stream::<N, I>(job.destinations, job.sources, combine, finish) }
    }
}

/// Every destination = finish(source ⊕ source ⊕ …).
///
/// # Safety
/// That of [`Kernel::run`].
#[inline(always)]
unsafe fn stream<N: Number, I: Isa>(
    destinations: &[View<'_>],
    sources: &[View<'_>],
    combine: impl Fn(N::Wide, N::Wide) -> N::Wide,
    finish: impl Fn(N::Wide) -> N::Wide,
) {
    let Some((first, others)) = sources.split_first() else { return };
    let types = PhantomData::<(N, I)>;
    let mut stream = Stream { destinations, first, others, start: 0, combine, finish, types };
    // SAFETY: the caller's promise, handed on.
    unsafe { N::in_chunks(&mut stream) }
}

/// A walk through the views of a job.
struct Stream<'a, N, I, C, F> {
    destinations: &'a [View<'a>],
    first: &'a View<'a>,
    others: &'a [View<'a>],
    /// The first element not yet done.
    start: usize,
    combine: C,
    finish: F,
    types: PhantomData<(N, I)>,
}

impl<N, I, C, F> Chunks<N> for Stream<'_, N, I, C, F>
where
    N: Number,
    I: Isa,
    C: Fn(N::Wide, N::Wide) -> N::Wide,
    F: Fn(N::Wide) -> N::Wide,
{
    #[inline(always)]
    unsafe fn walk<const LANES: usize>(&mut self) {
        let &mut Self { destinations, first, others, mut start, .. } = self;
        let length = first.len() / size_of::<N>();
        // SAFETY: `start + LANES` elements lie in every view.
        let at = |view: &View<'_>, start| unsafe { view.as_ptr().cast::<Unaligned<N>>().add(start) };
        while length - start >= LANES {
            // SAFETY: as above, readable.
            let mut chunk = unsafe { N::load::<I, LANES>(at(first, start)) };
            for other in others {
                // SAFETY: as above.
                let lanes = unsafe { N::load::<I, LANES>(at(other, start)) };
                for i in 0..LANES {
                    chunk[i] = (self.combine)(chunk[i], lanes[i]);
                }
            }
            for lane in &mut chunk {
                *lane = (self.finish)(*lane);
            }
            for destination in destinations {
                // SAFETY: as above, and writable. Stores that bypass the caches would go here.
                unsafe { N::store::<I, LANES>(chunk, at(destination, start)) };
            }
            start += LANES;
        }
        self.start = start;
    }
}
