//! Memory of the engine's own.

use super::View;

/// Bytes on a cache line's boundary, zero at first, as many as were ever asked for.
#[derive(Debug, Default)]
pub struct Scratch {
    lines: Vec<Line>,
}

#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
struct Line([u8; 64]);

impl Scratch {
    /// Makes room for `len` bytes; keeps nothing of what it held where it must grow.
    pub fn ensure(&mut self, len: usize) {
        let lines = len.div_ceil(size_of::<Line>());
        if lines > self.lines.len() {
            self.lines = vec![Line([0; 64]); lines];
        }
    }

    /// All of it.
    pub fn view(&mut self) -> View<'_> {
        let len = size_of_val(self.lines.as_slice());
        // SAFETY: the vector owns `len` plain bytes, borrowed for as long as the view lives.
        unsafe { View::from_raw(self.lines.as_mut_ptr().cast(), len) }
    }
}
