//! A lock for what is done in a moment: who comes while another has it looks again and again.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// How often one looks before one lets others have the core.
const LOOKS: u32 = 64;

/// See the module. It is taken by one atomic exchange and given back by a store, where a mutex takes two exchanges.
pub(super) struct Turn<T> {
    taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: one thread at a time reaches the value.
unsafe impl<T: Send> Sync for Turn<T> {}

/// The turn, until it is dropped.
pub(super) struct Taken<'a, T>(&'a Turn<T>);

impl<T> Turn<T> {
    pub(super) fn new(value: T) -> Self {
        Self { taken: AtomicBool::new(false), value: UnsafeCell::new(value) }
    }

    #[inline]
    pub(super) fn take(&self) -> Taken<'_, T> {
        if self.taken.swap(true, Ordering::Acquire) {
            self.wait();
        }
        Taken(self)
    }

    #[cold]
    fn wait(&self) {
        let mut looked = 0;
        while self.taken.load(Ordering::Relaxed) || self.taken.swap(true, Ordering::Acquire) {
            looked += 1;
            if looked % LOOKS == 0 {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: whoever has the turn is alone.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as above.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Taken<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.0.taken.store(false, Ordering::Release);
    }
}
