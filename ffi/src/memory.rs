//! What C points at, as slices: never null, aligned, of a length that exists, input and output apart.

use std::ffi::c_void;
use std::slice::{from_raw_parts, from_raw_parts_mut};

use kolo_core::{Element, Error, Result};

/// A pointer and a number of elements, checked.
pub(crate) struct Stretch<T> {
    what: &'static str,
    start: *mut T,
    len: usize,
}

impl<T: Element> Stretch<T> {
    /// `what` names it in errors. Null is fine where there are no elements.
    pub(crate) fn new(what: &'static str, start: *const c_void, count: u64) -> Result<Self> {
        let bytes = usize::try_from(count).ok().and_then(|len| len.checked_mul(size_of::<T>()));
        let Some(bytes) = bytes.filter(|&bytes| isize::try_from(bytes).is_ok()) else {
            let text = format!("{what}: {count} elements of {} do not fit the address space", T::DTYPE);
            return Err(Error::usage(text));
        };
        let len = bytes / size_of::<T>();
        let start = start.cast_mut().cast::<T>();
        if len == 0 {
            return Ok(Self { what, start: std::ptr::dangling_mut(), len });
        }
        if start.is_null() {
            return Err(Error::usage(format!("{what} is null, but has {count} elements")));
        }
        if !start.is_aligned() {
            let text =
                format!("{what} ({start:p}) is not aligned to {}, as {} is", align_of::<T>(), T::DTYPE);
            return Err(Error::usage(text));
        }
        Ok(Self { what, start, len })
    }

    /// Whether both are the very same elements.
    pub(crate) fn is(&self, other: &Self) -> bool {
        self.len > 0 && self.start == other.start && self.len == other.len
    }

    /// Whether this is a rank's block of the other.
    pub(crate) fn is_block(&self, other: &Self, rank: usize) -> bool {
        self.len > 0 && self.start == other.start.wrapping_add(rank * self.len)
    }

    /// Refuses stretches that share a byte.
    pub(crate) fn apart(&self, other: &Self) -> Result<()> {
        let end = |stretch: &Self| stretch.start.wrapping_add(stretch.len);
        let shared = self.len > 0 && other.len > 0 && self.start < end(other) && other.start < end(self);
        match shared {
            false => Ok(()),
            true => Err(Error::usage(format!("{} and {} overlap", self.what, other.what))),
        }
    }

    /// # Safety
    /// The elements are there and nobody writes them while the slice lives.
    pub(crate) unsafe fn read<'a>(self) -> &'a [T] {
        // SAFETY: not null, aligned, of a possible length; the rest is the caller's promise.
        unsafe { from_raw_parts(self.start, self.len) }
    }

    /// # Safety
    /// The elements are there and nobody else touches them while the slice lives.
    pub(crate) unsafe fn write<'a>(self) -> &'a mut [T] {
        // SAFETY: as above.
        unsafe { from_raw_parts_mut(self.start, self.len) }
    }
}

/// `count` for each of `ranks` ranks.
pub(crate) fn for_each(count: u64, ranks: usize) -> Result<u64> {
    let all = count.checked_mul(ranks as u64);
    all.ok_or_else(|| Error::usage(format!("{count} elements for each of {ranks} ranks are too many")))
}

/// One count per rank, and their sum.
///
/// # Safety
/// `ranks` counts are there, unless the pointer is null.
pub(crate) unsafe fn counts(what: &str, start: *const u64, ranks: usize) -> Result<(Vec<usize>, u64)> {
    if start.is_null() || !start.is_aligned() {
        return Err(Error::usage(format!("{what} is null or not aligned: it takes one count per rank")));
    }
    // SAFETY: the caller's promise.
    let counts = unsafe { from_raw_parts(start, ranks) };
    let sum = counts.iter().try_fold(0u64, |sum, &count| sum.checked_add(count));
    let sizes: Result<Vec<usize>, _> = counts.iter().map(|&count| count.try_into()).collect();
    match (sum, sizes) {
        (Some(sum), Ok(sizes)) => Ok((sizes, sum)),
        _ => Err(Error::usage(format!("{what}: the sum of the counts does not fit the address space"))),
    }
}

/// A rank that C passes as an int.
pub(crate) fn rank(what: &str, rank: i32) -> Result<usize> {
    usize::try_from(rank).map_err(|_| Error::usage(format!("{what} is {rank}: ranks count from 0")))
}
