//! Bytes that may be seen from several sides at once.

use std::marker::PhantomData;
use std::ops::Range;

/// A stretch of bytes that other views, other threads or other processes may see as well.
///
/// In place, input and output are the same memory; a slot of a shared ring is seen by two processes.
/// So views hand out no references, only addresses, and only kernels and transports touch the bytes.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    start: *mut u8,
    len: usize,
    writable: bool,
    streamed: bool,
    memory: PhantomData<&'a ()>,
}

impl<'a> View<'a> {
    /// Bytes to read.
    pub fn read(bytes: &'a [u8]) -> Self {
        Self::of(bytes.as_ptr().cast_mut(), bytes.len(), false)
    }

    /// Bytes to read and write.
    pub fn write(bytes: &'a mut [u8]) -> Self {
        Self::of(bytes.as_mut_ptr(), bytes.len(), true)
    }

    /// Bytes to read and write, by address.
    ///
    /// # Safety
    /// `start .. start + len` must be readable and writable for `'a`, and whoever else may touch it
    /// meanwhile must be kept apart by a protocol.
    pub unsafe fn from_raw(start: *mut u8, len: usize) -> Self {
        Self::of(start, len, true)
    }

    fn of(start: *mut u8, len: usize, writable: bool) -> Self {
        Self { start, len, writable, streamed: false, memory: PhantomData }
    }

    /// No bytes.
    pub fn empty() -> Self {
        Self::read(&[])
    }

    /// The same bytes, not to be written.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { writable: false, ..self }
    }

    /// The same bytes; as a destination, to be written past the caches.
    ///
    /// For results that nobody reads before they have left the caches anyway: a line written whole is
    /// not fetched first, a third less traffic for a copy. Kernels heed it from a few KiB up, where the
    /// processor has such stores; elsewhere, and for sources, it means nothing.
    #[must_use]
    pub fn streamed(self) -> Self {
        Self { streamed: true, ..self }
    }

    /// How many bytes.
    pub fn len(self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    /// Whether it may be written.
    pub fn is_writable(self) -> bool {
        self.writable
    }

    /// Whether it is to be written past the caches.
    pub fn is_streamed(self) -> bool {
        self.streamed
    }

    /// The first byte's address.
    pub fn as_ptr(self) -> *mut u8 {
        self.start
    }

    /// A part of it.
    ///
    /// # Panics
    /// Where the range leaves the view.
    #[must_use]
    #[inline]
    pub fn part(self, range: Range<usize>) -> Self {
        if range.start > range.end || range.end > self.len {
            out_of_view(range, self.len);
        }
        Self { start: self.start.wrapping_add(range.start), len: range.len(), ..self }
    }

    /// Whether both begin at the same byte.
    pub fn same_place(self, other: Self) -> bool {
        self.start == other.start
    }
}

#[cold]
fn out_of_view(range: Range<usize>, len: usize) -> ! {
    panic!("{range:?} of {len} bytes");
}
