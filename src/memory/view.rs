//! Bytes that may be seen from several sides at once.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;

/// A stretch of bytes that other views, other threads or other processes may see as well.
///
/// In place, input and output are the same memory; a slot of a shared ring is seen by two processes.
/// So views hand out no references, only addresses, and only kernels and transports touch the bytes.
///
/// Two words, so that calls hand it on in registers.
#[derive(Clone, Copy)]
pub struct View<'a> {
    start: *mut u8,
    /// The number of bytes, which is less than 2⁶¹, and above it [`WRITABLE`], [`STREAMED`] and [`CLAIMED`].
    len: usize,
    memory: PhantomData<&'a ()>,
}

const WRITABLE: usize = 1 << (usize::BITS - 1);
const STREAMED: usize = 1 << (usize::BITS - 2);
const CLAIMED: usize = 1 << (usize::BITS - 3);
const MARKS: usize = WRITABLE | STREAMED | CLAIMED;

impl<'a> View<'a> {
    /// Bytes to read.
    #[inline]
    pub fn read(bytes: &'a [u8]) -> Self {
        Self { start: bytes.as_ptr().cast_mut(), len: bytes.len(), memory: PhantomData }
    }

    /// Bytes to read and write.
    #[inline]
    pub fn write(bytes: &'a mut [u8]) -> Self {
        Self { start: bytes.as_mut_ptr(), len: bytes.len() | WRITABLE, memory: PhantomData }
    }

    /// Bytes to read and write, by address.
    ///
    /// # Safety
    /// `start .. start + len` must be readable and writable for `'a`, and whoever else may touch it
    /// meanwhile must be kept apart by a protocol.
    #[inline]
    pub unsafe fn from_raw(start: *mut u8, len: usize) -> Self {
        Self { start, len: len & !MARKS | WRITABLE, memory: PhantomData }
    }

    /// No bytes.
    pub fn empty() -> Self {
        Self::read(&[])
    }

    /// The same bytes, not to be written.
    #[must_use]
    pub fn read_only(self) -> Self {
        Self { len: self.len & !WRITABLE, ..self }
    }

    /// The same bytes; as a destination, to be written past the caches.
    ///
    /// For results that nobody reads before they have left the caches anyway: a line written whole is
    /// not fetched first, a third less traffic for a copy. Kernels heed it from a few KiB up, where the
    /// processor has such stores; elsewhere, and for sources, it means nothing.
    #[must_use]
    pub fn streamed(self) -> Self {
        Self { len: self.len | STREAMED, ..self }
    }

    /// The same bytes; as a source, to be stored to as they are read. What lies there then is of no use.
    ///
    /// For what another core has written and will write again: a line that this core has only read takes that
    /// core several times as long to overwrite as one that this core has stored. Kernels heed it; elsewhere,
    /// and for destinations, it means nothing.
    #[must_use]
    pub fn claimed(self) -> Self {
        Self { len: self.len | CLAIMED, ..self }
    }

    /// How many bytes.
    #[inline]
    pub fn len(self) -> usize {
        self.len & !MARKS
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Whether it is neither claimed nor streamed.
    #[inline]
    pub fn is_plain(self) -> bool {
        self.len & (STREAMED | CLAIMED) == 0
    }

    /// Whether it may be written.
    pub fn is_writable(self) -> bool {
        self.len & WRITABLE != 0
    }

    /// Whether it is to be written past the caches.
    pub fn is_streamed(self) -> bool {
        self.len & STREAMED != 0
    }

    /// Whether it is to be stored to as it is read.
    pub fn is_claimed(self) -> bool {
        self.len & CLAIMED != 0
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
    #[inline(always)]
    pub fn part(self, range: Range<usize>) -> Self {
        if range.start > range.end || range.end > self.len() {
            out_of_view(range, self.len());
        }
        let len = (range.end - range.start) | self.len & MARKS;
        Self { start: self.start.wrapping_add(range.start), len, ..self }
    }

    /// Whether both begin at the same byte.
    pub fn same_place(self, other: Self) -> bool {
        self.start == other.start
    }
}

impl fmt::Debug for View<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at {:p}", self.len(), self.start)
    }
}

#[cold]
fn out_of_view(range: Range<usize>, len: usize) -> ! {
    panic!("{range:?} of {len} bytes");
}
