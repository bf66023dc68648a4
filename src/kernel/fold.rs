//! The loops.
//!
//! ```text
//! two sources, one destination       d = narrow(widen(a) ⊕ widen(b)), straight through
//! else, block by block (4 KiB):      accumulators = widen(a) ⊕ widen(b)
//!                                    accumulators = accumulators ⊕ widen(c), for each further source
//!                                    d = narrow(accumulators); copied to further destinations
//! ```
//! Accumulators stay in the first-level cache: every source is read once, the result written once.
//! Loops are plain, so that the compiler vectorises them for each [`Variant`](super::Variant).

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ptr;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use super::combine::Combine;
use super::number::{Number, Wide};
use super::variant::{Job, Kernel};
use crate::memory::View;

/// Bytes of the accumulators of one block.
const BLOCK: usize = 4096;

/// An element at any address.
#[derive(Clone, Copy)]
#[repr(C, packed)]
pub(super) struct Unaligned<N: Copy>(pub(super) N);

/// Combines the sources and, with `FINISH`, divides by the number of ranks.
pub(super) struct Fold<N, O, const FINISH: bool>(PhantomData<(N, O)>);

/// Multiplies the one source by the factor.
pub(super) struct Prescale<N>(PhantomData<N>);

#[inline(always)]
fn leave<N: Number, const FINISH: bool>(wide: N::Wide, ranks: usize) -> N {
    N::narrow(if FINISH { wide.over(ranks) } else { wide })
}

impl<N: Number, O: Combine<N::Wide>, const FINISH: bool> Kernel for Fold<N, O, FINISH> {
    #[inline(always)]
    unsafe fn run(job: &Job<'_>) {
        match (job.destinations, job.sources) {
            ([destination], [a, b]) => {
                // SAFETY: the caller's promise, handed on.
                unsafe { pair::<N, O, FINISH>(*destination, *a, *b, job.ranks) }
            }
            // SAFETY: as above.
            _ => unsafe { blocks::<N, O, FINISH>(job) },
        }
    }
}

/// Two sources into one destination. In place this is another loop, since only then the compiler knows
/// that no store changes a later load. Built-in operators commute to the bit: in place has one case.
#[inline(always)]
unsafe fn pair<N: Number, O: Combine<N::Wide>, const FINISH: bool>(
    destination: View<'_>,
    a: View<'_>,
    b: View<'_>,
    ranks: usize,
) {
    let combine = |a: Unaligned<N>, b: Unaligned<N>| {
        Unaligned(leave::<N, FINISH>(O::combine({ a.0 }.widen(), { b.0 }.widen()), ranks))
    };
    let (b, other) = if destination.same_place(a) { (a, b) } else { (b, a) };
    if destination.same_place(b) && destination.same_place(other) {
        // SAFETY: writable, and nothing else is accessed.
        let into = unsafe { elements_mut::<N>(destination) };
        into.iter_mut().for_each(|d| *d = combine(*d, *d));
    } else if destination.same_place(b) {
        // SAFETY: writable and, not being the same place, apart from the other source.
        let (into, other) = unsafe { (elements_mut::<N>(destination), elements::<N>(other)) };
        into.iter_mut().zip(other).for_each(|(d, b)| *d = combine(*d, *b));
    } else {
        // SAFETY: writable and apart from both sources.
        let (into, a, b) =
            unsafe { (elements_mut::<N>(destination), elements::<N>(other), elements::<N>(b)) };
        into.iter_mut().zip(a.iter().zip(b)).for_each(|(d, (a, b))| *d = combine(*a, *b));
    }
}

/// Any number of sources and destinations, block by block.
#[inline(always)]
unsafe fn blocks<N: Number, O: Combine<N::Wide>, const FINISH: bool>(job: &Job<'_>) {
    let mut memory = Accumulators([MaybeUninit::uninit(); BLOCK]);
    let accumulators = memory.0.as_mut_ptr().cast::<MaybeUninit<N::Wide>>();
    let length = job.sources[0].len() / size_of::<N>();
    let block = BLOCK / size_of::<N::Wide>();
    let mut start = 0;
    while start < length {
        let count = block.min(length - start);
        // SAFETY: `start + count` elements lie in every view, `count` accumulators in the block; the
        // sources are read through pointers, before this block of the destinations is written.
        unsafe {
            let accumulators = from_raw_parts_mut(accumulators, count);
            gather::<N, O>(accumulators, job.sources, start);
            scatter::<N, FINISH>(accumulators, job, start);
        }
        start += count;
    }
}

/// Accumulators of a block.
#[repr(C, align(64))]
struct Accumulators([MaybeUninit<u8>; BLOCK]);

/// The sources of one block, combined from left to right; initialises every accumulator.
#[inline(always)]
unsafe fn gather<N: Number, O: Combine<N::Wide>>(
    accumulators: &mut [MaybeUninit<N::Wide>],
    sources: &[View<'_>],
    start: usize,
) {
    // SAFETY: the caller's promise: the range lies in each view.
    let at = |view: &View<'_>| unsafe { view.as_ptr().cast::<Unaligned<N>>().add(start) };
    // SAFETY: as above.
    let load = |from: *const Unaligned<N>, i: usize| unsafe { (*from.add(i)).0 }.widen();
    let rest = match sources {
        [a, b, c, rest @ ..] => {
            let (a, b, c) = (at(a), at(b), at(c));
            for (i, into) in accumulators.iter_mut().enumerate() {
                into.write(O::combine(O::combine(load(a, i), load(b, i)), load(c, i)));
            }
            rest
        }
        [a, b] => {
            let (a, b) = (at(a), at(b));
            for (i, into) in accumulators.iter_mut().enumerate() {
                into.write(O::combine(load(a, i), load(b, i)));
            }
            &[]
        }
        [a, ..] => {
            let a = at(a);
            accumulators.iter_mut().enumerate().for_each(|(i, into)| _ = into.write(load(a, i)));
            &[]
        }
        [] => &[],
    };
    for source in rest {
        let source = at(source);
        for (i, into) in accumulators.iter_mut().enumerate() {
            // SAFETY: the first sources initialised it.
            into.write(O::combine(unsafe { into.assume_init() }, load(source, i)));
        }
    }
}

/// The result of one block, to every destination. Here, and in [`pair`], is where stores that bypass the
/// caches would go.
#[inline(always)]
unsafe fn scatter<N: Number, const FINISH: bool>(
    accumulators: &[MaybeUninit<N::Wide>],
    job: &Job<'_>,
    start: usize,
) {
    // SAFETY: the caller's promise: the range lies in each view.
    let at = |view: &View<'_>| unsafe { view.as_ptr().cast::<Unaligned<N>>().add(start) };
    let Some((first, others)) = job.destinations.split_first() else { return };
    let first = at(first);
    for (i, wide) in accumulators.iter().enumerate() {
        // SAFETY: as above, and writable; `gather` initialised the accumulators.
        unsafe { first.add(i).write(Unaligned(leave::<N, FINISH>(wide.assume_init(), job.ranks))) };
    }
    for other in others {
        // SAFETY: as above.
        unsafe { ptr::copy(first, at(other), accumulators.len()) };
    }
}

impl<N: Number> Kernel for Prescale<N> {
    #[inline(always)]
    unsafe fn run(job: &Job<'_>) {
        // SAFETY: 8 bytes hold any element.
        let factor = unsafe { job.factor.as_ptr().cast::<Unaligned<N>>().read() }.0.widen();
        let scale = |a: Unaligned<N>| Unaligned(N::narrow({ a.0 }.widen().multiply(factor)));
        let (destination, source) = (job.destinations[0], job.sources[0]);
        if destination.same_place(source) {
            // SAFETY: writable, and nothing else is accessed.
            let into = unsafe { elements_mut::<N>(destination) };
            into.iter_mut().for_each(|d| *d = scale(*d));
        } else {
            // SAFETY: writable and apart from the source.
            let (into, source) = unsafe { (elements_mut::<N>(destination), elements::<N>(source)) };
            into.iter_mut().zip(source).for_each(|(d, a)| *d = scale(*a));
        }
    }
}

/// # Safety
/// Nobody writes there meanwhile.
#[inline(always)]
pub(super) unsafe fn elements<'a, N: Copy>(view: View<'a>) -> &'a [Unaligned<N>] {
    // SAFETY: the view's bytes are readable for its lifetime, and no address is misaligned.
    unsafe { from_raw_parts(view.as_ptr().cast(), view.len() / size_of::<N>()) }
}

/// # Safety
/// The view is writable, and nobody else reads or writes there meanwhile.
#[inline(always)]
pub(super) unsafe fn elements_mut<'a, N: Copy>(view: View<'a>) -> &'a mut [Unaligned<N>] {
    // SAFETY: as above, and writable.
    unsafe { from_raw_parts_mut(view.as_ptr().cast(), view.len() / size_of::<N>()) }
}
