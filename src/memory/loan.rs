//! Borrowed slices that another thread works on, and a scope that waits for their return.

use std::marker::PhantomData;
use std::sync::{Arc, Condvar, Mutex};

use super::{View, as_bytes, as_bytes_mut};
use crate::dtype::Element;

/// Counts the loans that are out.
#[derive(Debug, Default)]
struct Count {
    out: Mutex<usize>,
    all_back: Condvar,
}

/// The lender: gives out slices that live longer than the scope.
#[derive(Debug)]
pub struct Loans<'env> {
    count: Arc<Count>,
    /// Invariant, as `std::thread::Scope` is.
    slices: PhantomData<&'env mut &'env ()>,
}

/// A slice lent; dropping it gives it back.
#[derive(Debug)]
pub struct Loan {
    view: View<'static>,
    count: Arc<Count>,
}

// SAFETY: the slice is borrowed until the loan is dropped, by whichever thread holds it; elements are
// plain bytes.
unsafe impl Send for Loan {}

impl Loan {
    /// The lent bytes.
    pub fn view(&mut self) -> View<'_> {
        self.view
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        let mut out = self.count.out.lock().unwrap_or_else(|poison| poison.into_inner());
        *out -= 1;
        if *out == 0 {
            self.count.all_back.notify_all();
        }
    }
}

/// Runs `f` and returns when every loan it made has come back, even if it panics.
pub fn with_loans<'env, R>(f: impl FnOnce(&Loans<'env>) -> R) -> R {
    struct WaitForAll(Arc<Count>);
    impl Drop for WaitForAll {
        fn drop(&mut self) {
            let mut out = self.0.out.lock().unwrap_or_else(|poison| poison.into_inner());
            while *out > 0 {
                out = self.0.all_back.wait(out).unwrap_or_else(|poison| poison.into_inner());
            }
        }
    }
    let count = Arc::<Count>::default();
    let _wait = WaitForAll(count.clone());
    f(&Loans { count, slices: PhantomData })
}

impl<'env> Loans<'env> {
    /// Lends elements to be read.
    pub fn read<T: Element>(&self, elements: &'env [T]) -> Loan {
        self.lend(View::read(as_bytes(elements)))
    }

    /// Lends elements to be read and written.
    pub fn write<T: Element>(&self, elements: &'env mut [T]) -> Loan {
        self.lend(View::write(as_bytes_mut(elements)))
    }

    fn lend(&self, view: View<'env>) -> Loan {
        *self.count.out.lock().unwrap_or_else(|poison| poison.into_inner()) += 1;
        // SAFETY: `with_loans` does not return before this loan is dropped, and 'env outlives it.
        let view = unsafe { std::mem::transmute::<View<'env>, View<'static>>(view) };
        Loan { view, count: self.count.clone() }
    }
}
