//! Memory of the engine's own.

use std::alloc::{Layout, alloc_zeroed};

use super::View;

/// Bytes on a cache line's boundary, zero at first, as many as were ever asked for.
#[derive(Debug, Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

/// A cache line.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(super) struct Line([u8; 64]);

/// Zeroed lines for `len` bytes, which take memory only where they are touched. Nothing where there is
/// none.
pub(super) fn lines(len: usize) -> Option<Vec<Line>> {
    let count = len.div_ceil(size_of::<Line>());
    if count == 0 {
        return Some(Vec::new());
    }
    let layout = Layout::array::<Line>(count).ok()?;
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) }.cast::<Line>();
    // SAFETY: the global allocator gave that many lines, and zeros are lines.
    (!start.is_null()).then(|| unsafe { Vec::from_raw_parts(start, count, count) })
}

impl Scratch {
    /// Makes room for `len` bytes; keeps nothing of what it held where it must grow.
    pub fn ensure(&mut self, len: usize) {
        if len > size_of_val(self.lines.as_slice()) {
            self.lines = lines(len).unwrap_or_else(|| panic!("no memory for {len} bytes of scratch"));
        }
    }

    /// All of it.
    pub fn view(&mut self) -> View<'_> {
        let len = size_of_val(self.lines.as_slice());
        // SAFETY: the vector owns `len` plain bytes, borrowed for as long as the view lives.
        unsafe { View::from_raw(self.lines.as_mut_ptr().cast(), len) }
    }
}
