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
//! Elements of one or two bytes are padded to a whole chunk instead: their smaller ones are not made vectors
//! of.

use std::marker::PhantomData;
use std::ptr;

use super::combine::{Combine, First};
use super::few;
use super::number::{Number, Unaligned, Walk, Wide};
use super::variant::{Isa, Job, Kernel, LINE, PairKernel};
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
        let finish = |sum: N::Wide| if FINISH { sum.over(job.ranks) } else { sum };
        // A sum goes back into its message's slot and to the output: as often as to one place.
        if let (&[to, too], &[a, b], false, true) = (job.destinations, job.sources, job.streams, I::LONG) {
            let job = Job { destinations: &[to, too], sources: &[a, b], streams: false, ..job.clone() };
            // SAFETY: the caller's promise, handed on.
            return unsafe { walk::<N, O, I>(&job, finish) };
        }
        // SAFETY: the caller's promise, handed on.
        unsafe { walk::<N, O, I>(job, finish) }
    }
}

impl<N: Number, O: Combine<N::Wide>, const FINISH: bool> PairKernel for Fold<N, O, FINISH> {
    #[inline(always)]
    unsafe fn run_pair<I: Isa>(to: *mut u8, sources: [*const u8; 2], bytes: usize, ranks: usize) {
        // SAFETY: the caller's promise, handed on. The compiler sees how many views there are.
        unsafe {
            let [a, b] = sources.map(|source| View::from_raw(source.cast_mut(), bytes));
            let to = View::from_raw(to, bytes);
            let (destinations, sources) = (&[to], &[a, b]);
            let job = Job { destinations, sources, range: 0..bytes, streams: false, ranks, factor: [0; 8] };
            Self::run::<I>(&job);
        }
    }
}

impl<N: Number> Kernel for Prescale<N> {
    #[inline(always)]
    unsafe fn run<I: Isa>(job: &Job<'_>) {
        // SAFETY: 8 bytes hold any element.
        let factor = unsafe { job.factor.as_ptr().cast::<Unaligned<N>>().read() }.0.widen();
        let finish = |contribution: N::Wide| contribution.multiply(factor);
        // SAFETY: the caller's promise, handed on.
        unsafe { walk::<N, First, I>(job, finish) }
    }
}

impl Kernel for Copy {
    #[inline(always)]
    unsafe fn run<I: Isa>(job: &Job<'_>) {
        // SAFETY: the caller's promise, handed on.
        unsafe { walk::<u8, First, I>(job, |a| a) }
    }
}

/// Every destination = finish(source ⊕ source ⊕ …).
///
/// # Safety
/// That of [`Kernel::run`].
#[inline(always)]
unsafe fn walk<N: Number, O: Combine<N::Wide>, I: Isa>(job: &Job<'_>, finish: impl Fn(N::Wide) -> N::Wide) {
    let Some((first, others)) = job.sources.split_first() else { return };
    let (start, end) = (job.range.start / size_of::<N>(), job.range.end / size_of::<N>());
    let (destinations, streams) = (job.destinations, job.streams);
    let types = PhantomData::<(N, O, I)>;
    let mut views = Views { destinations, first, others, start, end, streams, finish, types };
    // SAFETY: the caller's promise, handed on.
    unsafe { N::walk::<I>(&mut views) }
}

/// A walk through the views of a job.
struct Views<'a, N, O, I, F> {
    destinations: &'a [View<'a>],
    first: &'a View<'a>,
    others: &'a [View<'a>],
    /// The first element not yet done.
    start: usize,
    end: usize,
    streams: bool,
    finish: F,
    types: PhantomData<(N, O, I)>,
}

impl<N, O, I, F> Views<'_, N, O, I, F>
where
    N: Number,
    O: Combine<N::Wide>,
    I: Isa,
    F: Fn(N::Wide) -> N::Wide,
{
    #[inline(always)]
    fn left(&self) -> usize {
        self.end - self.start
    }

    /// Does the `LANES` elements that are left.
    ///
    /// # Safety
    /// So many are left.
    #[inline(always)]
    unsafe fn single<const LANES: usize>(&self) {
        // SAFETY: the caller's promise.
        unsafe { self.store(self.chunk::<LANES, false>(self.start), self.start) }
    }

    /// Does the first `LANES` elements that are left, and the last, which may be some of the same.
    ///
    /// # Safety
    /// At least `LANES` elements are left, and at most twice as many.
    #[inline(always)]
    unsafe fn pair<const LANES: usize>(&self) {
        let (first, last) = (self.start, self.end - LANES);
        // SAFETY: the caller's promise: so many elements are left in every view.
        unsafe {
            let (head, tail) = (self.chunk::<LANES, false>(first), self.chunk::<LANES, false>(last));
            self.store(head, first);
            self.store(tail, last);
        }
    }

    /// The result of the chunk that begins with this element, or, `PADDED`, of what is left there.
    ///
    /// # Safety
    /// `LANES` elements lie there in every view; padded, fewer, and a chunk is of few bytes.
    #[inline(always)]
    unsafe fn chunk<const LANES: usize, const PADDED: bool>(&self, start: usize) -> [N::Wide; LANES] {
        // SAFETY: the caller's promise.
        unsafe {
            let mut chunk = self.load::<LANES, PADDED>(self.first, start);
            for other in one_by_one(self.others) {
                chunk = O::combine_all::<I, LANES>(chunk, self.load::<LANES, PADDED>(other, start));
            }
            for lane in &mut chunk {
                *lane = (self.finish)(*lane);
            }
            chunk
        }
    }

    /// # Safety
    /// As [`chunk`](Self::chunk), in this view.
    #[inline(always)]
    unsafe fn load<const LANES: usize, const PADDED: bool>(
        &self,
        view: &View<'_>,
        start: usize,
    ) -> [N::Wide; LANES] {
        // SAFETY: the caller's promise.
        unsafe {
            let from = view.as_ptr().cast::<Unaligned<N>>().add(start);
            if PADDED {
                let bytes = I::read_few(from.cast(), (self.end - start) * size_of::<N>());
                N::load::<I, LANES>(bytes.as_ptr().cast())
            } else {
                N::load::<I, LANES>(from)
            }
        }
    }

    /// Writes a chunk to all destinations: narrowed once.
    ///
    /// # Safety
    /// As [`chunk`](Self::chunk), and writable.
    #[inline(always)]
    unsafe fn store<const LANES: usize>(&self, chunk: [N::Wide; LANES], start: usize) {
        // SAFETY: the caller's promise; `lines` are large enough for the largest chunk.
        unsafe {
            if let ([destination], false) = (self.destinations, self.streams) {
                return N::store::<I, LANES>(chunk, destination.as_ptr().cast::<Unaligned<N>>().add(start));
            }
            let mut lines = [[0u8; LINE]; 8];
            N::pack::<I, LANES>(chunk, lines.as_mut_ptr().cast());
            let bytes = LANES * size_of::<N>();
            for destination in one_by_one(self.destinations) {
                let to = destination.as_ptr().add(start * size_of::<N>());
                if !bytes.is_multiple_of(LINE) {
                    ptr::copy_nonoverlapping(lines.as_ptr().cast(), to, bytes);
                } else if self.streams && destination.is_streamed() && to.addr().is_multiple_of(LINE) {
                    for (i, line) in lines.into_iter().enumerate().take(bytes / LINE) {
                        I::stream(line, to.add(i * LINE));
                    }
                } else {
                    for (i, line) in lines.into_iter().enumerate().take(bytes / LINE) {
                        to.add(i * LINE).cast::<[u8; LINE]>().write(line);
                    }
                }
            }
        }
    }
}

/// The views, in a loop that is not unrolled: eight times the code, and each turn is long enough.
#[inline(always)]
fn one_by_one<'a>(views: &'a [View<'a>]) -> impl Iterator<Item = &'a View<'a>> {
    let mut left = views;
    std::iter::from_fn(move || {
        let (first, others) = left.split_first()?;
        left = others;
        if left.len() > 1 {
            std::hint::black_box(());
        }
        Some(first)
    })
}

impl<N, O, I, F> Walk for Views<'_, N, O, I, F>
where
    N: Number,
    O: Combine<N::Wide>,
    I: Isa,
    F: Fn(N::Wide) -> N::Wide,
{
    #[inline(always)]
    unsafe fn chunks<const LANES: usize>(&mut self) {
        let mut start = self.start;
        while self.end - start >= LANES {
            // SAFETY: so many elements are left in every view.
            unsafe { self.store(self.chunk::<LANES, false>(start), start) };
            start += LANES;
        }
        self.start = start;
    }

    #[inline(always)]
    unsafe fn ends(&self) {
        // SAFETY: the caller's promise; so many are left.
        unsafe {
            match self.left() {
                0 => {}
                1 => self.single::<1>(),
                2 => self.single::<2>(),
                3 => self.pair::<2>(),
                4 => self.single::<4>(),
                5..8 => self.pair::<4>(),
                8 => self.single::<8>(),
                _ => self.pair::<8>(),
            }
        }
    }

    #[inline(always)]
    unsafe fn padded<const LANES: usize>(&self) {
        if self.left() == 0 {
            return;
        }
        let mut padded = [0; few::MOST];
        // SAFETY: the caller's promise.
        unsafe {
            let chunk = self.chunk::<LANES, true>(self.start);
            N::store::<I, LANES>(chunk, padded.as_mut_ptr().cast());
            for destination in self.destinations {
                let to = destination.as_ptr().add(self.start * size_of::<N>());
                I::write_few(&padded, to, self.left() * size_of::<N>());
            }
        }
    }
}
