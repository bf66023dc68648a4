//! Memory that a non-blocking call can own while it works.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::scratch::lines;
use super::{Part, View};
use crate::dtype::Element;

/// Elements that are handed to a non-blocking call and come back when it is done.
///
/// A buffer splits into parts that are owned one by one (a bucket of gradients each, say) and rejoins.
pub struct Buffer<T: Element> {
    storage: Arc<Storage>,
    start: *mut T,
    len: usize,
    elements: PhantomData<T>,
}

/// The memory below a buffer and its parts; freed with the last of them.
struct Storage {
    /// What frees the memory when it is dropped.
    _owner: Box<dyn Any + Send + Sync>,
}

// SAFETY: a buffer is the only way to its stretch of the storage, as a `Box<[T]>` is to its memory.
unsafe impl<T: Element> Send for Buffer<T> {}
// SAFETY: as for Send; a shared buffer only gives shared slices.
unsafe impl<T: Element> Sync for Buffer<T> {}

impl<T: Element> Buffer<T> {
    /// A buffer over memory that `owner` keeps alive and nobody else touches.
    ///
    /// # Safety
    /// `start .. start + len` must be aligned, hold plain elements, stay where it is while `owner` lives,
    /// and be reached through this buffer only.
    unsafe fn over(owner: Box<dyn Any + Send + Sync>, start: *mut T, len: usize) -> Self {
        Self { storage: Arc::new(Storage { _owner: owner }), start, len, elements: PhantomData }
    }

    /// `count` zeros, aligned to a cache line; nothing where there is no memory for them.
    pub(crate) fn zeroed(count: usize) -> Option<Self> {
        let mut lines = lines(count.checked_mul(size_of::<T>())?)?;
        let start = lines.as_mut_ptr().cast();
        // SAFETY: the vector's heap memory holds that many plain elements, does not move with the vector,
        // and only this buffer knows it.
        Some(unsafe { Self::over(Box::new(lines), start, count) })
    }

    /// This rank's part of an allocation, of `count` elements.
    pub(crate) fn of_part(part: Part, count: usize) -> Self {
        let bytes = part.view();
        assert_eq!(bytes.len(), count * size_of::<T>());
        let start = bytes.as_ptr().cast();
        // Only this buffer knows it, and peers touch it only while a call that has borrowed the buffer lends it.
        // SAFETY: mapped as long as the part lives, from a page's boundary on; plain elements, zeros at first.
        unsafe { Self::over(Box::new(part), start, count) }
    }

    /// The first `middle` elements and the rest, each to be owned alone.
    ///
    /// # Panics
    /// Where `middle` is past the end.
    pub fn split_at(self, middle: usize) -> (Self, Self) {
        assert!(middle <= self.len, "split at {middle} of {} elements", self.len);
        let right = Self {
            storage: self.storage.clone(),
            start: self.start.wrapping_add(middle),
            len: self.len - middle,
            elements: PhantomData,
        };
        (Self { len: middle, ..self }, right)
    }

    /// Joins two parts that lie side by side, as [`Buffer::split_at`] left them; else gives both back.
    pub fn join(self, right: Self) -> Result<Self, (Self, Self)> {
        let adjacent =
            Arc::ptr_eq(&self.storage, &right.storage) && self.start.wrapping_add(self.len) == right.start;
        match adjacent {
            true => Ok(Self { len: self.len + right.len, ..self }),
            false => Err((self, right)),
        }
    }

    /// Its bytes, to be worked on.
    pub(crate) fn view(&mut self) -> View<'_> {
        // SAFETY: the buffer is the only way to these elements and is borrowed as long as the view lives.
        unsafe { View::from_raw(self.start.cast(), self.len * size_of::<T>()) }
    }
}

impl<T: Element> From<Vec<T>> for Buffer<T> {
    fn from(mut elements: Vec<T>) -> Self {
        let (start, len) = (elements.as_mut_ptr(), elements.len());
        // SAFETY: the vector's heap memory does not move with the vector, and only this buffer knows it.
        unsafe { Self::over(Box::new(elements), start, len) }
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `over` promised plain elements there, reached through this buffer only.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

impl<T: Element> fmt::Debug for Buffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} x {})", self.len, T::DTYPE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_owned_alone_and_rejoin_in_order_only() {
        let (mut left, right) = Buffer::from(vec![1u32, 2, 3, 4, 5]).split_at(2);
        let (middle, last) = right.split_at(2);
        left[0] = 10;
        let (left, last) = left.join(last).unwrap_err();
        let whole = left.join(middle).unwrap().join(last).unwrap();
        assert_eq!(&*whole, [10, 2, 3, 4, 5]);
        let stranger = Buffer::from(vec![6u32]);
        assert!(whole.join(stranger).is_err());
    }
}
