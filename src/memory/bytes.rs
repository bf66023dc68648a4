//! Elements as bytes.

use std::alloc::{Layout, alloc_zeroed, handle_alloc_error};
use std::slice::{from_raw_parts, from_raw_parts_mut};

use crate::dtype::Element;

/// The bytes of some elements.
pub fn as_bytes<T: Element>(elements: &[T]) -> &[u8] {
    // SAFETY: elements (a sealed trait) are plain numbers without padding; the bytes live as long.
    unsafe { from_raw_parts(elements.as_ptr().cast(), size_of_val(elements)) }
}

/// The bytes of some elements, to be written: any bit pattern is a value.
pub fn as_bytes_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    // SAFETY: as above, borrowed exclusively, and no bytes that are written can make a bad element.
    unsafe { from_raw_parts_mut(elements.as_mut_ptr().cast(), size_of_val(elements)) }
}

/// `count` zeros. Large ones cost nothing before they are touched.
///
/// # Panics
/// Where so many do not fit the address space.
pub fn zeroed<T: Element>(count: usize) -> Vec<T> {
    let layout = Layout::array::<T>(count).expect("a length that fits the address space");
    if layout.size() == 0 {
        return Vec::new();
    }
    // SAFETY: the layout is not empty.
    let start = unsafe { alloc_zeroed(layout) };
    if start.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: just allocated for exactly `count` elements; all bits zero is an element.
    unsafe { Vec::from_raw_parts(start.cast(), count, count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_the_elements() {
        let mut elements = zeroed::<u16>(3);
        as_bytes_mut(&mut elements)[2..4].copy_from_slice(&0x1234u16.to_ne_bytes());
        assert_eq!(elements, [0, 0x1234, 0]);
        assert_eq!(as_bytes(&elements).len(), 6);
        assert!(as_bytes(&zeroed::<f64>(0)).is_empty());
    }
}
