//! How views are marked to be treated: sources that are claimed are destinations, too; some destinations are
//! written past the caches.
//!
//! Stores past the caches write whole lines. So a run is cut where the first marked destination begins a line:
//!
//! ```text
//!            ...|...............|...............|...............|...      lines
//! marked          [aaaaaaaaaaaaa bbbbbbbbbbbbbbb bbbbbbbbbbbbbbb bbb]
//!                  stored         streamed                       stored
//! ```
//! A destination that begins no line with an element, or none where the first marked one does, is stored.

use smallvec::SmallVec;

use super::variant::{Entry, Job, LINE};
use crate::memory::View;

/// Below so many bytes marks are not heeded: what is written stays in the nearest cache anyway.
const LEAST: usize = 4096;

/// Whether a destination is written past the caches.
#[inline(always)]
fn heeds(to: View<'_>) -> bool {
    to.is_streamed() && to.len() >= LEAST
}

/// How many bytes of a destination to write at a time, when several are written in turns: so few that they meet in
/// what a core has on its way, and as many as marks are heeded for; up to where a line begins.
pub(super) fn block(to: View<'_>) -> usize {
    let head = to.as_ptr().addr().wrapping_neg() % LINE;
    (LEAST + head).min(to.len())
}

/// Runs a kernel over whole views.
///
/// # Safety
/// That of [`Kernel::run`](super::variant::Kernel::run); the kernel's variant runs here.
#[inline(always)]
pub(super) unsafe fn run(
    entry: Entry,
    destinations: &[View<'_>],
    sources: &[View<'_>],
    ranks: usize,
    factor: [u8; 8],
) {
    let plain = |views: &[View<'_>]| views.iter().all(|view| view.is_plain());
    let job = Job { destinations, sources, range: 0..sources[0].len(), streams: false, ranks, factor };
    if plain(destinations) && plain(sources) {
        // SAFETY: the caller's promise.
        unsafe { entry(&job) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { run_marked(entry, job) };
        fence();
    }
}

/// Runs a kernel over views that may be marked. What is written past the caches comes before later stores only
/// after a [`fence`].
///
/// # Safety
/// As [`run`].
#[cold]
#[inline(never)]
pub(super) unsafe fn run_marked(entry: Entry, job: Job<'_>) {
    let destinations = &with_claimed(job.destinations, job.sources);
    let job = Job { destinations, ..job };
    match destinations.iter().find(|to| heeds(**to)) {
        // SAFETY: the caller's promise; claimed sources may be written.
        Some(streamed) => unsafe { run_streamed(entry, job, *streamed) },
        // SAFETY: as above.
        None => unsafe { entry(&job) },
    }
}

/// The destinations, and the claimed sources that are none yet.
fn with_claimed<'a>(destinations: &[View<'a>], sources: &[View<'a>]) -> SmallVec<[View<'a>; 8]> {
    let is_new = |source: &&View<'_>| {
        source.is_claimed() && source.is_writable() && !destinations.iter().any(|to| to.same_place(**source))
    };
    destinations.iter().chain(sources.iter().filter(is_new)).copied().collect()
}

/// # Safety
/// As [`run`].
unsafe fn run_streamed(entry: Entry, job: Job<'_>, first: View<'_>) {
    let head = first.as_ptr().addr().wrapping_neg() % LINE;
    // SAFETY: the caller's promise.
    unsafe {
        entry(&Job { range: 0..head, ..job.clone() });
        entry(&Job { range: head..job.range.end, streams: true, ..job });
    }
}

/// Stores past the caches come before all later ones.
pub(super) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
