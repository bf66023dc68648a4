//! Non-blocking calls on memory that they borrow.

use super::Communicator;
use super::ask::Ask;
use super::work::Work;
use crate::dtype::Element;
use crate::error::Result;
use crate::memory::{Loan, Loans, with_loans};
use crate::op::ReduceOp;

impl Communicator {
    /// Starts works on borrowed slices; returns when all of them are done, with the first error if one
    /// failed.
    ///
    /// ```
    /// # let mut communicator = kolo::Communicator::local(1)?.remove(0);
    /// let (mut gradients, mut norm) = ([1.0f32; 64], [0.5f64]);
    /// communicator.scope(|scope| {
    ///     scope.all_reduce(&mut gradients, kolo::ReduceOp::Average)?;
    ///     scope.all_reduce(&mut norm, kolo::ReduceOp::Sum)?;
    ///     // ... something useful meanwhile ...
    ///     Ok(())
    /// })?;
    /// # Ok::<(), kolo::Error>(())
    /// ```
    pub fn scope<'env, R>(&mut self, f: impl FnOnce(&mut Scope<'_, 'env>) -> Result<R>) -> Result<R> {
        with_loans(|loans| {
            let mut scope = Scope { communicator: self, loans, works: Vec::new() };
            let result = f(&mut scope);
            scope.finish().and(result)
        })
    }
}

/// Starts works on slices that are borrowed until [`Communicator::scope`] returns.
pub struct Scope<'scope, 'env> {
    communicator: &'scope mut Communicator,
    loans: &'scope Loans<'env>,
    works: Vec<Outstanding>,
}

enum Outstanding {
    One(Work<Loan>),
    Two(Work<(Loan, Loan)>),
}

/// See the call of the same name of [`Communicator`] for lengths and meaning.
impl<'env> Scope<'_, 'env> {
    /// See [`Communicator::all_reduce_in_place`].
    pub fn all_reduce<T: Element>(&mut self, data: &'env mut [T], op: ReduceOp<T>) -> Result<()> {
        let ask = Ask::all_reduce(self.communicator.place(), data.len(), data.len(), &op)?;
        self.one(ask, self.loans.write(data))
    }

    /// See [`Communicator::reduce_scatter`].
    pub fn reduce_scatter<T: Element>(
        &mut self,
        input: &'env [T],
        output: &'env mut [T],
        op: ReduceOp<T>,
    ) -> Result<()> {
        let ask = Ask::reduce_scatter(self.communicator.place(), input.len(), output.len(), &op)?;
        self.two(ask, input, output)
    }

    /// See [`Communicator::reduce_scatter_v`].
    pub fn reduce_scatter_v<T: Element>(
        &mut self,
        input: &'env [T],
        output: &'env mut [T],
        counts: &[usize],
        op: ReduceOp<T>,
    ) -> Result<()> {
        let place = self.communicator.place();
        self.two(Ask::reduce_scatter_v(place, input.len(), output.len(), counts, &op)?, input, output)
    }

    /// See [`Communicator::all_gather`].
    pub fn all_gather<T: Element>(&mut self, input: &'env [T], output: &'env mut [T]) -> Result<()> {
        self.two(Ask::all_gather::<T>(self.communicator.place(), input.len(), output.len())?, input, output)
    }

    /// See [`Communicator::all_gather_v`].
    pub fn all_gather_v<T: Element>(
        &mut self,
        input: &'env [T],
        output: &'env mut [T],
        counts: &[usize],
    ) -> Result<()> {
        let place = self.communicator.place();
        self.two(Ask::all_gather_v::<T>(place, input.len(), output.len(), counts)?, input, output)
    }

    /// See [`Communicator::broadcast`].
    pub fn broadcast<T: Element>(&mut self, data: &'env mut [T], root: usize) -> Result<()> {
        let ask = Ask::broadcast::<T>(self.communicator.place(), data.len(), root)?;
        self.one(ask, self.loans.write(data))
    }

    /// See [`Communicator::reduce`].
    pub fn reduce<T: Element>(
        &mut self,
        input: &'env [T],
        output: &'env mut [T],
        op: ReduceOp<T>,
        root: usize,
    ) -> Result<()> {
        let place = self.communicator.place();
        self.two(Ask::reduce(place, input.len(), output.len(), &op, root)?, input, output)
    }

    /// See [`Communicator::gather`].
    pub fn gather<T: Element>(&mut self, input: &'env [T], output: &'env mut [T], root: usize) -> Result<()> {
        let place = self.communicator.place();
        self.two(Ask::gather::<T>(place, input.len(), output.len(), root)?, input, output)
    }

    /// See [`Communicator::gather_v`].
    pub fn gather_v<T: Element>(
        &mut self,
        input: &'env [T],
        output: &'env mut [T],
        counts: &[usize],
        root: usize,
    ) -> Result<()> {
        let place = self.communicator.place();
        self.two(Ask::gather_v::<T>(place, input.len(), output.len(), counts, root)?, input, output)
    }

    /// See [`Communicator::scatter`].
    pub fn scatter<T: Element>(
        &mut self,
        input: &'env [T],
        output: &'env mut [T],
        root: usize,
    ) -> Result<()> {
        let place = self.communicator.place();
        self.two(Ask::scatter::<T>(place, input.len(), output.len(), root)?, input, output)
    }

    /// See [`Communicator::scatter_v`].
    pub fn scatter_v<T: Element>(
        &mut self,
        input: &'env [T],
        counts: &[usize],
        output: &'env mut [T],
        root: usize,
    ) -> Result<()> {
        let place = self.communicator.place();
        self.two(Ask::scatter_v::<T>(place, input.len(), counts, output.len(), root)?, input, output)
    }

    /// See [`Communicator::all_to_all`].
    pub fn all_to_all<T: Element>(&mut self, input: &'env [T], output: &'env mut [T]) -> Result<()> {
        self.two(Ask::all_to_all::<T>(self.communicator.place(), input.len(), output.len())?, input, output)
    }

    /// See [`Communicator::all_to_all_v`].
    pub fn all_to_all_v<T: Element>(
        &mut self,
        input: &'env [T],
        send_counts: &[usize],
        output: &'env mut [T],
        recv_counts: &[usize],
    ) -> Result<()> {
        let place = self.communicator.place();
        let ask = Ask::all_to_all_v::<T>(place, input.len(), send_counts, output.len(), recv_counts)?;
        self.two(ask, input, output)
    }

    /// See [`Communicator::send`].
    pub fn send<T: Element>(&mut self, data: &'env [T], to: usize) -> Result<()> {
        let ask = Ask::message::<T>(self.communicator.place(), Some(to), data.len(), None, 0)?;
        self.one(ask, self.loans.read(data))
    }

    /// See [`Communicator::recv`].
    pub fn recv<T: Element>(&mut self, data: &'env mut [T], from: usize) -> Result<()> {
        let ask = Ask::message::<T>(self.communicator.place(), None, 0, Some(from), data.len())?;
        self.one(ask, self.loans.write(data))
    }

    /// See [`Communicator::send_recv`].
    pub fn send_recv<T: Element>(
        &mut self,
        data: &'env [T],
        to: usize,
        into: &'env mut [T],
        from: usize,
    ) -> Result<()> {
        let place = self.communicator.place();
        self.two(Ask::message::<T>(place, Some(to), data.len(), Some(from), into.len())?, data, into)
    }

    fn two<T: Element>(&mut self, ask: Ask, input: &'env [T], output: &'env mut [T]) -> Result<()> {
        let pair = (self.loans.read(input), self.loans.write(output));
        self.works.push(Outstanding::Two(self.communicator.start(ask, pair)?));
        Ok(())
    }

    fn one(&mut self, ask: Ask, data: Loan) -> Result<()> {
        self.works.push(Outstanding::One(self.communicator.start(ask, data)?));
        Ok(())
    }

    fn finish(self) -> Result<()> {
        let outcomes = self.works.into_iter().map(|work| match work {
            Outstanding::One(work) => work.wait().map(drop),
            Outstanding::Two(work) => work.wait().map(drop),
        });
        // All are waited for, whatever became of the first.
        outcomes.fold(Ok(()), Result::and)
    }
}
