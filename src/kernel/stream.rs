//! Destinations that are written past the caches.
//!
//! Such stores write whole lines. So a run is cut where the first marked destination begins a line:
//!
//! ```text
//!            ...|...............|...............|...............|...      lines
//! marked          [aaaaaaaaaaaaa bbbbbbbbbbbbbbb bbbbbbbbbbbbbbb bbb]
//!                  stored         streamed                       stored
//! ```
//! A destination that begins no line with an element, or none where the first marked one does, is stored.

use super::variant::{Entry, Job, LINE};
use crate::memory::View;

/// Below so many bytes marks are not heeded: what is written stays in the nearest cache anyway.
const LEAST: usize = 4096;

/// Whether a destination is written past the caches.
#[inline(always)]
pub(super) fn heeds(to: View<'_>) -> bool {
    to.is_streamed() && to.len() >= LEAST
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
    let length = sources[0].len();
    let job = Job { destinations, sources, range: 0..length, streams: false, ranks, factor };
    if destinations.iter().any(|to| heeds(*to)) {
        // SAFETY: the caller's promise.
        unsafe { run_streamed(entry, job) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { entry(&job) }
    }
}

/// # Safety
/// As [`run`].
#[cold]
#[inline(never)]
unsafe fn run_streamed(entry: Entry, job: Job<'_>) {
    let marked = job.destinations.iter().find(|destination| destination.is_streamed());
    let head = marked.map_or(0, |marked| marked.as_ptr().addr().wrapping_neg() % LINE);
    // SAFETY: the caller's promise.
    unsafe {
        entry(&Job { range: 0..head, ..job.clone() });
        entry(&Job { range: head..job.range.end, streams: true, ..job });
    }
    fence();
}

/// Stores past the caches come before all later ones.
fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence();
    }
}
