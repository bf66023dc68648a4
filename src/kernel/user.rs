//! Operators that the caller wrote.

use super::number::Unaligned;
use crate::dtype::Element;
use crate::memory::View;
use crate::op::UserOp;

/// A caller's operator, its element type erased.
pub(super) trait Combiner: Send + Sync {
    /// Combines the sources from left to right, element by element.
    ///
    /// # Safety
    /// All views have the same length, a multiple of the element's; destinations are writable, and each
    /// is the very place of a source or apart from it.
    unsafe fn fold(&self, destinations: &[View<'_>], sources: &[View<'_>]);
}

impl<T: Element> Combiner for UserOp<T> {
    unsafe fn fold(&self, destinations: &[View<'_>], sources: &[View<'_>]) {
        let Some((first, rest)) = sources.split_first() else { return };
        for i in 0..first.len() / size_of::<T>() {
            // SAFETY: the caller's promise: every view has an element `i`, at any address.
            let at = |view: &View<'_>| unsafe { view.as_ptr().cast::<Unaligned<T>>().add(i) };
            // SAFETY: as above.
            let load = |view: &View<'_>| unsafe { at(view).read() }.0;
            let result = rest.iter().fold(load(first), |a, b| (self.combine)(a, load(b)));
            for destination in destinations {
                // SAFETY: as above, and writable.
                unsafe { at(destination).write(Unaligned(result)) };
            }
        }
    }
}
