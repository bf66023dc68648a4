//! Buffers that stay where they are.

use std::cell::{OnceCell, UnsafeCell};

/// Zeroed bytes from a cache line's boundary on, taken from the system when first used, touched only
/// where they are used, and reached by address.
pub(super) struct Room {
    bytes: OnceCell<Box<[UnsafeCell<u8>]>>,
    len: usize,
}

impl Room {
    const LINE: usize = 64;

    pub(super) fn new(len: usize) -> Self {
        Self { bytes: OnceCell::new(), len }
    }

    /// The address of byte `at`; from there on, `len - at` bytes belong to this room.
    pub(super) fn at(&self, at: usize) -> *mut u8 {
        assert!(at <= self.len);
        let bytes = self.bytes.get_or_init(|| {
            let zeros = Box::into_raw(vec![0u8; self.len + Self::LINE].into_boxed_slice());
            // SAFETY: `UnsafeCell<u8>` has the layout of `u8`, and the box is ours.
            unsafe { Box::from_raw(zeros as *mut [UnsafeCell<u8>]) }
        });
        let start = UnsafeCell::raw_get(bytes.as_ptr());
        start.wrapping_add(start.align_offset(Self::LINE) + at)
    }

    /// Whether `address` lies in it.
    pub(super) fn holds(&self, address: *const u8) -> bool {
        self.bytes.get().is_some_and(|bytes| bytes.as_ptr_range().contains(&address.cast()))
    }
}
