//! One flat, cache-line-aligned array for all tensors of a kind: parameters, gradients, moments. A bucket of
//! gradients or a shard of the optimizer's state is a slice of it.

use std::ops::{Deref, DerefMut};

use crate::math::Real;

/// Elements that tensors' beginnings are multiples of: a cache line of f32.
pub(crate) const ALIGNMENT: usize = 16;

/// `len` elements, the first on a cache line, all zero at first.
pub(crate) struct Arena<R> {
    storage: Vec<R>,
    start: usize,
    len: usize,
}

impl<R: Real> Arena<R> {
    /// All zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let storage = vec![R::ZERO; len + ALIGNMENT];
        let start = storage.as_ptr().align_offset(ALIGNMENT * size_of::<f32>()).min(ALIGNMENT);
        Self { storage, start, len }
    }
}

impl<R> Deref for Arena<R> {
    type Target = [R];

    fn deref(&self) -> &[R] {
        &self.storage[self.start..][..self.len]
    }
}

impl<R> DerefMut for Arena<R> {
    fn deref_mut(&mut self) -> &mut [R] {
        &mut self.storage[self.start..][..self.len]
    }
}
