//! Calls that run while their caller does something else.

use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context as TaskContext, Poll, Waker};

use super::ask::Ask;
use crate::dtype::Element;
use crate::error::Result;
use crate::memory::{Buffer, Loan, View};

/// A call under way. It owns the memory that it works on and gives it back at its end.
///
/// Works of one communicator run in the order in which they were started. Dropping a work does not stop
/// it; it only lets go of its memory when it is done. It can be awaited.
#[must_use = "a work's outcome is known only by waiting for it"]
pub struct Work<R> {
    outcome: Arc<Outcome<R>>,
}

struct Outcome<R> {
    state: Mutex<State<R>>,
    done: Condvar,
}

struct State<R> {
    result: Option<Result<R>>,
    waker: Option<Waker>,
}

impl<R> Outcome<R> {
    fn lock(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(|poison| poison.into_inner())
    }
}

impl<R> Work<R> {
    /// Waits until the call is done; gives its memory back.
    pub fn wait(self) -> Result<R> {
        let mut state = self.outcome.lock();
        loop {
            if let Some(result) = state.result.take() {
                return result;
            }
            state = self.outcome.done.wait(state).unwrap_or_else(|poison| poison.into_inner());
        }
    }

    /// Whether the call is done, so that [`Work::wait`] returns at once.
    pub fn test(&self) -> bool {
        self.outcome.lock().result.is_some()
    }
}

/// A work, awaited.
pub struct Awaited<R>(Work<R>);

impl<R> Future for Awaited<R> {
    type Output = Result<R>;

    fn poll(self: Pin<&mut Self>, context: &mut TaskContext<'_>) -> Poll<Result<R>> {
        let mut state = self.0.outcome.lock();
        match state.result.take() {
            Some(result) => Poll::Ready(result),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<R> IntoFuture for Work<R> {
    type Output = Result<R>;
    type IntoFuture = Awaited<R>;

    fn into_future(self) -> Awaited<R> {
        Awaited(self)
    }
}

/// Memory that a work holds: input and output; the same where it works in place.
pub(super) trait Held: Send + 'static {
    fn views(&mut self) -> (View<'_>, View<'_>);
}

impl Held for () {
    fn views(&mut self) -> (View<'_>, View<'_>) {
        (View::empty(), View::empty())
    }
}

impl<T: Element> Held for Buffer<T> {
    fn views(&mut self) -> (View<'_>, View<'_>) {
        let view = self.view();
        (view, view)
    }
}

impl Held for Loan {
    fn views(&mut self) -> (View<'_>, View<'_>) {
        let view = self.view();
        (view, view)
    }
}

impl<T: Element> Held for (Buffer<T>, Buffer<T>) {
    fn views(&mut self) -> (View<'_>, View<'_>) {
        (self.0.view(), self.1.view())
    }
}

impl Held for (Loan, Loan) {
    fn views(&mut self) -> (View<'_>, View<'_>) {
        (self.0.view(), self.1.view())
    }
}

/// A call that waits for the progress thread, or is with it.
pub(super) struct Task {
    pub(super) ask: Ask,
    pub(super) held: Box<dyn Finish>,
}

/// A work's memory and where its outcome goes.
pub(super) trait Finish: Send {
    fn views(&mut self) -> (View<'_>, View<'_>);
    fn finish(self: Box<Self>, result: Result<()>);
}

struct Pending<R> {
    held: R,
    outcome: Arc<Outcome<R>>,
}

impl<R: Held> Finish for Pending<R> {
    fn views(&mut self) -> (View<'_>, View<'_>) {
        self.held.views()
    }

    fn finish(self: Box<Self>, result: Result<()>) {
        let Self { held, outcome } = *self;
        let mut state = outcome.lock();
        state.result = Some(result.map(|()| held));
        let waker = state.waker.take();
        drop(state);
        outcome.done.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A task and the work that its caller gets.
pub(super) fn task<R: Held>(ask: Ask, held: R) -> (Task, Work<R>) {
    let state = Mutex::new(State { result: None, waker: None });
    let outcome = Arc::new(Outcome { state, done: Condvar::new() });
    (Task { ask, held: Box::new(Pending { held, outcome: outcome.clone() }) }, Work { outcome })
}
